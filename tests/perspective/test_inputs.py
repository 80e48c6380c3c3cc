"""Bad input is refused at the entry with an InputError that says what to do."""

from collections.abc import Callable
from functools import partial

import pytest
import torch

from mipprune import perspective
from mipprune.errors import InputError

W = torch.full((3, 4), 0.2)
SEGMENT = torch.arange(3).repeat_interleave(4)
NAN, INF = float("nan"), float("inf")

WRAPPERS = [perspective.value, perspective.indicator, perspective.case, perspective.conjugate]


@pytest.mark.parametrize("function", WRAPPERS)
@pytest.mark.parametrize("alpha", [0, 1, -0.1, 1.5, NAN, 0.0, torch.tensor([0.2, 1.0, 0.3])])
def test_alpha_outside_the_open_interval(function: Callable[..., object], alpha: object) -> None:
    with pytest.raises(InputError, match="alpha"):
        function(W, alpha, 1.0)


@pytest.mark.parametrize("alpha", ["0.5", None, True])
def test_alpha_of_another_type(alpha: object) -> None:
    with pytest.raises(InputError, match="expected a number or a tensor"):
        perspective.value(W, alpha, 1.0)  # type: ignore[arg-type]  # the wrong type is the test


@pytest.mark.parametrize("function", WRAPPERS)
@pytest.mark.parametrize("big_m", [0.0, -1.0, NAN, torch.tensor([1.0, 0.0, 1.0, 1.0])])
def test_bounds_that_are_not_positive(function: Callable[..., object], big_m: object) -> None:
    with pytest.raises(InputError, match=r"big_m .* put a floor"):
        function(W, 0.5, big_m)


@pytest.mark.parametrize("function", WRAPPERS)
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_numbers_that_are_not_finite(function: Callable[..., object], bad: float) -> None:
    broken = W.clone()
    broken[1, 2] = bad
    with pytest.raises(InputError, match="NaN or infinite"):
        function(broken, 0.5, 1.0)
    with pytest.raises(InputError, match="NaN or infinite"):
        perspective.prox(broken, 0.1, 0.5, 1.0)


@pytest.mark.parametrize("step", [0.0, -1.0, NAN, INF, torch.tensor([1.0, 1.0, 0.0])])
def test_steps_that_are_not_positive(step: float | torch.Tensor) -> None:
    for call in (
        partial(perspective.prox, W, step, 0.5, 1.0),
        partial(perspective.segment_prox, W.view(-1), SEGMENT, 3, step, 0.5, 0.5, 1.0),
    ):
        with pytest.raises(InputError, match="step"):
            call()


@pytest.mark.parametrize(("a", "b"), [(0.0, 1.0), (-1.0, 1.0), (NAN, 1.0), (INF, 1.0)])
def test_ridge_out_of_range(a: float, b: float) -> None:
    with pytest.raises(InputError, match="a has entries"):
        perspective.term_value(W, a, b, 1.0)


@pytest.mark.parametrize("b", [-0.1, NAN, INF])
def test_count_cost_out_of_range(b: float) -> None:
    with pytest.raises(InputError, match="b has entries"):
        perspective.term_value(W, 1.0, b, 1.0)


@pytest.mark.parametrize(
    ("w", "message"),
    [
        ([[0.1, 0.2]], "expected a torch tensor"),
        (torch.ones(2, 3, dtype=torch.int64), "floating-point dtype"),
        (torch.ones(2, 3, dtype=torch.complex64), "floating-point dtype"),
        (torch.tensor(1.0), "n >= 1"),
        (torch.ones(3, 0), "n >= 1"),
    ],
)
def test_weights_of_another_kind(w: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        perspective.value(w, 0.5, 1.0)  # type: ignore[arg-type]  # the wrong type is the test


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"big_m": torch.ones(3)}, r"big_m has shape \(3,\).*\(groups, 1\)"),
        ({"big_m": torch.ones(2, 3, 4)}, "big_m has shape"),
        ({"big_m": torch.ones(3, 4, dtype=torch.bool)}, "expected real numbers"),
        ({"big_m": "1"}, "big_m is a str"),
        ({"a": torch.ones(3, 1)}, "a has shape"),
        ({"b": torch.ones(4)}, "b has shape"),
        ({"valid": torch.ones(3, 4)}, "bool tensor"),
        ({"valid": torch.ones(3, dtype=torch.bool)}, "valid has shape"),
    ],
)
def test_shapes_and_types_that_do_not_fit(keywords: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"a": 0.5, "b": 0.5, "big_m": 1.0, **keywords}
    with pytest.raises(InputError, match=message):
        perspective.term_value(W, **arguments)  # type: ignore[arg-type]  # table of bad input


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.tensor([0.1, 0.2, 1.2]), r"outside \[0, 1\]"),
        (torch.tensor([0.1, -0.2, 1.0]), r"outside \[0, 1\]"),
        (torch.ones(4), "y has shape"),
    ],
)
def test_indicators_that_do_not_fit(y: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        perspective.term_joint(W, y, 0.5, 0.5)


@pytest.mark.parametrize(
    ("segment", "n_segments", "message"),
    [
        (SEGMENT.int(), 3, "int64"),
        (SEGMENT.view(3, 4), 3, "one-dimensional"),
        (SEGMENT - 1, 3, "outside the range"),
        (SEGMENT, 2, "outside the range"),
        (SEGMENT, 0, "positive integer"),
        (SEGMENT, None, "n_segments is missing"),
        (SEGMENT[:-1], 3, "the layout expects"),
        (perspective.SegmentLayout.from_index(SEGMENT, 3), 4, "the layout has 3 groups"),
    ],
)
def test_segments_that_do_not_fit(segment: object, n_segments: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        perspective.segment_value(W.view(-1), segment, n_segments, 0.5, 0.5, 1.0)  # type: ignore[arg-type]  # table of bad input


def test_packed_numbers_out_of_range() -> None:
    flat = W.view(-1)
    for a, b, big_m, message in (
        (0.0, 0.5, 1.0, "a has entries"),
        (0.5, -1.0, 1.0, "b has entries"),
        (0.5, 0.5, 0.0, "big_m has entries"),
        (torch.ones(4), 0.5, 1.0, "a has shape"),
        (0.5, 0.5, torch.ones(3), "big_m has shape"),
        (torch.ones(3, requires_grad=True), 0.5, 1.0, "requires a gradient"),
    ):
        with pytest.raises(InputError, match=message):
            perspective.segment_value(flat, SEGMENT, 3, a, b, big_m)
    with pytest.raises(InputError, match="flat has entries that are NaN"):
        perspective.segment_value(flat * NAN, SEGMENT, 3, 0.5, 0.5, 1.0)


def test_checks_can_be_left_out() -> None:
    broken = W.clone()
    broken[1, 2] = NAN
    found = perspective.value(broken, 0.5, 1.0, check=False)
    assert torch.isnan(found).tolist() == [False, True, False]
    packed = perspective.segment_value(broken.view(-1), SEGMENT, 3, 0.5, 0.5, 1.0, check=False)
    assert torch.isnan(packed).tolist() == [False, True, False]
