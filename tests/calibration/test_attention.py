"""Heads of torch.nn.MultiheadAttention: their statistics, and errors against real outputs."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune.calibration import apply_weights, calibrate
from mipprune.graph import channel_groups, remove

WIDTH, HEADS = 12, 4


class Net(nn.Module):
    """Self-attention with the batch first, and attention to others with the batch second."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.second = nn.MultiheadAttention(WIDTH, HEADS, kdim=7, vdim=6, bias=False)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        x = x + self.first(x, x, x, need_weights=False)[0]
        y, _ = self.second(x.transpose(0, 1), key, value)
        out: Tensor = self.head(x + y.transpose(0, 1))
        return out


def seeded(model: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return model.double().eval()


def data(count: int = 3) -> list[tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((4, 5, WIDTH), (6, 4, 7), (6, 4, 6))
    return [
        tuple(torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
        for _ in range(count)
    ]


def call(model: nn.Module, batch: Any) -> Any:
    return model(*batch)


def attention_outputs(model: nn.Module, name: str, batches: list[Any]) -> Tensor:
    """What an attention module gives, without the bias of its projection."""
    module = model.get_submodule(name)
    assert isinstance(module, nn.MultiheadAttention)
    seen: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, __, output: seen.append(output[0].detach()))
    with torch.no_grad():
        for batch in batches:
            call(model, batch)
    handle.remove()
    found = torch.cat([y.reshape(-1, WIDTH) for y in seen])
    return found if module.out_proj.bias is None else found - module.out_proj.bias.detach()


@pytest.mark.parametrize("name", ["first", "second"])
def test_error_of_removed_heads_is_the_error_of_the_module(name: str) -> None:
    model, batches = seeded(Net()), data()
    groups = channel_groups(model, batches[0])
    calibration = calibrate(model, batches, groups, forward=call)
    assert not calibration.skipped
    (family,) = [f for f in calibration.values() if f.rows[0].layer == f"{name}.out_proj"]
    assert len(family.family) == HEADS
    before = attention_outputs(model, name, batches)
    for variant in ("mask", "refit"):
        problem = family.problem(damping=0.0, variant=variant)
        mask = np.array([True, False, True, False])
        smaller = copy.deepcopy(model)
        apply_weights(smaller, family, problem.weights(mask))
        after = attention_outputs(smaller, name, batches)
        expected = 0.5 * float((before - after).square().sum()) / len(before)
        assert expected > 1e-3
        assert problem.value(mask) == pytest.approx(expected, rel=1e-9)


def test_targets_come_from_the_reference() -> None:
    dense, batches = seeded(Net()), data()
    groups = channel_groups(dense, batches[0])
    pruned = copy.deepcopy(dense)
    with torch.no_grad():
        pruned.get_submodule("first.out_proj").get_parameter("weight")[:, :3] = 0.0
    calibration = calibrate(pruned, batches, groups, reference=dense, forward=call)
    (family,) = [f for f in calibration.values() if f.rows[0].layer == "second.out_proj"]
    wanted = attention_outputs(dense, "second", batches)
    (term,) = family.terms
    assert term.energy == pytest.approx(float(wanted.square().sum()) / len(wanted), rel=1e-10)
    problem = family.problem(damping=0.0)
    kept = np.ones(HEADS, dtype=bool)
    apply_weights(pruned, family, problem.weights(kept))
    refitted = attention_outputs(pruned, "second", batches)
    expected = 0.5 * float((wanted - refitted).square().sum()) / len(wanted)
    assert problem.value(kept) == pytest.approx(expected, rel=1e-8)


def call_padded(model: nn.Module, batch: Any) -> Any:
    return model(batch[0], src_key_padding_mask=batch[1])


def test_encoder_with_padding_is_observed_and_pruned() -> None:
    """Heads and feed-forward units of a whole encoder; settings are as before afterwards."""
    generator = torch.Generator().manual_seed(2)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 20, batch_first=True)
    model = seeded(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    padding = torch.zeros(4, 6, dtype=torch.bool)
    padding[:, 5] = True
    batches = [
        (torch.randn(4, 6, WIDTH, generator=generator, dtype=torch.float64), padding)
        for _ in range(4)
    ]
    # Traced without padding: with it the mask is expanded to a fixed number of heads.
    groups = channel_groups(model, batches[0][:1])
    assert sorted(len(f) for f in groups) == [HEADS, HEADS, 20, 20]
    assert torch.backends.mha.get_fastpath_enabled()
    calibration = calibrate(model, batches, groups, forward=call_padded)
    assert torch.backends.mha.get_fastpath_enabled()
    assert not calibration.skipped
    assert all(not module._forward_hooks for module in model.modules())
    masks: dict[str, NDArray[np.bool_]] = {}
    pruned = copy.deepcopy(model)
    for name, family in calibration.items():
        problem = family.problem(damping=0.0)
        masks[name] = np.arange(len(family.family)) % 2 == 0
        apply_weights(pruned, family, problem.weights(masks[name]))
    smaller = remove(pruned, groups, masks)
    with torch.no_grad():
        for batch in batches:
            expected, found = call_padded(pruned, batch), call_padded(smaller, batch)
            torch.testing.assert_close(found[:, :5], expected[:, :5])
