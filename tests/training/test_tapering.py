"""Tapering: the multiplier, the rate, the levels of one run."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mipprune.errors import InputError
from mipprune.graph import Budgets, remove
from mipprune.models import Dataset
from mipprune.training import Level, Tapering, TrainConfig, train
from mipprune.training._soft_costs import SoftCost
from mipprune.training._tapered_motion import constrained_step, multiplier
from mipprune.training._tapered_rate import RateControl
from tests.training.digits import DigitsReference
from tests.training.networks import TinyNet, tiny_groups

N_STEPS = 60


def quick(**options: Any) -> Tapering:
    return Tapering(**{"total_steps": N_STEPS, "allowance": 0.5, **options})


def run(
    method: Tapering,
    data: Dataset,
    *,
    epochs: int = 20,
    net: nn.Module | None = None,
    **options: Any,
) -> tuple[nn.Module, tuple[Any, ...]]:
    network = method.prepare(TinyNet() if net is None else net, tiny_groups())
    config = TrainConfig(epochs=epochs, batch_size=12, lr=0.05, evaluate_every=0)
    return network, train(network, data, config, method=method, progress=False, **options).history


def random_instance(seed: int) -> tuple[SoftCost, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    cost = SoftCost(tiny_groups().mac_terms, 10)
    theta = 0.2 + 0.6 * torch.rand(10, generator=generator, dtype=torch.float64)
    slope = torch.randn(10, generator=generator, dtype=torch.float64)
    metric = 0.1 + torch.rand(10, generator=generator, dtype=torch.float64)
    return cost, theta, slope, metric


def test_soft_cost_is_the_counted_one_at_zero_and_one_and_multilinear_between() -> None:
    groups = tiny_groups()
    cost = SoftCost(groups.mac_terms, 10)
    rng = np.random.default_rng(0)
    for _ in range(20):
        kept = rng.random(10) > 0.5
        assert float(cost(torch.from_numpy(kept))) == groups.macs(kept)
    theta = torch.rand(10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    theta.requires_grad_()
    # conv1 reads one channel on 8 x 8, conv2 joins both widths, fc reads the second.
    first, second = theta[:4].sum(), theta[4:].sum()
    by_hand = 9 * 64 * first + 9 * 64 * first * second + 3 * second
    torch.testing.assert_close(cost(theta), by_hand)
    assert torch.autograd.gradcheck(cost, (theta,))


@pytest.mark.parametrize("seed", range(5))
def test_multiplier_gives_the_wanted_decrease_to_first_order(seed: int) -> None:
    cost, theta, slope, metric = random_instance(seed)
    leaf = theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cost(leaf), leaf)
    before = float(cost(theta))
    # Large enough that mu is positive: the data alone do not lower the cost so much.
    rho = float((gradient * metric * slope).abs().sum()) + 50.0
    mu = multiplier(slope, gradient, metric, rho, 1.0)
    assert mu > 0
    rate = -metric * (slope + mu * gradient)
    assert float((gradient * rate).sum()) == pytest.approx(-rho)
    for h in (1e-4, 1e-5):
        change = float(cost(theta + h * rate)) - before
        assert change == pytest.approx(-rho * h, rel=2e-3 * h / 1e-5)
    # Where the data lower it faster than wanted, nothing pushes the gates open.
    assert multiplier(slope.abs(), gradient, metric, 0.0, 1.0) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_step_ends_on_the_surface_within_bounds(seed: int) -> None:
    cost, theta, slope, metric = random_instance(seed)
    theta[:3] = 1.0
    slope[:3] = -1e6
    slope[3:] = slope[3:].abs() * -1
    lower = torch.zeros(10, dtype=torch.float64)
    theta[9] = lower[9] = 0.05
    slope[9], theta[8], slope[8] = 1e6, 0.0, -1e6
    movable = torch.ones(10, dtype=torch.bool)
    movable[8] = False
    before = float(cost(theta))
    motion = constrained_step(theta, slope, metric, cost, 0.97 * before, 1e-4, lower, movable)
    assert float(cost(motion.theta)) == pytest.approx(0.97 * before, rel=1e-8)
    assert motion.multiplier > 0
    # Gates at 1 that the data hold there do not move, nor one at its lower bound or a removed one.
    assert (motion.theta[:3] == 1).all()
    assert not motion.free[:3].any()
    assert motion.theta[9] == 0.05
    assert motion.theta[8] == 0.0
    assert (motion.theta >= lower).all()
    assert (motion.theta <= 1).all()


def test_rate_follows_the_loss_and_the_deadline() -> None:
    def control(binding: bool) -> RateControl:
        made = RateControl(1000, 10, 0.7, 0.1, binding, allowance=0.1, reaction=0.02)
        for _ in range(10):
            made.see(2.0)
            made.step += 1
        made.step = 11
        return made

    free = control(False)
    assert free.reference == pytest.approx(2.0)
    assert free.limit == pytest.approx(2.1)
    assert free.tapering(1.0)
    # exp(.02): nothing of the allowance is used.
    assert free.rate == pytest.approx(free.first * math.exp(0.02))
    # Half of the allowance used: neither faster nor slower; beyond all of it: a pause.
    free.average, rate = 2.05, free.rate
    assert free.tapering(0.9)
    assert free.rate == pytest.approx(rate)
    for _ in range(100):
        free.see(3.0)
        free.tapering(0.9)
    assert not free.tapering(0.9)
    assert free.rate == pytest.approx(0.01 * free.first)
    for _ in range(500):
        free.see(1.0)
        free.tapering(0.8)
    assert free.tapering(0.8)
    assert free.rate == pytest.approx(2 * free.first)
    bound = control(True)
    for _ in range(200):
        bound.see(9.0)
        assert bound.tapering(0.5)
    # log(.5 / .1) in the 689 steps that are left.
    assert bound.rate == pytest.approx(math.log(5) / 689)
    early = RateControl(1000, 10, 0.7, 0.1, False, allowance=0.1, reaction=0.02)
    assert not early.tapering(1.0)


def test_one_run_leaves_a_network_at_every_level(data: Dataset) -> None:
    told: list[float] = []
    method = quick(levels=(0.7, 0.4, 0.2), on_level=lambda level: told.append(level.level))
    network, history = run(method, data)
    levels = method.levels
    assert [level.level for level in levels] == told == [0.7, 0.4, 0.2]
    groups = tiny_groups()
    assert [level.step for level in levels] == sorted(level.step for level in levels)
    for level in levels[:-1]:
        assert level.cost <= level.level
        masks = method.choose(Budgets(macs=round(level.cost * groups.macs())))
        kept = groups.kept(masks)
        assert kept.tolist() == (level.scores > 0).tolist()
        done = method.finish(copy.deepcopy(network), masks)
        # Weights of that level, with its gates multiplied in.
        theta = level.weights["channel_gates.theta"]
        stored = level.weights["fc.parametrizations.weight.original"]
        expected = stored * theta[4:] * torch.from_numpy(kept[4:])
        torch.testing.assert_close(done.get_parameter("fc.weight").detach(), expected)
    costs = [record["taper_cost"] for record in history]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] <= 0.2
    # Removed channels stay removed.
    assert ((levels[0].scores > 0) | (levels[1].scores <= 0)).all()


def test_every_family_keeps_its_minimum(data: Dataset) -> None:
    method = quick(levels=(0.01,), allowance=50.0)
    run(method, data)
    gates = method.gates()
    assert (gates[:4] > 0).sum() >= 1
    assert (gates[4:] > 0).sum() >= 1


def test_masks_from_elsewhere_get_the_weights_of_the_nearest_level(data: Dataset) -> None:
    method = quick(levels=(0.5, 0.2))
    network, _ = run(method, data)
    masks = method.choose(Budgets(macs="50%"))
    expected = method.finish(copy.deepcopy(network), masks)
    method._bound.origin.clear()
    found = method.finish(copy.deepcopy(network), masks)
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value, expected.state_dict()[name])


def test_resumed_run_is_the_same(data: Dataset, tmp_path: Any) -> None:
    whole, straight = run(quick(), data, epochs=8)
    config = TrainConfig(epochs=8, batch_size=12, lr=0.05, evaluate_every=0)
    method = quick()
    network = method.prepare(TinyNet(), tiny_groups())
    calls = []
    ordinary = method.end_epoch

    def stop(metrics: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return ordinary(metrics)

    method.end_epoch = stop  # type: ignore[method-assign]  # a run that is killed in its sixth epoch
    with pytest.raises(KeyboardInterrupt):
        train(network, data, config, method=method, out=tmp_path, progress=False)
    again = quick()
    network = again.prepare(TinyNet(seed=5), tiny_groups())
    result = train(network, data, config, method=again, out=tmp_path, resume=True, progress=False)
    for name, value in whole.state_dict().items():
        if isinstance(value, Tensor):
            assert torch.equal(value, network.state_dict()[name]), name
    drop = ("seconds",)
    for first, second in zip(straight, result.history, strict=True):
        assert {k: v for k, v in first.items() if k not in drop} == {
            k: v for k, v in second.items() if k not in drop
        }
    assert isinstance(again.levels[0], Level)


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match="levels"):
        Tapering(levels=(1.5,))
    with pytest.raises(InputError, match="resource"):
        Tapering(resource="latency")  # type: ignore[arg-type]  # what is refused
    with pytest.raises(InputError, match="observe"):
        Tapering(observe=0.8)
    with pytest.raises(InputError, match="allowance"):
        Tapering(allowance=0.0)
    assert Tapering(budget=Budgets(params="30%")).resource == "params"
    assert Tapering(budget=Budgets(params="30%", macs="20%")).resource == "macs"


def test_digits_loss_stays_within_the_allowance(digits_reference: DigitsReference) -> None:
    given = digits_reference
    network = copy.deepcopy(given.network)
    method = Tapering(total_steps=given.steps(40), allowance=0.1, levels=(0.75, 0.5, 0.25, 0.1))
    method.prepare(network, given.groups)
    history = train(network, given.data, given.config(40), method=method, progress=False).history
    started = [record for record in history if record["taper_cost"] < 1]
    assert all(r["taper_loss"] <= r["taper_loss_limit"] for r in started)
    assert {0.75, 0.5, 0.25} <= {level.level for level in method.levels}
    # Most gates are 0 or 1: the soft cost means something.
    assert np.mean((method.gates() > 0) & (method.gates() < 1)) < 0.15
    for share, loss in ((50, 0.02), (25, 0.05)):
        masks = method.choose(Budgets(macs=f"{share}%"))
        done = method.finish(copy.deepcopy(network), masks)
        small = remove(done, given.groups, masks)
        train(small, given.data, given.config(3, lr=0.02), progress=False)
        assert given.accuracy(small) >= given.accuracy(given.network) - loss
