"""Settings of a training run, and the learning rate they imply."""

import itertools
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from mipprune._support.checks import (
    require_flags,
    require_integer,
    require_iterable,
    require_real,
    require_text,
)
from mipprune.errors import InputError

__all__ = ["CHOICES", "TrainConfig"]

CHOICES = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("multistep", "cosine", "constant"),
    "precision": ("float32", "bf16"),
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one phase of training.

    Attributes
    ----------
    epochs : int
    batch_size : int
        Examples of one forward pass; an optimizer step uses ``accumulate`` of them.
    lr : float
        Highest learning rate.
    optimizer : {"sgd", "adamw"}
    momentum : float
        Of SGD; ``nesterov`` chooses the variant.
    weight_decay : float
    schedule : {"multistep", "cosine", "constant"}
        Applied per step, after the warm-up. ``multistep`` multiplies by
        ``decay`` at each of ``milestones``; ``cosine`` ends at 0.
    milestones : tuple of float
        Fractions of the epochs, increasing, in (0, 1).
    decay : float
    warmup_epochs : float
        Linear from 0, may be a fraction of an epoch.
    label_smoothing : float
    accumulate : int
        Micro-batches per optimizer step.
    clip_norm : float or None
        Largest norm of the whole gradient.
    precision : {"float32", "bf16"}
        ``bf16`` is autocast; weights, optimizer and penalties stay float32.
    channels_last : bool
        Memory layout of convolutions, faster on CPUs and on tensor cores.
    augment : bool
        Whether the training split is augmented as its data set says.
    seed : int
        Order of the examples, augmentation, dropout and noise derive from
        (seed, epoch, index) or (seed, step).
    device : str
    evaluate_every : int
        Epochs between evaluations on the validation split; the last epoch
        always has one. 0: never.
    batches_per_epoch : int or None
        Only for data without a length.

    Raises
    ------
    InputError
        A value outside its range.
    """

    epochs: int
    batch_size: int = 128
    lr: float = 0.1
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: Literal["multistep", "cosine", "constant"] = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    decay: float = 0.1
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    accumulate: int = 1
    clip_norm: float | None = None
    precision: Literal["float32", "bf16"] = "float32"
    channels_last: bool = True
    augment: bool = True
    seed: int = 0
    device: str = "cpu"
    evaluate_every: int = 1
    batches_per_epoch: int | None = None

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if not isinstance(getattr(self, name), str) or getattr(self, name) not in choices:
                raise InputError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        at_least = {"epochs": 1, "batch_size": 1, "accumulate": 1, "evaluate_every": 0, "seed": 0}
        for name, smallest in at_least.items():
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < smallest:
                raise InputError(f"{name} must be an integer >= {smallest}, got {number!r}")
        _check_types(self)
        not_negative = ("weight_decay", "warmup_epochs", "momentum")
        for name in not_negative:
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be finite and >= 0, got {getattr(self, name)!r}")
        if not 0 < self.lr < math.inf:
            raise InputError(f"lr must be positive and finite, got {self.lr!r}")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing must be in [0, 1), got {self.label_smoothing!r}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise InputError(f"clip_norm must be positive or None, got {self.clip_norm!r}")
        if self.warmup_epochs > self.epochs:
            raise InputError(
                f"warmup_epochs ({self.warmup_epochs}) must not exceed epochs ({self.epochs})"
            )
        steps = (0.0, *self.milestones, 1.0)
        if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
            raise InputError(
                f"milestones must increase within (0, 1) (fractions of the epochs), "
                f"got {self.milestones}"
            )

    def learning_rate(self, epochs_done: float) -> float:
        """Learning rate after ``epochs_done`` epochs, a fraction in between.

        Examples
        --------
        >>> config = TrainConfig(epochs=10, lr=1.0, schedule="multistep", milestones=(0.5,))
        >>> config.learning_rate(4.9), config.learning_rate(5.0)
        (1.0, 0.1)
        """
        if epochs_done < self.warmup_epochs:
            return self.lr * epochs_done / self.warmup_epochs
        if self.schedule == "cosine":
            span = self.epochs - self.warmup_epochs
            done = min((epochs_done - self.warmup_epochs) / span, 1.0) if span > 0 else 1.0
            return self.lr * 0.5 * (1 + math.cos(math.pi * done))
        if self.schedule == "multistep":
            passed = sum(epochs_done >= part * self.epochs for part in self.milestones)
            return self.lr * self.decay**passed
        return self.lr

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for checkpoints and reports."""
        content = asdict(self)
        content["milestones"] = list(self.milestones)
        return content

    def differences(self, stored: dict[str, Any]) -> list[str]:
        """What differs from a stored :meth:`as_dict`, one text per field."""
        own = self.as_dict()
        return [
            f"{field.name} (stored {stored.get(field.name)!r}, given {own[field.name]!r})"
            for field in fields(self)
            if stored.get(field.name) != own[field.name]
        ]


def _check_types(config: TrainConfig) -> None:
    """Refuse texts and the like before they are compared with numbers."""
    numbers = ("lr", "momentum", "weight_decay", "decay", "warmup_epochs", "label_smoothing")
    require_real(**{name: getattr(config, name) for name in numbers})
    if config.clip_norm is not None:
        require_real(clip_norm=config.clip_norm)
    flags = ("nesterov", "channels_last", "augment")
    require_flags(**{name: getattr(config, name) for name in flags})
    for part in require_iterable("milestones", config.milestones, "fractions of the epochs"):
        require_real(milestones=part)
    if config.batches_per_epoch is not None:
        require_integer("batches_per_epoch", config.batches_per_epoch, at_least=1)
    require_text("device", config.device, "the name of a device, such as cpu or cuda")
