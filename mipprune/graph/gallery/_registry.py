"""Registry of structures and their examination."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from mipprune.graph.counting import count_macs, count_parameters
from mipprune.graph.finder import channel_groups
from mipprune.graph.gallery import _attention, _branches, _convolutions, _functional, _plain
from mipprune.graph.groups import ChannelGroups
from mipprune.graph.removal import remove, verify_removal
from mipprune.graph.rounding import random_masks

__all__ = ["STRUCTURES", "Examination", "Structure", "examine"]

Build = Callable[[], tuple[nn.Module, Any]]


@dataclass(frozen=True)
class Structure:
    """A small network and its example inputs; ``build`` draws weights from torch's generator."""

    family: str
    name: str
    build: Build


def _collect() -> Mapping[str, Structure]:
    found = {}
    modules: list[Mapping[str, Mapping[str, Build]]] = [
        _plain.MEMBERS,
        _convolutions.MEMBERS,
        _branches.MEMBERS,
        _attention.MEMBERS,
        _functional.MEMBERS,
    ]
    for family, members in (item for module in modules for item in module.items()):
        for name, build in members.items():
            found[name] = Structure(family, name, build)
    return found


STRUCTURES: Mapping[str, Structure] = _collect()


@dataclass(frozen=True)
class Examination:
    """What was found and how well removal agreed: worst relative difference over all removals."""

    groups: ChannelGroups
    removals: int
    worst: float
    counted: bool


def examine(structure: Structure, seed: int = 0, keep: float = 0.6) -> Examination:
    """Find the groups, remove random channels of each group alone and of all together.

    Raises
    ------
    RemovalError
        If a smaller network differs from the masked one.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, example = structure.build()
    groups = channel_groups(model, example)
    rng = np.random.default_rng(seed)
    masks = random_masks(groups, rng, keep)
    trials = [{name: mask} for name, mask in masks.items()] + [masks]
    worst, counted = 0.0, True
    for trial in trials:
        smaller = remove(model, groups, trial, verify=False)
        check = verify_removal(model, smaller, groups, trial)
        kept = groups.kept(trial)
        counted &= count_parameters(smaller) == groups.parameters(kept)
        worst = max(worst, check.relative_difference) if check.passed else float("inf")
    counted &= count_macs(smaller, example) == groups.macs(kept)
    return Examination(groups, len(trials), worst, counted)
