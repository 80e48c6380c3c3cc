r"""The block-diagonal split with the highest perspective relaxation.

.. math:: \max_{D_j \succeq 0,\ \operatorname{blkdiag}(D) \preceq G + \rho} \; \min_y F(y; D)

is concave in D: for fixed weights and gates the objective is linear in D with slope
:math:`\tfrac12 (1/y_j - 1) W_j W_j^\top`. The two semidefinite limits are kept by
:math:`\tau (\log\det(H - D) + \log\det D)` with tau falling, and D is moved by L-BFGS in
coordinates where each Schur block is the identity.
"""

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mipprune.problem import ChannelSelection
from mipprune.relaxation._blocks import Blocks, as_tensor
from mipprune.relaxation._descent import descend
from mipprune.relaxation._limits import Limits
from mipprune.relaxation._perspective import WhitenedTerm, minimise_perspective
from mipprune.relaxation.splits import shrunk_to_psd

__all__ = ["optimal_splits"]

Floats = NDArray[np.float64]

WEIGHTS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
INNER_TOLERANCE = 1e-7
STEPS = 60
STABLE_GATE = 1e-9


def optimal_splits(
    problem: ChannelSelection,
    limits: Limits,
    splits: Sequence[Blocks],
    start: Floats,
    *,
    tolerance: float,
    deadline: float,
    device: torch.device,
) -> tuple[list[Blocks], Floats]:
    """Climb from ``splits`` (Schur blocks); the best found by ``deadline``, verified psd.

    A term whose split is zero (singular G + ridge) keeps it. Also returns the gates there.
    """
    climber = _Climber(problem, limits, splits, start, deadline, device)
    point = climber.start()
    if not point.size:
        return list(splits), start
    best = climber.value_at(splits)
    best_splits, best_gates = list(splits), climber.gates
    scale = max(abs(best), 1e-12 * problem.energy)
    for weight in WEIGHTS:
        if time.monotonic() > deadline:
            break
        point = climber.climb(point, weight * scale / max(climber.rows, 1))
        found = climber.blocks(point, verified=True)
        value = climber.value_at(found)
        gain, best = value - best, max(value, best)
        if gain > 0:
            best_splits, best_gates = found, climber.gates
        if weight < 1e-3 and gain < tolerance * abs(best):
            break
    return best_splits, best_gates


class _Climber:
    """Coordinates of D relative to the blocks it starts from, and the climb."""

    def __init__(
        self,
        problem: ChannelSelection,
        limits: Limits,
        splits: Sequence[Blocks],
        gates: Floats,
        deadline: float,
        device: torch.device,
    ) -> None:
        self.problem, self.limits, self.splits = problem, limits, splits
        self.gates, self.deadline, self.device = gates, deadline, device
        self.matrices = [as_tensor(t.damped_gram, device) for t in problem.terms]
        self.roots = [s.mapped(_root) if s.smallest_eigenvalue() > 0 else None for s in splits]
        self.rows = sum(t.n_rows for t in problem.terms)

    def start(self) -> Floats:
        """Coordinates of 0.9 times the starting split."""
        parts = [
            0.9 * np.broadcast_to(np.eye(b.shape[1]), tuple(b.shape)).reshape(-1)
            for root in self.roots
            if root is not None
            for _, b in root.stacks
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def blocks(self, point: Floats, verified: bool) -> list[Blocks]:
        """Splits at coordinates ``point``."""
        result, used = [], 0
        for split, root, matrix in zip(self.splits, self.roots, self.matrices, strict=True):
            if root is None:
                result.append(split)
                continue
            stacks = []
            for rows, base in root.stacks:
                size = base.numel()
                raw = torch.tensor(point[used : used + size], device=self.device)
                inner = raw.reshape(base.shape)
                block = base @ ((inner + inner.mT) / 2) @ base
                stacks.append((rows, (block + block.mT) / 2))
                used += size
            made = Blocks(split.sizes, tuple(stacks))
            result.append(shrunk_to_psd(matrix, made) if verified else made)
        return result

    def value_at(self, splits: Sequence[Blocks]) -> float:
        """Dual bound of given splits."""
        return self._solve(splits)[0]

    def _solve(self, splits: Sequence[Blocks]) -> tuple[float, Floats, list[Floats]]:
        white = [
            WhitenedTerm(term, split, self.device)
            for term, split in zip(self.problem.terms, splits, strict=True)
        ]
        result = minimise_perspective(
            self.problem,
            self.limits,
            white,
            self.gates,
            tolerance=INNER_TOLERANCE,
            deadline=self.deadline,
            device=self.device,
        )
        self.gates = result.gates
        y = torch.tensor(result.gates, device=self.device)
        return result.bound, result.gates, [term.dual(y) for term in white]

    def climb(self, point: Floats, weight: float) -> Floats:
        """L-BFGS on the relaxation with log barriers."""

        result, _ = descend(
            lambda inner: self._negative(inner, weight),
            point,
            max_iterations=STEPS,
            deadline=self.deadline,
        )
        return result

    def _negative(self, point: Floats, weight: float) -> tuple[float, Floats]:
        splits = self.blocks(point, verified=False)
        logs = 0.0
        slopes: list[list[torch.Tensor] | None] = []
        for split, root, matrix in zip(splits, self.roots, self.matrices, strict=True):
            if root is None:
                slopes.append(None)
                continue
            logs_here, slope = _barrier(matrix, split)
            if slope is None:
                return np.inf, np.zeros_like(point)
            logs += logs_here
            slopes.append(slope)
        value, gates, duals = self._solve(splits)
        share = torch.tensor(0.5 * (1 / np.maximum(gates, STABLE_GATE) - 1), device=self.device)
        gradient = []
        for term, root, slope, dual in zip(
            self.problem.terms, self.roots, slopes, duals, strict=True
        ):
            if root is None or slope is None:
                continue
            weights = as_tensor(dual, self.device)
            channel = as_tensor(term.channel_of_row, self.device)
            for (rows, base), barrier in zip(root.stacks, slope, strict=True):
                own = weights[rows]
                linear = share[channel[rows[:, 0]]][:, None, None] * (own @ own.mT)
                inner = base @ (linear + weight * barrier) @ base
                gradient.append(inner.cpu().numpy().ravel())
        return -(value + weight * logs), -np.concatenate(gradient)


def _barrier(matrix: torch.Tensor, split: Blocks) -> tuple[float, list[torch.Tensor] | None]:
    """``logdet(H - D) + logdet D`` and its slope per stack; None outside."""
    factor, info = torch.linalg.cholesky_ex(split.added_to(matrix, -1.0))
    if int(info):
        return 0.0, None
    value = 2 * float(torch.log(factor.diagonal()).sum())
    outer = Blocks.diagonal_of(torch.cholesky_inverse(factor), split.sizes)
    slope = []
    for (_, own), (_, rest) in zip(split.stacks, outer.stacks, strict=True):
        inner, bad = torch.linalg.cholesky_ex(own)
        if bool(bad.any()):
            return 0.0, None
        value += 2 * float(torch.log(torch.diagonal(inner, dim1=1, dim2=2)).sum())
        slope.append(torch.cholesky_inverse(inner) - rest)
    return value, slope


def _root(blocks: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(blocks)
    root: torch.Tensor = (vectors * values.clamp_min(0).sqrt()[:, None, :]) @ vectors.mT
    return root
