"""Loss and accuracy of a network on a split."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipprune._support.checks import (
    require_callable,
    require_choice,
    require_flag,
    require_integer,
)
from mipprune._support.devices import require_device
from mipprune.errors import InputError
from mipprune.graph import require_network
from mipprune.models import (
    SPLITS,
    Dataset,
    DataSource,
    Forward,
    batches,
    check_data,
    check_labels,
    main_output,
    move_batch,
    run_model,
    split_batch,
)
from mipprune.training.config import CHOICES

__all__ = ["Criterion", "Evaluation", "classification_loss", "evaluate"]

Criterion: TypeAlias = Callable[[Any, Any], Tensor]
"""``criterion(outputs, batch) -> scalar loss``, mean over the examples of the batch."""


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and share of right answers over ``n_examples``.

    ``accuracy`` is in 0..1, None where the targets are no class labels.
    """

    loss: float
    accuracy: float | None
    n_examples: int


def batch_length(batch: Any) -> int:
    """Number of examples of a batch: first size of its target or first input."""
    args, kwargs, target = (
        split_batch(batch) if not isinstance(batch, Tensor) else ((batch,), {}, None)
    )
    for candidate in (target, *args, *kwargs.values()):
        if isinstance(candidate, Tensor) and candidate.ndim:
            return len(candidate)
    raise InputError("cannot count the examples of a batch without any tensor")


def autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    """Autocast to bfloat16 where ``precision`` is "bf16"; otherwise does nothing."""
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16")


def classification_loss(
    outputs: Any, batch: Any, *, label_smoothing: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy of the network's main output with the labels of ``batch``.

    Raises
    ------
    InputError
        A batch without labels, or labels outside the number of outputs.
    """
    target = split_batch(batch)[2]
    logits = main_output(outputs)
    if not isinstance(target, Tensor):
        raise InputError(
            "the batch has no target; give (inputs, labels) or a mapping with 'labels', or pass "
            "criterion=, a function (outputs, batch) -> loss"
        )
    if target.device.type == "cpu" and not target.is_floating_point():
        check_labels(target, logits.shape[1], "a batch")
    return F.cross_entropy(
        logits.float(), target, label_smoothing=label_smoothing, reduction=reduction
    )


def require_calls(forward: object, criterion: object) -> None:
    """Refuse a ``forward`` or ``criterion`` that cannot be called; None is the default."""
    if forward is not None:
        require_callable("forward", forward, "a function (model, batch) -> outputs, or None")
    if criterion is not None:
        require_callable("criterion", criterion, "a function (outputs, batch) -> loss, or None")


@torch.no_grad()
def evaluate(
    model: nn.Module,
    data: Dataset | DataSource,
    split: str,
    *,
    batch_size: int = 512,
    precision: str = "float32",
    channels_last: bool = True,
    device: str = "cpu",
    forward: Forward | None = None,
    criterion: Criterion | None = None,
) -> Evaluation:
    """Evaluate in eval mode, without augmentation; the mode is restored afterwards.

    Parameters
    ----------
    model : nn.Module
        On ``device``.
    data : Dataset or DataSource
    split : {"train", "validation", "test"}
    batch_size : int
    precision : {"float32", "bf16"}
    channels_last : bool
    device : str
    forward, criterion : callable, optional
        As for :func:`mipprune.training.train`.
    """
    require_network(model)
    check_data(data, "data", (require_choice("split", split, SPLITS),))
    batch_size = require_integer("batch_size", batch_size, at_least=1)
    require_choice("precision", precision, CHOICES["precision"])
    require_flag("channels_last", channels_last)
    require_device(device)
    require_calls(forward, criterion)
    layout = torch.channels_last if channels_last else torch.preserve_format
    modes = {module: module.training for module in model.modules()}
    model.eval()
    loss_sum, right, total, labelled = 0.0, 0, 0, True
    try:
        for host_batch in batches(data, split, batch_size, shuffle=False, augment=False):
            batch = move_batch(host_batch, device, memory_format=layout)
            with autocast(device, precision):
                outputs = run_model(model, batch, forward)
            loss = (criterion or classification_loss)(outputs, batch)
            size = batch_length(batch)
            loss_sum += float(loss) * size
            total += size
            hits = _hits(outputs, batch) if labelled else None
            labelled = hits is not None
            right += hits or 0
    finally:
        for module, mode in modes.items():
            module.training = mode
    if total == 0:
        raise InputError(f"split '{split}' has no batches")
    return Evaluation(loss_sum / total, right / total if labelled else None, total)


def _hits(outputs: Any, batch: Any) -> int | None:
    """Right answers of a batch, None where outputs and targets are no classification."""
    target = split_batch(batch)[2]
    if not isinstance(target, Tensor) or target.is_floating_point():
        return None
    logits = main_output(outputs)
    if logits.ndim != target.ndim + 1:
        return None
    return int((logits.argmax(dim=1) == target).sum())
