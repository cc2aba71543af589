"""What a measurement was made on."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path


def hardware() -> dict[str, object]:
    """Board, processor and cores of this machine, as far as it says.

    ``cores`` are those that this process may use.
    """
    board = ""
    with contextlib.suppress(OSError):  # what a Raspberry Pi and its kin are called
        board = Path("/proc/device-tree/model").read_text("utf-8", errors="replace").strip("\0 \n")
    processor = platform.processor()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        named = (line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
        processor = next(named, processor)
    affinity = getattr(os, "sched_getaffinity", None)
    said: dict[str, object] = {
        "processor": processor or "unknown",
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
    }
    return {"board": board, **said} if board else said
