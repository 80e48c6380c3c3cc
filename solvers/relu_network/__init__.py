"""Whole small ReLU networks, solved to proof: own search, HiGHS or SCIP."""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mipprune.errors import InputError
from mipprune.formulation.relu_network import FORMULATIONS, NetworkPruning
from mipprune.solvers.relu_network._enumeration import enumerate_network
from mipprune.solvers.relu_network._heuristics import checked_start, greedy_masks
from mipprune.solvers.relu_network._milp import solve_milp
from mipprune.solvers.relu_network._search import search_network
from mipprune.solvers.relu_network._solution import Masks, NetworkSolution
from mipprune.solvers.relu_network._tightening import tighten_bounds

__all__ = ["NetworkSolution", "greedy_masks", "solve_network", "tighten_bounds"]

SOLVERS = ("auto", "search", "highs", "scip", "enumeration")


def solve_network(
    task: NetworkPruning,
    *,
    solver: str = "auto",
    formulation: str = "perspective",
    tighten: bool = True,
    time_limit: float | None = None,
    gap: float = 1e-6,
    start: Sequence[NDArray[np.bool_]] | None = None,
    log: bool = False,
) -> NetworkSolution:
    """Choose the neurons of a whole ReLU network, with a bound.

    Parameters
    ----------
    task : NetworkPruning
    solver : {"auto", "search", "highs", "scip", "enumeration"}
        ``search`` is our own branch and bound; HiGHS and SCIP take the Pyomo
        program; ``enumeration`` tries everything, to check the others on up
        to 22 neurons. All take any depth. ``auto`` is ``search``.
    formulation : {"big-m", "perspective", "extended"}
        Of the program; see :mod:`mipprune.formulation.relu_network`.
    tighten : bool
        Tighten the pre-activation bounds of the program by linear programs where
        a network has more than two hidden layers or limits on its outputs
        (elsewhere propagation is as tight).
    time_limit : float, optional
        Seconds, tightening included.
    gap : float
        Relative gap at which to stop.
    start : sequence of bool arrays, optional
        Masks to begin with; by default those of :func:`greedy_masks`.
    log : bool
        Show progress.

    Returns
    -------
    NetworkSolution

    Raises
    ------
    InputError
        Unknown solver or formulation, a start of the wrong shape, or a network too
        large to enumerate.
    MissingExtraError
        SCIP asked for and pyscipopt not installed.
    NoSolutionError
        It is proven that no masks meet the limits.
    """
    if solver not in SOLVERS:
        raise InputError(f"solver: expected one of {SOLVERS}, got '{solver}'")
    if formulation not in FORMULATIONS:
        raise InputError(f"formulation: expected one of {FORMULATIONS}, got '{formulation}'")
    if time_limit is not None and not time_limit > 0:
        raise InputError(f"time_limit: expected seconds > 0, got {time_limit}")
    began = time.monotonic()
    first = _start(task, start, began, time_limit)
    left = None if time_limit is None else max(time_limit - (time.monotonic() - began), 0.1)
    if solver in ("auto", "search"):
        return search_network(task, first, time_limit=left, gap=gap, log=log)
    if solver == "enumeration":
        return enumerate_network(task, first, time_limit=left)
    return solve_milp(
        task,
        first,
        solver="scip" if solver == "scip" else "highs",
        formulation=formulation,
        tighten=tighten,
        time_limit=left,
        gap=gap,
        log=log,
    )


def _start(
    task: NetworkPruning,
    start: Sequence[NDArray[np.bool_]] | None,
    began: float,
    time_limit: float | None,
) -> Masks | None:
    """Masks to begin with; the heuristic gets at most a tenth of the time."""
    if start is not None:
        return checked_start(task, start)
    if time_limit is None:
        return greedy_masks(task)
    return greedy_masks(task, deadline=began + 0.1 * time_limit)
