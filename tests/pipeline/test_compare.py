"""Comparisons: equal terms, budgets held, stopped and extended, failures recorded."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mipprune.cli import main
from mipprune.errors import DataFileError, InputError
from mipprune.pipeline import CompareConfig, MethodEntry, compare, load_compare_config

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

METHODS: tuple[Any, ...] = (
    "l1-norm",
    {"method": "l1-norm", "name": "l1-global", "options": {"normalise": "none"}},
    "spr",
    "taylor",
    "bar",
)


def tiny(**changes: Any) -> CompareConfig:
    """An MLP on some digits: one or two epochs of each phase."""
    settings: dict[str, Any] = {
        "data": "digits",
        "model": "mlp",
        "model_options": {"hidden": [12, 10]},
        "methods": METHODS,
        "budgets": ["50%", "25%"],
        "dense_epochs": 2,
        "epochs": 2,
        "tune_epochs": 1,
        "latency_repeats": 1,
        "limit": {"train": 192, "validation": 64, "test": 64},
        "training": {"batch_size": 32},
    }
    return CompareConfig.from_mapping({**settings, **changes})


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """What lies on disk, without what depends on the clock."""
    clock = ("seconds", "rounding_seconds", "latency_ms", "latency_ratio", "last_epoch")
    found = {}
    for file in sorted(folder.rglob("result.json")):
        content = json.loads(file.read_text())
        found[str(file.relative_to(folder))] = {
            name: value for name, value in content.items() if name not in clock
        }
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compare") / "whole"
    found = compare(tiny(), out, progress=False)
    assert not found.comparison.missing
    assert not found.comparison.failed
    return out


def test_every_cell_is_there_on_equal_terms(whole: Path) -> None:
    content = json.loads((whole / "comparison.json").read_text())
    cells = content["cells"]
    assert len(cells) == len(METHODS) * 2
    assert {cell["epochs"] for cell in cells} == {3}
    assert all(cell["latency_ratio"] > 0 for cell in cells)
    for cell in cells:
        share = float(cell["budget"].rstrip("%")) / 100
        limit = share * content["dense_macs"]
        # One unit of the first layer reads 64 inputs and is read by 10 others.
        assert limit - (64 + 10) < cell["macs"] <= limit
    page = (whole / "comparison.html").read_text()
    assert page.count("<svg") == 3
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "l1-global" in (whole / "comparison.md").read_text()


def test_trainings_are_shared_where_the_method_takes_no_budget(whole: Path) -> None:
    seed = whole / "seed-0"
    assert sorted(p.name for p in seed.iterdir() if p.is_dir()) == [
        "bar", "dense", "half", "l1-global", "l1-norm", "spr", "start", "taylor",
    ]  # fmt: skip
    assert sorted(p.name for p in (seed / "spr").iterdir()) == ["25pc-own", "50pc-own", "train"]
    assert (seed / "bar" / "train-25pc" / "result.json").is_file()
    assert not (seed / "l1-norm" / "train").exists()


def test_stopped_and_resumed_is_the_same(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "parts"
    first = compare(tiny(), out, time_limit=1e-9, progress=False)
    assert len(first.comparison.missing) == len(METHODS) * 2
    part = tiny(budgets=["25%"], methods=METHODS[:3])
    second = compare(part, out, resume=True, progress=False)
    assert not second.comparison.missing
    third = compare(tiny(), out, resume=True, progress=False)
    assert not third.comparison.missing
    assert results(out) == results(whole)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("result.json")}
    compare(tiny(), out, resume=True, progress=False)
    assert times == {path: path.stat().st_mtime_ns for path in out.rglob("result.json")}


def test_other_settings_do_not_resume(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"other settings.*epochs \(3 and 2\)"):
        compare(tiny(epochs=3), whole, resume=True, progress=False)
    changed = [{"method": "spr", "options": {"strength": 2.0}}]
    with pytest.raises(InputError, match="method 'spr'"):
        compare(tiny(methods=changed), whole, resume=True, progress=False)
    with pytest.raises(InputError, match="exists already"):
        compare(tiny(), whole, progress=False)
    with pytest.raises(InputError, match="no comparison"):
        compare(tiny(), tmp_path / "none", resume=True, progress=False)


def test_optimiser_rounds_to_the_same_budget(tmp_path: Path) -> None:
    config = tiny(
        methods=["l1-norm"], budgets=["40%"], roundings=["optimiser"], samples=128,
        rounding_seconds=2.0, latency_repeats=0,
    )  # fmt: skip
    found = compare(config, tmp_path / "out", progress=False).comparison
    (cell,) = found.cells
    assert 0.4 * found.dense_macs - 74 < cell.macs <= 0.4 * found.dense_macs
    assert cell.latency_ratio is None
    assert 0 <= cell.removed <= 1


def test_what_cannot_be_done_is_recorded(tmp_path: Path) -> None:
    config = tiny(methods=["l1-norm", "bar"], budgets=["0.5%", "50%"], latency_repeats=0)
    found = compare(config, tmp_path / "out", progress=False).comparison
    assert [cell.budget for cell in found.cells] == ["50%", "50%"]
    assert len(found.failed) == 2
    assert "cannot be reached" in found.failed[0]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "small.toml"
    file.write_text(
        'data = "digits"\nmodel = "mlp"\nbudgets = ["50%"]\ndense_epochs = 1\nepochs = 1\n'
        "tune_epochs = 0\nlatency_repeats = 0\nmodel_options = {hidden = [8, 8]}\n"
        "limit = {train = 64, validation = 32, test = 32}\n"
        '[[methods]]\nmethod = "random"\noptions = {uniform = false}\n'
    )
    command = ["compare", str(file), "--out", str(tmp_path / "run"), "--quiet"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "random" in shown
    assert "Test accuracy in %, the method's own rounding" in shown
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0


@pytest.mark.slow
def test_processes_find_the_same(whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("joblib")
    compare(tiny(), tmp_path / "two", jobs=2, progress=False)
    mine, theirs = results(tmp_path / "two"), results(whole)
    for content in (*mine.values(), *theirs.values()):
        content.pop("threads")
    assert mine == theirs


def test_configurations_go_to_disk_and_back(tmp_path: Path) -> None:
    config = tiny(seeds=[1, 0], roundings=["own", "optimiser"])
    config.save(tmp_path / "config.json")
    assert load_compare_config(tmp_path / "config.json") == replace(config)
    cells = list(config.cells())
    assert len(cells) == len(METHODS) * 8
    assert [cell.budget for cell in cells[: len(METHODS) * 4]] == ["50%"] * len(METHODS) * 4
    assert config.smallest_budget == "25%"
    assert [entry.start for entry in config.methods] == ["start", "start", None, "start", "half"]
    assert [entry.per_budget for entry in config.methods] == [False, False, False, False, True]
    assert MethodEntry(method="tapering").per_budget is False
    assert config.run_config(0, config.methods[4], "25%").epochs == 1
    no_tuning = config.run_config(0, MethodEntry(method="swd"), "25%")
    assert (no_tuning.epochs, no_tuning.tune_epochs) == (3, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["sprr"]}, "unknown method"),
        ({"methods": ["none"]}, "dense network is compared with anyway"),
        ({"methods": ["spr", "spr"]}, "without repetition"),
        ({"methods": ["spr", {"method": "l0", "name": "spr"}]}, "same name"),
        ({"methods": [{"method": "spr", "name": "a/b"}]}, "cannot name a method"),
        ({"methods": [{"method": "spr", "opts": {}}]}, "unknown setting of a method opts"),
        ({"methods": [{"name": "spr"}]}, "needs the setting 'method'"),
        ({"budgets": []}, "budgets must be a list"),
        ({"budgets": ["150%"]}, "percentage"),
        ({"budgets": [0.5]}, "texts such as"),
        ({"roundings": ["exact"]}, "roundings: expected one of"),
        ({"resource": "channels"}, "resource: expected one of macs, params"),
        ({"seeds": [-1]}, "seed"),
        ({"samples": 0}, "samples"),
        ({"rounding_seconds": 0}, "rounding_seconds"),
        ({"colour": "red"}, "unknown setting colour"),
        ({"format": 9}, "format"),
    ],
)
def test_wrong_configurations_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny(**changes)


def test_missing_or_broken_files(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="no configuration"):
        load_compare_config(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("data = ")
    with pytest.raises(DataFileError, match="is not a configuration"):
        load_compare_config(broken)
    other = tmp_path / "list.json"
    other.write_text("[1]")
    with pytest.raises(DataFileError, match="table of settings"):
        load_compare_config(other)
    partial = tmp_path / "partial.json"
    partial.write_text('{"data": "digits"}')
    with pytest.raises(InputError, match="budgets, methods, model are missing"):
        load_compare_config(partial)
    with pytest.raises(InputError, match="jobs"):
        compare(tiny(), tmp_path / "x", jobs=0)
