"""The whole pipeline on a tiny network: sizes, report and files agree."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mipprune.graph import channel_groups, remove
from mipprune.pipeline import PruneResult, load_pruned
from mipprune.report import load_report
from mipprune.training import evaluate, method_class, method_names
from tests.pipeline.tiny import small_resnet, tiny_data, tiny_model, tiny_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> PruneResult:
    return tiny_run(tmp_path_factory.mktemp("runs") / "run")


def test_folder_has_what_it_promises(finished: PruneResult) -> None:
    names = {
        str(path.relative_to(finished.folder))
        for path in finished.folder.rglob("*")
        if path.is_file()
    }
    assert names == {
        "config.json",
        "dense/checkpoint.pt",
        "dense/metrics.jsonl",
        "dense/result.json",
        "metrics.jsonl",
        "model.pt",
        "remove/masks.json",
        "remove/result.json",
        "report.html",
        "report.json",
        "report.md",
        "specification.json",
        "train/checkpoint.pt",
        "train/metrics.jsonl",
        "train/result.json",
        "tune/checkpoint.pt",
        "tune/metrics.jsonl",
        "tune/result.json",
    }


def test_sizes_are_those_of_the_network(finished: PruneResult) -> None:
    macs, params = finished.report.size("MACs"), finished.report.size("parameters")
    assert macs is not None
    assert params is not None
    # 64-12-10-10; biases are not multiplied.
    assert macs.dense == 64 * 12 + 12 * 10 + 10 * 10
    widths = [len(mask) for mask in finished.masks.values()]
    assert widths == [12, 10]
    first, second = (int(mask.sum()) for mask in finished.masks.values())
    assert macs.counted == 64 * first + first * second + second * 10
    assert params.counted == sum(p.numel() for p in finished.model.parameters())
    assert (macs.predicted, params.predicted) == (macs.counted, params.counted)


def test_budget_is_met_and_used(finished: PruneResult) -> None:
    macs = finished.report.size("MACs")
    assert macs is not None
    assert macs.asked is not None
    assert macs.asked == pytest.approx(0.5 * macs.dense)
    first, second = (int(mask.sum()) for mask in finished.masks.values())
    dearest = max(64 + second, first + 10)
    assert macs.asked - dearest < macs.counted <= macs.asked


def test_stages_are_accuracies_of_the_networks(finished: PruneResult) -> None:
    report = finished.report
    assert [stage.name for stage in report.stages] == [
        "dense",
        "after spr",
        "after removal",
        "after fine-tuning",
    ]
    assert [stage.epochs for stage in report.stages] == [2, 2, 0, 1]
    for split in ("validation", "test"):
        found = evaluate(finished.model, tiny_data(), split).accuracy
        assert getattr(report.stages[-1], split) == found


def test_curves_gates_and_widths(finished: PruneResult) -> None:
    report = finished.report
    loss = [curve for curve in report.curves if curve.quantity == "training loss"]
    assert [curve.epochs for curve in loss] == [(1, 2), (3, 4), (5,)]
    assert report.gates is not None
    assert sum(report.gates.counts) == 22
    assert [(w.before, w.after) for w in report.widths] == [
        (len(mask), int(mask.sum())) for mask in finished.masks.values()
    ]
    assert report.latency is not None
    assert report.latency.repeats == 2


def test_report_on_disk_is_the_same(finished: PruneResult) -> None:
    assert load_report(finished.folder) == finished.report
    assert finished.report.provenance["seed"] == 0
    assert "torch" in finished.report.provenance["versions"]


def test_metrics_hold_every_epoch(finished: PruneResult) -> None:
    lines = (finished.folder / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [(r["phase"], r["epoch"]) for r in records] == [
        ("dense", 1),
        ("dense", 2),
        ("train", 1),
        ("train", 2),
        ("tune", 1),
    ]
    assert "spr_penalty" in records[2]


def test_saved_network_is_the_result(finished: PruneResult) -> None:
    saved = load_pruned(finished.folder, model=tiny_model, data=tiny_data())
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(saved.model(images), finished.model.eval()(images))
    state = torch.load(finished.folder / "model.pt", weights_only=True)
    assert set(state) == set(finished.model.state_dict())


def test_same_seed_same_network(finished: PruneResult, tmp_path: Path) -> None:
    again = tiny_run(tmp_path / "run", latency_repeats=0)
    assert again.report.latency is None
    for name, value in finished.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])
    other = tiny_run(tmp_path / "other", seed=1, latency_repeats=0)
    assert not all(
        value.shape == other.model.state_dict()[name].shape
        and torch.equal(value, other.model.state_dict()[name])
        for name, value in finished.model.state_dict().items()
    )


def test_given_weights_replace_the_dense_phase(finished: PruneResult, tmp_path: Path) -> None:
    network = tiny_model()
    content = torch.load(finished.folder / "dense" / "checkpoint.pt", weights_only=True)
    torch.save(content["model"], tmp_path / "dense.pt")
    network.load_state_dict(content["model"])
    result = tiny_run(tmp_path / "run", weights=str(tmp_path / "dense.pt"), latency_repeats=0)
    assert result.report.stages[0].epochs == 0
    assert result.report.stages[0].test == finished.report.stages[0].test
    assert result.report.stages[-1].test == finished.report.stages[-1].test


def test_several_budgets_and_multiples(tmp_path: Path) -> None:
    result = tiny_run(
        tmp_path / "run", macs="70%", params="60%", channels="90%", multiple_of=4, tune_epochs=0
    )
    for size, part in zip(result.report.sizes, (0.7, 0.6, 0.9), strict=True):
        assert size.asked is not None
        assert size.asked == pytest.approx(part * size.dense)
        assert size.counted <= size.asked
    for mask in result.masks.values():
        assert mask.sum() % 4 == 0 or mask.all()
    assert result.report.stages[-1].name == "after removal"


def test_rounding_of_the_authors(tmp_path: Path) -> None:
    """With a tolerance that any loss of accuracy meets, the rule cuts at the largest threshold."""
    sizes = {}
    for name, tolerance in (("strict", 0.0), ("loose", 2.0)):
        options = {"tolerance": tolerance}
        result = tiny_run(
            tmp_path / name, macs=None, rounding="authors", epochs=6, method_options=options
        )
        assert all(size.asked is None for size in result.report.sizes)
        sizes[name] = int(np.concatenate(list(result.masks.values())).sum())
    assert 2 <= sizes["loose"] < sizes["strict"] <= 22


QUICK = ("l1-norm", "rni")


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in method_names()
        if name not in ("none", "spr")
    ],
)
def test_every_method_goes_the_whole_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = tmp_path / "run"
    result = tiny_run(out, model=small_resnet, method=method, macs="60%", latency_repeats=0)
    kind = method_class(method)
    assert [stage.name for stage in result.report.stages] == [
        "dense",
        *([f"after {method}"] if kind.trains else []),
        "after removal",
        *(["after fine-tuning"] if kind.needs_fine_tuning else []),
    ]
    macs = result.report.size("MACs")
    assert macs is not None
    assert macs.asked is not None
    assert 0.5 * macs.dense < macs.counted <= macs.asked
    saved = load_pruned(out, model=small_resnet, data=tiny_data())
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            saved.model(images), result.model.eval()(images), rtol=1e-3, atol=1e-4
        )


def test_removed_channels_are_those_of_the_masks(finished: PruneResult) -> None:
    """Before fine-tuning the smaller network computes what the trained one does, masked."""
    content = torch.load(finished.folder / "train" / "checkpoint.pt", weights_only=True)
    network = tiny_model()
    network.load_state_dict(content["model"])
    groups = channel_groups(network, torch.zeros(2, 1, 8, 8))
    smaller = remove(network, groups, finished.masks).eval()
    masked = network.eval()
    hidden = [module for module in masked.modules() if isinstance(module, nn.Linear)]
    with torch.no_grad():
        for layer, mask in zip(hidden[1:], finished.masks.values(), strict=True):
            layer.weight[:, torch.from_numpy(~mask)] = 0.0
        images = tiny_data().normalise(tiny_data().test.images())
        difference = (masked(images) - smaller(images)).abs().max()
    assert float(difference) < 1e-4
    accuracy = evaluate(smaller, tiny_data(), "test").accuracy
    assert finished.report.stages[2].test == accuracy


def test_report_is_frozen(finished: PruneResult) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        finished.report.title = "other"  # type: ignore[misc]  # that is what is tested
