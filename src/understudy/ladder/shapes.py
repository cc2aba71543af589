"""Ladders by name: scratch, direct, chain (TAKD), dense (DGKD), and every path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import cast

from understudy.errors import BadInput
from understudy.ladder.stage import Network, Role, Stage
from understudy.teaching import Labels, Method, SoftTargets, Stochastic
from understudy.teaching.around import changed_inside, innermost
from understudy.training.settings import Training

TEACHER = "teacher"


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One place of a ladder before it has a name: a network and how it is trained.

    Attributes:
        network: what.
        training: how; unused where ``weights`` are given.
        weights: a file taken as it is: only for the teacher and assistants that exist already.
        start: a file of weights to begin with, or the name of a stage.
        structure: name of the stage that chooses its channels; None: it has all of them.
        name: of the stage, for a teacher that is not called ``teacher``.
    """

    network: Network
    training: Training
    name: str = TEACHER
    weights: Path | None = None
    start: str | Path | None = None
    structure: str | None = None

    def stage(
        self, name: str, *, role: Role, teachers: tuple[str, ...] = (), method: Method | None = None
    ) -> Stage:
        """The stage of this rung."""
        if self.weights is not None:
            return Stage(name=name, network=self.network, role=role, weights=self.weights)
        return Stage(
            name=name,
            network=self.network,
            role=role,
            teachers=teachers,
            start=self.start,
            structure=self.structure,
            method=method or Labels(),
            training=self.training,
        )


def teacher_stage(teacher: Rung) -> Stage:
    """The first stage of every ladder: learns from the labels, or is given."""
    return teacher.stage(teacher.name, role="teacher")


def scratch(student: Rung, method: Method | None = None, *, name: str = "scratch") -> list[Stage]:
    """The student from the labels alone; ``method`` may be another way to learn from them."""
    return [student.stage(name, role="student", method=method)]


def direct(teacher: Rung, student: Rung, method: Method, *, name: str = "direct") -> list[Stage]:
    """The student straight from the teacher."""
    return [
        teacher_stage(teacher),
        student.stage(name, role="student", teachers=(teacher.name,), method=among(method, 1)),
    ]


def direct_long(
    teacher: Rung,
    assistants: Sequence[Rung],
    student: Rung,
    method: Method,
    *,
    costs: Sequence[int] | None = None,
    before: int = 0,
) -> list[Stage]:
    """``direct`` with all epochs that a ladder below its teacher spends.

    Args:
        teacher: as for the ladder.
        assistants: of the ladder; given ones cost nothing.
        student: of the ladder.
        method: of ``direct``.
        costs: multiply-adds an image of each assistant and then the student; the epochs are then matched by the
            multiply-adds they cost instead of counted. None: epochs are counted.
        before: epochs in which the student is prepared for its own training.
    """
    below = [*assistants, student]
    weights = [1] * len(below) if costs is None else list(costs)
    epochs = sum(
        rung.training.epochs * weight
        for rung, weight in zip(below, weights, strict=True)
        if rung.weights is None
    )
    longer = replace(student.training, epochs=max(1, before + round(epochs / weights[-1])))
    return direct(teacher, replace(student, training=longer), method, name="direct_long")


def chain(
    teacher: Rung, assistants: Sequence[Rung], student: Rung, method: Method, *, name: str = "chain"
) -> list[Stage]:
    """Teacher-assistant chain: every network learns from its immediate predecessor only.

    References:
        Mirzadeh et al. 2020, arXiv:1902.03393 (TAKD).
    """
    stages = [teacher_stage(teacher)]
    method = among(method, 1)
    for label, assistant in zip(labels(assistants), assistants, strict=True):
        stages.append(
            assistant.stage(f"{name}/{label}", role="assistant", teachers=(stages[-1].name,), method=method)
        )
    stages.append(student.stage(name, role="student", teachers=(stages[-1].name,), method=method))
    return stages


