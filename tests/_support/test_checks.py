"""What each check takes and refuses, and that messages name what was given."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mipprune._support.checks import (
    require_callable,
    require_choice,
    require_flag,
    require_floats,
    require_instance,
    require_integer,
    require_iterable,
    require_mapping,
    require_number,
    require_path,
    require_text,
    require_time_limit,
    shown,
)
from mipprune._support.devices import require_device
from mipprune.errors import InputError

NO_NUMBERS: list[Any] = [None, "3", "", [], [1.0], True, np.True_, 1j, np.zeros((2, 3)), object()]


@pytest.mark.parametrize("given", NO_NUMBERS, ids=repr)
def test_what_is_no_number(given: Any) -> None:
    with pytest.raises(InputError, match="size: expected a finite number, got "):
        require_number("size", given)
    with pytest.raises(InputError, match="size: expected an integer >= 0, got "):
        require_integer("size", given, at_least=0)


@pytest.mark.parametrize("given", [2, 2.0, np.float32(2), np.int64(2), Fraction(2)])
def test_numbers_of_any_kind(given: Any) -> None:
    found = require_number("size", given, above=0, at_most=2)
    assert found == 2.0
    assert type(found) is float


@pytest.mark.parametrize(
    ("given", "limits", "expected"),
    [
        (0, {"above": 0}, "a finite number > 0, got 0"),
        (2, {"below": 2, "at_least": 0}, "a finite number >= 0 and < 2, got 2"),
        (math.inf, {}, "a finite number, got inf"),
        (math.nan, {"finite": False}, "a number, got nan"),
        (10**400, {}, "a finite number, got an integer of 1329 bits"),
        ("3", {"unit": "seconds", "alternative": "or None"}, "seconds or None, got the text '3'"),
    ],
)
def test_message_of_a_number(given: Any, limits: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as found:
        require_number("size", given, **limits)
    assert str(found.value) == f"size: expected {expected}"


def test_infinity_where_it_is_allowed() -> None:
    assert require_number("size", math.inf, above=0, finite=False) == math.inf
    assert require_time_limit(math.inf) == math.inf
    assert require_time_limit(None) is None
    assert require_time_limit(0, zero=True) == 0
    with pytest.raises(InputError, match="time_limit: expected seconds > 0 or None, got 0"):
        require_time_limit(0)


@pytest.mark.parametrize("given", [2.0, 1.5, math.nan, np.float64(2)])
def test_no_integer(given: float) -> None:
    with pytest.raises(InputError, match="n: expected an integer"):
        require_integer("n", given)


def test_integers() -> None:
    assert type(require_integer("n", np.int64(3), at_least=3, at_most=3)) is int
    with pytest.raises(InputError, match=r"n: expected an integer >= 1 and <= 3 or None, got 4"):
        require_integer("n", 4, at_least=1, at_most=3, alternative="or None")


@pytest.mark.parametrize("given", [None, 0, 1, "no", [], np.zeros(2)], ids=repr)
def test_no_switch(given: Any) -> None:
    with pytest.raises(InputError, match="resume: expected True or False, got "):
        require_flag("resume", given)


def test_choices_are_suggested() -> None:
    assert require_choice("kind", "gl", ("auto", "gl")) == "gl"
    with pytest.raises(InputError, match="expected one of auto, schur, got the text 'shur'; did"):
        require_choice("kind", "shur", ("auto", "schur"))
    for given in (None, ["gl"], np.array(["gl", "a"])):
        with pytest.raises(InputError, match="kind: expected one of auto, gl, got "):
            require_choice("kind", given, ("auto", "gl"))


def test_an_open_file_number_is_no_path() -> None:
    assert require_path("out", Path("a")) == require_path("out", "a") == Path("a")
    wrong: list[Any] = [0, 1, True, "", None, b"a", "a\0b", []]
    for given in wrong:
        with pytest.raises(InputError, match="out: expected the path of a file"):
            require_path("out", given)


@pytest.mark.parametrize(
    "given",
    ["1", ["1"], [1j], [None], np.array(["a"]), [[1], [1, 2]], torch.zeros(2, requires_grad=True)],
    ids=repr,
)
def test_arrays_that_are_not_real(given: Any) -> None:
    with pytest.raises(InputError, match="costs: expected real numbers"):
        require_floats("costs", given)


def test_arrays() -> None:
    given: NDArray[np.float64] = np.arange(3.0)
    assert require_floats("costs", given) is given
    assert require_floats("costs", torch.ones(2, dtype=torch.bool)).tolist() == [1, 1]


def test_the_other_kinds() -> None:
    assert list(require_iterable("keeps", range(2))) == [0, 1]
    assert require_mapping("options", {"a": 1}) == {"a": 1}
    assert require_callable("forward", len) is len
    assert require_text("name", "a") == "a"
    assert require_instance("name", "a", str) == "a"
    wrong: list[tuple[Any, Any]] = [
        (require_iterable, "ab"),
        (require_iterable, torch.tensor(1.0)),
        (require_mapping, [("a", 1)]),
        (require_mapping, {1: 1}),
        (require_callable, "len"),
        (require_text, ""),
        (require_text, 3),
    ]
    for check, given in wrong:
        with pytest.raises(InputError, match="given: expected "):
            check("given", given)
    with pytest.raises(
        InputError, match="given: expected an int or float, got the text 'a file'; load"
    ):
        require_instance("given", "a file", (int, float), "load it")


def test_a_network_is_named_by_its_type() -> None:
    assert shown(torch.nn.Linear(2, 2)) == "an object of type Linear"
    assert shown(torch.nn.Linear) == "the class Linear, not an object of it"
    assert shown(np.zeros((2, 3))) == "ndarray float64 of shape (2, 3)"
    assert len(shown("x" * 1000)) < 100


@pytest.mark.parametrize("given", ["cud", "cpu:x", "", None, 0, "meta", "mps:7", "cuda:99"])
def test_devices_that_are_not_here(given: Any) -> None:
    with pytest.raises(InputError, match=r"device: .*expected .*cpu"):
        require_device(given)


def test_the_cpu_is_always_here() -> None:
    assert require_device("cpu") == require_device(torch.device("cpu")) == torch.device("cpu")
