"""Clock, callback, interruption and progress line shared by the solvers."""

import math
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version

from mipprune._support.checks import (
    require_callable,
    require_flag,
    require_integer,
    require_number,
    require_time_limit,
)
from mipprune.problem import LogPoint, Termination, require_problem

__all__ = [
    "Callback",
    "Monitor",
    "SearchStopped",
    "checked_request",
    "library_version",
]

Callback = Callable[[LogPoint], bool | None]
"""Called with the state of the search; returning True stops it."""

REPORT_INTERVAL = 0.05
LINE_INTERVAL = 1.0


class SearchStopped(BaseException):
    """Unwinds a search; carries why. Never leaves a solver.

    A ``BaseException`` so that no handler of ordinary errors swallows it.
    """

    def __init__(self, termination: Termination) -> None:
        super().__init__(termination.value)
        self.termination = termination


class Monitor:
    """State of one solver run: what is known, and whether to go on.

    Parameters
    ----------
    solver : str
        Name shown on the progress line.
    time_limit : float or None
        Seconds.
    callback : callable or None
    log : bool
        Write a progress line to standard error.
    """

    def __init__(
        self, solver: str, time_limit: float | None, callback: Callback | None, log: bool
    ) -> None:
        self.solver = solver
        self.started = time.perf_counter()
        self.time_limit = math.inf if time_limit is None else float(time_limit)
        self.callback = callback
        self.log = log
        self.points: list[LogPoint] = []
        self._reported = -math.inf
        self._written = -math.inf
        self._last = (math.inf, -math.inf)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    @property
    def remaining(self) -> float:
        """Seconds left, infinite without a limit."""
        return self.time_limit - self.seconds

    def check(self, nodes: int, value: float, bound: float) -> None:
        """Record the state and stop the search where asked to.

        Raises
        ------
        SearchStopped
            Time limit reached, or the callback returned True.
        """
        now = self.seconds
        changed = (value, bound) != self._last
        if changed or now - self._reported >= REPORT_INTERVAL:
            self._reported = now
            point = LogPoint(now, nodes, value, bound)
            if changed:
                self._last = (value, bound)
                self.points.append(point)
            if self.callback is not None and self.callback(point):
                raise SearchStopped(Termination.CALLBACK)
            if self.log and now - self._written >= LINE_INTERVAL:
                self._write(point)
        if now >= self.time_limit:
            raise SearchStopped(Termination.TIME_LIMIT)

    def _write(self, point: LogPoint) -> None:
        self._written = point.seconds
        rate = point.nodes / point.seconds if point.seconds > 0 else 0.0
        known = [f"{point.nodes} nodes  {rate:.0f}/s"]
        if math.isfinite(point.value):
            known.append(f"incumbent {point.value:.6g}")
        if math.isfinite(point.bound):
            known.append(f"bound {point.bound:.6g}")
        if math.isfinite(point.value) and math.isfinite(point.bound):
            gap = (point.value - point.bound) / abs(point.value) if point.value else 0.0
            known.append(f"gap {100 * gap:.3g} %")
        sys.stderr.write(f"{self.solver}  {point.seconds:.1f} s  {'  '.join(known)}\n")


def checked_request(
    problem: object,
    time_limit: object,
    gap: object,
    seed: object,
    callback: object,
    log: object,
) -> None:
    """Refuse arguments that every solver takes where they make no sense."""
    require_problem(problem)
    require_time_limit(time_limit)
    require_number("gap", gap, at_least=0)
    require_integer("seed", seed, at_least=0)
    if callback is not None:
        require_callable("callback", callback, "a function of a LogPoint, or None")
    require_flag("log", log)


@cache
def library_version() -> str:
    """Version written into the results of our own solvers."""
    return version("mipprune")
