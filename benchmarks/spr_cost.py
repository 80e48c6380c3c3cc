r"""What the SPR penalty costs, beside a training step and beside a loop over layers.

Times, in one process and in alternation, so that the load of the machine hits
all alike: a forward-backward step of the network, the packed penalty with its
gradient, and the same penalty written as a plain loop over layers. Reported are
medians and their ratios. On a GPU the kernels launched are counted too.

    python benchmarks/spr_cost.py --model resnet56 --batch 128
    python benchmarks/spr_cost.py --model resnet50_imagenet --batch 256 --image-size 224 \\
        --device cuda
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipprune._support.files import write_json
from mipprune._support.provenance import provenance
from mipprune.graph import ChannelGroups, channel_groups
from mipprune.models import build_model
from mipprune.training import SPR, measure_big_m
from mipprune.training.packing import Packing, named_tensors, pack_channels

ALPHA, STRENGTH = 0.1, 1.0


def plain_penalty(packing: Packing, tensors: dict[str, Tensor], m_of: dict[str, float]) -> Tensor:
    """The uncoupled penalty as one would write it first: layer by layer, cases by ``where``."""
    layers: dict[str, list[tuple[str, int]]] = {}
    for name, block, dim in zip(packing.names, packing.blocks, packing.channel_dims, strict=True):
        layers.setdefault(block, []).append((name, dim))
    s = math.sqrt(ALPHA / (1 - ALPHA))
    total = torch.zeros((), device=next(iter(tensors.values())).device)
    n_all = sum(packing.lengths)
    for members in layers.values():
        rows = [tensors[name].movedim(dim, 0).flatten(1) if tensors[name].ndim > 1
                else tensors[name][:, None] for name, dim in members]  # fmt: skip
        w = torch.cat(rows, dim=1).float()
        m = m_of[members[0][0]]
        norm = w.square().sum(dim=1).clamp_min(1e-20).sqrt()
        ratio = w.abs().amax(dim=1) / m
        ridge = ALPHA * norm**2 + (1 - ALPHA)
        middle = 2 * math.sqrt(ALPHA * (1 - ALPHA)) * norm
        bound = ALPHA * norm**2 / ratio.clamp_min(1e-10) + (1 - ALPHA) * ratio
        inside = torch.where(ratio <= s * norm, middle, bound)
        z = torch.where(torch.maximum(ratio, s * norm) >= 1, ridge, inside)
        total = total + STRENGTH * w.shape[1] / n_all * z.sum()
    return total


def median_seconds(
    jobs: dict[str, Callable[[], Any]], repeats: int, cuda: bool
) -> dict[str, float]:
    """Median wall-clock of each job, run in alternation after two rounds of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeats + 2):
        for name, job in jobs.items():
            if cuda:
                torch.cuda.synchronize()
            started = time.perf_counter()
            job()
            if cuda:
                torch.cuda.synchronize()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def launches(job: Callable[[], Any]) -> int:
    """CUDA kernels and copies that ``job`` launches."""
    kinds = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds) as profile:
        job()
        torch.cuda.synchronize()
    launch = ("cudaLaunchKernel", "cuLaunchKernel", "cudaMemcpyAsync", "cudaMemsetAsync")
    return sum(e.count for e in profile.key_averages() if e.key.startswith(launch))


def jobs_of(
    model: nn.Module, groups: ChannelGroups, batch: Tensor, labels: Tensor
) -> tuple[dict[str, Callable[[], Any]], dict[str, float]]:
    """The jobs to time, and how far the two uncoupled penalties are apart."""
    m_of = measure_big_m(model, groups)
    coupled = SPR(alpha=ALPHA, strength=STRENGTH, big_m=m_of)
    fused = SPR(alpha=ALPHA, strength=STRENGTH, big_m=m_of, fused=True)
    apart = SPR(alpha=ALPHA, strength=STRENGTH, big_m=m_of, coupled=False)
    coupled.prepare(model, groups)
    fused.prepare(model, groups)
    apart.prepare(model, groups)
    packing = pack_channels(model, groups, coupled=False)
    tensors = named_tensors(model)
    device = batch.device.type

    def backward(loss: Tensor) -> None:
        model.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)

    def step() -> None:
        with torch.autocast(device, dtype=torch.bfloat16):
            outputs = model(batch)
        backward(F.cross_entropy(outputs.float(), labels))

    def fused_step() -> None:
        # As in a loop: gradients are there already, the penalty's is added.
        fused.loss(None, None, zero)
        fused.after_backward()

    zero = torch.zeros((), device=batch.device)
    step()
    difference = {
        "packed": apart.penalty().item(),
        "loop": plain_penalty(packing, tensors, m_of).item(),
    }
    return {
        "step": step,
        "packed, coupled": lambda: backward(coupled.penalty()),
        "packed, coupled, fused": fused_step,
        "packed, per layer": lambda: backward(apart.penalty()),
        "loop over layers": lambda: backward(plain_penalty(packing, tensors, m_of)),
    }, difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="resnet56")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cuda = options.device.startswith("cuda")
    model = build_model(options.model, num_classes=options.classes, image_size=options.image_size)
    groups = channel_groups(model, (torch.zeros(1, 3, options.image_size, options.image_size),))
    model.to(options.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stub lacks it
    generator = torch.Generator().manual_seed(0)
    size = (options.batch, 3, options.image_size, options.image_size)
    batch = torch.randn(size, generator=generator).to(options.device)
    batch = batch.to(memory_format=torch.channels_last)
    labels = torch.arange(options.batch, device=options.device) % options.classes
    jobs, values = jobs_of(model, groups, batch, labels)
    seconds = median_seconds(jobs, options.repeats, cuda)
    found: dict[str, Any] = {
        "model": options.model,
        "parameters": sum(p.numel() for p in model.parameters()),
        "classes_of_channels": groups.n_classes,
        "batch": options.batch,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "threads": options.threads,
        "precision": "bf16 autocast; penalties float32",
        "penalty_values": values,
        "median_milliseconds": {name: 1e3 * s for name, s in seconds.items()},
        "share_of_step": {name: s / seconds["step"] for name, s in seconds.items()},
    }
    if cuda:
        found["kernel_launches"] = {name: launches(job) for name, job in jobs.items()}
    print(json.dumps(found, indent=2))
    if options.out is not None:
        write_json(options.out, {**found, "provenance": provenance(0)})


if __name__ == "__main__":
    main()
