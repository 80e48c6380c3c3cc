"""Small problems, brute force and a solver for the Pyomo models."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pyomo.contrib.solver.common.factory import SolverFactory

from mipprune.problem import ChannelSelection, Resource, Term


def small_problem(
    seed: int = 0,
    *,
    p: int = 4,
    ridge: float = 0.1,
    box: float = np.inf,
    variant: str = "refit",
    two_terms: bool = False,
    limits: bool = True,
    n_responses: int = 1,
) -> ChannelSelection:
    """Four channels of one or two rows; a count, a budget and a price."""
    generator = np.random.default_rng(seed)
    terms = []
    for _ in range(2 if two_terms else 1):
        sizes = generator.integers(1, 3, p)
        d, m = int(sizes.sum()), n_responses
        mixing = np.eye(d) + 0.3 * generator.normal(size=(d, d))
        x = generator.normal(size=(40, d)) @ mixing
        w = generator.normal(size=(d, m))
        y = x @ w + 0.3 * generator.normal(size=(40, m))
        terms.append(
            Term.create(
                x.T @ x / 40,
                x.T @ y / 40,
                float((y**2).sum()) / 40,
                sizes,
                ridge=ridge,
                big_m=box,
                dense=w,
            )
        )
    costs = generator.integers(1, 4, p).astype(float)
    if not limits:
        return ChannelSelection.from_terms(terms, variant=variant, keep=p // 2)
    return ChannelSelection.from_terms(
        terms,
        keep=p - 1,
        resources=[Resource("macs", costs, 0.7 * costs.sum(), 1.0)],
        prices=0.05 * generator.random(p) * terms[0].energy,
        variant=variant,
        parts=[np.array([0, 1] + [-1] * (p - 2))],
    )  # fmt: skip


def feasible_values(problem: ChannelSelection) -> dict[tuple[bool, ...], float]:
    """Value of every feasible mask."""
    masks = itertools.product([False, True], repeat=problem.n_channels)
    return {m: problem.value(np.array(m)) for m in masks if problem.is_feasible(np.array(m))}


def solve_model(model: Any, solver: str = "scip_direct") -> float:
    """Optimal objective of a Pyomo model; the solution is loaded into it."""
    # SCIP's nonlinear sub-solver does not watch the clock; these models do not need it.
    options = {"nlp/disable": True} if solver == "scip_direct" else {}
    results = SolverFactory(solver).solve(model, solver_options=options)
    assert results.incumbent_objective is not None
    return float(results.incumbent_objective)


@pytest.fixture(scope="session")
def small() -> Callable[..., ChannelSelection]:
    """Function (seed, ...) -> ChannelSelection."""
    return small_problem


@pytest.fixture(scope="session")
def values() -> Callable[[ChannelSelection], dict[tuple[bool, ...], float]]:
    """Function problem -> value of every feasible mask."""
    return feasible_values


@pytest.fixture(scope="session")
def optimum() -> Callable[..., float]:
    """Function (model, solver) -> optimal objective."""
    return solve_model
