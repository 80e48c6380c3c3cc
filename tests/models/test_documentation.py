"""The examples of docs/models_and_data.md run as printed."""

import importlib.util
import re
from pathlib import Path

import pytest

from mipprune.models import build_model, data_names, model_names

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models_and_data.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed"
)
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_run(number: int) -> None:
    exec(compile(EXAMPLES[number], f"{PAGE.name}, example {number + 1}", "exec"), {})


def test_every_name_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(EXAMPLES) == 3
    # Depths of one family are listed as `resnet20`, `32`, ...
    for name in model_names():
        assert f"`{name}`" in text or f"`{name.removeprefix('resnet')}`" in text
    assert all(f"`{name}`" in text for name in data_names())


@pytest.mark.parametrize(("name", "published"), [("resnet20b", 272_474), ("wrn16x4", 2_748_890)])
def test_sizes_given_on_the_page_only(name: str, published: int) -> None:
    assert sum(p.numel() for p in build_model(name).parameters()) == published
