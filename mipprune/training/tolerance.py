"""The largest threshold on single weights that costs (almost) no accuracy."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mipprune.errors import InputError

__all__ = ["tolerant_threshold"]


@torch.no_grad()
def tolerant_threshold(
    model: nn.Module,
    parameters: Sequence[Tensor],
    evaluate: Callable[[nn.Module], float],
    tolerance: float = 5e-4,
    *,
    largest: float = 0.1,
    iterations: int = 10,
) -> float:
    """Bisect for the largest threshold that loses less than ``tolerance``.

    All entries of ``parameters`` with magnitude at most the threshold are set to
    zero, the accuracy is measured, and the entries are put back. This is the
    first half of the rounding rule in the code of the authors of SPR.

    Parameters
    ----------
    model : nn.Module
    parameters : sequence of Tensor
        Parameters of ``model``.
    evaluate : callable
        Network -> accuracy, 0 to 1, commonly on the training images.
    tolerance : float
        Accuracy that may be lost.
    largest : float
        Upper end of the interval; the search starts in its middle.
    iterations : int

    Returns
    -------
    float
        A threshold that was measured to be within the tolerance; 0 if none was.

    Raises
    ------
    InputError
        A negative tolerance or interval.
    """
    if not tolerance >= 0 or not largest > 0 or iterations < 1:
        raise InputError(
            "tolerance must not be negative, largest positive and iterations at least 1, got "
            f"{tolerance!r}, {largest!r} and {iterations!r}"
        )
    saved = [p.detach().clone() for p in parameters]
    reached = evaluate(model)
    low, high = 0.0, largest
    try:
        for _ in range(iterations):
            middle = (low + high) / 2
            for parameter, original in zip(parameters, saved, strict=True):
                parameter.copy_(original * (original.abs() > middle))
            if reached - evaluate(model) < tolerance:
                low = middle
            else:
                high = middle
    finally:
        for parameter, original in zip(parameters, saved, strict=True):
            parameter.copy_(original)
    return low
