"""The report's plots as inline SVG whose colours follow the page."""

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mipprune.report._data import Curve, GateHistogram, PruneReport
from mipprune.report._style import INK, PALE, SERIES, VARIABLES, WIDTH, plot_style
from mipprune.report._width_figures import error_curves_figure, gaps_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["figures"]


def figures(report: PruneReport) -> list[tuple[str, str, str]]:
    """Plots as ``(title, caption, svg)``, those that have something to show.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    found = []
    with plot_style("to draw the HTML report"):
        if report.curves:
            caption = (
                "Per epoch, all phases in turn. The training loss is that of the data alone, "
                "without the method's penalty."
            )
            found.append(("Training", caption, _svg(_curves(report.curves), "curves")))
        if report.gates is not None and any(report.gates.counts):
            caption = (
                "Optimal indicator y* of every tied group of channels at the end of training; "
                "the count is on a logarithmic scale. A gate near 0 is a channel that may go."
            )
            found.append(("Gates", caption, _svg(_gates(report.gates), "gates")))
        if report.widths:
            caption = "Channels of each family of tied layers, before (pale) and after (full)."
            found.append(("Widths", caption, _svg(_widths(report), "widths")))
        if report.error_curves:
            caption = (
                "Error of each family against the channels that stay, in the unit in which the "
                "widths were chosen: the best mask known (full line), a lower bound for any mask "
                "(dashed), and the width chosen (dot). Logarithmic; families in network order."
            )
            found.append(
                ("Error against width", caption, _svg(error_curves_figure(report), "errors"))
            )
        if len(report.gaps) > 1:
            caption = (
                "Lower bound as a share of the error: what is left to the right of a bar is the "
                "most that any other choice could gain on the same statistics."
            )
            found.append(("Gaps", caption, _svg(gaps_figure(report), "gaps")))
    return found


def _new_figure(height: float, columns: int = 1) -> tuple["Figure", Sequence["Axes"]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


def _curves(curves: Sequence[Curve]) -> "Figure":
    losses = [curve for curve in curves if "loss" in curve.quantity]
    others = [curve for curve in curves if "loss" not in curve.quantity]
    panels = [part for part in (losses, others) if part]
    figure, axes = _new_figure(3.3, len(panels))
    for axis, part in zip(axes, panels, strict=True):
        quantities = list(dict.fromkeys(curve.quantity for curve in part))
        for curve in part:
            index = quantities.index(curve.quantity)
            first = curve is next(c for c in part if c.quantity == curve.quantity)
            axis.plot(
                curve.epochs,
                curve.values,
                color=SERIES[index % len(SERIES)],
                label=curve.quantity if first else None,
                marker="o" if len(curve.epochs) == 1 else "",
                markersize=4,
            )
        _phases(axis, part)
        if part is losses and all(value > 0 for curve in part for value in curve.values):
            axis.set_yscale("log")
            _plain_log_ticks(axis)
        elif all(0 <= value <= 1 for curve in part for value in curve.values):
            axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
        axis.minorticks_off()
        axis.set_xlabel("epoch")
        lines, labels = axis.get_legend_handles_labels()
        axis.legend(
            lines,
            labels,
            loc="upper left",
            bbox_to_anchor=(-0.02, -0.2),
            ncols=len(lines),
            labelcolor=INK,
            fontsize=9,
        )
    return figure


def _phases(axis: "Axes", curves: Sequence[Curve]) -> None:
    """Dotted lines where a phase begins, with its name along the top."""
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    for curve in curves:
        if curve.epochs:
            starts[curve.phase] = min(curve.epochs[0], starts.get(curve.phase, curve.epochs[0]))
            ends[curve.phase] = max(curve.epochs[-1], ends.get(curve.phase, 0))
    for index, (phase, start) in enumerate(starts.items()):
        if index:
            axis.axvline(start - 0.5, color=INK, linewidth=0.8, linestyle=":")
        axis.text(
            (start + ends[phase]) / 2,
            1.02,
            phase,
            transform=axis.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=9,
        )


def _plain_log_ticks(axis: "Axes") -> None:
    from matplotlib.ticker import LogLocator

    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _gates(gates: GateHistogram) -> "Figure":
    figure, (axis,) = _new_figure(2.7)
    spans = [high - low for low, high in zip(gates.edges, gates.edges[1:], strict=False)]
    axis.bar(
        gates.edges[:-1], gates.counts, width=spans, align="edge", color=SERIES[0], linewidth=0
    )
    axis.set_yscale("symlog", linthresh=1)
    ticks = [1, 10, 100, 1000, 10000]
    shown = [0, *(tick for tick in ticks if tick <= 2 * max(gates.counts))]
    axis.set_yticks(shown, [f"{tick:,}" for tick in shown])
    axis.set_ylim(0, 5 * max(gates.counts))
    axis.set_xlim(gates.edges[0], gates.edges[-1])
    axis.minorticks_off()
    axis.grid(visible=False, axis="x")
    if gates.threshold is not None:
        axis.axvline(gates.threshold, color=SERIES[1], linewidth=1.4, linestyle="--")
        axis.annotate(
            f"threshold {gates.threshold:g}",
            (gates.threshold, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(5, -12),
            textcoords="offset points",
            fontsize=9,
        )
    axis.set_xlabel("gate y*")
    axis.set_ylabel("groups")
    return figure


def _widths(report: PruneReport) -> "Figure":
    names = [width.name for width in report.widths]
    before = [width.before for width in report.widths]
    after = [width.after for width in report.widths]
    figure, (axis,) = _new_figure(0.75 + 0.27 * len(names))
    rows = range(len(names))
    axis.barh(rows, before, color=PALE, height=0.72, linewidth=0)
    axis.barh(rows, after, color=SERIES[0], height=0.72, linewidth=0)
    for row, (wide, kept) in enumerate(zip(before, after, strict=True)):
        axis.text(wide + 0.012 * max(before), row, f"{kept} / {wide}", va="center", fontsize=9)
    axis.set_yticks(rows, names)
    axis.invert_yaxis()
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_xlim(0, 1.13 * max(before))
    axis.grid(visible=False, axis="y")
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("channels")
    return figure


def _svg(figure: "Figure", name: str) -> str:
    """Inline SVG: no prolog or metadata, ids unique on the page, colours as variables."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    # The page sets the family; matplotlib lists the fonts of this machine.
    text = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1; font-family: inherit", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return text.strip()
