"""Rows of the page's tables: which, in which order, and what is left out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from understudy.report import sections

Results = Callable[..., dict[str, Any]]


def test_agreement_lists_students_before_assistants_and_the_delivered_one_first(
    made_up: Results, told: Results
) -> None:
    rows = sections.with_teachers(told(made_up()))
    assert [row.name for row in rows] == ["dense"] * 3 + ["direct", "dense/plain_cnn-8"] + [
        "dense/plain_cnn-4"
    ] * 2
    assert rows[0].teacher == "teacher"
    assert rows[0].n == 3
    assert rows[0].lost == 32  # the mean of 31, 32 and 33
    assert rows[0].agreement == pytest.approx(0.852)


def test_one_seed_has_no_deviation(made_up: Results, told: Results) -> None:
    rows = {row.name: row for row in sections.with_teachers(told(made_up()))}
    assert rows["dense"].std is not None
    assert rows["dense/plain_cnn-8"].std is None
    calibrated = {row.name: row for row in sections.calibration(told(made_up()))}
    assert calibrated["dense"].std is not None
    assert calibrated["teacher"].std is None


def test_entropy_of_soft_targets_is_the_mean_over_seeds_and_left_out_where_there_is_none(
    made_up: Results, told: Results
) -> None:
    result = told(made_up())
    rows = sections.calibration(result)
    (dense,) = [row for row in rows if row.name == "dense"]
    assert dense.entropy == pytest.approx(1.1)  # the mean of 1.0, 1.1 and 1.2
    assert sections.entropy_scale(rows, classes=3) == (4.0, pytest.approx(math.log(3)))
    for stage in result["stages"]:
        stage["analysis"]["entropy"] = None
    rows = sections.calibration(result)
    assert {row.entropy for row in rows} == {None}
    assert sections.entropy_scale(rows, classes=3) is None


def test_classes_that_lost_most_come_first(made_up: Results, told: Results) -> None:
    result = told(made_up())
    for stage in result["stages"]:
        if stage["name"] == "teacher":
            stage["analysis"]["per_class"] = [0.9, 0.8, None]
        elif stage["name"] == "dense":
            stage["analysis"]["per_class"] = [0.85, 0.1, 0.5]
    found = sections.classes(result)
    assert found is not None
    assert [(row.name, row.student, row.teacher) for row in found.rows] == [
        ("one", 0.1, 0.8),
        ("zero", 0.85, 0.9),
        ("two", 0.5, None),
    ]
    assert found.rows[0].difference == pytest.approx(-0.7)
    assert (found.student, found.teacher) == ("dense, seed 1", "teacher")


def test_without_a_teacher_the_worst_classes_come_first(one_stage: dict[str, Any], told: Results) -> None:
    found = sections.classes(told(one_stage))
    assert found is not None
    assert [row.student for row in found.rows] == sorted(row.student for row in found.rows)
    assert found.teacher == ""


def test_a_class_without_test_images_is_left_out(made_up: Results, told: Results) -> None:
    result = told(made_up())
    for stage in result["stages"]:
        stage["analysis"]["per_class"][1] = None
    found = sections.classes(result)
    assert found is not None
    assert {row.name for row in found.rows} == {"zero", "two"}


def test_a_teacher_of_the_same_seed_is_the_one_to_be_held_against(made_up: Results) -> None:
    arms = (
        ("teacher", "teacher", "plain_cnn-10", (), 100, 100, (0.9, 0.8)),
        ("dense", "student", "plain_cnn-2", ("teacher",), 10, 10, (0.6, 0.7)),
    )
    result = made_up(arms, controls=())
    stage = sections.delivered_stage(result)
    assert stage is not None
    teacher = sections.its_teacher(result, stage)
    assert teacher is not None
    assert (teacher["name"], teacher["seed"]) == ("teacher", 1)


def test_a_student_whose_teachers_are_assistants_is_held_against_the_ladders_teacher(
    made_up: Results,
) -> None:
    arms = (
        ("big", "teacher", "plain_cnn-10", (), 100, 100, (0.9,)),
        ("middle", "assistant", "plain_cnn-4", ("big",), 50, 50, (0.8,)),
        ("dense", "student", "plain_cnn-2", ("middle",), 10, 10, (0.6,)),
    )
    result = made_up(arms, controls=())
    stage = sections.delivered_stage(result)
    assert stage is not None
    teacher = sections.its_teacher(result, stage)
    assert teacher is not None
    assert teacher["name"] == "big"


def test_images_that_are_none_are_left_out(made_up: Results, told: Results) -> None:
    result = told(made_up())
    good = len(result["lost_examples"])
    like = result["lost_examples"][0]
    result["lost_examples"] += [
        {**like, "png": png} for png in ("", 'not base64 " onerror=', "PHNjcmlwdD4=", "iVBORw0K\n")
    ]
    assert len(sections.examples(result)) == good


def test_a_class_without_a_name_is_numbered(made_up: Results, told: Results) -> None:
    result = told(made_up())
    result["lost_examples"][0] |= {"label": 99, "answer": -1}
    example = sections.examples(result)[0]
    assert (example.label, example.answer) == ("class 99", "class -1")


def test_the_worst_class_is_that_of_the_mean_over_seeds(made_up: Results, told: Results) -> None:
    result = told(made_up())
    per_class = iter(([0.9, 0.1, 0.4], [0.9, 0.7, 0.4], [0.9, 0.7, 0.4]))
    for stage in result["stages"]:
        if stage["name"] == "dense":
            stage["analysis"]["per_class"] = next(per_class)
    row = next(row for row in sections.calibration(result) if row.name == "dense")
    assert row.worst == "two"
    assert row.accuracy == pytest.approx(0.4)


def test_a_warning_of_several_seeds_is_said_once(made_up: Results, told: Results) -> None:
    result = told(made_up())
    for stage in result["stages"]:
        if stage["name"] in ("teacher", "direct"):
            stage["warnings"] = ["it is no better\nthan guessing."]
    assert [(one.about, one.text) for one in sections.warnings(result)] == [
        ("teacher", "it is no better than guessing."),
        ("direct, seeds 0, 1 and 2", "it is no better than guessing."),
    ]


def test_older_results_have_nothing_of_all_this(made_up: Results) -> None:
    result = made_up()
    assert sections.with_teachers(result) == []
    assert sections.classes(result) is None
    assert sections.examples(result) == []
    assert sections.calibration(result) == []
    assert sections.warnings(result) == []
    assert not sections.checked(result)


def test_a_stage_whose_outputs_are_damaged_has_an_empty_analysis_and_is_left_out(
    made_up: Results, told: Results
) -> None:
    result = told(made_up())
    for stage in result["stages"]:
        stage["analysis"] = {}
    assert sections.with_teachers(result) == []
    assert sections.classes(result) is None
    assert sections.calibration(result) == []
