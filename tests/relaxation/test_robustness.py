"""Singular and extremely scaled data: every kind still gives a valid bound."""

import itertools
from collections.abc import Mapping

import numpy as np
import pytest

from mipprune.problem import ChannelSelection
from mipprune.relaxation import relax
from mipprune.relaxation._limits import Limits
from mipprune.relaxation._quadratic import minimise_quadratic
from tests.relaxation.instances import brute_force

DATA = ("regular", "few samples", "duplicate", "dead", "no target")
LIMITS: Mapping[str, dict[str, object]] = {
    "count": {"keep": 2},
    "two budgets": {"keep": 3, "costs": np.arange(1.0, 6.0), "budgets": 7.0, "prices": 0.01},
}


def problem(data: str, scale: float, **settings: object) -> ChannelSelection:
    """Five channels of one row; gram, cross, energy, ridge and prices times ``scale``."""
    rng = np.random.default_rng(3)
    samples = 3 if data == "few samples" else 20
    x = rng.normal(size=(samples, 5))
    w = rng.normal(size=(5, 2))
    if data == "duplicate":
        x[:, 2] = x[:, 0]
    if data == "dead":
        x[:, 1] = 0.0
    y = (x @ w + 0.1 * rng.normal(size=(samples, 2))) * (data != "no target")
    for name in ("ridge", "prices"):
        settings[name] = scale * float(settings.get(name, 0.0))  # type: ignore[arg-type]
    return ChannelSelection(
        x.T @ x / samples * scale,
        x.T @ y / samples * scale,
        float((y**2).sum()) / samples * scale,
        [1] * 5,
        dense=w,
        **settings,  # type: ignore[arg-type]  # forwarded
    )


def check(kind: str, data: str, settings: Mapping[str, object]) -> None:
    """Valid at every scale, and (powers of two round nothing) the same at every scale."""
    bounds = []
    for scale in (1.0, 2.0**-40, 2.0**40):
        given = problem(data, scale, **settings)
        relaxed = relax(given, kind)
        assert np.isfinite(relaxed.bound), scale
        assert relaxed.bound <= brute_force(given) + 1e-12 * given.energy, scale
        bounds.append(relaxed.bound / scale)
    if kind == "gl" and data == "dead":
        return  # valid at every scale, but the unit pivots of dead rows are not scaled along
    size = problem("regular", 1.0).energy  # without targets the energy is zero
    np.testing.assert_allclose(bounds, bounds[0], rtol=1e-3, atol=1e-4 * size)


@pytest.mark.parametrize(("limits", "big_m"), [("count", 0.7), ("two budgets", np.inf)])
@pytest.mark.parametrize("data", DATA)
def test_boxes(data: str, limits: str, big_m: float) -> None:
    check("perspective-box", data, {**LIMITS[limits], "big_m": big_m})


@pytest.mark.parametrize("kind", ["perspective", "gl"])
@pytest.mark.parametrize("data", DATA)
def test_other_kinds(kind: str, data: str) -> None:
    check(kind, data, LIMITS["two budgets"])


@pytest.mark.parametrize("data", DATA)
def test_binary_programs(data: str) -> None:
    check("perspective", data, {**LIMITS["two budgets"], "variant": "mask"})


def test_a_box_on_some_channels_of_a_singular_problem() -> None:
    given = problem("few samples", 1.0, keep=3, big_m=np.array([0.5, np.inf, 0.5, np.inf, 1.0]))
    relaxed = relax(given, "perspective-box")
    assert -np.inf < relaxed.bound <= brute_force(given) + 1e-12 * given.energy


EXTREMES = list(itertools.product([0.0, 1e-300, 1e300], repeat=2))


@pytest.mark.parametrize(("hessian", "gradient"), EXTREMES)
def test_quadratic_programs_stay_in_their_box(hessian: float, gradient: float) -> None:
    rows = np.ones((1, 3))
    for matrix in (np.full(3, hessian), np.full((3, 3), hessian)):
        found = minimise_quadratic(
            matrix, np.full(3, -gradient), rows, np.ones(1), np.zeros(3), np.ones(3)
        )
        assert np.all((found >= 0) & (found <= 1))


def test_scores_that_overflowed_still_have_multipliers() -> None:
    limits = Limits.of(problem("regular", 1.0, **LIMITS["two budgets"]))
    gates, multipliers = limits.best(np.array([np.inf, np.nan, -np.inf, 1e300, 1.0]))
    assert np.all(np.isfinite(gates))
    assert np.all(np.isfinite(multipliers) & (multipliers >= 0))
