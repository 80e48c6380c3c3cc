"""Enumeration against evaluating every mask by itself."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from mipprune.errors import InputError, SolverError
from mipprune.problem import ChannelSelection, LogPoint, SolutionStatus, Termination
from mipprune.solvers.enumeration import enumerate_masks

BruteForce = Callable[[ChannelSelection], tuple[float, np.ndarray | None]]
RandomProblem = Callable[..., ChannelSelection]


@pytest.mark.parametrize("seed", range(60))
def test_finds_the_least_value(
    seed: int, random_problem: RandomProblem, brute_force: BruteForce
) -> None:
    problem = random_problem(seed, 8, box=seed % 5 == 0)
    best, _ = brute_force(problem)
    solution = enumerate_masks(problem)
    if best == np.inf:
        assert solution.status is SolutionStatus.INFEASIBLE
        assert solution.mask is None
        return
    assert solution.status is SolutionStatus.OPTIMAL
    assert solution.termination is Termination.COMPLETE
    assert solution.value == pytest.approx(best, rel=1e-10, abs=1e-11 * problem.energy)
    assert solution.bound <= best
    assert solution.value - solution.bound <= 1e-7 * problem.energy


def layer(p: int, rows: int = 1, seed: int = 0) -> ChannelSelection:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(4 * p * rows, p * rows))
    y = generator.normal(size=(len(x), 3))
    n = len(x)
    return ChannelSelection(
        x.T @ x / n, x.T @ y / n, (y**2).sum() / n, [rows] * p, ridge=0.01, keep=p // 2
    )


def test_sixteen_groups_take_a_few_seconds_at_most() -> None:
    began = time.perf_counter()
    solution = enumerate_masks(layer(16, 9))
    assert time.perf_counter() - began < 20
    assert solution.gap < 1e-9
    assert solution.nodes < 2**17


def test_too_many_channels_are_refused_unless_decided() -> None:
    problem = layer(30)
    with pytest.raises(SolverError, match="at most 24"):
        enumerate_masks(problem)
    out = np.arange(30) >= 10
    solution = enumerate_masks(problem.with_forced(np.zeros(30, bool), out))
    assert solution.mask is not None
    assert not solution.mask[10:].any()


def test_all_channels_decided() -> None:
    problem = layer(4)
    kept = np.array([True, False, True, False])
    solution = enumerate_masks(problem.with_forced(kept, ~kept))
    assert solution.mask is not None
    assert solution.mask.tolist() == kept.tolist()


def test_keep_zero() -> None:
    solution = enumerate_masks(layer(4).with_keep(0))
    assert solution.value == pytest.approx(layer(4).energy / 2)


def test_stops_on_time_with_the_start_as_incumbent() -> None:
    problem = layer(22, 3)
    start = np.arange(22) < 11
    began = time.perf_counter()
    solution = enumerate_masks(problem, time_limit=0.3, start=start)
    assert time.perf_counter() - began < 1.3
    assert solution.termination is Termination.TIME_LIMIT
    assert solution.status is SolutionStatus.FEASIBLE
    assert solution.value == pytest.approx(problem.value(start))
    assert solution.bound == -np.inf


def test_callback_and_interruption_stop_it() -> None:
    problem = layer(20, 2)

    def stop(point: LogPoint) -> bool:
        return point.nodes > 1000

    solution = enumerate_masks(problem, callback=stop)
    assert solution.termination is Termination.CALLBACK

    def interrupt(_: LogPoint) -> bool:
        raise KeyboardInterrupt

    solution = enumerate_masks(problem, callback=interrupt)
    assert solution.termination is Termination.INTERRUPTED
    assert solution.status is SolutionStatus.NONE


@pytest.mark.parametrize("options", [{"time_limit": 0}, {"time_limit": -1.0}, {"gap": np.nan}])
def test_senseless_limits_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        enumerate_masks(layer(3), **options)  # type: ignore[arg-type]  # numbers only
