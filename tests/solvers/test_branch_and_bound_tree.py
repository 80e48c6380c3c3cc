"""Tree certificates: proved by the independent checker, refused when altered."""

from pathlib import Path

import numpy as np
import pytest

from mipprune.certificate import Certificate, verify
from mipprune.errors import InputError
from mipprune.problem import ChannelSelection, Resource, Term
from mipprune.solvers.branch_and_bound import branch_and_bound, branch_and_bound_tree


def draw(seed: int, p: int = 8) -> Term:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((120, 2 * p)) @ (
        np.eye(2 * p) + 0.3 * rng.standard_normal((2 * p,) * 2)
    )
    y = x @ rng.standard_normal((2 * p, 3)) + rng.standard_normal((120, 3))
    gram = x.T @ x / 120
    energy = float((y**2).sum()) / 120
    sizes = np.full(p, 2)
    return Term.create(gram, x.T @ y / 120, energy, sizes, ridge=0.01 * float(np.diag(gram).mean()))


def proved(problem: ChannelSelection, folder: Path) -> tuple[Certificate, Path]:
    bound = branch_and_bound(problem, gap=1e-9).value * (1 - 1e-6)
    tree = branch_and_bound_tree(problem, bound)
    assert tree is not None
    return tree, problem.save(folder / "problem.npz")


@pytest.mark.parametrize("seed", range(4))
def test_checker_proves_the_tree(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(100 + seed)
    terms = [draw(seed)] if seed % 2 else [draw(seed), draw(seed + 50)]
    limit = Resource("cost", rng.uniform(1, 2, 8), 7.0)
    problem = ChannelSelection.from_terms(
        terms,
        keep=4,
        resources=[limit] if seed > 1 else [],
        forced_out=np.arange(8) == seed,
        forced_in=np.arange(8) == 7,
    )
    tree, file = proved(problem, tmp_path)
    assert tree.arrays["nodes"].size > 1
    verdict = verify(tree.save(tmp_path / "tree.npz"), file)
    assert verdict.valid, verdict
    assert verdict.bound <= branch_and_bound(problem).value


def test_missing_leaf_and_raised_bound_are_refused(tmp_path: Path) -> None:
    problem = ChannelSelection.from_terms([draw(9)], keep=4)
    tree, file = proved(problem, tmp_path)
    short = dict(tree.arrays) | {"nodes": tree.arrays["nodes"][:-1]}
    cut = Certificate("tree", tree.problem_hash, tree.bound, short)
    assert not verify(cut.save(tmp_path / "cut.npz"), file).valid
    raised = Certificate("tree", tree.problem_hash, tree.bound * 1.01, tree.arrays)
    assert not verify(raised.save(tmp_path / "raised.npz"), file).valid


def test_limits_and_unfit_problems() -> None:
    problem = ChannelSelection.from_terms([draw(3)], keep=4)
    value = branch_and_bound(problem).value
    assert branch_and_bound_tree(problem, value * 0.999, max_nodes=3) is None
    with pytest.raises(InputError, match="above the value"):
        branch_and_bound_tree(problem, value * 1.01)
    priced = ChannelSelection.from_terms([draw(3)], prices=0.1)
    with pytest.raises(InputError, match="positive prices"):
        branch_and_bound_tree(priced, 0.0)
