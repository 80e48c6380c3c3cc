"""Packed groups against the same groups one by one, and against numeric differentiation."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mipprune import perspective
from mipprune.perspective import SegmentLayout

DOUBLE = torch.float64


class Packed:
    """Ragged groups whose entries lie in runs, shuffled, over one vector."""

    def __init__(self, seed: int, n_segments: int = 60, scale: float = 0.4) -> None:
        generator = torch.Generator().manual_seed(seed)

        def uniform(size: int) -> Tensor:
            return torch.rand(size, generator=generator, dtype=DOUBLE)

        runs = torch.randint(0, n_segments, (3 * n_segments,), generator=generator)
        runs = runs[runs % 7 != 3]  # some groups stay without entries
        lengths = torch.randint(1, 9, (len(runs),), generator=generator)
        self.segment = runs.repeat_interleave(lengths)
        self.n_segments = n_segments
        size = len(self.segment)
        self.flat = scale * torch.randn(size, generator=generator, dtype=DOUBLE)
        self.big_m = 0.3 + 2 * uniform(size)
        self.big_m[::5] = float("inf")
        self.a = 0.05 + uniform(n_segments)
        self.b = 0.05 + uniform(n_segments)

    def one_by_one(self, function: Callable[..., Tensor], *before: float) -> list[Tensor]:
        """Apply a dense function to each group that has entries."""
        results = []
        for j in self.segment.unique().tolist():
            mine = self.segment == j
            arguments = (self.flat[mine], *before, self.a[j], self.b[j], self.big_m[mine])
            results.append(function(*arguments))
        return results


@pytest.mark.parametrize("scale", [0.05, 0.4, 2.0])
def test_equals_the_groups_one_by_one(scale: float) -> None:
    packed = Packed(0, scale=scale)
    packed.flat.requires_grad_()
    terms = perspective.segment_terms(
        packed.flat, packed.segment, packed.n_segments, packed.a, packed.b, packed.big_m
    )
    present = packed.segment.unique()
    values = torch.stack(packed.one_by_one(perspective.term_value))
    gates = torch.stack(packed.one_by_one(perspective.term_indicator))
    cases = torch.stack(packed.one_by_one(perspective.term_case))
    torch.testing.assert_close(terms.value[present], values, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(terms.indicator[present], gates, rtol=1e-13, atol=1e-15)
    assert torch.equal(terms.case[present], cases)
    weights = torch.linspace(-1, 2, packed.n_segments, dtype=DOUBLE)
    (found,) = torch.autograd.grad((weights * terms.value).sum(), packed.flat)
    (expected,) = torch.autograd.grad((weights[present] * values).sum(), packed.flat)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_groups_without_entries_cost_nothing() -> None:
    packed = Packed(1)
    absent = torch.ones(packed.n_segments, dtype=torch.bool)
    absent[packed.segment] = False
    assert int(absent.sum()) > 3
    terms = perspective.segment_terms(
        packed.flat, packed.segment, packed.n_segments, packed.a, packed.b, packed.big_m
    )
    assert torch.equal(terms.value[absent], torch.zeros(int(absent.sum()), dtype=DOUBLE))
    assert terms.indicator[absent].max() == 0
    assert set(terms.case[absent].tolist()) == {2}
    empty = torch.zeros(0, dtype=torch.int64)
    nothing = torch.zeros(0, requires_grad=True)
    none = perspective.segment_value(nothing, empty, 3, 0.5, 0.5, 1.0)
    assert torch.equal(none.detach(), torch.zeros(3))
    none.sum().backward()


@pytest.mark.parametrize("ordered", [True, False])
def test_gradient_by_numeric_differentiation(ordered: bool) -> None:
    packed = Packed(2, n_segments=12)
    segment = packed.segment.sort().values if ordered else packed.segment
    layout = SegmentLayout.from_index(segment, 12)
    flat = packed.flat.requires_grad_()

    def function(entries: Tensor) -> Tensor:
        return perspective.segment_value(entries, layout, None, packed.a, packed.b, packed.big_m)

    assert torch.autograd.gradcheck(function, flat)


def test_kinks_have_the_same_subgradients_as_dense_groups() -> None:
    rows = torch.tensor(
        [
            [0.0, 0.0, 0.0],
            [0.4, -0.4, 0.1],
            [0.41, 0.41, 0.41],
            [0.5, -0.5, 0.5],
            [0.5, 0.1, 0.0],
            [0.7, 0.1, 0.0],
        ],
        dtype=DOUBLE,
    ).requires_grad_()
    dense = perspective.term_value(rows, 0.2, 0.8, 0.5)
    (expected,) = torch.autograd.grad(dense.sum(), rows)
    # Column-major: every entry is a run of its own.
    segment = torch.arange(6).repeat(3)
    packed = perspective.segment_value(rows.T.reshape(-1), segment, 6, 0.2, 0.8, 0.5)
    (found,) = torch.autograd.grad(packed.sum(), rows)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-15)
    assert torch.equal(found[0], torch.zeros(3, dtype=DOUBLE))


@pytest.mark.parametrize("size", [1e-33, 1e-25, 1.0, 1e10])
def test_single_precision_keeps_its_digits_at_every_size(size: float) -> None:
    packed = Packed(3)
    single = (size * packed.flat).float().requires_grad_()
    rest = (packed.segment, packed.n_segments, packed.a, packed.b, packed.big_m.float())
    value = perspective.segment_value(single, *rest)
    (found,) = torch.autograd.grad(value.sum(), single)
    exact = single.detach().double().requires_grad_()
    expected = perspective.segment_value(exact, *rest)
    (slope,) = torch.autograd.grad(expected.sum(), exact)
    torch.testing.assert_close(value.double(), expected, rtol=2e-7, atol=0)
    torch.testing.assert_close(
        found.double(), slope, rtol=1e-6, atol=1e-6 * float(slope.abs().max())
    )


def test_gradient_at_the_end_of_the_range_is_finite_and_shrinks() -> None:
    packed = Packed(3)
    rest = (packed.segment, packed.n_segments, packed.a, packed.b, packed.big_m.float())
    slopes = []
    for size in (1e-33, 1e-38, 1e-42, 0.0):
        tiny = (size * packed.flat).float().requires_grad_()
        value = perspective.segment_value(tiny, *rest).sum()
        slopes.append(torch.autograd.grad(value, tiny)[0].abs().max())
    assert torch.isfinite(torch.stack(slopes)).all()
    assert slopes[0] > slopes[1] > slopes[2] > slopes[3] == 0


def test_half_precision_gives_single_precision_values() -> None:
    packed = Packed(4)
    half = packed.flat.bfloat16().requires_grad_()
    rest = (packed.segment, packed.n_segments, packed.a, packed.b, packed.big_m.float())
    value = perspective.segment_value(half, *rest)
    (found,) = torch.autograd.grad(value.sum(), half)
    assert (value.dtype, found.dtype) == (torch.float32, torch.bfloat16)
    single = half.detach().float().requires_grad_()
    same = perspective.segment_value(single, *rest)
    (slope,) = torch.autograd.grad(same.sum(), single)
    assert torch.equal(value, same)
    assert torch.equal(found, slope.bfloat16())


@pytest.mark.parametrize("step", [1e-3, 0.2, 5.0])
@pytest.mark.parametrize("scale", [0.05, 0.4, 20.0])
def test_prox_equals_the_groups_one_by_one(scale: float, step: float) -> None:
    packed = Packed(5, scale=scale)
    found = perspective.segment_prox(
        packed.flat, packed.segment, packed.n_segments, step, packed.a, packed.b, packed.big_m
    )
    present = packed.segment.unique().tolist()
    results = packed.one_by_one(
        lambda v, tau, a, b, m: perspective.term_prox(v, tau, a, b, m), step
    )
    for j, expected in zip(present, results, strict=True):
        mine = found[packed.segment == j]
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12 * max(1.0, scale))
    assert bool((found.abs() <= packed.big_m).all())


def test_prox_per_group_steps_and_no_count_cost() -> None:
    packed = Packed(6)
    step = 0.1 + packed.b
    price = torch.where(packed.a > 0.5, packed.b, torch.zeros(packed.n_segments, dtype=DOUBLE))
    found = perspective.segment_prox(
        packed.flat, packed.segment, packed.n_segments, step, packed.a, price, 0.3
    )
    for j in packed.segment.unique().tolist():
        mine = packed.segment == j
        alone = perspective.term_prox(packed.flat[mine], step[j], packed.a[j], price[j], 0.3)
        torch.testing.assert_close(found[mine], alone, rtol=0, atol=1e-13)


VIEWS = ("aten.expand.default", "aten.detach.default", "aten.new_empty.default")


class CountOperators(TorchDispatchMode):
    """Counts the operators that run, each about one kernel, apart from views."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it bare
        self.count: int = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        self.count += str(func) not in VIEWS
        return func(*args, **(kwargs or {}))


