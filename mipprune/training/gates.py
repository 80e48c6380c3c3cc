"""One gate per class of tied channels, multiplied into what its consumers read.

    h_l = f_l( h_{l-1} * z )     is computed as     f_l with weights W * z

A gate sits behind norm and activation and before every consumer, so no norm can
undo it, and all consumers of tied channels share it. Consumers are linear in
their input, so scaling the slice of their weights is the same as scaling the
feature map and costs a pass over the weights instead of the activations.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mipprune.errors import InputError
from mipprune.graph.groups import Axis, ChannelGroups, Masks

__all__ = [
    "GATES_NAME",
    "ChannelGates",
    "ClampedGates",
    "HardConcreteGates",
    "add_gates",
    "attach_gates",
    "bake_gates",
    "drop_gates",
    "gated_classes",
]

GATES_NAME = "channel_gates"
"""Name under which the gates become part of the network (so that optimizer, device moves,
``state_dict`` and DistributedDataParallel see their parameters)."""


class ChannelGates(nn.Module):
    """Interface of gate laws: ``gates()`` gives the values, float (n_classes,)."""

    n_classes: int

    @abstractmethod
    def forward(self, passed: Tensor | None = None) -> Tensor:
        """Gate values in [0, 1], (n_classes,): of this forward pass, or deterministic in eval.

        ``nn.Sequential`` calls all its children in turn, the gates too: what they are given is
        passed on.
        """

    @abstractmethod
    def resample(self) -> None:
        """Draw the noise of the next forward pass; deterministic gates do nothing."""


class ClampedGates(ChannelGates):
    """``z = clamp(theta, 0, 1)``: deterministic gates with a free parameter each.

    Parameters
    ----------
    n_classes : int
    initial : float
    """

    def __init__(self, n_classes: int, *, initial: float = 1.0) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.theta = nn.Parameter(torch.full((n_classes,), float(initial)))

    def forward(self, passed: Tensor | None = None) -> Tensor:
        return self.theta.clamp(0, 1) if passed is None else passed

    def resample(self) -> None:
        return


class HardConcreteGates(ChannelGates):
    """Stretched and clipped concrete gates with exact zeros.

        s = sigmoid((log u - log(1-u) + log_alpha) / beta),   u ~ U(0, 1)
        z = clamp(s (zeta - gamma) + gamma, 0, 1)

    In eval mode ``z = clamp(sigmoid(log_alpha) (zeta - gamma) + gamma, 0, 1)``.
    One draw per class and forward pass, the same on every process of a
    distributed run; it derives from the seed and the number of draws before.

    Parameters
    ----------
    n_classes : int
    initial : float
        Mean of the initial ``log_alpha``; ``spread`` is its standard deviation.
    beta, gamma, zeta : float
        Temperature and stretch.
    seed : int

    References
    ----------
    Louizos, Welling, Kingma, "Learning Sparse Neural Networks through L0
    Regularization", ICLR 2018, equations 10 to 13.
    """

    noise: Tensor

    def __init__(
        self,
        n_classes: int,
        *,
        initial: float = 2.0,
        spread: float = 0.01,
        beta: float = 2 / 3,
        gamma: float = -0.1,
        zeta: float = 1.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not (beta > 0 and gamma < 0 and zeta > 1):
            raise InputError(
                f"expected beta > 0, gamma < 0 and zeta > 1, got {beta!r}, {gamma!r} and {zeta!r}"
            )
        self.n_classes, self.beta, self.gamma, self.zeta = n_classes, beta, gamma, zeta
        self.seed, self.draws = seed, 0
        start = torch.randn(n_classes, generator=torch.Generator().manual_seed(seed))
        self.log_alpha = nn.Parameter(initial + spread * start)
        self.register_buffer("noise", torch.zeros(n_classes), persistent=False)

    def forward(self, passed: Tensor | None = None) -> Tensor:
        if passed is not None:
            return passed
        if self.training:
            s = torch.sigmoid((self.noise + self.log_alpha) / self.beta)
        else:
            s = torch.sigmoid(self.log_alpha)
        return (s * (self.zeta - self.gamma) + self.gamma).clamp(0, 1)

    def probability_active(self) -> Tensor:
        """P(z > 0) = sigmoid(log_alpha - beta log(-gamma / zeta)), (n_classes,)."""
        return torch.sigmoid(self.log_alpha - self.beta * math.log(-self.gamma / self.zeta))

    @torch.no_grad()
    def resample(self) -> None:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.draws)
        tiny = torch.finfo(torch.float32).eps
        u = torch.rand(self.n_classes, generator=generator).clamp(tiny, 1 - tiny)
        self.noise = torch.logit(u).to(self.log_alpha)
        self.draws += 1

    def get_extra_state(self) -> dict[str, int]:
        return {"draws": self.draws}

    def set_extra_state(self, state: Mapping[str, int]) -> None:
        self.draws = state["draws"]


class _GatedWeight(nn.Module):
    """Scale a weight along its input axis by the gates of the channels it reads."""

    index: Tensor

    def __init__(
        self, gates: ChannelGates, axis: Axis, n_dims: int, order: tuple[str, ...]
    ) -> None:
        super().__init__()
        # In a tuple, so that the gates are part of the network once and not per consumer.
        self._gates = (gates,)
        index = np.where(axis.owner >= 0, axis.owner, gates.n_classes)
        self.register_buffer("index", torch.from_numpy(index), persistent=False)
        self.order = order
        self._shape = [1] * n_dims
        self._shape[axis.dim] = -1

    def forward(self, weight: Tensor) -> Tensor:
        values = self._gates[0]()
        factors = torch.cat([values, values.new_ones(1)]).index_select(0, self.index)
        return weight * factors.view(self._shape).to(weight.dtype)


class _Resample:
    """Forward pre-hook of the network: new noise before each pass in training mode."""

    def __init__(self, gates: ChannelGates) -> None:
        self.gates = gates

    def __call__(self, module: nn.Module, args: Any) -> None:
        if self.gates.training:
            self.gates.resample()


def gated_classes(groups: ChannelGroups) -> NDArray[np.bool_]:
    """Which classes some parameter reads, bool (n_classes,); the others cannot be gated."""
    found = np.zeros(groups.n_classes, dtype=bool)
    for axis in groups.axes:
        if axis.role == "consume":
            found[axis.owner[axis.owner >= 0]] = True
    return found


def attach_gates(model: nn.Module, groups: ChannelGroups, gates: ChannelGates) -> None:
    """Put ``gates`` before every consumer of ``model``, in place.

    Parameters
    ----------
    model : nn.Module
    groups : ChannelGroups
        Of ``model``.
    gates : ChannelGates
        One gate per class; becomes ``model.channel_gates``.

    Raises
    ------
    InputError
        The network has gates already, ``gates`` has another number of classes, or
        a consumer shares its weight with another module.
    """
    if hasattr(model, GATES_NAME):
        raise InputError(f"the network has gates already ('{GATES_NAME}'); bake or rebuild it")
    if gates.n_classes != groups.n_classes:
        raise InputError(f"{gates.n_classes} gates for {groups.n_classes} classes")
    shared = set(groups.aliases.values())
    names = dict(model.named_parameters(remove_duplicate=False))
    for axis in groups.axes:
        if axis.role != "consume" or axis.tensor not in names:
            continue
        if axis.tensor in shared:
            raise InputError(
                f"'{axis.tensor}' is shared by several modules; gates cannot tell its uses apart"
            )
        owner, _, tensor = axis.tensor.rpartition(".")
        module = model.get_submodule(owner)
        gated = _GatedWeight(gates, axis, names[axis.tensor].ndim, tuple(module._parameters))
        parametrize.register_parametrization(module, tensor, gated, unsafe=True)
    add_gates(model, gates)
    device = next(iter(names.values())).device
    for module in model.modules():
        if isinstance(module, _GatedWeight):
            module.to(device)


def add_gates(model: nn.Module, gates: ChannelGates) -> None:
    """Make ``gates`` part of ``model`` as ``channel_gates``, with new noise before each pass."""
    device = next(model.parameters()).device
    model.add_module(GATES_NAME, gates.to(device))
    gates.train(model.training)
    model.register_forward_pre_hook(_Resample(gates))


def drop_gates(model: nn.Module) -> None:
    """Undo :func:`add_gates`, in place."""
    for key, hook in list(model._forward_pre_hooks.items()):
        if isinstance(hook, _Resample):
            del model._forward_pre_hooks[key]
    delattr(model, GATES_NAME)


def _ungate(module: nn.Module, tensor: str) -> None:
    """Bake one weight; optimizers go by the order of parameters, so it is put back too."""
    order: tuple[str, ...] = next(
        part.order for part in module.modules() if isinstance(part, _GatedWeight)
    )
    # Copies of a network share the class that carries the parametrized weight; taking the weight
    # off that class would take it from all of them.
    kind = type(module)
    own = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
    module.__class__ = type(kind.__name__, kind.__bases__, own)
    parametrize.remove_parametrizations(module, tensor, leave_parametrized=True)
    if set(order) == set(module._parameters):
        for name in order:
            module._parameters[name] = module._parameters.pop(name)


def bake_gates(model: nn.Module, groups: ChannelGroups, masks: Masks | None = None) -> nn.Module:
    """Multiply the deterministic gates into the consumers' weights and remove them, in place.

    The network computes what it computed in eval mode, and has its original
    parameter names and module types again.

    Parameters
    ----------
    model : nn.Module
        With gates of :func:`attach_gates`.
    groups : ChannelGroups
    masks : masks, optional
        Gates of removed classes count as 0.
    """
    gates = getattr(model, GATES_NAME, None)
    if not isinstance(gates, ChannelGates):
        raise InputError("the network has no gates to bake")
    mode = model.training
    model.eval()
    with torch.no_grad():
        values = gates()
        if masks is not None:
            values = values * torch.from_numpy(groups.kept(masks)).to(values)
    fixed = ClampedGates(groups.n_classes).to(values.device)
    fixed.theta.data.copy_(values)
    for module in model.modules():
        if isinstance(module, _GatedWeight):
            module._gates = (fixed,)
    for axis in groups.axes:
        owner, _, tensor = axis.tensor.rpartition(".")
        module = model.get_submodule(owner)
        if axis.role == "consume" and parametrize.is_parametrized(module, tensor):
            _ungate(module, tensor)
    drop_gates(model)
    model.train(mode)
    return model
