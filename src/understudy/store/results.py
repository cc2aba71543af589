"""The results of stages: one folder for each key, complete once its ``stage.json`` is there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from understudy.errors import BadInput, Damaged
from understudy.store import files

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
WEIGHTS = "weights.safetensors"
OUTPUTS = "outputs.safetensors"
ARTEFACTS = "artefacts.safetensors"
METRICS = "metrics.jsonl"
RECORD = "stage.json"
CHECKPOINTS = "checkpoint"


def is_file_name(name: str) -> bool:
    """Whether ``name`` is a file in a folder itself, not one above or below it."""
    return name not in ("", ".", "..") and len(name) <= 200 and not any(sign in name for sign in "/\\\0")


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """``record`` with a checksum of all that it says, so that a changed figure in it is noticed."""
    rest = {name: value for name, value in record.items() if name != "checksum"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return {**rest, "checksum": files.sha256_of_bytes(text.encode())}


def is_record(record: Any, key: str) -> bool:
    """Whether ``record`` can be the ``stage.json`` of stage ``key``, so that the rest may rely on its form."""
    return (
        isinstance(record, dict)
        and record.get("key") == key
        and record.get("checksum") == sealed(record)["checksum"]
        and isinstance(record.get("files"), dict)
        and all(
            is_file_name(name)
            and isinstance(entry, dict)
            and isinstance(entry.get("sha256"), str)
            and isinstance(entry.get("bytes"), int)
            for name, entry in record["files"].items()
        )
    )


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished stage: where it lies and what its ``stage.json`` says."""

    key: str
    folder: Path
    record: dict[str, Any]

    @property
    def bytes(self) -> int:
        """Size of its files in bytes."""
        return sum(entry["bytes"] for entry in self.record["files"].values())