def operators_for(n_segments: int) -> int:
    packed = Packed(7, n_segments=n_segments)
    layout = SegmentLayout.from_index(packed.segment, n_segments)
    flat = packed.flat.float().requires_grad_()
    big_m = packed.big_m.float()
    with CountOperators() as counter:
        value = perspective.segment_value(
            flat, layout, None, packed.a, packed.b, big_m, check=False
        )
        value.sum().backward()
    return int(counter.count)


def test_number_of_operators_does_not_grow_with_the_network() -> None:
    assert operators_for(10) == operators_for(500) <= 58


def test_layout_finds_runs() -> None:
    layout = SegmentLayout.from_index(torch.tensor([2, 2, 0, 2, 1, 1, 1]), 4)
    assert layout.run_lengths.tolist() == [2, 1, 1, 3]
    assert layout.runs_per_segment.tolist() == [1, 1, 2, 0]
    entries = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    assert layout.total(entries).tolist() == [3, 18, 7, 0]
    assert layout.largest(entries).tolist() == [3, 7, 4, 0]
    assert layout.spread(torch.tensor([0.0, 1.0, 2.0, 3.0])).tolist() == [2, 2, 0, 2, 1, 1, 1]
    assert not layout.one_run_each
    assert SegmentLayout.from_index(torch.tensor([0, 0, 1]), 2).one_run_each
    moved = layout.to("cpu")
    assert torch.equal(moved.total(entries), layout.total(entries))
