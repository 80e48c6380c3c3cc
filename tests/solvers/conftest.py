"""Random instances for all solvers: every variant, limit and degeneracy."""

import itertools
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from mipprune.problem import ChannelSelection, Resource, Term

RandomProblem = Callable[..., ChannelSelection]


def _term(
    generator: np.random.Generator, p: int, max_rows: int, duplicate: bool, responses: int
) -> Term:
    sizes = generator.integers(1, max_rows + 1, p)
    if generator.random() < 0.1:
        sizes[generator.integers(p)] = 0
    d, m = int(sizes.sum()), int(generator.integers(1, responses + 1))
    n = int(generator.choice([max(d // 2, 1), 2 * d + 4]))
    mixing = np.eye(d) + generator.choice([0.0, 0.2, 0.5]) * generator.normal(size=(d, d))
    x = generator.normal(size=(n, d)) @ mixing
    if duplicate and p > 1 and sizes[0] == sizes[1] > 0:
        x[:, sizes[0] : 2 * sizes[0]] = x[:, : sizes[0]]
    dense = generator.normal(size=(d, m)) * np.repeat(generator.random(p) + 0.1, sizes)[:, None]
    y = x @ dense + generator.choice([0.0, 0.5]) * generator.normal(size=(n, m))
    gram = x.T @ x / n
    damping = float(generator.choice([0.0, 0.01, 0.1]))
    scale = float(np.diag(gram).mean()) if d else 0.0
    return Term.create(
        gram, x.T @ y / n, float((y**2).sum()) / n, sizes, ridge=damping * scale, dense=dense
    )


def random_instance(
    seed: int,
    max_channels: int = 12,
    *,
    box: bool = False,
    max_rows: int = 9,
    max_responses: int = 8,
) -> ChannelSelection:
    """A feasible or infeasible instance, fixed by its seed."""
    generator = np.random.default_rng(seed)
    p = int(generator.integers(2, max_channels + 1))
    duplicate = bool(generator.random() < 0.25)
    terms = [_term(generator, p, max_rows, duplicate, max_responses)]
    if generator.random() < 0.25:
        terms.append(_term(generator, p, max_rows, duplicate, max_responses).weighted(0.5))
    if box:
        limit = 0.5 * max(np.abs(t.require_dense("box")).max(initial=0.1) for t in terms)
        terms = [
            Term.create(
                t.gram,
                t.cross,
                t.energy,
                t.group_sizes,
                ridge=t.ridge,
                dense=t.dense,
                big_m=limit * (0.5 + generator.random(p)),
            )
            for t in terms
        ]
    energy = sum(t.energy for t in terms)
    resources = []
    for index in range(int(generator.choice([0, 0, 1, 2]))):
        costs = generator.integers(1, 6, p).astype(float) * generator.choice([1.0, 0.37])
        lower = 0.2 * costs.sum() if generator.random() < 0.3 else -np.inf
        resources.append(
            Resource(f"r{index}", costs, costs.sum() * generator.uniform(0.4, 0.8), lower)
        )
    prices = generator.uniform(-0.01, 0.05, p) * energy if generator.random() < 0.3 else 0.0
    forced = np.zeros((2, p), dtype=bool)
    if generator.random() < 0.2 and p > 2:
        chosen = generator.permutation(p)[:2]
        forced[0, chosen[0]] = forced[1, chosen[1]] = True
    parts = [np.arange(p) % 2] if generator.random() < 0.2 and p % 2 == 0 else []
    return ChannelSelection.from_terms(
        terms,
        prices=prices,
        resources=resources,
        keep=int(generator.integers(max(1, p // 3), p + 1)) if generator.random() < 0.8 else None,
        variant=str(generator.choice(["refit", "refit", "scale", "mask"])),
        forced_in=forced[0],
        forced_out=forced[1],
        parts=parts,
    )  # fmt: skip


def best_by_hand(problem: ChannelSelection) -> tuple[float, np.ndarray | None]:
    """Least value over all masks, evaluated one by one."""
    best, mask = np.inf, None
    for bits in itertools.product([False, True], repeat=problem.n_channels):
        candidate = np.array(bits)
        if problem.is_feasible(candidate):
            value = problem.value(candidate)
            if value < best:
                best, mask = value, candidate
    return best, mask


@pytest.fixture(scope="session")
def random_problem() -> RandomProblem:
    """Function (seed, max_channels, box=, max_rows=) -> ChannelSelection."""
    return random_instance


@pytest.fixture(scope="session")
def brute_force() -> Callable[[ChannelSelection], tuple[float, np.ndarray | None]]:
    """Function problem -> (least value, mask)."""
    return best_by_hand


class TickingClock:
    """A clock of the solvers that gains ``step`` seconds whenever it is read.

    What a search does by a time limit then depends on how often it asks, not on how
    fast or busy the machine is.
    """

    def __init__(self, step: float) -> None:
        self.step, self.now = step, 0.0

    def perf_counter(self) -> float:
        """The time, after which a step passes."""
        self.now += self.step
        return self.now


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], TickingClock]:
    """Function step -> TickingClock, from then on the clock of every ``Monitor``."""

    def install(step: float) -> TickingClock:
        clock = TickingClock(step)
        fake = SimpleNamespace(perf_counter=clock.perf_counter)
        monkeypatch.setattr("mipprune.solvers._monitor.time", fake)
        return clock

    return install
