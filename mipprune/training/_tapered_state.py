"""What tapering knows of a network, and what changes from step to step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune.graph.groups import ChannelGroups, CostTerm
from mipprune.training._gate_motion import GradientTap
from mipprune.training._soft_costs import SoftCost
from mipprune.training._tapered_rate import RateControl
from mipprune.training.gates import ClampedGates

__all__ = ["GateStatistics", "Level", "TaperedNetwork", "over_processes"]

_MEMORY = 0.98


@dataclass(frozen=True, eq=False)
class Level:
    """The network when its cost first was at a level.

    Attributes
    ----------
    level : float
        Share of the whole cost.
    cost : float
        Share that the open channels take, all of them counted whole.
    step : int
        Optimizer steps done.
    loss : float
        Moving average of the training loss.
    scores : float64 array (n_classes,)
        As of :meth:`Tapering.scores`; not positive where removed.
    weights : mapping
        ``state_dict`` of the network with its gates.
    """

    level: float
    cost: float
    step: int
    loss: float
    scores: NDArray[np.float64]
    weights: Mapping[str, Any]


@dataclass(eq=False)
class GateStatistics:
    """What changes from step to step, apart from the gates themselves."""

    mean: Tensor
    square: Tensor
    closed_at: Tensor
    count: int = 0
    allowed: float = 1.0
    multiplier: float = 0.0

    @classmethod
    def start(cls, n_classes: int) -> "GateStatistics":
        zeros = torch.zeros(n_classes, dtype=torch.float64)
        return cls(zeros, zeros.clone(), torch.zeros(n_classes, dtype=torch.int64))

    def see(self, gradient: Tensor, size: float) -> None:
        """Take a gradient, and its second moment times the examples that it is a mean of."""
        g = gradient.double()
        self.count += 1
        self.mean = self.mean.to(g).lerp(g, 1 - _MEMORY)
        self.square = self.square.to(g).lerp(size * g.square(), 1 - _MEMORY)

    def state_dict(self) -> dict[str, Any]:
        return {k: v.clone() if isinstance(v, Tensor) else v for k, v in vars(self).items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value.clone() if isinstance(value, Tensor) else value)
        self.closed_at = self.closed_at.cpu()


@dataclass(frozen=True, eq=False)
class TaperedNetwork:
    """What tapering knows once it has a network."""

    model: nn.Module
    groups: ChannelGroups
    gates: ClampedGates
    gated: NDArray[np.bool_]
    resource: tuple[CostTerm, ...]
    cost: SoftCost
    whole: float
    goal: float
    tap: GradientTap
    control: RateControl
    now: GateStatistics
    levels: list[Level] = field(default_factory=list)
    pending: list[tuple[float, int]] = field(default_factory=list)
    origin: dict[bytes, Level | None] = field(default_factory=dict)

    def relative_cost(self, theta: Tensor) -> Tensor:
        """C(theta) over that of the whole network."""
        return self.cost.to(theta.device)(theta) / self.whole

    def soft_share(self) -> float:
        return float(self.relative_cost(self.gates.theta.detach()))

    def hard_share(self) -> float:
        """Cost with every open channel counted whole."""
        return float(self.relative_cost((self.gates.theta.detach() > 0).double()))

    def slope(self, curvature: bool) -> Tensor:
        """Slope of the loss in every gate, float64 (n_classes,)."""
        scale = 1 - _MEMORY ** max(self.now.count, 1)
        theta = self.gates.theta.detach().double()
        mean, square = self.now.mean.to(theta.device), self.now.square.to(theta.device)
        return (mean - 0.5 * theta * square if curvature else mean) / scale

    def prices(self) -> Tensor:
        """grad C at the gates as they are, with a floor; float64 (n_classes,), mean 1."""
        with torch.enable_grad():
            theta = self.gates.theta.detach().double().requires_grad_()
            (price,) = torch.autograd.grad(self.relative_cost(theta), theta)
        return price.clamp(min=float(price.max()) * 1e-6 + 1e-30) / price.mean()


def over_processes(pending: list[tuple[float, int]], device: torch.device) -> tuple[float, float]:
    """Sums of loss times examples and of examples, over all processes of a distributed run."""
    sums = torch.tensor(
        [sum(loss for loss, _ in pending), sum(size for _, size in pending)], dtype=torch.float64
    )
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        sums = sums.to(device)
        torch.distributed.all_reduce(sums)
    return float(sums[0]), float(sums[1])
