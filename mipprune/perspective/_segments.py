"""The perspective term on groups scattered over one flat vector.

A network's regularised weights are packed into one vector; an index says to which group
each entry belongs. Entries of a group that lie side by side form a run; runs are reduced
by one segmented kernel each, and the far fewer runs are then combined into groups, so
that the number of kernels does not depend on the number of layers or groups.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mipprune.errors import InputError
from mipprune.perspective._checks import (
    Coefficient,
    Term,
    as_coefficient,
    bound_findings,
    coefficient_findings,
    computing_dtype,
    reject,
    require_broadcast,
    require_float,
    wide_dtype,
)
from mipprune.perspective._closed_form import CASE_BOUND, CASE_NORM, CASE_RIDGE


@dataclass(frozen=True, eq=False)
class SegmentLayout:
    """Where the groups lie in a flat vector; build it once with :meth:`from_index`.

    Attributes
    ----------
    segment : Tensor, (N,), int64
        Group of each entry.
    n_segments : int
        Number of groups; groups without entries are allowed.
    run_lengths : Tensor, (R,), int64
        Lengths of the maximal runs of neighbouring entries of one group.
    run_order : Tensor, (R,), int64
        The runs sorted by group, in stable order.
    runs_per_segment : Tensor, (n_segments,), int64
        How many runs each group has.
    one_run_each : bool
        Whether the runs are the groups, in order.
    """

    segment: Tensor
    n_segments: int
    run_lengths: Tensor
    run_order: Tensor
    runs_per_segment: Tensor
    one_run_each: bool

    @classmethod
    def from_index(cls, segment: Tensor, n_segments: int) -> "SegmentLayout":
        """Find the runs of a group index.

        Parameters
        ----------
        segment : Tensor, (N,), int64
            Group of each entry, in 0 .. n_segments - 1; any order.
        n_segments : int
            Number of groups.

        Raises
        ------
        InputError
            Wrong type, shape or dtype, or an index out of range.
        """
        if not isinstance(segment, Tensor) or segment.dim() != 1 or segment.dtype != torch.int64:
            raise InputError("segment must be a one-dimensional int64 tensor, a group per entry")
        if isinstance(n_segments, bool) or not isinstance(n_segments, int) or n_segments < 1:
            raise InputError(f"n_segments is {n_segments!r}; expected a positive integer")
        outside = (segment < 0) | (segment >= n_segments)
        reject((outside, f"segment has entries outside the range 0..{n_segments - 1}"))
        runs, lengths = torch.unique_consecutive(segment, return_counts=True)
        every = torch.arange(n_segments, device=segment.device)
        return cls(
            segment=segment,
            n_segments=n_segments,
            run_lengths=lengths,
            run_order=torch.argsort(runs, stable=True),
            runs_per_segment=torch.bincount(runs, minlength=n_segments),
            one_run_each=torch.equal(runs, every),
        )

    def to(self, device: torch.device | str) -> "SegmentLayout":
        """Return the layout on another device."""
        return SegmentLayout(
            self.segment.to(device),
            self.n_segments,
            self.run_lengths.to(device),
            self.run_order.to(device),
            self.runs_per_segment.to(device),
            self.one_run_each,
        )

    def total(self, entries: Tensor) -> Tensor:
        """Sum (N,) entries over each group; (n_segments,). Deterministic on every device."""
        return self._reduce(entries, "sum")

    def largest(self, entries: Tensor) -> Tensor:
        """Return the largest of zero and the (N,) entries of each group; (n_segments,)."""
        if entries.device.type == "cpu":
            # Measured: three times as fast on a CPU as the segmented maximum.
            floor = entries.new_zeros(self.n_segments)
            return floor.scatter_reduce_(0, self.segment, entries, "amax")
        return self._reduce(entries, "max")

    def _reduce(self, entries: Tensor, reduction: str) -> Tensor:
        if entries.numel() == 0:
            return entries.new_zeros(self.n_segments)
        runs = torch.segment_reduce(
            entries, reduction, lengths=self.run_lengths, unsafe=True, initial=0
        )
        if self.one_run_each:
            return runs
        return torch.segment_reduce(
            runs.index_select(0, self.run_order),
            reduction,
            lengths=self.runs_per_segment,
            unsafe=True,
            initial=0,
        )

    def spread(self, groups: Tensor) -> Tensor:
        """Give every entry the number of its group; (n_segments,) -> (N,)."""
        return groups.index_select(0, self.segment)


class SegmentTerms(NamedTuple):
    """Values (differentiable), optimal indicators and cases (1, 2, 3) of the groups."""

    value: Tensor
    indicator: Tensor
    case: Tensor


class _Groups(NamedTuple):
    """Per-group numbers: results, inner quantities, and the factors of the gradient."""

    value: Tensor
    level: Tensor
    free: Tensor
    limit: Tensor
    radial: Tensor
    shared: Tensor


def _solve_groups(square: Tensor, limit: Tensor, a: Tensor, b: Tensor, floor: float) -> _Groups:
    """Project out y from ||w||^2 and max|w|/M of each group, in as few kernels as possible.

    The gradient is ``radial * w_i``, plus ``shared * w_i / M_i^2`` divided among the entries
    that attain the limit, for there w_i / (limit M_i^2) = sign(w_i) / M_i. Indicators below
    ``floor`` are met only by weights at the end of the range of their dtype.
    """
    norm = square.sqrt()
    # A price of zero makes every group that is not zero prefer y = 1.
    free = (a * square).div_(b.clamp(min=torch.finfo(b.dtype).tiny)).sqrt_()
    level = torch.maximum(free, limit).clamp_(max=1)
    slope = norm / level.clamp(min=torch.finfo(b.dtype).tiny)
    value = torch.addcmul(b * level, a * norm, slope)
    corner = torch.addcmul(b, a * slope, slope, value=-1)
    shared = corner.mul_((limit > free) & (limit <= 1)).div_(limit.clamp(min=floor))
    return _Groups(value, level, free, limit, (a * 2).div_(level.clamp(min=floor)), shared)


class _SegmentTerms(torch.autograd.Function):
    """Value of every group with its analytic gradient; indicator, free y and lower limit."""

    @staticmethod
    def forward(
        ctx: Any, flat: Tensor, a: Tensor, b: Tensor, big_m: Tensor, layout: SegmentLayout
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        work = flat.to(computing_dtype(flat.dtype))
        share = work.abs().div_(big_m)
        limit = layout.largest(share)
        square = layout.total(work.to(a.dtype, copy=True).square_())
        # Two decades above the smallest number: 2 a / floor stays finite.
        floor = 100 * torch.finfo(work.dtype).tiny
        found = _solve_groups(square, limit.to(a.dtype), a, b, floor)
        ctx.save_for_backward(flat, share, limit, found.radial, found.shared, big_m)
        ctx.layout = layout
        ctx.set_materialize_grads(False)
        rest = (found.level.to(work.dtype), found.free, found.limit)
        ctx.mark_non_differentiable(*rest)
        return found.value.to(work.dtype), *rest

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, upstream: Tensor | None, *_unused: Tensor
    ) -> tuple[Tensor | None, None, None, None, None]:
        if upstream is None:
            return None, None, None, None, None
        flat, share, limit, radial, shared, big_m = ctx.saved_tensors
        layout: SegmentLayout = ctx.layout
        outer = upstream.to(radial.dtype)
        attained = (share == layout.spread(limit)).to(share.dtype)
        push = (outer * shared).div_(layout.total(attained)).to(share.dtype)
        corner = layout.spread(push).mul_(attained).mul_(flat).div_(big_m).div_(big_m)
        pull = layout.spread((outer * radial).to(share.dtype))
        return corner.addcmul_(pull, flat).to(flat.dtype), None, None, None, None


_packed_terms: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]] = _SegmentTerms.apply


def _cases(free: Tensor, limit: Tensor) -> Tensor:
    inside = torch.where(limit <= free, CASE_NORM, CASE_BOUND)
    return torch.where((limit >= 1) | (free >= 1), CASE_RIDGE, inside).to(torch.int8)


def as_layout(segment: Tensor | SegmentLayout, n_segments: int | None) -> SegmentLayout:
    """Return the layout given, or the one of an index with its number of groups."""
    if isinstance(segment, SegmentLayout):
        if n_segments is not None and n_segments != segment.n_segments:
            raise InputError(
                f"n_segments is {n_segments} but the layout has {segment.n_segments} groups"
            )
        return segment
    if n_segments is None:
        raise InputError("n_segments is missing; expected the number of groups beside an index")
    return SegmentLayout.from_index(segment, n_segments)


def prepare_segments(
    name: str,
    flat: Tensor,
    layout: SegmentLayout,
    a: Coefficient,
    b: Coefficient,
    big_m: Coefficient,
    check: bool,
    entry_dtype: torch.dtype | None = None,
) -> Term:
    """Check packed arguments; entries in their computing dtype, groups in the widest."""
    require_float(name, flat)
    if flat.shape != layout.segment.shape or flat.device != layout.segment.device:
        raise InputError(
            f"{name} has shape {tuple(flat.shape)} on {flat.device}; the layout expects "
            f"{tuple(layout.segment.shape)} on {layout.segment.device}"
        )
    entries = flat.new_empty(0, dtype=entry_dtype or computing_dtype(flat.dtype))
    wide = flat.new_empty(0, dtype=wide_dtype(flat))
    ridge, price = as_coefficient("a", a, wide), as_coefficient("b", b, wide)
    bound = as_coefficient("big_m", big_m, entries)
    groups = torch.Size([layout.n_segments])
    require_broadcast("a", ridge, groups, "one coefficient per group")
    require_broadcast("b", price, groups, "one coefficient per group")
    require_broadcast("big_m", bound, flat.shape, "one bound per entry")
    if ridge.requires_grad or price.requires_grad or bound.requires_grad:
        raise InputError(
            "a, b or big_m requires a gradient; the packed term differentiates with respect "
            "to the weights only: use term_value, or detach them"
        )
    if check:
        reject(
            (~torch.isfinite(flat), f"{name} has entries that are NaN or infinite"),
            bound_findings(bound),
            *coefficient_findings(ridge, price),
        )
    return Term(flat, ridge.expand(groups), price.expand(groups), bound)


def segment_terms(
    flat: Tensor,
    segment: Tensor | SegmentLayout,
    n_segments: int | None,
    a: Coefficient,
    b: Coefficient,
    big_m: Coefficient,
    *,
    check: bool = True,
) -> SegmentTerms:
    """Value, optimal indicator and case of groups packed into a flat vector.

    The same numbers as :func:`term_value`, :func:`term_indicator` and :func:`term_case`
    on each group, with an analytic gradient of the value with respect to ``flat`` (once
    differentiable; the same subgradients at kinks). Sums are accumulated in float64.

    Parameters
    ----------
    flat : Tensor, (N,), floating point
        All regularised weights.
    segment : Tensor, (N,), int64, or SegmentLayout
        Group of each entry. A layout saves finding the runs at every call; the fewer the
        runs (the more of a group lies side by side), the faster.
    n_segments : int or None
        Number of groups; may be None with a layout.
    a, b : float or Tensor, (n_segments,)
        Ridge coefficients a > 0 and count coefficients b >= 0, with the weight of each
        group in the penalty multiplied in.
    big_m : float or Tensor, (N,)
        Bounds M > 0 per entry, possibly infinite.
    check : bool
        Whether to look for bad numbers; switch off inside a training step.

    Returns
    -------
    SegmentTerms
        ``value`` and ``indicator``, (n_segments,), in the dtype of ``flat`` but at least
        float32; ``case``, (n_segments,), int8. A group without entries has value 0,
        indicator 0, case 2.

    Raises
    ------
    InputError
        As :func:`term_value`, for an index that does not fit, and for coefficients or
        bounds that require a gradient.
    """
    layout = as_layout(segment, n_segments)
    term = prepare_segments("flat", flat, layout, a, b, big_m, check)
    value, gate, free, limit = _packed_terms(term.w, term.a, term.b, term.big_m, layout)
    return SegmentTerms(value, gate, _cases(free, limit))


def segment_value(
    flat: Tensor,
    segment: Tensor | SegmentLayout,
    n_segments: int | None,
    a: Coefficient,
    b: Coefficient,
    big_m: Coefficient,
    *,
    check: bool = True,
) -> Tensor:
    """Value of groups packed into a flat vector, (n_segments,): see :func:`segment_terms`.

    Examples
    --------
    >>> import torch
    >>> from mipprune import perspective
    >>> flat = torch.tensor([0.3, 0.4, 0.6, 0.8])
    >>> layout = perspective.SegmentLayout.from_index(torch.tensor([0, 0, 1, 1]), 2)
    >>> perspective.segment_value(flat, layout, None, 0.5, 0.5, 2.0)
    tensor([0.5000, 1.0000])
    """
    layout = as_layout(segment, n_segments)
    term = prepare_segments("flat", flat, layout, a, b, big_m, check)
    return _packed_terms(term.w, term.a, term.b, term.big_m, layout)[0]
