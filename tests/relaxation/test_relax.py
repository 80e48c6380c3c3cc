from pathlib import Path

import numpy as np
import pytest

from mipprune.certificate import verify
from mipprune.errors import InputError, NoSolutionError
from mipprune.problem import ChannelSelection, Resource
from mipprune.relaxation import relax
from tests.relaxation.instances import brute_force, random_problem
from tests.relaxation.varied import varied_problem

SPLITS = ("ridge", "eigenvalue", "schur")


def small(keep: int = 2) -> ChannelSelection:
    gram = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 1.5]])
    cross = np.array([[1.0, 0.0], [0.5, 0.3], [-0.4, 0.8]])
    return ChannelSelection(gram, cross, 3.0, [1, 1, 1], keep=keep, ridge=0.1)


def test_hand_case_diagonal_gram() -> None:
    # R = I, D = 0.5 I, c = (1, 0.5): F(y) = 0.625 - y1/2 /(y1+.5) - .125 y2/(y2+.5), y1 + y2 <= 1.
    # dF/dy1 = -.25/(y1+.5)^2 = dF/dy2 = -.0625/(y2+.5)^2, so y1 = 5/6, y2 = 1/6.
    problem = ChannelSelection(np.eye(2), [[1.0], [0.5]], 1.25, [1, 1], keep=1, ridge=0.5)
    relaxed = relax(problem, "perspective", split="ridge", tol=1e-12)
    np.testing.assert_allclose(relaxed.gates, [5 / 6, 1 / 6], atol=1e-7)
    expected = 0.625 - 0.5 * (5 / 6) / (4 / 3) - 0.125 * (1 / 6) / (2 / 3)
    assert relaxed.bound == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("variant", ["refit", "scale", "mask"])
@pytest.mark.parametrize("first", range(0, 45, 15))
def test_no_bound_above_brute_force(variant: str, first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 15):
        problem = random_problem(seed, variant)
        optimum = brute_force(problem)
        problem.save(tmp_path / "problem.npz")
        splits = SPLITS if variant != "mask" or seed % 10 == 0 else SPLITS[:2]
        for split in splits:
            try:
                relaxed = relax(problem, "perspective", split=split, tol=1e-7)
            except NoSolutionError:
                assert optimum == np.inf
                continue
            assert relaxed.bound <= optimum + 1e-13 * problem.energy
            assert relaxed.bound > -np.inf
            verdict = verify(
                relaxed.certificate.save(tmp_path / "proof.npz"), tmp_path / "problem.npz"
            )
            assert verdict.valid, verdict.reason


@pytest.mark.parametrize("seed", range(8))
def test_boxes_bound_and_certify(seed: int, tmp_path: Path) -> None:
    problem = random_problem(seed, big_m=0.8)
    optimum = brute_force(problem)
    if optimum == np.inf:
        pytest.skip("no feasible mask")
    problem.save(tmp_path / "problem.npz")
    bounds = {}
    for kind, split in (("big-m", "ridge"), ("perspective", "ridge"), ("perspective-box", "ridge")):
        relaxed = relax(problem, kind, split=split, tol=1e-5)
        assert relaxed.bound <= optimum + 1e-9 * problem.energy
        verdict = verify(relaxed.certificate.save(tmp_path / "c.npz"), tmp_path / "problem.npz")
        assert verdict.valid, verdict.reason
        bounds[kind] = relaxed.bound
    # The box adds constraints to the perspective relaxation, and the perspective to big-M.
    room = 1e-4 * problem.energy
    assert bounds["perspective-box"] >= max(bounds["perspective"], bounds["big-m"]) - room


def test_larger_split_gives_larger_bound() -> None:
    # Schur and ridge splits are ordered only where D' >= D: here t S_j >= ridge I holds.
    problem = small()
    bounds = [relax(problem, "perspective", split=s, tol=1e-10).bound for s in ("ridge", "schur")]
    assert bounds[0] <= bounds[1]
    eigen = relax(problem, "perspective", split="eigenvalue", tol=1e-10).bound
    assert bounds[0] <= eigen + 1e-12


def test_optimal_split_is_at_least_schur() -> None:
    problem = random_problem(0)
    schur = relax(problem, "perspective", split="schur", tol=1e-8)
    best = relax(problem, "perspective", split="optimal", tol=1e-6)
    assert schur.bound - 1e-6 * problem.energy <= best.bound <= brute_force(problem)


def test_interrupted_solve_still_certifies(tmp_path: Path) -> None:
    problem = random_problem(6)
    problem.save(tmp_path / "problem.npz")
    optimum = brute_force(problem)
    for kind in ("perspective", "auto"):
        relaxed = relax(problem, kind, time_limit=0.0, tol=1e-12)
        assert relaxed.bound <= optimum
        verdict = verify(relaxed.certificate.save(tmp_path / "c.npz"), tmp_path / "problem.npz")
        assert verdict.valid, verdict.reason


