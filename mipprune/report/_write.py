"""The report's files in a run directory."""

from dataclasses import dataclass
from pathlib import Path

from mipprune._support.checks import require_path
from mipprune._support.files import write_text
from mipprune.errors import MissingExtraError
from mipprune.report._data import PruneReport, require_report
from mipprune.report._html import render_html
from mipprune.report._text import render_markdown

__all__ = ["ReportFiles", "write_report"]


@dataclass(frozen=True)
class ReportFiles:
    """Where the report was written; ``html`` is None where matplotlib is missing.

    ``missing`` then says what to install.
    """

    json: Path
    markdown: Path
    html: Path | None
    missing: str = ""


def write_report(report: PruneReport, folder: str | Path) -> ReportFiles:
    """Write ``report.json``, ``report.md`` and ``report.html`` into ``folder``, each atomically.

    Without matplotlib the first two are written and ``html`` is None.

    Raises
    ------
    DataFileError
        If the folder cannot be written.
    """
    require_report(report)
    base = require_path("folder", folder, "folder")
    json_path, markdown, html = (base / f"report.{end}" for end in ("json", "md", "html"))
    report.save(json_path)
    write_text(markdown, render_markdown(report))
    try:
        page = render_html(report)
    except MissingExtraError as error:
        return ReportFiles(json_path, markdown, None, str(error))
    write_text(html, page)
    return ReportFiles(json_path, markdown, html)
