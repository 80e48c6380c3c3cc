"""One battery for all solvers: same objective, and never a bound above the optimum.

``benchmarks/solvers_battery.py`` runs all of it, generic solvers included, and keeps figures.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mipprune.problem import ChannelSelection, Solution, SolutionStatus, Termination
from mipprune.solvers import METHODS, methods_for, solve

RandomProblem = Callable[..., ChannelSelection]
OURS = ("branch-and-bound", "local-search")
GENERIC = tuple(name for name in METHODS if name not in (*OURS, "enumerate"))

FAST = range(2000, 2100)
SLOW = [range(first, first + 46) for first in range(2100, 2560, 46)]
"""In pieces, so that each ends well within the time limit of one test."""

PATIENCE = 120.0
"""Seconds per instance for a generic solver; most take less than one."""


def check_against(problem: ChannelSelection, best: Solution, found: Solution, gap: float) -> None:
    """The result of a proving solver against the enumerated optimum."""
    if best.mask is None:
        assert found.status is SolutionStatus.INFEASIBLE
        assert found.mask is None
        return
    rounding = 1e-9 * problem.energy
    assert found.mask is not None
    assert problem.is_feasible(found.mask)
    assert found.value == problem.value(found.mask)
    assert found.bound <= best.value + 1e-10 * problem.energy, "a bound above the optimum"
    assert found.status is SolutionStatus.OPTIMAL
    assert found.value >= best.value - rounding
    assert found.value <= best.value + gap * abs(best.value) + rounding


def ours(problem: ChannelSelection, seed: int) -> int:
    """Run our solvers on one instance; 1 where local search missed the optimum."""
    best = solve(problem, "enumerate")
    found = solve(problem, "branch-and-bound", gap=1e-8)
    check_against(problem, best, found, 1e-8)
    heuristic = solve(problem, "local-search", seed=seed, rounds=24)
    assert heuristic.bound == -np.inf
    if best.mask is None:
        assert heuristic.mask is None
        return 0
    assert heuristic.mask is not None
    assert problem.is_feasible(heuristic.mask)
    rounding = 1e-9 * problem.energy
    assert heuristic.value >= best.value - rounding
    return int(heuristic.value > best.value + 1e-8 * abs(best.value) + rounding)


def run_ours(seeds: range, random_problem: RandomProblem) -> None:
    missed = sum(ours(random_problem(seed, 12, box=seed % 10 == 0), seed) for seed in seeds)
    assert missed <= 0.05 * len(seeds)


@pytest.mark.timeout(1800)
def test_our_solvers_agree(random_problem: RandomProblem) -> None:
    run_ours(FAST, random_problem)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seeds", SLOW, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_our_solvers_agree_on_more(seeds: range, random_problem: RandomProblem) -> None:
    run_ours(seeds, random_problem)


def check_generic(
    problem: ChannelSelection, method: str, time_limit: float, **options: Any
) -> bool:
    """Bound and value of a generic solver; whether it closed the gap in time."""
    best = solve(problem, "enumerate")
    found = solve(problem, method, gap=1e-5, time_limit=time_limit, **options)
    if best.mask is None:
        assert found.status is SolutionStatus.INFEASIBLE
        return True
    # Not hidden by a mask that is optimal already.
    external = found.statistics.get("external_bound", -np.inf)
    assert external <= best.value + 1e-8 * problem.energy, "a bound above the optimum"
    assert found.mask is not None
    assert found.bound <= best.value + 1e-10 * problem.energy, "a bound above the optimum"
    assert found.value >= best.value - 1e-9 * problem.energy
    if found.status is SolutionStatus.OPTIMAL:
        check_against(problem, best, found, 1e-5)
        return True
    if found.termination is Termination.SOLVER:
        # It stopped by its own tolerances: the mask must still be right.
        assert found.value <= best.value + 1e-4 * abs(best.value) + 1e-9 * problem.energy
        if best.value > 1e-6 * problem.energy:
            assert found.gap < 1e-3
        else:  # next to zero a relative gap says nothing
            assert found.value - found.bound < 1e-6 * problem.energy
        return True
    assert found.termination is Termination.TIME_LIMIT
    return False


def run_generic(
    method: str,
    seeds: range,
    most: int,
    size: dict[str, int],
    random_problem: RandomProblem,
    **options: Any,
) -> None:
    taken = closed = 0
    for seed in seeds:
        problem = random_problem(seed, 7, box=seed % 10 == 0, **size)
        if method in methods_for(problem):
            taken += 1
            closed += check_generic(problem, method, PATIENCE, **options)
        if taken == most:
            break
    assert taken == most
    assert closed >= 0.9 * most


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("method", GENERIC)
def test_generic_solvers_agree(method: str, random_problem: RandomProblem) -> None:
    size = {"max_rows": 1, "max_responses": 2}
    run_generic(method, range(3000, 3200), 60, size, random_problem)


@pytest.mark.skipif(
    importlib.util.find_spec("gurobipy") is None, reason="gurobipy is optional and not installed"
)
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("formulation", ["perspective", "big-m"])
def test_gurobi_agrees(formulation: str, random_problem: RandomProblem) -> None:
    size = {"max_rows": 1, "max_responses": 2}
    options = {"solver": "gurobi", "formulation": formulation}
    run_generic("conic", range(3000, 3200), 60, size, random_problem, **options)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("method", GENERIC)
def test_generic_solvers_agree_on_groups(method: str, random_problem: RandomProblem) -> None:
    run_generic(method, range(3200, 3400), 60, {"max_rows": 2}, random_problem)
