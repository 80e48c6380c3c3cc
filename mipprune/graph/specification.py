"""A pruned network as JSON plus state dict, rebuilt in a fresh model of the original class."""

import copy
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mipprune._support.checks import require_path
from mipprune._support.weights import read_torch_file
from mipprune.errors import DataFileError, InputError, MissingExtraError
from mipprune.graph._entry import require_network
from mipprune.graph.headwise import HeadwiseAttention, can_convert, convert

__all__ = ["restore", "spec", "untied_state"]

_FORMAT = "mipprune/network"
_VERSION = 1


def spec(model: nn.Module) -> dict[str, Any]:
    """Everything that tells a pruned network from a fresh one, as plain JSON values.

    Shapes and dtypes of all parameters and buffers, which of them are one
    tensor, and the integer attributes of every module (widths, groups, numbers
    of heads). Weights are not included: save ``model.state_dict()`` beside it.

    Returns
    -------
    dict
        ``json.dumps`` takes it as it is.
    """
    require_network(model)
    first: dict[int, str] = {}
    tensors: dict[str, dict[str, Any]] = {}
    ties: dict[str, str] = {}
    for name, tensor in _tensors(model).items():
        if id(tensor) in first:
            ties[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
        dtype = str(tensor.dtype).removeprefix("torch.")
        tensors[name] = {"shape": list(tensor.shape), "dtype": dtype}
    sizes = {path: found for path, m in model.named_modules() if (found := _sizes(m))}
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "class": type(model).__qualname__,
        "tensors": tensors,
        "ties": ties,
        "sizes": sizes,
        "headwise": [p for p, m in model.named_modules() if isinstance(m, HeadwiseAttention)],
    }


def restore(
    fresh_model: nn.Module,
    specification: Mapping[str, Any] | str,
    state: Mapping[str, Tensor] | str | PathLike[str] | None = None,
) -> nn.Module:
    """Rebuild a pruned network from a fresh full-size model, its `spec` and its weights.

    Parameters
    ----------
    fresh_model : torch.nn.Module
        Built like the original before pruning; it is not changed.
    specification : mapping or str
        From `spec`, or its JSON text.
    state : mapping, path or None
        State dict, or a file: ``.safetensors``, or what ``torch.save`` wrote
        (read with ``weights_only=True``). None leaves the weights uninitialised.

    Raises
    ------
    InputError
        Not a specification, one of another network, or weights that do not fit.
    DataFileError
        The file of weights can not be read.
    """
    require_network(fresh_model, "fresh_model")
    wanted = _parsed(specification)
    model = copy.deepcopy(fresh_model)
    _check_names(model, wanted)
    for path in wanted.get("headwise", []):
        _headwise(model, path)
    for path, values in wanted["sizes"].items():
        _set_sizes(model, path, values)
    built: dict[str, Tensor] = {}
    for name, tensor in _tensors(model).items():
        source = wanted["ties"].get(name, name)
        if source not in built:
            built[source] = _resized(name, tensor, wanted["tensors"][source])
        _assign(model, name, built[source])
    if state is not None:
        _load(model, _state(state), wanted)
    return model


def untied_state(model: nn.Module) -> dict[str, Tensor]:
    """State dict with every tied tensor once, contiguous: what safetensors can write."""
    require_network(model)
    result: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            result[name] = tensor.detach().contiguous()
    return result


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _sizes(module: nn.Module) -> dict[str, int | list[int]]:
    found: dict[str, int | list[int]] = {}
    for name, value in vars(module).items():
        if name.startswith("_") or isinstance(value, bool):
            continue
        if isinstance(value, int):
            found[name] = int(value)
        elif isinstance(value, tuple) and value and all(type(v) is int for v in value):
            found[name] = list(value)
    return found


