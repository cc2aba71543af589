from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from understudy.report.published import FILE, FigureOf, Published, as_markdown, percent, read_published, rows

KD: FigureOf = {"arm": "direct", "percent": 44.5, "spread": None, "what": "BLKD", "mark": "quoted"}
PCL: FigureOf = {"arm": "peers", "percent": 74.14, "spread": 0.16, "what": "PCL", "mark": "author"}
PAPER = Published(
    title="A table",
    said="A gain is published.",
    labels=("our choice: a split.",),
    figures=(KD, PCL),
    marks={"quoted": "somebody read it", "author": "their words", "computed": "a sum"},
)
SUMMARY: list[dict[str, Any]] = [{"name": "direct", "mean": 0.25, "std": 0.01, "n": 3}]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("version: 1")
    (tmp_path / FILE).write_text(json.dumps(PAPER.content(tmp_path)))
    assert read_published(tmp_path) == PAPER


def test_figures_of_a_run_that_was_written_over_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("version: 1")
    (tmp_path / FILE).write_text(json.dumps(PAPER.content(tmp_path)))
    (tmp_path / "recipe.yaml").write_text("version: 1\nseeds: [1]")
    assert read_published(tmp_path) == Published(marks={})
    (tmp_path / "recipe.yaml").unlink()
    assert read_published(tmp_path) == Published(marks={})


def test_without_a_file_there_is_nothing_and_no_problem(tmp_path: Path) -> None:
    assert read_published(tmp_path) == Published(marks={})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "paper.json is damaged: it is not JSON."),
        ('{"version": 9}', "paper.json has version 9, this understudy reads 1."),
        ('{"version": 1, "recipe": 3}', "paper.json is damaged: recipe: "),
    ],
)
def test_a_damaged_file_is_a_sentence(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / FILE).write_text(content)
    found = read_published(tmp_path)
    assert found.problem.startswith(problem)
    assert found.title == ""


def test_figures_have_the_digits_and_the_spread_that_were_published() -> None:
    assert [percent(KD), percent(PCL)] == ["44.50", "74.14 ± 0.16"]


def test_an_arm_that_the_run_does_not_have_has_nothing_here() -> None:
    direct, peers = rows(PAPER, SUMMARY)
    assert direct == ("direct", "44.50", "BLKD", "quoted", "25.00 ± 1.00", "3")
    assert (peers[0], peers[-1]) == ("peers", "0")
    assert "±" not in peers[-2]


def test_only_marks_that_a_figure_has_are_explained() -> None:
    assert PAPER.notes() == ["A gain is published.", "quoted: somebody read it.", "author: their words."]


def test_the_text_has_labels_table_and_notes() -> None:
    lines = as_markdown(PAPER, SUMMARY).splitlines()
    assert lines[:4] == ["# A table", "", "- our choice: a split.", ""]
    assert lines[4].startswith("| arm | published, %")
    assert lines[6] == "| direct | 44.50 | BLKD | quoted | 25.00 ± 1.00 | 3 |"
    assert lines[-3:] == PAPER.notes()
