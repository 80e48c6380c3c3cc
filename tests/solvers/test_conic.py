"""Mixed-integer cones through Pyomo: optimum, tolerances, licences, stops."""

import builtins
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pyomo.contrib.solver.solvers.scip.scip_direct import ScipDirect

from mipprune.errors import InputError, MissingExtraError
from mipprune.problem import ChannelSelection, SolutionStatus, Termination
from mipprune.solvers import solve
from mipprune.solvers._external import External
from mipprune.solvers.conic import solve_conic


def layer(p: int, keep: int, damping: float = 0.1) -> ChannelSelection:
    generator = np.random.default_rng(1)
    x = generator.normal(size=(6 * p, p)) @ (np.eye(p) + 0.1 * generator.normal(size=(p, p)))
    y = x @ generator.normal(size=(p, 2))
    n = len(x)
    problem = ChannelSelection(x.T @ x / n, x.T @ y / n, (y**2).sum() / n, [1] * p, keep=keep)
    return problem.with_damping(damping)


def test_scip_proves_the_optimum() -> None:
    problem = layer(8, 4)
    best = solve(problem, "enumerate")
    found = solve_conic(problem, gap=1e-5)
    assert found.status is SolutionStatus.OPTIMAL
    assert found.solver == "conic (scip)"
    assert found.version.startswith("pyscipopt")
    assert found.value == pytest.approx(best.value, rel=1e-9)
    assert found.bound <= best.value
    assert found.gap <= 1e-5


def test_units_do_not_matter() -> None:
    problem = layer(6, 3)
    term = problem.terms[0].weighted(1e8)
    large = ChannelSelection.from_terms([term], keep=3)
    found = solve_conic(large, gap=1e-5)
    assert found.status is SolutionStatus.OPTIMAL
    assert found.value == pytest.approx(1e8 * solve(problem, "enumerate").value, rel=1e-5)


def test_time_limit_keeps_the_incumbent(
    ticking: Callable[[float], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    given, original = list[float](), ScipDirect.solve

    def watch(self: ScipDirect, model: object, **options: Any) -> object:
        given.append(options["time_limit"])
        return original(self, model, **options)

    monkeypatch.setattr(ScipDirect, "solve", watch)
    ticking(2.0**-10)
    # Without a limit this problem keeps SCIP busy for hours.
    found = solve_conic(layer(40, 20, 0.001), time_limit=2.0, start=np.arange(40) < 20)
    assert [0 < seconds < 2.0 for seconds in given] == [True]
    assert found.termination is Termination.TIME_LIMIT
    assert found.mask is not None
    assert found.bound < found.value


def test_a_model_that_takes_too_long_to_write_is_not_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def begun(*_: object) -> None:
        raise AssertionError("the model was written")

    monkeypatch.setattr("mipprune.solvers.conic.split_loss_model", begun)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(400, 200))
    y = x @ generator.normal(size=(200, 60))
    gram, cross = x.T @ x / 400, x.T @ y / 400
    wide = ChannelSelection(gram, cross, (y**2).sum() / 400, [10] * 20, keep=10)
    found = solve_conic(wide.with_damping(0.1), time_limit=3.0, start=np.arange(20) < 10)
    assert found.termination is Termination.TIME_LIMIT
    assert found.mask is not None


def test_a_bound_above_a_feasible_value_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = layer(6, 3)
    best = solve(problem, "enumerate").value
    original = External.raise_bound

    def wrong(self: External, bound: float) -> None:
        original(self, bound + 1e-6 * problem.energy)

    monkeypatch.setattr(External, "raise_bound", wrong)
    found = solve_conic(problem, gap=1e-5)
    assert found.statistics["external_bound"] > best
    assert found.bound == -np.inf
    assert found.status is SolutionStatus.FEASIBLE
    assert found.termination is Termination.SOLVER
    assert found.value == pytest.approx(best)


def test_a_callback_may_stop_before_the_search() -> None:
    found = solve_conic(layer(8, 4), callback=lambda _: True)
    assert found.termination is Termination.CALLBACK
    assert found.mask is not None


def test_unknown_and_missing_solvers_are_named() -> None:
    with pytest.raises(InputError, match="scip, gurobi"):
        solve_conic(layer(4, 2), solver="cplex")
    if importlib.util.find_spec("gurobipy") is None:
        with pytest.raises(MissingExtraError, match=r"mipprune\[gurobi\]"):
            solve_conic(layer(4, 2), solver="gurobi")


@pytest.mark.skipif(
    importlib.util.find_spec("gurobipy") is None, reason="gurobipy is optional and not installed"
)
def test_gurobi_within_its_licence() -> None:
    problem = layer(6, 3)
    best = solve(problem, "enumerate")
    found = solve_conic(problem, solver="gurobi", gap=1e-5)
    assert found.value == pytest.approx(best.value, rel=1e-5)
    assert found.bound <= best.value


def test_importing_the_dispatcher_loads_no_modelling_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, seen = builtins.__import__, []

    def spy(name: str, *args: object, **kwargs: object) -> object:
        seen.append(name.split(".")[0])
        return real(name, *args, **kwargs)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(builtins, "__import__", spy)
    solve(layer(4, 2), "enumerate")
    assert not {"pyomo", "cvxpy", "pyscipopt"} & set(seen)
