"""Geometric median: distances by hand, tied and uneven layers."""

import numpy as np
import pytest
import torch

from mipprune.errors import InputError
from mipprune.graph import channel_groups
from mipprune.graph.budgets import Budgets
from mipprune.models import build_model
from mipprune.training import GeometricMedian
from mipprune.training.geometric_median import class_vectors
from tests.training.networks import TinyNet, tiny_groups


def test_scores_are_summed_distances() -> None:
    net = TinyNet()
    method = GeometricMedian(normalise="none")
    method.prepare(net, tiny_groups())
    found = method.scores()
    for weight, start in ((net.conv1.weight, 0), (net.conv2.weight, 4)):
        filters = weight.detach().double().flatten(1).numpy()
        for j, one in enumerate(filters):
            expected = sum(np.linalg.norm(one - other) for other in filters)
            assert found[start + j] == pytest.approx(expected)


def test_the_redundant_filter_goes_and_not_the_small_one() -> None:
    net, groups = TinyNet(), tiny_groups()
    with torch.no_grad():
        for c, value in enumerate((-3.0, 0.9, 1.0, 6.0)):
            net.conv1.weight[c] = value
        net.conv1.weight[1, 0, 0, 0] = 3.0
    method = GeometricMedian()
    method.prepare(net, groups)
    # Constant filters but for one entry of the second: the third has the most neighbours.
    kept = groups.kept(method.choose(Budgets(macs="80%")))
    assert np.flatnonzero(~kept[:4]).tolist() == [2]
    assert method.scores()[:4].tolist() == [0.625, 0.375, 0.125, 0.875]


def test_tied_layers_are_one_vector() -> None:
    model = build_model("resnet20", in_channels=1, image_size=8, base_width=4)
    groups = channel_groups(model, (torch.zeros(1, 1, 8, 8),))
    stream = max(groups, key=lambda family: len(family.producers) * (len(family) == 4))
    vectors = class_vectors(model, groups, stream)
    assert vectors is not None
    widths = [
        model.get_parameter(f"{p}.weight")[0].numel()
        for p in stream.producers
        if model.get_submodule(p)._get_name() == "Conv2d"
    ]
    assert vectors.shape == (4, sum(widths))
    assert len(widths) > 1


def test_normalise_is_checked() -> None:
    with pytest.raises(InputError, match="normalise"):
        GeometricMedian(normalise="model")  # type: ignore[arg-type]  # wrong on purpose
