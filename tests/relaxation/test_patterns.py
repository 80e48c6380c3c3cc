import itertools

import numpy as np
import pytest

from mipprune.relaxation._patterns import Patterns, blockwise, cluster


def shown(mask: tuple[int, ...], patterns: Patterns) -> list[int]:
    """Patterns that a mask of removed channels shows, one per block it touches."""
    found = []
    for label in range(int(patterns.labels.max()) + 1):
        own = tuple(i for i, one in enumerate(mask) if one and patterns.labels[i] == label)
        if own:
            found.append(patterns.items.index(own))
    return found


def test_patterns_by_size_within_each_block() -> None:
    patterns = Patterns(np.array([0, 1, 0, 0]))
    assert patterns.items == (
        (0,), (2,), (3,), (0, 2), (0, 3), (2, 3), (0, 2, 3), (1,),
    )  # fmt: skip
    rows, pattern = patterns.rows(np.array([0, 0, 1, 2, 3]))
    assert rows[pattern == 3].tolist() == [0, 1, 3]
    assert pattern.size == 4 * 2 + 4 + 4 + 1


@pytest.mark.parametrize("seed", range(12))
def test_dynamic_programs_against_enumeration(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 7))
    strength = rng.random((n, n))
    patterns = Patterns(cluster(strength + strength.T, int(rng.integers(1, 4))))
    q = len(patterns.items)
    linear, skew, half = rng.normal(size=q), rng.normal(size=(q, q)), rng.normal(size=(q, q))
    quadratic = half @ half.T
    gains = quadratic + (skew - skew.T) / 2
    bounds = blockwise(linear, quadratic, skew, patterns, np.arange(n + 1))
    for removals in range(n + 1):
        masks = [m for m in itertools.product([0, 1], repeat=n) if sum(m) == removals]
        sets = [shown(mask, patterns) for mask in masks]
        rows = {
            a: linear[a]
            - quadratic[a, a] / 2
            - max(sum(gains[a, c] for c in s if c != a) for s in sets if a in s) / 2
            for a in range(q)
            if any(a in s for s in sets)
        }
        assert bounds[removals] == pytest.approx(min(sum(rows[a] for a in s) for s in sets))
        least = min(
            linear[s].sum() - quadratic[np.ix_(s, s)].sum() / 2 for s in map(np.array, sets)
        ) if removals else 0.0  # fmt: skip
        assert bounds[removals] <= least + 1e-9


def test_clusters_join_what_interacts_and_cover_everything() -> None:
    strength = np.full((7, 7), 0.1)
    for pair in ((0, 5), (1, 6), (2, 3)):
        strength[pair] = strength[pair[::-1]] = 1.0
    labels = cluster(strength, 2)
    assert labels[0] == labels[5]
    assert labels[1] == labels[6]
    assert labels[2] == labels[3]
    assert np.bincount(labels).tolist() == [2, 2, 2, 1]
    assert np.bincount(cluster(strength, 3)).max() == 3
    assert cluster(np.zeros((0, 0)), 3).size == 0
    assert cluster(np.ones((1, 1)), 3).tolist() == [0]
