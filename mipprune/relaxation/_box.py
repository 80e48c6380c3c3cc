r"""The perspective relaxation with bounded weights, by a primal barrier method.

.. math:: \min_{W, y} \tfrac12 \operatorname{tr}(W^\top R W) - \operatorname{tr}(C^\top W)
    + \tfrac12 \sum_i \frac{D_i \|W_i\|^2}{y_{j(i)}} + \mu^\top y, \qquad
    |W_i| \le M_{j(i)} y_{j(i)}

for a diagonal split G + rho = R + diag(D). D = 0 is the big-M relaxation. Any V is a
dual point: with U = C - R V channel j contributes at most y_j times the conjugate

.. math:: h_j(U_j) = \sum_{i, c} \max_{|w| \le M_j} U_{ic} w - \tfrac12 D_i w^2

so that a Newton method stopped anywhere still certifies. Each step eliminates the
weights response by response (m factorisations of size d) and solves for p gates.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog

from mipprune.errors import NoSolutionError
from mipprune.problem import ChannelSelection, Term, solve_psd
from mipprune.relaxation._blocks import as_tensor
from mipprune.relaxation._limits import Limits

__all__ = ["BoxResult", "box_dual_value", "evaluate_box_dual", "minimise_box"]

Floats = NDArray[np.float64]

UNIT = float(np.finfo(np.float64).eps)
SHRINK = 0.2
INSIDE = 0.95
ABSENT = 0.9e-12
"""Residual, relative to the cross moments, that the checker takes for none, less a little."""
SHIFTS = (0.0, 1e-14, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4)
"""Tried on the diagonal of a matrix without a Cholesky factor; it directs a step only."""
CHUNK_BYTES = 2**28


@dataclass(frozen=True, eq=False)
class BoxResult:
    """Gates and weights reached; the weights are the dual points."""

    gates: Floats
    weights: tuple[Floats, ...]
    value: float
    bound: float
    multipliers: Floats
    iterations: int
    finished: bool


def box_dual_value(term: Term, diagonal: Floats, dual: Floats) -> tuple[float, Floats, float]:
    """Constant, scores (p,) and rounding margin of one term at a dual point."""
    rest = term.damped_gram - np.diag(diagonal)
    image = rest @ dual
    size = np.abs(rest) @ np.abs(dual)
    residual = np.abs(term.cross - image)
    # The conjugate grows with |u|: evaluated at |u| + its rounding it is an upper bound.
    point = residual + UNIT * (term.n_rows + 4) * (np.abs(term.cross) + size)
    bound = term.big_m[term.channel_of_row][:, None]
    split = np.broadcast_to(diagonal[:, None], point.shape)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        inside = (split > 0) & (point <= split * bound)
        square = point**2 / (2 * split)
        linear = bound * point - np.where(split > 0, split * bound**2 / 2, 0.0)
    conjugate = np.where(point == 0, 0.0, np.where(inside, square, linear)).sum(1)
    free = _settled(term, diagonal, residual)
    conjugate[free] = 0.0
    scores = np.bincount(term.channel_of_row, conjugate, term.n_channels).astype(np.float64)
    constant = term.energy / 2 - 0.5 * float(np.vdot(dual, image))
    constant -= float(np.vdot(np.abs(dual[free]), residual[free]))
    steps = term.n_rows + term.n_responses + term.n_channels + 8
    margin = UNIT * steps * (term.energy + float(np.vdot(np.abs(dual), size)))
    return constant, scores, margin + UNIT * steps * float(scores[np.isfinite(scores)].sum())


def _settled(term: Term, diagonal: Floats, residual: Floats) -> NDArray[np.bool_]:
    """Rows with neither box nor split whose residual is none, bool (d,), channel by channel."""
    rows = np.zeros(term.n_rows, dtype=bool)
    most = ABSENT * float(np.linalg.norm(term.cross))
    for j in np.flatnonzero(np.isinf(term.big_m)):
        own = slice(int(term.offsets[j]), int(term.offsets[j + 1]))
        if not np.any(diagonal[own]):
            rows[own] = np.linalg.norm(residual[own]) <= most
    return rows


def evaluate_box_dual(
    problem: ChannelSelection,
    limits: Limits,
    diagonals: Sequence[Floats],
    duals: Sequence[Floats],
) -> tuple[float, Floats]:
    """Valid bound and knapsack multipliers at any dual points, margins subtracted."""
    constant, margin = 0.0, 0.0
    scores = -problem.prices.copy()
    for term, diagonal, dual in zip(problem.terms, diagonals, duals, strict=True):
        value, own, error = box_dual_value(term, diagonal, dual)
        constant, scores, margin = constant + value, scores + own, margin + error
    if not np.all(np.isfinite(scores)):
        return -np.inf, np.zeros(len(limits.limits))
    _, multipliers = limits.best(scores)
    best = limits.value(scores, multipliers)
    size = np.abs(scores).sum() + np.abs(multipliers * limits.limits).sum()
    size += (multipliers @ np.abs(limits.rows)).sum()
    margin += UNIT * (problem.n_channels + 8) * float(size)
    return constant - best - 2 * margin, multipliers


def minimise_box(
    problem: ChannelSelection,
    limits: Limits,
    diagonals: Sequence[Floats],
    *,
    tolerance: float,
    deadline: float,
    device: torch.device,
    max_iterations: int = 120,
) -> BoxResult:
    """Follow the barrier's path until primal and dual values meet within ``tolerance``."""
    free = limits.most > limits.least
    path = _Barrier(problem, limits, diagonals, free, device)
    scale = max(problem.energy / 2, 1e-300)
    best = (-np.inf, np.zeros(len(limits.limits)), path.full_gates(), path.full_weights())
    iterations, finished, stuck = 0, False, False
    barrier = 1e-2 * scale / max(path.n_constraints, 1)
    while iterations < max_iterations and not finished and not stuck:
        for _ in range(12):
            iterations += 1
            try:
                decrement = path.step(barrier)
            except ArithmeticError:
                stuck = True
                break
            if decrement < 0.1 * barrier or time.monotonic() > deadline:
                break
        weights = path.full_weights()
        bound, multipliers = evaluate_box_dual(problem, limits, diagonals, weights)
        if bound > best[0]:
            best = (bound, multipliers, path.full_gates(), weights)
        value = path.objective()
        finished = value - best[0] <= tolerance * max(abs(value), 1e-12 * scale)
        barrier *= SHRINK
        if time.monotonic() > deadline or barrier < 1e-15 * scale:
            break
    if not np.isfinite(best[0]):
        # Channels without box and split need a residual of zero: the best weights without
        # the box have it, and prove the loss with everything kept.
        free_weights = tuple(_unboxed(term) for term in problem.terms)
        bound, multipliers = evaluate_box_dual(problem, limits, diagonals, free_weights)
        if bound > best[0]:
            best = (bound, multipliers, best[2], free_weights)
    return BoxResult(best[2], best[3], path.objective(), best[0], best[1], iterations, finished)


