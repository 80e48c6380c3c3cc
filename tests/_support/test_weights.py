"""Files of weights: read without executing, and no advice to do otherwise."""

from pathlib import Path

import pytest
import torch

from mipprune._support.weights import read_torch_file
from mipprune.errors import DataFileError


def test_tensors_come_back(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(3)}, tmp_path / "w.pt")
    assert read_torch_file(tmp_path / "w.pt")["a"].tolist() == [0, 1, 2]


def test_what_is_no_file_of_weights(tmp_path: Path) -> None:
    network, text, cut = tmp_path / "net.pt", tmp_path / "text.pt", tmp_path / "cut.pt"
    torch.save(torch.nn.Linear(2, 2), network)
    text.write_text("epoch,loss")
    cut.write_bytes(network.read_bytes()[:300])
    cases = {
        network: "holds more than tensors",
        text: "is no file of torch.save",
        cut: "or only part of one",
        tmp_path: "there is a folder, not a file",
        tmp_path / "none.pt": "there is no file",
    }
    for path, message in cases.items():
        with pytest.raises(DataFileError, match=message) as found:
            read_torch_file(path)
        assert "weights_only" not in str(found.value)
        assert "\n" not in str(found.value)
