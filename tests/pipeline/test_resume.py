"""Stopped anywhere, a run goes on and ends as if it had not been stopped."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mipprune.errors import DataFileError, InputError
from mipprune.pipeline import PruneResult, _phases, _prune
from mipprune.report import Stage
from mipprune.training._run import Run
from tests.pipeline.tiny import tiny_config, tiny_run

ROOT = Path(__file__).resolve().parents[2]
# A phase and the optimizer step in it: 6 steps an epoch.
MOMENTS = [("dense", 6), ("train", 8), ("train", 12), ("tune", 3)]


@pytest.fixture(scope="module", autouse=True)
def _no_plots() -> Iterator[None]:
    """The page is not what is tested here, and takes the most time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> PruneResult:
    return tiny_run(tmp_path_factory.mktemp("runs") / "run", latency_repeats=0)


def _assert_same(found: PruneResult, expected: PruneResult) -> None:
    assert found.masks.keys() == expected.masks.keys()
    for name, mask in expected.masks.items():
        np.testing.assert_array_equal(found.masks[name], mask)
    state = found.model.state_dict()
    for name, value in expected.model.state_dict().items():
        assert torch.equal(state[name], value), name
    assert [_untimed(s) for s in found.report.stages] == [
        _untimed(s) for s in expected.report.stages
    ]
    assert found.report.curves == expected.report.curves
    assert found.report.sizes == expected.report.sizes
    assert found.report.gates == expected.report.gates


def _untimed(stage: Stage) -> tuple[str, float | None, float | None, int]:
    return stage.name, stage.validation, stage.test, stage.epochs


def _interrupt_at(patch: pytest.MonkeyPatch, phase: str, step: int) -> None:
    """Ctrl-C as the terminal sends it, in the middle of an optimizer step."""
    original = Run.train_step

    def train_step(self: Run, window: Any) -> float:
        assert self.checkpoint is not None
        if self.checkpoint.parent.name == phase and self.step + 1 == step:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, window)

    patch.setattr(Run, "train_step", train_step)


@pytest.mark.parametrize(("phase", "step"), MOMENTS)
def test_ctrl_c_in_training(
    tmp_path: Path, undisturbed: PruneResult, phase: str, step: int
) -> None:
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        _interrupt_at(patch, phase, step)
        # The last step of a phase is its end: the phase is done and the next one goes on.
        if step not in (12,):
            with pytest.raises(KeyboardInterrupt):
                tiny_run(out, latency_repeats=0)
            assert (out / phase / "checkpoint.pt").is_file()
            assert not (out / "report.json").exists()
            result = tiny_run(out, resume=True, latency_repeats=0)
        else:
            result = tiny_run(out, latency_repeats=0)
    _assert_same(result, undisturbed)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (_prune, "find_groups"),
        (_phases, "remove"),
        (_phases, "build_method"),
        (_prune, "build_report"),
        (_prune, "write_report"),
    ],
)
def test_ctrl_c_elsewhere(tmp_path: Path, undisturbed: PruneResult, module: Any, name: str) -> None:
    out = tmp_path / "run"

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            tiny_run(out, latency_repeats=0)
    _assert_same(tiny_run(out, resume=out.exists(), latency_repeats=0), undisturbed)


def test_several_interruptions(tmp_path: Path, undisturbed: PruneResult) -> None:
    out = tmp_path / "run"
    for index, (phase, step) in enumerate([("dense", 2), ("dense", 9), ("train", 1), ("tune", 5)]):
        with pytest.MonkeyPatch.context() as patch:
            _interrupt_at(patch, phase, step)
            with pytest.raises(KeyboardInterrupt):
                tiny_run(out, resume=index > 0, latency_repeats=0)
    _assert_same(tiny_run(out, resume=True, latency_repeats=0), undisturbed)


def test_finished_run_is_read_again(tmp_path: Path) -> None:
    first = tiny_run(tmp_path / "run")
    again = tiny_run(tmp_path / "run", resume=True)
    _assert_same(again, first)
    assert again.report == first.report


KILLED = """
import os, signal
from pathlib import Path
import torch
torch.set_num_threads(1)
from mipprune.training._run import Run
from tests.pipeline.tiny import tiny_run
original = Run.train_step
def train_step(self, window):
    if self.checkpoint.parent.name == "train" and self.step == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, window)
Run.train_step = train_step
tiny_run(Path(os.environ["OUT"]), latency_repeats=0)
"""


def test_killed_process(tmp_path: Path, undisturbed: PruneResult) -> None:
    out = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OUT": str(out)}
    done = subprocess.run([sys.executable, "-c", KILLED], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    _assert_same(tiny_run(out, resume=True, latency_repeats=0), undisturbed)


def _fail_write(patch: pytest.MonkeyPatch, number: int) -> list[int]:
    """The given write, counted from 0, meets a full disk; so do all later ones."""
    seen = [0]
    original = os.fsync

    def fsync(handle: int) -> None:
        seen[0] += 1
        if seen[0] > number:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(handle)

    patch.setattr(os, "fsync", fsync)
    return seen


@pytest.mark.parametrize("number", [0, 1, 4, 9, 17])
def test_full_disk(tmp_path: Path, undisturbed: PruneResult, number: int) -> None:
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        seen = _fail_write(patch, number)
        with pytest.raises(DataFileError, match="No space left on device"):
            tiny_run(out, latency_repeats=0)
    assert seen[0] > number
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]
    started = (out / "config.json").exists()
    assert started == (number > 0)
    _assert_same(tiny_run(out, resume=started, latency_repeats=0), undisturbed)


def test_a_new_run_does_not_touch_an_old_one(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "precious").write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        tiny_run(out)
    assert [path.name for path in out.iterdir()] == ["precious"]


def test_resume_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run in"):
        tiny_run(tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


def test_resume_with_other_settings(tmp_path: Path) -> None:
    tiny_config().save(tmp_path / "config.json")
    with pytest.raises(InputError, match="seed"):
        tiny_run(tmp_path, resume=True, seed=3)
