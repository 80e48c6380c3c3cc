"""Wrong input is refused with a clear error before anything is trained or written."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mipprune.errors import BudgetError, InputError, MippruneError, TraceError
from mipprune.models import Split, build_model
from mipprune.pipeline import PruneConfig, prune
from tests.pipeline.tiny import tiny_config, tiny_data, tiny_model, tiny_run


class Untraceable(nn.Module):
    """Decides by the values of its input, which no trace can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        scores: Tensor = self.layer(flat if flat.sum() > 0 else -flat)
        return scores


class Source:
    """Data of one's own: batches in lists."""

    def __init__(self, labels: list[int]) -> None:
        images = torch.zeros(len(labels), 1, 8, 8)
        self.train = self.validation = self.test = [(images, torch.tensor(labels))]


def _refused(tmp_path: Path, kind: type[MippruneError], message: str, **changes: Any) -> None:
    out = tmp_path / "run"
    with pytest.raises(kind, match=message):
        tiny_run(out, **changes)
    assert not out.exists()


@pytest.mark.parametrize("alpha", [0, 1, -0.5, 1.5, float("nan")])
def test_alpha_outside_its_interval(tmp_path: Path, alpha: float) -> None:
    options = {"alpha": alpha}
    _refused(tmp_path, InputError, r"alpha must be in \(0, 1\)", method_options=options)


@pytest.mark.parametrize("big_m", [-1.0, 0.0])
def test_bound_that_is_not_positive(tmp_path: Path, big_m: float) -> None:
    _refused(tmp_path, InputError, "M must be positive", method_options={"big_m": big_m})


def test_unknown_option_of_the_method(tmp_path: Path) -> None:
    options = {"strenght": 1.0}
    _refused(tmp_path, InputError, "no option strenght", method_options=options)


def test_unknown_method(tmp_path: Path) -> None:
    _refused(tmp_path, InputError, "unknown method 'magic'", method="magic")


@pytest.mark.parametrize("resource", ["macs", "params", "channels"])
def test_unreachable_budget_gives_the_range(tmp_path: Path, resource: str) -> None:
    limits = {"macs": None, resource: "1%"}
    _refused(tmp_path, BudgetError, "cannot be reached: this network goes from", **limits)


@pytest.mark.parametrize("amount", ["0%", "-5", "120%", "forty", "40 %%"])
def test_budget_that_is_no_amount(tmp_path: Path, amount: str) -> None:
    _refused(tmp_path, InputError, "budget macs=", macs=amount)


def test_unknown_model_and_data(tmp_path: Path) -> None:
    for changes, message in (
        ({"model": "resnet2"}, "unknown network 'resnet2'"),
        ({"data": "digit"}, "unknown data set 'digit'"),
        ({"model": "no.such.module:net"}, "cannot import"),
        ({"weights": "none.pt"}, "no weight file"),
    ):
        settings: dict[str, Any] = {"data": "digits", "model": "lenet5", "macs": "50%", **changes}
        out = tmp_path / "run"
        with pytest.raises(MippruneError, match=message):
            prune(PruneConfig(**settings), out, progress=False)
        assert not out.exists()


def test_network_that_cannot_be_traced(tmp_path: Path) -> None:
    _refused(tmp_path, TraceError, "Untraceable", model=Untraceable)


def test_wrong_image_shape(tmp_path: Path) -> None:
    def other() -> nn.Module:
        return build_model("mlp", in_channels=1, image_size=9, hidden=(8,))

    message = r"MLP does not take inputs of shape \(2, 1, 8, 8\): RuntimeError"
    _refused(tmp_path, InputError, message, model=other)


def test_nothing_to_remove(tmp_path: Path) -> None:
    def linear() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    _refused(tmp_path, InputError, "no channel of Sequential can be removed", model=linear)


def test_model_that_is_none(tmp_path: Path) -> None:
    _refused(tmp_path, InputError, "expected a torch.nn.Module", model=lambda: None)


def test_labels_out_of_range_in_a_data_set() -> None:
    data = tiny_data()
    wrong = Split(data.train.source, data.train.indices, data.train.labels + 5)
    with pytest.raises(InputError, match="labels of split 'train' of 'digits' run from 5 to 14"):
        replace(data, train=wrong)


def test_labels_out_of_range_in_batches(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="labels of a batch run from 0 to 10, expected 0 to 9"):
        prune(
            tiny_config(),
            tmp_path / "run",
            model=tiny_model,
            data=Source([0, 3, 10, 2]),
            progress=False,
        )


def test_batches_without_labels(tmp_path: Path) -> None:
    source = Source([0])
    source.train = source.validation = source.test = [(torch.zeros(2, 1, 8, 8),)]  # type: ignore[list-item]  # no labels
    with pytest.raises(InputError, match="no target"):
        prune(tiny_config(), tmp_path / "run", model=tiny_model, data=source, progress=False)
