"""Tables as a person sees them: printed to a plain console of a given width."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from understudy.ladder.estimate import Estimate, Forecast
from understudy.report.tables import (
    PlanRow,
    compare_table,
    deploy_table,
    different_data,
    plan_sentences,
    plan_table,
    problems,
    summary_table,
    warnings,
)

Results = Callable[..., dict[str, Any]]


def printed(table: Table, width: int) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width).print(table)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def row(lines: list[str], name: str) -> str:
    return next(line for line in lines if line.startswith(name))


def test_the_summary_shows_mean_deviation_and_difference_to_direct(made_up: Results) -> None:
    lines = printed(summary_table(made_up(), width=120), 120)
    assert row(lines, "dense *").split() == (
        ["dense", "*", "plain_cnn-2", "18.0k", "1.30", "60", "3", "61.42", "±", "0.31", "+1.42"]
    )
    assert row(lines, "scratch").endswith("58.00 ± 0.50       -2.00")
    assert row(lines, "direct").endswith("60.00 ± 0.30")
    assert any("delivered: seed 1" in line for line in lines)


def test_one_seed_shows_no_deviation(one_stage: dict[str, Any]) -> None:
    text = "\n".join(printed(summary_table(one_stage, width=100), 100))
    assert "58.12" in text
    assert "±" not in text
    assert "to direct" not in text


def test_a_teacher_is_not_compared_with_the_control(made_up: Results) -> None:
    assert row(printed(summary_table(made_up(), width=120), 120), "teacher").endswith("70.12")


def test_many_seeds_are_counted(made_up: Results) -> None:
    arm = (
        "scratch",
        "student",
        "plain_cnn-2",
        (),
        17_962,
        1_300_000,
        tuple(0.5 + n / 1000 for n in range(40)),
    )
    lines = printed(summary_table(made_up((arm,), delivered=("scratch",), controls=()), width=100), 100)
    assert row(lines, "scratch").split()[-4:] == ["40", "51.95", "±", "1.17"]


@pytest.mark.parametrize("width", [30, 40, 50, 60, 72, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_console_and_no_figure_is_broken(made_up: Results, width: int) -> None:
    lines = printed(summary_table(made_up(), width=width), width)
    assert max(map(len, lines)) <= width
    assert any(re.search(r"61\.42 ± 0\.31", line) for line in lines)
    assert not any("…" in line for line in lines)


def test_eighty_columns_keep_what_is_compared(made_up: Results) -> None:
    lines = printed(summary_table(made_up(), width=80), 80)
    header = row(lines, "stage")
    for word in ("MMAC", "n", "accuracy, %", "to direct"):
        assert word in header
    assert "dense/plain_cnn-8" in "\n".join(lines)


def test_names_are_shown_as_they_are_and_control_characters_are_not(made_up: Results) -> None:
    arm = ("[red]x[/red]\x1b[31m\n", "student", "[bold]m", (), 10, 10, (0.5,))
    text = "\n".join(
        printed(summary_table(made_up((arm,), delivered=(arm[0],), controls=()), width=120), 120)
    )
    assert "[red]x[/red]" in text
    assert "[bold]m" in text
    assert "\x1b" not in text


def test_problems_are_one_sentence_each(unfinished: dict[str, Any]) -> None:
    assert problems(unfinished) == [
        "dense, seed 0 failed: its loss became NaN in epoch 3. Try a smaller training.lr.",
        "dense, seed 1 was left out: it needs dense/plain_cnn-4, which could not be made",
        "not finished: direct, seed 2. Run the same command again, it goes on from there.",
    ]
    text = "\n".join(printed(summary_table(unfinished, width=100), 100))
    assert "not finished" in text.splitlines()[0]
    assert " * " not in text


def test_a_stage_without_a_figure_has_a_row_too(unfinished: dict[str, Any]) -> None:
    unfinished["summary"][3] |= {"n": 0, "mean": None, "std": None, "interval": None}
    unfinished["delivered"] = {"name": "dense", "seed": 2, "key": "f" * 40}
    lines = printed(summary_table(unfinished, width=120), 120)
    assert row(lines, "dense *").split()[-2:] == ["0", "–"]
    assert "* delivered so far: seed 2, the last step's weights" in lines


def test_a_finished_run_has_no_problems(made_up: Results) -> None:
    assert problems(made_up()) == []


def test_many_unfinished_stages_are_counted_and_not_all_named(made_up: Results) -> None:
    arm = ("scratch", "student", "plain_cnn-2", (), 1, 1, (0.5,) * 30)
    result = made_up((arm,), controls=(), bad={("scratch", n): ("interrupted", "") for n in range(30)})
    (sentence,) = problems(result)
    assert "25 more" in sentence
    assert len(sentence) < 200
    printed(summary_table(result, width=80), 80)


def test_a_comparison_has_a_row_for_each_stage_of_each_run(
    made_up: Results, one_stage: dict[str, Any]
) -> None:
    lines = printed(compare_table({"runs/a": made_up(), "runs/b": one_stage}, width=120), 120)
    assert row(lines, "runs/a: dense ").endswith("+1.42")
    assert row(lines, "runs/b: scratch").endswith("58.12")
    assert sum(line.startswith("runs/") for line in lines) == 7


def test_equal_data_need_no_words(made_up: Results) -> None:
    assert different_data({"a": made_up(), "b": made_up()}) is None


def test_different_data_are_named(made_up: Results) -> None:
    other = made_up()
    other["data"] |= {"fingerprint": "cd" * 32, "name": "letters", "train": 20, "image": [16, 16, 3]}
    sentence = different_data({"a": made_up(), "b": other, "c": made_up()})
    assert sentence == (
        "The data differ between a and c / b (name: digits / letters; image size: 8x8x1 / 16x16x3; "
        "training images: 1294 / 20): their accuracies do not compare."
    )


def test_data_that_differ_in_their_bytes_alone_are_told_apart_by_fingerprint(made_up: Results) -> None:
    other = made_up()
    other["data"]["fingerprint"] = "cd" * 32
    sentence = different_data({"a": made_up(), "b": other})
    assert sentence is not None
    assert "pixels, labels or the split, fingerprints abababab / cdcdcdcd" in sentence


def test_other_class_names_are_noticed(made_up: Results) -> None:
    other = made_up()
    other["data"] |= {"fingerprint": "cd" * 32, "class_names": ["two", "one", "zero"]}
    assert "the names or order of the classes" in str(different_data({"a": made_up(), "b": other}))


def plan_rows() -> list[PlanRow]:
    about = {
        "model": "plain_cnn-2",
        "parameters": 17_962,
        "multiply_adds": 1_300_000,
        "epochs": 60,
        "seed": 0,
    }
    return [
        PlanRow(name="teacher", teachers=(), state="kept", **about),
        PlanRow(name="chain/plain_cnn-4", teachers=("teacher",), state="resumes", seconds=45.0, **about),
        PlanRow(name="chain", teachers=("chain/plain_cnn-4",), state="to do", seconds=80.0, **about),
        PlanRow(name="direct", teachers=("teacher",), state="to do", seconds=None, **about),
    ]


def test_a_plan_says_what_is_kept_and_how_long_the_rest_takes() -> None:
    lines = printed(plan_table(plan_rows(), width=130), 130)
    assert row(lines, "teacher").split()[-2:] == ["kept", "–"]
    assert row(lines, "chain/plain_cnn-4").endswith("resumes         45 s")
    assert row(lines, "chain ").endswith("1 min 20 s")
    assert lines[-1] == (
        "4 stages: 1 kept already, 1 resume and 2 to do; about 2 min 5 s one after another (and 1 of unknown time)"
    )


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_plan_fits(width: int) -> None:
    lines = printed(plan_table(plan_rows(), width=width), width)
    assert max(map(len, lines)) <= width
    assert any("resumes" in line for line in lines)


def test_an_empty_plan_is_said_to_be_empty() -> None:
    assert "nothing to do" in "\n".join(printed(plan_table([], width=80), 80))


def foretold(**changed: Any) -> Forecast:
    said: dict[str, Any] = {
        "stages": {
            "a": Estimate(state="kept", seconds=0.0, bytes=0),
            "b": Estimate(state="to do", seconds=100.0, bytes=2_300_000),
        },
        "seconds": 130.0,
        "signal_bytes": 10_000_000,
        "views": 2,
        "teachers": 3,
        "signal_bytes_there": 0,
        "live": False,
        "memory": 1_234_567_890,
    }
    return Forecast(**{**said, **changed})


def sentences(*, parallel: int = 1, **changed: Any) -> list[str]:
    return plan_sentences(foretold(**changed), store=Path("runs/.store"), parallel=parallel)


def test_a_plan_says_what_time_disk_and_memory_a_run_takes() -> None:
    assert sentences() == [
        "All of it takes about 2 min 10 s here, judged by a few steps; a teacher speaks once, for the first stage that "
        "needs it.",
        "The store runs/.store grows by 12.3 MB: stages 2.3 MB and signals of 3 teachers on 2 views 10.0 MB.",
        "Memory peaks at about 1235 MB: Python with torch, images, networks in training, teachers that speak.",
    ]
    assert sentences(parallel=2)[0].startswith("All of it takes about 2 min 10 s here with --jobs 2,")


def test_a_plan_says_what_signals_are_there_and_for_which_there_is_no_room() -> None:
    _, disk, live, _ = sentences(signal_bytes_there=5_000_000, live=True, teachers=1, views=1)
    assert disk.endswith("signals of 1 teacher on 1 view 10.0 MB; 5.0 MB of signals are there already.")
    assert live.endswith("for the rest teachers answer live.")
    assert sentences(signal_bytes=0)[1] == "The store runs/.store grows by 2.3 MB: stages 2.3 MB."


def test_a_plan_is_silent_about_memory_where_the_system_is() -> None:
    assert not any("Memory" in sentence for sentence in sentences(memory=None))


def test_a_plan_with_nothing_to_do_foretells_nothing() -> None:
    assert sentences(stages={"a": Estimate(state="kept", seconds=0.0, bytes=0)}) == []


def test_health_warnings_are_said_once_with_the_stages_they_are_about() -> None:
    stages = [{"name": "dense", "seed": seed, "warnings": ["it hardly moves."]} for seed in range(5)]
    assert warnings({"stages": stages}) == ["dense, seed 0; dense, seed 1; 3 more: it hardly moves."]
    assert warnings({"stages": [{"name": "a", "seed": 0}]}) == []
    many = [{"name": "a", "seed": 0, "warnings": [f"sentence {i}." for i in range(20)]}]
    assert len(warnings({"stages": many})) == 9


def test_forms_of_a_student_stand_in_a_table_that_loses_columns_not_figures(deploy: Results) -> None:
    rows = deploy()["rows"]
    wide, narrow = (printed(deploy_table(rows, width=width), width) for width in (150, 60))
    figures = [
        "63.31",
        "64.31",
        "22",
        "812",
        "kB",
        "0.560",
        "0.670",
        "45.7",
        "MB",
        "student-int8-distilled.onnx",
    ]
    assert row(wide, "int8 distilled").split() == ["int8", "distilled", *figures]
    assert any("by onnxruntime with 1 thread" in line for line in wide)
    assert row(narrow, "float32").split() == ["float32", "63.42", "2.81", "MB", "1.21"]
    assert all(len(line) <= 60 for line in narrow)


def test_a_form_of_which_little_is_known_has_dashes() -> None:
    rows = [{"form": "float32", "bytes": 1200}, {"form": "[red]int8", "test": {"accuracy": 0.5}}]
    lines = printed(deploy_table(rows, width=80), 80)
    assert row(lines, "float32").split() == ["float32", "–", "1.20", "kB"]
    assert row(lines, "[red]int8").split() == ["[red]int8", "50.00", "–"]


def test_structures_are_said_to_be_untrained(shaped: Results) -> None:
    text = " ".join(printed(summary_table(shaped(), width=120), 120))
    assert "structure 0.548x MAC and structure: cut to the budget, not trained since" in text
