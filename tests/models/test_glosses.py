"""WordNet's glosses: a few lines of the format, and the real file where it is."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mipprune.errors import DataFileError, InputError
from mipprune.models import (
    batches,
    check_data,
    load_glosses,
    split_batch,
    token_batches,
    token_source,
)
from mipprune.models._glosses import parse_glosses

LICENCE = "  1 This software and database is provided\n"


def line(number: int, lexicographer: int, gloss: str) -> str:
    return f"{number:08d} {lexicographer:02d} n 01 word 0 001 @ 00000000 n 0000 | {gloss}  \n"


def tiny(n_per_class: int = 6) -> bytes:
    numbers = range(26 * n_per_class)
    lines = [line(i, 3 + i % 26, f"gloss caf\xe9 {i}; a | b") for i in numbers]
    return (LICENCE + "".join(lines)).encode("latin-1")


def words(texts: list[str]) -> dict[str, Tensor]:
    return {"n_words": torch.tensor([[len(text.split())] for text in texts])}


def test_class_and_text_of_a_line() -> None:
    content = (LICENCE + line(1740, 3, "that which is") + line(9, 28, "a | b")).encode("latin-1")
    assert parse_glosses(content, "x") == (["that which is", "a | b"], [0, 25])


@pytest.mark.parametrize(
    ("bad", "fragment"),
    [
        ("00000001 03 n 01 word without a bar\n", "line 2 of"),
        (line(1, 2, "x"), "line 2 of"),
        (line(1, 29, "x"), "line 2 of"),
        ("nonsense\n", "line 2 of"),
        ("", "holds no glosses"),
    ],
)
def test_other_files_are_refused(bad: str, fragment: str) -> None:
    with pytest.raises(DataFileError, match=fragment):
        parse_glosses((LICENCE + bad).encode(), "x")


def test_splits_and_batches(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_bytes(tiny())
    data = load_glosses(tmp_path, n_test=52, n_validation=26)
    assert (len(data.train), len(data.validation), len(data.test)) == (78, 26, 52)
    indices = torch.cat([data.split(s).indices for s in ("train", "validation", "test")])
    assert torch.equal(indices.sort().values, torch.arange(156))
    for name in ("train", "validation", "test"):
        split = data.split(name)
        assert torch.equal(split.labels, split.indices % 26)
        assert split.texts[0] == f"gloss café {int(split.indices[0])}; a | b"
    other = load_glosses(tmp_path, n_test=52, n_validation=26, split_seed=1)
    assert other.test.texts == data.test.texts
    assert other.validation.texts != data.validation.texts
    batch = next(token_batches(data.test, words, 5))
    args, kwargs, target = split_batch(batch)
    assert args == ()
    assert kwargs["n_words"].shape == (5, 1)
    assert torch.equal(target, data.test.labels[:5])
    shuffled = [b["labels"] for b in token_batches(data.test, words, 5, epoch=1, shuffle=True)]
    assert not torch.equal(torch.cat(shuffled), data.test.labels)
    assert torch.equal(torch.cat(shuffled).sort().values, data.test.labels.sort().values)
    with pytest.raises(InputError, match="batch_size"):
        token_batches(data.test, words, 0)
    with pytest.raises(InputError, match="unknown split"):
        data.split("rest")


def test_tokenised_text_is_data_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_bytes(tiny())
    glosses = load_glosses(tmp_path, n_test=52, n_validation=26)
    source = check_data(token_source(glosses, words, 20, seed=3), "token_source")

    def labels(split: str, epoch: int) -> Tensor:
        return torch.cat([batch["labels"] for batch in batches(source, split, 1, epoch=epoch)])

    assert torch.equal(labels("test", 0), glosses.test.labels)
    assert torch.equal(labels("train", 4), labels("train", 4))
    assert not torch.equal(labels("train", 4), labels("train", 5))
    assert len(labels("train", 4)) == 78
    with pytest.raises(InputError, match="batch_size"):
        token_source(glosses, words, 0)


def test_missing_file_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="apt-get install wordnet-base"):
        load_glosses(tmp_path)


def test_the_real_glosses() -> None:
    try:
        data = load_glosses()
    except DataFileError as error:
        if "found no" not in str(error):
            raise
        pytest.skip(f"WordNet is not here: {error}")
    assert len(data.train) + len(data.validation) + len(data.test) == 82_115
    assert torch.bincount(data.test.labels, minlength=26).min() > 0
    majority = float(torch.bincount(data.test.labels).max()) / len(data.test)
    assert majority == pytest.approx(0.14, abs=0.005)
    assert data.class_names[int(torch.bincount(data.test.labels).argmax())] == "artifact"
