"""Value, optimal indicator, case and conjugate of the perspective term, dense groups."""

from typing import NamedTuple

import torch
from torch import Tensor

from mipprune.perspective._checks import (
    Coefficient,
    Term,
    as_coefficient,
    coefficients_of_alpha,
    prepare,
    reject,
    require_broadcast,
)

CASE_RIDGE = 1
CASE_NORM = 2
CASE_BOUND = 3


class Projection(NamedTuple):
    """The minimiser over y of one batch of groups, in units of each group's largest entry.

    Values and indicators in cases 2 and 3 are homogeneous of degree one in w, so that
    working with w / max|w| keeps squares clear of underflow and overflow.

    Attributes
    ----------
    scale : Tensor, (..., G)
        max_i |w_i|, or one for a zero group; a constant for differentiation.
    square : Tensor, (..., G)
        ||w / scale||^2, or one for a zero group.
    free, lower : Tensor, (..., G)
        Unconstrained minimiser and lower limit of y, both divided by scale.
    zero, full : Tensor, (..., G), bool
        Groups with w = 0, and groups whose y is 1 (outside the box, or ridge large).
    on_bound : Tensor, (..., G), bool
        Groups with max_i |w_i| / M_i >= 1.
    """

    scale: Tensor
    square: Tensor
    free: Tensor
    lower: Tensor
    zero: Tensor
    full: Tensor
    on_bound: Tensor


def group_ratio(a: Tensor, b: Tensor) -> Tensor:
    """Return s = sqrt(a / b), the slope of the unconstrained y in ||w||; 0 where b = 0."""
    priced = b > 0
    return torch.where(priced, torch.sqrt(a / torch.where(priced, b, torch.ones_like(b))), 0)


def project(term: Term) -> Projection:
    """Locate the optimal y of every group."""
    magnitude = term.w.abs()
    largest = magnitude.detach().amax(-1)
    zero = largest == 0
    scale = torch.where(zero, torch.ones_like(largest), largest)
    unit = term.w / scale.unsqueeze(-1)
    square = (unit * unit).sum(-1)
    square = torch.where(zero, torch.ones_like(square), square)
    limit = (magnitude / term.big_m).amax(-1)
    free = group_ratio(term.a, term.b) * torch.sqrt(square)
    ridge = (free * scale >= 1) | (term.b == 0)
    # At limit == 1 inside the box the boundary still belongs to the convex piece: its
    # gradient, not that of case 1, is a subgradient of the boxed function there.
    full = ((limit > 1) | ridge) & ~zero
    on_bound = ((limit >= 1) | ridge) & ~zero
    return Projection(scale, square, free, limit / scale, zero, full, on_bound)


def _values(term: Term) -> Tensor:
    found = project(term)
    fixed = found.full | found.zero
    level = torch.where(fixed, 1, torch.maximum(found.free, found.lower))
    inner = found.scale * (term.a * found.square / level + term.b * level)
    ridge = found.scale * (found.scale * (term.a * found.square)) + term.b
    return torch.where(found.zero, 0, torch.where(found.full, ridge, inner))


def term_value(
    w: Tensor,
    a: Coefficient,
    b: Coefficient,
    big_m: Coefficient,
    *,
    valid: Tensor | None = None,
    check: bool = True,
) -> Tensor:
    r"""Minimum over the indicator of the perspective term, per group.

    .. math::

        z(w) = \min_y \; a \|w\|^2 / y + b y
        \quad\text{s.t.}\quad \max_i |w_i| / M_i \le y \le 1

    Outside the box (some \|w_i\| > M_i) it is continued by ``a ||w||^2 + b``, which is
    continuous but not convex there. Differentiable to any order away from kinks; the
    gradient at a kink is a subgradient of the boxed function: 0 at w = 0, the mean over
    tied entries, and at |w_i| = M_i the limit from inside.

    Parameters
    ----------
    w : Tensor, (..., G, n), floating point
        Groups of weights, one per row; zero padding contributes nothing.
    a, b : float or Tensor, broadcastable to (..., G)
        Ridge coefficient a > 0 and count coefficient b >= 0.
    big_m : float or Tensor, broadcastable to (..., G, n)
        Bounds M > 0 on |w|, possibly infinite, possibly different inside a group.
    valid : Tensor, bool, broadcastable to (..., G, n), optional
        False at padding, where neither ``w`` nor ``big_m`` is looked at.
    check : bool
        Whether to look for bad numbers (waits for the device on a GPU). Not possible
        inside ``torch.compile`` and ``torch.func.vmap``, where it is left out.

    Returns
    -------
    Tensor, (..., G), dtype of ``w``
        Computed in float32 for half precisions.

    Raises
    ------
    InputError
        Wrong type, dtype or shape, numbers that are not finite, a <= 0, b < 0, M <= 0.

    References
    ----------
    Cacciola, Frangioni, Li, Lodi, arXiv 2206.14056 (projected term); Frangioni, Gentile,
    Mathematical Programming 106 (2006) (perspective reformulation).

    Examples
    --------
    >>> import torch
    >>> from mipprune.perspective import term_value
    >>> term_value(torch.tensor([[0.3, 0.4], [0.6, 0.8]]), 0.5, 0.5, 2.0)
    tensor([0.5000, 1.0000])
    """
    return _values(prepare("w", w, a, b, big_m, valid, check)).to(w.dtype)


