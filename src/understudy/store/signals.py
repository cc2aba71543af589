"""What teachers said: one folder for each teacher and way of looking, one memory-mapped file a view (or block of it)."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.errors import BadInput, Damaged, UnderstudyError
from understudy.store import files
from understudy.store.keys import canonical, hash_of_tensors
from understudy.store.results import Store, sealed

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
RECORD = "signals.json"
BLOCK_ROWS = 1 << 14
BLOCK_BYTES = 16 << 20  # a block is held in memory while it is made
LOCKS = 16  # views of a folder share this many lock files
_NAME = re.compile(r"view-([0-9]{6,})-block-([0-9]{5,})\.safetensors")


class Unreadable(UnderstudyError):
    """A file that is there cannot be opened; it may be whole."""


def signals_folder(store: Store) -> Path:
    """Where all signals of a store lie."""
    return store.folder / "signals"


def check_version(folder: Path) -> None:
    """Refuses the signals in ``folder`` where another version wrote them.

    Raises:
        BadInput: they are of another format.
    """
    version = _version_in(folder)
    if version not in (None, VERSION):
        raise BadInput(
            f"the teacher signals in {folder} have format {version!r}, this understudy reads format {VERSION}. "
            f"Remove that folder (they are made again), or use the understudy that wrote them."
        )


def check_record(folder: Path) -> None:
    """Reads the ``signals.json`` in ``folder`` against its checksum; it may be missing.

    Raises:
        Damaged: it cannot be read or was changed.
        BadInput: it is of another format.
    """
    path = folder / RECORD
    check_version(folder)
    try:
        record = json.loads(path.read_text("utf-8"))
        whole = record == sealed(record)
    except FileNotFoundError:
        return
    except (OSError, ValueError, AttributeError) as error:
        raise Damaged(f"{path} cannot be read") from error
    if not whole:
        raise Damaged(f"{path} does not have the checksum written in it")


def _version_in(folder: Path) -> Any:
    """What the ``signals.json`` in ``folder`` says, None where it is missing or damaged: the files say it too."""
    try:
        return json.loads((folder / RECORD).read_text("utf-8"))["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True, kw_only=True)
class SignalFiles:
    """The kept answers of one teacher, on the views of one policy and view seed, to the samples of one split.

    A file holds the answers to a block of samples in one view: most sets are one block, larger ones several. It is
    written whole or not at all, says what it holds, and carries a checksum; whoever reads it gets exactly the rows
    that were written for this key, view and block, or an error.

    Attributes:
        store: where they lie, below ``signals/<key>``.
        key: hash of ``definition``.
        definition: teacher, data, views and numerics, in plain JSON.
        samples: of the split.
        row_bytes: that one sample takes, without headers.
        weights: checksum of the weights that answer; empty where they are not known yet, which is enough to find files
            and too little to read or write them. A teacher of one key that was trained anew elsewhere may have other ones.
    """

    store: Store
    key: str
    definition: Mapping[str, Any]
    samples: int
    row_bytes: int
    weights: str = ""

    @property
    def folder(self) -> Path:
        """Of these files."""
        return signals_folder(self.store) / self.key

    @property
    def block_rows(self) -> int:
        """Samples in a block; the last block may be smaller."""
        return max(1, min(BLOCK_ROWS, BLOCK_BYTES // self.row_bytes))

    @property
    def blocks(self) -> int:
        """How many make a view."""
        return math.ceil(self.samples / self.block_rows)

    @property
    def view_bytes(self) -> int:
        """Size of a whole view, to within its headers of about a kilobyte a block."""
        return self.samples * self.row_bytes

    def rows(self, block: int) -> range:
        """Samples of a block."""
        return range(block * self.block_rows, min((block + 1) * self.block_rows, self.samples))

    def path(self, view: int, block: int) -> Path:
        """The file of one block of view ``view``."""
        return self.folder / f"view-{view:06d}-block-{block:05d}.safetensors"

    def there(self, view: int, block: int) -> bool:
        """Whether it is kept, as far as its name tells."""
        return self.path(view, block).exists()

    def check_version(self) -> None:
        """Refuses signals that another version wrote.

        Raises:
            BadInput: they are of another format.
        """
        check_version(self.folder)

    @contextlib.contextmanager
    def lock(self, view: int) -> Iterator[bool]:
        """Yields True while this process alone may write ``view``, False at once where another one does."""
        with writer_lock(self.store, self.key, view) as mine:
            yield mine

    def write(self, view: int, block: int, tensors: Mapping[str, Tensor]) -> None:
        """Keeps the answers to one block, ``(rows, ...)`` each.

        Raises:
            CannotWrite: no space or right to write; nothing half-written is left.
        """
        from safetensors.torch import save

        rows = len(self.rows(block))
        if any(len(tensor) != rows for tensor in tensors.values()):
            raise ValueError(
                f"block {block} has {rows} rows; got {[len(tensor) for tensor in tensors.values()]}"
            )
        if _version_in(self.folder) is None:
            record = {"version": VERSION, "samples": self.samples, "definition": canonical(self.definition)}
            files.write_json(self.folder / RECORD, sealed(record))
        said = sealed({**self._said(view, block), "sha256": hash_of_tensors(tensors)})
        # one entry: several would come in another order each time
        metadata = {"understudy": json.dumps(said, sort_keys=True)}
        files.write_bytes(self.path(view, block), save(dict(tensors), metadata=metadata))

    def read(self, view: int, block: int) -> dict[str, Tensor]:
        """The answers to one block, memory-mapped and checked: they are read from the disk as they are looked at.

        Raises:
            FileNotFoundError: it is not kept.
            Damaged: it is truncated, or does not hold what was written for this key, weights, view and block.
            Unreadable: it cannot be opened.
            BadInput: another version wrote it.
        """
        path = self.path(view, block)
        tensors = _checked(path, self._said(view, block))
        with contextlib.suppress(OSError):
            os.utime(path)  # for gc by age
        return tensors

    def _said(self, view: int, block: int) -> dict[str, Any]:
        rows = self.rows(block)
        held = {"view": view, "block": block, "first": rows.start, "rows": len(rows)}
        return {"version": VERSION, "key": self.key, "weights": self.weights, **held}

    def discard(self, view: int, block: int) -> bool:
        """Takes away a file that cannot be read, so that it is made again; whether it did.

        Not while another process writes the view, nor what can be read by now, since another one made it again.

        Raises:
            CannotWrite: no right to.
        """
        with self.lock(view) as mine:
            if not mine:
                return False
            try:
                self.read(view, block)
            except Damaged:
                with files.explained(self.path(view, block)):
                    self.path(view, block).unlink(missing_ok=True)
                return True
            except FileNotFoundError:
                pass
            return False


def _checked(path: Path, expected: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a file, memory-mapped, once it says what is ``expected`` and has the checksums written in it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            said = json.loads((file.metadata() or {}).get("understudy", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    # safetensors says FileNotFoundError of every file that it cannot open, and RuntimeError where it cannot be mapped:
    # no memory, or removed between its two openings, one for the header and one to map it
    except (FileNotFoundError, RuntimeError) as error:
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
        raise Unreadable(f"{path} is there and cannot be opened ({' '.join(str(error).split())})") from error
    except (SafetensorError, OSError, ValueError) as error:
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
        raise Damaged(f"{path} cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(said, dict):
        raise Damaged(f"{path} does not say what it holds")
    if said.get("version") not in (None, expected["version"]):
        check_version(path.parent)
    named = {name: value for name, value in expected.items() if name != "weights"}
    if said != sealed(said) or {name: said.get(name) for name in named} != named:
        raise Damaged(f"{path} does not hold what its name says")
    if "weights" in expected and said.get("weights") != expected["weights"]:
        raise Damaged(f"{path} has answers of other weights than the teacher's, which was trained anew since")
    if said.get("sha256") != hash_of_tensors(tensors):
        raise Damaged(f"{path} does not have the checksum written in it")
    return tensors


@contextlib.contextmanager
def writer_lock(store: Store, key: str, view: int) -> Iterator[bool]:
    """Yields True while this process alone may write ``view`` of ``key``, False at once where another one does."""
    with store.lock(f"signals-{key}-{view % LOCKS}") as mine:
        yield mine


@dataclass(frozen=True, kw_only=True)
class BlockFile:
    """One file of signals as it lies in a store, whoever made it.

    Attributes:
        path: where it lies.
        key: of the folder it is in.
        view: that its name says.
        block: that its name says.
        bytes: its size.
        used: when it was last read or written, in seconds since 1970.
    """

    path: Path
    key: str
    view: int
    block: int
    bytes: int
    used: float

    def check(self) -> None:
        """Reads it against its name and its checksums; that it was looked at does not count as use.

        Raises:
            FileNotFoundError: it is gone.
            Damaged: it is truncated, or does not hold what its name says.
            Unreadable: it cannot be opened.
            BadInput: another version wrote it.
        """
        _checked(self.path, {"version": VERSION, "key": self.key, "view": self.view, "block": self.block})


def folders_of(store: Store) -> list[Path]:
    """The folder of each key, by name."""
    place = signals_folder(store)
    return sorted(path for path in place.iterdir() if path.is_dir()) if place.is_dir() else []


def block_files(folder: Path) -> list[BlockFile]:
    """The whole files in the folder of a key, by name."""
    found = []
    for path in sorted(folder.glob("view-*.safetensors")):
        if name := _NAME.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):  # another process removes
                at = path.stat()
                found.append(
                    BlockFile(
                        path=path,
                        key=folder.name,
                        view=int(name[1]),
                        block=int(name[2]),
                        bytes=at.st_size,
                        used=at.st_mtime,
                    )
                )
    return found


def size_of_signals(store: Store) -> int:
    """Bytes of all signals of a store."""
    total = 0
    for path in signals_folder(store).rglob("*.safetensors"):
        with contextlib.suppress(FileNotFoundError):  # another process removes
            total += path.stat().st_size
    return total


def free_bytes(store: Store) -> int:
    """Bytes that signals may still take on the store's disk: what is free, less a hundredth of the disk.

    Checkpoints and results matter more than signals, which can be made again; the rest is left for them.
    """
    there = next(place for place in (store.folder, *store.folder.parents) if place.exists())
    usage = shutil.disk_usage(there)
    return usage.free - usage.total // 100
