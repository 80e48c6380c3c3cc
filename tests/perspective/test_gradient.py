"""Gradients: numeric differentiation away from kinks, subgradients and limits at kinks."""

import pytest
import torch
from torch import Tensor

from mipprune import perspective

DOUBLE = torch.float64


def tensor(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=DOUBLE)


def gradient(w: Tensor, alpha: float, big_m: float | Tensor) -> Tensor:
    w = w.clone().requires_grad_()
    (found,) = torch.autograd.grad(perspective.value(w, alpha, big_m).sum(), w)
    return found


def smooth_points(seed: int, groups: int = 30) -> tuple[Tensor, Tensor]:
    """Groups at least 1e-3 away from every kink and boundary, with their bounds."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(6 * groups, 4, generator=generator, dtype=DOUBLE)
    w = w * 10 ** (2 * torch.rand(6 * groups, 1, generator=generator, dtype=DOUBLE) - 1.5)
    big_m = 0.2 + 2 * torch.rand(6 * groups, 4, generator=generator, dtype=DOUBLE)
    ratio = w.abs() / big_m
    top = ratio.topk(2, dim=1).values
    free = (0.3 / 0.7) ** 0.5 * w.norm(dim=1)
    gaps = [w.abs().amin(1), top[:, 0] - top[:, 1], (top[:, 0] - 1).abs(), (free - 1).abs()]
    clear = torch.stack([*gaps, (top[:, 0] - free).abs()]).amin(0) > 1e-3
    return w[clear][:groups], big_m[clear][:groups]


@pytest.mark.parametrize("seed", [0, 1])
def test_first_and_second_derivatives_away_from_kinks(seed: int) -> None:
    w, big_m = smooth_points(seed)
    assert set(perspective.case(w, 0.3, big_m).tolist()) == {1, 2, 3}
    w.requires_grad_()
    for function in (perspective.value, perspective.indicator, perspective.conjugate):
        assert torch.autograd.gradcheck(lambda x, f=function: f(x, 0.3, big_m), w)
    assert torch.autograd.gradgradcheck(lambda x: perspective.value(x, 0.3, big_m), w)


def test_derivatives_in_coefficients_and_bounds() -> None:
    w, big_m = smooth_points(2, groups=12)
    generator = torch.Generator().manual_seed(2)
    a = 0.3 * (1 + 1e-4 * torch.rand(len(w), generator=generator, dtype=DOUBLE))
    b = 0.7 * torch.ones(len(w), dtype=DOUBLE)
    arguments = tuple(part.requires_grad_() for part in (w, a, b, big_m))
    assert torch.autograd.gradcheck(perspective.term_value, arguments)


def test_hand_gradient_of_each_case() -> None:
    # alpha = 1/2, w = (.3, .4): case 2 pulls with w / ||w||; in case 3 with M = 1/2,
    # 2*.5*.5/.4 * w = 1.25 w, and entry 2 gets .5/.5 - .5*.5*.25/.16 = 1 - .390625 on top.
    w = tensor([[0.3, 0.4], [0.3, 0.4], [1.2, 1.6]])
    expected = tensor([[0.6, 0.8], [0.375, 0.5 + 0.609375], [1.2, 1.6]])
    found = gradient(w, 0.5, tensor([[2.0], [0.5], [2.0]]))
    torch.testing.assert_close(found, expected)


KINKS = {
    "zero group": (tensor([0.0, 0.0, 0.0]), tensor(0.7)),
    "ties at the bound": (tensor([0.4, -0.4, 0.1]), tensor(0.5)),
    "all tied": (tensor([0.4, 0.4, 0.4]), tensor(0.41)),
    "ties with different bounds": (tensor([0.2, -0.4, 0.1]), tensor([0.3, 0.6, 5.0])),
    "one entry at M": (tensor([0.5, 0.1, 0.0]), tensor(0.5)),
    "two entries at M": (tensor([0.5, -0.5, 0.2]), tensor(0.5)),
    "corner of the box": (tensor([0.5, -0.5, 0.5]), tensor(0.5)),
    "cases 2 and 3 meet": (tensor([0.8, 0.6, 0.0]), tensor(1.6)),
    "cases 1 and 2 meet": (tensor([1.2, 1.6, 0.0]), tensor(5.0)),
    "all cases meet": (tensor([1.2, 1.6, 0.0]), tensor(1.6)),
    "infinite bounds": (tensor([0.3, 0.3, 0.0]), tensor(float("inf"))),
}


@pytest.mark.parametrize("name", KINKS)
def test_gradient_at_kinks_is_a_subgradient_on_the_box(name: str) -> None:
    w, big_m = KINKS[name]
    slope = gradient(w, 0.2, big_m)
    here = perspective.value(w, 0.2, big_m)
    assert torch.isfinite(slope).all()
    generator = torch.Generator().manual_seed(4)
    corner = torch.clamp(big_m, max=3).expand(3)
    points = corner * (2 * torch.rand(3000, 3, generator=generator, dtype=DOUBLE) - 1)
    # Near points, too: a wrong slope shows there first.
    near = w + 1e-4 * torch.randn(3000, 3, generator=generator, dtype=DOUBLE)
    for others in (points, torch.maximum(torch.minimum(near, corner), -corner)):
        plane = here + (others - w) @ slope
        assert bool((perspective.value(others, 0.2, big_m) >= plane - 1e-12).all())


@pytest.mark.parametrize("name", KINKS)
def test_directional_derivatives_at_kinks(name: str) -> None:
    # Convex function: the derivative in direction d is at least slope . d, with equality
    # on average over d and -d only where the function is smooth.
    w, big_m = KINKS[name]
    slope = gradient(w, 0.2, big_m)
    generator = torch.Generator().manual_seed(5)
    directions = torch.randn(500, 3, generator=generator, dtype=DOUBLE)
    inward = (w.abs() >= big_m) & (directions * w > 0)
    directions = torch.where(inward, -directions, directions)
    distance = 1e-7
    here = perspective.value(w, 0.2, big_m)
    rise = (perspective.value(w + distance * directions, 0.2, big_m) - here) / distance
    assert bool((rise >= directions @ slope - 1e-7).all())
    if "meet" in name and "all" not in name:
        torch.testing.assert_close(rise, directions @ slope, rtol=0, atol=1e-5)


def test_smallest_subgradient_at_zero_and_symmetry_of_ties() -> None:
    assert torch.equal(gradient(torch.zeros(2, 3, dtype=DOUBLE), 0.2, 0.7), torch.zeros(2, 3))
    tied = gradient(tensor([0.4, -0.4, 0.1]), 0.2, 0.41)
    assert tied[0] == -tied[1]


def test_conjugate_is_flat_at_its_kink() -> None:
    # a = b = 1/2, M = inf: max(0, v^2/2 - 1/2) has its kink at v = 1.
    v = tensor([[1.0]]).requires_grad_()
    found = perspective.conjugate(v, 0.5, float("inf"))
    (slope,) = torch.autograd.grad(found.sum(), v)
    assert found.item() == 0
    assert slope.item() == 0


def test_padded_entries_get_no_gradient_and_do_no_harm() -> None:
    w, big_m = smooth_points(3, groups=8)
    valid = torch.tensor([True, True, True, False])
    bad = torch.where(valid, w, torch.full_like(w, float("nan"))).requires_grad_()
    value = perspective.value(bad, 0.3, torch.where(valid, big_m, 0.0), valid=valid)
    (found,) = torch.autograd.grad(value.sum(), bad)
    assert torch.equal(found[:, 3], torch.zeros(len(w), dtype=DOUBLE))
    torch.testing.assert_close(found[:, :3], gradient(w[:, :3], 0.3, big_m[:, :3]))
    nothing = torch.zeros(1, 4, dtype=DOUBLE, requires_grad=True)
    empty = perspective.value(nothing, 0.3, 0.0, valid=torch.zeros(4, dtype=torch.bool))
    (found,) = torch.autograd.grad(empty.sum(), nothing)
    assert torch.equal(found, torch.zeros(1, 4, dtype=DOUBLE))


@pytest.mark.parametrize("size", [1e-30, 1e-18, 1e-3, 1e12])
def test_single_precision_keeps_its_digits_at_every_size(size: float) -> None:
    w, big_m = smooth_points(4)
    w = w * size
    single = w.float().requires_grad_()
    value = perspective.value(single, 0.3, big_m.float())
    (found,) = torch.autograd.grad(value.sum(), single)
    exact = single.detach().double()
    torch.testing.assert_close(
        value.detach().double(), perspective.value(exact, 0.3, big_m.float()), rtol=1e-6, atol=0
    )
    expected = gradient(exact, 0.3, big_m.float())
    torch.testing.assert_close(
        found.double(), expected, rtol=1e-5, atol=2e-6 * float(expected.abs().max())
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 1e-2)])
def test_half_precisions(dtype: torch.dtype, tolerance: float) -> None:
    w, big_m = smooth_points(5)
    half = w.to(dtype).requires_grad_()
    value = perspective.value(half, 0.3, big_m.float())
    (found,) = torch.autograd.grad(value.sum(), half)
    assert value.dtype == dtype
    assert found.dtype == dtype
    exact = half.detach().double()
    expected = perspective.value(exact, 0.3, big_m.float())
    torch.testing.assert_close(value.detach().double(), expected, rtol=tolerance, atol=0)
    slope = gradient(exact, 0.3, big_m.float())
    torch.testing.assert_close(found.double(), slope, rtol=tolerance, atol=tolerance)
