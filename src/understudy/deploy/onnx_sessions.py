"""Opening an ONNX file in onnxruntime. Nothing here imports torch: what is measured must not carry it along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from understudy.errors import BadInput, MissingExtra


def onnx_session(file: bytes | Path, *, source: str, threads: int = 1) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU.

    Args:
        file: its content, or its path where it keeps data in other files beside it.
        source: what to call it in messages.
        threads: that one run may use.

    Raises:
        BadInput: no such file, or onnxruntime cannot run it.
        MissingExtra: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("running an ONNX file", "export") from error
    if isinstance(file, Path):
        try:
            empty = not file.stat().st_size
        except OSError as error:
            raise BadInput(f"{source} cannot be read ({error.strerror or error}). Check the path.") from error
        if empty:
            raise BadInput(f"{source} is empty: write it again.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # what goes wrong is raised
    try:
        return onnxruntime.InferenceSession(file, sess_options=options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no base of their own
        raise BadInput(f"onnxruntime cannot run {source}: {' '.join(str(error).split())[:200]}") from error


def images_of(session: Any, *, source: str) -> tuple[str, list[int | None]]:
    """Name and shape of the one input that a session has; None where any length will do.

    Raises:
        BadInput: it has several, or takes other numbers than float32.
    """
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise BadInput(
            f"{source} has {len(inputs)} inputs; only files that take one batch of images are run."
        )
    if inputs[0].type != "tensor(float)":
        raise BadInput(f"{source} takes {inputs[0].type}; only files that take tensor(float) are run.")
    return inputs[0].name, [length if isinstance(length, int) else None for length in inputs[0].shape]


def onnxruntime_version() -> str:
    """The version of onnxruntime.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("running an ONNX file", "export") from error
    return str(onnxruntime.__version__)
