"""Compiled bounds for partial choices of neurons.

Neurons are decided layer by layer in a fixed order. Below a node, what is
undecided in the current layer spans an interval for every pre-activation of
the next one, and so on to the outputs. Two kinds of bounds come from it:

- *interval*: the objective with every output free in its interval;
- *multiplier*: loss(f) >= const + sum_ic G_ic f_ic for trained G, and
  f = b + sum_j h_j V_j over the last hidden layer, so the bound is const plus the
  least sum of at most k of the c_j = sum_ic G_ic V_cj h_ij: all inputs and outputs
  share one choice of neurons. A limit on the outputs reads const + sum <= 0
  instead, and bounds the *number* of neurons from below.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]

__all__ = [
    "DEVIATION",
    "HINGE",
    "MISCLASSIFICATION",
    "NEURONS",
    "Data",
    "coupled_multiplier",
    "free_multipliers",
    "free_outputs",
    "interval_bound",
    "least_sums",
    "multiplier_bound",
    "propagate",
]

DEVIATION, HINGE, MISCLASSIFICATION, NEURONS = range(4)


class Data(NamedTuple):
    """The task as arrays; L hidden layers, P their largest width or number of outputs.

    Attributes
    ----------
    widths : int64 (L,)
    known : float64 (N, n_1)
        Outputs of the first hidden layer with everything kept.
    weights, biases : float64 (L, P, P) and (L, P)
        From hidden layer l to what reads it; the last are the outputs'.
    dense : float64 (N, C)
    targets : int64 (N,)
    objective : int
    least_lead, max_deviation : float
        Limits with the feasibility tolerance; ``max_deviation`` < 0 for none.
    keep_predictions : bool
    rounding : float
        Room for float64 rounding of outputs.
    limit : int
        Most neurons kept.
    gains : float64 (M, N, n_L)
        ``sum_c G_ic V_cj`` per multiplier.
    constants : float64 (M,)
    is_limit : bool (M,)
        True where const + sum <= 0 is a limit rather than a bound on the objective.
    """

    widths: Integers
    known: Floats
    weights: Floats
    biases: Floats
    dense: Floats
    targets: Integers
    objective: int
    least_lead: float
    max_deviation: float
    keep_predictions: bool
    rounding: float
    limit: int
    gains: Floats
    constants: Floats
    is_limit: Bools


@numba.njit(cache=True, nogil=True)
def interval_bound(base: Floats, low: Floats, high: Floats, data: Data, slack: float) -> float:
    """Least objective with every output anywhere in ``base + [low, high]``; inf if infeasible.

    All arrays float64 (N, at least C). Limits give way by ``slack``. The count of
    neurons is added by the caller.
    """
    n, classes = data.dense.shape
    objective, most, lead_needed = data.objective, data.max_deviation, data.least_lead - slack
    total = 0.0
    for i in range(n):
        if objective == DEVIATION or most >= 0.0:
            for c in range(classes):
                below = data.dense[i, c] - (base[i, c] + high[i, c])
                above = (base[i, c] + low[i, c]) - data.dense[i, c]
                apart = max(0.0, below, above)
                if most >= 0.0 and apart > most + slack:
                    return np.inf
                if objective == DEVIATION:
                    total += apart
        if data.keep_predictions or HINGE <= objective <= MISCLASSIFICATION:
            target = data.targets[i]
            rival = -np.inf
            for c in range(classes):
                if c != target:
                    rival = max(rival, base[i, c] + low[i, c])
            lead = base[i, target] + high[i, target] - rival
            if data.keep_predictions and lead < lead_needed:
                return np.inf
            if objective == HINGE:
                total += max(0.0, 1.0 - lead)
            elif objective == MISCLASSIFICATION and lead < lead_needed:
                total += 1.0
    return float(total / n)


@numba.njit(cache=True, nogil=True)
def least_sums(scores: Floats, count: int, sums: Floats) -> None:
    """``sums[d, r]``: least sum of at most r of ``scores[d:count]``, for every d and r."""
    ordered = np.zeros(count)
    for d in range(count, -1, -1):
        if d < count:
            place = count - d - 1
            while place > 0 and ordered[place - 1] > scores[d]:
                ordered[place] = ordered[place - 1]
                place -= 1
            ordered[place] = scores[d]
        sums[d, 0] = 0.0
        for r in range(count):
            term = min(ordered[r], 0.0) if r < count - d else 0.0
            sums[d, r + 1] = sums[d, r] + term


@numba.njit(cache=True, nogil=True)
def multiplier_bound(current: float, sums: Floats, kept: int, data: Data, is_limit: bool) -> float:
    """Bound from ``current`` (decided part) and ``sums[r]`` of what is undecided."""
    room = min(data.limit - kept, sums.size - 1)
    if not is_limit:
        return float(current + sums[room])
    # Multipliers of a limit are scaled so that an error of the outputs by
    # ``rounding`` moves the sum by at most that much.
    slack = 2.0 * data.rounding
    if current + sums[room] > slack:
        return np.inf
    if data.objective != NEURONS:
        return -np.inf
    r = 0
    while current + sums[r] > slack:
        r += 1
    return float(kept + r)


@numba.njit(cache=True, nogil=True)
def propagate(layer: int, low: Floats, high: Floats, data: Data, scratch: Floats) -> None:
    """Ranges of hidden layer ``layer`` (removed: 0) become those of the last hidden layer.

    ``low`` and ``high``, float64 (N, P), are overwritten; ``scratch`` is (3, N, P).
    """
    for t in range(layer, data.widths.size - 1):
        width, following = data.widths[t], data.widths[t + 1]
        for i in range(low.shape[0]):
            for j in range(following):
                below, above = data.biases[t, j], data.biases[t, j]
                for k in range(width):
                    term = data.weights[t, j, k] * high[i, k]
                    below += min(term, 0.0)
                    above += max(term, 0.0)
                scratch[0, i, j], scratch[1, i, j] = max(below, 0.0), max(above, 0.0)
            low[i, :following] = scratch[0, i, :following]
            high[i, :following] = scratch[1, i, :following]


@numba.njit(cache=True, nogil=True)
def _bound_of_scores(scores: Floats, m: int, kept: int, data: Data) -> float:
    """Multiplier bound where keeping neuron j of the last layer costs ``scores[j]``."""
    sums = np.empty((scores.size + 1, scores.size + 1))
    least_sums(scores, scores.size, sums)
    return multiplier_bound(data.constants[m], sums[0], kept, data, data.is_limit[m])


@numba.njit(cache=True, nogil=True)
def free_multipliers(low: Floats, high: Floats, kept: int, data: Data) -> tuple[float, int]:
    """Best multiplier bound with last hidden outputs anywhere in [low, high], and which."""
    width = data.widths[-1]
    bound, best = -np.inf, -1
    scores = np.empty(width)
    for m in range(data.constants.size):
        scores[:] = 0.0
        for i in range(low.shape[0]):
            for j in range(width):
                gain = data.gains[m, i, j]
                scores[j] += gain * (low[i, j] if gain > 0.0 else high[i, j])
        found = _bound_of_scores(scores, m, kept, data)
        if found > bound or best < 0:
            bound, best = found, m
    return bound, best


@numba.njit(cache=True, nogil=True)
def coupled_multiplier(
    m: int,
    d: int,
    base: Floats,
    below: Floats,
    above: Floats,
    hidden: Floats,
    kept: int,
    data: Data,
) -> float:
    """Bound of multiplier m where all inputs share the choice in the layer before the last.

    With pre-activations s in [l, u], relu(s) >= 0 and >= s, and
    relu(s) <= u (s - l) / (u - l) for l < 0 < u. Weighted and summed over the inputs these
    are linear in the undecided neurons k >= d, each of which takes its better side.
    """
    last = data.widths.size - 1
    width, before = data.widths[last], data.widths[last - 1]
    scores, slopes = np.empty(width), np.empty(before)
    for j in range(width):
        coupled, alone = 0.0, 0.0
        slopes[d:] = 0.0
        for i in range(base.shape[0]):
            gain = data.gains[m, i, j]
            low, high = base[i, j] + below[i, j], base[i, j] + above[i, j]
            if high <= 0.0 or gain == 0.0:
                continue
            factor = gain
            if gain > 0.0:
                alone += gain * max(low, 0.0)
                if low < -high:
                    continue
            else:
                alone += gain * high
                if low < 0.0:
                    factor = gain * high / (high - low)
                    coupled -= factor * low
            coupled += factor * base[i, j]
            for k in range(d, before):
                slopes[k] += factor * hidden[i, k]
        for k in range(d, before):
            coupled += min(slopes[k] * data.weights[last - 1, j, k], 0.0)
        scores[j] = max(coupled, alone)
    return _bound_of_scores(scores, m, kept, data)


@numba.njit(cache=True, nogil=True)
def free_outputs(high: Floats, data: Data, scratch: Floats) -> float:
    """Interval bound where last hidden outputs lie in [0, high]; the count is the caller's."""
    last, classes = data.widths.size - 1, data.dense.shape[1]
    scratch[2, :, :classes] = data.biases[last, :classes]
    scratch[:2] = 0.0
    for i in range(high.shape[0]):
        for c in range(classes):
            for j in range(data.widths[last]):
                term = data.weights[last, c, j] * high[i, j]
                scratch[0, i, c] += min(term, 0.0)
                scratch[1, i, c] += max(term, 0.0)
    return interval_bound(scratch[2], scratch[0], scratch[1], data, 2.0 * data.rounding)
