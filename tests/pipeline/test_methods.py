"""Every method from the pipeline: the budget holds, and a second call finds everything done."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

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
