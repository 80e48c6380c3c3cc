"""The page is well formed, complete and loads nothing."""

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mipprune.errors import MissingExtraError
from mipprune.report import PruneReport, render_html, write_report
from tests.report.examples import full_report

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Reader(HTMLParser):
    """Collects text, ids and references, and checks that tags nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in {"src", "href", "xlink:href", "srcset", "data", "action"}:
                self.references.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


def test_page_nests_and_escapes() -> None:
    reader = _read(render_html(full_report()))
    text = " ".join(reader.text)
    assert "digits <resnet20> at 40 % of the MACs" in text
    for figure in ("98.33 %", "39.8 %", "43.8 %", "56.6 %", "2.00 %", "One test image"):
        assert figure in text
    assert reader.tags.count("svg") == 5


def test_page_loads_nothing() -> None:
    page = render_html(full_report())
    reader = _read(page)
    assert all(reference.startswith("#") for reference in reader.references)
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(reader.tags)
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_ids_are_unique_and_references_resolve() -> None:
    page = render_html(full_report())
    reader = _read(page)
    assert len(reader.ids) == len(set(reader.ids))
    targets = [reference[1:] for reference in reader.references]
    targets += re.findall(r"url\(#([^)]+)\)", page)
    assert targets
    assert set(targets) <= set(reader.ids)


def test_plots_follow_the_colours_of_the_page() -> None:
    page = render_html(full_report())
    svg = page[page.index("<svg") :]
    assert "var(--series-0)" in svg
    assert "var(--ink)" in svg
    assert not re.search(r"#0[0-9a-f]0[0-9a-f]0[0-9a-f]\b", svg)


def test_bare_report_renders() -> None:
    page = render_html(PruneReport("bare", {}, (), ()))
    assert "<svg" not in page
    _read(page)


def test_one_epoch_and_a_loss_of_zero() -> None:
    report = full_report()
    curve = replace(report.curves[0], epochs=(1,), values=(0.0,))
    _read(render_html(replace(report, curves=(curve,))))


def test_without_matplotlib_the_rest_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"mipprune\[report\]"):
        render_html(full_report())
    files = write_report(full_report(), tmp_path)
    assert files.html is None
    assert "mipprune[report]" in files.missing
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]


def test_files_are_written(tmp_path: Path) -> None:
    files = write_report(full_report(), tmp_path)
    assert files.html is not None
    assert files.html.read_text(encoding="utf-8") == render_html(full_report())
    assert not list(tmp_path.glob(".*"))