class Store:
    """A folder of results that several runs, processes and (on a shared folder with working locks) machines use.

    A result is written once and never changed. Its files are checked against the checksums in ``stage.json`` when
    they are read; what does not fit is set aside under ``damaged/`` and made again.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.stages = self.folder / "stages"

    # --- places -------------------------------------------------------------------------------------------------

    def place(self, key: str) -> Path:
        """The folder of one stage, finished or not."""
        return self.stages / key

    def prepare(self) -> None:
        """Makes the folder and writes the format's version into it, or refuses a newer format.

        Raises:
            BadInput: the folder was written by a newer version, or is no store.
            CannotWrite: it cannot be made.
        """
        marker = self.folder / "store.json"
        if marker.exists():
            try:
                version = json.loads(marker.read_text("utf-8"))["version"]
            except (ValueError, KeyError, TypeError) as error:
                raise BadInput(f"{marker} cannot be read; choose another folder with --store.") from error
            if version != VERSION:
                raise BadInput(
                    f"the store {self.folder} has format {version!r}, this understudy reads format {VERSION}. "
                    f"Use the version of understudy that wrote it, or another folder with --store."
                )
            return
        if self.folder.is_file():
            raise BadInput(f"--store {self.folder} is a file; name a folder.")
        with files.explained(self.folder):
            self.stages.mkdir(parents=True, exist_ok=True)
        files.write_json(marker, {"version": VERSION})

    # --- locks --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[bool]:
        """Yields True while this process alone may make stage ``key``, False at once where another one does.

        The lock is the operating system's: it ends with its process, however that ends.
        """
        place = self.folder / "locks"
        with files.explained(place):
            place.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place / f"{key}.lock", thread_local=False)
        try:
            with files.explained(place / f"{key}.lock"):
                lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    @contextlib.contextmanager
    def lease(self, keys: Iterable[str]) -> Iterator[None]:
        """While it lasts, ``gc`` in any process leaves ``keys`` alone. It ends with its process."""
        place = self.folder / "leases"
        paper = place / f"{uuid.uuid4().hex}.json"
        lock = FileLock(paper.with_suffix(".lock"), thread_local=False)
        with files.explained(place):
            place.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        try:
            # Locked before it is written: a paper without a lock is a dead run's, however new.
            files.write_json(paper, sorted(set(keys)))
            yield
        finally:
            paper.unlink(missing_ok=True)
            lock.release()
            paper.with_suffix(".lock").unlink(missing_ok=True)

    def leased(self) -> set[str]:
        """Keys that a living run holds a lease on; leases of dead runs are removed on the way."""
        place = self.folder / "leases"
        held: set[str] = set()
        for paper in sorted(place.glob("[!.]*.json")):
            lock = FileLock(paper.with_suffix(".lock"), thread_local=False)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                with contextlib.suppress(OSError, ValueError):
                    held.update(json.loads(paper.read_text("utf-8")))
                continue
            paper.unlink(missing_ok=True)
            lock.release()
            paper.with_suffix(".lock").unlink(missing_ok=True)
        return held

    # --- reading ------------------------------------------------------------------------------------------------

    def result(self, key: str) -> Result | None:
        """The finished stage ``key``, or None where it is not (yet) there.

        Raises:
            Damaged: its ``stage.json`` cannot be read.
            BadInput: it was written by a newer version.
        """
        path = self.place(key) / RECORD
        try:
            record = json.loads(path.read_text("utf-8"))
            version = record["version"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise Damaged(f"{path} cannot be read") from error
        if version != VERSION:
            raise BadInput(f"{path} has format {version!r}, this understudy reads format {VERSION}.")
        if not is_record(record, key):
            raise Damaged(f"{path} does not say what a finished stage {key} says, or was changed")
        return Result(key=key, folder=path.parent, record=record)

    def check(self, result: Result) -> None:
        """Reads every file of a result against its checksum.

        Raises:
            Damaged: a file is missing or differs; the message names it.
        """
        for name in result.record["files"]:
            self._checked(result, name)

    def weights(self, result: Result) -> dict[str, Tensor]:
        """The weights of a finished stage, checked.

        Raises:
            Damaged: the file is missing or differs.
        """
        return self.tensors(result, WEIGHTS)

    def outputs(self, result: Result) -> dict[str, Tensor]:
        """What the finished stage answered, once, at its last step: ``validation`` and ``test`` logits
        ``(samples, classes)`` float32 with ``validation_labels`` and ``test_labels`` ``(samples,)``.

        Raises:
            Damaged: the file is missing or differs.
        """
        return self.tensors(result, OUTPUTS)

    def artefacts(self, result: Result) -> dict[str, Tensor]:
        """What the stage's method keeps beside the weights; empty where it keeps nothing.

        Raises:
            Damaged: the file is missing or differs.
        """
        return self.tensors(result, ARTEFACTS) if ARTEFACTS in result.record["files"] else {}

    def tensors(self, result: Result, name: str) -> dict[str, Tensor]:
        """A checked safetensors file of a result."""
        from safetensors.torch import load

        return load(self._checked(result, name))

    def used(self, result: Result) -> None:
        """Notes that a result is still of use, for ``gc`` by age."""
        with contextlib.suppress(OSError):
            os.utime(result.folder / RECORD)

    def _checked(self, result: Result, name: str) -> bytes:
        path = result.folder / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise Damaged(f"{path} cannot be read ({error.strerror})") from error
        if files.sha256_of_bytes(content) != result.record["files"][name]["sha256"]:
            raise Damaged(f"{path} does not have the checksum written in {RECORD}")
        return content

    # --- writing ------------------------------------------------------------------------------------------------

    def finish(
        self, key: str, record: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]
    ) -> Result:
        """Writes a stage's files and, last of all, the ``stage.json`` that makes it complete.

        Args:
            key: the stage's key; the caller holds its lock.
            record: what ``stage.json`` says beside version, key and checksums.
            tensors: file name to named tensors.

        Raises:
            CannotWrite: the disk is full or read-only; the stage stays unfinished and its checkpoint is kept.
        """
        from safetensors.torch import save

        place = self.place(key)
        checksums: dict[str, dict[str, Any]] = {}
        for name, named in tensors.items():
            # clone: safetensors refuses two names of one storage (tied weights)
            content = save({n: t.detach().cpu().contiguous().clone() for n, t in named.items()})
            files.write_bytes(place / name, content)
            checksums[name] = {"sha256": files.sha256_of_bytes(content), "bytes": len(content)}
        metrics = place / METRICS
        if metrics.exists():
            checksums[METRICS] = {"sha256": files.sha256_of_file(metrics), "bytes": metrics.stat().st_size}
        # through JSON first: the checksum is of what a reader will find
        whole = sealed(json.loads(json.dumps({"version": VERSION, "key": key, **record, "files": checksums})))
        files.write_json(place / RECORD, whole)
        shutil.rmtree(place / CHECKPOINTS, ignore_errors=True)
        return Result(key=key, folder=place, record=whole)

    def set_aside(self, key: str) -> Path:
        """Moves a damaged stage out of the way, so that it is made again; nothing is deleted.

        Returns:
            where it lies now.
        """
        target = self.folder / "damaged" / f"{key}-{uuid.uuid4().hex[:8]}"
        with files.explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            self.place(key).rename(target)
        return target

    # --- listing ------------------------------------------------------------------------------------------------

    def keys(self) -> list[str]:
        """Keys of all stages, finished or not, sorted."""
        if not self.stages.is_dir():
            return []
        return sorted(path.name for path in self.stages.iterdir() if path.is_dir())

    def find(self, start: str) -> str:
        """The one key that begins with ``start``.

        Raises:
            BadInput: none or several do.
        """
        found = [key for key in self.keys() if key.startswith(start)]
        if len(found) != 1:
            what = "no stage" if not found else f"{len(found)} stages"
            raise BadInput(
                f"{what} in {self.folder} begins with {start!r}; `understudy store ls` lists the keys."
            )
        return found[0]
