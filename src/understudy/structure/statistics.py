"""Batch-norm statistics measured anew, for a network whose channels changed or whose scales moved fast."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def renew_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replaces the running means and variances of all batch norms by their mean over ``batches``, in place.

    During a structure search they lag behind: scales that fall step by step change what later layers see, and the
    running averages remember earlier steps. A network that was cut to its budget is judged by such statistics far below
    what it can do. All other modules are in eval mode meanwhile, and every mode is put back afterwards.

    Args:
        model: with or without batch norms; norms that keep no statistics are passed by.
        batches: images as the network takes them, of two or more each, on its device. A few hundred are enough.

    Raises:
        ValueError: there is no batch.
    """
    modes = [(module, module.training) for module in model.modules()]
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    momenta = [norm.momentum for norm in norms]
    seen = 0
    try:
        model.eval()
        for norm in norms:
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over all batches
        for images in batches:
            model(images)
            seen += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
    if not seen:
        raise ValueError("statistics are measured on one batch or more; got none")
