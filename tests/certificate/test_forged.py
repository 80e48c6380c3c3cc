"""Forged arrays: wrong kinds and shapes must not prove anything."""

import io
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mipprune.certificate import Certificate, tree_certificate, verify
from mipprune.errors import CertificateError, DataFileError
from mipprune.problem import ChannelSelection
from mipprune.relaxation import relax


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
        # Squares that overflow leave NaN or infinity where a bound should be.
        ("direction_0_0", 1e200 * np.ones((5, 3)), "claims"),
        ("factor_0", 1e200 * np.ones((5, 2)), "claims"),
        ("skew_0", 1e308 * np.tri(5), "claims"),
        ("multipliers_0", np.array([1e308]), "claims"),
        ("nodes", np.array([True]), "nodes"),
        ("factor_0", np.full((5, 1), np.longdouble("1e4000")), "beyond float64"),
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


def written(problem: ChannelSelection, folder: Path) -> tuple[Path, Path]:
    proof, data = folder / "proof.npz", folder / "problem.npz"
    tree_certificate(problem, 0.0, [-1]).with_mask(problem, np.arange(5) < 2).save(proof)
    problem.save(data)
    return proof, data


def rewritten(path: Path, changes: dict[str, np.ndarray]) -> None:
    with np.load(path) as archive:
        content = {name: archive[name] for name in archive.files}
    np.savez(path, **{**content, **changes})


def test_damaged_files_are_refused_and_never_crash(
    problem: ChannelSelection, tmp_path: Path
) -> None:
    proof, data = written(problem, tmp_path)
    assert verify(proof, data).valid
    rng = np.random.default_rng(0)
    for path in (proof, data):
        whole = path.read_bytes()
        for _ in range(150):
            broken = bytearray(whole)
            if rng.random() < 0.3:
                broken = broken[: int(rng.integers(len(whole)))]
            else:
                for at in rng.integers(len(whole), size=int(rng.integers(1, 4))):
                    broken[at] ^= 1 << int(rng.integers(8))
            path.write_bytes(bytes(broken))
            verdict = verify(proof, data)
            # A flip in what nobody reads (a date, say) leaves the proof as it was.
            assert verdict.valid or verdict.reason
            assert not verdict.valid or verdict.claimed == 0.0
            with suppress(CertificateError, DataFileError):  # and nothing else
                Certificate.load(proof)
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(3, dtype=[("a", "f8")]),
        np.array(["text"]),
        np.array(b"bytes"),
        np.zeros((2, 2, 2)),
        np.zeros(0),
        np.array("2020-01-01", dtype="M8[D]"),
        np.array(True),
        np.array(2**63, dtype=np.uint64),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["bound", "format_version", "kind", "mask", "value", "nodes"])
def test_entries_of_wrong_types(
    problem: ChannelSelection, tmp_path: Path, name: str, array: np.ndarray
) -> None:
    proof, data = written(problem, tmp_path)
    rewritten(proof, {name: array})
    verdict = verify(proof, data)
    # One number is as good as another as long as it is true: 1 is below the optimum, and
    # 2^63 is above the value of the mask.
    true = (name, array.dtype.kind) in (("bound", "b"), ("value", "u"))
    assert verdict.valid == true
    assert verdict.reason
    with suppress(CertificateError, DataFileError):  # and nothing else
        Certificate.load(proof)


def test_whole_numbers_do_not_wrap_around(problem: ChannelSelection, tmp_path: Path) -> None:
    """In int8 100 * 100 is 16: a factor of such numbers would no longer give a psd matrix."""
    proof, data = written(problem, tmp_path)
    honest = np.full((5, 1), 100.0)
    bounds = []
    for factor in (honest, honest.astype(np.int8)):
        rewritten(proof, {"factor_0": factor, "bound": np.asarray(1e6)})
        verdict = verify(proof, data)
        assert not verdict.valid
        bounds.append(verdict.bound)
    assert bounds[0] == bounds[1]


def test_truth_values_are_numbers(problem: ChannelSelection, tmp_path: Path) -> None:
    """True + True is True: the squares of a direction would come out too small."""
    gram, ones = problem.terms[0].gram, np.ones((5, 40))
    energy = float(np.vdot(ones, gram @ ones))
    alike = ChannelSelection(gram, gram @ ones, energy, [1] * 5, keep=2, ridge=0.1)
    arrays = dict(relax(alike, "blocks", tol=0.5).certificate.arrays)
    position = next(key.split("_")[1] for key in arrays if key.startswith("blocks_"))
    shape = arrays[f"direction_{position}_0"].shape
    for kind in (float, bool):
        arrays[f"direction_{position}_0"] = np.ones(shape, dtype=kind)
        forged = Certificate("removing", alike.content_hash, energy / 2, arrays)
        assert "claims" in refused(alike, forged, tmp_path)


@pytest.mark.parametrize("shape", [(10**12,), (2**40, 2**40), (3,)])
def test_a_shape_that_the_bytes_do_not_have(
    problem: ChannelSelection, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    proof, data = written(problem, tmp_path)
    with zipfile.ZipFile(proof) as archive:
        parts = {entry: archive.read(entry) for entry in archive.namelist()}
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f8", "fortran_order": False, "shape": shape}
    )
    parts["factor_0.npy"] = head.getvalue() + bytes(16)
    with zipfile.ZipFile(proof, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in parts.items():
            archive.writestr(entry, content)
    verdict = verify(proof, data)
    assert not verdict.valid
    assert "does not have the size of its shape" in verdict.reason
    with pytest.raises(DataFileError, match="size of its shape"):
        Certificate.load(proof)


def test_foreign_and_swapped_files_are_named(problem: ChannelSelection, tmp_path: Path) -> None:
    proof, data = written(problem, tmp_path)
    np.savez(tmp_path / "foreign.npz", weights=np.ones(3))
    reason = verify(tmp_path / "foreign.npz", data).reason
    assert "is no certificate file: it has no kind, bound" in reason
    assert "is no problem file: it has no gram" in verify(proof, tmp_path / "foreign.npz").reason
    assert "it is a problem file, which comes second" in verify(data, proof).reason
    assert "it is a certificate, which comes first" in verify(proof, proof).reason
    with pytest.raises(DataFileError, match="no certificate file: it has no format_version, kind"):
        Certificate.load(tmp_path / "foreign.npz")


def test_weights_are_those_of_the_mask(problem: ChannelSelection, tmp_path: Path) -> None:
    """Refitted weights would understate the value of a mask that has no weights to choose."""
    given = problem.terms[0]
    rigid = ChannelSelection(
        given.gram, given.cross, given.energy, [1] * 5, keep=2, dense=np.ones((5, 3)),
        variant="mask",
    )  # fmt: skip
    mask = np.arange(5) < 2
    honest = relax(rigid, "perspective").certificate.with_mask(rigid, mask)
    scaled = rigid.terms[0].scaled_channels()
    own = np.zeros((5, 1))
    own[mask] = np.linalg.solve(scaled.gram[np.ix_(mask, mask)], scaled.cross[mask])
    forged = replace(
        honest, arrays={**honest.arrays, "weights_0": own}, value=0.99 * rigid.value(mask)
    )
    assert "states value" in refused(rigid, forged, tmp_path)
    # Of two responses in a third dimension numpy would make another quadratic form.
    other = relax(problem, "perspective").certificate.with_mask(problem, mask)
    third = {**other.arrays, "weights_0": np.zeros((5, 3, 1))}
    assert "shape of the weights" in refused(problem, replace(other, arrays=third), tmp_path)
