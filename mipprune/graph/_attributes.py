"""Which integer attributes of modules a forward pass reads."""

import copy
from typing import Any

import torch
from torch import nn

from mipprune.graph.example import Example

__all__ = ["integers_read"]

# What user code may raise on a copy that watches itself.
_FAILURES = (
    RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError,
    ArithmeticError,
)  # fmt: skip


def integers_read(model: nn.Module, example: Example) -> set[tuple[str, str]] | None:
    """(module, attribute) of every integer attribute read while a copy runs the example.

    Modules of torch itself are not watched. None if the watched copy fails to
    run: then nothing is known.
    """
    watched = copy.deepcopy(model).eval()
    read: set[tuple[str, str]] = set()
    try:
        for path, module in watched.named_modules():
            if not type(module).__module__.startswith("torch."):
                _watch(module, path, read)
        with torch.no_grad():
            watched(*example.args, **example.kwargs)
    except _FAILURES:
        return None
    return read


def _watch(module: nn.Module, path: str, read: set[tuple[str, str]]) -> None:
    base = type(module)

    def getattribute(self: Any, name: str) -> Any:
        value = base.__getattribute__(self, name)
        if type(value) is int:
            read.add((path, name))
        return value

    module.__class__ = type(base.__name__, (base,), {"__getattribute__": getattribute})
