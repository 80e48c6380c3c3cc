r"""Multipliers that turn a task's loss or limits into linear bounds on its outputs.

For the deviation and :math:`|g_{ic}| \le 1`,
:math:`\sum_{ic} |f_{ic} - D_{ic}| \ge \sum_{ic} g_{ic} (f_{ic} - D_{ic})`; for the hinge
:math:`\max_c (1 + f_c - f_t)_+ \ge \sum_c \lambda_c (1 + f_c - f_t)` with
:math:`\lambda \ge 0, \sum_c \lambda_c \le 1`; a limit on the outputs is a set of rows
:math:`\ell(f) \le 0`, of which every convex combination holds. All are valid
whatever the multipliers; here they are trained, by Polyak steps or
multiplicative weights, to make the bound large where it has to be.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mipprune.formulation.relu_network import NetworkPruning, ReLUNetwork

__all__ = ["Context", "Multipliers", "Trainer"]

Floats = NDArray[np.float64]

STEPS = 100


@dataclass(frozen=True, eq=False)
class Context:
    """A node to train at: range of the last hidden outputs, and neurons kept before.

    ``low`` and ``high`` are float64 (N, n_L); equal where all earlier layers are decided.
    """

    low: Floats
    high: Floats
    kept: int


@dataclass(frozen=True, eq=False)
class Multipliers:
    """Linear bounds ``const + sum_ic G_ic f_ic``, folded onto the last hidden layer.

    Attributes
    ----------
    gains : float64 (M, N, n_L)
    constants : float64 (M,)
    is_limit : bool (M,)
    """

    gains: Floats
    constants: Floats
    is_limit: NDArray[np.bool_]


class Trainer:
    """Trains multipliers of one task; ``slopes`` below are G, float64 (N, C)."""

    def __init__(self, task: NetworkPruning, network: ReLUNetwork, limit: int) -> None:
        self.task, self.limit = task, limit
        self.weights, self.bias = network.weights[-1], network.biases[-1]
        self.n, self.classes = task.dense.shape
        self.rows = np.arange(self.n)
        self.rival = np.ones((self.n, self.classes), dtype=bool)
        self.rival[self.rows, task.classes] = False
        self.kinds: list[str] = []
        if task.objective in ("deviation", "hinge"):
            self.kinds.append(task.objective)
        if task.keep_predictions:
            self.kinds.append("predictions")
        if task.max_deviation is not None:
            self.kinds.append("bounded")

    def train(self, contexts: Sequence[Context], value: float, most: int) -> Multipliers:
        """At most ``most`` multipliers, each trained where those so far are weakest."""
        found: list[tuple[Floats, float, bool]] = []
        for kind in self.kinds:
            is_limit = kind in ("predictions", "bounded")
            own: list[tuple[Floats, float]] = []
            reached = np.zeros(len(contexts))
            for _ in range(max(most // len(self.kinds), 1)):
                weakest = int(np.argmin(reached))
                if reached[weakest] >= 1.0:
                    break
                own.append(self._trained(kind, contexts[weakest], value))
                new = [self._closed(own[-1], c, value, is_limit) for c in contexts]
                reached = np.maximum(reached, new)
            found += [(slopes, const, is_limit) for slopes, const in own]
        gains = [slopes @ self.weights for slopes, _, _ in found]
        constants = [const + float((slopes @ self.bias).sum()) for slopes, const, _ in found]
        shape = (len(found), self.n, self.weights.shape[1])
        return Multipliers(
            np.array(gains, dtype=np.float64).reshape(shape),
            np.array(constants, dtype=np.float64),
            np.array([is_limit for _, _, is_limit in found], dtype=bool),
        )

    def _room(self, context: Context, value: float) -> int:
        """Neurons the last hidden layer may still keep in anything that improves."""
        limit = self.limit
        if self.task.objective == "neurons" and np.isfinite(value):
            limit = min(limit, int(value) - 1)
        return limit - context.kept

    def _closed(
        self, linear: tuple[Floats, float], context: Context, value: float, is_limit: bool
    ) -> float:
        """How close a bound comes to closing a context; 1 closes it."""
        bound, _ = self._evaluate(*linear, context, value)
        if is_limit:
            return 1.0 if bound > 0 else 0.0
        return bound / value if np.isfinite(value) and value > 0 else 0.0

    def _evaluate(
        self, slopes: Floats, const: float, context: Context, value: float
    ) -> tuple[float, Floats]:
        """Bound at a context, and outputs (N, C) at which it is reached."""
        room = self._room(context, value)
        if room < 0:
            return np.inf, np.zeros((self.n, self.classes))
        gains = slopes @ self.weights
        hidden = np.where(gains > 0, context.low, context.high)
        scores = (gains * hidden).sum(axis=0)
        order = np.argsort(scores)[:room]
        chosen = order[scores[order] < 0]
        outputs: Floats = hidden[:, chosen] @ self.weights[:, chosen].T + self.bias
        return const + float((slopes * outputs).sum()), outputs

    def _trained(self, kind: str, context: Context, value: float) -> tuple[Floats, float]:
        if kind in ("predictions", "bounded"):
            return self._weighted(kind, context, value)
        return self._stepped(kind, context, value)

    def _stepped(self, kind: str, context: Context, value: float) -> tuple[Floats, float]:
        """Projected Polyak steps for a loss."""
        free = np.zeros((self.n, self.classes))
        best = self._linear(kind, free)
        top, goal = -np.inf, value if np.isfinite(value) else 1.0
        scale = 1.0
        for step in range(STEPS):
            slopes, const = self._linear(kind, free)
            bound, outputs = self._evaluate(slopes, const, context, value)
            if bound > top:
                top, best = bound, (slopes, const)
            if bound >= goal:
                break
            ascent = self._terms(kind, outputs) / self.n
            if step % 30 == 29:
                scale *= 0.6
            square = float((ascent**2).sum())
            if square == 0.0:
                break
            free = self._projected(kind, free + scale * (goal - bound) / square * ascent)
        return best

    def _weighted(self, kind: str, context: Context, value: float) -> tuple[Floats, float]:
        """Multiplicative weights over the rows of a limit."""
        sides = 1 if kind == "predictions" else 2
        weights = np.ones((sides, self.n, self.classes))
        if kind == "predictions":
            weights *= self.rival
        weights /= weights.sum()
        best, top = self._combined(kind, weights), -np.inf
        mean = np.zeros_like(weights)
        rate = 4.0
        for _ in range(STEPS):
            bound, outputs = self._evaluate(*self._combined(kind, weights), context, value)
            mean += weights
            average = self._combined(kind, mean / mean.sum())
            for candidate, reached in (
                (self._combined(kind, weights), bound),
                (average, self._evaluate(*average, context, value)[0]),
            ):
                if reached > top:
                    top, best = reached, candidate
            if top > 0:
                break
            rows = self._limit_rows(kind, outputs)
            size = max(float(np.abs(rows).max()), 1e-300)
            weights = weights * np.exp(rate / size * (rows - rows.max()))
            weights /= weights.sum()
            rate *= 0.99
        return best

    def _terms(self, kind: str, outputs: Floats) -> Floats:
        """What each multiplier of a loss weighs, float64 (N, C)."""
        if kind == "deviation":
            return outputs - self.task.dense
        own = outputs[self.rows, self.task.classes][:, None]
        return np.where(self.rival, 1.0 + outputs - own, 0.0)

    def _projected(self, kind: str, free: Floats) -> Floats:
        if kind == "deviation":
            return np.clip(free, -1.0, 1.0)
        positive = np.maximum(free, 0.0)
        shrunk: Floats = positive / np.maximum(positive.sum(axis=1, keepdims=True), 1.0)
        return shrunk

    def _linear(self, kind: str, free: Floats) -> tuple[Floats, float]:
        """G and const of the mean loss."""
        if kind == "deviation":
            return free / self.n, -float((free * self.task.dense).sum()) / self.n
        return self._against_target(free / self.n), float(free.sum()) / self.n

    def _against_target(self, rivals: Floats) -> Floats:
        slopes = rivals.copy()
        slopes[self.rows, self.task.classes] -= rivals.sum(axis=1)
        return slopes

    def _limit_rows(self, kind: str, outputs: Floats) -> Floats:
        """Rows that a limit wants at most zero."""
        if kind == "predictions":
            own = outputs[self.rows, self.task.classes][:, None]
            rows = np.where(self.rival, self.task.least_lead + outputs - own, 0.0)
            return np.asarray(rows[None])
        change = outputs - self.task.dense
        both: Floats = np.stack([change, -change]) - self._most
        return both

    def _combined(self, kind: str, weights: Floats) -> tuple[Floats, float]:
        """G and const of a convex combination of the rows of a limit."""
        if kind == "predictions":
            return self._against_target(weights[0]), self.task.least_lead * float(weights.sum())
        slopes = weights[0] - weights[1]
        const = -float((slopes * self.task.dense).sum()) - self._most * float(weights.sum())
        return slopes, const

    @property
    def _most(self) -> float:
        return float(self.task.max_deviation or 0.0) + self.task.tolerance
