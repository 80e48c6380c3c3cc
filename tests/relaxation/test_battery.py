"""Every kind against complete enumeration, on problems that mix all limits and degenerations."""

from pathlib import Path

import numpy as np
import pytest

from mipprune.certificate import verify
from mipprune.errors import BudgetError, NoSolutionError
from mipprune.problem import ChannelSelection
from mipprune.relaxation import Relaxation, path, relax
from tests.relaxation.instances import brute_force
from tests.relaxation.varied import varied_problem

CASES: dict[str, tuple[str, dict[str, object]]] = {
    "big-m": ("refit", {"split": "ridge"}),
    "big-m scale": ("scale", {"split": "ridge"}),
    "perspective-box": ("refit", {"split": "schur"}),
    "perspective-box scale": ("scale", {"split": "ridge"}),
    "perspective": ("refit", {"split": "optimal"}),
    "perspective scale": ("scale", {"split": "schur"}),
    "perspective mask": ("mask", {"split": "schur"}),
    "gl": ("refit", {}),
    "rlt scale": ("scale", {}),
    "sdp": ("refit", {}),
    "blocks": ("refit", {}),
    "blocks scale": ("scale", {}),
    "auto": ("refit", {}),
    "auto mask": ("mask", {"split": "ridge"}),
}
"""Kind (first word), variant and arguments; blocks cycle through all sizes."""
DEAR = ("perspective", "perspective mask")
"""Climbs that take seconds on three channels: slow tests only."""


def drawn(case: str, seed: int, most: int) -> ChannelSelection | None:
    boxed = case.startswith(("big-m", "perspective-box"))
    return varied_problem(seed, CASES[case][0], box=boxed, most=most)


def solved(case: str, problem: ChannelSelection, seed: int) -> Relaxation:
    kind, arguments = case.split()[0], dict(CASES[case][1])
    if kind == "blocks":
        arguments["block_size"] = 1 + seed % 6
    return relax(problem, kind, tol=(1e-2, 1e-4)[seed % 2], **arguments)  # type: ignore[arg-type]


def check(case: str, seed: int, folder: Path, most: int = 6) -> None:
    """No bound and no accepted proof above the optimum, up to the rounding of its value."""
    problem = drawn(case, seed, most)
    if problem is None:
        return
    optimum = brute_force(problem)
    rounding = 1e-12 * (problem.energy + float(np.abs(problem.prices).sum()))
    try:
        relaxed = solved(case, problem, seed)
    except NoSolutionError:
        assert optimum == np.inf
        return
    assert -np.inf < relaxed.bound <= optimum + rounding
    problem.save(folder / "problem.npz")
    verdict = verify(relaxed.certificate.save(folder / "proof.npz"), folder / "problem.npz")
    assert verdict.bound <= optimum + rounding


def check_path(seed: int, most: int = 6) -> None:
    """Every point of a curve, equal counts and all other limits kept."""
    problem = varied_problem(seed, box=seed % 4 == 3, most=most)
    if problem is None:
        return
    p, kind = problem.n_channels, ("perspective", "gl", "auto", "perspective-box")[seed % 4]
    try:
        points = path(problem, sorted({p // 2, p - 1, p}), kind=kind, tol=1e-3)
    except (BudgetError, NoSolutionError):
        return
    for point in points:
        optimum = brute_force(problem.with_keep(point.keep))
        rounding = 1e-12 * (problem.energy + float(np.abs(problem.prices).sum()))
        assert point.bound <= optimum + rounding


@pytest.mark.parametrize("case", [case for case in CASES if case not in DEAR])
def test_every_kind_on_a_few(case: str, tmp_path: Path) -> None:
    for seed in range(2):
        check(case, seed, tmp_path, most=3)


def test_curves_on_a_few() -> None:
    for seed in range(4):
        check_path(seed, most=3)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 500, 100))
@pytest.mark.parametrize("case", CASES)
def test_every_kind_on_five_hundred(case: str, first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 100):
        check(case, 10_000 + seed, tmp_path)


@pytest.mark.slow
def test_curves_on_five_hundred() -> None:
    for seed in range(500):
        check_path(10_000 + seed)
