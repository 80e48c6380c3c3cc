"""Data sets by name, and what importing loads."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mipprune.errors import InputError
from mipprune.models import data_names, load_data


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'imagenet'; known are digits, fashion-mnist"):
        load_data("imagenet")


@pytest.mark.parametrize("name", data_names())
def test_options_of_others_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="no option colour"):
        load_data(name, colour="red")


def test_a_factory_gets_root_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_reader.py").write_text(
        "class Data:\n"
        "    validation = test = []\n"
        "    def __init__(self, root, n): self.train = [root] * n\n"
        "def nothing(): return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    data: Any = load_data("own_reader:Data", "somewhere", n=2)
    assert data.train == ["somewhere"] * 2
    with pytest.raises(InputError, match="'own_reader:nothing' returned a int"):
        load_data("own_reader:nothing")


def test_importing_loads_no_optional_package() -> None:
    heavy = ["sklearn", "PIL", "transformers", "safetensors", "pyomo", "cvxpy", "scipy.optimize"]
    code = (
        "import sys, mipprune.models; "
        f"print([name for name in {heavy} if name in sys.modules]); "
        "print([name for name in ('models', 'solvers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=500
    )
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]
