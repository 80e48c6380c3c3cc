"""The comparison of compressions runs on a toy network, goes on where it stopped, and is shown."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mipprune.graph import channel_groups

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
METHODS = ("ours", "l1", "taylor", "thinet-like", "osscar-like")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with a case of two hidden layers of which the second is half redundant."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # other tests keep theirs
    module = importlib.import_module("compress_real")
    generator = torch.Generator().manual_seed(0)
    second = nn.Linear(8, 10)
    network = nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), second, nn.ReLU(), nn.Linear(10, 3)
    ).double()
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.copy_(0.5 * torch.randn(tensor.shape, generator=generator))
        for rows in (second.weight, second.bias):
            rows[5:] = rows[:5]
    data = [torch.randn(16, 6, generator=generator).double() for _ in range(6)]

    def losses(model: nn.Module) -> Iterator[Tensor]:
        for batch in data[:4]:
            yield nn.functional.cross_entropy(model(batch), network(batch).argmax(1))

    def score(model: nn.Module) -> float:
        with torch.no_grad():
            same = [model(batch).argmax(1) == network(batch).argmax(1) for batch in data[4:]]
        return float(torch.cat(same).double().mean())

    case = module.Case(
        name="toy", model=network.eval(), groups=channel_groups(network, data[0][:2]),
        calibration=data[:4], losses=losses, test=data[4:], budgets=("55%",), score=score,
        tune=lambda model: None,
    )  # fmt: skip
    monkeypatch.setitem(module.CASES, "toy", lambda _: case)
    return module


def run(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["compress_real.py", *map(str, words)])
    bench.main()


def test_rows_of_all_methods_resumed_and_shown(
    bench: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "rows.json"
    arguments = ("toy", "--json", out, "--methods", *METHODS, "--tune", "ours", "--work", tmp_path)
    run(bench, monkeypatch, *arguments)
    rows: list[dict[str, Any]] = json.loads(out.read_text())["rows"]
    assert [row["method"] for row in rows] == ["dense", *METHODS]
    assert rows[0]["accuracy"] == 1.0
    found = {row["method"]: row for row in rows[1:]}
    for row in found.values():
        assert 0 < row["macs_kept"] <= 0.55
        assert 0 <= row["layers"] <= row["layers_largest"]
        assert row["accuracy"] == row["same"]
    assert set(found["ours"]) > {"gap_widths", "gap_masks_largest", "accuracy_tuned", "tried"}
    # Refitted weights know that half of the second layer repeats the other half.
    assert found["ours"]["outputs"] < found["l1"]["outputs"]
    assert found["ours"]["outputs"] < found["taylor"]["outputs"]
    # Lost rows are made again, ours from the steps that are kept; the others stay.
    lost = ("ours", "taylor")
    out.write_text(json.dumps({"rows": [row for row in rows if row["method"] not in lost]}))
    masks = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "toy-55").glob("*.npz")}
    run(bench, monkeypatch, *arguments)
    again = {row["method"]: row for row in json.loads(out.read_text())["rows"]}
    assert again["l1"] == found["l1"]
    for method in lost:
        assert again[method]["outputs"] == pytest.approx(found[method]["outputs"], rel=1e-9)
    assert len(masks) == 5
    assert all((tmp_path / "toy-55" / n).stat().st_mtime_ns == at for n, at in masks.items())
    capsys.readouterr()
    run(bench, monkeypatch, "--table", "--json", out)
    assert "| toy | 55% | osscar-like |" in capsys.readouterr().out


def test_choice_of_channels_alone(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "masks.json"
    run(bench, monkeypatch, "toy", "--masks", "--json", out)
    rows = json.loads(out.read_text())["rows"]
    assert {row["method"] for row in rows} == set(METHODS) - {"ours"}
    for row in rows:
        assert row["proven"] == row["families"] == 2
        assert row["smallest_ratio"] >= 1 - 1e-3  # ours is proven to that gap
