"""Keeping a store in order: what may go, and what is damaged.

Teachers' signals can be made again from stages that are kept, so they go first.
"""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from understudy.errors import BadInput, Damaged, UnderstudyError
from understudy.store import files, signals
from understudy.store.results import RECORD, Result, Store


@dataclass(kw_only=True)
class Cleaned:
    """What ``gc`` removed (or would remove), and what it left because somebody uses it.

    Attributes:
        keys: of stages, in the order in which they went.
        signals: files of teachers' signals.
        signal_bytes: their size.
        leftovers: unfinished files, and what was set aside as damaged.
        bytes: of all of it.
        busy: stages that stay.
        busy_signals: files of signals that stay.
    """

    keys: list[str] = field(default_factory=list)
    signals: int = 0
    signal_bytes: int = 0
    leftovers: int = 0
    bytes: int = 0
    busy: int = 0
    busy_signals: int = 0


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
    store: Store,
    *,
    older_than_days: float | None = None,
    max_bytes: int | None = None,
    only_signals: bool = False,
    dry_run: bool = False,
) -> Cleaned:
    """Removes what is old, what does not fit, and what killed processes left; safe beside running jobs.

    Signals and stages go when they were last used more than ``older_than_days`` ago, or until the rest fits into
    ``max_bytes``: signals before stages, and the least recently used first. What a living run needs (its lease) and
    stages that are being made (their lock) stay. With neither limit only leftovers go: unfinished files and what was
    set aside as damaged.

    Args:
        store: the store.
        older_than_days: age in days since a result or a file of signals was last used; unfinished stages since their
            last write.
        max_bytes: bytes that stages and signals may take together.
        only_signals: look at nothing else. With neither limit all signals go.
        dry_run: remove nothing, only report.
    """
    cleaned = Cleaned()
    place = signals.signals_folder(store) if only_signals else store.folder
    swept = _sweep(place, dry_run=dry_run)
    cleaned.leftovers += len(swept)
    cleaned.bytes += sum(swept.values())
    stages: list[tuple[float, int, str]] = []
    if not only_signals:
        _clear_damaged(store, cleaned, dry_run=dry_run)
        stages = _stages(store, set(swept) if dry_run else set())
    spoken = [file for folder in signals.folders_of(store) for file in signals.block_files(folder)]

    now = time.time()
    all_of_it = only_signals and older_than_days is None and max_bytes is None
    total = sum(size for _, size, _ in stages) + sum(file.bytes for file in spoken)

    def goes(used: float) -> bool:
        too_old = older_than_days is not None and now - used > older_than_days * 86400
        return all_of_it or too_old or (max_bytes is not None and total > max_bytes)

    gone: set[Path] = set()
    for file in sorted(spoken, key=lambda one: (one.used, one.path)):
        if not goes(file.used):
            continue
        try:
            if _in_use(store, file):
                cleaned.busy_signals += 1
                continue
            if not dry_run:
                # A reader that has it open keeps what it has: the file loses its name, not its content.
                with files.explained(file.path):
                    file.path.unlink()
        except FileNotFoundError:  # another gc was here
            total -= file.bytes
            continue
        gone.add(file.path)
        total -= file.bytes
        cleaned.signals += 1
        cleaned.signal_bytes += file.bytes
    for folder in signals.folders_of(store):
        cleaned.signal_bytes += _clear_empty(store, folder, gone | set(swept), dry_run=dry_run)
    cleaned.bytes += cleaned.signal_bytes
    for used, size, key in sorted(stages):
        if not goes(used):
            continue
        if not _remove_stage(store, key, used, dry_run=dry_run):
            cleaned.busy += 1
            continue
        total -= size
        cleaned.keys.append(key)
        cleaned.bytes += size
    return cleaned


def _sweep(place: Path, *, dry_run: bool) -> dict[Path, int]:
    """Removes what killed processes left below ``place``; what it was, with its bytes."""
    swept: dict[Path, int] = {}
    for part in files.leftovers(place):
        written = last_written(part)
        # younger ones may be in the middle of being written
        if written is None or time.time() - written <= 3600:
            continue
        swept[part] = size_of(part)
        if not dry_run:
            remove(part)
    return swept


