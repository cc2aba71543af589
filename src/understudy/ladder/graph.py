"""A ladder: a checked graph of stages, and the jobs with their keys that it makes for a list of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from understudy.errors import BadInput, listed, suggestion
from understudy.ladder.stage import Stage
from understudy.store.keys import key_of
from understudy.teaching import SoftTargets
from understudy.teaching.around import innermost
from understudy.teaching.decoupled import Decoupled
from understudy.training.settings import Device, Training

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset
    from understudy.data.views import ViewPolicy, Views
    from understudy.structure.budget import Budget
    from understudy.structure.cost import Cost
    from understudy.training.signals import Signals

Repeat = Literal["student", "assistants", "ladder"]


CHOOSING_VERSION = 1
"""Rises when the same searches and budget would give another structure than before."""


@dataclass(frozen=True)
class Ladder:
    """Stages in an order in which each comes after its inputs.

    Attributes:
        stages: all of them, controls too.
        delivered: names of the students of which one is delivered: one, or for ``paths`` all paths.

    Raises:
        BadInput: two stages of one name, an input that no stage makes, a cycle, or no student.
    """

    stages: tuple[Stage, ...]
    delivered: tuple[str, ...]

    def __post_init__(self) -> None:
        if isinstance(self.delivered, str):
            raise BadInput(
                f"delivered is a list of names; got {self.delivered!r}. Give [{self.delivered!r}]."
            )
        object.__setattr__(self, "stages", in_order(self.stages))
        names = [stage.name for stage in self.stages]
        if not self.delivered:
            raise BadInput("the ladder has no student: name the stage that is delivered.")
        for name in self.delivered:
            if name not in names:
                raise BadInput(
                    f"the student {name!r} is no stage. Stages: {listed(names)}.{suggestion(name, names)}"
                )

    def __getitem__(self, name: str) -> Stage:
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

    @property
    def students(self) -> list[str]:
        """Arms of the comparison: what is delivered, then the controls."""
        rest = [s.name for s in self.stages if s.role == "student" and s.name not in self.delivered]
        return [*self.delivered, *rest]

    @property
    def controls(self) -> list[str]:
        """Arms that are there to be compared with: neither delivered nor the int8 form of what is."""
        own = (*self.delivered, *(stage.name for stage in self.stages if stage.quantised))
        return [name for name in self.students if name not in own]


def in_order(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Stages so that each comes after its inputs; as they were given wherever that is possible.

    Raises:
        BadInput: two stages of one name, an unknown input, or a cycle.
    """
    names = [stage.name for stage in stages]
    for position, name in enumerate(names):
        if name in names[:position]:
            raise BadInput(f"two stages are called {name!r}; every stage has a name of its own.")
    for stage in stages:
        for needed in stage.inputs:
            if needed not in names:
                others = [name for name in names if name != stage.name]
                raise BadInput(
                    f"stage {stage.name!r} needs {needed!r}, which no stage makes. "
                    f"Other stages: {listed(others)}.{suggestion(needed, others)}"
                )
    placed: dict[str, Stage] = {}
    waiting = list(stages)
    while waiting:
        ready = next((stage for stage in waiting if all(name in placed for name in stage.inputs)), None)
        if ready is None:
            raise BadInput(f"these stages wait for each other in a circle: {_circle(waiting)}.")
        placed[ready.name] = ready
        waiting.remove(ready)
    return tuple(placed.values())


