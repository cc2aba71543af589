from __future__ import annotations

import json
import math
import re
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.report.pictures import of_class, parsed
from understudy.report.landscape import (
    FILE,
    RUNS,
    Landscape,
    colour,
    content,
    crossings,
    levels_of,
    pictures,
    read_landscape,
    rise,
    standalone,
)

STEPS = [-1.0, -0.5, 0.0, 0.5, 1.0]
EVIL = "<b>&amp;\"'</b>"


def arm(name: str = "dense", times: float = 1.0, key: str = "k1") -> dict[str, Any]:
    """A bowl around a student."""
    grid = [[times * (0.1 + first**2 + 2 * second**2) for first in STEPS] for second in STEPS]
    return {"name": name, "seed": 0, "key": key, "model": "plain_cnn-2", "loss": 0.1 * times, "grid": grid}


def written(folder: Path, *arms: dict[str, Any], **more: Any) -> Path:
    value = {**content(arms or (arm(),), steps=STEPS, images=48, seed=7), **more}
    (folder / FILE).write_text(json.dumps(value), "utf-8")
    return folder


def found(*arms: dict[str, Any]) -> Landscape:
    value = content(arms, steps=STEPS, images=48, seed=7)
    return Landscape(arms=tuple(value["arms"]), steps=tuple(STEPS), images=48, seed=7)


# --- the file -----------------------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path: Path) -> None:
    read = read_landscape(written(tmp_path, arm("a"), arm("b", key="k2")))
    assert read.problem == ""
    assert [one["name"] for one in read.arms] == ["a", "b"]
    assert (read.steps, read.images, read.seed) == (tuple(STEPS), 48, 7)
    result = {"stages": [{"key": "k1"}, {"key": "k2"}]}
    assert read_landscape(tmp_path, result) == read


def test_without_a_file_there_is_nothing_and_no_problem(tmp_path: Path) -> None:
    assert read_landscape(tmp_path) == Landscape()
    assert read_landscape(tmp_path / "nowhere") == Landscape()
    assert pictures(Landscape()) is None
    assert standalone(Landscape()) == ""


