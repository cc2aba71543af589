"""The page is whole, escaped, and asks nobody for anything."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from tests.report.samples import SHAPES, sample
from understudy.errors import BadInput
from understudy.report.page import write_report

Results = Callable[..., dict[str, Any]]
VOID = {"meta", "br", "hr", "img", "link", "input"}
CLOSED = {"rect", "path", "circle"}  # written <rect .../>, as SVG allows
MOST = 1_500_000  # bytes of a page, with 24 images


class Parsed(HTMLParser):
    """Tags, attributes and text; fails where a tag is closed that is not the last one opened."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in CLOSED
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def written(folder: Path, result: dict[str, Any], *, recipe: str | None = "seeds: [0, 1, 2]\n") -> str:
    (folder / "result.json").write_text(json.dumps(result), "utf-8")
    if recipe is not None:
        (folder / "recipe.yaml").write_text(recipe, "utf-8")
    page = write_report(folder)
    assert page == folder / "report.html"
    assert [path.name for path in folder.iterdir() if path.name.startswith(".part-")] == []
    return page.read_text("utf-8")


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "shaped"])  # its searches share a box
def test_every_shape_gives_a_whole_page(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    result = sample(name, request)
    page = Parsed(written(tmp_path, result))
    assert page.count("rect") == len(result["ladder"]["graph"])
    assert sum(tag == "path" and "arrow" in (a.get("class") or "") for tag, a in page.tags) == (
        len(result["ladder"]["edges"])
    )
    assert page.count("tr") == 2 + len(result["summary"]) + len(result["stages"])


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_that_tells_all_gives_a_whole_page(
    name: str, request: pytest.FixtureRequest, told: Results, tmp_path: Path
) -> None:
    result = told(sample(name, request), classes=100, examples=24, size=64)
    text = written(tmp_path, result)
    page = Parsed(text)
    assert len(text.encode()) < MOST
    assert page.count("img") == (24 if result["delivered"] else 0)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [(a.get("href") or "")[1:] for tag, a in page.tags if tag == "a"]
    assert set(targets) <= set(ids)
    assert {"accuracy", "ladder", "learning", "stages", "data", "recipe", "again"} <= set(targets)
    for chart in re.findall(r"<svg class=\"chart\".*?</svg>", text):
        assert "nan" not in chart


@pytest.mark.parametrize("name", SHAPES)
def test_the_page_asks_nobody_for_anything(
    name: str, request: pytest.FixtureRequest, told: Results, tmp_path: Path
) -> None:
    text = written(tmp_path, told(sample(name, request)))
    for tag, attributes in Parsed(text).tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        for attribute, value in attributes.items():
            assert attribute not in ("srcset", "action", "data")
            assert attribute != "href" or (value or "").startswith("#")
            assert attribute != "src" or (value or "").startswith("data:image/png;base64,")
            assert not attribute.startswith("on")
            assert all(target == "head" for target in re.findall(r"url\(#?([^)]*)\)", value or ""))
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []
    assert "default-src 'none'" in text  # and a browser holds it to that


def test_the_head_says_what_was_delivered_and_how_it_compares(made_up: Results, tmp_path: Path) -> None:
    text = Parsed(written(tmp_path, made_up())).text.replace("\N{NO-BREAK SPACE}", " ")
    assert (
        "Delivered: dense (plain_cnn-2), seed 1, 61.73 % of the test images right. Over 3 seeds 61.42 ± 0.31 %. "
        "+1.42 points to direct, the same student taught by the teacher alone (60.00 ± 0.30 %)."
    ) in text
    for said in (
        "seeds: [0, 1, 2]",
        "understudy run recipe.yaml --seeds 3",
        "2.13.0",
        "ab" * 32,
        "8 × 8 × 1",
    ):
        assert said in text


def test_one_seed_claims_no_deviation(one_stage: dict[str, Any], tmp_path: Path) -> None:
    text = Parsed(written(tmp_path, one_stage)).text
    assert "58.12" in text
    assert "n = 1" in text
    assert "±" not in text
    assert "interval" not in text


def test_one_seed_beside_several_is_said_to_be_one(made_up: Results, told: Results, tmp_path: Path) -> None:
    page = Parsed(written(tmp_path, told(made_up())))
    assert page.text.count("n = 1") >= 3  # teacher and two assistants
    assert "± 0.00" not in page.text


def test_differences_come_with_pairs_interval_p_and_the_claim(
    made_up: Results, told: Results, tmp_path: Path
) -> None:
    result = told(made_up())
    result["summary"][3]["difference"] = {
        "n": 3,
        "mean": 0.0142,
        "std": 0.004,
        "interval": [-0.0012, 0.0296],
        "p": 0.0214,
        "p_corrected": 0.0428,
        "claim": True,
    }
    text = Parsed(written(tmp_path, result)).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "claim +1.42-0.12 to +2.96" in re.sub(r"\s*\n\s*", " ", text)
    assert "0.043" in text
    assert (
        "+1.42 points to direct, paired over 3 seeds (-0.12 to +2.96, p = 0.043): a difference is shown."
    ) in text
    assert "The comparison of dense was named in the recipe before the run: it is the claim" in text
    assert "Over seeds the students varied." in text


def test_where_nothing_was_named_beforehand_the_page_says_so(
    made_up: Results, told: Results, tmp_path: Path
) -> None:
    result = told(made_up())
    result["compare"]["claim"] = None
    for entry in result["summary"]:
        if entry["difference"]:
            entry["difference"]["claim"] = False
    page = written(tmp_path, result)
    assert "None was named before the run as the claim" in page
    assert 'class="claim"' not in page


def test_an_unpaired_difference_never_stands_among_paired_ones(
    unfinished: dict[str, Any], told: Results, tmp_path: Path
) -> None:
    page = written(tmp_path, told(unfinished))  # of dense only seed 2 is done, of direct all but seed 2
    row = re.findall(r"<tr>\s*<td class=\"name\">dense</td>.*?</tr>", page, re.DOTALL)[0]
    assert "61.11" in row
    assert "+0." not in row


def test_warnings_of_the_health_check_stand_on_top_once_each(
    made_up: Results, told: Results, tmp_path: Path
) -> None:
    result = told(made_up())
    for stage in result["stages"]:
        if stage["name"] == "scratch":
            stage["warnings"] = ["the loss did not move from 2.3."]
    text = Parsed(written(tmp_path, result)).text
    assert "scratch, seeds 0, 1 and 2: the loss did not move from 2.3." in text
    assert "found nothing to warn of" not in text
    assert text.index("the loss did not move") < text.index("every stage")


def test_a_healthy_run_is_said_to_be_healthy(made_up: Results, told: Results, tmp_path: Path) -> None:
    assert "found nothing to warn of" in written(tmp_path, told(made_up()))
    assert "found nothing to warn of" not in written(tmp_path, made_up())


def test_many_warnings_are_folded_away(made_up: Results, told: Results, tmp_path: Path) -> None:
    result = told(made_up())
    result["stages"][0]["warnings"] = [f"warning number {n}" for n in range(20)]
    text = Parsed(written(tmp_path, result)).text
    assert "12 more" in text
    assert "warning number 19" in text


def test_what_the_student_lost_is_said_in_words(made_up: Results, told: Results, tmp_path: Path) -> None:
    text = Parsed(written(tmp_path, told(made_up()))).text
    assert (
        "Of 360 test images the delivered student (dense, seed 1) gets 32 wrong that its teacher gets right, and 12 right "
        "that the teacher gets wrong (McNemar’s exact test: p = 0.004)."
    ) in text
    assert "dense alone gets 41 test images right and direct alone 26" in text


def test_an_older_result_says_what_it_does_not_hold(made_up: Results, tmp_path: Path) -> None:
    text = Parsed(written(tmp_path, made_up())).text
    assert (
        "result.json holds nothing for: learning curves, agreement with the teachers, accuracy of each class, "
        "example images and calibration."
    ) in text
    assert "Learning curves" not in text
    assert "What the student lost" not in text


def test_an_unfinished_run_says_what_is_not_there_yet(
    unfinished: dict[str, Any], told: Results, tmp_path: Path
) -> None:
    text = Parsed(written(tmp_path, told(unfinished))).text
    assert "There is nothing yet for: accuracy of each class and example images." in text
    assert "Learning curves" in text


def test_a_student_that_lost_nothing_lacks_no_images(made_up: Results, told: Results, tmp_path: Path) -> None:
    text = written(tmp_path, told(made_up(), examples=0))
    assert "example images" not in text
    assert "<img" not in text


def test_an_unfinished_run_says_what_is_missing_and_why(unfinished: dict[str, Any], tmp_path: Path) -> None:
    text = Parsed(written(tmp_path, unfinished)).text
    assert "Nothing is delivered yet." in text
    assert "This run is not finished: 9 of 12 stages are done." in text
    assert "dense, seed 0 failed: its loss became NaN in epoch 3." in text


def test_a_student_that_was_delivered_before_all_is_done_is_said_to_be_so(
    unfinished: dict[str, Any], tmp_path: Path
) -> None:
    unfinished["delivered"] = {"name": "dense", "seed": 2, "key": "f" * 40}
    text = Parsed(written(tmp_path, unfinished)).text
    assert (
        "Delivered so far: dense (plain_cnn-2), seed 2, 61.11\N{NO-BREAK SPACE}% of the test images" in text
    )
    assert "This run is not finished" in text


def test_a_run_whose_stages_wait_has_a_page_too(made_up: Results, tmp_path: Path) -> None:
    result = made_up()
    result |= {"complete": False, "delivered": None}
    for stage in result["stages"]:
        stage |= {"state": "waiting", "seconds": None, "from_store": False, "validation": {}, "test": {}}
    for entry in result["summary"]:
        entry |= {"n": 0, "mean": None, "std": None, "interval": None}
    text = Parsed(written(tmp_path, result)).text
    assert "0 of 12 stages are done." in text
    assert "7 more. Run the same command again" in text


def test_a_run_that_has_just_begun_has_a_page_too(made_up: Results, tmp_path: Path) -> None:
    result = made_up()
    result |= {"complete": False, "delivered": None, "stages": [], "summary": []}
    text = Parsed(written(tmp_path, result, recipe=None)).text
    assert "0 of 0 stages are done. Not begun: teacher, dense/plain_cnn-8," in text
    assert "No stage is finished yet." in text
    assert "There was no recipe.yaml" in text


def test_what_people_named_cannot_become_markup(made_up: Results, told: Results, tmp_path: Path) -> None:
    evil = "<b onclick='x'>&amp;\"</script><script>alert(1)</script>"
    arms = (
        (evil + "0", "teacher", evil, (), 100, 100, (0.6, 0.7)),
        (evil, "student", evil, (evil + "0",), 10, 10, (0.5, 0.4, 0.3)),
    )
    result = told(
        made_up(arms, delivered=(evil,), controls=(), shape=evil, bad={(evil, 2): ("failed", evil)})
    )
    result["data"] |= {"name": evil, "class_names": [evil] * 3, "fingerprint": evil}
    result |= {"environment": {evil: evil}, "command": evil}
    result["delivered"] = {"name": evil, "seed": 0, "key": evil}
    result["compare"] = {"against": evil, "claim": [evil], "level": 0.05, "varied": evil}
    result["summary"][1]["difference"] = {"n": 2, "mean": 0.1, "interval": [0.0, 0.2], "claim": True}
    result["students_compared"] = {
        "first": evil,
        "second": evil,
        "seed": 0,
        "only_first": 1,
        "only_second": 2,
        "p": 1.0,
    }
    result["stages"][2]["warnings"] = [evil]
    result["lost_examples"] = [{"index": 1, "label": 0, "answer": 1, "teacher": 0, "png": "iVBORw0KGgo="}]
    folder = tmp_path / "run <i> & co"
    folder.mkdir()
    page = Parsed(written(folder, result, recipe=evil))
    assert page.count("script") == 0
    assert not any("onclick" in attributes for _, attributes in page.tags)
    assert page.count("img") == 1
    assert page.text.count(evil) >= 30
    assert "run <i> & co" in page.text


def test_the_recipe_is_shown_as_it_is_even_where_it_is_not_utf8(made_up: Results, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"# caf\xe9\nseeds: [0]\n")
    assert "seeds: [0]" in written(tmp_path, made_up(), recipe=None)


def test_half_a_surrogate_pair_does_not_stop_the_page(made_up: Results, tmp_path: Path) -> None:
    result = made_up()
    result["data"]["class_names"] = ["\ud800"]
    written(tmp_path, result)


def test_the_template_travels_with_the_package() -> None:
    assert resources.files("understudy.report").joinpath("page.html.jinja").is_file()


def test_a_report_is_written_anew_over_an_older_one(made_up: Results, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old", "utf-8")
    assert "old" not in written(tmp_path, made_up())[:20]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"version": 1, "compl', "is damaged: it is not JSON"),
        ("", "is damaged: it is not JSON"),
        ("[]", "is damaged: its version is None, not 1"),
        ("{}", "is damaged: its version is None, not 1"),
        ('{"version": true}', "is damaged: its version is True"),
        ('{"version": 0}', "is damaged: its version is 0, not 1"),
        ('{"version": 2}', "has version 2, this understudy reads version 1"),
        ('{"version": 1, "complete": true}', "is damaged: ladder: Field required"),
        ("\udcff", "is damaged: it is not JSON"),
        ("[" * 100_000, "is damaged: it is not JSON"),
    ],
)
def test_a_damaged_or_newer_result_is_refused_with_one_line(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadInput) as caught:
        write_report(tmp_path)
    assert words in str(caught.value)
    assert str(tmp_path / "result.json") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_a_figure_that_is_a_word_is_damage(made_up: Results, tmp_path: Path) -> None:
    result = made_up()
    result["summary"][3]["mean"] = "0.61"
    with pytest.raises(BadInput, match=r"damaged: summary\.3\.mean: Input should be a valid number"):
        written(tmp_path, result)


