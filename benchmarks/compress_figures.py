"""The plots of ``docs/compress.md``: curves, widths and gaps of one compression of a digit network.

    python benchmarks/compress_figures.py --out docs/figures

Trains a ResNet-20 of width 8 on the bundled digits for 15 epochs, compresses it to 40 % of its
MACs without training, and writes the plots of the run's report as files of their own.
"""

import argparse
import tempfile
from pathlib import Path

import torch

from mipprune._support.files import write_text
from mipprune.models import build_model, load_data
from mipprune.pipeline import CompressOptions, PruneConfig, run_compression
from mipprune.report import PruneReport, render_text
from mipprune.report._figures import figures
from mipprune.report._standalone import standalone_svg
from mipprune.training import TrainConfig, train

NAMES = {
    "Error against width": "compress_errors.svg",
    "Widths": "compress_widths.svg",
    "Gaps": "compress_gaps.svg",
}


def main() -> None:
    """Train, compress, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        report = compressed(Path(folder), options.epochs, options.seconds)
    print(render_text(report))
    options.out.mkdir(parents=True, exist_ok=True)
    for path in written(report, options.out):
        print(path)


def compressed(folder: Path, epochs: int, seconds: float) -> PruneReport:
    """Report of the compression."""
    settings = {"base_width": 8}
    model = build_model(
        "resnet20",
        in_channels=1,
        image_size=8,
        generator=torch.Generator().manual_seed(0),
        **settings,
    )
    train(model, load_data("digits"), TrainConfig(epochs=epochs), progress=False)
    torch.save(model.state_dict(), folder / "dense.pt")
    run = run_compression(
        PruneConfig(
            data="digits",
            model="resnet20",
            model_options=settings,
            method="none",
            weights=str(folder / "dense.pt"),
            macs="40%",
            tune_epochs=0,
            latency_repeats=0,
        ),
        folder / "run",
        options=CompressOptions(time_limit=seconds),
        progress=False,
    )
    return run.report


def written(report: PruneReport, out: Path) -> list[Path]:
    """Files of the plots."""
    paths = []
    for title, _, svg in figures(report):
        if title not in NAMES:
            continue
        write_text(out / NAMES[title], standalone_svg(svg))
        paths.append(out / NAMES[title])
    return paths


if __name__ == "__main__":
    main()
