"""The list of ways to teach has all that a recipe can ask for."""

from __future__ import annotations

import json
import re
from itertools import takewhile
from pathlib import Path
from typing import Any, get_args

import pytest

from understudy.cli import main
from understudy.cli.methods import METHODS
from understudy.recipe.schema import Control, LadderSection, Model, Recipe, Shape, Teaching
from understudy.recipe.teachings import ADDED


def said() -> str:
    """All that the list says of recipes."""
    return "; ".join(entry.recipe for entry in METHODS)


def words(text: str) -> set[str]:
    return set(re.findall(r"[\w.*]+", text))


@pytest.mark.parametrize("shape", [shape for shape in get_args(Shape) if shape != "scratch"])
def test_every_shape_is_in_the_list(shape: str) -> None:
    asked = [entry.recipe.partition("ladder: ")[2].split(", ") for entry in METHODS]
    assert shape in {word for some in asked for word in takewhile(str.isalpha, some)}


@pytest.mark.parametrize("control", get_args(Control))
def test_every_control_is_in_the_list(control: str) -> None:
    if control in ("scratch", "direct_long"):  # not taught, or taught for longer
        return
    assert control in words(said())


def test_every_part_of_the_teaching_is_in_the_list() -> None:
    assert set(Teaching.model_fields) >= set(ADDED)
    for part in ADDED:
        assert f"teaching.{part}" in words(said())


def test_the_list_asks_for_nothing_that_is_not_there() -> None:
    for entry in METHODS:
        for word in words(entry.recipe):
            section, _, key = word.partition(".")
            if not key:
                continue
            assert section in Recipe.model_fields, word
            fields = {"teaching": Teaching, "ladder": LadderSection, "models": Model}[section].model_fields
            assert key.removeprefix("*.") in fields, word


def test_names_are_unique_and_papers_are_named() -> None:
    names = [entry.name for entry in METHODS]
    assert len(set(names)) == len(names)
    for entry in METHODS:
        assert entry.state in ("verified", "our reading")
        assert entry.does
        assert entry.paper
        assert not entry.does.endswith(".")


def ended(*arguments: str) -> Any:
    with pytest.raises(SystemExit) as end:
        main(["methods", *arguments])
    return end.value.code


def test_the_table_has_all_of_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert ended() == 0
    out, err = capsys.readouterr()
    assert err == ""
    text = " ".join(out.split())
    for entry in METHODS:
        assert entry.name in text
        assert all(word in text for word in entry.does.split())
    assert all(len(line) <= 100 for line in out.splitlines())
    assert "our reading: less than that is known" in text


def test_json_has_every_field_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["version"] == 1
    assert [entry["name"] for entry in found["methods"]] == [entry.name for entry in METHODS]
    for entry in found["methods"]:
        assert entry.keys() == {"name", "recipe", "does", "paper", "state"}


def test_the_page_of_ways_says_what_the_command_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "methods" / "index.md").read_text("utf-8")
    for entry in METHODS:
        assert f"[{entry.name}](" in page
        assert f"| {entry.recipe} | {entry.does} | {entry.paper} | {entry.state} |" in page
