"""What is added to the stages of an arm, whatever its shape: peers that teach each other, a start from matched layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from understudy.errors import BadInput
from understudy.ladder.stage import Stage
from understudy.models.features import published
from understudy.teaching import Method
from understudy.teaching.curriculum import Curriculum
from understudy.teaching.hints import Hints
from understudy.teaching.peers import Peers
from understudy.teaching.sparse_codes import Dictionaries, SparseCodes, learnt_on
from understudy.training.settings import Training

if TYPE_CHECKING:
    from understudy.ladder.graph import Job

ENSEMBLE = "ensemble"


def renamed(stages: Sequence[Stage], old: str, new: str) -> list[Stage]:
    """The stages of the arm ``old``, called ``new``; its assistants ``old/...`` are called ``new/...``."""

    def name(said: str) -> str:
        return new if said == old else new + said[len(old) :] if said.startswith(f"{old}/") else said

    return [
        replace(
            stage,
            name=name(stage.name),
            teachers=tuple(map(name, stage.teachers)),
            start=name(stage.start) if isinstance(stage.start, str) else stage.start,
            structure=name(stage.structure) if stage.structure else None,
            taken=name(stage.taken) if stage.taken else None,
        )
        for stage in stages
    ]


# --- peers --------------------------------------------------------------------------------------------------------


def with_peers(stages: Sequence[Stage], settings: Peers) -> list[Stage]:
    """Stages whose networks are of peers, taught as peers.

    What teaches others stays one stage, whose ensemble answers. A student becomes two: ``NAME ensemble``, which is
    trained, and ``NAME``, the trunk and first peer of it. Both are arms.

    Args:
        stages: of an arm.
        settings: of the peers; count and inner method are each stage's own.
    """
    found: list[Stage] = []
    for stage in stages:
        form = stage.network.peers
        method = stage.method
        if form is None or method is None or isinstance(method, Peers) or not method.trains_student:
            found.append(stage)
            continue
        if stage.start is not None or stage.structure is not None:
            raise BadInput(
                f"stage {stage.name!r} is of peers, which begin with weights of their own: leave out its start and structure."
            )
        together = replace(stage, method=replace(settings, method=method, count=form.count))
        if stage.role != "student":
            found.append(together)
            continue
        trained = replace(together, name=f"{stage.name} {ENSEMBLE}")
        found += [trained, first_of(trained, stage.name)]
    return found


def first_of(trained: Stage, name: str) -> Stage:
    """The stage that is the trunk and the first peer of ``trained``."""
    return Stage(name=name, network=trained.network.alone, role="student", taken=trained.name)


# --- a start from matched layers ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Matching:
    """How a student's first weights are found by looking at its teacher's layers.

    Attributes:
        pairs: layers ``(student's, teacher's)``.
        training: of the student on them. dictionary_training: of the dictionaries.
        atoms, sparsity, labels, local_logits, teacher_mode, dictionary_layers: see ``understudy.teaching.sparse_codes``.
    """

    pairs: tuple[tuple[str, str], ...]
    training: Training
    dictionary_training: Training
    atoms: float = 2.0
    sparsity: float = 0.02
    labels: Literal["both", "pixel", "image"] = "both"
    local_logits: Literal["sigmoid", "pre_sigmoid"] = "sigmoid"
    teacher_mode: Literal["eval", "train"] = "eval"
    dictionary_layers: Mapping[str, str] = field(default_factory=dict)


def with_sparse_codes(student: Stage, teacher: Stage, matching: Matching) -> list[Stage]:
    """The student's stage and the two before it: dictionaries on the teacher, and a start that tells their codes."""
    _check_start(student, teacher)
    dictionaries = Stage(
        name=f"{student.name}/dictionaries",
        network=teacher.network,
        role="preparation",
        start=teacher.name,
        structure=teacher.structure,
        method=Dictionaries(
            layers=learnt_on(matching.pairs, matching.dictionary_layers),
            atoms=matching.atoms,
            sparsity=matching.sparsity,
            teacher_mode=matching.teacher_mode,
        ),
        training=matching.dictionary_training,
    )
    codes = SparseCodes(
        pairs=matching.pairs,
        atoms=matching.atoms,
        sparsity=matching.sparsity,
        labels=matching.labels,
        local_logits=matching.local_logits,
        dictionary_layers=dict(matching.dictionary_layers),
    )
    start = _start(student, dictionaries, codes, matching)
    return [dictionaries, start, replace(student, start=start.name)]


def with_hints(student: Stage, teacher: Stage, matching: Matching) -> list[Stage]:
    """The student's stage and the one before it, in which its layers learn to tell the teacher's."""
    _check_start(student, teacher)
    start = _start(student, teacher, Hints(pairs=matching.pairs), matching)
    return [start, replace(student, start=start.name)]


def matched_layers(all_jobs: Sequence[Job]) -> list[str]:
    """Which layers each start matches, in a sentence for each."""
    said: dict[str, None] = {}
    for job in all_jobs:
        method = job.stage.method
        if not isinstance(method, SparseCodes | Hints):
            continue
        pairs = ", ".join(f"{student} with {teacher}" for student, teacher in method.pairs)
        names = job.stage.network.name, job.teachers[0].stage.network.name
        where = " (the pairs of the paper)" if dict(method.pairs) == published(*names) else ""
        said[f"{job.name} matches layers of student and teacher: {pairs}{where}."] = None
    return list(said)


def unordered(all_jobs: Sequence[Job]) -> list[str]:
    """Which stages have a curriculum that so few epochs leave no room for, in a sentence for each."""
    said: dict[str, None] = {}
    for job in all_jobs:
        method, training = job.stage.method, job.stage.training
        if not isinstance(method, Curriculum) or training is None or method.phases(training.epochs)[:-1]:
            continue
        said[
            f"{job.name} has a curriculum and no room for a phase of it with training.epochs {training.epochs}: samples come "
            "as usual. Train longer, or see teaching.curriculum.boundaries and uniform."
        ] = None
    return list(said)


def _start(student: Stage, teacher: Stage, method: Method, matching: Matching) -> Stage:
    return Stage(
        name=f"{student.name}/start",
        network=student.network,
        role="start",
        teachers=(teacher.name,),
        method=method,
        training=matching.training,
    )


def _check_start(student: Stage, teacher: Stage) -> None:
    if student.start is not None or student.structure is not None or student.network.peers is not None:
        raise BadInput(
            f"stage {student.name!r} begins by matching layers, and has a start, a structure or peers already: choose one."
        )
    if teacher.network.file is not None:
        raise BadInput(
            f"the teacher is the file {teacher.network.file}, whose layers cannot be looked at: give the network by name "
            f"with its weights."
        )
