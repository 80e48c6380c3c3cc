"""Tracing of a network into a graph of aten operators."""

import contextlib
import copy
import io
import itertools
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.export import ExportedProgram

from mipprune.errors import TraceError
from mipprune.graph.example import Example

__all__ = ["Traced", "trace"]

# What user code and the exporter raise; anything else is a defect and passes through.
_FAILURES = (
    RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError,
    ArithmeticError, NotImplementedError,
)  # fmt: skip

# In-place operators on these first arguments leave every other name of the data correct.
_IN_PLACE_SUMS = ("add_", "sub_", "mul_", "div_")


@dataclass(frozen=True, eq=False)
class Traced:
    """A traced network.

    ``sources`` maps the name of a placeholder to the qualified name of its
    parameter or buffer (the first name where storage is shared); ``constants``
    are placeholders of other fixed tensors; the rest are inputs. ``aliases``
    maps every further name of a tensor to the first.
    """

    graph: torch.fx.Graph
    sources: Mapping[str, str]
    constants: frozenset[str]
    aliases: Mapping[str, str]
    overlapping: tuple[str, ...]
    example: Example


@contextlib.contextmanager
def _quiet(output: io.StringIO) -> Iterator[None]:
    """Catch what the exporter prints, logs and warns."""
    loggers = [
        logger
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and name.split(".")[0] == "torch"
    ]
    before = [(logger, logger.propagate, logger.handlers) for logger in loggers]
    handler = logging.StreamHandler(output)
    handler.setLevel(logging.WARNING)
    for logger in loggers:
        logger.propagate, logger.handlers = False, [handler]
    try:
        with (
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(output),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, propagate, handlers in before:
            logger.propagate, logger.handlers = propagate, handlers


def trace(model: nn.Module, example: Example) -> Traced:
    """Trace a copy of ``model`` in eval mode; the model itself is not touched.

    Raises
    ------
    TraceError
        With the operation the exporter stopped at, what it printed, and the way around.
    """
    output = io.StringIO()
    try:
        with _quiet(output):
            network = copy.deepcopy(model).eval()
            with torch.no_grad():
                program = torch.export.export(
                    network, example.args, dict(example.kwargs), strict=False
                )
                if _needs_functional(program.graph):
                    program = program.run_decompositions({})
    except _FAILURES as error:
        raise TraceError(_explain(model, error, output.getvalue())) from error
    norms = [n for n in program.graph.nodes if _name(n) in ("aten::layer_norm", "aten::rms_norm")]
    for index, node in enumerate(norms):
        node.meta["norm_call"] = index
    program.graph.eliminate_dead_code()
    aliases, overlapping = _shared_storage(model)
    inputs = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs}
    sources = {
        name: aliases.get(target, target)
        for name, target in inputs.items()
        if target is not None and _is_state(program, name)
    }
    constants = frozenset(name for name, target in inputs.items() if target and name not in sources)
    return Traced(program.graph, sources, constants, aliases, overlapping, example)


def _name(node: torch.fx.Node) -> str:
    target = node.target
    return target._schema.name if isinstance(target, torch._ops.OpOverload) else ""


def _is_state(program: ExportedProgram, name: str) -> bool:
    signature = program.graph_signature
    return name in signature.inputs_to_parameters or name in signature.inputs_to_buffers


def _needs_functional(graph: torch.fx.Graph) -> bool:
    """Whether the graph has wrapped regions or in-place operators on views."""
    for node in graph.nodes:
        if node.op == "get_attr":
            return True
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        if node.target._schema.is_mutable and not _harmless(node):
            return True
    return False


def _harmless(node: torch.fx.Node) -> bool:
    """In-place, but every other name of the data keeps the right labels."""
    assert isinstance(node.target, torch._ops.OpOverload)
    name = node.target._schema.name.removeprefix("aten::")
    tensors = [a for a in node.args if isinstance(a, torch.fx.Node)]
    if torch.Tag.pointwise in node.target.tags and len(tensors) == 1:
        return True
    base = tensors[0] if tensors else None
    if name not in _IN_PLACE_SUMS or base is None:
        return name in ("dropout_", "hardswish_", "relu6_")
    return not any(_is_view(user) for user in (base, *base.users))


def _is_view(node: torch.fx.Node) -> bool:
    if node.op == "placeholder":
        return True
    if not isinstance(node.target, torch._ops.OpOverload):
        return True
    return any(
        r.alias_info is not None and not r.alias_info.is_write for r in node.target._schema.returns
    )


def _shared_storage(model: nn.Module) -> tuple[dict[str, str], tuple[str, ...]]:
    """Other names of the same tensor, and tensors that overlap in storage without being equal."""
    first: dict[tuple[object, ...], str] = {}
    storages: dict[object, list[tuple[int, int, str]]] = {}
    aliases: dict[str, str] = {}
    named = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in named:
        if tensor.numel() == 0 or tensor.is_meta:
            continue
        storage = (tensor.device, tensor.untyped_storage().data_ptr())
        key = (storage, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if key in first:
            aliases[name] = first[key]
        else:
            first[key] = name
            strides = zip(tensor.shape, tensor.stride(), strict=True)
            extent = sum((int(n) - 1) * int(s) for n, s in strides)
            start = int(tensor.storage_offset())
            storages.setdefault(storage, []).append((start, start + extent, name))
    overlapping: list[str] = []
    for spans in storages.values():
        spans.sort()
        for (_, end, one), (start, _, other) in itertools.pairwise(spans):
            if start <= end:
                overlapping += [one, other]
    return aliases, tuple(overlapping)


def _explain(model: nn.Module, error: BaseException, printed: str) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    what = lines[0] if lines else type(error).__name__
    code = re.findall(r"code: (.*)", f"{error}\n{printed}")
    if code:
        what += f" at `{code[-1].strip()}`"
    pages = "\n".join(printed.strip().splitlines()[-30:])
    return (
        f"{type(model).__name__} could not be traced: {type(error).__name__}: {what}\n"
        "What to do: the network must run on the example inputs in eval mode, and its path must "
        "not depend on the values in tensors. Replace `if tensor:` by torch.where, `.item()` and "
        "`.tolist()` by constants, and NumPy calls by torch ones; or trace the part of the network "
        "that is to be pruned." + (f"\nThe exporter printed (end):\n{pages}" if pages else "")
    )
