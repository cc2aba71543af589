"""Keeping a store in order: what may go, what is damaged, and moving stages to another machine."""

from __future__ import annotations

import contextlib
import json
import shutil
import tarfile
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from understudy.errors import BadInput, Damaged, UnderstudyError
from understudy.store import files
from understudy.store.results import RECORD, VERSION, Result, Store, is_file_name, is_record


@dataclass(kw_only=True)
class Cleaned:
    """What ``gc`` removed (or would remove): keys, leftover files, bytes."""

    keys: list[str] = field(default_factory=list)
    leftovers: int = 0
    bytes: int = 0
    busy: int = 0


def size_of(folder: Path) -> int:
    """Bytes of all files below ``folder``, or of the one file that it is."""
    total = 0
    for path in (folder, *folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # other processes write and rename here
            total += path.stat().st_size if path.is_file() else 0
    return total


def last_written(place: Path) -> float | None:
    """When a file in ``place`` (a folder or a file) was last written, None where it is gone."""
    times = []
    for path in (place, *place.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            times.append((path.is_file(), path.stat().st_mtime))
    # A folder's own time changes when something in it is removed, so it counts only where there is no file.
    return max(times, default=(False, None))[1]


def last_used(store: Store, key: str) -> float | None:
    """When a finished stage was last used or an unfinished one last written, None where there is none."""
    with contextlib.suppress(FileNotFoundError):
        return (store.place(key) / RECORD).stat().st_mtime
    return last_written(store.place(key))


def remove(place: Path) -> None:
    """Removes a folder or a file, as far as the system lets it."""
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            place.unlink()


def gc(
    store: Store, *, older_than_days: float | None = None, max_bytes: int | None = None, dry_run: bool = False
) -> Cleaned:
    """Removes what is old, what does not fit, and what killed processes left; safe beside running jobs.

    A stage goes when it was last used more than ``older_than_days`` ago, or, least recently used first, until the
    rest fits into ``max_bytes``. Stages of a living run (its lease) and stages that are being made (their lock)
    stay. With neither limit only leftovers go: unfinished files and what was set aside as damaged.

    Args:
        store: the store.
        older_than_days: age in days since a result was last used; unfinished stages since their last write.
        max_bytes: bytes that the stages may take together.
        dry_run: remove nothing, only report.
    """
    cleaned = Cleaned()
    now = time.time()
    leased = store.leased()
    swept: dict[Path, int] = {}
    for part in files.leftovers(store.folder):
        written = last_written(part)
        if written is None or now - written <= 3600:  # younger ones may be in the middle of being written
            continue
        swept[part] = size_of(part)
        if not dry_run:
            remove(part)
    cleaned.leftovers += len(swept)
    cleaned.bytes += sum(swept.values())
    damaged = store.folder / "damaged"
    if damaged.is_dir():
        for old in sorted(damaged.iterdir()):
            cleaned.leftovers += 1
            cleaned.bytes += size_of(old)
            if not dry_run:
                remove(old)

    stages: list[tuple[float, int, str]] = []
    for key in store.keys():
        used = last_used(store, key)
        if used is not None:
            place = store.place(key)
            # in a dry run leftovers in it are still there, and counted already
            counted = sum(size for part, size in swept.items() if dry_run and place in part.parents)
            stages.append((used, size_of(place) - counted, key))
    total = sum(size for _, size, _ in stages)
    for used, size, key in sorted(stages):
        too_old = older_than_days is not None and now - used > older_than_days * 86400
        too_much = max_bytes is not None and total > max_bytes
        if not (too_old or too_much):
            continue
        if key in leased:
            cleaned.busy += 1
            continue
        with store.lock(key) as mine:
            # Asked again: meanwhile a run may have begun that needs it, finished it, or another gc removed it.
            if not mine or key in store.leased() or last_used(store, key) != used:
                cleaned.busy += 1
                continue
            if not dry_run:
                # Renamed first: a reader finds the whole stage or none.
                gone = store.folder / "damaged" / f"{key}-{uuid.uuid4().hex[:8]}"
                gone.parent.mkdir(exist_ok=True)
                store.place(key).rename(gone)
                shutil.rmtree(gone, ignore_errors=True)
        total -= size
        cleaned.keys.append(key)
        cleaned.bytes += size
    return cleaned


def verify(store: Store, *, set_aside: bool = True) -> list[str]:
    """Reads every finished stage against its checksums.

    Args:
        store: the store.
        set_aside: move damaged stages away, so that the next run makes them again.

    Returns:
        one sentence for each damaged stage, and for each that a newer understudy wrote, which stays where it is; an
        empty list where all is well.
    """
    problems: list[str] = []
    for key in store.keys():
        problem, damaged = problem_of(store, key)
        if damaged and set_aside:
            with store.lock(key) as mine:
                if mine:
                    # Looked at again: another run may have set it aside and made it anew.
                    problem, damaged = problem_of(store, key)
                    if damaged:
                        problem += f"; set aside as {store.set_aside(key)}"
        if problem:
            problems.append(problem)
    return problems


def problem_of(store: Store, key: str) -> tuple[str, bool]:
    """What is wrong with a finished stage, empty where nothing is, and whether it is damaged."""
    try:
        result = store.result(key)
        if result is not None:
            store.check(result)
    except Damaged as error:
        return str(error), True
    except BadInput as error:
        return str(error), False
    return "", False


def finished(store: Store) -> list[Result]:
    """All finished and readable stages, by key."""
    found = []
    for key in store.keys():
        try:
            result = store.result(key)
        except UnderstudyError:
            continue
        if result is not None:
            found.append(result)
    return found


def export(store: Store, keys: Iterable[str], archive: Path) -> int:
    """Writes finished stages, checked, into one tar file that ``import_`` reads on another machine.

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
