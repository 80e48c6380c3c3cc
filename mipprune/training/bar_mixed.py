"""BAR with mixed connectivity: masks on branch features apart from those on the stream.

    x' = s * x,     y = relu( m * F(x') + shortcut(x') )

Every block has its own masks s (of the features that enter) and m (of what its
branch produces, behind the last norm), beside those inside the branch. A
feature is then added to, passed on, made anew or gone, and a block whose m is
empty is only its shortcut.

References
----------
Lemaire, Achkar, Jodoin, "Structured Pruning of Neural Networks with
Budget-Aware Regularization", CVPR 2019, section on residual networks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune.errors import InputError
from mipprune.graph.budgets import Budgets
from mipprune.graph.groups import ChannelGroups, CostTerm, Masks
from mipprune.training._mixed_groups import MixedLayout, mixed_groups
from mipprune.training.bar import BAR
from mipprune.training.gates import GATES_NAME, ChannelGates, add_gates, drop_gates
from mipprune.training.mixed_connectivity import branch_layers, realise_mixed, residual_blocks

__all__ = ["MixedBAR"]


class MixedBAR(BAR):
    """BAR whose residual blocks lose branch and stream features independently.

    For residual networks of this package with identity or projection shortcuts
    (``resnet20b``, ``resnet18``, ``resnet50``, ...). Settings are those of :class:`BAR`.
    Budgets count the network that is realised; masks of features that nothing
    brings or reads any more are closed at the end.

    :meth:`choose` names families by block (``layer1.0.entering``, ``layer1.0.conv1``,
    ...), other than those of the ``groups`` given to :meth:`prepare`, and
    :meth:`finish` returns the smaller network itself: ``remove`` has nothing to do.
    """

    _layout: MixedLayout | None = None

    def choose(self, budget: Budgets | None = None) -> Masks:
        """As :meth:`BAR.choose`, by block; closed where nothing comes or nothing reads."""
        layout, groups = self._mixed, self._bound.groups
        kept = groups.kept(super().choose(budget))
        return groups.masks(layout.settle(kept, self.scores()))

    def finish(self, model: nn.Module, masks: Masks) -> nn.Module:
        """The smaller network, of mixed-connectivity blocks; ``model`` loses its gates.

        Deterministic masks are multiplied into norms, convolutions and classifier, those of
        entering features into the ``scale`` of the block.
        """
        layout, groups = self._mixed, self._bound.groups
        kept = groups.kept(masks)
        values = self._bound.deterministic().detach().cpu() * torch.from_numpy(kept)
        _unhook(model)
        drop_gates(model)
        _fold(model, layout, values)
        small = realise_mixed(model, layout.masks(kept))
        stream = np.flatnonzero(kept[layout.entering[0]])
        for (_, block), places in zip(_realised_blocks(small), layout.entering, strict=False):
            scale = values[torch.from_numpy(places[stream])]
            block.get_buffer("scale").copy_(scale)
            stream = block.stream
        return small.train(model.training)

    def _masked(
        self, model: nn.Module, groups: ChannelGroups
    ) -> tuple[ChannelGroups, tuple[CostTerm, ...], NDArray[np.bool_]]:
        if groups.example is None:
            raise InputError(
                "mixed connectivity runs the network once to know the sizes of its maps; give "
                "groups of channel_groups(model, example_inputs)"
            )
        device = next(model.parameters()).device
        given = groups.example.args
        inputs = tuple(x.to(device) if isinstance(x, Tensor) else x for x in given)
        mixed, self._layout, volume = mixed_groups(model, inputs)
        return mixed, volume, np.ones(mixed.n_classes, dtype=bool)

    def _attach(self, model: nn.Module, groups: ChannelGroups, gates: ChannelGates) -> None:
        layout, blocks = self._mixed, residual_blocks(model)
        for index, (_, block) in enumerate(blocks):
            block.register_forward_pre_hook(_Gate(gates, layout.entering[index], entering=True))
            rows = (*layout.inner[index], layout.branch[index])
            for (_, norm), places in zip(branch_layers(block), rows, strict=True):
                norm.register_forward_hook(_Gate(gates, places, entering=False))
        last = _Gate(gates, layout.entering[-1], entering=False)
        blocks[-1][1].register_forward_hook(last)
        add_gates(model, gates)

    @property
    def _mixed(self) -> MixedLayout:
        if self._layout is None:
            raise InputError("call prepare(model, groups) before using the method")
        return self._layout


class _Gate:
    """Hook that multiplies what enters or leaves a module by some of the gates."""

    def __init__(self, gates: ChannelGates, places: NDArray[np.int64], *, entering: bool) -> None:
        self.gates, self.entering = gates, entering
        self.places = torch.from_numpy(places)

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...], *output: Tensor) -> Tensor:
        value = args[0] if self.entering else output[0]
        own = self.gates()[self.places.to(value.device)]
        scaled: Tensor = value * own.to(value.dtype).view(1, -1, 1, 1)
        return scaled


def _realised_blocks(small: nn.Module) -> list[tuple[str, Any]]:
    """Names and blocks of a realised network, in the order of execution."""
    stages = [(n, m) for n, m in small.named_children() if n.startswith("layer")]
    return [(f"{n}.{i}", b) for n, stage in stages for i, b in stage.named_children()]


def _unhook(model: nn.Module) -> None:
    """Take the gates' hooks off, in place."""
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [k for k, hook in hooks.items() if isinstance(hook, _Gate)]:
                del hooks[key]


@torch.no_grad()
def _fold(model: nn.Module, layout: MixedLayout, values: Tensor) -> None:
    """Multiply all gates but those of entering features into the weights, in place."""
    if hasattr(model, GATES_NAME):
        raise InputError("the network still has its gates")

    def times(tensor: Tensor, places: NDArray[np.int64], shape: Sequence[int]) -> None:
        factor = values[torch.from_numpy(places)].to(tensor)
        tensor.mul_(factor.view(*shape))

    for index, (_, block) in enumerate(residual_blocks(model)):
        layers = branch_layers(block)
        for (conv, _), places in zip(layers[1:], layout.inner[index], strict=True):
            times(conv.get_parameter("weight"), places, (1, -1, 1, 1))
        for parameter in layers[-1][1].parameters():
            times(parameter, layout.branch[index], (-1,))
    times(model.get_submodule("fc").get_parameter("weight"), layout.entering[-1], (1, -1))
