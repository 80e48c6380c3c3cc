"""Forged arrays: wrong kinds and shapes must not prove anything."""

from pathlib import Path

import numpy as np
import pytest

from mipprune.certificate import Certificate, tree_certificate, verify
from mipprune.problem import ChannelSelection


@pytest.fixture
def problem() -> ChannelSelection:
    rng = np.random.default_rng(0)
    inputs, weights = rng.normal(size=(40, 5)), rng.normal(size=(5, 3))
    target = inputs @ weights
    gram, cross = inputs.T @ inputs / 40, inputs.T @ target / 40
    energy = float((target**2).sum() / 40)
    return ChannelSelection(gram, cross, energy, [1] * 5, keep=2, ridge=0.1)


def refused(problem: ChannelSelection, forged: Certificate, folder: Path) -> str:
    forged.save(folder / "forged.npz")
    problem.save(folder / "problem.npz")
    verdict = verify(folder / "forged.npz", folder / "problem.npz")
    assert not verdict.valid
    return verdict.reason


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("direction_0_0", 1e6j * np.ones((5, 3)), "plain numbers"),
        ("factor_0", 1e3j * np.ones((5, 5)), "plain numbers"),
        ("direction_0_0", 4.0 * np.ones((5, 1)), "wrong shape"),
    ],
)
def test_arrays_of_another_kind_or_shape(
    problem: ChannelSelection, tmp_path: Path, name: str, array: np.ndarray, reason: str
) -> None:
    honest = tree_certificate(problem, 1e6, [-1])
    forged = Certificate("tree", problem.content_hash, 1e6, {**honest.arrays, name: array})
    assert reason in refused(problem, forged, tmp_path)


def test_truncated_files_are_refused(problem: ChannelSelection, tmp_path: Path) -> None:
    tree_certificate(problem, 0.0, [-1]).save(tmp_path / "proof.npz")
    problem.save(tmp_path / "problem.npz")
    whole = (tmp_path / "proof.npz").read_bytes()
    (tmp_path / "proof.npz").write_bytes(whole[:100])
    assert not verify(tmp_path / "proof.npz", tmp_path / "problem.npz").valid
    (tmp_path / "proof.npz").write_text("not an archive")
    verdict = verify(tmp_path / "proof.npz", tmp_path / "problem.npz")
    assert "not an npz file" in verdict.reason
