"""What a batch is: the one place that knows, used by everything that runs a model.

A batch is a tensor, a pair ``(inputs, target)`` or a mapping with the target
under one of :data:`TARGET_KEYS`. Anything else runs with a function of the
user's, ``forward(model, batch) -> outputs``.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from mipprune._support.checks import require_instance, require_integer
from mipprune.errors import InputError

__all__ = [
    "TARGET_KEYS",
    "Forward",
    "check_labels",
    "main_output",
    "move_batch",
    "run_model",
    "split_batch",
]

TARGET_KEYS = ("labels", "label", "target", "targets")
"""Keys under which a mapping may hold its target; the first one present counts."""

Forward: TypeAlias = Callable[[nn.Module, Any], Any]
"""``forward(model, batch) -> outputs``, replaces the defaults of :func:`split_batch`."""


def split_batch(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Split a batch into ``(args, kwargs, target)`` for ``model(*args, **kwargs)``.

    ========================  ==================  ==================  ==========
    batch                     args                kwargs              target
    ========================  ==================  ==================  ==========
    tensor ``x``              ``(x,)``            ``{}``              ``None``
    ``(x,)``                  ``(x,)``            ``{}``              ``None``
    ``(x, y)``, x a tensor    ``(x,)``            ``{}``              ``y``
    ``((a, b, ...), y)``      ``(a, b, ...)``     ``{}``              ``y``
    ``({...}, y)``            ``()``              the mapping         ``y``
    mapping                   ``()``              all but the target  the target
    ========================  ==================  ==================  ==========

    Raises
    ------
    InputError
        For anything else; the message names the way around.
    """
    if isinstance(batch, Tensor):
        return (batch,), {}, None
    if isinstance(batch, Mapping):
        key = next((key for key in TARGET_KEYS if key in batch), None)
        inputs = {name: value for name, value in batch.items() if name != key}
        return (), inputs, None if key is None else batch[key]
    if isinstance(batch, tuple | list) and len(batch) in (1, 2):
        inputs, target = batch[0], batch[1] if len(batch) == 2 else None
        if isinstance(inputs, Tensor):
            return (inputs,), {}, target
        if isinstance(inputs, Mapping):
            return (), dict(inputs), target
        if isinstance(inputs, tuple | list):
            return tuple(inputs), {}, target
    described = type(batch).__name__
    if isinstance(batch, tuple | list):
        described += f" of {len(batch)} ({', '.join(type(item).__name__ for item in batch)})"
    raise InputError(
        f"cannot split a batch that is a {described}; expected a tensor, a pair (inputs, target) "
        f"or a mapping with one of the keys {', '.join(TARGET_KEYS)}; "
        "for other batches pass forward=, a function (model, batch) -> outputs"
    )


def run_model(model: nn.Module, batch: Any, forward: Forward | None = None) -> Any:
    """Outputs of ``model`` for ``batch``, by ``forward`` or by :func:`split_batch`."""
    if forward is not None:
        return forward(model, batch)
    args, kwargs, _ = split_batch(batch)
    return model(*args, **kwargs)


def main_output(outputs: Any) -> Tensor:
    """The tensor that a loss or a comparison reads: the tensor itself, ``logits`` or the first.

    Raises
    ------
    InputError
        If there is no such tensor.
    """
    candidate = outputs
    if isinstance(candidate, Mapping):
        candidate = candidate.get("logits", next(iter(candidate.values()), None))
    elif not isinstance(candidate, Tensor) and hasattr(candidate, "logits"):
        candidate = candidate.logits
    elif isinstance(candidate, tuple | list) and candidate:
        candidate = candidate[0]
    if not isinstance(candidate, Tensor):
        raise InputError(
            f"the model returned a {type(outputs).__name__} without a main tensor; pass forward=, "
            "a function (model, batch) -> tensor"
        )
    return candidate


def move_batch(
    batch: Any,
    device: torch.device | str,
    *,
    memory_format: torch.memory_format = torch.preserve_format,
) -> Any:
    """The batch with all its tensors on ``device``; four-dimensional ones in ``memory_format``."""
    if isinstance(batch, Tensor):
        layout = memory_format if batch.ndim == 4 else torch.preserve_format
        return batch.to(device, non_blocking=True, memory_format=layout)
    if isinstance(batch, Mapping):
        return {
            name: move_batch(value, device, memory_format=memory_format)
            for name, value in batch.items()
        }
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(
            *(move_batch(item, device, memory_format=memory_format) for item in batch)
        )
    if isinstance(batch, tuple | list):
        return type(batch)(move_batch(item, device, memory_format=memory_format) for item in batch)
    return batch


def check_labels(labels: Tensor, n_classes: int, where: str) -> None:
    """Refuse labels that are no integers or lie outside ``0 .. n_classes - 1``.

    Raises
    ------
    InputError
        The message gives the range found and ``where``.
    """
    require_instance("labels", labels, Tensor)
    n_classes = require_integer("n_classes", n_classes, at_least=1)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(f"labels of {where} are {labels.dtype}, expected integers")
    if labels.numel() == 0:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= n_classes:
        raise InputError(
            f"labels of {where} run from {low} to {high}, expected 0 to {n_classes - 1} "
            f"for {n_classes} classes"
        )
