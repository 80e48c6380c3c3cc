"""Tree certificates: branchings whose every leaf the independent checker can bound again."""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mipprune.certificate import Certificate
from mipprune.errors import InputError
from mipprune.problem import ChannelSelection
from mipprune.relaxation.removal import RemovalForm, removal_form
from mipprune.solvers.branch_and_bound._root import removal_root

__all__ = ["branch_and_bound_tree"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SCALES = (0.65, 0.8, 0.9, 1.0)
"""The t of the pairwise bounds a leaf may use; one member of the certificate each."""

SAFETY = 1e-9
"""Leaves must clear the goal by this much, relative to the energy: the checker rounds down."""


@dataclass(frozen=True, eq=False)
class _Node:
    """Matrices of the undecided channels, blocks of ``sizes[t]`` rows each."""

    value: float
    undecided: Integers
    kept: NDArray[np.bool_]
    inverse: tuple[Floats, ...]
    coefficients: tuple[Floats, ...]


def branch_and_bound_tree(
    problem: ChannelSelection,
    bound: float,
    *,
    max_nodes: int = 100_000,
    time_limit: float | None = None,
) -> Certificate | None:
    """A tree certificate that no mask has a value below ``bound``.

    Searched anew with bounds that numpy alone can repeat (no multipliers, t from
    a short list), on binary branchings: the undecided channel with the dearest removal, its
    removed child first. Much slower than the search; meant for up to some
    ten thousand nodes.

    Parameters
    ----------
    problem : ChannelSelection
        Variant refit or scale, well conditioned, where removing more never
        helps: no positive prices, lower limits or equal counts.
    bound : float
        What to prove, for instance ``Solution.bound``; less than the optimum by
        more than rounding (1e-9 of the energy).
    max_nodes : int
    time_limit : float, optional
        Seconds.

    Returns
    -------
    Certificate or None
        None where the limits were reached first.

    Raises
    ------
    InputError
        A problem of another kind.
    """
    canonical = problem.canonical()
    form = removal_form(canonical)
    steps = np.zeros(5, dtype=np.int64)
    root = removal_root(canonical, form, steps)
    if form.singular or not root.program.flags[0]:
        raise InputError(
            "tree certificates are made for well conditioned problems without positive "
            "prices, lower limits and equal counts; use the root certificate of relax()"
        )
    goal = bound + SAFETY * problem.energy
    nodes = _nodes(canonical, form, root.program.sizes, goal, max_nodes, time_limit)
    if nodes is None:
        return None
    p, n_limits = problem.n_channels, len(problem.upper_constraints[1])
    arrays: dict[str, NDArray[np.generic]] = {
        "nodes": np.array(nodes, dtype=np.int64),
        "members": np.asarray(len(SCALES)),
    }
    for index, scale in enumerate(SCALES):
        arrays[f"scale_{index}"] = np.asarray(scale)
        arrays[f"multipliers_{index}"] = np.zeros(n_limits)
        arrays[f"factor_{index}"] = np.zeros((p, 0))
        arrays[f"skew_{index}"] = np.zeros((p, p))
    return Certificate(
        kind="tree", problem_hash=problem.content_hash, bound=float(bound), arrays=arrays
    )


def _nodes(
    problem: ChannelSelection,
    form: RemovalForm,
    sizes: Integers,
    goal: float,
    max_nodes: int,
    time_limit: float | None,
) -> list[int] | None:
    """Preorder of the tree: a channel to branch on, or -1 at a leaf."""
    root = removal_root(problem, form, np.zeros(5, dtype=np.int64))
    every = np.arange(problem.n_channels)
    kept = np.zeros(problem.n_channels, dtype=bool)
    node = _Node(form.value_all, every, kept, root.inverse, root.coefficients)
    for j in np.flatnonzero(problem.forced_out).tolist():
        node = _removed(node, sizes, j)
    for j in np.flatnonzero(problem.forced_in).tolist():
        node = _stays(node, sizes, j)
    began, stack = time.monotonic(), [node]
    nodes: list[int] = []
    while stack:
        if len(nodes) >= max_nodes:
            return None
        if time_limit is not None and time.monotonic() - began > time_limit:
            return None
        node = stack.pop()
        branch = _branch(problem, node, sizes, goal)
        nodes.append(branch)
        if branch >= 0:
            stack.append(_stays(node, sizes, branch))
            stack.append(_removed(node, sizes, branch))
    return nodes


def _least_removals(problem: ChannelSelection, node: _Node) -> int:
    """Fewest removals among the undecided channels that meet every upper limit."""
    matrix, limits = problem.upper_constraints
    least = 0
    for row, limit in zip(matrix, limits, strict=True):
        spare = limit + 1e-9 * float(np.abs(row).sum()) - float(row[node.kept].sum())
        use = np.sort(row[node.undecided])
        stays = int(np.sum(np.cumsum(use) <= spare)) if spare >= 0 else -1
        least = max(least, node.undecided.size - stays)
    return least


def _branch(problem: ChannelSelection, node: _Node, sizes: Integers, goal: float) -> int:
    """Channel to branch on, -1 where the node needs none."""
    n, least = node.undecided.size, _least_removals(problem, node)
    prices = problem.prices[node.undecided]
    stay = node.value + float(problem.prices[node.kept].sum() + prices.sum())
    if least > n or stay >= goal:
        return -1
    if n == 0:
        raise InputError(f"bound: {goal} is above the value of a mask; nothing can prove it")
    delta, coupling = np.zeros(n), np.zeros((n, n))
    for inverse, own, size in zip(node.inverse, node.coefficients, sizes.tolist(), strict=True):
        rows = np.arange(n * size).reshape(n, size)
        blocks = inverse[rows[:, :, None], rows[:, None, :]]
        z = np.linalg.solve(blocks, own[rows])
        delta += 0.5 * (own[rows] * z).sum((1, 2))
        flat = z.reshape(n * size, -1)
        coupling += (inverse * (flat @ flat.T)).reshape(n, size, n, size).sum((1, 3))
    np.fill_diagonal(coupling, np.inf)
    top = -np.sort(-coupling, axis=1)[:, 1:least].sum(1)
    for t in SCALES if least else ():
        rows_bound = np.sort((2 * t - t * t) * delta - prices - 0.5 * t * t * top)
        if stay + float(rows_bound[:least].sum()) >= goal:
            return -1
    return int(node.undecided[np.argmax(delta)])


def _stays(node: _Node, sizes: Integers, j: int) -> _Node:
    """The child that keeps channel j: its rows leave the matrices."""
    here = node.undecided != j
    kept = node.kept.copy()
    kept[j] = True
    inverse, coefficients = [], []
    for matrix, own, size in zip(node.inverse, node.coefficients, sizes.tolist(), strict=True):
        rows = np.repeat(here, size)
        inverse.append(matrix[np.ix_(rows, rows)])
        coefficients.append(own[rows])
    return _Node(node.value, node.undecided[here], kept, tuple(inverse), tuple(coefficients))


def _removed(node: _Node, sizes: Integers, j: int) -> _Node:
    """The child without channel j: a downdate of rank ``sizes[t]``."""
    here, value = node.undecided != j, node.value
    inverse, coefficients = [], []
    for matrix, own, size in zip(node.inverse, node.coefficients, sizes.tolist(), strict=True):
        stay = np.repeat(here, size)
        panel, gone = matrix[np.ix_(~stay, stay)], own[~stay]
        solved = np.linalg.solve(matrix[np.ix_(~stay, ~stay)], np.hstack([panel, gone]))
        width = panel.shape[1]
        value += 0.5 * float(np.vdot(gone, solved[:, width:]))
        inverse.append(matrix[np.ix_(stay, stay)] - panel.T @ solved[:, :width])
        coefficients.append(own[stay] - panel.T @ solved[:, width:])
    return _Node(value, node.undecided[here], node.kept, tuple(inverse), tuple(coefficients))
