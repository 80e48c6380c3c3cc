"""Random numbers as a function of (seed, epoch, stream, index): no state to save.

Every draw hashes its own coordinates, so order and augmentation of a sample
do not depend on what was drawn before, on threads or on the batch size, and a
run that resumes in the middle draws what the whole run would have drawn.

References
----------
Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA
2014: the mixing function and increment of SplitMix64.
"""

import numpy as np
from numpy.typing import NDArray

from mipprune.errors import InputError

__all__ = ["counter_bits", "counter_integers", "counter_permutation", "splitmix64"]

_INCREMENT = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def splitmix64(seed: int, indices: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Outputs number ``indices`` (from 0) of the SplitMix64 sequence of ``seed``.

    Parameters
    ----------
    seed : int
        Taken modulo 2**64.
    indices : int64 array, any shape, not negative

    Returns
    -------
    uint64 array of the same shape.
    """
    counter = indices.astype(np.uint64) + np.uint64(1)
    return _mix(np.uint64(seed & _MASK) + counter * np.uint64(_INCREMENT))


def counter_bits(
    seed: int, epoch: int, stream: int, indices: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """64 random bits per index, independent between seeds, epochs and streams."""
    if epoch < 0 or stream < 0:
        raise InputError(f"epoch and stream must not be negative, got {epoch} and {stream}")
    key = seed
    for coordinate in (epoch, stream):
        key = int(splitmix64(key, np.array([coordinate]))[0])
    return splitmix64(key, indices)


def counter_integers(
    seed: int, epoch: int, stream: int, indices: NDArray[np.int64], n_values: int
) -> NDArray[np.int64]:
    """Integers uniform on ``0 .. n_values - 1`` (bias below ``n_values / 2**32``)."""
    high = counter_bits(seed, epoch, stream, indices) >> np.uint64(32)
    return ((high * np.uint64(n_values)) >> np.uint64(32)).astype(np.int64)


def counter_permutation(seed: int, epoch: int, stream: int, n: int) -> NDArray[np.int64]:
    """Random order of ``0 .. n - 1``: the indices sorted by their bits."""
    bits = counter_bits(seed, epoch, stream, np.arange(n, dtype=np.int64))
    return np.argsort(bits, kind="stable").astype(np.int64)
