"""The report as one HTML file that loads nothing."""

from html import escape

from mipprune.report._data import PruneReport, Size, require_report
from mipprune.report._figures import figures
from mipprune.report._format import Table, percent, quantity, settings_rows, tables
from mipprune.report._template import PAGE

__all__ = ["render_html"]

CODE_SETTINGS = ("command", "versions")


def render_html(report: PruneReport) -> str:
    """The whole page: headline figures, tables, plots, settings.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    parts = [_section(table.title, _table(table)) for table in tables(require_report(report))]
    for title, caption, svg in figures(report):
        content = f'<figure role="img" aria-label="{escape(title)}">\n{svg}\n</figure>'
        parts.append(_section(title, f'{content}\n<p class="caption">{escape(caption)}</p>'))
    if report.notes:
        items = "\n".join(f"<li>{escape(note)}</li>" for note in report.notes)
        parts.append(_section("Notes", f'<ul class="notes">\n{items}\n</ul>'))
    parts.append(_section("Settings", _settings(report)))
    version = report.provenance.get("versions", {}).get("mipprune", "")
    return PAGE.substitute(
        title=escape(report.title),
        lead=escape(_lead(report)),
        cards="\n".join(_cards(report)),
        body="\n".join(parts),
        footer=escape(f"Written by mipprune {version}. This page loads nothing from outside."),
    )


def _lead(report: PruneReport) -> str:
    parts = [f"{name} {value}" for name, value in list(report.settings.items())[:5]]
    if report.provenance.get("seed") is not None:
        parts.append(f"seed {report.provenance['seed']}")
    return " · ".join(parts)


def _cards(report: PruneReport) -> list[str]:
    cards = []
    measured = [stage for stage in report.stages if stage.test is not None]
    if measured:
        first, last = measured[0], measured[-1]
        note = f"{percent(first.test)} {first.name}" if first is not last else first.name
        cards.append(_card(f"test {report.metric}", percent(last.test), note))
    cards += [_size_card(size) for size in report.sizes if size.resource != "channels"]
    if report.latency is not None:
        latency = report.latency
        note = f"{latency.dense_ms:.3g} → {latency.pruned_ms:.3g} ms, batch {latency.batch_size}"
        cards.append(_card("latency kept", percent(latency.ratio, 1), note))
    if report.gaps:
        worst = max(report.gaps, key=lambda entry: entry.gap)
        cards.append(_card("largest gap", percent(worst.gap), worst.name))
    return cards


def _size_card(size: Size) -> str:
    note = f"{quantity(size.dense)} → {quantity(size.counted)}"
    if size.asked is not None and size.dense:
        note += f", asked {percent(size.asked / size.dense, 1)}"
    return _card(f"{size.resource} kept", percent(size.kept, 1), note)


def _card(name: str, figure: str, note: str) -> str:
    return (
        f'<div class="card"><div class="name">{escape(name)}</div>'
        f'<div class="figure">{escape(figure)}</div>'
        f'<div class="note">{escape(note)}</div></div>'
    )


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _settings(report: PruneReport) -> str:
    entries = []
    for name, value in settings_rows(report):
        mark = ' class="code"' if name in CODE_SETTINGS else ""
        entries.append(f"<dt>{escape(name)}</dt><dd{mark}>{escape(value)}</dd>")
    return "<dl>\n" + "\n".join(entries) + "\n</dl>"
