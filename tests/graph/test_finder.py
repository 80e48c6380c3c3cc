"""Tied channels of small networks against groups worked out by hand."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from mipprune.errors import InputError, TraceError
from mipprune.graph import FROZEN, channel_groups, random_masks, remove
from mipprune.graph.labeller import Arguments, Labeller
from mipprune.models import build_model


class Tied(nn.Module):
    """Two layers with one weight; the second reads what the first wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.b.weight = self.a.weight
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(F.relu(self.b(F.relu(self.a(F.relu(self.inp(x)))))))
        return out


def conv_chain() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5)
    )


def test_chain_by_hand() -> None:
    groups = channel_groups(conv_chain(), torch.randn(2, 3, 4, 4))
    (family,) = groups.families
    assert (family.name, family.producers, family.consumers) == ("0", ("0",), ("4",))
    axes = {(a.tensor, a.dim): (a.owner.tolist(), a.role) for a in groups.axes}
    one = [0, 1, 2, 3]
    assert axes == {
        ("0.weight", 0): (one, "produce"),
        ("0.bias", 0): (one, "produce"),
        ("1.weight", 0): (one, "carry"),
        ("1.bias", 0): (one, "carry"),
        ("1.running_mean", 0): (one, "carry"),
        ("1.running_var", 0): (one, "carry"),
        ("4.weight", 1): ([j for j in one for _ in range(4)], "consume"),
    }
    sizes = {(s.module, s.attribute) for s in groups.attributes}
    assert sizes == {("0", "out_channels"), ("1", "num_features"), ("4", "in_features")}
    # 4 * 27 + 4 + 8 + 80 + 5 parameters; 4 * 27 * 4 + 80 multiply-accumulates per example.
    assert (groups.parameters(), groups.macs()) == (205, 512)
    kept = np.array([True, False, True, True])
    assert (groups.parameters(kept), groups.macs(kept)) == (155, 384)


def test_ties_are_found_by_storage() -> None:
    groups = channel_groups(Tied(), torch.randn(2, 5))
    assert groups.aliases == {"b.weight": "a.weight"}
    assert len(groups) == 1
    assert groups.parameters() == sum(p.numel() for p in Tied().parameters())


def test_table_names_families_and_reasons() -> None:
    text = str(channel_groups(conv_chain(), torch.randn(2, 3, 4, 4)))
    assert "4 classes in 1 families; 205 parameters, 512 MACs per example" in text
    assert "frozen: an output of the network" in text


def test_model_is_left_untouched() -> None:
    model = conv_chain().train()
    norm = model[1]
    norm.eval()
    before = copy.deepcopy(model.state_dict())
    channel_groups(model, torch.randn(2, 3, 4, 4))
    assert model.training
    assert not norm.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_frozen_bfloat16_model_without_gradients() -> None:
    model = conv_chain().to(torch.bfloat16).requires_grad_(False)
    with torch.no_grad():
        groups = channel_groups(model, torch.randn(2, 3, 4, 4, dtype=torch.bfloat16))
    smaller = remove(model, groups, {"0": np.array([True, True, False, True])})
    assert all(p.dtype == torch.bfloat16 for p in smaller.parameters())
    assert not any(p.requires_grad for p in smaller.parameters())


def test_keyword_and_mapping_inputs() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            out: Tensor = self.b(F.relu(self.a(x)) * scale)
            return out

    x, scale = torch.randn(2, 4), torch.randn(2, 1)
    ways = [
        channel_groups(Net(), {"x": x, "scale": scale}),
        channel_groups(Net(), x, example_kwargs={"scale": scale}),
        channel_groups(Net(), (x, scale)),
    ]
    assert [g.n_classes for g in ways] == [6, 6, 6]


def test_ignore_freezes_and_refuses_unknown_names() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    groups = channel_groups(model, torch.randn(2, 3), ignore=["0"])
    assert [f.name for f in groups] == ["2"]
    assert any(z.reason == "named in ignore" and z.n_channels == 4 for z in groups.frozen)
    with pytest.raises(InputError, match="ignore names 'conv9'"):
        channel_groups(model, torch.randn(2, 3), ignore=["conv9"])


