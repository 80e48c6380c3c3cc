"""solve(): methods, feature sets, arguments."""

import numpy as np
import pytest

from mipprune.errors import InputError, SolverError
from mipprune.problem import ChannelSelection, LogPoint, Resource, Term
from mipprune.solvers import METHODS, Features, features, methods_for, solve


def problem(p: int = 6, **options: object) -> ChannelSelection:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(30, p))
    w = generator.normal(size=(p, 2))
    y = x @ w
    given: dict[str, object] = {"keep": p // 2, "dense": w, "ridge": 0.1} | options
    return ChannelSelection(x.T @ x, x.T @ y, (y**2).sum(), [1] * p, **given)  # type: ignore[arg-type]  # forwarded


@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_every_method_solves_and_reports(method: str) -> None:
    points: list[LogPoint] = []
    solution = solve(problem(), method, time_limit=500, callback=points.append)
    assert solution.value == pytest.approx(solve(problem(), "enumerate").value, rel=1e-6)
    assert solution.solver
    assert solution.version
    assert solution.seconds >= 0
    assert solution.bound <= solution.value
    assert (solution.bound > -np.inf) == (features_of(method).proves)


def features_of(method: str) -> Features:
    return features("branch-and-bound" if method == "auto" else method)


def test_auto_is_branch_and_bound() -> None:
    assert solve(problem()).solver == "branch-and-bound"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: solve(problem(), "simplex"), "expected one of auto"),
        (lambda: solve(problem(), time_limit=0), "time_limit"),
        (lambda: solve(problem(), gap=-1), "gap"),
        (lambda: solve(problem(), start=[True]), "mask"),
        (lambda: solve("layer.npz"), "ChannelSelection"),  # type: ignore[arg-type]  # on purpose
        (lambda: features("simplex"), "expected one of auto"),
    ],
)
def test_wrong_arguments_are_refused(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=message):
        call()


def rich() -> ChannelSelection:
    x = np.random.default_rng(0).normal(size=(3, 4))
    w = np.ones((4, 1))
    term = Term.create(x.T @ x, x.T @ x @ w, (x @ w).T @ x @ w, [1] * 4, big_m=2.0, dense=w)  # type: ignore[arg-type]  # one number
    return ChannelSelection.from_terms(
        [term, term],
        prices=0.1,
        resources=[Resource("a", np.ones(4), 3.0, 1.0), Resource("b", np.ones(4), 3.0)],
        parts=[np.array([0, 0, 1, 1])],
        variant="scale",
    )


def test_a_refusal_names_everything_that_is_missing() -> None:
    nothing = Features(
        variants=frozenset({"refit"}), box=False, several_terms=False, several_budgets=False,
        prices=False, lower_limits=False, parts=False, singular=False, max_channels=2,
    )  # fmt: skip
    lacks = nothing.missing(rich())
    for word in ("scale", "big_m", "terms", "resources", "prices", "lower", "parts", "undecided"):
        assert any(word in lack for lack in lacks), word
    with pytest.raises(SolverError, match="method 'x' does not take: variant 'scale'"):
        nothing.require("x", rich())
    assert Features().missing(rich()) == []


def test_singular_matrices_are_a_feature() -> None:
    regular = Features(singular=False)
    assert regular.missing(problem(ridge=0.1)) == []
    assert regular.missing(problem(ridge=0.0)) == []
    x = np.ones((5, 2))
    singular = ChannelSelection(x.T @ x, x.T @ x[:, :1], 5.0, [1, 1])
    assert "singular" in regular.missing(singular)[0]


def test_methods_for_lists_what_takes_the_problem() -> None:
    assert set(methods_for(problem())) == set(METHODS)
    assert "enumerate" not in methods_for(problem(30))
    with pytest.raises(SolverError, match="more than 24 undecided"):
        solve(problem(30), "enumerate")
