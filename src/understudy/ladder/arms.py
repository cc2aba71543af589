"""Arms of a comparison by name: the one place where a shape or control that a person typed becomes stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from understudy.errors import BadInput, listed, suggestion
from understudy.ladder import rivals, shapes
from understudy.ladder.shapes import Rung
from understudy.ladder.stage import Stage
from understudy.teaching import Method, SoftTargets, Stochastic


@dataclass(frozen=True, kw_only=True)
class Material:
    """What arms are made of.

    Attributes:
        teacher: None where nobody teaches. assistants: largest first. student: of every arm.
        method: how the students and assistants of the shapes are taught.
        stochastic: of the last stage of ``dense``.
        costs: multiply-adds an image of each assistant and then the student, where ``direct_long`` matches those.
    """

    teacher: Rung | None
    assistants: Sequence[Rung] = ()
    student: Rung
    method: Method
    stochastic: Stochastic | None = None
    costs: Sequence[int] | None = None

    @property
    def lead(self) -> Rung:
        """The teacher.

        Raises:
            BadInput: there is none.
        """
        if self.teacher is None:
            raise BadInput("a teacher is missing: every arm but scratch and label_smoothing learns from one.")
        return self.teacher


ARMS: dict[str, Callable[[Material], list[Stage]]] = {
    "scratch": lambda m: shapes.scratch(m.student),
    "direct": lambda m: shapes.direct(m.lead, m.student, m.method),
    "direct_long": lambda m: shapes.direct_long(m.lead, m.assistants, m.student, m.method, costs=m.costs),
    "chain": lambda m: shapes.chain(m.lead, m.assistants, m.student, m.method),
    "dense": lambda m: shapes.dense(m.lead, m.assistants, m.student, m.method, stochastic=m.stochastic),
    "paths": lambda m: shapes.paths(m.lead, m.assistants, m.student, m.method),
    "label_smoothing": lambda m: rivals.label_smoothing(m.student),
    "early_teacher": lambda m: rivals.early_teacher(m.lead, m.student, m.method),
    "mean_teachers": lambda m: rivals.mean_teachers(m.lead, m.assistants, m.student, _soft(m.method)),
    "logit_std": lambda m: rivals.logit_std(m.lead, m.student),
    "dkd": lambda m: rivals.dkd(m.lead, m.student),
}
CONTROLS = tuple(name for name in ARMS if name != "paths")


def _soft(method: Method) -> SoftTargets:
    if not isinstance(method, SoftTargets):
        raise BadInput(f"the control mean_teachers averages soft targets; the method is {method.name}.")
    return method


def arm(name: str, material: Material) -> list[Stage]:
    """The stages of a shape or control.

    Raises:
        BadInput: no such arm, or no teacher for it.
    """
    if name not in ARMS:
        raise BadInput(f"{name!r} is no arm. Possible: {listed(ARMS)}.{suggestion(name, ARMS)}")
    return ARMS[name](material)
