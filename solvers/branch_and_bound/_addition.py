"""Few channels kept: the addition tree, every mask priced exactly.

Keeping T gains ``tr(C_T' H_TT^-1 C_T) / 2`` with ``H = G + ridge``, the form of a
removal cost with H for P and C C' for K; so the same downdates serve, and the
last two channels of a mask are priced from their blocks alone.
"""

import math
import threading

import numpy as np
from numpy.typing import NDArray

from mipprune.problem import ChannelSelection
from mipprune.solvers.branch_and_bound._blocks import costs_of_singles, downdate, exact_pair
from mipprune.solvers.branch_and_bound._compiled import ZERO, compiled
from mipprune.solvers.branch_and_bound._frontier import Found, Task
from mipprune.solvers.branch_and_bound._state import KEPT, REMOVED, square

__all__ = ["AdditionExplorer", "addition_pays"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bytes = NDArray[np.int8]

MAX_MASKS = 1_000_000
"""Most masks that are enumerated rather than searched by elimination."""


def addition_pays(problem: ChannelSelection) -> bool:
    """Whether the problem only limits the count, to so few that all masks are priced."""
    free = ~(problem.forced_in | problem.forced_out)
    keep = problem.keep
    if problem.variant != "refit" or problem.has_box or problem.parts or keep is None:
        return False
    if len(problem.resources) != 1 or problem.resources[0].lower > 0:
        return False
    if np.any(problem.prices[free] > 0):
        return False
    n, k = int(free.sum()), keep - int(problem.forced_in.sum())
    return 1 <= k <= n // 4 and math.comb(n, k) <= MAX_MASKS


@compiled
def _gains(
    arena: Floats, offsets: Integers, sizes: Integers, level: int, n: int, gains: Floats
) -> None:
    """Gain of each undecided channel, and the pivots of the matrices."""
    for c in range(n):
        gains[c] = 0.0
    for t in range(sizes.size):
        g = sizes[t]
        at = offsets[level, 3 * t + 2]
        costs_of_singles(
            square(arena, offsets[level, 3 * t], n * g),
            square(arena, offsets[level, 3 * t + 1], n * g),
            n,
            g,
            arena[at : at + n * g * g].reshape(n * g, g),
            gains,
        )


@compiled
def _keep_one(
    arena: Floats,
    offsets: Integers,
    sizes: Integers,
    level: int,
    n: int,
    i: int,
    chosen: Integers,
    flat: Floats,
    products: Floats,
) -> None:
    """Matrices of the channels behind i once i is kept."""
    m = n - i - 1
    for c in range(m):
        chosen[c] = i + 1 + c
    last = 3 * (sizes.size - 1)
    at = offsets[level, last + 2] + n * sizes[sizes.size - 1] ** 2
    for t in range(sizes.size):
        g = sizes[t]
        width = m * g
        offsets[level + 1, 3 * t] = at
        offsets[level + 1, 3 * t + 1] = at + width * width
        offsets[level + 1, 3 * t + 2] = at + 2 * width * width
        downdate(
            square(arena, offsets[level, 3 * t], n * g),
            square(arena, offsets[level, 3 * t + 1], n * g),
            i,
            chosen,
            m,
            g,
            square(arena, offsets[level, 3 * t + 2] + i * g * g, g),
            square(arena, at, width),
            square(arena, at + width * width, width),
            flat,
            square(products, ZERO, width),
            square(products, width * width, width),
        )
        at += 2 * width * width + width * g


@compiled
def _price_pairs(
    arena: Floats,
    offsets: Integers,
    sizes: Integers,
    level: int,
    n: int,
    gains: Floats,
    prices: Floats,
    value: float,
    panel: Floats,
    best: Floats,
    pair: Integers,
) -> bool:
    """Best mask that keeps two more; whether it beats ``best[0]``."""
    found = False
    for j in range(1, n):
        for i in range(j):
            total = value + prices[i] + prices[j] - gains[i]
            for t in range(sizes.size):
                g = sizes[t]
                at = offsets[level, 3 * t + 2]
                total -= exact_pair(
                    square(arena, offsets[level, 3 * t], n * g),
                    square(arena, offsets[level, 3 * t + 1], n * g),
                    i,
                    j,
                    g,
                    arena[at : at + n * g * g].reshape(n * g, g),
                    panel,
                )
            if total < best[0]:
                best[0] = total
                pair[0], pair[1] = i, j
                found = True
    return found


@compiled
def price_masks(
    arena: Floats,
    offsets: Integers,
    sizes: Integers,
    n0: int,
    more: int,
    value0: float,
    prices: Floats,
    control: Integers,
    panel: Floats,
    best: Floats,
    members: Integers,
) -> int:
    """Price all masks that keep ``more`` of the n0 channels; nodes, negative if stopped.

    ``best[0]`` holds the value to beat, ``members`` gets the positions of the
    best mask. Level 0 of the arena is laid out by the caller.
    """
    counts = np.zeros(more + 1, dtype=np.int64)
    cursor = np.zeros(more + 1, dtype=np.int64)
    shift = np.zeros(more + 1, dtype=np.int64)
    values = np.zeros(more + 1)
    gains = np.zeros((more + 1, n0))
    largest = 1
    for t in range(sizes.size):
        largest = max(largest, sizes[t])
    flat = np.empty(7 * n0 * largest * largest)
    products = np.empty(2 * (n0 * largest) ** 2)
    chosen = np.zeros(n0, dtype=np.int64)
    pair = np.zeros(2, dtype=np.int64)
    path = np.zeros(more + 1, dtype=np.int64)
    counts[0], values[0] = n0, value0
    nodes = 1
    level = 0
    fresh = True
    while level >= 0:
        n, left = counts[level], more - level
        here = prices[shift[level] :]
        if fresh:
            fresh = False
            cursor[level] = 0
            _gains(arena, offsets, sizes, level + 0, n, gains[level])
            improved = False
            if left == 1:
                for i in range(n):
                    total = values[level] + here[i] - gains[level, i]
                    if total < best[0]:
                        best[0] = total
                        pair[0], pair[1] = i, i
                        improved = True
                cursor[level] = n
            elif left == 2:
                improved = _price_pairs(
                    arena,
                    offsets,
                    sizes,
                    level + 0,
                    n,
                    gains[level],
                    here,
                    values[level],
                    panel,
                    best,
                    pair,
                )
                cursor[level] = n
            if improved:
                for k in range(level):
                    members[k] = path[k]
                members[level] = shift[level] + pair[0]
                members[more - 1] = shift[level] + pair[1]
        i = cursor[level]
        if i > n - left:
            level -= 1
            continue
        if control[0] != 0:
            return -nodes
        cursor[level] = i + 1
        path[level] = shift[level] + i
        _keep_one(arena, offsets, sizes, level + 0, n, i, chosen, flat, products)
        values[level + 1] = values[level] - gains[level, i] + here[i]
        shift[level + 1] = shift[level] + i + 1
        counts[level + 1] = n - i - 1
        nodes += 1
        level += 1
        fresh = True
    return nodes


class AdditionExplorer:
    """Enumerates masks from the empty side; made for problems of :func:`addition_pays`."""

    def __init__(self, problem: ChannelSelection, margin: float, value_all: float) -> None:
        self.problem = problem
        self.margin = margin
        self.value_all = value_all
        sizes, grams, energies = [], [], []
        for term in problem.terms:
            size = max(int(term.group_sizes.max(initial=1)), 1)
            p = problem.n_channels
            starts = term.offsets[:-1]
            inside = np.arange(term.n_rows) - np.repeat(starts, term.group_sizes)
            place = term.channel_of_row * size + inside
            gram, energy = np.eye(p * size), np.zeros((p * size, p * size))
            gram[np.ix_(place, place)] = term.damped_gram
            energy[np.ix_(place, place)] = term.cross @ term.cross.T
            sizes.append(size)
            grams.append(gram)
            energies.append(energy)
        self.sizes = np.array(sizes, dtype=np.int64)
        self.grams, self.energies = grams, energies
        self._lock = threading.Lock()

    def explore(self, task: Task) -> Found:
        """Split the root by its first kept channel; price everything below the others."""
        state, shared, undecided = task.state, task.shared, task.undecided
        kept = np.flatnonzero(state == KEPT)
        keep = self.problem.keep
        more = min((0 if keep is None else keep) - kept.size, undecided.size)
        if task.first and more > 2:
            return self._split(state, undecided, more)
        arena, value = self._load(kept, undecided, more)
        offsets = np.zeros((more + 1, 3 * self.sizes.size), dtype=np.int64)
        at = 0
        for t, size in enumerate(self.sizes.tolist()):
            width = undecided.size * size
            offsets[0, 3 * t : 3 * t + 3] = (at, at + width**2, at + 2 * width**2)
            at += 2 * width**2 + width * size
        best, members = np.array([float(shared[0])]), np.full(more, -1, dtype=np.int64)
        largest = int(self.sizes.max())
        count = price_masks(
            arena,
            offsets,
            self.sizes,
            undecided.size,
            more,
            value,
            np.ascontiguousarray(self.problem.prices[undecided]),
            task.control,
            np.empty((5 * largest, undecided.size * largest)),
            best,
            members,
        )
        found = Found(bound=task.bound, nodes=abs(int(count)), margin=self.margin)
        if count < 0:
            found.states, found.bounds = [state], [task.bound]
        if members[0] >= 0:
            mask = np.zeros(state.size, dtype=bool)
            mask[kept] = True
            mask[undecided[members]] = True
            found.mask, found.believed = mask, float(best[0])
            with self._lock:
                shared[0] = min(float(shared[0]), found.believed)
        return found

    def _split(self, state: Bytes, undecided: Integers, more: int) -> Found:
        floor = self.value_all + float(np.minimum(self.problem.prices, 0.0).sum())
        found = Found(bound=floor, nodes=1, margin=self.margin)
        for at in range(undecided.size - more + 1):
            child = state.copy()
            child[undecided[:at]] = REMOVED
            child[undecided[at]] = KEPT
            found.states.append(child)
            found.bounds.append(floor)
        return found

    def _load(self, kept: Integers, undecided: Integers, more: int) -> tuple[Floats, float]:
        """Arena with level 0 written, and the objective of the kept channels alone."""
        value = self.problem.energy / 2 + float(self.problem.prices[kept].sum())
        pieces: list[Floats] = []
        total = 0
        for gram, energy, size in zip(self.grams, self.energies, self.sizes.tolist(), strict=True):
            rows = (undecided[:, None] * size + np.arange(size)).ravel()
            own = (kept[:, None] * size + np.arange(size)).ravel()
            g_new, k_new = gram[np.ix_(rows, rows)], energy[np.ix_(rows, rows)]
            if own.size:
                corner, panel = energy[np.ix_(own, own)], gram[np.ix_(own, rows)]
                both = np.linalg.solve(gram[np.ix_(own, own)], np.hstack([panel, corner]))
                a, inner = both[:, : rows.size], both[:, rows.size :]
                value -= 0.5 * float(np.trace(inner))
                product = a.T @ (energy[np.ix_(own, rows)] - 0.5 * (corner @ a))
                g_new, k_new = g_new - panel.T @ a, k_new - product - product.T
            pieces += [g_new.ravel(), k_new.ravel(), np.zeros(rows.size * size)]
            total += 2 * rows.size**2 + rows.size * size
        arena = np.empty(total * (max(more - 2, 0) + 1) + 64)
        arena[:total] = np.concatenate(pieces)
        return arena, value
