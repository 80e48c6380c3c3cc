"""What a layer multiplies with its weights: rows of inputs, one per output position.

For a convolution the row of an output position holds the receptive field of
every channel (channel major, then kernel); the layer's output is that row times
the weights. A transposed convolution is the convolution of its zero-stuffed
input with the mirrored kernel, so its rows are those of that convolution with
the kernel axis mirrored back.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CONSUMERS", "Rows", "Sampler", "n_groups", "rows_of", "targets_at"]

CONSUMERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
"""Layer types whose inputs can be collected."""

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

CHUNK_BYTES = 64_000_000


@dataclass(frozen=True)
class Rows:
    """Float64 rows (n, groups, d) of examples ``first ..``, with their places.

    ``positions`` holds the output position of each row, (examples, s), where
    only some were drawn; None means all of them.
    """

    values: Tensor
    first: int
    examples: int
    positions: Tensor | None


class Sampler:
    """Draws output positions per example; all of them where ``count`` is None."""

    def __init__(self, count: int | None, generator: torch.Generator | None) -> None:
        self.count = count
        self.generator = generator

    def draw(self, examples: int, available: int) -> Tensor | None:
        """Positions (examples, count) without repetition within an example."""
        if self.count is None or self.count >= available:
            return None
        keys = torch.rand(examples, available, generator=self.generator)
        return keys.argsort(1)[:, : self.count]


def n_groups(layer: nn.Module) -> int:
    """Groups of a convolution; 1 for a linear layer."""
    return 1 if isinstance(layer, nn.Linear) else int(getattr(layer, "groups", 1))


def rows_of(layer: nn.Module, x: Tensor, output: Tensor, sampler: Sampler) -> Iterator[Rows]:
    """Rows of one call of ``layer`` on ``x``, in chunks of examples.

    Parameters
    ----------
    layer : one of CONSUMERS
    x : Tensor
        Input of the call.
    output : Tensor
        Output of the call; only its shape is read.
    sampler : Sampler
    """
    windows = _windows(layer, _batched(layer, x), _batched(layer, output).shape)
    # (examples, *output positions, channels, *kernel)
    n_spatial = 1 if isinstance(layer, nn.Linear) else (windows.dim() - 2) // 2
    available = math.prod(windows.shape[1 : 1 + n_spatial])
    width = math.prod(windows.shape[1 + n_spatial :])
    drawn = sampler.draw(len(windows), available)
    used = available if drawn is None else drawn.size(1)
    step = max(1, CHUNK_BYTES // max(8 * used * width, 1))
    groups = n_groups(layer)
    for first in range(0, len(windows), step):
        part = windows[first : first + step]
        places = None if drawn is None else drawn[first : first + step].to(x.device)
        flat = _taken(part, n_spatial, places).double().reshape(len(part) * used, groups, -1)
        yield Rows(flat, first, len(part), places)


def targets_at(layer: nn.Module, output: Tensor, rows: Rows) -> Tensor:
    """Outputs without bias at the places of ``rows``, float64 (n, groups, m)."""
    y = _batched(layer, output)[rows.first : rows.first + rows.examples]
    bias = getattr(layer, "bias", None)
    y = y.double()
    if not isinstance(layer, nn.Linear):
        y = y.movedim(1, -1)
    if bias is not None:
        y = y - bias.detach().double()
    n_spatial = y.dim() - 2
    taken = _taken(y, n_spatial, rows.positions)
    return taken.reshape(-1, n_groups(layer), y.size(-1) // n_groups(layer))


def _batched(layer: nn.Module, x: Tensor) -> Tensor:
    """With one leading batch dimension; a linear layer's further ones become positions."""
    if isinstance(layer, nn.Linear):
        if x.dim() == 1:
            x = x[None]
        return x.reshape(x.size(0), -1, x.size(-1))
    n_spatial = _n_spatial(layer)
    return x[None] if x.dim() == n_spatial + 1 else x


def _n_spatial(layer: nn.Module) -> int:
    weight = layer.weight
    assert isinstance(weight, Tensor)  # every type in CONSUMERS has one
    return weight.dim() - 2


def _taken(values: Tensor, n_spatial: int, positions: Tensor | None) -> Tensor:
    """Drawn positions of (examples, *spatial, ...) as (examples * s, ...), or the whole."""
    if positions is None:
        return values
    sizes = values.shape[1 : 1 + n_spatial]
    index: list[Tensor] = []
    rest = positions
    for size in reversed(sizes):
        index.insert(0, rest % size)
        rest = rest // size
    example = torch.arange(len(values), device=values.device)[:, None].expand_as(positions)
    return values[(example, *index)]


def _windows(layer: nn.Module, x: Tensor, output_shape: torch.Size) -> Tensor:
    """View of (examples, *output positions, channels, *kernel)."""
    if isinstance(layer, nn.Linear):
        return x
    if isinstance(layer, TRANSPOSED):
        return _transposed_windows(layer, x, output_shape)
    if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        raise TypeError(f"{type(layer).__name__} is not a layer with windows")
    pads = _padding(layer)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(x, pads, mode=mode) if any(pads) else x
    return _unfolded(padded, layer.kernel_size, layer.stride, layer.dilation)


def _padding(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> list[int]:
    """Padding in the order of ``torch.nn.functional.pad``: last dimension first."""
    pads: list[int] = []
    for dim in reversed(range(len(layer.kernel_size))):
        if layer.padding == "same":
            total = layer.dilation[dim] * (layer.kernel_size[dim] - 1)
            pads += [total // 2, total - total // 2]
        elif layer.padding == "valid":
            pads += [0, 0]
        else:
            pads += [int(layer.padding[dim])] * 2
    return pads


def _transposed_windows(
    layer: nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d,
    x: Tensor,
    output_shape: torch.Size,
) -> Tensor:
    n = len(layer.kernel_size)
    stuffed_shape = [(size - 1) * s + 1 for size, s in zip(x.shape[2:], layer.stride, strict=True)]
    stuffed = x.new_zeros(*x.shape[:2], *stuffed_shape)
    stuffed[(slice(None), slice(None), *(slice(None, None, s) for s in layer.stride))] = x
    pads: list[int] = []
    for dim in reversed(range(n)):
        reach = layer.dilation[dim] * (layer.kernel_size[dim] - 1)
        left = reach - int(layer.padding[dim])
        right = output_shape[2 + dim] + reach - stuffed_shape[dim] - left
        pads += [left, right]
    padded = F.pad(stuffed, pads)
    windows = _unfolded(padded, layer.kernel_size, (1,) * n, layer.dilation)
    return windows.flip(*range(-n, 0))


def _unfolded(
    x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Tensor:
    """Sliding windows of (examples, channels, *spatial), channels after the positions."""
    n = len(kernel)
    for dim in range(n):
        reach = dilation[dim] * (kernel[dim] - 1) + 1
        x = x.unfold(2 + dim, reach, stride[dim])[..., :: dilation[dim]]
    return x.movedim(1, 1 + n)
