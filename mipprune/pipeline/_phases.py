"""The phases of a run. Each goes on where it was left, and records that it is done."""

import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mipprune._support.files import write_json
from mipprune.graph import Masks, remove, spec
from mipprune.graph.budgets import Budgets
from mipprune.models import batches, load_weights
from mipprune.pipeline._compress import compress
from mipprune.pipeline._compressed import CompressOptions
from mipprune.pipeline._directory import RunDirectory
from mipprune.pipeline._recipes import method_options
from mipprune.pipeline._saved import MASKS_NAME, read_masks, save_pruned
from mipprune.pipeline._task import Task, find_groups, steps_per_epoch
from mipprune.training import Method, build_method, method_class, train
from mipprune.training.checkpoint import CHECKPOINT_NAME

__all__ = ["Trained", "fine_tune", "new_method", "remove_channels", "train_dense", "train_method"]

HISTOGRAM_BINS = 20
CALIBRATION_BATCH = 128
CALIBRATION_BATCHES = 8


@runtime_checkable
class HasGates(Protocol):
    """A method with gates between 0 and 1, such as SPR's y*."""

    def gates(self) -> NDArray[np.float64]: ...


@dataclass(frozen=True, eq=False)
class Trained:
    """A method after its training, and the network it trained."""

    method: Method
    network: nn.Module


def train_dense(task: Task, run: RunDirectory) -> nn.Module:
    """Phase 1: the dense reference, trained or loaded."""
    model = task.factory()
    if task.config.weights is not None:
        load_weights(model, task.config.weights)
    else:
        _fit(task, run, model, "dense", None)
    _record(task, run, "dense", model)
    return model


def new_method(task: Task, reference: nn.Module, budget: Budgets | None, folder: Path) -> Method:
    """The method of the settings, with what the pipeline offers to all methods.

    Raises
    ------
    InputError
        Unknown method or option, or a value that the method refuses.
    """
    settings = task.settings["train"]
    per_epoch = steps_per_epoch(task.data, settings)
    offered = {
        "reference": reference,
        "budget": budget,
        "total_steps": settings.epochs * per_epoch,
        "steps_per_epoch": per_epoch,
        "seed": task.config.seed,
        "evaluate": task.training_accuracy,
        "losses": task.training_losses,
        "out": folder,
    }
    options = method_options(task.config, task.data)
    return build_method(task.config.method, offered=offered, **options)


def train_method(
    task: Task, run: RunDirectory, reference: nn.Module, budget: Budgets | None
) -> Trained:
    """Phase 2: the method's own training, from scratch or from the reference."""
    kind = method_class(task.config.method)
    method = new_method(task, reference, budget, run.phase("train"))
    start = task.factory() if kind.starts_from == "scratch" else deepcopy(reference)
    network = method.prepare(start, task.groups)
    if kind.trains:
        _fit(task, run, network, "train", method)
    extra: dict[str, Any] = {"trains": kind.trains}
    if isinstance(method, HasGates):
        extra["gates"] = _histogram(method.gates(), getattr(method, "threshold", None))
    _record(task, run, "train", network, **extra)
    return Trained(method, network)


def remove_channels(
    task: Task, run: RunDirectory, trained: Trained, budget: Budgets | None
) -> tuple[nn.Module, Masks]:
    """Phase 3: rounding to the budget, removal with its comparison, and counting."""
    folder = run.phase("remove")
    if task.config.rounding == "optimiser" and budget is not None:
        smaller, masks = _by_optimiser(task, folder, trained, budget)
    else:
        smaller, masks = _by_method(task, run, trained, budget)
    kept = task.groups.kept(masks)
    counted = find_groups(smaller, task.inputs, task.config.device)
    sizes = {
        "dense": {
            "macs": task.groups.macs(),
            "params": task.groups.parameters(),
            "channels": task.groups.n_classes,
        },
        "predicted": {
            "macs": task.groups.macs(kept),
            "params": task.groups.parameters(kept),
            "channels": int(kept.sum()),
        },
        "counted": {
            "macs": counted.macs(),
            "params": sum(parameter.numel() for parameter in smaller.parameters()),
            "channels": sum(int(mask.sum()) for mask in masks.values()),
        },
    }
    _record(task, run, "remove", smaller, sizes=sizes)
    return smaller, masks


