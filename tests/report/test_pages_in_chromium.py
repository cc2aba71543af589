"""Pages as a browser sees them: nothing on its console, charts and their text in full view, no page wider than its window.

Runs where a ``chromium`` is on the path.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from understudy.report.compare_page import write_comparison
from understudy.report.page import write_report

Results = Callable[..., dict[str, Any]]
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the path")
TEACHER, STUDENT = (0x00, 0x72, 0xB2), (0xC9, 0x4F, 0x00)  # --teacher and --student of the light page
EVIL = "<b onclick='x'>&amp;\"</script><script>console.error('ran')</script>"

# Measures what is drawn. The page itself forbids all scripts, so its copy goes without that rule.
MEASURE = """<script>
for (const one of document.querySelectorAll("details")) one.open = true;
const said = {charts: [], cut: [], images: [], page: document.documentElement.scrollWidth, window: innerWidth};
for (const chart of document.querySelectorAll("svg.chart")) {
  const box = chart.getBoundingClientRect();
  said.charts.push([box.width, box.height, chart.querySelectorAll(".mark, .line").length]);
  for (const text of chart.querySelectorAll("text")) {
    const own = text.getBoundingClientRect();
    if (own.left < box.left - 1 || own.right > box.right + 1 || own.top < box.top - 1 || own.bottom > box.bottom + 1)
      said.cut.push(text.textContent);
  }
}
for (const image of document.querySelectorAll("img")) said.images.push([image.naturalWidth, image.width]);
const note = document.createElement("p"); note.id = "said"; note.textContent = JSON.stringify(said);
document.body.append(note);
</script>"""


def opened(page: Path, *flags: str) -> tuple[str, list[str]]:
    """What chromium writes, and what the page wrote on the console."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [
        "--hide-scrollbars",
        "--enable-logging=stderr",
        "--v=0",
        f"--user-data-dir={page.parent / 'user'}",
    ]
    done = subprocess.run(
        [*command, *flags, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        errors="replace",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def measured(page: Path, *, width: int) -> dict[str, Any]:
    """Sizes of charts, texts that stick out of them, sizes of images, and the widths of page and window."""
    text = page.read_text("utf-8")
    copy = page.with_name("measured.html")
    copy.write_text(
        re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", f"{MEASURE}</body>"), "utf-8"
    )
    said, console = opened(copy, f"--window-size={width},2000", "--dump-dom")
    assert console == []
    (note,) = re.findall(r'<p id="said">(.*?)</p>', said)
    return dict(json.loads(unescape(note)))


def with_markup(made_up: Results) -> dict[str, Any]:
    arms = (
        (EVIL + "0", "teacher", EVIL, (), 100, 100, (0.9, 0.8)),
        (EVIL, "student", EVIL, (EVIL + "0",), 10, 10, (0.6, 0.7)),
    )
    return made_up(arms, delivered=(EVIL,), controls=(), shape=EVIL)


SHAPES = ["made_up", "one_stage", "twenty", "thirty_seeds", "unfinished", "markup"]


@pytest.mark.parametrize("name", SHAPES)
def test_a_report_shows_its_charts_in_a_browser(
    name: str, request: pytest.FixtureRequest, made_up: Results, told: Results, tmp_path: Path
) -> None:
    given = {"made_up": made_up, "markup": lambda: with_markup(made_up)}
    result = told(given[name]() if name in given else request.getfixturevalue(name), examples=5, size=16)
    if name == "markup":
        result["data"]["class_names"] = [EVIL] * 3
    (tmp_path / "result.json").write_text(json.dumps(result), "utf-8")
    said = measured(write_report(tmp_path), width=1280 if name != "made_up" else 500)
    stages = {stage["name"] for stage in result["stages"] if stage["curve"]}
    assert len(said["charts"]) >= 2 * len(stages)  # accuracy and loss of each, at least
    assert all(width > 150 and height > 30 and marks > 0 for width, height, marks in said["charts"])
    assert said["cut"] == []
    assert len(said["images"]) == (5 if result["delivered"] else 0)
    assert all(natural == 16 and shown > 60 for natural, shown in said["images"])
    assert said["page"] <= said["window"]


def test_a_comparison_shows_its_charts_in_a_browser(
    made_up: Results, told: Results, unfinished: dict[str, Any], tmp_path: Path
) -> None:
    runs = {"runs/first": told(made_up()), "runs/second": told(unfinished), EVIL: with_markup(made_up)}
    said = measured(write_comparison(runs, tmp_path / "compare.html"), width=1280)
    assert len(said["charts"]) == 3
    assert all(width > 150 and height > 30 and marks > 0 for width, height, marks in said["charts"])
    assert said["cut"] == []
    assert said["page"] <= said["window"]


def test_the_page_as_it_is_opens_without_a_word_and_in_colour(
    made_up: Results, told: Results, tmp_path: Path
) -> None:
    (tmp_path / "result.json").write_text(json.dumps(told(made_up())), "utf-8")
    picture = tmp_path / "picture.png"
    _, console = opened(write_report(tmp_path), "--window-size=1000,3600", f"--screenshot={picture}")
    assert console == []
    with Image.open(picture) as image:
        colours = {colour: count for count, colour in image.convert("RGB").getcolors(1 << 24)}
    assert colours.get(TEACHER, 0) > 1000  # marks, curves and bars
    assert colours.get(STUDENT, 0) > 1000
    assert max(colours, key=colours.__getitem__) == (255, 255, 255)


@pytest.mark.parametrize("width", [1280, 500])
def test_structures_and_files_show_in_a_browser(
    width: int, shaped: Results, deploy: Results, told: Results, tmp_path: Path
) -> None:
    result = told(shaped(layers=105))
    (tmp_path / "result.json").write_text(json.dumps(result), "utf-8")
    (tmp_path / "deploy.json").write_text(json.dumps(deploy()), "utf-8")
    said = measured(write_report(tmp_path), width=width)
    trained = {stage["name"] for stage in result["stages"] if stage["curve"]}
    assert (
        len(said["charts"]) == 2 * len(trained) + 2 + 3 + 2 + 1
    )  # accuracies, costs, widths, a sample of the legend
    assert all(chart[0] > 150 and chart[1] > 30 for chart in said["charts"][:-1])
    assert said["cut"] == []
    assert said["page"] <= said["window"]


def test_structures_have_their_colour_in_the_dark_too(
    shaped: Results, deploy: Results, tmp_path: Path
) -> None:
    (tmp_path / "result.json").write_text(json.dumps(shaped()), "utf-8")
    (tmp_path / "deploy.json").write_text(json.dumps(deploy()), "utf-8")
    page = write_report(tmp_path)
    for scheme, paper, structure in ((1, 0xFF, (0xA8, 0x43, 0x7F)), (0, 0x14, (0xE0, 0x8F, 0xC0))):
        picture = tmp_path / f"picture{scheme}.png"
        flags = (f"--blink-settings=preferredColorScheme={scheme}", "--window-size=1000,4000")
        _, console = opened(page, *flags, f"--screenshot={picture}")
        assert console == []
        with Image.open(picture) as image:
            colours = {colour: count for count, colour in image.convert("RGB").getcolors(1 << 24)}
        assert colours.get(structure, 0) > 5000  # bars
        assert max(colours, key=colours.__getitem__)[0] == paper
