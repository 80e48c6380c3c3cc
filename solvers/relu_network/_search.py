"""Our own branch and bound over the neurons of a whole network, of any depth.

Neurons are decided layer by layer. Open nodes are kept with their bounds and
taken best first, many at a time on all cores; near the end of the network a
node is searched to its end depth-first by compiled code. The least bound of the
open nodes bounds the whole problem at any time.
"""

import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipprune._support.progress import Progress
from mipprune.errors import NoSolutionError
from mipprune.formulation.relu_network import NetworkPruning, ReLUNetwork
from mipprune.problem import LogPoint, SolutionStatus, Termination
from mipprune.solvers.relu_network._frontier import Frontier
from mipprune.solvers.relu_network._kernels import (
    DEVIATION,
    HINGE,
    MISCLASSIFICATION,
    NEURONS,
    Data,
)
from mipprune.solvers.relu_network._multipliers import Context, Multipliers, Trainer
from mipprune.solvers.relu_network._solution import Masks, NetworkSolution
from mipprune.solvers.relu_network._tree import Reply, cutoff_of, expand_many

__all__ = ["search_network"]

ROUND_SECONDS = 0.5
STEP = 4
"""Neurons decided at a time while nodes are taken best first."""
FINISH = 24
"""Undecided neurons from which on a node is searched to its end."""
MULTIPLIERS, CONTEXTS = 12, 24
"""Most multipliers, fewer for small networks, and nodes they are trained at."""
ROUNDING = 1e-9
"""Relative margin of the reported bound."""

CODES = {
    "deviation": DEVIATION,
    "hinge": HINGE,
    "misclassification": MISCLASSIFICATION,
    "neurons": NEURONS,
}


@dataclass(frozen=True, eq=False)
class _Ordered:
    """The network with the neurons of every layer in the order of decisions."""

    network: ReLUNetwork
    orders: tuple[NDArray[np.int64], ...]

    @classmethod
    def of(cls, task: NetworkPruning) -> "_Ordered":
        """Largest contribution to what reads them first."""
        network = task.network
        values = network.preactivations(task.inputs)
        orders = []
        for layer in range(len(network.widths)):
            hidden = np.maximum(values[layer], 0.0)
            size = (hidden**2).sum(axis=0) * (network.weights[layer + 1] ** 2).sum(axis=0)
            orders.append(np.argsort(-size, kind="stable"))
        weights, biases = [], []
        columns = np.arange(network.weights[0].shape[1])
        for layer, (w, b) in enumerate(zip(network.weights, network.biases, strict=True)):
            rows = orders[layer] if layer < len(orders) else np.arange(len(b))
            weights.append(w[np.ix_(rows, columns)])
            biases.append(b[rows])
            columns = rows
        return cls(ReLUNetwork(tuple(weights), tuple(biases)), tuple(orders))

    def masks_in_order(self, masks: Masks) -> Masks:
        return tuple(mask[order] for mask, order in zip(masks, self.orders, strict=True))

    def masks(self, bits: NDArray[np.bool_]) -> Masks:
        parts = np.split(bits, np.cumsum(self.network.widths)[:-1])
        masks = tuple(np.zeros(len(part), dtype=bool) for part in parts)
        for mask, part, order in zip(masks, parts, self.orders, strict=True):
            mask[order] = part
        return masks


class _State:
    """Incumbent, bound, nodes and their course."""

    def __init__(self, masks: Masks | None, value: float) -> None:
        self.masks, self.value = masks, value
        self.bound = 0.0
        self.nodes = 0
        self.began = time.monotonic()
        self.trace: list[LogPoint] = []

    def note(self) -> None:
        """Log a point where value or bound moved."""
        last = self.trace[-1] if self.trace else None
        if last is None or (last.value, last.bound) != (self.value, self.bound):
            seconds = time.monotonic() - self.began
            self.trace.append(LogPoint(seconds, self.nodes, self.value, self.bound))


def search_network(
    task: NetworkPruning,
    first: Masks | None,
    *,
    time_limit: float | None,
    gap: float,
    log: bool,
) -> NetworkSolution:
    """Solve a task by branch and bound."""
    state = _State(first, math.inf if first is None else task.value(first))
    deadline = math.inf if time_limit is None else state.began + time_limit
    state.note()
    try:
        termination = _run(task, state, deadline, gap, log)
    except KeyboardInterrupt:
        termination = Termination.INTERRUPTED
    if termination is Termination.COMPLETE and state.masks is None:
        raise NoSolutionError(
            "no choice of neurons meets the limits (proven); raise max_neurons or "
            "max_deviation, or drop keep_predictions"
        )
    value = math.inf if state.masks is None else task.value(state.masks)
    bound = min(state.bound, value)
    if CODES[task.objective] in (DEVIATION, HINGE) and math.isfinite(bound):
        # Nodes within rounding of the incumbent are not opened.
        bound -= ROUNDING * (1.0 + abs(bound)) + 2.0 * task.dense.shape[1] * task.rounding
        bound = max(bound, 0.0)
    status = SolutionStatus.NONE if state.masks is None else SolutionStatus.FEASIBLE
    if termination in (Termination.COMPLETE, Termination.GAP):
        status = SolutionStatus.OPTIMAL
    seconds = time.monotonic() - state.began
    return NetworkSolution(
        masks=state.masks,
        value=value,
        bound=bound,
        violation=0.0 if state.masks is None else task.violation(state.masks),
        tolerance=task.tolerance,
        forward_error=0.0,
        status=status,
        termination=termination,
        nodes=state.nodes,
        n_binaries=task.network.n_neurons,
        n_rows=0,
        seconds=seconds,
        tighten_seconds=0.0,
        solver="search",
        formulation="",
        trace=(*state.trace, LogPoint(seconds, state.nodes, value, bound)),
    )


