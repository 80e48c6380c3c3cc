"""Proximal operator of the boxed perspective term, dense groups.

With w = y p the joint problem in (w, y) separates: for fixed y every entry has the
minimiser p_i = clip(v_i / (y + 2 a step), -M_i, M_i), and what is left is convex in y
with derivative b - G(y). In the shifted variable x = y + 2 a step,

    G(x) = sum over |v_i| <= M_i x of  a v_i^2 / x^2
         + sum over |v_i| >  M_i x of  M_i |v_i| / step + a M_i^2 - M_i^2 x / step,

continuous and decreasing. Between neighbouring breakpoints |v_i| / M_i the equation
G(x) = b is a cubic with one positive root, so sorting the breakpoints solves it exactly.
"""

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
    require_float,
    wide_dtype,
)

# From a start within a factor two of the root, Newton's error in units of the root goes
# .42, .11, 1e-2, 1e-4, 1e-8, 1e-16; the rest is margin.
_NEWTON_STEPS = 9


class Pieces(NamedTuple):
    """Coefficients of G(x) = ridge / x^2 + level - slope * x on one interval, per group."""

    ridge: Tensor
    level: Tensor
    slope: Tensor

    def at(self, x: Tensor) -> Tensor:
        """Evaluate the piece at x > 0."""
        return self.ridge / (x * x) + self.level - self.slope * x


def cubic_root(pieces: Pieces, price: Tensor, largest: Tensor) -> Tensor:
    """Positive root of slope x^3 + (price - level) x^2 = ridge, at most ``largest``.

    Newton from a point above the root, where the cubic is convex: the iterates decrease
    to the root. Groups without a root in (0, largest] get a finite number of no meaning.
    """
    ridge, level, slope = pieces
    linear = price - level
    one = torch.ones_like(ridge)
    sloped, rising = slope > 0, linear > 0
    infinite = torch.full_like(ridge, float("inf"))
    safe_slope = torch.where(sloped, slope, one)
    by_cube = torch.where(sloped, (ridge / safe_slope) ** (1 / 3), infinite)
    by_square = torch.where(rising, (ridge / torch.where(rising, linear, one)).sqrt(), infinite)
    falling = by_cube - torch.clamp(linear, max=0) / safe_slope
    x = torch.where(linear < 0, falling, torch.minimum(by_cube, by_square))
    x = torch.minimum(x, largest)
    for _ in range(_NEWTON_STEPS):
        steepness = x * (3 * slope * x + 2 * linear)
        excess = x * x * (slope * x + linear) - ridge
        x = x - excess / torch.where(steepness > 0, steepness, one)
    return x


def entry_pieces(term: Term, step: Tensor) -> Pieces:
    """Contributions of each entry to G: ``ridge`` while free, the others while at its bound.

    ``term.a`` and ``step`` must already have the shape of the entries or broadcast to it.
    """
    magnitude = term.w.abs()
    # An infinite bound is never reached; one keeps the unused numbers finite.
    bound = torch.where(torch.isinf(term.big_m), torch.ones_like(term.big_m), term.big_m)
    return Pieces(
        ridge=term.a * magnitude * magnitude,
        level=bound * (magnitude / step + term.a * bound),
        slope=bound * bound / step,
    )


def _select(sums: Tensor, index: Tensor) -> Tensor:
    return sums.gather(-1, index.unsqueeze(-1)).squeeze(-1)


def _solve(term: Term, step: Tensor) -> Tensor:
    """Return the optimal shifted indicator x in [2 a step, 2 a step + 1] of every group."""
    groups = term.w.shape[:-1]
    price = term.b.expand(groups)
    shift = (2 * term.a * step).expand(groups)
    columns = Term(term.w, term.a.unsqueeze(-1), term.b.unsqueeze(-1), term.big_m)
    pieces = entry_pieces(columns, step.unsqueeze(-1))
    breakpoints, order = torch.sort(term.w.abs() / term.big_m, dim=-1, descending=True)
    reachable = breakpoints > shift.unsqueeze(-1)
    ridge, level, slope = (piece.expand(term.w.shape).gather(-1, order) for piece in pieces)
    none = torch.zeros_like(ridge[..., :1])
    # Entry k of each sum belongs to the piece on which exactly the first k are at bounds.
    free = torch.cat([ridge.flip(-1).cumsum(-1).flip(-1), none], -1)
    at_level = torch.cat([none, torch.where(reachable, level, 0).cumsum(-1)], -1)
    at_slope = torch.cat([none, torch.where(reachable, slope, 0).cumsum(-1)], -1)
    before = Pieces(free[..., :-1], at_level[..., :-1], at_slope[..., :-1])
    knots = torch.where(reachable, breakpoints, torch.ones_like(breakpoints))
    right_of_root = reachable & (before.at(knots) < price.unsqueeze(-1))

    def piece_with(count: Tensor) -> Pieces:
        return Pieces(_select(free, count), _select(at_level, count), _select(at_slope, count))

    closed = piece_with(reachable.sum(-1)).at(shift) <= price
    reached_at_one = reachable & (breakpoints > shift.unsqueeze(-1) + 1)
    opened = piece_with(reached_at_one.sum(-1)).at(shift + 1) >= price
    root = cubic_root(piece_with(right_of_root.sum(-1)), price, shift + 1)
    inside = torch.minimum(torch.maximum(root, shift), shift + 1)
    return torch.where(closed & (price > 0), shift, torch.where(opened, shift + 1, inside))


