"""``deploy.json`` is read where it is there; what is wrong with it is a sentence and stops nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from understudy.report.deploy import SPEED, Deployed, cells, how_to_read, read_deploy

Results = Callable[..., dict[str, Any]]


def read(folder: Path, content: Any, delivered: dict[str, Any] | None = None) -> Deployed:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "deploy.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    return read_deploy(folder, delivered)


def test_a_run_without_one_has_no_rows_and_no_problem(tmp_path: Path) -> None:
    assert read_deploy(tmp_path) == read_deploy(tmp_path / "nowhere") == Deployed()


def test_rows_are_those_of_the_file(tmp_path: Path, deploy: Results) -> None:
    said = deploy()
    found = read(tmp_path, said, {"name": "dense", "seed": 1, "key": "f" * 40})
    assert list(found.rows) == said["rows"]
    assert found.machine == "a made-up processor, 2 cores"
    assert found.problem == ""


@pytest.mark.parametrize("change", [{}, {"student": None}, {"student": {}}, {"machine": None}])
def test_what_may_be_missing_may_be_missing(change: dict[str, Any], tmp_path: Path) -> None:
    found = read(
        tmp_path, {"version": 1, "rows": [{}, {"form": "float32", "more": 1}], **change}, {"key": "a"}
    )
    assert len(found.rows) == 2
    assert found.problem == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is damaged: it is not JSON"),
        ("\udcff", "is damaged: it is not JSON"),
        ("[" * 100_000, "is damaged: it is not JSON"),
        ("[]", "has version None, this understudy reads 1"),
        ('{"version": true, "rows": []}', "has version True"),
        (
            '{"version": 2, "rows": []}',
            "has version 2, this understudy reads 1. Use the understudy that wrote it.",
        ),
        ('{"version": 1}', "is damaged: rows: Field required"),
        ('{"version": 1, "rows": [1]}', "is damaged: rows.0: "),
        (
            '{"version": 1, "rows": [{"bytes": "12"}]}',
            "is damaged: rows.0.bytes: Input should be a valid integer",
        ),
        ('{"version": 1, "rows": [{"latency": 3}]}', "is damaged: rows.0.latency"),
    ],
)
def test_a_damaged_or_newer_file_is_a_sentence(content: str, words: str, tmp_path: Path) -> None:
    found = read(tmp_path, content)
    assert found.rows == ()
    assert words in found.problem
    assert found.problem.startswith("deploy.json ")
    assert "\n" not in found.problem
    assert len(found.problem) < 250


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "deploy.json").mkdir()
    assert "cannot be read" in read_deploy(tmp_path).problem


def test_figures_of_another_student_are_not_shown(tmp_path: Path, deploy: Results) -> None:
    found = read(tmp_path, deploy(), {"name": "dense", "seed": 2, "key": "a" * 40})
    assert found.rows == ()
    assert found.problem == (
        "deploy.json is of another student (dense, seed 1) than the delivered one. "
        "Run understudy export again to write it anew."
    )
    assert read_deploy(tmp_path, None).rows  # nothing to compare it with


def test_the_table_has_the_figures_and_leaves_out_what_is_alike(deploy: Results) -> None:
    rows = deploy()["rows"]
    table = cells(rows)
    assert [header.words for header in table.headers] == (
        [
            "form",
            "test, %",
            "validation, %",
            "other answers",
            "size",
            "median, ms",
            "p95, ms",
            "memory",
            "file",
        ]
    )
    assert table.rows[1][:8] == (
        ["int8 after training", "61.21", "62.21", "41", "812 kB", "0.550", "0.660", "45.7 MB"]
    )
    assert how_to_read(rows, machine="a processor") == [
        "Other answers: images that the file puts into another class than the student in float32.",
        "Time is of one image at a time, by onnxruntime with 1 thread; memory is the most that the process took, its "
        "runtime included. Measured on a processor.",
        SPEED,
    ]


def test_runtimes_and_threads_that_differ_have_columns(deploy: Results) -> None:
    rows = deploy()["rows"]
    rows[0] |= {"runtime": "torch", "latency": {"median_ms": 3.0, "threads": 2}}
    table = cells(rows)
    headers = [header.words for header in table.headers]
    assert "runtime" in headers
    assert table.rows[0][headers.index("threads")] == "2"
    assert table.rows[0][headers.index("p95, ms")] == "–"
    assert how_to_read(rows)[1].startswith("Time is of one image at a time; memory")


def test_one_row_of_little_says_little() -> None:
    rows = [{"form": "float32", "bytes": 120, "runtime": "torch", "latency": {"median_ms": float("nan")}}]
    assert cells(rows).rows == [["float32", "120 bytes"]]
    assert how_to_read(rows) == ["Run by torch."]
    assert (cells([]).rows, how_to_read([])) == ([], [])
