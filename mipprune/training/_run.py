"""State of a training run: everything a checkpoint holds, and how to go on."""

import itertools
import json
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mipprune._support.files import write_text
from mipprune._support.progress import Progress
from mipprune.errors import InputError, NonFiniteLossError
from mipprune.models import Dataset, DataSource, Forward, batches, move_batch, run_model
from mipprune.training.checkpoint import (
    CHECKPOINT_NAME,
    all_finite,
    environment,
    load_checkpoint,
    save_checkpoint,
    warn_if_changed,
)
from mipprune.training.config import TrainConfig
from mipprune.training.evaluation import Criterion, autocast, batch_length, evaluate
from mipprune.training.method import Method, optimizer_groups

__all__ = ["METRICS_NAME", "Run", "build_optimizer"]

METRICS_NAME = "metrics.jsonl"


def build_optimizer(method: Method, config: TrainConfig) -> torch.optim.SGD | torch.optim.AdamW:
    """Optimizer over the parameter groups of a prepared method."""
    entries = optimizer_groups(
        method.parameter_groups(), lr=config.lr, weight_decay=config.weight_decay
    )
    if config.optimizer == "adamw":
        return torch.optim.AdamW(entries, lr=config.lr)
    return torch.optim.SGD(
        entries, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov
    )


