"""Options that several commands share, and what they do with them."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from understudy.errors import BadInput

if TYPE_CHECKING:
    from understudy.recipe.building import Built

RecipeFile = Annotated[Path, typer.Argument(help="A recipe in YAML.", metavar="RECIPE")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a key: training.epochs=30. May be repeated.", metavar="KEY=VALUE"),
]
Seeds = Annotated[
    str | None, typer.Option(help="How many seeds (5 is 0 to 4), or a list such as 0,3,7.", metavar="N")
]
StoreFolder = Annotated[
    Path | None,
    typer.Option(
        "--store", envvar="UNDERSTUDY_STORE", help="Where results are kept; .store beside --out unless said."
    ),
]
Jobs = Annotated[int, typer.Option(help="Stages trained side by side, each in a process.")]
Hours = Annotated[float | None, typer.Option(help="Stop after so many hours, with a checkpoint.")]
Force = Annotated[
    bool, typer.Option("--force", help="Write over another run in --out; the store is not touched.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Say how it goes as events, one JSON object a line, and nothing else.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but problems and the table.")]


def check_jobs(jobs: int) -> None:
    if not 1 <= jobs <= 1024:
        raise BadInput(f"--jobs is a whole number from 1 to 1024; got {jobs}.")


def store_of(out: Path, store: Path | None) -> Path:
    return store if store is not None else out.parent / ".store"


def changed_by(raw: dict[str, Any], settings: Sequence[str] | None, seeds: str | None) -> dict[str, Any]:
    from understudy.recipe import changed

    raw = changed(raw, settings or [])
    if seeds is not None:
        words = [word.strip() for word in seeds.split(",")]
        if not all(re.fullmatch("[0-9]{1,10}", word) for word in words) or (
            len(words) == 1 and not 1 <= int(words[0]) <= 1000
        ):
            raise BadInput(f"--seeds is how many (1 to 1000), or a list such as 0,3,7; got {seeds!r}.")
        raw["seeds"] = [int(word) for word in words] if len(words) > 1 else list(range(int(words[0])))
    return raw


def notes(built: Built, sentences: Sequence[str]) -> None:
    for sentence in (*built.dataset.notes, *sentences):
        say(f"note: {sentence}")


def command_line() -> str:
    return shlex.join(["understudy", *sys.argv[1:]])


def console() -> Any:
    from rich.console import Console

    return Console()


def say(sentence: str) -> None:
    print(sentence)
