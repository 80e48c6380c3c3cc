"""Masks of families too wide for branch and bound, against all masks of small ones."""

import math
from itertools import combinations

import numpy as np
import pytest

from mipprune.pipeline import CompressOptions, _family_solve
from mipprune.pipeline._family_solve import solve_family
from mipprune.problem import ChannelSelection


def _layer(seed: int, keep: int) -> ChannelSelection:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(40, 7)) + generator.normal(size=(40, 1))
    y = x @ generator.normal(size=(7, 3))
    energy = float((y**2).sum() / 40)
    return ChannelSelection(x.T @ x / 40, x.T @ y / 40, energy, [1] * 7, keep=keep, ridge=0.1)


@pytest.mark.parametrize("limit", [None, 1e-6])
def test_wide_families_get_a_mask_and_a_valid_bound(
    limit: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_family_solve, "EXACT_CHANNELS", 2)
    for seed in range(4):
        problem = _layer(seed, keep=3)
        masks = [np.isin(np.arange(7), chosen) for chosen in combinations(range(7), 3)]
        optimum = min(problem.value(mask) for mask in masks)
        found = solve_family(problem, masks[0], limit, CompressOptions())
        assert found.mask is not None
        assert found.mask.sum() <= 3
        assert 0 < found.bound <= optimum * (1 + 1e-12)
        assert optimum * (1 - 1e-12) <= found.value <= problem.value(masks[0])


def test_no_time_for_a_bound_is_no_infinite_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_family_solve, "EXACT_CHANNELS", 2)
    monkeypatch.setattr(_family_solve, "INVERTED_ROWS", 0)
    found = solve_family(_layer(0, keep=3), np.arange(7) < 3, 1e-9, CompressOptions())
    assert found.bound == 0
    assert found.gap == 1


def test_wide_families_kept_whole_are_optimal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_family_solve, "EXACT_CHANNELS", 2)
    problem = _layer(1, keep=7)
    found = solve_family(problem, np.ones(7, dtype=bool), None, CompressOptions())
    assert found.mask is not None
    assert found.mask.all()
    assert math.isclose(found.bound, problem.value(found.mask))
    assert found.gap == 0
