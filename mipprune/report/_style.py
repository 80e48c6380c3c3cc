"""Colours, measures and style of the report's plots."""

from collections.abc import Iterator
from contextlib import contextmanager

from mipprune.errors import MissingExtraError

__all__ = ["FAINT", "INK", "PALE", "SERIES", "VARIABLES", "WIDTH", "plot_style"]

# Colours drawn by matplotlib -> variables of the page, so that one file serves light and dark.
INK, FAINT = "#010101", "#020202"
SERIES = ("#030303", "#040404", "#050505", "#060606")
PALE = "#070707"
VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--line)",
    PALE: "var(--pale)",
    **{colour: f"var(--series-{index})" for index, colour in enumerate(SERIES)},
}
WIDTH = 7.4
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "mipprune",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


@contextmanager
def plot_style(purpose: str) -> Iterator[None]:
    """Draw in the report's style inside the block.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed; `purpose` (``"to draw ..."``) says what needs it.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report", purpose) from error
    # The stubs of matplotlib list every key as a literal type; a plain mapping does not match.
    with matplotlib.rc_context(dict(STYLE)):  # type: ignore[arg-type]  # see above
        yield
