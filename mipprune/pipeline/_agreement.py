"""How close two networks are on some batches."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mipprune._support.checks import require_callable, require_iterable
from mipprune.graph import require_network
from mipprune.models import main_output, move_batch, run_model

__all__ = ["Agreement", "KnownOutputs", "measure_agreement"]


@dataclass(frozen=True)
class Agreement:
    """How close two networks are on some batches.

    Attributes
    ----------
    relative_error : float
        ``||f - g||^2 / ||g||^2`` of the outputs.
    same_top : float or None
        Share of examples whose largest output is the same; None where the
        output is not a matrix of scores.
    """

    relative_error: float
    same_top: float | None


def measure_agreement(
    model: nn.Module,
    reference: nn.Module,
    batches: Iterable[Any],
    *,
    forward: Callable[[nn.Module, Any], Any] | None = None,
) -> Agreement:
    """Compare the outputs of two networks; both run in eval mode and keep theirs."""
    require_network(model)
    require_network(reference, "reference")
    require_iterable("batches", batches, "a list of batches or a data loader")
    if forward is not None:
        require_callable("forward", forward, "a function (model, batch)")
    different = total = 0.0
    same = count = 0
    scores = True
    device = _device(reference)
    with _evaluating(model, reference):
        for batch in batches:
            moved = move_batch(batch, device)
            a = main_output(run_model(model, moved, forward)).double()
            b = main_output(run_model(reference, moved, forward)).double()
            different += float((a - b).square().sum())
            total += float(b.square().sum())
            scores = scores and b.ndim == 2 and b.shape[1] > 1
            if scores:
                same += int((a.argmax(1) == b.argmax(1)).sum())
                count += len(b)
    return Agreement(different / max(total, 1e-300), same / count if scores and count else None)


class KnownOutputs:
    """Outputs of one network on a few batches, which many others are compared with."""

    def __init__(
        self,
        reference: nn.Module,
        batches: Iterable[Any],
        forward: Callable[[nn.Module, Any], Any] | None = None,
    ) -> None:
        self.batches, self.forward = list(batches), forward
        self.device = _device(reference)
        with _evaluating(reference):
            self.outputs = [self._output(reference, batch) for batch in self.batches]

    def error(self, model: nn.Module) -> float:
        """``||f - g||^2 / ||g||^2``, g the known outputs."""
        different = total = 0.0
        with _evaluating(model):
            for batch, known in zip(self.batches, self.outputs, strict=True):
                different += float((self._output(model, batch) - known).square().sum())
                total += float(known.square().sum())
        return different / max(total, 1e-300)

    def _output(self, model: nn.Module, batch: Any) -> Tensor:
        moved = move_batch(batch, self.device)
        return main_output(run_model(model, moved, self.forward)).double()


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


@contextmanager
def _evaluating(*models: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; modes are restored."""
    modes = [(network, network.training) for network in models]
    try:
        for network in models:
            network.eval()
        with torch.no_grad():
            yield
    finally:
        for network, mode in modes:
            network.train(mode)
