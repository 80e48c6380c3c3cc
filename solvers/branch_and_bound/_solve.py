"""The public entry of our branch and bound."""

import math
import os
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipprune._support.checks import require_integer, require_number
from mipprune._support.progress import Progress
from mipprune.errors import InputError
from mipprune.problem import (
    ChannelSelection,
    LogPoint,
    Solution,
    SolutionStatus,
    Termination,
)
from mipprune.relaxation.removal import removal_form
from mipprune.solvers._monitor import checked_request
from mipprune.solvers.branch_and_bound._addition import AdditionExplorer, addition_pays
from mipprune.solvers.branch_and_bound._careful import (
    WORST,
    CarefulExplorer,
    condition,
    downdate_margin,
)
from mipprune.solvers.branch_and_bound._explorers import CompiledExplorer, RangeSpaceExplorer
from mipprune.solvers.branch_and_bound._frontier import Explorer, Frontier, Limits
from mipprune.solvers.branch_and_bound._incumbent import eliminate, swap
from mipprune.solvers.branch_and_bound._root import binary_root, removal_root
from mipprune.solvers.branch_and_bound._state import KEPT, REMOVED, UNDECIDED
from mipprune.solvers.branch_and_bound._strong import StrongExplorer, strong_pays, warm_up
from mipprune.solvers.branch_and_bound._twins import dead_channels

__all__ = ["branch_and_bound"]

SOLVER = "branch-and-bound"
SUBGRADIENT_STEPS = 12
"""Steps on the multipliers of a node with three or more removals left."""


def branch_and_bound(
    problem: ChannelSelection,
    *,
    time_limit: float | None = None,
    gap: float = 1e-6,
    start: ArrayLike | None = None,
    node_limit: int | None = None,
    seed: int = 0,
    callback: Callable[[LogPoint], object] | None = None,
    log: bool = False,
    threads: int | None = None,
) -> Solution:
    """Choose channels with a proof: depth-first elimination under a best-first frontier.

    Parameters
    ----------
    problem : ChannelSelection
        Of any variant and with any limits.
    time_limit : float, optional
        Seconds of wall-clock time; compiling the search, once per installation,
        is not counted.
    gap : float
        Stop when ``(value - bound) / value`` is at most this.
    start : bool array (p,), optional
        A feasible mask to start from.
    node_limit : int, optional
        Most nodes to search (checked where a node is opened).
    seed : int
        Of the random restarts of the first incumbent.
    callback : function of a LogPoint, optional
        Called a few times a second; a true result stops the search.
    log : bool
        Show nodes, incumbent, bound, gap and rate on standard error.
    threads : int, optional
        Default: all cores. One thread is deterministic.

    Returns
    -------
    Solution
        ``statistics``: leaves, nodes_per_second, root_bound (after the
        first slice of the tree), margin (subtracted
        from the search's bound to cover float64), drift (largest difference
        between the search's value of an incumbent and the recomputed one).

    Raises
    ------
    InputError
        Options out of range, or a start that is not feasible.
    """
    checked_request(problem, time_limit, gap, seed, callback, log)
    _check(gap, node_limit, threads)
    given = None if start is None else problem.checked_mask(start)
    if given is not None and not problem.is_feasible(given):
        raise InputError("start: the mask breaks a limit of the problem; give a feasible one")
    _compile(log)
    began = time.monotonic()
    limits = Limits(
        deadline=math.inf if time_limit is None else began + time_limit,
        node_limit=math.inf if node_limit is None else float(min(node_limit, 2**53)),
        gap=gap,
        threads=threads or os.cpu_count() or 1,
        callback=callback,
    )
    canonical = problem.canonical()
    explorer = _explorer(canonical)
    state = np.zeros(problem.n_channels, dtype=np.int8)
    state[problem.forced_in] = KEPT
    state[problem.forced_out] = REMOVED
    if not isinstance(explorer, AdditionExplorer):
        state[dead_channels(canonical)] = REMOVED
    frontier = Frontier(explorer, canonical, limits, partial(_first_mask, explorer, state))
    if given is not None:
        frontier.offer(given)
    frontier.push(state, -math.inf)
    with Progress("branch and bound", unit="nodes", enabled=log) as progress:
        if log:
            limits.show = _shower(progress)
        termination = frontier.run()
    return _solution(problem, frontier, termination, time.monotonic() - began)


