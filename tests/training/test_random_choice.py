"""Random channels: reproducible, in proportion."""

import numpy as np
import pytest

from mipprune.errors import InputError
from mipprune.graph.budgets import Budgets
from mipprune.training import RandomChoice
from tests.training.networks import TinyNet, tiny_groups


def kept(**options: object) -> list[bool]:
    method = RandomChoice(**options)  # type: ignore[arg-type]  # passed on
    groups = tiny_groups()
    method.prepare(TinyNet(), groups)
    found: list[bool] = groups.kept(method.choose(Budgets(macs="40%"))).tolist()
    return found


def test_choice_follows_from_the_generator() -> None:
    assert kept(seed=3) == kept(seed=3) == kept(generator=np.random.default_rng(3))
    assert len({tuple(kept(seed=seed)) for seed in range(8)}) > 3


def test_families_shrink_alike() -> None:
    for seed in range(6):
        mask = np.array(kept(seed=seed))
        assert (mask[:4].sum(), mask[4:].sum()) in {(2, 4), (3, 3), (2, 5)}
    counts = {int(np.sum(kept(seed=seed, uniform=False)[:4])) for seed in range(12)}
    assert len(counts) > 1


def test_there_is_no_rule_without_a_budget() -> None:
    method = RandomChoice()
    method.prepare(TinyNet(), tiny_groups())
    with pytest.raises(InputError, match="without a budget"):
        method.choose()
