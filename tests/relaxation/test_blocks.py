from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mipprune.certificate import Certificate, verify
from mipprune.errors import InputError, NoSolutionError
from mipprune.relaxation import relax
from mipprune.relaxation._limits import Limits
from mipprune.relaxation._patterns import Patterns
from mipprune.relaxation._removal_root import Member, Root
from tests.relaxation.instances import brute_force, random_problem
from tests.relaxation.test_ascent import correlated, start_of


def checked(seed: int, folder: Path, size: int) -> None:
    """The bound is valid, at least that of the pairs, and its certificate passes."""
    problem = random_problem(seed, ("refit", "scale")[seed % 2], singular=seed % 5 == 4)
    optimum = brute_force(problem)
    try:
        found = relax(problem, "blocks", block_size=size, tol=0.5)
    except NoSolutionError:
        assert optimum == np.inf
        return
    assert found.bound <= optimum + 1e-13 * problem.energy
    problem.save(folder / "problem.npz")
    proof = found.certificate.save(folder / "proof.npz")
    verdict = verify(proof, folder / "problem.npz")
    assert verdict.valid, verdict.reason
    assert verdict.bound <= optimum + 1e-13 * problem.energy


@pytest.mark.parametrize("seed", range(8))
def test_no_bound_above_brute_force_and_all_certify(seed: int, tmp_path: Path) -> None:
    checked(seed, tmp_path, 1 + seed % 4)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 500, 50))
def test_five_hundred_instances(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 50):
        checked(2000 + seed, tmp_path, 1 + seed % 4)


def test_a_lifted_member_proves_as_much_as_the_pairs_it_comes_from() -> None:
    problem = correlated(9, 4)
    root = Root(problem, Limits.of(problem))
    rng = np.random.default_rng(0)
    skew, factor = 1e-3 * rng.normal(size=(9, 9)), 1e-2 * rng.normal(size=(9, 2))
    pairs = replace(start_of(root), skew=skew, factor=factor)
    patterns = Patterns(np.array([0, 0, 1, 1, 1, 2, 2, 2, 3]))
    lifted = root.bounds(root.by_pattern(pairs, patterns))
    assert np.all(lifted >= root.bounds(pairs) - 1e-10 * problem.energy)
    assert np.any(lifted > root.bounds(pairs) + 1e-3 * root.value_all)


def test_blocks_beat_the_pairs() -> None:
    problem = correlated(6, 3)
    optimum = brute_force(problem)
    pairs = relax(problem, "sdp", tol=1e-4).bound
    threes = relax(problem, "blocks", block_size=3, tol=1e-4).bound
    assert pairs < threes <= optimum
    assert optimum - threes < 0.7 * (optimum - pairs)


@pytest.mark.parametrize("seed", [0, 6, 8])
def test_one_block_of_all_channels_is_exact(seed: int) -> None:
    # Then a pattern is a mask, and its direction P_aa^-1 B_a attains what its removal costs.
    problem = random_problem(seed)
    root = Root(problem, Limits.of(problem))
    patterns = Patterns(np.zeros(root.size, dtype=np.int64))
    q = len(patterns.items)
    directions = tuple(root.single_directions(patterns)[0])
    member = Member(directions, np.zeros((q, 0)), np.zeros((q, q)), np.zeros(1), patterns)
    bounds = root.bounds(member)
    for removals, bound in zip(root.counts, bounds, strict=True):
        optimum = brute_force(problem.with_keep(problem.n_channels - int(removals)))
        # What is missing is the margin for rounding: the inverse of these Grams is off by 1e-8.
        assert optimum * (1 - 1e-5) <= bound <= optimum


@pytest.mark.parametrize("key", ["blocks", "factor", "skew", "direction", "bound"])
def test_tampered_certificates_are_refused(key: str, tmp_path: Path) -> None:
    problem = correlated(6, 3)
    problem.save(tmp_path / "problem.npz")
    honest = relax(problem, "blocks", tol=0.5).certificate
    arrays, bound = dict(honest.arrays), honest.bound
    (position,) = [name.split("_")[1] for name in arrays if name.startswith("blocks_")]
    if key == "blocks":
        arrays[f"blocks_{position}"] = np.full(6, 7)  # one block of all: other shapes
    elif key == "bound":
        bound = 1.01 * bound
    else:
        name = f"{key}_{position}" + ("_0" if key == "direction" else "")
        changed = 1.5 * np.asarray(arrays[name], dtype=np.float64)
        arrays[name] = changed + (key == "skew") * np.tri(*changed.shape)
    forged = Certificate("removing", problem.content_hash, bound, arrays)
    verdict = verify(forged.save(tmp_path / "forged.npz"), tmp_path / "problem.npz")
    assert not verdict.valid
    assert verify(honest.save(tmp_path / "honest.npz"), tmp_path / "problem.npz").valid


def test_block_size_out_of_range() -> None:
    with pytest.raises(InputError, match="block_size"):
        relax(random_problem(0), "blocks", block_size=9)


def test_the_size_of_blocks_is_obeyed() -> None:
    problem = correlated(8, 4)
    for size in (2, 4):
        arrays = relax(problem, "blocks", block_size=size, tol=0.05).certificate.arrays
        (labels,) = [array for name, array in arrays.items() if name.startswith("blocks_")]
        assert np.bincount(labels).tolist() == [size] * (8 // size)
