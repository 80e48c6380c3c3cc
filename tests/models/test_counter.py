"""Stateless random numbers."""

import numpy as np
import pytest

from mipprune.errors import InputError
from mipprune.models._counter import (
    counter_bits,
    counter_integers,
    counter_permutation,
    splitmix64,
)


def test_the_published_sequence_of_splitmix64() -> None:
    # First five outputs for seed 1234567, as in the reference C code of Vigna.
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert splitmix64(1234567, np.arange(5)).tolist() == expected


def test_big_and_negative_seeds_wrap() -> None:
    indices = np.arange(3)
    assert np.array_equal(splitmix64(-1, indices), splitmix64(2**64 - 1, indices))


def test_bits_depend_on_every_coordinate() -> None:
    indices = np.arange(100)
    base = counter_bits(0, 0, 0, indices)
    for other in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not np.isin(counter_bits(*other, indices), base).any()


def test_a_draw_does_not_depend_on_its_neighbours() -> None:
    whole = counter_bits(5, 3, 1, np.arange(50))
    assert np.array_equal(counter_bits(5, 3, 1, np.array([40, 7])), whole[[40, 7]])


def test_integers_are_uniform() -> None:
    draws = counter_integers(1, 2, 3, np.arange(50_000), 5)
    counts = np.bincount(draws, minlength=5)
    # Chi-square with 4 degrees of freedom: 99.9 % quantile 18.5.
    assert float(((counts - 10_000) ** 2 / 10_000).sum()) < 18.5
    assert counts.size == 5


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_permutations_are_permutations(n: int) -> None:
    assert np.array_equal(np.sort(counter_permutation(0, 1, 2, n)), np.arange(n))


def test_positions_in_a_permutation_are_uniform() -> None:
    # Where does element 0 of ten land, over 5000 epochs?
    places = [int(np.argmin(counter_permutation(0, epoch, 0, 10))) for epoch in range(5000)]
    counts = np.bincount(places, minlength=10)
    # 9 degrees of freedom: 99.9 % quantile 27.9.
    assert float(((counts - 500) ** 2 / 500).sum()) < 27.9


def test_negative_coordinates_are_refused() -> None:
    with pytest.raises(InputError, match="epoch"):
        counter_bits(0, -1, 0, np.arange(2))
