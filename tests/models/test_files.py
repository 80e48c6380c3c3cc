"""Finding and reading data files."""

import gzip
import hashlib
from pathlib import Path

import pytest

from mipprune.errors import DataFileError
from mipprune.models import DATA_VARIABLE
from mipprune.models._files import check_digest, find_file, read_bytes, search_folders


def test_a_given_root_hides_variable_and_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "variable"))
    assert search_folders(tmp_path, ("sub",), ("/system",)) == [tmp_path, tmp_path / "sub"]
    variable = tmp_path / "variable"
    assert search_folders(None, ("sub",), ("/system",)) == [
        variable,
        variable / "sub",
        Path("/system"),
    ]
    monkeypatch.delenv(DATA_VARIABLE)
    assert search_folders(None, ("sub",)) == []


def test_a_root_that_is_no_folder_is_named(tmp_path: Path) -> None:
    folders = search_folders(tmp_path / "nowhere", ())
    with pytest.raises(DataFileError, match=r"nowhere \(no such folder\).*get-it a"):
        find_file(("a.bin",), folders, "The set", "get-it a")


def test_a_missing_file_names_folders_and_command(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=f"no 'a.bin' in {tmp_path}.*get-it a"):
        find_file(("a.bin", "a.gz"), [tmp_path], "The set", "get-it a")
    with pytest.raises(DataFileError, match="none was given"):
        find_file(("a.bin",), [], "The set", "get-it a")


@pytest.mark.parametrize("damage", ["cut", "garbage", "flipped"])
def test_damaged_compression_is_reported(tmp_path: Path, damage: str) -> None:
    content = bytearray(gzip.compress(b"some content that is long enough" * 20))
    if damage == "cut":
        content = content[:-12]
    elif damage == "garbage":
        content = bytearray(b"not compressed")
    else:
        content[-6] ^= 0xFF  # inside the checksum
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    with pytest.raises(DataFileError, match=r"file.gz.*damaged.*get it again: fetch"):
        read_bytes(path, "fetch")


def test_digest_is_compared_where_known(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"abc").hexdigest()
    assert check_digest(b"abc", tmp_path, digest, "fetch") == digest
    assert check_digest(b"abc", tmp_path, None, "fetch") == digest
    with pytest.raises(DataFileError, match=f"{digest[:16]}.*expected 0000"):
        check_digest(b"abc", tmp_path, "0" * 64, "fetch")
