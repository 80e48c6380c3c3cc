"""Knowledge distillation from a frozen teacher.

    L = (1 - weight) * L_data + weight * T^2 * KL( softmax(t / T) || softmax(s / T) )

References
----------
Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015,
section 2; KL is summed over classes and averaged over the batch.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipprune.errors import InputError
from mipprune.models import Forward, main_output, run_model

__all__ = ["Teacher", "distillation_loss"]


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T^2 KL( softmax(teacher / T) || softmax(student / T) )``, mean over the examples.

    Parameters
    ----------
    student, teacher : float tensors (n_examples, n_classes, ...)
        Logits.
    temperature : float, > 0

    Raises
    ------
    InputError
        Logits of different shapes.
    """
    if student.shape != teacher.shape:
        raise InputError(
            f"student and teacher answer in different shapes, {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}; distillation needs equal ones (or switch it off)"
        )
    log_p = F.log_softmax(student.float() / temperature, dim=1)
    log_q = F.log_softmax(teacher.float() / temperature, dim=1)
    total = F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(dim=1).mean()
    return temperature**2 * total


class Teacher:
    """A frozen copy of a trained network.

    Parameters
    ----------
    network : nn.Module
        Left as it is.
    forward : callable, optional
        ``forward(network, batch) -> outputs``.
    """

    def __init__(self, network: nn.Module, *, forward: Forward | None = None) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._forward = forward
        self._device: torch.device | None = None

    @torch.no_grad()
    def logits(self, batch: Any, like: Tensor) -> Tensor:
        """Logits for ``batch``, on the device and in the precision of ``like``."""
        if self._device != like.device:
            self.network.to(like.device)
            self._device = like.device
        half = like.dtype in (torch.bfloat16, torch.float16)
        dtype = like.dtype if half else torch.bfloat16
        with torch.autocast(like.device.type, dtype=dtype, enabled=half):
            return main_output(run_model(self.network, batch, self._forward))