def _unboxed(term: Term) -> Floats:
    """Best weights of all channels without the box, refined once, float64 (d, m)."""
    weights = solve_psd(term.damped_gram, term.cross)
    return weights + solve_psd(term.damped_gram, term.cross - term.damped_gram @ weights)


class _Barrier:
    """Weights and gates strictly inside their limits, and Newton steps on the barrier."""

    def __init__(
        self,
        problem: ChannelSelection,
        limits: Limits,
        diagonals: Sequence[Floats],
        free: NDArray[np.bool_],
        device: torch.device,
    ) -> None:
        self.limits, self.device = limits, device
        self.free = torch.tensor(free, device=device)
        self.prices = as_tensor(problem.prices, device)
        self.rows = as_tensor(limits.rows, device)
        self.upper = as_tensor(limits.limits, device)
        inside = _strictly_inside(limits, free)
        self.gates = as_tensor(inside, device)
        self.terms = [
            _BoxTerm(term, diagonal, limits.most > 0, device)
            for term, diagonal in zip(problem.terms, diagonals, strict=True)
        ]
        self.n_constraints = sum(2 * t.weights.numel() for t in self.terms) + 2 * int(free.sum())
        self.n_constraints += len(limits.limits)
        # Rows that hold with equality everywhere (equal parts) are relaxed by a hair.
        slack = self.upper - self.rows @ self.gates
        self.upper = self.upper + (1e-6 - slack).clamp_min(0.0)

    def full_gates(self) -> Floats:
        return np.asarray(self.gates.cpu().numpy().copy())

    def full_weights(self) -> tuple[Floats, ...]:
        return tuple(np.asarray(t.full().cpu().numpy()) for t in self.terms)

    def objective(self) -> float:
        total = float(self.prices @ self.gates)
        return total + sum(t.loss(t.weights, self.gates) for t in self.terms)

    def step(self, barrier: float) -> float:
        """One damped Newton step; returns the Newton decrement (squared, halved).

        ArithmeticError where no step can be computed.
        """
        y, free = self.gates, self.free
        low, high = y[free], 1.0 - y[free]
        slack = self.upper - self.rows @ y
        gradient = self.prices + barrier * (self.rows.mT @ (1 / slack))
        hessian = barrier * (self.rows.mT * (1 / slack**2)) @ self.rows
        gradient[free] += barrier * (1 / high - 1 / low)
        hessian.diagonal()[free] += barrier * (1 / high**2 + 1 / low**2)
        for term in self.terms:
            own_gradient, own_hessian = term.reduced(y, barrier)
            gradient, hessian = gradient + own_gradient, hessian + own_hessian
        inner = hessian[free][:, free]
        move = torch.zeros_like(y)
        if inner.numel():
            factor = _factor(inner + 1e-14 * torch.diag(inner.diagonal()))
            move[free] = -torch.cholesky_solve(gradient[free][:, None], factor)[:, 0]
        decrement = -0.5 * float(gradient @ move)
        moves = []
        for term in self.terms:
            weight_move, own = term.direction(move)
            moves.append(weight_move)
            decrement += own
        if not np.isfinite(decrement):
            raise ArithmeticError("the Newton step is not finite")
        self._move(move, moves, barrier, decrement)
        return decrement

    def _move(
        self, move: torch.Tensor, moves: list[torch.Tensor], barrier: float, decrement: float
    ) -> None:
        share = min(1.0, INSIDE * self._longest(move, moves))
        before = self._merit(self.gates, [t.weights for t in self.terms], barrier)
        for _ in range(30):
            gates = self.gates + share * move
            weights = [t.weights + share * m for t, m in zip(self.terms, moves, strict=True)]
            after = self._merit(gates, weights, barrier)
            if after <= before - 1e-4 * share * decrement or share * decrement < 1e-15 * abs(
                before
            ):
                self.gates = gates
                for term, own in zip(self.terms, weights, strict=True):
                    term.weights = own
                return
            share *= 0.5

    def _longest(self, move: torch.Tensor, moves: list[torch.Tensor]) -> float:
        y, free = self.gates, self.free
        ratios = [_ratio(y[free], move[free]), _ratio(1 - y[free], -move[free])]
        ratios.append(_ratio(self.upper - self.rows @ y, -(self.rows @ move)))
        for term, own in zip(self.terms, moves, strict=True):
            edge, growth = term.edge(y), term.edge(move)
            ratios.append(_ratio(edge - term.weights, growth - own))
            ratios.append(_ratio(edge + term.weights, growth + own))
        return min(ratios)

    def _merit(self, y: torch.Tensor, weights: list[torch.Tensor], barrier: float) -> float:
        free = self.free
        logs = torch.log(y[free]).sum() + torch.log(1 - y[free]).sum()
        logs = logs + torch.log(self.upper - self.rows @ y).sum()
        total = float(self.prices @ y)
        for term, own in zip(self.terms, weights, strict=True):
            edge = term.edge(y)[term.finite]
            inside = own[term.finite]
            logs = logs + torch.log(edge - inside).sum() + torch.log(edge + inside).sum()
            total += term.loss(own, y)
        return total - barrier * float(logs)


