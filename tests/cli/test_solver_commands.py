"""``solve``, ``verify``, ``certify`` and ``relax`` on a small problem, against brute force."""

import errno
import itertools
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mipprune.cli import main
from mipprune.errors import DataFileError
from mipprune.problem import ChannelSelection, Solution, SolutionStatus, Termination
from mipprune.relaxation import Relaxation, relax

CHANNELS, KEEP = 6, 3


@pytest.fixture(scope="module")
def problem() -> ChannelSelection:
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(40, 2 * CHANNELS)) @ rng.normal(size=(2 * CHANNELS, 2 * CHANNELS))
    targets = inputs @ rng.normal(size=(2 * CHANNELS, 2))
    n = len(inputs)
    return ChannelSelection(
        inputs.T @ inputs / n,
        inputs.T @ targets / n,
        float((targets**2).sum() / n),
        [2] * CHANNELS,
        ridge=0.1,
        keep=5,
    )


@pytest.fixture
def file(problem: ChannelSelection, tmp_path: Path) -> Path:
    return problem.save(tmp_path / "layer.npz")


@pytest.fixture(scope="module")
def optimum(problem: ChannelSelection) -> tuple[float, list[bool]]:
    masks = [
        [j in kept for j in range(CHANNELS)]
        for kept in itertools.combinations(range(CHANNELS), KEEP)
    ]
    values = [problem.value(np.array(mask)) for mask in masks]
    best = int(np.argmin(values))
    return values[best], masks[best]


def _solve(file: Path, out: Path, *more: str) -> tuple[int, dict[str, Any]]:
    arguments = ["solve", str(file), "--keep", str(KEEP), "--method", "enumerate", "--quiet"]
    code = main([*arguments, "--json", str(out), *more])
    content: dict[str, Any] = json.loads(out.read_text())
    return code, content


