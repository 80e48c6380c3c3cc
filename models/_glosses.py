"""WordNet's noun glosses as a text classification data set.

The class of a gloss is the lexicographer file of its synset, e.g. animal,
food, person: 26 classes, 82 115 sentences.

References
----------
Fellbaum (ed.), "WordNet: an electronic lexical database", MIT Press, 1998;
the format is that of the manual page wndb(5).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mipprune.errors import DataFileError, InputError
from mipprune.models._batch import check_labels
from mipprune.models._batches import epoch_order
from mipprune.models._dataset import SPLITS, stratified_holdout
from mipprune.models._files import check_digest, find_file, read_bytes, search_folders

__all__ = [
    "TextDataset",
    "TextSplit",
    "TokenBatches",
    "TokenSource",
    "load_glosses",
    "parse_glosses",
    "token_batches",
    "token_source",
]

_HOW = "apt-get install wordnet-base"
_SYSTEM = ("/usr/share/wordnet",)
_FIRST_CLASS = 3
_CLASSES = (
    "tops", "act", "animal", "artifact", "attribute", "body", "cognition", "communication",
    "event", "feeling", "food", "group", "location", "motive", "object", "person", "phenomenon",
    "plant", "possession", "process", "quantity", "relation", "shape", "state", "substance",
    "time",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class TextSplit:
    """Texts, their labels int64 (n,), their positions in the file int64 (n,)."""

    texts: tuple[str, ...]
    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, eq=False)
class TextDataset:
    """Labelled texts with three disjoint, stratified splits."""

    name: str
    n_classes: int
    class_names: tuple[str, ...]
    train: TextSplit
    validation: TextSplit
    test: TextSplit
    files: Mapping[str, str]
    split_seed: int

    def split(self, name: str) -> TextSplit:
        """The split called ``name``: "train", "validation" or "test"."""
        if name not in SPLITS:
            raise InputError(f"unknown split {name!r}, expected one of {', '.join(SPLITS)}")
        split: TextSplit = getattr(self, name)
        return split


def parse_glosses(content: bytes, name: str) -> tuple[list[str], list[int]]:
    """Texts and labels of a ``data.noun`` file: the text after the bar, the second field.

    Raises
    ------
    DataFileError
        Naming the line that has no bar or no class from 03 to 28.
    """
    texts: list[str] = []
    labels: list[int] = []
    for number, line in enumerate(content.decode("latin-1").splitlines(), start=1):
        if line.startswith(" ") or not line:
            continue  # licence text
        head, bar, text = line.partition(" | ")
        fields = head.split(maxsplit=2)
        label = int(fields[1]) - _FIRST_CLASS if len(fields) > 1 and fields[1].isdigit() else -1
        if not bar or not 0 <= label < len(_CLASSES):
            raise DataFileError(
                f"line {number} of '{name}' is no noun of WordNet (offset, class 03 to 28, ..., "
                f"'|', gloss); get the file again: {_HOW}"
            )
        texts.append(text.strip())
        labels.append(label)
    if not texts:
        raise DataFileError(f"'{name}' holds no glosses; get it again: {_HOW}")
    return texts, labels


def load_glosses(
    root: str | Path | None = None,
    *,
    n_test: int = 8000,
    n_validation: int = 4000,
    split_seed: int = 0,
) -> TextDataset:
    """Load the noun glosses of WordNet 3.0.

    Parameters
    ----------
    root : path, optional
        Folder of ``data.noun``; default: the environment variable
        ``MIPPRUNE_DATA``, then where the Debian package puts it.
    n_test, n_validation : int
        The test glosses never change; ``split_seed`` chooses the validation ones.

    Raises
    ------
    DataFileError
        File missing or of another format, with the command that gets it.
    """
    folders = search_folders(root, ("wordnet", "dict"), _SYSTEM)
    path = find_file(("data.noun",), folders, "WordNet", _HOW)
    content = read_bytes(path, _HOW)
    texts, label_list = parse_glosses(content, str(path))
    labels = torch.tensor(label_list, dtype=torch.int64)
    rest, test = stratified_holdout(labels, n_test, 0)
    inner, held_out = stratified_holdout(labels[torch.from_numpy(rest)], n_validation, split_seed)

    def part(positions: Any) -> TextSplit:
        indices = torch.from_numpy(positions)
        return TextSplit(tuple(texts[i] for i in positions), labels[indices], indices)

    check_labels(labels, len(_CLASSES), f"'{path}'")
    return TextDataset(
        name="glosses",
        n_classes=len(_CLASSES),
        class_names=_CLASSES,
        train=part(rest[inner]),
        validation=part(rest[held_out]),
        test=part(test),
        files={"data.noun": check_digest(content, path, None, _HOW)},
        split_seed=split_seed,
    )


def token_batches(
    split: TextSplit,
    tokenize: Callable[[list[str]], Mapping[str, Tensor]],
    batch_size: int,
    *,
    epoch: int = 0,
    seed: int = 0,
    shuffle: bool = False,
) -> Iterator[dict[str, Tensor]]:
    """Batches of a text split: what ``tokenize`` returns, plus ``labels`` int64 (b,).

    Parameters
    ----------
    split : TextSplit
    tokenize : callable
        List of texts -> mapping of tensors (b, ...), e.g. ``input_ids``.
    batch_size : int
    epoch, seed : int
        The order is a function of these alone.
    shuffle : bool
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    order = epoch_order(len(split), epoch, seed, shuffle)
    return _token_batches(split, tokenize, order, batch_size)


@dataclass
class TokenBatches:
    """A text split as an iterable of batches, in a new order every epoch if shuffled."""

    split: TextSplit
    tokenize: Callable[[list[str]], Mapping[str, Tensor]]
    batch_size: int
    seed: int = 0
    shuffle: bool = False
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        """Order of the next pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return token_batches(
            self.split,
            self.tokenize,
            self.batch_size,
            epoch=self.epoch,
            seed=self.seed,
            shuffle=self.shuffle,
        )


@dataclass(frozen=True, eq=False)
class TokenSource:
    """A text data set as a :class:`mipprune.models.DataSource`."""

    train: TokenBatches
    validation: TokenBatches
    test: TokenBatches
    n_classes: int


def token_source(
    data: TextDataset,
    tokenize: Callable[[list[str]], Mapping[str, Tensor]],
    batch_size: int,
    *,
    seed: int = 0,
) -> TokenSource:
    """Tokenised batches of all three splits; those of ``train`` in random order.

    Parameters
    ----------
    data : TextDataset
    tokenize, batch_size, seed
        As in :func:`token_batches`.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    train, validation, test = (
        TokenBatches(data.split(name), tokenize, batch_size, seed, shuffle=name == "train")
        for name in SPLITS
    )
    return TokenSource(train, validation, test, data.n_classes)


def _token_batches(
    split: TextSplit,
    tokenize: Callable[[list[str]], Mapping[str, Tensor]],
    order: Any,
    batch_size: int,
) -> Iterator[dict[str, Tensor]]:
    for begin in range(0, len(order), batch_size):
        positions = order[begin : begin + batch_size]
        encoded = dict(tokenize([split.texts[i] for i in positions]))
        yield {**encoded, "labels": split.labels[torch.from_numpy(positions)]}
