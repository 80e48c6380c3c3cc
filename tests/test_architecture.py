"""The rooms and which may import which (docs/architecture.md has the same table)."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import mipprune

ROOT = Path(__file__).resolve().parent.parent

LAYERS = {
    "mipprune.errors": 0,
    "mipprune._support": 0,
    "mipprune.perspective": 1,
    "mipprune.problem": 1,
    "mipprune.graph": 1,
    "mipprune.models": 1,
    "mipprune.calibration": 2,
    "mipprune.certificate": 2,
    "mipprune.formulation": 2,
    "mipprune.relaxation": 3,
    "mipprune.solvers": 4,
    "mipprune.training": 5,
    "mipprune.report": 5,
    "mipprune.pipeline": 6,
    "mipprune.cli": 7,
}
# A room may import another of its own layer only where listed.
SAME_LAYER = {
    ("mipprune._support", "mipprune.errors"),
}
FORBIDDEN = {("mipprune.training", "mipprune.solvers")}


def _sources() -> list[Path]:
    folders = [ROOT / "mipprune", ROOT / "solvers", ROOT / "models"]
    links = {ROOT / "mipprune" / "solvers", ROOT / "mipprune" / "models"}
    return [
        path
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
        if not links & set(path.parents)
    ]


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] != "mipprune":
        parts = ("mipprune", *parts)
    return ".".join(parts).removesuffix(".__init__")


def _room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def _imports(path: Path) -> set[str]:
    """Every module imported anywhere in the file, inside functions and for types too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_upward(path: Path) -> None:
    room = _room(_module(path))
    if room in {"mipprune", "mipprune.__main__"}:
        return  # the package itself re-exports from every room
    assert room in LAYERS, f"{path}: add the room to the table of docs/architecture.md"
    for name in _imports(path):
        other = _room(name)
        if other == room or other not in LAYERS:
            continue
        allowed = LAYERS[other] < LAYERS[room] or (room, other) in SAME_LAYER
        assert allowed, f"{path} (layer {LAYERS[room]}) imports {name} (layer {LAYERS[other]})"
        assert (room, other) not in FORBIDDEN, f"{path} imports {name}"


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("room", ["problem", "certificate"])
def test_rooms_that_need_only_numpy(room: str) -> None:
    for path in sorted((ROOT / "mipprune" / room).rglob("*.py")):
        roots = {name.split(".")[0] for name in _imports(path)}
        assert not roots & {"torch", "scipy", "pyomo", "cvxpy", "highspy", "numba"}, path


def test_no_public_function_is_called_like_a_module() -> None:
    modules = {info.name for info in pkgutil.iter_modules(mipprune.__path__)}
    assert not modules & (set(mipprune.__all__) - {"errors"})


def test_every_public_name_is_documented() -> None:
    for name in mipprune.__all__:
        module = importlib.import_module("mipprune")
        assert (getattr(module, name).__doc__ or "").strip(), name
