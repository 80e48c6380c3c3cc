"""The scales of norms as carriers of importance."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from mipprune.errors import InputError
from mipprune.graph.groups import ChannelGroups

__all__ = ["NormScales", "find_norm_scales"]

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True, eq=False)
class NormScales:
    """Which norm scales belong to which class.

    Attributes
    ----------
    modules : tuple of str
        Norms whose ``weight`` carries channels.
    owners : tuple of int64 arrays
        For each the class of every position, ``FROZEN`` where none.
    n_classes : int
    """

    modules: tuple[str, ...]
    owners: tuple[NDArray[np.int64], ...]
    n_classes: int

    def weights(self, model: nn.Module) -> list[Tensor]:
        """Scales of all these norms, each float (channels,)."""
        return [_weight(model.get_submodule(name)) for name in self.modules]

    @torch.no_grad()
    def scores(self, model: nn.Module) -> NDArray[np.float64]:
        """Largest \\|scale\\| over the norms of each class, float64 (n_classes,).

        A class with several tied norms (a residual stream) is as alive as its
        liveliest one; one without a norm gets infinity.
        """
        found = np.full(self.n_classes, -np.inf)
        for owner, weight in zip(self.owners, self.weights(model), strict=True):
            values = weight.detach().abs().double().cpu().numpy()
            np.maximum.at(found, owner[owner >= 0], values[owner >= 0])
        found[np.isneginf(found)] = np.inf
        return found


def find_norm_scales(
    model: nn.Module, groups: ChannelGroups, *, batch_norms_only: bool = False
) -> NormScales:
    """The norms of ``model`` whose scales carry prunable channels.

    Raises
    ------
    InputError
        There is none, or the groups describe another network.
    """
    kinds = nn.modules.batchnorm._BatchNorm if batch_norms_only else _NORMS
    modules = dict(model.named_modules())
    names: list[str] = []
    owners: list[NDArray[np.int64]] = []
    for axis in groups.axes:
        name, _, tensor = axis.tensor.rpartition(".")
        if tensor != "weight" or axis.role != "carry" or not isinstance(modules.get(name), kinds):
            continue
        weight = modules[name].weight
        if not isinstance(weight, Tensor) or weight.shape != axis.owner.shape:
            raise InputError(
                f"the channel groups describe another network: '{axis.tensor}' should have "
                f"{len(axis.owner)} entries"
            )
        names.append(name)
        owners.append(axis.owner)
    if not names:
        kind = "batch norm" if batch_norms_only else "norm"
        raise InputError(
            f"this method reads the importance of channels from the scales of {kind}s, and no "
            f"{kind} with a scale follows a prunable layer of this network; choose a method that "
            "goes by weights, such as l1-norm or group-lasso"
        )
    return NormScales(tuple(names), tuple(owners), groups.n_classes)


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    if not isinstance(weight, Tensor):
        raise InputError(f"{type(module).__name__} lost its scale")
    return weight
