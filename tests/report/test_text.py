"""Terminal and Markdown: every figure is there, tables are well formed."""

from dataclasses import replace

import pytest

from mipprune.report import render_markdown, render_text
from mipprune.report._format import duration, percent, quantity
from tests.report.examples import full_report


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (999, "999"), (40_551_234, "40.6 M"), (1e9, "1 G"), (2.5e12, "2.5 T")],
)
def test_quantity(value: float, shown: str) -> None:
    assert quantity(value) == shown


def test_percent_and_duration() -> None:
    assert percent(0.98512) == "98.51 %"
    assert percent(None) == "–"
    assert duration(5) == "5.0 s"
    assert duration(125) == "2:05"
    assert duration(3725) == "1:02:05"


def test_text_holds_the_figures() -> None:
    text = render_text(full_report())
    for figure in ("98.61 %", "98.33 %", "1,055,300", "≤ 1,060,000", "0.566", "note: One test"):
        assert figure in text
    assert "layer3.2.conv1     64 -> 12" in text


def test_widths_are_drawn_to_scale() -> None:
    lines = render_text(full_report()).splitlines()
    widest = next(line for line in lines if line.startswith("layer3.1.conv1"))
    narrow = next(line for line in lines if line.startswith("layer1.0.conv1     16 ->"))
    assert widest.count("#") + widest.count(".") - 2 == 30
    assert narrow.count("#") == round(30 * 5 / 64)


def test_empty_sections_are_left_out() -> None:
    report = replace(full_report(), gaps=(), latency=None, widths=(), gates=None, notes=())
    for text in (render_text(report), render_markdown(report)):
        for word in ("Latency", "optimal", "Gates", "note"):
            assert word not in text


def test_markdown_tables_have_equal_columns() -> None:
    blocks = render_markdown(full_report()).split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("|")]
    assert len(tables) == 6
    for table in tables:
        assert len({row.count(" |") for row in table}) == 1
    assert "a\\|b" in render_markdown(full_report())
