"""A process that measures one network and ends: ``python -m understudy.deploy.stopwatch``, called by ``latency``.

A process of its own, so that its memory is the network's and its runtime's alone. Nothing is imported but what runs it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from understudy.errors import BadInput, UnderstudyError, listed

Run = Callable[[], object]
Image = list[int] | None  # channels, height, width


def measured(path: Path, *, threads: int, repeat: int, warm_up: int, image: Image) -> dict[str, Any]:
    """Seconds of each run on one image, and this process's memory in bytes.

    Args:
        path: an ``.onnx`` or ``.pt2`` file, or the folder of a run.
        threads: that one run may use.
        repeat: runs that are timed.
        warm_up: runs before those.
        image: channels, height and width; None: as the file says.

    Raises:
        BadInput: a file that cannot be run, or that does not say how large its images are.
        MissingExtra: onnxruntime is not installed.
    """
    kind = path.suffix.lower()
    if kind == ".onnx":
        name, version, ready = _onnxruntime()
    else:
        name, version, ready = _torch(threads, program=kind == ".pt2")
    before = _memory_before()
    run, shape = ready(path, threads, image)
    for _ in range(warm_up):
        run()
    seconds = []
    gc.disable()
    try:
        for _ in range(repeat):
            began = time.perf_counter_ns()
            run()
            seconds.append((time.perf_counter_ns() - began) / 1e9)
    finally:
        gc.enable()
    return {
        "runtime": {"name": name, "version": version},
        "input": shape,
        "seconds": seconds,
        "memory": {"before": before, "peak": _memory_peak()},
    }


def _onnxruntime() -> tuple[str, str, Callable[[Path, int, Image], tuple[Run, list[int]]]]:
    import numpy as np

    from understudy.deploy.onnx_sessions import images_of, onnx_session, onnxruntime_version

    def ready(path: Path, threads: int, image: Image) -> tuple[Run, list[int]]:
        session = onnx_session(path, source=str(path), threads=threads)
        name, taken = images_of(session, source=str(path))
        shape = one_image(taken, image, source=str(path))
        images = {name: np.random.default_rng(0).standard_normal(shape, dtype=np.float32)}
        outputs = [one.name for one in session.get_outputs()]
        try:
            session.run(outputs, images)
        except Exception as error:  # onnxruntime's exceptions have no base of their own
            reason = " ".join(str(error).split())[:200]
            raise BadInput(f"{path} cannot be run on an image of shape {tuple(shape)}: {reason}") from error
        return lambda: session.run(outputs, images), shape

    return "onnxruntime", onnxruntime_version(), ready


def _torch(
    threads: int, *, program: bool
) -> tuple[str, str, Callable[[Path, int, Image], tuple[Run, list[int]]]]:
    import torch

    # all code is loaded before memory is looked at
    from understudy.deploy.student import read_student
    from understudy.deploy.torch_programs import shapes_of
    from understudy.models.exported_programs import ExportedNetwork
    from understudy.models.file_checks import content_of

    torch.set_num_threads(threads)

    def ready(path: Path, threads: int, image: Image) -> tuple[Run, list[int]]:
        network: Callable[[torch.Tensor], object]
        if program:
            content = content_of(path)
            taken, given = shapes_of(content, source=str(path))
            shape = one_image(taken, image, source=str(path))
            if len(shape) != 4 or len(given) != 2 or given[1] is None:
                raise BadInput(
                    f"{path} takes {_shown(taken)} and gives {_shown(given)}; images to logits are run."
                )
            network = ExportedNetwork(
                content, source=str(path), classes=given[1], channels=shape[1], size=(shape[2], shape[3])
            ).eval()
        else:
            student = read_student(path)
            shape = one_image([None, student.channels, *student.size], image, source=str(path))
            network = student.model
        images = torch.randn(shape, generator=torch.Generator().manual_seed(0))

        def run() -> object:
            with torch.inference_mode():
                return network(images)

        return run, shape

    return "torch", torch.__version__, ready


def one_image(taken: list[int | None], image: Image, *, source: str) -> list[int]:
    """The shape of a batch of one image.

    Args:
        taken: what a file takes; None where any length will do.
        image: channels, height and width as a person said; None: as the file says.

    Raises:
        BadInput: the file does not say it and nobody did, or they differ, or it takes larger batches only.

    >>> one_image([None, 3, 32, 32], None, source="a.onnx")
    [1, 3, 32, 32]
    """
    if not taken or taken[0] not in (None, 1):
        raise BadInput(
            f"{source} takes {_shown(taken)}: batches of one image cannot be measured. Export it again."
        )
    if image is None:
        if None in taken[1:]:
            raise BadInput(
                f"{source} takes {_shown(taken)} and does not say how large its images are: add --input, such as "
                f"--input 3x224x224."
            )
        return [1, *(length or 0 for length in taken[1:])]
    if len(taken) != 4 or any(a not in (None, b) for a, b in zip(taken[1:], image, strict=True)):
        raise BadInput(f"{source} takes {_shown(taken)}; --input {'x'.join(map(str, image))} does not fit.")
    return [1, *image]


def _shown(shape: list[int | None]) -> str:
    return f"({listed('any' if length is None else length for length in shape)})"


def _memory_before() -> int | None:
    """Bytes that are held now; from here on the highest mark is counted anew, where the system can do that."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    return _status("VmRSS")


def _memory_peak() -> int | None:
    found = _status("VmHWM")
    if found is not None or sys.platform == "win32":
        return found
    # not on Linux, where a child begins with the mark of the process that started it
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(key: str) -> int | None:
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123
        for line in file:
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return None


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    try:
        said = measured(Path(asked.pop("path")), **asked)
    except UnderstudyError as error:
        said = {"error": str(error), "status": error.exit_status}
    print(json.dumps(said))
