"""Optimisers by name, over everything that is trained."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import nn

from understudy.errors import suggestion
from understudy.training.settings import Training


def build_optimizer(
    training: Training, modules: Iterable[nn.Module], *, no_decay: Iterable[str] = ()
) -> torch.optim.Optimizer:
    """An optimiser of all parameters of ``modules`` (the student first, then what a method trains beside it).

    On a GPU it moves all weights in one kernel (torch's ``fused``), which rounds otherwise than the form on the CPU.

    Args:
        training: optimiser, rate, momentum, decay.
        modules: each parameter is taken once, in order.
        no_decay: names of parameters of the first module that decay leaves alone, beside those that
            ``training.decay`` leaves alone.

    Raises:
        ValueError: ``no_decay`` names a parameter that the first module does not have.
    """
    listed_modules = list(modules)
    # All names of a parameter count, not only its first: tied weights have several.
    named = dict(listed_modules[0].named_parameters(remove_duplicate=False)) if listed_modules else {}
    apart = set()
    for name in no_decay:
        if name not in named:
            raise ValueError(
                f"no_decay names {name!r}, which is no parameter of the student.{suggestion(name, named)}"
            )
        apart.add(id(named[name]))
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    seen: set[int] = set()
    for module in listed_modules:
        for parameter in module.parameters():
            if id(parameter) in seen or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            spare = id(parameter) in apart or (training.decay == "weights" and parameter.ndim < 2)
            (spared if spare else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": training.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # fused: only where all is on the GPU already; None leaves it to torch, as ever on the CPU
    on_gpu = all(one.device.type == "cuda" and one.is_floating_point() for one in [*decayed, *spared])
    fused = True if on_gpu and groups else None
    built: torch.optim.Optimizer
    if training.optimizer == "sgd":
        sgd = _without_compiler(torch.optim.SGD)
        built = sgd(
            groups, lr=training.lr, momentum=training.momentum, nesterov=training.nesterov, fused=fused
        )
        if fused and training.momentum:
            # a fused step wants the momentum of every parameter or of none, and some get their first gradient late
            for parameter in (*decayed, *spared):
                built.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    else:
        built = _without_compiler(torch.optim.AdamW)(
            groups, lr=training.lr, betas=(training.momentum, 0.999), fused=fused
        )
    return built


@cache
def _without_compiler(kind: type[Any]) -> type[Any]:
    """An optimiser that does not import torch's compiler, three seconds of CPU in each process that trains.

    ``step`` imports it in order to break the compiler's graph, which nobody makes here, and then does its work without
    gradients; other members have a wrapper that imports it at their first call. Both are passed by, the work is the
    same. A torch that wraps otherwise is used as it is.
    """
    for member in vars(torch.optim.Optimizer).values():
        plain = getattr(member, "__wrapped__", None)
        if (
            plain is not None
            and "torch._dynamo" not in sys.modules
            and not hasattr(plain, "__dynamo_disable")
        ):
            plain.__dynamo_disable = plain
    step = kind.step
    while hasattr(step, "__wrapped__"):
        step = step.__wrapped__
    return type(kind.__name__, (kind,), {"step": torch.no_grad()(step)})
