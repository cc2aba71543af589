"""Moving stages to another machine: one archive of whole, checked stages, without what teachers said."""

from __future__ import annotations

import json
import shutil
import tarfile
import uuid
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from understudy.errors import BadInput
from understudy.store import files
from understudy.store.results import RECORD, VERSION, Result, Store, is_file_name, is_record


def export(store: Store, keys: Iterable[str], archive: Path) -> int:
    """Writes finished stages, checked, into one tar file that ``import_`` reads on another machine.

    Teachers' signals stay behind: they are made again there.

    Returns:
        the number of stages.

    Raises:
        BadInput: a key that is not finished, or nothing to write.
        Damaged: a file differs from its checksum.
    """
    results = []
    for key in dict.fromkeys(keys):
        result = store.result(key)
        if result is None:
            raise BadInput(
                f"stage {key} is not finished in {store.folder}; `understudy store ls` lists what is."
            )
        store.check(result)
        results.append(result)
    if not results:
        raise BadInput(f"there is no finished stage to export in {store.folder}.")
    part = archive.with_name(f"{files.PART}{uuid.uuid4().hex}-{archive.name}")
    with files.explained(archive):
        archive.parent.mkdir(parents=True, exist_ok=True)
        try:
            with tarfile.open(part, "w") as tar:
                for result in results:
                    for name in (*result.record["files"], RECORD):
                        tar.add(
                            result.folder / name,
                            arcname=f"{result.key}/{name}",
                            recursive=False,
                            filter=_anonymous,
                        )
            part.replace(archive)
        finally:
            part.unlink(missing_ok=True)
    return len(results)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without this machine's user and times: the same stages give the same archive."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member


def import_(store: Store, archive: Path) -> tuple[int, int]:
    """Takes over stages from a tar file written by ``export``; each is checked before it counts.

    Returns:
        how many were taken over, how many were there already.

    Raises:
        BadInput: the file is missing, no such archive, or holds anything but stages of this format.
        Damaged: a file in it differs from its checksum; stages before it stay imported.
    """
    if not archive.is_file():
        raise BadInput(f"there is no file {archive}.")
    store.prepare()
    inbox = store.folder / f"{files.PART}import-{uuid.uuid4().hex}"
    taken = there = 0
    try:
        try:
            with tarfile.open(archive, "r:") as tar:
                for member in tar:
                    path = PurePosixPath(member.name)
                    if not member.isreg() or member.issparse() or not _can_be_exported(path):
                        raise BadInput(
                            f"{archive} holds {member.name!r}, which no store export writes; not imported."
                        )
                    source = tar.extractfile(member)
                    if source is None:
                        raise BadInput(f"{archive}: {member.name!r} cannot be read; not imported.")
                    files.write_bytes(inbox / path.parts[0] / path.parts[1], source.read())
        except tarfile.TarError as error:
            raise BadInput(f"{archive} is not a store export ({error}).") from error
        if not inbox.is_dir():
            raise BadInput(f"{archive} holds no stages.")
        for folder in sorted(inbox.iterdir()):
            key = folder.name
            try:
                record = json.loads((folder / RECORD).read_text("utf-8"))
                fits = record["version"] == VERSION and is_record(record, key)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise BadInput(f"{archive}: stage {key} has no readable {RECORD}; not imported.") from error
            if not fits or {path.name for path in folder.iterdir()} - {RECORD} != set(record["files"]):
                raise BadInput(f"{archive}: stage {key} is of another format; not imported.")
            store.check(Result(key=key, folder=folder, record=record))
            with store.lock(key) as mine:
                if not mine or (store.place(key) / RECORD).exists():
                    there += 1
                    continue
                if store.place(key).exists():  # an unfinished attempt gives way to the finished result
                    shutil.rmtree(store.place(key))
                store.stages.mkdir(parents=True, exist_ok=True)
                folder.rename(store.place(key))
                taken += 1
    finally:
        shutil.rmtree(inbox, ignore_errors=True)
    return taken, there


def _can_be_exported(path: PurePosixPath) -> bool:
    """Whether a member of an archive is a file of a stage: ``key/name``."""
    if path.is_absolute() or len(path.parts) != 2:
        return False
    key, name = path.parts
    return key.isascii() and key.isalnum() and is_file_name(key) and is_file_name(name)
