"""The log of a stage, a line of JSON for each epoch, read where it lies: any process may have written it."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from understudy.store.results import METRICS, Store


def epoch_line(store: Store, key: str, epoch: int) -> dict[str, Any]:
    """What the log of stage ``key`` says about one of its epochs (1 is the first); empty where it says nothing."""
    found: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        for line in (store.place(key) / METRICS).read_text("utf-8").splitlines():
            said = json.loads(line)
            if said["epoch"] == epoch:
                found = dict(said)
    return found
