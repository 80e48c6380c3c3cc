"""Proximal operator against high-precision search, a cone solver and Moreau's identity."""

from decimal import Decimal, localcontext

import cvxpy as cp
import numpy as np
import pytest
import torch
from cvxpy.atoms.quad_over_lin import quad_over_lin
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize
from torch import Tensor

from mipprune import perspective

DOUBLE = torch.float64


def tensor(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=DOUBLE)


def best_entry(v: Decimal, y: Decimal, step: Decimal, a: Decimal, big_m: Decimal) -> Decimal:
    """Minimiser of a w^2 / y + (w - v)^2 / (2 step) over |w| <= M y."""
    free = v * y / (y + 2 * a * step)
    return max(-big_m * y, min(big_m * y, free))


def searched_prox(v: Tensor, step: float, a: float, b: float, big_m: Tensor) -> list[float]:
    """Golden-section search over y of the definition, with 45 digits."""
    with localcontext() as context:
        context.prec = 45
        targets = [Decimal(x) for x in v.tolist()]
        bounds = [Decimal(min(m, 1e9)) for m in big_m.tolist()]
        tau, ridge, price = Decimal(step), Decimal(a), Decimal(b)

        def objective(y: Decimal) -> Decimal:
            if y == 0:
                return sum((t * t for t in targets), Decimal(0)) / (2 * tau)
            total = price * y
            for target, bound in zip(targets, bounds, strict=True):
                w = best_entry(target, y, tau, ridge, bound)
                total += ridge * w * w / y + (w - target) ** 2 / (2 * tau)
            return total

        golden = (Decimal(5).sqrt() - 1) / 2
        low, high = Decimal(0), Decimal(1)
        left, right = high - golden * (high - low), low + golden * (high - low)
        at_left, at_right = objective(left), objective(right)
        for _ in range(85):
            if at_left <= at_right:
                high, right, at_right = right, left, at_left
                left = high - golden * (high - low)
                at_left = objective(left)
            else:
                low, left, at_left = left, right, at_right
                right = low + golden * (high - low)
                at_right = objective(right)
        y = min((Decimal(0), low, Decimal(1)), key=objective)
        if y == 0:
            return [0.0] * len(targets)
        pairs = zip(targets, bounds, strict=True)
        return [float(best_entry(target, y, tau, ridge, bound)) for target, bound in pairs]


