"""A fully connected ReLU network as plain arrays, and what pruning its neurons means."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipprune.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["ReLUNetwork"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ReLUNetwork:
    """``x -> W_L relu(... relu(W_1 x + b_1) ...) + b_L``.

    Attributes
    ----------
    weights : tuple of float64 (n_l, n_{l-1})
    biases : tuple of float64 (n_l,)

    Raises
    ------
    InputError
        Fewer than two layers, shapes that do not chain, values that are not finite.
    """

    weights: tuple[Floats, ...]
    biases: tuple[Floats, ...]

    def __post_init__(self) -> None:
        if len(self.weights) < 2 or len(self.weights) != len(self.biases):
            raise InputError(
                f"expected at least two layers with one bias each, got {len(self.weights)} "
                f"weights and {len(self.biases)} biases"
            )
        width = self.weights[0].shape[-1]
        for index, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            if w.ndim != 2 or w.shape[1] != width or b.shape != (w.shape[0],):
                raise InputError(
                    f"layer {index}: weights {w.shape} and bias {b.shape} do not fit an input "
                    f"of width {width}"
                )
            if not (np.all(np.isfinite(w)) and np.all(np.isfinite(b))):
                raise InputError(f"layer {index}: weights contain NaN or infinity")
            width = w.shape[0]

    @classmethod
    def create(cls, weights: Sequence[ArrayLike], biases: Sequence[ArrayLike]) -> "ReLUNetwork":
        """Copy anything array-like to float64."""
        return cls(
            tuple(np.array(w, dtype=np.float64) for w in weights),
            tuple(np.array(b, dtype=np.float64) for b in biases),
        )

    @classmethod
    def from_module(cls, module: "torch.nn.Module") -> "ReLUNetwork":
        """Read a ``torch.nn.Sequential`` of Linear and ReLU layers.

        Flatten, Dropout and Identity are passed over; they do nothing in eval mode.

        Raises
        ------
        InputError
            Any other layer, by name, or an order other than linear, ReLU, ..., linear.
        """
        from torch import nn

        passed = (nn.Flatten, nn.Dropout, nn.Identity, nn.Sequential)
        weights: list[Floats] = []
        biases: list[Floats] = []
        expect_relu = False
        for name, layer in module.named_modules():
            if name == "" or isinstance(layer, passed):
                continue
            if isinstance(layer, nn.Linear) and not expect_relu:
                weights.append(layer.weight.detach().double().cpu().numpy().copy())
                bias = np.zeros(layer.out_features)
                if layer.bias is not None:
                    bias = layer.bias.detach().double().cpu().numpy().copy()
                biases.append(bias)
            elif not (isinstance(layer, nn.ReLU) and expect_relu):
                raise InputError(
                    f"layer '{name}' ({type(layer).__name__}): expected Linear and ReLU in turn, "
                    "beginning and ending with Linear"
                )
            expect_relu = isinstance(layer, nn.Linear)
        if not expect_relu:
            raise InputError("the network must end with a Linear layer")
        return cls(tuple(weights), tuple(biases))

    @property
    def widths(self) -> tuple[int, ...]:
        """Neurons of each hidden layer."""
        return tuple(w.shape[0] for w in self.weights[:-1])

    @property
    def n_neurons(self) -> int:
        """Hidden neurons in all."""
        return sum(self.widths)

    def full_masks(self) -> tuple[Bools, ...]:
        """Masks that keep everything, bool (n_l,) per hidden layer."""
        return tuple(np.ones(n, dtype=bool) for n in self.widths)

    def forward(self, inputs: Floats, masks: Sequence[Bools] | None = None) -> Floats:
        """Outputs, float64 (N, n_L); removed neurons put out zero."""
        return self.preactivations(inputs, masks)[-1]

    def preactivations(
        self, inputs: Floats, masks: Sequence[Bools] | None = None
    ) -> tuple[Floats, ...]:
        """``W_l h_{l-1} + b_l`` of every layer, float64 (N, n_l); the last are the outputs."""
        masks = self.full_masks() if masks is None else masks
        values: list[Floats] = []
        hidden = np.asarray(inputs, dtype=np.float64)
        for index, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            values.append(hidden @ w.T + b)
            if index < len(masks):
                hidden = np.maximum(values[-1], 0.0) * masks[index]
        return tuple(values)

    def without(self, masks: Sequence[Bools]) -> "ReLUNetwork":
        """The smaller network: removed neurons are gone, outputs as under the masks."""
        weights, biases = [], []
        columns: Bools | slice = slice(None)
        for index, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            rows: Bools | slice = masks[index] if index < len(masks) else slice(None)
            weights.append(w[rows][:, columns])
            biases.append(b[rows])
            columns = rows
        return ReLUNetwork(tuple(weights), tuple(biases))
