"""Outer approximation: both kinds of cuts, limits on time, stops."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import pytest
from pyomo.contrib.appsi.solvers import Highs

from mipprune.errors import InputError, SolverError
from mipprune.problem import ChannelSelection, LogPoint, SolutionStatus, Term, Termination
from mipprune.solvers import solve
from mipprune.solvers.outer_approximation import solve_by_cuts


class TickingClock(Protocol):
    """Of conftest: the time, set by hand."""

    now: float


def layer(
    p: int, keep: int, *, damping: float = 0.1, rows: int = 1, seed: int = 0, **more: object
) -> ChannelSelection:
    generator = np.random.default_rng(seed)
    d = p * rows
    x = generator.normal(size=(6 * d, d)) @ (np.eye(d) + 0.1 * generator.normal(size=(d, d)))
    w = generator.normal(size=(d, 2))
    y = x @ w
    n = len(x)
    term = Term.create(x.T @ x / n, x.T @ y / n, (y**2).sum() / n, [rows] * p, dense=w, **more)  # type: ignore[arg-type]  # forwarded
    return ChannelSelection.from_terms([term], keep=keep).with_damping(damping)


@pytest.mark.parametrize("cuts", ["value", "weights"])
def test_both_kinds_of_cuts_prove_the_optimum(cuts: str) -> None:
    problem = layer(7, 3, rows=2)
    best = solve(problem, "enumerate")
    found = solve_by_cuts(problem, gap=1e-5, cuts=cuts)
    assert found.status is SolutionStatus.OPTIMAL
    assert found.value == pytest.approx(best.value, rel=1e-5)
    assert found.bound <= best.value
    assert -np.inf < found.statistics["root_bound"] <= found.bound + 1e-9 * problem.energy


def test_a_bad_start_is_improved() -> None:
    problem = layer(8, 4)
    best = solve(problem, "enumerate")
    found = solve_by_cuts(problem, start=np.arange(8) < 4, gap=1e-5)
    assert found.value == pytest.approx(best.value, rel=1e-5)


def hard() -> ChannelSelection:
    """A problem that keeps HiGHS busy for hours."""
    return layer(40, 20, damping=0.001, rows=3)


def test_time_limit_keeps_incumbent_and_bound(
    ticking: Callable[[float], TickingClock], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, calls, original = ticking(0.0), list[object](), Highs.solve

    def last(solver: Highs, model: object) -> object:
        calls.append(original(solver, model))
        clock.now += 3.0 if len(calls) == 3 else 0.25
        return calls[-1]

    monkeypatch.setattr(Highs, "solve", last)
    found = solve_by_cuts(hard(), time_limit=2.0, cuts="value", start=np.arange(40) < 20)
    assert found.termination is Termination.TIME_LIMIT
    assert len(calls) == 3
    assert found.seconds == 3.5
    assert found.mask is not None
    assert -np.inf < found.bound < found.value


def test_highs_may_reach_the_limit_by_its_own_clock(
    ticking: Callable[[float], TickingClock], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, original = list[float](), Highs.solve

    def impatient(solver: Highs, model: object) -> object:
        calls.append(float(solver.config.time_limit))
        if len(calls) > 3:
            solver.config.time_limit = 0.01
        return original(solver, model)

    monkeypatch.setattr(Highs, "solve", impatient)
    ticking(0.0)
    found = solve_by_cuts(hard(), time_limit=60.0, cuts="value", start=np.arange(40) < 20)
    assert found.seconds == 0.0
    assert found.termination is Termination.TIME_LIMIT
    assert set(calls) == {60.0}
    assert found.mask is not None
    assert -np.inf < found.bound < found.value


def test_every_master_gets_the_time_that_is_left(
    ticking: Callable[[float], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    given, original = list[float](), Highs.solve

    def watch(solver: Highs, model: object) -> object:
        given.append(float(solver.config.time_limit))
        return original(solver, model)

    monkeypatch.setattr(Highs, "solve", watch)
    ticking(0.125)
    found = solve_by_cuts(layer(6, 3), time_limit=60.0)
    assert found.status is SolutionStatus.OPTIMAL
    assert len(given) > 2
    assert given == sorted(given, reverse=True)
    assert given[0] < 60.0


def test_callback_and_interruption_stop_it() -> None:
    problem = layer(12, 6)
    found = solve_by_cuts(problem, callback=lambda point: np.isfinite(point.value))
    assert found.termination is Termination.CALLBACK
    assert found.mask is not None

    def interrupt(point: LogPoint) -> bool:
        if np.isfinite(point.bound):
            raise KeyboardInterrupt
        return False

    found = solve_by_cuts(problem, callback=interrupt)
    assert found.termination is Termination.INTERRUPTED
    assert found.mask is not None
    assert found.bound > -np.inf


def test_wrong_options_and_problems_are_refused() -> None:
    with pytest.raises(InputError, match="cuts"):
        solve_by_cuts(layer(4, 2), cuts="many")
    with pytest.raises(InputError, match="box"):
        solve_by_cuts(layer(4, 2, big_m=1.0), cuts="value")
    x = np.ones((5, 2))
    singular = ChannelSelection(x.T @ x, x.T @ x[:, :1], 5.0, [1, 1])
    with pytest.raises(SolverError, match="singular"):
        solve(singular, "outer-approximation")
