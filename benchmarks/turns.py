"""Work that is done in turns: each in a process of its own, some steps at a time, while all others wait.

Variants that are compared share every hour of the machine this way, and a ratio is taken within each round. Time is CPU
time of the process, so that other programs matter little; on a GPU it is time on the wall. What is process-wide (kept
memory pages, above all) holds for one variant only.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean, median
from typing import Any, Protocol, Self


class Work(Protocol):
    """Something that goes on step by step until it is told that it is over."""

    @property
    def keeps_pages(self) -> bool:
        """Whether its process keeps freed memory pages, as the command of understudy does."""
        ...

    @property
    def device(self) -> str:
        """Where it computes."""
        ...

    def run(self, step_done: Callable[[], bool]) -> None:
        """Works; calls ``step_done`` after every step, and ends when that says True."""


@dataclass(frozen=True)
class Spent:
    """What the steps of one turn took: CPU seconds of each, and seconds on the wall of all."""

    cpu: tuple[float, ...]
    wall: float


class Turns:
    """Called by the work after each step: notes the time, and waits where the turn is over.

    Args:
        pipe: where orders (a number of steps; None: it is over) come from and what was spent goes to.
        finish: waits for work that was only handed out, as to a GPU.
        cpu, wall: clocks in seconds.
    """

    def __init__(
        self,
        pipe: Connection,
        *,
        finish: Callable[[], None] = lambda: None,
        cpu: Callable[[], float] = time.process_time,
        wall: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.pipe, self.finish, self.cpu_clock, self.wall_clock = pipe, finish, cpu, wall
        self.over = False
        self.wanted: int | None = None
        self.cpu: list[float] = []
        self.began = self.last = 0.0
        self._wait()

    def __call__(self) -> bool:
        if self.over:
            return True
        if len(self.cpu) + 1 == self.wanted:
            self.finish()
        now = self.cpu_clock()
        self.cpu.append(now - self.last)
        self.last = now
        if len(self.cpu) == self.wanted:
            self.pipe.send(Spent(tuple(self.cpu), self.wall_clock() - self.began))
            self._wait()
        return self.over

    def _wait(self) -> None:
        self.wanted = self.pipe.recv()
        self.over = self.wanted is None
        self.cpu = []
        self.began, self.last = self.wall_clock(), self.cpu_clock()


def _process(pipe: Connection, work: Work) -> None:
    import torch

    from understudy.training.memory import keep_pages

    torch.set_num_threads(1)
    if work.keeps_pages:
        keep_pages()
    try:
        turns = Turns(pipe, finish=torch.cuda.synchronize if work.device == "cuda" else lambda: None)
        work.run(turns)
    except EOFError:  # the parent is gone
        return
    except BaseException:
        pipe.send(traceback.format_exc())
        raise


class Worker:
    """A process that works in turns."""

    def __init__(self, name: str, work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_process, args=(theirs, work), name=name, daemon=False)
        self.process.start()
        theirs.close()
        self.peak = 0
        """Bytes of anonymous memory at most, of it and its children, as far as ``Memory`` looked."""

    def take(self, steps: int) -> Spent:
        """Has it make so many steps.

        Raises:
            RuntimeError: it failed.
        """
        self.pipe.send(steps)
        try:
            said = self.pipe.recv()
        except EOFError:
            self.process.join()
            raise RuntimeError(f"{self.name} ended with status {self.process.exitcode}") from None
        if isinstance(said, str):
            raise RuntimeError(f"{self.name} failed:\n{said}")
        spent: Spent = said
        return spent

    def close(self) -> None:
        """Ends it."""
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        self.process.join(60)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()


# ---------------------------------------------------------------------------------------------------------- memory
def anonymous_bytes(pid: int) -> int:
    """Anonymous memory of a process and all below it that lies in main memory now; 0 where it is gone."""
    total = 0
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
            if line.startswith("RssAnon:"):
                total += 1024 * int(line.split()[1])
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text("utf-8").split():
                total += anonymous_bytes(int(child))
    return total


def bytes_in(folder: Path) -> int:
    """Size of all files below a folder; some may go while it is looked at."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(root) / name).stat().st_size
    return total


