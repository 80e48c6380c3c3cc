"""A budget that moves, and the channels it has room for: value per resource at present widths."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mipprune.graph.budgets import Budgets, Resource
from mipprune.graph.groups import ChannelGroups
from mipprune.training._soft_costs import SoftCost
from mipprune.training.choosing import choose_by_score

__all__ = ["MovingBudget"]


@dataclass(eq=False)
class MovingBudget:
    """Limits ``R_i(p) = total_i * (limit_i / total_i)^p``, and the selection under them.

    The knapsack ``max sum_j value_j y_j, C_i(y) <= R_i`` has costs that are
    products of widths. It is solved greedily by ``value_j`` over the marginal
    cost at the widths of the previous selection, so that a channel gets
    cheaper as its neighbours go.

    Attributes
    ----------
    groups : ChannelGroups
    budget : Budgets
    resources : tuple of Resource
    costs : tuple of SoftCost
    kept : bool array (n_classes,)
        The selection in force.
    """

    groups: ChannelGroups
    budget: Budgets
    resources: tuple[Resource, ...]
    costs: tuple[SoftCost, ...]
    kept: NDArray[np.bool_]

    @classmethod
    def of(cls, groups: ChannelGroups, budget: Budgets) -> "MovingBudget":
        """For one network, with everything kept.

        Raises
        ------
        BudgetError
            A budget out of reach.
        """
        resources = budget.resolve(groups)
        costs = tuple(SoftCost(resource.terms, groups.n_classes) for resource in resources)
        return cls(groups, budget, resources, costs, np.ones(groups.n_classes, dtype=bool))

    def at(self, progress: float) -> Budgets:
        """The budgets of the moment; ``progress`` runs from 0 (everything) to 1."""
        if progress >= 1:
            return self.budget
        amounts: dict[str, Any] = {}
        for resource in self.resources:
            share = min(1.0, resource.limit / resource.total)
            limit = resource.total * math.pow(share, max(progress, 0.0))
            amounts[resource.name] = max(limit, resource.limit)
        return replace(self.budget, **amounts)

    def marginal(self) -> NDArray[np.float64]:
        """Cost of each class at the widths kept, as shares of the whole, float64 (n_classes,)."""
        found = np.zeros(self.groups.n_classes)
        for resource, cost in zip(self.resources, self.costs, strict=True):
            gates = torch.from_numpy(self.kept.astype(np.float64)).requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(cost(gates), gates)
            found += gradient.numpy() / resource.total
        return found

    def ranking(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """``values`` per marginal cost; infinite where a class costs nothing."""
        cost = self.marginal()
        free = cost <= 0
        ratio: NDArray[np.float64] = values / np.where(free, 1.0, cost)
        return np.where(free, np.inf, ratio)

    def select(self, values: NDArray[np.float64], progress: float) -> None:
        """Move the selection to the budgets of the moment."""
        masks = choose_by_score(self.groups, self.ranking(values), self.at(progress))
        self.kept = self.groups.kept(masks)

    def shares(self, kept: NDArray[np.bool_] | None = None) -> Sequence[tuple[str, float]]:
        """Name and share of the whole of each resource under ``kept`` (default: the selection)."""
        mask = self.kept if kept is None else kept
        return [
            (resource.name, sum(term.value(mask) for term in resource.terms) / resource.total)
            for resource in self.resources
        ]
