"""Whole ReLU networks as a mixed-integer linear program, through Pyomo."""

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mipprune.errors import MissingExtraError, NoSolutionError, SolverError
from mipprune.formulation.relu_network import (
    NetworkPruning,
    build_relu_network,
    propagate_bounds,
)
from mipprune.problem import LogPoint, SolutionStatus, Termination
from mipprune.solvers.relu_network._solution import Masks, NetworkSolution
from mipprune.solvers.relu_network._tightening import tighten_bounds

__all__ = ["solve_milp"]


def solve_milp(
    task: NetworkPruning,
    first: Masks | None,
    *,
    solver: str,
    formulation: str,
    tighten: bool,
    time_limit: float | None,
    gap: float,
    log: bool,
) -> NetworkSolution:
    """Build the program, tighten it, start it from ``first`` and solve it.

    A mask that the solver accepts within tolerances of its own but the real
    forward pass does not is cut off and the program solved again.
    """
    began = time.monotonic()
    deadline = math.inf if time_limit is None else began + time_limit
    run = _RunOf(task, solver, formulation, gap, began)
    try:
        bounds = propagate_bounds(task)
        if tighten and _tightening_pays(task):
            allowed = math.inf if time_limit is None else 0.3 * time_limit
            bounds = tighten_bounds(task, bounds, time_limit=allowed)
        run.tighten_seconds = time.monotonic() - began
        model = build_relu_network(task, bounds, formulation)
        run.size = len(model.keep) + len(model.firing) + len(model.miss), len(model.rows)
        if first is not None:
            _load_start(model, task, first)
    except KeyboardInterrupt:
        return run.solution(first, _Reply.empty(Termination.INTERRUPTED))
    engine = _run_highs if solver == "highs" else _run_scip
    nodes = 0
    while True:
        left = None if time_limit is None else max(deadline - time.monotonic(), 1.0)
        reply = engine(model, left, gap, first is not None, log)
        nodes += reply.nodes
        candidate = _masks_of(task, reply)
        if reply.termination is not Termination.GAP or candidate is None:
            break
        if task.is_feasible(candidate) or time.monotonic() > deadline:
            break
        _cut_off(model, candidate)
    return run.solution(first, replace(reply, nodes=nodes))


def _cut_off(model: Any, masks: Masks) -> None:
    """Exclude one choice of neurons: at least one keep variable differs from it."""
    model.rows.add(
        sum(1 - y if masks[layer][j] else y for (layer, j), y in model.keep.items()) >= 1
    )


def _masks_of(task: NetworkPruning, reply: "_Reply") -> Masks | None:
    if reply.keep is None:
        return None
    found = [np.zeros(n, dtype=bool) for n in task.network.widths]
    for (layer, j), value in reply.keep.items():
        found[layer][j] = value > 0.5
    return tuple(found)


def _tightening_pays(task: NetworkPruning) -> bool:
    limited = task.keep_predictions or task.max_deviation is not None
    return len(task.network.widths) > 2 or limited


def _load_start(model: Any, task: NetworkPruning, masks: Masks) -> None:
    """Give every variable its value under ``masks`` (solvers complete what is left out)."""
    values = task.network.preactivations(task.inputs, masks)
    for (layer, j), variable in model.keep.items():
        variable.set_value(int(masks[layer][j]))
    for (layer, i, j), variable in model.hidden.items():
        variable.set_value(max(float(values[layer][i, j]), 0.0) * bool(masks[layer][j]))
    for (layer, i, j), variable in model.firing.items():
        variable.set_value(int(values[layer][i, j] > 0 and masks[layer][j]))
    for (i, c), variable in model.output.items():
        variable.set_value(float(values[-1][i, c]), skip_validation=True)
    missed = task.leads(masks) < task.least_lead
    for i, variable in model.miss.items():
        variable.set_value(int(missed[i]))


@dataclass(frozen=True)
class _Reply:
    """What a solver said."""

    keep: dict[tuple[int, int], float] | None
    outputs: dict[tuple[int, int], float]
    bound: float
    termination: Termination
    infeasible: bool
    nodes: int

    @classmethod
    def empty(cls, termination: Termination) -> "_Reply":
        """Stopped before the solver began."""
        return cls(None, {}, -math.inf, termination, infeasible=False, nodes=0)


def _run_highs(model: Any, time_limit: float | None, gap: float, warm: bool, log: bool) -> _Reply:
    from pyomo.contrib.appsi.base import TerminationCondition as Condition
    from pyomo.contrib.appsi.solvers import Highs

    engine = Highs()
    engine.config.load_solution = False
    engine.config.time_limit = time_limit
    engine.config.warmstart = warm
    engine.config.stream_solver = log
    engine.highs_options = {"mip_rel_gap": gap}
    results = engine.solve(model)
    condition = results.termination_condition
    found = results.best_feasible_objective is not None
    if found:
        results.solution_loader.load_vars()
    nodes = engine._solver_model.getInfo().mip_node_count
    return _Reply(
        *_read(model, found),
        bound=_or_minus_infinity(results.best_objective_bound),
        termination={
            Condition.optimal: Termination.GAP,
            Condition.infeasible: Termination.COMPLETE,
            Condition.maxTimeLimit: Termination.TIME_LIMIT,
            Condition.interrupted: Termination.INTERRUPTED,
        }.get(condition, Termination.SOLVER),
        infeasible=condition == Condition.infeasible,
        nodes=int(nodes),
    )


