"""Settings: JSON and back, and every value out of range refused."""

from pathlib import Path
from typing import Any

import pytest

from mipprune.errors import DataFileError, InputError
from mipprune.pipeline import PruneConfig, load_config
from mipprune.pipeline._recipes import method_options, model_options, phase_settings
from mipprune.training.recipes import recipe_for
from tests.pipeline.tiny import tiny_config, tiny_data


def test_round_trip(tmp_path: Path) -> None:
    config = tiny_config(method_options={"alpha": 0.2}, training={"milestones": (0.5, 0.75)})
    config.save(tmp_path / "config.json")
    back = load_config(tmp_path / "config.json")
    assert config.differences(back) == []
    assert back.method_options == {"alpha": 0.2}


def test_differences_name_the_setting() -> None:
    found = tiny_config(seed=1).differences(tiny_config(seed=2, macs="40%"))
    assert found == ["macs ('50%' and '40%')", "seed (1 and 2)"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"macs": None}, "there is no budget"),
        ({"rounding": "authors"}, "takes no budget"),
        ({"rounding": "best"}, "rounding: expected one of budget, optimiser, authors"),
        ({"multiple_of": 0}, "multiple_of must be an integer >= 1"),
        ({"seed": -1}, "seed must be"),
        ({"seed": True}, "seed must be"),
        ({"epochs": 0}, "epochs must be an integer >= 1"),
        ({"tune_epochs": -1}, "tune_epochs must be an integer >= 0"),
        ({"training": {"seed": 3}}, "set seed by its own field"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_config(**changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "not a configuration of format 1"),
        ("{", "is not a configuration"),
        ('{"format": 1, "colour": 3}', "unknown settings colour"),
        ('{"format": 1}', "'data' and 'model' are missing"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(DataFileError, match=message):
        load_config(tmp_path / "config.json")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="no configuration"):
        load_config(tmp_path / "config.json")


def test_recipe_fills_what_is_open() -> None:
    config = PruneConfig(data="digits", model="mlp", macs="50%", training={"lr": 0.4})
    settings = phase_settings(config, tiny_data())
    recipe = recipe_for("digits")
    assert [settings[phase].epochs for phase in ("dense", "train", "tune")] == [
        recipe.dense,
        recipe.train,
        recipe.tune,
    ]
    assert settings["train"].lr == 0.4
    assert settings["tune"].lr == pytest.approx(0.4 * recipe.tune_lr)


def test_settings_over_the_recipe() -> None:
    config = tiny_config(tune_epochs=0, seed=7, training={"milestones": [0.5], "lr": 0.2})
    settings = phase_settings(config, tiny_data())
    assert set(settings) == {"dense", "train"}
    assert settings["dense"].milestones == (0.5,)
    assert settings["train"].seed == 7


def test_options_over_the_recipe() -> None:
    recipe = recipe_for("digits")
    config = tiny_config(method_options={"strength": 3.5}, model_options={"hidden": (4,)})
    expected = {**recipe.methods["spr"], "strength": 3.5}
    assert method_options(config, tiny_data()) == expected
    assert method_options(tiny_config(method="l1-norm"), tiny_data()) == {}
    assert model_options(config, tiny_data()) == {"hidden": (4,)}


def test_unknown_training_setting() -> None:
    with pytest.raises(InputError, match="unknown training setting learning_rate"):
        phase_settings(tiny_config(training={"learning_rate": 1.0}), tiny_data())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": None}, "data: expected a name"),
        ({"macs": "140%"}, "budget macs=140%"),
        ({"rounding_seconds": "x"}, "rounding_seconds: expected seconds > 0, got the text 'x'"),
        ({"training": None}, "training: expected a mapping"),
        ({"device": None}, "device: expected the name of a device"),
        ({"weights": 3}, "weights: expected the path"),
    ],
)
def test_wrong_types_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PruneConfig(**{"data": "digits", "model": "lenet5", "macs": "50%", **changes})


def test_paths_become_texts() -> None:
    config = PruneConfig(data="digits", model="lenet5", macs="50%", weights=Path("a.pt"))  # type: ignore[arg-type]  # what people pass
    assert config.weights == "a.pt"
    assert PruneConfig.from_json(config.to_json()) == config
