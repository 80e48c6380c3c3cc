"""Counting parameters and multiply-accumulates of a network as it stands."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mipprune.graph._entry import require_network
from mipprune.graph.example import example_of
from mipprune.graph.finder import default_rules
from mipprune.graph.labeller import Labeller
from mipprune.graph.tracing import trace

__all__ = ["count_macs", "count_parameters"]


def count_parameters(model: nn.Module) -> int:
    """Number of parameters; tied ones once, buffers not at all."""
    return sum(p.numel() for p in require_network(model).parameters())


def count_macs(
    model: nn.Module, example_inputs: Any, *, example_kwargs: Mapping[str, Any] | None = None
) -> int:
    """Multiply-accumulates per example of convolutions, matrix products and attention.

    Counted on the traced network, so that what a module computes counts, not
    what it is called. Elementwise operators, norms and pooling are not counted,
    nor are recurrent layers.

    Raises
    ------
    TraceError
        If the network cannot be traced.
    """
    traced = trace(require_network(model), example_of(example_inputs, example_kwargs))
    state = Labeller(traced, default_rules(), lambda path, size: [])
    with torch.no_grad():
        state.run()
    return round(sum(t.coefficient * _positions(t.axes) for t in state.terms))


def _positions(axes: tuple[torch.Tensor, ...]) -> float:
    product = 1.0
    for axis in axes:
        product *= axis.numel()
    return product
