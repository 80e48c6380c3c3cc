"""Best-first frontier over depth-first searches, on one or more threads."""

import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from mipprune.problem import ChannelSelection, LogPoint, Termination
from mipprune.solvers.branch_and_bound._state import KEPT, UNDECIDED

__all__ = ["Explorer", "Found", "Frontier", "Limits", "Task"]

Floats = NDArray[np.float64]
Bytes = NDArray[np.int8]
Bools = NDArray[np.bool_]
Running = dict[Future["Found"], float]

POLL_SECONDS = 0.05


@dataclass
class Limits:
    """When to stop, and whom to tell."""

    deadline: float = math.inf
    node_limit: float = math.inf
    gap: float = 1e-6
    threads: int = 1
    callback: Callable[[LogPoint], object] | None = None
    show: Callable[[LogPoint], None] | None = None


@dataclass
class Found:
    """What one search below a node came back with.

    ``pruned`` is the least bound of anything discarded, ``margin`` the float64
    error that its bounds may carry.
    """

    bound: float
    states: list[Bytes] = field(default_factory=list)
    bounds: list[float] = field(default_factory=list)
    mask: Bools | None = None
    believed: float = math.inf
    pruned: float = math.inf
    nodes: int = 0
    leaves: int = 0
    work: float = 0.0
    margin: float = 0.0


def _cutoff(value: float, shared: Floats) -> float:
    """Bounds at or above this need no search: incumbent less the gap asked for."""
    if not math.isfinite(value):
        return math.inf
    return value - float(shared[1]) * max(abs(value), float(shared[2]))


@dataclass(frozen=True, eq=False)
class Task:
    """An open node to search below.

    Attributes
    ----------
    state : int8 (p,)
        Undecided, kept or removed, per channel.
    bound : float
        Known lower bound of the node.
    control : int64 (1,)
        Not zero: stop and leave what is open.
    shared : float64 (3,)
        Incumbent of all threads, gap, and least size of a value.
    first : bool
        Whether this is the first search of all.
    node_cap : float
        Most nodes to search.
    """

    state: Bytes
    bound: float
    control: NDArray[np.int64]
    shared: Floats
    first: bool
    node_cap: float

    @property
    def undecided(self) -> NDArray[np.int64]:
        """Channels not yet decided."""
        return np.flatnonzero(self.state == UNDECIDED)

    @property
    def cutoff(self) -> float:
        """Bounds at or above this need no search, by the incumbent of this moment."""
        return _cutoff(float(self.shared[0]), self.shared)


@cache
def _blas() -> Any:
    """The loaded linear algebra libraries; found once, as that takes milliseconds."""
    controller: Any = ThreadpoolController
    return controller()


class Explorer(Protocol):
    """Searches below an open node."""

    def explore(self, task: Task) -> Found:
        """Search with a budget of work."""
        ...


