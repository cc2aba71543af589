"""The programs and recipes under examples/ do what they say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from understudy.recipe import check, read_file

EXAMPLES = Path(__file__).parent.parent / "examples"


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    sys.modules[name] = example  # where dataclasses look for the module they stand in
    spec.loader.exec_module(example)
    return example


def test_a_network_of_ones_own_is_taught_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = program("own_network")
    result = example.main(store=tmp_path / "store", epochs=1)
    first = capsys.readouterr().out
    assert [row.name for row in result.rows] == ["teacher", "direct", "scratch"]
    assert [row.model for row in result.rows] == ["plain_cnn-4 x0.5", "two_layers", "two_layers"]
    assert "two_layers" in first
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("weights.safetensors")}
    assert len(before) == 3

    again = example.main(store=tmp_path / "store", epochs=1)

    assert all(stage.from_store for stage in again.stages)
    assert capsys.readouterr().out == first
    assert {
        path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("weights.safetensors")
    } == before


def test_data_of_ones_own_are_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = program("own_data").main(store=tmp_path, epochs=3)
    assert result["scratch"].mean > 0.5
    assert "across: " in capsys.readouterr().out


def test_a_loss_of_ones_own_teaches_beside_the_usual_one(tmp_path: Path) -> None:
    result = program("own_loss").main(store=tmp_path, epochs=1)
    assert [row.name for row in result.rows] == ["teacher", "matched logits", "direct"]
    difference = result["matched logits"].difference
    assert difference.claim
    assert difference.n == 2
    own = next(stage for stage in result.stages if stage.name == "matched logits")
    assert own.curve[0]["loss"] > 0


def test_the_loss_of_the_example_is_zero_where_the_two_agree() -> None:
    import torch

    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    distance = program("own_loss").logit_distance(logits + 3.0, logits)
    torch.testing.assert_close(distance, torch.zeros(5), atol=1e-6, rtol=0)


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_program_has_a_test(example: Path) -> None:
    assert f'program("{example.stem}")' in Path(__file__).read_text("utf-8")


@pytest.mark.parametrize("recipe", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_is_valid(recipe: Path) -> None:
    checked = check(read_file(recipe))
    assert check(checked.as_dict()) == checked
