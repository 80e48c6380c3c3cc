"""Methods without a mechanism of their own: dense training and magnitude."""

from typing import ClassVar, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mipprune._support.checks import require_choice
from mipprune.errors import InputError
from mipprune.graph.budgets import Budgets
from mipprune.graph.groups import ChannelGroups, Masks
from mipprune.training.choosing import choose_by_score
from mipprune.training.method import Method, ParameterGroup
from mipprune.training.packing import pack_channels

T = TypeVar("T")

__all__ = ["Dense", "L1Norm"]


class Dense(Method):
    """Plain training; keeps every channel unless a budget says otherwise, then by number."""

    def __init__(self) -> None:
        self._model: nn.Module | None = None
        self._groups: ChannelGroups | None = None

    def bind(self, model: nn.Module) -> None:
        """Train ``model`` without knowing its channels."""
        self._model = model

    def prepare(self, model: nn.Module, groups: ChannelGroups) -> nn.Module:
        self._model, self._groups = model, groups
        return model

    def parameter_groups(self) -> list[ParameterGroup]:
        model = _bound(self._model)
        return [{"params": [p for p in model.parameters() if p.requires_grad]}]

    def scores(self) -> NDArray[np.float64]:
        """All equal: dense training says nothing about importance."""
        return np.ones(_bound(self._groups).n_classes)

    def choose(self, budget: Budgets | None = None) -> Masks:
        groups = _bound(self._groups)
        if budget is None:
            return groups.masks(np.ones(groups.n_classes, dtype=bool))
        raise InputError(
            "dense training has no opinion on which channels go; choose another method, or pass "
            "the network to compress()"
        )

    def finish(self, model: nn.Module, masks: Masks) -> nn.Module:
        return model


class L1Norm(Method):
    """Magnitude pruning of a trained network: the classes with the smallest mean |w| go.

    Parameters
    ----------
    normalise : {"none", "layer"}
        ``layer`` divides each class's norm by the mean over its family, so that
        families are cut about alike ("uniform"); ``none`` compares all classes
        directly ("global").

    References
    ----------
    Li, Kadav, Durdanovic, Samet, Graf, "Pruning Filters for Efficient ConvNets",
    ICLR 2017, section 3.1 (there per layer; the filter's absolute sum).
    """

    starts_from: ClassVar[Literal["scratch", "reference"]] = "reference"
    trains: ClassVar[bool] = False

    def __init__(self, *, normalise: Literal["none", "layer"] = "layer") -> None:
        require_choice("normalise", normalise, ("none", "layer"))
        self.normalise = normalise
        self._model: nn.Module | None = None
        self._groups: ChannelGroups | None = None

    def prepare(self, model: nn.Module, groups: ChannelGroups) -> nn.Module:
        self._model, self._groups = model, groups
        return model

    def parameter_groups(self) -> list[ParameterGroup]:
        model = _bound(self._model)
        return [{"params": [p for p in model.parameters() if p.requires_grad]}]

    @torch.no_grad()
    def scores(self) -> NDArray[np.float64]:
        model, groups = _bound(self._model), _bound(self._groups)
        packing = pack_channels(model, groups)
        parameters = [model.get_parameter(name) for name in packing.names]
        sums = packing.layout.total(packing.flat(parameters).abs())[:-1]
        means = sums.double().cpu().numpy() / packing.sizes
        found = packing.per_class(means, groups.n_classes)
        if self.normalise == "layer":
            for family in groups:
                part = found[family.start : family.stop]
                mean = part[np.isfinite(part)].mean() if np.isfinite(part).any() else 1.0
                part /= mean if mean > 0 else 1.0
        return found

    def choose(self, budget: Budgets | None = None) -> Masks:
        if budget is None:
            raise InputError("the L1 norm has no rule without a budget; give one")
        return choose_by_score(_bound(self._groups), self.scores(), budget)

    def finish(self, model: nn.Module, masks: Masks) -> nn.Module:
        return model


def _bound(value: T | None) -> T:
    if value is None:
        raise InputError("call prepare(model, groups) before using the method")
    return value
