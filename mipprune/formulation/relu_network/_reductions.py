"""Lossless reductions: neurons that can go, or merge, without changing the function.

The outputs stay the same for every input of a box (up to rounding). Four cases
per hidden layer, after Serra, Kumar and Ramalingam, "Lossless Compression of
Deep Neural Networks" (CPAIOR 2020), extended by the parallel case:

- dead: the pre-activation is never positive on the box; the neuron is dropped;
- constant: incoming weights all zero; its value moves into the next bias;
- parallel: (w, b) is a positive multiple of another neuron's; their outgoing
  weights are added with that factor (duplicates: factor 1);
- always active and linearly dependent on other always-active neurons: its
  outgoing weights are spread over those.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipprune.errors import InputError
from mipprune.formulation.relu_network._network import ReLUNetwork

__all__ = ["Reduction", "reduce_losslessly"]

Floats = NDArray[np.float64]

RELATIVE = 1e-12
"""Agreement of two directions, or of a linear dependence, taken as exact."""


@dataclass(frozen=True)
class Reduction:
    """A reduced network and what was merged.

    Attributes
    ----------
    network : ReLUNetwork
    kept : tuple of int64 arrays
        Per hidden layer, original index of every neuron that stays.
    n_dead, n_constant, n_parallel, n_dependent : int
    """

    network: ReLUNetwork
    kept: tuple[NDArray[np.int64], ...]
    n_dead: int
    n_constant: int
    n_parallel: int
    n_dependent: int


def reduce_losslessly(network: ReLUNetwork, lower: ArrayLike, upper: ArrayLike) -> Reduction:
    """Remove and merge neurons; outputs unchanged on the box ``lower <= x <= upper``.

    Parameters
    ----------
    network : ReLUNetwork
    lower, upper : float or array (n_0,)
        Box of inputs, finite.

    Raises
    ------
    InputError
        Box not finite, empty, or of the wrong shape.
    """
    width = network.weights[0].shape[1]
    low, high = _box(lower, width), _box(upper, width)
    if np.any(low > high):
        raise InputError("the box of inputs is empty: some lower limit is above the upper one")
    weights = [w.copy() for w in network.weights]
    biases = [b.copy() for b in network.biases]
    kept: list[NDArray[np.int64]] = []
    counts = np.zeros(4, dtype=np.int64)
    for layer in range(len(weights) - 1):
        stay, changes = _reduce_layer(weights, biases, layer, low, high)
        counts += changes
        kept.append(stay)
        low, high = _propagate(weights[layer], biases[layer], low, high)
        low, high = np.maximum(low, 0.0), np.maximum(high, 0.0)
    reduced = ReLUNetwork(tuple(weights), tuple(biases))
    return Reduction(reduced, tuple(kept), *(int(c) for c in counts))


def _reduce_layer(
    weights: list[Floats], biases: list[Floats], layer: int, low: Floats, high: Floats
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Reduce one hidden layer in place; at least one neuron stays."""
    w, b, out = weights[layer], biases[layer], weights[layer + 1]
    bottom, top = _propagate(w, b, low, high)
    alive = np.ones(len(b), dtype=bool)
    dead = top <= 0
    alive &= ~dead
    constant = alive & ~np.any(w, axis=1)
    biases[layer + 1] = biases[layer + 1] + out[:, constant] @ np.maximum(b[constant], 0.0)
    alive &= ~constant
    n_parallel = _merge_parallel(w, b, out, alive)
    n_dependent = _merge_dependent(w, b, out, biases, layer, alive & (bottom >= 0), alive)
    if not alive.any():
        alive[0] = True
        w[0], b[0], out[:, 0] = 0.0, 0.0, 0.0
    stay = np.flatnonzero(alive)
    weights[layer], biases[layer] = w[stay], b[stay]
    weights[layer + 1] = out[:, stay]
    return stay, np.array([dead.sum(), constant.sum(), n_parallel, n_dependent])


def _merge_parallel(w: Floats, b: Floats, out: Floats, alive: NDArray[np.bool_]) -> int:
    """Add the outgoing weights of positive multiples; returns how many neurons went."""
    joined = np.concatenate([w, b[:, None]], axis=1)
    lengths = np.linalg.norm(joined, axis=1)
    merged = 0
    for i in np.flatnonzero(alive):
        if not alive[i]:
            continue
        later = np.flatnonzero(alive & (np.arange(len(b)) > i))
        unit = joined[i] / lengths[i]
        apart = np.abs(joined[later] / lengths[later, None] - unit).max(axis=1, initial=0.0)
        for j in later[apart <= RELATIVE]:
            out[:, i] += out[:, j] * (lengths[j] / lengths[i])
            alive[j] = False
            merged += 1
    return merged


def _merge_dependent(
    w: Floats,
    b: Floats,
    out: Floats,
    biases: list[Floats],
    layer: int,
    active: NDArray[np.bool_],
    alive: NDArray[np.bool_],
) -> int:
    """Spread always-active neurons over an independent set of them.

    On the box such a neuron is w'x + b; if w = sum_k c_k w_k over other active
    neurons, its value is sum_k c_k h_k + (b - sum_k c_k b_k).
    """
    basis: list[int] = []
    merged = 0
    for j in np.flatnonzero(active):
        if basis:
            base = w[basis].T
            coefficients, *_ = np.linalg.lstsq(base, w[j], rcond=None)
            error = np.abs(base @ coefficients - w[j]).max()
            if error <= RELATIVE * np.abs(w[j]).max() and np.abs(coefficients).max() < 1e3:
                out[:, basis] += np.outer(out[:, j], coefficients)
                rest = b[j] - coefficients @ b[basis]
                biases[layer + 1] = biases[layer + 1] + out[:, j] * rest
                alive[j] = False
                merged += 1
                continue
        basis.append(int(j))
    return merged


def _propagate(w: Floats, b: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Interval bounds of ``W x + b``."""
    positive, negative = np.maximum(w, 0.0), np.minimum(w, 0.0)
    return positive @ low + negative @ high + b, positive @ high + negative @ low + b


def _box(values: ArrayLike, width: int) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim > 1 or (array.ndim == 1 and array.size != width):
        raise InputError(f"box: expected a scalar or shape ({width},), got {array.shape}")
    if not np.all(np.isfinite(array)):
        raise InputError("box: expected finite limits")
    return np.broadcast_to(array, (width,)).copy()
