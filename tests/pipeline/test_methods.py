"""Every method from the pipeline: the budget holds, and a second call finds everything done."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mipprune.errors import InputError
from mipprune.pipeline import PruneConfig, prune
from mipprune.training import method_class, method_names
from tests.pipeline.tiny import tiny_run

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

OPTIONS: dict[str, dict[str, Any]] = {"rni": {"strength": 0.01}}


def normed() -> nn.Module:
    """64-12-10-10 with batch norms, newly initialised from torch's global generator."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 10),
        nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 10),
    )  # fmt: skip


@pytest.mark.parametrize("name", [n for n in method_names() if n not in ("none", "spr")])
def test_budget_holds_and_the_run_can_be_read_again(name: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "method": name,
        "method_options": OPTIONS.get(name, {}),
        "latency_repeats": 0,
    }
    found = tiny_run(tmp_path / "run", model=normed, **settings)
    whole = 64 * 12 + 12 * 10 + 10 * 10
    macs = next(size for size in found.report.sizes if size.resource == "MACs")
    assert macs.dense == whole
    assert macs.predicted == macs.counted <= whole / 2
    assert macs.counted > whole / 2 - (64 + 10)  # less than one unit of the first layer is unused
    kinds = [type(module) for module in found.model.children()]
    assert kinds == [type(module) for module in normed().children()]
    trained = {path.parent.name for path in (tmp_path / "run").glob("*/checkpoint.pt")}
    kind = method_class(name)
    expected = {"dense"} | ({"train"} if kind.trains else set())
    assert trained == expected | ({"tune"} if kind.needs_fine_tuning else set())
    again = tiny_run(tmp_path / "run", resume=True, model=normed, **settings)
    for mine, theirs in zip(
        again.model.state_dict().values(), found.model.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_the_optimiser_rounds_within_the_budget_and_resumes(tmp_path: Path) -> None:
    """Weights are refitted, so the network right after removal beats the one by scores."""
    settings: dict[str, Any] = {
        "data": "digits",
        "model": "resnet20",
        "model_options": {"base_width": 8},
        "method": "l1-norm",
        "macs": "40%",
        "dense_epochs": 2,
        "tune_epochs": 0,
        "latency_repeats": 0,
    }
    by_scores = prune(PruneConfig(**settings), tmp_path / "scores", progress=False)
    chosen = PruneConfig(**settings, rounding="optimiser", rounding_seconds=3.0)
    by_optimiser = prune(chosen, tmp_path / "optimiser", progress=False)
    size = by_optimiser.report.size("MACs")
    assert size is not None
    assert size.asked is not None
    assert size.predicted == size.counted <= size.asked
    accuracies = []
    for result in (by_scores, by_optimiser):
        stage = result.report.stage("after removal")
        assert stage is not None
        assert stage.test is not None
        accuracies.append(stage.test)
    assert accuracies[1] > accuracies[0] + 0.1
    (tmp_path / "optimiser" / "remove" / "result.json").unlink()
    (tmp_path / "optimiser" / "report.json").unlink()
    again = prune(chosen, tmp_path / "optimiser", resume=True, progress=False)
    for name, mask in by_optimiser.masks.items():
        assert np.array_equal(again.masks[name], mask)


def test_seconds_for_the_optimiser_are_positive() -> None:
    with pytest.raises(InputError, match="rounding_seconds"):
        PruneConfig(data="digits", model="resnet20", macs="40%", rounding_seconds=0.0)
