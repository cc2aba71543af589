"""Answers of a network on images without augmentation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from understudy.data.batches import batches, plain_order
from understudy.data.dataset import Split
from understudy.data.views import PLAIN
from understudy.models.preprocessing import Preprocessing


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, and afterwards every module in the mode it had before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def outputs(
    model: nn.Module,
    split: Split,
    *,
    preprocessing: Preprocessing,
    device: str = "cpu",
    batch_size: int = 256,
    workers: int = 0,
    autocast: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    stop: Callable[[], None] = lambda: None,
) -> Tensor:
    """Logits ``(samples, classes)`` float32 on the CPU, in the order of the split, on plain views.

    Args:
        model: is in the same mode afterwards as before.
        split: what to answer.
        preprocessing: the model's.
        device: where the model is.
        batch_size: images at once; never one alone unless the split has only one.
        workers: loader processes for streamed data.
        autocast: the stage's number format.
        stop: called between batches; may raise to end the evaluation.
    """
    answers = []
    with evaluating(model):
        for batch in batches(split, PLAIN, plain_order(len(split), batch_size), workers=workers):
            stop()
            pixels = batch.pixels.to(device, non_blocking=True)
            with autocast():
                answers.append(model(preprocessing(pixels)).float().cpu())
    return torch.cat(answers) if answers else torch.zeros(0, 0)