def _run(
    task: NetworkPruning, state: _State, deadline: float, gap: float, log: bool
) -> Termination:
    """Take open nodes best first until none can improve; fills ``state``."""
    ordered = _Ordered.of(task)
    limit = task.network.n_neurons if task.max_neurons is None else task.max_neurons
    data = _data(task, ordered.network, limit, _multipliers(task, ordered, state, limit))
    total = task.network.n_neurons
    frontier = Frontier(total)
    frontier.push(np.zeros((1, total), dtype=bool), np.zeros(1, dtype=np.int64), np.zeros(1))
    finish, budget = min(FINISH, total // 2), 2_000
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        Progress("open nodes taken", None, unit="nodes", enabled=log) as progress,
    ):
        while True:
            state.bound = max(state.bound, min(frontier.bound, state.value))
            state.note()
            cutoff = cutoff_of(state.value, data.objective, len(task.inputs))
            if frontier.bound >= cutoff:
                state.bound = state.value
                return Termination.COMPLETE
            if math.isfinite(state.value) and state.value - state.bound <= gap * state.value:
                return Termination.GAP
            if time.monotonic() > deadline:
                return Termination.TIME_LIMIT
            began, before = time.monotonic(), state.nodes
            bits, depths, bounds = frontier.pop(max(budget // 64, 2), cutoff)
            stops = np.where(total - depths <= finish, total, depths + STEP)
            work = (bits, depths, bounds, stops)
            for reply in _in_parallel(pool, work, state.value, budget, data):
                state.nodes += int(reply.nodes)
                if reply.value < state.value:
                    state.value = float(reply.value)
                    state.masks = ordered.masks(reply.best)
                frontier.push(reply.bits, reply.depths, reply.bounds)
            progress.update(len(bits), value=state.value, bound=state.bound)
            seconds = max(time.monotonic() - began, 1e-4)
            used = state.nodes - before
            if used > budget // 2:  # otherwise the round says little about the speed
                budget = min(max(1_000, int(used * ROUND_SECONDS / seconds)), 2 * budget)


def _in_parallel(
    pool: ThreadPoolExecutor, work: tuple[Any, ...], value: float, budget: int, data: Data
) -> list[Reply]:
    """Expand slices of the nodes on all cores (the compiled code releases the lock)."""
    bits, depths, bounds, stops = work
    parts = np.array_split(np.arange(len(bits)), min(len(bits), os.cpu_count() or 1))

    def expand(part: NDArray[np.int64]) -> Reply:
        return expand_many(bits[part], depths[part], bounds[part], stops[part], value, budget, data)

    return list(pool.map(expand, parts))


def _multipliers(task: NetworkPruning, ordered: _Ordered, state: _State, limit: int) -> Multipliers:
    """Trained where all layers but the last are decided: the incumbent and masks around it.

    Training at partly decided layers too was tried: more nodes on 16 + 16 neurons.
    """
    network = ordered.network
    rng = np.random.default_rng(0)
    masks = network.full_masks() if state.masks is None else ordered.masks_in_order(state.masks)
    contexts = []
    for k in range(CONTEXTS):
        near = [mask.copy() for mask in masks[:-1]]
        for mask in near if k else []:
            mask ^= rng.random(len(mask)) < rng.choice([0.05, 0.1, 0.2, 0.4])
        kept = sum(int(mask.sum()) for mask in near)
        if kept > limit:
            continue
        values = network.preactivations(task.inputs, (*near, masks[-1]))
        hidden = np.maximum(values[-2], 0.0)
        contexts.append(Context(hidden, hidden, kept))
    return Trainer(task, network, limit).train(
        contexts, state.value, min(MULTIPLIERS, network.n_neurons // 3)
    )


def _data(task: NetworkPruning, network: ReLUNetwork, limit: int, multipliers: Multipliers) -> Data:
    """Arrays that the compiled code takes."""
    widths, classes = network.widths, network.weights[-1].shape[0]
    layers, size = len(widths), max(*widths, classes)
    weights, biases = np.zeros((layers, size, size)), np.zeros((layers, size))
    for layer in range(layers):
        w, b = network.weights[layer + 1], network.biases[layer + 1]
        weights[layer, : w.shape[0], : w.shape[1]] = w
        biases[layer, : len(b)] = b
    most = -1.0 if task.max_deviation is None else task.max_deviation + task.tolerance
    return Data(
        np.array(widths, dtype=np.int64),
        np.maximum(network.preactivations(task.inputs)[0], 0.0),
        weights,
        biases,
        np.ascontiguousarray(task.dense),
        task.classes,
        CODES[task.objective],
        float(task.least_lead),
        float(most),
        bool(task.keep_predictions),
        float(task.rounding),
        int(limit),
        multipliers.gains,
        multipliers.constants,
        multipliers.is_limit,
    )
