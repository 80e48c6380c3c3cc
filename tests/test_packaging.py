"""sdist, wheel, editable install and plain checkout all show the same names."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {"mipprune": "mipprune", "mipprune.solvers": "solvers", "mipprune.models": "models"}

LOOK = """
import sys
import mipprune, mipprune.solvers, mipprune.models, mipprune.problem
assert not {"pyomo", "cvxpy"} & set(sys.modules), "import mipprune is not light"
for name in mipprune.__all__:
    getattr(mipprune, name)
assert not {"solvers", "models"} & set(sys.modules), "a generic module name was imported"
print(mipprune.__file__)
print(mipprune.solvers.__file__)
"""


def _settings() -> dict[str, object]:
    with (ROOT / "pyproject.toml").open("rb") as stream:
        settings: dict[str, object] = tomllib.load(stream)["tool"]["setuptools"]
        return settings


def _folders() -> dict[str, str]:
    """Package name -> folder, for every folder that holds an __init__.py."""
    found = {}
    for package, folder in SOURCES.items():
        for init in sorted((ROOT / folder).rglob("__init__.py")):
            relative = init.parent.relative_to(ROOT / folder)
            if folder == "mipprune" and relative.parts[:1] in {("solvers",), ("models",)}:
                continue
            name = ".".join([package, *relative.parts])
            found[name] = (Path(folder) / relative).as_posix()
    return found


def test_every_package_is_listed() -> None:
    folders = _folders()
    settings = _settings()
    assert sorted(settings["packages"]) == sorted(folders)  # type: ignore[call-overload]
    mapping: dict[str, str] = settings["package-dir"]  # type: ignore[assignment]
    assert set(mapping) >= set(SOURCES)
    for package, folder in mapping.items():
        assert folders[package] == folder


@pytest.mark.parametrize("folder", ["solvers", "models"])
def test_links_lead_to_the_folders(folder: str) -> None:
    assert (ROOT / "mipprune" / folder).resolve() == ROOT / folder


def test_plain_checkout_imports(tmp_path: Path) -> None:
    where = _run_look([sys.executable], tmp_path, {"PYTHONPATH": str(ROOT)})
    assert where[0] == str(ROOT / "mipprune" / "__init__.py")


def test_wheel_in_a_fresh_environment(tmp_path: Path) -> None:
    checkout = _copy_of_checkout(tmp_path / "checkout")
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(tmp_path / "dist"), str(checkout)],
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    python = _environment(tmp_path / "env")
    _pip(python, ["--no-deps", str(wheel)])
    where = _run_look([str(python)], tmp_path, {})
    assert all(str(tmp_path / "env") in line for line in where)


def test_editable_install_without_links(tmp_path: Path) -> None:
    """On Windows git writes the links as small text files."""
    checkout = _copy_of_checkout(tmp_path / "checkout")
    for folder in ("solvers", "models"):
        link = checkout / "mipprune" / folder
        link.unlink()
        link.write_text(f"../{folder}")
    python = _environment(tmp_path / "env")
    _pip(python, ["--no-deps", "-e", str(checkout)])
    where = _run_look([str(python)], tmp_path, {})
    assert where[1] == str(checkout / "solvers" / "__init__.py")


def _copy_of_checkout(target: Path) -> Path:
    ignore = shutil.ignore_patterns(".git", ".venv", "runs", "*.egg-info", "build", "__pycache__")
    shutil.copytree(ROOT, target, symlinks=True, ignore=ignore)
    return target


def _environment(folder: Path) -> Path:
    """A fresh environment that sees the test environment's packages behind its own.

    A folder added by a .pth file does not process .pth files of its own, so the
    test environment's (editable) mipprune stays out.
    """
    venv.create(folder, with_pip=True)
    base = {"base": str(folder), "platbase": str(folder)}
    own = Path(sysconfig.get_path("purelib", "venv", vars=base))
    (own / "zz_dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def _pip(python: Path, arguments: list[str]) -> None:
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", *arguments],
        check=True,
        capture_output=True,
    )


def _run_look(python: list[str], folder: Path, environment: dict[str, str]) -> list[str]:
    result = subprocess.run(
        [*python, "-c", LOOK],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()
