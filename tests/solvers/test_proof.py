"""Certificates attached by ``solve``: checked by the independent checker, refused when touched."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mipprune.certificate import Certificate, confirmed, verify
from mipprune.errors import CertificateError
from mipprune.problem import ChannelSelection
from mipprune.relaxation import certify
from mipprune.solvers import _proof, solve


def random_problem(seed: int, **settings: object) -> ChannelSelection:
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(60, 24)) @ (np.eye(24) + 0.3 * rng.normal(size=(24, 24)))
    target = inputs @ rng.normal(size=(24, 3)) + 0.1 * rng.normal(size=(60, 3))
    return ChannelSelection(
        inputs.T @ inputs / 60, inputs.T @ target / 60, float((target**2).sum() / 60), [3] * 8,
        **{"ridge": 0.05, **settings},  # type: ignore[arg-type]
    )  # fmt: skip


def saved(problem: ChannelSelection, certificate: object, folder: Path) -> tuple[Path, Path]:
    assert isinstance(certificate, Certificate)
    certificate.save(folder / "proof.npz")
    problem.save(folder / "problem.npz")
    return folder / "proof.npz", folder / "problem.npz"


@pytest.mark.parametrize("keep", [2, 4, 6])
def test_optimal_solutions_get_a_tree_that_checks(keep: int, tmp_path: Path) -> None:
    problem = random_problem(keep, keep=keep)
    solution = solve(problem, certificate=True)
    assert isinstance(solution.certificate, Certificate)
    assert solution.certificate.kind == "tree"
    assert solution.certified_gap < 1e-5
    assert solution.certified_bound <= solve(problem, "enumerate").value
    verdict = verify(*saved(problem, solution.certificate, tmp_path))
    assert verdict.valid, verdict.reason
    assert verdict.bound == pytest.approx(solution.certified_bound)


def test_a_raised_bound_is_refused(tmp_path: Path) -> None:
    problem = random_problem(0, keep=4)
    solution = solve(problem, certificate=True)
    assert isinstance(solution.certificate, Certificate)
    raised = replace(solution.certificate, bound=solution.value * 1.001)
    verdict = verify(*saved(problem, raised, tmp_path))
    assert not verdict.valid
    assert verdict.reason


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({"keep": 4}, "local-search"),
        ({"prices": 0.3}, "auto"),
        ({"keep": 4, "parts": [np.repeat([0, 1], 4)]}, "auto"),
    ],
    ids=str,
)
def test_elsewhere_a_root_proof(settings: dict[str, object], method: str, tmp_path: Path) -> None:
    problem = random_problem(1, **settings)
    solution = solve(problem, method, certificate=True)
    assert isinstance(solution.certificate, Certificate)
    assert solution.certificate.kind != "tree"
    assert -np.inf < solution.certified_bound <= solution.value
    assert verify(*saved(problem, solution.certificate, tmp_path)).valid


def ill_conditioned(ridge: float = 0.0) -> ChannelSelection:
    """Two channels that differ by 1e-6: the Gram matrix has condition 1e12."""
    rng = np.random.default_rng(5)
    inputs = rng.normal(size=(40, 6))
    inputs[:, 1] = inputs[:, 0] + 1e-6 * rng.normal(size=40)
    target = inputs @ rng.normal(size=(6, 2)) + 0.1 * rng.normal(size=(40, 2))
    return ChannelSelection(
        inputs.T @ inputs / 40, inputs.T @ target / 40, float((target**2).sum() / 40), [1] * 6,
        ridge=ridge, keep=3,
    )  # fmt: skip


def singular() -> ChannelSelection:
    rng = np.random.default_rng(6)
    inputs = rng.normal(size=(4, 6))
    target = inputs @ rng.normal(size=(6, 2))
    return ChannelSelection(
        inputs.T @ inputs / 4, inputs.T @ target / 4, float((target**2).sum() / 4), [1] * 6, keep=3
    )


@pytest.mark.parametrize("make", [ill_conditioned, singular])
def test_no_tree_where_the_checker_could_not_replay_it(
    make: Callable[[], ChannelSelection], tmp_path: Path
) -> None:
    problem = make()
    solution = solve(problem, certificate=True)
    assert isinstance(solution.certificate, Certificate), solution.no_certificate
    assert solution.certificate.kind != "tree"
    verdict = verify(*saved(problem, solution.certificate, tmp_path))
    assert verdict.valid, verdict.reason


@pytest.mark.parametrize(
    "failure",
    [
        KeyboardInterrupt(),
        MemoryError("out of memory"),
        np.linalg.LinAlgError("singular"),
        RuntimeError("a PyTorch error"),
        OSError("disk full"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("stage", ["certify", "branch_and_bound_tree"])
def test_a_failed_proof_costs_nothing(
    failure: BaseException, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = random_problem(2, keep=4)

    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(_proof, stage, fail)
    monkeypatch.setattr(_proof, "CLOSE", -1.0)  # no tree is good enough alone
    plain = solve(problem, threads=1)
    solution = solve(problem, threads=1, certificate=True)
    assert solution.mask is not None
    assert plain.mask is not None
    assert solution.mask.tolist() == plain.mask.tolist()
    assert solution.value == plain.value
    assert solution.bound >= plain.bound
    assert solution.status is plain.status
    other_stage_ran = stage == "certify" or not isinstance(failure, KeyboardInterrupt)
    assert (solution.certificate is not None) == other_stage_ran
    if not other_stage_ran:
        assert solution.no_certificate == "tree: interrupted by the user"
        assert solution.certified_bound == -np.inf


def test_both_stages_failing_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ArithmeticError("does not work")

    monkeypatch.setattr(_proof, "certify", fail)
    monkeypatch.setattr(_proof, "branch_and_bound_tree", fail)
    solution = solve(random_problem(2, keep=4), certificate=True)
    assert solution.certificate is None
    assert solution.no_certificate == "tree: does not work; relaxation: does not work"


def test_the_better_of_tree_and_relaxation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Energy far above the error: the slack of a tree is large, all channels may stay."""
    problem = random_problem(3, keep=8)
    monkeypatch.setattr(_proof, "TREE_SLACK", 1e-2)
    solution = solve(problem, certificate=True)
    assert isinstance(solution.certificate, Certificate)
    assert solution.certificate.kind != "tree"
    assert solution.certified_gap < 1e-4


def test_a_claim_one_rounding_too_high_is_lowered(tmp_path: Path) -> None:
    problem = random_problem(4, keep=4)
    root = certify(problem, np.arange(8) < 4)
    proved = verify(*saved(problem, root, tmp_path)).bound
    high = replace(root, bound=float(np.nextafter(proved, np.inf)))
    assert not verify(*saved(problem, high, tmp_path)).valid
    lowered = confirmed(problem, high)
    assert lowered.bound == pytest.approx(proved, rel=1e-12)
    assert verify(*saved(problem, lowered, tmp_path)).valid
    foreign = replace(root, problem_hash="0" * 64)
    with pytest.raises(CertificateError, match="another problem"):
        confirmed(problem, foreign)
