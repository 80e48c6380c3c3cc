"""Matrices of the pair relaxation at one node: forms of a Z, best Z of pairs X, and X."""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

__all__ = ["conditioned", "nearest_psd", "pairwise_forms", "turned"]

Floats = NDArray[np.float64]


def nearest_psd(matrix: Floats, least: float = 0.0) -> Floats:
    """The symmetric part with eigenvalues of at least ``least``."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    result = (vectors * np.maximum(values, least)) @ vectors.T
    return np.asarray((result + result.T) / 2)


def conditioned(pairs: Floats, i: int, removed: bool) -> Floats:
    """Pairs once x_i is known: first moments are conditional, second moments scale along."""
    shares = np.diagonal(pairs)
    own = np.clip(shares[i], 0.02, 0.98)
    joint = (pairs[i] + pairs[:, i]) / 2
    after = joint / own if removed else (shares - joint) / (1.0 - own)
    after = np.clip(after, 0.02, 1.0)
    scale = after / np.maximum(shares, 0.02)
    result = pairs * np.outer(scale, scale)
    np.fill_diagonal(result, after)
    return np.asarray(np.minimum(result, np.minimum(after[:, None], after)))


def pairwise_forms(
    parts: list[tuple[Floats, Floats]], directions: list[Floats], n: int
) -> tuple[Floats, Floats]:
    """b (n,) and Q (n, n) of directions."""
    linear, quadratic = np.zeros(n), np.zeros((n, n))
    for (inverse, own), z in zip(parts, directions, strict=True):
        size = len(inverse) // n
        linear += (own * z).sum(1).reshape(n, size).sum(1)
        quadratic += (inverse * (z @ z.T)).reshape(n, size, n, size).sum((1, 3))
    return linear, (quadratic + quadratic.T) / 2


def turned(
    directions: list[Floats], parts: list[tuple[Floats, Floats]], pairs: Floats
) -> list[Floats]:
    """Z moved towards ``(X o P)^-1 (x o B)`` at the psd part of the pairs X."""
    positive = nearest_psd(pairs, 1e-6)
    shares = np.diagonal(positive)
    result = []
    for t, (inverse, own) in enumerate(parts):
        size = len(inverse) // len(pairs)
        matrix = np.repeat(np.repeat(positive, size, 0), size, 1) * inverse
        matrix[np.diag_indices(len(matrix))] *= 1.0 + 1e-9
        share = np.repeat(shares, size)[:, None] * own
        try:
            factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError:
            # Rounding made X o P indefinite; every Z is valid, so the old one stays.
            result.append(directions[t] if directions else np.zeros_like(own))
            continue
        goal = cho_solve(factor, share, check_finite=False)
        result.append(0.5 * (directions[t] + goal) if directions else goal)
    return result
