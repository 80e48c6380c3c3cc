"""Removal costs against values recomputed from the data."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from mipprune.errors import InputError
from mipprune.problem import ChannelSelection, Term
from mipprune.relaxation.removal import removal_form


def draw_term(
    rng: np.random.Generator,
    sizes: NDArray[np.int64],
    m: int,
    *,
    samples: int = 60,
    ridge: float = 0.0,
    duplicate: bool = False,
    dead: bool = False,
) -> Term:
    d = int(np.sum(sizes))
    x = rng.standard_normal((samples, d)) @ (np.eye(d) + 0.4 * rng.standard_normal((d, d)))
    if duplicate:
        x[:, : sizes[0]] = x[:, sizes[0] : sizes[0] + sizes[1]]
    if dead:
        x[:, -int(sizes[-1]) :] = 0.0
    y = x @ rng.standard_normal((d, m)) + 0.3 * rng.standard_normal((samples, m))
    n = len(x)
    return Term.create(x.T @ x / n, x.T @ y / n, float((y**2).sum()) / n, sizes, ridge=ridge)


def masks(p: int) -> Iterator[NDArray[np.bool_]]:
    return (np.array(bits, dtype=bool) for bits in itertools.product([False, True], repeat=p))


def test_one_row_by_hand() -> None:
    # G = diag(2, 1), C = (2, 1): W = (1, 1), loss e/2 - 1 - 1/2; removing row 0 costs 2/2.
    problem = ChannelSelection(np.diag([2.0, 1.0]), [[2.0], [1.0]], 4.0, [1, 1])
    form = removal_form(problem)
    assert form.value_all == pytest.approx(0.5)
    np.testing.assert_allclose(form.single_costs, [1.0, 0.5])
    assert form.removal_cost(np.array([True, True])) == pytest.approx(1.5)


@pytest.mark.parametrize("seed", range(8))
def test_costs_equal_differences_of_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = [np.array([2, 1, 3, 0]), np.array([1, 2, 0, 2])]
    terms = [
        draw_term(rng, s, m, ridge=0.05 * (seed % 2)) for s, m in zip(sizes, (9, 2), strict=True)
    ]
    problem = ChannelSelection.from_terms(terms, keep=2)
    form = removal_form(problem)
    assert not form.singular
    assert form.terms[0].coefficients.shape == (6, 6)
    for kept in masks(4):
        expected = problem.value(kept)
        assert form.value_all + form.removal_cost(~kept) == pytest.approx(expected, rel=1e-10)
    for j in range(4):
        assert form.single_costs[j] == pytest.approx(form.removal_cost(np.arange(4) == j))


@pytest.mark.parametrize("case", ["duplicate", "dead", "few samples"])
@pytest.mark.parametrize("seed", range(4))
def test_singular_problems_use_the_range_space(case: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = np.array([2, 2, 1, 3, 2])
    term = draw_term(
        rng,
        sizes,
        3,
        samples=7 if case == "few samples" else 50,
        duplicate=case == "duplicate",
        dead=case == "dead",
    )
    problem = ChannelSelection.from_terms([term])
    form = removal_form(problem)
    assert form.singular == (case != "dead")
    for kept in masks(5):
        expected = problem.value(kept)
        found = form.value_all + form.removal_cost(~kept)
        assert found == pytest.approx(expected, rel=1e-8, abs=1e-9 * term.energy)


@pytest.mark.parametrize("singular", [False, True])
def test_pairwise_minorant_never_exceeds_the_cost(singular: bool) -> None:
    rng = np.random.default_rng(5)
    sizes = np.array([1, 2, 2, 1])
    term = draw_term(rng, sizes, 3, samples=4 if singular else 40)
    form = removal_form(ChannelSelection.from_terms([term]))
    starts = [form.single_directions(t) for t in (0.7, 1.0)]
    starts += [(rng.standard_normal(form.terms[0].coefficients.shape),) for _ in range(6)]
    for directions in starts:
        linear, quadratic = form.pairwise(directions)
        np.testing.assert_allclose(quadratic, quadratic.T)
        for kept in masks(4):
            x = (~kept).astype(float)
            bound = linear @ x - 0.5 * x @ quadratic @ x
            assert bound <= form.removal_cost(~kept) + 1e-9 * term.energy
    linear, quadratic = form.pairwise(form.single_directions())
    np.testing.assert_allclose(linear - np.diag(quadratic) / 2, form.single_costs, atol=1e-12)


def test_margin_covers_a_badly_conditioned_matrix() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 8)) @ np.diag(10.0 ** -np.arange(8))
    x[:, 1] = x[:, 0] + 1e-4 * x[:, 1]
    y = x.sum(1, keepdims=True) + rng.standard_normal((200, 1))
    problem = ChannelSelection(x.T @ x, x.T @ y, float((y**2).sum()), np.ones(8, dtype=int))
    form = removal_form(problem)
    for kept in masks(8):
        rows = np.flatnonzero(kept)
        exact = np.linalg.lstsq(x[:, rows], y, rcond=None)[0]
        true = 0.5 * float(((x[:, rows] @ exact - y) ** 2).sum())
        assert form.value_all + form.removal_cost(~kept) - form.margin <= true * (1 + 1e-9)


def test_wrong_arguments_are_refused() -> None:
    problem = ChannelSelection(np.eye(2), np.ones((2, 1)), 3.0, [1, 1], dense=np.ones((2, 1)))
    form = removal_form(problem)
    with pytest.raises(InputError, match="bool of shape"):
        form.removal_cost(np.ones(3, dtype=bool))
    with pytest.raises(InputError, match="expected 1, got 0"):
        form.pairwise([])
    with pytest.raises(InputError, match="expected shape"):
        form.pairwise([np.ones((3, 1))])
    masked = ChannelSelection(
        np.eye(2), np.ones((2, 1)), 3.0, [1, 1], dense=np.ones((2, 1)), variant="mask"
    )
    with pytest.raises(InputError, match="no removal costs"):
        removal_form(masked)
