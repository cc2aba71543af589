"""The first layer where an exported file computes something else than the network that it was made from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from understudy.deploy.capture import LOGITS, captured, deployable, layer_of, operator_of, shown
from understudy.deploy.runs import Run
from understudy.errors import BadInput
from understudy.models.preprocessing import Preprocessing

TOLERANCE = 1e-3
"""Largest difference of two values, as a share of the largest magnitude: float32 leaves about a thousandth of that."""


def first_parting(
    model: nn.Module,
    run: Run,
    images: Tensor,
    *,
    preprocessing: Preprocessing | None = None,
    tolerance: float = TOLERANCE,
) -> str:
    """Compares the values inside, one operator after the other, and says in words where they part.

    The network is captured again as for an export; a file has its values under the same names, so far as its format
    keeps them.

    Args:
        model: what the file was made from.
        run: the file.
        images: ``(batch, channels, height, width)`` float32, as the file takes them.
        preprocessing: where it is a part of the file.
        tolerance: a layer parts whose values differ by more than this share of their largest magnitude.
    """
    size = (images.shape[2], images.shape[3])
    try:
        ready = deployable(model, channels=images.shape[1], size=size, preprocessing=preprocessing)
        program = captured(ready, channels=images.shape[1], size=size)
    except BadInput:
        return "Which layer parts cannot be found out, as the network cannot be captured."
    noted = _Noted(program)
    noted.run(images)
    compared, worst, where = 0, 0.0, ""
    for name, value in run.values(images):
        node, ours = noted.values.get(name, (None, value))
        if node is None or ours.shape != value.shape:
            continue
        compared += 1
        difference = _difference(ours, value)
        at = f"at {shown(layer_of(node))} ({operator_of(node)})"
        if difference > tolerance:
            return f"They part first {at}, where values differ by {difference:.2g} of the largest."
        if difference > worst:
            worst, where = difference, at
    if not compared:
        return "Which layer parts cannot be seen: the file names no values that the network has."
    if not worst:
        return f"All {compared} values inside that can be compared are the same; they part after those."
    return f"No layer parts by itself: they are furthest apart {where}, by {worst:.2g} of the largest value."


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """As a share of the largest magnitude of ``ours``; infinite where ``theirs`` is not finite and ``ours`` is."""
    finite = torch.isfinite(ours)
    if not bool(torch.isfinite(theirs[finite]).all()):
        return float("inf")
    if not bool(finite.any()):
        return 0.0
    largest = float(ours[finite].abs().max())
    apart = float((ours[finite] - theirs[finite]).abs().max())
    return apart / largest if largest else apart


class _Noted(torch.fx.Interpreter):
    """Runs a program and keeps each value by name, with the operator that it is from."""

    def __init__(self, program: Any) -> None:
        super().__init__(program.module())
        self.values: dict[str, tuple[Any, Tensor]] = {}

    @torch.no_grad()
    def run(self, *args: Any, **kwargs: Any) -> Any:
        return super().run(*args, **kwargs)

    def run_node(self, n: torch.fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "call_function" and isinstance(value, Tensor) and value.is_floating_point():
            self.values[n.name] = (n, value.clone())  # a later operator may write into it
        if n.op == "output":  # the one value that a file may have under a name of its own
            (last,) = (given.name for given in n.all_input_nodes)
            self.values[LOGITS] = self.values[last]
        return value
