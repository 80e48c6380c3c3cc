"""The check of a device's name."""

from typing import TYPE_CHECKING

from mipprune._support.checks import shown
from mipprune.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["require_device"]


def require_device(value: object, name: str = "device") -> "torch.device":
    """The torch device ``value`` names, once something could be put on it.

    Raises
    ------
    InputError
        No name of a device, or one that this machine or this build of torch lacks.
    """
    import torch

    if not isinstance(value, str | torch.device):
        raise InputError(f"{name}: expected the name of a device, {_offered()}; got {shown(value)}")
    try:
        device = torch.device(value)
    except RuntimeError as error:
        raise InputError(f"{name}: '{value}' is no device; expected {_offered()}") from error
    try:
        torch.empty(1, device=device)
    # A build without CUDA fails an assertion where its backend is first used.
    except (RuntimeError, NotImplementedError, AssertionError, ImportError, ValueError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise InputError(
            f"{name}: '{value}' cannot be used here ({reason}); expected {_offered()}"
        ) from error
    if device.type == "meta":
        raise InputError(f"{name}: 'meta' holds no numbers; expected {_offered()}")
    return device


def _offered() -> str:
    """Devices of this machine, in words."""
    import torch

    found = ["cpu"]
    if torch.cuda.is_available():
        found += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        found.append("mps")
    if len(found) == 1:
        return "cpu (this torch sees no other device)"
    return f"one of {', '.join(found)}"
