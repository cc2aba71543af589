from __future__ import annotations

import numpy as np
import pytest

from tests.structure.nets import NETWORKS, made
from understudy.structure.channels import read_channels
from understudy.structure.ledger import Ledger


@pytest.mark.parametrize("name", NETWORKS)
def test_at_every_step_the_cost_is_that_of_the_channels_that_are_there(name: str) -> None:
    model, takes = made(name)
    reading = read_channels(model, **takes)
    ledger = Ledger(reading)
    assert ledger.cost == reading.whole
    stream = np.random.default_rng(0)
    for step, channel in enumerate(stream.integers(0, reading.count, 60)):
        if ledger.alive[channel]:
            ledger.remove(int(channel))
        else:
            ledger.restore(int(channel))
        if step % 7 == 0:
            assert ledger.cost == reading.cost_of(ledger.alive)


def test_nothing_can_go_twice() -> None:
    model, takes = made("resnet")
    ledger = Ledger(read_channels(model, **takes))
    ledger.remove(3)
    with pytest.raises(AssertionError):
        ledger.remove(3)
