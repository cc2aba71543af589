"""Users' own logging: a callback is told how a run goes, in the process that started it.

One small protocol. A callback sees plain figures and changes nothing: random numbers that it draws are given back, and
one that raises is named and, as the user chose, passed over from then on or the end of the run.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from understudy.errors import BadInput, MissingExtra, UnderstudyError

if TYPE_CHECKING:
    from understudy.ladder.graph import Job
    from understudy.ladder.runner import Outcome, Watcher
    from understudy.ladder.workers import Event
    from understudy.store import Store

OnError = Literal["warn", "stop"]


class CallbackFailed(UnderstudyError, RuntimeError):
    """A callback raised, and the run was asked to stop for it; what was trained until then is kept."""


@dataclass(frozen=True, kw_only=True)
class StageStart:
    """A stage begins, or goes on from its checkpoint.

    Attributes:
        name: of the stage. seed: of everything random in it. key: under which its result is kept.
        role: ``teacher``, ``assistant`` or ``student``. model: such as ``plain_cnn-4 x0.5``.
        teachers: names of the stages it learns from.
        epochs: of its training; 0 where its weights are given.
        parameters, multiply_adds: of its network, multiply-adds for one image.
    """

    name: str
    seed: int
    key: str
    role: str
    model: str
    teachers: tuple[str, ...]
    epochs: int
    parameters: int
    multiply_adds: int


@dataclass(frozen=True, kw_only=True)
class StageProgress:
    """How a training goes, a few times a second.

    Attributes:
        name, seed: which stage.
        epoch: epochs finished. epochs: of the whole training.
        batch: batches done since the stage began. batches: of the whole training.
        losses: mean of each part in this epoch so far. validation: metrics after the last finished epoch.
        images_per_second, seconds_left: since this process began with the stage.
    """

    name: str
    seed: int
    epoch: int
    epochs: int
    batch: int
    batches: int
    losses: Mapping[str, float]
    validation: Mapping[str, float]
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True, kw_only=True)
class StageEpoch:
    """An epoch is finished: what the stage's own log has about it.

    Attributes:
        name, seed: which stage.
        epoch: 1 after the first. epochs: of the whole training. step: optimiser steps since the stage began.
        lr: learning rate of the last step.
        losses: mean of each part over the epoch. gradient: share of each part in the gradient, early in the epoch.
        train, validation: metrics such as ``accuracy``, a fraction; the former while it trained, over the epoch.
        seconds: of training since the stage began, over every process that worked on it.
    """

    name: str
    seed: int
    epoch: int
    epochs: int
    step: int
    lr: float
    losses: Mapping[str, float]
    gradient: Mapping[str, float]
    train: Mapping[str, float]
    validation: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class StageEnd:
    """A stage is over. One that was kept already ends without having begun.

    Attributes:
        name, seed, key: which stage.
        state: ``done``, ``failed``, ``left out`` (what it needs failed) or ``interrupted``. message: why.
        from_store: it was kept already.
        epochs, seconds: of its training, whenever that was. parameters, multiply_adds: of its network.
        validation, test: metrics of the finished network, such as ``accuracy``, a fraction; empty unless ``done``.
    """

    name: str
    seed: int
    key: str
    state: str
    message: str
    from_store: bool
    epochs: int
    seconds: float
    parameters: int
    multiply_adds: int
    validation: Mapping[str, float]
    test: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class RunEnd:
    """The run is over.

    Attributes:
        complete: every stage is done.
        delivered: name of the stage that is delivered, None where none is finished.
        out: the run's folder, None where it has none; its files are written by now.
        result: the content of ``result.json``.
    """

    complete: bool
    delivered: str | None
    out: Path | None
    result: Mapping[str, Any]


class Callback(Protocol):
    """What a run tells. Inherit from it, and write only what is wanted: everything else does nothing.

    >>> class Losses(Callback):
    ...     def on_epoch(self, epoch: StageEpoch) -> None:
    ...         print(epoch.name, epoch.epoch, epoch.losses["total"])
    """

    def on_stage_start(self, stage: StageStart) -> None:
        """A stage begins."""
        return

    def on_progress(self, progress: StageProgress) -> None:
        """A few times a second while a stage trains."""
        return

    def on_epoch(self, epoch: StageEpoch) -> None:
        """After each epoch."""
        return

    def on_stage_end(self, stage: StageEnd) -> None:
        """A stage is done, kept already, failed, left out or interrupted."""
        return

    def on_run_end(self, run: RunEnd) -> None:
        """After everything, once; also after an interrupt or a failed stage."""
        return


CALLS = ("on_stage_start", "on_progress", "on_epoch", "on_stage_end", "on_run_end")


def check_callbacks(callbacks: Sequence[Callback], on_error: str) -> None:
    """Whether ``callbacks`` can be called, asked before anything is trained.

    Raises:
        BadInput: one is a class, or lacks a part of the protocol; or ``on_error`` is neither ``warn`` nor ``stop``.
    """
    if on_error not in ("warn", "stop"):
        raise BadInput(f"on_callback_error is {on_error!r}; it can be 'warn' (the run goes on) or 'stop'.")
    if not isinstance(callbacks, list | tuple):
        raise BadInput(
            f"callbacks is {callbacks!r}; it is a list, such as [TensorBoard('runs/tensorboard')]."
        )
    for callback in callbacks:
        if isinstance(callback, type):
            raise BadInput(
                f"callbacks holds the class {callback.__name__}; give an object, {callback.__name__}()."
            )
        if absent := [call for call in CALLS if not callable(getattr(callback, call, None))]:
            raise BadInput(
                f"{type(callback).__name__} is no callback: it has no {', '.join(absent)}. "
                f"Inherit from understudy.Callback, which does nothing, and write what you need."
            )


@dataclass
class Caller:
    """Turns what the runner says into calls; ``caller.watcher()`` is what the runner tells.

    Attributes:
        callbacks: told in this order. on_error: ``warn``: one that raises is not called any more; ``stop``: the run
            ends, with checkpoints kept.
        store: where the logs of the stages lie.
        warn: takes the sentence about a callback that raised.
        failed: that sentence, where the run has to stop for it.
    """

    callbacks: Sequence[Callback]
    store: Store
    on_error: OnError = "warn"
    warn: Callable[[str], None] = field(default=lambda sentence: None)
    failed: str = ""
    cause: Exception | None = None
    dropped: list[Callback] = field(default_factory=list)

    def stop(self) -> bool:
        """Whether the run has to end."""
        return bool(self.failed)

    def check(self) -> None:
        """Raises ``CallbackFailed`` where a callback ended the run."""
        if self.failed:
            raise CallbackFailed(self.failed) from self.cause

    def watcher(self) -> Watcher:
        """What the runner tells."""
        from understudy.ladder.runner import Watcher

        return Watcher(began=self._began, event=self._event, ended=self._ended)

    def run_ended(self, result: Mapping[str, Any], out: Path | None) -> None:
        """Tells that the run is over."""
        delivered = result["delivered"]
        self._tell(
            "on_run_end",
            RunEnd(
                complete=result["complete"],
                delivered=None if delivered is None else delivered["name"],
                out=out,
                result=result,
            ),
        )

    def _began(self, job: Job) -> None:
        self._tell(
            "on_stage_start",
            StageStart(
                name=job.name,
                seed=job.seed,
                key=job.key,
                role=job.stage.role,
                model=job.stage.network.label,
                teachers=tuple(job.stage.teachers),
                epochs=job.stage.training.epochs if job.stage.training else 0,
                parameters=job.cost.parameters,
                multiply_adds=job.cost.multiply_adds,
            ),
        )

    def _event(self, job: Job, event: Event) -> None:
        progress = event.progress
        if event.kind != "progress" or progress is None or not self.callbacks:
            return
        if not progress.epoch_done:
            self._tell(
                "on_progress",
                StageProgress(
                    name=job.name,
                    seed=job.seed,
                    epoch=progress.epoch,
                    epochs=progress.epochs,
                    batch=progress.batch,
                    batches=progress.batches,
                    losses=dict(progress.losses),
                    validation=dict(progress.validation),
                    images_per_second=progress.images_per_second,
                    seconds_left=progress.seconds_left,
                ),
            )
            return
        from understudy.store.logs import epoch_line

        line = epoch_line(self.store, job.key, progress.epoch)
        self._tell(
            "on_epoch",
            StageEpoch(
                name=job.name,
                seed=job.seed,
                epoch=progress.epoch,
                epochs=progress.epochs,
                step=line.get("step", 0),
                lr=line.get("lr", 0.0),
                losses=line.get("loss", {}),
                gradient=line.get("gradient", {}),
                train=line.get("train", {}),
                validation=dict(progress.validation),
                seconds=line.get("seconds", 0.0),
            ),
        )

    def _ended(self, outcome: Outcome) -> None:
        record = outcome.result.record if outcome.result is not None else {}
        training = outcome.job.stage.training
        self._tell(
            "on_stage_end",
            StageEnd(
                name=outcome.job.name,
                seed=outcome.job.seed,
                key=outcome.job.key,
                state=outcome.state,
                message=outcome.message,
                from_store=outcome.from_store,
                epochs=record.get("epochs", training.epochs if training else 0),
                seconds=record.get("seconds", 0.0),
                parameters=outcome.job.cost.parameters,
                multiply_adds=outcome.job.cost.multiply_adds,
                validation=record.get("validation", {}),
                test=record.get("test", {}),
            ),
        )

    def _tell(self, call: str, about: Any) -> None:
        for callback in self.callbacks:
            if any(callback is dropped for dropped in self.dropped):
                continue
            try:
                with _own_random_numbers():
                    getattr(callback, call)(about)
            except Exception as error:  # whatever a user's code raises
                self.dropped.append(callback)
                reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
                said = f"the callback {type(callback).__name__} raised in {call} ({reason})"
                if self.on_error == "stop":
                    self.failed = self.failed or (
                        f"{said}; the run is stopped, and run again it goes on from what is kept. "
                        f"on_callback_error='warn' goes on without the callback."
                    )
                    self.cause = self.cause or error
                else:
                    self.warn(f"{said}; the run goes on, without this callback.")


@contextlib.contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Whatever is drawn inside is not missed outside: training may go on in this process."""
    import torch

    started = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if started else []):
        yield


