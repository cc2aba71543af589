"""Processes that are there at once: forked from one that has loaded torch and the package, which takes seconds.

A process that is to be killed, or to run beside another, need not pay for that anew. Signals, exit status, standard
output and error are those of a process of its own; what it imports before the test says so is not.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from multiprocessing.connection import Connection
from typing import Any

from understudy import processes

LOADED = (
    "yaml",
    "pydantic",
    "understudy.cli",
    "understudy.recipe.building",
    "understudy.ladder.runner",
)


@cache
def one_server() -> Any:
    """The server of the package's own processes, which loads for the tests what they need as well."""
    processes.LOADED = [*processes.LOADED, *LOADED, __name__]
    return processes.context()


class Forked:
    """A function in a process of its own, which waits to be told to go.

    Args:
        function: called with ``given``, in a child process.
    """

    def __init__(self, function: Callable[..., None], *given: Any) -> None:
        self.marks, theirs = multiprocessing.Pipe(duplex=False)
        orders, self.orders = multiprocessing.Pipe(duplex=False)
        self.process = one_server().Process(target=_child, args=(function, given, orders, theirs))
        self.process.start()
        theirs.close()
        orders.close()

    def go(self) -> None:
        """Lets it begin."""
        self.orders.send_bytes(b"go")

    def read(self, most: int = 1) -> bytes:
        """Up to so many bytes of its standard error; empty: it has ended."""
        return os.read(self.marks.fileno(), most)

    def send_signal(self, number: int) -> None:
        """Sends it a signal."""
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """Kills it."""
        self.process.kill()

    def ended(self, timeout: float = 120) -> str:
        """Waits for its end; the rest of its standard error."""
        parts = []
        while part := self.read(65536):
            parts.append(part)
        self.process.join(timeout)
        assert self.process.exitcode is not None, "it has not ended"
        return b"".join(parts).decode()

    @property
    def status(self) -> int:
        """Its exit status; less than 0: the signal that killed it."""
        status: int = self.process.exitcode
        return status


def _child(
    function: Callable[..., None], given: Sequence[Any], orders: Connection, marks: Connection
) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream, taken in ((0, nowhere), (1, nowhere), (2, marks.fileno())):
        os.dup2(taken, stream)
    marks.close()
    sys.stdin, sys.stdout, sys.stderr = (
        open(stream, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - a stream that is there
        for stream, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    processes.listen(*processes.STOPPING)
    try:
        orders.recv_bytes()
    except EOFError:
        sys.exit("never told to go")
    function(*given)
