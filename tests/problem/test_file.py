"""Problem files: round trips, plain files, damage."""

from pathlib import Path

import numpy as np
import pytest

from mipprune.errors import DataFileError
from mipprune.problem import ChannelSelection, Resource, Term


def rich_problem() -> ChannelSelection:
    generator = np.random.default_rng(0)
    terms = []
    for index, sizes in enumerate(([1, 2, 1], [0, 3, 3])):
        d = sum(sizes)
        x = generator.normal(size=(20, d))
        w = generator.normal(size=(d, 2 + index))
        y = x @ w
        terms.append(
            Term.create(
                x.T @ x,
                x.T @ y,
                (y**2).sum(),
                sizes,
                ridge=[0.1, 0.2, 0.3],
                big_m=[1.0, np.inf, 2.0],
                dense=w,
                name=f"consumer{index}",
            )
        )
    return ChannelSelection.from_terms(
        terms,
        prices=[0.1, 0.0, 0.3],
        resources=[Resource("macs", np.array([3.0, 1.0, 2.0]), 5.0, 1.0)],
        keep=2,
        variant="scale",
        forced_in=np.array([False, True, False]),
        parts=[np.array([0, -1, 1])],
    )


def test_round_trip_keeps_everything(tmp_path: Path) -> None:
    problem = rich_problem()
    again = ChannelSelection.load(problem.save(tmp_path / "layer.npz"))
    assert again.content_hash == problem.content_hash
    assert [t.name for t in again.terms] == ["consumer0", "consumer1"]
    assert [(r.name, r.upper, r.lower) for r in again.resources] == [
        ("channels", 2.0, -np.inf),
        ("macs", 5.0, 1.0),
    ]
    for mask in ([True, True, False], [False, True, True], [False, True, False]):
        assert again.value(mask) == problem.value(mask)
        assert again.is_feasible(mask) == problem.is_feasible(mask)
    assert again.terms[0].big_m.tolist() == [1.0, np.inf, 2.0]
    assert again.parts[0].tolist() == [0, -1, 1]


def test_hash_depends_on_every_part() -> None:
    problem = rich_problem()
    changed = [
        problem.with_keep(1),
        problem.with_damping(0.1),
        problem.with_forced(problem.forced_in, np.array([True, False, False])),
        ChannelSelection.from_terms(problem.terms, keep=2),
        ChannelSelection.from_terms(problem.terms[:1], keep=2),
    ]
    hashes = {p.content_hash for p in [problem, *changed]}
    assert len(hashes) == len(changed) + 1
    assert rich_problem().content_hash == problem.content_hash


def test_four_keys_are_enough(tmp_path: Path) -> None:
    path = tmp_path / "plain.npz"
    np.savez(path, gram=np.eye(3), cross=np.ones((3, 1)), energy=3.0, group_sizes=[1, 2])
    problem = ChannelSelection.load(path)
    assert problem.n_channels == 2
    assert problem.value([True, True]) == pytest.approx(0.0)
    np.savez(path, gram=np.eye(3), cross=np.ones(3), energy=3.0, group_sizes=[1, 2], keep=1)
    assert ChannelSelection.load(path).keep == 1
    np.savez(
        path,
        gram=np.eye(3),
        cross=np.ones(3),
        energy=3.0,
        group_sizes=[1, 2],
        costs=[1.0, 5.0],
        budgets=[4.0],
    )
    assert not ChannelSelection.load(path).is_feasible([False, True])


def test_changed_content_is_noticed(tmp_path: Path) -> None:
    path = rich_problem().save(tmp_path / "layer.npz")
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    arrays["cross"] = arrays["cross"] * 1.0000001
    np.savez(path, **arrays)
    with pytest.raises(DataFileError, match="hash"):
        ChannelSelection.load(path)


GOOD = {
    "gram": np.eye(2),
    "cross": np.ones((2, 1)),
    "energy": np.asarray(2.0),
    "group_sizes": np.array([1, 1]),
}


@pytest.mark.parametrize(
    "change",
    [
        {"gram": np.array([[1.0, np.nan], [np.nan, 1.0]])},
        {"gram": np.array(["a", "b"])},
        {"gram": np.array([None, "x"], dtype=object)},
        {"energy": np.array([1.0, 2.0])},
        {"format_version": np.asarray(99)},
        {"format_version": np.asarray("new")},
        {"format_version": np.zeros(3)},
        {"n_terms": np.asarray(2)},
        {"n_terms": np.asarray(0)},
        {"costs": np.ones((1, 2)), "budgets": np.ones(3)},
        {"costs": np.array(["x", "y"])},
        {"keep": np.asarray(7)},
        {"keep": np.ones(2)},
        {"variant": np.asarray("mask")},
        {"parts": np.zeros((1, 5), dtype=np.int64)},
        {"parts": np.asarray(3)},
        {"forced_in": np.array([1.0, 0.0])},
    ],
)
def test_bad_content_is_a_data_file_error(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, allow_pickle=True, **{**GOOD, **change})
    with pytest.raises(DataFileError, match=r"bad\.npz"):
        ChannelSelection.load(path)


def test_missing_keys_files_and_foreign_formats(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="no such file"):
        ChannelSelection.load(tmp_path / "none.npz")
    with pytest.raises(DataFileError, match="no such file"):
        ChannelSelection.load(tmp_path)
    path = tmp_path / "x.npz"
    np.savez(path, gram=np.eye(2))
    with pytest.raises(DataFileError, match="missing"):
        ChannelSelection.load(path)
    for content in (b"", b"not a zip", b"PK\x03\x04 cut"):
        path.write_bytes(content)
        with pytest.raises(DataFileError):
            ChannelSelection.load(path)
    np.save(tmp_path / "array.npy", np.eye(2))
    with pytest.raises(DataFileError):
        ChannelSelection.load(tmp_path / "array.npy")


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    path = rich_problem().save(tmp_path / "layer.npz")
    content = path.read_bytes()
    for length in (10, len(content) // 2, len(content) - 5):
        path.write_bytes(content[:length])
        with pytest.raises(DataFileError):
            ChannelSelection.load(path)


def test_saving_leaves_no_temporary_file_and_needs_the_folder(tmp_path: Path) -> None:
    rich_problem().save(tmp_path / "layer.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["layer.npz"]
    with pytest.raises(DataFileError, match="cannot write"):
        rich_problem().save(tmp_path / "absent" / "layer.npz")
