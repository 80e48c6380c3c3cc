"""Certificates attached by ``solve``: checked by the independent checker, refused when touched."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mipprune.certificate import Certificate, verify
from mipprune.problem import ChannelSelection
from mipprune.solvers import solve


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
