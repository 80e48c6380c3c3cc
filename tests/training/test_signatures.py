"""What the papers promise, on the digits: two heaps for RNI, no loss at the cut for SWD."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mipprune.graph import channel_groups, count_parameters, remove
from mipprune.graph.budgets import Budgets
from mipprune.models import Dataset, build_model, load_data
from mipprune.training import SWD, Method, TrainConfig, build_method, evaluate, train
from mipprune.training._swd_selection import WeightSelector
from tests.training.digits import DigitsNet, DigitsReference

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

EPOCHS = 12
CONFIG = TrainConfig(
    epochs=EPOCHS, batch_size=64, warmup_epochs=1.0, label_smoothing=0.1, evaluate_every=0
)
INPUTS = (torch.zeros(1, 1, 8, 8),)


def trained(name: str, **options: Any) -> tuple[torch.nn.Module, Method, Any, Dataset]:
    """ResNet-20 with 8, 16 and 32 channels, with a method, 12 epochs."""
    data = load_data("digits")
    assert isinstance(data, Dataset)
    network = build_model(
        "resnet20", in_channels=1, image_size=8, base_width=8,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    groups = channel_groups(network, INPUTS)
    method = build_method(name, **options)
    network = method.prepare(network, groups)
    train(network, data, CONFIG, method=method, progress=False)
    return network, method, groups, data


def accuracy(network: torch.nn.Module, data: Dataset) -> float:
    found = evaluate(network, data, "test").accuracy
    assert found is not None
    return found


def heaps(scores: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean height of a histogram over scores / largest: below .2, from .2 to .5, above."""
    share, _ = np.histogram(scores / scores.max(), bins=10, range=(0.0, 1.0))
    heights = share / share.sum()
    return float(heights[:2].mean()), float(heights[2:5].mean()), float(heights[5:].mean())


@pytest.mark.slow
def test_importances_of_rni_have_two_heaps_and_those_of_l1_one() -> None:
    network, rni, _, data = trained("rni", strength=0.02, shift=1.0)
    assert accuracy(network, data) > 0.95
    low, valley, high = heaps(rni.scores())
    assert low > 2 * valley
    assert high > 1.5 * valley
    for strength in (0.005, 0.01):
        network, slimming, _, _ = trained("slimming", strength=strength)
        assert accuracy(network, data) > 0.95
        low, valley, high = heaps(slimming.scores())
        assert low < valley or valley > high  # one heap: about the mean, or against zero


@pytest.mark.slow
@pytest.mark.parametrize("keep", [0.25, 0.1])
def test_swd_loses_nothing_at_the_final_cut(keep: float) -> None:
    steps = EPOCHS * 19
    network, method, groups, data = trained("swd", total_steps=steps, keep=keep, filters=True)
    before = accuracy(network, data)
    masks = method.choose()
    small = remove(method.finish(network, masks), groups, masks)
    assert count_parameters(small) <= keep * count_parameters(network)
    assert accuracy(small, data) == before > 0.9


@pytest.mark.slow
def test_at_few_parameters_swd_holds_where_slimming_collapses() -> None:
    """Without fine-tuning, 5 % of the weights (SWD) and of the parameters (slimming)."""
    steps = EPOCHS * 19
    network, method, groups, data = trained("swd", total_steps=steps, keep=0.05, filters=True)
    masks = method.choose()
    small = remove(method.finish(network, masks), groups, masks)
    kept = accuracy(small, data)
    network, slimming, groups, _ = trained("slimming", strength=0.01)
    masks = slimming.choose(Budgets(params="5%"))
    collapsed = accuracy(remove(network, groups, masks), data)
    assert kept > 0.6 > 0.3 > collapsed


def test_at_a_fortieth_of_the_weights_swd_holds_where_one_shot_magnitude_is_at_chance(
    digits_reference: DigitsReference,
) -> None:
    """2.5 % of all weights, none fine-tuned. Short training: mu is ten times the default."""
    reference, keep = digits_reference, 0.025
    cut = copy.deepcopy(reference.network)
    selector = WeightSelector(cut, reference.groups, keep)
    selector.select()
    with torch.no_grad():
        for parameter, gone in selector.pairs():
            parameter.masked_fill_(gone, 0.0)
    assert reference.accuracy(cut) < 0.3
    swd = SWD(total_steps=reference.steps(24), structure="weights", keep=keep, mu=5e-3)
    network = swd.prepare(DigitsNet(seed=1), reference.groups)
    train(network, reference.data, reference.config(24), method=swd, progress=False)
    before = reference.accuracy(network)
    done = swd.finish(network, swd.choose())
    weights = torch.cat([p.detach().reshape(-1) for n, p in done.named_parameters() if p.ndim > 1])
    assert float((weights != 0).float().mean()) == pytest.approx(keep, abs=1e-3)
    assert reference.accuracy(done) > before - 0.05 > 0.8
