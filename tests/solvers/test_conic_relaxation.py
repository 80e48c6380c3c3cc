import numpy as np
import pytest
from numpy.typing import NDArray

from mipprune.problem import ChannelSelection
from mipprune.relaxation import Relaxation, relax
from mipprune.solvers.conic_relaxation import conic_relaxation
from tests.relaxation.instances import random_problem


def blocks_of(problem: ChannelSelection, relaxed: Relaxation) -> list[list[NDArray[np.float64]]]:
    result = []
    for t, term in enumerate(problem.canonical().terms):
        flat = relaxed.certificate.arrays[f"split_{t}"]
        parts = np.split(flat, np.cumsum(term.group_sizes**2)[:-1])
        result.append([b.reshape(g, g) for b, g in zip(parts, term.group_sizes, strict=True)])
    return result


@pytest.mark.parametrize("seed", [0, 1, 4, 6, 8, 10, 12])
@pytest.mark.parametrize("split", ["ridge", "schur"])
def test_own_solver_equals_the_conic_one(seed: int, split: str) -> None:
    problem = random_problem(seed)
    relaxed = relax(problem, "perspective", split=split, tol=1e-10)
    conic = conic_relaxation(problem, blocks_of(problem, relaxed))
    assert relaxed.bound == pytest.approx(conic.value, rel=1e-6)
    assert relaxed.value == pytest.approx(conic.value, rel=1e-6)


@pytest.mark.parametrize("seed", [1, 6, 8])
@pytest.mark.parametrize("kind", ["big-m", "perspective-box"])
def test_boxed_relaxation_equals_the_conic_one(seed: int, kind: str) -> None:
    problem = random_problem(seed, big_m=0.8)
    relaxed = relax(problem, kind, split="ridge", tol=1e-8)
    conic = conic_relaxation(problem, blocks_of(problem, relaxed), box=True)
    assert relaxed.bound == pytest.approx(conic.value, rel=1e-6)


def test_scale_variant_and_gates() -> None:
    problem = random_problem(6, "scale")
    relaxed = relax(problem, "perspective", split="ridge", tol=1e-11)
    conic = conic_relaxation(problem)
    assert relaxed.bound == pytest.approx(conic.value, rel=1e-6)
    np.testing.assert_allclose(relaxed.gates, conic.gates, atol=1e-3)
