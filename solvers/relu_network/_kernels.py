"""Compiled search over the second hidden layer, one first-layer mask at a time.

With the first layer fixed, the hidden outputs H of the second are known and
the network's outputs are ``b + sum_j y_j H_j V_j``. Depth-first search decides
the y_j from the largest contribution down; what is undecided spans an
interval per output, and the objective over the intervals is a lower bound.
"""

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]

__all__ = ["DEVIATION", "HINGE", "MISCLASSIFICATION", "NEURONS", "root_bounds", "search_masks"]

DEVIATION, HINGE, MISCLASSIFICATION, NEURONS = range(4)


@numba.njit(cache=True, nogil=True)
def _interval_bound(
    base: Floats,
    low: Floats,
    high: Floats,
    dense: Floats,
    targets: Integers,
    objective: int,
    margin: float,
    keep_predictions: bool,
    max_deviation: float,
) -> float:
    """Least objective with every output anywhere in ``base + [low, high]``; inf if infeasible.

    All arrays float64 (N, C). The count of neurons is added by the caller.
    """
    n, classes = base.shape
    total = 0.0
    for i in range(n):
        if objective == DEVIATION or max_deviation >= 0.0:
            for c in range(classes):
                below = dense[i, c] - (base[i, c] + high[i, c])
                above = (base[i, c] + low[i, c]) - dense[i, c]
                apart = max(0.0, below, above)
                if max_deviation >= 0.0 and apart > max_deviation:
                    return np.inf
                if objective == DEVIATION:
                    total += apart
        if keep_predictions or HINGE <= objective <= MISCLASSIFICATION:
            rival = -np.inf
            for c in range(classes):
                if c != targets[i]:
                    rival = max(rival, base[i, c] + low[i, c])
            lead = base[i, targets[i]] + high[i, targets[i]] - rival
            if keep_predictions and lead < margin:
                return np.inf
            if objective == HINGE:
                total += max(0.0, 1.0 - lead)
            elif objective == MISCLASSIFICATION and lead < margin:
                total += 1.0
    return float(total / n)


@numba.njit(cache=True, nogil=True)
def _hidden(first: Bools, weights: Floats, bias: Floats, known: Floats) -> Floats:
    """Second-layer outputs (N, n_2) under a first-layer mask."""
    n, n1 = known.shape
    n2 = bias.size
    hidden = np.empty((n, n2))
    for i in range(n):
        for j in range(n2):
            s = bias[j]
            for k in range(n1):
                if first[k]:
                    s += weights[j, k] * known[i, k]
            hidden[i, j] = max(s, 0.0)
    return hidden


@numba.njit(cache=True, nogil=True)
def _suffixes(hidden: Floats, out_weights: Floats, order: Integers) -> tuple[Floats, Floats]:
    """Intervals (n_2 + 1, N, C) of what neurons order[d], order[d+1], ... can add."""
    n, n2 = hidden.shape
    classes = out_weights.shape[0]
    low = np.zeros((n2 + 1, n, classes))
    high = np.zeros((n2 + 1, n, classes))
    for d in range(n2 - 1, -1, -1):
        j = order[d]
        for i in range(n):
            for c in range(classes):
                term = hidden[i, j] * out_weights[c, j]
                low[d, i, c] = low[d + 1, i, c] + min(term, 0.0)
                high[d, i, c] = high[d + 1, i, c] + max(term, 0.0)
    return low, high


@numba.njit(cache=True, nogil=True)
def _order(hidden: Floats, out_weights: Floats) -> Integers:
    """Neurons by falling size of their contribution to the outputs."""
    size = np.empty(hidden.shape[1])
    for j in range(hidden.shape[1]):
        size[j] = -np.sum(hidden[:, j] ** 2) * np.sum(out_weights[:, j] ** 2)
    return np.argsort(size)


