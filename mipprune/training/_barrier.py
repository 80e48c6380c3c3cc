"""The moving barrier of BAR: a budget that tightens from the whole network to what is allowed.

    r = max(0, (V - a) / (b - a)),   f(V, a, b) = r^2 / (1 - r)
    b(p) = (1 - T(p)) * 1.01 * V_F + T(p) * B,   a = B - margin * 1.01 * V_F

References
----------
Lemaire, Achkar, Jodoin, "Structured Pruning of Neural Networks with
Budget-Aware Regularization", CVPR 2019, equation 5; transition and margin
after the public re-implementation.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Barrier", "barrier", "transition"]


def transition(progress: float, shape: Literal["sigmoid", "exponential"] = "sigmoid") -> float:
    """T(p): how far the budget has moved, from 0 at ``progress`` 0 to 1 at 1.

    ``sigmoid``: ``(s(10 (p - 1/2)) - s(-5)) / (1 - 2 s(-5))`` with the logistic
    function s; ``exponential``: ``(1 - exp(-4 p)) / (1 - exp(-4))``.

    Examples
    --------
    >>> [round(transition(p), 3) for p in (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)]
    [0.0, 0.011, 0.07, 0.5, 0.93, 0.989, 1.0]
    """
    p = min(max(progress, 0.0), 1.0)
    if shape == "exponential":
        return math.expm1(-4 * p) / math.expm1(-4)
    end = _logistic(-5)
    return (_logistic(10 * (p - 0.5)) - end) / (1 - 2 * end)


def barrier(volume: Tensor, lower: float, upper: float, cap: float) -> Tensor:
    """f(V, a, b), at most ``cap``; 0 for V <= a, ``cap`` for V >= b. A constant to autograd.

    Examples
    --------
    >>> barrier(torch.tensor([1.0, 2.5, 4.0]), 1.0, 4.0, 1e10).tolist()
    [0.0, 0.5, 10000000000.0]
    """
    r = ((volume.detach() - lower) / (upper - lower)).clamp(min=0)
    # Where 1 - r is not positive the budget is exceeded; the value there is the cap.
    f = r.square() / (1 - r).clamp(min=torch.finfo(r.dtype).tiny)
    return f.clamp(max=cap)


@dataclass(frozen=True)
class Barrier:
    """Barrier of one resource.

    Attributes
    ----------
    total, allowed : float
        V_F and B.
    margin, slack : float
        Shares of ``(1 + slack) * total`` between a and B, and of ``total`` by
        which b begins above the whole network.
    cap : float
    shape : {"sigmoid", "exponential"}
    """

    total: float
    allowed: float
    margin: float
    slack: float
    cap: float
    shape: Literal["sigmoid", "exponential"]

    @property
    def lower(self) -> float:
        """a: at or below it nothing presses."""
        return self.allowed - self.margin * (1 + self.slack) * self.total

    def upper(self, progress: float) -> float:
        """b(p): the budget of the moment."""
        t = transition(progress, self.shape)
        return (1 - t) * (1 + self.slack) * self.total + t * self.allowed

    def factor(self, volume: Tensor, progress: float) -> Tensor:
        """f at the moment."""
        return barrier(volume, self.lower, self.upper(progress), self.cap)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))