class Run:
    """State of a run: everything a checkpoint holds, and how to go one epoch on."""

    def __init__(
        self,
        model: nn.Module,
        data: Dataset | DataSource,
        config: TrainConfig,
        method: Method,
        out: str | Path | None,
        forward: Forward | None,
        criterion: Criterion,
        specification: Mapping[str, Any] | None,
    ) -> None:
        self.model, self.data, self.config, self.method = model, data, config, method
        self.forward, self.criterion = forward, criterion
        self.specification = dict(specification or {})
        self.checkpoint = None if out is None else Path(out) / CHECKPOINT_NAME
        self.optimizer = build_optimizer(method, config)
        self.batches_per_epoch = _count_batches(data, config)
        self.steps_per_epoch = math.ceil(self.batches_per_epoch / config.accumulate)
        self.layout = torch.channels_last if config.channels_last else torch.preserve_format
        self.epoch = self.step = self.batch = 0
        self.sums = {"loss": 0.0, "objective": 0.0, "steps": 0.0, "seconds": 0.0}
        self.history: list[dict[str, float]] = []
        self.saved_step = -1

    def train_epoch(self, interrupted: threading.Event, bar: Progress) -> None:
        """Steps to the end of the epoch, or to the first one after an interrupt."""
        self.model.train()
        source = batches(
            self.data,
            "train",
            self.config.batch_size,
            epoch=self.epoch,
            seed=self.config.seed,
            augment=self.config.augment,
            start=self.batch,
        )
        started = time.monotonic()
        for window in _windows(source, self.config.accumulate):
            loss = self.train_step(window)
            self.batch += len(window)
            self.step += 1
            bar.update(epoch=f"{self.epoch + 1}/{self.config.epochs}", loss=loss)
            if interrupted.is_set() and self.batch < self.batches_per_epoch:
                break
        else:
            if self.batch == 0:
                raise InputError("the training split has no batches")
            self.batch = 0
        self.sums["seconds"] += time.monotonic() - started

    def train_step(self, window: Sequence[Any]) -> float:
        """One optimizer step over micro-batches; returns the mean data loss."""
        config, optimizer = self.config, self.optimizer
        # Noise of dropout and gates depends on the step alone, so a resumed run repeats it.
        torch.manual_seed(config.seed * 1_000_003 + self.step)
        lr = config.learning_rate(self.epoch + self.batch / self.batches_per_epoch)
        for entry in optimizer.param_groups:
            entry["lr"] = lr * entry["lr_scale"]
        optimizer.zero_grad(set_to_none=True)
        sizes = [batch_length(batch) for batch in window] if len(window) > 1 else [1]
        mean = 0.0
        for batch, size in zip(window, sizes, strict=True):
            share = size / sum(sizes)
            batch = move_batch(batch, config.device, memory_format=self.layout)
            with autocast(config.device, config.precision):
                outputs = run_model(self.model, batch, self.forward)
            base = self.criterion(outputs, batch)
            objective = self.method.loss(outputs, batch, base)
            self._refuse_non_finite(objective, lr)
            torch.autograd.backward(objective * share if share < 1 else objective)
            mean += base.item() * share
            self.sums["objective"] += objective.item() * share
        self.method.after_backward()
        if config.clip_norm is not None:
            nn.utils.clip_grad_norm_(
                [p for entry in optimizer.param_groups for p in entry["params"]], config.clip_norm
            )
        optimizer.step()
        self.method.after_step(lr)
        self.sums["loss"] += mean
        self.sums["steps"] += 1
        return mean

    def _refuse_non_finite(self, objective: Tensor, lr: float) -> None:
        if math.isfinite(objective.item()):
            return
        kept = (
            f"the checkpoint of the last good epoch is {self.checkpoint}"
            if self.checkpoint is not None and self.checkpoint.exists()
            else "no checkpoint was written yet"
        )
        raise NonFiniteLossError(
            f"the loss became {objective.item()} in epoch {self.epoch + 1}, step {self.step + 1} "
            f"(lr {lr:.3g}); {kept}; lower the learning rate, warm up or clip the gradient"
        )

    def end_epoch(self) -> None:
        """Evaluate, let the method report, and append the record of the epoch."""
        config, steps = self.config, self.sums["steps"]
        self.epoch += 1
        record = {
            "epoch": self.epoch,
            "lr": config.learning_rate(self.epoch - 1 / self.batches_per_epoch),
            "loss": self.sums["loss"] / steps,
            "objective": self.sums["objective"] / steps,
            "seconds": self.sums["seconds"],
        }
        self.sums = dict.fromkeys(self.sums, 0.0)
        due = config.evaluate_every and self.epoch % config.evaluate_every == 0
        if due or (config.evaluate_every and self.epoch == config.epochs):
            found = evaluate(
                self.model,
                self.data,
                "validation",
                precision=config.precision,
                channels_last=config.channels_last,
                device=config.device,
                forward=self.forward,
                criterion=self.criterion,
            )
            record["val_loss"] = found.loss
            if found.accuracy is not None:
                record["val_accuracy"] = found.accuracy
        record |= self.method.end_epoch(record)
        self.history.append(record)

    def save(self) -> None:
        """Write checkpoint and metrics, unless this state is on disk already."""
        if self.checkpoint is None or self.saved_step == self.step:
            return
        state = {
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.state_dict(),
        }
        if not all_finite(state):
            raise NonFiniteLossError(
                f"a weight became NaN or infinite in epoch {self.epoch}; the checkpoint before it "
                "is kept; lower the learning rate, warm up or clip the gradient"
            )
        position = {"epoch": self.epoch, "step": self.step, "batch": self.batch, "sums": self.sums}
        save_checkpoint(
            self.checkpoint,
            state
            | position
            | {
                "history": self.history,
                "config": self.config.as_dict(),
                "data": self._data_record(),
                "method_class": type(self.method).__name__,
                "specification": self.specification,
                "environment": environment(self.config.device),
            },
        )
        lines = [json.dumps(record) for record in self.history]
        write_text(self.checkpoint.with_name(METRICS_NAME), "".join(f"{x}\n" for x in lines))
        self.saved_step = self.step

    def restore(self) -> None:
        """Continue from the checkpoint."""
        if self.checkpoint is None:
            raise InputError("resume=True needs out=, the folder of the run")
        content = load_checkpoint(self.checkpoint, device=self.config.device)
        differing = self.config.differences(content["config"])
        for key, own in (
            ("data", self._data_record()),
            ("method_class", type(self.method).__name__),
            ("specification", self.specification),
        ):
            if content[key] != own:
                differing.append(f"{key} (stored {content[key]!r}, given {own!r})")
        if differing:
            raise InputError(
                f"{self.checkpoint} belongs to a run with other settings: {'; '.join(differing)}"
            )
        warn_if_changed(content["environment"], environment(self.config.device))
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.method.load_state_dict(content["method"])
        self.epoch, self.step, self.batch = content["epoch"], content["step"], content["batch"]
        self.sums, self.history = content["sums"], content["history"]
        self.saved_step = self.step

    def _data_record(self) -> dict[str, Any]:
        return self.data.describe() if isinstance(self.data, Dataset) else {}


def _count_batches(data: Dataset | DataSource, config: TrainConfig) -> int:
    if isinstance(data, Dataset):
        return math.ceil(len(data.train) / config.batch_size)
    if config.batches_per_epoch is not None:
        return config.batches_per_epoch
    try:
        return len(data.train)  # type: ignore[arg-type]  # DataLoaders and lists have a length
    except TypeError as error:
        raise InputError(
            "the training data has no length; set batches_per_epoch in the configuration"
        ) from error


def _windows(source: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while window := list(itertools.islice(source, size)):
        yield window
