"""Problem files of 3x3 convolutions of networks trained here, for the solver benchmarks.

    python benchmarks/layers.py --out FOLDER [--networks digits20 fashion20 ...]

Each network is trained for about a minute on one core; every family that a single
convolution reads becomes one file (variant refit, damping 0.01).
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from mipprune.calibration import calibrate
from mipprune.graph import channel_groups
from mipprune.models import batches, build_model, load_data
from mipprune.training import TrainConfig, train


@dataclass(frozen=True)
class Recipe:
    """How one network comes about."""

    network: str
    data: str
    epochs: int
    seed: int
    options: Mapping[str, int | float]


NETWORKS = {
    "digits20": Recipe("resnet20", "digits", 12, 0, {"base_width": 16, "stem_stride": 1}),
    "fashion20": Recipe("resnet20", "fashion-mnist", 1, 1, {"base_width": 16, "stem_stride": 2}),
    "digits20wide": Recipe("resnet20", "digits", 6, 2, {"base_width": 32, "stem_stride": 1}),
    "fashionvgg": Recipe("vgg16", "fashion-mnist", 1, 3, {"width": 0.25, "stem_stride": 2}),
}
"""Widths 16, 32, 64; the wide network has 32, 64, 128, the VGG 16, 32, 64, 128."""

CALIBRATION_IMAGES = 512
PATCHES = 64


def main() -> None:
    """Train, calibrate and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=sorted(NETWORKS), choices=NETWORKS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.networks:
        for path in layers(name, NETWORKS[name], options.out):
            print(path)


def layers(name: str, recipe: Recipe, out: Path) -> list[Path]:
    """Files of one network."""
    data = load_data(recipe.data)
    images, _ = next(iter(batches(data, "train", 2)))
    model = build_model(
        recipe.network,
        in_channels=images.shape[1],
        num_classes=10,
        image_size=(images.shape[2], images.shape[3]),
        generator=torch.Generator().manual_seed(recipe.seed),
        **recipe.options,
    )
    train(model, data, TrainConfig(epochs=recipe.epochs, seed=recipe.seed), progress=False)
    groups = channel_groups(model, (images,))
    source = batches(data, "train", 64, shuffle=True, seed=recipe.seed, augment=False)
    some = [next(source) for _ in range(CALIBRATION_IMAGES // 64)]
    found = calibrate(
        model,
        some,
        groups,
        patches=PATCHES,
        generator=torch.Generator().manual_seed(recipe.seed),
    )
    paths = []
    for family, calibrated in found.items():
        if len(calibrated.terms) == 1 and set(calibrated.terms[0].group_sizes.tolist()) == {9}:
            problem = calibrated.problem(damping=0.01)
            file = f"{name}_{family.replace('.', '_').replace('/', '_')}_p{problem.n_channels}.npz"
            paths.append(problem.save(out / file))
    return paths


if __name__ == "__main__":
    main()