def _refined(term: Term, step: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """One Newton step on G(x) = b at the solution, which also carries the derivative; (x, y).

    Differentiating this step with its slope held constant is the implicit-function rule.
    """
    shift = 2 * term.a * step
    columns = Term(term.w, term.a.unsqueeze(-1), term.b.unsqueeze(-1), term.big_m)
    pieces = entry_pieces(columns, step.unsqueeze(-1))
    spread = x.unsqueeze(-1)
    free = term.w.abs() <= term.big_m * spread
    pull = torch.where(free, pieces.ridge / (spread * spread), pieces.level - pieces.slope * spread)
    drop = torch.where(free, 2 * pieces.ridge / (spread * spread * spread), pieces.slope)
    slope = drop.detach().sum(-1)
    inner = (x > shift) & (x < shift + 1) & (slope > 0)
    better = x + (pull.sum(-1) - term.b) / torch.where(inner, slope, torch.ones_like(slope))
    better = torch.minimum(torch.maximum(better, shift), shift + 1)
    edge = torch.where(x > shift, shift + 1, shift)
    # x - shift would lose digits of y = 0 and y = 1, and with them the exact zero and the box.
    gate = torch.where(inner, torch.clamp(better - shift, 0, 1), (x > shift).to(x.dtype))
    return torch.where(inner, better, edge), gate


def term_prox(
    v: Tensor,
    step: Coefficient,
    a: Coefficient,
    b: Coefficient,
    big_m: Coefficient,
    *,
    valid: Tensor | None = None,
    check: bool = True,
) -> Tensor:
    r"""Proximal operator of the boxed perspective term, group by group.

    .. math::

        \operatorname{prox}(v) = \arg\min_{w,\,y} \;
            a \|w\|^2 / y + b y + \tfrac{1}{2\tau} \|w - v\|^2
        \quad\text{s.t.}\quad |w_i| \le M_i y, \; 0 \le y \le 1

    Exact up to rounding (computed in float64): breakpoints are sorted and a cubic is
    solved per group. The result lies in the box wherever ``v`` lies, and groups with
    ``conjugate(v / step) == 0`` become exactly zero. Differentiable once, by the
    implicit-function rule.

    Parameters
    ----------
    v : Tensor, (..., G, n), floating point
        Points to map, one group per row; zero padding stays zero.
    step : float or Tensor, broadcastable to (..., G)
        Step tau > 0; learning rate times strength in a proximal-gradient method.
    a, b : float or Tensor, broadcastable to (..., G)
        Ridge coefficient a > 0 and count coefficient b >= 0.
    big_m : float or Tensor, broadcastable to (..., G, n)
        Bounds M > 0, possibly infinite, possibly different inside a group.
    valid : Tensor, bool, broadcastable to (..., G, n), optional
        False at padding; the result is zero there.
    check : bool
        Whether to look for bad numbers; see :func:`term_value`.

    Returns
    -------
    Tensor, (..., G, n), dtype of ``v``

    Raises
    ------
    InputError
        As :func:`term_value`, and for steps that are not positive and finite.
    """
    term = prepare("v", v, a, b, big_m, valid, check, dtype=wide_dtype(require_float("v", v)))
    tau = as_coefficient("step", step, term.w)
    require_broadcast("step", tau, v.shape[:-1], "one step per group")
    if check:
        reject(step_findings(tau))
    with torch.no_grad():
        x = _solve(term, tau)
    x, gate = _refined(term, tau, x)
    point = term.w / x.unsqueeze(-1)
    point = torch.maximum(torch.minimum(point, term.big_m), -term.big_m)
    return (gate.unsqueeze(-1) * point).to(v.dtype)


def step_findings(step: Tensor) -> tuple[Tensor, str]:
    """Return the condition and the message for steps out of range."""
    return (
        ~((step > 0) & torch.isfinite(step)),
        "step has entries that are not positive and finite; expected step > 0",
    )


def prox(
    v: Tensor,
    step: Coefficient,
    alpha: Coefficient,
    big_m: Coefficient,
    *,
    valid: Tensor | None = None,
    check: bool = True,
) -> Tensor:
    """Proximal operator of each group: ``term_prox`` at (alpha, 1 - alpha).

    ``alpha`` lies in (0, 1), one number or one per group; returns (..., G, n).
    """
    a, b = coefficients_of_alpha(alpha, check)
    return term_prox(v, step, a, b, big_m, valid=valid, check=check)
