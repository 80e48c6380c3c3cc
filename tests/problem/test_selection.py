"""The program: values against least squares on raw data, limits, immutability."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from mipprune.errors import BudgetError, InputError
from mipprune.problem import ChannelSelection, Resource, Term

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
SIZES = [1, 2, 1, 2]


def raw(seed: int = 0, n: int = 40, m: int = 3) -> Arrays:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 6))
    w = generator.normal(size=(6, m))
    return x, x @ w + 0.1 * generator.normal(size=(n, m)), w


def program(seed: int = 0, **options: object) -> ChannelSelection:
    x, y, w = raw(seed)
    n = len(x)
    return ChannelSelection(
        x.T @ x / n,
        x.T @ y / n,
        (y**2).sum() / n,
        SIZES,
        dense=w,
        **options,  # type: ignore[arg-type]  # forwarded
    )


def every_mask(p: int) -> list[np.ndarray]:
    return [((index >> np.arange(p)) & 1).astype(bool) for index in range(2**p)]


def test_hand_case() -> None:
    # One channel, G = 2, C = 3, e = 5, ridge 1: w = 3/3 = 1, value 5/2 - 9/(2*3) = 1.
    problem = ChannelSelection([[2.0]], [[3.0]], 5.0, [1], ridge=1.0, prices=0.25)
    assert problem.value([True]) == pytest.approx(1.25)
    assert problem.value([False]) == pytest.approx(2.5)
    assert problem.weights([1])[0] == pytest.approx(np.array([[1.0]]))


def test_refit_value_is_least_squares_on_the_samples() -> None:
    x, y, _ = raw()
    n, ridge = len(x), 0.2
    problem = program(ridge=ridge)
    columns = np.repeat(np.arange(4), SIZES)
    for mask in every_mask(4):
        kept = mask[columns]
        stacked = np.vstack([x[:, kept] / np.sqrt(n), np.sqrt(ridge) * np.eye(kept.sum())])
        target = np.vstack([y / np.sqrt(n), np.zeros((kept.sum(), 3))])
        solution = np.linalg.lstsq(stacked, target, rcond=None)[0]
        expected = 0.5 * ((stacked @ solution - target) ** 2).sum()
        assert problem.value(mask) == pytest.approx(expected, rel=1e-11)
        weights = problem.weights(mask)[0]
        np.testing.assert_allclose(weights[kept], solution, atol=1e-11)
        assert not weights[~kept].any()


def test_scale_and_mask_values_are_those_of_their_weights() -> None:
    x, y, w = raw()
    n = len(x)
    columns = np.repeat(np.arange(4), SIZES)
    for variant in ("scale", "mask"):
        problem = program(variant=variant, ridge=0.1, prices=[0.1, 0.2, 0.3, 0.4])
        for mask in every_mask(4):
            weights = problem.weights(mask)[0]
            loss = 0.5 * ((x @ weights - y) ** 2).sum() / n + 0.05 * (weights**2).sum()
            loss += np.array([0.1, 0.2, 0.3, 0.4])[mask].sum()
            assert problem.value(mask) == pytest.approx(loss, rel=1e-11)
            if variant == "mask":
                np.testing.assert_allclose(weights, w * mask[columns][:, None])
    # One factor per channel: least squares in the p products X_j W0_j.
    problem = program(variant="scale")
    products = np.stack([(x[:, columns == j] @ w[columns == j]).ravel() for j in range(4)], 1)
    residual = np.linalg.lstsq(products, y.ravel(), rcond=None)[1][0]
    assert problem.value(np.ones(4, dtype=bool)) == pytest.approx(residual / (2 * n), rel=1e-10)


def test_binary_quadratic_equals_the_value() -> None:
    problem = program(variant="mask", ridge=0.3, prices=0.1)
    matrix, vector, constant = problem.binary_quadratic()
    assert not np.diag(matrix).any()
    for mask in every_mask(4):
        expected = constant + vector @ mask + 0.5 * mask @ matrix @ mask
        assert problem.value(mask) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(InputError, match="needs variant"):
        program().binary_quadratic()


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_box_against_scipy(limit: float, ridge: float) -> None:
    x, y, _ = raw(4)
    n = len(x)
    problem = program(4, big_m=limit, ridge=ridge)
    mask = np.array([True, True, False, True])
    kept = problem.terms[0].rows(mask)
    stacked = np.vstack([x[:, kept] / np.sqrt(n), np.sqrt(ridge) * np.eye(kept.sum())])
    expected = 0.0
    for column in range(3):
        target = np.concatenate([y[:, column] / np.sqrt(n), np.zeros(kept.sum())])
        fit = lsq_linear(stacked, target, (-limit, limit), tol=1e-14, method="bvls")
        expected += fit.cost
    assert problem.value(mask) == pytest.approx(expected, rel=1e-10)
    assert np.abs(problem.weights(mask)[0]).max() <= limit


def test_box_with_singular_correlated_inputs_converges() -> None:
    generator = np.random.default_rng(5)
    x = generator.normal(size=(30, 4)) @ generator.normal(size=(4, 12))
    y = generator.normal(size=(30, 5))
    problem = ChannelSelection(x.T @ x, x.T @ y, (y**2).sum(), [3] * 4, big_m=0.02)
    value = problem.value(np.ones(4, dtype=bool))
    expected = sum(
        lsq_linear(x, y[:, c], (-0.02, 0.02), tol=1e-14, method="bvls").cost for c in range(5)
    )
    assert value == pytest.approx(expected, rel=1e-9)


def test_singular_gram_uses_the_range_space() -> None:
    x, y, _ = raw(n=4)
    n = len(x)
    problem = ChannelSelection(x.T @ x / n, x.T @ y / n, (y**2).sum() / n, SIZES)
    full = np.ones(4, dtype=bool)
    assert problem.value(full) == pytest.approx(0.0, abs=1e-12 * problem.energy)
    duplicated = np.hstack([x, x[:, :1]])
    again = ChannelSelection(
        duplicated.T @ duplicated / n, duplicated.T @ y / n, (y**2).sum() / n, [*SIZES, 1]
    )
    one = np.array([True, False, False, False])
    assert again.value([True, False, False, False, True]) == pytest.approx(problem.value(one))


def test_more_channels_never_cost_more_in_refit() -> None:
    problem = program(7, ridge=0.05)
    for mask in every_mask(4):
        for j in np.flatnonzero(~mask):
            larger = mask.copy()
            larger[j] = True
            assert problem.value(larger) <= problem.value(mask) + 1e-12 * problem.energy


def test_terms_add_up() -> None:
    first, second = program(1).terms[0], program(2).terms[0].weighted(0.5)
    both = ChannelSelection.from_terms([first, second], prices=0.1)
    for mask in every_mask(4):
        alone = [ChannelSelection.from_terms([t]).value(mask) for t in (first, second)]
        assert both.value(mask) == pytest.approx(sum(alone) + 0.1 * mask.sum(), rel=1e-12)
    assert both.energy == pytest.approx(first.energy + second.energy)
    with pytest.raises(InputError, match="share one mask"):
        ChannelSelection.from_terms([first, Term.create([[1.0]], [[1.0]], 1.0, [1])])
    with pytest.raises(InputError, match="at least one"):
        ChannelSelection.from_terms([])


def test_feasibility_by_hand() -> None:
    problem = program(
        keep=3,
        costs=[[1, 2, 3, 4], [1, 0, 0, 1]],
        budgets=[6.0, 2.0],
        lower=[3.0, -np.inf],
        forced_out=np.array([False, False, True, False]),
        parts=[[0, 1, -1, -1]],
    )
    feasible = {tuple(m.tolist()) for m in every_mask(4) if problem.is_feasible(m)}
    # Channels 0 and 1 both or neither, 2 out, cost of 0, 1, 3 is 1, 2, 4 within 3..6.
    assert feasible == {(True, True, False, False), (False, False, False, True)}
    assert problem.keep == 3
    matrix, limits = problem.upper_constraints
    assert matrix.shape == (4, 4)
    np.testing.assert_array_equal(matrix[-1], [-1, -2, -3, -4])
    assert limits.tolist() == [3, 6, 2, -3]


def test_rounding_of_costs_does_not_forbid_a_mask() -> None:
    problem = program(costs=[0.1, 0.2, 0.3, 0.4], budgets=0.1 + 0.2 + 1e-17)
    assert problem.is_feasible([True, True, False, False])
    assert not problem.is_feasible([False, False, False, True])
    assert program(costs=np.ones(4), budgets=3 * (1 - 1e-12)).keep == 3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"keep": 5}, BudgetError, "0..4"),
        ({"keep": -1}, BudgetError, "0..4"),
        ({"keep": 2.5}, BudgetError, "integer"),
        ({"keep": np.nan}, BudgetError, "integer"),
        ({"budgets": 3.0}, InputError, "without costs"),
        ({"costs": [1.0, 2.0]}, InputError, "costs"),
        ({"costs": [-1.0, 1, 1, 1]}, InputError, ">= 0"),
        ({"costs": [np.nan, 1, 1, 1]}, InputError, "finite"),
        ({"costs": np.ones(4), "budgets": [1.0, 2.0]}, InputError, "per resource"),
        ({"costs": np.ones(4), "budgets": 1.0, "lower": 2.0}, BudgetError, "contradict"),
        ({"costs": np.ones(4), "lower": 5.0}, BudgetError, "reach 0..4"),
        ({"costs": np.ones(4), "budgets": "many"}, InputError, "real numbers"),
        ({"keep": 1, "forced_in": np.ones(4, dtype=bool)}, BudgetError, "reach"),
        ({"forced_in": np.ones(3, dtype=bool)}, InputError, "forced_in"),
        ({"forced_out": np.ones(4)}, InputError, "bool"),
        ({"prices": [1.0]}, InputError, "prices"),
        ({"prices": np.inf}, InputError, "finite"),
        ({"variant": "other"}, InputError, "variant"),
        ({"parts": [[0, 1]]}, InputError, "parts"),
        ({"parts": [[0.0, 1, 0, 1]]}, InputError, "parts"),
    ],
)
def test_wrong_options_are_refused(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        program(0, **options)


def test_forced_both_ways_is_refused() -> None:
    flags = np.array([True, False, False, False])
    with pytest.raises(BudgetError, match="both in and out"):
        program(forced_in=flags, forced_out=flags)


def test_variants_need_dense() -> None:
    with pytest.raises(InputError, match="original weights"):
        ChannelSelection(np.eye(1), [[1.0]], 1.0, [1], variant="scale")


def test_nothing_can_be_changed_after_construction() -> None:
    problem = program(keep=2, costs=np.ones((1, 4)), budgets=3.0, parts=[[0, 0, 1, 1]])
    arrays = [problem.prices, problem.forced_in, problem.forced_out, problem.parts[0]]
    arrays += [problem.resources[1].costs, problem.terms[0].gram]
    for array in arrays:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(AttributeError):
        problem.variant = "mask"  # type: ignore[misc]  # frozen on purpose


def test_changed_copies() -> None:
    problem = program(keep=2, costs=[1.0, 2, 3, 4], budgets=9.0)
    assert problem.with_keep(3).keep == 3
    assert problem.with_keep(3).resources[1].upper == 9.0
    assert problem.keep == 2
    forced = problem.with_forced(np.array([1, 0, 0, 0], bool), np.array([0, 1, 0, 0], bool))
    assert not forced.is_feasible([False, False, True, False])
    with pytest.raises(BudgetError):
        problem.with_forced(np.ones(4, bool), np.zeros(4, bool))
    damped = problem.with_damping(0.1)
    mean = np.diag(problem.terms[0].gram).mean()
    np.testing.assert_allclose(damped.terms[0].ridge, 0.1 * mean)
    with pytest.raises(InputError, match="damping"):
        problem.with_damping(-1.0)


def test_with_keep_leaves_a_lower_limit_alone() -> None:
    term = program().terms[0]
    count = Resource("channels", np.ones(4), 3.0, 1.0)
    problem = ChannelSelection.from_terms([term], resources=[count])
    assert not problem.with_keep(2).is_feasible(np.zeros(4, bool))
    other = ChannelSelection.from_terms([term], resources=[Resource("channels", np.arange(4.0))])
    with pytest.raises(InputError, match="not a count"):
        other.with_keep(2)


@pytest.mark.parametrize("call", [lambda p, m: p.value(m), lambda p, m: p.is_feasible(m)])
@pytest.mark.parametrize("mask", [[True], [0.5, 0, 0, 0], np.ones((4, 1))])
def test_wrong_masks_are_refused(
    call: Callable[[ChannelSelection, object], object], mask: object
) -> None:
    with pytest.raises(InputError, match="mask"):
        call(program(), mask)
