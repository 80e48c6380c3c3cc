"""Labels: ties against a plain union-find, compression, reasons."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mipprune.graph.labels import STAYS, LabelSpace, compress, grid, varying


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=15))
def test_components_equal_a_union_find(pairs: list[tuple[int, int]]) -> None:
    space = LabelSpace()
    space.fresh(12, "w", 0)
    parent = list(range(13))

    def find(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for a, b in pairs:
        space.tie(torch.tensor([a]), torch.tensor([b]), "why")
        parent[find(a)] = find(b)
    found = space.components().of(np.arange(13))
    for i in range(13):
        assert (found[i] == -1) == (find(i) == find(STAYS))
        for j in range(13):
            if found[i] >= 0 and found[j] >= 0:
                assert (found[i] == found[j]) == (find(i) == find(j))


def test_first_reason_is_kept_for_the_whole_component() -> None:
    space = LabelSpace()
    labels = space.fresh(4, "w", 0)
    space.tie(labels[:2], labels[1:3], "tied")
    space.freeze(labels[2], "first")
    space.freeze(labels[0], "second")
    components = space.components()
    assert set(components.reasons.values()) == {"first"}
    assert components.of(labels.numpy()).tolist()[:3] == [-1, -1, -1]


def test_origins_name_the_axes() -> None:
    space = LabelSpace()
    a, b = space.fresh(3, "a", 0), space.fresh(2, "b", 1)
    assert space.origins(torch.cat([b, a[:1], torch.tensor([STAYS])])) == [("a", 0), ("b", 1)]


def test_compress_finds_constant_dimensions() -> None:
    field = torch.arange(3).view(1, 3, 1).expand(4, 3, 5).contiguous()
    small = compress(field)
    assert varying(small) == (1,)
    assert torch.equal(small, field)
    assert grid(small).tolist() == [0, 1, 2]
