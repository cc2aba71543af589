"""How a run goes: live lines on a terminal, few lines in a log."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from understudy.ladder.runner import Outcome, Watcher
from understudy.report.numbers import duration, percent, plain, shortened

if TYPE_CHECKING:
    from understudy.ladder.graph import Job
    from understudy.ladder.workers import Event
    from understudy.training.clock import Progress

BETWEEN_LINES = 10.0  # seconds between two lines of a log about one stage, at least
WITHOUT_A_LINE = 60.0  # seconds after which there is one though less than a tenth of the epochs was done
BAR = 10  # characters


@dataclass
class _Running:
    """A stage under way."""

    job: Job
    began: float
    elsewhere: bool = False
    progress: Progress | None = None
    first: float | None = None  # part of the work that was done when it began: it may have resumed
    said: float = 0.0  # when the log last had a line about it
    tenths: int = 0


@dataclass
class _Pace:
    """What the stages made so far cost, to guess what the others will."""

    work: float = 0.0
    seconds: float = 0.0
    side_by_side: int = 1
    done: set[str] = field(default_factory=set)


class Display:
    """Shows a run to whoever sits before it; ``display.watcher`` is what the runner tells.

    On a terminal each running stage has one line that moves, and one below all of them counts stages and time; what
    ends leaves a line above. Elsewhere (a log, CI) a stage has a line when it begins, one when it ends, and between
    them at most one in ten seconds: when another tenth of its epochs is done, or after a minute.

    Args:
        jobs: all that the run will ask for.
        console: where to; None: standard error, so that standard output stays clean.
        quiet: show what went wrong and nothing else.
        live: lines that move; None: on a terminal that is not CI's.
        clock: seconds that only grow.

    >>> with Display([], console=Console(quiet=True), live=False) as display:
    ...     display.watcher.said("a sentence")
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        *,
        console: Console | None = None,
        quiet: bool = False,
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.jobs = {job.key: job for job in jobs}
        self.console = console or Console(stderr=True)
        self.quiet, self.clock = quiet, clock
        seeds: dict[str, set[int]] = {}
        for job in self.jobs.values():
            seeds.setdefault(job.name, set()).add(job.seed)
        self.several = {name for name, own in seeds.items() if len(own) > 1}
        self.running: dict[str, _Running] = {}
        self.ended: dict[str, Outcome] = {}
        self.pace = _Pace()
        self.watcher = Watcher(began=self._began, event=self._event, ended=self._ended, said=self._said)
        if live is None:
            live = self.console.is_interactive and self.console.file.isatty() and not os.environ.get("CI")
        self.live: Live | None = None
        if live and not quiet:
            self.live = Live(
                get_renderable=self.render, console=self.console, refresh_per_second=4, transient=True
            )

    def __enter__(self) -> Display:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    # --- what the runner tells ----------------------------------------------------------------------------------

    def _began(self, job: Job) -> None:
        before = self.running.get(job.key)
        if before is not None:  # it was tried before: another run makes it, or an input had to be made again
            before.elsewhere = before.progress is None
            return
        self.ended.pop(job.key, None)
        now = self.clock()
        self.running[job.key] = _Running(job=job, began=now, said=now)
        self.pace.side_by_side = max(self.pace.side_by_side, len(self.running))
        if not self.live:
            taught = (
                f", taught by {', '.join(plain(teacher.name) for teacher in job.teachers)}"
                if job.teachers
                else ""
            )
            self._line(f"{self.name(job)} begins: {plain(job.stage.network.label)}{taught}")

    def _event(self, job: Job, event: Event) -> None:
        if event.kind == "say":
            self._line(f"{self.name(job)}: {plain(event.message)}")
        elif event.kind == "progress" and event.progress is not None:
            at = self.running.setdefault(job.key, _Running(job=job, began=self.clock(), said=self.clock()))
            progress = event.progress
            if (
                not progress.losses and at.progress is not None
            ):  # between two epochs those of the last one stand
                progress = replace(progress, losses=at.progress.losses)
            at.progress, at.elsewhere = progress, False
            if at.first is None:
                at.first = _part(progress)
                at.tenths = progress.epoch * 10 // max(1, progress.epochs)
            if not self.live:
                self._log(at, progress)

    def _log(self, at: _Running, progress: Progress) -> None:
        now = self.clock()
        tenths = progress.epoch * 10 // max(1, progress.epochs)
        since = now - at.said
        if since >= WITHOUT_A_LINE or (since >= BETWEEN_LINES and tenths > at.tenths):
            at.said, at.tenths = now, tenths
            self._line(", ".join([self.name(at.job), *(text for _, text in pieces(progress))]))

    def _ended(self, outcome: Outcome) -> None:
        job = outcome.job
        at = self.running.pop(job.key, None)
        self.ended[job.key] = outcome
        name = self.name(job)
        if outcome.state == "done":
            if at is not None and not outcome.from_store:
                self.pace.work += _work(job) * (1 - (at.first or 0.0))
                self.pace.seconds += self.clock() - at.began
            record = outcome.result.record if outcome.result is not None else {}
            said = [f"{name}: kept already" if outcome.from_store else f"{name}: done"]
            if record.get("seconds") and not outcome.from_store:
                said[0] += f" in {duration(record['seconds'])}"
            accuracy = (record.get("validation") or {}).get("accuracy")
            if accuracy is not None:
                said.append(f"validation {percent(accuracy)} %")
            self._line(", ".join(said))
        elif outcome.state == "failed":
            self._print(f"{name} failed: {plain(outcome.message)}")
        elif outcome.state == "left out":
            self._print(f"{name} is left out: {plain(outcome.message)}")
        elif outcome.state == "interrupted":
            self._line(f"{name}: interrupted, its checkpoint is kept")

    def _said(self, sentence: str) -> None:
        self._print(plain(sentence))  # the runner speaks only when something is not as it should be

    def _line(self, text: str) -> None:
        if not self.quiet:
            self._print(text)

    def _print(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True, highlight=False)

    # --- the lines that move ------------------------------------------------------------------------------------

    def name(self, job: Job) -> str:
        """The stage's name, with the seed where it is made for several."""
        return plain(job.name) + (f", seed {job.seed}" if job.name in self.several else "")

    def render(self) -> Group:
        """A line for each running stage, then one for the whole run; each fits the console's width."""
        width = self.console.width
        running = list(self.running.values())
        room = max(1, self.console.height - 2)
        lines = [self._moving(at, width) for at in running[:room]]
        if len(running) > room:
            lines.append(f"and {len(running) - room} more")
        done = sum(outcome.state == "done" for outcome in list(self.ended.values()))
        whole = f"{done} of {len(self.jobs)} stages done"
        failed = sum(outcome.state in ("failed", "left out") for outcome in list(self.ended.values()))
        if failed:
            whole += f", {failed} failed or left out"
        left = self.seconds_left()
        if left is not None and left >= 1:
            whole += f", about {duration(left)} left"
        return Group(*(Text(line, no_wrap=True, overflow="ellipsis") for line in [*lines, whole]))

    def _moving(self, at: _Running, width: int) -> str:
        name = self.name(at.job)
        if at.elsewhere:
            return f"{name}  another run makes it"
        if at.progress is None:
            return f"{name}  begins"
        filled = round(_part(at.progress) * BAR)
        parts = [(3, "━" * filled + "╌" * (BAR - filled)), *pieces(at.progress)]
        room = max(width - cell_len(name) - 2, width // 2)
        while len(parts) > 1 and len("  ".join(text for _, text in parts)) > room:
            parts.remove(max(parts, key=lambda part: part[0]))
        figures = "  ".join(text for _, text in parts)
        return f"{shortened(name, max(4, width - len(figures) - 2))}  {figures}"

    def seconds_left(self) -> float | None:
        """A guess for the whole run: each stage by its multiply-adds, at the pace of those seen; None without any."""
        running = list(self.running.values())
        mine = [at.progress.seconds_left for at in running if at.progress is not None]
        work, seconds = self.pace.work, self.pace.seconds
        for at in running:
            if (
                at.progress is not None
                and at.first is not None
                and (part := _part(at.progress) - at.first) > 0
            ):
                work += part * _work(at.job)
                seconds += self.clock() - at.began
        ended = set(self.ended)
        waiting = [job for key, job in self.jobs.items() if key not in ended]
        rest = sum(_work(job) for job in waiting) - sum(
            _work(at.job) for at in running if at.progress is not None
        )
        if rest > 0:
            if work <= 0:
                return None
            return max([*mine, (sum(mine) + rest * seconds / work) / self.pace.side_by_side])
        return max(mine, default=None)


def _part(progress: Progress) -> float:
    return min(1.0, progress.batch / max(1, progress.batches))


def _work(job: Job) -> float:
    """Multiply-adds of a training per image: forward and backward (about twice forward), and each teacher forward."""
    epochs = job.stage.training.epochs if job.stage.training is not None else 0
    return float(
        epochs * (3 * job.cost.multiply_adds + sum(teacher.cost.multiply_adds for teacher in job.teachers))
    )


def pieces(progress: Progress) -> list[tuple[int, str]]:
    """What there is to say about a training, each with how readily it is left out for want of room (0: never)."""
    said = [
        (0, f"epoch {min(progress.epoch + (not progress.epoch_done), progress.epochs)}/{progress.epochs}")
    ]
    if "total" in progress.losses:
        said.append((2, f"loss {progress.losses['total']:.3f}"))
    parts = [f"{plain(name)} {value:.3f}" for name, value in progress.losses.items() if name != "total"]
    if len(parts) > 1:  # one part is the total itself
        said.append((5, ", ".join(parts)))
    if "accuracy" in progress.validation:
        said.append((1, f"validation {percent(progress.validation['accuracy'])} %"))
    said.append((4, f"{progress.images_per_second:,.0f} images/s"))
    said.append((1, f"{duration(progress.seconds_left)} left"))
    return said
