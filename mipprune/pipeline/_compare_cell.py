"""The pieces of a comparison: a dense phase, a method's training, a cell, its latency."""

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mipprune._support.files import write_json
from mipprune.errors import BudgetError, DataFileError, NonFiniteLossError
from mipprune.graph import Budgets, ChannelGroups, Masks, remove
from mipprune.models import Dataset, batches
from mipprune.pipeline._compare_config import Cell, CompareConfig, MethodEntry
from mipprune.pipeline._compress import compress
from mipprune.pipeline._compressed import CompressOptions
from mipprune.pipeline._latency import measure_latency
from mipprune.pipeline._phases import new_method
from mipprune.pipeline._prune import make_task
from mipprune.pipeline._recipes import phase_settings
from mipprune.pipeline._task import Task, find_groups, load_task_data
from mipprune.training import Method, TrainConfig, method_class, train
from mipprune.training.checkpoint import CHECKPOINT_NAME, load_checkpoint

__all__ = [
    "RESULT_NAME",
    "measure_cell_latency",
    "read_result",
    "run_cell",
    "train_entry",
    "train_shared",
]

RESULT_NAME = "result.json"
LATENCY_BATCH = 32
CALIBRATION_BATCH = 128


def train_shared(config: CompareConfig, out: Path, seed: int, which: str) -> None:
    """The dense baseline (``dense``), or a network that methods start from."""
    folder = out / f"seed-{seed}" / which
    if (folder / RESULT_NAME).is_file():
        return
    task = _task(config, seed, config.methods[0], config.budgets[0])
    model = _shared_network(config, task, out, seed, which)
    sizes = {"macs": task.groups.macs(), "params": task.groups.parameters()}
    _finish(folder, {**_scores(task, model), **sizes, "epochs": config.shared_epochs(which)})


def train_entry(config: CompareConfig, out: Path, cell: Cell) -> None:
    """The training of a method, once for all cells that share it."""
    folder = out / cell.training_folder
    if not method_class(cell.entry.method).trains or (folder / RESULT_NAME).is_file():
        return
    task = _task(config, cell.seed, cell.entry, cell.budget)
    began = time.monotonic()
    try:
        _trained(config, task, out, cell)
    except (BudgetError, NonFiniteLossError) as error:
        _finish(folder, {"error": str(error)})
        return
    records = _records(folder)
    _finish(folder, {"seconds": time.monotonic() - began, "last_epoch": records[-1]})


def run_cell(config: CompareConfig, out: Path, cell: Cell) -> None:
    """Rounding, removal, fine-tuning and scores of one cell; what failed is recorded as such."""
    folder = out / cell.folder
    if (folder / RESULT_NAME).is_file():
        return
    trained = read_result(out / cell.training_folder) or {}
    if "error" in trained:
        _finish(folder, {"error": trained["error"]})
        return
    task = _task(config, cell.seed, cell.entry, cell.budget)
    began = time.monotonic()
    try:
        content = _pruned(config, task, out, cell, folder)
    except (BudgetError, NonFiniteLossError) as error:
        _finish(folder, {"error": str(error)})
        return
    _finish(folder, {**content, "seconds": time.monotonic() - began})


def measure_cell_latency(config: CompareConfig, out: Path, cell: Cell) -> None:
    """Add the time of a forward pass beside the dense network's; to be run alone."""
    result = read_result(out / cell.folder)
    if result is None or "error" in result or "latency_ms" in result or not config.latency_repeats:
        return
    task = _task(config, cell.seed, cell.entry, cell.budget)
    dense = task.factory()
    masks = {name: np.array(mask, dtype=bool) for name, mask in result["masks"].items()}
    pruned = remove(dense, task.groups, masks, verify=False)
    batch = next(iter(batches(task.data, "test", LATENCY_BATCH, shuffle=False, augment=False)))
    found = measure_latency(
        dense, pruned, batch, repeats=config.latency_repeats, device=config.device
    )
    times = {"latency_ms": found.pruned_ms, "latency_ratio": found.ratio}
    write_json(out / cell.folder / RESULT_NAME, {**result, **times})


def read_result(folder: Path) -> dict[str, Any] | None:
    """Result of a finished piece, None where it is not finished."""
    file = folder / RESULT_NAME
    if not file.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataFileError(f"{file} is damaged: {error}; delete it to redo its part") from error
    return content


def _task(config: CompareConfig, seed: int, entry: MethodEntry, budget: str) -> Task:
    """Data, network and groups as of the seed, settings as of the method and the budget."""
    run = config.run_config(seed, entry, budget)
    shared = _shared_task(json.dumps(config.to_json()), seed)
    return replace(shared, config=run, settings=phase_settings(run, shared.data))


@lru_cache(maxsize=4)
def _shared_task(text: str, seed: int) -> Task:
    """Loading and tracing, once per seed and process."""
    config = CompareConfig.from_mapping(json.loads(text))
    run = config.run_config(seed, config.methods[0], config.budgets[0])
    data = load_task_data(run, None)
    if config.limit and isinstance(data, Dataset):
        data = data.limited(**config.limit)
    return make_task(run, None, data, None, None, None, False)


