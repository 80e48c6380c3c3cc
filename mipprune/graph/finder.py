"""From the labels of a traced network to its channel groups."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mipprune._support.checks import require_flag, require_iterable, require_mapping, require_text
from mipprune.errors import InputError
from mipprune.graph import (
    _rules_contraction,
    _rules_elementwise,
    _rules_joining,
    _rules_movement,
    _rules_reduction,
)
from mipprune.graph._assemble import assemble
from mipprune.graph._attributes import integers_read
from mipprune.graph._entry import require_network
from mipprune.graph.example import example_of
from mipprune.graph.groups import ChannelGroups
from mipprune.graph.labeller import Labeller, Rule
from mipprune.graph.removal import rehearse
from mipprune.graph.rounding import random_masks
from mipprune.graph.tracing import Traced, trace

__all__ = ["channel_groups", "default_rules"]


def default_rules() -> dict[str, Rule]:
    """Operator name (without ``aten::``) -> rule, as a fresh dictionary."""
    return {
        **_rules_elementwise.RULES,
        **_rules_movement.RULES,
        **_rules_joining.RULES,
        **_rules_contraction.RULES,
        **_rules_reduction.RULES,
    }


def channel_groups(
    model: nn.Module,
    example_inputs: Any,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    ignore: Iterable[str] = (),
    rules: Mapping[str, Rule] | None = None,
    prune_normalised: bool = False,
    rehearsal: bool = True,
) -> ChannelGroups:
    """Find the channels of a network that can only be removed together.

    The network is traced in eval mode on the example inputs (a copy of it; the
    model is left as it is). Channels that meet an operation that is not
    understood stay, with the reason.

    Parameters
    ----------
    model : torch.nn.Module
    example_inputs : tensor, tuple of arguments or mapping of keyword arguments
        One batch of the real shape; the first dimension of the first tensor is
        the batch, by which MACs are divided.
    example_kwargs : mapping, optional
        Further keyword arguments.
    ignore : iterable of str
        Names of modules or parameters whose channels stay.
    rules : mapping, optional
        Operator name -> rule, added to `default_rules`; a rule computes the
        labels of the result of an operator, see ``docs/graph.md``.
    prune_normalised : bool
        Whether channels that a layer or RMS norm takes statistics over may go.
        The statistics are then over fewer channels, so that removal is not
        zeroing: `Family.removal_is_zeroing` is False for such families.
    rehearsal : bool
        Try one removal of half of all channels on a copy with random weights,
        and freeze the families that do not come through (a size written into
        the forward pass). False saves one forward pass of two networks.

    Returns
    -------
    ChannelGroups

    Raises
    ------
    TraceError
        If the network cannot be traced.
    InputError
        If ``ignore`` names nothing in the model, or there is no tensor input.
    """
    require_network(model)
    require_flag("prune_normalised", prune_normalised)
    require_flag("rehearsal", rehearsal)
    if rules is not None:
        require_mapping("rules", rules, "a mapping of operator names to rules")
    ignored = _ignored(model, ignore)
    traced = trace(model, example_of(example_inputs, example_kwargs))
    state = _labelled(model, traced, {**default_rules(), **(rules or {})}, prune_normalised)
    for (name, _), labels in state.axes.items():
        if name in ignored:
            state.space.freeze(labels, "named in ignore")
        elif name in traced.overlapping:
            state.space.freeze(labels, "shares memory with another tensor")
    groups = assemble(model, state)
    return _rehearsed(model, state, groups) if rehearsal else groups


def _labelled(
    model: nn.Module, traced: Traced, rules: Mapping[str, Rule], prune_normalised: bool
) -> Labeller:
    state = Labeller(
        traced,
        rules,
        lambda path, size: _integers(model, path, size),
        cache(lambda: integers_read(model, traced.example)),
        prune_normalised=prune_normalised,
    )
    with torch.no_grad():
        state.run()
    return state


def _rehearsed(model: nn.Module, state: Labeller, groups: ChannelGroups) -> ChannelGroups:
    """Freeze the families whose removal fails when tried."""
    masks = random_masks(groups, np.random.default_rng(0), keep=0.5)
    good: dict[str, NDArray[np.bool_]] = {}
    bad: list[tuple[str, str]] = []

    def sift(names: list[str]) -> None:
        reason = rehearse(model, groups, {**good, **{n: masks[n] for n in names}})
        if reason is None:
            good.update({n: masks[n] for n in names})
        elif len(names) == 1:
            bad.append((names[0], reason))
        else:
            sift(names[: len(names) // 2])
            sift(names[len(names) // 2 :])

    if not len(groups):
        return groups
    sift(list(masks))
    if not bad:
        return groups
    owners = {(a.tensor, a.dim): a.owner for a in groups.axes}
    for name, reason in bad:
        family = groups.by_name[name]
        for key, owner in owners.items():
            inside = (owner >= family.start) & (owner < family.stop)
            state.space.freeze_numbers(state.axes[key].numpy()[inside], reason)
    return _rehearsed(model, state, assemble(model, state))


def _ignored(model: nn.Module, ignore: Iterable[str]) -> set[str]:
    given = [ignore] if isinstance(ignore, str) else require_iterable("ignore", ignore)
    names = [require_text("ignore", name, "names of modules or parameters") for name in given]
    tensors = [n for n, _ in model.named_parameters(remove_duplicate=False)]
    tensors += [n for n, _ in model.named_buffers(remove_duplicate=False)]
    found: set[str] = set()
    for name in names:
        matches = {t for t in tensors if t == name or t.startswith(f"{name}.")}
        if not matches:
            raise InputError(
                f"ignore names '{name}', but no module or parameter of the network is called so"
            )
        found |= matches
    return found


# Attributes of these names are never numbers of channels, whatever their value.
_NO_SIZES = ("stride", "dilation", "kernel_size", "depth", "num_layers", "n_layers", "n_blocks")


def _integers(model: nn.Module, path: str, size: int) -> list[str]:
    """Integer attributes of a module with this value, those that speak of padding first."""
    module = model.get_submodule(path)
    found = [
        name
        for name, value in vars(module).items()
        if type(value) is int and value == size and not name.startswith("_")
    ]
    return sorted((n for n in found if n not in _NO_SIZES), key=lambda n: "pad" not in n)
