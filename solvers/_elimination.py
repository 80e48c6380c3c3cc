r"""Schur complements of many channel prefixes at a time, for enumeration.

Keeping the first channel of a stack of matrices eliminates its rows,

.. math:: Y = L^{-1} [G_{jR} \; C_j], \quad G_{jj} = L L^\top, \qquad
          [G_{RR} \; C_R] \leftarrow [G_{RR} \; C_R] - Y_R^\top Y, \qquad
          \text{gain} = \tfrac12 \|Y_C\|^2,

which is block Cholesky, backward stable for every positive definite matrix.
"""

import numpy as np
from numpy.typing import NDArray

from mipprune.problem import Term

__all__ = ["Eliminated", "Stack", "keep_first"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Stack = tuple[Floats, Floats]

UNIT = float(np.finfo(np.float64).eps)


class Eliminated:
    """One positive definite term, forced channels applied, rows in the order of the search.

    Attributes
    ----------
    stack : float64 (1, d, d) and (1, d, m)
    sizes : int64 (q,)
        Rows of the undecided channels.
    gain : float
        What the forced channels gain.
    error : float
        Bound on the rounding error of any loss of the search: backward errors of
        ``d eps`` times the condition number of the scaled matrix.
    """

    def __init__(
        self, term: Term, base: Bools, channels: NDArray[np.intp], condition: float
    ) -> None:
        first = np.flatnonzero(base)
        order = np.concatenate([first, channels])
        rows = np.concatenate(
            [np.arange(term.offsets[j], term.offsets[j + 1]) for j in order]
            or [np.zeros(0, dtype=np.int64)]
        ).astype(np.intp)
        diagonal = np.diag(term.damped_gram)[rows]
        dead = diagonal <= 0
        scale = np.where(dead, 1.0, 2.0 ** -np.round(np.log2(np.where(dead, 1.0, diagonal)) / 2))
        gram = term.damped_gram[np.ix_(rows, rows)] * scale[:, None] * scale
        # Rows of zeros gain nothing: with a pivot of one and no cross moments they stay so.
        gram[dead] = gram[:, dead] = 0.0
        gram[dead, dead] = 1.0
        cross = np.where(dead[:, None], 0.0, term.compressed_cross[rows] * scale[:, None])
        self.sizes = term.group_sizes[channels]
        self.error = 16 * UNIT * max(rows.size, 1) * condition * term.energy
        n = int(term.group_sizes[first].sum())
        left, right, gain = keep_first(gram[None], cross[None], n)
        self.gain = float(gain[0])
        self.stack: Stack = (left, right)


def keep_first(gram: Floats, cross: Floats, g: int) -> tuple[Floats, Floats, Floats]:
    """Eliminate the first ``g`` rows of stacks (n, d, d) and (n, d, m); also the gains (n,)."""
    if g == 0 or not len(gram):
        return gram[:, g:, g:], cross[:, g:], np.zeros(len(gram))
    right = np.concatenate([gram[:, :g, g:], cross[:, :g]], axis=2)
    if g == 1:
        solved = right / np.sqrt(gram[:, :1, :1])
    else:
        solved = np.linalg.solve(np.linalg.cholesky(gram[:, :g, :g]), right)
    rest = gram.shape[1] - g
    gain = 0.5 * (solved[:, :, rest:] ** 2).sum((1, 2))
    update = np.swapaxes(solved[:, :, :rest], 1, 2) @ solved
    return gram[:, g:, g:] - update[:, :, :rest], cross[:, g:] - update[:, :, rest:], gain
