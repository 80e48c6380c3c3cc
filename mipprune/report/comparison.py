"""A comparison of methods: plain data, tables, and a page with plots."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mipprune._support.files import write_json, write_text
from mipprune.errors import MissingExtraError
from mipprune.report._figures import _new_figure, _svg
from mipprune.report._format import Table, duration, percent, quantity
from mipprune.report._html import _section, _table
from mipprune.report._standalone import standalone_svg
from mipprune.report._style import INK, plot_style
from mipprune.report._template import PAGE
from mipprune.report._text import _escape, _markdown_table, _plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "CellResult",
    "Comparison",
    "ComparisonFiles",
    "comparison_tables",
    "render_comparison_html",
    "render_comparison_markdown",
    "render_comparison_text",
    "write_comparison",
]

# Readable on light and dark paper; lines differ in marker as well.
COLOURS = (
    "#3b7dd8", "#d9622b", "#2f9e63", "#9a5fc0", "#c9a227", "#d1478c", "#3aa6b9", "#8c6d46",
    "#7f8a99", "#6b8e23", "#c0392b", "#5c6bc0", "#b8860b", "#20856f", "#a0522d", "#8e7cc3",
)  # fmt: skip
MARKERS = "osD^vP*X<>hpd8"
PANELS = (
    ("macs", "MACs that remain", "MACs counted on the smaller network"),
    ("params", "parameters that remain", "parameters of the smaller network"),
    ("latency_ratio", "latency over dense", "time of a forward pass, pruned / dense in turn"),
)


@dataclass(frozen=True)
class CellResult:
    """One pruned network.

    Attributes
    ----------
    method, budget, rounding : str
    seed : int
    test, validation : float
        Accuracy after fine-tuning, a fraction.
    removed, trained : float
        Validation accuracy right after removal, and of the whole network before.
    macs, params : int
        Counted on the smaller network.
    epochs : int
        Of training and fine-tuning of this network.
    latency_ratio : float or None
    seconds : float
        Rounding, fine-tuning and evaluation.
    """

    method: str
    budget: str
    rounding: str
    seed: int
    test: float
    validation: float
    removed: float
    trained: float
    macs: int
    params: int
    epochs: int
    latency_ratio: float | None
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """All cells of a comparison.

    Attributes
    ----------
    title, resource : str
    budgets, methods, roundings : tuple of str
        In the order of the tables.
    dense : mapping
        Seed -> test accuracy of the dense baseline.
    dense_macs, dense_params : int
    cells : tuple of CellResult
    missing, failed : tuple of str
        Cells not run yet; cells that ended in an error, with its message.
    settings, provenance : mapping
    """

    title: str
    resource: str
    budgets: tuple[str, ...]
    methods: tuple[str, ...]
    roundings: tuple[str, ...]
    dense: dict[int, float]
    dense_macs: int
    dense_params: int
    cells: tuple[CellResult, ...]
    missing: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def of(self, method: str, rounding: str, budget: str) -> list[CellResult]:
        """The seeds of one entry of the table."""
        return [
            cell
            for cell in self.cells
            if (cell.method, cell.rounding, cell.budget) == (method, rounding, budget)
        ]

    def leaders(self, budget: str) -> list[tuple[str, str, float, float]]:
        """(method, rounding, mean test accuracy, spread), best first."""
        found = []
        for rounding in self.roundings:
            for method in self.methods:
                values = [cell.test for cell in self.of(method, rounding, budget)]
                if values:
                    found.append((method, rounding, *_mean_and_spread(values)))
        return sorted(found, key=lambda row: -row[2])


@dataclass(frozen=True)
class ComparisonFiles:
    """Where a comparison was written; without matplotlib no page (None) and no plots."""

    json: Path
    markdown: Path
    html: Path | None
    missing: str = ""
    plots: tuple[Path, ...] = ()


class Plot(NamedTuple):
    """A plot of the page: what it is against, title, caption and inline SVG."""

    name: str
    title: str
    caption: str
    svg: str


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Accuracy per rounding, who leads, and sizes."""
    found = [_accuracy(comparison, rounding) for rounding in comparison.roundings]
    found.append(_leaders(comparison))
    found.append(_sizes(comparison))
    return [table for table in found if table.rows]


def render_comparison_text(comparison: Comparison) -> str:
    """Tables for a terminal."""
    blocks = [comparison.title, _dense_line(comparison)]
    blocks += [_plain(table) for table in comparison_tables(comparison)]
    blocks += [f"failed: {text}" for text in comparison.failed]
    if comparison.missing:
        blocks.append(f"not run yet: {len(comparison.missing)} cells")
        blocks += [f"  {text}" for text in comparison.missing]
    return "\n\n".join(blocks) + "\n"


