r"""Every feasible mask, by recursive Schur complements.

Channels are decided one after the other. Keeping channel j eliminates its rows
from the damped Gram matrix of the channels still to come,

.. math:: G \leftarrow G - G_{\cdot j} G_{jj}^{+} G_{j \cdot}, \qquad
          C \leftarrow C - G_{\cdot j} G_{jj}^{+} C_j, \qquad
          \text{gain} = \tfrac12 \operatorname{tr}(C_j^\top G_{jj}^{+} C_j),

removing it only drops them. Prefixes are handled in batches, so the work of the
many deep nodes, whose matrices are tiny, is a few large array operations.
Pseudo-inverses of the pivots are exact for positive semidefinite matrices, so
ridge 0 with a singular Gram matrix needs no special case.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipprune.errors import SolverError
from mipprune.problem import ChannelSelection, Solution, SolutionStatus, Term, Termination
from mipprune.solvers._limits import Limits
from mipprune.solvers._monitor import (
    Callback,
    Monitor,
    SearchStopped,
    checked_limits,
    library_version,
)

__all__ = ["MAX_UNDECIDED", "enumerate_masks"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Stack = tuple[Floats, Floats]

MAX_UNDECIDED = 24
"""Most channels that are not decided beforehand: 2^24 masks take minutes."""

BATCH_BYTES = 32_000_000
REGULAR = 1e-9
"""Smallest eigenvalue, relative, above which pivots are inverted directly."""

RANK_FLOOR = 1e-11
"""Pivots of a singular matrix below this, relative to its largest entry, are rounding."""

RECHECKED = 256
"""Most near-ties whose value is recomputed from the data."""


def enumerate_masks(
    problem: ChannelSelection,
    *,
    time_limit: float | None = None,
    gap: float = 1e-6,
    start: ArrayLike | None = None,
    seed: int = 0,
    callback: Callback | None = None,
    log: bool = False,
) -> Solution:
    """Compare all feasible masks.

    Parameters
    ----------
    problem : ChannelSelection
        Any variant and any limits, at most ``MAX_UNDECIDED`` undecided channels.
    time_limit, gap, start, seed, callback, log
        As in :func:`mipprune.solvers.solve`; ``gap`` and ``seed`` change nothing.

    Returns
    -------
    Solution
        Optimal, or infeasible, unless it was stopped; a stopped run proves nothing.

    Raises
    ------
    SolverError
        More undecided channels than ``MAX_UNDECIDED``.
    """
    checked_limits(time_limit, gap)
    monitor = Monitor("enumerate", time_limit, callback, log)
    limits = Limits(problem)
    undecided = int(limits.free.sum())
    if undecided > MAX_UNDECIDED:
        raise SolverError(
            f"enumerate takes at most {MAX_UNDECIDED} undecided channels, this problem has "
            f"{undecided}; use method='branch-and-bound'"
        )
    table = _Table(problem, limits, monitor)
    if start is not None and limits.admits(problem.checked_mask(start)):
        table.incumbent = problem.checked_mask(start)
        table.value = problem.value(table.incumbent)
    termination = Termination.COMPLETE
    try:
        table.fill()
        table.pick()
    except SearchStopped as stopped:
        termination = stopped.termination
    except KeyboardInterrupt:
        termination = Termination.INTERRUPTED
    return table.solution(termination)


class _Table:
    """Values of all masks of the undecided channels; bit q-1-k of the index is channel k."""

    def __init__(self, problem: ChannelSelection, limits: Limits, monitor: Monitor) -> None:
        self.problem = problem
        self.monitor = monitor
        self.channels = np.flatnonzero(limits.free)
        self.base = limits.forced_in.copy()
        self.q = self.channels.size
        self.nodes = 0
        self.incumbent: Bools | None = None
        self.value = math.inf
        self.error = 0.0
        self.feasible = self._feasible(limits)
        self.alive = [self.feasible]
        for _ in range(self.q):
            pairs = self.alive[0].reshape(-1, 2)
            self.alive.insert(0, pairs[:, 0] | pairs[:, 1])
        self.values = np.full(2**self.q, np.inf)

    def _feasible(self, limits: Limits) -> Bools:
        allowed = np.ones(2**self.q, dtype=bool)
        for row, low, high in zip(limits.rows, limits.lower, limits.upper, strict=True):
            used = _subset_sums(row[self.channels], float(row[self.base].sum()))
            allowed &= (used >= low) & (used <= high)
        return allowed

    def mask(self, index: int) -> Bools:
        """Mask with the given position in the table."""
        mask = self.base.copy()
        bits = (index >> np.arange(self.q - 1, -1, -1)) & 1
        mask[self.channels] = bits.astype(bool)
        return mask

    def fill(self) -> None:
        """Compute the value of every feasible mask."""
        if not self.feasible.any():
            return
        if self.problem.variant == "mask":
            self._fill_quadratic()
        else:
            self._fill_losses()
        self.values[~self.feasible] = np.inf

    def _fill_quadratic(self) -> None:
        matrix, vector, constant = self.problem.binary_quadratic()
        base = self.base
        start = constant + vector[base].sum() + 0.5 * matrix[np.ix_(base, base)].sum()
        free = self.channels
        slopes = vector[free] + matrix[np.ix_(free, base)].sum(1)
        values = np.array([start])
        for k in range(self.q):
            links = matrix[free[k], free[:k]]
            gain = slopes[k] + _subset_sums(links, 0.0)
            values = np.stack([values, values + gain], axis=1).ravel()
            self.monitor.check(self.nodes, math.inf, -math.inf)
        self.values = values
        self.nodes = values.size
        self.error = 1e-14 * (abs(constant) + np.abs(vector).sum() + np.abs(matrix).sum())

    def _fill_losses(self) -> None:
        canonical = self.problem.canonical()
        terms = [_Eliminated(term, self.base, self.channels) for term in canonical.terms]
        prices = canonical.prices
        constant = self.problem.energy / 2 + float(prices[self.base].sum())
        constant -= sum(term.gain for term in terms)
        stacks = [term.stack for term in terms]
        self.floors = [term.floor for term in terms]
        self.sizes = [term.sizes for term in terms]
        self.prices = prices[self.channels]
        self.error = sum(term.error for term in terms) + 1e-15 * np.abs(prices).sum()
        self._descend(0, np.zeros(1, dtype=np.int64), stacks, np.array([constant]))

    def _descend(
        self, level: int, prefixes: NDArray[np.int64], stacks: list[Stack], partial: Floats
    ) -> None:
        """Decide channel ``level`` for a batch of prefixes, and all later ones."""
        if level == self.q:
            self.values[prefixes] = partial
            return
        size = sum(gram.nbytes + cross.nbytes for gram, cross in stacks)
        if 2 * size > BATCH_BYTES and prefixes.size > 1:
            half = prefixes.size // 2
            for part in (slice(None, half), slice(half, None)):
                pieces = [(gram[part], cross[part]) for gram, cross in stacks]
                self._descend(level, prefixes[part], pieces, partial[part])
            return
        self.monitor.check(self.nodes, self.value, -math.inf)
        alive = self.alive[level + 1]
        out, kept = alive[2 * prefixes], alive[2 * prefixes + 1]
        value = partial[kept] + self.prices[level]
        children: list[Stack] = []
        for (gram, cross), sizes, floor in zip(stacks, self.sizes, self.floors, strict=True):
            g = int(sizes[level])
            gram_in, cross_in, gain = _keep_first(gram[kept], cross[kept], g, floor)
            value = value - gain
            children.append(
                (
                    np.concatenate([gram[out][:, g:, g:], gram_in]),
                    np.concatenate([cross[out][:, g:], cross_in]),
                )
            )
        self.nodes += int(out.sum()) + int(kept.sum())
        following = np.concatenate([2 * prefixes[out], 2 * prefixes[kept] + 1])
        self._descend(level + 1, following, children, np.concatenate([partial[out], value]))

    def pick(self) -> None:
        """Find the best mask with values recomputed from the data.

        Under a box the table holds the values without it, lower bounds, and
        masks are tried in their order until the bound reaches the incumbent.
        """
        order: NDArray[np.intp]
        if self.problem.has_box and self.problem.variant != "mask":
            order = np.argsort(self.values, kind="stable")
            order = order[np.isfinite(self.values[order])]
        else:
            ceiling = float(self.values.min(initial=np.inf)) + 2 * self.error
            order = np.flatnonzero((self.values <= ceiling) & self.feasible)
            order = order[np.argsort(self.values[order], kind="stable")][:RECHECKED]
        for index in order:
            if self.values[index] - self.error >= self.value:
                break
            mask = self.mask(int(index))
            value = self.problem.value(mask)
            if value < self.value:
                self.incumbent, self.value = mask, value
            self.monitor.check(self.nodes, self.value, -math.inf)

    def solution(self, termination: Termination) -> Solution:
        """Result with a proven bound where the table was completed."""
        complete = termination is Termination.COMPLETE
        bound, status = -math.inf, SolutionStatus.NONE
        if complete:
            box = self.problem.has_box and self.problem.variant != "mask"
            table = self.value if box else float(self.values.min(initial=np.inf))
            bound = min(self.value, table) - self.error
            status = (
                SolutionStatus.OPTIMAL
                if self.incumbent is not None
                else (SolutionStatus.INFEASIBLE)
            )
        elif self.incumbent is not None:
            status = SolutionStatus.FEASIBLE
        return Solution.of_mask(
            self.problem,
            self.incumbent,
            bound=bound,
            status=status,
            termination=termination,
            solver="enumerate",
            version=library_version(),
            nodes=self.nodes,
            seconds=self.monitor.seconds,
            certified_bound=-math.inf,
            log=tuple(self.monitor.points),
        )


class _Eliminated:
    """One term with forced channels applied and rows in the order of the search."""

    def __init__(self, term: Term, base: Bools, channels: NDArray[np.intp]) -> None:
        first = np.flatnonzero(base)
        order = np.concatenate([first, channels])
        rows = np.concatenate(
            [np.arange(term.offsets[j], term.offsets[j + 1]) for j in order]
            or [np.zeros(0, dtype=np.int64)]
        ).astype(np.intp)
        gram = term.damped_gram[np.ix_(rows, rows)]
        cross = term.compressed_cross[rows]
        self.sizes = term.group_sizes[channels]
        spectrum = np.linalg.eigvalsh(gram) if rows.size else np.ones(1)
        regular = bool(spectrum[0] > REGULAR * spectrum[-1])
        self.floor = 0.0 if regular else RANK_FLOOR * float(np.abs(gram).max(initial=1e-300))
        condition = min(float(spectrum[-1] / max(spectrum[0], 1e-300)), 1e4)
        self.error = 16 * np.finfo(np.float64).eps * max(rows.size, 1) * condition * term.energy
        n = int(term.group_sizes[first].sum())
        left, right, gain = _keep_first(gram[None], cross[None], n, self.floor)
        self.gain = float(gain[0])
        self.stack = (left, right)


def _keep_first(gram: Floats, cross: Floats, g: int, floor: float) -> tuple[Floats, Floats, Floats]:
    """Eliminate the first ``g`` rows of stacks (n, d, d) and (n, d, m); also the gains (n,).

    Pivots of at most ``floor`` are rounding and skipped; 0 where all are regular.
    """
    if g == 0 or not len(gram):
        return gram[:, g:, g:], cross[:, g:], np.zeros(len(gram))
    pivot, own = gram[:, :g, :g], cross[:, :g]
    right = np.concatenate([gram[:, :g, g:], own], axis=2)
    if g == 1:
        solved = right / np.where(pivot > floor, pivot, np.inf)
    elif floor == 0.0:
        solved = np.linalg.solve(pivot, right)
    else:
        solved = _pseudo_inverse(pivot, floor) @ right
    rest = gram.shape[1] - g
    gain = 0.5 * (own * solved[:, :, rest:]).sum((1, 2))
    update = np.swapaxes(gram[:, :g, g:], 1, 2) @ solved
    return gram[:, g:, g:] - update[:, :, :rest], cross[:, g:] - update[:, :, rest:], gain


def _pseudo_inverse(pivot: Floats, floor: float) -> Floats:
    eigenvalues, vectors = np.linalg.eigh(pivot)
    safe = eigenvalues > floor
    inverse = np.where(safe, 1.0 / np.where(safe, eigenvalues, 1.0), 0.0)
    product: Floats = (vectors * inverse[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    return product


def _subset_sums(values: Floats, start: float) -> Floats:
    """Sums over all subsets, in the order of the table."""
    sums = np.array([start])
    for value in values:
        sums = np.stack([sums, sums + value], axis=1).ravel()
    return sums
