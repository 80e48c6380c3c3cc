"""Rows times weights is the layer: every kind of layer, stride, padding and group."""

import pytest
import torch
from torch import Tensor, nn

from mipprune.calibration._consumers import group_weights, store_group_weights
from mipprune.calibration._design import Sampler, n_groups, rows_of, targets_at

CASES = [
    (nn.Linear(5, 3), (7, 5)),
    (nn.Linear(5, 3, bias=False), (2, 4, 5)),
    (nn.Linear(5, 3), (2, 3, 4, 5)),
    (nn.Conv1d(3, 4, 3, padding=1), (2, 3, 9)),
    (nn.Conv2d(3, 4, 3), (2, 3, 7, 6)),
    (nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2)), (2, 3, 8, 9)),
    (nn.Conv2d(4, 6, 3, groups=2, padding=1), (3, 4, 5, 5)),
    (nn.Conv2d(4, 4, 3, groups=4, stride=2), (3, 4, 7, 7)),
    (nn.Conv2d(3, 4, (4, 3), padding="same", dilation=(1, 2)), (2, 3, 7, 8)),
    (nn.Conv2d(3, 4, 3, padding="valid", bias=False), (2, 3, 7, 8)),
    (nn.Conv2d(3, 4, 3, padding=2, padding_mode="circular"), (2, 3, 6, 6)),
    (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (2, 3, 6, 5)),
    (nn.Conv2d(3, 4, 1), (3, 4, 4)),
    (nn.Conv3d(2, 3, 2, stride=(1, 2, 1)), (2, 2, 4, 5, 3)),
    (nn.ConvTranspose1d(3, 4, 3, stride=2), (2, 3, 5)),
    (
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, dilation=2, groups=2),
        (2, 4, 4, 5),
    ),
    (nn.ConvTranspose2d(2, 3, 2, padding=3), (1, 2, 9, 9)),
    (nn.ConvTranspose3d(2, 3, 2), (1, 2, 3, 2, 3)),
]


def call(layer: nn.Module, shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        return x, layer(x)


# torch warns that an even kernel with padding='same' copies its input.
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("patches", [None, 3])
@pytest.mark.parametrize(("layer", "shape"), CASES, ids=lambda value: str(value)[:60])
def test_rows_times_weights_is_the_output(
    layer: nn.Module, shape: tuple[int, ...], patches: int | None
) -> None:
    x, output = call(layer, shape)
    sampler = Sampler(patches, torch.Generator().manual_seed(1))
    total = 0
    for rows in rows_of(layer, x, output, sampler):
        wanted = targets_at(layer, output, rows)
        total += len(rows.values)
        for group in range(n_groups(layer)):
            made = rows.values[:, group] @ group_weights(layer, group)
            torch.testing.assert_close(made, wanted[:, group], rtol=1e-12, atol=1e-12)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    all_rows = output.numel() // (output.size(-1) if isinstance(layer, nn.Linear) else 1)
    if not isinstance(layer, nn.Linear):
        channels = output.size(1) if output.dim() == len(weight.shape) else output.size(0)
        all_rows = output.numel() // channels
    examples = output.size(0) if output.dim() >= weight.dim() else 1
    assert total == (all_rows if patches is None else min(all_rows, patches * examples))


def test_sampled_places_differ_and_follow_the_generator() -> None:
    first = Sampler(4, torch.Generator().manual_seed(0)).draw(3, 20)
    again = Sampler(4, torch.Generator().manual_seed(0)).draw(3, 20)
    assert first is not None
    assert again is not None
    assert torch.equal(first, again)
    assert all(len(set(row.tolist())) == 4 for row in first)
    assert Sampler(20, torch.Generator()).draw(3, 20) is None


@pytest.mark.parametrize(("layer", "shape"), CASES[4:8] + CASES[15:16])
def test_stored_weights_come_back(layer: nn.Module, shape: tuple[int, ...]) -> None:
    call(layer, shape)
    for group in range(n_groups(layer)):
        rows = group_weights(layer, group)
        store_group_weights(layer, group, 2 * rows)
        torch.testing.assert_close(group_weights(layer, group), 2 * rows)


def test_chunks_cover_all_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, shape = CASES[4]
    x, output = call(layer, (7, *shape[1:]))
    whole = torch.cat([rows.values for rows in rows_of(layer, x, output, Sampler(None, None))])
    monkeypatch.setattr("mipprune.calibration._design.CHUNK_BYTES", 1)
    parts = list(rows_of(layer, x, output, Sampler(None, None)))
    assert [part.first for part in parts] == list(range(7))
    torch.testing.assert_close(torch.cat([part.values for part in parts]), whole)
