"""Our own search for networks with two hidden layers: first-layer masks best first.

Every first-layer mask gets an interval bound; they are searched in the order of
that bound, many at a time on all cores, and those whose bound reaches the
incumbent are never opened. At a time-out the bound of the next one is a valid
bound on the whole problem.
"""

import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipprune._support.progress import Progress
from mipprune.errors import InputError, NoSolutionError
from mipprune.formulation.relu_network import NetworkPruning
from mipprune.problem import SolutionStatus, Termination
from mipprune.solvers.relu_network._kernels import (
    DEVIATION,
    HINGE,
    MISCLASSIFICATION,
    NEURONS,
    root_bounds,
    search_masks,
)
from mipprune.solvers.relu_network._solution import Masks, NetworkSolution

__all__ = ["MAX_FIRST_WIDTH", "search_network"]

MAX_FIRST_WIDTH = 20
"""Widest first hidden layer whose masks are listed."""

CHUNK_SECONDS = 0.5
ROUNDING = 1e-9
"""Relative margin of the reported bound: sums of N * C outputs in float64."""

CODES = {
    "deviation": DEVIATION,
    "hinge": HINGE,
    "misclassification": MISCLASSIFICATION,
    "neurons": NEURONS,
}


def search_network(
    task: NetworkPruning,
    first: Masks | None,
    *,
    time_limit: float | None,
    gap: float,
    log: bool,
) -> NetworkSolution:
    """Solve a task with exactly two hidden layers to proof."""
    if len(task.network.widths) != 2 or task.network.widths[0] > MAX_FIRST_WIDTH:
        raise InputError(
            f"solver 'search' takes two hidden layers, the first of at most {MAX_FIRST_WIDTH} "
            f"neurons; this network has {task.network.widths}. Use solver='highs'"
        )
    began = time.monotonic()
    limit = task.network.n_neurons if task.max_neurons is None else task.max_neurons
    masks = _first_layer_masks(task.network.widths[0], limit)
    arguments = _arguments(task)
    bounds = root_bounds(masks, *arguments)
    order = np.argsort(bounds, kind="stable")
    masks, bounds = masks[order], bounds[order]
    state = _State(first, math.inf if first is None else task.value(first))
    deadline = math.inf if time_limit is None else began + time_limit
    termination = _process(task, state, masks, bounds, arguments, limit, deadline, gap, log)
    if termination is Termination.COMPLETE and state.masks is None:
        raise NoSolutionError(
            "no choice of neurons meets the limits (proven); raise max_neurons or "
            "max_deviation, or drop keep_predictions"
        )
    value = math.inf if state.masks is None else task.value(state.masks)
    bound = min(state.bound, value)
    if task.objective != "neurons" and math.isfinite(bound):
        bound -= ROUNDING * (1.0 + abs(bound))
    status = SolutionStatus.NONE if state.masks is None else SolutionStatus.FEASIBLE
    if termination in (Termination.COMPLETE, Termination.GAP):
        status = SolutionStatus.OPTIMAL
    return NetworkSolution(
        masks=state.masks,
        value=value,
        bound=bound,
        forward_error=0.0,
        status=status,
        termination=termination,
        nodes=state.nodes,
        n_binaries=task.network.n_neurons,
        n_rows=0,
        seconds=time.monotonic() - began,
        tighten_seconds=0.0,
        solver="search",
        formulation="",
    )


class _State:
    """Incumbent, bound and counts of the running search."""

    def __init__(self, masks: Masks | None, value: float) -> None:
        self.masks = masks
        self.value = value
        self.bound = -math.inf
        self.nodes = 0


def _process(
    task: NetworkPruning,
    state: _State,
    masks: NDArray[np.bool_],
    bounds: NDArray[np.float64],
    arguments: tuple[Any, ...],
    limit: int,
    deadline: float,
    gap: float,
    log: bool,
) -> Termination:
    """Search chunks in the order of their bounds; fills ``state``."""
    done, size = 0, 8
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        Progress("first-layer masks", len(masks), unit="masks", enabled=log) as progress,
    ):
        try:
            while done < len(masks):
                state.bound = float(min(bounds[done], state.value))
                if bounds[done] >= state.value - gap * abs(state.value):
                    return Termination.COMPLETE if gap <= ROUNDING else Termination.GAP
                if time.monotonic() > deadline:
                    return Termination.TIME_LIMIT
                started = time.monotonic()
                chunk = slice(done, done + size)
                values, second, nodes = _search_in_parallel(
                    pool, masks[chunk], (*arguments, limit, state.value)
                )
                state.nodes += int(nodes.sum())
                best = int(np.argmin(values))
                if values[best] < state.value:
                    state.value = float(values[best])
                    state.masks = (masks[chunk][best].copy(), second[best].copy())
                done = min(done + size, len(masks))
                progress.update(len(values), incumbent=state.value, bound=state.bound)
                seconds = max(time.monotonic() - started, 1e-4)
                size = max(2, int(size * min(4.0, CHUNK_SECONDS / seconds)))
        except KeyboardInterrupt:
            return Termination.INTERRUPTED
    state.bound = state.value
    return Termination.COMPLETE


def _search_in_parallel(
    pool: ThreadPoolExecutor, masks: NDArray[np.bool_], arguments: tuple[Any, ...]
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    """Search slices of the masks on all cores (the kernel releases the lock)."""
    slices = np.array_split(masks, min(len(masks), os.cpu_count() or 1))
    results = list(pool.map(lambda part: search_masks(part, *arguments), slices))
    values, second, nodes = zip(*results, strict=True)
    return np.concatenate(values), np.concatenate(second), np.concatenate(nodes)


def _first_layer_masks(width: int, limit: int) -> NDArray[np.bool_]:
    """All masks with at most ``limit`` kept, bool (count, width)."""
    codes = np.arange(2**width, dtype=np.int64)
    bits = ((codes[:, None] >> np.arange(width)) & 1).astype(bool)
    within: NDArray[np.bool_] = bits[bits.sum(axis=1) <= limit]
    return within


def _arguments(task: NetworkPruning) -> tuple[Any, ...]:
    """Arrays and scalars the kernels take after the masks."""
    network = task.network
    known = np.maximum(network.preactivations(task.inputs)[0], 0.0)
    deviation = -1.0 if task.max_deviation is None else float(task.max_deviation)
    return (
        np.ascontiguousarray(known),
        np.ascontiguousarray(network.weights[1]),
        network.biases[1],
        np.ascontiguousarray(network.weights[2]),
        network.biases[2],
        network.forward(task.inputs),
        task.classes,
        CODES[task.objective],
        float(task.margin),
        bool(task.keep_predictions),
        deviation,
    )
