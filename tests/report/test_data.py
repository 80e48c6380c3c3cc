"""Reports survive the way to disk and back, and wrong files are refused."""

import json
from pathlib import Path

import pytest

from mipprune.errors import DataFileError, InputError
from mipprune.report import PruneReport, Size, load_report
from tests.report.examples import full_report


def test_round_trip_keeps_every_field(tmp_path: Path) -> None:
    report = full_report()
    report.save(tmp_path / "report.json")
    assert load_report(tmp_path) == report
    assert load_report(tmp_path / "report.json") == report


def test_a_report_with_the_bare_minimum(tmp_path: Path) -> None:
    report = PruneReport("bare", {}, (), ())
    report.save(tmp_path / "report.json")
    assert load_report(tmp_path) == report


def test_lookup_by_name() -> None:
    report = full_report()
    size = report.size("MACs")
    assert size is not None
    assert size.kept == pytest.approx(1_055_300 / 2_650_000)
    assert report.size("bytes") is None
    stage = report.stage("dense")
    assert stage is not None
    assert stage.epochs == 20
    assert report.stage("nothing") is None


def test_an_empty_network_is_kept_whole() -> None:
    assert Size("MACs", 0, None, 0, 0).kept == 1.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a report"),
        ("[]", "not a report of format 1"),
        ('{"format": 2}', "found format 2"),
        ('{"format": 1}', "PruneReport"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(DataFileError, match=message):
        load_report(tmp_path)


def test_a_missing_report_names_the_way_on(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="--resume"):
        load_report(tmp_path)


def test_unknown_and_malformed_parts_are_named() -> None:
    content = json.loads(json.dumps(full_report().to_json()))
    content["stages"][0]["colour"] = "red"
    with pytest.raises(InputError, match="Stage has no field colour"):
        PruneReport.from_json(content)
    content = json.loads(json.dumps(full_report().to_json()))
    content["sizes"] = [3]
    with pytest.raises(InputError, match="fields of a Size, got 3"):
        PruneReport.from_json(content)
