"""Filters near the geometric median of their layer are redundant and go first.

    score_j = sum_i || w_j - w_i ||_2      over the filters i of the same layer

References
----------
He, Liu, Wang, Hu, Yang, "Filter Pruning via Geometric Median for Deep
Convolutional Neural Networks Acceleration", CVPR 2019, equations 4 and 7.
"""

from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune._support.checks import require_choice
from mipprune.errors import InputError
from mipprune.graph.budgets import Budgets
from mipprune.graph.groups import ChannelGroups, Family, Masks
from mipprune.training.binding import Binding, family_ranks, per_family_mean, prepared
from mipprune.training.choosing import choose_by_score
from mipprune.training.method import Method, ParameterGroup
from mipprune.training.packing import named_tensors

__all__ = ["GeometricMedian", "class_vectors"]


class GeometricMedian(Method):
    """Distance of every class's filters to those of the rest of its family.

    Tied channels are one vector: the filters of all their layers, concatenated.
    The paper takes the filters of one layer after the other and one ratio for
    all, which is ``normalise="uniform"``.

    Parameters
    ----------
    normalise : {"uniform", "layer", "none"}
        Rank within the family, score over the mean of the family, or the sum of
        distances as it is.
    """

    starts_from: ClassVar[Literal["scratch", "reference"]] = "reference"
    trains: ClassVar[bool] = False

    def __init__(self, *, normalise: Literal["uniform", "layer", "none"] = "uniform") -> None:
        require_choice("normalise", normalise, ("uniform", "layer", "none"))
        self.normalise = normalise
        self._bound: Binding | None = None

    def prepare(self, model: nn.Module, groups: ChannelGroups) -> nn.Module:
        self._bound = Binding(model, groups)
        return model

    def parameter_groups(self) -> list[ParameterGroup]:
        return prepared(self._bound).trainable()

    @torch.no_grad()
    def scores(self) -> NDArray[np.float64]:
        bound = prepared(self._bound)
        found = np.full(bound.groups.n_classes, np.inf)
        for family in bound.groups:
            vectors = class_vectors(bound.model, bound.groups, family)
            if vectors is not None:
                distances = torch.cdist(
                    vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist"
                )
                found[family.start : family.stop] = distances.sum(1).cpu().numpy()
        if self.normalise == "uniform":
            return family_ranks(bound.groups, found)
        return per_family_mean(bound.groups, found) if self.normalise == "layer" else found

    def choose(self, budget: Budgets | None = None) -> Masks:
        if budget is None:
            raise InputError("the geometric median has no rule without a budget; give one")
        return choose_by_score(prepared(self._bound).groups, self.scores(), budget)

    def finish(self, model: nn.Module, masks: Masks) -> nn.Module:
        return model


def class_vectors(model: nn.Module, groups: ChannelGroups, family: Family) -> Tensor | None:
    """Filters that produce each class, float64 (classes of the family, entries); None if none do.

    Where classes have different numbers of filters in a layer, the shorter ones
    are padded with zeros.
    """
    tensors = named_tensors(model)
    parts = []
    for axis in groups.axes:
        inside = (axis.owner >= family.start) & (axis.owner < family.stop)
        if axis.role != "produce" or not inside.any() or tensors[axis.tensor].ndim < 2:
            continue
        rows = tensors[axis.tensor].detach().movedim(axis.dim, 0).flatten(1).double()
        places = np.flatnonzero(inside)
        owner = axis.owner[places] - family.start
        order = np.argsort(owner, kind="stable")
        owner, places = owner[order], places[order]
        starts = np.searchsorted(owner, np.arange(len(family)))
        turn = np.arange(len(owner)) - starts[owner]
        block = rows.new_zeros(len(family), int(turn.max()) + 1, rows.shape[1])
        block[torch.from_numpy(owner), torch.from_numpy(turn)] = rows[torch.from_numpy(places)]
        parts.append(block.flatten(1))
    return torch.cat(parts, dim=1) if parts else None
