"""One step of gates along a constraint surface that moves: pure functions of tensors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Motion", "constrained_step", "multiplier"]

_CORRECTIONS = 8
_ACTIVE_SETS = 20


@dataclass(frozen=True, eq=False)
class Motion:
    """Outcome of :func:`constrained_step`.

    Attributes
    ----------
    theta : float64 tensor (n,)
    multiplier : float
        mu >= 0; 0 where the data alone lower the cost fast enough.
    free : bool tensor (n,)
        Gates that were not held at a bound.
    """

    theta: Tensor
    multiplier: float
    free: Tensor


def multiplier(
    slope: Tensor, cost_gradient: Tensor, metric: Tensor, decrease: float, eta: float
) -> float:
    """mu with which ``step = -eta D (s + mu grad C)`` lowers C by ``decrease`` to first order.

    mu = (decrease / eta - grad C . D s) / (grad C . D grad C), not below 0.

    Parameters
    ----------
    slope, cost_gradient, metric : float64 tensors (n,)
        s, grad C and the diagonal of D (positive).
    decrease, eta : float
    """
    steep = float((cost_gradient * metric * cost_gradient).sum())
    if steep <= 0:
        return 0.0
    along = float((cost_gradient * metric * slope).sum())
    return max((decrease / eta - along) / steep, 0.0)


def constrained_step(
    theta: Tensor,
    slope: Tensor,
    metric: Tensor,
    cost: Callable[[Tensor], Tensor],
    target: float,
    eta: float,
    lower: Tensor,
    movable: Tensor,
) -> Motion:
    """Move gates in ``[lower, 1]`` so that ``cost(theta) = target`` afterwards.

    The multiplier is that of the gates that can move: those at a bound which the
    step would push further out are held (found by repeating until nothing
    changes). What is left of the constraint, from the curvature of the cost and from
    bounds met on the way, is corrected by Newton steps along ``D grad C``.

    Parameters
    ----------
    theta, slope, metric, lower : float64 tensors (n,)
    cost : callable
        Differentiable, increasing in every gate.
    target : float
        R after the step.
    eta : float
    movable : bool tensor (n,)
        False for gates that must stay as they are.
    """
    gradient, value = _gradient(cost, theta)
    movable = movable & (gradient > 0)
    free, mu = movable, 0.0
    for _ in range(_ACTIVE_SETS):
        mu = multiplier(slope[free], gradient[free], metric[free], value - target, eta)
        push = slope + mu * gradient
        held = ((theta >= 1) & (push < 0)) | ((theta <= lower) & (push > 0))
        now = movable & ~held
        if torch.equal(now, free):
            break
        free = now
    step = torch.where(free, -eta * metric * (slope + mu * gradient), 0.0)
    bounded = torch.minimum(torch.maximum(theta + step, lower), torch.ones_like(theta))
    moved = torch.where(movable, bounded, theta)
    if mu > 0:
        moved = _corrected(moved, metric, cost, target, lower, movable)
    return Motion(moved, mu, free)


def _corrected(
    theta: Tensor,
    metric: Tensor,
    cost: Callable[[Tensor], Tensor],
    target: float,
    lower: Tensor,
    movable: Tensor,
) -> Tensor:
    """Newton steps on ``cost(theta) = target`` along the constraint's own direction."""
    for _ in range(_CORRECTIONS):
        gradient, value = _gradient(cost, theta)
        excess = value - target
        if abs(excess) <= 1e-9 * abs(target):
            break
        # Gates at 1 were put there by the data; the correction goes to those on their way.
        above = movable & (theta > lower) if excess > 0 else movable
        moving = above & (theta < 1)
        if excess > 0 and not bool(moving.any()):
            moving = above
        steep = float((gradient * metric * gradient)[moving].sum())
        if steep <= 0:
            break
        shift = torch.where(moving, metric * gradient * (excess / steep), 0.0)
        bounded = torch.minimum(torch.maximum(theta - shift, lower), torch.ones_like(theta))
        theta = torch.where(moving, bounded, theta)
    return theta


def _gradient(cost: Callable[[Tensor], Tensor], theta: Tensor) -> tuple[Tensor, float]:
    with torch.enable_grad():
        leaf = theta.detach().clone().requires_grad_()
        value = cost(leaf)
        (gradient,) = torch.autograd.grad(value, leaf)
    return gradient, float(value.detach())
