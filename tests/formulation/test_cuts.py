"""Cut models: every cut valid at every mask, tight where derived, converging to the relaxation."""

from collections.abc import Callable

import numpy as np
import pyomo.environ as pyo
import pytest

from mipprune.errors import InputError
from mipprune.formulation import (
    PerspectiveCuts,
    ValueCuts,
    mask_of,
    perspective_cone_model,
    relax_mask,
    value_cut,
)
from mipprune.formulation._weights import splits_of
from mipprune.problem import ChannelSelection

Small = Callable[..., ChannelSelection]
Values = Callable[[ChannelSelection], dict[tuple[bool, ...], float]]
Optimum = Callable[..., float]


@pytest.mark.parametrize("seed", range(10))
def test_value_cuts_are_below_every_mask_and_tight_at_their_own(seed: int, small: Small) -> None:
    problem = small(
        seed, p=5, two_terms=seed % 3 == 0, variant="scale" if seed % 4 == 1 else "refit"
    )
    canonical = problem.canonical()
    splits = splits_of(canonical)
    generator = np.random.default_rng(seed)
    masks = [np.array([i >> j & 1 for j in range(5)], dtype=float) for i in range(32)]
    points = [*masks[::5], *(generator.random(5) for _ in range(5))]
    for gates in points:
        cuts = [value_cut(t, s, gates) for t, s in zip(canonical.terms, splits, strict=True)]
        for mask in masks:
            bound = sum(cut.at(mask) for cut in cuts) + problem.prices @ mask
            assert bound <= problem.value(mask.astype(bool)) + 1e-12 * problem.energy
        if np.all((gates == 0) | (gates == 1)):
            own = sum(cut.at(gates) for cut in cuts) + problem.prices @ gates
            assert own == pytest.approx(problem.value(gates.astype(bool)), rel=1e-9)


def test_value_cut_is_the_gradient_of_the_relaxation(small: Small) -> None:
    term = small(3, p=4).terms[0]
    split = splits_of(small(3, p=4))[0]
    gates = np.array([0.3, 0.6, 0.2, 0.9])

    def value(y: np.ndarray) -> float:
        inner = split.rest + np.diag((split.diagonal / y)[term.channel_of_row])
        solved = np.linalg.solve(inner, term.cross)
        return 0.5 * term.energy - 0.5 * float(np.vdot(term.cross, solved))

    cut = value_cut(term, split, gates)
    assert cut.at(gates) == pytest.approx(value(gates), rel=1e-10)
    for j in range(4):
        step = np.zeros(4)
        step[j] = 1e-6
        slope = (value(gates + step) - value(gates - step)) / 2e-6
        assert cut.slopes[j] == pytest.approx(slope, rel=1e-5)


def test_value_cuts_converge_to_the_perspective_relaxation(small: Small, optimum: Optimum) -> None:
    problem = small(7, p=6, ridge=0.3, limits=False)
    cone = perspective_cone_model(problem)
    relax_mask(cone)
    expected = optimum(cone)
    cuts = ValueCuts(problem)
    relax_mask(cuts.model)
    bound = -np.inf
    for _ in range(40):
        previous, bound = bound, optimum(cuts.model, "highs")
        assert bound >= previous - 1e-9
        cuts.add(np.array([pyo.value(cuts.model.y[j]) for j in range(6)]))
    assert bound <= expected * (1 + 1e-5)
    assert bound == pytest.approx(expected, rel=2e-3)


def set_exact_point(cuts: PerspectiveCuts, mask: np.ndarray) -> None:
    """Variables of the model at a mask with its best weights, norms and squares."""
    model, problem = cuts.model, cuts.problem
    weights = problem.weights(mask)  # one response, so nothing is compressed
    for j in model.channels:
        model.y[j].set_value(int(mask[j]))
    for t, i, c in model.w:
        model.w[t, i, c].set_value(weights[t][i, c])
    for t, j in model.s:
        rows = slice(*problem.terms[t].offsets[j : j + 2])
        model.s[t, j].set_value(float((weights[t][rows] ** 2).sum()))
    for t, k in model.q:
        made = cuts.splits[t].factor[k] @ weights[t]
        model.q[t, k].set_value(float((made**2).sum()))
        for c, value in enumerate(made):
            model.r[t, k, c].set_value(float(value))


@pytest.mark.parametrize("case", [{}, {"seed": 1, "box": 0.6}, {"seed": 3, "two_terms": True}])
def test_perspective_cuts_hold_at_every_mask_and_raise_the_bound(
    case: dict[str, float], small: Small, values: Values, optimum: Optimum
) -> None:
    problem = small(**case)
    table = values(problem)
    cuts = PerspectiveCuts(problem)
    for variables in (cuts.model.w, cuts.model.r):
        for key in variables:
            variables[key].setlb(-50)
            variables[key].setub(50)
    bounds = [optimum(cuts.model, "highs")]
    for _ in range(12):
        cuts.add(cuts.weights(), 1e-6)
        cuts.add(list(cuts.problem.weights(mask_of(cuts.model))))
        bounds.append(optimum(cuts.model, "highs"))
    assert np.all(np.diff(bounds) >= -1e-6)
    assert bounds[0] + 0.1 * problem.energy < bounds[-1] <= min(table.values()) * (1 + 1e-6)
    for mask, value in table.items():
        set_exact_point(cuts, np.array(mask))
        expression = cuts.model.definition.body
        assert pyo.value(expression) == pytest.approx(pyo.value(cuts.model.value) - value)
        for cut in cuts.model.cuts.values():
            assert pyo.value(cut.body) <= pyo.value(cut.upper) + 1e-9 * problem.energy


def test_perspective_cuts_are_added_only_where_violated(small: Small, optimum: Optimum) -> None:
    problem = small(0)
    cuts = PerspectiveCuts(problem)
    weights = list(problem.weights(np.array([True, True, False, False])))
    first = cuts.add(weights)
    assert first
    fixed = cuts.model
    for j, kept in enumerate([1, 1, 0, 0]):
        fixed.y[j].fix(kept)
    for key in fixed.w:
        fixed.w[key].setlb(-50)
        fixed.w[key].setub(50)
    optimum(fixed, "highs")
    assert len(cuts.add(weights, 1e-6)) <= len(first)


def test_cut_models_refuse_what_they_cannot_take(small: Small) -> None:
    x = np.ones((5, 2))
    singular = ChannelSelection(x.T @ x, x.T @ x[:, :1], 5.0, [1, 1])
    for build in (ValueCuts, PerspectiveCuts):
        with pytest.raises(InputError, match="no perspective"):
            build(singular)
        with pytest.raises(InputError, match="binary_quadratic_model"):
            build(small(variant="mask"))


def test_sizes(small: Small) -> None:
    problem = small(0, two_terms=True)
    cuts = ValueCuts(problem)
    assert len(cuts.model.loss) == 2
    assert len(cuts.model.cuts) == 2
    cuts.add(np.full(4, 0.5))
    assert len(cuts.model.cuts) == 4
    assert sum(1 for _ in cuts.model.component_data_objects(pyo.Var)) == 4 + 2
