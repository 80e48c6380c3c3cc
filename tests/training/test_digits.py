"""SPR on real data, with the tuned recipe."""

import numpy as np
import pytest
import torch

from mipprune.graph import channel_groups, remove
from mipprune.graph.budgets import Budgets
from mipprune.models import build_model, load_data
from mipprune.training import SPR, TrainConfig, evaluate, recipe_for, train

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


def accuracy(model: torch.nn.Module, data: object) -> float:
    found = evaluate(model, data, "test").accuracy  # type: ignore[arg-type]  # a Dataset
    assert found is not None
    return found


@pytest.mark.slow
def test_digits_at_forty_percent_of_the_macs() -> None:
    data = load_data("digits")
    recipe = recipe_for("digits")
    networks = [
        build_model(
            "resnet20",
            in_channels=1,
            image_size=8,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in range(2)
    ]
    reference, model = networks
    config = TrainConfig(epochs=recipe.dense, evaluate_every=0, **recipe.training)
    train(reference, data, config, progress=False)
    dense = accuracy(reference, data)
    assert dense >= 0.98
    groups = channel_groups(model, (torch.zeros(1, 1, 8, 8),))
    spr = SPR(reference=reference, **recipe.methods["spr"])
    spr.prepare(model, groups)
    before = spr.gates()
    config = TrainConfig(epochs=recipe.train, evaluate_every=0, **recipe.training)
    train(model, data, config, method=spr, progress=False)
    gates = spr.gates()
    # Two heaps: a good part of the channels is practically gone, others are not.
    assert (before > 0.1).all()
    assert np.mean(gates < 0.01) > 0.25
    assert np.mean(gates > 0.1) > 0.25
    masks = spr.choose(Budgets(macs="40%"))
    small = remove(spr.finish(model, masks), groups, masks)
    assert accuracy(small, data) > dense - 0.03
    config = TrainConfig(
        epochs=recipe.tune, lr=0.1 * recipe.tune_lr, evaluate_every=0, **recipe.training
    )
    train(small, data, config, progress=False)
    assert accuracy(small, data) > dense - 0.015
