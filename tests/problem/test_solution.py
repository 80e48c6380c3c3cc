"""Results: recomputed values, gaps, refusal of bounds above the value."""

import math

import numpy as np
import pytest

from mipprune.errors import SolverError
from mipprune.problem import ChannelSelection, Solution, SolutionStatus, Termination


def problem() -> ChannelSelection:
    return ChannelSelection(np.eye(2), [[1.0], [0.5]], 1.25, [1, 1], keep=1)


def result(mask: list[bool] | None, bound: float, certified: float = -math.inf) -> Solution:
    return Solution.of_mask(
        problem(),
        None if mask is None else np.array(mask),
        bound=bound,
        status=SolutionStatus.FEASIBLE,
        termination=Termination.COMPLETE,
        solver="test",
        version="0",
        certified_bound=certified,
    )


def test_value_weights_and_gaps() -> None:
    # e/2 = .625, keeping channel 0 gains .5: value .125.
    solution = result([True, False], 0.1, 0.05)
    assert solution.value == pytest.approx(0.125)
    np.testing.assert_allclose(solution.weights[0], [[1.0], [0.0]])
    assert solution.gap == pytest.approx(0.025 / 0.125)
    assert solution.certified_gap == pytest.approx(0.075 / 0.125)
    assert solution.energy_gap == pytest.approx(0.025 / 0.625)


def test_no_bound_or_no_mask_is_an_infinite_gap() -> None:
    assert result([True, False], -math.inf).gap == math.inf
    empty = result(None, 0.1)
    assert empty.value == math.inf
    assert empty.weights == ()
    assert empty.gap == math.inf


def test_gap_has_a_floor_for_values_of_zero() -> None:
    exact = ChannelSelection(np.eye(1), [[1.0]], 1.0, [1])
    solution = Solution.of_mask(
        exact,
        np.array([True]),
        bound=-1e-13,
        status=SolutionStatus.OPTIMAL,
        termination=Termination.COMPLETE,
        solver="test",
        version="0",
    )
    assert solution.gap == 0.0


@pytest.mark.parametrize("bound", [0.1250001, math.inf, math.nan])
def test_a_wrong_bound_is_an_error(bound: float) -> None:
    with pytest.raises(SolverError):
        result([True, False], bound)


def test_an_infeasible_mask_is_an_error() -> None:
    with pytest.raises(SolverError, match="breaks the limits"):
        result([True, True], 0.0)


def test_the_mask_is_a_copy() -> None:
    mask = np.array([True, False])
    solution = Solution.of_mask(
        problem(), mask, status=SolutionStatus.FEASIBLE, termination=Termination.HEURISTIC,
        solver="test", version="0",
    )  # fmt: skip
    mask[:] = False
    assert solution.mask is not None
    assert solution.mask.tolist() == [True, False]
