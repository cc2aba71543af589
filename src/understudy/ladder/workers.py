"""The one small seam where work is handed out: here, or in local processes."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from understudy import processes
from understudy.errors import BadInput, Damaged, Interrupted, UnderstudyError

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset
    from understudy.ladder.graph import Job
    from understudy.training.clock import Progress

Kind = Literal["progress", "say", "done", "busy", "interrupted", "damaged", "failed"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """What became of a job, or how it goes.

    Attributes:
        key: of the job.
        kind: ``progress`` and ``say`` while it runs; then one of ``done``, ``busy`` (another process makes it),
            ``interrupted``, ``damaged`` (a kept input is), ``failed``.
        message: a sentence, for ``say``, ``damaged``, ``failed``.
        progress: for ``progress``.
        from_store: for ``done``: it was there already.
    """

    key: str
    kind: Kind
    message: str = ""
    progress: Progress | None = None
    from_store: bool = False


class Workers(Protocol):
    """Somewhere jobs are made. The runner asks nothing else; another place to work is another class like this."""

    def free(self) -> int:
        """How many more jobs may be submitted now."""

    def submit(self, job: Job) -> None:
        """Begins a job."""

    def events(self, timeout: float) -> Iterable[Event]:
        """What happened; waits for up to ``timeout`` seconds for something to happen."""

    def close(self) -> None:
        """Ends; jobs that still run are told to stop and keep a checkpoint."""


def attempt(
    job: Job,
    *,
    store: Path,
    dataset: Dataset,
    tell: Callable[[Event], None],
    stop: Callable[[], bool],
    running: Callable[[], int] = lambda: 1,
) -> Event:
    """Makes one job and says what became of it; nothing but interrupts of the interpreter gets out.

    Args:
        job: what to make. store, dataset: see ``make``.
        tell: told how it goes.
        stop: asked between steps.
        running: how many jobs are made on this machine now, this one too.
    """
    import torch

    from understudy.ladder.make import make
    from understudy.store import Store

    def event(kind: Kind, **more: Any) -> Event:
        return Event(key=job.key, kind=kind, **more)

    try:
        made = make(
            job,
            store=Store(store),
            dataset=dataset,
            progress=lambda progress: tell(event("progress", progress=progress)),
            stop=stop,
            say=lambda sentence: tell(event("say", message=sentence)),
            core_free=lambda: _core_free(job, running()),
        )
    except Interrupted:
        return event("interrupted")
    except Damaged as error:
        return event("damaged", message=str(error))
    except UnderstudyError as error:
        return event("failed", message=str(error))
    except (MemoryError, torch.OutOfMemoryError):
        return event(
            "failed", message="there was not enough memory. Try a smaller training.batch_size or --jobs."
        )
    except (
        Exception
    ) as error:  # a stage that fails, for whatever reason, does not stop stages that do not need it
        return event("failed", message=_in_one_line(error))
    finally:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()  # other processes may need what this one has done with
    return event("busy") if made is None else event("done", from_store=made[1])


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _core_free(job: Job, running: int) -> bool:
    """Whether each of the running jobs could use as many cores again, to have its teachers speak ahead."""
    training = job.stage.training
    return training is not None and training.device == "cpu" and 2 * running * training.threads <= cores()


def _in_one_line(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})" if trace else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


class Here:
    """One job at a time, in this process."""

    def __init__(
        self, *, store: Path, dataset: Dataset, stop: Callable[[], bool], tell: Callable[[Event], None]
    ) -> None:
        self.store, self.dataset, self.stop, self.tell = store, dataset, stop, tell
        self.last: list[Event] = []

    def free(self) -> int:
        return 0 if self.last else 1

    def submit(self, job: Job) -> None:
        self.last.append(attempt(job, store=self.store, dataset=self.dataset, tell=self.tell, stop=self.stop))

    def events(self, timeout: float) -> list[Event]:
        if not self.last:
            threading.Event().wait(timeout)
        happened, self.last = self.last, []
        return happened

    def close(self) -> None:
        return


def _work(
    pipe: Connection, stop: Any, running: Any, store: Path, dataset: Dataset, environment: Mapping[str, str]
) -> None:
    """A worker process: makes the jobs that come through ``pipe`` until it is closed."""
    from understudy.training.memory import keep_pages

    os.environ.clear()  # the server's is as it was when that began
    os.environ.update(environment)
    keep_pages()  # this process is ours alone
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which tells everyone to stop

    def halt(number: int = 0, frame: object = None) -> None:
        stop.value = True

    signal.signal(signal.SIGTERM, halt)
    processes.listen(signal.SIGTERM)

    def stopping() -> bool:
        # without a parent, which was killed, it keeps a checkpoint and ends
        return stop.value or not processes.parent_is_alive()

    one_at_a_time = threading.Lock()  # teachers who speak ahead have something to say, too

    def tell(event: Event) -> None:
        try:
            with one_at_a_time:
                pipe.send(event)
        except OSError:
            halt()

    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        except (
            Exception
        ) as error:  # what a job refers to is not found here: a factory of the parent's __main__
            tell(
                Event(
                    key="",
                    kind="failed",
                    message=f"a worker process cannot find what it is made of ({_in_one_line(error)}). "
                    f"Define its factory at the top of a module that can be imported, or run with --jobs 1.",
                )
            )
            continue
        tell(
            attempt(
                job,
                store=store,
                dataset=dataset,
                tell=tell,
                stop=stopping,
                running=lambda: running.value,
            )
        )


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    job: Job | None = field(default=None)


class Processes:
    """Several jobs at a time, each in a process of its own that lives until the end.

    Raises:
        BadInput: a job cannot be sent to another process (a factory that is a lambda, say).
    """

    def __init__(
        self,
        count: int,
        *,
        store: Path,
        dataset: Dataset,
        stop: Callable[[], bool],
    ) -> None:
        self.context = processes.context()
        self.count, self.store, self.dataset, self.stop = count, store, dataset, stop
        # Without a lock: a process that is killed while it holds one would stop all others for ever.
        self.halt = self.context.RawValue(ctypes.c_bool, False)
        self.running = self.context.RawValue(ctypes.c_int, 0)  # only this process writes it
        self.workers: list[_Worker] = []

    def free(self) -> int:
        return self.count - sum(worker.job is not None for worker in self.workers)

    def submit(self, job: Job) -> None:
        try:
            content = ForkingPickler.dumps(job)
        except Exception as error:  # whatever refuses to be sent says so in its own way
            raise BadInput(
                f"stage {job.name!r} cannot be sent to another process ({error}). "
                f"Define its factory at the top of a module, or run with --jobs 1."
            ) from error
        idle = next((worker for worker in self.workers if worker.job is None), None) or self._begin()
        try:
            idle.pipe.send_bytes(content)
        except OSError:  # it was killed while it had nothing to do
            self._lost(idle)
            idle = self._begin()
            idle.pipe.send_bytes(content)
        idle.job = job
        self._count()

    def _count(self) -> None:
        self.running.value = sum(worker.job is not None for worker in self.workers)

    def _begin(self) -> _Worker:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(
            target=_work,
            args=(theirs, self.halt, self.running, self.store, self.dataset, dict(os.environ)),
            daemon=False,
        )
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self.workers.append(worker)
        return worker

    def events(self, timeout: float) -> list[Event]:
        if self.stop():
            self.halt.value = True
        happened: list[Event] = []
        pipes: dict[Any, _Worker] = {worker.pipe: worker for worker in self.workers}
        if not pipes:
            threading.Event().wait(timeout)
        for pipe in wait(list(pipes), timeout) if pipes else ():
            worker = pipes[pipe]
            try:
                event = worker.pipe.recv()
            except (EOFError, OSError):
                happened += self._lost(worker)
                continue
            if not event.key and worker.job is not None:  # it could not read which job it is
                event = replace(event, key=worker.job.key)
            if event.kind not in ("progress", "say"):
                worker.job = None
            happened.append(event)
        self._count()
        return happened

    def _lost(self, worker: _Worker) -> list[Event]:
        worker.process.join(5)
        worker.pipe.close()
        self.workers.remove(worker)
        if worker.job is None:
            return []
        code = worker.process.exitcode
        how = (
            f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with status {code}"
        )
        hint = " (out of memory? try a smaller --jobs)" if code == -signal.SIGKILL else ""
        return [
            Event(
                key=worker.job.key,
                kind="interrupted" if self.halt.value else "failed",
                message=f"its worker process {how}{hint}; run the same command again, it goes on from its checkpoint.",
            )
        ]

    def close(self) -> None:
        if any(worker.job is not None for worker in self.workers):
            self.halt.value = True
        for worker in self.workers:
            worker.pipe.close()
        for worker in self.workers:
            worker.process.join(60)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
