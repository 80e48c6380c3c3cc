"""What the README claims: its example, its commands and its links."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
import torch

from mipprune.cli import main
from mipprune.solvers import METHODS
from mipprune.training import method_names

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.S)
    assert found is not None
    return found.group(1)


def test_example_prints_what_is_shown() -> None:
    output = io.StringIO()
    with torch.random.fork_rng(), contextlib.redirect_stdout(output):
        exec(compile(_block("python"), "README.md", "exec"), {})
    assert output.getvalue() == _block("text")


def test_commands_exist(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^mipprune (\w+) (.*?)(?:#.*)?$", README, re.M)
    assert len(commands) >= 6
    for command, arguments in commands:
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0
        shown = capsys.readouterr().out
        for option in shlex.split(arguments):
            if option.startswith("--"):
                assert option in shown, f"{command} {option}"


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_solvers_and_methods_are_listed() -> None:
    for name in (*METHODS, *(set(method_names()) - {"none"})):
        assert f"`{name}`" in README, name
