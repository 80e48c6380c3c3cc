from itertools import product
from pathlib import Path

import numpy as np
import pytest

from mipprune.certificate import Certificate, Verdict, tree_certificate, verify
from mipprune.errors import InputError
from mipprune.problem import ChannelSelection
from tests.relaxation.instances import (
    brute_force,
    exact_value,
    near_singular,
    random_problem,
)


def complete_tree(problem: ChannelSelection) -> list[int]:
    """Branch on every free channel in order: one leaf per mask that is not forced away."""
    free = np.flatnonzero(~(problem.forced_in | problem.forced_out)).tolist()

    def grow(position: int) -> list[int]:
        if position == len(free):
            return [-1]
        below = grow(position + 1)
        return [free[position], *below, *below]

    return grow(0)


def certificate(problem: ChannelSelection, bound: float, nodes: list[int]) -> Certificate:
    return tree_certificate(problem, bound, nodes, scales=(0.8, 1.0))


def check(tmp_path: Path, problem: ChannelSelection, proof: Certificate) -> Verdict:
    problem.save(tmp_path / "problem.npz")
    return verify(proof.save(tmp_path / "proof.npz"), tmp_path / "problem.npz")


@pytest.mark.parametrize("seed", [0, 1, 3, 4, 6, 7, 8, 10])
@pytest.mark.parametrize("variant", ["refit", "scale"])
def test_complete_tree_proves_the_optimum(seed: int, variant: str, tmp_path: Path) -> None:
    problem = random_problem(seed, variant)
    optimum = brute_force(problem)
    nodes = complete_tree(problem)
    claim = optimum - 1e-8 * problem.energy
    verdict = check(tmp_path, problem, certificate(problem, claim, nodes))
    assert verdict.valid, verdict.reason
    assert verdict.bound <= optimum + 1e-12 * problem.energy
    above = certificate(problem, optimum * (1 + 1e-6) + 1e-9, nodes)
    assert not check(tmp_path, problem, above).valid


def test_depth_of_many_removals_is_refreshed(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    p = 18
    inputs = rng.standard_normal((200, p)) + rng.standard_normal((200, 1))
    target = inputs @ rng.standard_normal((p, 3))
    problem = ChannelSelection(
        inputs.T @ inputs / 200,
        inputs.T @ target / 200,
        float((target**2).sum() / 200),
        [1] * p,
        keep=2,
        ridge=1e-3,
    )
    # One chain: remove 0, 1, ... and bound every "kept" sibling by the pairs.
    nodes: list[int] = list(range(p - 2)) + [-1] * (p - 1)
    verdict = check(tmp_path, problem, certificate(problem, 0.0, nodes))
    assert verdict.valid, verdict.reason
    mask = np.arange(p) >= p - 2
    assert verdict.bound <= problem.value(mask) + 1e-9


def test_rejects_missing_leaf_extra_node_and_repeated_channel(tmp_path: Path) -> None:
    problem = random_problem(0)
    nodes = complete_tree(problem)
    assert (
        "leaf is missing" in check(tmp_path, problem, certificate(problem, 0.0, nodes[:-1])).reason
    )
    extra = certificate(problem, 0.0, [*nodes, -1])
    assert "after the end" in check(tmp_path, problem, extra).reason
    twice = certificate(problem, 0.0, [0, 0, -1, -1, -1])
    assert "decided twice" in check(tmp_path, problem, twice).reason
    with pytest.raises(InputError, match="nodes"):
        certificate(problem, 0.0, [99, -1, -1])
    with pytest.raises(InputError, match="integers"):
        certificate(problem, 0.0, [])


def test_pruned_tree_is_weaker_but_valid(tmp_path: Path) -> None:
    problem = random_problem(8)
    optimum = brute_force(problem)
    root = check(tmp_path, problem, certificate(problem, 0.0, [-1])).bound
    one = check(tmp_path, problem, certificate(problem, 0.0, [0, -1, -1])).bound
    assert 0 <= root <= optimum
    assert 0 <= one <= optimum


@pytest.mark.parametrize("seed", range(24))
def test_nothing_above_the_exact_optimum_at_any_condition(seed: int, tmp_path: Path) -> None:
    problem = near_singular(seed)
    masks = (np.array(bits) for bits in product([False, True], repeat=problem.n_channels))
    optimum = min(exact_value(problem, mask) for mask in masks if problem.is_feasible(mask))
    for nodes in ([-1], complete_tree(problem)):
        # The claim is out of reach, so that every bound the checker knows is tried.
        verdict = check(tmp_path, problem, certificate(problem, 1e9 * problem.energy, nodes))
        assert not verdict.valid
        assert verdict.bound <= optimum