def _circle(stages: Sequence[Stage]) -> str:
    among = {stage.name: stage for stage in stages}
    walk = [stages[0].name]
    while True:
        needed = next(name for name in among[walk[-1]].inputs if name in among)
        if needed in walk:
            return " needs ".join(repr(name) for name in [*walk[walk.index(needed) :], needed])
        walk.append(needed)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A stage with one seed: what a worker makes, and the key under which the result is kept.

    Attributes:
        stage: with ``training`` resolved to this machine.
        seed: of everything random in it.
        key: of the result. definition: what the key is the hash of.
        teachers: jobs of its teachers, in order. start: job of the stage it begins from, if one.
        structure: job of the stage that chooses its channels, if one. taken: job of the peers that it is the first of, if
            it is one. among: jobs of the searches that it chooses from.
        views: what each epoch shows, for this stage and seed.
        signals: what of its teachers' answers is kept.
        cost: parameters and multiply-adds of its network; of one that is not chosen yet, what its budget allows.
        whole: of its network with all channels.
        device: on which it is made. A stage that is not trained is looked at where the others are trained.
    """

    stage: Stage
    seed: int
    key: str
    definition: dict[str, Any]
    teachers: tuple[Job, ...]
    start: Job | None
    structure: Job | None = None
    taken: Job | None = None
    among: tuple[Job, ...] = ()
    views: Views
    signals: Signals
    cost: Cost
    whole: Cost
    device: Device = "cpu"

    @property
    def look(self) -> Training:
        """How its network is looked at: as it was trained; one that was given in float32 everywhere, since its key says
        nothing of a number format."""
        return self.stage.training or Training(precision="fp32", device=self.device)

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage.name

    @property
    def inputs(self) -> tuple[Job, ...]:
        """Jobs that must be finished before."""
        others = [job for job in (self.start, self.structure, self.taken) if job]
        return (*self.teachers, *others, *self.among)

    @property
    def is_smaller(self) -> bool:
        """Whether its network has only a part of the channels."""
        return self.structure is not None or bool(self.among)


def seed_of(stage: Stage, seed: int, *, repeat: Repeat, ladder_seed: int) -> int:
    """The seed of a stage in the ladder of ``seed``: students vary always, the others as ``repeat`` says."""
    varies = {
        "student": ("student", "start"),
        "assistants": ("student", "start", "assistant", "preparation"),
        "ladder": ("student", "start", "assistant", "preparation", "teacher"),
    }
    return seed if stage.role in varies[repeat] else ladder_seed


def jobs(
    ladder: Ladder,
    dataset: Dataset,
    *,
    seeds: Sequence[int],
    views: Views,
    signals: Signals,
    repeat: Repeat = "student",
    ladder_seed: int = 0,
) -> list[Job]:
    """Every stage with every seed it is made for, keyed before anything runs, inputs first.

    A stage that does not vary with the seed appears once. Two jobs may have one key (a ladder's first assistant in
    two shapes, say): the runner makes it once.

    Raises:
        BadInput: a network that cannot be built on this data, weights that do not fit, no device as asked.
    """
    from understudy.training.precision import resolved

    devices = [resolved(stage.training).device for stage in ladder.stages if stage.training]
    costs: dict[Any, Cost] = {}
    checked: set[Any] = set()
    made: dict[tuple[str, int], Job] = {}
    known: dict[str, Any] = {}
    for seed in seeds:
        for stage in ladder.stages:
            own = seed_of(stage, seed, repeat=repeat, ladder_seed=ladder_seed)
            if (stage.name, own) in made:
                continue
            here = stage if stage.training is None else replace(stage, training=resolved(stage.training))

            def job_of(name: str, seed: int = seed) -> Job:
                return made[name, seed_of(ladder[name], seed, repeat=repeat, ladder_seed=ladder_seed)]

            teachers = tuple(job_of(name) for name in stage.teachers)
            start = job_of(stage.start) if isinstance(stage.start, str) else None
            structure = job_of(stage.structure) if stage.structure else None
            taken = job_of(stage.taken) if stage.taken else None
            among = tuple(job_of(name) for name in stage.choice.among) if stage.choice else ()
            # Two factories may have one name and version; files of weights are a stage's own.
            what = (stage.network, id(stage.network.factory))
            files = (str(stage.weights), str(stage.start) if isinstance(stage.start, Path) else "")
            if (what, files) not in checked:
                costs[what] = _cost(here, dataset)
                checked.add((what, files))
            shown = views.of_stage(
                taught=bool(teachers), epochs=here.training.epochs if here.training else 0, seed=own
            )
            definition = define(
                here,
                dataset,
                seed=own,
                teachers=[job.key for job in teachers],
                start=start.key if start else None,
                structure=structure.key if structure else None,
                taken=taken.key if taken else None,
                among=[job.key for job in among],
                views=shown,
                signals=signals,
                known=known,
            )
            _check_inputs(here, teachers, start, shown.policy)
            made[stage.name, own] = Job(
                stage=here,
                seed=own,
                key=key_of(definition),
                definition=definition,
                teachers=teachers,
                start=start,
                structure=structure,
                taken=taken,
                among=among,
                views=shown,
                signals=signals,
                cost=_allowed(stage, structure, costs[what]),
                whole=costs[what],
                device=here.training.device if here.training else next(iter(devices), "cpu"),
            )
    return list(made.values())


def define(
    stage: Stage,
    dataset: Dataset,
    *,
    seed: int,
    teachers: Sequence[str],
    start: str | None,
    structure: str | None = None,
    taken: str | None = None,
    among: Sequence[str] = (),
    views: Views,
    signals: Signals,
    known: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What decides the result of a stage; its key is the hash of this.

    Args:
        stage: with ``training`` resolved.
        dataset: known by its fingerprint.
        seed: of the stage.
        teachers: keys of its teachers, in order.
        start: key of the stage it begins from; a file is known by the tensors in it.
        structure: key of the stage that chooses its channels.
        taken: key of the peers that it is the first of.
        among: keys of the searches that it chooses from.
        views: of this stage, see ``Views.of_stage``.
        signals: how teachers' answers are kept; decides where the method hears their logits.
        known: remembers what is costly to find out (hashes of files, of a factory's weights) between calls.
    """
    known = {} if known is None else known

    def once(what: Any, find: Any) -> Any:
        name = repr(what)
        if name not in known:
            known[name] = find()
        return known[name]

    network = once(
        ("network", stage.network, id(stage.network.factory)), lambda: stage.network.definition(dataset)
    )
    if stage.network.file is not None:
        return {"kind": "given", "network": network, "data": dataset.fingerprint}
    if stage.choice is not None:
        budget = stage.choice.budget.definition()
        return {
            "kind": "chosen",
            "version": CHOOSING_VERSION,
            "network": network,
            "data": dataset.fingerprint,
            "budget": budget,
            "among": list(among),
            "frozen": sorted(name for name, weight in stage.choice.blocks.items() if not weight),
        }
    if taken is not None:
        return {"kind": "taken", "network": network, "data": dataset.fingerprint, "peers": taken}
    if stage.weights is not None:
        weights = once(("file", str(stage.weights)), lambda: _hash_of_file(stage.weights))
        return {"kind": "given", "network": network, "data": dataset.fingerprint, "weights": weights}
    assert stage.training is not None  # Stage checks both
    assert stage.method is not None
    from understudy.tasks import Classification

    began: Any = start
    if isinstance(stage.start, Path):
        began = {"file": once(("file", str(stage.start)), lambda: _hash_of_file(stage.start))}
    heard = {}
    if teachers and stage.method.needs().logits:
        heard = {"signals": signals.definition(classes=len(dataset.class_names))}
    shaped: dict[str, Any] = {} if structure is None else {"structure": structure}
    if stage.quantised:
        shaped["quantised"] = "int8"
    return {
        "kind": "trained",
        "network": network,
        **shaped,
        "data": dataset.fingerprint,
        "views": views.definition(),
        "task": Classification(label_smoothing=stage.training.label_smoothing).definition(),
        "method": stage.method.definition(teachers=len(stage.teachers)),
        "training": stage.training.definition(),
        "teachers": list(teachers),
        **heard,
        "start": began,
        "seed": seed,
    }


