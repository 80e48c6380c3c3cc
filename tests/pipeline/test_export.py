"""Exports: written only after onnxruntime, or the file itself, agrees with torch."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mipprune.errors import DataFileError, InputError, MissingExtraError
from mipprune.pipeline import _export, export_onnx, export_safetensors, load_pruned
from tests.pipeline.tiny import tiny_data, tiny_model, tiny_run


class TwoInputs(nn.Module):
    """Arguments by position and by name, and a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(3, 4), nn.Linear(2, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor, *, y: Tensor) -> Tensor:
        mixed: Tensor = self.norm(self.a(x) + self.b(y))
        return mixed


class NoOnnx(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        solved: Tensor = torch.linalg.lstsq(x.mT @ x, x.mT).solution
        return solved


@pytest.fixture(scope="module")
def _onnx() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is an optional package")


@pytest.mark.usefixtures("_onnx")
def test_onnx_agrees_at_any_batch_size(tmp_path: Path) -> None:
    onnxruntime: Any = import_module("onnxruntime")  # its stubs leave out what it exports
    model = TwoInputs().train()
    path = tmp_path / "model.onnx"
    x, y = torch.randn(2, 3), torch.randn(2, 2)
    assert export_onnx(model, (x,), {"y": y}, path) < 1e-5
    assert model.training
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    more = torch.randn(7, 3), torch.randn(7, 2)
    names = [entry.name for entry in session.get_inputs()]
    feed = {name: tensor.numpy() for name, tensor in zip(names, more, strict=True)}
    with torch.no_grad():
        expected = model.eval()(more[0], y=more[1]).numpy()
    np.testing.assert_allclose(session.run(None, feed)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("_onnx")
def test_a_file_that_disagrees_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_export, "_compare_onnx", lambda *_: 0.5)
    with pytest.raises(DataFileError, match=r"differ from torch's by 5\.00e-01"):
        export_onnx(nn.Linear(2, 2), (torch.zeros(2, 2),), {}, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_onnx")
def test_an_operator_without_onnx_form(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="NoOnnx cannot be exported to ONNX"):
        export_onnx(NoOnnx(), (torch.randn(3, 2),), {}, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"mipprune\[onnx\]"):
        export_onnx(nn.Linear(2, 2), (torch.zeros(2, 2),), {}, tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(MissingExtraError, match=r"mipprune\[safetensors\]"):
        export_safetensors(nn.Linear(2, 2), tmp_path / "model.safetensors")


def test_safetensors_hold_tied_tensors(tmp_path: Path) -> None:
    load = pytest.importorskip("safetensors.torch", reason="an optional package").load_file
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    export_safetensors(model, tmp_path / "model.safetensors")
    back = load(tmp_path / "model.safetensors")
    assert all(torch.equal(back[name], value) for name, value in model.state_dict().items())


def test_an_unfinished_run_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    tiny_run(tmp_path / "run", latency_repeats=0)
    (tmp_path / "run" / "model.pt").unlink()
    with pytest.raises(InputError, match="not finished"):
        load_pruned(tmp_path / "run", model=tiny_model, data=tiny_data())
