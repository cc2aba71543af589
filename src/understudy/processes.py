"""Processes beside this one that are there at once: forked from a server that has imported torch, which takes seconds."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext
from tempfile import gettempdir

# what workers need and is slow to import; it is imported once, in the server, which computes nothing itself
LOADED: Sequence[str] = ("torch", "understudy.data.batches", "understudy.training.loop")

LONGEST = 64  # bytes of the temporary folder's path: a socket's may have 104, and its name takes some

# go to a whole group of processes: who was asked to stop tells the others
STOPPING = (signal.SIGINT, signal.SIGTERM)


def context() -> ForkServerContext | SpawnContext:
    """How to start processes: by Python's fork server on Linux, else each anew; elsewhere libraries may not stand a fork.

    The server listens at a socket in the temporary folder, whose path may be only so long; where it is longer, there is
    none. Not by a fork of this process: a child may inherit locks of threads that it does not have.

    The server is there afterwards and ends with this process. Signals that ask to stop do not reach it, nor those that it
    forks, until they say otherwise (``listen``): killed in the middle of an import, or before those that it forked, it
    could not say how they ended. It imports nothing from the working folder, where a file may be called like a module.
    """
    chosen = _chosen()
    if isinstance(chosen, ForkServerContext):
        resource_tracker.ensure_running()  # the server begins it, else, and what that does ends with both signals unblocked
        with _blocked(STOPPING), _environment(PYTHONSAFEPATH="1"):
            forkserver.ensure_running()
    return chosen


@cache
def _chosen() -> ForkServerContext | SpawnContext:
    if sys.platform != "linux" or len(os.fsencode(gettempdir())) > LONGEST:
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(list(LOADED))
    return server


@contextlib.contextmanager
def _blocked(signals: Iterable[signal.Signals]) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(**said: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in said}
    os.environ.update(said)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def listen(*signals: signal.Signals) -> None:
    """From now on these signals reach this process, which was forked from the server."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def parent_is_alive() -> bool:
    """Whether the process that asked for this one is still there; that is not the one that it was forked from."""
    parent = multiprocessing.parent_process()
    return parent is None or parent.is_alive()


def end_with_parent(*_: object) -> None:
    """From now on this process ends at once when the one that asked for it does, however that ended.

    For workers that wait in other people's code, which asks for the process that they were forked from.
    """
    listen(signal.SIGTERM)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()
