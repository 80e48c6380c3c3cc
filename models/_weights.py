"""Initial weights from a generator, without a trace in the global random state."""

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from mipprune.errors import InputError

__all__ = ["build_with", "initialise"]

_Module = TypeVar("_Module", bound=nn.Module)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def build_with(factory: Callable[[], _Module], generator: torch.Generator | None) -> _Module:
    """Call ``factory`` and draw all weights of its result from ``generator``.

    The layers of torch draw from the global state while they are constructed;
    that state is put back, so building a network changes no later draw.

    Parameters
    ----------
    factory : callable
        Returns a module of convolutions, linear layers and batch norms.
    generator : torch.Generator, optional
        On the CPU. Default: a new one with seed 0.
    """
    with torch.random.fork_rng(devices=[]):
        model = factory()
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    initialise(model, generator)
    return model


@torch.no_grad()
def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of ``model`` in place, in the order of its modules.

    Convolutions: normal with variance ``2 / (k_h k_w c_out / groups)``; linear
    layers: uniform on ``+-1/sqrt(fan_in)``; norms: scale 1, shift 0, running
    statistics reset; convolution biases 0.

    Raises
    ------
    InputError
        If a module that owns parameters is none of these.

    References
    ----------
    He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015, Eq. (14).
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels // module.groups * math.prod(module.kernel_size)
            module.weight.normal_(0.0, math.sqrt(2.0 / fan_out), generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.Linear):
            bound = 1.0 / math.sqrt(module.in_features)
            module.weight.uniform_(-bound, bound, generator=generator)
            if module.bias is not None:
                module.bias.uniform_(-bound, bound, generator=generator)
        elif isinstance(module, _NORMS):
            module.reset_parameters()
        elif any(True for _ in module.parameters(recurse=False)):
            raise InputError(
                f"module '{name}' of type {type(module).__name__} owns parameters that the "
                "initialisation does not know; initialise the network yourself"
            )
