"""Statistics of one consumer: validation, canonical forms."""

import numpy as np
import pytest

from mipprune.errors import InputError
from mipprune.problem import Term


def data(seed: int = 0, d: int = 5, m: int = 2, n: int = 30) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, d)), generator.normal(size=(n, m))


def term(seed: int = 0, **options: object) -> Term:
    x, y = data(seed)
    n = len(x)
    return Term.create(x.T @ x / n, x.T @ y / n, (y**2).sum() / n, [1, 2, 2], **options)  # type: ignore[arg-type]  # forwarded


def test_rows_and_offsets_follow_the_group_sizes() -> None:
    t = term(ridge=[1.0, 2.0, 3.0])
    assert t.offsets.tolist() == [0, 1, 3, 5]
    assert t.channel_of_row.tolist() == [0, 1, 1, 2, 2]
    added = np.diag(t.damped_gram) - np.diag(t.gram)
    np.testing.assert_allclose(added, [1, 2, 2, 3, 3])
    assert t.rows(np.array([True, False, True])).tolist() == [True, False, False, True, True]


def test_arrays_cannot_be_written() -> None:
    t = term(dense=np.ones((5, 2)))
    for array in (t.gram, t.cross, t.ridge, t.big_m, t.group_sizes, t.dense):
        assert array is not None
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gram": np.eye(4)}, "shape"),
        ({"gram": np.full((5, 5), np.nan)}, "NaN"),
        ({"gram": np.triu(np.ones((5, 5)))}, "symmetric"),
        ({"gram": np.diag([1.0, 1, 1, 1, -1])}, "semidefinite"),
        ({"gram": "text"}, "real numbers"),
        ({"cross": np.ones((4, 2))}, "shape"),
        ({"cross": 3.0}, "shape"),
        ({"cross": np.full((5, 2), np.inf)}, "infinity"),
        ({"energy": -1.0}, "energy"),
        ({"energy": np.nan}, "energy"),
        ({"energy": [1.0, 2.0]}, "energy"),
        ({"energy": "x"}, "energy"),
        ({"group_sizes": [1, 4.5]}, "group_sizes"),
        ({"group_sizes": [np.nan, 5]}, "group_sizes"),
        ({"group_sizes": []}, "group_sizes"),
        ({"group_sizes": [6, -1]}, "group_sizes"),
        ({"ridge": -0.1}, "ridge"),
        ({"ridge": [0.1, 0.1]}, "ridge"),
        ({"ridge": np.inf}, "ridge"),
        ({"big_m": 0.0}, "big_m"),
        ({"big_m": np.nan}, "big_m"),
        ({"dense": np.ones((5, 3))}, "dense"),
    ],
)
def test_wrong_input_is_refused_by_name(change: dict[str, object], message: str) -> None:
    x, y = data()
    given: dict[str, object] = {
        "gram": x.T @ x,
        "cross": x.T @ y,
        "energy": (y**2).sum(),
        "group_sizes": [1, 2, 2],
    }
    given |= change
    with pytest.raises(InputError, match=message):
        Term.create(**given)  # type: ignore[arg-type]  # wrong types on purpose


def test_unbounded_loss_is_refused_but_consistent_singular_data_are_not() -> None:
    x, y = data(n=3)  # rank 3 of 5
    gram, cross, energy = x.T @ x, x.T @ y, float((y**2).sum())
    Term.create(gram, cross, energy, [1, 2, 2])
    null = np.linalg.svd(x)[2][-1]
    outside = cross + 0.5 * null[:, None]
    with pytest.raises(InputError, match="no minimum"):
        Term.create(gram, outside, energy, [1, 2, 2])
    Term.create(gram, outside, energy, [1, 2, 2], ridge=0.1)
    with pytest.raises(InputError, match="no minimum"):
        Term.create(np.zeros((1, 1)), [[1.0]], 1.0, [1])


def test_weight_multiplies_loss_and_ridge() -> None:
    t = term(ridge=0.3).weighted(2.5)
    np.testing.assert_allclose(t.damped_gram, 2.5 * term(ridge=0.3).damped_gram)
    np.testing.assert_allclose(t.cross, 2.5 * term().cross)
    assert t.energy == pytest.approx(2.5 * term().energy)
    for weight in (0.0, -1.0, np.nan):
        with pytest.raises(InputError, match="weight"):
            term().weighted(weight)


def test_scaled_channels_has_the_loss_of_scaled_weights() -> None:
    generator = np.random.default_rng(3)
    dense = generator.normal(size=(5, 2))
    dense[0] = 0.0
    t = term(ridge=[0.1, 0.2, 0.3], dense=dense, big_m=2.0)
    scaled = t.scaled_channels()
    beta = generator.normal(size=3)
    w = beta[t.channel_of_row][:, None] * dense
    loss = 0.5 * np.sum(w * (t.damped_gram @ w)) - np.sum(t.cross * w)
    short = 0.5 * beta @ scaled.damped_gram @ beta - scaled.cross[:, 0] @ beta
    assert short == pytest.approx(loss, rel=1e-12)
    assert scaled.big_m[0] == np.inf
    assert scaled.big_m[1] * np.abs(dense[1:3]).max() == pytest.approx(2.0)


def test_compressed_cross_has_the_same_product() -> None:
    x, y = data(m=9)
    wide = Term.create(x.T @ x, x.T @ y, (y**2).sum(), [1, 2, 2])
    assert wide.compressed_cross.shape == (5, 5)
    expected = wide.cross @ wide.cross.T
    np.testing.assert_allclose(
        wide.compressed_cross @ wide.compressed_cross.T, expected, atol=1e-11 * expected.max()
    )
    assert term().compressed_cross is not None
    assert term().compressed_cross.shape == (5, 2)


def test_variants_that_need_the_original_weights_say_so() -> None:
    with pytest.raises(InputError, match="original weights"):
        term().scaled_channels()


def test_a_consumer_may_skip_channels() -> None:
    t = Term.create(np.eye(2), np.ones((2, 1)), 2.0, [0, 1, 0, 1])
    assert t.rows(np.array([True, True, False, False])).tolist() == [True, False]
