"""Which stages the charts of accuracy against cost show, and in which units."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.report.pictures import mark_places, of_class
from understudy.report import pareto
from understudy.report.pareto import Costs

Results = Callable[..., dict[str, Any]]


def costs(result: dict[str, Any], deploy: dict[str, Any] | None = None) -> Costs:
    found = pareto.costs(result, deploy["rows"] if deploy else ())
    assert found is not None
    return found


def titles(chart: str) -> list[str]:
    """What is said of each mark when it is pointed at."""
    return re.findall(r'<path class="mark [^>]*><title>(.*?)</title>', chart)


def test_every_finished_stage_is_in_both_charts_and_the_delivered_one_has_a_ring(made_up: Results) -> None:
    result = made_up()
    found = costs(result)
    assert [title for title, _ in found.charts] == ["multiply-adds", "parameters"]
    for _, chart in found.charts:
        assert len(of_class(chart, "mark")) == len(result["summary"])
        assert len(of_class(chart, "bar")) == sum(entry["std"] is not None for entry in result["summary"])
        (ringed,) = of_class(chart, "strong")
        assert (ringed[0].text or "").startswith("dense: 61.42 ± 0.31 %, n = 3, 18.0k parameters, 1.30 MMAC")


def test_the_front_goes_from_the_best_small_student_to_the_teacher(made_up: Results) -> None:
    ((_, chart), _) = costs(made_up()).charts
    (line,) = of_class(chart, "front")
    corners = re.findall(r"[HV]-?[\d.]+", line.get("d") or "")
    assert len(corners) == 2 * 3 + 1  # dense, two assistants, teacher: scratch and direct are beaten by dense
    dense = mark_places(chart)[3]
    assert (line.get("d") or "").startswith(f"M{dense[0]:.1f} {dense[1]:.1f}")


def test_one_figure_or_none_is_not_drawn(one_stage: dict[str, Any], made_up: Results) -> None:
    assert pareto.costs(one_stage) is None
    result = made_up()
    result["summary"] = []
    assert pareto.costs(result) is None


def test_a_stage_of_unknown_cost_is_left_out_of_its_chart_alone(made_up: Results) -> None:
    result = made_up()
    result["summary"][0]["parameters"] = None
    multiply_adds, parameters = (chart for _, chart in costs(result).charts)
    assert len(of_class(parameters, "mark")) == len(of_class(multiply_adds, "mark")) - 1


def test_without_test_images_accuracies_are_of_validation_images(made_up: Results) -> None:
    result = made_up()
    for stage in result["stages"]:
        stage["test"] = {}
    for entry in result["summary"]:
        entry |= {"n": 0, "mean": None, "std": None, "interval": None}
    for _, chart in costs(result).charts:
        assert "validation accuracy, %" in chart
        assert titles(chart)[3].startswith("dense: 62.42 ± 0.31 %, n = 3")  # 0.01 more than of test images


def test_searches_are_drawn_and_structures_far_below_are_named_instead(shaped: Results) -> None:
    found = costs(shaped())
    for _, chart in found.charts:
        assert len(of_class(chart, "search")) == 2
        assert of_class(chart, "structure") == []
    assert found.left_out == (
        "Far below, and not drawn: structure 0.548x MAC (4.12 %) and structure (1.23 %), networks just cut to the budget "
        "and not trained since."
    )
    assert "structure" not in found.kinds


def test_a_structure_that_kept_its_accuracy_is_drawn(shaped: Results) -> None:
    result = shaped()
    result["summary"][3]["mean"] = 0.58
    found = costs(result)
    for _, chart in found.charts:
        assert len(of_class(chart, "structure")) == 1
    assert found.left_out.startswith("Far below, and not drawn: structure (1.23 %), a network just cut")
    assert "structure" in found.kinds


def test_latency_is_a_third_chart_where_forms_were_measured(shaped: Results, deploy: Results) -> None:
    found = costs(shaped(), deploy())
    assert [title for title, _ in found.charts] == ["multiply-adds", "parameters", "latency"]
    chart = found.charts[-1][1]
    assert titles(chart) == [
        "float32: 63.42 %, 1.21 ms",
        "int8 after training: 61.21 %, 0.550 ms",
        "int8 distilled: 63.31 %, 0.560 ms",
    ]
    xs = [x for x, _ in mark_places(chart)]
    assert xs[1] < xs[2] < xs[0]
    (ringed,) = of_class(chart, "strong")
    assert (ringed[0].text or "").startswith("float32")
    assert "median time of one image, ms" in chart


def test_latency_takes_validation_images_where_no_form_has_seen_test_images(
    one_stage: dict[str, Any], deploy: Results
) -> None:
    said = deploy()
    for row in said["rows"]:
        del row["test"]
    ((title, chart),) = costs(one_stage, said).charts  # of one stage there is nothing else to draw
    assert title == "latency"
    assert "validation accuracy, %" in chart
    assert titles(chart)[0] == "float32: 64.42 %, 1.21 ms"


@pytest.mark.parametrize(
    "change",
    [{"latency": {}}, {"latency": None}, {"latency": {"median_ms": None}}, {"test": {}}, {"test": None}],
)
def test_a_form_of_which_a_figure_is_missing_is_not_drawn(
    change: dict[str, Any], shaped: Results, deploy: Results
) -> None:
    said = deploy()
    said["rows"][1] |= change
    assert len(titles(costs(shaped(), said).charts[-1][1])) == 2
    said["rows"][2] |= change  # one alone is said, not drawn
    assert len(costs(shaped(), said).charts) == 2


def test_several_threads_are_said(shaped: Results, deploy: Results) -> None:
    said = deploy()
    said["rows"][0]["latency"]["threads"] = 4
    assert titles(costs(shaped(), said).charts[-1][1])[0] == "float32: 63.42 %, 1.21 ms, 4 threads"
