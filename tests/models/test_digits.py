"""The bundled digits, and one real training on them."""

import importlib.util
import sys

import pytest
import torch
import torch.nn.functional as F

from mipprune.errors import MissingExtraError
from mipprune.models import Dataset, batches, build_model, load_data

needs_sklearn = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed"
)


def load(split_seed: int = 0) -> Dataset:
    data = load_data("digits", split_seed=split_seed)
    assert isinstance(data, Dataset)
    return data


@needs_sklearn
def test_sizes_statistics_and_splits() -> None:
    data = load()
    assert (len(data.train), len(data.validation), len(data.test)) == (1197, 200, 400)
    assert data.image_shape == (1, 8, 8)
    everything = torch.cat([data.split(s).images() for s in ("train", "validation", "test")])
    assert float(everything.min()) == 0.0
    assert float(everything.max()) == 1.0
    assert float(everything.mean()) == pytest.approx(data.mean[0], abs=1e-3)
    assert float(everything.std()) == pytest.approx(data.std[0], abs=1e-3)
    assert torch.bincount(data.test.labels).min() == 39
    # All 1797 images are there once.
    assert len(torch.unique(everything.flatten(1), dim=0)) == 1797


@needs_sklearn
def test_the_test_set_never_changes() -> None:
    first, second = load(0), load(1)
    assert torch.equal(first.test.images(), second.test.images())
    assert not torch.equal(first.validation.images(), second.validation.images())


def test_missing_sklearn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"mipprune\[data\]"):
        load()


@needs_sklearn
@pytest.mark.slow
def test_resnet20_learns_the_digits() -> None:
    data = load()
    model = build_model("resnet20", in_channels=1, image_size=8)
    epochs, batch_size = 20, 64
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    steps = epochs * -(-len(data.train) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
    for epoch in range(epochs):
        for images, labels in batches(data, "train", batch_size, epoch=epoch):
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(model(images), labels))
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        correct = sum(
            int((model(x).argmax(dim=1) == y).sum()) for x, y in batches(data, "test", 200)
        )
    # Measured .9925 with seeds 0, 1 and 2.
    assert correct / len(data.test) >= 0.985
