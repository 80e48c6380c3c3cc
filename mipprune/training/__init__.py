"""Training: one loop and the methods that plug into it."""

from mipprune.training.baselines import Dense, L1Norm
from mipprune.training.bounds import measure_big_m
from mipprune.training.checkpoint import ResumeWarning
from mipprune.training.config import TrainConfig
from mipprune.training.evaluation import Criterion, Evaluation, classification_loss, evaluate
from mipprune.training.l0 import L0
from mipprune.training.loop import TrainResult, train
from mipprune.training.method import Method, ParameterGroup, optimizer_groups
from mipprune.training.recipes import Recipe, recipe_for
from mipprune.training.registry import OFFERED, build_method, method_class, method_names
from mipprune.training.spr import SPR, SPRState

__all__ = [
    "L0",
    "OFFERED",
    "SPR",
    "Criterion",
    "Dense",
    "Evaluation",
    "L1Norm",
    "Method",
    "ParameterGroup",
    "Recipe",
    "ResumeWarning",
    "SPRState",
    "TrainConfig",
    "TrainResult",
    "build_method",
    "classification_loss",
    "evaluate",
    "measure_big_m",
    "method_class",
    "method_names",
    "optimizer_groups",
    "recipe_for",
    "train",
]
