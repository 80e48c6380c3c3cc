"""The exact models: sizes, optimum against brute force, relaxations below, fixed masks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyomo.environ as pyo
import pytest

from mipprune.errors import InputError
from mipprune.formulation import (
    big_m_model,
    binary_quadratic_model,
    disjunctive_model,
    fix_mask,
    hull_model,
    mask_of,
    perspective_cone_model,
    relax_mask,
    split_loss_model,
)
from mipprune.problem import ChannelSelection

Small = Callable[..., ChannelSelection]
Values = Callable[[ChannelSelection], dict[tuple[bool, ...], float]]
Optimum = Callable[..., float]
Build = Callable[[ChannelSelection], Any]


def feasible(problem: ChannelSelection) -> np.ndarray:
    """The feasible mask of least value, from which the bounds on the weights follow."""
    p = problem.n_channels
    masks = (np.array([i >> j & 1 for j in range(p)], bool) for i in range(2**p))
    return min((mask for mask in masks if problem.is_feasible(mask)), key=problem.value)


def big_m(problem: ChannelSelection) -> Any:
    return big_m_model(problem, feasible(problem))


def hull(problem: ChannelSelection) -> Any:
    return hull_model(problem, feasible(problem))


def cone(problem: ChannelSelection) -> Any:
    return perspective_cone_model(problem, feasible(problem))


def split(problem: ChannelSelection) -> Any:
    return split_loss_model(problem, feasible(problem))


BUILDERS: list[Build] = [big_m, cone, split, hull]
CASES = [
    {},
    {"seed": 1, "box": 0.6},
    {"seed": 2, "variant": "scale"},
    {"seed": 3, "two_terms": True},
]


def counts(model: Any) -> tuple[int, int]:
    """Active variables and constraints."""
    variables = sum(1 for _ in model.component_data_objects(pyo.Var))
    constraints = sum(1 for _ in model.component_data_objects(pyo.Constraint, active=True))
    return variables, constraints


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_optimum_is_the_brute_force_optimum(
    build: Build, case: dict[str, Any], small: Small, values: Values, optimum: Optimum
) -> None:
    problem = small(**case)
    best = min(values(problem).values())
    model = build(problem)
    # SCIP may use its tolerance of 1e-6 in y and end below, never above.
    assert best * (1 - 2e-4) <= optimum(model) <= best * (1 + 1e-6)
    mask = mask_of(model)
    assert problem.is_feasible(mask)
    assert problem.value(mask) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("build", BUILDERS)
def test_fixed_masks_have_their_value(
    build: Build, small: Small, values: Values, optimum: Optimum
) -> None:
    problem = small(5)
    for mask, value in list(values(problem).items())[::3]:
        model = build(problem)
        fix_mask(model, mask)
        assert value * (1 - 2e-4) <= optimum(model) <= value * (1 + 1e-6)


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("case", CASES[:3], ids=str)
def test_relaxation_is_below_every_mask(
    build: Build, case: dict[str, Any], small: Small, values: Values, optimum: Optimum
) -> None:
    problem = small(**case)
    model = build(problem)
    relax_mask(model)
    for binary in model.component_data_objects(pyo.Var):
        if binary.is_binary():
            binary.domain = pyo.UnitInterval
    assert optimum(model) <= min(values(problem).values()) * (1 + 1e-6)


def test_strength_of_the_relaxations(small: Small, values: Values, optimum: Optimum) -> None:
    problem = small(7, p=4, ridge=0.3, limits=False)
    root = {}
    for build in BUILDERS:
        model = build(problem)
        relax_mask(model)
        for binary in model.component_data_objects(pyo.Var):
            if binary.is_binary():
                binary.domain = pyo.UnitInterval
        root[build] = optimum(model)
    best = min(values(problem).values())
    assert root[big_m] < root[cone] < best
    assert root[split] == pytest.approx(root[cone], rel=1e-4)
    assert root[hull] == pytest.approx(root[cone], rel=1e-3)


def test_sizes_before_and_after(small: Small) -> None:
    problem = small(0, n_responses=2)
    term = problem.terms[0]
    p, weights = 4, int(term.n_rows) * 2
    limits = 4  # count, budget above and below, one equal count
    assert counts(big_m(problem)) == (p + weights, limits + 2 * weights)
    assert counts(perspective_cone_model(problem)) == (p + weights + p, limits + p)
    d = int(term.n_rows)
    assert counts(split_loss_model(problem)) == (
        p + weights + p + 2 * d + d,
        limits + 2 * d + d + p,
    )
    plain, after = counts(disjunctive_model(problem, feasible(problem))), counts(hull(problem))
    # Copies of every weight and norm in both disjuncts, and bounds that switch them.
    assert after[0] > plain[0] + 2 * (weights + p) - 1
    assert after[1] > plain[1]
    boxed = small(0, box=0.6, n_responses=2)
    assert counts(perspective_cone_model(boxed))[1] == limits + p + 2 * weights
    assert counts(big_m(boxed))[1] == limits + 2 * weights


def test_without_the_smallest_eigenvalue_the_cone_is_weaker(small: Small, optimum: Optimum) -> None:
    problem = small(7, p=4, ridge=0.1, limits=False)
    roots = []
    for share in (False, True):
        model = perspective_cone_model(problem, smallest_eigenvalue=share)
        relax_mask(model)
        roots.append(optimum(model))
    assert roots[0] < roots[1]


def test_singular_problems_are_refused_where_there_is_no_perspective(small: Small) -> None:
    x = np.random.default_rng(0).normal(size=(3, 6))
    y = x @ np.ones((6, 1))
    singular = ChannelSelection(x.T @ x, x.T @ y, float((y**2).sum()), [1] * 6, keep=2)
    for build in (perspective_cone_model, split_loss_model):
        with pytest.raises(InputError, match="no perspective"):
            build(singular)
    with pytest.raises(InputError, match="singular"):
        big_m_model(singular)


def test_variant_mask_has_its_own_model(small: Small, values: Values, optimum: Optimum) -> None:
    problem = small(4, variant="mask")
    for build in BUILDERS:
        with pytest.raises(InputError, match="binary_quadratic_model"):
            build(problem)
    for solver in ("highs", "scip_direct"):
        model = binary_quadratic_model(problem)
        assert optimum(model, solver) == pytest.approx(min(values(problem).values()), rel=1e-6)
    variables, _ = counts(model)
    assert variables == 4 + 6
    relax_mask(model)
    assert optimum(model, "highs") <= min(values(problem).values()) + 1e-9
    with pytest.raises(InputError, match="needs variant"):
        binary_quadratic_model(small(4))


def test_forced_channels_and_equal_counts_are_constraints(small: Small, optimum: Optimum) -> None:
    problem = small(6)
    forced = problem.with_forced(np.array([1, 0, 0, 0], bool), np.array([0, 0, 1, 0], bool))
    model = perspective_cone_model(forced)
    optimum(model)
    mask = mask_of(model)
    assert mask[0]
    assert mask[1]  # equal counts of channels 0 and 1
    assert not mask[2]
