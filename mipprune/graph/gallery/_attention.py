"""Transformers: feed-forward units, whole heads, gates, embeddings."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MEMBERS"]

Example = tuple[nn.Module, object]
WIDTH, HEADS, TOKENS = 12, 4, 5


def tokens(batch: int = 2) -> Tensor:
    """Random token vectors."""
    return torch.randn(batch, TOKENS, WIDTH)


class Separate(nn.Module):
    """Separate q, k, v projections, product and softmax written out."""

    def __init__(self, fused_kernel: bool = False) -> None:
        super().__init__()
        self.num_heads, self.head_dim = HEADS, WIDTH // HEADS
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.o = nn.Linear(WIDTH, WIDTH)
        self.fused_kernel = fused_kernel

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.num_heads, self.head_dim).transpose(1, 2)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        memory = x if memory is None else memory
        q, k, v = self._heads(self.q(x)), self._heads(self.k(memory)), self._heads(self.v(memory))
        if self.fused_kernel:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            scores = q @ k.transpose(-1, -2) / math.sqrt(self.head_dim)
            y = scores.softmax(-1) @ v
        y = y.transpose(1, 2).reshape(x.shape[0], x.shape[1], self.num_heads * self.head_dim)
        out: Tensor = self.o(y)
        return out


class Fused(nn.Module):
    """One projection for q, k and v, cut by unbind, chunk or slices."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.heads, self.dim = HEADS, WIDTH // HEADS
        self.inner = WIDTH
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH)
        self.way = way

    def _cut(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, t, _ = x.shape
        if self.way == "unbind":
            y = self.qkv(x).reshape(n, t, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
            q, k, v = y.unbind(0)
            return q, k, v
        y = self.qkv(x)
        if self.way == "chunk":
            parts = y.chunk(3, dim=-1)
        else:
            i = self.inner
            parts = (y[..., :i], y[..., i : 2 * i], y[..., 2 * i :])
        q, k, v = (p.reshape(n, t, self.heads, self.dim).transpose(1, 2) for p in parts)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._cut(x)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out: Tensor = self.proj(y)
        return out


class Interleaved(nn.Module):
    """q, k and v of each head side by side, as in GPT-NeoX."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.dim = HEADS, WIDTH // HEADS
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        y = self.qkv(x).view(n, t, self.heads, 3 * self.dim).transpose(1, 2)
        q, k, v = y.chunk(3, dim=-1)
        y = (q @ k.transpose(-1, -2) * self.dim**-0.5).softmax(-1) @ v
        out: Tensor = self.proj(y.transpose(1, 2).reshape(n, t, -1))
        return out


class Grouped(nn.Module):
    """Grouped-query attention with rotary positions; heads of k and v are shared."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.dim = 4, 2, 6
        self.q, self.o = nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)
        self.k, self.v = nn.Linear(WIDTH, 12), nn.Linear(WIDTH, 12)
        self.way = way
        angles = torch.outer(torch.arange(TOKENS).float(), torch.tensor([1.0, 0.1, 0.01]))
        self.cos: Tensor
        self.sin: Tensor
        self.register_buffer("cos", torch.cat([angles.cos(), angles.cos()], -1))
        self.register_buffer("sin", torch.cat([angles.sin(), angles.sin()], -1))

    def _rotate(self, x: Tensor) -> Tensor:
        half = self.dim // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], -1)
        return x * self.cos + turned * self.sin

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q = self._rotate(self.q(x).view(n, t, -1, self.dim).transpose(1, 2))
        k = self._rotate(self.k(x).view(n, t, -1, self.dim).transpose(1, 2))
        v = self.v(x).view(n, t, -1, self.dim).transpose(1, 2)
        repeat = 2
        if self.way == "native":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            if self.way == "interleave":
                k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
            else:
                k = k[:, :, None].expand(n, k.shape[1], repeat, t, self.dim).flatten(1, 2)
                v = v[:, :, None].expand(n, v.shape[1], repeat, t, self.dim).flatten(1, 2)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.o(y.transpose(1, 2).reshape(n, t, -1))
        return out


class Block(nn.Module):
    """Pre-norm block: attention and a feed-forward unit around a residual stream."""

    def __init__(self, attention: nn.Module, gated: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention, self.gated = attention, gated
        self.up, self.down = nn.Linear(WIDTH, 20), nn.Linear(20, WIDTH)
        if gated:
            self.gate = nn.Linear(WIDTH, 20)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        y = self.norm2(x)
        hidden = F.silu(self.gate(y)) * self.up(y) if self.gated else F.gelu(self.up(y))
        out: Tensor = x + self.down(hidden)
        return out


def separate() -> Example:
    """Heads of separate projections."""
    return Block(Separate()), tokens()


def separate_kernel() -> Example:
    """Heads through scaled_dot_product_attention."""
    return Block(Separate(fused_kernel=True)), tokens()


def fused_unbind() -> Example:
    """Fused qkv by view, permute, unbind."""
    return Block(Fused("unbind")), tokens()


def fused_chunk() -> Example:
    """Fused qkv by chunk."""
    return Block(Fused("chunk")), tokens()


def fused_slices() -> Example:
    """Fused qkv by slices."""
    return Block(Fused("slices")), tokens()


def interleaved() -> Example:
    """Fused qkv, heads outside."""
    return Block(Interleaved()), tokens()


def grouped_query() -> Example:
    """Grouped queries by repeat_interleave, gated feed-forward, rotary positions."""
    return Block(Grouped("interleave"), gated=True), tokens()


def grouped_query_expand() -> Example:
    """Grouped queries by expand and flatten."""
    return Block(Grouped("expand"), gated=True), tokens()


def grouped_query_native() -> Example:
    """Grouped queries inside scaled_dot_product_attention."""
    return Block(Grouped("native")), tokens()


def cross_attention() -> Example:
    """Queries from one sequence, keys and values from another."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = Separate(), nn.Linear(WIDTH, 3)

        def forward(self, x: Tensor, memory: Tensor) -> Tensor:
            out: Tensor = self.head(torch.relu(self.attention(x, memory)))
            return out

    return Net(), (tokens(), torch.randn(2, 7, WIDTH))


def torch_attention() -> Example:
    """nn.MultiheadAttention."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(WIDTH, WIDTH)
            self.first = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
            self.second = nn.MultiheadAttention(WIDTH, HEADS, kdim=7, vdim=6, bias=False)
            self.head = nn.Linear(WIDTH, 3)

        def forward(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
            x = self.stem(x)
            x = x + self.first(x, x, x, need_weights=False)[0]
            y, _ = self.second(x.transpose(0, 1), key, value)
            out: Tensor = self.head(x + y.transpose(0, 1))
            return out

    return Net(), (tokens(), torch.randn(6, 2, 7), torch.randn(6, 2, 6))


def torch_encoder() -> Example:
    """nn.TransformerEncoder."""
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 20, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), tokens()


def head_norm() -> Example:
    """A norm with parameters over each head's dimensions; relative position bias per head."""

    class Attention(Separate):
        def __init__(self) -> None:
            super().__init__()
            self.q_norm = nn.LayerNorm(self.head_dim)
            self.bias = nn.Parameter(torch.randn(HEADS, TOKENS, TOKENS))

        def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
            q, k, v = self._heads(self.q(x)), self._heads(self.k(x)), self._heads(self.v(x))
            scores = self.q_norm(q) @ k.transpose(-1, -2) + self.bias
            y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
            out: Tensor = self.o(y)
            return out

    return Block(Attention()), tokens()


def vision_transformer() -> Example:
    """Patches by convolution, class token, learned positions."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, WIDTH, 4, stride=4)
            self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
            self.position = nn.Parameter(torch.randn(1, 5, WIDTH))
            self.blocks = nn.Sequential(Block(Fused("unbind")), Block(Fused("unbind")))
            self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.patch(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
            out: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
            return out

    return Net(), torch.randn(2, 3, 8, 8)


def tied_embedding() -> Example:
    """Token embedding tied to the output, no norm on the stream: its channels are prunable."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.position = nn.Embedding(9, WIDTH), nn.Embedding(TOKENS, WIDTH)
            self.attention, self.mid = Separate(fused_kernel=True), nn.Linear(WIDTH, WIDTH)
            self.out = nn.Linear(WIDTH, 9, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, ids: Tensor) -> Tensor:
            x = self.embed(ids) + self.position(torch.arange(ids.shape[1]))
            x = x + self.attention(x)
            x = x + torch.tanh(self.mid(x))
            out: Tensor = self.out(x)
            return out

    return Net(), torch.randint(9, (2, TOKENS))


def conv_attention() -> Example:
    """Self-attention over pixels with 1x1 convolutions (non-local block)."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.v = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 1)
            self.q, self.k = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)
            self.o, self.head = nn.Conv2d(6, 8, 1), nn.Conv2d(8, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.stem(x))
            q, k, v = self.q(x).flatten(2), self.k(x).flatten(2), self.v(x).flatten(2)
            y = torch.bmm(v, torch.bmm(q.transpose(1, 2), k).softmax(-1).transpose(1, 2))
            out: Tensor = self.head(x + self.o(y.view(y.shape[0], -1, x.shape[2], x.shape[3])))
            return out

    return Net(), torch.randn(2, 3, 5, 5)


MEMBERS: dict[str, dict[str, Callable[[], Example]]] = {
    "transformers: separate projections": {
        "separate": separate, "separate_kernel": separate_kernel,
        "cross_attention": cross_attention, "head_norm": head_norm,
    },
    "transformers: fused projections": {
        "fused_unbind": fused_unbind, "fused_chunk": fused_chunk, "fused_slices": fused_slices,
        "interleaved": interleaved,
    },
    "transformers: grouped queries and gated units": {
        "grouped_query": grouped_query, "grouped_query_expand": grouped_query_expand,
        "grouped_query_native": grouped_query_native,
    },
    "transformers: torch modules": {
        "torch_attention": torch_attention, "torch_encoder": torch_encoder,
    },
    "transformers: whole networks": {
        "vision_transformer": vision_transformer, "tied_embedding": tied_embedding,
        "conv_attention": conv_attention,
    },
}  # fmt: skip
