"""A run small enough to be repeated in every test: an MLP on a few digits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mipprune.models import Dataset, build_model, load_data
from mipprune.pipeline import PruneConfig, PruneResult, prune


def tiny_data() -> Dataset:
    """192 training, 64 validation and 64 test images of the digits."""
    data = load_data("digits")
    assert isinstance(data, Dataset)
    return data.limited(train=192, validation=64, test=64)


def tiny_model() -> nn.Module:
    """64-12-10-10, newly initialised from torch's global generator."""
    seed = int(torch.randint(2**31, ()))
    return build_model(
        "mlp",
        in_channels=1,
        image_size=8,
        hidden=(12, 10),
        generator=torch.Generator().manual_seed(seed),
    )


def small_resnet() -> nn.Module:
    """ResNet-20 of width 4 with batch norms and a padded shortcut."""
    seed = int(torch.randint(2**31, ()))
    generator = torch.Generator().manual_seed(seed)
    return build_model("resnet20", in_channels=1, image_size=8, base_width=4, generator=generator)


def tiny_config(**changes: Any) -> PruneConfig:
    """Two epochs, two and one, SPR, half of the MACs."""
    settings: dict[str, Any] = {
        "data": "digits",
        "model": "mlp",
        "macs": "50%",
        "dense_epochs": 2,
        "epochs": 2,
        "tune_epochs": 1,
        "latency_repeats": 2,
        "training": {"batch_size": 32, "lr": 0.1},
    }
    return PruneConfig(**{**settings, **changes})


def tiny_run(
    out: Path,
    *,
    resume: bool = False,
    model: Callable[[], nn.Module] = tiny_model,
    data: Dataset | None = None,
    **changes: Any,
) -> PruneResult:
    """The pipeline on the above."""
    return prune(
        tiny_config(**changes),
        out,
        resume=resume,
        model=model,
        data=data or tiny_data(),
        progress=False,
    )