def _shared_network(
    config: CompareConfig, task: Task, out: Path, seed: int, which: str
) -> nn.Module:
    """Train, go on training or load a dense network."""
    settings = task.settings["dense"].as_dict()
    settings |= {"epochs": config.shared_epochs(which), "milestones": tuple(settings["milestones"])}
    settings["warmup_epochs"] = min(settings["warmup_epochs"], settings["epochs"])
    model = task.factory()
    _fit(task, model, TrainConfig(**settings), out / f"seed-{seed}" / which, None)
    return model


def _trained(config: CompareConfig, task: Task, out: Path, cell: Cell) -> tuple[Method, nn.Module]:
    """The method and its network after training (loaded where that is done)."""
    kind = method_class(cell.entry.method)
    folder = out / cell.training_folder
    reference = _shared_network(config, task, out, cell.seed, "dense")
    budget = _budget(task)
    if not cell.entry.per_budget:
        budget = Budgets.parse({config.resource: config.smallest_budget})
    method = new_method(task, reference, budget, folder)
    if cell.entry.start is None:
        start = task.factory()
    else:
        start = _shared_network(config, task, out, cell.seed, cell.entry.start)
    network = method.prepare(start, task.groups)
    if kind.trains:
        _fit(task, network, task.settings["train"], folder, method)
    return method, network


def _pruned(
    config: CompareConfig, task: Task, out: Path, cell: Cell, folder: Path
) -> dict[str, Any]:
    method, network = _trained(config, task, out, cell)
    after_training = _scores(task, network)["validation"]
    budget = _budget(task)
    began = time.monotonic()
    found: dict[str, Any] = {}
    if cell.rounding == "own":
        masks = method.choose(budget)
        smaller = remove(method.finish(network, masks), task.groups, masks)
    else:
        whole = task.groups.masks(np.ones(task.groups.n_classes, dtype=bool))
        smaller, masks, found = _optimised(config, task, method.finish(network, whole), budget)
    found["rounding_seconds"] = time.monotonic() - began
    before = _scores(task, smaller)
    epochs = 0 if cell.entry.start is None else config.shared_epochs(cell.entry.start)
    if method.trains:
        epochs += task.settings["train"].epochs
    if "tune" in task.settings and method.needs_fine_tuning:
        folder.mkdir(parents=True, exist_ok=True)
        _fit(task, smaller, task.settings["tune"], folder, None)
        epochs += task.settings["tune"].epochs
    return {
        **_scores(task, smaller),
        **_sizes(task, smaller, masks),
        **found,
        "after_training": after_training,
        "after_removal": before,
        "epochs": epochs,
        "masks": {name: mask.astype(int).tolist() for name, mask in masks.items()},
    }


def _optimised(
    config: CompareConfig, task: Task, network: nn.Module, budget: Budgets
) -> tuple[nn.Module, Masks, dict[str, Any]]:
    """Widths by the integer program, masks with bounds, weights refitted on training images."""
    settings = task.settings["train"]
    source = batches(
        task.data, "train", CALIBRATION_BATCH, shuffle=True, augment=False, seed=settings.seed
    )
    data = list(islice(source, -(-config.samples // CALIBRATION_BATCH)))
    options = CompressOptions(time_limit=config.rounding_seconds, seed=settings.seed)
    done = compress(network.eval(), data, budget, options=options, groups=task.groups)
    gaps = [family.gap for family in done.families]
    return done.model, done.masks, {"largest_gap": max(gaps, default=0.0)}


def _budget(task: Task) -> Budgets:
    return Budgets.parse(task.config.limits)


def _sizes(task: Task, smaller: nn.Module, masks: Masks) -> dict[str, int]:
    counted: ChannelGroups = find_groups(smaller, task.inputs, task.config.device)
    return {
        "macs": counted.macs(),
        "params": sum(parameter.numel() for parameter in smaller.parameters()),
        "channels": sum(int(mask.sum()) for mask in masks.values()),
    }


def _scores(task: Task, model: nn.Module) -> dict[str, float | None]:
    return {split: task.score(model, split)["accuracy"] for split in ("validation", "test")}


def _fit(
    task: Task, model: nn.Module, settings: TrainConfig, folder: Path, method: Method | None
) -> None:
    """Train in ``folder``, going on where it was left; done, it only loads."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / CHECKPOINT_NAME
    if (folder / RESULT_NAME).is_file():
        content = load_checkpoint(checkpoint, device=task.config.device)
        model.load_state_dict(content["model"])
        if method is not None:
            method.load_state_dict(content["method"])
        return
    result = train(
        model,
        task.data,
        settings,
        method=method,
        out=folder,
        resume=checkpoint.exists(),
        progress=False,
    )
    if result.interrupted:
        raise KeyboardInterrupt


def _records(folder: Path) -> list[Mapping[str, float]]:
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _finish(folder: Path, content: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RESULT_NAME, {**content, "threads": torch.get_num_threads()})
