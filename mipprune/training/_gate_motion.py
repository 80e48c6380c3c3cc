"""Moving gates apart from the optimizer of the weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune.graph.groups import ChannelGroups

__all__ = ["AdamStep", "GradientTap", "strongest"]


class GradientTap:
    """Takes a parameter's gradient away before the optimizer sees it.

    The parameter still belongs to the network (so it is saved, moved and
    reduced over processes), but only its method moves it: its speed then
    depends neither on the learning rate of the weights nor on clipping.
    """

    def __init__(self, parameter: nn.Parameter) -> None:
        self.parameter = parameter
        self.gradient: Tensor | None = None

    def take(self) -> None:
        """Once the gradient is complete: move it here."""
        gradient = self.parameter.grad
        self.gradient = None if gradient is None else gradient.detach().clone()
        self.parameter.grad = None


class AdamStep:
    """One tensor's Adam update (Kingma, Ba, 2015, algorithm 1), at most about ``lr`` a step.

    Parameters
    ----------
    size : int
    betas : (float, float)
    """

    def __init__(self, size: int, betas: tuple[float, float]) -> None:
        self.betas, self.count = betas, 0
        self.mean, self.square = torch.zeros(size), torch.zeros(size)

    @torch.no_grad()
    def move(self, parameter: Tensor, gradient: Tensor, lr: float) -> None:
        """Update ``parameter`` in place."""
        first, second = self.betas
        self.count += 1
        self.mean = self.mean.to(gradient).lerp(gradient, 1 - first)
        self.square = self.square.to(gradient).lerp(gradient.square(), 1 - second)
        mean = self.mean / (1 - first**self.count)
        spread = (self.square / (1 - second**self.count)).sqrt()
        parameter.sub_(lr * mean / (spread + 1e-12))

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean.clone(), "square": self.square.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]
        self.mean, self.square = state["mean"].clone(), state["square"].clone()


def strongest(groups: ChannelGroups, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The classes that every family cannot do without: its ``minimum`` largest, bool."""
    found = np.zeros(groups.n_classes, dtype=bool)
    for family in groups:
        own = values[family.start : family.stop]
        count = min(family.minimum, len(family))
        found[family.start + np.argpartition(-own, count - 1)[:count]] = True
    return found
