"""A first feasible choice of neurons, by the real forward pass."""

import math
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mipprune.errors import InputError
from mipprune.formulation.relu_network import NetworkPruning
from mipprune.solvers.relu_network._solution import Masks

__all__ = ["checked_start", "greedy_masks"]


SEED = 0
"""Of the random restarts: the same task begins with the same masks."""


def greedy_masks(
    task: NetworkPruning, *, restarts: int = 8, deadline: float = math.inf
) -> Masks | None:
    """Backward elimination by the real forward pass, swaps, and restarts around the best.

    Removes the neuron whose loss hurts least while limits allow or demand it;
    swaps pairs while that helps; then shakes the best masks and repeats the swaps.
    Returns None where it finds nothing feasible.

    Parameters
    ----------
    task : NetworkPruning
    restarts : int
        Shakes, each of up to a quarter of the kept neurons.
    deadline : float
        Value of ``time.monotonic`` at which to stop with what there is.
    """
    best = _eliminate(task, task.network.full_masks())
    if best is None:
        return None
    best = _improve(task, best, deadline)
    rng = np.random.default_rng(SEED)
    for _ in range(restarts):
        if time.monotonic() > deadline:
            break
        shaken = _shaken(task, best, rng)
        if task.objective == "neurons":
            found = _eliminate(task, shaken)
        elif task.is_feasible(shaken):
            found = _improve(task, shaken, deadline)
        else:
            found = None
        if found is not None and task.value(found) < task.value(best):
            best = found
    return best


def _shaken(task: NetworkPruning, masks: Masks, rng: np.random.Generator) -> Masks:
    """Exchange a few kept neurons for removed ones; for a count to be lowered, only add some."""
    kept, removed = _positions(masks, True), _positions(masks, False)
    count = min(len(kept) // 4 + 1, len(kept), len(removed))
    changed = [removed[k] for k in rng.permutation(len(removed))[:count]]
    if task.objective != "neurons":
        changed += [kept[k] for k in rng.permutation(len(kept))[:count]]
    for where in changed:
        masks = _flipped(masks, where)
    return masks


def _eliminate(task: NetworkPruning, masks: Masks) -> Masks | None:
    """Remove neurons until the count fits; further ones while the value falls."""
    limit = task.network.n_neurons if task.max_neurons is None else task.max_neurons
    while True:
        kept = sum(int(mask.sum()) for mask in masks)
        options = [_flipped(masks, where) for where in _positions(masks, True)]
        # Limits on the outputs bind throughout; the count is only reached at the end.
        ranked = sorted(
            (_penalised(task, option), _change(task, option), k) for k, option in enumerate(options)
        )
        if not ranked:
            break
        value, _, chosen = ranked[0]
        if kept <= limit and value >= _penalised(task, masks):
            break
        masks = options[chosen]
    return masks if task.is_feasible(masks) else None


def _change(task: NetworkPruning, masks: Masks) -> float:
    """Deviation of the outputs: decides between masks of the same count or share of errors."""
    if task.objective not in ("neurons", "misclassification"):
        return 0.0
    return float(np.abs(task.network.forward(task.inputs, masks) - task.dense).sum())


def _penalised(task: NetworkPruning, masks: Masks) -> float:
    """Objective plus a large charge for broken limits on the outputs."""
    value = task.value(masks)
    if task.keep_predictions:
        value += 1e3 * float(np.maximum(task.least_lead - task.leads(masks), 0.0).sum())
    if task.max_deviation is not None:
        change = np.abs(task.network.forward(task.inputs, masks) - task.dense)
        value += 1e3 * float(np.maximum(change - task.max_deviation, 0.0).sum())
    return value


def _improve(task: NetworkPruning, masks: Masks, deadline: float) -> Masks:
    """Swap a kept neuron for a removed one, or add one, while the value falls."""
    value, improved = task.value(masks), task.objective != "neurons"
    while improved:
        improved = False
        for out in (*_positions(masks, True), None):
            base = masks if out is None else _flipped(masks, out)
            options = [_flipped(base, into) for into in _positions(masks, False)]
            values = [task.value(option) for option in options]
            for k in np.argsort(values, kind="stable"):
                if values[k] >= value - 1e-12 or time.monotonic() > deadline:
                    break
                if task.is_feasible(options[k]):
                    masks, value, improved = options[k], values[k], True
                    break
            if time.monotonic() > deadline:
                return masks
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
