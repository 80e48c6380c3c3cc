"""Settings of each phase by data set: the one place for tuned defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Recipe", "recipe_for"]


@dataclass(frozen=True)
class Recipe:
    """How a data set is trained, pruned and fine-tuned unless the user says otherwise.

    Attributes
    ----------
    dense, train, tune : int
        Epochs of the dense reference, of training with the method, and of
        fine-tuning.
    tune_lr : float
        Highest learning rate of fine-tuning, as a share of that of training.
    training : mapping
        Fields of ``TrainConfig`` for all phases.
    methods : mapping
        Method name -> constructor arguments tuned for this data set.
    networks : mapping
        Name of a network -> options of ``build_model`` for it.
    """

    dense: int
    train: int
    tune: int
    tune_lr: float = 0.2
    training: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


_STRIDED = {f"resnet{depth}": {"stem_stride": 2} for depth in (20, 32, 56, 110)}

# The penalty moves weights by about lr * strength per step: the fewer the steps, the
# stronger it has to be. Strengths were chosen on the validation split, seed 0.
_RECIPES: Mapping[str, Recipe] = {
    "digits": Recipe(
        dense=20,
        train=20,
        tune=10,
        training={"batch_size": 64, "warmup_epochs": 1.0, "label_smoothing": 0.1},
        methods={
            "spr": {"alpha": 0.1, "strength": 10.0},
            "spr-budget": {"strength": 3.0},
            # Chosen in 8 epochs of a narrow ResNet-20 (benchmarks/compare_digits.toml).
            "rni": {"strength": 0.01},
            "slimming": {"strength": 0.01},
            "group-lasso": {"strength": 1.0},
            "swd": {"filters": True},
        },
    ),
    "fashion-mnist": Recipe(
        dense=8,
        train=5,
        tune=3,
        training={"warmup_epochs": 0.5, "precision": "bf16"},
        # spr-budget: the digits' strength at 13 times the steps; not tuned here.
        methods={"spr": {"alpha": 0.1, "strength": 0.7}, "spr-budget": {"strength": 0.25}},
        networks=_STRIDED,
    ),
    "mnist": Recipe(
        dense=5,
        train=5,
        tune=3,
        training={"warmup_epochs": 0.5, "precision": "bf16"},
        # spr-budget: the digits' strength at 13 times the steps; not tuned here.
        methods={"spr": {"alpha": 0.1, "strength": 0.7}, "spr-budget": {"strength": 0.25}},
        networks=_STRIDED,
    ),
    # As the authors train (papers give 300 + 200 epochs), at half the length; not measured here.
    "cifar10": Recipe(
        dense=160,
        train=160,
        tune=60,
        training={"warmup_epochs": 1.0, "precision": "bf16"},
        methods={"spr": {"alpha": 0.1, "strength": 0.8}},
    ),
    "cifar100": Recipe(
        dense=160,
        train=160,
        tune=60,
        training={"warmup_epochs": 1.0, "precision": "bf16", "batch_size": 64},
        methods={"spr": {"alpha": 0.1, "strength": 0.5}},
    ),
}
_OTHER = Recipe(dense=30, train=30, tune=10, training={"warmup_epochs": 0.5})


def recipe_for(data: str) -> Recipe:
    """The recipe of a data set by name; a general one where the name is not known."""
    return _RECIPES.get(data, _OTHER)
