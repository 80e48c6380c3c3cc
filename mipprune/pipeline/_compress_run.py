"""A compression by name: network, weights and data set in, a folder with report out."""

import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mipprune._support.checks import require_flag, require_instance, require_integer, require_path
from mipprune._support.files import write_json
from mipprune._support.provenance import provenance
from mipprune.errors import InputError
from mipprune.graph import Budgets, CostTerm
from mipprune.models import batches, load_weights, require_model_name, split_batch
from mipprune.pipeline._agreement import Agreement, measure_agreement
from mipprune.pipeline._compress import compress
from mipprune.pipeline._compressed import Compressed, CompressOptions
from mipprune.pipeline._config import PruneConfig
from mipprune.pipeline._directory import RunDirectory
from mipprune.pipeline._latency import measure_latency
from mipprune.pipeline._latency_model import LatencyTable
from mipprune.pipeline._prune import make_task
from mipprune.pipeline._saved import MASKS_NAME, save_pruned
from mipprune.pipeline._task import Task
from mipprune.report import (
    ErrorCurve,
    FamilyWidth,
    GapEntry,
    PruneReport,
    ReportFiles,
    Size,
    Stage,
    write_report,
)
from mipprune.training import train

__all__ = ["CompressionRun", "run_compression"]

BATCH = 128


@dataclass(frozen=True, eq=False)
class CompressionRun:
    """Outcome of :func:`run_compression`.

    Attributes
    ----------
    model : nn.Module
        The smaller network, fine-tuned where that was asked for.
    compressed : Compressed
    report : PruneReport
    files : ReportFiles
    """

    model: nn.Module
    compressed: Compressed
    report: PruneReport
    files: ReportFiles


