"""The training loop that all methods plug into."""

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from mipprune._support.checks import (
    require_flags,
    require_instance,
    require_mapping,
    require_path,
    require_text,
)
from mipprune._support.progress import Progress
from mipprune.errors import InputError
from mipprune.graph import require_network
from mipprune.models import Dataset, DataSource, Forward, check_data
from mipprune.training._run import Run
from mipprune.training.baselines import Dense
from mipprune.training.config import TrainConfig
from mipprune.training.evaluation import Criterion, classification_loss, require_calls
from mipprune.training.method import Method

__all__ = ["TrainResult", "train"]


@dataclass(frozen=True)
class TrainResult:
    """Outcome of :func:`train`.

    Attributes
    ----------
    history : tuple of mappings
        One per finished epoch: ``epoch`` (from 1), ``lr`` (last), ``loss`` (mean
        data loss), ``objective`` (mean of what was minimised), ``seconds``,
        ``val_loss``, ``val_accuracy`` where evaluated, and the method's own.
    interrupted : bool
        True if Ctrl-C ended the run early; resume continues it.
    """

    history: tuple[Mapping[str, float], ...]
    interrupted: bool


def train(
    model: nn.Module,
    data: Dataset | DataSource,
    config: TrainConfig,
    *,
    method: Method | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    specification: Mapping[str, Any] | None = None,
    forward: Forward | None = None,
    criterion: Criterion | None = None,
    label: str = "train",
    progress: bool = True,
) -> TrainResult:
    """Train ``model`` in place.

    Parameters
    ----------
    model : nn.Module
        As returned by ``method.prepare`` where there is a method.
    data : Dataset or DataSource
        ``train`` is trained on, ``validation`` evaluated; ``test`` is not touched.
    config : TrainConfig
    method : Method, optional
        Prepared. Default: plain training.
    out : path, optional
        Existing folder for ``checkpoint.pt`` (after every epoch, and on Ctrl-C)
        and ``metrics.jsonl``. Without it nothing is written.
    resume : bool
        Continue from the checkpoint in ``out``. On a CPU with the same threads,
        build and settings the result is bit-identical to an uninterrupted run;
        a difference in these warns (:class:`ResumeWarning`).
    specification : mapping, optional
        Plain types kept in the checkpoint, e.g. the widths of a pruned network.
    forward : callable, optional
        ``forward(model, batch) -> outputs`` for batches that are no tensors,
        pairs or mappings.
    criterion : callable, optional
        ``criterion(outputs, batch) -> scalar``. Default: cross-entropy with
        ``config.label_smoothing``.
    label : str
        Name of the phase in the progress bar.
    progress : bool

    Returns
    -------
    TrainResult
        Ctrl-C saves the state at the next step and returns with
        ``interrupted=True``; a second Ctrl-C raises ``KeyboardInterrupt``.

    Raises
    ------
    InputError
        ``out`` holds a run already (without ``resume``) or none (with it), or
        the stored settings differ.
    NonFiniteLossError
        The loss became NaN or infinite; the last good checkpoint stays.
    DataFileError
        A file cannot be written or read.
    """
    require_network(model)
    check_data(data, "data", ("train",))
    require_instance("config", config, TrainConfig, "make one with TrainConfig(epochs=...)")
    if method is not None:
        require_instance("method", method, Method, "make one with build_method(name)")
    require_flags(resume=resume, progress=progress)
    require_text("label", label)
    require_calls(forward, criterion)
    if specification is not None:
        require_mapping("specification", specification)
    if out is not None:
        out = require_path("out", out, "folder")
    if criterion is None:

        def criterion(outputs: Any, batch: Any) -> Tensor:
            return classification_loss(outputs, batch, label_smoothing=config.label_smoothing)

    device = torch.device(config.device)
    model.to(device)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    run = Run(model, data, config, method or _dense(model), out, forward, criterion, specification)
    if resume:
        run.restore()
    elif run.checkpoint is not None and run.checkpoint.exists():
        raise InputError(
            f"{run.checkpoint.parent} holds a run already; resume it or choose another folder"
        )
    mode = model.training
    devices = [device] if device.type == "cuda" else []
    with _interrupts() as interrupted, torch.random.fork_rng(devices=devices):
        bar = Progress(label, config.epochs * run.steps_per_epoch, unit="step", enabled=progress)
        bar.done = run.step
        with bar:
            while run.epoch < config.epochs and not interrupted.is_set():
                run.train_epoch(interrupted, bar)
                if interrupted.is_set() and run.batch > 0:
                    break
                run.end_epoch()
                run.save()
    if interrupted.is_set():
        run.save()
    model.train(mode)
    return TrainResult(tuple(run.history), run.epoch < config.epochs)


def _dense(model: nn.Module) -> Method:
    method = Dense()
    method.bind(model)
    return method


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into an event; only the main thread can."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handler(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)
