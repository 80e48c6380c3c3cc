"""Optimiser state of the kept channels."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mipprune.errors import InputError
from mipprune.graph import carry_optimizer, channel_groups, remove


def network() -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3)
    )
    return model.double(), torch.randn(4, 2, 4, 4, dtype=torch.float64)


def optimizers(model: nn.Module) -> dict[str, torch.optim.Optimizer]:
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    split = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    return {
        "sgd": torch.optim.SGD(split, lr=1e-3, momentum=0.9, nesterov=True),
        "adamw": torch.optim.AdamW(split, lr=0.01, betas=(0.8, 0.9), amsgrad=True),
    }


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    optimizer.zero_grad()
    model(x).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_training_goes_on_as_for_the_masked_network(kind: str) -> None:
    # A network whose last channel reads and writes nothing trains the others alike.
    model, x = network()
    mask = np.array([True, True, True, True, False])
    groups = channel_groups(model, x)
    with torch.no_grad():
        model[4].weight.view(3, 5, 4)[:, 4] = 0
    model.eval()
    for p in model.parameters():
        p.register_hook(_blocker(p, model))
    optimizer = optimizers(model)[kind]
    for _ in range(3):
        step(model, optimizer, x)
    smaller = remove(model, groups, {"0": mask})
    carried = carry_optimizer(optimizer, model, smaller, groups, {"0": mask})
    assert type(carried) is type(optimizer)
    assert [g["weight_decay"] for g in carried.param_groups] == [0.1, 0.0]
    for _ in range(3):
        step(model, optimizer, x)
        step(smaller, carried, x)
    small: Any = smaller
    torch.testing.assert_close(small[0].weight, model[0].weight[:4])
    torch.testing.assert_close(small[1].bias, model[1].bias[:4])
    torch.testing.assert_close(small[4].weight, model[4].weight[:, :16])


def _blocker(parameter: Tensor, model: Any) -> Any:
    """Gradient hook: the reading weights of channel 4 get no gradient."""

    def block(grad: Tensor) -> Tensor:
        if parameter is model[4].weight:
            grad = grad.clone()
            grad[:, 16:] = 0
        return grad

    return block


def test_state_before_the_first_step_is_empty() -> None:
    model, x = network()
    groups = channel_groups(model, x)
    optimizer = torch.optim.Adam(model.parameters())
    smaller = remove(model, groups, {})
    assert not carry_optimizer(optimizer, model, smaller, groups, {}).state


def test_foreign_parameters_and_factored_state_are_refused() -> None:
    model, x = network()
    groups = channel_groups(model, x)
    smaller = remove(model, groups, {})
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    with pytest.raises(InputError, match="not in the model"):
        carry_optimizer(other, model, smaller, groups, {})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.state[model[0].weight]["row"] = torch.ones(5)
    with pytest.raises(InputError, match="can not be carried"):
        carry_optimizer(optimizer, model, smaller, groups, {})
