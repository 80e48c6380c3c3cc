"""The report as plain text for a terminal, and as Markdown."""

from mipprune.report._data import PruneReport, require_report
from mipprune.report._format import Table, settings_rows, tables

__all__ = ["render_markdown", "render_text"]

BAR_WIDTH = 30


def render_text(report: PruneReport) -> str:
    """Tables for a terminal; nothing but the figures and their names."""
    blocks = [require_report(report).title]
    blocks += [_plain(table) for table in tables(report)]
    if report.widths:
        blocks.append(_widths(report))
    blocks += [f"note: {note}" for note in report.notes]
    return "\n\n".join(blocks) + "\n"


def render_markdown(report: PruneReport) -> str:
    """The same as Markdown, with settings, widths and the histogram of the gates."""
    lines = [f"# {require_report(report).title}", ""]
    for table in tables(report):
        lines += [f"## {table.title}", "", *_markdown_table(table), ""]
    if report.widths:
        widths = tuple((w.name, str(w.before), str(w.after)) for w in report.widths)
        table = Table("", ("family", "before", "after"), widths)
        lines += ["## Widths", "", *_markdown_table(table), ""]
    if report.gates is not None:
        edges, counts = report.gates.edges, report.gates.counts
        bins = tuple(
            (f"{low:.2f} – {high:.2f}", str(count))
            for low, high, count in zip(edges, edges[1:], counts, strict=False)
        )
        table = Table("", ("gate y*", "groups"), bins)
        lines += ["## Gates", "", *_markdown_table(table), ""]
    if report.notes:
        lines += ["## Notes", "", *(f"- {note}" for note in report.notes), ""]
    lines += ["## Settings", ""]
    lines += [f"- **{name}**: {_escape(value)}" for name, value in settings_rows(report)]
    return "\n".join(lines) + "\n"


def _plain(table: Table) -> str:
    rows = [table.header, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.header))]
    lines = [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    head = [] if table.title.lower() == table.header[0].lower() else [table.title]
    return "\n".join([*head, *lines])


def _widths(report: PruneReport) -> str:
    name_width = max(len(width.name) for width in report.widths)
    widest = max(width.before for width in report.widths)
    lines = ["Channels per family (before -> after)"]
    for width in report.widths:
        full = max(1, round(BAR_WIDTH * width.before / widest))
        kept = min(full, max(1, round(BAR_WIDTH * width.after / widest)))
        bar = "#" * kept + "." * (full - kept)
        lines.append(f"{width.name.ljust(name_width)}  {width.before:>5} -> {width.after:<5} {bar}")
    return "\n".join(lines)


def _markdown_table(table: Table) -> list[str]:
    marks = [":--", *("--:" for _ in table.header[1:])]
    rows = [table.header, tuple(marks), *table.rows]
    return ["| " + " | ".join(_escape(cell) for cell in row) + " |" for row in rows]


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
