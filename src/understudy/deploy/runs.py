"""Exported files, run as they are on images: what they answer, and what their inner values are."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from understudy.deploy.capture import quiet
from understudy.deploy.onnx_sessions import images_of, onnx_session
from understudy.deploy.targets import target_of
from understudy.deploy.torch_programs import TorchRun, checked
from understudy.errors import BadInput, MissingExtra, listed
from understudy.models.file_checks import content_of
from understudy.models.weights import first_line


class Run(Protocol):
    """A file that was opened."""

    def __call__(self, images: Tensor) -> Tensor:
        """Logits ``(batch, classes)`` float32 of ``(batch, channels, height, width)`` float32.

        Raises:
            BadInput: the file does not take these images.
        """
        ...

    def values(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Every value inside by name, in the order in which they are computed; none where the format hides them.

        Names are those of the program that ``torch.export`` captures, which its exporters keep.
        """
        ...


def opened(
    path: Path, *, classes: int, channels: int, size: tuple[int, int], threads: int = 1, source: str = ""
) -> Run:
    """A file ready to be run on the CPU.

    Args:
        classes: that its answers should have.
        size: height and width of the images that it will be given.
        threads: for onnxruntime; torch's are torch's.
        source: what to call the file in messages; its path unless said.

    Raises:
        BadInput: no such file, another format than its name says, damaged, or of other shapes.
        MissingExtra: what runs it is not installed.
    """
    target, source = target_of(path), source or str(path)
    if target == "onnx":
        return OnnxRun(content_of(path), source=source, classes=classes, threads=threads)
    if target == "torch":
        return TorchRun(content_of(path), source=source, classes=classes, channels=channels, size=size)
    return ExecutorchRun(path, source=source, classes=classes)


class OnnxRun:
    """An ONNX file in onnxruntime, on the CPU."""

    def __init__(self, content: bytes, *, source: str, classes: int, threads: int = 1) -> None:
        self._content, self._source, self._classes, self._threads = content, source, classes, threads
        self._session = onnx_session(content, source=source, threads=threads)
        self._input, _ = images_of(self._session, source=source)
        if len(self._session.get_outputs()) != 1:
            raise BadInput(f"{source} has {len(self._session.get_outputs())} outputs; a student has one.")

    def __call__(self, images: Tensor) -> Tensor:
        return checked(
            self._ran(self._session, images)[0], images, classes=self._classes, source=self._source
        )

    def values(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        import onnx

        described = onnx.load_model_from_string(self._content)
        names = [name for node in described.graph.node for name in node.output if name]
        own = {one.name for one in described.graph.output}
        # without a type, which onnxruntime finds out
        described.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in own)
        session = onnx_session(described.SerializeToString(), source=self._source, threads=self._threads)
        found = {
            one.name: value
            for one, value in zip(session.get_outputs(), self._ran(session, images), strict=True)
        }
        for name in names:
            if found[name].is_floating_point():
                yield name, found[name].float()

    def _ran(self, session: Any, images: Tensor) -> list[Tensor]:
        try:
            answers = session.run(None, {self._input: images.contiguous().numpy()})
        except Exception as error:
            raise BadInput(
                f"{self._source} cannot be run on images of shape {tuple(images.shape)}: {first_line(error)}"
            ) from error
        return [torch.from_numpy(answer) for answer in answers]


class ExecutorchRun:
    """An ExecuTorch program in its own runtime, one image at a time."""

    def __init__(self, path: Path, *, source: str, classes: int) -> None:
        self._source, self._classes = source, classes
        try:
            with quiet():
                from executorch.runtime import Runtime
        except ImportError as error:
            raise MissingExtra("running an ExecuTorch program", "executorch") from error
        try:
            with _without_stderr():
                self._program = Runtime.get().load_program(path)
                self._method = self._program.load_method("forward")
        except Exception as error:  # the runtime raises RuntimeError with its own numbers
            raise BadInput(f"ExecuTorch cannot run {source}: {first_line(error)}") from error

    def __call__(self, images: Tensor) -> Tensor:
        try:
            with _without_stderr():
                answers = [
                    self._method.execute([one.contiguous()])[0].clone() for one in torch.split(images, 1)
                ]
        except Exception as error:
            raise BadInput(
                f"{self._source} cannot be run on one image of shape (1, {listed(images.shape[1:])}): {first_line(error)}"
            ) from error
        return checked(torch.cat(answers), images, classes=self._classes, source=self._source)

    def values(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        return iter(())


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """The runtime's C++ tells the terminal what it finds out about the processor; what goes wrong it raises."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