def dense(
    teacher: Rung,
    assistants: Sequence[Rung],
    student: Rung,
    method: Method,
    *,
    stochastic: Stochastic | None = None,
    name: str = "dense",
) -> list[Stage]:
    """Densely guided: every network learns from all larger ones; teachers are dropped for the last student only.

    References:
        Son et al. 2021, arXiv:2009.08825 (DGKD), Eq. 7 and stochastic teaching.
    """
    stages = [teacher_stage(teacher)]
    for label, assistant in zip(labels(assistants), assistants, strict=True):
        above = tuple(stage.name for stage in stages)
        here = among(method, len(above))
        stages.append(assistant.stage(f"{name}/{label}", role="assistant", teachers=above, method=here))
    last = method if stochastic is None else with_stochastic(method, stochastic)
    above = tuple(stage.name for stage in stages)
    stages.append(student.stage(name, role="student", teachers=above, method=last))
    return stages


def paths(teacher: Rung, assistants: Sequence[Rung], student: Rung, method: Method) -> list[Stage]:
    """Every chain through a subset of the assistants, in order: 2^n paths, the empty one (direct) among them.

    A common beginning of two paths is one stage. Path students are called ``direct``, ``path plain_cnn-8``,
    ``path plain_cnn-8 > plain_cnn-4`` and so on; an assistant is called by the path that leads to it. The path without
    assistants is the control of all the others, under the control's own name.

    References:
        Mirzadeh et al. 2020, arXiv:1902.03393: all distillation paths.
    """
    if len(assistants) > 10:
        raise BadInput(
            f"paths through {len(assistants)} assistants are {2 ** len(assistants)}; give 10 at most."
        )
    stages = {teacher.name: teacher_stage(teacher)}
    method = among(method, 1)
    names = labels(assistants)
    for count in range(len(assistants) + 1):
        for chosen in combinations(range(len(assistants)), count):
            before = teacher.name
            for depth, position in enumerate(chosen):
                here = " > ".join(names[i] for i in chosen[: depth + 1])
                if here not in stages:
                    stages[here] = assistants[position].stage(
                        here, role="assistant", teachers=(before,), method=method
                    )
                before = here
            name = "path " + " > ".join(names[i] for i in chosen) if chosen else "direct"
            stages[name] = student.stage(name, role="student", teachers=(before,), method=method)
    return list(stages.values())


def labels(rungs: Sequence[Rung]) -> list[str]:
    """A name for each rung: its network's label, numbered where one network stands twice."""
    plain = [rung.network.label for rung in rungs]
    return [
        label if plain.count(label) == 1 else f"{label} #{plain[: position + 1].count(label)}"
        for position, label in enumerate(plain)
    ]


def check_unlike(rungs: Sequence[Rung], what: str) -> None:
    """Refuses rungs whose answers would be averaged and that are one training: a mean of one network with itself.

    Raises:
        BadInput: two are alike in all but their place.
    """
    for position, rung in enumerate(rungs):
        if rung in rungs[:position]:
            raise BadInput(
                f"{what} averages what several networks say, and {rung.network.label} stands twice among the assistants "
                f"with all settings alike: one training, once in the mean as good as twice. Leave one out, or change it."
            )


def with_stochastic(method: Method, stochastic: Stochastic) -> Method:
    """The same soft targets with teachers dropped at random.

    Raises:
        BadInput: the method has no teachers to drop.
    """
    if not isinstance(innermost(method), SoftTargets):
        raise BadInput(f"stochastic teaching goes with soft targets, not with {method.name}.")
    return changed_inside(method, lambda inner: replace(cast(SoftTargets, inner), stochastic=stochastic))


def among(method: Method, teachers: int) -> Method:
    """The method for a stage with only the first so many teachers of those that ``teacher_weights`` counts."""
    inner = innermost(method)
    if not isinstance(inner, SoftTargets) or inner.teacher_weights is None:
        return method
    fewer = replace(inner, teacher_weights=inner.teacher_weights[:teachers])
    return changed_inside(method, lambda _: fewer)


def merged(*lists: Sequence[Stage]) -> tuple[Stage, ...]:
    """Stages of several shapes in one ladder; a stage that has one name in all of them (the teacher) stands once."""
    stages: dict[str, Stage] = {}
    for some in lists:
        for stage in some:
            stages.setdefault(stage.name, stage)
    return tuple(stages.values())
