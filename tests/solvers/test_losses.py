"""Losses of masks against exact rational arithmetic on badly conditioned data."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from mipprune.problem import Term
from mipprune.solvers._losses import MaskLosses


def exact_loss(term: Term, rows: Sequence[int]) -> Fraction | None:
    """Least loss of some rows by elimination in rationals; None where a pivot is not positive."""
    table = [
        [Fraction(float(term.damped_gram[i, j])) for j in rows]
        + [Fraction(float(x)) for x in term.cross[i]]
        for i in rows
    ]
    loss, k = Fraction(term.energy) / 2, len(rows)
    for i in range(k):
        pivot = table[i][i]
        if pivot <= 0:
            return None
        loss -= sum(x * x for x in table[i][k:]) / pivot / 2
        for lower in table[i + 1 :]:
            factor = lower[i] / pivot
            for j in range(i, len(lower)):
                lower[j] -= factor * table[i][j]
    return loss


def badly_conditioned(seed: int, least: float, *, units: bool = False) -> Term:
    """Eigenvalues down to 10^-least of the largest, targets that use all directions."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(3, 8))
    basis, _ = np.linalg.qr(rng.normal(size=(d, d)))
    values = 10.0 ** -rng.uniform(0, least, d)
    values[:2] = 1.0, 10.0**-least
    gram = (basis * values) @ basis.T
    scale = 10.0 ** rng.uniform(-4, 4, d) if units else np.ones(d)
    gram = (gram + gram.T) / 2 * scale * scale[:, None]
    weights = basis @ (rng.normal(size=(d, 2)) / np.sqrt(values)[:, None]) / scale[:, None]
    cross = gram @ weights
    return Term.create(gram, cross, 1.1 * float(np.vdot(weights, cross)), [1] * d)


def some_masks(term: Term, seed: int) -> np.ndarray:
    kept = np.random.default_rng(seed).random((6, term.n_rows)) < 0.6
    kept[0], kept[1] = True, False
    return kept


def idle() -> None:
    """No clock."""


@pytest.mark.parametrize("units", [False, True])
@pytest.mark.parametrize("least", [3, 6, 9, 11, 13, 14, 15])
def test_the_stated_error_holds_the_exact_loss(least: float, units: bool) -> None:
    compared = 0
    for seed in range(12):
        term = badly_conditioned(seed, least, units=units)
        kept, losses = some_masks(term, seed), MaskLosses(term)
        for values, errors in (losses.plain(kept, idle), losses.refined(kept, idle)):
            for mask, value, error in zip(kept, values, errors, strict=True):
                exact = exact_loss(term, np.flatnonzero(mask).tolist())
                if exact is not None:
                    compared += 1
                    assert abs(float(exact - Fraction(float(value)))) <= error, (seed, mask)
    assert compared > 100


@pytest.mark.parametrize("least", [3, 6, 9, 11, 13])
def test_refined_losses_are_accurate_up_to_conditions_of_1e13(least: float) -> None:
    for seed in range(12):
        term = badly_conditioned(seed, least)
        _, errors = MaskLosses(term).refined(some_masks(term, seed), idle)
        assert errors.max() <= 1e-12 * term.energy, seed


def test_plain_losses_are_accurate_on_singular_and_ordinary_data() -> None:
    rng = np.random.default_rng(0)
    for samples in (4, 40):
        x = rng.normal(size=(samples, 7))
        x[:, 3] = x[:, 2]
        y = x @ rng.normal(size=(7, 3))
        gram, cross = x.T @ x / samples, x.T @ y / samples
        term = Term.create(gram, cross, float((y**2).sum()) / samples, [1] * 7)
        kept = rng.random((40, 7)) < 0.6
        values, errors = MaskLosses(term).plain(kept, idle)
        assert errors.max() <= 1e-11 * term.energy
        for mask, value in zip(kept, values, strict=True):
            weights = np.linalg.lstsq(x[:, mask], y, rcond=1e-10)[0]
            residual = y - x[:, mask] @ weights
            assert value == pytest.approx(
                float((residual**2).sum()) / samples / 2, abs=1e-12 * term.energy
            )


def test_rows_without_inputs_and_many_responses() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 4))
    x[:, 1] = 0.0
    y = x @ rng.normal(size=(4, 9)) + 0.1 * rng.normal(size=(30, 9))
    term = Term.create(x.T @ x / 30, x.T @ y / 30, float((y**2).sum()) / 30, [1] * 4)
    kept = np.array([[True, True, False, True], [False, True, False, False]])
    values, errors = MaskLosses(term).plain(kept, idle)
    exact = exact_loss(term, [0, 3])
    assert exact is not None
    assert abs(float(exact) - values[0]) <= errors[0] <= 1e-13 * term.energy
    assert values[1] == term.energy / 2