def draw(seed: int) -> tuple[Tensor, float, float, float, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    n = 1 + seed % 6

    def power(low: float, high: float) -> float:
        return float(10 ** (low + (high - low) * torch.rand(1, generator=generator)))

    big_m = 0.1 + 2 * torch.rand(n, generator=generator, dtype=DOUBLE)
    if seed % 4 == 0:
        big_m[0] = float("inf")
    v = torch.randn(n, generator=generator, dtype=DOUBLE) * power(-1.5, 1)
    return v, power(-2, 1.5), power(-3, 1), power(-2, 0.7), big_m


def test_prox_equals_numeric_minimisation() -> None:
    kinds = set()
    for seed in range(120):
        v, step, a, b, big_m = draw(seed)
        found = perspective.term_prox(v, step, a, b, big_m)
        expected = tensor(searched_prox(v, step, a, b, big_m))
        assert float((found - expected).abs().max()) <= 1e-8, seed
        gate = float(perspective.term_indicator(found, a, b, big_m))
        kinds.add("shut" if gate == 0 else "open" if gate == 1 else "between")
    assert kinds == {"shut", "open", "between"}


@pytest.mark.parametrize("seed", range(6))
def test_prox_equals_the_cone_program(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(4, generator=generator, dtype=DOUBLE)
    big_m = 0.3 + torch.rand(4, generator=generator, dtype=DOUBLE)
    w, gate = cp.Variable(4), cp.Variable()
    cost = 0.3 * quad_over_lin(w, gate) + 0.5 * gate + quad_over_lin(w - v.numpy(), 0.8)
    limit = big_m.numpy() * gate
    limits = [w <= limit, -w <= limit, gate <= 1]
    problem = cp.Problem(cp.Minimize(cost), limits)
    problem.solve(solver=cp.CLARABEL)
    found = perspective.term_prox(v, 0.4, 0.3, 0.5, big_m)
    moved = perspective.term_value(found, 0.3, 0.5, big_m) + ((found - v) ** 2).sum() / 0.8
    assert float(moved) == pytest.approx(problem.value, rel=1e-7)
    torch.testing.assert_close(found, tensor(w.value), rtol=0, atol=1e-4)


@pytest.mark.parametrize("seed", range(10))
def test_scipy_finds_nothing_better(seed: int) -> None:
    v, step, a, b, big_m = draw(seed)
    bounds = [(-min(m, 50.0), min(m, 50.0)) for m in big_m.tolist()]

    def objective(w: np.ndarray) -> float:
        point = tensor(w)
        penalty = perspective.term_value(point, a, b, big_m)
        return float(penalty + ((point - v) ** 2).sum() / (2 * step))

    found = perspective.term_prox(v, step, a, b, big_m).numpy()
    low, high = np.array(bounds).T
    start: np.ndarray[tuple[int], np.dtype[np.float64]] = np.clip(v.numpy(), low, high)
    other = minimize(
        objective,
        start,
        method="Nelder-Mead",
        bounds=bounds,
        options={"xatol": 1e-10, "fatol": 1e-13, "maxiter": 4000, "maxfev": 4000},
    )
    assert objective(found) <= other.fun + 1e-12


POINT = arrays(np.float64, 4, elements=st.floats(-5, 5, allow_subnormal=False))
BOUND = arrays(np.float64, 4, elements=st.floats(0.05, 10))
POSITIVE = st.floats(0.01, 10)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(POINT, BOUND, POSITIVE, POSITIVE, POSITIVE)
def test_moreau_identity(
    point: np.ndarray, bound: np.ndarray, step: float, a: float, b: float
) -> None:
    # u = (v - prox(v)) / step is a subgradient at prox(v): Fenchel-Young holds with
    # equality, which characterises the proximal point.
    v, big_m = tensor(point), tensor(bound)
    w = perspective.term_prox(v, step, a, b, big_m)
    assert bool((w.abs() <= big_m).all())
    u = (v - w) / step
    gap = (
        perspective.term_value(w, a, b, big_m)
        + perspective.term_conjugate(u, a, b, big_m)
        - (u * w).sum()
    )
    assert abs(float(gap)) <= 1e-11 * (1 + float((v * v).sum()) * (1 + 1 / step))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(POINT, POINT, BOUND, POSITIVE, POSITIVE, POSITIVE)
def test_firmly_nonexpansive(
    one: np.ndarray, two: np.ndarray, bound: np.ndarray, step: float, a: float, b: float
) -> None:
    start = torch.stack([tensor(one), tensor(two)])
    end = perspective.term_prox(start, step, a, b, tensor(bound))
    moved, difference = end[0] - end[1], start[0] - start[1]
    assert float((moved * moved).sum()) <= float((moved * difference).sum()) + 1e-11


def test_zero_exactly_where_the_conjugate_vanishes() -> None:
    generator = torch.Generator().manual_seed(1)
    v = 0.3 * torch.randn(500, 5, generator=generator, dtype=DOUBLE)
    w = perspective.prox(v, 0.7, 0.4, 0.9)
    shut = (w == 0).all(1)
    assert torch.equal(shut, perspective.conjugate(v / 0.7, 0.4, 0.9) == 0)
    assert 50 < int(shut.sum()) < 450


def test_hand_cases() -> None:
    # One entry, M = inf, a = b = 1/2: reverse Huber |w| up to 1, then w^2/2 + 1/2.
    # step 1: soft threshold by 1 while the result is at most 1, then v / 2.
    v = tensor([[0.5], [1.0], [1.6], [2.0], [5.0], [-1.6]])
    expected = tensor([[0.0], [0.0], [0.6], [1.0], [2.5], [-0.6]])
    torch.testing.assert_close(perspective.prox(v, 1.0, 0.5, float("inf")), expected)
    # Far outside the box every entry ends on its bound.
    far = perspective.prox(tensor([[100.0, -80.0]]), 0.1, 0.5, tensor([[0.3, 2.0]]))
    assert torch.equal(far, tensor([[0.3, -2.0]]))


@pytest.mark.parametrize("step", [1e-9, 1e-3, 1e3, 1e8])
def test_inside_the_box_for_every_step(step: float) -> None:
    generator = torch.Generator().manual_seed(2)
    v = 10 * torch.randn(200, 6, generator=generator, dtype=DOUBLE)
    w = perspective.term_prox(v, step, 1e-3, 1e-3, 0.7)
    assert bool((w.abs() <= 0.7).all())


def test_no_count_cost_is_a_clipped_shrinkage() -> None:
    generator = torch.Generator().manual_seed(3)
    v = torch.randn(40, 3, generator=generator, dtype=DOUBLE)
    expected = (v / (1 + 2 * 0.3 * 0.5)).clamp(-0.8, 0.8)
    torch.testing.assert_close(perspective.term_prox(v, 0.5, 0.3, 0.0, 0.8), expected)


def test_derivative_is_the_implicit_one() -> None:
    generator = torch.Generator().manual_seed(4)
    v = 1.5 * torch.randn(12, 4, generator=generator, dtype=DOUBLE)
    parts = (v, tensor(0.3), tensor(0.2), tensor(0.6), tensor(1.3))
    arguments = tuple(part.requires_grad_() for part in parts)
    assert torch.autograd.gradcheck(perspective.term_prox, arguments)


def test_padding_and_coefficients_per_group() -> None:
    generator = torch.Generator().manual_seed(5)
    v = torch.randn(30, 5, generator=generator, dtype=DOUBLE)
    a, b, step = 0.05 + torch.rand(3, 30, generator=generator, dtype=DOUBLE)
    valid = torch.arange(5) < 3
    garbage = torch.where(valid, v, torch.full_like(v, float("nan")))
    found = perspective.term_prox(garbage, step, a, b, 0.8, valid=valid)
    assert torch.equal(found[:, 3:], torch.zeros(30, 2, dtype=DOUBLE))
    for j in range(30):
        alone = perspective.term_prox(v[j, :3], float(step[j]), float(a[j]), float(b[j]), 0.8)
        torch.testing.assert_close(found[j, :3], alone, rtol=1e-13, atol=1e-15)


def test_single_precision_is_rounded_double() -> None:
    generator = torch.Generator().manual_seed(6)
    v = torch.randn(50, 5, generator=generator)
    found = perspective.term_prox(v, 1e-4, 1e-9, 1e-6, 0.5)
    exact = perspective.term_prox(v.double(), 1e-4, 1e-9, 1e-6, 0.5)
    assert found.dtype == torch.float32
    assert torch.equal(found, exact.float())
