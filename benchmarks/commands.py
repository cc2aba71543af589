"""Whole commands: their CPU time with that of all processes they start, their memory, and what they leave on disk."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.results import ROOT
from benchmarks.turns import Watch, anonymous_bytes, bytes_in


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a command.

    Attributes:
        cpu: seconds, of it and all below it.
        wall: seconds.
        memory: bytes of anonymous memory of it and all below it, at most.
        disk: bytes by which the folder that was watched has grown.
        disk_most: the same, at most while it ran: with checkpoints.
        printed: what it wrote to standard output.
    """

    cpu: float
    wall: float
    memory: int
    disk: int
    disk_most: int
    printed: str

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "cpu_seconds": round(self.cpu, 2),
            "wall_seconds": round(self.wall, 2),
            "anonymous_megabytes": round(self.memory / 1e6, 1),
            "disk_megabytes": round(self.disk / 1e6, 2),
            "disk_megabytes_at_most": round(self.disk_most / 1e6, 2),
        }


def run(arguments: Sequence[str], *, watched: Path | None = None) -> Cost:
    """Runs ``python -m ARGUMENTS`` with one thread on one core.

    Raises:
        RuntimeError: it ends with another status than 0.
    """
    before = bytes_in(watched) if watched else 0
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        with _one_core():
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    "OPENBLAS_NUM_THREADS": "1",
                    "MKL_NUM_THREADS": "1",
                },
                stdout=output,
                stderr=errors,
            )

        def look() -> dict[str, int]:
            return {
                "memory": anonymous_bytes(process.pid),
                "disk": bytes_in(watched) if watched else 0,
            }

        with Watch(look, every=0.05) as watch:
            # not subprocess's own wait: only this one says what the process and its children used
            _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        printed = output.read().decode(errors="replace")
        if process.returncode:
            said = errors.read().decode(errors="replace")
            raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}:\n{printed}{said}")
    after = bytes_in(watched) if watched else 0
    return Cost(
        cpu=usage.ru_utime + usage.ru_stime,
        wall=wall,
        memory=watch.most.get("memory", 0),
        disk=after - before,
        disk_most=max(watch.most.get("disk", 0), after) - before,
        printed=printed,
    )


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """What is started inside has one core to itself, so that it does nothing ahead on another one."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def run_recipe(recipe: dict[str, Any], *, folder: Path, store: Path) -> Cost:
    """``understudy run`` of a recipe into a new folder; what is kept in ``store`` is not made again."""
    folder.mkdir(parents=True)
    store.mkdir(parents=True, exist_ok=True)
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return run(
        ["understudy", "run", str(file), "--out", str(folder / "run"), "--store", str(store), "--quiet"],
        watched=store,
    )