def _hash_of_file(path: Path | str | None) -> str:
    from understudy.models.weights import read_weights
    from understudy.store.keys import hash_of_tensors

    assert path is not None
    return hash_of_tensors(read_weights(Path(path)))


def _check_inputs(stage: Stage, teachers: Sequence[Job], start: Job | None, policy: ViewPolicy) -> None:
    """What a network in a file cannot be asked for: weights to begin with, and of logits, answers to other views."""
    if start is not None and start.stage.network.file is not None:
        raise BadInput(
            f"stage {stage.name!r} begins with the weights of {start.name!r}, which is the file "
            f"{start.stage.network.file}: a network in a file teaches, and its weights cannot be taken out."
        )
    for teacher in teachers:
        if teacher.stage.network.is_logits and policy.definition():
            raise BadInput(
                f"the teacher {teacher.name!r} is an array of logits ({teacher.stage.network.file}), its answers to the "
                f"images as they are; the views ({listed(policy.definition())}) make other images. Leave the views out, "
                f"or give the teacher as a network."
            )


def _cost(stage: Stage, dataset: Dataset) -> Cost:
    """Cost of the stage's network on this data; also the first check that it can be built and given weights fit."""
    import torch

    from understudy.models.weights import put_weights, read_weights
    from understudy.structure.cost import Cost, cost

    if stage.network.is_logits:
        stage.network.answers(dataset)
        return Cost(parameters=0, multiply_adds=0)
    with torch.random.fork_rng(devices=[]):
        model = stage.network.build(dataset)
    arguments = stage.network.arguments(dataset)
    if stage.network.file is not None:
        from understudy.models.onnx_files import OnnxNetwork

        if isinstance(model, OnnxNetwork):  # torch's counter cannot look inside
            return Cost(parameters=model.weights, multiply_adds=model.multiply_adds)
        return cost(model, channels=dataset.channels, size=tuple(arguments["size"]))
    for path, new_head in ((stage.weights, False), (stage.start, True)):
        if isinstance(path, Path):
            put_weights(model, read_weights(path), source=str(path), new_head=new_head)
    return cost(model, channels=dataset.channels, size=tuple(arguments["size"]))


