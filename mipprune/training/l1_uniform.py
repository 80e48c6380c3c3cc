"""Magnitude pruning with the same share of every family."""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mipprune.errors import InputError
from mipprune.graph.budgets import Budgets
from mipprune.graph.groups import ChannelGroups, Masks
from mipprune.training.baselines import L1Norm
from mipprune.training.binding import family_ranks, prepared
from mipprune.training.choosing import choose_by_score
from mipprune.training.method import Method, ParameterGroup

__all__ = ["L1Uniform"]


class L1Uniform(Method):
    """Within each family the classes with the smallest mean |w| go, in equal shares.

    The score of a class is its rank within the family; widths therefore shrink
    in proportion, and the weights decide only which channels stay.
    (:class:`L1Norm` compares weights across families.)

    References
    ----------
    Li, Kadav, Durdanovic, Samet, Graf, "Pruning Filters for Efficient ConvNets",
    ICLR 2017, section 3.1 ("uniform" with one ratio for all layers).
    """

    starts_from: ClassVar[Literal["scratch", "reference"]] = "reference"
    trains: ClassVar[bool] = False

    def __init__(self) -> None:
        self._norm = L1Norm(normalise="none")
        self._groups: ChannelGroups | None = None

    def prepare(self, model: nn.Module, groups: ChannelGroups) -> nn.Module:
        self._groups = groups
        return self._norm.prepare(model, groups)

    def parameter_groups(self) -> list[ParameterGroup]:
        return self._norm.parameter_groups()

    def scores(self) -> NDArray[np.float64]:
        return family_ranks(prepared(self._groups), self._norm.scores())

    def choose(self, budget: Budgets | None = None) -> Masks:
        if budget is None:
            raise InputError("uniform pruning has no rule without a budget; give one")
        return choose_by_score(prepared(self._groups), self.scores(), budget)

    def finish(self, model: nn.Module, masks: Masks) -> nn.Module:
        return model
