"""Every method that keeps a state resumes to the same weights, bit for bit."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mipprune.models import Dataset
from mipprune.training import Method, TrainConfig, build_method, train
from tests.training.networks import TinyNet, tiny_groups

CONFIG = TrainConfig(epochs=4, batch_size=8, lr=0.05)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "rni": ("rni", {"strength": 0.01}),
    "swd": ("swd", {"total_steps": 20, "keep": 0.5}),
    "swd, weights": ("swd", {"total_steps": 20, "structure": "weights"}),
    "swd, decoupled": ("swd", {"total_steps": 20, "keep": 0.5, "decoupled": True}),
    "slimming": ("slimming", {"strength": 0.01}),
    "group-lasso": ("group-lasso", {"strength": 0.1}),
    "taylor": ("taylor", {}),
    "spr-budget": ("spr-budget", {"big_m": 1.0, "total_steps": 20, "rate": 0.2}),
}


def build(case: str) -> tuple[torch.nn.Module, Method]:
    name, options = CASES[case]
    method = build_method(name, **options)
    return method.prepare(TinyNet(dropout=0.3), tiny_groups()), method


@pytest.mark.parametrize("case", CASES)
def test_stopped_within_an_epoch(
    case: str, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, method = build(case)
    train(whole, data, CONFIG, method=method, progress=False)
    scores = method.scores()

    model, method = build(case)
    steps = [0]
    after_step = method.after_step

    def stop(lr: float) -> None:
        after_step(lr)
        steps[0] += 1
        if steps[0] == 7:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(method, "after_step", stop)
    stopped = train(model, data, CONFIG, method=method, out=tmp_path, progress=False)
    assert stopped.interrupted

    resumed, method = build(case)
    train(resumed, data, CONFIG, method=method, out=tmp_path, resume=True, progress=False)
    found = resumed.state_dict()
    for name, value in whole.state_dict().items():
        if isinstance(value, Tensor):
            assert torch.equal(found[name], value), name
    assert (method.scores() == scores).all()
