"""The network and the groups that a method was prepared for, and rankings of its classes."""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mipprune.errors import InputError
from mipprune.graph.groups import ChannelGroups
from mipprune.training.method import ParameterGroup

__all__ = ["Binding", "family_ranks", "per_family_mean", "prepared", "with_minimum"]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Binding:
    """A prepared network and its channel groups."""

    model: nn.Module
    groups: ChannelGroups

    def trainable(self) -> list[ParameterGroup]:
        """All trainable parameters in one entry."""
        return [{"params": [p for p in self.model.parameters() if p.requires_grad]}]


def prepared(value: T | None) -> T:
    """``value``, or an error where the method was not prepared yet."""
    if value is None:
        raise InputError("call prepare(model, groups) before using the method")
    return value


def per_family_mean(groups: ChannelGroups, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores divided by the mean over their family, so that families are cut about alike."""
    found = scores.copy()
    for family in groups:
        part = found[family.start : family.stop]
        finite = part[np.isfinite(part)]
        mean = float(finite.mean()) if finite.size else 0.0
        part /= mean if mean > 0 else 1.0
    return found


def family_ranks(groups: ChannelGroups, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank of each class within its family, in (0, 1): the same share goes from every family.

    Rank i of n (from the least important) becomes (i + 1/2) / n; equal scores go
    by index. Infinite scores stay infinite.
    """
    found = np.empty_like(scores)
    for family in groups:
        own = scores[family.start : family.stop]
        order = np.argsort(own, kind="stable")
        ranks = np.empty(len(own))
        ranks[order] = (np.arange(len(own)) + 0.5) / len(own)
        found[family.start : family.stop] = np.where(np.isposinf(own), np.inf, ranks)
    return found


def with_minimum(groups: ChannelGroups, minimum: int) -> ChannelGroups:
    """The same groups with at least ``minimum`` classes in each family, or all it has."""
    families = tuple(
        replace(family, minimum=min(len(family), max(family.minimum, minimum))) for family in groups
    )
    return replace(groups, families=families)
