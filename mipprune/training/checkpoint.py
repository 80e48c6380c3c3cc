"""Checkpoints: plain types and tensors, written atomically, loaded without executing."""

import io
import platform
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mipprune._support.files import atomic_path
from mipprune._support.weights import read_torch_file
from mipprune.errors import DataFileError, InputError

__all__ = [
    "CHECKPOINT_NAME",
    "ResumeWarning",
    "all_finite",
    "environment",
    "load_checkpoint",
    "save_checkpoint",
    "warn_if_changed",
]

CHECKPOINT_NAME = "checkpoint.pt"
_FORMAT = 1


class ResumeWarning(UserWarning):
    """A run resumes where results may differ in the last digits from before."""


def environment(device: str, threads: int | None = None) -> dict[str, str | int]:
    """What bit-identical results depend on besides the settings."""
    name = (
        torch.cuda.get_device_name(device)
        if torch.device(device).type == "cuda"
        else f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    )
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads() if threads is None else threads,
        "device": name,
    }


def warn_if_changed(stored: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Warn with :class:`ResumeWarning` where the environments differ."""
    changed = [
        f"{key} was {stored.get(key)!r}, is {current[key]!r}"
        for key in current
        if stored.get(key) != current[key]
    ]
    if changed:
        warnings.warn(
            f"resuming elsewhere than before ({'; '.join(changed)}): the run goes on, but its "
            "results need not be bit-identical to those of an uninterrupted one",
            ResumeWarning,
            stacklevel=3,
        )


def all_finite(content: object) -> bool:
    """Whether every floating-point tensor in nested containers is finite."""
    if isinstance(content, Tensor):
        return not content.is_floating_point() or bool(torch.isfinite(content).all())
    if isinstance(content, Mapping):
        return all(all_finite(value) for value in content.values())
    if isinstance(content, list | tuple):
        return all(all_finite(value) for value in content)
    return True


def save_checkpoint(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` atomically; a full disk leaves the previous file.

    Parameters
    ----------
    path : path
    content : mapping
        Nested dicts and lists of plain types and tensors.

    Raises
    ------
    DataFileError
        The file cannot be written.
    """
    # Through memory, so that a failed write is an OSError with its reason.
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, **content}, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(path: str | Path, *, device: str = "cpu") -> dict[str, Any]:
    """Read a checkpoint of :func:`save_checkpoint` with ``weights_only=True``.

    Raises
    ------
    InputError
        There is no such file.
    DataFileError
        Damaged, or of another format.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"there is no checkpoint at {file}; start the run without resuming")
    try:
        content = read_torch_file(file, device=device)
    except DataFileError as error:
        reason = str(error).partition(";")[0]
        raise DataFileError(
            f"{file} is damaged or no checkpoint ({reason}); delete the folder and start again"
        ) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise DataFileError(f"{file} is no checkpoint of format {_FORMAT} of mipprune")
    return content
