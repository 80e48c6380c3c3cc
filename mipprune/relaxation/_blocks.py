"""Block-diagonal matrices: one symmetric block per channel."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Blocks", "as_tensor"]

Floats = NDArray[np.float64]


def as_tensor(array: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """Copy of an array on a device (problem arrays are read-only)."""
    return torch.tensor(np.asarray(array), device=device)


@dataclass(frozen=True, eq=False)
class Blocks:
    """Block j is symmetric (g_j, g_j); blocks of one size are stacked for batched work.

    Attributes
    ----------
    sizes : int64 (p,)
        Rows per channel, 0 allowed.
    stacks : tuple of (rows, blocks)
        Per distinct size g > 0: int64 (n, g) row indices and float64 (n, g, g).
    """

    sizes: NDArray[np.int64]
    stacks: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    @classmethod
    def scalar(cls, sizes: NDArray[np.int64], values: Floats, device: torch.device) -> "Blocks":
        """Blocks ``values[j] * I``."""
        stacks = []
        for channels, rows in _stacked_rows(sizes):
            g = rows.shape[1]
            blocks = values[channels][:, None, None] * np.eye(g)
            stacks.append((as_tensor(rows, device), as_tensor(blocks, device)))
        return cls(sizes, tuple(stacks))

    @classmethod
    def diagonal_of(cls, matrix: torch.Tensor, sizes: NDArray[np.int64]) -> "Blocks":
        """Diagonal blocks of a (d, d) matrix."""
        stacks = []
        for _, rows in _stacked_rows(sizes):
            index = as_tensor(rows, matrix.device)
            stacks.append((index, matrix[index[:, :, None], index[:, None, :]]))
        return cls(sizes, tuple(stacks))

    @classmethod
    def from_flat(cls, sizes: NDArray[np.int64], flat: Floats, device: torch.device) -> "Blocks":
        """Inverse of :attr:`flat`."""
        starts = np.concatenate([[0], np.cumsum(sizes**2)])
        stacks = []
        for channels, rows in _stacked_rows(sizes):
            g = rows.shape[1]
            blocks = np.stack([flat[starts[j] : starts[j] + g * g].reshape(g, g) for j in channels])
            stacks.append((as_tensor(rows, device), as_tensor(blocks, device)))
        return cls(sizes, tuple(stacks))

    @cached_property
    def flat(self) -> Floats:
        """All blocks in channel order, row by row, float64 (sum of g_j^2,)."""
        starts = np.concatenate([[0], np.cumsum(self.sizes**2)])
        flat = np.zeros(int(starts[-1]))
        for (channels, _), (_, blocks) in zip(_stacked_rows(self.sizes), self.stacks, strict=True):
            g = blocks.shape[1]
            index = starts[channels][:, None] + np.arange(g * g)
            flat[index] = blocks.cpu().numpy().reshape(-1, g * g)
        return flat

    def mapped(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "Blocks":
        """Blocks with ``function`` applied to each stack (n, g, g)."""
        stacks = []
        for rows, blocks in self.stacks:
            result = function(blocks)
            stacks.append((rows, (result + result.mT) / 2))
        return Blocks(self.sizes, tuple(stacks))

    def times(self, matrix: torch.Tensor) -> torch.Tensor:
        """Block-diagonal matrix times (d, m)."""
        result = torch.zeros_like(matrix)
        for rows, blocks in self.stacks:
            result[rows] = blocks @ matrix[rows]
        return result

    def added_to(self, matrix: torch.Tensor, factor: float) -> torch.Tensor:
        """Copy of a (d, d) matrix plus ``factor`` times this one."""
        result = matrix.clone()
        for rows, blocks in self.stacks:
            result[rows[:, :, None], rows[:, None, :]] += factor * blocks
        return result

    def smallest_eigenvalue(self) -> float:
        """Smallest eigenvalue of all blocks, inf without rows."""
        values = [float(torch.linalg.eigvalsh(b).min()) for _, b in self.stacks]
        return min(values, default=float("inf"))


def _stacked_rows(
    sizes: NDArray[np.int64],
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Per distinct size g > 0: the channels (n,) and their rows (n, g)."""
    starts = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    result = []
    for g in np.unique(sizes[sizes > 0]):
        channels = np.flatnonzero(sizes == g)
        result.append((channels, starts[channels][:, None] + np.arange(int(g))))
    return result
