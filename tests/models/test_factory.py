"""Anybody's networks: specs and weight files."""

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from mipprune.errors import DataFileError, InputError, MissingExtraError
from mipprune.models import build_model, load_factory, load_model, load_weights, read_state_dict

SOURCE = """
from torch import nn
class Nets:
    @staticmethod
    def make(width=2): return nn.Linear(width, 3)
def network(width=2): return nn.Linear(width, 3)
def nothing(): return 3
number = 3
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "own_nets.py").write_text(SOURCE)
    (tmp_path / "broken_nets.py").write_text("import there_is_no_such_package\n")
    (tmp_path / "unfinished_nets.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield tmp_path
    assert sys.path == before
    for name in ("own_nets", "broken_nets", "unfinished_nets"):
        sys.modules.pop(name, None)


def small(seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    return build_model(
        "mlp", in_channels=1, image_size=2, num_classes=2, hidden=(3,), generator=generator
    )


@pytest.mark.usefixtures("own_module")
def test_a_factory_in_the_current_folder() -> None:
    assert load_factory("own_nets:network")(width=5).in_features == 5
    assert load_factory("own_nets:Nets.make")().in_features == 2


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize(
    ("spec", "fragment"),
    [
        ("own_nets", "expected 'package.module:factory'"),
        ("own_nets:", "expected 'package.module:factory'"),
        (":network", "expected 'package.module:factory'"),
        ("own-nets:network", "expected 'package.module:factory'"),
        ("no_such_nets:network", "cannot import 'no_such_nets'.*No module named"),
        ("broken_nets:network", "cannot import 'broken_nets'.*there_is_no_such_package"),
        ("unfinished_nets:network", "cannot import 'unfinished_nets'.*invalid syntax"),
        ("own_nets:netwrok", "has no 'netwrok'; did you mean network"),
        ("own_nets:number", "is a int, expected a function"),
    ],
)
def test_what_cannot_be_imported_or_called_is_named(spec: str, fragment: str) -> None:
    with pytest.raises(InputError, match=fragment):
        load_factory(spec)


@pytest.mark.usefixtures("own_module")
def test_models_by_name_and_by_factory() -> None:
    own = load_model("own_nets:network", width=4, in_channels=9)
    assert isinstance(own, nn.Linear)
    assert own.in_features == 4
    assert sum(p.numel() for p in load_model("resnet20").parameters()) == 269_722
    with pytest.raises(InputError, match=r"returned a int, expected a torch\.nn\.Module"):
        load_model("own_nets:nothing")


@pytest.mark.parametrize("wrap", [None, "state_dict", "model", "weights"])
def test_weights_are_loaded(tmp_path: Path, wrap: str | None) -> None:
    state = small(1).state_dict()
    torch.save(state if wrap is None else {wrap: state, "epoch": 3}, tmp_path / "w.pt")
    model = load_model(
        "mlp",
        weights=tmp_path / "w.pt",
        in_channels=1,
        image_size=2,
        num_classes=2,
        hidden=(3,),
    )
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])


def test_safetensors(tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    state = small(1).state_dict()
    package.save_file(state, tmp_path / "w.safetensors")
    model = small(2)
    load_weights(model, tmp_path / "w.safetensors")
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    content = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(content[:20])
    with pytest.raises(DataFileError, match="not a whole safetensors file"):
        load_weights(model, tmp_path / "w.safetensors")


def test_missing_safetensors_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    (tmp_path / "w.safetensors").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r"mipprune\[safetensors\]"):
        read_state_dict(tmp_path / "w.safetensors")


def test_weights_that_do_not_fit_are_described(tmp_path: Path) -> None:
    state = small().state_dict()
    del state["fc.bias"]
    state["extra"] = torch.zeros(1)
    state["fc.weight"] = torch.zeros(2, 4)
    torch.save(state, tmp_path / "w.pt")
    model = small(3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        InputError,
        match=r"1 missing \(fc.bias\); 1 not in the network \(extra\); "
        r"1 of another shape \(fc.weight \(2, 4\) instead of \(2, 3\)\)",
    ):
        load_weights(model, tmp_path / "w.pt")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Trap:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_loading_never_executes(tmp_path: Path) -> None:
    torch.save({"w": Trap(tmp_path / "executed")}, tmp_path / "w.pt")
    with pytest.raises(DataFileError, match="more than tensors"):
        read_state_dict(tmp_path / "w.pt")
    assert not (tmp_path / "executed").exists()
    # The trap works: the plain pickle module would run it.
    pickle.loads(pickle.dumps(Trap(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 cut"])
def test_damaged_files_are_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(DataFileError, match=r"w.pt"):
        read_state_dict(tmp_path / "w.pt")


def test_other_content_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="no weight file"):
        read_state_dict(tmp_path / "w.pt")
    torch.save([torch.zeros(2)], tmp_path / "w.pt")
    with pytest.raises(DataFileError, match="does not hold a state dict"):
        read_state_dict(tmp_path / "w.pt")