def test_a_folder_without_a_result_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere.result\.json is not there.*--out"):
        write_report(tmp_path / "nowhere")


def test_fields_that_a_later_writer_adds_are_no_damage(made_up: Results, tmp_path: Path) -> None:
    result = made_up()
    result["more"] = {"figures": [1, 2]}
    result["summary"][0]["median"] = 0.7
    written(tmp_path, result)


def test_what_is_not_there_has_no_section(made_up: Results, told: Results, tmp_path: Path) -> None:
    text = Parsed(written(tmp_path, told(made_up()))).text
    for words in (
        "Widths before and after",
        "On a device",
        "structures",
        "on a device",
        "search",
        "(not trained)",
    ):
        assert words not in text


def test_structures_have_their_pictures_sentences_and_tables(
    shaped: Results, told: Results, tmp_path: Path
) -> None:
    text = written(tmp_path, told(shaped(layers=105)))
    page = Parsed(text)
    assert "Widths before and after" in page.text
    assert text.count('class="chart widths"') == 2
    assert page.text.count("Budget: at most") == 2
    assert "structure/search 3 (taken)" in page.text
    assert page.text.count("searches and 105 layers in figures") == 2
    assert page.text.count("dropped") >= 3  # a layer of each, and the legend
    rows = page.count("tr")
    assert rows > 2 * 105
    assert "structure 0.548x MAC (not trained)" in page.text
    assert "structure/search 1 (search)" in page.text
    assert len(text.encode()) < MOST


