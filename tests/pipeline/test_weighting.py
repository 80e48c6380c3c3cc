"""Curves in units of outputs: bounds stay bounds whatever the factors are."""

import numpy as np
import pytest

from mipprune.formulation.widths import WidthCurve
from mipprune.pipeline._curves import FamilyCurve
from mipprune.pipeline._weighting import _anchors, _scaled


@pytest.mark.parametrize("seed", range(20))
def test_scaled_bounds_stay_below_every_error_between_bound_and_value(seed: int) -> None:
    generator = np.random.default_rng(seed)
    counts = np.arange(1, 9)
    values = np.sort(generator.random(8))[::-1].copy()
    bounds = np.maximum.accumulate((values * generator.random(8))[::-1])[::-1]
    bounds = np.minimum(bounds, values)
    factors = np.exp(2 * generator.standard_normal(8))
    curve = WidthCurve("a", counts, values, bounds)
    found = _scaled(FamilyCurve(curve, np.ones((8, 8), dtype=bool)), factors).curve
    # The true least error of each width lies anywhere between its bound and its value.
    errors = bounds + generator.random(8) * (values - bounds)
    for index in range(8):
        best = min(factors[j] * errors[j] for j in range(index + 1))
        assert found.bounds[index] <= best * (1 + 1e-12)
        assert found.bounds[index] <= found.values[index]
        assert found.values[index] <= factors[index] * values[index]
    assert (np.diff(found.values) <= 0).all()


def test_anchors_leave_the_whole_family_out() -> None:
    counts = np.array([1, 4, 8, 12, 16])
    assert _anchors(counts) == [0, 1, 2, 3]
    assert _anchors(np.array([16])) == [0]
