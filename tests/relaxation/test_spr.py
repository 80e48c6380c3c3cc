from dataclasses import replace

import numpy as np
import pytest
import torch

from mipprune.errors import InputError
from mipprune.perspective import term_value
from mipprune.problem import ChannelSelection
from mipprune.relaxation import relax, spr_parameters
from tests.relaxation.instances import random_problem


def budgeted() -> ChannelSelection:
    rng = np.random.default_rng(3)
    inputs = rng.standard_normal((80, 10)) + rng.standard_normal((80, 1))
    target = inputs @ rng.standard_normal((10, 3)) + rng.standard_normal((80, 3))
    gram = inputs.T @ inputs / 80
    return ChannelSelection(
        gram, inputs.T @ target / 80, float((target**2).sum() / 80), [2] * 5, keep=2, ridge=0.2
    )


def test_penalised_problem_has_the_budgeted_relaxation_as_its_solution() -> None:
    problem = budgeted()
    relaxed = relax(problem, "perspective", split="ridge", tol=1e-12)
    found = spr_parameters(problem, relaxed)
    assert found is not None
    weights = found.strength * found.channel_weights
    np.testing.assert_allclose(2 * weights * found.alpha, 0.2)
    term = problem.terms[0]
    penalised = ChannelSelection(
        term.gram,
        term.cross,
        term.energy,
        term.group_sizes,
        ridge=2 * weights * found.alpha,
        prices=weights * (1 - found.alpha),
    )
    again = relax(penalised, "perspective", split="ridge", tol=1e-12)
    np.testing.assert_allclose(again.gates, relaxed.gates, atol=1e-4)
    np.testing.assert_allclose(again.weights[0], relaxed.weights[0], atol=1e-4)


def test_relaxed_penalty_is_the_closed_form_of_the_regulariser() -> None:
    # Value of the penalised relaxation = loss without ridge + SPR penalty at its weights.
    problem = budgeted()
    relaxed = relax(problem, "perspective", split="ridge", tol=1e-12)
    found = spr_parameters(problem, relaxed)
    assert found is not None
    term, weights = problem.terms[0], relaxed.weights[0]
    strength = found.strength * found.channel_weights
    loss = 0.5 * np.vdot(weights, term.gram @ weights) - np.vdot(term.cross, weights)
    loss += term.energy / 2
    groups = torch.tensor(weights.reshape(problem.n_channels, -1))
    a, b = strength * found.alpha, strength * (1 - found.alpha)
    penalty = float(term_value(groups, torch.tensor(a), torch.tensor(b), np.inf).sum())
    multiplier = float(relaxed.certificate.arrays["multipliers"][0])
    assert loss + penalty - 2 * multiplier == pytest.approx(relaxed.value, rel=1e-6)


def test_no_parameters_where_the_budget_does_not_bind() -> None:
    problem = budgeted().with_keep(5)
    relaxed = relax(problem, "perspective", split="ridge", tol=1e-10)
    assert spr_parameters(problem, relaxed) is None


def test_no_parameters_where_alpha_would_differ_by_channel() -> None:
    problem = budgeted()
    term = replace(problem.terms[0], ridge=np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
    uneven = ChannelSelection.from_terms([term], keep=2)
    relaxed = relax(uneven, "perspective", split="ridge", tol=1e-10)
    assert spr_parameters(uneven, relaxed) is None


def test_other_kinds_are_refused() -> None:
    problem = random_problem(0)
    with pytest.raises(InputError, match="ridge"):
        spr_parameters(problem, relax(problem, "perspective", split="schur"))
