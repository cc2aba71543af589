"""A method around another one: all that it does not answer itself, the inner one answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from understudy.teaching.method import Beginning, Method, Needs, Step, Survey

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn


class Around(Method):
    """Hands every question on to ``method``. Subclasses write ``definition``, ``for_stage`` and what differs.

    Attributes:
        method: the inner one.
    """

    method: Method

    @property
    def trains_student(self) -> bool:
        return self.method.trains_student

    def needs(self) -> Needs:
        return self.method.needs()

    def check(self, *, teachers: int) -> None:
        self.method.check(teachers=teachers)

    def begin(self, beginning: Beginning) -> None:
        self.method.begin(beginning)

    def modules(self) -> Mapping[str, nn.Module]:
        return self.method.modules()

    def no_decay(self, model: nn.Module) -> Iterable[str]:
        return self.method.no_decay(model)

    def loss(self, step: Step) -> dict[str, Tensor]:
        return self.method.loss(step)

    def penalty(self, model: nn.Module) -> Tensor | None:
        return self.method.penalty(model)

    def after_step(self, model: nn.Module, step: Step) -> None:
        self.method.after_step(model, step)

    def on_epoch(self, epoch: int, survey: Survey) -> None:
        self.method.on_epoch(epoch, survey)

    def order(self, epoch: int, usual: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
        return self.method.order(epoch, usual)

    def delivered(self, model: nn.Module) -> nn.Module:
        return self.method.delivered(model)

    def artefacts(self) -> Mapping[str, Tensor]:
        return self.method.artefacts()

    def metrics(self) -> dict[str, Any]:
        return self.method.metrics()

    def state_dict(self) -> dict[str, Any]:
        return self.method.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.method.load_state_dict(state)


def innermost(method: Method) -> Method:
    """The method that the others are around; itself where there are none."""
    return innermost(method.method) if isinstance(method, Around) else method


def changed_inside(method: Method, change: Callable[[Method], Method]) -> Method:
    """The method with its innermost one changed; those around it stay. They must be dataclasses, as ours are."""
    if isinstance(method, Around):
        return replace(method, method=changed_inside(method.method, change))  # type: ignore[type-var]
    return change(method)
