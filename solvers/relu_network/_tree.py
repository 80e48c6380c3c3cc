"""Compiled depth-first search below a prefix of decided neurons."""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from mipprune.solvers.relu_network._kernels import MISCLASSIFICATION, NEURONS, Data
from mipprune.solvers.relu_network._nodes import (
    Work,
    decide,
    enter,
    leaf_value,
    node_bound,
    suffixes,
    workspace,
)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]

__all__ = ["Reply", "cutoff_of", "expand_many"]


class Reply(NamedTuple):
    """What a call found: best value and its bits, and prefixes that stay open.

    Attributes
    ----------
    value : float
    best : bool (total,)
    nodes : int
    bits : bool (count, total)
    depths : int64 (count,)
    bounds : float64 (count,)
    """

    value: float
    best: Bools
    nodes: int
    bits: Bools
    depths: Integers
    bounds: Floats


@numba.njit(cache=True, nogil=True)
def cutoff_of(value: float, objective: int, n: int) -> float:
    """Nodes whose bound reaches this need no search: nothing below improves ``value``."""
    if objective == NEURONS:
        return value - 1.0 + 1e-6
    if objective == MISCLASSIFICATION:
        return value - (1.0 - 1e-6) / n
    return value - 1e-10 * (1.0 + abs(value)) if value < np.inf else value


@numba.njit(cache=True, nogil=True)
def _replay(
    taken: Bools, depth: int, layer_of: Integers, place_of: Integers, data: Data, work: Work
) -> int:
    """Repeat the decisions of a prefix; returns how many neurons it keeps."""
    kept = 0
    for p in range(depth):
        layer, d = layer_of[p], place_of[p]
        if d == 0:
            enter(layer, data, work)
        decide(layer, d, taken[p], data, work)
        kept += taken[p]
    # Intervals of the layer that the prefix ends in; at its start the node makes them.
    if depth < layer_of.size and place_of[depth] > 0:
        suffixes(layer_of[depth], data, work)
    return kept


@numba.njit(cache=True, nogil=True)
def _places(widths: Integers) -> tuple[Integers, Integers]:
    """Layer and position within it of every neuron in the order of decisions."""
    total = widths.sum()
    layer_of, place_of = np.empty(total, dtype=np.int64), np.empty(total, dtype=np.int64)
    p = 0
    for layer in range(widths.size):
        for d in range(widths[layer]):
            layer_of[p], place_of[p] = layer, d
            p += 1
    return layer_of, place_of


class Open(NamedTuple):
    """Growing list of open nodes; ``used[0]`` of the rows are in use."""

    bits: Bools
    depths: Integers
    bounds: Floats
    used: Integers


@numba.njit(cache=True, nogil=True)
def _leave_open(found: Open, taken: Bools, depth: int, bound: float) -> Open:
    """Append a node, doubling the arrays where they are full."""
    count = found.used[0]
    if count == found.depths.size:
        bits = np.zeros((2 * count, taken.size), dtype=np.bool_)
        bits[:count] = found.bits
        depths, bounds = np.zeros(2 * count, dtype=np.int64), np.zeros(2 * count)
        depths[:count], bounds[:count] = found.depths, found.bounds
        found = Open(bits, depths, bounds, found.used)
    found.bits[count], found.depths[count], found.bounds[count] = taken, depth, bound
    found.used[0] = count + 1
    return found


@numba.njit(cache=True, nogil=True)
def _expand(
    taken: Bools,
    start: int,
    stop: int,
    inherited: float,
    value: float,
    budget: int,
    best: Bools,
    found: Open,
    data: Data,
    work: Work,
) -> tuple[float, int, Open]:
    """Depth-first search below one prefix; returns the best value, nodes and open nodes."""
    total, n = taken.size, data.known.shape[0]
    layer_of, place_of = _places(data.widths)
    state = np.zeros(total + 1, dtype=np.int8)
    cutoff = cutoff_of(value, data.objective, n)
    kept = _replay(taken, start, layer_of, place_of, data, work)
    nodes, p = 0, start
    while p >= start:
        if state[p] == 0:
            nodes += 1
            if p == total:
                leaf = leaf_value(kept, data, work)
                if leaf < cutoff:
                    value = leaf
                    offset = total - data.widths[-1]
                    best[:offset] = taken[:offset]
                    for d in range(data.widths[-1]):
                        best[offset + work.order[d]] = taken[offset + d]
                    cutoff = cutoff_of(value, data.objective, n)
                state[p] = 2
            else:
                if place_of[p] == 0:
                    enter(layer_of[p], data, work)
                bound = node_bound(layer_of[p], place_of[p], kept, data, work, cutoff)
                if bound >= cutoff:
                    state[p] = 2
                elif p > start and (p >= stop or nodes > budget):
                    found = _leave_open(found, taken, p, max(bound, inherited))
                    state[p] = 2
        if p < total and state[p] < 2:
            keep = state[p] == 0 and kept < data.limit and not work.idle[layer_of[p], place_of[p]]
            state[p] = 1 if keep else 2
            decide(layer_of[p], place_of[p], keep, data, work)
            taken[p] = keep
            kept += keep
            p += 1
            state[p] = 0
            continue
        p -= 1
        if p >= start and taken[p]:
            taken[p] = False
            kept -= 1
    return value, nodes, found


@numba.njit(cache=True, nogil=True)
def expand_many(
    prefixes: Bools,
    starts: Integers,
    bounds: Floats,
    stops: Integers,
    value: float,
    budget: int,
    data: Data,
) -> Reply:
    """Search below prefixes, each to depth ``stops``; all together at most ``budget`` nodes.

    Parameters
    ----------
    prefixes : bool (K, total)
    starts, stops : int64 (K,)
        Depth of each prefix and the depth at which to leave nodes open.
    bounds : float64 (K,)
        Known bounds, inherited by what stays open.
    value : float
        Incumbent; only better ones are returned.
    budget : int
        Nodes after which everything met is left open.
    data : Data
    """
    total, n = prefixes.shape[1], data.known.shape[0]
    work = workspace(data)
    best = np.zeros(total, dtype=np.bool_)
    found = Open(
        np.zeros((1024, total), dtype=np.bool_),
        np.zeros(1024, dtype=np.int64),
        np.zeros(1024),
        np.zeros(1, dtype=np.int64),
    )
    nodes = 0
    for row in range(prefixes.shape[0]):
        if bounds[row] >= cutoff_of(value, data.objective, n):
            continue
        taken, start = prefixes[row].copy(), starts[row]
        taken[start:] = False
        if nodes > budget:
            found = _leave_open(found, taken, start, bounds[row])
            continue
        value, added, found = _expand(
            taken, start, stops[row], bounds[row], value, budget - nodes, best, found, data, work
        )
        nodes += added
    count = found.used[0]
    return Reply(value, best, nodes, found.bits[:count], found.depths[:count], found.bounds[:count])