def _by_method(
    task: Task, run: RunDirectory, trained: Trained, budget: Budgets | None
) -> tuple[nn.Module, Masks]:
    """Masks by the method's own scores or rule."""
    masks = read_masks(run)
    if masks is None:
        task.announce("rounding and removal")
        masks = trained.method.choose(budget)
        _save_masks(run.phase("remove"), masks)
    network = trained.method.finish(trained.network, masks)
    return remove(network, task.groups, masks), masks


def _by_optimiser(
    task: Task, folder: Path, trained: Trained, budget: Budgets
) -> tuple[nn.Module, Masks]:
    """Widths and masks on calibration data, weights refitted; finished steps are kept."""
    task.announce("rounding by the optimiser, and removal")
    whole = {family.name: np.ones(len(family), dtype=bool) for family in task.groups}
    network = trained.method.finish(trained.network, whole)
    images = batches(
        task.data, "train", CALIBRATION_BATCH, shuffle=True, augment=False, seed=task.config.seed
    )
    store = folder / "optimiser"
    found = compress(
        network,
        list(islice(images, CALIBRATION_BATCHES)),
        budget,
        options=CompressOptions(time_limit=task.config.rounding_seconds, seed=task.config.seed),
        groups=task.groups,
        out=store,
        resume=(store / "compress.json").is_file(),
        forward=task.forward,
        log=task.progress,
    )
    masks = task.groups.masks(task.groups.kept(found.masks))
    _save_masks(folder, masks)
    return found.model, masks


def _save_masks(folder: Path, masks: Masks) -> None:
    plain = {name: mask.astype(int).tolist() for name, mask in masks.items()}
    write_json(folder / MASKS_NAME, plain)


def fine_tune(task: Task, run: RunDirectory, model: nn.Module) -> nn.Module:
    """Phase 4: training of the smaller network, where the method wants it; and its weights."""
    wanted = method_class(task.config.method).needs_fine_tuning and "tune" in task.settings
    if wanted:
        _fit(task, run, model, "tune", None, spec(model))
        _record(task, run, "tune", model)
    save_pruned(run, model)
    return model


def _fit(
    task: Task,
    run: RunDirectory,
    model: nn.Module,
    phase: str,
    method: Method | None,
    specification: Mapping[str, Any] | None = None,
) -> None:
    """Train, or go on training, in the folder of the phase; Ctrl-C is raised once all is saved."""
    folder = run.phase(phase)
    labels = {"dense": "dense reference", "train": task.config.method, "tune": "fine-tuning"}
    result = train(
        model,
        task.data,
        task.settings[phase],
        method=method,
        specification=specification,
        out=folder,
        resume=(folder / CHECKPOINT_NAME).exists(),
        forward=task.forward,
        criterion=task.criterion,
        label=labels[phase],
        progress=task.progress and run.result(phase) is None,
    )
    run.record_epochs(phase, result.history)
    if result.interrupted:
        run.merge_metrics()
        raise KeyboardInterrupt


def _record(task: Task, run: RunDirectory, phase: str, model: nn.Module, **extra: Any) -> None:
    """Measure the network after a phase, once, and note that the phase is done."""
    if run.result(phase) is not None:
        return
    started = time.monotonic()
    epochs = run.epochs(phase)
    scores = {split: task.score(model, split) for split in ("validation", "test")}
    seconds = sum(epoch["seconds"] for epoch in epochs) + time.monotonic() - started
    run.finish_phase(phase, {**scores, "epochs": len(epochs), "seconds": seconds, **extra})


def _histogram(gates: NDArray[np.float64], threshold: object) -> dict[str, Any]:
    counts, edges = np.histogram(np.clip(gates, 0.0, 1.0), bins=HISTOGRAM_BINS, range=(0.0, 1.0))
    return {
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "threshold": threshold if isinstance(threshold, float) else None,
    }
