"""The shape of a pruning method that acts during training.

A method is a leaf class of :class:`Method`. A loop, ours or anybody's, drives it:

>>> def loop(method, network, groups, data, budget):  # doctest: +SKIP
...     network = method.prepare(network, groups)
...     optimizer = SGD(optimizer_groups(method.parameter_groups(), lr=0.1), lr=0.1)
...     for inputs, target in data:
...         outputs = network(inputs)
...         loss = method.loss(outputs, (inputs, target), cross_entropy(outputs, target))
...         loss.backward()
...         method.after_backward()
...         optimizer.step()
...         method.after_step(optimizer.param_groups[0]["lr"])
...         optimizer.zero_grad()
...     masks = method.choose(budget)
...     return method.finish(network, masks), masks
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune.graph.budgets import Budgets
from mipprune.graph.groups import ChannelGroups, Masks

__all__ = ["Method", "ParameterGroup", "optimizer_groups"]


class ParameterGroup(TypedDict):
    """Parameters that share optimizer settings.

    Keys
    ----
    params : list of nn.Parameter
    lr_scale : float, default 1
        Multiplies the learning rate of the loop at every step.
    weight_decay : float, default that of the loop
    """

    params: list[nn.Parameter]
    lr_scale: NotRequired[float]
    weight_decay: NotRequired[float]


class Method(ABC):
    """Interface of all methods; leaves are final and take their settings as keywords.

    The calls come in this order: :meth:`prepare`, :meth:`parameter_groups`, then
    per micro-batch :meth:`loss`, per optimizer step :meth:`after_backward` and
    :meth:`after_step`, per epoch :meth:`end_epoch`; at the end :meth:`choose`
    and :meth:`finish`. A run that resumes calls :meth:`prepare` on a freshly
    built network and then :meth:`load_state_dict`.

    Hooks that a method does not use keep the empty default.

    Attributes
    ----------
    starts_from : {"scratch", "reference"}
        Weights the network has when given to :meth:`prepare`: newly drawn ones
        or those of the dense reference network.
    trains : bool
        False for methods that choose from the reference network as it is.
    needs_fine_tuning : bool
        False for methods that end without a fine-tuning phase.
    """

    starts_from: ClassVar[Literal["scratch", "reference"]] = "scratch"
    trains: ClassVar[bool] = True
    needs_fine_tuning: ClassVar[bool] = True

    @abstractmethod
    def prepare(self, model: nn.Module, groups: ChannelGroups) -> nn.Module:
        """Bind the method to ``model`` and return the network to train.

        The network may be changed in place or replaced; the caller goes on with
        the returned one only. Parameters that the method adds belong to it.
        ``groups`` describe ``model`` as given.
        """

    @abstractmethod
    def parameter_groups(self) -> list[ParameterGroup]:
        """All trainable parameters of the prepared network, each once."""

    def loss(self, outputs: Any, batch: Any, base: Tensor) -> Tensor:
        """Training loss of one micro-batch.

        Parameters
        ----------
        outputs
            What the network returned for ``batch``.
        batch
            As the data set gave it, on the network's device.
        base : Tensor, scalar
            Data loss of the loop. Loops that accumulate gradients divide the
            *returned* loss by the number of micro-batches.
        """
        return base

    def after_backward(self) -> None:
        """Once per optimizer step, when ``.grad`` is complete and unscaled."""
        return

    def after_step(self, lr: float) -> None:
        """Once per optimizer step, after it; ``lr`` is that step's base learning rate."""
        return

    def end_epoch(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Take the epoch's figures and return the method's own, to be logged beside them.

        ``metrics`` has at least ``loss`` (mean training loss) and, where there is
        a validation split, ``val_loss`` and ``val_accuracy`` (0 to 1).
        """
        return {}

    @abstractmethod
    def scores(self) -> NDArray[np.float64]:
        """Importance of every class, float64 (n_classes,); larger stays longer."""

    @abstractmethod
    def choose(self, budget: Budgets | None = None) -> Masks:
        """Masks by family name under ``budget``; None lets the method's own rule decide."""

    @abstractmethod
    def finish(self, model: nn.Module, masks: Masks) -> nn.Module:
        """Turn the trained network back into a plain one.

        The result has the parameter names, shapes and module types of the
        network given to :meth:`prepare` (a method that replaces module types
        for good says so), computes the deterministic output of the method, and
        is ready for ``mipprune.graph.remove(result, groups, masks)``.
        """

    def state_dict(self) -> dict[str, Any]:
        """What is not in the network's own state: plain types and tensors only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`; called after :meth:`prepare`."""
        return


def optimizer_groups(
    groups: Iterable[ParameterGroup], *, lr: float, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Translate a method's parameter groups for any torch optimizer.

    Each entry gets ``lr = lr * lr_scale`` and its own or the given weight
    decay. ``lr_scale`` stays in the entry, so that a schedule can set
    ``entry["lr"] = schedule(step) * entry["lr_scale"]``; torch's own schedulers
    start from the entry's ``lr`` and need nothing more.

    Parameters
    ----------
    groups : iterable of ParameterGroup
    lr : float
        Base learning rate.
    weight_decay : float
        For the entries that do not set their own.
    """
    entries = []
    for group in groups:
        if not group["params"]:
            continue
        scale = group.get("lr_scale", 1.0)
        entries.append(
            {
                "params": list(group["params"]),
                "lr": lr * scale,
                "lr_scale": scale,
                "weight_decay": group.get("weight_decay", weight_decay),
            }
        )
    return entries
