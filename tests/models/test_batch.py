"""What a batch may be."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from mipprune.errors import InputError
from mipprune.models import check_labels, main_output, move_batch, run_model, split_batch

X = torch.ones(2, 3)
Y = torch.tensor([0, 1])


class Pair(NamedTuple):
    inputs: Tensor
    target: Tensor


@pytest.mark.parametrize(
    ("batch", "args", "kwargs", "target"),
    [
        (X, (X,), {}, None),
        ((X,), (X,), {}, None),
        ((X, Y), (X,), {}, Y),
        ([X, Y], (X,), {}, Y),
        (Pair(X, Y), (X,), {}, Y),
        (((X, X), Y), (X, X), {}, Y),
        (({"a": X}, Y), (), {"a": X}, Y),
        ({"a": X, "labels": Y}, (), {"a": X}, Y),
        ({"a": X, "target": Y}, (), {"a": X}, Y),
        ({"a": X}, (), {"a": X}, None),
    ],
)
def test_split(batch: Any, args: Any, kwargs: Any, target: Any) -> None:
    got_args, got_kwargs, got_target = split_batch(batch)
    assert got_target is target
    assert len(got_args) == len(args)
    assert all(a is b for a, b in zip(got_args, args, strict=True))
    assert got_kwargs.keys() == kwargs.keys()
    assert all(got_kwargs[key] is kwargs[key] for key in kwargs)


@pytest.mark.parametrize("batch", [(X, Y, Y), [], "text", (3, Y), None])
def test_other_batches_are_refused_with_the_way_around(batch: Any) -> None:
    with pytest.raises(InputError, match="forward="):
        split_batch(batch)


def test_run_model_uses_the_parts_or_the_function() -> None:
    class Sum(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a + 2 * b

    def forward(model: nn.Module, batch: Any) -> Any:
        return -model(*batch[:2])

    model = Sum()
    assert torch.equal(run_model(model, ((X, X), Y)), 3 * X)
    assert torch.equal(run_model(model, {"b": X, "a": 0 * X, "labels": Y}), 2 * X)
    assert torch.equal(run_model(model, (X, X, Y), forward), -3 * X)


@pytest.mark.parametrize(
    "outputs",
    [X, (X, Y), [X], {"logits": X, "loss": Y}, {"last": X}, SimpleNamespace(logits=X)],
)
def test_main_output(outputs: Any) -> None:
    assert main_output(outputs) is X


@pytest.mark.parametrize("outputs", [None, (), {}, "text", {"logits": None}])
def test_outputs_without_a_tensor_are_refused(outputs: Any) -> None:
    with pytest.raises(InputError, match="forward="):
        main_output(outputs)


def test_move_keeps_the_structure() -> None:
    image = torch.zeros(2, 3, 4, 4)
    batch = {"pair": Pair(image, Y), "list": [X, "name"], "n": 3}
    moved = move_batch(batch, "meta", memory_format=torch.channels_last)
    assert isinstance(moved["pair"], Pair)
    assert moved["pair"].inputs.device.type == "meta"
    assert moved["pair"].inputs.is_contiguous(memory_format=torch.channels_last)
    assert moved["list"][1] == "name"
    assert moved["n"] == 3


def test_labels_in_range() -> None:
    check_labels(Y, 2, "a batch")
    check_labels(torch.empty(0, dtype=torch.int64), 2, "an empty batch")
    with pytest.raises(InputError, match="labels of a batch run from 0 to 1, expected 0 to 0"):
        check_labels(Y, 1, "a batch")
    with pytest.raises(InputError, match="expected integers"):
        check_labels(X, 2, "a batch")
