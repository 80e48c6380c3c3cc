"""Compiled state of one search: entering layers, deciding neurons, bounds of nodes."""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from mipprune.solvers.relu_network._kernels import (
    NEURONS,
    Data,
    coupled_multiplier,
    free_multipliers,
    free_outputs,
    interval_bound,
    least_sums,
    multiplier_bound,
    propagate,
)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]

__all__ = ["Work", "decide", "enter", "leaf_value", "node_bound", "suffixes", "workspace"]


class Work(NamedTuple):
    """Memory of one search; D = P + 1 positions in a layer.

    Attributes
    ----------
    hidden : float64 (L, N, P)
        Outputs of a layer's neurons, given the layers before.
    base, low, high : float64 (L, D, N, P)
        What reads layer l: sum of the kept ones so far, and the interval of the rest.
    idle : bool (L, P)
        Neurons that put out zero on every input, or feed nothing.
    order : int64 (P,)
        Neurons of the last hidden layer as they are decided there: by falling
        contribution to the outputs, which the layers before determine.
    out : float64 (P, P)
        Output weights in that order.
    scores, current : float64 (M, P), (M, D)
    sums : float64 (M, D, D)
    """

    hidden: Floats
    base: Floats
    low: Floats
    high: Floats
    idle: Bools
    order: Integers
    out: Floats
    scores: Floats
    current: Floats
    sums: Floats
    free_low: Floats
    free_high: Floats
    scratch: Floats


@numba.njit(cache=True, nogil=True)
def workspace(data: Data) -> Work:
    layers, width = data.widths.size, data.weights.shape[1]
    n, m = data.known.shape[0], data.constants.size
    shape = (layers, width + 1, n, width)
    return Work(
        np.zeros((layers, n, width)),
        np.zeros(shape),
        np.zeros(shape),
        np.zeros(shape),
        np.zeros((layers, width), dtype=np.bool_),
        np.zeros(width, dtype=np.int64),
        np.zeros((width, width)),
        np.zeros((m, width)),
        np.zeros((m, width + 1)),
        np.zeros((m, width + 1, width + 1)),
        np.zeros((n, width)),
        np.zeros((n, width)),
        np.zeros((3, n, width)),
    )


@numba.njit(cache=True, nogil=True)
def enter(layer: int, data: Data, work: Work) -> None:
    """Outputs of a layer's neurons once all layers before are decided."""
    n, width = data.known.shape[0], data.widths[layer]
    last = data.widths.size - 1
    following = data.dense.shape[1] if layer == last else data.widths[layer + 1]
    hidden = work.hidden[layer]
    if layer == 0:
        hidden[:, :width] = data.known
    else:
        before = work.base[layer - 1, data.widths[layer - 1]]
        for i in range(n):
            for j in range(width):
                hidden[i, j] = max(before[i, j], 0.0)
    for j in range(width):
        active = False
        for i in range(n):
            active |= hidden[i, j] > 0.0
        used = False
        for c in range(following):
            used |= data.weights[layer, c, j] != 0.0
        work.idle[layer, j] = not (active and used)
    work.base[layer, 0, :, :following] = data.biases[layer, :following]
    if layer == last:
        _enter_last(data, work)


@numba.njit(cache=True, nogil=True)
def _enter_last(data: Data, work: Work) -> None:
    """Sort the last hidden layer and evaluate the multipliers on it."""
    last = data.widths.size - 1
    n, width, classes = data.known.shape[0], data.widths[last], data.dense.shape[1]
    hidden, size = work.hidden[last], np.zeros(width)
    for j in range(width):
        for c in range(classes):
            size[j] += data.weights[last, c, j] ** 2
        square = 0.0
        for i in range(n):
            square += hidden[i, j] ** 2
        size[j] *= -square
    for j in range(width):  # insertion: a compiled library sort takes seconds to compile
        place = j
        while place > 0 and size[work.order[place - 1]] > size[j]:
            work.order[place] = work.order[place - 1]
            place -= 1
        work.order[place] = j
    for i in range(n):
        size[:] = hidden[i, :width]
        for d in range(width):
            hidden[i, d] = size[work.order[d]]
    for d in range(width):
        for c in range(classes):
            work.out[c, d] = data.weights[last, c, work.order[d]]
        work.idle[last, d] = True
        for i in range(n):
            work.idle[last, d] &= hidden[i, d] == 0.0
    for m in range(data.constants.size):
        work.scores[m, :] = 0.0
        for i in range(n):
            for d in range(width):
                work.scores[m, d] += data.gains[m, i, work.order[d]] * hidden[i, d]
        least_sums(work.scores[m], width, work.sums[m])
        work.current[m, 0] = data.constants[m]


