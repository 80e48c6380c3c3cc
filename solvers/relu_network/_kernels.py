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
    "free_bound",
    "interval_bound",
    "least_sums",
    "multiplier_bound",
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
def free_bound(
    layer: int, low: Floats, high: Floats, kept: int, data: Data, scratch: Floats, cutoff: float
) -> float:
    """Bound where outputs of hidden layer ``layer`` lie in [low, high] or, removed, at 0.

    ``low`` and ``high``, float64 (N, P), are overwritten; ``scratch`` is (3, N, P).
    """
    n = low.shape[0]
    last = data.widths.size - 1
    for t in range(layer, last):
        width, following = data.widths[t], data.widths[t + 1]
        for i in range(n):
            for j in range(following):
                below, above = data.biases[t, j], data.biases[t, j]
                for k in range(width):
                    term = data.weights[t, j, k] * high[i, k]
                    below += min(term, 0.0)
                    above += max(term, 0.0)
                scratch[0, i, j], scratch[1, i, j] = max(below, 0.0), max(above, 0.0)
            low[i, :following] = scratch[0, i, :following]
            high[i, :following] = scratch[1, i, :following]
    width = data.widths[last]
    bound = -np.inf
    scores = np.empty(width)
    sums = np.empty(width + 1)
    for m in range(data.constants.size):
        scores[:] = 0.0
        for i in range(n):
            for j in range(width):
                gain = data.gains[m, i, j]
                scores[j] += gain * (low[i, j] if gain > 0.0 else high[i, j])
        scores.sort()
        sums[0] = 0.0
        for r in range(width):
            sums[r + 1] = sums[r] + min(scores[r], 0.0)
        found = multiplier_bound(data.constants[m], sums, kept, data, data.is_limit[m])
        bound = max(bound, found)
        if bound >= cutoff:
            return bound
    classes = data.dense.shape[1]
    scratch[2, :, :classes] = data.biases[last, :classes]
    scratch[:2] = 0.0
    for i in range(n):
        for c in range(classes):
            for j in range(width):
                term = data.weights[last, c, j] * high[i, j]
                scratch[0, i, c] += min(term, 0.0)
                scratch[1, i, c] += max(term, 0.0)
    found = interval_bound(scratch[2], scratch[0], scratch[1], data, 2.0 * data.rounding)
    if data.objective == NEURONS and found < np.inf:
        found = float(kept)
    return max(bound, found)