def run_compression(
    config: PruneConfig,
    out: str | Path,
    *,
    options: CompressOptions | None = None,
    samples: int = 1024,
    latency: str | float | None = None,
    latency_table: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> CompressionRun:
    """Compress a trained network on the training images and report on the test images.

    Parameters
    ----------
    config : PruneConfig
        Network, weights, data and budgets; ``tune_epochs`` of fine-tuning follow
        (0: none). The training method is not used.
    out : path
        Folder of the run.
    options : CompressOptions, optional
    samples : int
        Training images, without augmentation, that calibrate.
    latency : str or float, optional
        Latency budget in milliseconds per batch, or in percent; needs
        ``latency_table``, a file of :meth:`LatencyTable.save`.
    resume : bool
        Go on with a run in ``out``.
    progress : bool

    Returns
    -------
    CompressionRun

    Raises
    ------
    InputError
        No weights for a network of ours, a latency budget without table, and
        as :func:`compress`.
    """
    budgets = _refuse_early(config, out, samples, latency, latency_table, resume)
    settings = CompressOptions() if options is None else options
    task = make_task(config, None, None, None, None, None, progress)
    if config.tune_epochs and not _has_labels(task):
        raise InputError("fine-tuning needs labels, and the batches have none; leave it out")
    dense = task.factory()
    if config.weights is not None:
        load_weights(dense, config.weights)
    dense.eval()
    terms = _latency_terms(task, latency, latency_table)
    data = list(
        islice(
            batches(task.data, "train", BATCH, shuffle=True, augment=False, seed=config.seed),
            -(-samples // BATCH),
        )
    )
    compressed = compress(
        dense,
        data,
        budgets,
        options=settings,
        latency_terms=terms,
        out=out,
        resume=resume,
        forward=task.forward,
        log=progress,
    )
    folder = Path(out)
    stages = [_stage(task, "dense", dense), _stage(task, "after compression", compressed.model)]
    stages[1] = Stage(stages[1].name, stages[1].validation, stages[1].test, 0, compressed.seconds)
    _save_masks(folder, compressed)
    final = compressed.model
    if config.tune_epochs:
        final, stage = _fine_tune(task, final, folder)
        stages.append(stage)
    # With these the folder exports and loads like that of any other run.
    config.save(folder / "config.json")
    save_pruned(RunDirectory(folder), final)
    held_out = measure_agreement(
        final, dense, list(batches(task.data, "test", BATCH, shuffle=False, augment=False))
    )
    report = _report(task, config, compressed, stages, dense, final, held_out, samples)
    files = write_report(report, folder)
    return CompressionRun(final, compressed, report, files)


def _refuse_early(
    config: PruneConfig,
    out: str | Path,
    samples: int,
    latency: str | float | None,
    table: str | Path | None,
    resume: bool,
) -> Budgets:
    """What is wrong whatever the network and the data are; the budgets where nothing is."""
    require_instance("config", config, PruneConfig)
    require_integer("samples", samples, at_least=1)
    require_flag("resume", resume)
    limits = {**config.limits, "latency": latency, "multiple_of": config.multiple_of}
    budgets = Budgets.parse(limits)
    if latency is not None:
        _latency_table(table)
    if not resume:
        RunDirectory.refuse_existing(out)
    elif not require_path("out", out, "folder of a run").is_dir():
        raise InputError(f"there is no compression run in {out} to resume")
    if config.weights is None and ":" not in config.model:
        require_model_name(config.model)
        raise InputError(
            f"'{config.model}' is newly initialised: give the trained weights (--weights FILE)"
        )
    return budgets


def _latency_table(table: str | Path | None) -> LatencyTable:
    if table is None:
        raise InputError(
            "a latency budget needs --latency-table FILE, measured by 'mipprune latency'"
        )
    return LatencyTable.load(table)


def _latency_terms(
    task: Task, latency: str | float | None, table: str | Path | None
) -> tuple[CostTerm, ...]:
    if latency is None:
        return ()
    return _latency_table(table).terms(task.groups)


def _stage(task: Task, name: str, model: nn.Module) -> Stage:
    began = time.monotonic()
    if not _has_labels(task):
        return Stage(name, None, None, 0, time.monotonic() - began)
    scores = {split: task.score(model, split) for split in ("validation", "test")}
    metric = "accuracy" if scores["test"]["accuracy"] is not None else "loss"
    return Stage(
        name,
        scores["validation"][metric],
        scores["test"][metric],
        0,
        time.monotonic() - began,
    )


def _has_labels(task: Task) -> bool:
    """Whether the test batches have what an accuracy or a loss needs."""
    if task.criterion is not None:
        return True
    batch = next(iter(batches(task.data, "test", 2, shuffle=False, augment=False)), None)
    return batch is not None and isinstance(split_batch(batch)[2], Tensor)


def _fine_tune(task: Task, model: nn.Module, folder: Path) -> tuple[nn.Module, Stage]:
    """Train the smaller network in ``folder/tune``, which resumes by itself."""
    from mipprune.training.checkpoint import CHECKPOINT_NAME

    place = folder / "tune"
    place.mkdir(exist_ok=True)
    began = time.monotonic()
    result = train(
        model,
        task.data,
        task.settings["tune"],
        out=place,
        resume=(place / CHECKPOINT_NAME).exists(),
        forward=task.forward,
        criterion=task.criterion,
        label="fine-tuning",
        progress=task.progress,
    )
    if result.interrupted:
        raise KeyboardInterrupt
    stage = _stage(task, "after fine-tuning", model)
    epochs = task.settings["tune"].epochs
    done = Stage(stage.name, stage.validation, stage.test, epochs, time.monotonic() - began)
    return model, done


def _save_masks(folder: Path, compressed: Compressed) -> None:
    plain = {name: mask.astype(int).tolist() for name, mask in compressed.masks.items()}
    write_json(folder / MASKS_NAME, plain)


def _report(
    task: Task,
    config: PruneConfig,
    compressed: Compressed,
    stages: list[Stage],
    dense: nn.Module,
    final: nn.Module,
    held_out: Agreement,
    samples: int,
) -> PruneReport:
    latency = None
    if config.latency_repeats:
        batch: Any = next(iter(batches(task.data, "test", 32, shuffle=False, augment=False)))
        latency = measure_latency(dense, final, batch, repeats=config.latency_repeats)
    return PruneReport(
        title=f"{config.model} on {config.data}, compressed without training",
        settings=_settings(config, compressed, held_out, samples),
        stages=tuple(stages),
        sizes=_sizes(compressed, final),
        widths=tuple(
            FamilyWidth(family.name, len(family), int(compressed.masks[family.name].sum()))
            for family in compressed.groups
            if family.name in compressed.masks
        ),
        latency=latency,
        gaps=_gaps(compressed),
        error_curves=_error_curves(compressed),
        provenance=provenance(config.seed),
        notes=tuple(f"{name} stays whole: {reason}" for name, reason in compressed.skipped.items()),
    )


def _settings(
    config: PruneConfig, compressed: Compressed, held_out: Agreement, samples: int
) -> dict[str, str]:
    settings = {
        "data": config.data,
        "model": config.model,
        "calibration": f"{samples} training images, no labels",
    }
    for name, asked, limit, achieved, fraction in compressed.budgets.rows:
        settings[f"budget {name}"] = (
            f"asked {asked} (at most {limit:,.6g}), achieved {achieved:,.6g} ({fraction:.2%})"
        )
    for where, found in (("calibration", compressed.agreement), ("test", held_out)):
        same = "" if found.same_top is None else f", same class on {found.same_top:.2%}"
        settings[f"agreement, {where}"] = f"relative error {found.relative_error:.3g}{same}"
    return settings


def _sizes(compressed: Compressed, final: nn.Module) -> tuple[Size, ...]:
    from mipprune.graph import count_parameters

    groups = compressed.groups
    kept = groups.kept(compressed.masks)
    limits = {name: limit for name, _, limit, _, _ in compressed.budgets.rows}
    return (
        Size("MACs", groups.macs(), limits.get("macs"), groups.macs(kept), compressed.macs),
        Size(
            "parameters",
            groups.parameters(),
            limits.get("params"),
            groups.parameters(kept),
            count_parameters(final),
        ),
        Size(
            "channels",
            groups.n_classes,
            limits.get("channels"),
            int(kept.sum()),
            int(kept.sum()),
        ),
    )


def _gaps(compressed: Compressed) -> tuple[GapEntry, ...]:
    widths = compressed.widths
    entries = [GapEntry("widths", widths.value, widths.bound, widths.gap)]
    entries.append(GapEntry("widths and masks", widths.value, widths.error_bound, widths.error_gap))
    entries += [
        GapEntry(f.name, f.value, f.bound, f.gap) for f in compressed.families if f.after < f.before
    ]
    return tuple(entries)


def _error_curves(compressed: Compressed) -> tuple[ErrorCurve, ...]:
    return tuple(
        ErrorCurve(
            curve.family,
            tuple(int(count) for count in curve.counts),
            tuple(float(value) for value in curve.values),
            tuple(float(bound) for bound in curve.bounds),
            compressed.widths.counts[curve.family],
        )
        for curve in (found.curve for found in compressed.curves)
    )