def term_indicator(
    w: Tensor,
    a: Coefficient,
    b: Coefficient,
    big_m: Coefficient,
    *,
    valid: Tensor | None = None,
    check: bool = True,
) -> Tensor:
    r"""Optimal indicator of the perspective term, per group.

    .. math::

        y^* = \min\{1, \max\{\max_i |w_i| / M_i, \sqrt{a / b}\, \|w\|\}\}

    Parameters and errors as in :func:`term_value`.

    Returns
    -------
    Tensor, (..., G), dtype of ``w``
        In [0, 1]; 0 for a zero group.
    """
    found = project(prepare("w", w, a, b, big_m, valid, check))
    level = found.scale * torch.maximum(found.free, found.lower)
    capped = torch.where(found.full, 1, torch.clamp(level, max=1))
    return torch.where(found.zero, 0, capped).to(w.dtype)


def term_case(
    w: Tensor,
    a: Coefficient,
    b: Coefficient,
    big_m: Coefficient,
    *,
    valid: Tensor | None = None,
    check: bool = True,
) -> Tensor:
    """Which of the three cases of the closed form holds, per group.

    Case 1: y = 1 (plain ridge plus b). Case 2: y = sqrt(a/b) ||w|| (a multiple of the
    norm; zero groups too). Case 3: y = max_i |w_i| / M_i (the bound is active).
    Tested in this order. Parameters and errors as in :func:`term_value`.

    Returns
    -------
    Tensor, (..., G), int8
        1, 2 or 3.
    """
    found = project(prepare("w", w, a, b, big_m, valid, check))
    norm = (found.lower <= found.free) | found.zero
    inside = torch.where(norm, CASE_NORM, CASE_BOUND)
    return torch.where(found.on_bound, CASE_RIDGE, inside).to(torch.int8)


def term_joint(w: Tensor, y: Tensor, a: Coefficient, b: Coefficient) -> Tensor:
    r"""The perspective term before the indicator is eliminated, per group.

    .. math::

        h(w, y) = a \|w\|^2 / y + b y, \qquad h(0, 0) = 0, \qquad h(w, 0) = \infty

    Parameters
    ----------
    w : Tensor, (..., G, n), floating point
        Groups of weights.
    y : Tensor, broadcastable to (..., G)
        Indicators in [0, 1].
    a, b : float or Tensor, broadcastable to (..., G)
        Ridge coefficient a > 0 and count coefficient b >= 0.

    Returns
    -------
    Tensor, (..., G), dtype of ``w``

    Raises
    ------
    InputError
        As :func:`term_value`, and for indicators outside [0, 1].
    """
    term = prepare("w", w, a, b, float("inf"), None, True)
    gate = as_coefficient("y", y, term.w)
    require_broadcast("y", gate, w.shape[:-1], "one indicator per group")
    reject((~((gate >= 0) & (gate <= 1)), "y has entries outside [0, 1]"))
    square = (term.w * term.w).sum(-1)
    open_gate = gate > 0
    ratio = square / torch.where(open_gate, gate, torch.ones_like(gate))
    closed = torch.where(square > 0, torch.full_like(square, float("inf")), 0)
    return torch.where(open_gate, term.a * ratio + term.b * gate, closed).to(w.dtype)


