"""Time of a forward pass, two networks measured in turn."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils import _pytree as pytree

from mipprune._support.checks import require_integer
from mipprune._support.devices import require_device
from mipprune.graph import require_network
from mipprune.models import Forward, move_batch, run_model
from mipprune.report import Latency

__all__ = ["measure_latency"]

WARM_UP = 3


@torch.no_grad()
def measure_latency(
    dense: nn.Module,
    pruned: nn.Module,
    batch: Any,
    *,
    repeats: int = 30,
    device: str = "cpu",
    forward: Forward | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Median time of a forward pass of both networks, in turn, in eval mode.

    The two alternate, so that whatever else the machine does meets both; the
    ratio is the median over the repeats of pruned / dense of the same repeat.

    Parameters
    ----------
    dense, pruned : nn.Module
        On ``device``; their modes are restored.
    batch
        As :func:`mipprune.models.split_batch` reads it.
    repeats : int
    device : str
    forward : callable, optional
        ``forward(model, batch) -> outputs``.
    clock : callable
        Seconds.

    Raises
    ------
    InputError
        Fewer than one repeat.
    """
    require_network(dense, "dense")
    require_network(pruned, "pruned")
    require_integer("repeats", repeats, at_least=1)
    require_device(device)
    batch = move_batch(batch, device)
    networks = (dense, pruned)
    modes = [network.training for network in networks]
    cuda = torch.device(device).type == "cuda"
    times = np.empty((repeats, 2))
    try:
        for network in networks:
            network.eval()
            for _ in range(WARM_UP):
                run_model(network, batch, forward)
        for repeat in range(repeats):
            for index, network in enumerate(networks):
                if cuda:
                    torch.cuda.synchronize(device)
                started = clock()
                run_model(network, batch, forward)
                if cuda:
                    torch.cuda.synchronize(device)
                times[repeat, index] = 1e3 * (clock() - started)
    finally:
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)
    ratios = times[:, 1] / np.maximum(times[:, 0], 1e-9)
    tensors = [leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, torch.Tensor)]
    return Latency(
        dense_ms=float(np.median(times[:, 0])),
        dense_spread=_quartiles(times[:, 0]),
        pruned_ms=float(np.median(times[:, 1])),
        pruned_spread=_quartiles(times[:, 1]),
        ratio=float(np.median(ratios)),
        ratio_spread=_quartiles(ratios),
        batch_size=len(tensors[0]) if tensors and tensors[0].ndim else 1,
        repeats=repeats,
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(device) if cuda else str(device),
    )


def _quartiles(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, (0.25, 0.75))
    return float(low), float(high)