@numba.njit(cache=True, nogil=True)
def _search_second(
    hidden: Floats,
    out_weights: Floats,
    out_bias: Floats,
    dense: Floats,
    targets: Integers,
    objective: int,
    margin: float,
    keep_predictions: bool,
    max_deviation: float,
    limit: int,
    kept_first: int,
    incumbent: float,
    best: Bools,
) -> tuple[float, int]:
    """Best second-layer mask below ``incumbent``; fills ``best``, returns value and nodes."""
    n, n2 = hidden.shape
    classes = out_bias.size
    order = _order(hidden, out_weights)
    low, high = _suffixes(hidden, out_weights, order)
    base = np.empty((n2 + 1, n, classes))
    base[0] = out_bias
    # Branch tried at each depth: 0 none yet, 1 keep tried, 2 both tried.
    state = np.zeros(n2 + 1, dtype=np.int8)
    taken = np.zeros(n2, dtype=np.bool_)
    kept = 0
    nodes = 0
    depth = 0
    value = incumbent
    while depth >= 0:
        if state[depth] == 0:
            nodes += 1
            bound = _interval_bound(
                base[depth],
                low[depth],
                high[depth],
                dense,
                targets,
                objective,
                margin,
                keep_predictions,
                max_deviation,
            )
            if objective == NEURONS and bound < np.inf:
                bound = float(kept_first + kept)
            tolerance = 1e-10 * (1.0 + abs(value)) if value < np.inf else 0.0
            if bound >= value - tolerance:
                state[depth] = 2
            elif depth == n2:
                value = bound
                best[:] = False
                for d in range(n2):
                    best[order[d]] = taken[d]
                state[depth] = 2
        if depth < n2 and state[depth] == 0:
            state[depth] = 1
            if kept_first + kept < limit:
                j = order[depth]
                for i in range(n):
                    for c in range(classes):
                        term = hidden[i, j] * out_weights[c, j]
                        base[depth + 1, i, c] = base[depth, i, c] + term
                taken[depth] = True
                kept += 1
                depth += 1
                state[depth] = 0
                continue
        if depth < n2 and state[depth] == 1:
            state[depth] = 2
            base[depth + 1] = base[depth]
            taken[depth] = False
            depth += 1
            state[depth] = 0
            continue
        depth -= 1
        if depth >= 0 and taken[depth] and state[depth] == 1:
            taken[depth] = False
            kept -= 1
    return value, nodes


@numba.njit(cache=True, nogil=True)
def root_bounds(
    masks: Bools,
    known: Floats,
    weights: Floats,
    bias: Floats,
    out_weights: Floats,
    out_bias: Floats,
    dense: Floats,
    targets: Integers,
    objective: int,
    margin: float,
    keep_predictions: bool,
    max_deviation: float,
) -> Floats:
    """Interval bound of each first-layer mask, float64 (number of masks,)."""
    bounds = np.empty(masks.shape[0])
    for m in range(masks.shape[0]):
        hidden = _hidden(masks[m], weights, bias, known)
        order = np.arange(hidden.shape[1])
        low, high = _suffixes(hidden, out_weights, order)
        base = np.empty(low.shape[1:])
        base[:] = out_bias
        bound = _interval_bound(
            base,
            low[0],
            high[0],
            dense,
            targets,
            objective,
            margin,
            keep_predictions,
            max_deviation,
        )
        if objective == NEURONS and bound < np.inf:
            bound = float(np.sum(masks[m]))
        bounds[m] = bound
    return bounds


@numba.njit(cache=True, nogil=True)
def search_masks(
    masks: Bools,
    known: Floats,
    weights: Floats,
    bias: Floats,
    out_weights: Floats,
    out_bias: Floats,
    dense: Floats,
    targets: Integers,
    objective: int,
    margin: float,
    keep_predictions: bool,
    max_deviation: float,
    limit: int,
    incumbent: float,
) -> tuple[Floats, Bools, Integers]:
    """Search below each first-layer mask: values, second-layer masks and nodes."""
    count = masks.shape[0]
    values = np.empty(count)
    nodes = np.empty(count, dtype=np.int64)
    second = np.zeros((count, bias.size), dtype=np.bool_)
    for m in range(count):
        hidden = _hidden(masks[m], weights, bias, known)
        values[m], nodes[m] = _search_second(
            hidden,
            out_weights,
            out_bias,
            dense,
            targets,
            objective,
            margin,
            keep_predictions,
            max_deviation,
            limit,
            np.sum(masks[m]),
            incumbent,
            second[m],
        )
    return values, second, nodes
