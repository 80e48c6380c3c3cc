"""The functions under vmap, grad, torch.compile, autocast and on a GPU."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mipprune import perspective

DOUBLE = torch.float64

FUNCTIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "value": lambda w, a, m: perspective.value(w, a, m),
    "indicator": lambda w, a, m: perspective.indicator(w, a, m),
    "case": lambda w, a, m: perspective.case(w, a, m),
    "conjugate": lambda w, a, m: perspective.conjugate(w, a, m),
    "prox": lambda w, a, m: perspective.prox(w, 0.3, a, m),
}
SMOOTH = ("value", "indicator", "conjugate", "prox")


def batch(dtype: torch.dtype = DOUBLE) -> tuple[Tensor, Tensor, Tensor]:
    """Seven batches of six groups of five, alpha per batch, a bound per entry."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(7, 6, 5, generator=generator, dtype=dtype)
    w = w * torch.logspace(-1.5, 0.3, 7, dtype=dtype)[:, None, None]
    w[2, 3] = 0
    alpha = torch.linspace(0.1, 0.9, 7, dtype=dtype)
    big_m = 0.2 + 2 * torch.rand(6, 5, generator=generator, dtype=dtype)
    big_m[0] = float("inf")
    return w, alpha, big_m


@pytest.mark.parametrize("name", FUNCTIONS)
def test_vmap_equals_the_loop(name: str) -> None:
    w, alpha, big_m = batch()
    function = FUNCTIONS[name]
    mapped = torch.func.vmap(function, in_dims=(0, 0, None))(w, alpha, big_m)
    looped = torch.stack([function(w[i], alpha[i], big_m) for i in range(7)])
    torch.testing.assert_close(mapped, looped, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_per_sample(name: str) -> None:
    w, alpha, big_m = batch()
    function = FUNCTIONS[name]

    def total(part: Tensor, weight: Tensor) -> Tensor:
        return function(part, weight, big_m).square().sum()

    mapped = torch.func.vmap(torch.func.grad(total))(w, alpha)
    for i in range(7):
        alone = w[i].clone().requires_grad_()
        (expected,) = torch.autograd.grad(total(alone, alpha[i]), alone)
        torch.testing.assert_close(mapped[i], expected, rtol=1e-11, atol=1e-13)


def test_hessian_of_the_ridge_case() -> None:
    w = torch.tensor([3.0, 4.0], dtype=DOUBLE)
    gradient = torch.func.jacrev(lambda x: perspective.value(x, 0.4, 10.0))
    found = torch.func.jacrev(gradient)(w)
    torch.testing.assert_close(found, 0.8 * torch.eye(2, dtype=DOUBLE))


def run_compiled(name: str, backend: str) -> None:
    w, alpha, big_m = batch(torch.float32)
    function = FUNCTIONS[name]
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    weight = alpha[:, None]
    eager_input, traced_input = w.clone().requires_grad_(), w.clone().requires_grad_()
    eager, traced = function(eager_input, weight, big_m), compiled(traced_input, weight, big_m)
    torch.testing.assert_close(traced, eager, rtol=1e-5, atol=1e-6)
    if name in SMOOTH:
        (expected,) = torch.autograd.grad(eager.sum(), eager_input)
        (found,) = torch.autograd.grad(traced.sum(), traced_input)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_traced_as_one_graph(name: str) -> None:
    run_compiled(name, "aot_eager")


# torch 2.13's own compiler still uses torch.jit.
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiled_to_native_code(name: str) -> None:
    run_compiled(name, "inductor")


def packed_total(flat: Tensor, layout: perspective.SegmentLayout, check: bool) -> Tensor:
    return perspective.segment_value(flat, layout, None, 0.2, 0.8, 0.7, check=check).sum()


# torch 2.13 itself instantiates torch.autograd.Function while tracing one.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_packed_value_traced() -> None:
    w, _, _ = batch(torch.float32)
    segment = torch.arange(42).repeat_interleave(5)
    layout = perspective.SegmentLayout.from_index(segment, 42)
    traced = torch.compile(packed_total, backend="aot_eager")
    one, two = w.view(-1).clone().requires_grad_(), w.view(-1).clone().requires_grad_()
    eager, found = packed_total(one, layout, False), traced(two, layout, False)
    torch.testing.assert_close(found, eager)
    torch.testing.assert_close(
        torch.autograd.grad(found, two)[0], torch.autograd.grad(eager, one)[0]
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_autocast_changes_nothing(name: str) -> None:
    w, alpha, big_m = batch(torch.float32)
    plain = FUNCTIONS[name](w, alpha[:, None], big_m)
    with torch.autocast("cpu", torch.bfloat16):
        cast = FUNCTIONS[name](w, alpha[:, None], big_m)
    assert torch.equal(cast, plain)


def test_autocast_changes_nothing_in_packed_gradients() -> None:
    flat = batch(torch.float32)[0].view(-1).requires_grad_()
    layout = perspective.SegmentLayout.from_index(torch.arange(42).repeat_interleave(5), 42)
    (plain,) = torch.autograd.grad(packed_total(flat, layout, True), flat)
    with torch.autocast("cpu", torch.bfloat16):
        total = packed_total(flat, layout, True)
        (cast,) = torch.autograd.grad(total, flat)
    assert total.dtype == torch.float32
    assert torch.equal(cast, plain)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_on_a_gpu() -> None:
    w, alpha, big_m = batch()
    for name, function in FUNCTIONS.items():
        found = function(w.cuda(), alpha[:, None].cuda(), big_m.cuda())
        expected = function(w, alpha[:, None], big_m)
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-11, atol=1e-12, msg=name)
    flat = w.view(-1).float()
    layout = perspective.SegmentLayout.from_index(torch.arange(42).repeat(5), 42)
    on_gpu = flat.cuda().requires_grad_()
    (found,) = torch.autograd.grad(packed_total(on_gpu, layout.to("cuda"), True), on_gpu)
    flat.requires_grad_()
    (expected,) = torch.autograd.grad(packed_total(flat, layout, True), flat)
    torch.testing.assert_close(found.cpu(), expected)
