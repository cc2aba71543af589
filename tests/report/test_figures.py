"""Which figures of a result its charts show."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from understudy.report import figures

Results = Callable[..., dict[str, Any]]


def test_learning_curves_have_a_thin_line_a_seed_and_a_thick_one_for_their_mean(
    made_up: Results, told: Results
) -> None:
    by_name = {curves.name: curves for curves in figures.learning(told(made_up()))}
    assert list(by_name) == [
        "teacher",
        "dense/plain_cnn-8",
        "dense/plain_cnn-4",
        "dense",
        "scratch",
        "direct",
    ]
    for chart in (by_name["dense"].accuracy, by_name["dense"].loss):
        assert chart.count('class="line seed"') == 3
        assert chart.count('class="line mean"') == 1
    assert by_name["teacher"].accuracy.count('class="line seed"') == 0
    assert by_name["teacher"].accuracy.count('class="line mean"') == 1


def test_the_mean_goes_as_far_as_all_seeds_have_come(made_up: Results, told: Results) -> None:
    result = told(made_up())
    behind = next(stage for stage in result["stages"] if stage["name"] == "dense" and stage["seed"] == 2)
    behind["curve"] = behind["curve"][:20]
    curves = next(curves for curves in figures.learning(result) if curves.name == "dense")
    lengths = {
        kind: [
            path.count("L") + 1 for path in re.findall(rf'class="line {kind}" d="([^"]*)"', curves.accuracy)
        ]
        for kind in ("seed", "mean")
    }
    assert lengths == {"seed": [60, 60, 20], "mean": [20]}


def test_without_validation_images_there_is_still_the_loss(made_up: Results, told: Results) -> None:
    result = told(made_up())
    for stage in result["stages"]:
        for point in stage["curve"]:
            point["accuracy"] = None
    for curves in figures.learning(result):
        assert curves.accuracy == ""
        assert "training loss" in curves.loss


def test_a_loss_that_became_nan_or_is_missing_stops_nothing(made_up: Results, told: Results) -> None:
    result = told(made_up())
    for stage in result["stages"]:
        stage["curve"][30]["loss"] = float("nan")
        del stage["curve"][31]["loss"]
    assert all("nan" not in curves.loss and curves.loss for curves in figures.learning(result))


def test_many_seeds_do_not_make_a_large_page(thirty_seeds: dict[str, Any], told: Results) -> None:
    result = told(thirty_seeds)
    for stage in result["stages"]:
        stage["curve"] = [{"epoch": e, "loss": 1 / e, "accuracy": 1 - 1 / e} for e in range(1, 101)]
    few = sum(len(curves.accuracy) + len(curves.loss) for curves in figures.learning(result))
    result["stages"] *= 10
    many = sum(len(curves.accuracy) + len(curves.loss) for curves in figures.learning(result))
    assert few < 400_000
    assert many < 1_200_000


def test_a_result_without_curves_or_figures_has_no_charts(made_up: Results) -> None:
    result = made_up()
    assert figures.learning(result) == []
    assert figures.differences(result) == ""
    result["summary"] = []
    assert figures.accuracies(result) == ""


def test_one_figure_is_said_and_not_drawn(one_stage: dict[str, Any]) -> None:
    assert figures.accuracies(one_stage) == ""


def test_structures_that_were_not_trained_are_not_among_the_accuracies(shaped: Results) -> None:
    chart = figures.accuracies(shaped())
    assert "structure/search 3" in chart
    assert ">structure<" not in chart
    assert "0.548x MAC: 4.12" not in chart


def test_differences_are_drawn_pair_by_pair_and_the_claim_is_named(made_up: Results, told: Results) -> None:
    chart = figures.differences(told(made_up()))
    assert chart.count('class="dot') == 6  # dense and scratch, three seeds each
    assert "claim: dense" in chart
    assert 'class="reference"' in chart


@pytest.mark.parametrize("most", [2, 7, 50])
def test_a_thinned_line_keeps_its_ends(most: int) -> None:
    line = [(float(epoch), None) for epoch in range(1, 101)]
    thin = figures.thinned(line, most)
    assert len(thin) == most
    assert (thin[0], thin[-1]) == (line[0], line[-1])
    assert thin == sorted(set(thin), key=thin.index)
