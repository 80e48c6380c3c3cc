r"""Shallow nodes: the pair relaxation (Z, Psi, S) of each, warm-started from its parent.

A dual point of a node is one of its descendants too. Where channel i stays, its rows
leave; where it is removed, ``x_i = 1 = e'x / s`` with s the removals still to come, so

.. math:: x^\top \Psi x = x_U^\top (C^\top \Psi C) x_U, \quad C = [I;\ e^\top / s],

again psd. Z follows from the mean pairs X as ``(X o P)^-1 (x o B)``. Deep nodes, with few
removals left, go to the compiled search.
"""

import heapq
import itertools
import math
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mipprune.solvers.branch_and_bound._explorers import SLICE_BUDGET, CompiledExplorer
from mipprune.solvers.branch_and_bound._frontier import Found, Task
from mipprune.solvers.branch_and_bound._incumbent import swap
from mipprune.solvers.branch_and_bound._limits import least_removals
from mipprune.solvers.branch_and_bound._pair_forms import (
    conditioned,
    nearest_psd,
    pairwise_forms,
    turned,
)
from mipprune.solvers.branch_and_bound._root import Root
from mipprune.solvers.branch_and_bound._state import KEPT, MONOTONE, REMOVED, UNDECIDED
from mipprune.solvers.branch_and_bound._twins import NO_TWIN
from mipprune.solvers.branch_and_bound._volume import climb

__all__ = ["StrongExplorer", "strong_pays", "warm_up"]

Floats = NDArray[np.float64]
Halves = NDArray[np.float32]
Integers = NDArray[np.int64]
Bytes = NDArray[np.int8]

LEAST_REMOVALS = 8
"""Nodes with fewer removals left go to the compiled search."""
LEAST_KEPT = 3
FIRST_ROUNDS, ROUNDS, STEPS, FIRST_LENGTH = 8, 3, 15, 0.1
WEIGHT_OF_LOWER = 2.0
"""Of the child with the lower bound, beside the other one, in the choice of a branching."""
BATCH = 8  # nodes bounded in one call
EVERY = 64  # nodes between two roundings to a mask
TRIAL_BUDGET = 2e9
"""Work of the compiled search, some tenths of a second, before the root is opened again."""
MOST_ROWS = 1500
"""Rows of a term beyond which one factorisation outlasts the patience for a time limit."""
MEMORY_LIMIT = 1 << 28
"""Bytes of dual points kept; nodes beyond it start afresh."""
UNIT = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class _Point:
    """Dual point of a node: its undecided channels, Z, Psi, S, mean pairs, and step length."""

    undecided: Integers
    directions: tuple[Halves, ...]
    psd: Halves
    skew: Halves
    pairs: Halves
    length: float

    @property
    def size(self) -> int:
        """Bytes."""
        return 3 * self.psd.nbytes + sum(z.nbytes for z in self.directions)


@dataclass(frozen=True, eq=False)
class _Bounded:
    """Result at one node: bound, bounds with each channel removed and kept, shares x."""

    bound: float
    forced: Floats
    without: Floats
    shares: Floats
    point: _Point


def strong_pays(root: Root) -> bool:
    """Whether nodes may be bounded by the pair relaxation.

    It is for problems where removing more never helps.
    """
    rows = [len(matrix) for matrix in root.inverse]
    return bool(rows) and max(rows) <= MOST_ROWS and bool(root.program.flags[MONOTONE] == 1)


def warm_up() -> None:
    """Compile the ascent."""
    climb(
        2,
        np.ones(3),
        np.eye(3),
        np.zeros((3, 3)),
        np.zeros((3, 3)),
        np.full((3, 3), 0.5),
        10.0,
        10.0,
        2,
        np.ones(2),
        0.1,
        np.zeros(3),
        np.zeros(3),
    )


