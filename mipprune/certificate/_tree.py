"""Certificates of branch-and-bound trees."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipprune._support.checks import require_number
from mipprune.certificate._certificate import Certificate
from mipprune.errors import InputError
from mipprune.problem import ChannelSelection, require_problem

__all__ = ["LEAF", "tree_certificate"]

LEAF = -1
"""Code of a leaf among the nodes; every other node is the channel branched on."""


def tree_certificate(
    problem: ChannelSelection,
    bound: float,
    nodes: ArrayLike,
    *,
    scales: Sequence[float] = (0.9, 1.0, 0.8),
    skew: NDArray[np.float64] | None = None,
) -> Certificate:
    """Proof by a tree that every feasible mask has a value of at least ``bound``.

    Parameters
    ----------
    problem : ChannelSelection
        Variant ``refit`` or ``scale``, G + ridge not singular.
    bound : float
    nodes : int array
        Depth-first preorder from the root in which the forced channels are decided:
        a channel is branched on, its removed child first, then its kept child;
        ``-1`` is a leaf. Forced channels do not appear.
    scales : sequence of float
        Values t with which each leaf tries Gilmore-Lawler rows at
        ``Z_j = t P_jj^-1 B_j``, in this order, after the two cheaper bounds (nothing
        more removed; the r-th cheapest single removal).
    skew : float64 (p, p), optional
        Skew-symmetric multipliers used at every leaf beside zero ones.

    Returns
    -------
    Certificate
        Not checked here: see :func:`mipprune.certificate.verify`.
    """
    codes = np.asarray(nodes)
    require_problem(problem)
    bound = require_number("bound", bound, finite=False)
    p, limits = problem.n_channels, len(problem.upper_constraints[1])
    if codes.ndim != 1 or not codes.size or not np.issubdtype(codes.dtype, np.integer):
        raise InputError("nodes: expected a 1-d array of integers with at least one node")
    if np.any(codes >= p) or np.any(codes < LEAF):
        raise InputError(f"nodes: expected channels 0..{p - 1} or {LEAF} for a leaf")
    small = np.int16 if p < 2**15 else np.int32
    skews = [np.zeros((p, p))] if skew is None else [np.zeros((p, p)), np.asarray(skew)]
    members = [(scale, part) for part in skews for scale in scales]
    arrays: dict[str, NDArray[np.generic]] = {
        "nodes": codes.astype(small),
        "members": np.asarray(len(members)),
    }
    for i, (scale, part) in enumerate(members):
        arrays[f"scale_{i}"] = np.asarray(float(scale))
        arrays[f"factor_{i}"] = np.zeros((p, 0))
        arrays[f"skew_{i}"] = part
        arrays[f"multipliers_{i}"] = np.zeros(limits)
    return Certificate("tree", problem.content_hash, bound, arrays)
