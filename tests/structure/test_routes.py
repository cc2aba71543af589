from __future__ import annotations

import numpy as np
import pytest

from tests.structure.nets import NETWORKS, made
from understudy.structure.channels import Alive, Channels, read_channels
from understudy.structure.exactness import answers_depend_on_image
from understudy.structure.routes import Routes
from understudy.structure.shrinking import with_channels


def without(reading: Channels, *names: str) -> Alive:
    alive = np.ones(reading.count, dtype=bool)
    for group in reading.groups:
        if group.name in names:
            alive[group.start : group.start + len(group.rows)] = False
    return alive


def left(reading: Channels, alive: Alive | None) -> set[str]:
    assert alive is not None
    return {
        group.name for group in reading.groups if alive[group.start : group.start + len(group.rows)].any()
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_all_channels_of_a_network_lie_on_a_way(name: str) -> None:
    model, takes = made(name)
    reading = read_channels(model, **takes)
    living = Routes(reading).living(np.ones(reading.count, dtype=bool))
    assert living is not None
    assert living.all()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_way_is_missing_exactly_where_the_answers_do_not_depend_on_the_image(name: str) -> None:
    model, takes = made(name)
    reading = read_channels(model, **takes)
    routes = Routes(reading)
    for group in reading.groups:
        alive = without(reading, group.name)
        small = with_channels(model, reading, alive, **takes)
        assert (routes.living(alive) is not None) == answers_depend_on_image(small, **takes), group.name


def test_a_dropped_branch_takes_the_rest_of_it_along() -> None:
    model, takes = made("gated")
    reading = read_channels(model, **takes)
    living = Routes(reading).living(without(reading, "body.conv1.0"))
    assert left(reading, living) == {"stem.0"}  # what squeezed is read by nothing that lives


def test_what_comes_before_a_dropped_layer_goes_with_it() -> None:
    model, takes = made("branches")
    reading = read_channels(model, **takes)
    routes = Routes(reading)
    assert left(reading, routes.living(without(reading, "body.left.0.0"))) == {
        "stem.0",
        "body.right.0.0",
        "body.left.2",
    }
    assert routes.living(without(reading, "body.left.0.0", "body.right.0.0")) is None


def test_layers_that_cannot_be_made_smaller_let_channels_pass() -> None:
    model, takes = made("grouped")
    reading = read_channels(model, **takes)
    assert Routes(reading).living(without(reading, "stem.0")) is None
