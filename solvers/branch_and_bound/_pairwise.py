r"""Gilmore-Lawler bounds of the pairwise minorant, compiled.

For removing s of n channels, with any t > 0 and any skew-symmetric S,

.. math:: g(T) \ge \sum_{i \in T} q_i, \quad q_i = (2 t_i - t_i^2)\,\delta_i
    - \tfrac12 \sum_{s - 1\ \text{largest}} (t_i t_j Q_{ij} + S_{ij}),

because the skew terms cancel in every T. A few subgradient steps on (t, S)
tighten it; every iterate is valid, so each may drop channels.
"""

import numpy as np
from numpy.typing import NDArray

from mipprune.solvers.branch_and_bound._compiled import compiled

__all__ = ["child_bounds", "tighten"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bytes = NDArray[np.int8]

INFINITY = np.inf


@compiled
def _insert(top: Floats, size: int, capacity: int, value: float) -> int:
    """Insert into a descending list of at most ``capacity`` values; new size."""
    if size == capacity:
        if capacity == 0 or value <= top[capacity - 1]:
            return size
        size -= 1
    k = size
    while k > 0 and top[k - 1] < value:
        top[k] = top[k - 1]
        k -= 1
    top[k] = value
    return size + 1


@compiled
def _row_sums(
    n: int, k: int, delta: Floats, q: Floats, t: Floats, skew: Floats, prefix: Floats
) -> None:
    """``prefix[i, c]`` = sum of the c largest entries of row i, c = 0..k."""
    top = np.empty(k + 1)
    for i in range(n):
        size = 0
        ti = t[i]
        for j in range(n):
            if j != i:
                value = ti * t[j] * q[i, j] + skew[i, j]
                if size < k or value > top[size - 1]:
                    size = _insert(top, size, k, value)
        total = 0.0
        prefix[i, 0] = 0.0
        for c in range(k):
            total += top[c]
            prefix[i, c + 1] = total


@compiled
def _evaluate(
    n: int,
    s: int,
    delta: Floats,
    prices: Floats,
    t: Floats,
    prefix: Floats,
    rows: Floats,
    forced: Floats,
    without: Floats,
) -> tuple[float, float]:
    """Bound for exactly s removals and its s-th smallest row.

    ``forced[i]`` and ``without[i]`` are lowered to the bounds with channel i
    removed and with channel i kept.
    """
    small = np.empty(s + 1)
    size = 0
    for i in range(n):
        rows[i] = (2.0 * t[i] - t[i] * t[i]) * delta[i] - prices[i] - 0.5 * prefix[i, s - 1]
        size = _insert(small, size, s + 1, -rows[i])
    total = 0.0
    for c in range(s):
        total -= small[c]
    last = -small[s - 1]
    following = -small[s] if size > s else INFINITY
    for i in range(n):
        inside = rows[i] <= last
        forced[i] = min(forced[i], total if inside else total - last + rows[i])
        without[i] = min(without[i], total - rows[i] + following if inside else total)
    return total, last


@compiled
def tighten(
    n: int,
    s_low: int,
    s_high: int,
    delta: Floats,
    q: Floats,
    prices: Floats,
    t: Floats,
    skew: Floats,
    target: float,
    steps: int,
    pure: bool,
    forced: Floats,
    without: Floats,
) -> float:
    """Best bound over a few subgradient steps on (t, skew), in place.

    Stops as soon as ``target`` is reached. ``pure``: the objective is pairwise
    itself, so t stays 1. ``forced[i]``, ``without[i]`` get
    the best bounds with channel i removed and kept.
    """
    prefix = np.empty((n, s_high))
    rows = np.empty(n)
    here = np.empty(n)
    away = np.empty(n)
    best_t = np.empty(n)
    best_skew = np.empty((n, n))
    gradient = np.empty(n)
    member = np.zeros((n, n))
    for i in range(n):
        forced[i] = -INFINITY
        without[i] = -INFINITY
    best = -INFINITY
    start = -INFINITY
    if target == INFINITY:
        steps = 0
    for step in range(steps + 1):
        _row_sums(n, s_high - 1, delta, q, t, skew, prefix)
        value, worst = INFINITY, s_low
        for i in range(n):
            here[i] = INFINITY
            away[i] = INFINITY
        for s in range(s_low, s_high + 1):
            bound, _ = _evaluate(n, s, delta, prices, t, prefix, rows, here, away)
            if bound < value:
                value, worst = bound, s
        for i in range(n):
            forced[i] = max(forced[i], here[i])
            without[i] = max(without[i], away[i])
        if value > best:
            best = value
            for i in range(n):
                best_t[i] = t[i]
                for j in range(n):
                    best_skew[i, j] = skew[i, j]
        if step == 0:
            start = value
        if best >= target or step == steps:
            break
        if step >= 3 and (best - start) * (steps / step) * 1.5 < target - start and step >= 6:
            break
        _ascend(
            n,
            worst,
            delta,
            q,
            prices,
            t,
            skew,
            prefix,
            rows,
            member,
            gradient,
            target - value,
            pure,
        )
    for i in range(n):
        t[i] = best_t[i]
        for j in range(n):
            skew[i, j] = best_skew[i, j]
    return best


@compiled
def _ascend(
    n: int,
    s: int,
    delta: Floats,
    q: Floats,
    prices: Floats,
    t: Floats,
    skew: Floats,
    prefix: Floats,
    rows: Floats,
    member: Floats,
    gradient: Floats,
    distance: float,
    pure: bool,
) -> None:
    """One Polyak step towards the target, on the skew part and on t."""
    small = np.empty(s)
    size = 0
    for i in range(n):
        rows[i] = (2.0 * t[i] - t[i] * t[i]) * delta[i] - prices[i] - 0.5 * prefix[i, s - 1]
        size = _insert(small, size, s, -rows[i])
    last = -small[s - 1]
    for i in range(n):
        gradient[i] = 0.0
        for j in range(n):
            member[i, j] = 0.0
    for i in range(n):
        if rows[i] > last:
            continue
        gradient[i] += 2.0 * (1.0 - t[i]) * delta[i]
        if s < 2:
            continue
        threshold = prefix[i, s - 1] - prefix[i, s - 2]
        threshold -= 1e-12 * abs(threshold)
        for j in range(n):
            if j != i and t[i] * t[j] * q[i, j] + skew[i, j] >= threshold:
                member[i, j] = 1.0
                gradient[i] -= 0.5 * q[i, j] * t[j]
                gradient[j] -= 0.5 * q[i, j] * t[i]
    norm_skew, norm_t = 0.0, 0.0
    for i in range(n):
        norm_t += gradient[i] * gradient[i]
        for j in range(i):
            difference = member[i, j] - member[j, i]
            norm_skew += difference * difference
    if norm_t > 0.0 and not pure:
        length = 0.15 * distance / norm_t
        for i in range(n):
            t[i] = min(max(t[i] + length * gradient[i], 0.2), 1.5)
    if norm_skew > 0.0:
        # Each pair moves twice in the bound (both rows), hence the halved gradient.
        length = 1.0 * distance / norm_skew
        for i in range(n):
            for j in range(i):
                difference = length * (member[i, j] - member[j, i])
                skew[i, j] -= difference
                skew[j, i] += difference


@compiled
def child_bounds(
    n: int,
    s: int,
    order: Integers,
    delta: Floats,
    q: Floats,
    prices: Floats,
    t: Floats,
    skew: Floats,
    target: float,
    bounds: Floats,
    drop: Bytes,
) -> float:
    """Bounds of the children "the last removed channel is order[c]", c >= s - 1.

    Child c removes ``order[c]`` and s - 1 of ``order[:c]``. ``drop[c, b]`` is
    set where also removing ``order[b]`` reaches the target; returns the least
    bound among those drops.
    """
    least = INFINITY
    capacity = max(s - 2, 0)
    tops = np.zeros((n, capacity + 1))
    sizes = np.zeros(n, dtype=np.int64)
    sums = np.zeros(n)
    values = np.empty(n)
    small = np.empty(s + 1)
    own = np.empty(s + 1)
    for c in range(n):
        i = order[c]
        size = 0
        for b in range(c):
            j = order[b]
            size = _insert(own, size, s - 1, t[i] * t[j] * q[i, j] + skew[i, j])
        if c >= s - 1:
            first = (2.0 * t[i] - t[i] * t[i]) * delta[i] - prices[i]
            for k in range(s - 1):
                first -= 0.5 * own[k]
            size_small = 0
            for b in range(c):
                j = order[b]
                pair = t[i] * t[j] * q[i, j] + skew[j, i]
                values[b] = (
                    (2.0 * t[j] - t[j] * t[j]) * delta[j] - prices[j] - 0.5 * (sums[b] + pair)
                )
                size_small = _insert(small, size_small, s - 1, -values[b])
            total = first
            for k in range(s - 1):
                total -= small[k]
            bounds[c] = total
            if s < 2:
                for b in range(c):
                    drop[c, b] = 0
            else:
                last = -small[s - 2]
                for b in range(c):
                    alone = total if values[b] <= last else total - last + values[b]
                    drop[c, b] = 1 if alone >= target else 0
                    if alone >= target:
                        least = min(least, alone)
        for b in range(c):
            j = order[b]
            sizes[b] = _insert(tops[b], sizes[b], capacity, t[i] * t[j] * q[i, j] + skew[j, i])
            total = 0.0
            for k in range(sizes[b]):
                total += tops[b, k]
            sums[b] = total
        for k in range(min(size, capacity)):
            tops[c, k] = own[k]
            sums[c] += own[k]
        sizes[c] = min(size, capacity)
    return least
