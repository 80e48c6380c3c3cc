"""A report with every part filled in, made by hand."""

from mipprune.report import (
    Curve,
    ErrorCurve,
    FamilyWidth,
    GapEntry,
    GateHistogram,
    Latency,
    PruneReport,
    Size,
    Stage,
)


def full_report() -> PruneReport:
    """All sections; the text holds characters that HTML and Markdown must escape."""
    epochs = tuple(range(1, 21))
    later = tuple(range(21, 41))
    tuning = tuple(range(41, 51))
    curves = []
    for phase, span, start in (("dense", epochs, 2.2), ("spr", later, 2.6), ("tune", tuning, 0.3)):
        train = tuple(start * 0.85**i + 0.01 for i in range(len(span)))
        valid = tuple(start * 0.8**i + 0.06 for i in range(len(span)))
        accuracy = tuple(0.99 - 0.6 * 0.7**i for i in range(len(span)))
        curves += [
            Curve(phase, "training loss", span, train),
            Curve(phase, "validation loss", span, valid),
            Curve(phase, "validation accuracy", span, accuracy),
        ]
    names = ["conv1", *(f"layer{s}.{b}.conv1" for s in (1, 2, 3) for b in (0, 1, 2))]
    before = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
    after = [12, 5, 9, 11, 17, 20, 9, 25, 31, 12]
    return PruneReport(
        title="digits <resnet20> at 40 % of the MACs",
        settings={"data": "digits", "model": "resnet20", "method": "spr", "split": "a|b"},
        stages=(
            Stage("dense", 0.9875, 0.9861, 20, 12.3),
            Stage("after spr", 0.9833, 0.9805, 20, 13.9),
            Stage("after removal", 0.9333, 0.9249, 0, 0.4),
            Stage("after fine-tuning", 0.9833, 0.9833, 10, 125.0),
        ),
        sizes=(
            Size("MACs", 2_650_000, 1_060_000.0, 1_055_300, 1_055_300),
            Size("parameters", 269_434, None, 118_114, 118_114),
            Size("channels", 352, None, 151, 151),
        ),
        widths=tuple(FamilyWidth(n, b, a) for n, b, a in zip(names, before, after, strict=True)),
        curves=tuple(curves),
        gates=GateHistogram(
            tuple(i / 20 for i in range(21)),
            (120, 9, 4, 2, 0, 1, 0, 0, 1, 0, 0, 1, 0, 2, 1, 3, 2, 5, 8, 190),
            0.01,
        ),
        latency=Latency(8.12, (8.0, 8.4), 4.6, (4.5, 4.8), 0.566, (0.55, 0.58), 64, 25, 2, "cpu"),
        gaps=(
            GapEntry("layer1.0.conv1", 0.5, 0.49, 0.02, True),
            GapEntry("widths", 0.5, 0.5, 0.0),
        ),
        error_curves=tuple(
            ErrorCurve(
                name,
                (1, size // 2, size),
                (0.3 / size, 0.02, 0.0),
                (0.1 / size, 0.01, 0.0),
                size // 2,
            )
            for name, size in zip(names[:5], before[:5], strict=True)
        ),
        provenance={
            "seed": 0,
            "command": "mipprune prune --data digits --model resnet20 --macs 40%",
            "versions": {"python": "3.11.9", "mipprune": "0.1.0", "torch": "2.13.0"},
            "machine": {"processor": "A processor", "system": "Linux", "cores": 2},
            "time": "2026-01-01T00:00:00+00:00",
        },
        notes=("One test image is 0.28 points.",),
    )