class _BoxTerm:
    """Weights of one term, rows of channels forced out left away."""

    def __init__(
        self, term: Term, diagonal: Floats, alive: NDArray[np.bool_], device: torch.device
    ) -> None:
        rows = alive[term.channel_of_row]
        self.shape = term.cross.shape
        self.alive = torch.tensor(rows, device=device)
        rest = term.damped_gram - np.diag(diagonal)
        self.rest = as_tensor(rest[np.ix_(rows, rows)], device)
        self.cross = as_tensor(term.cross[rows], device)
        self.split = as_tensor(diagonal[rows], device)[:, None]
        self.big_m = as_tensor(term.big_m[term.channel_of_row][rows], device)
        self.finite = torch.isfinite(self.big_m)
        self.channel = as_tensor(term.channel_of_row[rows], device)
        self.constant = term.energy / 2
        self.weights = torch.zeros_like(self.cross)

    def full(self) -> torch.Tensor:
        result = torch.zeros(self.shape, dtype=torch.float64, device=self.cross.device)
        result[self.alive] = self.weights
        return result

    def edge(self, y: torch.Tensor) -> torch.Tensor:
        """``M y`` per row (n, 1); infinite limits give a constant edge."""
        edge = torch.where(self.finite, self.big_m, 1.0) * y[self.channel]
        return torch.where(self.finite, edge, torch.inf)[:, None]

    def loss(self, weights: torch.Tensor, y: torch.Tensor) -> float:
        image = 0.5 * (self.rest @ weights) - self.cross
        ridge = 0.5 * (self.split * weights**2 / y[self.channel][:, None]).sum()
        return self.constant + float((weights * image).sum() + ridge)

    def reduced(self, y: torch.Tensor, barrier: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient (p,) and Hessian (p, p) in the gates with the weights eliminated."""
        w, rows_y = self.weights, y[self.channel][:, None]
        limit = torch.where(self.finite, self.big_m, 0.0)[:, None]
        edge = self.edge(y)
        near, far = 1 / (edge - w), 1 / (edge + w)
        ratio = self.split * w / rows_y
        self.gradient = self.rest @ w - self.cross + ratio + barrier * (near - far)
        curvature = self.split / rows_y + barrier * (near**2 + far**2)
        mixed = -ratio / rows_y + barrier * limit * (far**2 - near**2)
        own = -0.5 * ratio * w / rows_y - barrier * limit * (near + far)
        square = ratio * w / rows_y**2 + barrier * limit**2 * (near**2 + far**2)
        p = y.numel()
        gradient = y.new_zeros(p).index_add_(0, self.channel, own.sum(1))
        hessian = torch.diag(y.new_zeros(p).index_add_(0, self.channel, square.sum(1)))
        self.responses: list[tuple[torch.Tensor, torch.Tensor]] = []
        member = torch.zeros(len(self.channel), p, dtype=y.dtype, device=y.device)
        member[torch.arange(len(self.channel), device=y.device), self.channel] = 1.0
        chunk = max(1, CHUNK_BYTES // max(8 * self.rest.numel(), 1))
        for first in range(0, w.shape[1], chunk):
            part = slice(first, first + chunk)
            matrix = self.rest + torch.diag_embed(curvature[:, part].mT)
            right = torch.cat(
                [self.gradient[:, part].mT[:, :, None], mixed[:, part].mT[:, :, None] * member], 2
            )
            solved = torch.cholesky_solve(right, _factor(matrix))
            self.responses.append((solved[:, :, 0], solved[:, :, 1:]))
            coupling = right[:, :, 1:]
            gradient = gradient - torch.einsum("cnp,cn->p", coupling, solved[:, :, 0])
            hessian = hessian - torch.einsum("cnp,cnq->pq", coupling, solved[:, :, 1:])
        return gradient, (hessian + hessian.mT) / 2

    def direction(self, move: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Weight step that goes with a gate step, and its part of the decrement."""
        columns = [-(base + coupling @ move) for base, coupling in self.responses]
        step = torch.cat(columns, 0).mT
        base = torch.cat([b for b, _ in self.responses], 0).mT
        return step, 0.5 * float((self.gradient * base).sum())


def _factor(matrix: torch.Tensor) -> torch.Tensor:
    """Cholesky factors of (..., n, n), shifted as little as it takes.

    Raises
    ------
    ArithmeticError
        Not finite, or far from positive semidefinite.
    """
    if bool(torch.isfinite(matrix).all()):
        size = matrix.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None]
        for share in SHIFTS:
            shifted = matrix + torch.diag_embed((share * size).expand(matrix.shape[:-1]))
            result = torch.linalg.cholesky_ex(shifted)
            if not bool(result.info.any()):
                factor: torch.Tensor = result.L
                return factor
    raise ArithmeticError("no Cholesky factor")


