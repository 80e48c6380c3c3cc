"""From the records of a run to its report."""

import math
from collections.abc import Mapping
from typing import Any

from mipprune._support.provenance import provenance
from mipprune.graph import Masks
from mipprune.models import Dataset
from mipprune.pipeline._directory import RunDirectory
from mipprune.pipeline._recipes import method_options, model_options
from mipprune.pipeline._task import Task
from mipprune.report import (
    Curve,
    FamilyWidth,
    GateHistogram,
    Latency,
    PruneReport,
    Size,
    Stage,
)

__all__ = ["build_report"]

RESOURCES = {"macs": "MACs", "params": "parameters", "channels": "channels"}
CURVES = {
    "loss": "training loss",
    "val_loss": "validation loss",
    "val_accuracy": "validation accuracy",
}


def build_report(
    task: Task,
    run: RunDirectory,
    masks: Masks,
    limits: Mapping[str, float],
    latency: Latency | None,
) -> PruneReport:
    """Report of a run whose phases are all done.

    Parameters
    ----------
    limits : mapping
        Resource (``macs``, ``params``, ``channels``) -> absolute upper limit.
    """
    removed = run.result("remove") or {}
    trained = run.result("train") or {}
    metric = "accuracy" if (removed["test"]["accuracy"] is not None) else "loss"
    gates = trained.get("gates")
    return PruneReport(
        title=_title(task),
        settings=_settings(task),
        stages=_stages(task, run, metric),
        sizes=_sizes(removed["sizes"], limits),
        widths=tuple(
            FamilyWidth(family.name, len(family), int(masks[family.name].sum()))
            for family in task.groups
        ),
        curves=_curves(task, run),
        gates=None
        if gates is None
        else GateHistogram(tuple(gates["edges"]), tuple(gates["counts"]), gates["threshold"]),
        latency=latency,
        provenance=provenance(task.config.seed),
        notes=_notes(task, metric),
        metric=metric,
    )


def _title(task: Task) -> str:
    config = task.config
    names = {"macs": "of the MACs", "params": "of the parameters", "channels": "of the channels"}
    asked = ", ".join(f"{_limit(limit)} {names[name]}" for name, limit in config.limits.items())
    return f"{config.model} on {config.data}, {config.method}: {asked or 'the rule of the authors'}"


def _limit(limit: str | float) -> str:
    return str(limit).replace("%", " %").replace("  ", " ")


def _settings(task: Task) -> dict[str, str]:
    config = task.config
    settings = {"data": config.data}
    if isinstance(task.data, Dataset):
        data = task.data
        settings["split"] = (
            f"{len(data.train)} training, {len(data.validation)} validation, "
            f"{len(data.test)} test (split seed {data.split_seed})"
        )
    settings |= {"model": config.model, "method": config.method, "rounding": config.rounding}
    options = {
        "data options": config.data_options,
        "model options": model_options(config, task.data),
        "method options": method_options(config, task.data),
    }
    for name, given in options.items():
        if given:
            settings[name] = ", ".join(f"{k} = {v}" for k, v in given.items())
    if config.multiple_of > 1:
        settings["multiple of"] = str(config.multiple_of)
    for phase, train in task.settings.items():
        settings[f"{phase} settings"] = (
            f"{train.epochs} epochs, batch {train.batch_size}, {train.optimizer}, "
            f"{train.schedule}, lr {train.lr:g}, weight decay {train.weight_decay:g}, "
            f"{train.precision}"
        )
    return settings


def _stages(task: Task, run: RunDirectory, metric: str) -> tuple[Stage, ...]:
    names = {
        "dense": "dense",
        "train": f"after {task.config.method}",
        "remove": "after removal",
        "tune": "after fine-tuning",
    }
    stages = []
    for phase, name in names.items():
        record = run.result(phase)
        if record is None or not record.get("trains", True):
            continue
        stages.append(
            Stage(
                name,
                record["validation"][metric],
                record["test"][metric],
                record["epochs"],
                record["seconds"],
            )
        )
    return tuple(stages)


def _sizes(sizes: Mapping[str, Mapping[str, int]], limits: Mapping[str, float]) -> tuple[Size, ...]:
    return tuple(
        Size(
            label,
            sizes["dense"][name],
            limits.get(name),
            sizes["predicted"][name],
            sizes["counted"][name],
        )
        for name, label in RESOURCES.items()
    )


def _curves(task: Task, run: RunDirectory) -> tuple[Curve, ...]:
    labels = {"dense": "dense", "train": task.config.method, "tune": "fine-tuning"}
    curves = []
    offset = 0
    for phase, label in labels.items():
        records: list[dict[str, Any]] = list(run.epochs(phase))
        for key, quantity in CURVES.items():
            found = [
                (offset + int(record["epoch"]), float(record[key]))
                for record in records
                if key in record and math.isfinite(record[key])
            ]
            if found:
                epochs, values = zip(*found, strict=True)
                curves.append(Curve(label, quantity, tuple(epochs), tuple(values)))
        offset += len(records)
    return tuple(curves)


def _notes(task: Task, metric: str) -> tuple[str, ...]:
    notes = []
    if metric == "accuracy" and isinstance(task.data, Dataset):
        notes.append(f"One test image is {100 / len(task.data.test):.2g} points.")
    if task.groups.frozen:
        frozen = sum(entry.n_channels for entry in task.groups.frozen)
        notes.append(f"{frozen} channels are frozen (outputs, or operations not understood).")
    return tuple(notes)
