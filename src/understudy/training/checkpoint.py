"""Checkpoints without pickle: one safetensors file, whole, with its checksum in its name."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from understudy.store import files

VERSION = 1


def pack(tree: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """Splits nested dicts, lists and tuples into tensors by path and a JSON value with references to them.

    Raises:
        TypeError: something that is neither tensor nor JSON.

    >>> tensors, rest = pack({"step": 3, "momentum": [torch.zeros(2)]})
    >>> list(tensors), rest
    (['/momentum/0'], {'dict': [['step', 3], ['momentum', {'list': [{'tensor': '/momentum/0'}]}]]})
    """
    tensors: dict[str, torch.Tensor] = {}

    def walk(value: Any, path: str) -> Any:
        if isinstance(value, torch.Tensor):
            while path in tensors:  # {"a/b": ..., "a": {"b": ...}} and {1: ..., "1": ...} lead to one path
                path += "'"
            # clone: two names of one storage are two tensors in the file
            tensors[path] = value.detach().cpu().contiguous().clone()
            return {"tensor": path}
        if isinstance(value, dict):
            if not all(isinstance(key, str | int) for key in value):
                raise TypeError(f"names in a checkpoint are strings or whole numbers; got {list(value)!r}")
            return {"dict": [[key, walk(entry, f"{path}/{key}")] for key, entry in value.items()]}
        if isinstance(value, list | tuple):
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: [walk(entry, f"{path}/{i}") for i, entry in enumerate(value)]}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"a checkpoint cannot hold {type(value).__name__} at {path or '/'}")

    return tensors, walk(tree, "")


def unpack(tensors: dict[str, torch.Tensor], value: Any) -> Any:
    """The tree that ``pack`` took apart."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: unpack(tensors, entry) for key, entry in content}
    entries = [unpack(tensors, entry) for entry in content]
    return entries if kind == "list" else tuple(entries)


def write(folder: Path, tree: Any, *, step: int) -> Path:
    """Writes a checkpoint and then removes older ones; the newest whole one is there at every moment.

    Args:
        folder: of this stage's checkpoints.
        tree: nested dicts, lists, tuples of tensors and JSON values.
        step: batches done; decides which of several is newest.

    Raises:
        CannotWrite: the disk is full or read-only; the checkpoint before is kept.
    """
    tensors, rest = pack(tree)
    # Scalars of the optimiser are 0-d tensors; safetensors holds them. An empty file needs one tensor at least.
    content = save(
        tensors or {"/nothing": torch.zeros(1)}, metadata={"version": str(VERSION), "tree": json.dumps(rest)}
    )
    path = folder / f"{step:09d}-{files.sha256_of_bytes(content)[:16]}.safetensors"
    files.write_bytes(path, content)
    for other in folder.iterdir():
        if other != path:
            with contextlib.suppress(OSError):
                other.unlink()
    return path


def read(folder: Path, *, damaged: Callable[[Path], None] = lambda path: None) -> Any | None:
    """The newest whole checkpoint, or None.

    Args:
        folder: of this stage's checkpoints.
        damaged: called with each file that does not have the checksum in its name; it is passed over.
    """
    if not folder.is_dir():
        return None
    for path in sorted(folder.glob("[0-9]*.safetensors"), reverse=True):
        content = path.read_bytes()
        if files.sha256_of_bytes(content)[:16] != path.stem.partition("-")[2]:
            damaged(path)
            continue
        tensors = load(content)
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size])["__metadata__"]
        if metadata.get("version") != str(VERSION):
            continue  # of another format: the stage begins again
        return unpack(tensors, json.loads(metadata["tree"]))
    return None
