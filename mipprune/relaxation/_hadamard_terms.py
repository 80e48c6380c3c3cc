"""Loss of one term as a function of the pairs X, with first and second derivatives."""

import numpy as np
import torch
from numpy.typing import NDArray

from mipprune.relaxation._blocks import as_tensor
from mipprune.relaxation._removal_root import Root, RootTerm

__all__ = ["FixedTerm", "PairTerm"]

Floats = NDArray[np.float64]

ENERGY = 0.9
"""Share of Z, by squared norm, whose curvature enters the Newton matrix."""


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

    def second(self) -> torch.Tensor | None:
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

    def second(self) -> torch.Tensor:
        """``tr(T_ij' N_ik T_kl)`` as (n, n, n, n) over (i, j, k, l)."""
        n, g = self.n, self.g
        basis = _leading(self.directions)
        z = (self.directions @ basis).reshape(n, g, -1)
        blocks = self.inverse.reshape(n, g, n, g).permute(0, 2, 1, 3)
        t = torch.einsum("ijuv,jvq->ijuq", blocks, z)
        index = torch.arange(n, device=t.device)
        t[index, index] -= (self.coefficients @ basis).reshape(n, g, -1)
        inner = torch.cholesky_inverse(self.factor).reshape(n, g, n, g).permute(0, 2, 1, 3)
        q = t.shape[-1]
        flat = t.reshape(n, n, g * q)
        result = t.new_empty(n, n, n, n)
        for k in range(n):
            image = torch.einsum("iuv,lvq->iluq", inner[:, k], t[k]).reshape(n, n, g * q)
            result[:, :, k, :] = flat @ image.mT
        return result

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
