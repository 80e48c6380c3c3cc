"""Python attributes that hold sizes and have to follow a removal."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mipprune.graph.groups import SizeAttribute
from mipprune.graph.labeller import Site

__all__ = ["size_attributes"]

Owner = NDArray[np.int64]
_CONV = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d
)  # fmt: skip


def size_attributes(
    model: nn.Module,
    sites: Sequence[Site],
    owner: Callable[[Owner], Owner],
    owned: Mapping[tuple[str, int], Owner],
    aliases: Mapping[str, str],
    integers_read: Callable[[], set[tuple[str, str]] | None],
) -> tuple[SizeAttribute, ...]:
    """All attributes, those of torch's own modules by their meaning, others by their value.

    An attribute that merely has the value of a size is taken only if the
    forward pass reads it.
    """
    found: dict[tuple[str, str], SizeAttribute] = {}
    explicit, implicit = _split(sites)
    for site in explicit:
        assert site.attribute is not None
        exists = hasattr(model.get_submodule(site.module), site.attribute)
        if exists and _shrinks(own := owner(site.labels[:, 0].numpy())):
            found.setdefault(
                (site.module, site.attribute), SizeAttribute(site.module, site.attribute, own)
            )
    for path, module in model.named_modules():
        for attribute, tensor, dim, divisor in _standard(module):
            key = (f"{path}.{tensor}" if path else tensor, dim)
            own = owned.get((aliases.get(key[0], key[0]), dim), np.empty(0, np.int64))
            if own.size:
                grouped = _widened(module, attribute, own)
                found.setdefault(
                    (path, attribute), SizeAttribute(path, attribute, grouped, divisor)
                )
    guessed: dict[tuple[str, str], SizeAttribute] = {}
    for site in implicit:
        _by_value(model, site, owner, guessed)
    _own_parameters(model, owned, guessed)
    guessed = {key: value for key, value in guessed.items() if key not in found}
    read = integers_read() if guessed else None
    if read is not None:
        guessed = {key: value for key, value in guessed.items() if key in read}
    return (*found.values(), *guessed.values())


def _split(sites: Sequence[Site]) -> tuple[list[Site], list[Site]]:
    explicit = [s for s in sites if s.attribute is not None]
    return explicit, [s for s in sites if s.attribute is None]


def _shrinks(owner: Owner) -> bool:
    return bool((owner >= 0).any())


def _standard(module: nn.Module) -> list[tuple[str, str, int, int]]:
    """(attribute, tensor, dim, divisor) of torch's own layers."""
    if isinstance(module, nn.MultiheadAttention):
        return _attention(module)
    return [(*entry, 1) for entry in _layers(module)]


def _attention(module: nn.MultiheadAttention) -> list[tuple[str, str, int, int]]:
    rows = ("in_proj_weight", 3) if module.in_proj_weight is not None else ("q_proj_weight", 1)
    keys = "in_proj_weight" if module.in_proj_weight is not None else "k_proj_weight"
    values = "in_proj_weight" if module.in_proj_weight is not None else "v_proj_weight"
    return [
        ("num_heads", rows[0], 0, rows[1] * module.head_dim),
        ("embed_dim", "out_proj.weight", 0, 1),
        ("kdim", keys, 1, 1),
        ("vdim", values, 1, 1),
    ]


def _layers(module: nn.Module) -> list[tuple[str, str, int]]:
    if isinstance(module, _CONV):
        first, second = ("in", "out") if "Transpose" in type(module).__name__ else ("out", "in")
        return [(f"{first}_channels", "weight", 0), (f"{second}_channels", "weight", 1)]
    if isinstance(module, nn.Linear):
        return [("out_features", "weight", 0), ("in_features", "weight", 1)]
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return [("num_features", "weight", 0), ("num_features", "running_mean", 0)]
    if isinstance(module, nn.GroupNorm):
        return [("num_channels", "weight", 0)]
    if isinstance(module, nn.Embedding):
        return [("embedding_dim", "weight", 1)]
    if isinstance(module, nn.PReLU):
        return [("num_parameters", "weight", 0)]
    return []


def _widened(module: nn.Module, attribute: str, owner: Owner) -> Owner:
    """Owner along all channels where a grouped weight holds those of one group."""
    if isinstance(module, nn.MultiheadAttention):
        return owner
    size = getattr(module, attribute)
    return np.tile(owner, size // owner.size) if size != owner.size else owner


def _by_value(
    model: nn.Module,
    site: Site,
    owner: Callable[[Owner], Owner],
    found: dict[tuple[str, str], SizeAttribute],
) -> None:
    """Attributes of the module that views the tensor, whose value is the size of the axis."""
    columns = site.labels
    flat = owner(columns.numpy().reshape(-1)).reshape(columns.shape)
    if not _shrinks(flat.reshape(-1)) or not (flat == flat[:, :1]).all():
        return
    module = model.get_submodule(site.module)
    if isinstance(module, nn.MultiheadAttention):
        return
    for name, value in vars(module).items():
        if type(value) is int and value == flat.shape[0] and not name.startswith("_"):
            found.setdefault((site.module, name), SizeAttribute(site.module, name, flat[:, 0]))


def _own_parameters(
    model: nn.Module,
    owned: Mapping[tuple[str, int], Owner],
    found: dict[tuple[str, str], SizeAttribute],
) -> None:
    """Attributes of a module with parameters of its own that equal one of their sizes."""
    candidates: dict[tuple[str, str], list[Owner]] = {}
    for (tensor, _), own in owned.items():
        path = tensor.rpartition(".")[0]
        module = model.get_submodule(path)
        if type(module).__module__.startswith("torch.nn."):
            continue
        for name, value in vars(module).items():
            if type(value) is int and value == own.size and not name.startswith("_"):
                candidates.setdefault((path, name), []).append(own)
    for key, owners in candidates.items():
        if all((o == owners[0]).all() for o in owners):
            found.setdefault(key, SizeAttribute(*key, owners[0]))
