"""What a figure came to, as JSON and as a table."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from benchmarks.turns import Ratio
from understudy.training.precision import environment

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure.

    Attributes:
        name: as on the command line.
        value: None where it cannot be measured here; ``details`` then say why.
        unit: such as ``times`` or ``of the peak``.
        bound: what it is held against; None: it is only shown.
        side: on which side of the bound it should lie.
        rounds: that the value is the median of.
        spread: lowest and highest of them.
        details: what it was made of.
    """

    name: str
    value: float | None
    unit: str = "times"
    bound: float | None = None
    side: Literal["at least", "at most"] = "at least"
    rounds: int = 1
    spread: tuple[float, float] | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool | None:
        """Whether it lies on the right side; None where there is no bound or no value."""
        if self.value is None or self.bound is None:
            return None
        return self.value >= self.bound if self.side == "at least" else self.value <= self.bound

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "value": _rounded(self.value),
            "unit": self.unit,
            "bound": self.bound,
            "side": self.side,
            "reached": self.reached,
            "rounds": self.rounds,
            "spread": None if self.spread is None else [_rounded(end) for end in self.spread],
            "details": self.details,
        }


def of_ratio(ratio: Ratio, *, name: str, rounds: int, details: dict[str, Any], **more: Any) -> Figure:
    """A figure whose value is a ratio that was taken within rounds."""
    return Figure(
        name=name,
        value=ratio.value,
        spread=(ratio.low, ratio.high),
        rounds=rounds,
        details=details,
        **more,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def surroundings() -> dict[str, Any]:
    """What stands beside every figure: versions, processor, what else the machine does, which commit."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        load: list[float] | None = [round(value, 2) for value in os.getloadavg()]
    except OSError:
        load = None
    return {**environment(device), "load_average": load, "commit": _commit()}


def _commit() -> str | None:
    """Of the repository, with a plus where files differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def table(figures: Sequence[dict[str, Any]]) -> Table:
    """One row for each figure, from their JSON."""
    made = Table(title="One-thread CPU time unless said otherwise; medians of ratios within rounds")
    for column in ("figure", "value", "lowest to highest", "bound", "reached", "rounds"):
        left = column == "figure"
        made.add_column(column, justify="left" if left else "right", no_wrap=left)
    for figure in figures:
        spread, value, bound = figure["spread"], figure["value"], figure["bound"]
        made.add_row(
            figure["name"],
            figure["details"].get("said", "none") if value is None else f"{value:.3g} {figure['unit']}",
            "" if spread is None else f"{spread[0]:.3g} to {spread[1]:.3g}",
            "" if bound is None else f"{figure['side']} {bound:g}",
            {True: "yes", False: "[bold red]no[/]", None: ""}[figure["reached"]],
            str(figure["rounds"]),
        )
    return made
