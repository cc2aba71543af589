"""One stage and its network: what they refuse, and what a network is called with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ladder.tiny import made_up, network, small_network, stage, training
from understudy.errors import BadInput
from understudy.ladder import Network, Stage
from understudy.models.preprocessing import Preprocessing
from understudy.teaching import Labels, SoftTargets

GIVEN = Path("a.safetensors")


def test_a_teacher_named_twice_is_refused() -> None:
    with pytest.raises(BadInput, match="stage 's' names a teacher twice: t, a, t"):
        stage("s", "t", "a", "t")


@pytest.mark.parametrize(("what", "more"), [("teachers", {"teachers": ("t",)}), ("start", {"start": "t"})])
def test_given_weights_are_not_trained(what: str, more: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"stage 's' has weights and {what}: given weights are not trained"):
        Stage(name="s", network=network(), weights=GIVEN, **more)


@pytest.mark.parametrize("more", [{}, {"method": Labels()}, {"training": training()}])
def test_a_trained_stage_needs_a_method_and_a_training(more: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="stage 's' is trained and so needs a method and a training"):
        Stage(name="s", network=network(), **more)


def test_a_method_says_which_number_of_teachers_it_takes() -> None:
    with pytest.raises(BadInput, match="soft targets need at least one teacher"):
        stage("s", method=SoftTargets())
    with pytest.raises(BadInput, match="teacher_weights has 2 numbers for 1 teachers"):
        stage("s", "t", method=SoftTargets(teacher_weights=(1.0, 1.0)))


def test_inputs_are_the_teachers_and_the_stage_it_begins_from() -> None:
    assert stage("s", "t", "a", start="b").inputs == ("t", "a", "b")
    assert stage("s", "t", start=GIVEN).inputs == ("t",)


def test_an_unknown_network_is_named_with_a_suggestion() -> None:
    with pytest.raises(BadInput, match=r"plain_cn-4.*plain_cnn"):
        Network(name="plain_cn-4")


@pytest.mark.parametrize("width", [0, -1, 65, float("nan"), float("inf"), "1"])
def test_a_width_is_a_positive_number(width: Any) -> None:
    with pytest.raises(BadInput, match=r"width .*, got|width .*; got"):
        Network(name="plain_cnn-4", width=width)


def test_a_factory_needs_a_version() -> None:
    with pytest.raises(
        BadInput, match="the factory of 'mine' needs a version of your choice, such as version='1'"
    ):
        Network(name="mine", factory=small_network)


def test_a_factory_is_called_with_what_the_data_needs() -> None:
    asked: list[dict[str, Any]] = []

    def factory(**arguments: Any) -> torch.nn.Module:
        asked.append(arguments)
        return small_network(**arguments)

    mine = Network(name="mine", factory=factory, version="1", size=(12, 10))
    model = mine.build(made_up())
    assert asked == [{"classes": 4, "channels": 1, "size": (12, 10)}]
    assert model(torch.zeros(2, 1, 12, 10)).shape == (2, 4)


def test_the_statistics_are_the_data_s_unless_the_network_has_its_own() -> None:
    dataset = made_up()
    assert network().preprocessing(dataset) == Preprocessing(mean=(0.5,), std=(0.3,))
    own = network(mean=(0.1,), std=(0.2,), size=(6, 6))
    assert own.preprocessing(dataset) == Preprocessing(mean=(0.1,), std=(0.2,), size=(6, 6))


def test_statistics_for_another_number_of_channels_are_refused() -> None:
    with pytest.raises(BadInput, match="plain_cnn-2: mean has 3 values, the images have 1 channels"):
        network(mean=(0.1, 0.2, 0.3)).preprocessing(made_up())


def test_a_network_is_built_for_its_own_size() -> None:
    own = network(size=(16, 16))
    assert own.arguments(made_up())["size"] == [16, 16]
    assert own.build(made_up())(torch.zeros(2, 1, 16, 16)).shape == (2, 4)
