"""What the figures share: how much to measure, which images, and a folder that is gone afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.made_up import Data
from benchmarks.results import Figure, of_ratio
from benchmarks.sizes import Size
from benchmarks.steps import Ours, Usual
from benchmarks.turns import Rounds, Work, as_json, interleaved, paired


@dataclass(kw_only=True)
class Bench:
    """Attributes:
    size: how much is measured.
    folder: for stores, recipes and made-up data.
    path: an ``.npz`` file of real images; None: they are made up.
    say: told what is being done.
    kept: what several figures need and one of them has made.
    """

    size: Size
    folder: Path
    path: str | None = None
    say: Callable[[str], None] = print
    kept: dict[str, Any] = field(default_factory=dict)

    def once(self, what: str, make: Callable[[], Any]) -> Any:
        """``make()`` at the first call with this name, the same again later."""
        if what not in self.kept:
            self.kept[what] = make()
        return self.kept[what]

    def data(self, **changed: Any) -> Data:
        """Images to learn in figures of steps."""
        said = {"images": self.size.images, "classes": self.size.classes, "path": self.path}
        return Data(**{**said, **changed})

    def ours(self, student: str, teachers: Sequence[str] = (), **changed: Any) -> Ours:
        """Understudy's steps."""
        store = self.folder / "steps"
        store.mkdir(exist_ok=True)
        said = {"data": self.data(), "folder": str(store), "batch": self.size.batch}
        return Ours(student=student, teachers=tuple(teachers), **{**said, **changed})

    def usual(self, student: str, teachers: Sequence[str] = (), **changed: Any) -> Usual:
        """The usual steps."""
        said = {"data": self.data(), "batch": self.size.batch}
        return Usual(student=student, teachers=tuple(teachers), **{**said, **changed})

    def rounds(self, works: dict[str, Work], **changed: Any) -> Rounds:
        """Turns of all ``works``."""
        said = {"rounds": self.size.rounds, "seconds": self.size.seconds}
        return interleaved(works, **{**said, **changed})

    def against(self, name: str, *, above: Work, below: Work, bound: float, **more: Any) -> Figure:
        """How many times as long a step of ``above`` takes as one of ``below``."""
        works: dict[str, Work] = {"above": above, "below": below}
        rounds = self.rounds(works)
        return of_ratio(
            paired(rounds.seconds("above"), rounds.seconds("below")),
            name=name,
            rounds=self.size.rounds,
            bound=bound,
            details={
                which: {"work": described(work), **as_json(rounds)[which]} for which, work in works.items()
            },
            **more,
        )


def described(work: Work) -> dict[str, Any]:
    """What a work was, in plain values."""
    said = {"kind": type(work).__name__, **asdict(work)}  # type: ignore[call-overload]
    said.pop("folder", None)
    return said
