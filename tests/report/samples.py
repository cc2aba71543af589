"""Results of every shape by name, as fixtures give them."""

from __future__ import annotations

from typing import Any

import pytest

SHAPES = ["made_up", "one_stage", "unfinished", "every_path", "twenty", "thirty_seeds", "shaped"]


def sample(name: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    found = request.getfixturevalue(name)
    return dict(found() if callable(found) else found)