def test_many_structures_are_folded_away(shaped: Results, tmp_path: Path) -> None:
    result = shaped(layers=3)
    stage = next(stage for stage in result["stages"] if stage["name"] == "structure")
    result["stages"] += [{**stage, "seed": seed} for seed in range(1, 5)]
    text = Parsed(written(tmp_path, result)).text
    assert "2 more" in text
    assert text.index("structure, seed 2") < text.index("2 more") < text.index("structure, seed 3")


def test_files_of_the_student_have_a_table(shaped: Results, deploy: Results, tmp_path: Path) -> None:
    (tmp_path / "deploy.json").write_text(json.dumps(deploy()), "utf-8")
    text = Parsed(written(tmp_path, shaped())).text
    for said in (
        "On a device",
        "int8 after training",
        "61.21",
        "812 kB",
        "0.550",
        "45.7 MB",
        "a made-up processor",
    ):
        assert said in text
    assert "Teaching changes how many answers are right, not how long they take" in text
    assert "median time of one image, ms" in text


@pytest.mark.parametrize("content", ["{", '{"version": 1, "rows": [{"bytes": "a"}]}', "[]"])
def test_damaged_figures_of_files_are_a_sentence_on_a_whole_page(
    content: str, made_up: Results, tmp_path: Path
) -> None:
    (tmp_path / "deploy.json").write_text(content, "utf-8")
    text = Parsed(written(tmp_path, made_up())).text
    assert "deploy.json" in text
    assert "On a device" not in text
    assert "Test accuracy" in text


