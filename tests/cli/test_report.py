"""``mipprune report``."""

from pathlib import Path

import pytest

from mipprune.cli import main
from tests.report.examples import full_report


def test_shows_a_report_and_writes_it_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full_report().save(tmp_path / "report.json")
    other = tmp_path / "other"
    other.mkdir()
    assert main(["report", str(tmp_path), "--write", str(other)]) == 0
    text = capsys.readouterr().out
    assert "after fine-tuning" in text
    assert str(other / "report.html") in text
    assert (other / "report.json").read_bytes() == (tmp_path / "report.json").read_bytes()


def test_a_folder_without_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "there is no report" in capsys.readouterr().err
