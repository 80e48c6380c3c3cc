"""What people mistype: one line, code 2, before anything is read, trained or written."""

import json
from pathlib import Path

import numpy as np
import pytest

from mipprune.cli import main
from mipprune.cli._command import available_commands
from mipprune.problem import ChannelSelection

PRUNE = ["prune", "--data", "digits", "--model", "lenet5", "--out", "run"]
COMPRESS = ["compress", "lenet5", "--data", "digits", "--out", "run"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    problem = ChannelSelection(np.eye(3), [[1.0], [0.5], [0.1]], 1.3, [1] * 3, ridge=0.1, keep=2)
    problem.save(tmp_path / "layer.npz")
    (tmp_path / "mask.json").write_text("[1, 1, 0]")
    (tmp_path / "weights.pt").write_text("epoch,loss")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    try:
        code: int | str | None = main(arguments)
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2, captured
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("mipprune")
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["solve", "layer.npz", "--time-limit", "0"], "expected seconds > 0, got '0'"),
        (["solve", "layer.npz", "--time-limit", "-1"], "expected seconds > 0, got '-1'"),
        (["solve", "layer.npz", "--time-limit", "nan"], "expected seconds > 0, got 'nan'"),
        (["relax", "layer.npz", "--time-limit", "soon"], "expected seconds > 0, got 'soon'"),
        (["certify", "layer.npz", "mask.json", "--time-limit", "0"], "expected seconds > 0"),
        (["solve", "layer.npz", "--gap", "nan"], "gap: expected"),
        (["solve", "layer.npz", "--gap", "-1"], "gap: expected"),
        (["solve", "layer.npz", "--keep", "-1"], "--keep: expected an integer >= 0, got '-1'"),
        (["solve", "layer.npz", "--keep", "9"], "keep: expected an integer in 0..3, got 9"),
        (["solve", "layer.npz", "--seed", "x"], "expected an integer >= 0, got 'x'"),
        (["solve", "layer.npz", "--method", "branch"], "unknown method 'branch'"),
        (["solve", "layer.npz", "--option", "threads=1"], "give --method too"),
        (
            ["solve", "layer.npz", "--method", "branch-and-bound", "--option", "thread=1"],
            "no option 'thread'; it takes node_limit, threads; did you mean threads?",
        ),
        (
            ["solve", "layer.npz", "--method", "branch-and-bound", "--option", "threads=two"],
            "threads: expected an integer >= 1 or None, got the text 'two'",
        ),
        (["solve", "none.npz"], "no such file"),
        (["solve", "folder"], "no such file"),
        (["solve", "mask.json"], "not an npz file"),
        (["certify", "layer.npz", "folder"], "holds no mask"),
        (["relax", "layer.npz", "--kind", "schur"], "unknown kind of relaxation 'schur'"),
        (["relax", "layer.npz", "--tolerance", "0"], "tol: expected a number > 0, got 0"),
        (["verify", "none.npz", "--problem", "layer.npz"], "there is no file none.npz"),
        (["compare", "none.toml", "--out", "run"], "there is no configuration at none.toml"),
        (["compare", "folder", "--out", "run"], "is not a configuration"),
        (["compare", "c.toml", "--out", "run", "--jobs", "0"], "expected an integer >= 1"),
        (["report", "folder"], "folder"),
        (["report", "none"], "none"),
        (["export", "folder", "--onnx", "a.onnx"], "there is no run in folder"),
        (["latency", "lenet5", "--data", "digits", "--out", "folder"], "it is a folder"),
        (["models", "lenet5", "--classes", "0"], "expected an integer >= 1, got '0'"),
        (["models", "resnet21"], "did you mean resnet32 or resnet20"),
        (["data", "digitz"], "did you mean digits?"),
    ],
)
def test_commands(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.iterdir())
    assert message in _said(arguments, capsys)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--macs", "40"], "write 40% for what remains in percent"),
        (["--params", "50.0"], "write 50.0% for what remains in percent"),
        (["--macs", "140%"], "a percentage must be in (0, 100]"),
        (["--macs", "-5%"], "what remains cannot be negative"),
        (["--macs", "0"], "the amount must be positive"),
        (["--macs", "0.4"], "for a fraction write '40%'"),
        (["--macs", "half"], "is not understood; write '40%'"),
        (["--macs", "50%", "--multiple-of", "0"], "expected an integer >= 1, got '0'"),
        (["--macs", "50%", "--seed", "-1"], "expected an integer >= 0, got '-1'"),
        (["--macs", "50%", "--weights", "none.pt"], "there is no weight file 'none.pt'"),
        (["--macs", "50%", "--weights", "folder"], "'folder'; it is a folder"),
        (["--macs", "50%", "--out", "weights.pt/run"], "weights.pt is a file"),
        (["--macs", "50%", "--out", "."], "exists already"),
        ([], "there is no budget"),
    ],
)
@pytest.mark.parametrize("command", [PRUNE, COMPRESS], ids=["prune", "compress"])
def test_prune_and_compress(
    folder: Path,
    command: list[str],
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def loaded(*_: object) -> None:
        raise AssertionError("the data were loaded before the cheap checks")

    monkeypatch.setattr("mipprune.pipeline._prune.load_task_data", loaded)
    # argparse takes -5% for an option unless it is joined.
    joined = [f"{options[0]}={options[1]}", *options[2:]] if options else []
    more = [] if "--weights" in options or command is PRUNE else ["--weights", "weights.pt"]
    assert message in _said([*command, *more, *joined], capsys)
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "cud"], "'cud' is no device; expected cpu"),
        (["--device", "cuda:77"], "'cuda:77' cannot be used here"),
        (["--model", "lenet"], "unknown network 'lenet'; did you mean lenet5"),
        (["--method", "srp"], "unknown method 'srp'"),
        (["--rounding", "best"], "invalid choice: 'best'"),
        (["--threads", "0"], "argument --threads: expected an integer >= 1, got '0'"),
        (["--epochs", "0"], "expected an integer >= 1, got '0'"),
        (["--resume"], "there is no run in run to resume"),
    ],
)
def test_prune(
    folder: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in _said([*PRUNE, "--macs", "50%", *options], capsys)
    assert not (folder / "run").exists()


@pytest.mark.parametrize("command", ["solve", "relax"])
@pytest.mark.parametrize("option", ["--json", "--certificate"])
@pytest.mark.parametrize("place", ["folder", "none/out", "mask.json/out"])
def test_results_that_cannot_be_written_are_noticed_first(
    folder: Path, command: str, option: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # The problem is missing too: the place of the result comes first.
    said = _said([command, "none.npz", option, place], capsys)
    assert f"cannot write {place}" in said


def test_one_file_for_two_results(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["solve", "layer.npz", "--json", "out", "--certificate", "./out"]
    assert "--json and --certificate name the same file" in _said(command, capsys)


@pytest.mark.parametrize("command", ["solve", "relax"])
def test_json_on_standard_output(
    folder: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "layer.npz", "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["bound"] <= 0.7
    assert "bound" in captured.err
    assert sorted(path.name for path in folder.iterdir()) == [
        "folder", "layer.npz", "mask.json", "weights.pt",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["", *available_commands()])
def test_help_fits_80_columns(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*([name] if name else []), "--help"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "example:\n  mipprune " in text
