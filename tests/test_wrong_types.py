"""Every public function refuses wrong types with an error of ours, argument by argument.

A value may be fine for one argument (None where it is optional, a tensor where numbers are
wanted); what may not happen is an error that Python or a package below us raises.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mipprune
import mipprune.report
from mipprune import (
    calibration,
    certificate,
    graph,
    models,
    perspective,
    pipeline,
    relaxation,
    solvers,
    training,
)
from mipprune.errors import MippruneError
from mipprune.solvers.branch_and_bound import branch_and_bound
from mipprune.solvers.enumeration import enumerate_masks
from mipprune.solvers.local_search import search_locally

WRONG: Mapping[str, Any] = {
    "None": None,
    "text": "3",
    "empty text": "",
    "list of texts": ["a"],
    "mapping": {"a": 1},
    "nan": float("nan"),
    "negative": -1.5,
    "complex": 1 + 2j,
    "object": object(),
    "matrix": np.zeros((2, 3)),
    "objects": np.array([None, 1], dtype=object),
    "tensor": torch.zeros(2),
    "class": int,
    "huge": 10**400,
}
# A size that is merely too large; a function of the caller's that fails when it is called.
FINE = {("build_model", "huge"), ("load_model", "huge"), ("callback", "class")}
FINE |= {("incumbent", "class"), ("forward", "class"), ("criterion", "class")}
# Without their types: wrong ones are the subject here.
LIBRARY: Any = mipprune
TRAINING: Any = training
Call = tuple[Callable[..., Any], dict[str, Any]]


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def _layer(folder: Path) -> dict[str, Call]:
    problem = mipprune.ChannelSelection(
        np.eye(3), [[1.0], [0.5], [0.1]], 1.3, [1, 1, 1], ridge=0.1, keep=2
    )
    problem.save(folder / "layer.npz")
    proof = mipprune.certify(problem, [True, True, False])
    proof.save(folder / "proof.npz")
    limits = {"tol": 1e-4, "time_limit": 5.0}
    data = {"gram": np.eye(2), "cross": np.ones((2, 1)), "energy": 2.0, "group_sizes": [1, 1]}
    fields = {"ridge": 0.1, "keep": 1, "prices": 0.0, "big_m": 5.0, "variant": "refit"}
    fields |= {"costs": [1, 2], "budgets": 3, "forced_in": None, "parts": ()}
    return {
        "solve": (
            mipprune.solve,
            {
                "problem": problem,
                "method": "enumerate",
                "time_limit": None,
                "gap": 1e-6,
                "start": None,
                "seed": 0,
                "callback": None,
                "log": False,
                "certificate": False,
            },
        ),
        "relax": (
            mipprune.relax,
            {"problem": problem, "kind": "perspective", "split": "ridge", **limits, "start": None,
             "device": "cpu"},
        ),
        "certify": (
            mipprune.certify, {"problem": problem, "mask": [1, 1, 0], "kind": "perspective",
                               **limits}
        ),
        "path": (
            mipprune.path,
            {"problem": problem, "keeps": [1], "incumbent": None, "split": "ridge", **limits},
        ),
        "spr_parameters": (relaxation.spr_parameters, {"problem": problem, "relaxation": None}),
        "verify": (
            mipprune.verify,
            {"certificate_path": folder / "proof.npz", "problem_path": folder / "layer.npz"},
        ),
        "ChannelSelection": (mipprune.ChannelSelection, {**data, **fields}),
        "Term": (mipprune.Term.create, {**data, "ridge": 0.1, "big_m": 1.0, "dense": None}),
        "from_terms": (
            mipprune.ChannelSelection.from_terms,
            {"terms": problem.terms, "resources": (), "prices": 0.0, "variant": "refit"},
        ),
        "with_keep": (problem.with_keep, {"keep": 1}),
        "with_damping": (problem.with_damping, {"damping": 0.1}),
        "value": (problem.value, {"mask": [1, 1, 0]}),
        "load": (mipprune.ChannelSelection.load, {"path": folder / "layer.npz"}),
        "Certificate.load": (certificate.Certificate.load, {"path": folder / "proof.npz"}),
        "with_mask": (proof.with_mask, {"problem": problem, "mask": [1, 1, 0]}),
    }  # fmt: skip


def _networks(folder: Path) -> dict[str, Call]:
    model, inputs = _network(), torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    groups = mipprune.channel_groups(model, (inputs,))
    masks = {groups.families[0].name: np.array([1, 1, 1, 0, 0, 1], dtype=bool)}
    smaller = mipprune.remove(model, groups, masks)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    whole = {"model": model, "groups": groups, "masks": masks}
    torch.save(smaller.state_dict(), folder / "w.pt")
    budgets = mipprune.Budgets(macs="60%")
    return {
        "channel_groups": (
            mipprune.channel_groups,
            {"model": model, "example_inputs": (inputs,), "example_kwargs": None, "ignore": (),
             "rules": None, "prune_normalised": False, "rehearsal": False},
        ),
        "count_macs": (
            mipprune.count_macs,
            {"model": model, "example_inputs": (inputs,), "example_kwargs": None},
        ),
        "count_parameters": (mipprune.count_parameters, {"model": model}),
        "remove": (mipprune.remove, {**whole, "verify": False}),
        "mask_model": (graph.mask_model, whole),
        "verify_removal": (graph.verify_removal, {**whole, "smaller": smaller, "generator": None}),
        "carry_optimizer": (
            mipprune.carry_optimizer, {**whole, "smaller": smaller, "optimizer": optimizer}
        ),
        "spec": (mipprune.spec, {"model": smaller}),
        "restore": (
            mipprune.restore,
            {"fresh_model": model, "specification": mipprune.spec(smaller),
             "state": folder / "w.pt"},
        ),
        "Budgets": (
            mipprune.Budgets, {"macs": "50%", "params": None, "latency": None, "multiple_of": 1}
        ),
        "Budgets.parse": (mipprune.Budgets.parse, {"given": {"macs": "50%"}}),
        "resolve": (budgets.resolve, {"groups": groups, "latency_terms": ()}),
        "round_by_score": (
            graph.round_by_score,
            {"groups": groups, "scores": np.arange(6.0), "budgets": budgets},
        ),
        "random_masks": (
            graph.random_masks,
            {"groups": groups, "generator": np.random.default_rng(0), "keep": 0.5},
        ),
        "calibrate": (
            calibration.calibrate,
            {"model": model, "batches": [inputs], "groups": groups, "reference": None,
             "families": None, "patches": None, "generator": None, "forward": None, "log": False},
        ),
    }  # fmt: skip


def _settings(folder: Path) -> dict[str, Call]:
    run = {"data": "digits", "model": "lenet5"}
    tables: dict[str, Any] = {"training": {}, "data_options": {}, "model_options": {}}
    return {
        "PruneConfig": (
            mipprune.PruneConfig,
            {**run, **tables, "method": "spr", "macs": "50%", "multiple_of": 1, "epochs": 1,
             "rounding": "budget", "rounding_seconds": 1.0, "seed": 0, "weights": None,
             "device": "cpu"},
        ),
        "CompareConfig": (
            mipprune.CompareConfig,
            {**run, **tables, "methods": ["spr"], "budgets": ["50%"], "seeds": [0],
             "resource": "macs", "roundings": ["own"], "samples": 1, "rounding_seconds": 1.0,
             "limit": {}},
        ),
        "CompressOptions": (
            mipprune.CompressOptions,
            {"damping": 0.1, "weighting": "output", "most_widths": 4, "time_limit": None,
             "gap": 0.1, "recalibrate": True, "patches": None, "jobs": 1, "seed": 0},
        ),
        "TrainConfig": (
            training.TrainConfig,
            {"epochs": 1, "batch_size": 2, "lr": 0.1, "optimizer": "sgd", "momentum": 0.9,
             "nesterov": False, "milestones": (0.5,), "clip_norm": None, "precision": "float32",
             "seed": 0},
        ),
        "SPR": (
            training.SPR,
            {"alpha": 0.1, "strength": 1.0, "big_m": 1.0, "momentum": 0.9, "proximal": False},
        ),
        "prune": (mipprune.prune, {"config": None, "out": folder / "a", "resume": False}),
        "compare": (
            mipprune.compare,
            {"config": None, "out": folder / "b", "jobs": 1, "time_limit": None},
        ),
        "compress": (
            mipprune.compress,
            {"model": None, "batches": [], "budgets": {"macs": "50%"}, "options": None,
             "latency_terms": (), "out": None, "resume": False, "groups": None, "forward": None,
             "log": False},
        ),
        "load_config": (pipeline.load_config, {"path": folder / "none"}),
        "load_pruned": (pipeline.load_pruned, {"folder": folder / "none"}),
        "build_model": (
            models.build_model,
            {"name": "mlp", "in_channels": 1, "num_classes": 2, "image_size": 4},
        ),
        "load_model": (models.load_model, {"name": "mlp", "weights": None, "image_size": 4}),
        "load_data": (models.load_data, {"name": "none", "root": None, "split_seed": 0}),
        "load_factory": (models.load_factory, {"spec": "none:none"}),
        "check_labels": (
            models.check_labels, {"labels": torch.zeros(2).long(), "n_classes": 2, "where": "x"}
        ),
    }  # fmt: skip


def _inner(folder: Path) -> dict[str, Call]:
    """Entries behind the first row: what people call who build their own loops and studies."""
    problem = mipprune.ChannelSelection(
        np.eye(3), [[1.0], [0.5], [0.1]], 1.3, [1, 1, 1], ridge=0.1, keep=2
    )
    limits = {"time_limit": None, "gap": 1e-6, "seed": 0, "callback": None, "log": False}
    model, inputs = _network(), torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    groups = mipprune.channel_groups(model, (inputs,))
    family = next(iter(calibration.calibrate(model, [inputs], groups).values()))
    report = mipprune.report.PruneReport(title="a", settings={}, stages=(), sizes=())
    batch = (torch.zeros(2, 64), torch.zeros(2).long())
    data = SimpleNamespace(train=[batch], validation=[batch], test=[batch])
    reader = nn.Linear(64, 10)
    w = torch.ones(2, 3)
    term = {"w": w, "alpha": 0.5, "big_m": 1.0}
    return {
        "enumerate_masks": (enumerate_masks, {"problem": problem, "start": None, **limits}),
        "branch_and_bound": (branch_and_bound, {"problem": problem, "start": None, **limits}),
        "search_locally": (search_locally, {"problem": problem, "start": None, **limits}),
        "methods_for": (solvers.methods_for, {"problem": problem}),
        "features": (solvers.features, {"method": "conic"}),
        "family.problem": (
            family.problem,
            {"damping": 0.1, "weights": None, "keep": 2, "resources": (), "prices": 0.0,
             "variant": "refit", "forced_in": None, "forced_out": None, "shrink_to": "zero"},
        ),
        "apply_weights": (
            mipprune.apply_weights,
            {"model": model, "family": family, "weights": [term.cross for term in family.terms]},
        ),
        "measure_big_m": (
            training.measure_big_m,
            {"reference": model, "groups": groups, "scale": 1.0, "floor": 0.1},
        ),
        "evaluate": (
            training.evaluate,
            {"model": reader, "data": data, "split": "test", "batch_size": 512,
             "precision": "float32", "channels_last": False, "device": "cpu", "forward": None,
             "criterion": None},
        ),
        "train": (
            training.train,
            {"model": reader, "data": data, "config": training.TrainConfig(epochs=1),
             "method": None, "out": None, "resume": False, "specification": None,
             "forward": None, "criterion": None, "progress": False},
        ),
        "render_text": (mipprune.report.render_text, {"report": report}),
        "render_markdown": (mipprune.report.render_markdown, {"report": report}),
        "render_html": (mipprune.report.render_html, {"report": report}),
        "write_report": (mipprune.report.write_report, {"report": report, "folder": folder}),
        "load_report": (mipprune.report.load_report, {"path": folder / "none.json"}),
        "value": (perspective.value, term),
        "indicator": (perspective.indicator, term),
        "case": (perspective.case, term),
        "prox": (perspective.prox, {"v": w, "alpha": 0.5, "big_m": 1.0, "step": 0.1}),
        "conjugate": (perspective.conjugate, {"v": w, "alpha": 0.5, "big_m": 1.0}),
        "BudgetedSPR": (
            training.BudgetedSPR,
            {"budget": mipprune.Budgets(macs="50%"), "total_steps": 10, "start": 0.1, "end": 0.6,
             "rate": 1.0, "largest": 1.0, "select_every": 1, "big_m": 1.0, "alpha": 0.1},
        ),
    }  # fmt: skip


def _methods(_: Path) -> dict[str, Call]:
    """Every training method with every option that is a plain value."""
    needed = {"reference": _network(), "total_steps": 10}
    calls: dict[str, Call] = {}
    for name in training.method_names():
        kind = training.method_class(name)
        options = inspect.signature(kind).parameters
        plain = {
            option: parameter.default
            for option, parameter in options.items()
            if isinstance(parameter.default, int | float | str | tuple)
        }
        calls[name] = (kind, plain | {k: v for k, v in needed.items() if k in options})
    return calls


ROOMS = [_layer, _networks, _settings, _inner, _methods]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_wrong_types(
    room: Callable[[Path], dict[str, Call]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a text may name a folder, here
    found = []
    for name, (function, arguments) in room(tmp_path).items():
        for argument in arguments:
            for kind, value in WRONG.items():
                if (argument, kind) in FINE or (name, kind) in FINE:
                    continue
                try:
                    function(**{**arguments, argument: value})
                except MippruneError:
                    continue
                except Exception as error:  # the test's subject is any other error
                    where = f"{name}({argument}={kind})"
                    found.append(f"{where}: {type(error).__name__}: {error}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: LIBRARY.solve(p, time_limit="3"), "expected seconds > 0 or None, got the text"),
        (lambda p: LIBRARY.solve(p, gap="x"), "gap: expected a finite number >= 0, got the text"),
        (lambda p: LIBRARY.solve(p, thread=1), "no option 'thread'; .* did you mean threads?"),
        (lambda p: LIBRARY.relax("layer.npz"), r"got the text .*ChannelSelection.load\(path\)"),
        (lambda p: LIBRARY.relax(p, device="cuda:77"), "device: 'cuda:77' cannot be used here"),
        (lambda p: LIBRARY.remove(_network(), None, {}), "find them with channel_groups"),
        (lambda p: LIBRARY.compress(_network(), [torch.zeros(1, 4)], "50%"), "such as {'macs'"),
        (lambda p: TRAINING.SPR(alpha="x", big_m=1.0), "alpha must be a number, got the text 'x'"),
        (lambda p: TRAINING.TrainConfig(epochs=1, lr="abc"), "lr must be a number"),
        (lambda p: LIBRARY.Budgets(macs=0), "must be positive and finite; write '40%'"),
        (
            lambda p: LIBRARY.CompareConfig(
                data="digits", model="lenet5", methods=["zz"], budgets=["50%"]
            ),
            "unknown method 'zz'",
        ),
    ],
)
def test_messages_say_what_to_do(call: Callable[[Any], Any], message: str) -> None:
    problem = LIBRARY.ChannelSelection(np.eye(2), [[1.0], [0.5]], 1.25, [1, 1], keep=1)
    with pytest.raises(MippruneError, match=message):
        call(problem)
