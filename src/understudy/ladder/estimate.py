"""What a ladder will cost in time, disk and memory, from a few measured steps and from what the store knows."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from understudy.data.batches import epoch_order
from understudy.data.views import PLAIN, View
from understudy.errors import Damaged
from understudy.ladder import pace
from understudy.ladder.graph import Job, unique
from understudy.ladder.pace import Pace, Voice
from understudy.ladder.spoken import hears, signal_files, signals_of
from understudy.ladder.workers import cores
from understudy.store.results import CHECKPOINTS, Store
from understudy.store.signals import SignalFiles, free_bytes, size_of_signals
from understudy.teaching.around import Around
from understudy.teaching.curriculum import OF_TEACHERS, Curriculum

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset

State = Literal["kept", "resumes", "to do"]

_RECORD_BYTES = 6_000  # of a finished stage, about
_LINE_BYTES = 450  # of its log, for each epoch


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Of one job.

    Attributes:
        state: ``kept``, ``resumes`` (a checkpoint is there) or ``to do``.
        seconds: expected, of what is still to do, with what its teachers must say first; 0 for what is kept.
        bytes: that it adds to the store: weights, outputs and log.
    """

    state: State
    seconds: float
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Of all jobs together.

    Attributes:
        stages: the estimate of each, by key.
        seconds: from the start of the command until the last is done, so many at a time as were asked for.
        signal_bytes: of teachers' answers that are written. views, teachers: how many views they are of, and of whom.
        signal_bytes_there: of those that are read and kept already.
        live: whether some find no room, so that teachers answer in the steps.
        memory: bytes at the peak, over all processes, that no file stands behind: Python with torch, the images in
            memory, networks with gradients, optimiser and activations, teachers that speak, signals being made; not
            loader processes, nor memory of a GPU. None where the system does not tell.
    """

    stages: dict[str, Estimate]
    seconds: float
    signal_bytes: int
    views: int
    teachers: int
    signal_bytes_there: int
    live: bool
    memory: int | None

    @property
    def stage_bytes(self) -> int:
        """What the stages add to the store."""
        return sum(estimate.bytes for estimate in self.stages.values())


def forecast(
    all_jobs: Sequence[Job], *, store: Store, dataset: Dataset, parallel: int = 1, start: float = 0.0
) -> Forecast:
    """What it takes here to make all jobs. Each network is measured for some steps, of which nothing is kept.

    What a teacher says of a view is counted once, for the first job that needs it.

    Args:
        all_jobs: inputs first.
        store: knows what is kept.
        dataset: what is learned; steps are measured on its images.
        parallel: jobs at a time.
        start: seconds that this process took before it knew the jobs; a run takes them too, and so do its workers.

    Raises:
        BadInput: another version wrote some of the signals.
    """
    base = pace.anonymous_bytes()
    by_key = unique(all_jobs)
    signals_of(list(by_key.values()), store=store, dataset=dataset)
    measured = _Measured(dataset)
    said = _Said(store, dataset, measured)
    works = {
        key: _work(job, store, dataset, measured, said)
        for key, job in by_key.items()
        if not _is_kept(store, key)
    }
    jobs = [by_key[key] for key in works]
    places = min(parallel, _places(jobs))

    def seconds(job: Job, running: int) -> float:
        return works[job.key].seconds(ahead=_core_free(job, running))

    return Forecast(
        stages={
            key: Estimate(state=works[key].state, seconds=seconds(job, 1), bytes=works[key].bytes)
            if key in works
            else Estimate(state="kept", seconds=0.0, bytes=0)
            for key, job in by_key.items()
        },
        seconds=makespan(jobs, seconds, places=places) + start * (1 if parallel == 1 else 2) if jobs else 0.0,
        signal_bytes=round(said.bytes),
        views=len(said.views),
        teachers=len(said.teachers),
        signal_bytes_there=said.bytes_there,
        live=said.live,
        memory=_memory(base, works.values(), parallel),
    )


def makespan(jobs: Sequence[Job], seconds: Callable[[Job, int], float], *, places: int) -> float:
    """Seconds until the last job is done, where each begins once its inputs are there and a place is free.

    Args:
        jobs: what is to do; inputs that are not among them are there.
        seconds: of a job that begins as the last of so many that run.
        places: how many run at a time.
    """
    waiting, unfinished = list(jobs), {job.key for job in jobs}
    running: list[tuple[float, str]] = []
    now = 0.0
    while unfinished:
        for job in tuple(waiting):
            if len(running) < places and not any(needed.key in unfinished for needed in job.inputs):
                waiting.remove(job)
                heapq.heappush(running, (now + seconds(job, len(running) + 1), job.key))
        now, key = heapq.heappop(running)
        unfinished.remove(key)
    return now


def _core_free(job: Job, running: int) -> bool:
    """Whether teachers may speak a view ahead of their student, as ``understudy.ladder.workers`` has it."""
    training = job.stage.training
    if training is None or training.device != "cpu" or job.views.policy.transforms:
        return False
    return 2 * running * training.threads <= cores()


def _places(jobs: Iterable[Job]) -> int:
    """How many jobs have cores of their own. A GPU is taken for one place, whoever shares it."""
    trainings = [job.stage.training for job in jobs if job.stage.training is not None]
    if any(training.device == "cuda" for training in trainings):
        return 1
    return max(1, cores() // max((training.threads for training in trainings), default=1))


def _is_kept(store: Store, key: str) -> bool:
    try:
        return store.result(key) is not None
    except Damaged:  # a run sets it aside and makes it again
        return False


# --- one job --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What a job still has to do.

    Attributes:
        laps: seconds of each epoch to come. speaking: of what teachers say before it.
        rest: seconds of what comes before and after all epochs.
        memory: bytes that it takes beside those that measuring took.
    """

    state: State
    laps: list[float] = field(default_factory=list)
    speaking: list[float] = field(default_factory=list)
    rest: float = 0.0
    bytes: int = 0
    memory: int = 0

    def seconds(self, *, ahead: bool) -> float:
        if not ahead:
            return sum(self.laps) + sum(self.speaking) + self.rest
        both = zip(self.laps, [*self.speaking[1:], 0.0], strict=bool(self.laps))
        return sum(self.speaking[:1]) + sum(max(lap, next_view) for lap, next_view in both) + self.rest


