from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mipprune.certificate import Certificate, verify
from mipprune.errors import CertificateError, DataFileError
from mipprune.problem import ChannelSelection
from mipprune.relaxation import relax
from tests.relaxation.instances import brute_force, random_problem

Proof = tuple[ChannelSelection, Certificate, Path, Path]


def written(
    tmp_path: Path, problem: ChannelSelection, certificate: Certificate
) -> tuple[Path, Path]:
    problem.save(tmp_path / "problem.npz")
    certificate.save(tmp_path / "proof.npz")
    return tmp_path / "proof.npz", tmp_path / "problem.npz"


def rewrite(path: Path, **changes: NDArray[np.generic] | None) -> None:
    """Save an archive again with some arrays replaced (None removes one)."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    arrays.update({k: v for k, v in changes.items() if v is not None})
    for key in [k for k, v in changes.items() if v is None]:
        del arrays[key]
    np.savez(path, allow_pickle=False, **arrays)


def best_mask(problem: ChannelSelection) -> NDArray[np.bool_]:
    masks = [np.array(b, dtype=bool) for b in product([0, 1], repeat=problem.n_channels)]
    return min((m for m in masks if problem.is_feasible(m)), key=problem.value)


@pytest.fixture(params=["refit", "scale", "mask"])
def proof(request: pytest.FixtureRequest, tmp_path: Path) -> Proof:
    problem = random_problem(3, request.param)
    certificate = relax(problem, "perspective").certificate
    certificate = certificate.with_mask(problem, best_mask(problem))
    return problem, certificate, *written(tmp_path, problem, certificate)


def test_accepts_and_recomputes(proof: Proof) -> None:
    problem, certificate, cert_path, problem_path = proof
    verdict = verify(cert_path, problem_path)
    assert verdict.valid, verdict.reason
    assert verdict.bound >= certificate.bound
    assert verdict.bound <= brute_force(problem)
    assert verdict.value == certificate.value


def test_certificate_file_round_trip(proof: Proof) -> None:
    _, certificate, cert_path, _ = proof
    again = Certificate.load(cert_path)
    assert again.bound == certificate.bound
    assert again.problem_hash == certificate.problem_hash
    assert again.arrays.keys() == certificate.arrays.keys()


def test_rejects_raised_bound(proof: Proof) -> None:
    _, certificate, cert_path, problem_path = proof
    rewrite(cert_path, bound=np.asarray(certificate.bound + 1e-6 * abs(certificate.bound)))
    verdict = verify(cert_path, problem_path)
    assert not verdict.valid
    assert "claims" in verdict.reason


def test_rejects_every_changed_array_of_the_certificate(proof: Proof) -> None:
    _, certificate, cert_path, problem_path = proof
    for key, array in certificate.arrays.items():
        if array.size == 0 or key.startswith("weights_"):
            continue
        rewrite(cert_path, **{key: array.astype(float) * 1.5 + 0.5})
        verdict = verify(cert_path, problem_path)
        assert certificate.value is not None
        # Other multipliers are another proof, of the claim where a limit is not binding.
        assert not verdict.valid or (key == "multipliers" and verdict.bound <= certificate.value)
        spoiled = array.astype(float).copy()
        spoiled.flat[0] = np.nan
        rewrite(cert_path, **{key: spoiled})
        assert "NaN" in verify(cert_path, problem_path).reason
        rewrite(cert_path, **{key: None})
        assert not verify(cert_path, problem_path).valid
        rewrite(cert_path, **{key: array})
    assert verify(cert_path, problem_path).valid


def test_rejects_every_changed_array_of_the_problem(proof: Proof) -> None:
    problem, _, cert_path, problem_path = proof
    with np.load(problem_path, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    for key, array in arrays.items():
        if key in ("format_version", "content_hash") or array.size == 0:
            continue
        if array.dtype.kind == "U":
            changed = np.char.add(array, "x")
        elif array.dtype.kind == "b":
            changed = ~array
        else:
            changed = array + 1
            if np.array_equal(changed, array):
                changed = np.zeros_like(array)
        rewrite(problem_path, **{key: changed})
        verdict = verify(cert_path, problem_path)
        assert not verdict.valid, key
        rewrite(problem_path, **{key: array})
    assert verify(cert_path, problem_path).valid
    assert problem.content_hash


def test_rejects_changed_mask_and_lowered_value(proof: Proof) -> None:
    problem, certificate, cert_path, problem_path = proof
    assert certificate.mask is not None
    assert certificate.value is not None
    optimum = certificate.value
    for channel in range(problem.n_channels):
        mask = certificate.mask.copy()
        mask[channel] = ~mask[channel]
        if problem.is_feasible(mask) and problem.value(mask) <= optimum:
            continue
        rewrite(cert_path, mask=mask)
        assert not verify(cert_path, problem_path).valid
    rewrite(cert_path, mask=certificate.mask, value=np.asarray(optimum * (1 - 1e-6)))
    assert "states value" in verify(cert_path, problem_path).reason


def test_rejects_wrong_hash_kind_and_version(proof: Proof) -> None:
    _, certificate, cert_path, problem_path = proof
    rewrite(cert_path, problem_hash=np.asarray("0" * 64))
    assert "another problem" in verify(cert_path, problem_path).reason
    rewrite(cert_path, problem_hash=np.asarray(certificate.problem_hash), kind=np.asarray("tree"))
    assert not verify(cert_path, problem_path).valid
    rewrite(cert_path, kind=np.asarray(certificate.kind), format_version=np.asarray(9))
    assert "version" in verify(cert_path, problem_path).reason


def test_rejects_files_that_are_none(tmp_path: Path, proof: Proof) -> None:
    _, _, cert_path, problem_path = proof
    (tmp_path / "noise.npz").write_bytes(b"not a zip")
    assert not verify(tmp_path / "noise.npz", problem_path).valid
    assert not verify(tmp_path / "absent.npz", problem_path).valid
    assert not verify(cert_path, tmp_path / "noise.npz").valid
    with pytest.raises(DataFileError, match="no such file"):
        Certificate.load(tmp_path / "absent.npz")
    with pytest.raises(DataFileError, match="not a readable"):
        Certificate.load(tmp_path / "noise.npz")


def test_negative_multipliers_are_refused(tmp_path: Path) -> None:
    problem = random_problem(0)
    certificate = relax(problem, "perspective").certificate
    cert_path, problem_path = written(tmp_path, problem, certificate)
    rewrite(cert_path, multipliers=-certificate.arrays["multipliers"].astype(float) - 1.0)
    assert "multipliers" in verify(cert_path, problem_path).reason


def test_mask_of_another_problem_is_refused() -> None:
    problem, other = random_problem(0), random_problem(6)
    with pytest.raises(CertificateError, match="another problem"):
        relax(problem).certificate.with_mask(other, np.zeros(other.n_channels, dtype=bool))


def test_removing_side_rejects_every_changed_array(tmp_path: Path) -> None:
    problem = random_problem(8)
    certificate = relax(problem, "sdp", tol=1e-6).certificate
    assert certificate.kind == "removing"
    cert_path, problem_path = written(tmp_path, problem, certificate)
    assert verify(cert_path, problem_path).valid
    optimum = brute_force(problem)
    for key, array in certificate.arrays.items():
        if array.size == 0:
            continue
        special = {"nodes": np.array([0, -1]), "members": np.asarray(0)}
        changed = special.get(key, array.astype(float) * 1.5 + 0.5)
        rewrite(cert_path, **{key: np.asarray(changed)})
        verdict = verify(cert_path, problem_path)
        if key.startswith(("skew", "multipliers")):
            # A constant added to S, or a price of a limit, is another valid proof.
            assert not verdict.valid or verdict.bound <= optimum
        else:
            assert not verdict.valid, key
        rewrite(cert_path, **{key: None})
        assert not verify(cert_path, problem_path).valid, key
        rewrite(cert_path, **{key: array})
    rewrite(cert_path, bound=np.asarray(certificate.bound * (1 + 1e-6)))
    assert "claims" in verify(cert_path, problem_path).reason
