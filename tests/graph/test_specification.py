"""Pruned networks as JSON plus weights; ONNX and torch.export of the result."""

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mipprune.errors import DataFileError, InputError
from mipprune.graph import channel_groups, random_masks, remove, restore, spec, untied_state
from mipprune.models import build_model


def build() -> nn.Module:
    return build_model("resnet20", in_channels=1, image_size=8, num_classes=4)


@pytest.fixture(scope="module")
def pruned() -> nn.Module:
    torch.manual_seed(0)
    model, example = build(), torch.randn(2, 1, 8, 8)
    groups = channel_groups(model, example, rehearsal=False)
    return remove(model, groups, random_masks(groups, np.random.default_rng(0))).eval()


X = torch.linspace(-1, 1, 128).view(2, 1, 8, 8)


def test_round_trip_through_json_and_weights_only(pruned: nn.Module, tmp_path: Path) -> None:
    text = json.dumps(spec(pruned))
    torch.save(pruned.state_dict(), tmp_path / "weights.pt")
    fresh = build()
    again = restore(fresh, text, tmp_path / "weights.pt").eval()
    assert torch.equal(again(X), pruned(X))
    assert repr(again) == repr(pruned)
    assert sum(p.numel() for p in fresh.parameters()) > sum(p.numel() for p in again.parameters())


def test_round_trip_through_safetensors(pruned: nn.Module, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(untied_state(pruned), tmp_path / "weights.safetensors")
    again = restore(build(), spec(pruned), tmp_path / "weights.safetensors").eval()
    assert torch.equal(again(X), pruned(X))


class Tied(nn.Module):
    """Embedding tied to the output."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mid = nn.Embedding(7, 6), nn.Linear(6, 6)
        self.out = nn.Linear(6, 7, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.relu(self.mid(self.embed(x))))
        return out


def test_ties_are_restored(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model, tokens = Tied(), torch.arange(7).view(1, 7)
    groups = channel_groups(model, tokens)
    small = remove(model, groups, random_masks(groups, np.random.default_rng(0)))
    save_file(untied_state(small), tmp_path / "w.safetensors")
    again: Any = restore(Tied(), json.loads(json.dumps(spec(small))), tmp_path / "w.safetensors")
    assert again.out.weight is again.embed.weight
    assert torch.equal(again(tokens), small(tokens))


def test_what_does_not_fit_is_refused(pruned: nn.Module, tmp_path: Path) -> None:
    good = spec(pruned)
    with pytest.raises(InputError, match="not JSON"):
        restore(build(), "{")
    with pytest.raises(InputError, match="not a specification"):
        restore(build(), {"format": "other"})
    with pytest.raises(InputError, match="version 9"):
        restore(build(), {**good, "version": 9})
    with pytest.raises(InputError, match="no 'ties'"):
        restore(build(), {k: v for k, v in good.items() if k != "ties"})
    with pytest.raises(InputError, match="is not the network of the specification"):
        restore(nn.Linear(2, 2), good)
    narrow = build_model("resnet20", in_channels=1, image_size=8, num_classes=4, base_width=2)
    with pytest.raises(InputError, match="pruning only shrinks"):
        restore(narrow, good)
    with pytest.raises(InputError, match="weights do not fit"):
        restore(build(), good, build().state_dict())
    (tmp_path / "broken.pt").write_bytes(b"nonsense")
    with pytest.raises(DataFileError, match=r"broken.pt is no file of torch.save"):
        restore(build(), good, tmp_path / "broken.pt")
    with pytest.raises(DataFileError, match="a folder, not a file"):
        restore(build(), good, tmp_path)
    with pytest.raises(DataFileError, match="can not be read"):
        restore(build(), good, tmp_path / "missing.safetensors")


def test_export_of_the_result(pruned: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(pruned, (X,))
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        buffer.seek(0)
        again = torch.export.load(buffer).module()
    torch.testing.assert_close(again(X), pruned(X))


def test_onnx_of_the_result(pruned: nn.Module, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")
    pytest.importorskip("onnxscript", reason="needs the extra 'onnx'")
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(pruned, (X,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {session.get_inputs()[0].name: X.numpy()})
    np.testing.assert_allclose(out, pruned(X).detach().numpy(), rtol=1e-4, atol=1e-5)
