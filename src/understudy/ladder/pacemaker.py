"""The pacemaker: a trainer between a teacher of k x k filters and a student whose filters are 1 x N strips.

Son et al. 2020 (arXiv:2003.03944) report that such a student, taught directly, ends below one without a teacher, and that
an intermediate ensemble teacher, the pacemaker, helps. What it is an ensemble of the abstract does not say, and the
abstract is all that we know of the paper. So there are three readings, all ours; none of them claims to be the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from understudy.errors import BadInput, listed, suggestion
from understudy.ladder.shapes import Rung, among, check_unlike, labels, teacher_stage
from understudy.ladder.stage import Stage
from understudy.teaching import Method, SoftTargets

Reading = Literal["ensemble", "hybrid", "strips"]
READINGS = ("ensemble", "hybrid", "strips")
MEMBERS = 3  # networks in the ensemble of strips: our choice


def pacemaker(
    teacher: Rung,
    assistants: Sequence[Rung],
    student: Rung,
    method: Method,
    *,
    reading: Reading = "ensemble",
    name: str = "pacemaker",
) -> list[Stage]:
    """Teacher, pacemaker, student.

    - ``ensemble``: the teacher teaches the pacemaker, and the two together, their softened answers averaged, teach the
      student. The pacemaker is the one assistant that is given, else the student's own network, from new weights.
    - ``hybrid``: the pacemaker is the student's network with the earlier half of its filters left k x k, and the chain
      is teacher, pacemaker, student.
    - ``strips``: the teacher teaches several networks like the student, and these, their softened answers averaged,
      teach it. They are the assistants that are given, two or more, else three of the student's networks with strips
      of N, N + 2 and N + 4. Three of one N would need seeds of their own to differ, and assistants share one.

    An average is the mean of the soft terms, with the hard term once, whatever ``combine`` and ``hard_terms`` say: its
    gradient is that of KL to the mean of the softened answers, as KL is linear in the target but for a constant, and
    the loss is of one size with ``direct``'s.

    Args:
        teacher: of k x k filters.
        assistants: see the readings; ones with weights of their own are not taught.
        student: with ``strip``, except in the reading ``ensemble`` where any network may learn.
        method: soft targets. ``teacher_weights`` are for the teacher and then the pacemaker.

    Raises:
        BadInput: an unknown reading, assistants that it has no place for, a student without strips or with weights, or
            a method that is not soft targets.
    """
    if reading not in READINGS:
        raise BadInput(
            f"reading {reading!r} is none of {listed(READINGS)}.{suggestion(str(reading), READINGS)}"
        )
    if not isinstance(method, SoftTargets):
        raise BadInput(f"a pacemaker averages soft targets; the method is {method.name}.")
    if student.weights is not None:
        raise BadInput(
            "the student has weights of its own; it is what is taught. Use start= to begin with some."
        )
    first = teacher_stage(teacher)
    between = _between(assistants, student, reading)
    alone = among(method, 1)
    paced = [
        rung.stage(f"{name}/{label}", role="assistant", teachers=(first.name,), method=alone)
        for label, rung in zip(labels(between), between, strict=True)
    ]
    names = tuple(stage.name for stage in paced)
    if reading == "hybrid":
        last = student.stage(name, role="student", teachers=names, method=alone)
    elif reading == "ensemble":
        both = (first.name, *names)
        last = student.stage(name, role="student", teachers=both, method=_averaged(among(method, 2)))
    else:
        if method.teacher_weights is not None:
            raise BadInput("the reading strips averages networks of one kind: leave teacher_weights out.")
        last = student.stage(name, role="student", teachers=names, method=_averaged(method))
    return [first, *paced, last]


def _between(assistants: Sequence[Rung], student: Rung, reading: Reading) -> list[Rung]:
    """The pacemaker's networks, each taught by the teacher."""
    given = listed(rung.network.label for rung in assistants)
    if reading == "ensemble":
        if len(assistants) > 1:
            raise BadInput(
                f"the reading ensemble has one pacemaker; the assistants are {given}. Give one, or none: the pacemaker "
                f"is then a network like the student. The reading strips averages several."
            )
        return [*assistants] or [_like(student)]
    if reading == "strips" and assistants:
        if len(assistants) == 1:
            raise BadInput(
                f"the reading strips averages several networks, and {given} is one. Give two or more, or none."
            )
        check_unlike(assistants, "the reading strips")
        return [*assistants]
    strip = student.network.strip
    if strip is None:
        raise BadInput(
            f"the reading {reading} makes its pacemaker of the student's 1xN filters, and {student.network.label} has "
            f"none. Set strip: 3 on the student, or take the reading ensemble."
        )
    if reading == "strips":
        return [_like(student, strip=strip + 2 * place) for place in range(MEMBERS)]
    if assistants:
        raise BadInput(
            f"the reading hybrid makes its pacemaker of the student's network; leave the assistants out ({given}), or "
            f"take the reading ensemble."
        )
    return [_like(student, strip_part="late")]


def _like(student: Rung, **changed: object) -> Rung:
    """The student's network and training from new weights, with some of its network changed."""
    return replace(student, network=replace(student.network, **changed), start=None)  # type: ignore[arg-type]


def _averaged(method: Method) -> Method:
    assert isinstance(method, SoftTargets)
    return replace(method, combine="mean", hard_terms="once")
