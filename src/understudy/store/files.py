"""Files that are whole or not there: written under another name, synced, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from understudy.errors import UnderstudyError

PART = ".part-"  # every unfinished file carries this in its name, so that leftovers can be found


class CannotWrite(UnderstudyError):
    """The disk is full or the place may not be written to; nothing half-written is left."""


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns the operating system's refusal to write ``path`` into one clear line.

    Raises:
        CannotWrite: the disk is full, the quota is used up, the place is read-only, a file stands where a folder
            must be, or the disk fails.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CannotWrite(
                f"the disk is full: {path} could not be written. What was kept before is intact; "
                f"free some space (`understudy store gc` removes old stages) and run the same command again."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise CannotWrite(
                f"{path} may not be written ({error.strerror}). Choose another place, or mend its permissions."
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG):
            raise CannotWrite(
                f"{path} cannot be written ({error.strerror}: {error.filename}). Choose another place."
            ) from error
        if error.errno in (errno.EIO, errno.ESTALE, errno.EFBIG):
            raise CannotWrite(
                f"{path} could not be written ({error.strerror}). What was kept before is intact; look at the disk."
            ) from error
        raise


def sync_folder(folder: Path) -> None:
    """Makes a rename in ``folder`` survive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes ``path`` whole: a reader sees the old file or the new one, never a part.

    Raises:
        CannotWrite: see ``explained``; the old file, if any, is untouched.
    """
    part = path.with_name(f"{PART}{uuid.uuid4().hex}-{path.name}")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Like ``write_bytes``, UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Like ``write_bytes``: JSON with two spaces of indent; NaN is refused because JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def sha256_of_bytes(content: bytes) -> str:
    """The checksum of ``content`` in hex."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """The checksum of a file in hex, read in pieces of one MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def leftovers(folder: Path) -> list[Path]:
    """Unfinished files and folders below ``folder`` that a killed process left behind (or a living one writes)."""
    found = set(folder.rglob(f"{PART}*"))
    return sorted(path for path in found if found.isdisjoint(path.parents))
