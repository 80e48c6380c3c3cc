"""The folder of a run: made once, reopened with the same settings only."""

import json
from pathlib import Path

import pytest

from mipprune.errors import DataFileError, InputError
from mipprune.pipeline import RunDirectory
from tests.pipeline.tiny import tiny_config


def test_create_and_open(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "a" / "run", tiny_config())
    assert RunDirectory.open(run.path, tiny_config()).config.differences(tiny_config()) == []


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, tiny_config())


def test_an_existing_run_is_refused(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, tiny_config())
    with pytest.raises(InputError, match="--resume"):
        RunDirectory.create(tmp_path, tiny_config())


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_anything_else_is_refused(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    if kind == "file":
        target.write_text("precious")
    else:
        target.mkdir()
        (target / "precious").write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        RunDirectory.create(target, tiny_config())


def test_resume_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run in"):
        RunDirectory.open(tmp_path)


def test_resume_with_other_settings(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, tiny_config())
    with pytest.raises(InputError, match=r"epochs \(3 and 2\)"):
        RunDirectory.open(tmp_path, tiny_config(epochs=3))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataFileError, match="cannot make the folder"):
        RunDirectory.create(tmp_path / "file" / "run", tiny_config())


def test_results_and_metrics(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, tiny_config())
    assert run.result("dense") is None
    (run.phase("dense") / "metrics.jsonl").write_text('{"epoch": 1, "loss": 0.5}\n')
    (run.phase("tune") / "metrics.jsonl").write_text('{"epoch": 1, "loss": 0.25}\n')
    run.finish_phase("dense", {"epochs": 1})
    assert run.result("dense") == {"epochs": 1}
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [
        {"phase": "dense", "epoch": 1, "loss": 0.5},
        {"phase": "tune", "epoch": 1, "loss": 0.25},
    ]


def test_a_damaged_result_names_the_way_on(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, tiny_config())
    (run.phase("dense") / "result.json").write_text("{")
    with pytest.raises(DataFileError, match="delete it"):
        run.result("dense")
