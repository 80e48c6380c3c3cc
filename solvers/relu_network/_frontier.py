"""Open nodes of the search: prefixes of decided neurons with their bounds."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["Frontier"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Frontier:
    """Prefixes in growing arrays; free places have the bound infinity.

    Parameters
    ----------
    total : int
        Neurons in all.
    capacity : int
        Open nodes from which on the deepest are taken first, so that memory
        stays bounded; the bound is the least over all of them either way.
    """

    def __init__(self, total: int, capacity: int = 2_000_000) -> None:
        self.capacity = capacity
        self.bits = np.zeros((1024, total), dtype=bool)
        self.depths = np.zeros(1024, dtype=np.int64)
        self.bounds = np.full(1024, np.inf)
        self.free = list(range(1023, -1, -1))

    def __len__(self) -> int:
        return len(self.bounds) - len(self.free)

    @property
    def bound(self) -> float:
        """Least bound of the open nodes, infinity if none."""
        return float(self.bounds.min())

    def push(self, bits: Bools, depths: Integers, bounds: Floats) -> None:
        """Add prefixes, bool (K, total), of the given depths."""
        while len(self.free) < len(bounds):
            self._grow()
        places = [self.free.pop() for _ in range(len(bounds))]
        self.bits[places], self.depths[places], self.bounds[places] = bits, depths, bounds

    def pop(self, count: int, cutoff: float) -> tuple[Bools, Integers, Floats]:
        """Take out the ``count`` nodes of least bound; drops those that reach ``cutoff``."""
        closed = np.isfinite(self.bounds) & (self.bounds >= cutoff)
        self._release(np.flatnonzero(closed))
        alive = np.flatnonzero(np.isfinite(self.bounds))
        key = self.bounds[alive] if alive.size < self.capacity else -self.depths[alive]
        if count < alive.size:
            alive = alive[np.argpartition(key, count)[:count]]
        taken = self.bits[alive], self.depths[alive], self.bounds[alive]
        self._release(alive)
        return taken

    def _release(self, places: Integers) -> None:
        self.bounds[places] = np.inf
        self.free.extend(places.tolist())

    def _grow(self) -> None:
        size = len(self.bounds)
        self.bits = np.concatenate([self.bits, np.zeros_like(self.bits)])
        self.depths = np.concatenate([self.depths, np.zeros_like(self.depths)])
        self.bounds = np.concatenate([self.bounds, np.full(size, np.inf)])
        self.free.extend(range(2 * size - 1, size - 1, -1))
