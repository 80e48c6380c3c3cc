"""The loop: resuming, interrupts, failures, accumulation."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mipprune.errors import DataFileError, InputError, NonFiniteLossError
from mipprune.graph.groups import ChannelGroups
from mipprune.models import Dataset, batches
from mipprune.training import (
    L0,
    SPR,
    Dense,
    Method,
    ResumeWarning,
    TrainConfig,
    TrainResult,
    evaluate,
    train,
)
from tests.training.networks import TinyNet, tiny_groups

CONFIG = TrainConfig(epochs=4, batch_size=8, lr=0.05, precision="bf16")


def prepared(kind: str, dropout: float = 0.3) -> tuple[nn.Module, Method]:
    method: Method = {
        "spr": lambda: SPR(alpha=0.2, strength=1.0, big_m=0.5),
        "proximal": lambda: SPR(alpha=0.2, strength=1.0, big_m=2.0, proximal=True),
        "l0": lambda: L0(strength=0.2, seed=3),
        "none": Dense,
    }[kind]()
    return method.prepare(TinyNet(dropout=dropout), tiny_groups()), method


def figures(result: TrainResult) -> list[dict[str, float]]:
    """History without what depends on the clock."""
    return [{k: v for k, v in record.items() if k != "seconds"} for record in result.history]


class Own:
    """Data of somebody else: any iterable for each split."""

    def __init__(self, part: Any) -> None:
        self.train = self.validation = self.test = part


class StopAfter(Method):
    """Sends Ctrl-C to this process after some steps of another method."""

    def __init__(self, inner: Method, steps: int) -> None:
        self.inner, self.left = inner, steps

    def __getattribute__(self, name: str) -> Any:
        if name in ("inner", "left", "after_step", "__class__"):
            return object.__getattribute__(self, name)
        return getattr(object.__getattribute__(self, "inner"), name)

    def after_step(self, lr: float) -> None:
        self.inner.after_step(lr)
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)

    def prepare(self, model: nn.Module, groups: ChannelGroups) -> nn.Module:
        return self.inner.prepare(model, groups)

    def parameter_groups(self) -> Any:
        return self.inner.parameter_groups()

    def scores(self) -> Any:
        return self.inner.scores()

    def choose(self, budget: Any = None) -> Any:
        return self.inner.choose(budget)

    def finish(self, model: nn.Module, masks: Any) -> nn.Module:
        return self.inner.finish(model, masks)


@pytest.mark.parametrize("kind", ["none", "spr", "proximal", "l0"])
@pytest.mark.parametrize("steps", [7, 10])
def test_interrupted_and_resumed_equals_uninterrupted(
    kind: str, steps: int, data: Dataset, tmp_path: Path
) -> None:
    whole, method = prepared(kind)
    expected = train(whole, data, CONFIG, method=method, progress=False)
    assert not expected.interrupted

    model, method = prepared(kind)
    stopping = StopAfter(method, steps)
    # The record holds the name of the class, so the wrapper must say whom it stands for.
    StopAfter.__name__ = type(method).__name__
    stopped = train(model, data, CONFIG, method=stopping, out=tmp_path, progress=False)
    assert stopped.interrupted
    assert len(stopped.history) == steps // 5

    resumed, method = prepared(kind)
    result = train(resumed, data, CONFIG, method=method, out=tmp_path, resume=True, progress=False)
    assert not result.interrupted
    assert figures(result) == figures(expected)
    for name, value in whole.state_dict().items():
        if isinstance(value, Tensor):
            assert torch.equal(resumed.state_dict()[name], value), name


def test_killed_process_resumes_bit_identically(data: Dataset, tmp_path: Path) -> None:
    program = (
        "import os, sys, torch; torch.set_num_threads(1)\n"
        "from pathlib import Path\n"
        "from mipprune.training import train\n"
        "from tests.training.networks import tiny_data\n"
        "from tests.training.test_loop import CONFIG, prepared\n"
        "model, method = prepared('spr')\n"
        "report = method.end_epoch\n"
        "def end_epoch(metrics):\n"
        "    if metrics['epoch'] == 3: os.kill(os.getpid(), 9)\n"
        "    return report(metrics)\n"
        "method.end_epoch = end_epoch\n"
        "train(model, tiny_data(), CONFIG, method=method, out=Path(sys.argv[1]), progress=False)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=root, timeout=500, check=False
    )
    assert done.returncode == -signal.SIGKILL
    whole, method = prepared("spr")
    expected = train(whole, data, CONFIG, method=method, progress=False)
    model, method = prepared("spr")
    result = train(model, data, CONFIG, method=method, out=tmp_path, resume=True, progress=False)
    assert figures(result) == figures(expected)
    for name, value in whole.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]


def test_second_interrupt_is_not_held_back(data: Dataset) -> None:
    model, method = prepared("none")
    stopping = StopAfter(method, 2)

    def twice(outputs: Any, batch: Any) -> Tensor:
        if stopping.left == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return nn.functional.cross_entropy(outputs, batch[1])

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(model, data, CONFIG, method=stopping, criterion=twice, progress=False)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_finished_run_only_loads(data: Dataset, tmp_path: Path) -> None:
    model, method = prepared("spr")
    expected = train(model, data, CONFIG, method=method, out=tmp_path, progress=False)
    again, method = prepared("spr")
    result = train(again, data, CONFIG, method=method, out=tmp_path, resume=True, progress=False)
    assert result.history == expected.history
    assert torch.equal(again.state_dict()["fc.weight"], model.state_dict()["fc.weight"])


def test_occupied_and_empty_folders_are_refused(data: Dataset, tmp_path: Path) -> None:
    one = TrainConfig(epochs=1, batch_size=8)
    with pytest.raises(InputError, match="no checkpoint"):
        train(TinyNet(), data, one, out=tmp_path, resume=True, progress=False)
    with pytest.raises(InputError, match="out="):
        train(TinyNet(), data, one, resume=True, progress=False)
    train(TinyNet(), data, one, out=tmp_path, progress=False)
    with pytest.raises(InputError, match="holds a run already"):
        train(TinyNet(), data, one, out=tmp_path, progress=False)
    other = TrainConfig(epochs=1, batch_size=8, lr=0.3)
    with pytest.raises(InputError, match=r"lr \(stored 0.1, given 0.3\)"):
        train(TinyNet(), data, other, out=tmp_path, resume=True, progress=False)
    model, method = prepared("spr")
    with pytest.raises(InputError, match="method_class"):
        train(model, data, one, method=method, out=tmp_path, resume=True, progress=False)
    (tmp_path / "checkpoint.pt").write_bytes(b"PK damaged")
    with pytest.raises(DataFileError, match="damaged"):
        train(TinyNet(), data, one, out=tmp_path, resume=True, progress=False)


def test_another_environment_warns(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = TrainConfig(epochs=1, batch_size=8)
    train(TinyNet(), data, one, out=tmp_path, progress=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    with pytest.warns(ResumeWarning, match="threads was 1, is 7"):
        train(TinyNet(), data, one, out=tmp_path, resume=True, progress=False)


def test_nan_loss_stops_and_keeps_the_last_good_checkpoint(data: Dataset, tmp_path: Path) -> None:
    calls = 0

    def breaking(outputs: Any, batch: Any) -> Tensor:
        nonlocal calls
        calls += 1
        loss = nn.functional.cross_entropy(outputs.float(), batch[1])
        return loss * float("nan") if calls == 13 else loss

    config = TrainConfig(epochs=4, batch_size=8, evaluate_every=0)
    with pytest.raises(NonFiniteLossError, match=r"epoch 3, step 13 .* last good epoch is"):
        train(TinyNet(), data, config, out=tmp_path, criterion=breaking, progress=False)
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert kept["epoch"] == 2
    assert all(torch.isfinite(v).all() for v in kept["model"].values())


def test_weights_that_overflow_are_not_saved(data: Dataset, tmp_path: Path) -> None:
    class Break(Dense):
        def after_step(self, lr: float) -> None:
            with torch.no_grad():
                model.fc.weight.fill_(float("inf"))

    model = TinyNet()
    method = Break()
    method.prepare(model, tiny_groups())
    config = TrainConfig(epochs=1, batch_size=100, evaluate_every=0)
    with pytest.raises(NonFiniteLossError, match="a weight became"):
        train(model, data, config, method=method, out=tmp_path, progress=False)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_full_disk_keeps_the_old_checkpoint(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(TinyNet(), data, TrainConfig(epochs=1, batch_size=8), out=tmp_path, progress=False)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(self: Path, content: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    from mipprune.training.checkpoint import save_checkpoint

    with pytest.raises(DataFileError, match="No space left"):
        save_checkpoint(tmp_path / "checkpoint.pt", {"epoch": 1})
    monkeypatch.undo()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt", "metrics.jsonl"]


def test_accumulated_gradients_equal_those_of_the_whole_batch(data: Dataset) -> None:
    # Without norms in training mode the mean over micro-batches is that of the batch.
    results = []
    for batch_size, accumulate in ((12, 1), (4, 3)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        config = TrainConfig(
            epochs=2, batch_size=batch_size, accumulate=accumulate, lr=0.1, channels_last=False
        )

        def forward(network: nn.Module, batch: Any) -> Tensor:
            found: Tensor = network(batch[0].double())
            return found

        result = train(model, data, config, forward=forward, progress=False)
        results.append((model.state_dict(), result.history[-1]["loss"]))
    (first, loss), (second, other) = results
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=1e-6)
    assert loss == pytest.approx(other, abs=1e-6)


def test_training_leaves_the_global_random_state_alone(data: Dataset) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    train(TinyNet(), data, TrainConfig(epochs=1, batch_size=8), progress=False)
    assert torch.equal(torch.rand(3), expected)


def test_the_test_split_is_not_read(data: Dataset) -> None:
    class Watched:
        def __init__(self) -> None:
            self.train = list(batches(data, "train", 8))
            self.validation = list(batches(data, "validation", 8))

        @property
        def test(self) -> Iterator[Any]:
            raise AssertionError("the test split was read")

    config = TrainConfig(epochs=2, batch_size=8, augment=False)
    result = train(TinyNet(), Watched(), config, progress=False)
    assert 0 <= result.history[-1]["val_accuracy"] <= 1


@pytest.mark.parametrize("form", ["pair", "mapping"])
def test_data_of_other_people(data: Dataset, form: str) -> None:
    pairs = list(batches(data, "train", 8))

    given = pairs if form == "pair" else [{"x": x, "labels": y} for x, y in pairs]
    result = train(TinyNet(), Own(given), TrainConfig(epochs=12, lr=0.05), progress=False)
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_data_without_length_or_labels_is_refused(data: Dataset) -> None:
    class Endless:
        def __iter__(self) -> Iterator[Any]:
            return batches(data, "train", 8)

    with pytest.raises(InputError, match="batches_per_epoch"):
        train(TinyNet(), Own(Endless()), TrainConfig(epochs=1), progress=False)
    train(TinyNet(), Own(Endless()), TrainConfig(epochs=1, batches_per_epoch=5), progress=False)

    with pytest.raises(InputError, match="criterion="):
        train(TinyNet(), Own([torch.zeros(2, 1, 8, 8)]), TrainConfig(epochs=1), progress=False)

    outside = [(torch.zeros(2, 1, 8, 8), torch.tensor([0, 3]))]
    with pytest.raises(InputError, match="labels of a batch run from 0 to 3"):
        train(TinyNet(), Own(outside), TrainConfig(epochs=1), progress=False)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_both_optimizers_learn(data: Dataset, optimizer: Any) -> None:
    model = TinyNet()
    lr = 0.1 if optimizer == "sgd" else 0.01
    config = TrainConfig(
        epochs=25, batch_size=9, lr=lr, optimizer=optimizer, label_smoothing=0.05, clip_norm=5.0
    )
    train(model, data, config, progress=False)
    found = evaluate(model, data, "test")
    assert found.accuracy is not None
    assert found.accuracy > 0.9
    assert found.n_examples == 45
    assert model.training


def test_checkpoint_holds_the_specification_and_plain_content(
    data: Dataset, tmp_path: Path
) -> None:
    one = TrainConfig(epochs=1, batch_size=8)
    widths = {"widths": {"conv1": [0, 2]}}
    train(TinyNet(), data, one, out=tmp_path, specification=widths, progress=False)
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert content["specification"] == widths
    assert content["data"] == data.describe()
    assert content["environment"]["threads"] == torch.get_num_threads()
    with pytest.raises(InputError, match="specification"):
        train(TinyNet(), data, one, out=tmp_path, resume=True, progress=False)
