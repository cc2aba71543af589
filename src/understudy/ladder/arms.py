"""Arms of a comparison by name: the one place where a shape or control that a person typed becomes stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from understudy.errors import BadInput, listed, suggestion
from understudy.ladder import rivals, shapes
from understudy.ladder.additions import Matching, renamed, with_hints, with_peers, with_sparse_codes
from understudy.ladder.pacemaker import Reading, pacemaker
from understudy.ladder.shapes import Rung
from understudy.ladder.stage import Stage
from understudy.models.peers import PeerForm
from understudy.teaching import Labels, Method, SoftTargets, Stochastic
from understudy.teaching.balanced import BalancedLabels
from understudy.teaching.curriculum import Curriculum
from understudy.teaching.peers import Peers


@dataclass(frozen=True, kw_only=True)
class Material:
    """What arms are made of.

    Attributes:
        teacher: None where nobody teaches. assistants: largest first. student: of every arm.
        method: how the students and assistants of the shapes are taught.
        labels: how a student is trained whom nobody teaches, in ``scratch`` and ``peers``.
        stochastic: of the last stage of ``dense``.
        costs: multiply-adds an image of each assistant and then the student, where ``direct_long`` matches those.
        reading: of ``pacemaker``.
        uniform: of ``uniform``: stages that come before, and the network, all of whose layers are narrowed alike.
        alone: what ``structure_alone`` is made of: the stages that find a structure without a teacher, and its rung.
        form: of the peers of ``peers`` and ``peers_alone``. peers: how peers teach each other, wherever there are some.
        weighed: how ``balanced_labels`` is trained.
        shape: of the ladder, which ``curriculum_reverse`` and ``curriculum_random`` are in another order.
        curriculum: of that ladder.
        own: the ladder's own student, where it has what those of the controls have not: peers.
        matching: which layers its start and that of ``hints`` match, and how they are learnt.
    """

    teacher: Rung | None
    assistants: Sequence[Rung] = ()
    student: Rung
    method: Method
    labels: Method = field(default_factory=Labels)
    stochastic: Stochastic | None = None
    costs: Sequence[int] | None = None
    reading: Reading = "ensemble"
    uniform: tuple[Sequence[Stage], Rung] | None = None
    alone: tuple[Sequence[Stage], Rung] | None = None
    form: PeerForm = field(default_factory=PeerForm)
    peers: Peers = field(default_factory=lambda: Peers(method=Labels()))
    weighed: BalancedLabels | None = None
    shape: str = ""
    curriculum: Curriculum | None = None
    own: Rung | None = None
    matching: Matching | None = None

    @property
    def lead(self) -> Rung:
        """The teacher.

        Raises:
            BadInput: there is none.
        """
        if self.teacher is None:
            raise BadInput("a teacher is missing, and this arm learns from one.")
        return self.teacher

    def narrowed(self) -> list[Stage]:
        """``uniform``: a network of the same cost that was made by narrowing all layers alike, taught directly."""
        if self.uniform is None:
            raise BadInput(
                "the control uniform goes with structure: it is what a learnt structure is compared with."
            )
        before, rung = self.uniform
        return [*before, *shapes.direct(self.lead, rung, self.method, name="uniform")]

    def untaught(self) -> list[Stage]:
        """``structure_alone``: a structure that was found without a teacher, trained from the labels alone."""
        if self.alone is None:
            raise BadInput(
                "the control structure_alone goes with structure: its structure is found without a teacher."
            )
        stages, student = self.alone
        return [*stages, *shapes.scratch(student, name="structure_alone")]

    def together(self, name: str) -> list[Stage]:
        """``peers``: the student as several that share their first layers, without a teacher."""
        network = replace(self.student.network, peers=self.form)
        return shapes.scratch(replace(self.student, network=network), self.labels, name=name)

    def side_by_side(self) -> list[Stage]:
        """``peers_alone``: the same peers on the same trunk, which do not teach each other."""
        name = "peers_alone"
        trained, first = with_peers(self.together(name), replace(self.peers, weight=0.0))
        return [replace(trained, role="start"), first]

    def by_rarity(self) -> list[Stage]:
        """``balanced_labels``: the student from labels that weigh as their class is rare."""
        if self.weighed is None:
            raise BadInput(
                "the control balanced_labels goes with teaching.balance: it has its weights, and no teacher."
            )
        return shapes.scratch(self.student, self.weighed, name="balanced_labels")

    def longer(self) -> list[Stage]:
        """``direct_long``: the epochs of a start from matched layers count, those of dictionaries do not."""
        before = self.matching.training.epochs if self.matching is not None else 0
        return shapes.direct_long(
            self.lead, self.assistants, self.student, self.method, costs=self.costs, before=before
        )

    def in_order(self, name: str, **said: str) -> list[Stage]:
        """The ladder with another curriculum, and all else that its own student has: peers, a start from codes."""
        if self.curriculum is None:
            raise BadInput(f"the control {name} goes with teaching.curriculum: it has another order.")
        turned = replace(self.curriculum, **said)  # type: ignore[arg-type]
        student = self.own if self.own is not None and self.shape != "peers" else self.student
        other = replace(self, method=turned, labels=turned, curriculum=None, student=student)
        stages = renamed(ARMS[self.shape](other), self.shape, name)
        if self.matching is not None:
            *others, last = stages
            stages = [*others, *with_sparse_codes(last, shapes.teacher_stage(self.lead), self.matching)]
        return stages

    def hinted(self) -> list[Stage]:
        """``hints``: ``direct`` from a start in which the student's layers told the teacher's features."""
        if self.matching is None:
            raise BadInput("the control hints goes with teaching.sparse_codes: it matches the same layers.")
        *before, student = shapes.direct(self.lead, self.student, self.method, name="hints")
        return [*before, *with_hints(student, before[0], self.matching)]


ARMS: dict[str, Callable[[Material], list[Stage]]] = {
    "scratch": lambda m: shapes.scratch(m.student, m.labels),
    "direct": lambda m: shapes.direct(m.lead, m.student, m.method),
    "direct_long": lambda m: m.longer(),
    "chain": lambda m: shapes.chain(m.lead, m.assistants, m.student, m.method),
    "dense": lambda m: shapes.dense(m.lead, m.assistants, m.student, m.method, stochastic=m.stochastic),
    "paths": lambda m: shapes.paths(m.lead, m.assistants, m.student, m.method),
    "peers": lambda m: m.together("peers"),
    "pacemaker": lambda m: pacemaker(m.lead, m.assistants, m.student, m.method, reading=m.reading),
    "uniform": lambda m: m.narrowed(),
    "structure_alone": lambda m: m.untaught(),
    "peers_alone": lambda m: m.side_by_side(),
    "balanced_labels": lambda m: m.by_rarity(),
    "curriculum_reverse": lambda m: m.in_order("curriculum_reverse", direction="hard_first"),
    "curriculum_random": lambda m: m.in_order("curriculum_random", score="random"),
    "hints": lambda m: m.hinted(),
    "label_smoothing": lambda m: rivals.label_smoothing(m.student),
    "early_teacher": lambda m: rivals.early_teacher(m.lead, m.student, m.method),
    "mean_teachers": lambda m: rivals.mean_teachers(m.lead, m.assistants, m.student, _soft(m.method)),
    "logit_std": lambda m: rivals.logit_std(m.lead, m.student),
    "dkd": lambda m: rivals.dkd(m.lead, m.student),
}
CONTROLS = tuple(name for name in ARMS if name not in ("paths", "pacemaker", "peers"))


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
    return with_peers(ARMS[name](material), material.peers)
