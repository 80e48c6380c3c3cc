"""Multi-head attention whose heads need not fill the model width.

`torch.nn.MultiheadAttention` computes the size of a head as width / heads, so
it cannot lose heads. A removal turns it into `HeadwiseAttention`, which has the
same parameters, arguments and results, by assigning the class: hooks, names
and parameters stay what they were.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipprune.errors import InputError

__all__ = ["HeadwiseAttention", "can_convert", "convert"]


class HeadwiseAttention(nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention` with ``num_heads * head_dim`` free of ``embed_dim``."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Arguments and results as in `torch.nn.MultiheadAttention.forward`.

        ``is_causal`` is a hint there and ignored here: ``attn_mask`` decides.
        """
        batched = query.dim() == 3
        batch_dim = 0 if self.batch_first or not batched else 1
        if not batched:
            query, key, value = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        if batch_dim == 1:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = self._project(query, key, value)
        mask = self._mask(attn_mask, key_padding_mask, q)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q * self.head_dim**-0.5) @ k.transpose(-1, -2)
            weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        out = out.transpose(0, 1) if batch_dim == 1 else out
        if not batched:
            out, weights = out.squeeze(0), None if weights is None else weights.squeeze(0)
        return out, weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Heads of the three projections, (batch, heads, length, head_dim)."""
        packed: Tensor | None = self.in_proj_weight
        if packed is not None:
            matrices = packed.chunk(3)
        else:
            matrices = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, w, b).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for x, w, b in zip((query, key, value), matrices, biases, strict=True)
        )
        return q, k, v

    def _mask(
        self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor
    ) -> Tensor | None:
        """Sum of both masks as numbers to add to the scores."""
        total: Tensor | None = None
        if attn_mask is not None:
            if attn_mask.dim() == 3:
                if attn_mask.size(0) != q.size(0) * self.num_heads:
                    raise InputError(
                        f"attn_mask has {attn_mask.size(0)} slices, expected batch * heads = "
                        f"{q.size(0) * self.num_heads}; heads were removed from this module"
                    )
                attn_mask = attn_mask.unflatten(0, (-1, self.num_heads))
            total = _additive(attn_mask, q.dtype)
        if key_padding_mask is not None:
            padding = _additive(key_padding_mask, q.dtype)[:, None, None, :]
            total = padding if total is None else total + padding
        return total


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, float("-inf"))


def can_convert(module: nn.Module) -> bool:
    """Whether ``module`` is plain `torch.nn.MultiheadAttention` without extra keys."""
    return (
        type(module) is nn.MultiheadAttention and module.bias_k is None and not module.add_zero_attn
    )


def convert(module: nn.Module) -> None:
    """Give a convertible attention module the class `HeadwiseAttention`, in place."""
    if can_convert(module):
        assert isinstance(module, nn.MultiheadAttention)
        module.__class__ = HeadwiseAttention
        # Keeps torch's encoder layers from reading the weights past this class.
        module._qkv_same_embed_dim = False
