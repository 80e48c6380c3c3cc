"""Mixed-integer cone solvers through Pyomo: SCIP, and Gurobi where present.

The model is one of :mod:`mipprune.formulation.split_loss`,
:mod:`mipprune.formulation.perspective_cone` and :mod:`mipprune.formulation.big_m`, with
bounds on the weights from a first feasible mask, in units of half the energy. The
external solver's tolerances let its value and bound sit slightly below the truth: the
value is recomputed from the mask, and a gap that they leave open is reported as open.
"""

import math
from importlib import import_module
from typing import Any

import pyomo.environ as pyo
from numpy.typing import ArrayLike
from pyomo.contrib.solver.common.factory import SolverFactory
from pyomo.contrib.solver.common.results import TerminationCondition

from mipprune._support.checks import require_choice
from mipprune.errors import MissingExtraError, SolverError
from mipprune.formulation import (
    big_m_model,
    binary_quadratic_model,
    mask_of,
    perspective_cone_model,
    split_loss_model,
)
from mipprune.problem import ChannelSelection, Solution, Termination
from mipprune.solvers._external import MARGIN, External, normalised
from mipprune.solvers._monitor import Callback, Monitor, checked_request

__all__ = ["CONE_FORMULATIONS", "CONE_SOLVERS", "solve_conic"]

CONE_SOLVERS = ("scip", "gurobi")
CONE_FORMULATIONS = ("auto", "split-loss", "perspective", "big-m")

GUROBI_LICENCE = 200
"""Variables that the licence inside the gurobipy package allows once anything is quadratic."""

INTERFACES = {"scip": "scip_direct", "gurobi": "gurobi_direct_minlp"}
PACKAGES = {"scip": "pyscipopt", "gurobi": "gurobipy"}
TOLERANCE = 1e-9

MARGINS = {"scip": MARGIN, "gurobi": 1e-7}
"""Taken off the bound, relative to the energy.

Gurobi's bound of a cone model comes from interior points: with its default tolerances it
was up to 5e-7 of the energy above the optimum, with those of :func:`_options` 1e-10.
"""


def solve_conic(
    problem: ChannelSelection,
    *,
    time_limit: float | None = None,
    gap: float = 1e-6,
    start: ArrayLike | None = None,
    seed: int = 0,
    callback: Callback | None = None,
    log: bool = False,
    solver: str = "scip",
    formulation: str = "auto",
) -> Solution:
    """Choose channels with a mixed-integer second-order cone solver.

    Parameters
    ----------
    problem : ChannelSelection
        Every variant and limit; needs a ridge or a regular Gram matrix.
    time_limit, gap, start, seed, callback, log
        As in :func:`mipprune.solvers.solve`; the callback is called before and
        after the external search only.
    solver : {"scip", "gurobi"}
    formulation : {"auto", "split-loss", "perspective", "big-m"}
        Of variants refit and scale; see docs/formulations.md. ``auto`` is the split
        loss for SCIP and the perspective, which has fewest variables of those with
        that relaxation, for Gurobi.

    Returns
    -------
    Solution
        Optimal where the recomputed value and the bound meet within the gap;
        otherwise feasible, terminated by the solver.

    Raises
    ------
    InputError
        Unknown solver or formulation.
    MissingExtraError
        The solver's package is not installed.
    SolverError
        The solver fails, or its licence does not allow a model of this size.
    """
    checked_request(problem, time_limit, gap, seed, callback, log)
    require_choice("solver", solver, CONE_SOLVERS)
    require_choice("formulation", formulation, CONE_FORMULATIONS)
    interface = _interface(solver)
    monitor = Monitor("conic", time_limit, callback, log)
    state = External(problem, monitor, f"conic ({solver})", gap, MARGINS[solver])
    state.version = f"{PACKAGES[solver]} {'.'.join(map(str, interface.version()))}"

    def search() -> Termination:
        termination = _run(state, interface, solver, formulation, seed)
        state.check()
        return termination

    return state.run(start, seed, search)


def _interface(solver: str) -> Any:
    interface = SolverFactory(INTERFACES[solver])
    if not interface.available():
        raise MissingExtraError(PACKAGES[solver], solver, f"for method 'conic' with {solver}")
    return interface


