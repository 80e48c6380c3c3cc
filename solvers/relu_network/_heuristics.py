"""A first feasible choice of neurons, by the real forward pass."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mipprune.errors import InputError
from mipprune.formulation.relu_network import NetworkPruning
from mipprune.solvers.relu_network._solution import Masks

__all__ = ["checked_start", "greedy_masks"]


def greedy_masks(task: NetworkPruning) -> Masks | None:
    """Backward elimination by the real forward pass, then swaps of pairs.

    Removes the neuron whose loss hurts least while limits allow or demand it.
    Returns None where it finds nothing feasible.
    """
    masks = task.network.full_masks()
    best = _eliminate(task, masks)
    return None if best is None else _improve(task, best)


def _eliminate(task: NetworkPruning, masks: Masks) -> Masks | None:
    """Remove neurons until the count fits; further ones while the value falls."""
    limit = task.network.n_neurons if task.max_neurons is None else task.max_neurons
    while True:
        kept = sum(int(mask.sum()) for mask in masks)
        options = [_flipped(masks, where) for where in _positions(masks, True)]
        # Limits on the outputs bind throughout; the count is only reached at the end.
        ranked = sorted((_penalised(task, option), k) for k, option in enumerate(options))
        if not ranked:
            break
        value, chosen = ranked[0]
        if kept <= limit and value >= _penalised(task, masks):
            break
        masks = options[chosen]
    return masks if task.is_feasible(masks) else None


def _penalised(task: NetworkPruning, masks: Masks) -> float:
    """Objective plus a large charge for broken limits on the outputs."""
    value = task.value(masks)
    if task.keep_predictions:
        value += 1e3 * float(np.maximum(task.margin - task.leads(masks), 0.0).sum())
    if task.max_deviation is not None:
        change = np.abs(task.network.forward(task.inputs, masks) - _dense(task))
        value += 1e3 * float(np.maximum(change - task.max_deviation, 0.0).sum())
    return value


def _dense(task: NetworkPruning) -> NDArray[np.float64]:
    return task.network.forward(task.inputs)


def _improve(task: NetworkPruning, masks: Masks) -> Masks:
    """Swap a kept neuron for a removed one while the value falls."""
    value = task.value(masks)
    improved = True
    while improved:
        improved = False
        for out in _positions(masks, True):
            for into in _positions(masks, False):
                option = _flipped(_flipped(masks, out), into)
                candidate = task.value(option)
                if candidate < value - 1e-12 and task.is_feasible(option):
                    masks, value, improved = option, candidate, True
                    break
            if improved:
                break
    return masks


def _positions(masks: Masks, kept: bool) -> list[tuple[int, int]]:
    return [
        (layer, int(j))
        for layer, mask in enumerate(masks)
        for j in np.flatnonzero(mask if kept else ~mask)
    ]


def _flipped(masks: Masks, where: tuple[int, int]) -> Masks:
    changed = [mask.copy() for mask in masks]
    changed[where[0]][where[1]] ^= True
    return tuple(changed)


def checked_start(task: NetworkPruning, start: Sequence[NDArray[np.bool_]]) -> Masks | None:
    masks = tuple(np.asarray(mask) for mask in start)
    shapes = [(mask.shape, mask.dtype) for mask in masks]
    if shapes != [((n,), np.dtype(bool)) for n in task.network.widths]:
        raise InputError(f"start: expected bool arrays of lengths {task.network.widths}")
    return masks if task.is_feasible(masks) else None
