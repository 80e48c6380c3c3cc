"""Targets that cannot be written are found before the work; nothing is left behind."""

from pathlib import Path

import pytest

from mipprune._support.files import require_writable, require_writable_folder, write_json
from mipprune.errors import DataFileError


def test_a_file_that_can_be_written_is_not_touched(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    assert require_writable(target) == target
    assert not list(tmp_path.iterdir())
    write_json(target, {"a": 1})
    before = target.read_bytes()
    require_writable(target)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataFileError, match=r"it is a folder; give the name of a file"):
        require_writable(tmp_path)
    with pytest.raises(DataFileError, match=r"there is no folder .*none"):
        require_writable(tmp_path / "none" / "out.json")
    with pytest.raises(DataFileError, match=r"cannot write .*out.json: "):
        require_writable(tmp_path / "file" / "out.json")


def test_a_disk_without_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mipprune._support.files.tempfile.mkstemp", full)
    with pytest.raises(DataFileError, match="No space left on device"):
        require_writable(tmp_path / "out.json")


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    assert require_writable_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert not (tmp_path / "a").exists()
    with pytest.raises(DataFileError, match=r"cannot make the folder .*: .*file is a file"):
        require_writable_folder(tmp_path / "file" / "run")
    monkeypatch.setattr("mipprune._support.files.os.access", lambda *_: False)
    with pytest.raises(DataFileError, match="takes no new files"):
        require_writable_folder(tmp_path / "a")