def together(*watchers: Watcher) -> Watcher:
    """One watcher that tells several, in order."""
    from understudy.ladder.runner import Watcher

    def each(call: str) -> Callable[..., None]:
        told = [getattr(watcher, call) for watcher in watchers]

        def tell(*about: Any) -> None:
            for one in told:
                one(*about)

        return tell

    return Watcher(
        began=each("began"), event=each("event"), ended=each("ended"), said=each("said"), idle=each("idle")
    )


class TensorBoard(Callback):
    """Writes losses, learning rate and accuracies for TensorBoard, a folder for each stage and seed.

    Args:
        folder: for ``tensorboard --logdir``.

    Raises:
        MissingExtra: tensorboard is not installed.
    """

    def __init__(self, folder: Path | str = "runs/tensorboard") -> None:
        try:
            import tensorboard  # noqa: F401 - torch's writer complains in its own words without it
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra("TensorBoard", "track") from error
        self.folder = Path(folder)
        self._open = SummaryWriter
        self._writers: dict[tuple[str, int], Any] = {}

    def on_epoch(self, epoch: StageEpoch) -> None:
        writer = self._writer(epoch.name, epoch.seed)
        for name, value in epoch.losses.items():
            writer.add_scalar(f"loss/{name}", value, epoch.epoch)
        for name, value in epoch.validation.items():
            writer.add_scalar(f"validation/{name}", value, epoch.epoch)
        writer.add_scalar("learning rate", epoch.lr, epoch.epoch)

    def on_stage_end(self, stage: StageEnd) -> None:
        if stage.state == "done":
            for name, value in stage.test.items():
                self._writer(stage.name, stage.seed).add_scalar(f"test/{name}", value, stage.epochs)
        if (writer := self._writers.pop((stage.name, stage.seed), None)) is not None:
            writer.close()

    def on_run_end(self, run: RunEnd) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, name: str, seed: int) -> Any:
        if (name, seed) not in self._writers:
            place = self.folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name).strip('.')}-seed-{seed}"
            self._writers[name, seed] = self._open(str(place))
        return self._writers[name, seed]