@numba.njit(cache=True, nogil=True)
def suffixes(layer: int, data: Data, work: Work) -> None:
    """Intervals of what the neurons from each position on can add."""
    n, width = data.known.shape[0], data.widths[layer]
    last = data.widths.size - 1
    following = data.dense.shape[1] if layer == last else data.widths[layer + 1]
    low, high, hidden = work.low[layer], work.high[layer], work.hidden[layer]
    weights = work.out if layer == last else data.weights[layer]
    low[width] = 0.0
    high[width] = 0.0
    for d in range(width - 1, -1, -1):
        for i in range(n):
            h = hidden[i, d]
            for c in range(following):
                term = h * weights[c, d]
                low[d, i, c] = low[d + 1, i, c] + min(term, 0.0)
                high[d, i, c] = high[d + 1, i, c] + max(term, 0.0)


@numba.njit(cache=True, nogil=True)
def decide(layer: int, d: int, keep: bool, data: Data, work: Work) -> None:
    """Position d of a layer is decided: sums at d + 1 follow from those at d."""
    n, last = data.known.shape[0], data.widths.size - 1
    following = data.dense.shape[1] if layer == last else data.widths[layer + 1]
    base, hidden = work.base[layer], work.hidden[layer]
    weights = work.out if layer == last else data.weights[layer]
    for i in range(n):
        h = hidden[i, d] if keep else 0.0
        for c in range(following):
            base[d + 1, i, c] = base[d, i, c] + h * weights[c, d]
    if layer == last:
        for m in range(data.constants.size):
            added = work.scores[m, d] if keep else 0.0
            work.current[m, d + 1] = work.current[m, d] + added


@numba.njit(cache=True, nogil=True)
def node_bound(layer: int, d: int, kept: int, data: Data, work: Work, cutoff: float) -> float:
    """Bound with layers before ``layer`` decided and ``layer`` up to position d."""
    last = data.widths.size - 1
    if layer == last:
        bound = -np.inf
        for m in range(data.constants.size):
            sums = work.sums[m, d, : data.widths[last] - d + 1]
            bound = max(
                bound, multiplier_bound(work.current[m, d], sums, kept, data, data.is_limit[m])
            )
        if bound >= cutoff:
            return bound
        if d == 0:
            suffixes(layer, data, work)
        found = interval_bound(
            work.base[last, d], work.low[last, d], work.high[last, d], data, 2.0 * data.rounding
        )
        if data.objective == NEURONS and found < np.inf:
            found = float(kept)
        return max(bound, found)
    if d == 0:
        suffixes(layer, data, work)
    n, following = data.known.shape[0], data.widths[layer + 1]
    for i in range(n):
        for j in range(following):
            at = work.base[layer, d, i, j]
            work.free_low[i, j] = max(at + work.low[layer, d, i, j], 0.0)
            work.free_high[i, j] = max(at + work.high[layer, d, i, j], 0.0)
    propagate(layer + 1, work.free_low, work.free_high, data, work.scratch)
    bound, m = free_multipliers(work.free_low, work.free_high, kept, data)
    if m >= 0 and layer == last - 1 and bound < cutoff:
        low, high = work.low[layer, d], work.high[layer, d]
        base, hidden = work.base[layer, d], work.hidden[layer]
        bound = max(bound, coupled_multiplier(m, d, base, low, high, hidden, kept, data))
    if bound >= cutoff:
        return bound
    found = free_outputs(work.free_high, data, work.scratch)
    if data.objective == NEURONS and found < np.inf:
        found = float(kept)
    return max(bound, found)


@numba.njit(cache=True, nogil=True)
def leaf_value(kept: int, data: Data, work: Work) -> float:
    """Objective of a full choice, inf where it misses a limit."""
    last = data.widths.size - 1
    width = data.widths[last]
    work.scratch[:2] = 0.0
    value = interval_bound(work.base[last, width], work.scratch[0], work.scratch[1], data, 0.0)
    if data.objective == NEURONS and value < np.inf:
        return float(kept)
    return value
