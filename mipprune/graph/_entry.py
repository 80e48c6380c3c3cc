"""Checks with which functions that take a network or its groups begin."""

from torch import nn

from mipprune._support.checks import require_instance
from mipprune.graph.groups import ChannelGroups

__all__ = ["require_groups", "require_network"]


def require_network(value: object, name: str = "model") -> nn.Module:
    """``value`` if it is a network, else an InputError."""
    return require_instance(name, value, nn.Module, "give the torch.nn.Module itself")


def require_groups(value: object) -> ChannelGroups:
    """``value`` if it is what :func:`mipprune.channel_groups` returns, else an InputError."""
    hint = "find them with channel_groups(model, example_inputs)"
    return require_instance("groups", value, ChannelGroups, hint)