def _run(state: External, interface: Any, solver: str, formulation: str, seed: int) -> Termination:
    scaled, factor = normalised(state.problem)
    model = _model(state, scaled, solver, formulation)
    remaining = state.monitor.remaining
    if state.mask is not None:
        for j, kept in enumerate(state.mask):
            model.y[j].set_value(int(kept))
    try:
        results = interface.solve(
            model,
            time_limit=None if math.isinf(remaining) else max(remaining, 0.01),
            rel_gap=state.gap / 2,
            threads=1,
            solver_options=_options(solver, seed),
            load_solutions=False,
            raise_exception_on_nonoptimal_result=False,
        )
    except _failures(solver) as error:
        raise SolverError(_refusal(solver, model, error)) from error
    return _read(state, model, results, factor)


def _model(state: External, scaled: ChannelSelection, solver: str, formulation: str) -> Any:
    if scaled.variant == "mask":
        return binary_quadratic_model(scaled)
    state.afford(scaled)
    if formulation == "big-m":
        return big_m_model(scaled, state.mask)
    split = formulation == "split-loss" or (formulation == "auto" and solver == "scip")
    model = (split_loss_model if split else perspective_cone_model)(scaled, state.mask)
    _switch(model, scaled)
    return model


def _failures(solver: str) -> tuple[type[Exception], ...]:
    """What the interface raises where the solver fails."""
    if solver == "gurobi":
        return RuntimeError, ValueError, import_module("gurobipy").GurobiError
    return RuntimeError, ValueError


def _refusal(solver: str, model: Any, error: Exception) -> str:
    """Message of a failure; says so where it is the size that the licence refuses."""
    if solver != "gurobi" or "license" not in str(error):
        return f"{solver} failed on this problem ({error})"
    size = sum(1 for _ in model.component_data_objects(ctype=pyo.Var))
    return (
        f"gurobi refuses this model of {size} variables ({error}): the licence inside the "
        f"gurobipy package allows {GUROBI_LICENCE} variables once anything is quadratic, and "
        "2000 variables and rows else; use a licence of your own, a formulation with fewer "
        "variables (formulation='big-m'), or method 'branch-and-bound'"
    )


def _switch(model: Any, problem: ChannelSelection) -> None:
    """``|w| <= M y`` where w has bounds.

    The cone alone lets a gate of 1e-9 carry a weight of 1e-3; with these rows
    the solver's tolerance costs a millionth of that.
    """
    model.switch = pyo.ConstraintList()
    for t, i, c in model.w:
        reach = model.w[t, i, c].ub
        if reach is not None:
            y = model.y[int(problem.terms[t].channel_of_row[i])]
            model.switch.add(model.w[t, i, c] <= reach * y)
            model.switch.add(model.w[t, i, c] >= -reach * y)


def _options(solver: str, seed: int) -> dict[str, Any]:
    if solver == "gurobi":
        return {
            "Seed": seed % 2**31,
            # Rows keep their default tolerance: with 1e-9 it once cut the optimum off and
            # reported a bound of 7e-4 of the energy above it.
            "IntFeasTol": TOLERANCE,
            "OptimalityTol": TOLERANCE,
            "BarConvTol": TOLERANCE / 10,
            "BarQCPConvTol": TOLERANCE / 10,
            # Cones by linear cuts: bounds from vertices, and nodes that start warm.
            "MIQCPMethod": 1,
        }
    return {
        "randomization/randomseedshift": seed % 2**31,
        "numerics/feastol": TOLERANCE,
        "numerics/dualfeastol": TOLERANCE,
        # Its nonlinear sub-solver does not watch the clock.
        "nlp/disable": True,
    }


def _read(state: External, model: Any, results: Any, factor: float) -> Termination:
    condition = results.termination_condition
    if condition in (
        TerminationCondition.provenInfeasible,
        TerminationCondition.infeasibleOrUnbounded,
    ):
        state.infeasible = state.mask is None
        return Termination.COMPLETE
    if results.incumbent_objective is not None and math.isfinite(results.incumbent_objective):
        results.solution_loader.load_vars()
        state.offer(mask_of(model))
    bound = results.objective_bound
    if bound is not None and math.isfinite(bound):
        state.raise_bound(bound / factor)
    if condition is TerminationCondition.maxTimeLimit:
        return Termination.TIME_LIMIT
    if condition is TerminationCondition.interrupted:
        return Termination.INTERRUPTED
    return Termination.SOLVER