def _allowed(stage: Stage, structure: Job | None, whole: Cost) -> Cost:
    """What a network costs: with all channels, or what the budget of its choice allows."""
    choice = stage.choice or (structure.stage.choice if structure else None)
    return whole if choice is None else choice.expected or expected(choice.budget, whole)


def expected(budget: Budget, whole: Cost) -> Cost:
    """What a network comes to that uses all of its budget; what is not limited shrinks in the same ratio."""
    limits = budget.limits(whole)
    given = {what: getattr(limits, what) for what in budget.definition()}
    share = min(limit / getattr(whole, what) for what, limit in given.items())
    rest = {what: round(share * getattr(whole, what)) for what in ("parameters", "multiply_adds")}
    return replace(whole, **{**rest, **given})


def warnings(all_jobs: Sequence[Job]) -> list[str]:
    """Plain sentences about what is allowed and yet probably not meant."""
    said: dict[str, None] = {}
    for job in all_jobs:
        for teacher in job.teachers:
            if 0 < teacher.cost.multiply_adds < job.cost.multiply_adds:  # 0: a file that does not tell
                said[
                    f"{teacher.name} ({teacher.stage.network.label}, {teacher.cost.multiply_adds / 1e6:.2f} MMAC) "
                    f"teaches {job.name}, which is bigger ({job.stage.network.label}, "
                    f"{job.cost.multiply_adds / 1e6:.2f} MMAC)."
                ] = None
            if _begins_as(job, teacher):
                said[
                    f"{teacher.name} and {job.name} are one network with one seed ({job.seed}), so they begin with the same "
                    f"weights: ladder_seed: 100 (and repeat: student) sets the teacher apart."
                ] = None
    return list(said)


def _begins_as(job: Job, teacher: Job) -> bool:
    """Whether both are drawn from one seed for one network."""
    drawn = all(
        one.stage.training is not None and one.start is None and one.stage.start is None and one.taken is None
        for one in (job, teacher)
    )
    same = job.definition.get("network") == teacher.definition.get("network")
    return drawn and same and job.seed == teacher.seed and job.structure is None is teacher.structure


def temperature_of(all_jobs: Sequence[Job]) -> float | None:
    """Of the soft targets that the first of the stages is taught by that has any; None where none has."""
    for job in all_jobs:
        if job.teachers and job.stage.method is not None:
            method = innermost(job.stage.method)
            if isinstance(method, SoftTargets | Decoupled):  # others may mean something else by the word
                return method.temperature
    return None


def unique(all_jobs: Sequence[Job]) -> dict[str, Job]:
    """One job for each key, the first of several, in order."""
    found: dict[str, Job] = {}
    for job in all_jobs:
        found.setdefault(job.key, job)
    return found
