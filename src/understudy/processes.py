"""Processes beside this one that are there at once: forked from a server that has imported torch, which takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from functools import cache
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext
from tempfile import gettempdir

# what workers need and is slow to import; it is imported once, in the server, which computes nothing itself
LOADED = ("torch", "understudy.data.batches", "understudy.training.loop")

LONGEST = 64  # characters of the temporary folder's path: a socket's may have 104, and its name takes some


@cache
def context() -> ForkServerContext | SpawnContext:
    """How to start processes: by Python's fork server on Linux, else each anew; elsewhere libraries may not stand a fork.

    The server listens at a socket in the temporary folder, whose path may be only so long; where it is longer, there is
    none. Not by a fork of this process: a child may inherit locks of threads that it does not have. The server is started with
    the first process and ends with this one.
    """
    if sys.platform != "linux" or len(gettempdir()) > LONGEST:
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(list(LOADED))
    return server


def parent_is_alive() -> bool:
    """Whether the process that asked for this one is still there; that is not the one that it was forked from."""
    parent = multiprocessing.parent_process()
    return parent is None or parent.is_alive()


def end_with_parent(*_: object) -> None:
    """From now on this process ends at once when the one that asked for it does, however that ended.

    For workers that wait in other people's code, which asks for the process that they were forked from.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()
