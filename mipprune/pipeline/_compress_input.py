"""What a compression is given: batches, groups, and what a folder's steps belong to."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from mipprune.errors import InputError
from mipprune.graph import Budgets, ChannelGroups, channel_groups, count_macs
from mipprune.models import move_batch, split_batch
from mipprune.pipeline._compressed import CompressOptions

__all__ = ["checked_batches", "counted_macs", "fingerprint", "found_groups"]


def checked_batches(batches: Iterable[Any]) -> Iterable[Any]:
    """Batches that can be read more than once."""
    if isinstance(batches, Iterator):
        raise InputError("batches: an iterator can be read only once; give a list or a data loader")
    return batches


def first_inputs(
    model: nn.Module, batches: Iterable[Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of the network from the first batch."""
    first = next(iter(batches), None)
    if first is None:
        raise InputError("batches: expected at least one batch, got none")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    args, kwargs, _ = split_batch(move_batch(first, device))
    return args, kwargs


def counted_macs(model: nn.Module, batches: Iterable[Any]) -> int:
    """MACs per example, counted on the network."""
    args, kwargs = first_inputs(model, batches)
    return count_macs(model, args, example_kwargs=kwargs or None)


def found_groups(model: nn.Module, batches: Iterable[Any]) -> ChannelGroups:
    """Groups of a network, at least one family."""
    args, kwargs = first_inputs(model, batches)
    groups = channel_groups(model, args, example_kwargs=kwargs or None)
    if not groups.families:
        reasons = "; ".join(sorted({frozen.reason for frozen in groups.frozen}))
        raise InputError(f"no channel of this network can be removed: {reasons}")
    return groups


def fingerprint(
    model: nn.Module, groups: ChannelGroups, budget: Budgets, settings: CompressOptions
) -> dict[str, Any]:
    """What a folder's steps belong to."""
    return {
        "network": type(model).__name__,
        "families": {family.name: len(family) for family in groups},
        "weights": float(sum(p.detach().double().abs().sum().item() for p in model.parameters())),
        "budgets": {name: str(amount) for name, amount in budget.given().items()},
        "multiple_of": budget.multiple_of,
        "damping": settings.damping,
        "shrink_to": settings.shrink_to,
        "weighting": settings.weighting,
        "most_widths": settings.most_widths,
        "recalibrate": settings.recalibrate,
        "try_widths": settings.try_widths,
        "seed": settings.seed,
    }