def _run_scip(model: Any, time_limit: float | None, gap: float, warm: bool, log: bool) -> _Reply:
    from importlib.util import find_spec

    from pyomo.contrib.solver.common.factory import SolverFactory
    from pyomo.contrib.solver.common.results import TerminationCondition as Condition

    if find_spec("pyscipopt") is None:
        raise MissingExtraError("pyscipopt", "scip", "for solver='scip'")
    engine = SolverFactory("scip_direct")
    results = engine.solve(
        model,
        time_limit=time_limit,
        rel_gap=gap,
        tee=log,
        warmstart_discrete_vars=warm,
        load_solutions=False,
        raise_exception_on_nonoptimal_result=False,
    )
    condition = results.termination_condition
    found = results.incumbent_objective is not None
    if found:
        results.solution_loader.load_vars()
    return _Reply(
        *_read(model, found),
        bound=_or_minus_infinity(results.objective_bound),
        termination={
            Condition.convergenceCriteriaSatisfied: Termination.GAP,
            Condition.provenInfeasible: Termination.COMPLETE,
            Condition.maxTimeLimit: Termination.TIME_LIMIT,
            Condition.interrupted: Termination.INTERRUPTED,
        }.get(condition, Termination.SOLVER),
        infeasible=condition == Condition.provenInfeasible,
        nodes=int(engine._solver_model.getNTotalNodes()),
    )


def _read(
    model: Any, found: bool
) -> tuple[dict[tuple[int, int], float] | None, dict[tuple[int, int], float]]:
    if not found:
        return None, {}
    keep = {index: float(v.value) for index, v in model.keep.items()}
    return keep, {index: float(v.value) for index, v in model.output.items()}


def _or_minus_infinity(bound: float | None) -> float:
    return -math.inf if bound is None or not math.isfinite(bound) else float(bound)


class _RunOf:
    """What is known about a run besides the solver's reply, and the result made of both."""

    def __init__(
        self, task: NetworkPruning, solver: str, formulation: str, gap: float, began: float
    ) -> None:
        self.task, self.gap, self.began = task, gap, began
        self.solver, self.formulation = solver, formulation
        self.tighten_seconds = 0.0
        self.size = (task.network.n_neurons, 0)

    def solution(self, start: Masks | None, reply: _Reply) -> NetworkSolution:
        """Recompute everything from the masks; the start stands in where it is better."""
        task = self.task
        self._refuse_infeasible(start, reply)
        masks, error = start, 0.0
        candidate = _masks_of(task, reply)
        if candidate is not None:
            outputs = task.network.forward(task.inputs, candidate)
            error = max(
                (abs(v - outputs[index]) for index, v in reply.outputs.items()), default=0.0
            )
            if task.is_feasible(candidate) and (
                masks is None or task.value(candidate) <= task.value(masks)
            ):
                masks = candidate
        value = math.inf if masks is None else task.value(masks)
        # Every objective is at least zero.
        bound = min(max(reply.bound, 0.0), value)
        status = SolutionStatus.NONE if masks is None else SolutionStatus.FEASIBLE
        # The program is exact up to the solver's feasibility tolerance (1e-6).
        solved = reply.termination is Termination.GAP
        if masks is not None and solved and value - bound <= self.gap * abs(value) + 1e-6:
            status = SolutionStatus.OPTIMAL
        seconds = time.monotonic() - self.began
        return NetworkSolution(
            masks=masks,
            value=value,
            bound=bound,
            violation=0.0 if masks is None else task.violation(masks),
            tolerance=task.tolerance,
            forward_error=float(error),
            status=status,
            termination=reply.termination,
            nodes=reply.nodes,
            n_binaries=self.size[0],
            n_rows=self.size[1],
            seconds=seconds,
            tighten_seconds=self.tighten_seconds,
            solver=self.solver,
            formulation=self.formulation,
            trace=(LogPoint(seconds, reply.nodes, value, bound),),
        )

    def _refuse_infeasible(self, start: Masks | None, reply: _Reply) -> None:
        if reply.infeasible and start is None:
            raise NoSolutionError(
                "no choice of neurons meets the limits (proven); raise max_neurons or "
                "max_deviation, or drop keep_predictions"
            )
        if reply.infeasible:
            raise SolverError(
                f"{self.solver} calls the program infeasible although the starting masks meet "
                "every limit: a numerical failure of the solver; try another formulation or solver"
            )
