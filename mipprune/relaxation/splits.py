r"""Splits :math:`G + \rho = R + \operatorname{blkdiag}(D_j)` with R positive semidefinite.

The perspective relaxation is as strong as its split: D' >= D in the psd order
gives a bound that is at least as high. Offered are

- ``ridge``: :math:`D_j = \rho_j I`, the split of the plain formulation;
- ``eigenvalue``: :math:`D_j = \lambda_{\min}(G + \rho) I`;
- ``schur``: :math:`D_j = t S_j`, :math:`S_j = ([(G + \rho)^{-1}]_{jj})^{-1}`, with the
  largest t that keeps R psd;
- ``optimal``: the block-diagonal D with the highest relaxation
  (:mod:`mipprune.relaxation._optimal_split`).

References
----------
Frangioni and Gentile (2007), "SDP diagonalizations and perspective cuts".
Zheng, Sun and Li (2014), "Improving the performance of MIQP solvers".
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from mipprune.errors import InputError
from mipprune.problem import Term
from mipprune.relaxation._blocks import Blocks, as_tensor

__all__ = ["SPLITS", "is_psd", "make_split", "shrunk_to_psd"]

SPLITS = ("ridge", "eigenvalue", "schur", "optimal")

UNIT = float(np.finfo(np.float64).eps)


def is_psd(matrix: torch.Tensor) -> bool:
    """Proof in float64 arithmetic that a symmetric matrix is positive semidefinite.

    Cholesky of ``matrix - c I`` with ``c = (d + 3) eps trace`` succeeds only
    for psd matrices (Rump 2006, "Verification of positive definiteness").
    """
    d = matrix.shape[0]
    shift = (d + 3) * UNIT * float(torch.trace(matrix).abs())
    shifted = matrix.clone()
    shifted.diagonal().sub_(shift)
    _, info = torch.linalg.cholesky_ex(shifted)
    return int(info) == 0


def make_split(term: Term, split: str, device: torch.device) -> Blocks:
    """The split of one term, verified psd; zero where ``G + ridge`` is singular."""
    makers: dict[str, Callable[[Term, torch.Tensor, torch.device], Blocks]] = {
        "ridge": _ridge,
        "eigenvalue": _eigenvalue,
        "schur": _schur,
        "optimal": _schur,
    }
    if split not in makers:
        raise InputError(f"split: expected one of {', '.join(SPLITS)}, got '{split}'")
    matrix = as_tensor(term.damped_gram, device)
    if split != "ridge" and not is_psd(matrix):
        return Blocks.scalar(term.group_sizes, np.zeros(term.n_channels), device)
    return shrunk_to_psd(matrix, makers[split](term, matrix, device))


def shrunk_to_psd(matrix: torch.Tensor, blocks: Blocks) -> Blocks:
    """Largest of the multiples ``(1 - 10^-k) blocks`` that leaves a psd rest, else zero."""
    for share in (1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 0.9):
        smaller = blocks.mapped(partial(torch.mul, 1.0 - share))
        if is_psd(smaller.added_to(matrix, -1.0)):
            return smaller
    return blocks.mapped(torch.zeros_like)


def _ridge(term: Term, matrix: torch.Tensor, device: torch.device) -> Blocks:
    return Blocks.scalar(term.group_sizes, term.ridge, device)


def _eigenvalue(term: Term, matrix: torch.Tensor, device: torch.device) -> Blocks:
    smallest = max(float(torch.linalg.eigvalsh(matrix)[0]), 0.0) if term.n_rows else 0.0
    return Blocks.scalar(term.group_sizes, np.full(term.n_channels, smallest), device)


def _schur(term: Term, matrix: torch.Tensor, device: torch.device) -> Blocks:
    if not term.n_rows:
        return Blocks.scalar(term.group_sizes, np.zeros(term.n_channels), device)
    factor = torch.linalg.cholesky(matrix)
    inverse = torch.cholesky_inverse(factor)
    own = Blocks.diagonal_of(inverse, term.group_sizes)
    roots = own.mapped(_inverse_root)
    scaled = roots.times(roots.times(inverse).mT)
    largest = _largest_eigenvalue((scaled + scaled.mT) / 2)
    return own.mapped(lambda b: torch.cholesky_inverse(torch.linalg.cholesky(b)) / largest)


def _inverse_root(blocks: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(blocks)
    floor = values.amax(-1, keepdim=True) * UNIT
    root: torch.Tensor = (vectors / values.clamp_min(floor).sqrt()[:, None]) @ vectors.mT
    return root


def _largest_eigenvalue(matrix: torch.Tensor) -> float:
    """Largest eigenvalue, from above: exact when small, else Lanczos and its residual."""
    d = matrix.shape[0]
    if d <= 600:
        return float(torch.linalg.eigvalsh(matrix)[-1])
    generator = torch.Generator(device="cpu").manual_seed(0)
    vector = torch.randn(d, generator=generator, dtype=torch.float64).to(matrix.device)
    basis = [vector / vector.norm()]
    alphas: list[float] = []
    betas: list[float] = []
    value = error = 0.0
    for step in range(min(d - 1, 200)):
        image = matrix @ basis[-1]
        alphas.append(float(image @ basis[-1]))
        stacked = torch.stack(basis)
        for _ in range(2):
            image = image - stacked.mT @ (stacked @ image)
        beta = float(image.norm())
        tridiagonal = np.diag(alphas) + np.diag(betas, 1) + np.diag(betas, -1)
        values, vectors = np.linalg.eigh(tridiagonal)
        value, error = float(values[-1]), beta * abs(float(vectors[-1, -1]))
        if (step > 10 and error < 1e-7 * value) or beta < 1e-14 * value:
            break
        betas.append(beta)
        basis.append(image / beta)
    return value + error
