"""Widths before and after: bars stand in order, as high as their layers are wide, and dropped ones are seen to be empty."""

from __future__ import annotations

import re
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest

from tests.report.pictures import of_class, parsed, size_of
from understudy.report.bars import HEIGHT, LEFT, SMALL, Bar, bars, groups
from understudy.report.frame import text_width

EVIL = "<script>alert('1')</script>&\"\x1b[31m\n"


def drawn(*layers: tuple[str, int, int]) -> str:
    return bars(
        [Bar(name=name, before=before, after=after) for name, before, after in layers], kind="k", about="a"
    )


def heights(chart: str, name: str) -> list[float]:
    paths = [one.get("d") or "" for one in of_class(chart, name)]
    return [float(re.findall(r"v-([\d.]+)h", path)[0]) for path in paths]


def lefts(chart: str) -> list[tuple[float, float]]:
    """Left and right edge of each layer's outline."""
    paths = [one.get("d") or "" for name in ("before", "gone") for one in of_class(chart, name)]
    edges = [re.findall(r"^M([\d.]+) .*?h([\d.]+)v", path)[0] for path in paths]
    return sorted((float(left), float(left) + float(width)) for left, width in edges)


def resnet101() -> list[tuple[str, int, int]]:
    layers = [("conv1", 64, 40)]
    for stage, (blocks, width) in enumerate(zip((3, 4, 23, 3), (64, 128, 256, 512), strict=True), start=1):
        for block in range(blocks):
            layers += [
                (f"layer{stage}.{block}.conv{n}", width * (4 if n == 3 else 1), width // n) for n in (1, 2, 3)
            ]
            layers += [(f"layer{stage}.{block}.downsample.0", 4 * width, width)] if block == 0 else []
    return [*layers, ("fc", 100, 100)]


def test_heights_are_the_widths_and_layers_stand_in_order() -> None:
    chart = drawn(("a", 64, 32), ("b", 32, 32), ("c", 48, 12))
    assert heights(chart, "before") == [HEIGHT, HEIGHT / 2, 0.75 * HEIGHT]
    assert heights(chart, "after") == [HEIGHT / 2, HEIGHT / 2, pytest.approx(HEIGHT * 12 / 64, abs=0.06)]
    titles = [one.text for one in parsed(chart).iter() if one.tag.endswith("title")]
    assert titles == ["a: 64 → 32 channels", "b: 32 → 32 channels", "c: 48 → 12 channels"]
    for (_, right), (left, _) in pairwise(lefts(chart)):
        assert right < left


def test_a_dropped_layer_is_an_empty_crossed_outline() -> None:
    chart = drawn(("a", 64, 32), ("b", 32, 0))
    assert len(of_class(chart, "gone")) == len(of_class(chart, "crossed")) == 1
    assert heights(chart, "gone") == [HEIGHT / 2]
    assert len(of_class(chart, "after")) == 1
    assert "b: 32 channels, dropped" in chart


def test_layers_of_very_different_widths_stand_on_square_roots_and_the_axis_says_so() -> None:
    chart = drawn(("a", 16, 4), ("b", 1024, 256), ("head", 10, 10))
    assert heights(chart, "before")[:2] == [pytest.approx(HEIGHT / 8, abs=0.06), HEIGHT]
    assert heights(chart, "after")[1] == HEIGHT / 2
    assert "square-root scale" in chart
    assert "square-root" not in drawn(
        ("a", 16, 4), ("b", 32, 8), ("head", 1, 1)
    )  # the last has one for each class


def test_a_deep_network_stays_legible() -> None:
    layers = resnet101()
    assert len(layers) == 105
    chart = drawn(*layers)
    edges = lefts(chart)
    assert len(edges) == 105
    assert min(right - left for left, right in edges) > 5
    assert edges[-1][1] <= size_of(chart)[0]
    texts = [tick.text for tick in of_class(chart, "tick")]
    assert {"conv1", "layer1", "layer2", "layer3", "layer4", "fc"} <= set(texts)


@pytest.mark.parametrize("count", [1, 2, 5, 30, 105])
def test_names_of_parts_stay_inside_and_apart(count: int) -> None:
    chart = drawn(*((f"stage_with_a_long_name{n // 3}.conv{n}", 8, 4) for n in range(count)))
    width, height = size_of(chart)
    boxes = []
    for tick in of_class(chart, "tick"):
        if tick.get("text-anchor") != "middle":
            continue
        half = SMALL * text_width(tick.text or "") / 2
        x, y = float(tick.get("x") or 0), float(tick.get("y") or 0)
        boxes.append((x - half, x + half, y))
        assert x - half >= -0.1
        assert x + half <= width + 0.1
        assert y < height
    assert boxes
    for one, other in combinations(boxes, 2):
        assert one[2] != other[2] or one[1] <= other[0] or other[1] <= one[0]


def test_nothing_to_draw_is_an_empty_text() -> None:
    assert drawn() == drawn(("a", 0, 0)) == ""


@pytest.mark.parametrize("after", [-3, 99])
def test_impossible_widths_stay_in_their_outline(after: int) -> None:
    chart = drawn(("a", 16, after), ("b", 512, 256))
    assert "nan" not in chart
    for high in heights(chart, "after"):
        assert 0 < high <= HEIGHT


def test_parts_hold_all_layers_in_order() -> None:
    names = [name for name, _, _ in resnet101()]
    found = groups(names)
    assert sum(count for _, count in found) == len(names)
    assert [name for name, _ in found] == ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]
    assert groups(["a"] * 4) == [("a", 4)]


def test_all_text_is_escaped() -> None:
    chart = bars(
        [Bar(name=EVIL, before=4, after=2), Bar(name="b" + EVIL, before=4, after=0)], kind=EVIL, about=EVIL
    )
    assert "<script" not in chart
    assert isinstance(parsed(chart.replace("\x1b", "")), ElementTree.Element)
    assert f'x="{LEFT - 6}"' in chart
