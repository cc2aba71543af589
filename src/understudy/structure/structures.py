"""A structure: which channels of a network are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from understudy.errors import BadInput

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Structure:
    """Channels that are kept, by group.

    Attributes:
        kept: for the name of each group (the first layer that writes it) the rows of that layer that stay, rising. A
            group without rows is dropped; one that is not named stays whole.
    """

    kept: Mapping[str, tuple[int, ...]]

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON values; ``from_dict`` takes it back."""
        return {"kept": {name: list(rows) for name, rows in self.kept.items()}}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Structure:
        """Reads what ``as_dict`` gave. Whether it fits a network shows when it is used on one.

        Raises:
            BadInput: it is no structure.

        >>> Structure.from_dict({"kept": {"stem.conv": [0, 3]}})
        Structure(kept={'stem.conv': (0, 3)})
        """
        groups = said.get("kept") if isinstance(said, Mapping) else None
        if not isinstance(groups, Mapping):
            raise BadInput(
                'a structure is {"kept": {group: [channel, …]}} as a run writes it into student.json; '
                f"got {str(said)[:60]!r}"
            )
        for name, rows in groups.items():
            if not isinstance(name, str) or not _rising(rows):
                raise BadInput(
                    f"a structure keeps rising channel numbers of each group; for {name!r} it has {str(rows)[:60]!r}. "
                    "Take it as a run writes it into student.json"
                )
        return cls({name: tuple(rows) for name, rows in groups.items()})


def widths(
    model: nn.Module, structure: Structure, *, channels: int, size: tuple[int, int]
) -> dict[str, tuple[int, int]]:
    """Output channels of every convolution and linear layer before and after, in the order in which they run.

    Args:
        model: the network before.
        size: height and width of the image in pixels.

    Raises:
        BadInput: the structure does not fit the network, or that cannot be run.
        MissingExtra: torch-pruning is not installed.
    """
    from understudy.structure.channels import kept, read_channels

    reading = read_channels(model, channels=channels, size=size)
    alive = reading.alive(structure.kept)
    return {
        layer.part.name: (len(layer.part.out), int(kept(layer.part.out, alive).sum()))
        for layer in reading.layers
        if layer.part.kind in ("dense", "depthwise", "other")
    }


def _rising(rows: Any) -> bool:
    if not isinstance(rows, list | tuple):
        return False
    if not all(isinstance(row, int) and not isinstance(row, bool) and row >= 0 for row in rows):
        return False
    return all(a < b for a, b in pairwise(rows))
