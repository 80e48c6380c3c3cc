"""Removal: what must survive, and that wrong removals are refused."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune.errors import InputError, RemovalError
from mipprune.graph import (
    ChannelGroups,
    channel_groups,
    mask_model,
    random_masks,
    remove,
    verify_removal,
)

Bools = NDArray[np.bool_]


def network() -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Sigmoid(),
        nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(80, 4),
    )  # fmt: skip
    return model, torch.randn(2, 3, 4, 4)


def removed(model: nn.Module, example: Tensor) -> tuple[Any, ChannelGroups, dict[str, Bools]]:
    groups = channel_groups(model, example)
    masks = random_masks(groups, np.random.default_rng(1))
    return remove(model, groups, masks), groups, masks


def test_smaller_network_equals_zeroed_inputs_of_the_consumers() -> None:
    # Independent of mask_model: the activations themselves are zeroed by hooks.
    model, example = network()
    smaller, _, masks = removed(model, example)
    model.double().eval()
    smaller.double().eval()
    keep0 = torch.from_numpy(masks["0"]).view(1, -1, 1, 1)
    keep3 = torch.from_numpy(masks["3"]).view(1, -1, 1, 1).expand(1, 5, 4, 4).reshape(1, -1)
    model[3].register_forward_pre_hook(lambda _, args: (args[0] * keep0,))
    model[6].register_forward_pre_hook(lambda _, args: (args[0] * keep3,))
    torch.testing.assert_close(
        smaller(example.double()), model(example.double()), rtol=1e-12, atol=1e-12
    )


def test_original_is_never_changed() -> None:
    model, example = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    text = repr(model)
    removed(model, example)
    assert repr(model) == text
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_modes_flags_hooks_and_sizes_survive() -> None:
    model, example = network()
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    seen: list[str] = []
    model[3].register_forward_hook(lambda *_: seen.append("hook"))
    smaller, groups, masks = removed(model, example)
    assert smaller.training
    assert not smaller[1].training
    assert not smaller[0].weight.requires_grad
    assert smaller[0].bias.requires_grad
    seen.clear()
    smaller(example)
    assert seen == ["hook"]
    n0, n3 = int(masks["0"].sum()), int(masks["3"].sum())
    assert (smaller[0].out_channels, smaller[1].num_features, smaller[3].in_channels) == (n0,) * 3
    assert (smaller[3].out_channels, smaller[6].in_features) == (n3, 16 * n3)
    assert sum(p.numel() for p in smaller.parameters()) == groups.parameters(groups.kept(masks))


def test_memory_format_and_dtype_survive() -> None:
    model, example = network()
    model = model.to(memory_format=torch.channels_last).to(torch.float64)
    smaller, _, _ = removed(model, example.double())
    assert smaller[3].weight.is_contiguous(memory_format=torch.channels_last)
    assert smaller[3].weight.dtype == torch.float64


def test_ties_survive() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inp, self.a, self.b, self.out = (
                nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3),
            )  # fmt: skip
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.out(F.relu(self.b(F.relu(self.a(F.relu(self.inp(x)))))))
            return out

    smaller, _, _ = removed(Net(), torch.randn(3, 5))
    assert smaller.b.weight is smaller.a.weight


def test_masks_that_keep_everything_give_an_equal_network() -> None:
    model, example = network()
    groups = channel_groups(model, example)
    smaller: Any = remove(model, groups, {})
    assert torch.equal(smaller.eval()(example), model.eval()(example))
    assert smaller is not model


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"9": np.ones(6, bool)}, "no family is called '9'"),
        ({"0": np.ones(5, bool)}, "expected bool of shape"),
        ({"0": np.ones(6)}, "expected bool of shape"),
        ({"0": np.zeros(6, bool)}, "at least 1 must stay"),
    ],
)
def test_bad_masks(masks: dict[str, Any], message: str) -> None:
    model, example = network()
    groups = channel_groups(model, example)
    with pytest.raises(InputError, match=message):
        remove(model, groups, masks)


def test_groups_of_another_network_are_refused() -> None:
    model, example = network()
    groups = channel_groups(model, example)
    model[3] = nn.Conv2d(6, 7, 3, padding=1)
    with pytest.raises(RemovalError, match="find them again"):
        remove(model, groups, {})


@pytest.mark.parametrize("tensor", ["3.weight", "1.running_var", "6.weight", "1.bias"])
def test_a_wrong_owner_is_noticed(tensor: str) -> None:
    model, example = network()
    groups = channel_groups(model, example)
    axes = []
    for axis in groups.axes:
        # Positions of two classes are swapped in one place only.
        owner = axis.owner
        if axis.tensor == tensor and axis.owner.min() >= (3 if tensor == "6.weight" else 0):
            owner = axis.owner[::-1].copy()
        axes.append(dataclasses.replace(axis, owner=owner))
    wrong = dataclasses.replace(groups, axes=tuple(axes))
    mask = {"0": np.array([1, 1, 1, 0, 0, 1], bool), "3": np.array([1, 0, 1, 1, 1], bool)}
    remove(model, groups, mask)
    with pytest.raises(RemovalError, match=r"differs from the masked one|fails to run"):
        remove(model, wrong, mask)


def test_a_zero_initialised_branch_does_not_hide_a_wrong_owner() -> None:
    model, example = network()
    nn.init.zeros_(model[6].weight)
    groups = channel_groups(model, example)
    wrong = dataclasses.replace(
        groups,
        axes=tuple(
            dataclasses.replace(a, owner=a.owner[::-1].copy()) if a.tensor == "6.weight" else a
            for a in groups.axes
        ),
    )
    with pytest.raises(RemovalError, match="differs"):
        remove(model, wrong, {"3": np.array([1, 0, 1, 1, 1], bool)})


def test_a_size_written_into_forward_is_refused_or_frozen() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 3), nn.Linear(6 * 4, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.b(F.relu(self.a(x)).reshape(2, 24))
            return out

    model, example = Net(), torch.randn(2, 3, 4, 4)
    groups = channel_groups(model, example)
    assert len(groups) == 0
    assert any("24" in z.reason or "run" in z.reason for z in groups.frozen)


def test_verify_reports_what_it_did() -> None:
    model, example = network()
    smaller, groups, masks = removed(model, example)
    check = verify_removal(model, smaller, groups, masks)
    assert check.passed
    assert (check.tolerance, check.dtype) == (1e-10, torch.float64)
    assert check.inputs >= 3
    with torch.no_grad():
        smaller[6].bias[0] += 1e-6
    assert not verify_removal(model, smaller, groups, masks).passed


def test_mask_model_keeps_the_size_and_zeroes_what_is_read() -> None:
    model, example = network()
    groups = channel_groups(model, example)
    mask = np.array([True, False, True, True, True, True])
    masked: Any = mask_model(model, groups, {"0": mask})
    assert masked[3].weight.shape == model[3].weight.shape
    assert torch.equal(masked[3].weight[:, 1], torch.zeros(5, 3, 3))
    assert torch.equal(masked[3].weight[:, 2], model[3].weight[:, 2])


def test_networks_that_compute_in_bfloat16_are_compared_to_its_precision(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 12), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out: Tensor = self.b(F.relu(self.a(x.float())))
            return out

    torch.manual_seed(0)
    smaller, _, masks = removed(Net(), torch.randn(3, 8))
    assert smaller.a.out_features == int(masks["a"].sum())
    assert "bfloat16" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_models_on_a_cuda_device() -> None:
    model, example = network()
    smaller, groups, masks = removed(model.cuda(), example.cuda())
    assert all(p.is_cuda for p in smaller.parameters())
    assert verify_removal(model, smaller, groups, masks).passed
