"""Whole small ReLU networks: the task, lossless reductions, bounds and the program."""

from mipprune.formulation.relu_network._bounds import PreactivationBounds, propagate_bounds
from mipprune.formulation.relu_network._model import FORMULATIONS, build_relu_network
from mipprune.formulation.relu_network._network import ReLUNetwork
from mipprune.formulation.relu_network._reductions import Reduction, reduce_losslessly
from mipprune.formulation.relu_network._task import OBJECTIVES, NetworkPruning

__all__ = [
    "FORMULATIONS",
    "OBJECTIVES",
    "NetworkPruning",
    "PreactivationBounds",
    "ReLUNetwork",
    "Reduction",
    "build_relu_network",
    "propagate_bounds",
    "reduce_losslessly",
]