def _clear_damaged(store: Store, cleaned: Cleaned, *, dry_run: bool) -> None:
    """Removes the stages that were set aside."""
    damaged = store.folder / "damaged"
    for old in sorted(damaged.iterdir()) if damaged.is_dir() else []:
        cleaned.leftovers += 1
        cleaned.bytes += size_of(old)
        if not dry_run:
            remove(old)


def _stages(store: Store, counted: set[Path]) -> list[tuple[float, int, str]]:
    """When each stage was last used, its bytes without those of leftovers that are ``counted`` already, and its key."""
    found = []
    for key in store.keys():
        used = last_used(store, key)
        if used is not None:
            place = store.place(key)
            extra = sum(size_of(part) for part in counted if place in part.parents)
            found.append((used, size_of(place) - extra, key))
    return found


def _remove_stage(store: Store, key: str, used: float, *, dry_run: bool) -> bool:
    """Removes a stage unless somebody makes or needs it; whether it is gone (or would be)."""
    if key in store.leased():
        return False
    with store.lock(key) as mine:
        # Asked again: meanwhile a run may have begun that needs it, finished it, or another gc removed it.
        if not mine or key in store.leased() or last_used(store, key) != used:
            return False
        if not dry_run:
            # Renamed first: a reader finds the whole stage or none.
            gone = store.folder / "damaged" / f"{key}-{uuid.uuid4().hex[:8]}"
            gone.parent.mkdir(exist_ok=True)
            store.place(key).rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
    return True


def _in_use(store: Store, file: signals.BlockFile) -> bool:
    """Whether a living run needs a file of signals, or it was used since it was listed.

    Raises:
        FileNotFoundError: it is gone.
    """
    # The lease last: a run takes it before it looks for files, and finds those that are gone by then missing.
    return file.path.stat().st_mtime != file.used or file.key in store.leased()


def _clear_empty(store: Store, folder: Path, gone: set[Path], *, dry_run: bool) -> int:
    """Removes a folder of signals in which, without ``gone``, none are left; the bytes of its ``signals.json``."""
    record = folder / signals.RECORD
    try:
        if any(path != record and path not in gone for path in folder.iterdir()):
            return 0
    except FileNotFoundError:  # another gc was here
        return 0
    if folder.name in store.leased():
        return 0
    with contextlib.ExitStack() as locks:
        # All of its writers: one that is about to write would find no folder.
        for view in range(signals.LOCKS):
            if not locks.enter_context(signals.writer_lock(store, folder.name, view)):
                return 0
        size = size_of(record)
        if not dry_run:
            record.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # something has come into it
                folder.rmdir()
    return size


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


def verify_signals(store: Store, *, discard: bool = True) -> tuple[int, list[str]]:
    """Reads every file of teachers' signals against its name and its checksum.

    Args:
        store: the store.
        discard: remove what is damaged; it is made again when it is needed.

    Returns:
        the number of files that are whole, and one sentence for each that is damaged or cannot be opened and for each folder that another
        version wrote, which stays as it is.
    """
    whole = 0
    problems: list[str] = []
    for folder in signals.folders_of(store):
        try:
            problem = _problem_with(partial(signals.check_record, folder))
            if problem:
                problems.append(problem + (_discarded(folder / signals.RECORD) if discard else ""))
            for file in signals.block_files(folder):
                try:
                    problem = _problem_with(file.check)
                    if problem and discard:
                        with signals.writer_lock(store, file.key, file.view) as mine:
                            # Looked at again: a run may have made it anew.
                            problem = _problem_with(file.check)
                            if problem and mine:
                                problem += _discarded(file.path)
                except FileNotFoundError:  # removed meanwhile
                    continue
                except signals.Unreadable as error:
                    problem = str(error)
                if problem:
                    problems.append(problem)
                else:
                    whole += 1
        except BadInput as error:
            problems.append(str(error))
    return whole, problems


def _problem_with(check: Callable[[], None]) -> str:
    try:
        check()
    except Damaged as error:
        return str(error)
    return ""


def _discarded(path: Path) -> str:
    with files.explained(path):
        path.unlink(missing_ok=True)
    return "; removed"


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
