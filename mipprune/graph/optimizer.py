"""Optimiser state for the smaller network."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from mipprune._support.checks import require_instance
from mipprune.errors import InputError
from mipprune.graph._entry import require_groups, require_network
from mipprune.graph.groups import Axis, ChannelGroups, Masks
from mipprune.graph.surgery import Kept, axes_of, sliced

__all__ = ["carry_optimizer"]


def carry_optimizer(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    smaller: nn.Module,
    groups: ChannelGroups,
    masks: Masks,
) -> torch.optim.Optimizer:
    """An optimiser of the same kind for ``smaller`` with the state of the kept channels.

    Momentum, second moments and the like are sliced as the parameters were;
    step counters and the options of each parameter group are copied. Schedulers
    refer to the optimiser they were built with: build them again.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Optimises parameters of ``model``.
    model, smaller : torch.nn.Module
        Before and after `remove` with the same ``groups`` and ``masks``.

    Raises
    ------
    InputError
        A parameter that is not the model's, or state that does not have the
        shape of its parameter (factored moments) and can not be sliced.
    """
    hint = "the one that trained the model"
    require_instance("optimizer", optimizer, torch.optim.Optimizer, hint)
    require_network(model)
    require_network(smaller, "smaller")
    kept = require_groups(groups).kept(masks)
    names = {id(p): n for n, p in model.named_parameters()}
    fresh = dict(smaller.named_parameters(remove_duplicate=False))
    by_tensor = axes_of(groups)
    new_groups = []
    state: list[tuple[nn.Parameter, dict[str, Any]]] = []
    for group in optimizer.param_groups:
        members = []
        for parameter in group["params"]:
            name = names.get(id(parameter))
            if name is None:
                raise InputError(
                    f"the optimiser holds a parameter of shape {tuple(parameter.shape)} that is "
                    "not in the model; pass the model it was built for"
                )
            new = fresh[name]
            assert isinstance(new, nn.Parameter)
            members.append(new)
            if parameter in optimizer.state:
                axes = by_tensor.get(groups.aliases.get(name, name), [])
                state.append((new, _sliced_state(name, parameter, optimizer, axes, kept)))
        new_groups.append({**group, "params": members})
    accepted = inspect.signature(type(optimizer).__init__).parameters
    options = {k: v for k, v in optimizer.defaults.items() if k in accepted}
    carried = type(optimizer)(new_groups, **options)
    for parameter, entries in state:
        carried.state[parameter] = entries
    return carried


def _sliced_state(
    name: str,
    parameter: Tensor,
    optimizer: torch.optim.Optimizer,
    axes: list[Axis],
    kept: Kept,
) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for key, value in optimizer.state[parameter].items():
        if not isinstance(value, Tensor):
            entries[key] = value
        elif value.shape == parameter.shape:
            entries[key] = sliced(value, axes, kept)
        elif value.numel() == 1 or not axes:
            entries[key] = value.clone()
        else:
            raise InputError(
                f"optimiser state '{key}' of '{name}' has shape {tuple(value.shape)}, its "
                f"parameter {tuple(parameter.shape)}; such state can not be carried, "
                "start the optimiser anew"
            )
    return entries
