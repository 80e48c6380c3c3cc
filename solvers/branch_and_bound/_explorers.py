"""Two ways to search below an open node: compiled, and in the range space."""

import math
import threading

import numpy as np
from numpy.typing import NDArray

from mipprune.problem import ChannelSelection, Term
from mipprune.relaxation.removal import RemovalForm, removal_form
from mipprune.solvers.branch_and_bound._careful import (
    WORST,
    CarefulExplorer,
    condition,
    downdate_margin,
)
from mipprune.solvers.branch_and_bound._frontier import Found, Task
from mipprune.solvers.branch_and_bound._pairwise import tighten
from mipprune.solvers.branch_and_bound._root import Root, removal_root
from mipprune.solvers.branch_and_bound._search import search
from mipprune.solvers.branch_and_bound._state import (
    LEAVES,
    NODE_CAP,
    NODES,
    PRUNED,
    REMOVED,
    UNDECIDED,
    WORK,
    WORK_CAP,
    Scratch,
    Stack,
    make_output,
    make_scratch,
    make_stack,
)
from mipprune.solvers.branch_and_bound._twins import children, twin_labels

__all__ = ["CompiledExplorer", "RangeSpaceExplorer"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bytes = NDArray[np.int8]

FIRST_BUDGET = 5e7
SLICE_BUDGET = 1.5e9
ARENA_LIMIT = 1 << 27
"""Doubles of work space per thread (1 GiB, touched only where used)."""


class CompiledExplorer:
    """Depth-first search by the compiled kernels.

    Parameters
    ----------
    root : Root
    margin : float
        Error of the root's matrices, handed on with every result.
    """

    def __init__(self, root: Root, margin: float) -> None:
        self.root = root
        self.margin = margin
        self._idle: list[tuple[int, Stack, Scratch]] = []
        self._lock = threading.Lock()

    def explore(self, task: Task, budget: float = SLICE_BUDGET) -> Found:
        """Search below a node; see :class:`Explorer`."""
        n = task.undecided.size
        stack, scratch = self._borrow(n)
        root = self.root
        out = make_output(root.n_channels, n, task.control, task.shared)
        out.figures[PRUNED] = math.inf
        out.figures[WORK_CAP] = FIRST_BUDGET if task.first else budget
        out.figures[NODE_CAP] = task.node_cap
        root.load(task.state, stack)
        search(root.program, stack, scratch, out, n, task.bound)
        with self._lock:
            self._idle.append((stack.ids.shape[1], stack, scratch))
        count, mask = int(out.opened_count[0]), None
        if math.isfinite(out.best_value[0]):
            mask = out.best_mask == 1
        return Found(
            bound=task.bound,
            states=[out.opened[k].copy() for k in range(count)],
            bounds=out.opened_bounds[:count].tolist(),
            mask=mask,
            believed=float(out.best_value[0]),
            pruned=float(out.figures[PRUNED]),
            nodes=int(out.figures[NODES]),
            leaves=int(out.figures[LEAVES]),
            work=float(out.figures[WORK]),
            margin=self.margin,
        )

    def _borrow(self, n: int) -> tuple[Stack, Scratch]:
        with self._lock:
            for k, (size, stack, scratch) in enumerate(self._idle):
                if size >= n:
                    del self._idle[k]
                    return stack, scratch
        root = self.root
        sizes = root.program.sizes
        entries = max(min(root.arena_size(n), ARENA_LIMIT), 2 * root.level_size(n) + 64)
        stack = make_stack(
            np.empty(entries),
            n,
            root.n_channels,
            sizes.size,
            root.need.size,
            root.room.size,
        )
        return stack, make_scratch(n, int(sizes.max(initial=1)))


class RangeSpaceExplorer:
    """One node at a time where the Gram matrix is singular and the ridge is zero.

    Below a node whose kept rows are well conditioned the compiled search takes
    over; above it, values and bounds come from the range space.
    """

    def __init__(self, problem: ChannelSelection, steps: Integers) -> None:
        self.problem = problem
        self.steps = steps

    def explore(self, task: Task) -> Found:
        """Bound the node and open its children, or hand it to the compiled search."""
        restricted = _restricted(self.problem, task.state != REMOVED)
        form = removal_form(restricted)
        root = removal_root(restricted, form, self.steps)
        worst = math.inf if form.singular else condition(restricted, form)
        if worst <= WORST:
            inner = CompiledExplorer(root, form.margin + downdate_margin(restricted, worst))
            return inner.explore(task)
        if not form.singular:
            return CarefulExplorer(self.problem, worst).explore(task)
        return self._open(task, form, root)

    def _open(self, task: Task, form: RemovalForm, root: Root) -> Found:
        undecided = task.undecided
        n = undecided.size
        stays = task.state != REMOVED
        value = form.value_all + float(self.problem.prices[stays].sum())
        found = Found(bound=task.bound, nodes=1, margin=form.margin)
        monotone = bool(root.program.flags[0])
        complete = stays.astype(np.int8)
        if self.problem.is_feasible(stays):
            # Settled by the frontier, which knows the box.
            _append(found, np.where(stays, 1, REMOVED), value)
            if monotone:
                return found
        if n == 0:
            return found
        linear, quadratic = form.pairwise(form.single_directions())
        inside = np.ix_(undecided, undecided)
        delta = linear[undecided] - np.diag(quadratic)[undecided] / 2
        coupling = np.ascontiguousarray(quadratic[inside])
        np.fill_diagonal(coupling, 0.0)
        forced, without = np.empty(n), np.empty(n)
        gain = tighten(
            n,
            1,
            n,
            delta,
            coupling,
            self.problem.prices[undecided],
            np.full(n, 0.9),
            np.zeros((n, n)),
            task.cutoff - value,
            0,
            False,
            forced,
            without,
        )
        order = np.argsort(delta, kind="stable")
        for c, free in children(undecided[order], twin_labels(self.problem)):
            child = np.where(complete == 1, 1, REMOVED).astype(np.int8)
            child[free] = UNDECIDED
            child[undecided[order[c]]] = REMOVED
            below = max(task.bound, value + max(gain, float(forced[order[c]])))
            if monotone:
                below = max(below, value + max(float(delta[order[c]]), 0.0))
            _append(found, child, below)
        return found


def _append(found: Found, state: NDArray[np.integer], bound: float) -> None:
    found.states.append(state.astype(np.int8))
    found.bounds.append(bound)


def _restricted(problem: ChannelSelection, stays: NDArray[np.bool_]) -> ChannelSelection:
    """The same problem where the removed channels have no rows."""
    terms = []
    for term in problem.terms:
        rows = term.rows(stays)
        terms.append(
            Term(
                gram=term.gram[np.ix_(rows, rows)],
                cross=term.cross[rows],
                energy=term.energy,
                group_sizes=np.where(stays, term.group_sizes, 0),
                ridge=term.ridge,
                big_m=term.big_m,
                name=term.name,
            )
        )
    return ChannelSelection.from_terms(
        terms,
        prices=problem.prices,
        resources=problem.resources,
        forced_in=problem.forced_in,
        forced_out=problem.forced_out,
        parts=problem.parts,
    )
