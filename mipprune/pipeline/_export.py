"""A pruned network in formats that other tools read, each checked after writing."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mipprune._support.checks import require_path
from mipprune._support.files import atomic_path
from mipprune.errors import DataFileError, InputError, MissingExtraError
from mipprune.graph import require_network
from mipprune.models import main_output

__all__ = ["export_onnx", "export_safetensors"]

TOLERANCE = 1e-4

Inputs: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]


def export_onnx(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], path: str | Path
) -> float:
    """Write ``model`` as ONNX and compare onnxruntime's outputs with torch's.

    The first dimension of every tensor input is dynamic. The file appears only
    if the comparison passes.

    Parameters
    ----------
    model : nn.Module
        Exported in eval mode, on the CPU, in float32.
    args, kwargs
        Example inputs; the comparison uses them and a repeated batch of them.
    path : path

    Returns
    -------
    float
        Largest ``max|a - b| / max|a|`` between the two.

    Raises
    ------
    MissingExtraError
        onnx, onnxscript or onnxruntime is not installed.
    InputError
        An operator of the network has no ONNX form.
    DataFileError
        The outputs differ by more than 1e-4, or the file cannot be written.
    """
    require_network(model)
    require_path("path", path)
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            import_module(package)
        except ImportError as error:
            raise MissingExtraError(package, "onnx", "to export ONNX") from error
    modes = {module: module.training for module in model.modules()}
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    given = _on_cpu((args, dict(kwargs)))
    try:
        model.cpu().eval()
        with atomic_path(path) as temporary:
            # The exporter adds its own suffix to names without one.
            temporary.unlink()
            _write_onnx(model, given, temporary)
            difference = max(
                _compare_onnx(model, inputs, temporary) for inputs in (given, _doubled(given))
            )
            if not difference <= TOLERANCE:
                raise DataFileError(
                    f"onnxruntime's outputs differ from torch's by {difference:.2e} (relative, "
                    f"allowed {TOLERANCE:.0e}); {path} was not written"
                )
    finally:
        model.to(device)
        for module, mode in modes.items():
            module.training = mode
    return difference


def export_safetensors(model: nn.Module, path: str | Path) -> None:
    """Write the state dict as safetensors and read it back for comparison.

    Raises
    ------
    MissingExtraError
        safetensors is not installed.
    DataFileError
        The file cannot be written, or reads back differently.
    """
    require_network(model)
    require_path("path", path)
    try:
        from safetensors.torch import load_file, save_file
    except ImportError as error:
        raise MissingExtraError("safetensors", "safetensors", "to export safetensors") from error
    # Tied tensors share memory, which the format refuses; each name gets its own copy.
    state = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in model.state_dict().items()
    }
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})
        back = load_file(temporary)
        if set(back) != set(state) or any(not torch.equal(back[n], state[n]) for n in state):
            raise DataFileError(f"{path} does not read back as written; it was not kept")


def _write_onnx(model: nn.Module, inputs: Inputs, path: Path) -> None:
    args, kwargs = inputs
    dynamic = torch.export.Dim.DYNAMIC
    shapes = pytree.tree_map(
        lambda x: {0: dynamic} if isinstance(x, Tensor) and x.ndim else None, inputs
    )
    try:
        with _quiet():
            torch.onnx.export(
                model,
                args,
                str(path),
                kwargs=kwargs or None,
                dynamo=True,
                dynamic_shapes=(*shapes[0], *shapes[1].values()),
                external_data=False,
                verbose=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError, ValueError, TypeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{type(model).__name__} cannot be exported to ONNX: {first}") from error


def _compare_onnx(model: nn.Module, inputs: Inputs, path: Path) -> float:
    # Its stubs leave out what it exports.
    onnxruntime: Any = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
    names = [entry.name for entry in session.get_inputs()]
    found = session.run(None, dict(zip(names, (t.numpy() for t in tensors), strict=True)))[0]
    with torch.no_grad():
        expected = main_output(model(*inputs[0], **inputs[1])).numpy()
    if found.shape != expected.shape:
        return float("inf")
    scale = max(float(np.abs(expected).max()), 1e-30)
    return float(np.abs(found - expected).max()) / scale


def _on_cpu(inputs: Inputs) -> Inputs:
    moved: Inputs = pytree.tree_map(lambda x: x.cpu() if isinstance(x, Tensor) else x, inputs)
    return moved


def _doubled(inputs: Inputs) -> Inputs:
    """Another batch size, to see that it is dynamic."""
    doubled: Inputs = pytree.tree_map(
        lambda x: torch.cat([x, x.flip(0)]) if isinstance(x, Tensor) and x.ndim else x, inputs
    )
    return doubled


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's pages of progress, advice and warnings about its own code."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
