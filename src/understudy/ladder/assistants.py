"""Which assistant to take: candidates ranked by what short pilots show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """What a short training of a candidate showed on the validation split.

    Attributes:
        name: of the candidate.
        accuracy: a fraction.
        agreement: share of the validation images on which it answers as the teacher does.
    """

    name: str
    accuracy: float
    agreement: float


def ranked(candidates: Sequence[Pilot], *, teacher: float, student: float) -> list[Pilot]:
    """Candidates, the best assistant first: accuracy nearest the middle of teacher and student, then agreement.

    Mirzadeh et al. found the best single assistant nearer to the middle of the two accuracies than to that of the two
    sizes. Theirs were trained in full and alone. Ours are pilots, taught by the teacher, and so short that the middle of
    the student's pilot and a teacher of full length leans to better assistants; that distances are told apart in steps of
    half a point (or a twentieth of the gap, where that is more), and that agreement with the teacher decides within a step,
    is our choice, too.

    Args:
        candidates: each trained as long as the student's pilot was.
        teacher: accuracy of the teacher, a fraction.
        student: accuracy of the student's own pilot.

    References:
        Mirzadeh et al. 2020, arXiv:1902.03393, on the size of the assistant.

    >>> middling = Pilot(name="b", accuracy=0.6, agreement=0.7)
    >>> [one.name for one in ranked([Pilot(name="a", accuracy=0.75, agreement=0.9), middling], teacher=0.8, student=0.4)]
    ['b', 'a']
    """
    middle = (teacher + student) / 2
    step = max(0.005, abs(teacher - student) / 20)
    return sorted(candidates, key=lambda one: (round(abs(one.accuracy - middle) / step), -one.agreement))
