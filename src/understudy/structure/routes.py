"""Ways from the image to the answers: channels that lie on none of them do nothing that depends on the image."""

from __future__ import annotations

import numpy as np

from understudy.structure.channels import Alive, Channels
from understudy.structure.tracing import Ids


class Routes:
    """Which channels are reached from the image, and from which the answers are reached.

    Args:
        reading: of the network.
    """

    def __init__(self, reading: Channels) -> None:
        self._count = reading.count
        # one place for each channel: the removable ones, then those that are not, the image's last
        fixed = max(
            -int(ids.min(initial=-1)) for one in reading.layers for ids in (one.part.out, one.part.into)
        )
        self._places = self._count + fixed

        def places(ids: Ids) -> Ids:
            return np.unique(np.where(ids < 0, self._places + ids, ids))

        self._steps = [
            (places(layer.part.into), places(layer.part.out))
            for layer in reading.layers
            if layer.part.kind in ("dense", "other")
        ]
        self._answers = places(np.array(sorted(reading.answers), dtype=np.int64))

    def living(self, alive: Alive) -> Alive | None:
        """Those of the channels that lie on a way of living channels from the image to the answers; None: no way.

        Args:
            alive: ``(count,)``.
        """
        lives = np.append(alive, np.ones(self._places - self._count, dtype=bool))
        start = np.zeros_like(lives)
        start[-1] = True
        fed = self._spread(start, self._steps, lives)
        if not fed[self._answers].any():
            return None
        start = np.zeros_like(lives)
        start[self._answers] = True
        used = self._spread(start, [(out, into) for into, out in reversed(self._steps)], lives)
        here: Alive = (fed & used)[: self._count]
        return here

    def _spread(self, reached: Alive, steps: list[tuple[Ids, Ids]], lives: Alive) -> Alive:
        while True:
            before = int(reached.sum())
            for source, target in steps:
                if reached[source].any():
                    reached[target] |= lives[target]
            if int(reached.sum()) == before:
                return reached