class Watch:
    """Looks at figures again and again in a thread, and keeps the largest of each."""

    def __init__(self, look: Callable[[], Mapping[str, int]], *, every: float = 0.02) -> None:
        self.look, self.every = look, every
        self.most: dict[str, int] = {}
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self.done.wait(self.every):
            for name, value in self.look().items():
                self.most[name] = max(value, self.most.get(name, 0))

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.thread.join()


# ---------------------------------------------------------------------------------------------------------- rounds
@dataclass(frozen=True, kw_only=True)
class Rounds:
    """What was measured, by the name of the work.

    Attributes:
        turns: one for each round.
        first: the first step, with all that has to be made before it: teachers' kept answers, above all.
        memory: bytes of anonymous memory at most.
        wall: seconds are those on the wall, not of the processor.
    """

    turns: Mapping[str, list[Spent]]
    first: Mapping[str, Spent]
    memory: Mapping[str, int]
    wall: bool = False

    def seconds(self, name: str) -> list[float]:
        """Seconds of one step in each round, the mean over the turn."""
        if self.wall:
            return [turn.wall / len(turn.cpu) for turn in self.turns[name]]
        return [mean(turn.cpu) for turn in self.turns[name]]

    def typical(self, name: str) -> float:
        """Their median."""
        return median(self.seconds(name))


@dataclass(frozen=True)
class Ratio:
    """A ratio that was taken within each round: the median, and from the lowest to the highest."""

    value: float
    low: float
    high: float


def paired(above: list[float], below: list[float]) -> Ratio:
    """``above / below`` of each round.

    >>> paired([4.0, 9.0, 8.0], [2.0, 3.0, 2.0])
    Ratio(value=3.0, low=2.0, high=4.0)
    """
    each = [one / other for one, other in zip(above, below, strict=True)]
    return Ratio(median(each), min(each), max(each))


def interleaved(
    works: Mapping[str, Work],
    *,
    rounds: int,
    seconds: float,
    steps: Mapping[str, int] | None = None,
    warm: int = 2,
) -> Rounds:
    """Has every work take a turn in every round, each round beginning with another one.

    Args:
        works: by name.
        rounds: how often.
        seconds: of a turn, about; one step at least.
        steps: of a turn, instead, for those named.
        warm: steps after the first one that do not count.
    """
    workers: dict[str, Worker] = {}
    turns: dict[str, list[Spent]] = {name: [] for name in works}
    first: dict[str, Spent] = {}
    wanted = dict(steps or {})
    wall = any(work.device == "cuda" for work in works.values())

    def look() -> dict[str, int]:
        return {name: anonymous_bytes(worker.process.pid or 0) for name, worker in list(workers.items())}

    with Watch(look) as watch:
        try:
            for name, work in works.items():
                workers[name] = Worker(name, work)
                first[name] = workers[name].take(1)
                if warm > 1:
                    workers[name].take(warm - 1)
                last = workers[name].take(1)
                cost = last.wall if wall else last.cpu[0]
                wanted.setdefault(name, max(1, round(seconds / max(cost, 1e-6))))
            names = list(works)
            for number in range(rounds):
                begin = number % len(names)
                for name in names[begin:] + names[:begin]:
                    turns[name].append(workers[name].take(wanted[name]))
        finally:
            for worker in workers.values():
                worker.close()
    return Rounds(turns=turns, first=first, memory=dict(watch.most), wall=wall)


def as_json(rounds: Rounds) -> dict[str, Any]:
    """Milliseconds of a step, steps in a turn, what came before the first step, and memory, for each name."""
    return {
        name: {
            "ms_a_step": round(1000 * rounds.typical(name), 3),
            "steps_a_turn": len(rounds.turns[name][0].cpu),
            "first_step_seconds": round(
                rounds.first[name].wall if rounds.wall else rounds.first[name].cpu[0], 3
            ),
            "anonymous_megabytes": round(rounds.memory.get(name, 0) / 1e6, 1),
        }
        for name in rounds.turns
    }