@pytest.mark.parametrize("seed", range(15))
def test_singular_gram_without_ridge(seed: int) -> None:
    problem = random_problem(seed, singular=True)
    optimum = brute_force(problem)
    for split in SPLITS:
        try:
            relaxed = relax(problem, "perspective", split=split)
        except NoSolutionError:
            assert optimum == np.inf
            continue
        assert relaxed.bound <= optimum + 1e-9 * problem.energy


def test_ill_conditioned_gram() -> None:
    rng = np.random.default_rng(5)
    basis, _ = np.linalg.qr(rng.standard_normal((8, 8)))
    gram = (basis * np.logspace(0, -9, 8)) @ basis.T
    weights = rng.standard_normal((8, 2))
    cross = gram @ weights
    problem = ChannelSelection(
        gram, cross, float((weights * cross).sum()), [2] * 4, keep=2, ridge=1e-8
    )
    optimum = brute_force(problem)
    for split in SPLITS:
        assert relax(problem, "perspective", split=split).bound <= optimum


def test_trivial_problems() -> None:
    one = ChannelSelection([[1.0]], [[1.0]], 1.0, [1], keep=1, ridge=0.1)
    assert relax(one).bound == pytest.approx(one.value([True]), rel=1e-9)
    everything = small(keep=3)
    assert relax(everything).bound == pytest.approx(everything.value([1, 1, 1]), rel=1e-6)
    nothing = small(keep=0)
    assert relax(nothing).bound == pytest.approx(1.5, rel=1e-9)
    zero = ChannelSelection(np.eye(3), np.zeros((3, 2)), 0.0, [1, 1, 1], keep=1, ridge=0.1)
    assert relax(zero).bound == pytest.approx(0.0, abs=1e-12)


def test_float32_statistics() -> None:
    problem = small()
    term = problem.terms[0]
    single = ChannelSelection(
        term.gram.astype(np.float32),
        term.cross.astype(np.float32),
        3.0,
        [1, 1, 1],
        keep=2,
        ridge=0.1,
    )
    assert relax(single, tol=1e-9).bound == pytest.approx(relax(problem, tol=1e-9).bound, rel=1e-6)


def test_start_from_a_neighbour_gives_the_same_bound() -> None:
    problem = small()
    first = relax(problem, "perspective", tol=1e-10)
    again = relax(problem.with_keep(1), "perspective", tol=1e-10, start=first)
    cold = relax(problem.with_keep(1), "perspective", tol=1e-10)
    assert again.bound == pytest.approx(cold.bound, rel=1e-8)


def test_contradicting_limits_are_proven_infeasible() -> None:
    resources = [
        Resource("a", np.ones(3), 1.0),
        Resource("b", np.array([1.0, 1.0, 1.1]), lower=2.5),
    ]
    problem = ChannelSelection.from_terms(small().terms, resources=resources)
    with pytest.raises(NoSolutionError, match="together"):
        relax(problem)


def test_auto_proves_at_least_what_every_cheaper_kind_does() -> None:
    strongest = set()
    for seed in range(10):
        problem = varied_problem(seed, box=seed % 2 == 0, most=3)
        if problem is None or brute_force(problem) == np.inf:
            continue
        bounds = {s: relax(problem, "perspective", split=s, tol=1e-2).bound for s in SPLITS}
        for kind in ("gl", "sdp", *(("perspective-box",) if problem.has_box else ())):
            bounds[kind] = relax(problem, kind, tol=1e-2).bound
        assert relax(problem, tol=1e-2).bound == max(bounds.values())
        strongest.add(max(bounds, key=lambda name: bounds[name]))
    assert len(strongest) > 1  # no side can be left out


def test_auto_climbs_a_few_steps_on_wide_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(8)
    monkeypatch.setattr("mipprune.relaxation._removal_relax.NEWTON_UP_TO", 0)
    whole, single = relax(problem), relax(problem, "gl")
    assert (whole.kind, single.kind) == ("sdp", "gl")
    monkeypatch.setattr("mipprune.relaxation._relax.AFFORDABLE_CHANNELS", 2)
    few = relax(problem)
    assert 0 < few.iterations < whole.iterations / 4
    assert single.bound <= few.bound <= whole.bound


def test_wrong_arguments_say_what_fits() -> None:
    with pytest.raises(InputError, match="perspective"):
        relax(small(), "magic")
    with pytest.raises(InputError, match="ridge"):
        relax(small(), split="half")
    with pytest.raises(InputError, match="big_m"):
        relax(small(), "big-m")
    with pytest.raises(InputError, match="gates"):
        relax(small(), start=[0.5])
    with pytest.raises(InputError, match="tol"):
        relax(small(), tol=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["perspective", "gl", "rlt", "sdp", "auto"])
def test_five_hundred_instances_of_every_kind(kind: str) -> None:
    for seed in range(500):
        variant = ("refit", "scale")[seed % 2]
        problem = random_problem(1000 + seed, variant, singular=seed % 11 == 0)
        optimum = brute_force(problem)
        split = SPLITS[seed % 3]
        try:
            relaxed = relax(problem, kind, split=split)
        except NoSolutionError:
            assert optimum == np.inf
            continue
        assert relaxed.bound <= optimum + 1e-10 * problem.energy
