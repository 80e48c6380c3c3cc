"""The data type itself."""

import numpy as np
import pytest

from mipprune.errors import InputError
from mipprune.graph import FROZEN, ChannelGroups, CostTerm, Family
from mipprune.graph.groups import count_kept


def groups() -> ChannelGroups:
    part = np.array([0, 0, 1, 1, FROZEN])
    families = (Family("a", 0, 3, (), ()), Family("b", 3, 8, (), (), (part,), minimum=2))
    owner = np.array([0, 1, 2, FROZEN])
    terms = (CostTerm("w", 2.0, (owner, np.arange(3, 8))), CostTerm("b", 5.0))
    return ChannelGroups(families, (), terms, terms[:1])


def test_costs_by_hand() -> None:
    kept = np.array([1, 0, 0, 1, 0, 1, 0, 0], bool)
    # (1 of 3 owned + 1 frozen) * 2 of 5 * 2 + 5.
    assert groups().parameters(kept) == 13
    assert groups().macs(kept) == 8
    assert groups().parameters() == 45
    assert count_kept(np.array([FROZEN, 0, 0]), np.array([False])) == 1


def test_masks_and_kept_are_inverse() -> None:
    kept = np.array([1, 0, 1, 1, 0, 1, 0, 1], bool)
    assert np.array_equal(groups().kept(groups().masks(kept)), kept)
    assert groups().kept({}).all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([1, 0, 1, 1, 1], r"keeps \[1, 2\] classes in its parts"),
        ([0, 0, 0, 0, 1], "at least 2 must stay"),
        ([1, 1, 1, 1], "expected bool of shape"),
    ],
)
def test_masks_that_break_a_family(mask: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        groups().kept({"b": np.array(mask, bool)})


def test_exempt_classes_may_go() -> None:
    assert groups().kept({"b": np.array([1, 0, 0, 1, 0], bool)}).sum() == 5


def test_ranges_and_names_are_checked() -> None:
    with pytest.raises(InputError, match="starting at 0"):
        ChannelGroups((Family("a", 1, 2, (), ()),), (), (), ())
    with pytest.raises(InputError, match="same name"):
        ChannelGroups((Family("a", 0, 2, (), ()), Family("a", 2, 3, (), ())), (), (), ())
    with pytest.raises(InputError, match="bool array of shape"):
        groups().masks(np.ones(3, bool))
