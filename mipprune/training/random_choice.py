"""Random channels: what a method has to beat."""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mipprune._support.checks import require_flags, require_integer
from mipprune.errors import InputError
from mipprune.graph.budgets import Budgets
from mipprune.graph.groups import ChannelGroups, Masks
from mipprune.training.binding import Binding, family_ranks, prepared
from mipprune.training.choosing import choose_by_score
from mipprune.training.method import Method, ParameterGroup

__all__ = ["RandomChoice"]


class RandomChoice(Method):
    """Channels of the trained network go at random, the same share of every family.

    Parameters
    ----------
    uniform : bool
        True: the same share of each family; False: independent of the family, so
        that shares vary.
    seed : int
        Of the draw, unless ``generator`` is given.
    generator : numpy.random.Generator, optional

    References
    ----------
    Mittal, Bhardwaj, Khapra, Ravindran, "Recovering from Random Pruning", WACV 2018: at equal
    fine-tuning random filters are a strong baseline.
    """

    starts_from: ClassVar[Literal["scratch", "reference"]] = "reference"
    trains: ClassVar[bool] = False

    def __init__(
        self, *, uniform: bool = True, seed: int = 0, generator: np.random.Generator | None = None
    ) -> None:
        require_flags(uniform=uniform)
        seed = require_integer("seed", seed, at_least=0)
        self.uniform = uniform
        self._generator = np.random.default_rng(seed) if generator is None else generator
        self._bound: Binding | None = None
        self._scores: NDArray[np.float64] | None = None

    def prepare(self, model: nn.Module, groups: ChannelGroups) -> nn.Module:
        self._bound = Binding(model, groups)
        drawn = self._generator.random(groups.n_classes)
        self._scores = family_ranks(groups, drawn) if self.uniform else drawn
        return model

    def parameter_groups(self) -> list[ParameterGroup]:
        return prepared(self._bound).trainable()

    def scores(self) -> NDArray[np.float64]:
        return prepared(self._scores).copy()

    def choose(self, budget: Budgets | None = None) -> Masks:
        if budget is None:
            raise InputError("random choice has no rule without a budget; give one")
        return choose_by_score(prepared(self._bound).groups, self.scores(), budget)

    def finish(self, model: nn.Module, masks: Masks) -> nn.Module:
        return model
