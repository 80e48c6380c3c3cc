"""The benchmark of the relaxations runs, tiny, goes on where it stopped, and is drawn."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from mipprune.problem import ChannelSelection
from tests.relaxation.test_ascent import correlated

ROOT = Path(__file__).resolve().parents[2]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", [module.__name__, *map(str, words)])
    module.main()


def test_ladder_table_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench, figures = script("relaxations"), script("relaxation_figures")
    layer, out = correlated(6, 3).save(tmp_path / "layer.npz"), tmp_path / "ladder.json"
    run(bench, monkeypatch, "ladder", "--tiny", "--out", out, layer)
    rows = json.loads(out.read_text())["rows"]
    assert [(r["kind"], r["split"]) for r in rows] == [k[:2] for k in bench.KINDS]
    assert all(r["bound"] <= r["best"] * (1 + 1e-9) for r in rows)
    assert {r["problem"] for r in rows} == {
        ChannelSelection.load(layer).with_damping(0.01).with_keep(3).content_hash
    }
    assert rows[0]["proven"]
    # The last bound is lost: a second run makes it again and nothing else.
    out.write_text(json.dumps({"rows": rows[:-1]}))
    run(bench, monkeypatch, "ladder", "--tiny", "--out", out, layer)
    again = json.loads(out.read_text())["rows"]
    assert again[:-1] == rows[:-1]
    assert again[-1]["bound"] == pytest.approx(rows[-1]["bound"], rel=1e-9)
    capsys.readouterr()
    run(bench, monkeypatch, "table", "--out", out)
    assert "| layer, 6, 3, 0.01 |" in capsys.readouterr().out
    run(figures, monkeypatch, "ladder", "--results", out, "--out", tmp_path / "ladder.svg")
    curve = ("curve", "--tiny", "--results", tmp_path / "curve.json")
    run(figures, monkeypatch, *curve, "--out", tmp_path / "curve.svg", layer)
    for name in ("ladder.svg", "curve.svg"):
        assert (tmp_path / name).read_text().rstrip().endswith("</svg>")
    points = json.loads((tmp_path / "curve.json").read_text())["rows"]
    best = {r["keep"]: r["value"] for r in points if r["value"] is not None}
    assert all(r["bound"] <= best[r["keep"]] * (1 + 1e-9) for r in points)
