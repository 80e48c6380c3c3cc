"""Epochs and learning rates of the phases where the settings leave them open."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mipprune.errors import InputError
from mipprune.models import Dataset, DataSource
from mipprune.pipeline._config import PruneConfig
from mipprune.training import TrainConfig

__all__ = ["Recipe", "method_options", "phase_settings", "recipe_of"]


@dataclass(frozen=True)
class Recipe:
    """Epochs of the three phases, and training settings that differ from the defaults.

    Attributes
    ----------
    dense, train, tune : int
        Epochs.
    tune_lr : float
        Highest learning rate of fine-tuning, as a share of that of training.
    training : mapping
        Fields of ``TrainConfig``.
    methods : mapping
        Method name -> its options, where the method's own defaults do not suit
        the number of steps; chosen on validation data.
    """

    dense: int
    train: int
    tune: int
    tune_lr: float = 0.2
    training: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


_SMALL_IMAGES = {"warmup_epochs": 0.5}
_RECIPES: Mapping[str, Recipe] = {
    "digits": Recipe(
        20,
        20,
        10,
        training={"batch_size": 64, "warmup_epochs": 1.0, "label_smoothing": 0.1},
        methods={"spr": {"strength": 20.0}},
    ),
    "fashion-mnist": Recipe(8, 5, 3, training=_SMALL_IMAGES),
    "mnist": Recipe(5, 5, 3, training=_SMALL_IMAGES),
    "cifar10": Recipe(160, 160, 60, training={"warmup_epochs": 1.0}),
    "cifar100": Recipe(160, 160, 60, training={"warmup_epochs": 1.0}),
}
_OTHER = Recipe(30, 30, 10, training={"warmup_epochs": 0.5})


def recipe_of(data: str) -> Recipe:
    """The recipe of a data set by name; one for all whose name is not known."""
    return _RECIPES.get(data, _OTHER)


def recipe_for(config: PruneConfig, data: Dataset | DataSource) -> Recipe:
    """The recipe of the data that a run uses."""
    return recipe_of(data.name if isinstance(data, Dataset) else config.data)


def method_options(config: PruneConfig, data: Dataset | DataSource) -> dict[str, Any]:
    """Options of the method: those of the recipe, and over them those of the settings."""
    return {**recipe_for(config, data).methods.get(config.method, {}), **config.method_options}


def phase_settings(config: PruneConfig, data: Dataset | DataSource) -> dict[str, TrainConfig]:
    """``TrainConfig`` by phase; ``tune`` is left out for 0 epochs.

    Raises
    ------
    InputError
        An unknown training setting, or one with a value that is refused.
    """
    recipe = recipe_for(config, data)
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
