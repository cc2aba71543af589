"""What understudy says when something is wrong: one clear line, never a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnderstudyError(Exception):
    """Base of every error whose text is meant for the person at the keyboard."""

    exit_status = 1


class BadInput(UnderstudyError, ValueError):
    """What was asked for cannot be done: the message names the value, what was possible, what to do next."""

    exit_status = 2


class MissingExtra(BadInput):
    """A feature needs packages that are not installed; the message is the command that installs them."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f'{feature} needs packages that are not installed: pip install "understudy[{extra}]"'
        )
        self.feature = feature
        self.extra = extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        return type(self), (self.feature, self.extra)


class StageFailed(UnderstudyError, RuntimeError):
    """A stage could not be finished (its loss became NaN, say); other stages may go on."""


class Damaged(UnderstudyError):
    """A kept file does not have the checksum that was written beside it."""


class Interrupted(UnderstudyError):
    """The run was asked to stop; everything up to the last checkpoint is kept."""

    exit_status = 130


def listed(words: Iterable[object]) -> str:
    """``a, b, c`` for an error message, ``none`` for an empty list."""
    return ", ".join(str(word) for word in words) or "none"


def suggestion(word: str, possible: Iterable[str]) -> str:
    """A sentence that names the nearest possible word, or an empty string.

    >>> suggestion("temprature", ["temperature", "soft_weight"])
    " Did you mean 'temperature'?"
    >>> suggestion("zzz", ["temperature"])
    ''
    """
    near = difflib.get_close_matches(word, list(possible), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""