def _explorer(canonical: ChannelSelection) -> Explorer:
    steps = np.full(canonical.n_channels + 5, SUBGRADIENT_STEPS, dtype=np.int64)
    if canonical.variant != "mask":
        # With three or four removals left all sets are run through instead.
        steps[3], steps[4] = 0, SUBGRADIENT_STEPS // 3
    if canonical.variant == "mask":
        rounding = 1e-15 * canonical.n_channels * canonical.energy
        return CompiledExplorer(binary_root(canonical, steps), rounding)
    form = removal_form(canonical)
    if form.singular:
        return RangeSpaceExplorer(canonical, steps)
    worst = condition(canonical, form)
    if worst > WORST:
        return CarefulExplorer(canonical, worst)
    margin = form.margin + downdate_margin(canonical, worst)
    if addition_pays(canonical):
        return AdditionExplorer(canonical, margin, form.value_all)
    root = removal_root(canonical, form, steps)
    return StrongExplorer(root, margin) if strong_pays(root) else CompiledExplorer(root, margin)


def _first_mask(explorer: Explorer, state: NDArray[np.int8]) -> NDArray[np.bool_] | None:
    """Greedy elimination and one-swaps, where the matrices for it exist."""
    if not isinstance(explorer, CompiledExplorer | StrongExplorer) or not explorer.root.inverse:
        return None
    complete = eliminate(explorer.root, state)
    mask: NDArray[np.bool_] = swap(explorer.root, complete, state != UNDECIDED) == KEPT
    return mask


def _check(gap: float, node_limit: int | None, threads: int | None) -> None:
    require_number("gap", gap, at_least=0, below=1)
    if node_limit is not None:
        require_integer("node_limit", node_limit, at_least=1, alternative="or None")
    if threads is not None:
        require_integer("threads", threads, at_least=1, alternative="or None")


def _shower(progress: Progress) -> Callable[[LogPoint], None]:
    def show(point: LogPoint) -> None:
        gap = (point.value - point.bound) / point.value if point.value > 0 else math.nan
        progress.update(point.nodes - progress.done, value=point.value, bound=point.bound, gap=gap)

    return show


def _compile(log: bool) -> None:
    """Load the kernels (compile them the first time) outside the time limit."""
    if _compiled:
        return
    with Progress("loading the compiled search (compiled once per installation)", enabled=log):
        for p, keep in ((3, 1), (12, 3)):
            tiny = ChannelSelection(np.eye(p), np.ones((p, 1)), p + 1.0, np.ones(p), keep=keep)
            frontier = Frontier(_explorer(tiny), tiny, Limits())
            frontier.push(np.zeros(p, dtype=np.int8), -math.inf)
            frontier.run()
        warm_up()
    _compiled.append(True)


_compiled: list[bool] = []


def _solution(
    problem: ChannelSelection, frontier: Frontier, termination: Termination, seconds: float
) -> Solution:
    mask: NDArray[np.bool_] | None = frontier.mask
    bound = frontier.bound
    if math.isfinite(bound):
        bound -= frontier.margin
    status = SolutionStatus.FEASIBLE
    if mask is None:
        proven = termination is Termination.COMPLETE
        status = SolutionStatus.INFEASIBLE if proven else SolutionStatus.NONE
    else:
        slack = float(frontier.shared[1]) * max(abs(frontier.value), float(frontier.shared[2]))
        if frontier.value - bound <= slack + 2 * frontier.margin:
            status = SolutionStatus.OPTIMAL
    return Solution.of_mask(
        problem,
        mask,
        bound=bound,
        status=status,
        termination=termination,
        solver=SOLVER,
        version=metadata.version("mipprune"),
        nodes=frontier.nodes,
        seconds=seconds,
        log=tuple(frontier.log),
        statistics={
            "leaves": float(frontier.leaves),
            "nodes_per_second": frontier.nodes / max(seconds, 1e-9),
            "root_bound": frontier.first_bound,
            "margin": frontier.margin,
            "drift": frontier.drift,
        },
    )
