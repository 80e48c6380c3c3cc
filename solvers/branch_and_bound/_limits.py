"""What the limits say about the number of removals, compiled."""

import numpy as np
from numpy.typing import NDArray

from mipprune.solvers.branch_and_bound._compiled import compiled

__all__ = ["leaf_is_feasible", "least_removals", "most_removals"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bytes = NDArray[np.int8]


@compiled
def leaf_is_feasible(present: Bytes, first: int, second: int, third: int, parts: Integers) -> bool:
    """Equal counts among the kept channels less three; labels below 0 do not count."""
    for part in range(parts.shape[0]):
        labels = 0
        for j in range(present.size):
            labels = max(labels, parts[part, j] + 1)
        if labels < 2:
            continue
        counts = np.zeros(labels, dtype=np.int64)
        for j in range(present.size):
            if parts[part, j] >= 0 and present[j] == 1 and j not in (first, second, third):
                counts[parts[part, j]] += 1
        for label in range(1, labels):
            if counts[label] != counts[0]:
                return False
    return True


@compiled
def _sorted_use(n: int, ids: Integers, use: Floats, k: int) -> Floats:
    amounts = np.empty(n)
    for c in range(n):
        value = use[k, ids[c]]
        at = c
        while at > 0 and amounts[at - 1] > value:
            amounts[at] = amounts[at - 1]
            at -= 1
        amounts[at] = value
    return amounts


@compiled
def least_removals(
    n: int, ids: Integers, use: Floats, need: Floats, slack: Floats, n_limits: int
) -> int:
    """Fewest removals that free what is needed; n + 1 where all do not."""
    least = 0
    for k in range(n_limits):
        if need[k] <= slack[k]:
            continue
        amounts = _sorted_use(n, ids, use, k)
        freed = 0.0
        count = 0
        while count < n and freed < need[k] - slack[k]:
            count += 1
            freed += amounts[n - count]
        if freed < need[k] - slack[k]:
            return n + 1
        least = max(least, count)
    return least


@compiled
def most_removals(
    n: int,
    ids: Integers,
    use: Floats,
    need: Floats,
    n_limits: int,
    use_low: Floats,
    room: Floats,
    n_rooms: int,
    slack: Floats,
    monotone: bool,
) -> int:
    """Most removals worth looking at.

    Lower limits stop removal. Where removing more never helps (monotone), only
    minimal sets matter: each channel is critical for some limit, and a limit
    has at most one more critical channel than its cheapest insufficient set.
    """
    most = n
    for k in range(n_rooms):
        amounts = _sorted_use(n, ids, use_low, k)
        used = 0.0
        count = 0
        while count < n and used + amounts[count] <= room[k] + slack[n_limits + k]:
            used += amounts[count]
            count += 1
        most = min(most, count)
    if monotone:
        critical = 0
        for k in range(n_limits):
            if need[k] <= slack[k]:
                continue
            amounts = _sorted_use(n, ids, use, k)
            used = 0.0
            count = 0
            positive = 0
            for c in range(n):
                if amounts[c] > 0.0:
                    positive += 1
                    if used + amounts[c] < need[k] - slack[k]:
                        used += amounts[c]
                        count += 1
            critical += min(count + 1, positive)
        most = min(most, critical)
    return most