def test_unknown_operator_freezes_with_its_name() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.linalg.qr(self.a(x))[0]
            out: Tensor = self.c(F.relu(self.b(x)))
            return out

    groups = channel_groups(Net(), torch.randn(6, 3))
    assert [f.name for f in groups] == ["b"]
    (reason,) = [z.reason for z in groups.frozen if z.name == "a"]
    assert "linalg_qr" in reason


def test_recurrent_layers_are_frozen_with_the_reason() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inp, self.rnn = nn.Linear(3, 4), nn.LSTM(4, 6, batch_first=True)
            self.mid, self.out = nn.Linear(6, 7), nn.Linear(7, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.rnn(self.inp(x))[0]
            out: Tensor = self.out(F.relu(self.mid(x)))
            return out

    model = Net()
    groups = channel_groups(model, torch.randn(2, 5, 3))
    assert [f.name for f in groups] == ["mid"]
    assert any("lstm" in z.reason for z in groups.frozen if z.name == "inp")
    remove(model, groups, random_masks(groups, np.random.default_rng(0)))


def test_untraceable_network_names_the_operation() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.a(x)
            return out if out.sum() > 0 else -out

    with pytest.raises(TraceError, match="could not be traced") as caught:
        channel_groups(Net(), torch.randn(2, 3))
    assert "`return out if out.sum() > 0 else -out`" in str(caught.value)
    assert "torch.where" in str(caught.value)


def test_exporter_output_goes_into_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            print("a page of output")
            return x[int(x.sum().item())]

    with pytest.raises(TraceError, match="a page of output"):
        channel_groups(Net(), torch.randn(2, 3))
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize(
    ("inputs", "message"), [(3, "example_inputs is a int"), ((), "no tensor"), ({}, "no tensor")]
)
def test_bad_inputs(inputs: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        channel_groups(conv_chain(), inputs)


def test_wrong_input_shape_is_a_trace_error() -> None:
    with pytest.raises(TraceError):
        channel_groups(conv_chain(), torch.randn(2, 4, 4, 4))


def test_owner_of_kept_input_channels_is_frozen() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    groups = channel_groups(model, torch.randn(1, 3, 2, 2))
    assert all((a.owner != FROZEN).all() for a in groups.axes)
    assert ("0.weight", 1) not in {(a.tensor, a.dim) for a in groups.axes}


def test_numbers_that_only_look_like_sizes_are_left_alone() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.patience, self.depth = 4, 4, 4
            self.q, self.k, self.v, self.o = (nn.Linear(12, 12) for _ in range(4))

        def cut(self, x: Tensor) -> Tensor:
            return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.cut(self.q(x)), self.cut(self.k(x)), self.cut(self.v(x))
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            out: Tensor = self.o(y)
            return out

    model: Any = Net()
    groups = channel_groups(model, torch.randn(2, 5, 12))
    assert [s.attribute for s in groups.attributes if s.module == ""] == ["heads"]
    smaller: Any = remove(model, groups, {"q": np.array([True, False, True, True])})
    assert (smaller.heads, smaller.patience, smaller.depth) == (3, 4, 4)


def test_a_stride_with_the_value_of_the_padding_is_no_size() -> None:
    model = build_model(
        "resnet20", in_channels=1, image_size=8, num_classes=4, base_width=4, shortcut="A"
    )
    groups = channel_groups(model, torch.randn(1, 1, 8, 8))
    assert {z.reason for z in groups.frozen} == {"an output of the network"}


def test_rules_of_the_caller_replace_ours() -> None:
    def broken(state: Labeller, node: fx.Node, given: Arguments) -> Any:
        raise ValueError("not written for this")

    def cautious(state: Labeller, node: fx.Node, given: Arguments) -> Any:
        return state.unknown(node, "is not to be passed")

    model, example = conv_chain(), torch.randn(2, 3, 4, 4)
    for rule, reason in ((broken, "the rule failed: ValueError"), (cautious, "not to be passed")):
        groups = channel_groups(model, example, rules={"relu": rule})
        assert len(groups) == 0
        assert any(reason in z.reason for z in groups.frozen if z.name == "0")
