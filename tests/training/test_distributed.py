"""Methods under DistributedDataParallel: two gloo processes equal one with both batches."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mipprune.models import batches
from mipprune.training import SPR, Method, build_method, optimizer_groups
from tests.training.networks import TinyNet, tiny_data, tiny_groups
from tests.training.processes import process_group, run_workers

STEPS = 4
NAMES = ("spr", "l0")


def prepared(name: str) -> tuple[nn.Module, Method]:
    net = TinyNet().eval()  # Norms use fixed statistics, so that halves of a batch add up.
    options = {"big_m": 0.5} if name == "spr" else {"seed": 1}
    method = build_method(name, strength=1.0, **options)
    return method.prepare(net, tiny_groups()), method


def steps(
    model: nn.Module, inner: nn.Module, method: Method, part: slice
) -> dict[str, torch.Tensor]:
    optimizer = torch.optim.SGD(optimizer_groups(method.parameter_groups(), lr=0.1))
    for index, (x, y) in enumerate(batches(tiny_data(), "train", 8)):
        if index == STEPS:
            break
        outputs = model(x[part])
        loss = method.loss(outputs, (x, y), F.cross_entropy(outputs, y[part]))
        torch.autograd.backward(loss)
        method.after_backward()
        optimizer.step()
        method.after_step(0.1)
        optimizer.zero_grad()
    return dict(inner.named_parameters())


def worker(rank: str, out: str) -> None:
    with process_group(int(rank), out):
        for name in NAMES:
            inner, method = prepared(name)
            model = DistributedDataParallel(inner)
            found = steps(model, inner, method, slice(4 * int(rank), 4 * int(rank) + 4))
            if isinstance(method, SPR):
                assert torch.equal(method.penalty(model), method.penalty())
            torch.save({k: v.detach() for k, v in found.items()}, f"{out}/{name}{rank}.pt")


def test_two_processes_equal_one(tmp_path: Path) -> None:
    run_workers(__name__, tmp_path)
    for name in NAMES:
        inner, method = prepared(name)
        expected = steps(inner, inner, method, slice(None))
        for rank in range(2):
            found = torch.load(tmp_path / f"{name}{rank}.pt", weights_only=True)
            assert set(found) == set(expected)
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value.detach(), rtol=1e-4, atol=1e-6)
