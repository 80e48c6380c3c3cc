"""Running statistics of batch norms, estimated anew."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mipprune.models import Forward, move_batch, run_model

__all__ = ["refresh_norms"]


def refresh_norms(
    model: nn.Module, batches: Iterable[Any], *, forward: Forward | None = None
) -> bool:
    """Re-estimate means and variances as averages over ``batches``.

    Only the norms run in training mode meanwhile. Returns False, with nothing
    changed, where the network has no batch norm with running statistics.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    if not norms:
        return False
    training, momenta = model.training, [norm.momentum for norm in norms]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    model.eval()
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over the batches
            norm.train()
        with torch.no_grad():
            for batch in batches:
                run_model(model, move_batch(batch, device), forward)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(training)
    return True
