"""BAR: published values of its parts, landing on the budget, distillation."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mipprune.errors import BudgetError, InputError
from mipprune.graph import Budgets, channel_groups, remove
from mipprune.models import Dataset, build_model
from mipprune.training import BAR, TrainConfig, train
from mipprune.training._barrier import Barrier, barrier, transition
from mipprune.training._soft_costs import volume_terms
from mipprune.training.distillation import Teacher, distillation_loss
from tests.training.digits import DigitsReference
from tests.training.networks import TinyNet, tiny_groups


def test_transition_has_the_published_values() -> None:
    found = [transition(p) for p in (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)]
    assert found == pytest.approx([0, 0.011, 0.070, 0.5, 0.930, 0.989, 1], abs=5e-4)
    assert [transition(p, "exponential") for p in (0, 1)] == pytest.approx([0, 1])
    assert transition(0.5, "exponential") == pytest.approx((1 - math.exp(-2)) / (1 - math.exp(-4)))
    assert transition(2.0) == transition(1.0)


@drawn(st.floats(0, 0.99999), st.floats(0.1, 5), st.floats(0.1, 5))
@settings(derandomize=True, deadline=None)
def test_barrier_is_equation_five(share: float, lower: float, width: float) -> None:
    upper = lower + width
    volume = lower + share * width
    found = float(barrier(torch.tensor(volume, dtype=torch.float64), lower, upper, 1e10))
    expected = (volume - lower) ** 2 / ((upper - lower) * (upper - volume))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_barrier_outside_its_range_and_at_the_start() -> None:
    volumes = torch.tensor([0.5, 1.0, 4.0, 9.0], dtype=torch.float64)
    assert barrier(volumes, 1.0, 4.0, 1e10).tolist() == [0.0, 0.0, 1e10, 1e10]
    # B = V_F / 2: r = .980 and f about 49 at the first step.
    start = Barrier(total=1e6, allowed=5e5, margin=1e-4, slack=0.01, cap=1e10, shape="sigmoid")
    assert start.upper(0.0) == pytest.approx(1.01e6)
    assert start.upper(1.0) == pytest.approx(5e5)
    assert start.lower == pytest.approx(5e5 - 101)
    assert float(start.factor(torch.tensor(1e6).double(), 0.0)) == pytest.approx(49, abs=0.5)


def test_volume_counts_feature_maps() -> None:
    net = TinyNet()
    terms = {t.name: t.coefficient for t in volume_terms(net, tiny_groups())}
    assert terms == {"conv1.weight": 64, "conv2.weight": 64}
    model = build_model("resnet20", in_channels=1, image_size=8, base_width=4)
    groups = channel_groups(model, (torch.zeros(1, 1, 8, 8),))
    sizes: dict[str, int] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            sizes[f"{name}.weight"] = output[0, 0].numel()

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note(name))
    model(torch.zeros(1, 1, 8, 8))
    assert {t.name: t.coefficient for t in volume_terms(model, groups)} == sizes


def test_volume_of_sequences_and_of_transposed_convolutions() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    groups = channel_groups(layer, (torch.zeros(1, 5, 16),))
    terms = {t.name: t.coefficient for t in volume_terms(layer, groups)}
    assert terms == {"self_attn.in_proj_weight": 5, "linear1.weight": 5}
    net = nn.Sequential(nn.ConvTranspose2d(2, 6, 2, stride=2), nn.ReLU(), nn.Conv2d(6, 3, 1))
    groups = channel_groups(net, (torch.zeros(1, 2, 5, 5),))
    assert [t.coefficient for t in volume_terms(net, groups)] == [100]


def test_penalty_is_equation_six() -> None:
    groups, net = tiny_groups(), TinyNet()
    bar = BAR(volume="50%", initial=0.0, strength=1e-3, cap=1e10, total_steps=10)
    bar.prepare(net, groups)
    log_alpha = net.get_submodule("channel_gates").get_parameter("log_alpha")
    # P(z > 0) = sigmoid(log alpha - 2/3 log(.1 / 1.1)); areas are 64, V = V_F = 640 and B = 320.
    active = torch.sigmoid(log_alpha - 2 / 3 * math.log(0.1 / 1.1))
    lower, upper = 320 - 1e-4 * 1.01 * 640, 1.01 * 640
    factor = (640 - lower) ** 2 / ((upper - lower) * (upper - 640))
    expected = 1e-3 * 64 * active.sum() * factor
    torch.testing.assert_close(bar.penalty(), expected, rtol=1e-4, atol=0)
    (found,) = torch.autograd.grad(bar.penalty(), log_alpha)
    (wanted,) = torch.autograd.grad(expected, log_alpha)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=0)
    with torch.no_grad():
        log_alpha[:6] = -2.4
    assert bar.penalty().item() == 0.0
    assert bar.state()[0].cost == 256
    # MACs: bilinear in the probabilities, in units in which the whole costs 640.
    bar = BAR(budget=Budgets(macs="50%"), initial=0.0, strength=1e-3, cap=1e10)
    bar.prepare(net := TinyNet(), groups)
    log_alpha = net.get_submodule("channel_gates").get_parameter("log_alpha")
    active = torch.sigmoid(log_alpha - 2 / 3 * math.log(0.1 / 1.1)).double()
    first, second = active[:4].sum(), active[4:].sum()
    macs = 576 * first + 576 * first * second + 3 * second
    state = bar.state()[0]
    assert state.expected == pytest.approx(macs.item(), rel=1e-5)
    scaled = 1e-3 * 640 * macs / groups.macs() * state.barrier
    assert bar.penalty().item() == pytest.approx(scaled.item(), rel=1e-4)


def test_distillation_is_the_divergence() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(5, 7, generator=generator) for _ in range(2))
    p, q = (F.softmax(logits / 4, dim=1) for logits in (student, teacher))
    expected = 16 * (q * (q.log() - p.log())).sum(dim=1).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, 4.0), expected)
    assert distillation_loss(teacher, teacher, 4.0).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(InputError, match="different shapes"):
        distillation_loss(student, teacher[:, :3], 4.0)


def test_teacher_is_frozen_and_weighs_in() -> None:
    net = TinyNet()
    bar = BAR(volume="100%", distil=0.75, temperature=2.0)
    bar.prepare(net, tiny_groups())
    teacher = Teacher(TinyNet())
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    outputs = net(x)
    with torch.no_grad():
        net.fc.bias.add_(3.0)
    base = torch.tensor(2.0)
    soft = distillation_loss(outputs, teacher.logits((x, None), outputs), 2.0)
    expected = 0.25 * base + 0.75 * soft + bar.penalty()
    torch.testing.assert_close(bar.loss(outputs, (x, None), base), expected)
    assert teacher.logits((x, None), outputs.bfloat16()).dtype == torch.bfloat16
    plain = BAR(volume="100%", distil=0.0)
    plain.prepare(TinyNet(), tiny_groups())
    torch.testing.assert_close(plain.loss(None, None, base), base + plain.penalty())


def test_projection_obeys_the_moving_budget_and_stops_at_the_goal() -> None:
    groups, net = tiny_groups(), TinyNet()
    bar = BAR(volume="50%", total_steps=10, gate_lr=50.0, distil=0.0)
    bar.prepare(net, groups)
    log_alpha = net.get_submodule("channel_gates").get_parameter("log_alpha")
    for step in range(10):
        # Everything is pushed down by far at once.
        log_alpha.grad = torch.linspace(1.0, 2.0, 10) * (1 if step % 2 == 0 else -1e-3)
        bar.after_backward()
        bar.after_step(0.0)
        state = bar.state()[0]
        assert state.cost <= state.moving
        # The optimizer of the loop finds nothing to do.
        assert net.get_submodule("channel_gates").get_parameter("log_alpha").grad is None
    assert 320 - 64 <= bar.state()[0].cost <= 320
    assert all(mask.any() for mask in bar.choose().values())


def train_tiny(bar: BAR, data: Dataset, epochs: int, **options: Any) -> tuple[nn.Module, Any]:
    network = bar.prepare(TinyNet(), tiny_groups())
    config = TrainConfig(epochs=epochs, batch_size=12, lr=0.05, evaluate_every=0, clip_norm=5.0)
    return network, train(network, data, config, method=bar, progress=False, **options)


def test_resumed_run_is_the_same(data: Dataset, tmp_path: Any) -> None:
    def new() -> BAR:
        return BAR(reference=TinyNet(seed=8), volume="40%", total_steps=24, seed=3)

    whole, straight = train_tiny(new(), data, 8)
    stopped = new()
    calls = []
    ordinary = stopped.end_epoch

    def stop(metrics: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return ordinary(metrics)

    stopped.end_epoch = stop  # type: ignore[method-assign]  # a run killed in its fifth epoch
    with pytest.raises(KeyboardInterrupt):
        train_tiny(stopped, data, 8, out=tmp_path)
    network, result = train_tiny(new(), data, 8, out=tmp_path, resume=True)
    for name, value in whole.state_dict().items():
        if isinstance(value, Tensor):
            assert torch.equal(value, network.state_dict()[name]), name
    for first, second in zip(straight.history, result.history, strict=True):
        assert {k: v for k, v in first.items() if k != "seconds"} == {
            k: v for k, v in second.items() if k != "seconds"
        }


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match="total_steps"):
        BAR(total_steps=0)
    with pytest.raises(InputError, match="distil"):
        BAR(distil=1.0)
    with pytest.raises(InputError, match="shape"):
        BAR(shape="linear")  # type: ignore[arg-type]  # what is refused
    with pytest.raises(InputError, match="strength"):
        BAR(strength=math.inf)
    with pytest.raises(InputError, match="percentage"):
        BAR(volume="140%")
    with pytest.raises(BudgetError, match=r"volume=5% .*cannot be reached: .*128 \(20.00%"):
        BAR(volume="5%").prepare(TinyNet(), tiny_groups())


@pytest.mark.parametrize("budget", [pytest.param("volume", marks=pytest.mark.slow), "macs"])
def test_digits_land_on_the_budget(budget: str, digits_reference: DigitsReference) -> None:
    given = digits_reference
    network = copy.deepcopy(given.network)
    options: dict[str, Any] = (
        {"volume": "40%"} if budget == "volume" else {"budget": Budgets(macs="25%")}
    )
    bar = BAR(reference=given.network, total_steps=given.steps(30), **options)
    bar.prepare(network, given.groups)
    train(network, given.data, given.config(30), method=bar, progress=False)
    state = bar.state()[0]
    assert state.name == budget
    assert 0.99 * state.limit <= state.cost <= state.limit
    masks = bar.choose()
    kept = given.groups.kept(masks)
    terms = volume_terms(given.network, given.groups) if budget == "volume" else ()
    taken = sum(t.value(kept) for t in terms) if terms else given.groups.macs(kept)
    assert taken == pytest.approx(state.cost)
    small = remove(bar.finish(network, masks), given.groups, masks)
    train(small, given.data, given.config(5, lr=0.02), progress=False)
    assert given.accuracy(small) >= given.accuracy(given.network) - 0.04
    assert np.isinf(bar.scores()).sum() == 0
