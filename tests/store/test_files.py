from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from understudy.errors import UnderstudyError
from understudy.store import files
from understudy.store.files import CannotWrite, write_bytes, write_json, write_text


def refusing(code: int) -> Callable[..., Any]:
    """A call to the system that fails with ``code``."""

    def call(*args: Any, **keywords: Any) -> Any:
        raise OSError(code, os.strerror(code), "somewhere")

    return call


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "b" / "bytes", b"\x00\xff")
    write_text(tmp_path / "text", "Übung\n")
    write_json(tmp_path / "json", {"ä": [1, 2.5, None]})
    assert (tmp_path / "a" / "b" / "bytes").read_bytes() == b"\x00\xff"
    assert (tmp_path / "text").read_bytes() == "Übung\n".encode()
    assert (tmp_path / "json").read_text("utf-8") == '{\n  "ä": [\n    1,\n    2.5,\n    null\n  ]\n}\n'
    assert names_in(tmp_path) == ["a", "json", "text"]


def test_a_newer_file_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"a long older content")
    write_bytes(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert names_in(tmp_path) == ["file"]


def test_json_without_a_number_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file", {"loss": float("nan")})
    assert names_in(tmp_path) == []


FULL = [errno.ENOSPC, errno.EDQUOT]
FORBIDDEN = [errno.EACCES, errno.EPERM, errno.EROFS]
FAILING = [errno.EIO, errno.ESTALE, errno.EFBIG]
PLACES = ["open", "write", "sync", "rename"]


def break_at(where: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes one of the steps of writing a file fail."""
    if where == "open":
        monkeypatch.setattr(Path, "open", refusing(code))
    elif where == "rename":
        monkeypatch.setattr(Path, "replace", refusing(code))
    elif where == "sync":
        monkeypatch.setattr(os, "fsync", refusing(code))
    else:
        whole = Path.open

        def opened(path: Path, *args: Any, **keywords: Any) -> Any:
            file = whole(path, *args, **keywords)
            file.write(b"half of it")

            class Half:
                def __enter__(self) -> Half:
                    return self

                def __exit__(self, *error: object) -> None:
                    file.close()

                write = staticmethod(refusing(code))

            return Half()

        monkeypatch.setattr(Path, "open", opened)


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("code", [*FULL, *FORBIDDEN, *FAILING], ids=errno.errorcode.get)
def test_a_refusal_of_the_disk_is_one_clear_line_and_leaves_the_old_file(
    where: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with monkeypatch.context() as broken:
        break_at(where, code, broken)
        with pytest.raises(CannotWrite) as error:
            write_bytes(path, b"new")
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    if code in FULL:
        assert message == (
            f"the disk is full: {path} could not be written. What was kept before is intact; free some space "
            "(`understudy store gc` removes old stages) and run the same command again."
        )
    elif code in FAILING:
        reason = os.strerror(code)
        assert message == (
            f"{path} could not be written ({reason}). What was kept before is intact; look at the disk."
        )
    else:
        reason = os.strerror(code)
        assert (
            message == f"{path} may not be written ({reason}). Choose another place, or mend its permissions."
        )
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize("where", PLACES)
def test_other_errors_come_through_as_they_are_and_leave_nothing(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with monkeypatch.context() as broken:
        break_at(where, errno.EDEADLK, broken)
        with pytest.raises(OSError, match=os.strerror(errno.EDEADLK)):
            write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_made_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "mkdir", refusing(errno.EROFS))
    with pytest.raises(CannotWrite, match="may not be written"):
        write_bytes(tmp_path / "new" / "file", b"")


def test_a_file_in_the_place_of_a_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    for path in (tmp_path / "taken" / "file", tmp_path / "taken" / "deeper" / "file"):
        with pytest.raises(CannotWrite, match="cannot be written") as error:
            write_bytes(path, b"")
        assert str(error.value).endswith("Choose another place.")


def test_a_folder_in_the_place_of_a_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(CannotWrite, match="cannot be written"):
        write_bytes(tmp_path / "taken", b"")
    assert names_in(tmp_path) == ["taken"]


def test_the_refusal_is_meant_for_the_person_at_the_keyboard() -> None:
    assert issubclass(CannotWrite, UnderstudyError)


def test_a_disk_that_cannot_sync_folders_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", refusing(errno.EACCES))
    files.sync_folder(tmp_path)


WRITER = """
import sys
from pathlib import Path
from understudy.store.files import write_bytes

path = Path(sys.argv[1])
write_bytes(path, b"a" * 300_000)
print("began", flush=True)
for letter in [b"b", b"a"] * 100_000:
    write_bytes(path, letter * 300_000)
"""


def test_a_reader_beside_a_writer_that_is_killed_always_sees_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        until = time.monotonic() + 0.5
        seen = set()
        while time.monotonic() < until:
            content = path.read_bytes()
            assert content in (b"a" * 300_000, b"b" * 300_000)
            seen.add(content[:1])
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    assert path.read_bytes() in (b"a" * 300_000, b"b" * 300_000)
    left = [name for name in names_in(tmp_path) if name != "file"]
    assert [leftover.name for leftover in files.leftovers(tmp_path)] == left


def test_leftovers_are_files_and_folders_with_the_mark_wherever_they_lie(tmp_path: Path) -> None:
    for name in (".part-1-a", "deep/er/.part-2-b", ".part-folder/inside", ".part-folder/.part-3", "whole"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = [path.relative_to(tmp_path).as_posix() for path in files.leftovers(tmp_path)]
    assert found == [".part-1-a", ".part-folder", "deep/er/.part-2-b"]


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_the_checksum_of_a_file_is_that_of_its_bytes(size: int, tmp_path: Path) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "file").write_bytes(content[:size])
    expected = hashlib.sha256(content[:size]).hexdigest()
    assert files.sha256_of_file(tmp_path / "file") == files.sha256_of_bytes(content[:size]) == expected
