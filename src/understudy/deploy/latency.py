"""How long a network takes for one image on this machine: measured, never guessed."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from understudy import __version__
from understudy.deploy.hardware import hardware
from understudy.errors import BadInput, StageFailed, UnderstudyError

REPEAT = 200
VERSION = 1  # of what as_dict gives
_MOST_THREADS = 1024
_MOST_RUNS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Runs of one network on one image, one after the other, in a process of its own.

    Attributes:
        file: what was measured.
        bytes: of it, with what lies in files beside it; of a run, its student's weights.
        runtime: what ran it, and its version.
        input: shape of the image.
        threads: that one run might use.
        warm_up: runs before those that are counted.
        seconds: of each run.
        memory_before: of the process, in bytes, with the runtime loaded and the file not yet; None: the system
            does not say.
        memory_peak: the highest, with the file open and run.
        hardware: see ``understudy.deploy.hardware``.
    """

    file: str
    bytes: int
    runtime: str
    runtime_version: str
    input: tuple[int, ...]
    threads: int
    warm_up: int
    seconds: tuple[float, ...]
    memory_before: int | None
    memory_peak: int | None
    hardware: Mapping[str, Any]

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def p95(self) -> float:
        """Seconds that 95 % of the runs do not exceed."""
        return sorted(self.seconds)[math.ceil(0.95 * len(self.seconds)) - 1]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, with versions."""
        versions = {
            "understudy": __version__,
            "python": platform.python_version(),
            self.runtime: self.runtime_version,
        }
        return {
            "version": VERSION,
            **asdict(self),
            "median": self.median,
            "p95": self.p95,
            "versions": versions,
        }


def latency(
    path: Path,
    *,
    threads: int = 1,
    repeat: int = REPEAT,
    image: tuple[int, int, int] | None = None,
) -> Latency:
    """Measures a file or a run's student on one image of noise.

    Args:
        path: an ``.onnx`` file (run by onnxruntime), a ``.pt2`` file or a run's folder (both run by torch).
        threads: that one run may use.
        repeat: runs that are counted; a tenth as many, at least 10, go before them.
        image: channels, height and width, where the file does not say them.

    Raises:
        BadInput: another format, a file that cannot be run, an image that is not known, impossible numbers.
        MissingExtra: onnxruntime is not installed.
        StageFailed: the measuring process ended without an answer.
    """
    check(path, threads=threads, repeat=repeat)
    warm_up = max(10, repeat // 10)
    asked = {"path": str(path), "threads": threads, "repeat": repeat, "warm_up": warm_up, "image": image}
    alone = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    # -P: a file torch.py in the folder where the command is called is not meant
    command = [sys.executable, "-P", "-m", "understudy.deploy.stopwatch", json.dumps(asked)]
    ended = subprocess.run(command, env=alone, capture_output=True, text=True, check=False)
    try:
        found = json.loads(ended.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        last = next(iter(reversed(ended.stderr.strip().splitlines())), "it said nothing")
        raise StageFailed(
            f"the process that measured {path} ended with status {ended.returncode}: {last[:200]}"
        ) from error
    if "error" in found:
        raise _again(found)
    return Latency(
        file=str(path),
        bytes=size_of(path),
        runtime=found["runtime"]["name"],
        runtime_version=found["runtime"]["version"],
        input=tuple(found["input"]),
        threads=threads,
        warm_up=warm_up,
        seconds=tuple(found["seconds"]),
        memory_before=found["memory"]["before"],
        memory_peak=found["memory"]["peak"],
        hardware=hardware(),
    )


def check(path: Path, *, threads: int, repeat: int) -> None:
    """Raises BadInput for what needs no process to be refused."""
    if not 1 <= threads <= _MOST_THREADS:
        raise BadInput(f"--threads is a whole number from 1 to {_MOST_THREADS}; got {threads}.")
    if not 1 <= repeat <= _MOST_RUNS:
        raise BadInput(f"--repeat is a whole number from 1 to {_MOST_RUNS}; got {repeat}.")
    if not path.exists():
        raise BadInput(f"there is no {path} to measure. Check the path.")
    if path.is_dir() or path.suffix.lower() in (".onnx", ".pt2"):
        return
    hint = " On the device, ExecuTorch's own executor_runner measures it." if path.suffix == ".pte" else ""
    raise BadInput(
        f"{path} cannot be measured here; possible: .onnx (onnxruntime), .pt2 (torch), a run's folder (torch).{hint}"
    )


def size_of(path: Path) -> int:
    """Bytes of a file and of what it keeps in other files; of a run, those of its student's weights."""
    if path.is_dir():
        from understudy.deploy.student import WEIGHTS

        path = path / WEIGHTS
    size: int = path.stat().st_size
    if path.suffix.lower() != ".onnx":
        return size
    try:
        import onnx
    except ImportError:
        return size
    described = onnx.load(path, load_external_data=False)
    tensors = (entry for tensor in described.graph.initializer for entry in tensor.external_data)
    outside = {path.parent / entry.value for entry in tensors if entry.key == "location"}
    return size + sum(int(file.stat().st_size) for file in outside if file.is_file())


def _again(found: Mapping[str, Any]) -> UnderstudyError:
    """The measuring process's error, raised here as it would have been without that process."""
    kind = BadInput if found["status"] == BadInput.exit_status else UnderstudyError
    return kind(found["error"])
