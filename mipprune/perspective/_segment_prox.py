"""Proximal operator of the boxed perspective term on groups scattered over one flat vector."""

from typing import NamedTuple

import torch
from torch import Tensor

from mipprune.perspective._checks import (
    Coefficient,
    Term,
    as_coefficient,
    reject,
    require_broadcast,
    require_float,
    wide_dtype,
)
from mipprune.perspective._prox import Pieces, cubic_root, entry_pieces, step_findings
from mipprune.perspective._segments import SegmentLayout, as_layout, prepare_segments


def segment_prox(
    flat: Tensor,
    segment: Tensor | SegmentLayout,
    n_segments: int | None,
    step: Coefficient,
    a: Coefficient,
    b: Coefficient,
    big_m: Coefficient,
    *,
    check: bool = True,
) -> Tensor:
    """Proximal operator of groups packed into a flat vector: :func:`term_prox` on each group.

    The set of entries at their bounds only shrinks while y grows from 0, so solving for
    the set in hand and dropping the entries that come loose reaches the solution from
    below in finitely many rounds, commonly fewer than ten. Not differentiable.

    Parameters
    ----------
    flat, segment, n_segments, a, b, big_m, check
        As in :func:`segment_terms`.
    step : float or Tensor, (n_segments,)
        Step tau > 0.

    Returns
    -------
    Tensor, (N,), dtype of ``flat``

    Raises
    ------
    InputError
        As :func:`segment_terms`, and for steps that are not positive and finite.
    """
    layout = as_layout(segment, n_segments)
    term = prepare_segments(
        "flat",
        flat,
        layout,
        a,
        b,
        big_m,
        check,
        entry_dtype=wide_dtype(require_float("flat", flat)),
    )
    tau = as_coefficient("step", step, term.a)
    require_broadcast("step", tau, torch.Size([layout.n_segments]), "one step per group")
    if check:
        reject(step_findings(tau))
    tau = tau.expand(layout.n_segments)
    with torch.no_grad():
        x, gate = _segment_solve(term, tau, layout)
        point = term.w / layout.spread(x)
        point = torch.maximum(torch.minimum(point, term.big_m), -term.big_m)
        return (layout.spread(gate) * point).to(flat.dtype)


def _segment_solve(term: Term, tau: Tensor, layout: SegmentLayout) -> tuple[Tensor, Tensor]:
    """Return the optimal shifted indicator and the optimal indicator of every group."""
    values = term.w.to(term.a.dtype)
    shift = 2 * term.a * tau
    columns = Term(values, layout.spread(term.a), term.b, term.big_m)
    pieces = entry_pieces(columns, layout.spread(tau))
    at_bound = values.abs() > term.big_m * layout.spread(shift)
    sums = Pieces(
        layout.total(torch.where(at_bound, 0, pieces.ridge)),
        layout.total(torch.where(at_bound, pieces.level, 0)),
        layout.total(torch.where(at_bound, pieces.slope, 0)),
    )
    opened = (sums.at(shift) > term.b) | (term.b == 0)
    held = _entries(term, layout, pieces, (at_bound & layout.spread(opened)).nonzero().squeeze(1))
    x = shift
    while True:
        # The piece of a larger set lies below G to its right: its root is not beyond G's.
        reaches_one = sums.at(shift + 1) >= term.b
        root = torch.where(reaches_one, shift + 1, cubic_root(sums, term.b, shift + 1))
        x = torch.where(opened, torch.maximum(root, x), shift)
        still = held.magnitude > held.bound * x.index_select(0, held.group)
        if bool(still.all()):
            break
        loose = held.only(~still)
        held = held.only(still)
        none = torch.zeros_like(x)
        sums = Pieces(
            sums.ridge.index_add(0, loose.group, loose.ridge),
            none.index_add(0, held.group, held.level),
            none.index_add(0, held.group, held.slope),
        )
    full = opened & (x >= shift + 1)
    gate = torch.where(full, 1, torch.where(opened, (x - shift).clamp(0, 1), 0))
    return x, gate


class _Entries(NamedTuple):
    """Entries at their bounds: group, magnitude, bound and contributions to G."""

    group: Tensor
    magnitude: Tensor
    bound: Tensor
    ridge: Tensor
    level: Tensor
    slope: Tensor

    def only(self, chosen: Tensor) -> "_Entries":
        """Return the entries at which the bool tensor ``chosen`` holds."""
        index = chosen.nonzero().squeeze(1)
        return _Entries(*(part.index_select(0, index) for part in self))


def _entries(term: Term, layout: SegmentLayout, pieces: Pieces, index: Tensor) -> _Entries:
    bound = term.big_m.expand_as(term.w)
    parts = (layout.segment, term.w.abs(), bound, pieces.ridge, pieces.level, pieces.slope)
    return _Entries(*(part.index_select(0, index) for part in parts))
