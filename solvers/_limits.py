"""All limits of a mask as linear rows, and masks that meet them."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from mipprune.problem import ChannelSelection

__all__ = ["Limits"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SLACK = 1e-9
"""Rounding allowed per row, relative to the sum of its absolute coefficients.

The same as in :class:`mipprune.problem.Resource`, so that a mask accepted here
is accepted there.
"""


LONGEST = 60.0
"""Seconds that one integer program over the limits may take at most."""

TIGHTENING = 2e-6
"""Twice the feasibility tolerance of HiGHS, relative to a row's largest entry."""


class Limits:
    """``lower <= A y <= upper`` for binary y, with some channels decided.

    Resources give one row each; a part with labels l_0, l_1, ... gives the
    rows ``count(l_k) - count(l_0) = 0``.

    Attributes
    ----------
    rows : float64 (r, p)
    lower, upper : float64 (r,), widened by the rounding slack
    free : bool (p,)
        Channels that are not decided beforehand.
    proven_empty : bool
        The last integer program proved that no mask meets its rows.
    """

    def __init__(self, problem: ChannelSelection) -> None:
        p = problem.n_channels
        rows = [resource.costs for resource in problem.resources]
        lower = [resource.lower for resource in problem.resources]
        upper = [resource.upper for resource in problem.resources]
        for part in problem.parts:
            labels = np.unique(part[part >= 0])
            for label in labels[1:]:
                rows.append((part == label) * 1.0 - (part == labels[0]) * 1.0)
                lower.append(0.0)
                upper.append(0.0)
        self.rows = np.array(rows, dtype=np.float64).reshape(len(rows), p)
        slack = SLACK * np.abs(self.rows).sum(1)
        self.lower = np.array(lower, dtype=np.float64) - slack
        self.upper = np.array(upper, dtype=np.float64) + slack
        self.forced_in = problem.forced_in
        self.forced_out = problem.forced_out
        self.proven_empty = False
        self.free = ~(problem.forced_in | problem.forced_out)

    @property
    def coupled(self) -> bool:
        """True where a lower limit or an equal count exists: greedy repair may fail."""
        return bool(np.any(self.lower > 0) or np.any(self.rows < 0))

    def admits(self, mask: Bools) -> bool:
        """Whether a mask meets every row and decided channel."""
        if np.any(self.forced_in & ~mask) or np.any(self.forced_out & mask):
            return False
        return self.rows_hold(self.rows @ mask)

    def rows_hold(self, used: Floats) -> bool:
        """Whether the row activities ``used`` (r,) meet the limits."""
        return bool(np.all(used >= self.lower) and np.all(used <= self.upper))

    def flips(self, mask: Bools) -> Bools:
        """Channels whose flip alone leaves a feasible mask feasible, bool (p,)."""
        step = np.where(mask, -1.0, 1.0)
        used = (self.rows @ mask)[:, None] + self.rows * step
        return self.free & self._hold(used)

    def pairs(self, mask: Bools, first: NDArray[np.intp], second: NDArray[np.intp]) -> Bools:
        """The same for flipping two channels, bool (len(first), len(second))."""
        step = np.where(mask, -1.0, 1.0)
        change = self.rows * step
        used = (
            (self.rows @ mask)[:, None, None]
            + change[:, first][:, :, None]
            + change[:, second][:, None, :]
        )
        allowed = self._hold(used)
        allowed &= self.free[first][:, None] & self.free[second][None, :]
        allowed &= first[:, None] != second[None, :]
        return allowed

    def _hold(self, used: Floats) -> Bools:
        shape = (-1,) + (1,) * (used.ndim - 1)
        above = (used >= self.lower.reshape(shape)).all(0)
        below = (used <= self.upper.reshape(shape)).all(0)
        result: Bools = above & below
        return result

    def approach(self, mask: Bools, generator: np.random.Generator) -> Bools:
        """Flip channels one by one while that lowers the violation; may stop short."""
        mask = (mask | self.forced_in) & ~self.forced_out
        scale = 1.0 / np.maximum(np.abs(self.rows).max(1, initial=0.0), 1e-300)
        for _ in range(mask.size):
            change = self.rows * np.where(mask, -1.0, 1.0)
            used = (self.rows @ mask)[:, None] + change
            over = np.maximum(used - self.upper[:, None], 0.0)
            under = np.maximum(self.lower[:, None] - used, 0.0)
            after = scale @ (over + under)
            now = used[:, 0] - change[:, 0]
            before = scale @ (np.maximum(now - self.upper, 0) + np.maximum(self.lower - now, 0))
            after = np.where(self.free, after * (1.0 + 0.1 * generator.random(mask.size)), np.inf)
            best = int(np.argmin(after))
            if before <= 0 or after[best] >= before:
                break
            mask[best] ^= True
        return mask

    def cheapest(
        self,
        cost: Floats,
        around: Bools | None = None,
        distance: tuple[int, int] | None = None,
        time_limit: float = math.inf,
    ) -> Bools | None:
        """Mask of least linear ``cost @ y``; None where none was found.

        Parameters
        ----------
        cost : float64 (p,)
        around, distance
            Restrict to masks whose Hamming distance from ``around`` lies in
            ``distance`` (both ends included).
        time_limit : float
            Seconds.
        """
        rows, lower, upper = self.rows, self.lower, self.upper
        if around is not None and distance is not None:
            rows = np.vstack([rows, np.where(around, -1.0, 1.0)])
            start = float(around.sum())
            lower = np.append(lower, distance[0] - start)
            upper = np.append(upper, distance[1] - start)
        scale = float(np.abs(cost).max(initial=0.0))
        objective = cost / scale if scale > 0 else cost
        for margin in (0.0, TIGHTENING):
            # The solver accepts rows violated by its own tolerance; a mask that
            # leans on that is not one of ours, so ask again with tighter rows.
            inset = margin * np.abs(rows).max(1, initial=0.0)
            mask = self._program(objective, rows, lower + inset, upper - inset, time_limit)
            if mask is None or self.admits(mask):
                return mask
        return None

    def _program(
        self, cost: Floats, rows: Floats, lower: Floats, upper: Floats, time_limit: float
    ) -> Bools | None:
        result = milp(
            cost,
            integrality=np.ones(cost.size, dtype=np.int64),
            bounds=Bounds(self.forced_in * 1.0, 1.0 - self.forced_out),
            constraints=LinearConstraint(rows, lower, upper) if len(rows) else None,
            options={"time_limit": min(max(time_limit, 0.01), LONGEST)},
        )
        self.proven_empty = result.status == 2
        if result.x is None:
            return None
        mask: Bools = result.x > 0.5
        return mask

    def nearest(self, mask: Bools, weight: Floats, time_limit: float) -> Bools | None:
        """Feasible mask of least weighted Hamming distance, None where none was found."""
        return self.cheapest(np.where(mask, -weight, weight), time_limit=time_limit)