class Frontier:
    """Open nodes, incumbent and global bound of one search.

    Parameters
    ----------
    explorer : Explorer
    problem : ChannelSelection
        Recomputes the objective of every incumbent from the data, and of complete
        masks that a box makes dearer than the search believes.
    limits : Limits
    heuristic : function, optional
        A mask to try once the first slice of the tree has not finished the search.
    """

    def __init__(
        self,
        explorer: Explorer,
        problem: ChannelSelection,
        limits: Limits,
        heuristic: Callable[[], Bools | None] | None = None,
    ) -> None:
        self.explorer = explorer
        self.problem = problem
        self.limits = limits
        self.heuristic = heuristic
        self.shared = np.array([math.inf, limits.gap, max(1e-12 * problem.energy, 1e-300)])
        self.control = np.zeros(1, dtype=np.int64)
        self.mask: Bools | None = None
        self.value = math.inf
        self.pruned = math.inf
        self.nodes = 0
        self.leaves = 0
        self.work = 0.0
        self.drift = 0.0
        self.margin = 0.0
        self.first_bound = -math.inf
        self.log: list[LogPoint] = []
        self._heap: list[tuple[float, int, Bytes]] = []
        self._ticket = itertools.count()
        self._running: Running = {}
        self._lock = threading.Lock()
        self._started = time.monotonic()

    def push(self, state: Bytes, bound: float) -> None:
        """Add an open node."""
        heapq.heappush(self._heap, (bound, next(self._ticket), state))

    def offer(self, mask: Bools) -> None:
        """Take a mask as incumbent where it is feasible and better."""
        if not self.problem.is_feasible(mask):
            return
        value = self.problem.value(mask)
        if value < self.value:
            self.value, self.mask = value, mask.copy()
            self.shared[0] = min(float(self.shared[0]), value)

    @property
    def bound(self) -> float:
        """Lower bound on the optimum, margin not yet taken off."""
        opened = self._heap[0][0] if self._heap else math.inf
        running = min(self._running.values(), default=math.inf)
        return min(opened, running, self.pruned, self.value)

    def cutoff(self) -> float:
        """Nodes at or above this bound need no search."""
        return _cutoff(self.value, self.shared)

    def run(self) -> Termination:
        """Search until the frontier is empty or a limit says stop."""
        reason: Termination | None = None
        # Small matrices on several search threads: threads inside BLAS only wait.
        with (
            _blas().limit(limits=1, user_api="blas"),
            ThreadPoolExecutor(max_workers=self.limits.threads) as pool,
        ):
            try:
                while reason is None:
                    self._dispatch(pool)
                    if not self._running:
                        reason = Termination.COMPLETE
                        break
                    done, _ = wait(
                        self._running, timeout=self._patience(), return_when=FIRST_COMPLETED
                    )
                    for future in done:
                        self._absorb(future)
                    if self.heuristic is not None and self._heap and not self._running:
                        mask = self.heuristic()
                        self.heuristic = None
                        if mask is not None:
                            self.offer(mask)
                    reason = self._reason()
            except KeyboardInterrupt:
                reason = Termination.INTERRUPTED
            finally:
                self.control[0] = 1
                for future in list(self._running):
                    self._absorb(future)
        return reason

    def _patience(self) -> float:
        return max(0.0, min(POLL_SECONDS, self.limits.deadline - time.monotonic()))

    def _dispatch(self, pool: ThreadPoolExecutor) -> None:
        while len(self._running) < self.limits.threads:
            item = self._next()
            if item is None:
                return
            bound, state = item
            first, node_cap = (
                self.nodes == 0 and not self._running,
                self.limits.node_limit - self.nodes,
            )
            task = Task(state, bound, self.control, self.shared, first, node_cap)
            future = pool.submit(self.explorer.explore, task)
            self._running[future] = bound

    def _next(self) -> tuple[float, Bytes] | None:
        """Best open node that still needs a search; complete masks are settled here."""
        while self._heap:
            bound, _, state = heapq.heappop(self._heap)
            if bound >= self.cutoff():
                self.pruned = min(self.pruned, bound)
                continue
            if not (state == UNDECIDED).any() and math.isfinite(bound):
                self.leaves += 1
                self.offer(state == KEPT)
                continue
            return bound, state
        return None

    def _absorb(self, future: Future[Found]) -> None:
        found = future.result()
        bound = self._running.pop(future)
        self.nodes += found.nodes
        self.leaves += found.leaves
        self.work += found.work
        self.margin = max(self.margin, found.margin)
        self.pruned = min(self.pruned, max(bound, found.pruned))
        if found.mask is not None:
            true = self.problem.value(found.mask)
            self.drift = max(self.drift, abs(true - found.believed))
            if true < self.value:
                self.value, self.mask = true, found.mask
        for state, below in zip(found.states, found.bounds, strict=True):
            self.push(state, max(bound, below))
        if not math.isfinite(self.first_bound):
            self.first_bound = self.bound

    def _reason(self) -> Termination | None:
        bound = self.bound
        point = LogPoint(time.monotonic() - self._started, self.nodes, self.value, bound)
        if not self.log or (point.value, bound) != (self.log[-1].value, self.log[-1].bound):
            self.log.append(point)
        if self.limits.show is not None:
            self.limits.show(point)
        if self.limits.callback is not None and self.limits.callback(point):
            return Termination.CALLBACK
        if time.monotonic() >= self.limits.deadline:
            return Termination.TIME_LIMIT
        if self.nodes >= self.limits.node_limit:
            return Termination.NODE_LIMIT
        return None
