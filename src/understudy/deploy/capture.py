"""A network as torch.export sees it: the program from which every target is written."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from understudy.deploy.prepared import INSIDE, WithPreprocessing
from understudy.errors import BadInput
from understudy.models.folding import folded
from understudy.models.limits import check_shapes
from understudy.models.preprocessing import Preprocessing
from understudy.models.weights import first_line

IMAGES = "images"
LOGITS = "logits"


def deployable(
    model: nn.Module, *, channels: int, size: tuple[int, int], preprocessing: Preprocessing | None = None
) -> nn.Module:
    """The network as it goes into a file: a copy on the CPU, float32, eval mode, batch normalisation folded.

    Args:
        size: height and width of the images that the file will take.
        preprocessing: to be a part of it; None: the file takes normalised images.

    Raises:
        BadInput: impossible shapes, or statistics for another number of channels.
    """
    check_shapes(classes=2, channels=channels, size=size)
    if preprocessing is not None and len(preprocessing.mean) != channels:
        raise BadInput(
            f"the preprocessing has mean and std of {len(preprocessing.mean)} channels, and the images have {channels}."
        )
    seen = size if preprocessing is None else preprocessing.size or size
    try:
        plain = copy.deepcopy(model).to("cpu", torch.float32).eval().requires_grad_(False)
    except Exception as error:  # whatever an object raises that is not made to be copied
        raise BadInput(
            f"{type(model).__name__} cannot be copied ({first_line(error)}), so it cannot be written into a file."
        ) from error
    network = folded(plain, torch.randn(2, channels, *seen, generator=torch.Generator().manual_seed(0)))
    return network if preprocessing is None else WithPreprocessing(network, preprocessing, image=size).eval()


def captured(model: nn.Module, *, channels: int, size: tuple[int, int], any_batch: bool = True) -> Any:
    """The ``torch.export.ExportedProgram`` of a network that ``deployable`` gave.

    Args:
        any_batch: batches of any length; otherwise one image.

    Raises:
        BadInput: the network cannot be captured; the layer is named where that can be found out.
    """
    batch = 2 if any_batch else 1
    images = torch.zeros(batch, channels, *size)
    try:
        with torch.no_grad():
            answer = model(images)
    except Exception as error:  # whatever a forward method does with an image of the wrong shape
        raise BadInput(
            f"the network cannot be run on {channels}-channel images of {size[0]}x{size[1]}: {first_line(error)}."
        ) from error
    if not isinstance(answer, Tensor) or answer.ndim != 2 or len(answer) != batch:
        shape = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise BadInput(
            f"the network answers {batch} images with {shape}; a file is written of one that gives (batch, classes)."
        )
    shapes = ({0: torch.export.Dim("batch")},) if any_batch else None
    try:
        # when it fails, torch prints the half of the graph that it has
        with quiet(), torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
            program = torch.export.export(model, (images,), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch's tracing raises errors of a dozen kinds
        raise BadInput(_in_words(error, model)) from error
    for node in program.graph.nodes:
        node.meta.pop(
            "stack_trace", None
        )  # lines of the code of whoever exports: not for those who get the file
    return program


def layer_of(node: Any) -> str:
    """The dotted name of the layer that an operator of a program belongs to; empty for the network itself."""
    stack = node.meta.get("nn_module_stack") or {}
    return next((str(name) for name, _ in reversed(stack.values())), "")


def operator_of(node: Any) -> str:
    """``aten.special_bessel_j0`` of a node of a program.

    >>> from types import SimpleNamespace
    >>> operator_of(SimpleNamespace(target="aten.relu.default"))
    'aten.relu'
    """
    name = str(node.target)
    return name.removesuffix(".default")


def shown(layer: str) -> str:
    """A layer's name as whoever wrote the network knows it.

    >>> shown("network.head"), shown(""), shown("stem@1")
    ("layer 'head'", "the network's own forward method", "layer 'stem'")
    """
    name = layer.removeprefix(INSIDE).partition("@")[0]
    if name in ("", INSIDE.rstrip(".")):
        return "the network's own forward method"
    return f"layer {name!r}"


def node_of(error: BaseException) -> Any:
    """The operator that a converter worked on when ``error`` arose; None where it did not say."""
    found = None
    for local in _locals(error):
        for name in ("node", "n"):
            if isinstance(local.get(name), torch.fx.Node):
                found = local[name]
    return found


def module_of(error: BaseException, model: nn.Module) -> str | None:
    """The name of the innermost layer whose code ran when ``error`` arose."""
    names = {id(module): name for name, module in model.named_modules()}
    found = None
    for local in _locals(error):
        found = names.get(id(local.get("self")), found)
    return found


def _locals(error: BaseException) -> Iterator[dict[str, Any]]:
    """Variables of every function that ``error`` came through, the causes' last."""
    while True:
        trace = error.__traceback__
        while trace is not None:
            yield trace.tb_frame.f_locals
            trace = trace.tb_next
        before = error.__cause__ or error.__context__
        if before is None:
            return
        error = before


def _in_words(error: Exception, model: nn.Module) -> str:
    """What a failed capture comes from, and what to change."""
    if "Constraints violated" in str(error):
        return (
            "the network takes batches of one length only: somewhere in it the number of images is written down, "
            "as in x.view(2, -1). Write x.flatten(1) or x.view(len(x), -1) there."
        )
    layer = module_of(error, model)
    at = "" if layer is None else f" at {shown(layer)}"
    if "data-dependent" in str(error):
        return (
            f"torch.export cannot capture the network{at}: what it does next depends on the values of its images. "
            f"Only their shapes may decide that; torch.where chooses between values."
        )
    return f"torch.export cannot capture the network{at}: {first_line(error)}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters do not talk inside: no warnings, no log lines below errors."""
    loggers = [
        logging.getLogger(name)
        for name in ("torch", "torch.onnx", "torch.export", "torch.fx", "onnxscript", "torchao")
    ]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a deprecation inside an exporter nobody here can do anything
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