class StrongExplorer:
    """Bounds wide nodes by the pair relaxation, hands narrow ones to the compiled search.

    Parameters
    ----------
    root : Root
        Of a problem of :func:`strong_pays`.
    margin : float
        Error of the root's matrices, handed on with every result.
    """

    def __init__(self, root: Root, margin: float) -> None:
        self.root = root
        self.margin = margin
        self.inner = CompiledExplorer(root, margin)
        self._tried: bytes | None = None
        self._fixed = np.zeros(root.n_channels, dtype=np.bool_)
        self._count = 0
        self._points: dict[bytes, _Point] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def explore(self, task: Task) -> Found:
        """Search below a node; see :class:`Explorer`.

        The first two slices are the compiled search alone, the second with an incumbent.
        Where they do not finish, only incumbent and bound stand and the node is opened again.
        """
        state, bound = task.state, task.bound
        wide = self._is_wide(state)
        if task.first:
            self._fixed = state != UNDECIDED
        trial = task.first or self._tried == state.tobytes()
        if trial or not wide or not math.isfinite(task.cutoff):
            found = self.inner.explore(task, TRIAL_BUDGET if trial else SLICE_BUDGET)
            if trial and wide and found.states:
                reached = min([*found.bounds, found.pruned, found.believed])
                found.states, found.bounds = [state], [max(bound, reached)]
                found.pruned = math.inf
                self._tried = state.tobytes() if task.first else None
            return found
        found = Found(bound=bound, margin=self.margin)
        tickets = itertools.count()
        heap = [(bound, next(tickets), state)]
        while heap and found.nodes < min(BATCH, task.node_cap) and task.control[0] == 0:
            below, _, here = heapq.heappop(heap)
            if below >= task.cutoff:
                found.pruned = min(found.pruned, below)
            elif not self._is_wide(here):
                found.states.append(here)
                found.bounds.append(below)
            else:
                found.nodes += 1
                for child, its_bound in self._opened(here, below, task, found):
                    heapq.heappush(heap, (its_bound, next(tickets), child))
        found.states += [here for _, _, here in heap]
        found.bounds += [below for below, _, _ in heap]
        return found

    def _removals(self, state: Bytes) -> int:
        """Fewest removals among the undecided channels that meet every limit."""
        program = self.root.program
        undecided = np.flatnonzero(state == UNDECIDED)
        need = self.root.need - program.use[:, state == REMOVED].sum(1)
        return int(
            least_removals(
                undecided.size, undecided, program.use, need, program.slack, program.use.shape[0]
            )
        )

    def _is_wide(self, state: Bytes) -> bool:
        n = int((state == UNDECIDED).sum())
        return LEAST_REMOVALS <= self._removals(state) <= n - LEAST_KEPT

    def _opened(
        self, state: Bytes, bound: float, task: Task, found: Found
    ) -> list[tuple[Bytes, float]]:
        """Bound a node; its two children, or itself where fixing made it narrow."""
        undecided = np.flatnonzero(state == UNDECIDED)
        removals = self._removals(state)
        result = self._bounded(state, undecided, removals, task.cutoff, task.control)
        bound, limit = max(bound, result.bound), task.cutoff
        if bound >= limit:
            found.pruned = min(found.pruned, bound)
            return []
        stays, goes = result.forced >= limit, result.without >= limit
        for bounds in (result.forced[stays], result.without[goes]):
            found.pruned = min(found.pruned, float(bounds.min(initial=math.inf)))
        if np.any(stays & goes):
            return []
        state = state.copy()
        state[undecided[stays]], state[undecided[goes]] = KEPT, REMOVED
        if not self._is_wide(state):
            least = self._removals(state)
            possible = least <= int((state == UNDECIDED).sum())
            return [(state, bound)] if possible else []
        if self._count % EVERY == 0:
            # A complete mask: the frontier prices it when its turn comes.
            found.states.append(self._rounded(state, undecided, result.shares))
            found.bounds.append(bound)
        self._count += 1
        branch = _branch(result, stays | goes)
        children = []
        for value, below in ((REMOVED, result.forced), (KEPT, result.without)):
            child = state.copy()
            child[undecided[branch]] = value
            if value == KEPT and self.root.program.twins.size:
                labels = self.root.program.twins
                same = (labels == labels[undecided[branch]]) & (labels != NO_TWIN)
                child[same & (child == UNDECIDED)] = KEPT
            self._remember(child, result.point)
            children.append((child, max(bound, float(below[branch]))))
        return children

    def _rounded(self, state: Bytes, undecided: Integers, shares: Floats) -> Bytes:
        """The likeliest removals taken, the rest kept, and swaps among all that are free."""
        complete = np.where(state == UNDECIDED, KEPT, state).astype(np.int8)
        free = undecided[state[undecided] == UNDECIDED]
        order = np.argsort(-shares[state[undecided] == UNDECIDED], kind="stable")
        complete[free[order[: self._removals(state)]]] = REMOVED
        return swap(self.root, complete, self._fixed)

    def _bounded(
        self, state: Bytes, undecided: Integers, removals: int, limit: float, control: Integers
    ) -> _Bounded:
        """Ascend from the parent's dual point, Z turned towards the mean pairs.

        Stops at ``limit``, the finite bound that settles the node, or at ``control``.
        """
        value, parts = self._matrices(undecided, np.flatnonzero(state == REMOVED))
        value += float(self.root.program.prices[state != REMOVED].sum())
        prices = self.root.program.prices[undecided]
        point = self._recalled(state)
        warm = point is not None
        psd, skew, pairs, length = _started(point, state, undecided, removals)
        n = undecided.size
        forced, without = np.full(n, -math.inf), np.full(n, -math.inf)
        best = -math.inf
        directions = _restricted(point, undecided)
        kept = (directions, psd, skew)
        for turn in range(ROUNDS if warm else FIRST_ROUNDS):
            if turn or not warm:
                directions = turned(directions, parts, pairs)
            linear, quadratic = pairwise_forms(parts, directions, n)
            rows = max(len(inverse) for inverse, _ in parts)
            unit = 8 * UNIT * (rows + 2 * n)
            size = float(np.abs(linear).sum() + np.abs(quadratic).sum() + np.abs(prices).sum())
            age = turn * STEPS + np.arange(STEPS) + 1.0
            memory = np.maximum(0.03, 0.1 / np.sqrt(age) if warm else 1.0 / age)
            here, out = np.full(n, -math.inf), np.full(n, -math.inf)
            aim = limit - value + unit * (size + removals * float(np.trace(psd)))
            reached, length, trace = climb(
                removals, linear - prices, quadratic, psd, skew, pairs,
                aim, aim, STEPS, memory, length, here, out,
            )  # fmt: skip
            loss = unit * (size + removals * trace)
            if reached - loss > best:
                best, kept = reached - loss, (directions, psd.copy(), skew.copy())
            forced, without = np.maximum(forced, here - loss), np.maximum(without, out - loss)
            if value + best >= limit or control[0] != 0:
                break
        directions, psd, skew = kept
        new = _Point(
            undecided,
            tuple(z.astype(np.float32) for z in directions),
            psd.astype(np.float32),
            skew.astype(np.float32),
            pairs.astype(np.float32),
            length,
        )
        return _Bounded(
            value + best, value + forced, value + without, np.diagonal(pairs).copy(), new
        )

    def _matrices(
        self, undecided: Integers, removed: Integers
    ) -> tuple[float, list[tuple[Floats, Floats]]]:
        """Value with every undecided channel kept, and P and B of them per term."""
        value, parts = self.root.value_all, []
        for size, inverse, own in zip(
            self.root.program.sizes.tolist(), self.root.inverse, self.root.coefficients, strict=True
        ):
            rows = (undecided[:, None] * size + np.arange(size)).ravel()
            gone = (removed[:, None] * size + np.arange(size)).ravel()
            p_new, b_new = inverse[np.ix_(rows, rows)], own[rows]
            if gone.size:
                panel, corner = inverse[np.ix_(gone, rows)], own[gone]
                both = np.linalg.solve(inverse[np.ix_(gone, gone)], np.hstack([panel, corner]))
                value += 0.5 * float(np.vdot(corner, both[:, rows.size :]))
                change = panel.T @ both
                p_new, b_new = p_new - change[:, : rows.size], b_new - change[:, rows.size :]
            parts.append(((p_new + p_new.T) / 2, b_new))
        return value, parts

    def _remember(self, state: Bytes, point: _Point) -> None:
        with self._lock:
            if self._bytes < MEMORY_LIMIT:
                self._points[state.tobytes()] = point
                self._bytes += point.size // 2

    def _recalled(self, state: Bytes) -> _Point | None:
        with self._lock:
            point = self._points.pop(state.tobytes(), None)
            if point is not None:
                self._bytes -= point.size // 2
            return point


