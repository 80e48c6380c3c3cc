r"""Every feasible mask, by recursive Schur complements.

Channels are decided one after the other. Keeping channel j eliminates its rows
from the damped Gram matrix of the channels still to come,

.. math:: G \leftarrow G - G_{\cdot j} G_{jj}^{-1} G_{j \cdot}, \qquad
          C \leftarrow C - G_{\cdot j} G_{jj}^{-1} C_j, \qquad
          \text{gain} = \tfrac12 \operatorname{tr}(C_j^\top G_{jj}^{-1} C_j),

removing it only drops them. Prefixes are handled in batches, so the work of the
many deep nodes, whose matrices are tiny, is a few large array operations.

That loses ``eps`` times the condition number. Masks within that of the best are computed
again from the data (:mod:`mipprune.solvers._losses`), and where the condition is above
:data:`WORST`, singular matrices included, all masks are: slower, but every loss
comes with its own error.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipprune.errors import SolverError
from mipprune.problem import ChannelSelection, Solution, SolutionStatus, Termination
from mipprune.solvers._elimination import Eliminated, Stack, keep_first
from mipprune.solvers._limits import Limits
from mipprune.solvers._losses import ACCURATE, MaskLosses
from mipprune.solvers._monitor import (
    Callback,
    Monitor,
    SearchStopped,
    checked_request,
    library_version,
)

__all__ = ["MAX_UNDECIDED", "enumerate_masks"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MAX_UNDECIDED = 24
"""Most channels that are not decided beforehand: 2^24 masks take minutes."""

BATCH_BYTES = 32_000_000
WORST = 1e6
"""Largest condition number, rows scaled to a unit diagonal, left to Schur complements."""

CHUNK = 4096
"""Masks handed over at a time where all are computed from the data."""

RECHECKED = 256
"""Near-ties computed again at a time, and most masks whose weights are solved for at the end."""

MOST_RECHECKED = 8192
"""Most near-ties computed again after Schur complements; the others keep their error."""

CLOSED = 1.5e-8
"""Gap, relative to the energy, below which a result counts as optimal whatever was asked for."""

BOX_TOLERANCE = 1e-11
"""What boxed weights may miss of their optimum, relative to the energy."""


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
        As in :func:`mipprune.solvers.solve`; ``seed`` changes nothing.

    Returns
    -------
    Solution
        Optimal, or infeasible, unless it was stopped; a stopped run proves nothing.
        On data that are singular up to rounding, where the bound then misses the value by
        more than the gap, feasible.

    Raises
    ------
    SolverError
        More undecided channels than ``MAX_UNDECIDED``.
    """
    checked_request(problem, time_limit, gap, seed, callback, log)
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
    return table.solution(termination, gap)


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
        self.feasible = self._feasible(limits)
        self.alive = [self.feasible]
        for _ in range(self.q):
            pairs = self.alive[0].reshape(-1, 2)
            self.alive.insert(0, pairs[:, 0] | pairs[:, 1])
        self.values = np.full(2**self.q, np.inf)
        self.low = self.values

    def _feasible(self, limits: Limits) -> Bools:
        allowed = np.ones(2**self.q, dtype=bool)
        for row, low, high in zip(limits.rows, limits.lower, limits.upper, strict=True):
            used = _subset_sums(row[self.channels], float(row[self.base].sum()))
            allowed &= (used >= low) & (used <= high)
        return allowed

    def masks(self, indices: NDArray[np.intp]) -> Bools:
        """Masks with the given positions in the table, bool (n, p)."""
        masks = np.repeat(self.base[None], len(indices), axis=0)
        bits = (indices[:, None] >> np.arange(self.q - 1, -1, -1)) & 1
        masks[:, self.channels] = bits.astype(bool)
        return masks

    def fill(self) -> None:
        """Compute the value of every feasible mask."""
        if not self.feasible.any():
            return
        if self.problem.variant == "mask":
            self._fill_quadratic()
        else:
            self._fill_losses()
        self.values[~self.feasible] = np.inf
        self.low[~self.feasible] = np.inf

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
        self.low = values - 1e-14 * (abs(constant) + np.abs(vector).sum() + np.abs(matrix).sum())

    def _fill_losses(self) -> None:
        canonical = self.problem.canonical()
        self.losses = [MaskLosses(term) for term in canonical.terms]
        self.kept_prices = canonical.prices
        self.rounding = 1e-15 * float(np.abs(canonical.prices).sum() + canonical.energy)
        spectra = [losses.spectrum for losses in self.losses]
        if any(least * WORST <= largest for least, largest in spectra):
            self._fill_from_data()
            return
        conditions = [largest / least for least, largest in spectra]
        terms = [
            Eliminated(term, self.base, self.channels, condition)
            for term, condition in zip(canonical.terms, conditions, strict=True)
        ]
        prices = canonical.prices
        constant = self.problem.energy / 2 + float(prices[self.base].sum())
        constant -= sum(term.gain for term in terms)
        self.sizes = [term.sizes for term in terms]
        self.prices = prices[self.channels]
        stacks = [term.stack for term in terms]
        self._descend(0, np.zeros(1, dtype=np.int64), stacks, np.array([constant]))
        self.low = self.values - self.rounding - sum(term.error for term in terms)

    def _fill_from_data(self) -> None:
        """All feasible masks one by one, each with its own error."""
        indices = np.flatnonzero(self.feasible)
        self.low = np.full(2**self.q, np.inf)
        for part in np.array_split(indices, max(1, -(-indices.size // CHUNK))):
            self.values[part], errors = self._from_data(part, refine=False)
            self.low[part] = self.values[part] - errors
            self.nodes += part.size

    def _from_data(self, indices: NDArray[np.intp], *, refine: bool) -> tuple[Floats, Floats]:
        """Values of some masks without a box, and bounds on their errors."""
        masks = self.masks(indices)
        values = np.where(masks, self.kept_prices, 0.0).sum(1)
        errors = np.full(len(masks), self.rounding)
        for term, losses in zip(self.problem.canonical().terms, self.losses, strict=True):
            rows = masks[:, term.channel_of_row]
            value, error = losses.plain(rows, self._tick)
            poor = np.flatnonzero(error > ACCURATE * self.problem.energy)
            if refine and poor.size:
                value[poor], error[poor] = losses.refined(rows[poor], self._tick)
            values, errors = values + value, errors + error
        return values, errors

    def _tick(self) -> None:
        self.monitor.check(self.nodes, self.value, -math.inf)

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
        self._tick()
        alive = self.alive[level + 1]
        out, kept = alive[2 * prefixes], alive[2 * prefixes + 1]
        value = partial[kept] + self.prices[level]
        children: list[Stack] = []
        for (gram, cross), sizes in zip(stacks, self.sizes, strict=True):
            g = int(sizes[level])
            gram_in, cross_in, gain = keep_first(gram[kept], cross[kept], g)
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
        boxed = self.problem.has_box and self.problem.variant != "mask"
        if not boxed and self.problem.variant != "mask":
            self._recheck()
        order = np.argsort(self.low if boxed else self.values, kind="stable")
        order = order[np.isfinite(self.values[order])]
        self.tried = np.zeros(self.values.size, dtype=bool)
        for index in order if boxed else order[:RECHECKED]:
            if self.low[index] >= self.value:
                if boxed:
                    break
                continue
            mask = self.masks(np.array([index]))[0]
            value = self.problem.value(mask)
            self.tried[index] = boxed
            if value < self.value:
                self.incumbent, self.value = mask, value
            self._tick()

    def _recheck(self) -> None:
        """Compute the masks that may be best again, until the lowest bound meets a value."""
        enough = 4 * ACCURATE * self.problem.energy
        done = np.zeros(self.values.size, dtype=bool)
        best = math.inf
        for _ in range(MOST_RECHECKED // RECHECKED):
            part = np.argpartition(self.low, min(RECHECKED, self.low.size) - 1)[:RECHECKED]
            lowest = float(self.low[part].min(initial=np.inf))
            part = part[~done[part] & np.isfinite(self.low[part])]
            if not part.size or best - lowest <= enough:
                return
            self.values[part], errors = self._from_data(part, refine=True)
            self.low[part] = self.values[part] - errors
            best = min(best, float((self.values[part] + errors).min()))
            done[part] = True

    def solution(self, termination: Termination, gap: float) -> Solution:
        """Result with a proven bound where the table was completed."""
        bound, status = -math.inf, SolutionStatus.NONE
        if self.incumbent is not None:
            status = SolutionStatus.FEASIBLE
        if termination is Termination.COMPLETE:
            least = float(self.low.min(initial=np.inf, where=~self.tried))
            solved = self.value - BOX_TOLERANCE * self.problem.energy * bool(self.tried.any())
            bound = min(solved, least)
            slack = max(gap * abs(self.value), CLOSED * self.problem.energy)
            closed = self.value - bound <= slack
            if self.incumbent is None:
                status = SolutionStatus.INFEASIBLE
            elif closed:
                status = SolutionStatus.OPTIMAL
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


def _subset_sums(values: Floats, start: float) -> Floats:
    """Sums over all subsets, in the order of the table."""
    sums = np.array([start])
    for value in values:
        sums = np.stack([sums, sums + value], axis=1).ravel()
    return sums
