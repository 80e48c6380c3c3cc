"""``mipprune compress`` and ``mipprune latency`` as typed by a user."""

from pathlib import Path

import pytest
import torch

from mipprune.cli import main
from mipprune.models import build_model
from mipprune.report import load_report
from tests.pipeline.tiny import tiny_model

OPTIONS = ["--model-option", "base_width=4", "--data", "digits"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "dense.pt"
    model = build_model("resnet20", in_channels=1, image_size=8, base_width=4)
    torch.save(model.state_dict(), file)
    return file


def test_compress_writes_a_report_and_refuses_to_write_over_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, weights = tmp_path / "run", tmp_path / "dense.pt"
    # Two families are enough of a network for a report.
    torch.save(tiny_model().state_dict(), weights)
    command = ["compress", "tests.pipeline.tiny:tiny_model", "--weights", str(weights),
               "--data", "digits", "--macs", "60%", "--samples", "128", "--time-limit", "2",
               "--out", str(out), "--quiet", "--latency-repeats", "2"]  # fmt: skip
    assert main(command) == 0
    assert "widths and masks" in capsys.readouterr().out
    report = load_report(out)
    macs = report.size("MACs")
    assert macs is not None
    assert macs.asked is not None
    assert macs.predicted == macs.counted <= macs.asked
    assert all(entry.bound <= entry.value * (1 + 1e-9) for entry in report.gaps)
    for curve in report.error_curves:
        assert curve.chosen in curve.counts
        assert all(b <= v for b, v in zip(curve.bounds, curve.values, strict=True))
    page = (out / "report.html").read_text()
    assert "Error against width" in page
    assert "lower bound / error" in page
    exported = tmp_path / "small.safetensors"
    assert main(["export", str(out), "--safetensors", str(exported)]) == 0
    assert exported.is_file()
    capsys.readouterr()
    assert main(command) == 2
    assert "resume" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0


def test_latency_table_and_budget(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.json"
    measured = ["latency", "resnet20", *OPTIONS, "--out", str(table), "--repeats", "2"]
    assert main(measured) == 0
    command = ["compress", "resnet20", "--weights", str(weights), *OPTIONS, "--samples", "64"]
    command += ["--time-limit", "1", "--latency-repeats", "0", "--latency", "99%", "--quiet"]
    assert main([*command, "--out", str(tmp_path / "a")]) == 2
    assert "--latency-table" in capsys.readouterr().err
    given = ["--out", str(tmp_path / "b"), "--latency-table", str(table)]
    assert main([*command, *given]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no budget"),
        (["--macs", "0.01%"], "cannot be reached"),
        (["--macs", "120%"], "percentage"),
    ],
)
def test_bad_budgets(
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    command = ["compress", "resnet20", "--weights", str(weights), *OPTIONS, "--quiet"]
    assert main([*command, "--out", str(tmp_path / "run"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_weights_are_required(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compress", "resnet20", *OPTIONS, "--macs", "50%", "--out", str(tmp_path / "run")]
    assert main(command) == 2
    assert "--weights" in capsys.readouterr().err
