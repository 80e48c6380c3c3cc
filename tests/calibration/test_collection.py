"""The streaming pass on small networks, against explicit collection of X and Y."""

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mipprune.calibration import apply_weights, calibrate
from mipprune.errors import InputError
from mipprune.graph import ChannelGroups, channel_groups


class Residual(nn.Module):
    """A residual stream read by two convolutions of different stride and by the head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 3, 3, padding=1)
        self.outer = nn.Conv2d(3, 4, 1)
        self.down = nn.Conv2d(4, 5, 3, stride=2)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.outer(torch.relu(self.inner(x))))
        head: Tensor = self.head(torch.relu(self.down(x)).mean((2, 3)))
        return head


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(3 * 16, 5), nn.ReLU(), nn.Linear(5, 2),
    )  # fmt: skip


def seeded(model: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return model.double()


def data(n: int = 12, seed: int = 1) -> Tensor:
    return torch.randn(n, 2, 6, 6, generator=torch.Generator().manual_seed(seed)).double()


def batches(x: Tensor, size: int = 5) -> Iterator[Tensor]:
    return iter(x.split(size))


def found(model: nn.Module) -> ChannelGroups:
    return channel_groups(model, data(2))


def layer_outputs(model: nn.Module, x: Tensor, name: str) -> list[Tensor]:
    """Outputs without bias of a layer, one entry per call."""
    seen: list[Tensor] = []
    layer = model.get_submodule(name)
    bias = layer.bias
    assert isinstance(bias, Tensor)

    def hook(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        shape = (-1,) + (1,) * (output.dim() - 2)
        seen.append((output - bias.view(shape)).detach())

    handle = layer.register_forward_hook(hook)
    with torch.no_grad():
        model(x)
    handle.remove()
    return seen


def mean_square(difference: Tensor) -> float:
    return float((difference**2).sum()) / (difference.numel() / difference.size(1))


@pytest.mark.parametrize("make", [plain, Residual])
def test_error_of_a_mask_is_the_error_of_the_masked_layers(make: type[nn.Module]) -> None:
    model, x = seeded(make()), data()
    groups = found(model)
    calibration = calibrate(model, batches(x), groups)
    assert set(calibration) == set(groups.by_name)
    assert not calibration.skipped
    generator = np.random.default_rng(0)
    for name, part in calibration.items():
        assert len(part.terms) == len(part.family.consumers)
        problem = part.problem(damping=0.0, variant="mask")
        mask = np.zeros(len(part.family), dtype=bool)
        mask[generator.choice(mask.size, size=max(1, mask.size // 2), replace=False)] = True
        masked = copy.deepcopy(model)
        apply_weights(masked, part, problem.weights(mask))
        expected = 0.0
        for term in part.terms:
            with torch.no_grad():
                before = layer_outputs(model, x, term.name)[0]
            inputs = captured(model, x, term.name)
            after = run_layer(masked.get_submodule(term.name), inputs)
            expected += 0.5 * mean_square(before - after)
        assert problem.value(mask) == pytest.approx(expected, rel=1e-10), name


def captured(model: nn.Module, x: Tensor, name: str) -> Tensor:
    """Input of a layer."""
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_pre_hook(
        lambda _, args: seen.append(args[0].detach().clone())
    )
    with torch.no_grad():
        model(x)
    handle.remove()
    return seen[0]


def run_layer(layer: nn.Module, x: Tensor) -> Tensor:
    bias = layer.bias
    assert isinstance(bias, Tensor)
    with torch.no_grad():
        output: Tensor = layer(x)
    return output - bias.detach().view((-1,) + (1,) * (output.dim() - 2))


def test_refit_is_least_squares_on_the_collected_inputs() -> None:
    model, x = seeded(plain()), data(40)
    calibration = calibrate(model, batches(x), found(model), families=["5"])
    problem = calibration["5"].problem(damping=0.0)
    mask = np.array([True, False, True, True, False])
    inputs, targets = captured(model, x, "7").numpy(), layer_outputs(model, x, "7")[0].numpy()
    fit = np.linalg.lstsq(inputs[:, mask], targets, rcond=None)
    expected = 0.5 * ((inputs[:, mask] @ fit[0] - targets) ** 2).sum() / len(inputs)
    assert problem.value(mask) == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(problem.weights(mask)[0][mask], fit[0], rtol=1e-7)


def test_batch_size_changes_nothing() -> None:
    model, x = seeded(Residual()), data()
    groups = found(model)
    one, many = (calibrate(model, batches(x, size), groups) for size in (12, 1))
    for name in groups.by_name:
        for a, b in zip(one[name].terms, many[name].terms, strict=True):
            np.testing.assert_allclose(a.gram, b.gram, rtol=1e-12, atol=1e-14)
        assert one[name].samples == many[name].samples


def test_flatten_gives_each_class_all_its_positions() -> None:
    model, x = seeded(plain()), data()
    part = calibrate(model, batches(x), found(model))["2"]
    assert part.terms[0].group_sizes.tolist() == [16, 16, 16]
    inputs = captured(model, x, "5")
    np.testing.assert_allclose(part.terms[0].gram, (inputs.T @ inputs / len(x)).numpy())


def test_targets_come_from_the_reference() -> None:
    dense, x = seeded(plain()), data(60)
    groups = found(dense)
    pruned = copy.deepcopy(dense)
    with torch.no_grad():
        for parameter in pruned.get_submodule("0").parameters():
            parameter[1] = 0.0
    part = calibrate(pruned, batches(x), groups, reference=dense)["5"]
    inputs = captured(pruned, x, "7").numpy()
    targets = layer_outputs(dense, x, "7")[0].numpy()
    n = len(inputs)
    np.testing.assert_allclose(part.terms[0].gram, inputs.T @ inputs / n)
    np.testing.assert_allclose(part.terms[0].cross, inputs.T @ targets / n)
    assert part.terms[0].energy == pytest.approx((targets**2).sum() / n)
    # An in-place activation follows layer 0 of the plain network; its targets are clean.
    first = calibrate(pruned, batches(x), groups, reference=dense)["0"]
    clean = layer_outputs(dense, x, "2")[0]
    assert first.terms[0].energy == pytest.approx(mean_square(clean))


def test_model_as_its_own_reference_gives_the_same() -> None:
    model, x = seeded(Residual()), data()
    groups = found(model)
    alone = calibrate(model, batches(x), groups)
    twin = calibrate(model, batches(x), groups, reference=copy.deepcopy(model))
    for name in groups.by_name:
        for a, b in zip(alone[name].terms, twin[name].terms, strict=True):
            np.testing.assert_allclose(a.cross, b.cross, rtol=1e-9, atol=1e-12)
            assert a.energy == pytest.approx(b.energy, rel=1e-9)


class Concatenated(nn.Module):
    """Two families and untouched inputs read by one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(2, 3, 1)
        self.right = nn.Conv2d(2, 2, 1)
        self.join = nn.Conv2d(7, 4, 1)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.right(x).tanh(), x, self.left(x).relu()], 1)
        last: Tensor = self.last(self.join(joined).relu())
        return last


