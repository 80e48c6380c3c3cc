"""``mipprune prune`` and ``mipprune export`` as a newcomer types them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mipprune.cli import main
from mipprune.report import load_report

ROOT = Path(__file__).resolve().parents[2]

OWN = '''
"""Somebody's own network and data."""
import torch
from torch import nn


class Batches:
    def __init__(self, seed):
        generator = torch.Generator().manual_seed(seed)
        self.batches = []
        for _ in range(4):
            x = torch.randn(32, 6, generator=generator)
            self.batches.append((x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()))

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


class Data:
    def __init__(self):
        self.train, self.validation, self.test = Batches(1), Batches(2), Batches(3)


def network(width=8):
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))
'''


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "theirs.py").write_text(OWN)
    return folder


def _arguments(out: str, *more: str) -> list[str]:
    return [
        "prune", "--data", "theirs:Data", "--model", "theirs:network", "--macs", "50%",
        "--dense-epochs", "2", "--epochs", "2", "--tune-epochs", "1", "--latency-repeats", "2",
        "--train-option", "lr=0.05", "--quiet", "--out", out, *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(own: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(own)
        assert main(_arguments("run", "--model-option", "width=12")) == 0
    return own / "run"


def test_own_network_and_data(run: Path) -> None:
    report = load_report(run)
    macs = report.size("MACs")
    assert macs is not None
    assert macs.dense == 12 * 6 + 12 * 3
    assert macs.counted == 54
    assert report.settings["model options"] == "width = 12"
    assert len(report.stages) == 4


def test_a_new_run_refuses_the_old_one_and_resume_reads_it(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run.parent)
    assert main(_arguments("run")) == 2
    assert "exists already (continue it with --resume)" in capsys.readouterr().err
    assert main(["prune", "--out", "run", "--resume", "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "after fine-tuning" in shown
    assert "report: run/report.html" in shown
    assert main(_arguments("run", "--resume", "--seed", "3")) == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune", "--out", "new"], "--data and --model must be given"),
        (["prune", "--out", "new", "--resume"], "no configuration"),
        (["prune", "--data", "digits", "--model", "mlp", "--out", "new"], "there is no budget"),
        (_arguments("new", "--method-option", "alpha=2"), "alpha must be in (0, 1)"),
        (_arguments("new", "--macs", "1%"), "cannot be reached"),
        (["export", "run"], "nothing to write"),
        (["export", "new", "--onnx", "x.onnx"], "no run in new"),
    ],
)
def test_wrong_input(
    run: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(run.parent)
    assert main(arguments) == 2
    text = capsys.readouterr().err
    assert message in text
    assert text.count("\n") == 1
    assert not Path("new").exists()


def test_ctrl_c_before_the_first_file(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(run.parent)
    monkeypatch.setattr("mipprune.pipeline.prune", interrupted)
    assert main(_arguments("new")) == 130
    assert "nothing was trained yet" in capsys.readouterr().err


def test_unknown_method_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["prune", "--method", "sprr", "--out", "x"])
    assert "did you mean spr" in capsys.readouterr().err


def test_export_of_the_weights(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is optional")
    monkeypatch.chdir(run.parent)
    assert main(["export", "run", "--safetensors", "w.safetensors"]) == 0
    state = torch.load(run / "model.pt", weights_only=True)
    back = safetensors.load_file("w.safetensors")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_ctrl_c_leaves_a_run_that_goes_on(own: Path) -> None:
    """The terminal's Ctrl-C, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mipprune", *_arguments("stopped", "--dense-epochs", "100000")]
    process = subprocess.Popen(command, cwd=own, env=environment, stderr=subprocess.PIPE, text=True)
    checkpoint = own / "stopped" / "dense" / "checkpoint.pt"
    deadline = time.monotonic() + 300
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=240)
    assert process.returncode == 130, text
    assert "go on with: mipprune prune --out stopped --resume" in text
    assert checkpoint.exists()
    assert (own / "stopped" / "metrics.jsonl").read_text().count("\n") >= 1
