"""Anybody's networks and data: ``package.module:factory`` and weight files."""

import difflib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from mipprune._support.checks import require_instance, require_path, require_text
from mipprune._support.weights import read_torch_file
from mipprune.errors import DataFileError, InputError, MissingExtraError
from mipprune.models._registry import build_model

__all__ = ["load_factory", "load_model", "load_weights", "read_state_dict"]


def load_factory(spec: str) -> Callable[..., Any]:
    """Import the callable named by ``package.module:factory``.

    The current folder is searched too, after the installed packages.

    Raises
    ------
    InputError
        If the spec is malformed, the module cannot be imported, has no such
        attribute, or the attribute is not callable; the message says which.
    """
    require_text("spec", spec, "'package.module:factory'")
    module_name, colon, attribute = spec.partition(":")
    parts = [*module_name.split("."), *attribute.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise InputError(f"expected 'package.module:factory', got {spec!r}")
    target: Any = _import(module_name, spec)
    for part in attribute.split("."):
        if not hasattr(target, part):
            close = difflib.get_close_matches(part, dir(target), n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise InputError(f"'{spec}': '{module_name}' has no '{part}'{hint}")
        target = getattr(target, part)
    if not callable(target):
        raise InputError(
            f"'{spec}' is a {type(target).__name__}, expected a function or class to call"
        )
    factory: Callable[..., Any] = target
    return factory


def _import(module_name: str, spec: str) -> ModuleType:
    try:
        with _current_folder_importable():
            return importlib.import_module(module_name)
    except (ImportError, SyntaxError) as error:
        raise InputError(f"'{spec}': cannot import '{module_name}': {error}") from error


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    """A console script does not search the current folder; put it last, for a moment."""
    folder = str(Path.cwd())
    added = folder not in sys.path
    if added:
        sys.path.append(folder)
    try:
        yield
    finally:
        if added:
            sys.path.remove(folder)


def load_model(
    name: str,
    *,
    weights: str | Path | None = None,
    in_channels: int = 3,
    num_classes: int = 10,
    image_size: int | tuple[int, int] = 32,
    generator: torch.Generator | None = None,
    **options: Any,
) -> nn.Module:
    """Build a network by name or from ``package.module:factory``, and load its weights.

    A factory of your own is called with ``options`` only: it knows its sizes.

    Parameters
    ----------
    name : str
        As in :func:`build_model`, or ``package.module:factory``.
    weights : path, optional
        State dict (``.pt``, ``.pth``, read with ``weights_only=True``) or
        ``.safetensors``.
    in_channels, num_classes, image_size, generator
        As in :func:`build_model`; not used for a factory.

    Raises
    ------
    InputError
        Unknown name, factory that returns no module, weights that do not fit.
    DataFileError
        Weight file missing or damaged.
    """
    require_text("name", name, "the name of a network, or 'package.module:factory'")
    if ":" in name:
        model = load_factory(name)(**options)
        if not isinstance(model, nn.Module):
            raise InputError(
                f"'{name}' returned a {type(model).__name__}, expected a torch.nn.Module"
            )
    else:
        model = build_model(
            name,
            in_channels=in_channels,
            num_classes=num_classes,
            image_size=image_size,
            generator=generator,
            **options,
        )
    if weights is not None:
        load_weights(model, weights)
    return model


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a state dict into ``model``; every name and shape must fit.

    Raises
    ------
    InputError
        If names or shapes differ; the message lists the first of each kind.
    DataFileError, MissingExtraError
        As :func:`read_state_dict`.
    """
    require_instance("model", model, nn.Module)
    state = read_state_dict(path)
    own = model.state_dict()
    problems = [
        ("missing", [name for name in own if name not in state]),
        ("not in the network", [name for name in state if name not in own]),
        (
            "of another shape",
            [
                f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
                for name in own
                if name in state and state[name].shape != own[name].shape
            ],
        ),
    ]
    found = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in problems
        if names
    ]
    if found:
        raise InputError(f"the weights in '{path}' do not fit the network: {'; '.join(found)}")
    model.load_state_dict(dict(state))


def read_state_dict(path: str | Path) -> Mapping[str, Tensor]:
    """Read the tensors of a weight file without executing anything in it.

    A mapping under one of the keys ``state_dict``, ``model`` or ``weights`` is
    taken instead of the whole.

    Raises
    ------
    DataFileError
        If the file is missing, damaged or holds anything but tensors by name.
    MissingExtraError
        For ``.safetensors`` without the package of that name.
    """
    path = require_path("weights", path, "weight file")
    if not path.is_file():
        hint = "; it is a folder" if path.is_dir() else ""
        raise DataFileError(f"there is no weight file '{path}'{hint}")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)
    for key in ("state_dict", "model", "weights"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise DataFileError(f"'{path}' does not hold a state dict (tensors by name)")
    return content


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingExtraError("safetensors", "safetensors", f"to read '{path}'") from error
    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise DataFileError(f"'{path}' is not a whole safetensors file: {error}") from error
