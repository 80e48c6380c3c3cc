"""Bounds on every pre-activation over all masks that the budget admits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mipprune.formulation.relu_network._task import NetworkPruning

__all__ = ["PreactivationBounds", "propagate_bounds"]

Floats = NDArray[np.float64]

ROUNDING = 1e-9
"""Widening, relative to the size of the terms, that covers float64 rounding."""


@dataclass(frozen=True, eq=False)
class PreactivationBounds:
    """``lower <= s <= upper`` per layer, float64 (N, n_l); the last layer is the output.

    They hold for every mask within the budget, on the sample. The first hidden
    layer reads the inputs alone, so its pre-activations are known: lower = upper.
    """

    lower: tuple[Floats, ...]
    upper: tuple[Floats, ...]

    @property
    def n_undecided(self) -> int:
        """Neuron-input pairs of hidden layers whose sign is open: binaries of the program."""
        pairs = zip(self.lower[:-1], self.upper[:-1], strict=True)
        return int(sum(((low < 0) & (high > 0)).sum() for low, high in pairs))


def propagate_bounds(task: NetworkPruning) -> PreactivationBounds:
    """Interval propagation in which at most ``max_neurons`` terms of a sum are not zero.

    A hidden output lies in [0, max(upper, 0)], zero where its neuron goes, so
    a pre-activation is at most its bias plus the ``max_neurons`` largest
    positive terms. No default big-M enters.
    """
    network = task.network
    exact = network.preactivations(task.inputs)[0]
    lower, upper = [exact], [exact]
    for w, b in zip(network.weights[1:], network.biases[1:], strict=True):
        terms = w[None, :, :] * np.maximum(upper[-1], 0.0)[:, None, :]
        size = np.abs(terms).sum(axis=2)
        # Without terms the pre-activation is the bias itself, exactly.
        slack = np.where(size > 0, ROUNDING * (size + np.abs(b)), 0.0)
        lower.append(b - _largest_sum(-terms, task.max_neurons) - slack)
        upper.append(b + _largest_sum(terms, task.max_neurons) + slack)
    return PreactivationBounds(tuple(lower), tuple(upper))


def _largest_sum(terms: Floats, limit: int | None) -> Floats:
    """Sum over the last axis of the ``limit`` largest positive terms."""
    positive = np.maximum(terms, 0.0)
    if limit is not None and limit < positive.shape[-1]:
        positive = np.sort(positive, axis=-1)[..., positive.shape[-1] - limit :]
    total: Floats = positive.sum(axis=-1)
    return total
