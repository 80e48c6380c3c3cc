"""Channels that may change places, dead channels: which they are, and that no optimum is lost."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mipprune.errors import BudgetError
from mipprune.problem import ChannelSelection, Resource, Term
from mipprune.solvers.branch_and_bound import (
    _careful,
    _explorers,
    _root,
    _solve,
    _strong,
    branch_and_bound,
    branch_and_bound_tree,
)
from mipprune.solvers.branch_and_bound._twins import (
    NO_TWIN,
    children,
    dead_channels,
    twin_labels,
)
from tests.solvers.test_branch_and_bound import check_against_brute_force, draw_term


def copied(term: Term, source: list[int]) -> Term:
    """Channel j has the rows of channel ``source[j]``, none where that is negative."""
    rows, starts = [], term.offsets
    sizes = []
    for origin in source:
        size = int(term.group_sizes[max(origin, 0)])
        first = int(starts[max(origin, 0)])
        rows += [-1 if origin < 0 else first + k for k in range(size)]
        sizes.append(size)
    index = np.array(rows)
    alive = index >= 0
    dense = None if term.dense is None else term.dense[index] * alive[:, None]
    return Term.create(
        term.gram[np.ix_(index, index)] * np.outer(alive, alive),
        term.cross[index] * alive[:, None],
        term.energy,
        sizes,
        ridge=float(term.ridge[0]),
        dense=dense,
    )


def draw(seed: int) -> ChannelSelection | None:
    """Two or three classes of twins, some dead channels, limits that twins may share or not."""
    rng = np.random.default_rng(seed)
    source = [0, 1, 2, 3, 0, 1, 0][: int(rng.integers(5, 8))] + [-1] * int(rng.integers(0, 3))
    source = [source[k] for k in rng.permutation(len(source))]
    p = len(source)
    terms = []
    for _ in range(1 + seed % 2):
        sizes = np.full(4, int(rng.integers(1, 4))) if seed % 3 else rng.integers(1, 4, 4)
        damping = float(rng.choice([0, 1e-3, 0.1]))
        terms.append(copied(draw_term(rng, sizes, 3, damping, "plain"), source))
    energy = sum(term.energy for term in terms)
    per_class = rng.uniform(0, 3, 5).round(1)[np.array(source)]
    options: dict[str, Any] = {"resources": []}
    if seed % 4:
        options["keep"] = int(rng.integers(1, p))
    if seed % 4 < 2:
        lower = 0.2 * float(per_class.sum()) if rng.random() < 0.5 else -np.inf
        upper = 0.7 * float(per_class.sum())
        options["resources"].append(Resource("r", per_class, upper, lower))
    if rng.random() < 0.4:
        options["prices"] = rng.uniform(-0.02, 0.05, 5)[np.array(source)] * energy
    if rng.random() < 0.3:
        drawn = rng.random(p)
        options["forced_in"], options["forced_out"] = drawn < 0.15, drawn > 0.85
    if rng.random() < 0.3:
        options["parts"] = [np.array(source) % 2]
    variant = str(rng.choice(["refit", "refit", "scale", "mask"]))
    if variant == "refit" and rng.random() < 0.2:
        terms = [replace(term, big_m=np.full(p, 0.5)) for term in terms]
    try:
        return ChannelSelection.from_terms(terms, variant=variant, **options)
    except BudgetError:
        return None


@pytest.mark.parametrize("wide", [False, True])
def test_no_optimum_is_lost(wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_solve, "addition_pays", lambda problem: False)
    if wide:
        monkeypatch.setattr(_strong, "LEAST_REMOVALS", 2)
        monkeypatch.setattr(_strong, "LEAST_KEPT", 1)
        monkeypatch.setattr(_strong, "TRIAL_BUDGET", 0.0)
        monkeypatch.setattr(_explorers, "FIRST_BUDGET", 0.0)
    drawn = [draw(seed) for seed in range(30)]
    problems = [problem for problem in drawn if problem is not None]
    twins = [np.unique(twin_labels(problem)).size > 1 for problem in problems]
    assert sum(twins) >= 20
    for problem in problems:
        check_against_brute_force(problem)


def example(**options: Any) -> ChannelSelection:
    """Channels 0, 3, 5 alike, 1 and 4 too; 6 and 7 dead."""
    rng = np.random.default_rng(7)
    term = draw_term(rng, np.full(3, 2), 3, 0.01, "plain")
    source = [0, 1, 2, 0, 1, 0, -1, -1]
    return ChannelSelection.from_terms([copied(term, source)], **{"keep": 4, **options})


def test_twins_and_dead_channels_are_found() -> None:
    labels = twin_labels(example())
    assert [labels[0], labels[0]] == [labels[3], labels[5]]
    assert labels[1] == labels[4] != labels[0]
    assert labels[2] == NO_TWIN
    assert labels[6] == labels[7] not in (NO_TWIN, labels[0], labels[1])
    np.testing.assert_array_equal(np.flatnonzero(dead_channels(example())), [6, 7])


def test_what_tells_channels_apart_undoes_twins() -> None:
    at = np.arange(8)
    assert twin_labels(example(prices=-0.01 * (at == 4)))[1] == NO_TWIN
    assert twin_labels(example(forced_in=at == 4))[1] == NO_TWIN
    assert twin_labels(example(parts=[(at == 4).astype(int)]))[1] == NO_TWIN
    assert twin_labels(example(resources=[Resource("r", 1.0 + (at == 4), 7.0)]))[1] == NO_TWIN
    term = example().terms[0]
    ridge = term.ridge * (1.0 + (at == 4))
    assert twin_labels(ChannelSelection.from_terms([replace(term, ridge=ridge)], keep=4))[1] < 0
    gram = term.gram.copy()
    gram[2, 4] = gram[4, 2] = np.nextafter(gram[2, 4], 1.0)  # channels 1 and 2
    other = Term.create(gram, term.cross, term.energy, term.group_sizes, ridge=term.ridge)
    assert twin_labels(ChannelSelection.from_terms([other], keep=4))[1] == NO_TWIN


def test_dead_channels_that_may_be_needed_are_left() -> None:
    at = np.arange(8)
    assert not dead_channels(example(resources=[Resource("r", np.ones(8), 6.0, 2.0)])).any()
    assert not dead_channels(example(parts=[at % 2])).any()
    assert dead_channels(example(prices=-0.01 * (at == 6), forced_in=at == 7)).sum() == 0


def test_children_cover_every_count_of_each_class() -> None:
    labels = np.array([0, 1, 0, NO_TWIN, 1, 0])
    for order in itertools.permutations(range(6)):
        listed = np.array(order)
        counts = set()
        for c, free in children(listed, labels):
            for size in range(free.size + 1):
                for more in itertools.combinations(free.tolist(), size):
                    gone = [listed[c], *more]
                    zero, one = (sum(labels[j] == k for j in gone) for k in (0, 1))
                    counts.add((zero, one, 3 in gone))
        assert len(counts) == 4 * 3 * 2 - 1  # all but none gone


def test_the_rule_spares_nodes_and_the_tree_certificate_does_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1)
    term = copied(draw_term(rng, np.full(12, 2), 4, 0.01, "plain"), [*range(12), *range(6), -1, -1])
    problem = ChannelSelection.from_terms([term], keep=10)
    nodes = {}
    for rule in (True, False):
        if not rule:
            for module in (_root, _explorers, _careful):
                monkeypatch.setattr(module, "twin_labels", lambda q: np.full(q.n_channels, NO_TWIN))
            monkeypatch.setattr(
                _solve, "dead_channels", lambda q: np.zeros(q.n_channels, dtype=np.bool_)
            )
        solution = branch_and_bound(problem, threads=1)
        nodes[rule] = solution.nodes
        value = solution.value
    assert branch_and_bound(problem, threads=1).value == pytest.approx(value, rel=1e-6)
    assert nodes[True] < nodes[False]
    certificate = branch_and_bound_tree(example(), 0.999 * branch_and_bound(example()).value)
    assert certificate is not None
