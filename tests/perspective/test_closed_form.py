"""Value, indicator, case and conjugate against numeric minimisation and a cone solver."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from cvxpy.atoms.quad_over_lin import quad_over_lin
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq, minimize_scalar
from torch import Tensor

from mipprune import perspective

DOUBLE = torch.float64
CLARABEL = {
    "solver": cp.CLARABEL,
    "tol_gap_abs": 1e-9,
    "tol_gap_rel": 1e-9,
    "tol_feas": 1e-9,
}


def tensor(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=DOUBLE)


def random_groups(seed: int, count: int = 400) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Groups inside their boxes, sizes and coefficients over several orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=DOUBLE)

    n = 5
    big_m = 10 ** (2 * uniform(count, n) - 1)
    shrink = 10 ** (-3 * uniform(count, 1))
    w = (2 * uniform(count, n) - 1) * big_m * shrink
    w[::3, 3:] = 0
    a = 10 ** (4 * uniform(count) - 3)
    b = 10 ** (4 * uniform(count) - 3)
    return w, a, b, big_m


def minimise_over_y(w: Tensor, a: float, b: float, big_m: Tensor) -> tuple[float, float]:
    """Numeric minimum and minimiser of a ||w||^2 / y + b y over its interval."""
    square = float((w * w).sum())
    low = float((w.abs() / big_m).max())

    def slope(y: float) -> float:
        return b - a * square / (y * y)

    def objective(y: float) -> float:
        return a * square / y + b * y

    low = max(low, 1e-9)
    if slope(low) >= 0:
        return objective(low), low
    if slope(1.0) <= 0:
        return objective(1.0), 1.0
    best = brentq(slope, low, 1.0, xtol=1e-15, rtol=1e-14)
    searched = minimize_scalar(objective, bounds=(low, 1.0), method="bounded")
    assert objective(best) <= searched.fun + 1e-12
    return objective(best), best


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_value_and_indicator_equal_numeric_minimisation(seed: int) -> None:
    w, a, b, big_m = random_groups(seed)
    values = perspective.term_value(w, a, b, big_m)
    gates = perspective.term_indicator(w, a, b, big_m)
    cases = perspective.term_case(w, a, b, big_m)
    for j in range(len(w)):
        value, gate = minimise_over_y(w[j], float(a[j]), float(b[j]), big_m[j])
        assert abs(float(values[j]) - value) <= 1e-10 * max(1.0, value)
        assert abs(float(gates[j]) - gate) <= 1e-10
    assert set(cases.tolist()) == {1, 2, 3}
    joint = perspective.term_joint(w, gates, a, b)
    torch.testing.assert_close(joint, values, rtol=1e-12, atol=0)


def test_hand_case_of_each_branch() -> None:
    # alpha = 1/2 gives s = 1. Norms 1/2 (3-4-5 triangle scaled by .1) and M = 2:
    # limit .4/2 = .2 < s*.5 = .5 -> case 2, z = 2*sqrt(1/4)*.5 = .5, y = .5.
    # M = .5: limit .8 > .5 -> case 3, z = .5*.25/.8 + .5*.8 = .15625 + .4.
    # (.6, .8): norm 1 -> case 1, z = .5 + .5.
    w = tensor([[0.3, 0.4], [0.3, 0.4], [0.6, 0.8]])
    big_m = tensor([[2.0], [0.5], [2.0]])
    expected = tensor([0.5, 0.55625, 1.0])
    torch.testing.assert_close(perspective.value(w, 0.5, big_m), expected)
    torch.testing.assert_close(perspective.indicator(w, 0.5, big_m), tensor([0.5, 0.8, 1.0]))
    cases = perspective.case(w, 0.5, big_m)
    assert cases.dtype == torch.int8
    assert cases.tolist() == [2, 3, 1]


def test_outside_the_box_case_one_goes_on() -> None:
    w = tensor([[3.0, 0.1]])
    assert perspective.case(w, 0.2, 1.5).tolist() == [1]
    assert perspective.indicator(w, 0.2, 1.5).tolist() == [1.0]
    torch.testing.assert_close(perspective.value(w, 0.2, 1.5), tensor([0.2 * 9.01 + 0.8]))


@pytest.mark.parametrize("seed", range(8))
def test_value_equals_the_perspective_program(seed: int) -> None:
    w, a, b, big_m = (part[seed : seed + 1] for part in random_groups(11))
    scale = float(w.abs().max())
    w, big_m = w / scale, big_m / scale
    gate = cp.Variable()
    row, bound = w[0].numpy(), big_m[0].numpy()
    objective = float(a) * quad_over_lin(row, gate) + float(b) * gate
    problem = cp.Problem(cp.Minimize(objective), [np.abs(row) <= bound * gate, gate <= 1])
    problem.solve(**CLARABEL)
    found = float(perspective.term_value(w, a, b, big_m))
    assert found == pytest.approx(problem.value, rel=1e-7)


@pytest.mark.parametrize("seed", range(8))
def test_conjugate_equals_the_cone_program(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(4, generator=generator, dtype=DOUBLE)
    big_m = 0.2 + torch.rand(4, generator=generator, dtype=DOUBLE)
    a, b = 0.3, 0.2 + 0.2 * seed
    w, gate = cp.Variable(4), cp.Variable()
    gain = v.numpy() @ w - a * quad_over_lin(w, gate) - b * gate
    limit = big_m.numpy() * gate
    limits = [w <= limit, -w <= limit, gate <= 1]
    problem = cp.Problem(cp.Maximize(gain), limits)
    problem.solve(**CLARABEL)
    assert float(perspective.term_conjugate(v, a, b, big_m)) == pytest.approx(
        problem.value, abs=1e-8
    )


def test_conjugate_hand_case() -> None:
    # a = 1/2, M = 1: |u| <= 1 is quadratic u^2/2; u = 3 is linear, 3 - 1/2.
    v = tensor([0.5, -3.0])
    assert float(perspective.term_conjugate(v, 0.5, 0.25, 1.0)) == pytest.approx(0.125 + 2.5 - 0.25)
    assert float(perspective.term_conjugate(v, 0.5, 9.0, 1.0)) == 0.0


GROUP = arrays(np.float64, 4, elements=st.floats(-1, 1, allow_subnormal=False))
BOUND = arrays(np.float64, 4, elements=st.floats(0.05, 20))
POSITIVE = st.floats(0.01, 10)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(GROUP, GROUP, BOUND, POSITIVE, POSITIVE, st.floats(0, 1))
def test_value_is_convex_in_the_box(
    left: np.ndarray, right: np.ndarray, big_m: np.ndarray, a: float, b: float, share: float
) -> None:
    one, two = tensor(left * big_m), tensor(right * big_m)
    bound = tensor(big_m)
    between = torch.stack([one, two, (1 - share) * one + share * two])
    first, second, middle = perspective.term_value(between, a, b, bound * (1 + 1e-15))
    assert middle <= (1 - share) * first + share * second + 1e-12 * (1 + first + second)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(GROUP, GROUP, BOUND, POSITIVE, POSITIVE)
def test_fenchel_young(
    unit: np.ndarray, dual: np.ndarray, big_m: np.ndarray, a: float, b: float
) -> None:
    bound = tensor(big_m)
    w = tensor(unit * big_m).requires_grad_()
    v = tensor(10 * dual)
    primal = perspective.term_value(w, a, b, bound)
    slack = primal + perspective.term_conjugate(v, a, b, bound) - (v * w).sum()
    assert slack >= -1e-12 * (1 + primal)
    (gradient,) = torch.autograd.grad(primal, w)
    w, primal = w.detach(), primal.detach()
    tight = primal + perspective.term_conjugate(gradient, a, b, bound) - (gradient * w).sum()
    assert abs(float(tight)) <= 1e-11 * (1 + float(primal))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(GROUP, BOUND, POSITIVE, POSITIVE)
def test_biconjugate_attained_at_the_maximiser(
    dual: np.ndarray, big_m: np.ndarray, a: float, b: float
) -> None:
    # The gradient of the conjugate is the w that attains it: Fenchel-Young from the other side.
    v = tensor(5 * dual).requires_grad_()
    bound = tensor(big_m)
    conjugate = perspective.term_conjugate(v, a, b, bound)
    (w,) = torch.autograd.grad(conjugate, v)
    assert bool((w.abs() <= bound).all())
    primal = perspective.term_value(w, a, b, bound)
    slack = primal + conjugate.detach() - (v.detach() * w).sum()
    assert float(slack) == pytest.approx(0, abs=1e-11 * (1 + 25 / a))


def boundary_points() -> list[tuple[str, Tensor, float]]:
    """Points on every boundary between cases for alpha = .2 (s = 1/2): (name, w, M)."""
    return [
        ("cases 1 and 2: s ||w|| = 1", tensor([1.2, 1.6]), 5.0),
        ("cases 1 and 3: max |w| = M", tensor([0.5, 0.1]), 0.5),
        ("cases 2 and 3: max |w| / M = s ||w||", tensor([0.8, 0.6]), 1.6),
        ("all three", tensor([1.2, 1.6]), 1.6),
        ("zero", tensor([0.0, 0.0]), 0.7),
    ]


@pytest.mark.parametrize(("name", "point", "big_m"), boundary_points())
def test_continuous_across_boundaries(name: str, point: Tensor, big_m: float) -> None:
    generator = torch.Generator().manual_seed(3)
    here = perspective.value(point, 0.2, big_m)
    for distance in (1e-3, 1e-6, 1e-9):
        steps = distance * torch.randn(200, 2, generator=generator, dtype=DOUBLE)
        change = (perspective.value(point + steps, 0.2, big_m) - here).abs()
        assert float(change.max()) <= 20 * distance, name


def test_infinite_bound_is_the_group_reverse_huber() -> None:
    alpha = 0.3
    w, _, _, _ = random_groups(5)
    norm = w.norm(dim=1)
    knee = ((1 - alpha) / alpha) ** 0.5
    slope = 2 * (alpha * (1 - alpha)) ** 0.5
    expected = torch.where(norm <= knee, slope * norm, alpha * norm**2 + 1 - alpha)
    found = perspective.value(w, alpha, float("inf"))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    far = perspective.value(w, alpha, 1e9)
    torch.testing.assert_close(found, far, rtol=1e-13, atol=1e-13)


def test_alpha_to_one_is_ridge_and_alpha_to_zero_the_largest_ratio() -> None:
    w, _, _, big_m = random_groups(6)
    w = 0.5 * w
    ridge = perspective.value(w, 1 - 1e-13, big_m)
    torch.testing.assert_close(ridge, (w * w).sum(1), rtol=1e-6, atol=2e-6 * 10)
    largest = perspective.value(w, 1e-15, big_m)
    torch.testing.assert_close(largest, (w.abs() / big_m).amax(1), rtol=1e-6, atol=1e-6)


def test_no_count_cost_is_plain_ridge() -> None:
    w, a, _, big_m = random_groups(7)
    torch.testing.assert_close(perspective.term_value(w, a, 0.0, big_m), a * (w * w).sum(1))
    moved = w.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(perspective.term_value(moved, a, 0.0, big_m).sum(), moved)
    torch.testing.assert_close(gradient, 2 * a[:, None] * w)


def test_padding_contributes_nothing() -> None:
    w, a, b, big_m = random_groups(8, count=60)
    valid = torch.arange(5) < 3
    garbage = torch.where(valid, w, torch.full_like(w, float("nan")))
    bad_bound = torch.where(valid, big_m, torch.zeros_like(big_m))
    short = (w[:, :3], a, b, big_m[:, :3])
    zero_padded = torch.where(valid, w, torch.zeros_like(w))
    for function in (
        perspective.term_value,
        perspective.term_indicator,
        perspective.term_case,
        perspective.term_conjugate,
    ):
        expected = function(*short)
        assert torch.equal(function(garbage, a, b, bad_bound, valid=valid), expected)
        assert torch.equal(function(zero_padded, a, b, big_m), expected)


def test_joint_term_at_a_closed_gate() -> None:
    w = tensor([[0.0, 0.0], [0.1, 0.0], [0.1, 0.2]])
    found = perspective.term_joint(w, tensor([0.0, 0.0, 0.5]), 2.0, 3.0)
    assert found[0] == 0
    assert found[1] == float("inf")
    assert float(found[2]) == pytest.approx(2 * 0.05 / 0.5 + 1.5)