def render_comparison_markdown(comparison: Comparison) -> str:
    """The same as Markdown, with settings."""
    lines = [f"# {comparison.title}", "", _dense_line(comparison), ""]
    for table in comparison_tables(comparison):
        lines += [f"## {table.title}", "", *_markdown_table(table), ""]
    for title, texts in _open_ends(comparison):
        lines += [f"## {title}", "", *(f"- {text}" for text in texts), ""]
    lines += ["## Settings", ""]
    lines += [f"- **{name}**: {_escape(value)}" for name, value in _settings(comparison)]
    return "\n".join(lines) + "\n"


def render_comparison_html(comparison: Comparison) -> str:
    """One page that loads nothing: tables, plots with spread over seeds, settings.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    return _page(comparison, _figures(comparison))


def _page(comparison: Comparison, plots: Sequence[Plot]) -> str:
    parts = []
    for _, title, caption, svg in plots:
        content = f'<figure role="img" aria-label="{escape(title)}">\n{svg}\n</figure>'
        parts.append(_section(title, f'{content}\n<p class="caption">{escape(caption)}</p>'))
    parts[:0] = [_section(t.title, _table(t)) for t in comparison_tables(comparison)]
    for title, texts in _open_ends(comparison):
        items = "\n".join(f"<li>{escape(text)}</li>" for text in texts)
        parts.append(_section(title, f'<ul class="notes">\n{items}\n</ul>'))
    rows = "\n".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _settings(comparison)
    )
    parts.append(_section("Settings", f"<dl>\n{rows}\n</dl>"))
    version = comparison.provenance.get("versions", {}).get("mipprune", "")
    return PAGE.substitute(
        title=escape(comparison.title),
        lead=escape(_dense_line(comparison)),
        cards="",
        body="\n".join(parts),
        footer=escape(f"Written by mipprune {version}. This page loads nothing from outside."),
    )


def write_comparison(comparison: Comparison, folder: str | Path) -> ComparisonFiles:
    """Write ``comparison.json``, ``.md`` and, with matplotlib, ``.html`` and the plots.

    Each is written atomically; a plot is ``comparison_macs.svg``, ``..._params`` or
    ``..._latency_ratio``.
    """
    base = Path(folder)
    json_path, markdown, html = (base / f"comparison.{end}" for end in ("json", "md", "html"))
    write_json(json_path, asdict(comparison))
    write_text(markdown, render_comparison_markdown(comparison))
    try:
        plots = _figures(comparison)
    except MissingExtraError as error:
        return ComparisonFiles(json_path, markdown, None, str(error))
    write_text(html, _page(comparison, plots))
    paths = tuple(base / f"comparison_{plot.name}.svg" for plot in plots)
    for path, plot in zip(paths, plots, strict=True):
        write_text(path, standalone_svg(plot.svg))
    return ComparisonFiles(json_path, markdown, html, plots=paths)


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and sample standard deviation (0 for one value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _with_spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean, spread = _mean_and_spread(values)
    return f"{100 * mean:.2f} ± {100 * spread:.2f}" if len(values) > 1 else f"{100 * mean:.2f}"


def _accuracy(comparison: Comparison, rounding: str) -> Table:
    rows = []
    for method in comparison.methods:
        groups = [comparison.of(method, rounding, budget) for budget in comparison.budgets]
        if any(groups):
            cells = tuple(_with_spread([cell.test for cell in group]) for group in groups)
            rows.append((method, *cells))
    resource = {"macs": "MACs", "params": "parameters"}[comparison.resource]
    header = ("method", *(f"{budget} {resource}" for budget in comparison.budgets))
    whose = {"own": "the method's own rounding", "optimiser": "the optimiser's rounding"}[rounding]
    return Table(f"Test accuracy in %, {whose}", header, tuple(rows))


def _leaders(comparison: Comparison) -> Table:
    rows = []
    for budget in comparison.budgets:
        leaders = comparison.leaders(budget)
        if leaders:
            method, rounding, mean, spread = leaders[0]
            close = [f"{m} ({r})" for m, r, other, _ in leaders[1:] if other >= mean - spread]
            rows.append((budget, f"{method} ({rounding})", percent(mean), ", ".join(close) or "–"))
    header = ("budget", "leader", "mean", "within its spread over seeds")
    return Table("Who leads", header, tuple(rows))


def _sizes(comparison: Comparison) -> Table:
    rows = []
    for rounding in comparison.roundings:
        for budget in comparison.budgets:
            for method in comparison.methods:
                group = comparison.of(method, rounding, budget)
                if group:
                    rows.append(
                        (f"{method} at {budget}, {rounding}", *_size_row(comparison, group))
                    )
    header = (
        "cell", "seeds", "MACs kept", "parameters kept", "latency", "trained", "removed",
        "fine-tuned", "epochs",
    )  # fmt: skip
    return Table("Sizes; validation accuracy on the way; means over seeds", header, tuple(rows))


def _size_row(comparison: Comparison, group: Sequence[CellResult]) -> tuple[str, ...]:
    ratios = [cell.latency_ratio for cell in group if cell.latency_ratio is not None]
    means = {
        name: statistics.fmean(getattr(cell, name) for cell in group)
        for name in ("macs", "params", "trained", "removed", "validation")
    }
    return (
        str(len(group)),
        percent(means["macs"] / comparison.dense_macs),
        percent(means["params"] / comparison.dense_params),
        f"{statistics.fmean(ratios):.2f}" if ratios else "–",
        percent(means["trained"], 1),
        percent(means["removed"], 1),
        percent(means["validation"], 1),
        str(group[0].epochs),
    )


def _dense_line(comparison: Comparison) -> str:
    values = list(comparison.dense.values())
    return (
        f"dense: {_with_spread(values)} % test accuracy, {quantity(comparison.dense_macs)} MACs, "
        f"{quantity(comparison.dense_params)} parameters, {len(values)} seeds"
    )


def _open_ends(comparison: Comparison) -> list[tuple[str, tuple[str, ...]]]:
    ends = [("Failed", comparison.failed), ("Not run yet", comparison.missing)]
    return [(title, texts) for title, texts in ends if texts]


def _settings(comparison: Comparison) -> list[tuple[str, str]]:
    rows = [(name, str(value)) for name, value in comparison.settings.items()]
    found = comparison.provenance
    if "command" in found:
        rows.append(("command", str(found["command"])))
    if "seconds" in found:
        rows.append(("time of the last call", duration(float(found["seconds"]))))
    if isinstance(found.get("versions"), dict):
        versions = ", ".join(f"{name} {value}" for name, value in found["versions"].items())
        rows.append(("versions", versions))
    return rows


def _figures(comparison: Comparison) -> list[Plot]:
    found = []
    with plot_style("to draw the comparison"):
        for name, label, caption in PANELS:
            if not any(getattr(cell, name) is not None for cell in comparison.cells):
                continue
            columns = len(comparison.roundings)
            figure, axes = _new_figure(4.6, columns)
            for axis, rounding in zip(axes, comparison.roundings, strict=True):
                _panel(axis, comparison, rounding, name)
                axis.set_xlabel(label)
                axis.set_title(f"{rounding} rounding", fontsize=10)
            axes[0].set_ylabel("test accuracy")
            lines, labels = axes[0].get_legend_handles_labels()
            figure.legend(
                lines, labels, loc="outside lower center", ncols=5, labelcolor=INK, fontsize=8
            )
            text = f"Means over seeds with one standard deviation; {caption}; dotted: dense."
            found.append(Plot(name, f"Accuracy against {label}", text, _svg(figure, name)))
    return found


def _panel(axis: "Axes", comparison: Comparison, rounding: str, name: str) -> None:
    from matplotlib.ticker import LogLocator

    whole = {"macs": comparison.dense_macs, "params": comparison.dense_params}.get(name, 1)
    for number, method in enumerate(comparison.methods):
        points = []
        for budget in comparison.budgets:
            group = comparison.of(method, rounding, budget)
            group = [cell for cell in group if getattr(cell, name) is not None]
            if group:
                place = statistics.fmean(getattr(cell, name) / whole for cell in group)
                points.append((place, *_mean_and_spread([cell.test for cell in group])))
        points.sort()
        axis.errorbar(
            [point[0] for point in points],
            [point[1] for point in points],
            yerr=[point[2] for point in points],
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            markersize=4,
            linewidth=1.3,
            elinewidth=0.8,
            capsize=2,
            label=method,
        )
    if comparison.dense:
        level = statistics.fmean(comparison.dense.values())
        axis.axhline(level, color=INK, linewidth=0.9, linestyle=":")
    if name != "latency_ratio" and axis.has_data():
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.minorticks_off()
    axis.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