def _parsed(specification: Mapping[str, Any] | str) -> Mapping[str, Any]:
    if isinstance(specification, str):
        try:
            specification = json.loads(specification)
        except json.JSONDecodeError as error:
            raise InputError(f"the specification is not JSON: {error}") from error
    if not isinstance(specification, Mapping) or specification.get("format") != _FORMAT:
        raise InputError("not a specification of a pruned network; write one with mipprune.spec")
    if specification.get("version") != _VERSION:
        raise InputError(
            f"the specification has version {specification.get('version')}, this library reads "
            f"{_VERSION}; use the mipprune that wrote it"
        )
    for key in ("tensors", "ties", "sizes"):
        if not isinstance(specification.get(key), Mapping):
            raise InputError(f"the specification has no '{key}'; it is incomplete")
    return specification


def _check_names(model: nn.Module, wanted: Mapping[str, Any]) -> None:
    have, want = set(_tensors(model)), set(wanted["tensors"])
    if have != want:
        missing, extra = sorted(want - have)[:3], sorted(have - want)[:3]
        raise InputError(
            f"the fresh {type(model).__name__} is not the network of the specification "
            f"({wanted.get('class')}): it lacks {missing or 'nothing'} and has besides "
            f"{extra or 'nothing'}; build it with the options of the original"
        )


def _headwise(model: nn.Module, path: str) -> None:
    try:
        module = model.get_submodule(path)
    except AttributeError as error:
        raise InputError(f"the fresh model has no module '{path}'") from error
    if not can_convert(module):
        raise InputError(
            f"module '{path}' is no torch.nn.MultiheadAttention as in the specification"
        )
    convert(module)


def _set_sizes(model: nn.Module, path: str, values: Mapping[str, Any]) -> None:
    try:
        module = model.get_submodule(path)
    except AttributeError as error:
        raise InputError(f"the fresh model has no module '{path}'") from error
    current = _sizes(module)
    for name, value in values.items():
        if name not in current or isinstance(current[name], list) != isinstance(value, list):
            raise InputError(f"module '{path}' has no size '{name}' as in the specification")
        if current[name] != value:
            setattr(module, name, tuple(value) if isinstance(value, list) else value)


def _resized(name: str, tensor: Tensor, wanted: Mapping[str, Any]) -> Tensor:
    shape = wanted.get("shape")
    dtype = getattr(torch, str(wanted.get("dtype")), None)
    if not isinstance(dtype, torch.dtype) or not isinstance(shape, list):
        raise InputError(f"the specification of tensor '{name}' is damaged: {dict(wanted)}")
    if len(shape) != tensor.dim() or any(
        type(n) is not int or not 0 <= n <= m for n, m in zip(shape, tensor.shape, strict=True)
    ):
        raise InputError(
            f"'{name}' would get shape {shape} from {tuple(tensor.shape)}; pruning only shrinks, "
            "so the fresh model was built with other options than the original"
        )
    if list(tensor.shape) == shape and tensor.dtype == dtype:
        return tensor
    data = torch.empty(shape, dtype=dtype, device=tensor.device)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(data, requires_grad=tensor.requires_grad)
    return data


def _assign(model: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if isinstance(tensor, nn.Parameter):
        module._parameters[leaf] = tensor
    else:
        module._buffers[leaf] = tensor


def _state(state: Mapping[str, Tensor] | str | PathLike[str]) -> Mapping[str, Tensor]:
    if isinstance(state, Mapping):
        return state
    path = require_path("state", state, "weight file")
    loaded = _safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)
    if not isinstance(loaded, Mapping):
        raise DataFileError(f"{path} holds a {type(loaded).__name__}, expected a state dict")
    return loaded


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingExtraError("safetensors", "safetensors", f"to read {path.name}") from error
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataFileError(f"the weights in {path} can not be read: {error}") from error


def _load(model: nn.Module, state: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> None:
    full = dict(state)
    for name, source in wanted["ties"].items():
        if source in full:
            full.setdefault(name, full[source])
        elif name in full:
            full[source] = full[name]
    try:
        model.load_state_dict(full, strict=True)
    except RuntimeError as error:
        raise InputError(f"the weights do not fit the specification: {error}") from error
