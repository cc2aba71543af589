"""When a run should end before it is done."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from typing import Any


class Stopper:
    """Says when a run should end: Ctrl-C, SIGTERM or the hours are over. A second Ctrl-C ends at once."""

    def __init__(self, hours: float | None) -> None:
        self.until = None if hours is None else time.monotonic() + hours * 3600
        self.why = ""
        self.before: dict[int, Any] = {}

    def __call__(self) -> bool:
        if not self.why and self.until is not None and time.monotonic() > self.until:
            self.why = "the hours are over"
        return bool(self.why)

    def __enter__(self) -> Stopper:
        def interrupted(number: int, frame: object) -> None:
            if self.why and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.why = "interrupted" if number == signal.SIGINT else "asked to end"
            print("\nstopping after this step; a checkpoint is written ...", file=sys.stderr)

        with contextlib.suppress(ValueError):  # not in the main thread: somebody else handles signals
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, interrupted)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
