"""What the tests of single commands share."""

from __future__ import annotations

import json
from typing import Any

import pytest

from understudy.cli import main


class Command:
    """Runs a command in this process and keeps what it printed.

    Args:
        first: words that come before those of each call.
    """

    def __init__(self, capsys: pytest.CaptureFixture[str], *first: str) -> None:
        self.capsys, self.first = capsys, first
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*self.first, *arguments])
        self.out, self.err = self.capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code

    def raw(self, *arguments: str) -> dict[str, Any]:
        """What it says with ``--json``."""
        assert self(*arguments, "--json") == 0, self.err
        value: dict[str, Any] = json.loads(self.out)
        return value

    def refused(self, *arguments: str) -> str:
        """What is said of bad input: one line beside notes, and the exit status 2."""
        assert self(*arguments) == 2, self.err
        assert all(line.startswith("note: ") for line in self.out.splitlines())
        (line,) = self.err.splitlines()
        return line


@pytest.fixture
def understudy(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)