def term_conjugate(
    v: Tensor,
    a: Coefficient,
    b: Coefficient,
    big_m: Coefficient,
    *,
    valid: Tensor | None = None,
    check: bool = True,
) -> Tensor:
    r"""Convex conjugate of the boxed term, per group.

    .. math::

        z^*(v) = \max\Bigl\{0, \sum_i h_i(v_i) - b\Bigr\}, \qquad
        h_i(u) = \max_{|p| \le M_i} u p - a p^2
               = \begin{cases} u^2 / (4a) & |u| \le 2 a M_i \\
                               M_i |u| - a M_i^2 & \text{otherwise} \end{cases}

    This is the support function of the term over all feasible (w, y) at once, hence
    what a dual bound charges for a channel. Parameters and errors as in
    :func:`term_value`, with the dual vector ``v`` in place of ``w``.

    Returns
    -------
    Tensor, (..., G), dtype of ``v``
    """
    term = prepare("v", v, a, b, big_m, valid, check)
    ridge = term.a.unsqueeze(-1)
    free = term.w / (2 * ridge)
    point = torch.maximum(torch.minimum(free, term.big_m), -term.big_m)
    gain = (point * (term.w - ridge * point)).sum(-1)
    # relu, not clamp: its derivative at 0 is 0, the subgradient of smallest norm.
    return torch.relu(gain - term.b).to(v.dtype)


def value(
    w: Tensor,
    alpha: Coefficient,
    big_m: Coefficient,
    *,
    valid: Tensor | None = None,
    check: bool = True,
) -> Tensor:
    r"""Structured perspective regularisation of each group.

    :func:`term_value` at a = alpha, b = 1 - alpha. With s = sqrt(alpha / (1 - alpha)) and
    r = max_i |w_i| / M_i,

    .. math::

        z(w) = \begin{cases}
            \alpha \|w\|^2 + 1 - \alpha & \max(r, s \|w\|) \ge 1 \\
            2 \sqrt{\alpha (1 - \alpha)}\, \|w\| & r \le s \|w\| \\
            \alpha \|w\|^2 / r + (1 - \alpha)\, r & \text{otherwise}
        \end{cases}

    Parameters
    ----------
    w : Tensor, (..., G, n), floating point
        Groups of weights, one per row; zero padding contributes nothing.
    alpha : float or Tensor, broadcastable to (..., G)
        Share of the ridge, in (0, 1).
    big_m : float or Tensor, broadcastable to (..., G, n)
        Bounds M > 0 on \|w\|, possibly infinite; one per group has shape (G, 1).
    valid, check
        As in :func:`term_value`, as are gradients, errors and references.

    Returns
    -------
    Tensor, (..., G), dtype of ``w``

    Examples
    --------
    >>> import torch
    >>> from mipprune import perspective
    >>> filters = torch.tensor([[0.0, 0.0], [0.3, 0.4], [0.6, 0.8]])
    >>> perspective.value(filters, 0.5, 2.0)
    tensor([0.0000, 0.5000, 1.0000])
    >>> perspective.indicator(filters, 0.5, 2.0)
    tensor([0.0000, 0.5000, 1.0000])
    >>> perspective.prox(filters, 0.6, 0.5, 2.0)
    tensor([[0.0000, 0.0000],
            [0.0000, 0.0000],
            [0.2400, 0.3200]])
    """
    a, b = coefficients_of_alpha(alpha, check)
    return term_value(w, a, b, big_m, valid=valid, check=check)


def indicator(
    w: Tensor,
    alpha: Coefficient,
    big_m: Coefficient,
    *,
    valid: Tensor | None = None,
    check: bool = True,
) -> Tensor:
    """Optimal indicator y* of each group: ``term_indicator`` at (alpha, 1 - alpha).

    Arguments and errors as in :func:`value`; returns (..., G) in the dtype of ``w``.
    """
    a, b = coefficients_of_alpha(alpha, check)
    return term_indicator(w, a, b, big_m, valid=valid, check=check)


def case(
    w: Tensor,
    alpha: Coefficient,
    big_m: Coefficient,
    *,
    valid: Tensor | None = None,
    check: bool = True,
) -> Tensor:
    """Case of each group, 1, 2 or 3: ``term_case`` at (alpha, 1 - alpha).

    Arguments and errors as in :func:`value`; returns (..., G), int8.
    """
    a, b = coefficients_of_alpha(alpha, check)
    return term_case(w, a, b, big_m, valid=valid, check=check)


def conjugate(
    v: Tensor,
    alpha: Coefficient,
    big_m: Coefficient,
    *,
    valid: Tensor | None = None,
    check: bool = True,
) -> Tensor:
    """Convex conjugate of each group: ``term_conjugate`` at (alpha, 1 - alpha).

    Arguments and errors as in :func:`value`, with a dual vector ``v``; returns (..., G).
    """
    a, b = coefficients_of_alpha(alpha, check)
    return term_conjugate(v, a, b, big_m, valid=valid, check=check)
