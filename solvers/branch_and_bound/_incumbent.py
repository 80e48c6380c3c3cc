"""First incumbent of the search: greedy elimination, then exact one-swaps.

Only where the first small slice of the tree does not already finish.
"""

import numpy as np
from numpy.typing import NDArray

from mipprune.solvers.branch_and_bound._root import Root
from mipprune.solvers.branch_and_bound._state import KEPT, REMOVED, UNDECIDED

__all__ = ["eliminate", "swap"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bytes = NDArray[np.int8]

MAX_SWAPS = 200


def eliminate(root: Root, state: Bytes) -> Bytes:
    """Remove the cheapest channel, relative to what it frees, until every limit is met.

    Returns a complete state (kept, removed); lower limits and equal counts
    are not looked at, so the caller checks feasibility.
    """
    result = np.where(state == UNDECIDED, KEPT, state).astype(np.int8)
    gone = np.flatnonzero(state == REMOVED)
    free = state == UNDECIDED
    inverse = [matrix.copy() for matrix in root.inverse]
    coefficients = [matrix.copy() for matrix in root.coefficients]
    for channel in gone.tolist():
        _remove(root, inverse, coefficients, channel)
    need = root.need - root.program.use[:, gone].sum(1)
    slack = root.program.slack[: need.size]
    while np.any(need > slack) and free.any():
        candidates = np.flatnonzero(free)
        cost = _singles(root, inverse, coefficients, candidates)
        cost = np.maximum(cost - root.program.prices[candidates], 0.0)
        unmet = need > slack
        relief = np.minimum(root.program.use[unmet][:, candidates] / need[unmet, None], 1.0).sum(0)
        if not np.any(relief > 0):
            break
        ratio = np.full(candidates.size, np.inf)
        np.divide(cost, relief, out=ratio, where=relief > 0)
        j = int(candidates[np.argmin(ratio)])
        _remove(root, inverse, coefficients, j)
        result[j] = REMOVED
        free[j] = False
        need = need - root.program.use[:, j]
    return result


def _remove(root: Root, inverse: list[Floats], coefficients: list[Floats], j: int) -> None:
    for t, size in enumerate(root.program.sizes.tolist()):
        rows = slice(j * size, (j + 1) * size)
        matrix, target = inverse[t], coefficients[t]
        factor = np.linalg.solve(matrix[rows, rows], np.hstack([matrix[rows], target[rows]]))
        panel = matrix[:, rows].copy()
        d = matrix.shape[0]
        matrix -= panel @ factor[:, :d]
        target -= panel @ factor[:, d:]
        matrix[rows, rows] = np.eye(size)


def _singles(
    root: Root, inverse: list[Floats], coefficients: list[Floats], channels: Integers
) -> Floats:
    total = np.zeros(channels.size)
    for t, size in enumerate(root.program.sizes.tolist()):
        rows = channels[:, None] * size + np.arange(size)
        blocks = inverse[t][rows[:, :, None], rows[:, None, :]]
        own = coefficients[t][rows]
        total += 0.5 * (own * np.linalg.solve(blocks, own)).sum((1, 2))
    return total


def swap(root: Root, state: Bytes, fixed: NDArray[np.bool_]) -> Bytes:
    """Best exact swap of a removed and a kept channel, again and again.

    Swaps that would use more of a resource than the mask may are not made.

    Parameters
    ----------
    state : complete state
    fixed : bool (p,), channels that may not move
    """
    state = state.copy()
    for _ in range(MAX_SWAPS):
        back = np.flatnonzero((state == REMOVED) & ~fixed)
        out = np.flatnonzero((state == KEPT) & ~fixed)
        if not back.size or not out.size:
            break
        change = _swap_changes(root, state, back, out)
        change += root.program.prices[back][:, None] - root.program.prices[out]
        used = root.program.use @ (state == KEPT)
        for k in range(root.need.size):
            use = root.program.use[k]
            limit = float(use.sum()) - root.need[k] + root.program.slack[k]
            change[used[k] + use[back][:, None] - use[out] > limit] = np.inf
        best = np.unravel_index(int(np.argmin(change)), change.shape)
        if not change[best] < -1e-9 * abs(root.value_all):
            break
        state[back[best[0]]], state[out[best[1]]] = KEPT, REMOVED
    return state


def _swap_changes(root: Root, state: Bytes, back: Integers, out: Integers) -> Floats:
    r"""Change of the loss for every swap, float64 (back, out).

    With T removed, :math:`M = P_{TT}^{-1}` and :math:`X = M P_{TS}`, taking i back
    adds :math:`X_{ij}^\top M_{ii}^{-1} X_{ij}` to :math:`P_{jj}` and
    :math:`X_{ij}^\top M_{ii}^{-1} (M B_T)_i` to :math:`B_j`.
    """
    gone = np.flatnonzero(state == REMOVED)
    position = np.searchsorted(gone, back)
    change = np.zeros((back.size, out.size))
    for t, size in enumerate(root.program.sizes.tolist()):
        inverse, coefficients = root.inverse[t], root.coefficients[t]
        rows = (gone[:, None] * size + np.arange(size)).ravel()
        columns = out[:, None] * size + np.arange(size)
        flat = columns.ravel()
        middle = np.linalg.inv(inverse[np.ix_(rows, rows)])
        panel = inverse[np.ix_(rows, flat)]
        x = middle @ panel
        dual = middle @ coefficients[rows]
        own = coefficients[flat] - panel.T @ dual
        own = own.reshape(out.size, size, -1)
        blocks = inverse[columns[:, :, None], columns[:, None, :]] - np.einsum(
            "rja,rjb->jab",
            panel.reshape(-1, out.size, size),
            x.reshape(-1, out.size, size),
        )
        for i, at in enumerate(position):
            part = slice(at * size, (at + 1) * size)
            corner = np.linalg.inv(middle[part, part])
            gain = dual[part]
            # (out, size, size): X_ij' M_ii^-1
            left = np.einsum("ajb,ac->jbc", x[part].reshape(size, out.size, size), corner)
            right = x[part].reshape(size, out.size, size).transpose(1, 0, 2)
            lifted = blocks + left @ right
            shifted = own + left @ gain
            cost = 0.5 * (shifted * np.linalg.solve(lifted, shifted)).sum((1, 2))
            change[i] += cost - 0.5 * float((gain * (corner @ gain)).sum())
    return change
