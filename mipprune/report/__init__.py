"""What a run found: plain data, and the same as terminal text, Markdown and HTML."""

from mipprune.report._data import (
    Curve,
    ErrorCurve,
    FamilyWidth,
    GapEntry,
    GateHistogram,
    Latency,
    PruneReport,
    Size,
    Stage,
    load_report,
)
from mipprune.report._html import render_html
from mipprune.report._text import render_markdown, render_text
from mipprune.report._write import ReportFiles, write_report

__all__ = [
    "Curve",
    "ErrorCurve",
    "FamilyWidth",
    "GapEntry",
    "GateHistogram",
    "Latency",
    "PruneReport",
    "ReportFiles",
    "Size",
    "Stage",
    "load_report",
    "render_html",
    "render_markdown",
    "render_text",
    "write_report",
]