def _work(job: Job, store: Store, dataset: Dataset, measured: _Measured, said: _Said) -> _Work:
    found = measured.pace(job)
    training = job.stage.training
    looks = sum(found.looks.values())
    outputs = (4 * len(dataset.class_names) + 8) * (len(dataset.validation) + len(dataset.test))
    if training is None:
        return _Work(state="to do", rest=looks, bytes=found.weights + outputs + _RECORD_BYTES)
    batches = len(epoch_order(len(dataset.train), training.batch_size, seed=job.seed, epoch=0))
    done = _batches_done(store, job.key)
    epochs = range((done or 0) // batches, training.epochs)
    laps = [found.epoch(batches) + found.looks.get("validation", 0.0)] * len(epochs)
    if laps:
        laps[0] *= 1 - (done or 0) % batches / batches
    looked_back = _looked_back(job, done or 0, batches)
    turn = said.of(job, epochs, surveyed=looked_back is not None and looked_back.by_teachers)
    surveys = 0.0
    if looked_back is not None:
        images = max(1, len(dataset.validation) + len(dataset.test))
        surveys = looked_back.by_student * looks / images * len(dataset.train)
    return _Work(
        state="to do" if done is None else "resumes",
        laps=[lap + live for lap, live in zip(laps, turn.live, strict=True)],
        speaking=turn.speaking,
        rest=looks + turn.ready + turn.survey + surveys,
        bytes=found.weights + outputs + _RECORD_BYTES + _LINE_BYTES * training.epochs,
        memory=found.unseen + turn.memory,
    )


def _batches_done(store: Store, key: str) -> int | None:
    """How far the newest checkpoint is; None where there is none."""
    names = [path.name for path in (store.place(key) / CHECKPOINTS).glob("*")]
    return max((int(found[0]) for name in names if (found := re.match(r"\d+", name))), default=None)


@dataclass(frozen=True, kw_only=True)
class _LookedBack:
    """What a curriculum asks about all training images: how often of the student, and whether of teachers, who answer once."""

    by_student: int
    by_teachers: bool


def _looked_back(job: Job, done: int, batches: int) -> _LookedBack | None:
    """The surveys that are still to come after so many batches; None where there are none."""
    method, training = job.stage.method, job.stage.training
    while isinstance(method, Around) and not isinstance(method, Curriculum):
        method = method.method
    if not isinstance(method, Curriculum) or training is None:
        return None
    method = replace(method)
    method.epochs = training.epochs
    # at the beginning of an epoch: of one that has begun it is in the checkpoint
    to_come = [epoch for epoch in method.phases()[:-1] if epoch * batches >= done]
    if not to_come or method.score == "random":
        return None
    return _LookedBack(
        by_student=0 if method.score == "teacher" else len(to_come), by_teachers=method.score in OF_TEACHERS
    )


# --- what teachers say ----------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Turn:
    """What the teachers of one job do for it: seconds before each epoch, live in each epoch, to be ready, and for a
    curriculum; bytes."""

    speaking: list[float]
    live: list[float]
    ready: float = 0.0
    survey: float = 0.0
    memory: int = 0


class _Said:
    """Which answers are kept, will be, or find no room; asked for one job after the other."""

    def __init__(self, store: Store, dataset: Dataset, measured: _Measured) -> None:
        self.store, self.dataset, self.measured = store, dataset, measured
        self.free, self.size = free_bytes(store), size_of_signals(store)
        self.missing: dict[tuple[str, int], int] = {}  # blocks, by key and number of the view
        self.views: set[View] = set()
        self.teachers: set[str] = set()
        self.bytes = 0
        self.bytes_there = 0
        self.live = False

    def of(self, job: Job, epochs: range, *, surveyed: bool = False) -> _Turn:
        """The turn of ``job``, which takes what it makes off the list; ``surveyed``: a curriculum asks teachers, too."""
        turn = _Turn(speaking=[0.0] * len(epochs), live=[0.0] * len(epochs))
        if not hears(job):
            return turn
        kept = [
            (teacher, files)
            for teacher in job.teachers
            if (files := signal_files(teacher, job, store=self.store, dataset=self.dataset)) is not None
        ]
        lives: dict[View, float] = {}
        speakers: dict[str, Voice] = {}
        for position, epoch in enumerate(epochs):
            view = job.views.at(epoch)
            if view not in lives:
                turn.speaking[position], lives[view] = self._speak(job, kept, view, speakers)
            turn.live[position] = lives[view]
        if speakers:
            files = kept[0][1]  # a block of each speaker, and one more that is put together and packed
            turn.memory = (len(speakers) + 2) * len(files.rows(0)) * files.row_bytes
        if surveyed:
            turn.survey = self._survey(job, kept, speakers)
            turn.memory += 4 * len(job.teachers) * len(self.dataset.train) * len(self.dataset.class_names)
        turn.ready = sum(voice.ready for voice in speakers.values())
        return turn

    def _survey(self, job: Job, kept: list[tuple[Job, SignalFiles]], speakers: dict[str, Voice]) -> float:
        """Seconds in which teachers answer all training images without augmentation; what is kept of these is read."""
        training = job.stage.training
        assert training is not None
        drawn, spoken = 0, 0.0
        for teacher, files in kept:
            blocks = self._missing(files, PLAIN.number) if job.views.at(0) == PLAIN else files.blocks
            if not blocks:
                continue
            rows = files.samples * blocks // files.blocks
            if files.key not in speakers:
                speakers[files.key] = self.measured.voice(teacher, job)
            drawn = max(drawn, rows)
            spoken += rows * speakers[files.key].image
        drawing = drawn * self.measured.drawing(job) if drawn else 0.0
        return pace.waited(drawing + spoken, drawing, self.dataset.train, training)

    def _speak(
        self, job: Job, kept: list[tuple[Job, SignalFiles]], view: View, speakers: dict[str, Voice]
    ) -> tuple[float, float]:
        """Seconds of a bulk pass over what is missing and finds room, and of live answers in an epoch to the rest."""
        drawn, spoken, live = 0, 0.0, 0.0
        room = self._room(job)
        for teacher, files in kept:
            missing = self._missing(files, view.number)
            if not missing:
                continue
            voice = speakers[files.key] = self.measured.voice(teacher, job)
            size = files.view_bytes // files.blocks
            fitting = max(0, min(missing, room // max(1, size)))
            room -= fitting * size
            self.missing[files.key, view.number] = missing - fitting
            rows, unfit = (files.samples * blocks // files.blocks for blocks in (fitting, missing - fitting))
            drawn = max(drawn, rows)
            spoken += rows * voice.image
            live += unfit * voice.image
            self.live |= unfit > 0
            self.bytes += fitting * size
            if fitting:
                self.views.add(view)
                self.teachers.add(teacher.key)
        training = job.stage.training
        assert training is not None
        drawing = drawn * self.measured.drawing(job) if drawn else 0.0
        return pace.waited(drawing + spoken, drawing, self.dataset.train, training), live

    def _missing(self, files: SignalFiles, number: int) -> int:
        """Blocks of a view that are neither there nor made by a job before."""
        name = files.key, number
        if name not in self.missing:
            there = [block for block in range(files.blocks) if files.there(number, block)]
            self.bytes_there += sum(len(files.rows(block)) * files.row_bytes for block in there)
            self.missing[name] = files.blocks - len(there)
        return self.missing[name]

    def _room(self, job: Job) -> int:
        bound = job.signals.max_gb
        room = self.free if bound is None else min(self.free, int(bound * 1e9) - self.size)
        return room - self.bytes


# --- measured once --------------------------------------------------------------------------------------------------


class _Measured:
    """What was measured, so that it is not measured again where it would be the same."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.paces: dict[Any, Pace] = {}
        self.voices: dict[Any, Voice] = {}
        self.drawings: dict[str, float] = {}

    def pace(self, job: Job) -> Pace:
        found = self._whole(job)
        return found.of_part(job) if job.is_smaller else found

    def _whole(self, job: Job) -> Pace:
        training, method = job.stage.training, job.stage.method
        if training is None or method is None:
            if _who(job) not in self.paces:
                self.paces[_who(job)] = pace.looking_pace(job, self.dataset)
            return self.paces[_who(job)]
        how = replace(training, epochs=1, lr=1.0, warmup=0.0)  # they change no step
        way = repr(method.definition(teachers=len(job.teachers)))
        name = (*_who(job), how, way, len(job.teachers), repr(job.views.policy))
        if name not in self.paces:
            self.paces[name] = pace.training_pace(job, self.dataset)
        return self.paces[name]

    def voice(self, teacher: Job, job: Job) -> Voice:
        training = job.stage.training
        assert training is not None
        name = (*_who(teacher), training.precision, training.device, training.threads)
        if name not in self.voices:
            self.voices[name] = pace.voice(teacher, job, self.dataset)
        return self.voices[name]

    def drawing(self, job: Job) -> float:
        name = repr(job.views.policy)
        if name not in self.drawings:
            self.drawings[name] = pace.drawing_seconds(job, self.dataset)
        return self.drawings[name]


def _who(job: Job) -> tuple[str, int]:
    return repr(job.stage.network), id(job.stage.network.factory)


def _memory(base: int | None, works: Iterable[_Work], parallel: int) -> int | None:
    """At the peak: this process, which by now did a few steps of everything; and others like it at its side."""
    now = pace.anonymous_bytes()
    if base is None or now is None:
        return None
    largest = sorted((work.memory for work in works), reverse=True)[:parallel]
    if parallel == 1:
        return now + sum(largest)
    return base + sum(now + each for each in largest)
