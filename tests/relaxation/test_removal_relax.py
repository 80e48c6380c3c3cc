from pathlib import Path

import numpy as np
import pytest

from mipprune.certificate import verify
from mipprune.errors import NoSolutionError
from mipprune.problem import ChannelSelection
from mipprune.relaxation import relax
from tests.relaxation.instances import brute_force, random_problem


def test_hand_case_two_orthogonal_channels() -> None:
    # H = I, C = (2, 1): f_all = 5/2 - 5/2 = 0 with e = 5; removing j costs C_j^2 / 2: 2 and 1/2.
    problem = ChannelSelection(np.eye(2), [[2.0], [1.0]], 5.0, [1, 1], keep=1)
    for kind in ("gl", "rlt", "sdp"):
        assert relax(problem, kind).bound == pytest.approx(0.5, abs=1e-10)


@pytest.mark.parametrize("variant", ["refit", "scale"])
def test_no_bound_above_brute_force_and_all_certify(variant: str, tmp_path: Path) -> None:
    for seed in range(14):
        problem = random_problem(seed, variant)
        optimum = brute_force(problem)
        problem.save(tmp_path / "problem.npz")
        for kind in ("gl", "rlt", "sdp") + (("auto",) if seed % 4 == 0 else ()):
            try:
                relaxed = relax(problem, kind)
            except NoSolutionError:
                assert optimum == np.inf
                continue
            assert relaxed.bound <= optimum + 1e-13 * problem.energy
            proof = relaxed.certificate.save(tmp_path / "proof.npz")
            verdict = verify(proof, tmp_path / "problem.npz")
            assert verdict.valid, verdict.reason
            assert verdict.bound <= optimum + 1e-13 * problem.energy


def test_stronger_kinds_do_not_bound_worse() -> None:
    # Each later kind starts from the multipliers of the earlier one and keeps the best.
    for seed in range(12):
        problem = random_problem(seed)
        try:
            bounds = [relax(problem, kind, tol=1e-6).bound for kind in ("gl", "rlt", "sdp")]
        except NoSolutionError:
            continue
        assert bounds[0] <= bounds[1] + 1e-12 * problem.energy
        assert bounds[0] <= bounds[2] + 1e-12 * problem.energy


def test_hadamard_bound_contains_the_block_splits() -> None:
    for seed in (4, 6, 8):
        problem = random_problem(seed)
        schur = relax(problem, "perspective", split="schur", tol=1e-8).bound
        assert relax(problem, "sdp", tol=1e-6).bound >= schur - 1e-5 * problem.energy


def test_singular_gram_without_ridge(tmp_path: Path) -> None:
    for seed in range(8):
        problem = random_problem(seed, singular=True)
        optimum = brute_force(problem)
        problem.save(tmp_path / "problem.npz")
        for kind in ("gl", "sdp"):
            try:
                relaxed = relax(problem, kind)
            except NoSolutionError:
                assert optimum == np.inf
                continue
            assert relaxed.bound <= optimum + 1e-10 * problem.energy
            proof = relaxed.certificate.save(tmp_path / "proof.npz")
            assert verify(proof, tmp_path / "problem.npz").valid


def test_every_count_of_removals() -> None:
    problem = random_problem(6)
    p = problem.n_channels
    for keep in range(p + 1):
        limited = problem.with_keep(keep)
        relaxed = relax(limited, "sdp", tol=1e-6)
        optimum = brute_force(limited)
        assert relaxed.bound <= optimum
        if keep in (0, p - 1, p):
            assert relaxed.bound == pytest.approx(optimum, rel=1e-6)


def test_duplicate_and_dead_channels() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((60, 4))
    inputs = np.concatenate([inputs, inputs[:, :1], np.zeros((60, 1))], axis=1)
    target = inputs @ rng.standard_normal((6, 2))
    problem = ChannelSelection(
        inputs.T @ inputs / 60,
        inputs.T @ target / 60,
        float((target**2).sum() / 60),
        [1] * 6,
        keep=3,
        ridge=1e-3,
    )
    optimum = brute_force(problem)
    for kind in ("gl", "rlt", "sdp"):
        bound = relax(problem, kind).bound
        assert 0 < bound <= optimum


def test_time_limit_zero_still_proves_something(tmp_path: Path) -> None:
    problem = random_problem(8)
    problem.save(tmp_path / "problem.npz")
    relaxed = relax(problem, "sdp", time_limit=0.0)
    assert relaxed.bound <= brute_force(problem)
    proof = relaxed.certificate.save(tmp_path / "proof.npz")
    assert verify(proof, tmp_path / "problem.npz").valid
