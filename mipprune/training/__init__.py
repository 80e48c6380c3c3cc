"""Training: one loop and the methods that plug into it."""

from mipprune.training.bar import BAR, BARState
from mipprune.training.bar_mixed import MixedBAR
from mipprune.training.baselines import Dense, L1Norm
from mipprune.training.bounds import measure_big_m
from mipprune.training.checkpoint import ResumeWarning
from mipprune.training.config import TrainConfig
from mipprune.training.evaluation import Criterion, Evaluation, classification_loss, evaluate
from mipprune.training.geometric_median import GeometricMedian
from mipprune.training.group_lasso import GroupLasso
from mipprune.training.l0 import L0
from mipprune.training.l1_uniform import L1Uniform
from mipprune.training.loop import TrainResult, train
from mipprune.training.method import Method, ParameterGroup, optimizer_groups
from mipprune.training.random_choice import RandomChoice
from mipprune.training.recipes import Recipe, recipe_for
from mipprune.training.registry import OFFERED, build_method, method_class, method_names
from mipprune.training.rni import RNI
from mipprune.training.slimming import Slimming
from mipprune.training.spr import SPR, SPRState
from mipprune.training.spr_budget import BudgetedSPR
from mipprune.training.swd import SWD
from mipprune.training.tapering import Level, Tapering
from mipprune.training.taylor import Taylor

__all__ = [
    "BAR",
    "L0",
    "OFFERED",
    "RNI",
    "SPR",
    "SWD",
    "BARState",
    "BudgetedSPR",
    "Criterion",
    "Dense",
    "Evaluation",
    "GeometricMedian",
    "GroupLasso",
    "L1Norm",
    "L1Uniform",
    "Level",
    "Method",
    "MixedBAR",
    "ParameterGroup",
    "RandomChoice",
    "Recipe",
    "ResumeWarning",
    "SPRState",
    "Slimming",
    "Tapering",
    "Taylor",
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
