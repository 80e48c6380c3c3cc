"""Loss of one term as a function of the pairs X, with first and second derivatives."""

import numpy as np
import torch
from numpy.typing import NDArray

from mipprune.relaxation._blocks import as_tensor
from mipprune.relaxation._removal_root import Root, RootTerm

__all__ = ["FixedTerm", "PairIndex", "PairTerm"]

Floats = NDArray[np.float64]

ENERGY = 0.9
"""Share of Z, by squared norm, whose curvature enters the Newton matrix."""


class PairIndex:
    """Positions of the pairs i <= j in a vector of length N = n (n + 1) / 2.

    Attributes
    ----------
    first, second : int64 (N,)
    own : bool (N,)
        True on the diagonal.
    of : int64 (n, n)
        Position of each pair, either order.
    """

    def __init__(self, n: int, device: torch.device) -> None:
        upper = torch.triu_indices(n, n, device=device)
        self.first, self.second = upper[0], upper[1]
        self.own = self.first == self.second
        self.size = int(upper.shape[1])
        position = torch.arange(self.size, device=device)
        self.of = torch.zeros(n, n, dtype=torch.long, device=device)
        self.of[self.first, self.second] = position
        self.of[self.second, self.first] = position

    def kronecker(self, matrix: torch.Tensor) -> torch.Tensor:
        """Quadratic form ``tr(V D V D)`` of a symmetric V over the pairs of D, (N, N)."""
        one, two = matrix[self.first], matrix[self.second]
        i, j = self.first, self.second
        result: torch.Tensor = 2 * (one[:, i] * two[:, j] + one[:, j] * two[:, i])
        weight = torch.where(self.own, 0.5, 1.0).to(matrix.dtype)
        return result * weight[:, None] * weight


class FixedTerm:
    """One term at fixed directions: the loss is linear in X and nothing needs X psd."""

    def __init__(self, root: Root, index: int, directions: Floats, device: torch.device) -> None:
        parts = [np.zeros_like(t.coefficients) for t in root.terms]
        parts[index] = directions
        linear, quadratic = root.pairwise(parts)
        self.linear, self.quadratic = as_tensor(linear, device), as_tensor(quadratic, device)
        self.directions = directions

    def solve(self, pairs: torch.Tensor) -> torch.Tensor:
        """Value of the term."""
        return (self.linear * pairs.diagonal()).sum() - 0.5 * (self.quadratic * pairs).sum()

    def first(self) -> tuple[torch.Tensor, torch.Tensor]:
        """b (n,) and Q (n, n)."""
        return self.linear, self.quadratic

    def second(self, _: PairIndex) -> torch.Tensor | None:
        """A linear function has no curvature."""
        return None

    def reduced(self) -> Floats:
        """Z in the rows of the root term."""
        return self.directions


class PairTerm:
    """Tensors of one term padded to equal block size: P (n, n, g, g), B (n, g, q)."""

    def __init__(self, term: RootTerm, n: int, device: torch.device) -> None:
        counts = np.bincount(term.channel, minlength=n)
        g, q = int(counts.max(initial=1)), term.coefficients.shape[1]
        place = np.zeros(len(term.channel), dtype=np.int64)
        for j in range(n):
            place[term.channel == j] = j * g + np.arange(counts[j])
        self.place = place
        inverse, coefficients = np.eye(n * g), np.zeros((n * g, q))
        inverse[np.ix_(place, place)] = term.inverse
        coefficients[place] = term.coefficients
        self.n, self.g = n, g
        self.inverse = as_tensor(inverse, device)
        self.coefficients = as_tensor(coefficients, device)
        self.channel = torch.arange(n, device=device).repeat_interleave(g)

    def solve(self, pairs: torch.Tensor) -> torch.Tensor:
        """Set Z and N at X; returns the value of the term."""
        expanded = pairs[self.channel][:, self.channel]
        factor = torch.linalg.cholesky(expanded * self.inverse)
        share = pairs.diagonal()[self.channel][:, None] * self.coefficients
        self.factor = factor
        self.directions = torch.cholesky_solve(share, factor)
        return 0.5 * (share * self.directions).sum()

    def first(self) -> tuple[torch.Tensor, torch.Tensor]:
        """b (n,) and Q (n, n) at the current Z."""
        n, g, z = self.n, self.g, self.directions
        linear = (self.coefficients * z).sum(1).reshape(n, g).sum(1)
        product = self.inverse * (z @ z.mT)
        return linear, product.reshape(n, g, n, g).sum((1, 3))

    def second(self, index: PairIndex) -> torch.Tensor:
        """Second derivatives over the pairs, (N, N).

        Products run in float32: they only shape the Newton step, never a bound.
        """
        n, g = self.n, self.g
        basis = _leading(self.directions)
        z = (self.directions @ basis).float().reshape(n, g, -1)
        blocks = self.inverse.float().reshape(n, g, n, g).permute(0, 2, 1, 3)
        t = torch.einsum("ijuv,jvq->ijuq", blocks, z)
        each = torch.arange(n, device=t.device)
        t[each, each] -= (self.coefficients @ basis).float().reshape(n, g, -1)
        inner = torch.cholesky_inverse(self.factor).float().reshape(n, g, n, g)
        inner = inner.permute(0, 2, 1, 3).contiguous()
        flat = t.reshape(n, n, -1)
        result = torch.zeros(index.size, index.size, dtype=t.dtype, device=t.device)
        for k in range(n):
            image = torch.einsum("iuv,lvq->iluq", inner[:, k], t[k]).reshape(n, n, -1)
            part = flat @ image.mT
            folded = (part + part.transpose(0, 1))[index.first, index.second]
            folded[index.own] *= 0.5
            result[:, index.of[k]] += folded
        return result.double()

    def reduced(self) -> Floats:
        """Z in the rows of the root term."""
        return np.asarray(self.directions.cpu().numpy()[self.place])


def _leading(directions: torch.Tensor) -> torch.Tensor:
    """Response directions that carry most of Z: the curvature of the rest is left out."""
    values, vectors = torch.linalg.eigh(directions.mT @ directions)
    share = torch.cumsum(values.flip(0), 0) / values.sum().clamp_min(1e-300)
    count = int((share < ENERGY).sum()) + 1
    leading: torch.Tensor = vectors[:, -count:]
    return leading
