"""Checkpoints: plain content, nothing executed, nothing half-written."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mipprune.errors import DataFileError, InputError
from mipprune.training.checkpoint import all_finite, load_checkpoint, save_checkpoint


def test_round_trip(tmp_path: Path) -> None:
    content = {"a": {"w": torch.arange(3.0)}, "epoch": 2, "names": ["x", "y"], "none": None}
    save_checkpoint(tmp_path / "c.pt", content)
    found = load_checkpoint(tmp_path / "c.pt")
    assert torch.equal(found["a"]["w"], torch.arange(3.0))
    assert {k: found[k] for k in ("epoch", "names", "none")} == {
        "epoch": 2,
        "names": ["x", "y"],
        "none": None,
    }
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"format": 1, "x": Payload()}, tmp_path / "c.pt")
    with pytest.raises(DataFileError, match="damaged or no checkpoint"):
        load_checkpoint(tmp_path / "c.pt")
    (tmp_path / "p.pt").write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(DataFileError, match="damaged or no checkpoint"):
        load_checkpoint(tmp_path / "p.pt")
    assert not (tmp_path / "executed").exists()


def test_missing_truncated_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        load_checkpoint(tmp_path / "c.pt")
    torch.save({"state_dict": {}}, tmp_path / "c.pt")
    with pytest.raises(DataFileError, match="no checkpoint of format 1"):
        load_checkpoint(tmp_path / "c.pt")
    save_checkpoint(tmp_path / "c.pt", {"w": torch.zeros(1000)})
    whole = (tmp_path / "c.pt").read_bytes()
    (tmp_path / "c.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataFileError, match="damaged"):
        load_checkpoint(tmp_path / "c.pt")
    with pytest.raises(DataFileError, match="cannot write"):
        save_checkpoint(tmp_path / "absent" / "c.pt", {})


def test_all_finite_looks_inside() -> None:
    assert all_finite({"a": [torch.ones(2), (torch.tensor([1, 2]), "text", None)]})
    assert not all_finite({"a": [torch.ones(2), (torch.tensor([1.0, float("nan")]),)]})
