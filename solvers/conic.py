"""Mixed-integer cone solvers through Pyomo: SCIP, and Gurobi where present.

The model is :mod:`mipprune.formulation.split_loss` with bounds on the weights
from a first feasible mask, in units of half the energy. The external solver's
tolerances let its value and bound sit slightly below the truth: the value is
recomputed from the mask, and a gap that they leave open is reported as open.
"""

import math
from typing import Any

import pyomo.environ as pyo
from numpy.typing import ArrayLike
from pyomo.contrib.solver.common.factory import SolverFactory
from pyomo.contrib.solver.common.results import TerminationCondition

from mipprune._support.checks import require_choice
from mipprune.errors import MissingExtraError, SolverError
from mipprune.formulation import binary_quadratic_model, mask_of, split_loss_model
from mipprune.problem import ChannelSelection, Solution, Termination
from mipprune.solvers._external import External, normalised
from mipprune.solvers._monitor import Callback, Monitor, checked_request

__all__ = ["CONE_SOLVERS", "solve_conic"]

CONE_SOLVERS = ("scip", "gurobi")

GUROBI_LICENCE = 200
"""Variables that the licence inside the gurobipy package allows once anything is quadratic."""

INTERFACES = {"scip": "scip_direct", "gurobi": "gurobi_direct_minlp"}
PACKAGES = {"scip": "pyscipopt", "gurobi": "gurobipy"}
TOLERANCE = 1e-9


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

    Returns
    -------
    Solution
        Optimal where the recomputed value and the bound meet within the gap;
        otherwise feasible, terminated by the solver.

    Raises
    ------
    InputError
        Unknown solver.
    MissingExtraError
        The solver's package is not installed.
    SolverError
        The solver fails, for example because a licence is too small.
    """
    checked_request(problem, time_limit, gap, seed, callback, log)
    require_choice("solver", solver, CONE_SOLVERS)
    interface = _interface(solver)
    monitor = Monitor("conic", time_limit, callback, log)
    state = External(problem, monitor, f"conic ({solver})", gap)
    state.version = f"{PACKAGES[solver]} {'.'.join(map(str, interface.version()))}"

    def search() -> Termination:
        termination = _run(state, interface, solver, seed)
        state.check()
        return termination

    return state.run(start, seed, search)


def _interface(solver: str) -> Any:
    interface = SolverFactory(INTERFACES[solver])
    if not interface.available():
        raise MissingExtraError(PACKAGES[solver], solver, f"for method 'conic' with {solver}")
    return interface


def _run(state: External, interface: Any, solver: str, seed: int) -> Termination:
    scaled, factor = normalised(state.problem)
    if scaled.variant == "mask":
        model = binary_quadratic_model(scaled)
    else:
        state.afford(scaled)
        model = split_loss_model(scaled, state.mask)
        _switch(model, scaled)
    size = sum(1 for _ in model.component_data_objects(ctype=pyo.Var))
    if solver == "gurobi" and size > GUROBI_LICENCE:
        state.statistics["variables"] = size
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
    except (RuntimeError, ValueError) as error:
        hint = (
            f"; it has {size} variables and the licence inside gurobipy allows {GUROBI_LICENCE}"
            if solver == "gurobi" and size > GUROBI_LICENCE
            else ""
        )
        raise SolverError(f"{solver} failed on this problem ({error}){hint}") from error
    return _read(state, model, results, factor)


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
        return {"Seed": seed % 2**31, "FeasibilityTol": TOLERANCE, "IntFeasTol": TOLERANCE}
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
