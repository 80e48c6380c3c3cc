"""Progress of long work: a bar in a terminal, plain lines otherwise."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self, TextIO

__all__ = ["Progress"]

BAR_WIDTH = 24
TERMINAL_INTERVAL = 0.1
PLAIN_INTERVAL = 10.0


class Progress:
    """Count work done and show rate and remaining time.

    Parameters
    ----------
    label : str
        What is being done.
    total : int or None
        Units of work; None where unknown.
    unit : str
        Name of one unit, for the rate.
    enabled : bool
        False shows nothing.
    stream : text stream, default standard error
        A terminal gets one line redrawn in place; anything else a line
        every ten seconds and one at the end.

    Examples
    --------
    >>> import io
    >>> stream = io.StringIO()
    >>> with Progress("layers", 2, stream=stream) as progress:
    ...     progress.update(2)
    >>> stream.getvalue().startswith("layers  2/2")
    True
    """

    def __init__(
        self,
        label: str,
        total: int | None = None,
        *,
        unit: str = "it",
        enabled: bool = True,
        stream: TextIO | None = None,
    ) -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.enabled = enabled
        self.stream = sys.stderr if stream is None else stream
        self.done = 0
        self.figures: Mapping[str, float | str] = {}
        self._terminal = self.stream.isatty()
        self._started = time.monotonic()
        self._shown = -float("inf") if self._terminal else self._started

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._show()
        if self.enabled and self._terminal:
            self.stream.write("\n")

    def update(self, amount: int = 1, **figures: float | str) -> None:
        """Add finished units and the figures to show beside them."""
        self.done += amount
        if figures:
            self.figures = figures
        interval = TERMINAL_INTERVAL if self._terminal else PLAIN_INTERVAL
        if time.monotonic() - self._shown >= interval:
            self._show()

    def _show(self) -> None:
        if not self.enabled:
            return
        self._shown = time.monotonic()
        line = self._line(self._shown - self._started)
        self.stream.write(f"\r\x1b[K{line}" if self._terminal else f"{line}\n")
        self.stream.flush()

    def _line(self, seconds: float) -> str:
        rate = self.done / seconds if seconds > 0 else 0.0
        parts = [self.label]
        if self.total is None:
            parts.append(str(self.done))
        else:
            if self._terminal:
                filled = round(BAR_WIDTH * self.done / max(self.total, 1))
                parts.append("[" + "#" * filled + "." * (BAR_WIDTH - filled) + "]")
            parts.append(f"{self.done}/{self.total}")
        parts.append(f"{rate:.3g} {self.unit}/s")
        if self.total is not None and 0 < self.done < self.total:
            parts.append(f"{clock((self.total - self.done) / rate)} left")
        else:
            parts.append(clock(seconds))
        parts += [
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in self.figures.items()
        ]
        return "  ".join(parts)


def clock(seconds: float) -> str:
    """``m:ss`` or ``h:mm:ss``."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"
