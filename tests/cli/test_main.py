"""Exit codes, one-line errors and suggestions of the command line."""

import os
import subprocess
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

from mipprune.cli import _main, main
from mipprune.cli._command import Command, available_commands
from mipprune.cli._parser import Parser, key_value, one_of
from mipprune.errors import BudgetError


def _only(monkeypatch: pytest.MonkeyPatch, execute: Callable[[Namespace], int]) -> None:
    command = Command("work", "Work.", lambda parser: None, execute)
    monkeypatch.setattr(_main, "available_commands", lambda: {"work": command})


def _run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    try:
        code: int | str | None = main(arguments)
    except SystemExit as error:
        code = error.code
    assert isinstance(code, int)
    return code, capsys.readouterr().err


def test_every_command_describes_itself(capsys: pytest.CaptureFixture[str]) -> None:
    commands = available_commands()
    assert {"prune", "report", "models", "data", "export"} <= set(commands)
    for name, command in commands.items():
        assert command.summary.endswith(".")
        assert command.example.startswith(f"mipprune {name}")
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0
        shown = capsys.readouterr().out.partition("example:\n")[2].replace("\\\n", "")
        assert " ".join(shown.split()) == command.example


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["prun"], ["unknown command 'prun'", "did you mean prune"]),
        (["xyzzy"], ["unknown command 'xyzzy'"]),
        (["prune", "--modle", "a"], ["unknown option --modle", "did you mean --model"]),
        (["prune", "--qqq=1"], ["unknown option --qqq"]),
        (["--verion"], ["unknown option --verion", "did you mean --version"]),
        (["report"], ["required: run"]),
        (["models", "--image-size", "x"], ["--image-size", "'x'"]),
        (["models", "resnet2"], ["unknown network 'resnet2'"]),
        (["data", "digit"], ["unknown data set 'digit'"]),
    ],
)
def test_wrong_input_is_one_line_and_code_2(
    arguments: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = _run(arguments, capsys)
    assert code == 2
    assert text.count("\n") == 1
    for part in parts:
        assert part in text
    assert "Traceback" not in text


def test_our_errors_become_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: Namespace) -> int:
        raise BudgetError("too small;\n  reachable is 10 %")

    _only(monkeypatch, fail)
    code, text = _run(["work"], capsys)
    assert (code, text) == (2, "mipprune: error: too small; reachable is 10 %\n")


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(options: Namespace) -> int:
        raise ZeroDivisionError

    _only(monkeypatch, fail)
    with pytest.raises(ZeroDivisionError):
        main(["work"])


def test_interrupt_exits_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(options: Namespace) -> int:
        raise KeyboardInterrupt

    _only(monkeypatch, interrupt)
    assert _run(["work"], capsys) == (130, "mipprune: interrupted; no file is half written\n")


def test_warnings_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(options: Namespace) -> int:
        sys.stderr.write(warnings.formatwarning("look\nout", UserWarning, "f", 1))
        return 0

    before = warnings.formatwarning
    _only(monkeypatch, warn)
    assert _run(["work"], capsys) == (0, "mipprune: warning: look out\n")
    assert warnings.formatwarning is before


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a=-0.5", -0.5),
        ("a=1e-3", 1e-3),
        ("a=true", True),
        ("a=None", None),
        ("a=b=c", "b=c"),
        ("a=", ""),
    ],
)
def test_key_value(text: str, value: object) -> None:
    assert key_value(text) == ("a", value)


@pytest.mark.parametrize("text", ["a", "=1", "a b=1"])
def test_key_value_refuses(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="x")
    parser.add_argument("--option", type=key_value)
    with pytest.raises(SystemExit):
        parser.parse_args(["--option", text])
    assert "expected name=value" in capsys.readouterr().err


def test_one_of_suggests(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="x")
    parser.add_argument("--method", type=one_of(lambda: ("spr", "slimming"), "method"))
    with pytest.raises(SystemExit):
        parser.parse_args(["--method", "sliming"])
    assert "unknown method 'sliming'; did you mean slimming" in capsys.readouterr().err
    assert parser.parse_args(["--method", "spr"]).method == "spr"


def test_as_a_module_without_loading_torch(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-m", "mipprune", "data"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0
    assert "digits" in done.stdout.splitlines()
    help_only = "import sys, mipprune.cli\nmipprune.cli.main([])\n"
    look = help_only + "sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", look], env=environment, cwd=tmp_path).returncode == 0
    )
