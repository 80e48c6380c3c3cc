"""The whole way: reference, training with a method, rounding, removal, fine-tuning, report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from mipprune._support.checks import require_callable, require_flag, require_instance, require_path
from mipprune._support.devices import require_device
from mipprune.errors import DataFileError
from mipprune.graph import Masks
from mipprune.graph.budgets import Budgets
from mipprune.models import (
    Dataset,
    DataSource,
    Forward,
    batches,
    load_weights,
    require_model_name,
)
from mipprune.pipeline._config import PruneConfig
from mipprune.pipeline._directory import RunDirectory
from mipprune.pipeline._latency import measure_latency
from mipprune.pipeline._phases import (
    fine_tune,
    new_method,
    remove_channels,
    train_dense,
    train_method,
)
from mipprune.pipeline._recipes import phase_settings
from mipprune.pipeline._summary import build_report
from mipprune.pipeline._task import (
    ModelFactory,
    Task,
    example_inputs,
    find_groups,
    load_task_data,
    new_network,
    refuse_wrong_shapes,
)
from mipprune.report import Latency, PruneReport, ReportFiles, load_report, write_report
from mipprune.training import Criterion, method_class

__all__ = ["PruneResult", "make_task", "prune"]

LATENCY_BATCH = 32


@dataclass(frozen=True, eq=False)
class PruneResult:
    """Outcome of :func:`prune`.

    Attributes
    ----------
    model : nn.Module
        The pruned, fine-tuned network.
    masks : mapping
        Family name -> bool array, True = kept.
    report : PruneReport
    folder : Path
    files : ReportFiles
    """

    model: nn.Module
    masks: Masks
    report: PruneReport
    folder: Path
    files: ReportFiles


def prune(
    config: PruneConfig,
    out: str | Path,
    *,
    resume: bool = False,
    model: ModelFactory | None = None,
    data: Dataset | DataSource | None = None,
    forward: Forward | None = None,
    criterion: Criterion | None = None,
    inputs: tuple[Any, ...] | None = None,
    progress: bool = True,
) -> PruneResult:
    """Train a network so that it can lose channels, remove them, fine-tune and report.

    Phases: dense reference; the method's training (SPR: from scratch, with M
    from the reference); rounding to the budget; physical removal, compared with
    the masked network; fine-tuning; report.

    Parameters
    ----------
    config : PruneConfig
    out : path
        Folder of the run, see :class:`mipprune.pipeline.RunDirectory`.
    resume : bool
        Go on with the run in ``out`` at the phase and epoch where it was
        stopped; on a CPU with the same threads and build the result is that of
        an uninterrupted run.
    model : callable, optional
        ``model() -> nn.Module``, newly initialised, instead of ``config.model``.
    data : Dataset or DataSource, optional
        Instead of ``config.data``, which then is only its name in the report.
    forward, criterion : callable, optional
        As for :func:`mipprune.training.train`.
    inputs : tuple, optional
        Example arguments of the network; default: those of the first batch.
    progress : bool

    Returns
    -------
    PruneResult

    Raises
    ------
    InputError
        Settings that do not fit, ``out`` exists (without ``resume``), or holds
        no run (with it).
    BudgetError
        The budget cannot be reached; raised before anything is trained.
    TraceError
        The network cannot be traced, or does not take the data.
    KeyboardInterrupt
        After everything was saved; ``resume`` goes on.
    """
    require_instance("config", config, PruneConfig)
    require_flag("resume", resume)
    require_path("out", out, "folder")
    if not resume:
        RunDirectory.refuse_existing(out)
    else:
        RunDirectory.open(out, config)
    task = make_task(config, model, data, forward, criterion, inputs, progress)
    budget = Budgets.parse({**config.limits, "multiple_of": config.multiple_of})
    limits = {}
    if config.limits:
        limits = {resource.name: resource.limit for resource in budget.resolve(task.groups)}
    rounding = None if config.rounding == "authors" else budget
    _try_out(task, rounding, Path(out))
    run = RunDirectory.open(out, config) if resume else RunDirectory.create(out, config)
    reference = train_dense(task, run)
    trained = train_method(task, run, reference, rounding)
    smaller, masks = remove_channels(task, run, trained, rounding)
    final = fine_tune(task, run, smaller)
    report = _report(task, run, masks, limits, reference, final)
    files = write_report(report, run.path)
    return PruneResult(final, masks, report, run.path, files)


def make_task(
    config: PruneConfig,
    model: ModelFactory | None,
    data: Dataset | DataSource | None,
    forward: Forward | None,
    criterion: Criterion | None,
    inputs: tuple[Any, ...] | None,
    progress: bool,
) -> Task:
    """Load and check everything that can be checked before training."""
    require_instance("config", config, PruneConfig)
    _refuse_missing(config, model)
    functions = {"model": model, "forward": forward, "criterion": criterion}
    for name, function in functions.items():
        if function is not None:
            require_callable(name, function)
    found = load_task_data(config, data)
    arguments = (inputs, {}) if inputs is not None else example_inputs(found)

    def factory() -> nn.Module:
        return new_network(config, found, model)

    network = factory()
    if forward is None:
        refuse_wrong_shapes(network, arguments, config.device)
    return Task(
        config=config,
        data=found,
        factory=factory,
        groups=find_groups(network, arguments, config.device),
        inputs=arguments,
        settings=phase_settings(config, found),
        forward=forward,
        criterion=criterion,
        progress=progress,
    )


def _refuse_missing(config: PruneConfig, model: ModelFactory | None) -> None:
    """What is wrong whatever the data are, before they are read."""
    method_class(config.method)
    require_device(config.device)
    if config.weights is not None and not Path(config.weights).is_file():
        hint = "; it is a folder" if Path(config.weights).is_dir() else ""
        raise DataFileError(f"there is no weight file '{config.weights}'{hint}")
    if model is None:
        require_model_name(config.model)


def _try_out(task: Task, budget: Budgets | None, out: Path) -> None:
    """Refuse weights and options of the method now, not after the dense phase."""
    network = task.factory()
    if task.config.weights is not None:
        load_weights(network, task.config.weights)
    new_method(task, network, budget, out)


def _report(
    task: Task,
    run: RunDirectory,
    masks: Masks,
    limits: dict[str, float],
    dense: nn.Module,
    final: nn.Module,
) -> PruneReport:
    if (run.path / "report.json").is_file():
        return load_report(run.path)
    latency = _latency(task, dense, final) if task.config.latency_repeats else None
    return build_report(task, run, masks, limits, latency)


def _latency(task: Task, dense: nn.Module, final: nn.Module) -> Latency:
    task.announce("latency")
    batch = next(iter(batches(task.data, "test", LATENCY_BATCH, shuffle=False, augment=False)))
    return measure_latency(
        dense,
        final,
        batch,
        repeats=task.config.latency_repeats,
        device=task.config.device,
        forward=task.forward,
    )
