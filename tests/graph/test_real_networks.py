"""Networks people have: of this library, pretrained ones, torchvision and timm where installed."""

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mipprune.errors import DataFileError, MissingExtraError
from mipprune.graph import (
    ChannelGroups,
    channel_groups,
    count_parameters,
    random_masks,
    remove,
    verify_removal,
)
from mipprune.models import build_model
from mipprune.models.pretrained import load_digit_cnn, load_efficientnet_lite0, load_minilm


def checked(model: nn.Module, inputs: Any, seed: int = 0) -> ChannelGroups:
    """Groups of a network from which a random removal was exact and counted right."""
    groups = channel_groups(model, inputs, rehearsal=False)
    masks = random_masks(groups, np.random.default_rng(seed))
    smaller = remove(model, groups, masks, verify=False)
    check = verify_removal(model, smaller, groups, masks)
    assert check.passed
    assert check.tolerance == 1e-10
    assert count_parameters(smaller) == groups.parameters(groups.kept(masks))
    return groups


def loaded(load: Any) -> Any:
    """The pretrained network, or skip with the command that installs it."""
    try:
        return load()
    except (DataFileError, MissingExtraError) as error:
        pytest.skip(str(error))


def optional(name: str) -> ModuleType:
    """The package, or skip: torchvision raises RuntimeError beside another torch."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{name} does not import here: {error}")


@pytest.mark.parametrize(
    ("name", "size", "families"),
    [
        ("resnet20", 8, 12),
        ("resnet18", 16, 12),
        ("mobilenetv2", 32, 25),
        ("vgg16", 32, 13),
        ("lenet5", 28, 3),
        ("mlp", 8, 2),
    ],
)
def test_networks_of_this_library(name: str, size: int, families: int) -> None:
    torch.manual_seed(0)
    model = build_model(name, in_channels=1, image_size=size, num_classes=5)
    groups = checked(model, torch.randn(2, 1, size, size))
    assert len(groups) == families
    assert {z.reason for z in groups.frozen} == {"an output of the network"}


def test_pretrained_digit_network() -> None:
    groups = checked(loaded(load_digit_cnn).model, torch.randn(2, 1, 28, 28))
    assert [len(f) for f in groups] == [32, 64, 128, 256]


def test_pretrained_efficientnet_lite0() -> None:
    groups = checked(loaded(load_efficientnet_lite0).model, torch.randn(1, 3, 64, 64))
    # Stem, 15 expansions, 7 streams, head: every channel but the 1000 outputs.
    assert (len(groups), groups.n_classes) == (24, 11_024)
    assert sum(z.n_channels for z in groups.frozen) == 1000


def test_pretrained_sentence_encoder() -> None:
    encoder = loaded(load_minilm)
    inputs = dict(encoder.tokenize(["a small dog", "the red house on the hill is nice"]))
    groups = checked(encoder.model, inputs)
    assert sorted(len(f) for f in groups) == [12] * 6 + [1536] * 6


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "resnet18", "resnext50_32x4d", "densenet121", "googlenet", "shufflenet_v2_x1_0",
        "mnasnet1_0", "mobilenet_v3_small", "efficientnet_b0", "regnet_y_400mf",
        "squeezenet1_1", "vit_b_16",
    ],
)  # fmt: skip
def test_torchvision(name: str) -> None:
    models = optional("torchvision").models
    torch.manual_seed(0)
    model = getattr(models, name)(weights=None)
    checked(model, torch.randn(1, 3, 224, 224))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto", "mixer_s32_224"])
def test_timm(name: str) -> None:
    timm = optional("timm")
    torch.manual_seed(0)
    checked(timm.create_model(name, pretrained=False), torch.randn(1, 3, 224, 224))


def second_opinion(model: nn.Module, example: Tensor, layer: nn.Module) -> set[str]:
    """Modules that torch-pruning changes when output channel 0 of ``layer`` goes."""
    pruning = optional("torch_pruning")
    graph = pruning.DependencyGraph().build_dependency(model, example_inputs=example)
    group = graph.get_pruning_group(layer, pruning.prune_conv_out_channels, idxs=[0])
    names = {module: name for name, module in model.named_modules()}
    return {names[dep.target.module] for dep, _ in group if dep.target.module in names}


def test_second_opinion_of_torch_pruning() -> None:
    torch.manual_seed(0)
    model: Any = build_model("resnet20", in_channels=1, image_size=8, num_classes=5, shortcut="B")
    example = torch.randn(1, 1, 8, 8)
    groups = channel_groups(model, example, rehearsal=False)
    for name in ("layer1.0.conv1", "layer2.1.conv1", "layer3.0.conv2"):
        theirs = second_opinion(model, example, model.get_submodule(name))
        (family,) = [f for f in groups if name in f.producers]
        ours = {
            a.tensor.rpartition(".")[0]
            for a in groups.axes
            if ((a.owner >= family.start) & (a.owner < family.stop)).any()
        }
        assert ours == theirs
