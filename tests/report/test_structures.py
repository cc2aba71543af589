"""What the page says of a structure that was chosen, by value from a made-up result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from understudy.report.structures import in_words, structure_of, structures

Results = Callable[..., dict[str, Any]]


def chosen(result: dict[str, Any], name: str = "structure") -> dict[str, Any]:
    return next(stage for stage in result["stages"] if stage["name"] == name)


def test_every_choice_is_shown_with_its_layers_and_searches(shaped: Results) -> None:
    result = shaped(layers=20)
    found = structures(result)
    assert [one.name for one in found] == ["structure 0.548x MAC", "structure"]
    for one in found:
        assert len(one.layers) == 20
        assert one.chart.count("<title>") == 20
        assert [(tried.search, tried.taken, tried.accuracy) for tried in one.tried] == [
            ("structure/search 1", False, 0.0381),
            ("structure/search 3", True, 0.0412),
        ]
        assert [tried.threshold for tried in one.tried] == [0.01, 0.03]
        assert [tried.reached for tried in one.tried] == [0.99, 0.99]


def test_budget_reached_threshold_search_and_candidates_are_said(shaped: Results) -> None:
    result = shaped(layers=4)
    chosen(result)["choice"]["widths"] = [
        {"layer": "a", "before": 10, "after": 10},
        {"layer": "b", "before": 1000, "after": 400},
        {"layer": "c", "before": 20, "after": 0},
    ]
    assert structures(result)[1].sentences == [
        "Budget: at most 12.4 MMAC, 0.3 of the whole network’s 41.3.",
        "What is left has 12.3 MMAC and 702k parameters: 99.3 % of the multiply-adds allowed.",
        "Of 1,030 output channels of 3 layers 410 are kept; 1 layer keeps all and 1 layer is dropped.",
        "Found by structure/search 3; the threshold on its channels’ magnitudes is 0.0123.",
        "Validation accuracy right after the cut, before any training: 3.81 % (structure/search 1), "
        "4.12 % (structure/search 3).",
        "Networks of this structure: dense, scratch, direct and int8.",
    ]


@pytest.mark.parametrize(
    ("budget", "reached", "words"),
    [
        (
            {"multiply_adds": 20_000_000},
            {"multiply_adds": 0.615},
            "Budget: at most 20.0 MMAC, where the whole network has 41.3. What is left has 12.3 MMAC and 702k parameters: "
            "61.5 % of the multiply-adds allowed.",
        ),
        (
            {"multiply_adds": 0.5, "parameters": 300_000},
            {"multiply_adds": 0.9, "parameters": 0.999},
            "Budget: at most 20.6 MMAC, 0.5 of the whole network’s 41.3 and 300k parameters, where the whole network has "
            "2.35M. What is left has 12.3 MMAC and 702k parameters: 90.0 % of the multiply-adds and 99.9 % of the "
            "parameters allowed.",
        ),
        ({}, {}, "What is left has 12.3 MMAC and 702k parameters."),
    ],
)
def test_budgets_are_shares_or_numbers(
    budget: dict[str, float], reached: dict[str, float], words: str, shaped: Results
) -> None:
    stage = chosen(shaped())
    stage["choice"] |= {"budget": budget, "reached": reached}
    assert " ".join(in_words(stage)) == words


def test_a_share_of_a_network_of_unknown_cost_stays_a_share(shaped: Results) -> None:
    stage = chosen(shaped())
    del stage["choice"]["whole"]
    assert in_words(stage)[0] == "Budget: at most 0.3 of the whole network’s multiply-adds."


def test_one_search_without_validation_images_is_not_said_to_be_the_best(shaped: Results) -> None:
    result = shaped()
    choice = chosen(result)["choice"]
    choice["candidates"] = [{**choice["candidates"][0], "validation": None}]
    assert not any("Validation accuracy" in sentence for sentence in structures(result)[1].sentences)


def test_little_that_is_known_is_little_that_is_said(shaped: Results) -> None:
    result = shaped()
    stage = chosen(result)
    stage |= {"choice": {"search": "one"}, "parameters": None, "multiply_adds": None}
    found = structures(result)[1]
    assert found.sentences == [
        "Found by one.",
        "Networks of this structure: dense, scratch, direct and int8.",
    ]
    assert found.chart == ""
    assert (found.layers, found.tried) == ([], [])


def test_what_was_narrowed_without_a_search_is_said_to_be(shaped: Results) -> None:
    result = shaped()
    chosen(result)["choice"] |= {"search": None, "candidates": []}
    said = structures(result)[1].sentences
    assert "Nothing was searched: every layer gives up the same share of its channels." in said
    assert not any("Found by" in sentence for sentence in said)


def test_choices_of_several_seeds_are_told_apart(shaped: Results) -> None:
    result = shaped()
    result["stages"].append({**chosen(result), "seed": 1})
    assert [one.name for one in structures(result)] == [
        "structure 0.548x MAC, seed 0",
        "structure, seed 0",
        "structure, seed 1",
    ]


def test_a_choice_that_failed_is_not_shown(shaped: Results) -> None:
    result = shaped()
    chosen(result)["state"] = "failed"
    assert [one.name for one in structures(result)] == ["structure 0.548x MAC"]


def test_a_run_without_choices_has_none(made_up: Results) -> None:
    result = made_up()
    assert structures(result) == []
    assert structure_of(result, result["stages"][-1]) is None


def test_the_structure_of_a_student_is_the_one_that_shapes_it_of_the_same_seed(shaped: Results) -> None:
    result = shaped()
    result["stages"].append({**chosen(result), "seed": 1})
    students = {stage["seed"]: stage for stage in result["stages"] if stage["name"] == "dense"}
    assert [(structure_of(result, students[seed]) or {})["seed"] for seed in (0, 1, 2)] == [0, 1, 0]
    assert structure_of(result, chosen(result, "teacher")) is None
