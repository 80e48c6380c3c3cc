"""Latency: medians and ratios of times that a fake clock gives."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from mipprune.errors import InputError
from mipprune.pipeline import measure_latency


def _clock(durations: list[float]) -> Iterator[float]:
    now = 100.0
    for duration in durations:
        yield now
        now += duration
        yield now


def test_medians_quartiles_and_ratio_by_hand() -> None:
    # Dense takes 4, 2, 6 ms and pruned 1, 1, 2 ms: ratios 1/4, 1/2, 1/3.
    times = _clock([0.004, 0.001, 0.002, 0.001, 0.006, 0.002])
    net = nn.Linear(3, 2).train()
    other = nn.Linear(3, 2).eval()
    found = measure_latency(net, other, torch.zeros(5, 3), repeats=3, clock=lambda: next(times))
    assert found.dense_ms == pytest.approx(4)
    assert found.dense_spread == pytest.approx((3, 5))
    assert found.pruned_ms == pytest.approx(1)
    assert found.ratio == pytest.approx(1 / 3)
    assert found.ratio_spread == pytest.approx((7 / 24, 5 / 12))
    assert (found.batch_size, found.repeats, found.device) == (5, 3, "cpu")
    assert found.threads == torch.get_num_threads()
    assert net.training
    assert not other.training


def test_networks_run_in_turn() -> None:
    order: list[str] = []
    nets = {name: nn.Linear(2, 2) for name in ("dense", "pruned")}
    for name, net in nets.items():
        net.register_forward_hook(lambda *_, name=name: order.append(name))
    measure_latency(nets["dense"], nets["pruned"], torch.zeros(1, 2), repeats=2)
    assert order[-4:] == ["dense", "pruned", "dense", "pruned"]


def test_a_smaller_network_is_faster() -> None:
    big, small = nn.Linear(2048, 2048), nn.Linear(2048, 16)
    found = measure_latency(big, small, torch.zeros(64, 2048), repeats=15)
    assert found.ratio < 0.7


def test_modes_return_after_an_error() -> None:
    net = nn.Linear(2, 2)
    with pytest.raises(RuntimeError):
        measure_latency(net, net, torch.zeros(1, 3))
    assert net.training


def test_no_repeats() -> None:
    with pytest.raises(InputError, match="expected an integer >= 1, got 0"):
        measure_latency(nn.Identity(), nn.Identity(), torch.zeros(1, 3), repeats=0)
