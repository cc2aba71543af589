"""The programs and recipes under examples/ do what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from understudy.recipe import check, read_file

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_a_network_of_ones_own_is_taught_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("own_network", EXAMPLES / "own_network.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(store=tmp_path / "store", epochs=1)
    first = capsys.readouterr().out
    assert [line.split()[0] for line in first.splitlines()] == ["teacher", "student", "scratch"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("weights.safetensors")}
    assert len(before) == 3

    example.main(store=tmp_path / "store", epochs=1)

    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("weights.safetensors")} == before


@pytest.mark.parametrize("recipe", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_is_valid(recipe: Path) -> None:
    checked = check(read_file(recipe))
    assert check(checked.as_dict()) == checked
