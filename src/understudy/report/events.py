"""How a run goes, for programs: one JSON object a line, see docs/reference/events.md."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from understudy.ladder.runner import Outcome, Watcher
from understudy.report.numbers import plain
from understudy.store.logs import epoch_line

if TYPE_CHECKING:
    from understudy.ladder.graph import Job
    from understudy.ladder.workers import Event
    from understudy.store import Store

VERSION = 1
BETWEEN = 1.0  # seconds between two ``progress`` events of one stage, at least


class Events:
    """Writes the events of a run; ``events.watcher`` is what the runner tells.

    Every line is one JSON object with ``version``, ``event`` and ``time``. Nothing raises out of here where the reader
    goes away: ``events.broken`` says so, and whoever started the run may end it.

    Args:
        jobs: all that the run will ask for.
        store: where the logs of the stages lie; None: events of epochs lack what only a log says.
        file: where to; None: standard output.
        clock: seconds that only grow. now: seconds since 1970.

    >>> import sys
    >>> with Events([], file=sys.stdout, now=lambda: 0.0) as events:
    ...     events.watcher.said("a sentence")
    {"version": 1, "event": "message", "time": "1970-01-01T00:00:00.000Z", "text": "a sentence"}
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        *,
        store: Store | None = None,
        file: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.jobs = {job.key: job for job in jobs}
        self.store = store
        self.file = sys.stdout if file is None else file
        self.clock, self.now = clock, now
        self.broken = False
        self._last: dict[str, float] = {}
        self._running: set[str] = set()
        self.watcher = Watcher(began=self._began, event=self._event, ended=self._ended, said=self.message)

    def __enter__(self) -> Events:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.broken and self.file is sys.stdout:
            # Python flushes it once more at its end and would complain that nobody reads
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    # --- what whoever starts the run tells ----------------------------------------------------------------------

    def run_started(self, *, out: Path | None, command: str) -> None:
        """Before anything is made: every stage that the run is about."""
        self.write(
            "run_started",
            out=None if out is None else str(out),
            command=command,
            stages=[
                {
                    **_who(job),
                    "role": job.stage.role,
                    "model": job.stage.network.label,
                    "teachers": list(job.stage.teachers),
                    "epochs": job.stage.training.epochs if job.stage.training else 0,
                    "parameters": job.cost.parameters,
                    "multiply_adds": job.cost.multiply_adds,
                }
                for job in self.jobs.values()
            ],
        )

    def run_finished(self, result: Mapping[str, Any], *, out: Path | None, why: str = "") -> None:
        """After everything: what was delivered, and accuracies over seeds.

        Args:
            result: the content of ``result.json``.
            out: the run's folder.
            why: the run ended before it was done; empty where it did not.
        """
        states = {stage["state"] for stage in result["stages"]}
        state = "interrupted" if why or "interrupted" in states else "failed"
        self.write(
            "run_finished",
            state="done" if result["complete"] else state,
            why=why,
            out=None if out is None else str(out),
            delivered=result["delivered"],
            summary=result["summary"],
        )

    def message(self, sentence: str) -> None:
        """A sentence about the run."""
        self.write("message", text=plain(sentence))

    # --- what the runner tells ----------------------------------------------------------------------------------

    def _began(self, job: Job) -> None:
        if job.key in self._running:  # it was tried before: another run makes it, or an input is made again
            return
        self._running.add(job.key)
        self.write("stage_started", **_who(job))

    def _event(self, job: Job, event: Event) -> None:
        progress = event.progress
        if event.kind == "say":
            self.write("stage_message", **_who(job), text=plain(event.message))
        if event.kind != "progress" or progress is None:
            return
        now = self.clock()
        if not progress.epoch_done and now - self._last.get(job.key, -BETWEEN) < BETWEEN:
            return
        self._last[job.key] = now
        line = {}
        if progress.epoch_done and self.store is not None:
            line = epoch_line(self.store, job.key, progress.epoch)
        self.write(
            "epoch" if progress.epoch_done else "progress",
            **_who(job),
            epoch=progress.epoch,
            epochs=progress.epochs,
            batch=progress.batch,
            batches=progress.batches,
            losses=line.get("loss", dict(progress.losses)),
            **{name: line[name] for name in ("lr", "train", "gradient") if name in line},
            validation=dict(progress.validation),
            images_per_second=progress.images_per_second,
            seconds_left=progress.seconds_left,
        )

    def _ended(self, outcome: Outcome) -> None:
        self._running.discard(outcome.job.key)
        record = outcome.result.record if outcome.result is not None else {}
        self.write(
            "stage_finished",
            **_who(outcome.job),
            state=outcome.state,
            message=plain(outcome.message),
            from_store=outcome.from_store,
            seconds=record.get("seconds"),
            validation=record.get("validation", {}),
            test=record.get("test", {}),
        )

    def write(self, event: str, **said: Any) -> None:
        """Writes one event at once; what JSON has no number for becomes null."""
        if self.broken:
            return
        now = datetime.fromtimestamp(self.now(), UTC).isoformat(timespec="milliseconds")
        line = {"version": VERSION, "event": event, "time": now.replace("+00:00", "Z"), **said}
        try:
            print(json.dumps(_finite(line), allow_nan=False), file=self.file, flush=True)
        except (BrokenPipeError, ValueError):  # the reader went away; the latter: the file is closed
            self.broken = True


def _who(job: Job) -> dict[str, Any]:
    return {"stage": plain(job.name), "seed": job.seed, "key": job.key}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
