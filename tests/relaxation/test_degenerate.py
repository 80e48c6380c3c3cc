"""Inputs at the edge of what a problem may be: every kind bounds them and its proof passes."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from mipprune.certificate import verify
from mipprune.problem import ChannelSelection
from mipprune.relaxation import RELAXATION_KINDS, Relaxation, relax
from tests.relaxation.instances import brute_force, exact_value, near_singular

BOX = 4.0
"""Holds all weights of the optima below, so that the kinds without a box bound them too."""


def made(
    p: int = 4, keep: int = 2, samples: int = 40, ridge: float = 0.05, single: bool = False
) -> ChannelSelection:
    """Two rows a channel, three responses, every weight bounded."""
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((samples, 2 * p)) + 0.5 * rng.standard_normal((samples, 1))
    target = inputs @ rng.standard_normal((2 * p, 3)) + 0.1 * rng.standard_normal((samples, 3))
    gram, cross = inputs.T @ inputs / samples, inputs.T @ target / samples
    if single:
        gram, cross = gram.astype(np.float32), cross.astype(np.float32)
    energy = float((target**2).sum() / samples) * (1 + 1e-5)
    return ChannelSelection(gram, cross, energy, [2] * p, keep=keep, ridge=ridge, big_m=BOX)


def ill_conditioned() -> ChannelSelection:
    """Eigenvalues of G from 1 to 1e-9, ridge 1e-8."""
    rng = np.random.default_rng(5)
    basis, _ = np.linalg.qr(rng.standard_normal((8, 8)))
    gram = (basis * np.logspace(0, -9, 8)) @ basis.T
    cross = gram @ rng.standard_normal((8, 2))
    energy = float((np.linalg.solve(gram, cross) * cross).sum())
    return ChannelSelection(gram, cross, energy, [2] * 4, keep=2, ridge=1e-8, big_m=50.0)


def zero_target() -> ChannelSelection:
    given = made().terms[0]
    return ChannelSelection(
        given.gram, np.zeros((8, 3)), 0.0, [2] * 4, keep=2, ridge=0.05, big_m=BOX
    )


CASES: dict[str, Callable[[], ChannelSelection]] = {
    "ill-conditioned": ill_conditioned,
    "rank-deficient": lambda: made(samples=5),
    "one channel": lambda: made(p=1, keep=1),
    "all kept": lambda: made(keep=4),
    "none kept": lambda: made(keep=0),
    "zero target": zero_target,
    "float32": lambda: made(single=True),
}


def assert_proven(problem: ChannelSelection, relaxed: Relaxation, folder: Path) -> None:
    assert np.isfinite(relaxed.bound)
    assert relaxed.bound <= brute_force(problem) + 1e-12 * problem.energy
    problem.save(folder / "problem.npz")
    proof = relaxed.certificate.save(folder / "proof.npz")
    verdict = verify(proof, folder / "problem.npz")
    assert verdict.valid, verdict.reason


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", RELAXATION_KINDS)
def test_every_kind(kind: str, case: str, tmp_path: Path) -> None:
    problem = CASES[case]()
    relaxed = relax(problem, kind, tol=0.1)
    assert_proven(problem, relaxed, tmp_path)
    if case in ("all kept", "one channel") and kind in ("gl", "rlt", "sdp", "blocks", "auto"):
        assert relaxed.bound == pytest.approx(brute_force(problem), rel=1e-2)


@pytest.mark.parametrize("kind", RELAXATION_KINDS)
def test_an_interrupted_solve_still_certifies(kind: str, tmp_path: Path) -> None:
    problem = made()
    relaxed = relax(problem, kind, time_limit=0.0, tol=1e-12)
    assert_proven(problem, relaxed, tmp_path)


@pytest.mark.parametrize("split", ["ridge", "eigenvalue", "optimal"])
@pytest.mark.parametrize("case", CASES)
def test_every_split(split: str, case: str, tmp_path: Path) -> None:
    given = CASES[case]()
    term = given.terms[0]
    free = ChannelSelection(
        term.gram, term.cross, term.energy, term.group_sizes, keep=given.keep, ridge=term.ridge
    )
    assert_proven(free, relax(free, "perspective", split=split, tol=0.1), tmp_path)


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("kind", ["perspective", "gl", "blocks"])
def test_below_the_exact_optimum_at_any_condition(kind: str, seed: int, tmp_path: Path) -> None:
    problem = near_singular(seed)
    masks = (np.array(bits) for bits in product([False, True], repeat=problem.n_channels))
    optimum = min(exact_value(problem, mask) for mask in masks if problem.is_feasible(mask))
    relaxed = relax(problem, kind, split=("ridge", "schur")[seed % 2], tol=0.1)
    assert relaxed.bound <= optimum
    problem.save(tmp_path / "problem.npz")
    verdict = verify(relaxed.certificate.save(tmp_path / "proof.npz"), tmp_path / "problem.npz")
    assert verdict.valid, verdict.reason
    assert verdict.bound <= optimum
