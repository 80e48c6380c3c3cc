"""Methods x budgets x seeds on equal terms: run what is missing, then one report."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from mipprune._support.checks import (
    require_flag,
    require_instance,
    require_integer,
    require_path,
    require_time_limit,
)
from mipprune._support.devices import require_device
from mipprune._support.files import require_writable_folder
from mipprune._support.progress import Progress
from mipprune._support.provenance import provenance
from mipprune.errors import DataFileError, InputError, MissingExtraError
from mipprune.pipeline._compare_cell import (
    measure_cell_latency,
    read_result,
    run_cell,
    train_entry,
    train_shared,
)
from mipprune.pipeline._compare_config import Cell, CompareConfig, load_compare_config
from mipprune.report.comparison import (
    CellResult,
    Comparison,
    ComparisonFiles,
    write_comparison,
)
from mipprune.training import method_class

__all__ = ["CompareResult", "compare"]

CONFIG_NAME = "config.json"
Job = tuple[Callable[..., None], tuple[Any, ...]]


@dataclass(frozen=True, eq=False)
class CompareResult:
    """Outcome of :func:`compare`.

    Attributes
    ----------
    comparison : Comparison
        All finished cells, and the names of those that are not.
    folder : Path
    files : ComparisonFiles
    """

    comparison: Comparison
    folder: Path
    files: ComparisonFiles


def compare(
    config: CompareConfig,
    out: str | Path,
    *,
    resume: bool = False,
    jobs: int = 1,
    time_limit: float | None = None,
    progress: bool = True,
) -> CompareResult:
    """Train, round, fine-tune and measure every cell that is not there yet, then report.

    Per seed: the dense baseline; a shared start for one-shot methods; each
    method's training (once, or once per budget where the budget is part of
    it); then each cell. Every result is a file of its own, written atomically,
    so that a comparison can be stopped at any time and extended by more
    methods, budgets or seeds. Latencies are measured last, one at a time.

    Parameters
    ----------
    config : CompareConfig
    out : path
        Folder of the comparison.
    resume : bool
        Go on with the comparison in ``out``. Lists of methods, budgets, seeds and
        roundings may have grown or shrunk; everything else must be the same.
    jobs : int
        Processes (joblib) that train at the same time, one thread each.
    time_limit : float, optional
        Seconds after which nothing new is started; unfinished cells are listed.
    progress : bool

    Returns
    -------
    CompareResult

    Raises
    ------
    InputError
        ``out`` is in use (without ``resume``), or by other settings (with it).
    MissingExtraError
        ``jobs`` > 1 without joblib.
    KeyboardInterrupt
        After what runs was saved; ``resume`` goes on.
    """
    require_instance("config", config, CompareConfig)
    require_integer("jobs", jobs, at_least=1)
    require_time_limit(time_limit, zero=True)
    require_flag("resume", resume)
    require_path("out", out, "folder")
    require_device(config.device)
    folder = _open(config, Path(out), resume)
    began = time.monotonic()
    deadline = math.inf if time_limit is None else began + time_limit
    runner = _Runner(jobs, deadline, progress)
    for name, stage in _stages(config, folder):
        runner.run(name, stage)
    runner.finish(
        "latency", [(measure_cell_latency, (config, folder, cell)) for cell in config.cells()]
    )
    found = _collect(config, folder, time.monotonic() - began)
    return CompareResult(found, folder, write_comparison(found, folder))


def _stages(config: CompareConfig, folder: Path) -> list[tuple[str, list[Job]]]:
    """Jobs of one stage are independent of each other and need the stages before."""
    cells = list(config.cells())
    starts = sorted({entry.start for entry in config.methods if entry.start is not None})
    shared = [
        (train_shared, (config, folder, seed, which))
        for seed in config.seeds
        for which in ("dense", *starts)
    ]
    trainings: dict[str, Job] = {}
    for cell in cells:
        if method_class(cell.entry.method).trains:
            trainings.setdefault(cell.training_folder, (train_entry, (config, folder, cell)))
    return [
        ("dense", shared),
        ("training", list(trainings.values())),
        ("cells", [(run_cell, (config, folder, cell)) for cell in cells]),
    ]


@dataclass(frozen=True)
class _Runner:
    """Runs independent jobs, in order, until the deadline."""

    jobs: int
    deadline: float
    progress: bool

    def run(self, name: str, stage: Sequence[Job]) -> None:
        if self.jobs == 1:
            self.finish(name, stage, self.deadline)
            return
        try:
            joblib: Any = import_module("joblib")
        except ImportError:
            raise MissingExtraError("joblib", "dask", "for jobs > 1") from None
        left = self.deadline - time.monotonic()
        parallel = joblib.Parallel(n_jobs=self.jobs, batch_size=1, return_as="generator_unordered")
        # Monotonic clocks of processes need not agree; the time of day does.
        until = time.time() + left
        done = parallel(joblib.delayed(_guarded)(job, until) for job in stage)
        with warnings.catch_warnings():
            # Idle workers end, and joblib starts others.
            warnings.filterwarnings("ignore", message="A worker stopped", category=UserWarning)
            with Progress(name, len(stage), unit="jobs", enabled=self.progress) as bar:
                for _ in done:
                    bar.update()

    def finish(self, name: str, stage: Sequence[Job], deadline: float = math.inf) -> None:
        """One after the other, here."""
        with Progress(name, len(stage), unit="jobs", enabled=self.progress) as bar:
            for call, arguments in stage:
                if time.monotonic() < deadline and _ready(call, arguments):
                    call(*arguments)
                bar.update()


def _guarded(job: Job, until: float) -> None:
    call, arguments = job
    torch.set_num_threads(1)
    if time.time() < until and _ready(call, arguments):
        call(*arguments)


def _ready(call: Callable[..., None], arguments: tuple[Any, ...]) -> bool:
    """Whether the stages before left what the job needs (they may have met the deadline)."""
    if call is train_shared or call is measure_cell_latency:
        return True
    _, folder, cell = arguments
    seed = folder / f"seed-{cell.seed}"
    kind = method_class(cell.entry.method)
    needed = [seed / "dense"]
    if cell.entry.start is not None:
        needed.append(seed / cell.entry.start)
    if call is run_cell and kind.trains:
        needed.append(folder / cell.training_folder)
    return all(read_result(part) is not None for part in needed)


def _open(config: CompareConfig, folder: Path, resume: bool) -> Path:
    """Make the folder, or check that it is a comparison with the same settings."""
    stored = folder / CONFIG_NAME
    if resume:
        if not stored.is_file():
            raise InputError(f"there is no comparison in {folder}; start it without --resume")
        differing = _differences(config, load_compare_config(stored))
        if differing:
            raise InputError(
                f"{folder} is a comparison with other settings (given and stored): "
                f"{'; '.join(differing)}"
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        hint = "continue it with --resume" if stored.exists() else "it is not one of ours"
        raise InputError(f"{folder} exists already ({hint}), or choose another folder")
    require_writable_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataFileError(f"cannot make the folder {folder}: {error}") from error
    config.save(stored)
    return folder


def _differences(given: CompareConfig, stored: CompareConfig) -> list[str]:
    lists = {"methods", "budgets", "seeds", "roundings"}
    mine, theirs = given.to_json(), stored.to_json()
    found = [
        f"{name} ({mine[name]!r} and {theirs[name]!r})"
        for name in mine
        if name not in lists and mine[name] != theirs[name]
    ]
    before = {entry.name: entry for entry in stored.methods}
    found += [
        f"method '{entry.name}'"
        for entry in given.methods
        if entry.name in before and entry != before[entry.name]
    ]
    return found


def _collect(config: CompareConfig, folder: Path, seconds: float) -> Comparison:
    cells, missing, failed = [], [], []
    for cell in config.cells():
        result = read_result(folder / cell.folder)
        if result is None:
            missing.append(_label(cell))
        elif "error" in result:
            failed.append(f"{_label(cell)}: {result['error']}")
        else:
            cells.append(_cell_result(config, cell, result))
    dense = {
        seed: found
        for seed in config.seeds
        if (found := read_result(folder / f"seed-{seed}" / "dense")) is not None
    }
    return Comparison(
        title=f"{config.model} on {config.data}",
        resource=config.resource,
        budgets=config.budgets,
        methods=tuple(entry.name for entry in config.methods),
        roundings=config.roundings,
        dense={seed: float(found["test"]) for seed, found in dense.items()},
        dense_macs=next((int(found["macs"]) for found in dense.values()), 0),
        dense_params=next((int(found["params"]) for found in dense.values()), 0),
        cells=tuple(cells),
        missing=tuple(missing),
        failed=tuple(failed),
        settings=_settings(config),
        provenance={**provenance(), "seconds": round(seconds, 1)},
    )


def _cell_result(config: CompareConfig, cell: Cell, result: dict[str, Any]) -> CellResult:
    return CellResult(
        method=cell.entry.name,
        budget=cell.budget,
        rounding=cell.rounding,
        seed=cell.seed,
        test=float(result["test"]),
        validation=float(result["validation"]),
        removed=float(result["after_removal"]["validation"]),
        trained=float(result["after_training"]),
        macs=int(result["macs"]),
        params=int(result["params"]),
        epochs=int(result["epochs"]),
        latency_ratio=result.get("latency_ratio"),
        seconds=float(result["seconds"]),
    )


def _label(cell: Cell) -> str:
    return f"{cell.entry.name} at {cell.budget}, {cell.rounding} rounding, seed {cell.seed}"


def _settings(config: CompareConfig) -> dict[str, Any]:
    dense, train, tune = config.phases
    content = {
        "data": config.data,
        "network": config.model,
        **{f"network {name}": value for name, value in config.model_options.items()},
        "epochs": f"dense {dense}; each cell {train} + {tune}",
        "seeds": ", ".join(map(str, config.seeds)),
        "training": ", ".join(f"{k} {v}" for k, v in config.training.items()) or "recipe",
    }
    for entry in config.methods:
        if entry.options:
            options = ", ".join(f"{name} {value}" for name, value in entry.options.items())
            content[entry.name] = options
    return content
