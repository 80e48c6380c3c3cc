"""Plots of a compression: errors against widths with their bounds, and the gaps."""

import math
from typing import TYPE_CHECKING

from mipprune.report._data import ErrorCurve, PruneReport
from mipprune.report._style import INK, PALE, SERIES, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["error_curves_figure", "gaps_figure"]

COLUMNS = 4
DECADES = 5
"""Errors more than this many powers of ten below the largest are not drawn."""


def error_curves_figure(report: PruneReport) -> "Figure":
    """One small plot per family, all on one scale."""
    from matplotlib.figure import Figure

    curves = report.error_curves
    columns = min(COLUMNS, len(curves))
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(WIDTH, 0.5 + 1.45 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    top = max((max(curve.values) for curve in curves), default=0.0)
    for axis, curve in zip(axes, curves, strict=False):
        _error_curve(axis, curve, top)
    for axis in axes[len(curves) :]:
        axis.set_visible(False)
    figure.supxlabel("channels that stay", fontsize=9)
    figure.supylabel("error", fontsize=9)
    return figure


def _error_curve(axis: "Axes", curve: ErrorCurve, top: float) -> None:
    floor = top * 10.0**-DECADES
    for values, style in ((curve.values, "-"), (curve.bounds, "--")):
        shown = [value if value > floor else math.nan for value in values]
        axis.plot(curve.counts, shown, style, color=SERIES[0], linewidth=1.4, marker="")
    chosen = [
        (count, value)
        for count, value in zip(curve.counts, curve.values, strict=True)
        if count == curve.chosen
    ]
    for count, value in chosen:
        axis.plot([count], [max(value, floor)], "o", color=SERIES[1], markersize=4.5)
    if top > 0:
        axis.set_yscale("log")
        axis.set_ylim(floor / 1.5, 1.8 * top)
    axis.minorticks_off()
    axis.set_xlim(0, 1.04 * max(curve.counts))
    axis.locator_params(axis="x", nbins=4, integer=True)
    axis.tick_params(labelsize=8)
    axis.set_title(curve.family, fontsize=8)


def gaps_figure(report: PruneReport) -> "Figure":
    """Bars of bound / value."""
    from matplotlib.figure import Figure

    entries = report.gaps
    figure = Figure(figsize=(WIDTH, 0.75 + 0.27 * len(entries)), layout="constrained")
    axis = figure.subplots()
    rows = range(len(entries))
    axis.barh(rows, [1.0] * len(entries), color=PALE, height=0.72, linewidth=0)
    proven = [min(max(1.0 - entry.gap, 0.0), 1.0) for entry in entries]
    axis.barh(rows, proven, color=SERIES[0], height=0.72, linewidth=0)
    for row, entry in enumerate(entries):
        text = f"gap {100 * entry.gap:.2g} %" if entry.gap > 1e-6 else "optimal"
        axis.text(1.01, row, text, va="center", fontsize=9, color=INK)
    axis.set_yticks(rows, [entry.name for entry in entries])
    axis.invert_yaxis()
    axis.set_ylim(len(entries) - 0.4, -0.6)
    axis.set_xlim(0, 1.16)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axis.grid(visible=False, axis="y")
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("lower bound / error")
    return figure
