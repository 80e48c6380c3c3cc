"""Schedules and refused settings."""

import math

import pytest

from mipprune.errors import InputError
from mipprune.training import TrainConfig


def test_cosine_after_warm_up() -> None:
    config = TrainConfig(epochs=12, lr=0.4, warmup_epochs=2)
    assert config.learning_rate(0) == 0
    assert config.learning_rate(1) == pytest.approx(0.2)
    assert config.learning_rate(2) == pytest.approx(0.4)
    assert config.learning_rate(7) == pytest.approx(0.2)
    assert config.learning_rate(12) == pytest.approx(0.0)


def test_multistep_and_constant() -> None:
    config = TrainConfig(epochs=20, lr=1.0, schedule="multistep", milestones=(0.25, 0.5), decay=0.2)
    found = [config.learning_rate(e) for e in (0, 4.99, 5, 9.9, 10, 19.9)]
    assert found == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.04])
    assert TrainConfig(epochs=3, lr=0.3, schedule="constant").learning_rate(2.9) == 0.3


def test_differences_name_the_field() -> None:
    first = TrainConfig(epochs=3, lr=0.1, milestones=(0.5,))
    assert first.differences(first.as_dict()) == []
    found = TrainConfig(epochs=3, lr=0.2, milestones=(0.5,)).differences(first.as_dict())
    assert found == ["lr (stored 0.1, given 0.2)"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("batch_size", 0),
        ("lr", 0.0),
        ("lr", math.nan),
        ("weight_decay", -1e-4),
        ("momentum", math.inf),
        ("label_smoothing", 1.0),
        ("accumulate", 0),
        ("clip_norm", 0.0),
        ("optimizer", "adam"),
        ("schedule", "step"),
        ("precision", "fp16"),
        ("milestones", (0.5, 0.5)),
        ("milestones", (30,)),
        ("warmup_epochs", 9.0),
        ("seed", -1),
    ],
)
def test_bad_settings_are_refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match=name):
        TrainConfig(**{"epochs": 3, name: value})  # type: ignore[arg-type]  # wrong on purpose
