"""Outer approximation with HiGHS through Pyomo: a tree per round, cuts in between.

The master holds the mask and linear cuts only (see
:mod:`mipprune.formulation.value_cuts` and
:mod:`mipprune.formulation.perspective_cuts`). Rounds on its linear relaxation
come first; then integer rounds, each started from the incumbent, add the cuts
at the mask found. HiGHS takes neither lazy constraints nor user cuts, so every
integer round searches a new tree.
"""

import math
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import pyomo.environ as pyo
from numpy.typing import ArrayLike, NDArray
from pyomo.contrib.appsi.base import TerminationCondition
from pyomo.contrib.appsi.solvers import Highs

from mipprune._support.checks import require_choice
from mipprune.errors import InputError, SolverError
from mipprune.formulation import (
    PerspectiveCuts,
    ValueCuts,
    binary_quadratic_model,
    mask_of,
    weight_bounds,
)
from mipprune.formulation._weights import cross_of
from mipprune.problem import ChannelSelection, Solution, Termination, solve_psd
from mipprune.solvers._external import External, normalised
from mipprune.solvers._monitor import Callback, Monitor, SearchStopped, checked_request

__all__ = ["CUTS", "solve_by_cuts"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

CUTS = ("auto", "value", "weights")

MAX_WEIGHTS = 256
"""Most weights for which ``auto`` puts them into the master."""

ROOT_ROUNDS = 60
ROOT_PROGRESS = 1e-4


def solve_by_cuts(
    problem: ChannelSelection,
    *,
    time_limit: float | None = None,
    gap: float = 1e-6,
    start: ArrayLike | None = None,
    seed: int = 0,
    callback: Callback | None = None,
    log: bool = False,
    cuts: str = "auto",
) -> Solution:
    """Choose channels by multi-tree outer approximation.

    Parameters
    ----------
    problem : ChannelSelection
        Every variant and limit; needs a ridge or a regular Gram matrix. Variant
        mask is one linearised integer program without rounds.
    time_limit, gap, start, seed, callback, log
        As in :func:`mipprune.solvers.solve`.
    cuts : {"auto", "value", "weights"}
        Cuts in the mask alone, or perspective and loss cuts in the weights;
        ``auto`` takes weights where there are at most 256 of them or a box.

    Returns
    -------
    Solution
        ``nodes`` counts integer rounds; ``statistics`` has root_bound and cuts.

    Raises
    ------
    InputError
        Unknown ``cuts``, or cuts in the mask for a problem with a box.
    SolverError
        HiGHS reports an error.
    """
    checked_request(problem, time_limit, gap, seed, callback, log)
    require_choice("cuts", cuts, CUTS)
    if cuts == "value" and problem.has_box and problem.variant != "mask":
        raise InputError("cuts='value' does not see a box; use cuts='weights'")
    monitor = Monitor("outer-approximation", time_limit, callback, log)
    state = External(problem, monitor, "outer-approximation", gap)
    state.version = f"highspy {version('highspy')}"
    return state.run(start, seed, lambda: _run(state, cuts, seed))


class _Master(Protocol):
    """A linear model in the mask that grows by cuts."""

    model: Any

    def cut_mask(self, mask: Bools) -> None:
        """Cuts that make the model exact at a mask."""

    def cut_solution(self) -> None:
        """Cuts at the model's current solution."""


class _ValueMaster:
    def __init__(self, problem: ChannelSelection) -> None:
        self.cuts = ValueCuts(problem)
        self.model = self.cuts.model

    def cut_mask(self, mask: Bools) -> None:
        """Tangent of the value function at the mask."""
        self.cuts.add(mask.astype(np.float64))

    def cut_solution(self) -> None:
        """Tangent at the gates of the relaxation."""
        self.cuts.add(_gates(self.model))


class _WeightMaster:
    def __init__(self, problem: ChannelSelection, incumbent: Bools) -> None:
        self.problem = problem
        self.cuts = PerspectiveCuts(problem)
        self.model = self.cuts.model
        bounds = weight_bounds(problem, incumbent)
        # Tangents at weight zero say nothing: without these rows a removed channel
        # could keep a weight, and a mask would never be priced exactly.
        self.model.switch = pyo.ConstraintList()
        for t, i, c in self.model.w:
            term = problem.terms[t]
            reach = float(bounds[t][int(term.channel_of_row[i])])
            self.model.w[t, i, c].setlb(-reach)
            self.model.w[t, i, c].setub(reach)
            y = self.model.y[int(term.channel_of_row[i])]
            self.model.switch.add(self.model.w[t, i, c] <= reach * y)
            self.model.switch.add(self.model.w[t, i, c] >= -reach * y)

    def cut_mask(self, mask: Bools) -> None:
        """Tangents at the best weights of the mask."""
        self.cuts.add(self._best(mask))

    def cut_solution(self) -> None:
        """Tangents at the weights of the relaxation."""
        self.cuts.add(self.cuts.weights(), 1e-9)

    def _best(self, mask: Bools) -> list[Floats]:
        if self.problem.has_box:
            return list(self.problem.weights(mask))
        result = []
        for term in self.problem.terms:
            rows = term.rows(mask)
            weights = np.zeros_like(cross_of(term))
            weights[rows] = solve_psd(term.damped_gram[np.ix_(rows, rows)], cross_of(term)[rows])
            result.append(weights)
        return result


class _Exact:
    """Variant mask: the model is exact as it is."""

    def __init__(self, problem: ChannelSelection) -> None:
        self.model = binary_quadratic_model(problem)

    def cut_mask(self, mask: Bools) -> None:
        """Nothing to add."""

    def cut_solution(self) -> None:
        """Nothing to add."""


def _run(state: External, cuts: str, seed: int) -> Termination:
    scaled, factor = normalised(state.problem)
    master = _master(state, scaled, cuts)
    solver = Highs()
    solver.config.load_solution = False
    solver.config.stream_solver = False
    solver.highs_options = {
        "threads": 1,
        "random_seed": seed % 2**31,
        "primal_feasibility_tolerance": 1e-9,
        "dual_feasibility_tolerance": 1e-9,
        "mip_feasibility_tolerance": 1e-9,
        "small_matrix_value": 1e-12,
    }
    if state.mask is not None:
        master.cut_mask(state.mask)
    if not isinstance(master, _Exact):
        _root_rounds(state, master, solver, factor)
    return _integer_rounds(state, master, solver, factor)


def _master(state: External, problem: ChannelSelection, cuts: str) -> _Master:
    incumbent = state.mask
    if problem.variant == "mask":
        return _Exact(problem)
    weights = sum(cross_of(term).size for term in problem.terms)
    wanted = problem.has_box or cuts == "weights" or (cuts == "auto" and weights <= MAX_WEIGHTS)
    if wanted and incumbent is not None:
        state.afford(problem)
        return _WeightMaster(problem, incumbent)
    return _ValueMaster(problem)


def _root_rounds(state: External, master: _Master, solver: Highs, factor: float) -> None:
    """Cuts on the linear relaxation while they raise its bound."""
    for j in master.model.y:
        master.model.y[j].domain = pyo.Reals
        lower, upper = master.model.y[j].lb, master.model.y[j].ub
        master.model.y[j].setlb(0.0 if lower is None else max(0.0, lower))
        master.model.y[j].setub(1.0 if upper is None else min(1.0, upper))
    previous = -math.inf
    for _ in range(ROOT_ROUNDS):
        bound = _solve(state, master, solver, factor, state.gap)
        if bound is None or state.infeasible:
            break
        if bound - previous < ROOT_PROGRESS * max(abs(bound), 1e-6):
            break
        previous = bound
        master.cut_solution()
        state.check()
    state.statistics["root_bound"] = state.bound
    for j in master.model.y:
        master.model.y[j].domain = pyo.Binary


def _integer_rounds(state: External, master: _Master, solver: Highs, factor: float) -> Termination:
    seen: set[bytes] = set()
    solver.config.warmstart = True
    while not state.closed():
        state.check()
        if state.mask is not None:
            for j, kept in enumerate(state.mask):
                master.model.y[j].set_value(int(kept))
        if _solve(state, master, solver, factor, max(state.gap / 4, 1e-9)) is None:
            state.check()
            return Termination.COMPLETE if state.infeasible else Termination.SOLVER
        mask = mask_of(master.model)
        state.nodes += 1
        state.offer(mask)
        master.cut_solution()
        master.cut_mask(mask)
        if mask.tobytes() in seen or isinstance(master, _Exact):
            return Termination.SOLVER  # its cut is there already: tolerances are reached
        seen.add(mask.tobytes())
    return Termination.GAP


def _solve(
    state: External, master: _Master, solver: Highs, factor: float, gap: float
) -> float | None:
    """Solve the master; its bound in its own scale, None where it has no solution."""
    remaining = state.monitor.remaining
    solver.config.time_limit = None if math.isinf(remaining) else max(remaining, 0.01)
    solver.config.mip_gap = gap
    results = solver.solve(master.model)
    condition = results.termination_condition
    if condition in (TerminationCondition.infeasible, TerminationCondition.infeasibleOrUnbounded):
        state.infeasible = state.mask is None
        return None
    bound = results.best_objective_bound
    if condition is TerminationCondition.error:
        raise SolverError("HiGHS reports an error on the master problem")
    if bound is not None and math.isfinite(bound):
        state.raise_bound(bound / factor)
    found = results.best_feasible_objective
    if found is not None and math.isfinite(found):
        results.solution_loader.load_vars()
    else:
        found = None
    if condition is TerminationCondition.maxTimeLimit:
        # By the clock of HiGHS; ours may still be short of it.
        state.offer(None if found is None else mask_of(master.model))
        raise SearchStopped(Termination.TIME_LIMIT)
    return None if bound is None or found is None else float(bound)


def _gates(model: Any) -> Floats:
    values = [model.y[j].value for j in model.channels]
    return np.clip(np.array(values, dtype=np.float64), 0.0, 1.0)
