"""The limits of a problem as linear rows, and the best kept set for given scores."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from mipprune.errors import NoSolutionError, SolverError
from mipprune.problem import ChannelSelection
from mipprune.relaxation._quadratic import minimise_quadratic

__all__ = ["Limits"]

Floats = NDArray[np.float64]

RELATIVE_SLACK = 1e-9
"""Rounding that ``Resource.admits`` accepts; every bound must grant it too."""

LARGE = 1e250


@dataclass(frozen=True, eq=False)
class Limits:
    """Relaxed feasible set ``{y : rows @ y <= limits, least <= y <= most}``.

    Contains every feasible mask: limits are widened by the rounding that
    ``ChannelSelection.is_feasible`` grants (integer rows by none), and equal
    parts are left out.

    Attributes
    ----------
    rows : float64 (r, p)
    limits : float64 (r,)
    least, most : float64 (p,)
        1 where a channel is forced in, 0 where it is forced out.
    """

    rows: Floats
    limits: Floats
    least: Floats
    most: Floats

    @classmethod
    def of(cls, problem: ChannelSelection) -> "Limits":
        """Limits of a problem."""
        rows, limits = problem.upper_constraints
        slack = RELATIVE_SLACK * np.abs(rows).sum(1)
        integral = np.all(rows == np.round(rows), axis=1)
        limits = np.where(integral, np.floor(limits + slack), limits + slack)
        most = 1.0 - problem.forced_out.astype(np.float64)
        return cls(rows, limits, problem.forced_in.astype(np.float64), most)

    @property
    def is_count(self) -> bool:
        """One upper limit on the number of kept channels and nothing else."""
        return len(self.rows) == 1 and bool(np.all(self.rows == 1.0))

    def value(self, scores: Floats, multipliers: Floats) -> float:
        r"""Upper bound on ``max scores'y``, valid for every ``multipliers >= 0``.

        .. math:: \lambda^\top b + \sum_j \max_{l_j \le y_j \le u_j} (s_j - \lambda^\top a_j) y_j
        """
        reduced = scores - multipliers @ self.rows
        best = np.where(reduced > 0, self.most, self.least)
        return float(multipliers @ self.limits + reduced @ best)

    def best(self, scores: Floats) -> tuple[Floats, Floats]:
        """Maximise ``scores'y`` over the set: gates (p,) and multipliers (r,) >= 0.

        Raises
        ------
        NoSolutionError
            The limits contradict each other.
        """
        # Scores that overflowed belong to a bound of minus infinity; any multipliers do.
        scores = np.nan_to_num(scores, nan=0.0, posinf=LARGE, neginf=-LARGE)
        if not len(self.rows):
            return np.where(scores > 0, self.most, self.least), np.zeros(0)
        if self.is_count:
            return self._best_count(scores)
        return self._best_linear_program(scores)

    def _best_count(self, scores: Floats) -> tuple[Floats, Floats]:
        free = np.flatnonzero(self.most > self.least)
        room = int(self.limits[0]) - int(self.least.sum())
        gates = self.least.copy()
        order = free[np.argsort(-scores[free], kind="stable")]
        chosen = order[:room]
        gates[chosen[scores[chosen] > 0]] = 1.0
        price = max(0.0, float(scores[order[room]])) if room < order.size else 0.0
        return gates, np.array([price])

    def _best_linear_program(self, scores: Floats) -> tuple[Floats, Floats]:
        scale = float(np.abs(scores).max(initial=0.0)) or 1.0
        result = linprog(
            -scores / scale,
            A_ub=self.rows,
            b_ub=self.limits,
            bounds=list(zip(self.least.tolist(), self.most.tolist(), strict=True)),
            method="highs",
        )
        if result.status == 2:
            raise NoSolutionError("no mask meets all limits together; loosen a budget")
        if result.x is None:
            raise SolverError(f"the knapsack over channels failed: {result.message}")
        return np.clip(result.x, self.least, self.most), np.maximum(
            0.0, -np.asarray(result.ineqlin.marginals) * scale
        )

    def nearest(self, gates: Floats) -> Floats:
        """Point of the set that is (nearly) closest to ``gates``."""
        inside = np.clip(gates, self.least, self.most)
        if not len(self.rows) or np.all(self.rows @ inside <= self.limits):
            return inside
        if self.is_count:
            return self._nearest_count(gates)
        corner, _ = self.best(np.zeros(gates.size))
        step = minimise_quadratic(
            np.ones(gates.size),
            -(inside - corner),
            self.rows,
            self.limits - self.rows @ corner,
            self.least - corner,
            self.most - corner,
        )
        return self.pulled(corner, corner + step)

    def _nearest_count(self, gates: Floats) -> Floats:
        low, high = 0.0, float(gates.max(initial=0.0)) + 1.0
        for _ in range(100):
            middle = (low + high) / 2
            total = np.clip(gates - middle, self.least, self.most).sum()
            low, high = (middle, high) if total > self.limits[0] else (low, middle)
        return np.clip(gates - high, self.least, self.most)

    def pulled(self, inside: Floats, target: Floats) -> Floats:
        """``target`` moved towards the feasible point ``inside`` until it is feasible."""
        point = np.clip(target, self.least, self.most)
        if not len(self.rows):
            return point
        used, room = self.rows @ inside, self.limits
        growth = self.rows @ (point - inside)
        over = growth > np.maximum(room - used, 0.0)
        if not np.any(over):
            return point
        share = float((np.maximum(room - used, 0.0)[over] / growth[over]).min())
        return inside + share * (point - inside)