def test_names_in_structures_and_files_cannot_become_markup(
    shaped: Results, deploy: Results, told: Results, tmp_path: Path
) -> None:
    evil = "<b onclick='x'>&amp;\"</script><script>alert(1)</script>"
    result, said = told(shaped(layers=4)), deploy()
    for stage in result["stages"]:
        if stage.get("choice"):
            stage["choice"] |= {"search": evil, "budget": {evil: 0.5}, "reached": {evil: 0.5}}
            stage["choice"]["candidates"][0]["search"] = evil
            stage["choice"]["widths"][0]["layer"] = f"{evil}.conv"
            stage["choice"]["widths"][1] |= {"layer": evil, "after": 0}
    for edge in result["ladder"]["edges"]:
        edge["kind"] = evil if edge["kind"] == "starts" else edge["kind"]
    said |= {"machine": evil}
    said["rows"][0] |= {"form": evil, "runtime": evil, "file": evil, "note": evil}
    (tmp_path / "deploy.json").write_text(json.dumps(said), "utf-8")
    page = Parsed(written(tmp_path, result))
    assert page.count("script") == 0
    assert not any("onclick" in attributes for _, attributes in page.tags)
    assert page.text.count(evil) >= 15


def test_a_choice_that_is_none_is_damage(shaped: Results, tmp_path: Path) -> None:
    result = shaped()
    next(stage for stage in result["stages"] if stage.get("choice"))["choice"]["widths"] = [{"layer": 3}]
    with pytest.raises(BadInput, match=r"damaged: stages\.3\.choice\.widths\.0\.layer"):
        written(tmp_path, result)
