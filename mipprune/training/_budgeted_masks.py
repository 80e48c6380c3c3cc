"""Hard-Concrete masks under budgets: what they cost, and how they move."""

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune.graph.budgets import Resource
from mipprune.graph.groups import ChannelGroups
from mipprune.training._barrier import Barrier
from mipprune.training._gate_motion import AdamStep, GradientTap, strongest
from mipprune.training._soft_costs import SoftCost
from mipprune.training.distillation import Teacher
from mipprune.training.gates import HardConcreteGates

__all__ = ["BudgetedMasks", "MaskBudget"]

_NUDGE = 1e-3
_TRIED = 16
_NEAR = 1.0


@dataclass(frozen=True, eq=False)
class MaskBudget:
    """One resource: its cost in the gates, its barrier, and volume elements per unit of it."""

    resource: Resource
    cost: SoftCost
    barrier: Barrier
    scale: float


@dataclass(frozen=True, eq=False)
class BudgetedMasks:
    """Masks of a prepared network, their budgets, and how they move."""

    model: nn.Module
    groups: ChannelGroups
    gates: HardConcreteGates
    gated: NDArray[np.bool_]
    budgets: tuple[MaskBudget, ...]
    teacher: Teacher | None
    tap: GradientTap
    adam: AdamStep

    def deterministic(self) -> Tensor:
        """z of eval mode, (n_classes,)."""
        gates = self.gates
        training = gates.training
        values: Tensor = gates.eval()()
        gates.train(training)
        return values

    def active(self) -> Tensor:
        """P(z > 0), (n_classes,), with its gradient; 1 for what cannot be masked."""
        return self._whole(self.gates.probability_active())

    @torch.no_grad()
    def opened(self) -> Tensor:
        """1[z > 0] of the deterministic masks, (n_classes,)."""
        return self._whole((self.deterministic() > 0).float())

    def _whole(self, values: Tensor) -> Tensor:
        if self.gated.all():
            return values
        return torch.where(torch.from_numpy(self.gated).to(values.device), values, 1.0)

    def project(self, before: Tensor, progress: float) -> None:
        """Take the masks back to where every V <= b and no step leads further than a.

        ``before``: bool (n_classes,), what was open before the step.
        """
        log_alpha = self.gates.log_alpha.detach()
        opened = self.opened() > 0
        needed = strongest(self.groups, log_alpha.double().cpu().numpy())
        movable = torch.from_numpy(self.gated & ~needed).to(log_alpha.device)
        upper = [budget.barrier.upper(progress) for budget in self.budgets]
        lower = [budget.barrier.lower for budget in self.budgets]
        threshold = math.log(-self.gates.gamma / self.gates.zeta)
        if not self._fits(opened, upper):
            candidates = torch.nonzero(opened & movable)[:, 0]
            order = candidates[torch.argsort(log_alpha[candidates], stable=True)]
            count = _least(lambda k: self._fits(_without(opened, order[:k]), upper), len(order))
            log_alpha[order[:count]] = log_alpha[order[:count]].clamp(max=threshold - _NUDGE)
            self._reopen(_without(opened, order[:count]), order[:count], upper, threshold)
            return
        # What just closed comes back as far as it fits, and what is about as weak: closing one
        # dear channel leaves room for cheap ones.
        near = before | (log_alpha > threshold - _NEAR)
        candidates = torch.nonzero(near & ~opened & movable)[:, 0]
        if len(candidates) and self._fits(opened, lower):
            self._reopen(opened, candidates, lower, threshold)

    def _reopen(
        self, opened: Tensor, candidates: Tensor, limits: list[float], threshold: float
    ) -> None:
        """Open the strongest candidates that fit within the limits, as many as do."""
        log_alpha = self.gates.log_alpha.detach()
        order = candidates[torch.argsort(log_alpha[candidates], descending=True, stable=True)]
        count = _least(lambda k: not self._fits(_with(opened, order[: k + 1]), limits), len(order))
        chosen = order[:count]
        for index in order[count + 1 : count + 1 + _TRIED].unbind():
            more = torch.cat([chosen, index[None]])
            if self._fits(_with(opened, more), limits):
                chosen = more
        log_alpha[chosen] = threshold + _NUDGE

    def _fits(self, opened: Tensor, limits: list[float]) -> bool:
        """Whether the costs of ``opened`` are all within ``limits``."""
        return all(
            float(budget.cost.to(opened.device)(opened)) <= limit
            for budget, limit in zip(self.budgets, limits, strict=True)
        )

    @torch.no_grad()
    def keep_alive(self) -> None:
        """Hold the strongest masks of every family at the middle or above: no layer dies."""
        log_alpha = self.gates.log_alpha
        values = log_alpha.double().cpu().numpy()
        held = torch.from_numpy(strongest(self.groups, values)).to(log_alpha.device)
        log_alpha.copy_(torch.where(held, log_alpha.clamp(min=0), log_alpha))


def _least(holds: Callable[[int], bool], most: int) -> int:
    """Smallest k in 0..most with ``holds(k)``, which is monotone; ``most`` if there is none."""
    return bisect.bisect_left(range(most), True, key=holds)


def _without(opened: Tensor, classes: Tensor) -> Tensor:
    return opened.index_fill(0, classes, False)


def _with(opened: Tensor, classes: Tensor) -> Tensor:
    return opened.index_fill(0, classes, True)
