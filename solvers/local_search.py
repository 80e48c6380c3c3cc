"""Good masks quickly: greedy passes, exact one-swaps and seeded kicks.

Every move is priced exactly by the sweep tableau of
:mod:`mipprune.solvers._engines`. A descent takes the best improving flip, then
the best improving swap, until none is left; kicks flip several channels at once
(removals only, additions only, or both), repair the limits and descend again.
Nothing is proven: the bound of the result is minus infinity.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipprune._support.checks import require_integer
from mipprune.problem import ChannelSelection, Solution, SolutionStatus, Termination
from mipprune.solvers._engines import engine_for
from mipprune.solvers._limits import Limits
from mipprune.solvers._monitor import (
    Callback,
    Monitor,
    SearchStopped,
    checked_request,
    library_version,
)

__all__ = ["search_locally"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]

MAX_SIDE = 64
"""Most channels on each side of the swaps priced in one step."""

IMPROVEMENT = 1e-11
"""Smallest gain, relative to the energy, that counts as one."""

BATCH_SHARE = 0.05
"""Share of the surplus removed or added in one pivot of a greedy pass over many channels."""

BOXED_TRIALS = 24
"""Moves whose value is computed exactly per step under a box."""

MEMORY = 1 << 16
"""Most masks whose value under a box is remembered."""


def search_locally(
    problem: ChannelSelection,
    *,
    time_limit: float | None = None,
    gap: float = 1e-6,
    start: ArrayLike | None = None,
    seed: int = 0,
    callback: Callback | None = None,
    log: bool = False,
    rounds: int | None = None,
) -> Solution:
    """Look for a good mask; deterministic for a seed unless stopped by the clock.

    Parameters
    ----------
    problem : ChannelSelection
        Any variant and any limits.
    time_limit, gap, start, seed, callback, log
        As in :func:`mipprune.solvers.solve`; ``gap`` changes nothing.
    rounds : int, optional
        Number of kicks after the first descents, by default enough for the
        optimum on nearly all instances of up to 64 channels.

    Returns
    -------
    Solution
        ``bound`` is -inf: a heuristic proves nothing, except that no mask
        meets the limits where an integer program over them says so.
    """
    checked_request(problem, time_limit, gap, seed, callback, log)
    if rounds is not None:
        rounds = require_integer("rounds", rounds, at_least=0, alternative="or None")
    monitor = Monitor("local-search", time_limit, callback, log)
    search = _Search(problem, monitor, np.random.default_rng(seed))
    termination = Termination.HEURISTIC
    try:
        search.run(None if start is None else problem.checked_mask(start), rounds)
    except SearchStopped as stopped:
        termination = stopped.termination
    except KeyboardInterrupt:
        termination = Termination.INTERRUPTED
    return search.solution(termination)


class _Search:
    """Current mask (in the engine), best mask, and the moves between them."""

    def __init__(
        self, problem: ChannelSelection, monitor: Monitor, generator: np.random.Generator
    ) -> None:
        self.problem = problem
        self.monitor = monitor
        self.generator = generator
        self.limits = Limits(problem)
        self.engine = engine_for(problem)
        self.boxed = problem.has_box and problem.variant != "mask"
        self.step = IMPROVEMENT * max(problem.energy, 1e-300)
        self.best: Bools | None = None
        self.value = math.inf
        self.steps = 0
        self.infeasible = False
        self.seen: set[bytes] = set()
        self.known: dict[bytes, float] = {}

    def run(self, start: Bools | None, rounds: int | None) -> None:
        """First descents, then kicks."""
        if start is not None:
            self.try_mask(start)
        self.try_mask(self.eliminated())
        if self.infeasible:
            return
        self.try_mask(self.added())
        free = np.flatnonzero(self.limits.free)
        if not free.size:
            return
        for index in range(_rounds(free.size) if rounds is None else rounds):
            self.check()
            if self.best is None:
                return
            kicked = self.random(free) if index % 6 == 5 else self.kicked(free)
            self.try_mask(kicked)

    def try_mask(self, mask: Bools) -> None:
        """Repair the limits, descend, and keep the result where it is the best."""
        self.move(mask)
        if not self.repair():
            return
        if self.engine.mask.tobytes() in self.seen:
            return
        self.keep()
        self.descend()
        self.seen.add(self.engine.mask.tobytes())
        self.keep()

    def move(self, mask: Bools) -> None:
        """Take the engine to ``mask``."""
        changed = np.flatnonzero(mask ^ self.engine.mask)
        if changed.size > max(2, mask.size // 4):
            self.engine.reset(mask)
        elif changed.size:
            self.engine.flip(changed)

    def keep(self) -> None:
        """Recompute the value of the current mask and compare it with the best."""
        value = self.value_of(self.engine.mask)
        if value < self.value:
            self.best, self.value = self.engine.mask.copy(), value
        self.check()

    def value_of(self, mask: Bools) -> float:
        """Value from the data; under a box, a quadratic program each, once per mask."""
        if not self.boxed:
            return self.problem.value(mask)
        value = self.known.get(mask.tobytes())
        if value is None:
            value = self.problem.value(mask)
            if len(self.known) < MEMORY:
                self.known[mask.tobytes()] = value
        return value

    def check(self) -> None:
        """Clock and callback; counts a step."""
        self.steps += 1
        self.monitor.check(self.steps, self.value, -math.inf)

    def eliminated(self) -> Bools:
        """Greedy elimination from all allowed channels."""
        self.engine.reset(~self.limits.forced_out)
        self.reduce()
        return self.engine.mask.copy()

    def added(self) -> Bools:
        """Greedy addition to the forced channels; the descent goes on from there."""
        self.engine.reset(self.limits.forced_in)
        while True:
            mask = self.engine.mask
            allowed = self.limits.flips(mask) & ~mask
            costs = np.where(allowed, self.engine.flip_costs(), np.inf)
            best = self.batch(costs / self.use(), int(allowed.sum()), costs < -self.step)
            if not best.size:
                return mask.copy()
            while best.size > 1 and not self.limits.admits(_flipped(mask, best)):
                best = best[: best.size // 2]
            self.engine.flip(best)
            self.check()

    def reduce(self) -> None:
        """Remove channels, cheapest per unit of violation first, until no limit is exceeded."""
        while True:
            mask = self.engine.mask
            used = self.limits.rows @ mask
            over = np.maximum(used - self.limits.upper, 0.0)
            if not np.any(over > 0):
                return
            relief = np.where(self.limits.rows > 0, self.limits.rows, 0.0)
            ratio = (np.minimum(relief, over[:, None]) / np.maximum(over, 1e-300)[:, None]).sum(0)
            useful = mask & self.limits.free & (ratio > 0)
            if not useful.any():
                return
            costs, ratio = self.engine.flip_costs(), np.maximum(ratio, 1e-300)
            weighted = np.where(costs > 0, costs / ratio, costs * ratio)
            surplus = int(min(1.0 / ratio[useful].mean(), useful.sum()))
            self.engine.flip(self.batch(weighted, surplus, useful))
            self.check()

    def batch(self, score: Floats, surplus: int, useful: Bools) -> Indices:
        """Channels of lowest score: one, or a share of the surplus where there are many."""
        count = min(max(1, int(BATCH_SHARE * (surplus - 32))), int(useful.sum()))
        order = np.argsort(np.where(useful, score, np.inf), kind="stable")
        return order[:count]

    def use(self) -> Floats:
        """Share of the limits that one channel uses, float64 (p,), positive."""
        finite = np.isfinite(self.limits.upper) & (self.limits.upper > 0)
        rows = np.maximum(self.limits.rows[finite], 0.0)
        share = (rows / self.limits.upper[finite][:, None]).sum(0)
        floor = 1e-3 * max(float(share.max(initial=0.0)), 1e-9)
        result: Floats = np.maximum(share, floor)
        return result

    def repair(self) -> bool:
        """Bring the current mask within all limits; False where that failed."""
        if self.limits.admits(self.engine.mask):
            return True
        if not self.limits.coupled:
            self.reduce()
        else:
            self.move(self.limits.approach(self.engine.mask, self.generator))
        if self.limits.admits(self.engine.mask):
            return True
        weight = 1.0 + 0.5 * self.generator.random(self.engine.mask.size)
        mask = self.limits.nearest(self.engine.mask, weight, self.monitor.remaining)
        if mask is None:
            self.infeasible = self.infeasible or self.limits.proven_empty
            return False
        self.move(mask)
        return True

    def kicked(self, free: Indices) -> Bools:
        """The best mask with several channels flipped."""
        mask = (self.engine.mask if self.best is None else self.best).copy()
        kind = self.generator.integers(3)
        pool = free if kind == 0 else free[mask[free] == (kind == 1)]
        if pool.size < 2:
            pool = free
        most = max(2, min(pool.size, 2 + free.size // 5))
        size = min(int(self.generator.integers(2, most + 1)), pool.size)
        mask[self.generator.choice(pool, size=size, replace=False)] ^= True
        return mask

    def random(self, free: Indices) -> Bools:
        """A random mask; the repair makes it fit."""
        mask = self.limits.forced_in.copy()
        mask[free] = self.generator.random(free.size) < self.generator.random()
        return mask

    def descend(self) -> None:
        """Best improving flip, else best improving pair, until there is none."""
        while self.improve():
            self.check()

    def improve(self) -> bool:
        """Make one improving move."""
        mask = self.engine.mask
        costs = np.where(self.limits.flips(mask), self.engine.flip_costs(), np.inf)
        if not self.boxed and costs.min() < -self.step:
            score = np.where(costs < -self.step, costs / self.use(), np.inf)
            self.engine.flip(np.array([int(np.argmin(score))]))
            return True
        moves = [(costs[:, None], np.arange(mask.size)[:, None])]
        moves += [self.pairs(first, second) for first, second in self.sides()]
        if self.boxed:
            return self.improve_boxed(moves)
        best = min(moves, key=lambda move: float(move[0].min(initial=np.inf)))
        if best[0].min(initial=np.inf) < -self.step:
            self.engine.flip(best[1][int(np.argmin(best[0]))])
            return True
        return self.improve_program()

    def sides(self) -> list[tuple[Indices, Indices]]:
        """Pairs worth pricing: swaps, and double flips where limits are not a plain count."""
        mask, free = self.engine.mask, self.limits.free
        costs = self.engine.flip_costs()
        kept = np.flatnonzero(mask & free)
        out = np.flatnonzero(~mask & free)
        kept = kept[np.argsort(costs[kept], kind="stable")][:MAX_SIDE]
        out = out[np.argsort(costs[out], kind="stable")][:MAX_SIDE]
        plain = len(self.limits.rows) <= 1 and bool(np.all(self.limits.rows == 1.0))
        if plain and self.problem.variant != "mask" and not self.problem.prices.any():
            return [(kept, out)]
        return [(kept, out), (kept, kept), (out, out)]

    def pairs(self, first: Indices, second: Indices) -> tuple[Floats, NDArray[np.intp]]:
        """Costs (n, 1) and channels (n, 2) of the feasible pairs."""
        allowed = self.limits.pairs(self.engine.mask, first, second)
        if not allowed.any():
            return np.zeros((0, 1)), np.zeros((0, 2), dtype=np.intp)
        costs = self.engine.pair_costs(first, second)
        a, b = np.nonzero(allowed)
        return costs[a, b][:, None], np.stack([first[a], second[b]], axis=1)

    def improve_boxed(self, moves: list[tuple[Floats, NDArray[np.intp]]]) -> bool:
        """Under a box the costs only rank: try the most promising exactly."""
        ranked = [
            (float(cost), channels)
            for costs, targets in moves
            for cost, channels in zip(costs[:, 0], targets, strict=True)
            if math.isfinite(cost)
        ]
        ranked.sort(key=lambda move: move[0])
        current = self.value_of(self.engine.mask)
        for _, channels in ranked[:BOXED_TRIALS]:
            if self.value_of(_flipped(self.engine.mask, channels)) < current - self.step:
                self.engine.flip(channels)
                return True
            self.check()
        return False

    def improve_program(self) -> bool:
        """Equal counts: flips of several channels at once, chosen by their linear costs."""
        counts = [np.unique(part[part >= 0]).size for part in self.problem.parts]
        labels = max(counts, default=0)
        if len(counts) <= 1 and labels <= 2:
            return False  # pairs reach everything
        mask = self.engine.mask.copy()
        single = self.engine.flip_costs()
        current = self.problem.value(mask)
        for distance in ((1, labels), (labels + 1, 2 * labels)):
            linear = np.where(mask, -single, single)
            found = self.limits.cheapest(linear, mask, distance, self.monitor.remaining)
            if found is not None and self.problem.value(found) < current - self.step:
                self.move(found)
                return True
        return False

    def solution(self, termination: Termination) -> Solution:
        """Result; a heuristic has no bound."""
        status = SolutionStatus.NONE if self.best is None else SolutionStatus.FEASIBLE
        if self.best is None and self.infeasible:
            status = SolutionStatus.INFEASIBLE
        return Solution.of_mask(
            self.problem,
            self.best,
            status=status,
            termination=termination,
            solver="local-search",
            version=library_version(),
            nodes=self.steps,
            seconds=self.monitor.seconds,
            log=tuple(self.monitor.points),
        )


def _rounds(n_free: int) -> int:
    """Kicks by default: about half a minute at most on large layers."""
    return 24 + 3 * n_free if n_free <= 64 else max(8, 12_000 // n_free)


def _flipped(mask: Bools, channels: Indices) -> Bools:
    changed = mask.copy()
    changed[channels] ^= True
    return changed
