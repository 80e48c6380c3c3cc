"""HeadwiseAttention against torch.nn.MultiheadAttention, and after losing heads."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mipprune.errors import InputError
from mipprune.graph import channel_groups, random_masks, remove, restore, spec
from mipprune.graph.headwise import HeadwiseAttention, can_convert, convert


def pair(**options: Any) -> tuple[nn.MultiheadAttention, nn.MultiheadAttention]:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(12, 4, **options).double().eval()
    twin = nn.MultiheadAttention(12, 4, **options).double().eval()
    twin.load_state_dict(module.state_dict())
    convert(twin)
    assert isinstance(twin, HeadwiseAttention)
    return module, twin


CAUSAL = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize(
    "masks",
    [
        {},
        {"attn_mask": CAUSAL},
        {"key_padding_mask": PADDING},
        {"attn_mask": CAUSAL, "key_padding_mask": PADDING},
        {"attn_mask": torch.linspace(-1, 1, 8 * 25, dtype=torch.float64).view(8, 5, 5)},
    ],
)
def test_same_as_torch(batch_first: bool, need_weights: bool, masks: dict[str, Tensor]) -> None:
    module, twin = pair(batch_first=batch_first)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    x = x if batch_first else x.transpose(0, 1)
    expected = module(x, x, x, need_weights=need_weights, **masks)
    found = twin(x, x, x, need_weights=need_weights, **masks)
    torch.testing.assert_close(found[0], expected[0])
    assert (found[1] is None) == (expected[1] is None)
    if need_weights:
        torch.testing.assert_close(found[1], expected[1])


def test_unbatched_other_widths_and_weights_per_head() -> None:
    module, twin = pair(kdim=7, vdim=6, bias=False)
    inputs = [torch.randn(n, w, dtype=torch.float64) for n, w in ((3, 12), (5, 7), (5, 6))]
    expected = module(*inputs, average_attn_weights=False)
    found = twin(*inputs, average_attn_weights=False)
    torch.testing.assert_close(found, expected)


def test_heads_go_from_an_encoder_in_every_mode() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 4, 16, batch_first=True, dropout=0.0)
    model = nn.Sequential(nn.Linear(5, 12), nn.TransformerEncoder(layer, 2), nn.Linear(12, 3))
    x = torch.randn(2, 6, 5)
    groups = channel_groups(model, x)
    smaller: Any = remove(model, groups, random_masks(groups, np.random.default_rng(0), 0.5))
    attention = smaller[1].layers[0].self_attn
    assert isinstance(attention, nn.MultiheadAttention)
    assert (attention.num_heads, attention.head_dim) == (2, 3)
    trained = smaller.train()(x)
    with torch.no_grad():
        inferred = smaller.eval()(x)
    torch.testing.assert_close(trained.detach(), inferred)
    trained.sum().backward()
    again: Any = restore(model, spec(smaller), smaller.state_dict()).eval()
    torch.testing.assert_close(again(x), inferred)


def test_what_can_not_be_converted_stays() -> None:
    extra = nn.MultiheadAttention(12, 4, add_bias_kv=True)
    assert not can_convert(extra)
    _, twin = pair()
    with pytest.raises(InputError, match="attn_mask has 3 slices"):
        twin(*[torch.randn(5, 2, 12, dtype=torch.float64)] * 3, attn_mask=torch.zeros(3, 5, 5))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = extra, nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.attention(x, x, x)[0])
            return out

    groups = channel_groups(Net(), torch.randn(5, 2, 12))
    assert "attention" in {z.name for z in groups.frozen}
    remove(Net(), groups, random_masks(groups, np.random.default_rng(0)))
