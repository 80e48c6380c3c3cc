"""Small dense quadratic programs over a box and a few inequalities."""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

__all__ = ["minimise_quadratic"]

Floats = NDArray[np.float64]

TO_BOUNDARY = 0.99


def minimise_quadratic(
    hessian: Floats,
    gradient: Floats,
    rows: Floats,
    limits: Floats,
    least: Floats,
    most: Floats,
    *,
    tolerance: float = 1e-10,
    max_iterations: int = 60,
) -> Floats:
    r"""Minimise :math:`g^\top x + \tfrac12 x^\top H x` over ``rows x <= limits``, a box.

    Mehrotra's predictor-corrector method (Nocedal and Wright 2006, section
    16.6). The box needs no interior where ``least == most``: such variables
    are taken out first.

    Parameters
    ----------
    hessian : float64 (p, p) positive semidefinite, or (p,) for a diagonal one
    gradient : float64 (p,)
    rows : float64 (r, p)
    limits : float64 (r,)
    least, most : float64 (p,)
    tolerance : float
        Relative complementarity at which the method stops.

    Returns
    -------
    float64 (p,)
        Within the box; rows hold up to the accuracy reached. Where the arithmetic gives
        out (data of extreme scale) it is the last good point, at worst the box's centre.
    """
    free = most > least
    x = least.copy()
    if not np.any(free):
        return x
    diagonal = hessian.ndim == 1
    part = hessian[free] if diagonal else hessian[np.ix_(free, free)]
    shift = np.zeros(int(free.sum())) if diagonal else hessian[np.ix_(free, ~free)] @ x[~free]
    inner = _InteriorPoint(
        part,
        gradient[free] + shift,
        rows[:, free],
        limits - rows[:, ~free] @ x[~free],
        least[free],
        most[free],
    )
    x[free] = inner.solve(tolerance, max_iterations)
    return np.clip(x, least, most)


class _InteriorPoint:
    """Primal-dual state: x in the open box, slack s of the rows, multipliers u, v, w."""

    def __init__(
        self, h: Floats, g: Floats, a: Floats, b: Floats, low: Floats, high: Floats
    ) -> None:
        self.low, self.high = low, high
        largest = float(np.abs(g).max(initial=0.0))
        # A gradient far below the curvature must not blow the latter up.
        scale = max(largest, 1e-8 * float(np.abs(h).max(initial=0.0))) or 1.0
        self.h, self.g = h / scale, g / scale
        norms = np.maximum(np.abs(a).sum(1), np.finfo(np.float64).tiny)
        self.a, self.b = a / norms[:, None], b / norms
        self.x = (low + high) / 2
        n, r = g.size, b.size
        self.s = np.maximum(self.b - self.a @ self.x, 0.1)
        self.w, self.u, self.v = np.ones(r), np.ones(n), np.ones(n)

    def solve(self, tolerance: float, max_iterations: int) -> Floats:
        """The minimiser, or the last finite point before the arithmetic breaks down."""
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            try:
                self._iterate(tolerance, max_iterations)
            except np.linalg.LinAlgError:
                return self.x
        return self.x

    def _iterate(self, tolerance: float, max_iterations: int) -> None:
        for _ in range(max_iterations):
            below, above = self.x - self.low, self.high - self.x
            total = float(below @ self.u + above @ self.v + self.s @ self.w)
            mean = total / (2 * self.x.size + self.s.size)
            dual = self._times(self.x) + self.g - self.u + self.v + self.w @ self.a
            primal = self.a @ self.x + self.s - self.b
            error = max(np.abs(dual).max(initial=0.0), np.abs(primal).max(initial=0.0))
            if mean < tolerance and error < 1e-9:
                break
            solver = self._factor(below, above)
            affine = self._step(solver, dual, primal, below, above, 0.0, None)
            length = self._length(affine, below, above, 1.0)
            dx, ds, dw, du, dv = affine
            ahead = float(
                (below + length * dx) @ (self.u + length * du)
                + (above - length * dx) @ (self.v + length * dv)
                + (self.s + length * ds) @ (self.w + length * dw)
            )
            centre = mean * max(ahead / total, 0.0) ** 3
            step = self._step(solver, dual, primal, below, above, centre, affine)
            length = self._length(step, below, above, TO_BOUNDARY)
            dx, ds, dw, du, dv = step
            if not all(np.all(np.isfinite(part)) for part in step):
                return
            self.x = self.x + length * dx
            self.s, self.w = self.s + length * ds, self.w + length * dw
            self.u, self.v = self.u + length * du, self.v + length * dv

    def _times(self, x: Floats) -> Floats:
        return self.h * x if self.h.ndim == 1 else self.h @ x

    def _factor(self, below: Floats, above: Floats) -> "_Reduced":
        barrier = self.u / below + self.v / above
        return _Reduced(self.h, barrier, self.a, self.w / self.s)

    def _step(
        self,
        solver: "_Reduced",
        dual: Floats,
        primal: Floats,
        below: Floats,
        above: Floats,
        centre: float,
        affine: tuple[Floats, ...] | None,
    ) -> tuple[Floats, ...]:
        ru, rv = centre - below * self.u, centre - above * self.v
        rw = centre - self.s * self.w
        if affine is not None:
            dx, ds, dw, du, dv = affine
            ru, rv, rw = ru - dx * du, rv + dx * dv, rw - ds * dw
        right = -dual + ru / below - rv / above - ((rw + self.w * primal) / self.s) @ self.a
        dx = solver.solve(right)
        ds = -primal - self.a @ dx
        dw = (rw - self.w * ds) / self.s
        du = (ru - self.u * dx) / below
        dv = (rv + self.v * dx) / above
        return dx, ds, dw, du, dv

    def _length(
        self, step: tuple[Floats, ...], below: Floats, above: Floats, share: float
    ) -> float:
        dx, ds, dw, du, dv = step
        length = 1.0
        for value, change in (
            (below, dx),
            (above, -dx),
            (self.s, ds),
            (self.w, dw),
            (self.u, du),
            (self.v, dv),
        ):
            falling = change < 0
            if np.any(falling):
                length = min(length, share * float((-value[falling] / change[falling]).min()))
        return length


class _Reduced:
    """``(H + diag(barrier) + A' diag(weight) A)^-1``, by Woodbury for a diagonal H."""

    def __init__(self, h: Floats, barrier: Floats, a: Floats, weight: Floats) -> None:
        self.a = a
        self.diagonal: Floats | None = None
        if h.ndim == 1:
            self.diagonal = h + barrier
            inner = (a / self.diagonal) @ a.T + np.diag(1.0 / weight)
            self.inner = cho_factor(_finite(inner)) if len(a) else None
            return
        matrix = h + (a.T * weight) @ a
        matrix[np.diag_indices(h.shape[0])] += barrier
        self.full = cho_factor(_finite(matrix))

    def solve(self, right: Floats) -> Floats:
        if self.diagonal is None:
            return np.asarray(cho_solve(self.full, _finite(right)))
        base = right / self.diagonal
        if self.inner is None:
            return base
        correction = cho_solve(self.inner, _finite(self.a @ base))
        return np.asarray(base - (correction @ self.a) / self.diagonal)


def _finite(array: Floats) -> Floats:
    """``array``, or the error that ends the iteration."""
    if not np.all(np.isfinite(array)):
        raise np.linalg.LinAlgError("overflow")
    return array