def test_solve_finds_the_optimum_of_brute_force(
    file: Path, optimum: tuple[float, list[bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = _solve(file, file.with_name("out.json"))
    assert code == 0
    assert found["mask"] == optimum[1]
    assert found["value"] == pytest.approx(optimum[0], rel=1e-9)
    assert found["bound"] <= optimum[0] * (1 + 1e-9)
    assert found["gap"] <= 1e-6
    assert found["status"] == "optimal"
    assert "versions" in found["provenance"]
    shown = capsys.readouterr().out
    assert " ".join(str(j) for j in np.flatnonzero(optimum[1])) in shown


def test_without_a_bound_json_has_null(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = file.with_name("out.json")
    arguments = ["solve", str(file), "--method", "local-search", "--quiet", "--json", str(out)]
    assert main(arguments) == 0
    found = json.loads(out.read_text())
    assert found["bound"] is None
    assert found["gap"] is None
    assert "unknown" in capsys.readouterr().out


def test_certificates_go_round(
    file: Path, optimum: tuple[float, list[bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    certificate = str(file.with_name("cert.npz"))
    out = file.with_name("out.json")
    _solve(file, out, "--certificate", certificate)
    keep = ["--keep", str(KEEP)]
    assert main(["verify", certificate, "--problem", str(file), *keep]) == 0
    assert "proved" in capsys.readouterr().out
    assert main(["verify", certificate, "--problem", str(file)]) == 1
    assert "made for another problem" in capsys.readouterr().out
    assert main(["certify", str(file), str(out), *keep, "--certificate", certificate]) == 0
    line = capsys.readouterr().out
    assert f"error {optimum[0]:.4g}"[:10] in line
    assert main(["verify", certificate, "--problem", str(file), *keep]) == 0


def test_relax_is_below_the_optimum(file: Path, optimum: tuple[float, list[bool]]) -> None:
    out, certificate = file.with_name("out.json"), file.with_name("cert.npz")
    arguments = ["relax", str(file), "--keep", str(KEEP), "--kind", "perspective"]
    assert main([*arguments, "--json", str(out), "--certificate", str(certificate)]) == 0
    found = json.loads(out.read_text())
    assert 0 < found["bound"] <= optimum[0]
    assert len(found["gates"]) == CHANNELS
    assert main(["verify", str(certificate), "--problem", str(file), "--keep", str(KEEP)]) == 0


def test_relax_writes_proofs_that_the_checker_has_seen(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, out = file.with_name("cert.npz"), file.with_name("out.json")
    arguments = ["relax", str(file), "--kind", "blocks", "--block-size", "2", "--json", str(out)]

    def boastful(*given: Any, **settings: Any) -> Relaxation:
        found = relax(*given, **settings)
        return replace(found, certificate=replace(found.certificate, bound=1.01 * found.bound))

    monkeypatch.setattr("mipprune.relaxation.relax", boastful)
    assert main([*arguments, "--certificate", str(certificate)]) == 0
    assert "proof      bound" in capsys.readouterr().out
    assert main(["verify", str(certificate), "--problem", str(file)]) == 0
    found = json.loads(out.read_text())
    assert 0 < found["certified_bound"] < 1.01 * found["bound"]


@pytest.mark.parametrize("kind", ["npy", "list", "result"])
def test_masks_of_every_form(file: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    mask = [True, False, True, True, False, False]
    source = file.with_name("mask.npy" if kind == "npy" else "mask.json")
    if kind == "npy":
        np.save(source, np.array(mask))
    else:
        content = [int(x) for x in mask] if kind == "list" else {"mask": mask}
        source.write_text(json.dumps(content))
    assert main(["certify", str(file), str(source)]) == 0
    assert "gap" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["solve", "none.npz"], "none.npz: no such file"),
        (["solve", "text.npz"], "not an npz file"),
        (["solve", "layer.npz", "--method", "enumerate", "--option", "foo=1"], "no option 'foo'"),
        (["solve", "layer.npz", "--option", "foo=1"], "give --method too"),
        (["solve", "layer.npz", "--start", "none.npy"], "there is no mask file"),
        (["certify", "layer.npz", "text.npz"], "holds no mask"),
        (["certify", "layer.npz", "full.json"], "breaks limits of channels"),
        (["certify", "layer.npz", "short.json"], "shape"),
        (["verify", "none.npz", "--problem", "layer.npz"], "there is no file"),
        (["verify", "text.npz", "--problem", "layer.npz"], "text.npz is not an npz file"),
        (["verify", "layer.npz", "--problem", "layer.npz"], "is no certificate file"),
        (["relax", "layer.npz", "--keep", "3", "--kind", "big-m"], "big"),
        (["relax", "layer.npz", "--block-size", "2"], "give --kind blocks too"),
        (["relax", "layer.npz", "--kind", "blocks", "--block-size", "7"], "1 to 6, got 7"),
    ],
)
def test_wrong_files_and_options(
    file: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(file.parent)
    Path("text.npz").write_text("no problem")
    Path("full.json").write_text(json.dumps([1] * CHANNELS))
    Path("short.json").write_text("[1]")
    assert main(arguments) == 2
    text = capsys.readouterr().err
    assert message in text
    assert text.count("\n") == 1


def test_a_certificate_that_was_changed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificate = file.with_name("cert.npz")
    main(["relax", str(file), "--kind", "perspective", "--certificate", str(certificate)])
    with np.load(certificate) as archive:
        content = {name: archive[name] for name in archive.files}
    content["bound"] = content["bound"] * 1.01
    np.savez(certificate, allow_pickle=False, **content)
    capsys.readouterr()
    assert main(["verify", str(certificate), "--problem", str(file)]) == 1
    shown = capsys.readouterr().out
    assert "REFUSED" in shown
    assert "claims" in shown


def test_a_problem_file_of_four_arrays_can_be_verified(
    problem: ChannelSelection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short, certificate = tmp_path / "short.npz", tmp_path / "cert.npz"
    term = problem.terms[0]
    np.savez(
        short,
        gram=term.damped_gram,
        cross=term.cross,
        energy=np.asarray(term.energy),
        group_sizes=term.group_sizes,
    )
    assert main(["relax", str(short), "--kind", "gl", "--certificate", str(certificate)]) == 0
    assert main(["verify", str(certificate), "--problem", str(short)]) == 0
    capsys.readouterr()
    assert main(["verify", str(short), "--problem", str(certificate)]) == 2
    assert "it is a problem file, which comes second" in capsys.readouterr().err


def test_ctrl_c_writes_what_is_known_and_exits_130(
    file: Path, problem: ChannelSelection, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.array([True] * 5 + [False])

    def interrupted(*_: Any, **__: Any) -> Solution:
        return Solution.of_mask(
            problem,
            mask,
            bound=0.0,
            status=SolutionStatus.FEASIBLE,
            termination=Termination.INTERRUPTED,
            solver="test",
            version="0",
        )

    monkeypatch.setattr(sys.modules["mipprune.solvers"], "solve", interrupted)
    code, found = _solve(file, file.with_name("out.json"))
    assert code == 130
    assert found["mask"] == mask.tolist()
    assert found["termination"] == "interrupted"


def test_full_disk(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    out = file.with_name("out.json")
    assert main(["solve", str(file), "--method", "enumerate", "--json", str(out)]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert sorted(path.name for path in file.parent.iterdir()) == ["layer.npz"]
    assert issubclass(DataFileError, OSError)
