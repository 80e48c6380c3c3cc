"""What the recipe of the data set fills in where the settings leave it open."""

from dataclasses import fields
from typing import Any

from mipprune.errors import InputError
from mipprune.models import Dataset, DataSource
from mipprune.pipeline._config import PruneConfig
from mipprune.training import TrainConfig
from mipprune.training.recipes import Recipe, recipe_for

__all__ = ["method_options", "model_options", "phase_settings"]


def _recipe(config: PruneConfig, data: Dataset | DataSource) -> Recipe:
    return recipe_for(data.name if isinstance(data, Dataset) else config.data)


def method_options(config: PruneConfig, data: Dataset | DataSource) -> dict[str, Any]:
    """Options of the method: those of the recipe, and over them those of the settings."""
    recipe = _recipe(config, data)
    return {**recipe.methods.get(config.method, {}), **config.method_options}


def model_options(config: PruneConfig, data: Dataset | DataSource) -> dict[str, Any]:
    """Options of the network: those of the recipe, and over them those of the settings."""
    recipe = _recipe(config, data)
    return {**recipe.networks.get(config.model, {}), **config.model_options}


def phase_settings(config: PruneConfig, data: Dataset | DataSource) -> dict[str, TrainConfig]:
    """``TrainConfig`` by phase; ``tune`` is left out for 0 epochs.

    Raises
    ------
    InputError
        An unknown training setting, or one with a value that is refused.
    """
    recipe = _recipe(config, data)
    common = {**recipe.training, **config.training}
    known = {entry.name for entry in fields(TrainConfig)}
    unknown = sorted(set(common) - known)
    if unknown:
        raise InputError(
            f"unknown training setting {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    if isinstance(common.get("milestones"), list):
        common["milestones"] = tuple(common["milestones"])
    epochs = {
        "dense": recipe.dense if config.dense_epochs is None else config.dense_epochs,
        "train": recipe.train if config.epochs is None else config.epochs,
        "tune": recipe.tune if config.tune_epochs is None else config.tune_epochs,
    }
    settings = {}
    for phase, count in epochs.items():
        if count == 0:
            continue
        own = {**common, "epochs": count, "seed": config.seed, "device": config.device}
        own["warmup_epochs"] = min(own.get("warmup_epochs", 0.0), count)
        if phase == "tune":
            own["lr"] = recipe.tune_lr * own.get("lr", TrainConfig(epochs=1).lr)
        settings[phase] = TrainConfig(**own)
    return settings
