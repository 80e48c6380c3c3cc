"""Methods under DistributedDataParallel: two gloo processes equal one with both batches."""

import socket
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mipprune.models import batches
from mipprune.training import SPR, Method, build_method, optimizer_groups
from tests.training.networks import TinyNet, tiny_data, tiny_groups

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


def worker(rank: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    try:
        for name in NAMES:
            inner, method = prepared(name)
            model = DistributedDataParallel(inner)
            found = steps(model, inner, method, slice(4 * rank, 4 * rank + 4))
            if isinstance(method, SPR):
                assert torch.equal(method.penalty(model), method.penalty())
            torch.save({k: v.detach() for k, v in found.items()}, f"{out}/{name}{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.skipif(sys.platform != "linux", reason="forks with torch loaded")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_two_processes_equal_one(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Forked, so that torch is not imported twice more; spawning takes ten seconds.
    context = torch.multiprocessing.get_context("fork")
    processes = [context.Process(target=worker, args=(r, port, str(tmp_path))) for r in range(2)]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=60)
        assert [process.exitcode for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.join()
    for name in NAMES:
        inner, method = prepared(name)
        expected = steps(inner, inner, method, slice(None))
        for rank in range(2):
            found = torch.load(tmp_path / f"{name}{rank}.pt", weights_only=True)
            assert set(found) == set(expected)
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value.detach(), rtol=1e-4, atol=1e-6)
