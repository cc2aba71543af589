"""Arms of a comparison by name: the one place where a shape or control that a person typed becomes stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from understudy.errors import BadInput, listed, suggestion
from understudy.ladder import rivals, shapes
from understudy.ladder.pacemaker import Reading, pacemaker
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
        reading: of ``pacemaker``.
        uniform: the network of ``uniform``, all of its layers narrowed alike.
        alone: what ``structure_alone`` is made of: the stages that find a structure without a teacher, and its rung.
    """

    teacher: Rung | None
    assistants: Sequence[Rung] = ()
    student: Rung
    method: Method
    stochastic: Stochastic | None = None
    costs: Sequence[int] | None = None
    reading: Reading = "ensemble"
    uniform: Rung | None = None
    alone: tuple[Sequence[Stage], Rung] | None = None

    @property
    def lead(self) -> Rung:
        """The teacher.

        Raises:
            BadInput: there is none.
        """
        if self.teacher is None:
            raise BadInput("a teacher is missing: every arm but scratch and label_smoothing learns from one.")
        return self.teacher

    def narrowed(self) -> list[Stage]:
        """``uniform``: a network of the same cost that was made by narrowing all layers alike, taught directly."""
        if self.uniform is None:
            raise BadInput(
                "the control uniform goes with structure: it is what a learnt structure is compared with."
            )
        return shapes.direct(self.lead, self.uniform, self.method, name="uniform")

    def untaught(self) -> list[Stage]:
        """``structure_alone``: a structure that was found without a teacher, trained from the labels alone."""
        if self.alone is None:
            raise BadInput(
                "the control structure_alone goes with structure: its structure is found without a teacher."
            )
        stages, student = self.alone
        return [*stages, *shapes.scratch(student, name="structure_alone")]


ARMS: dict[str, Callable[[Material], list[Stage]]] = {
    "scratch": lambda m: shapes.scratch(m.student),
    "direct": lambda m: shapes.direct(m.lead, m.student, m.method),
    "direct_long": lambda m: shapes.direct_long(m.lead, m.assistants, m.student, m.method, costs=m.costs),
    "chain": lambda m: shapes.chain(m.lead, m.assistants, m.student, m.method),
    "dense": lambda m: shapes.dense(m.lead, m.assistants, m.student, m.method, stochastic=m.stochastic),
    "paths": lambda m: shapes.paths(m.lead, m.assistants, m.student, m.method),
    "pacemaker": lambda m: pacemaker(m.lead, m.assistants, m.student, m.method, reading=m.reading),
    "uniform": lambda m: m.narrowed(),
    "structure_alone": lambda m: m.untaught(),
    "label_smoothing": lambda m: rivals.label_smoothing(m.student),
    "early_teacher": lambda m: rivals.early_teacher(m.lead, m.student, m.method),
    "mean_teachers": lambda m: rivals.mean_teachers(m.lead, m.assistants, m.student, _soft(m.method)),
    "logit_std": lambda m: rivals.logit_std(m.lead, m.student),
    "dkd": lambda m: rivals.dkd(m.lead, m.student),
}
CONTROLS = tuple(name for name in ARMS if name not in ("paths", "pacemaker"))


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
