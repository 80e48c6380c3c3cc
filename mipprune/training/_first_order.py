"""What the removal of each group changes in the loss, to first order.

    loss(w_j = 0) - loss(w) = -<dL/dw_j, w_j> + ...

References
----------
Molchanov, Mallya, Tyree, Frosio, Kautz, "Importance Estimation for Neural
Network Pruning", CVPR 2019, equation 8 (the square, summed over a group).
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune.training.packing import Packing

__all__ = ["first_order_changes", "mean_squared_changes"]


@torch.no_grad()
def first_order_changes(packing: Packing, parameters: Sequence[Tensor]) -> NDArray[np.float64]:
    """``<dL/dw_j, w_j>`` of every group from the gradients that are there, float64 (n_groups,)."""
    products = [torch.zeros_like(p) if p.grad is None else p * p.grad for p in parameters]
    flat = packing.flat(products)
    sums = packing.layout.to(flat.device).total(flat)[:-1]
    changes: NDArray[np.float64] = sums.double().cpu().numpy()
    return changes


def mean_squared_changes(
    model: nn.Module,
    packing: Packing,
    parameters: Sequence[Tensor],
    losses: Callable[[nn.Module], Iterable[Tensor]],
    *,
    batches: int,
) -> NDArray[np.float64] | None:
    """Mean over ``losses`` of the squared changes, float64 (n_groups,); None without any loss.

    In eval mode; mode and gradients of ``model`` are as before afterwards.

    Parameters
    ----------
    model : nn.Module
    packing : Packing
    parameters : sequence of Tensor
        In the order of ``packing.names``.
    losses : callable
        Network -> iterable of losses, one per batch, with gradients.
    batches : int
        Most of them that are used.
    """
    mode, kept = model.training, [p.grad for p in model.parameters()]
    model.eval()
    total, count = np.zeros(packing.n_groups), 0
    try:
        for loss in islice(losses(model), batches):
            model.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            total += np.square(first_order_changes(packing, parameters))
            count += 1
    finally:
        model.train(mode)
        for parameter, gradient in zip(model.parameters(), kept, strict=True):
            parameter.grad = gradient
    return total / count if count else None
