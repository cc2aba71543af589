"""Small finished and unfinished stages for the tests of the store."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from understudy.store import Result, Store
from understudy.store.results import CHECKPOINTS, METRICS, OUTPUTS, WEIGHTS

DAY = 86400.0


def key_for(number: int) -> str:
    """A key that no hash gives."""
    return f"{number:040x}"


def finished_stage(store: Store, number: int = 1, *, days: float = 0.0, values: int = 4) -> Result:
    """A finished stage with log, last used so many days ago."""
    key = key_for(number)
    store.place(key).mkdir(parents=True, exist_ok=True)
    (store.place(key) / METRICS).write_text('{"epoch": 1}\n')
    result = store.finish(
        key,
        {"name": f"stage {number}", "test": {"accuracy": 0.5}},
        {
            WEIGHTS: {"weight": torch.full((values,), float(number % 1000))},
            OUTPUTS: {"test": torch.zeros(2, 3), "test_labels": torch.tensor([0, 1])},
        },
    )
    aged(result.folder, days)
    return result


def unfinished_stage(store: Store, number: int, *, days: float = 0.0) -> Path:
    """A stage with a checkpoint, last written so many days ago."""
    folder = store.place(key_for(number))
    (folder / CHECKPOINTS).mkdir(parents=True)
    (folder / CHECKPOINTS / "000000001-0.safetensors").write_bytes(b"checkpoint")
    (folder / METRICS).write_text("")
    aged(folder, days)
    return folder


def aged(place: Path, days: float) -> None:
    """Makes everything in ``place`` so many days old."""
    then = time.time() - days * DAY
    for path in sorted([place, *place.rglob("*")], reverse=True):
        os.utime(path, (then, then))


def content_of(folder: Path) -> dict[str, bytes]:
    """All files below ``folder`` by name; locks, which hold nothing, apart."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def held_by_another_process(store: Store, holding: str) -> subprocess.Popen[bytes]:
    """A process that holds ``holding`` (an expression with ``store``) until its input ends or it is killed."""
    code = f"""
import sys
from understudy.store import Store

store = Store({str(store.folder)!r})
with {holding} as held:
    print(held, flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().strip() in (b"True", b"None"), "the lock was not free"
    return process
