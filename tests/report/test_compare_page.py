"""The page that compares runs is whole, escaped, and warns where they do not compare."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from understudy.report.compare_page import differing, write_comparison

Results = Callable[..., dict[str, Any]]


@pytest.fixture
def runs(made_up: Results, told: Results, unfinished: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A finished run, and one of the same data that is not finished."""
    return {"runs/first": told(made_up()), "runs/second": told(unfinished)}


def page_of(runs: dict[str, dict[str, Any]], folder: Path) -> str:
    out = folder / "compare.html"
    assert write_comparison(runs, out) == out
    assert list(folder.iterdir()) == [out]
    return out.read_text("utf-8")


def test_every_stage_of_every_run_is_in_the_table_and_the_charts(
    runs: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    page = page_of(runs, tmp_path)
    entries = sum(len(result["summary"]) for result in runs.values())
    head = page.index("<tbody>")
    assert page[head : page.index("</tbody>")].count("<tr") == entries
    charts = [chart for chart in page.split("<svg")[1:] if chart.startswith(' class="chart"')]
    assert len(charts) == 3
    for chart in charts:
        ElementTree.fromstring("<svg" + chart.partition("</svg>")[0] + "</svg>")
        assert chart.partition("</svg>")[0].count('class="mark') == entries
    assert 'class="mark run0' in page
    assert 'class="mark run1' in page


def test_structures_that_were_not_trained_are_in_the_table_alone(shaped: Results, tmp_path: Path) -> None:
    result = shaped()
    page = page_of({"runs/one": result}, tmp_path)
    assert page[page.index("<tbody>") : page.index("</tbody>")].count("<tr") == len(result["summary"])
    for chart in [chart for chart in page.split("<svg")[1:] if chart.startswith(' class="chart"')]:
        assert chart.partition("</svg>")[0].count('class="mark') == len(result["summary"]) - 2


def test_runs_of_the_same_data_get_no_warning_but_unfinished_ones_do(
    runs: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    page = page_of(runs, tmp_path)
    assert "do not compare" not in page
    assert "runs/second: not finished, 9 of 12 stages are done" in page
    assert "runs/first: not finished" not in page


def test_other_data_are_named_on_top(runs: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    runs["runs/second"]["data"] |= {"fingerprint": "cd" * 32, "train": 99}
    page = page_of(runs, tmp_path)
    assert "training images: 1294 / 99): their accuracies do not compare." in page
    assert page.index("do not compare") < page.index("<table")
    assert "<td>data: train</td>" in page


def test_what_differs_is_listed_and_what_does_not_is_not(runs: dict[str, dict[str, Any]]) -> None:
    runs["runs/second"]["environment"] = runs["runs/first"]["environment"] | {"torch": "2.12.0"}
    runs["runs/second"]["ladder"] |= {"shape": "chain"}
    assert differing(runs) == [
        ("ladder: shape", ["dense", "chain"]),
        ("environment: torch", ["2.13.0", "2.12.0"]),
    ]


def test_names_cannot_become_markup_and_nothing_is_loaded(
    runs: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    evil = "<script>alert(1)</script>\"'"
    runs[evil] = runs.pop("runs/second")
    runs[evil] |= {"command": evil, "environment": {evil: evil}}
    runs[evil]["data"]["name"] = evil
    for entry in runs[evil]["summary"]:
        entry["model"] = evil
    page = page_of(runs, tmp_path)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace('http-equiv="Content', "")
    assert " src=" not in page


def test_one_run_and_one_without_any_stage_have_a_page_too(made_up: Results, tmp_path: Path) -> None:
    begun = made_up() | {"complete": False, "delivered": None, "stages": [], "summary": []}
    page = page_of({"begun": begun}, tmp_path)
    assert "No stage of these runs is finished yet." in page
    assert "1 run: begun." in page


def test_many_runs_stay_apart_in_the_legend(made_up: Results, tmp_path: Path) -> None:
    runs = {f"runs/{number}": made_up() for number in range(12)}
    page = page_of(runs, tmp_path)
    legend = page[page.rindex('class="faint key"') :]
    looks = [part.partition("</svg>")[0] for part in legend.split("<svg")[1:]]
    assert len(looks) == len(set(looks)) == 12


def test_no_runs_are_our_own_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got none"):
        write_comparison({}, tmp_path / "compare.html")