def _branch(result: _Bounded, settled: NDArray[np.bool_]) -> int:
    """Position of the channel whose two children are bounded best by the node's dual point."""
    lower, upper = np.sort([result.forced, result.without], axis=0)
    return int(np.argmax(np.where(settled, -np.inf, WEIGHT_OF_LOWER * lower + upper)))


def _started(
    point: _Point | None, state: Bytes, undecided: Integers, removals: int
) -> tuple[Floats, Floats, Floats, float]:
    """Psi, S, mean pairs and step length at a node, from an ancestor's where there is one."""
    n = undecided.size
    if point is None:
        share = removals / n
        pairs = np.full((n, n), share * (removals - 1) / max(n - 1, 1))
        np.fill_diagonal(pairs, share)
        return np.zeros((n, n)), np.zeros((n, n)), pairs, FIRST_LENGTH
    settled = state[point.undecided]
    here = settled == UNDECIDED
    change = np.zeros((here.size, n))
    change[here] = np.eye(n)
    change[settled == REMOVED] = 1.0 / removals
    # Single precision cost Psi its definiteness, which the bound rests on.
    psd = nearest_psd(change.T @ point.psd.astype(np.float64) @ change)
    skew = point.skew[np.ix_(here, here)].astype(np.float64)
    pairs = point.pairs.astype(np.float64)
    for i in np.flatnonzero(~here).tolist():
        pairs = conditioned(pairs, i, bool(settled[i] == REMOVED))
    pairs = pairs[np.ix_(here, here)]
    pairs *= removals / max(float(np.trace(pairs)), 1e-9)
    return psd, skew, np.minimum(pairs, 1.0), point.length


def _restricted(point: _Point | None, undecided: Integers) -> list[Floats]:
    """Z of the channels still undecided."""
    if point is None:
        return []
    here = np.isin(point.undecided, undecided)
    return [
        z.reshape(here.size, -1, z.shape[1])[here].reshape(-1, z.shape[1]).astype(np.float64)
        for z in point.directions
    ]
