"""Accuracy by how often a class is seen: the same table wherever a person looks, and none where classes are alike."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from tests.report.test_card import card_of, part
from understudy.outcome import read_run
from understudy.report import groups, sections
from understudy.report.compare_page import render as compared
from understudy.report.page import render
from understudy.report.result import read_result
from understudy.report.summary import summary
from understudy.report.tables import groups_table

Results = Callable[..., dict[str, Any]]


@pytest.fixture
def tailed(made_up: Results, told: Results) -> dict[str, Any]:
    """A run on a set whose classes have 200, 60 and 5 training images."""
    result = told(made_up())
    result["data"]["train_counts"] = [200, 60, 5]
    for stage in result["stages"]:
        accuracy = stage["test"]["accuracy"]
        stage["test"] |= {"many": accuracy + 0.1, "few": accuracy - 0.3, "balanced": accuracy - 0.02}
        stage["test"]["medium"] = accuracy
    names = [entry["name"] for entry in result["summary"]]
    for stage in result["stages"]:
        stage.setdefault("epochs", 60)
    found = summary(result["stages"], names, students=["dense", "scratch", "direct"], claim=None)
    for entry, of_it in zip(result["summary"], found, strict=True):
        entry["groups"] = of_it["groups"]
    return result


def printed(table: Table | None, width: int = 120) -> str:
    assert table is not None
    file = io.StringIO()
    Console(file=file, width=width).print(table)
    return file.getvalue()


def test_a_summary_has_mean_and_deviation_of_each_group_over_seeds(tailed: dict[str, Any]) -> None:
    dense = next(entry for entry in tailed["summary"] if entry["name"] == "dense")
    assert set(dense["groups"]) == {"many", "medium", "few", "balanced"}
    assert dense["groups"]["few"] == {"mean": pytest.approx(0.3142), "std": pytest.approx(0.0031)}
    teacher = next(entry for entry in tailed["summary"] if entry["name"] == "teacher")
    assert teacher["groups"]["many"] == {"mean": pytest.approx(0.8012), "std": None}


def test_a_seed_that_was_kept_without_groups_does_not_count(tailed: dict[str, Any]) -> None:
    stages = [stage for stage in tailed["stages"] if stage["name"] == "dense"]
    stages[0]["test"] = {"accuracy": 0.6}
    (row,) = summary(stages, ["dense"], students=["dense"], claim=None)
    assert row["n"] == 3
    assert row["groups"]["few"]["mean"] == pytest.approx((0.3173 + 0.3111) / 2)


def test_without_groups_there_is_no_table_anywhere(made_up: Results, told: Results, tmp_path: Path) -> None:
    result = told(made_up())
    (row, *_) = summary(result["stages"], ["dense"], students=["dense"], claim=None)
    assert "groups" not in row
    assert groups.cells({"": result}) is None
    assert groups_table({"": result}) is None
    assert groups.TITLE not in render(result, title="run", recipe=None)
    assert "training images</th>" not in render(result, title="run", recipe=None)
    assert groups.TITLE not in compared({"one": result})
    assert groups.TITLE not in card_of(tmp_path, result)
    assert dict(read_run(tmp_path)["dense"].groups) == {}


def test_the_terminal_has_a_row_for_each_arm(tailed: dict[str, Any]) -> None:
    text = printed(groups_table({"run": tailed}, width=120))
    assert "Accuracy by how often a class is seen" in text
    line = next(line for line in text.splitlines() if line.startswith("dense "))
    figures = [figure.strip() for figure in line.removeprefix("dense").split("  ") if figure.strip()]
    assert figures == [f"{mean} ± 0.31" for mean in (71.42, 61.42, 31.42, 59.42, 61.42)]
    assert "Classes: 1 many, 1 medium and 1 few." in text
    teacher = next(line for line in text.splitlines() if line.startswith("teacher"))
    assert "±" not in teacher


def test_a_narrow_terminal_keeps_the_ends(tailed: dict[str, Any]) -> None:
    text = printed(groups_table({"run": tailed}, width=60), 60)
    assert "few" in text
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 60


def test_a_group_that_has_no_classes_has_no_column(tailed: dict[str, Any]) -> None:
    for entry in tailed["summary"]:
        del entry["groups"]["medium"]
    found = groups.cells({"": tailed})
    assert found is not None
    assert [header.words for header in found.headers] == ["stage", "many", "few", "balanced", "all"]


def test_structures_that_were_not_trained_have_no_row(shaped: Results) -> None:
    result = shaped()
    for entry in result["summary"]:
        entry["groups"] = {"many": {"mean": 0.5, "std": None}}
    found = groups.cells({"": result})
    assert found is not None
    assert len(found.rows) < len(result["summary"])


def test_the_page_shows_the_table_and_training_images_of_each_class(tailed: dict[str, Any]) -> None:
    page = render(tailed, title="run", recipe=None)
    assert '<h2 id="groups">Accuracy by how often a class is seen</h2>' in page
    assert 'href="#groups"' in page
    assert '<td class="number">31.42 ± 0.31</td>' in page
    found = sections.classes(tailed)
    assert found is not None
    assert {row.name: row.images for row in found.rows} == {"zero": 200, "one": 60, "two": 5}
    assert '<th class="number">training images</th>' in page
    assert '<td class="number">200</td>' in page


def test_the_card_shows_the_table(tailed: dict[str, Any], tmp_path: Path) -> None:
    card = card_of(tmp_path, tailed)
    said = part(card, groups.TITLE)
    assert "| stage | many | medium | few | balanced | all |" in said
    assert "| dense | 71.42 ± 0.31 |" in said
    assert "Training images of a class: 5 to 200" in part(card, "What it was taught on")


def test_runs_are_compared_in_one_table(tailed: dict[str, Any], made_up: Results, told: Results) -> None:
    runs = {"runs/<a>": tailed, "runs/b": told(made_up())}
    found = groups.cells(runs)
    assert found is not None
    assert found.headers[0].words == "run"
    assert {row[0] for row in found.rows} == {"runs/<a>"}  # nothing is known of the other one
    page = compared(runs)
    assert groups.TITLE in page
    assert "runs/&lt;a&gt;" in page
    assert "runs/<a>" not in page
    assert "Classes:" not in page
    assert "runs/<a>" in printed(groups_table(runs, width=140), 140)


def test_a_result_with_groups_is_read_and_given_to_programs(tailed: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(tailed), "utf-8")
    assert read_result(tmp_path)["summary"] == tailed["summary"]
    run = read_run(tmp_path)
    assert run["dense"].groups["few"]["mean"] == pytest.approx(0.3142)
    record = next(record for record in run.to_records() if record["stage"] == "dense" and record["seed"] == 0)
    assert record["test_few"] == pytest.approx(0.3142)
    assert "Accuracy by how often a class is seen" in str(run)
