"""Tables and pages of a comparison, from figures worked out by hand."""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from mipprune.report.comparison import (
    CellResult,
    Comparison,
    comparison_tables,
    render_comparison_html,
    render_comparison_markdown,
    render_comparison_text,
    write_comparison,
)


def cell(method: str, budget: str, seed: int, test: float, rounding: str = "own") -> CellResult:
    macs = {"50%": 500, "25%": 240}[budget]
    return CellResult(
        method, budget, rounding, seed, test, test - 0.01, 0.5, 0.9, macs, 100, 3, None, 1.0
    )


def example() -> Comparison:
    return Comparison(
        title="net on <data>",
        resource="macs",
        budgets=("50%", "25%"),
        methods=("a", "b"),
        roundings=("own", "optimiser"),
        dense={0: 0.95, 1: 0.97},
        dense_macs=1000,
        dense_params=400,
        cells=(
            cell("a", "50%", 0, 0.90),
            cell("a", "50%", 1, 0.94),
            cell("b", "50%", 0, 0.91),
            cell("b", "50%", 1, 0.91),
            cell("a", "25%", 0, 0.80),
            cell("b", "25%", 0, 0.85, "optimiser"),
        ),
        missing=("b at 25%, own rounding, seed 0",),
        failed=("a at 25%, own rounding, seed 1: diverged | badly",),
        settings={"data": "<data>"},
        provenance={"seconds": 61.0, "versions": {"mipprune": "0"}, "command": "x"},
    )


def test_means_spread_and_leaders() -> None:
    own, optimiser, leaders, sizes = comparison_tables(example())
    # Sample standard deviation of .90 and .94: .02828.
    assert own.rows == (("a", "92.00 ± 2.83", "80.00"), ("b", "91.00 ± 0.00", "–"))
    assert optimiser.rows == (("b", "–", "85.00"),)
    assert leaders.rows == (
        ("50%", "a (own)", "92.00 %", "b (own)"),
        ("25%", "b (optimiser)", "85.00 %", "–"),
    )
    assert sizes.rows[0] == (
        "a at 50%, own", "2", "50.00 %", "25.00 %", "–", "90.0 %", "50.0 %", "91.0 %", "3",
    )  # fmt: skip


def test_every_rendering_has_everything() -> None:
    comparison = example()
    text = render_comparison_text(comparison)
    assert "dense: 96.00 ± 1.41 % test accuracy, 1 k MACs, 400 parameters, 2 seeds" in text
    assert "not run yet: 1 cells" in text
    markdown = render_comparison_markdown(comparison)
    assert "| a | 92.00 ± 2.83 | 80.00 |" in markdown
    assert "diverged" in markdown
    page = render_comparison_html(comparison)
    assert page.count("<svg") == 2  # latency was not measured
    assert "net on &lt;data&gt;" in page
    assert "<script" not in page
    timed = replace(comparison.cells[0], latency_ratio=0.7)
    page = render_comparison_html(replace(comparison, cells=(timed, *comparison.cells[1:])))
    assert page.count("<svg") == 3


def test_files_are_written(tmp_path: Path) -> None:
    files = write_comparison(example(), tmp_path)
    assert files.html is not None
    content = json.loads(files.json.read_text())
    assert content["dense"] == {"0": 0.95, "1": 0.97}
    assert len(content["cells"]) == 6
    plots = ["comparison_macs.svg", "comparison_params.svg"]  # no latency was measured
    assert [path.name for path in files.plots] == plots
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "comparison.html", "comparison.json", "comparison.md", *plots,
    ]  # fmt: skip
    for path in files.plots:
        drawing = ElementTree.parse(path)
        assert drawing.getroot().tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in path.read_text(encoding="utf-8")


def test_nothing_to_show_is_no_error() -> None:
    empty = replace(example(), cells=(), dense={}, dense_macs=0, dense_params=0)
    assert comparison_tables(empty) == []
    assert "–" in render_comparison_text(empty)
    assert "<svg" not in render_comparison_html(empty)
