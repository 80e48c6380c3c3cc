"""Figures of the documentation on relaxations.

    python benchmarks/relaxation_figures.py ladder --results FILE --out ladder.svg
    python benchmarks/relaxation_figures.py curve --results FILE --out curve.svg layer.npz

``ladder`` draws what ``benchmarks/relaxations.py ladder`` wrote. ``curve`` computes certified
error-against-keep curves of a problem file, writes them to FILE and draws them; without a
problem file it draws those in FILE.
"""

import argparse
import json
import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mipprune._support.files import atomic_path, write_json
from mipprune._support.progress import Progress
from mipprune._support.provenance import provenance
from mipprune.problem import ChannelSelection
from mipprune.relaxation import path
from mipprune.solvers import solve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]
COLOURS = {
    "ridge": "#bbbbbb",
    "eigenvalue": "#888888",
    "schur": "#ccbb44",
    "optimal": "#ee8866",
    "gl": "#66ccee",
    "rlt": "#4477aa",
    "sdp": "#228833",
    "blocks": "#aa3377",
}
CURVES = (("perspective", "schur"), ("gl", "gl"), ("sdp", "sdp"))
SEARCH_SECONDS = 30.0


def main() -> None:
    """Draw one figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("ladder", "curve"))
    parser.add_argument("layer", nargs="?", type=Path)
    parser.add_argument("--results", type=Path, required=True, help="JSON file of the figures")
    parser.add_argument("--out", type=Path, required=True, help="SVG file")
    parser.add_argument("--damping", type=float, default=0.01)
    parser.add_argument("--step", type=int, default=1, help="distance between two keeps")
    parser.add_argument("--tiny", action="store_true", help="three keeps, for a test")
    options = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    if options.what == "ladder":
        figure = draw_ladder(json.loads(options.results.read_text())["rows"], options.damping)
    else:
        if options.layer is not None:
            rows = curves(options.layer, options.damping, options.step, options.tiny)
            write_json(options.results, {"provenance": provenance(), "rows": rows})
        figure = draw_curves(json.loads(options.results.read_text())["rows"])
    _save(figure, options.out)


def draw_ladder(rows: list[Row], damping: float) -> "Figure":
    """One panel per layer: share of the removal error that each bound proves, by keep."""
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    columns = min(4, len(layers))
    figure, panels = _panels(len(layers), columns, (2.6, 2.3))
    for layer, axis in zip(layers, panels, strict=True):
        own = [r for r in rows if r["layer"] == layer and r["damping"] == damping]
        for name, colour in COLOURS.items():
            points = [
                (100 * r["keep"] / r["p"], 100 * r["removal_ratio"])
                for r in own
                if (r["kind"] if r["split"] == "none" else r["split"]) == name
            ]
            if points:
                axis.plot(*zip(*sorted(points), strict=True), color=colour, label=name, marker=".")
        axis.set_title(_title(layer), fontsize=8)
        axis.set_ylim(0, 102)
        axis.set_xticks([25, 50, 75, 90])
        axis.tick_params(labelsize=7)
    figure.supxlabel("channels kept, %", fontsize=8)
    figure.supylabel("(bound - f_all) / (best - f_all), %", fontsize=8)
    labels: dict[str, Any] = {}
    for axis in panels:
        handles, names = axis.get_legend_handles_labels()
        labels |= dict(zip(names, handles, strict=True))
    order = [name for name in COLOURS if name in labels]
    figure.legend(
        [labels[name] for name in order],
        order,
        loc="outside upper center",
        ncols=len(order),
        fontsize=8,
        frameon=False,
    )
    return figure


def curves(layer: Path, damping: float, step: int, tiny: bool) -> list[Row]:
    """Value and bounds per keep of one layer."""
    problem = ChannelSelection.load(layer).with_damping(damping)
    p = problem.n_channels
    keeps = [1, p // 2, p] if tiny else list(range(p, 0, -step))

    def searched(limited: ChannelSelection) -> NDArray[np.bool_] | None:
        return solve(limited, "local-search", time_limit=SEARCH_SECONDS).mask

    rows: list[Row] = []
    with Progress("curves", len(CURVES), unit="kinds") as progress:
        for index, (kind, name) in enumerate(CURVES):
            points = path(problem, keeps, kind=kind, incumbent=None if index else searched)
            rows += [
                {
                    "layer": layer.stem,
                    "problem": problem.with_keep(point.keep).content_hash,
                    "p": p,
                    "damping": damping,
                    "keep": point.keep,
                    "name": name,
                    "bound": point.bound,
                    "value": point.value if math.isfinite(point.value) else None,
                }
                for point in points
            ]
            progress.update()
    return rows


def draw_curves(rows: list[Row]) -> "Figure":
    """The best masks found, and what is proven below them."""
    figure, (axis,) = _panels(1, 1, (6.0, 3.4))
    found = sorted((r["keep"], r["value"]) for r in rows if r["value"] is not None)
    value = dict(found)
    axis.plot(*zip(*found, strict=True), color="#000000", label="best mask found", marker=".")
    for name in dict.fromkeys(r["name"] for r in rows):
        own = sorted((r["keep"], r["bound"]) for r in rows if r["name"] == name)
        keeps, bounds = zip(*own, strict=True)
        axis.plot(keeps, bounds, color=COLOURS[name], label=f"bound, {name}", marker=".")
    axis.fill_between(keeps, bounds, [value[k] for k in keeps], color=COLOURS[name], alpha=0.15)
    axis.set_yscale("log")
    axis.set_xlabel("channels kept")
    axis.set_ylabel("error")
    axis.set_title(f"{_title(rows[0]['layer'])}, damping {rows[0]['damping']}", fontsize=9)
    axis.legend(frameon=False, fontsize=8)
    return figure


def _title(layer: str) -> str:
    return textwrap.fill(layer.replace("_", " "), 34)


def _panels(count: int, columns: int, size: tuple[float, float]) -> tuple["Figure", list[Any]]:
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel().tolist()
    for axis in axes[count:]:
        axis.set_axis_off()
    for axis in axes[:count]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#dddddd", linewidth=0.5)
    return figure, axes[:count]


def _save(figure: "Figure", target: Path) -> None:
    import matplotlib

    with (
        matplotlib.rc_context({"svg.hashsalt": "mipprune", "svg.fonttype": "none"}),
        atomic_path(target) as temporary,
    ):
        figure.savefig(temporary, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
