"""Problem files of layers of pretrained networks, for the ladder of gaps.

    python benchmarks/pretrained_layers.py --out FOLDER [--networks digit-cnn efficientnet minilm]

Networks and inputs are those of ``compress_cases.py``, which says what to install. Every
family that a single layer reads, up to ``--channels`` wide, becomes one file (variant
refit, damping 0.01).
"""

import argparse
from pathlib import Path

import torch
from compress_cases import make_case

from mipprune.calibration import calibrate

NETWORKS = ("digit-cnn", "efficientnet", "minilm")
PATCHES = 64


def main() -> None:
    """Calibrate and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--channels", type=int, default=1536, help="widest family to save")
    parser.add_argument("--per-network", type=int, default=4, help="families to save")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.networks:
        for path in layers(name, options.channels, options.per_network, options.out):
            print(path)


def layers(network: str, widest: int, count: int, out: Path) -> list[Path]:
    """Files of one network: families evenly spread over its depth."""
    case = make_case(network)
    fitting = [f.name for f in case.groups if len(f) <= widest and ".attention" not in f.name]
    found = calibrate(
        case.model,
        case.calibration,
        case.groups,
        families=fitting,
        patches=PATCHES,
        generator=torch.Generator().manual_seed(0),
    )
    single = [family for family in found.items() if len(family[1].terms) == 1]
    chosen = [single[round(i)] for i in torch.linspace(0, len(single) - 1, count).tolist()]
    paths = []
    for family, calibrated in dict(chosen).items():
        problem = calibrated.problem(damping=0.01)
        name = family.replace(".", "_").replace("/", "_")
        paths.append(problem.save(out / f"{network}_{name}_p{problem.n_channels}.npz"))
    return paths


if __name__ == "__main__":
    main()
