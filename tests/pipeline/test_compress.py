"""Compression without training: budgets, agreement, resuming, refusals."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mipprune.calibration import calibrate
from mipprune.errors import BudgetError, DataFileError, InputError, WorkerError
from mipprune.graph import (
    Budgets,
    channel_groups,
    count_macs,
    count_parameters,
    random_masks,
    remove,
)
from mipprune.models import build_model
from mipprune.pipeline import (
    CompressOptions,
    LatencyTable,
    compress,
    measure_agreement,
    measure_layer_latency,
)
from mipprune.pipeline import _curves as curves_module
from mipprune.pipeline._curves import FamilyCurve, measure_curves
from mipprune.pipeline._family_solve import solve_family
from mipprune.problem import Solution

OPTIONS = CompressOptions(time_limit=2.0, most_widths=6)


def small_network() -> nn.Module:
    """A convolutional network with random but fixed weights and norm statistics."""
    generator = torch.Generator().manual_seed(0)
    network = build_model(
        "resnet20", in_channels=1, image_size=8, base_width=4, generator=generator
    )
    for m in network.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.weight.data.uniform_(0.5, 1.5, generator=generator)
            m.bias.data.uniform_(-0.3, 0.3, generator=generator)
    return network.eval()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return small_network()


@pytest.fixture(scope="module")
def data() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(32, 1, 8, 8, generator=generator) for _ in range(3)]


def test_meets_the_budgets_and_beats_random_masks(
    network: nn.Module, data: list[torch.Tensor]
) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    budgets = Budgets(macs="60%", params="70%")
    result = compress(network, data, budgets, options=OPTIONS)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), "the original network changed"
    assert result.budgets.met
    kept = result.groups.kept(result.masks)
    assert count_macs(result.model, (data[0],)) == result.groups.macs(kept)
    assert count_parameters(result.model) == result.groups.parameters(kept)
    assert result.widths.error_bound <= result.widths.value
    assert "program" in result.tried
    for family in result.families:
        assert family.bound <= family.value * (1 + 1e-9)
        assert family.after == int(result.masks[family.name].sum())
    generator = np.random.default_rng(0)
    for _ in range(3):
        masks = random_masks(result.groups, generator)
        random = remove(network, result.groups, masks)
        error = measure_agreement(random, network, data).relative_error
        assert result.agreement.relative_error < error


def test_whole_budget_changes_nothing(data: list[torch.Tensor]) -> None:
    """Without a time limit: how fast the machine is does not matter."""
    generator = torch.Generator().manual_seed(2)
    small = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(5 * 36, 3),
    ).eval()  # fmt: skip
    with torch.no_grad():
        for tensor in small.parameters():
            values = torch.randn(tensor.shape, generator=generator)
            # Positive scales and biases: a channel that never fires would rightly go.
            tensor.copy_(0.3 * values if tensor.dim() > 1 else 1.0 + values.abs())
    options = CompressOptions(time_limit=None, most_widths=3, damping=0.0)
    result = compress(small, data, {"macs": "100%"}, options=options)
    assert len(result.masks) == 2
    assert all(mask.all() for mask in result.masks.values())
    assert result.agreement.relative_error < 1e-9


def test_a_killed_run_goes_on_where_it_was(
    network: nn.Module, data: list[torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    solved: list[int] = []
    place = "mipprune.pipeline._compress.solve_family"

    def stop_after_three(*arguments: Any) -> Solution:
        if len(solved) == 3:
            raise KeyboardInterrupt
        solved.append(1)
        return solve_family(*arguments)

    monkeypatch.setattr(place, stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        compress(network, data, {"macs": "60%"}, options=OPTIONS, out=out)
    monkeypatch.setattr(place, solve_family)
    with pytest.raises(InputError, match="resume"):
        compress(network, data, {"macs": "60%"}, options=OPTIONS, out=out)
    with pytest.raises(InputError, match="budgets"):
        compress(network, data, {"macs": "50%"}, options=OPTIONS, out=out, resume=True)
    assert (out / "widths.json").is_file()
    kept = sorted(path.name for path in out.glob("family_*.npz"))
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.npz")}
    assert len(kept) == 3
    result = compress(network, data, {"macs": "60%"}, options=OPTIONS, out=out, resume=True)
    assert result.budgets.met
    assert all((out / name).stat().st_mtime_ns == at for name, at in times.items())


def test_damaged_step_is_named(
    network: nn.Module, data: list[torch.Tensor], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    options = CompressOptions(time_limit=1.0, most_widths=3)
    compress(network, data, {"macs": "60%"}, options=options, out=out)
    (out / "curves.npz").write_bytes(b"not an archive")
    with pytest.raises(DataFileError, match=r"curves\.npz is damaged"):
        compress(network, data, {"macs": "60%"}, options=options, out=out, resume=True)
    (out / "curves.npz").unlink()
    (out / "widths.json").write_text("{}")
    with pytest.raises(DataFileError, match=r"widths\.json is damaged"):
        compress(network, data, {"macs": "60%"}, options=options, out=out, resume=True)


def test_bad_input_is_named(network: nn.Module, data: list[torch.Tensor]) -> None:
    with pytest.raises(InputError, match="read only once"):
        compress(network, iter(data), {"macs": "50%"})
    with pytest.raises(InputError, match="at least one batch"):
        compress(network, [], {"macs": "50%"})
    with pytest.raises(BudgetError, match="cannot be reached"):
        compress(network, data, {"macs": "0.1%"})
    bad = [*data[:2], torch.full((4, 1, 8, 8), float("nan"))]
    with pytest.raises(InputError, match="NaN"):
        compress(network, bad, {"macs": "50%"}, options=OPTIONS)
    with pytest.raises(InputError, match="batch 1"):
        compress(network, [data[0], torch.zeros(4, 3, 8, 8)], {"macs": "50%"}, options=OPTIONS)
    wrong = [*data, data[0], torch.zeros(4, 3, 8, 8)]
    with pytest.raises(InputError, match="batch 4"):
        compress(network, wrong, {"macs": "50%"}, options=OPTIONS)
    frozen = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(InputError, match="no channel"):
        compress(frozen, data, {"macs": "50%"})
    with pytest.raises(InputError, match="weighting"):
        CompressOptions(weighting="best")


def test_curves_have_valid_bounds(network: nn.Module, data: list[torch.Tensor]) -> None:
    """The bound at each width stays below the best of many random masks."""
    # One factor for a whole curve; tests/pipeline/test_weighting.py has those that vary.
    options = replace(OPTIONS, weighting="relative")
    result = compress(network, data, {"macs": "60%"}, options=options)
    statistics = calibrate(network, data, result.groups)
    generator = np.random.default_rng(0)
    for found in result.curves[:3]:
        problem = statistics[found.curve.family].problem(
            damping=OPTIONS.damping, shrink_to="trained"
        )
        scale = found.curve.values[0] / problem.value(found.masks[0])
        for count, bound in zip(found.curve.counts, found.curve.bounds, strict=True):
            for _ in range(30):
                mask = np.zeros(problem.n_channels, dtype=bool)
                mask[generator.permutation(problem.n_channels)[:count]] = True
                assert bound <= scale * problem.value(mask) * (1 + 1e-9)


def test_latency_budget(network: nn.Module, data: list[torch.Tensor], tmp_path: Path) -> None:
    table = measure_layer_latency(network, data[0], repeats=2)
    table.save(tmp_path / "table.json")
    table = LatencyTable.load(tmp_path / "table.json")
    groups = compress(network, data, {"macs": "100%"}, options=OPTIONS).groups
    terms = table.terms(groups)
    result = compress(network, data, {"latency": "95%"}, options=OPTIONS, latency_terms=terms)
    assert result.budgets.met
    (row,) = result.budgets.rows
    assert row[0] == "latency"
    missing = LatencyTable(1, 1, "cpu", {}, {})
    with pytest.raises(InputError, match="misses"):
        missing.terms(groups)
    (tmp_path / "table.json").write_text("{}")
    with pytest.raises(DataFileError, match="latency table"):
        LatencyTable.load(tmp_path / "table.json")


class Deadly(str):
    """A name that ends the process that receives it."""

    __slots__ = ()

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (1,)


def test_a_dead_worker_is_named_and_finished_curves_stay(
    network: nn.Module, data: list[torch.Tensor]
) -> None:
    pytest.importorskip("joblib")
    groups = channel_groups(network, data[0][:2])
    families = list(calibrate(network, data, groups).values())[:3]
    last = families[-1]
    deadly = replace(last, family=replace(last.family, name=Deadly(last.family.name)))
    finished: list[FamilyCurve] = []
    measure = partial(
        measure_curves,
        groups,
        damping=0.01,
        shrink_to="trained",
        multiple_of=1,
        most=3,
        time_limit=0.1,
        log=False,
    )
    kept = measure(families[:2], jobs=1)
    stored = {curve.curve.family: curve for curve in kept}
    with pytest.raises(WorkerError, match=r"died .* run again with resume"):
        measure([*families[:2], deadly], jobs=2, kept=stored.get, found=finished.append)
    assert finished == []  # the others were there already, the deadly one never came
    again = measure(families, jobs=1, kept=stored.get, found=finished.append)
    assert [curve.curve.family for curve in finished] == [last.family.name]
    assert again[:2] == kept


def test_curves_interrupted_half_way_are_not_measured_twice(
    network: nn.Module, data: list[torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, measured = tmp_path / "run", 0
    original = curves_module._measure

    def stop_after_three(*arguments: Any) -> FamilyCurve:
        nonlocal measured
        measured += 1
        if measured == 4:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(curves_module, "_measure", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        compress(network, data, {"macs": "60%"}, options=OPTIONS, out=out)
    assert len(list(out.glob("curve_*.npz"))) == 3
    result = compress(network, data, {"macs": "60%"}, options=OPTIONS, out=out, resume=True)
    assert measured == 4 + len(result.curves) - 3
    assert result.budgets.met


def test_conflicting_budgets(network: nn.Module, data: list[torch.Tensor]) -> None:
    """A number of MACs that needs more channels than the other budget allows is no conflict; the
    least of one resource with a limit below its reach is, whatever the other says."""
    with pytest.raises(BudgetError, match="params"):
        compress(network, data, {"macs": "90%", "params": "0.5%"}, options=OPTIONS)
    with pytest.raises(BudgetError, match="cannot be reached"):
        compress(network, data, {"macs": "50%", "multiple_of": 64}, options=OPTIONS)


def test_dask_measures_the_same_curves(network: nn.Module, data: list[torch.Tensor]) -> None:
    """A local cluster of threads behind joblib gives what one process gives."""
    joblib: Any = pytest.importorskip("joblib")
    distributed: Any = pytest.importorskip("distributed")
    groups = channel_groups(network, data[0][:2])
    families = list(calibrate(network, data, groups).values())[:3]
    measure = partial(
        measure_curves,
        groups,
        families,
        damping=0.01,
        shrink_to="trained",
        multiple_of=1,
        most=3,
        log=False,
    )
    alone = measure(jobs=1, time_limit=None)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        together = measure(jobs=2, time_limit=None)
    for a, b in zip(alone, together, strict=True):
        assert a.curve.family == b.curve.family
        np.testing.assert_array_equal(a.masks, b.masks)
        np.testing.assert_allclose(a.curve.values, b.curve.values, rtol=1e-9)
