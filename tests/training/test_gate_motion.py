"""Gates that move apart from the optimizer, also in distributed processes."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mipprune.models import batches
from mipprune.training import BAR, Method, Tapering, optimizer_groups
from mipprune.training._gate_motion import AdamStep, GradientTap, strongest
from tests.training.networks import TinyNet, tiny_data, tiny_groups
from tests.training.processes import process_group, run_workers

NAMES = ("bar", "tapering")


def test_adam_step_is_adam() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(5, generator=generator)
    own, theirs = start.clone(), nn.Parameter(start.clone())
    step = AdamStep(5, (0.9, 0.99))
    optimizer = torch.optim.Adam([theirs], lr=0.05, betas=(0.9, 0.99), eps=1e-12)
    for index in range(12):
        gradient = torch.randn(5, generator=generator)
        if index == 6:
            state = step.state_dict()
            step = AdamStep(5, (0.9, 0.99))
            step.load_state_dict(state)
        step.move(own, gradient, 0.05)
        theirs.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(own, theirs.detach())


def test_a_huge_gradient_moves_by_about_the_step_length() -> None:
    step, value = AdamStep(1, (0.9, 0.99)), torch.zeros(1)
    for size in (1.0, 1.0, 1e12, 1e12):
        before = value.clone()
        step.move(value, torch.tensor([size]), 0.1)
        assert abs(float(value - before)) <= 0.11


def test_tap_hides_the_gradient_from_the_optimizer() -> None:
    gate = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([gate], lr=1.0, weight_decay=0.5)
    tap = GradientTap(gate)
    gate.square().sum().backward()
    tap.take()
    optimizer.step()
    assert gate.tolist() == [1.0, 1.0]
    assert tap.gradient is not None
    assert tap.gradient.tolist() == [2.0, 2.0]
    tap.take()
    assert tap.gradient is None


def test_strongest_are_the_minimum_of_each_family() -> None:
    values = np.array([0.1, 0.4, 0.3, 0.2, 5.0, 6.0, 9.0, 8.0, 7.0, 1.0])
    assert np.flatnonzero(strongest(tiny_groups(), values)).tolist() == [1, 6]


def prepared(name: str) -> tuple[nn.Module, Method]:
    net = TinyNet().eval()  # Norms use fixed statistics, so that halves of a batch add up.
    method: Method
    if name == "bar":
        method = BAR(total_steps=8, volume="50%", seed=1)
    else:
        method = Tapering(total_steps=12, observe=0.15, allowance=5.0, levels=(0.9, 0.5))
    return method.prepare(net, tiny_groups()), method


def steps(model: nn.Module, inner: nn.Module, method: Method, part: slice) -> dict[str, Tensor]:
    optimizer = torch.optim.SGD(optimizer_groups(method.parameter_groups(), lr=0.1))
    for epoch in range(3):
        for x, y in batches(tiny_data(), "train", 8, epoch=epoch):
            if len(x) < 8:
                continue
            outputs = model(x[part])
            base = F.cross_entropy(outputs, y[part])
            torch.autograd.backward(method.loss(outputs, (x[part], y[part]), base))
            method.after_backward()
            optimizer.step()
            method.after_step(0.1)
            optimizer.zero_grad()
    return {name: value.detach().clone() for name, value in inner.named_parameters()}


def worker(rank: str, out: str) -> None:
    with process_group(int(rank), out):
        for name in NAMES:
            inner, method = prepared(name)
            model = DistributedDataParallel(inner)
            found = steps(model, inner, method, slice(4 * int(rank), 4 * int(rank) + 4))
            torch.save(found, f"{out}/{name}{rank}.pt")


def test_gates_are_the_same_in_all_processes(tmp_path: Path) -> None:
    run_workers(__name__, tmp_path)
    for name in NAMES:
        inner, method = prepared(name)
        before = {key: value.detach().clone() for key, value in inner.named_parameters()}
        expected = steps(inner, inner, method, slice(None))
        first, second = (torch.load(tmp_path / f"{name}{r}.pt", weights_only=True) for r in (0, 1))
        gate = next(key for key in expected if key.startswith("channel_gates"))
        assert not torch.allclose(expected[gate], before[gate], atol=0.05)
        for key, value in expected.items():
            assert torch.equal(first[key], second[key])
            torch.testing.assert_close(first[key], value, rtol=1e-4, atol=1e-5)
