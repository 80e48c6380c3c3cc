"""Example inputs: one batch on which a network is traced and compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mipprune._support.checks import require_mapping
from mipprune.errors import InputError

__all__ = ["Example", "as_dtype", "example_of", "random_like"]


@dataclass(frozen=True, eq=False)
class Example:
    """Example inputs of a network: positional and keyword arguments."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def batch_size(self) -> int:
        """First dimension of the first tensor, 1 where there is none."""
        for leaf in pytree.tree_leaves((self.args, dict(self.kwargs))):
            if isinstance(leaf, Tensor) and leaf.dim() > 0:
                return max(1, leaf.size(0))
        return 1


def example_of(example_inputs: Any, example_kwargs: Mapping[str, Any] | None) -> Example:
    """Normalise what the caller gave: a tensor, a tuple or list of arguments, or a mapping."""
    kwargs: dict[str, Any] = {}
    if example_kwargs is not None:
        kwargs.update(require_mapping("example_kwargs", example_kwargs, "a mapping of keywords"))
    if isinstance(example_inputs, Tensor):
        args: tuple[Any, ...] = (example_inputs,)
    elif isinstance(example_inputs, (tuple, list)):
        args = tuple(example_inputs)
    elif isinstance(example_inputs, Mapping):
        args, kwargs = (), {**example_inputs, **kwargs}
    elif example_inputs is None:
        args = ()
    else:
        raise InputError(
            f"example_inputs is a {type(example_inputs).__name__}; expected a tensor, a tuple of "
            "positional arguments, or a mapping of keyword arguments"
        )
    if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves((args, kwargs))):
        raise InputError("the example inputs contain no tensor; give one batch of real shape")
    return Example(*_detached((args, kwargs)))


def _detached(tree: Any) -> Any:
    return pytree.tree_map(lambda x: x.detach().clone() if isinstance(x, Tensor) else x, tree)


def random_like(example: Example, generator: torch.Generator, dtype: torch.dtype | None) -> Example:
    """Other inputs of the same shapes.

    Floating tensors become normal with the mean and spread of the example (and
    ``dtype`` if given); integers and bools are drawn from the example's values.
    """

    def draw(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        if not x.is_floating_point():
            flat = x.reshape(-1)
            if flat.numel() == 0:
                return x
            index = torch.randint(flat.numel(), (flat.numel(),), generator=generator)
            return flat[index.to(x.device)].view(x.shape)
        finite = x[torch.isfinite(x)].double()
        spread = float(finite.std()) if finite.numel() > 1 else 0.0
        mean = float(finite.mean()) if finite.numel() else 0.0
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        drawn = (mean + (spread or 1.0) * noise).to(device=x.device, dtype=dtype or x.dtype)
        return torch.where(torch.isfinite(x), drawn, x.to(drawn.dtype))

    return Example(*pytree.tree_map(draw, (example.args, dict(example.kwargs))))


def as_dtype(example: Example, dtype: torch.dtype | None) -> Example:
    """The example with floating tensors in ``dtype`` (None: as they are)."""
    if dtype is None:
        return example

    def cast(x: Any) -> Any:
        return x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x

    return Example(*pytree.tree_map(cast, (example.args, dict(example.kwargs))))