def _ratio(room: torch.Tensor, change: torch.Tensor) -> float:
    falling = change < 0
    if not bool(falling.any()):
        return float("inf")
    room, change = torch.broadcast_tensors(room, change)
    return float((room[falling] / -change[falling]).min())


def _strictly_inside(limits: Limits, free: NDArray[np.bool_]) -> Floats:
    """The point of the gate polytope with the largest smallest slack."""
    p = limits.most.size
    width = free.astype(np.float64)
    norms = np.maximum(np.abs(limits.rows).sum(1), 1.0)
    above = np.concatenate([np.eye(p), -width[:, None]], axis=1)
    rows = [np.concatenate([limits.rows, norms[:, None]], axis=1)]
    rows += [np.concatenate([np.eye(p), width[:, None]], axis=1), -above]
    cost = np.zeros(p + 1)
    cost[p] = -1.0
    result = linprog(
        cost,
        A_ub=np.concatenate(rows),
        b_ub=np.concatenate([limits.limits, limits.most, -limits.least]),
        bounds=[(0.0, 1.0)] * p + [(0.0, 0.5)],
        method="highs",
    )
    if result.x is None:
        raise NoSolutionError("no mask meets all limits together; loosen a budget")
    inside = np.asarray(result.x[:p], dtype=np.float64)
    inside[free] = np.clip(inside[free], 1e-6, 1 - 1e-6)
    inside[~free] = limits.least[~free]
    return inside