def test_a_loss_that_is_no_number_is_null() -> None:
    one = arm()
    one["grid"][0][0], one["grid"][4][4] = math.nan, math.inf
    value = content([one], steps=STEPS, images=48, seed=7)
    assert value["arms"][0]["grid"][0][0] is value["arms"][0]["grid"][4][4] is None
    json.dumps(value, allow_nan=False)
    assert one["grid"][0][1] == value["arms"][0]["grid"][0][1]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"version": 2}, "has version 2, this understudy reads 1. Use the understudy that wrote it."),
        ({"version": None}, "has version None, this understudy reads 1. Run understudy landscape again"),
        ({"steps": "far"}, "is damaged: steps"),
        ({"steps": [-1.0, 0.0, 1.0]}, "its grids do not have a loss for each step"),
        ({"steps": STEPS[::-1]}, "its grids do not have a loss for each step"),
        ({"arms": [{"name": "a"}]}, "is damaged: arms.0.seed"),
        ({"arms": [{**arm(), "grid": [[1.0]]}]}, "its grids do not have a loss for each step"),
    ],
)
def test_a_damaged_file_is_a_sentence(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    read = read_landscape(written(tmp_path, **more))
    assert read.problem.startswith(f"{FILE} ")
    assert said in read.problem
    assert read.arms == ()


def test_what_is_no_json_and_what_is_of_another_run_are_sentences(tmp_path: Path) -> None:
    read = read_landscape(written(tmp_path), {"stages": [{"key": "other"}]})
    assert (
        read.problem
        == f"{FILE} is of another run than this one. Run understudy landscape again to write it anew."
    )
    (tmp_path / FILE).write_text("{", "utf-8")
    assert "it is not JSON" in read_landscape(tmp_path).problem


# --- figures ------------------------------------------------------------------------------------------------------


def test_the_rise_is_the_mean_over_the_grid_less_the_loss() -> None:
    one = arm()
    values = [value for row in one["grid"] for value in row]
    assert rise(one) == pytest.approx(sum(values) / 25 - 0.1)
    flat = {**one, "grid": [[0.1] * 5] * 5}
    assert rise(flat) == pytest.approx(0)
    assert rise({**one, "loss": None}) is None
    one["grid"][1][1] = None
    assert rise(one) is None


def test_levels_are_round_and_shared_by_all_arms() -> None:
    levels = levels_of(found(arm("a"), arm("b", times=100)))
    assert levels == sorted(set(levels))
    assert 2 < len(levels) < 10
    assert levels[0] >= 0.1
    assert levels[-1] <= 310.0
    assert all(f"{level:.0e}"[0] in "12357" for level in levels)


def test_equal_losses_and_zeros_have_no_levels() -> None:
    assert levels_of(found({**arm(), "grid": [[0.5] * 5] * 5})) == []
    assert levels_of(found({**arm(), "grid": [[0.0] * 5] * 5})) == []
    assert pictures(found({**arm(), "grid": [[0.0] * 5] * 5})) is not None


def test_colours_are_lighter_where_the_loss_is_larger() -> None:
    for bands in (2, 5, 10):
        shades = [
            sum(int(colour(band, bands)[place : place + 2], 16) for place in (1, 3, 5))
            for band in range(bands)
        ]
        assert shades == sorted(shades)
        assert len(set(shades)) == bands
    assert colour(0, 1) == colour(0, 7)


def test_lines_of_a_level_lie_where_the_loss_is_that() -> None:
    slope = [[first + 10 * second for first in STEPS] for second in STEPS]
    lines = list(crossings(slope, STEPS, 2.0))
    assert lines
    for place in (end for line in lines for end in line):
        assert place[0] + 10 * place[1] == pytest.approx(2.0)
    assert list(crossings(slope, STEPS, 12.0)) == []  # above all of them
    holes: list[list[float | None]] = [
        [None if a == b else v for b, v in enumerate(r)] for a, r in enumerate(slope)
    ]
    assert len(list(crossings(holes, STEPS, 2.0))) < len(lines)


# --- pictures -----------------------------------------------------------------------------------------------------


def test_every_arm_has_a_line_and_a_map_of_cells() -> None:
    drawn = pictures(found(arm("a"), arm("b", times=3)))
    assert drawn is not None
    lines = of_class(drawn.lines, "line")
    assert [(one.get("class") or "").split()[-1] for one in lines] == ["run0", "run1"]
    assert [len(re.findall("[ML]", one.get("d") or "")) for one in lines] == [5, 5]
    assert [name for name, _ in drawn.maps] == ["a", "b"]
    for _, chart in drawn.maps:
        cells = of_class(chart, "cell")
        assert sum((one.get("d") or "").count("z") for one in cells) == 25
        assert of_class(chart, "contour")
        assert len(of_class(chart, "here")) == 1
    legend = [text.text for text in parsed(drawn.legend).iter() if text.tag == "text"]
    assert legend == ["a: 0.100, around it 1.50 more", "b: 0.300, around it 4.50 more"]
    assert "48 training images" in drawn.about
    assert "a picture, not a measure" in drawn.about


def test_one_colour_means_one_loss_on_all_maps() -> None:
    drawn = pictures(found(arm("a"), arm("b", times=3)))
    assert drawn is not None
    levels = levels_of(found(arm("a"), arm("b", times=3)))
    key = [one.get("style") for one in of_class(drawn.levels, "cell")]
    assert key == [f"fill:{colour(band, len(levels) + 1)}" for band in range(len(levels) + 1)]
    said = [text.text for text in of_class(drawn.levels, "tick")]
    assert said == [f"{level:g}" for level in levels]
    for (_, chart), times in zip(drawn.maps, (1, 3), strict=True):
        centre = sum(0.1 * times >= level for level in levels)
        darkest = of_class(chart, "cell")[0].get("style")
        assert darkest == f"fill:{colour(centre, len(levels) + 1)}"


def test_cells_without_a_number_are_left_out() -> None:
    one = arm()
    one["grid"][0][0] = math.nan
    drawn = pictures(found(one))
    assert drawn is not None
    assert sum((cell.get("d") or "").count("z") for cell in of_class(drawn.maps[0][1], "cell")) == 24


def test_the_file_is_one_picture_with_colours_of_its_own() -> None:
    arms = [arm(f"{EVIL} {number}", key=str(number)) for number in range(9)]
    text = standalone(found(*arms))
    root = ElementTree.fromstring(text)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "<b>" not in text
    charts = [one for one in root if "chart" in (one.get("class") or "")]
    assert len(charts) == 3 + 9
    width, height = (float(root.get(side) or 0) for side in ("width", "height"))
    for one in charts:
        assert float(one.get("x") or 0) + float(one.get("width") or 0) <= width
        assert float(one.get("y") or 0) + float(one.get("height") or 0) <= height
    dashed = [one for one in root.iter() if "dashed" in (one.get("class") or "")]
    assert len(dashed) == 2 * 2  # two of nine, as lines and in the legend


def test_the_files_colours_are_those_of_the_page() -> None:
    style = resources.files("understudy.report").joinpath("look.css").read_text("utf-8")
    light = style.partition("@media")[0]
    assert tuple(re.findall(r"--run\d: (#[0-9a-f]{6})", light)) == RUNS
