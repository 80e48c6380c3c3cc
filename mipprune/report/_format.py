"""Numbers as a reader wants them, and the tables that every renderer shows."""

from collections.abc import Sequence
from dataclasses import dataclass

from mipprune.report._data import Latency, PruneReport

__all__ = ["Table", "duration", "percent", "quantity", "tables"]


@dataclass(frozen=True)
class Table:
    """Title, header and rows of text; the first column is text, the others numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def percent(fraction: float | None, digits: int = 2) -> str:
    """``0.98512`` -> ``98.51 %``; None -> a dash."""
    return "–" if fraction is None else f"{100 * fraction:.{digits}f} %"


def quantity(value: float) -> str:
    """Three significant digits with a unit prefix: ``40 551 234`` -> ``40.6 M``."""
    for scale, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= scale:
            return f"{value / scale:.3g}{prefix}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds below two minutes, otherwise ``m:ss`` or ``h:mm:ss``."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


def tables(report: PruneReport) -> list[Table]:
    """All tables of a report that have something to show, in reading order."""
    found = [_stages(report), _sizes(report), _latency(report.latency), _gaps(report)]
    return [table for table in found if table is not None and table.rows]


def settings_rows(report: PruneReport) -> list[tuple[str, str]]:
    """What was asked and where it ran, as pairs to read."""
    rows = [(name, str(value)) for name, value in report.settings.items()]
    provenance = report.provenance
    if provenance.get("seed") is not None:
        rows.append(("seed", str(provenance["seed"])))
    if provenance.get("command"):
        rows.append(("command", str(provenance["command"])))
    versions = provenance.get("versions")
    if isinstance(versions, dict):
        rows.append(("versions", ", ".join(f"{name} {v}" for name, v in versions.items())))
    machine = provenance.get("machine")
    if isinstance(machine, dict):
        rows.append(("machine", _machine(machine)))
    if provenance.get("time"):
        rows.append(("time", str(provenance["time"])))
    return rows


def _machine(machine: dict[str, object]) -> str:
    parts = [machine.get("processor"), machine.get("system"), machine.get("architecture")]
    text = ", ".join(str(part) for part in parts if part)
    return f"{text}, {machine['cores']} cores" if machine.get("cores") else text


def _stages(report: PruneReport) -> Table:
    rows = tuple(
        (
            stage.name,
            percent(stage.validation),
            percent(stage.test),
            str(stage.epochs) if stage.epochs else "–",
            duration(stage.seconds),
        )
        for stage in report.stages
    )
    header = (report.metric, "validation", "test", "epochs", "time")
    return Table(report.metric.capitalize(), header, rows)


def _sizes(report: PruneReport) -> Table:
    rows = tuple(
        (
            size.resource,
            f"{size.dense:,}",
            "–" if size.asked is None else f"≤ {size.asked:,.0f}",
            f"{size.predicted:,}",
            f"{size.counted:,}",
            percent(size.kept),
        )
        for size in report.sizes
    )
    return Table("Size", ("size", "dense", "asked", "predicted", "counted", "remains"), rows)


def _latency(latency: Latency | None) -> Table | None:
    if latency is None:
        return None
    rows = (
        ("dense", f"{latency.dense_ms:#.3g} ms", _span(latency.dense_spread, " ms")),
        ("pruned", f"{latency.pruned_ms:#.3g} ms", _span(latency.pruned_spread, " ms")),
        ("pruned / dense", f"{latency.ratio:.3f}", _span(latency.ratio_spread)),
    )
    where = f"batch {latency.batch_size}, {latency.threads} thread"
    where += "s" if latency.threads != 1 else ""
    title = f"Latency ({where}, {latency.device}, {latency.repeats} repeats in turn)"
    return Table(title, ("latency", "median", "quartiles"), rows)


def _span(spread: Sequence[float], unit: str = "") -> str:
    return f"{spread[0]:#.3g} – {spread[1]:#.3g}{unit}"


def _gaps(report: PruneReport) -> Table:
    rows = tuple(
        (
            entry.name,
            f"{entry.value:.6g}",
            f"{entry.bound:.6g}",
            percent(entry.gap),
            "yes" if entry.certified else "no",
        )
        for entry in report.gaps
    )
    header = ("choice", "error", "bound", "gap", "certified")
    return Table("Distance from optimal: (error - bound) / error", header, rows)
