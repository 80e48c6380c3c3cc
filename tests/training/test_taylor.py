"""Taylor importance against its definition and against what removal does to the loss."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mipprune.errors import InputError
from mipprune.graph.budgets import Budgets
from mipprune.models import Dataset, batches
from mipprune.training import Taylor
from tests.training.networks import TinyNet, tiny_groups


def losses_of(model: nn.Module, data: Dataset) -> list[Tensor]:
    return [F.cross_entropy(model(x), y) for x, y in batches(data, "train", 9, augment=False)]


def by_hand(net: TinyNet, data: Dataset) -> list[float]:
    """Mean over batches of the squared sum of g w, class by class."""
    totals = np.zeros(10)
    every = losses_of(net, data)
    for loss in every:
        net.zero_grad()
        torch.autograd.backward(loss)
        for start, conv, norm in ((0, net.conv1, net.bn1), (4, net.conv2, net.bn2)):
            for c in range(len(norm.weight)):
                total = 0.0
                parameters = [conv.weight, norm.weight, norm.bias]
                if conv.bias is not None:
                    parameters.append(conv.bias)
                for parameter in parameters:
                    assert parameter.grad is not None
                    total += float((parameter.detach()[c] * parameter.grad[c]).sum())
                totals[start + c] += total**2
    return list(totals / len(every))


def test_three_ways_to_the_same_scores(data: Dataset) -> None:
    expected = by_hand(TinyNet().eval(), data)
    looped, net = Taylor(), TinyNet().eval()
    looped.prepare(net, tiny_groups())
    for loss in losses_of(net, data):
        net.zero_grad()
        torch.autograd.backward(loss)
        looped.after_backward()
    np.testing.assert_allclose(looped.scores(), expected, rtol=1e-4, atol=1e-12)

    net = TinyNet()
    given = Taylor(losses=lambda model: losses_of(model, data))
    given.prepare(net, tiny_groups())
    np.testing.assert_allclose(given.scores(), expected, rtol=1e-4, atol=1e-12)
    assert net.training
    assert all(p.grad is None for p in net.parameters())

    one, net = Taylor(), TinyNet().eval()
    one.prepare(net, tiny_groups())
    torch.autograd.backward(losses_of(net, data)[0])
    first = one.scores()
    limited = Taylor(losses=lambda model: losses_of(model, data), batches=1)
    limited.prepare(TinyNet(), tiny_groups())
    np.testing.assert_allclose(limited.scores(), first, rtol=1e-5)


def test_it_is_the_first_order_change_of_the_loss(data: Dataset) -> None:
    net, groups = TinyNet(seed=3).eval(), tiny_groups()
    x, y = next(iter(batches(data, "train", 36, augment=False)))
    loss = F.cross_entropy(net(x), y)
    torch.autograd.backward(loss)
    method = Taylor()
    method.prepare(net, groups)
    scores = method.scores()
    step = 1e-3
    for c in range(6):
        with torch.no_grad():
            parts = [net.conv2.weight, net.bn2.weight, net.bn2.bias]
            kept = [p[c].clone() for p in parts]
            for part in parts:
                part[c] *= 1 - step
            change = (F.cross_entropy(net.double()(x.double()), y) - loss).item() / step
            net.float()
            for part, value in zip(
                (net.conv2.weight, net.bn2.weight, net.bn2.bias), kept, strict=True
            ):
                part[c] = value
        assert change**2 == pytest.approx(scores[4 + c], rel=0.05, abs=1e-7)


def test_gradients_are_needed() -> None:
    method = Taylor()
    method.prepare(TinyNet(), tiny_groups())
    with pytest.raises(InputError, match="no gradients"):
        method.choose(Budgets(macs="50%"))
    with pytest.raises(InputError, match="without a budget"):
        method.choose()
    for options in ({"normalise": "x"}, {"batches": 0}):
        with pytest.raises(InputError):
            Taylor(**options)