def test_other_inputs_of_a_shared_layer_are_taken_off_the_targets() -> None:
    model, x = seeded(Concatenated()), data(4)
    reference = seeded(Concatenated(), 5)
    part = calibrate(model, batches(x), found(model), reference=reference)["left"]
    inputs = captured(model, x, "join").movedim(1, -1).reshape(-1, 7).numpy()
    targets = layer_outputs(reference, x, "join")[0].movedim(1, -1).reshape(-1, 4).numpy()
    weight = model.get_submodule("join").weight
    assert isinstance(weight, Tensor)
    matrix = weight.detach().reshape(4, 7).T.numpy()
    own, others = slice(4, 7), slice(0, 4)
    remaining = targets - inputs[:, others] @ matrix[others]
    n = len(inputs)
    np.testing.assert_allclose(part.terms[0].cross, inputs[:, own].T @ remaining / n, atol=1e-12)
    assert part.terms[0].energy == pytest.approx((remaining**2).sum() / n, rel=1e-9)


class Grouped(nn.Module):
    """A grouped convolution reads in one group what another group's slice also weighs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 1)
        self.grouped = nn.Conv2d(6, 8, 3, groups=2)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        last: Tensor = self.last(self.grouped(self.first(x).relu()).relu())
        return last


def test_grouped_convolution_is_one_term_per_group() -> None:
    model, x = seeded(Grouped()), data(6)
    groups = found(model)
    part = calibrate(model, batches(x), groups)["first"]
    assert [term.name for term in part.terms] == ["grouped[0]", "grouped[1]"]
    problem = part.problem(damping=0.0, variant="mask")
    mask = np.array([True, False, True])
    masked = copy.deepcopy(model)
    apply_weights(masked, part, problem.weights(mask))
    inputs = captured(model, x, "grouped")
    before = run_layer(model.get_submodule("grouped"), inputs)
    after = run_layer(masked.get_submodule("grouped"), inputs)
    assert problem.value(mask) == pytest.approx(0.5 * mean_square(before - after), rel=1e-10)


def test_sampled_patches_estimate_the_whole() -> None:
    model, x = seeded(Residual()), data(60)
    groups = found(model)
    full = calibrate(model, batches(x), groups)["stem"]
    drawn = [
        calibrate(model, batches(x), groups, patches=9, generator=torch.Generator().manual_seed(3))[
            "stem"
        ]
        for _ in range(2)
    ]
    np.testing.assert_array_equal(drawn[0].terms[0].gram, drawn[1].terms[0].gram)
    assert drawn[0].samples[0] == 60 * 9
    relative = np.linalg.norm(drawn[0].terms[0].gram - full.terms[0].gram)
    assert 0 < relative < 0.2 * np.linalg.norm(full.terms[0].gram)


def test_the_network_is_left_as_it_was() -> None:
    model, x = seeded(plain()), data()
    model.train()
    model.get_submodule("1").eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    calibrate(model, batches(x), found(model))
    assert [m.training for m in model.modules()][:3] == [True, True, False]
    assert all(not m._forward_hooks for m in model.modules())
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    with pytest.raises(InputError):
        calibrate(model, [torch.full((1, 2, 6, 6), torch.nan).double()], found(model))
    assert all(not m._forward_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.full((1, 2, 6, 6), torch.nan).double(), "batch 1: .*NaN"),
        (torch.zeros(1, 3, 6, 6).double(), "batch 1: the model does not take it"),
        (torch.zeros(1, 2, 5, 6).double(), "batch 1: the model does not take it"),
        (object(), "batch 1: "),
    ],
)
def test_bad_batches_are_named(bad: object, message: str) -> None:
    model = seeded(plain())
    with pytest.raises(InputError, match=message):
        calibrate(model, [data(2), bad], found(model))


def test_wrong_arguments_are_refused() -> None:
    model = seeded(plain())
    groups = found(model)
    with pytest.raises(InputError, match="at least one batch"):
        calibrate(model, [], groups)
    with pytest.raises(InputError, match="no family"):
        calibrate(model, [data(2)], groups, families=["nothing"])
    with pytest.raises(InputError, match="generator"):
        calibrate(model, [data(2)], groups, patches=3)
    with pytest.raises(InputError, match="patches"):
        calibrate(model, [data(2)], groups, patches=0, generator=torch.Generator())
    with pytest.raises(InputError, match="no layer '2'"):
        calibrate(model, [data(2)], groups, reference=nn.Sequential(nn.Conv2d(2, 4, 3)))


class Skips(nn.Module):
    """Reads the channels with a bare parameter instead of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.matrix = nn.Parameter(torch.ones(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.first(x).relu(), self.matrix)


def test_what_cannot_be_observed_is_named() -> None:
    model = Skips()
    x = torch.ones(2, 4)
    calibration = calibrate(model, [x], channel_groups(model, x))
    assert list(calibration) == []
    assert "not the weight of a layer" in calibration.skipped["first"]
    with pytest.raises(InputError, match="was not calibrated"):
        calibration["first"]


class Counting(nn.Module):
    """Two layers, the first called as often as the batch has examples beyond eight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.second = nn.Linear(6, 5)
        self.head = nn.Linear(5, 2)
        self.heads = 0

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        for _ in range(1 if len(x) <= 8 else 2):
            self.heads += 1
            y: Tensor = self.head(x)
        return y


def test_batches_run_only_as_far_as_needed_with_the_same_statistics() -> None:
    x = torch.randn(24, 4, generator=torch.Generator().manual_seed(3)).double()
    model, reference = seeded(Counting()), seeded(Counting(), 7)
    assert isinstance(model, Counting)
    groups = channel_groups(model, x[:2])
    whole = calibrate(model, x.split(8), groups)
    assert dict(whole.calls) == {"second": 1, "head": 1}
    first, second = whole  # read by the second layer, and by the head
    model.heads = 0
    for name, heads in ((first, 0), (second, 3)):
        plain = calibrate(model, x.split(8), groups, reference=reference, families=[name])
        model.heads = 0
        short = calibrate(
            model, x.split(8), groups, reference=reference, families=[name], like=whole
        )
        assert model.heads == heads
        np.testing.assert_array_equal(plain[name].terms[0].gram, short[name].terms[0].gram)
        np.testing.assert_array_equal(plain[name].terms[0].cross, short[name].terms[0].cross)


def test_batches_run_to_their_end_where_calls_vary() -> None:
    x = torch.randn(28, 4, generator=torch.Generator().manual_seed(3)).double()
    model = seeded(Counting())
    groups = channel_groups(model, x[:2])
    whole = calibrate(model, x.split([8, 12, 8]), groups)
    assert dict(whole.calls) == {"second": 1}
    name = list(whole)[1]
    again = calibrate(model, x.split([8, 12, 8]), groups, families=[name], like=whole)
    np.testing.assert_array_equal(again[name].terms[0].gram, whole[name].terms[0].gram)
    assert again[name].samples == (8 + 2 * 12 + 8,)
