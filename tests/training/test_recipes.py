"""Recipes build what they describe."""

import pytest
import torch

from mipprune.models import build_model, data_names
from mipprune.training import TrainConfig, build_method, recipe_for


@pytest.mark.parametrize("data", [*data_names(), "package.module:factory"])
def test_settings_are_accepted(data: str) -> None:
    recipe = recipe_for(data)
    for epochs in (recipe.dense, recipe.train, recipe.tune):
        config = TrainConfig(epochs=epochs, **recipe.training)
        assert config.learning_rate(epochs / 2) > 0
    assert 0 < recipe.tune_lr <= 1
    for name, options in recipe.methods.items():
        build_method(name, offered={"reference": torch.nn.Linear(1, 1)}, **options)
    for name, options in recipe.networks.items():
        build_model(name, in_channels=1, image_size=28, **options)
