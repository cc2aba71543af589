"""The model card says what a student is and is not, in Markdown that names cannot break, and its code runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from markdown_it import MarkdownIt
from safetensors.torch import save_file

from understudy.errors import BadInput
from understudy.models import build
from understudy.models.describe import architecture_of
from understudy.report.card import write_card

Results = Callable[..., dict[str, Any]]
METHOD = {
    "name": "soft_targets",
    "version": 1,
    "temperature": 4.0,
    "soft_weight": 0.8,
    "combine": "mean",
    "stochastic": None,
}
TRAINING = {"epochs": 60, "batch_size": 32, "optimizer": "sgd", "lr": 0.05}
EVIL = "- # <b>x</b> *y* [z](http://e.org) `c` | ![i](j) www.e.org &amp; _k_ \\"


def student_json(
    name: str = "plain_cnn-2", *, size: tuple[int, int] = (8, 8), resize: list[int] | None = None
) -> dict[str, Any]:
    arguments = {"classes": 3, "channels": 1, "size": size, "width": 0.1}
    torch.manual_seed(0)
    model = build(name, **arguments)  # type: ignore[arg-type]
    return {
        "version": 1,
        "name": name,
        "architecture": architecture_of(model, name, arguments),
        "preprocessing": {
            "mean": [0.3],
            "std": [0.4],
            "size": resize,
            "channels": 1,
            "image": [8, 8],
            "order": "pixels 0..255 -> / 255",
        },
        "class_names": ["zero", "one", "two"],
        "taught": {"peers": None, "teachers": [], "method": METHOD, "training": TRAINING},
    }


def folder_of(
    folder: Path, result: dict[str, Any], *, student: dict[str, Any] | None = None, recipe: str | None = None
) -> Path:
    (folder / "result.json").write_text(json.dumps(result), "utf-8")
    (folder / "student.json").write_text(json.dumps(student or student_json()), "utf-8")
    if recipe is not None:
        (folder / "recipe.yaml").write_text(recipe, "utf-8")
    return folder


def card_of(folder: Path, result: dict[str, Any], **more: Any) -> str:
    path = write_card(folder_of(folder, result, **more))
    assert path == folder / "student.md"
    return path.read_text("utf-8")


def part(card: str, title: str) -> str:
    found = re.findall(rf"^## {title}\n\n(.*?)(?=^## |\Z)", card, re.DOTALL | re.MULTILINE)
    assert len(found) == 1
    return str(found[0])


def test_a_card_says_what_by_whom_how_and_how_good(made_up: Results, told: Results, tmp_path: Path) -> None:
    card = card_of(tmp_path, told(made_up()), recipe="version: 1")
    assert card.startswith("# plain_cnn-2, taught on digits\n")
    assert "stage dense, seed 1, 61.73 % of 360 test images right." in card
    what = part(card, "What it is")
    assert "Parameters: 17,962" in what
    assert "1.30 million (MMAC)" in what
    assert "8 × 8 pixels (height × width) with 1 channel" in what
    assert "3 classes: zero, one, two" in what
    data = part(card, "What it was taught on")
    assert "1294 for training, 143 for validation and 360 for test" in data
    assert "ab" * 32 in data
    whom = part(card, "By whom")
    assert "Ladder: dense" in whom
    assert "teacher (plain_cnn-10, 11.2M parameters, 70.12 % of the test images right, n = 1)" in whom
    assert "taught by teacher and dense/plain_cnn-8" in whom
    how = part(card, "How")
    assert "Method: soft targets; temperature 4.0, soft_weight 0.8, combine mean\n" in how
    assert "60 epochs; batch_size 32, optimizer sgd, lr 0.05" in how
    assert "Seeds: 0, 1, 2; delivered is seed 1, the best on validation images" in how
    assert "understudy run recipe.yaml --seeds 3 --out runs/made-up" in how
    numbers = part(card, "Its figures")
    assert "| **dense** | 61.42 ± 0.31 | 3 |" in numbers
    assert "| teacher | 70.12 (n = 1) | 1 |" in numbers
    assert "the claim" in numbers
    assert "| scratch | 58.00 ± 0.50 | 3 |" in numbers
    assert (
        "The delivered seed gets 62.73 % of the validation images and 61.73 % of the test images right."
        in numbers
    )
    assert "(ECE) is 5.10 points" in numbers
    assert "Its worst class is two" in numbers
    assert "is not known to the program that wrote this card" in part(card, "Licence")


def test_limits_are_those_of_the_result(made_up: Results, told: Results, tmp_path: Path) -> None:
    limits = part(card_of(tmp_path, told(made_up())), "Its limits")
    assert "With 3 seeds the mean accuracy is known only to lie somewhere from" in limits
    assert (
        "Its teacher gets 8.39 points more of the test images right: 32 images are lost and 12 gained."
        in limits
    )
    assert "It is weakest on two" in limits
    assert "360 test images pin its accuracy down to about ± 5.02 points" in limits
    assert "tested on this test split alone" in limits
    assert "5.10 points apart" in limits
    assert "not shown" not in limits  # its gain over direct is


def test_a_gain_that_is_not_shown_is_a_limit(made_up: Results, told: Results, tmp_path: Path) -> None:
    result = told(made_up())
    result["summary"][3]["difference"] |= {"p": 0.2, "p_corrected": 0.4, "claim": False}
    limits = part(card_of(tmp_path, result), "Its limits")
    assert "better or worse than direct is not shown by these seeds (p = 0.400, corrected for" in limits


def test_one_seed_is_a_limit_and_has_no_deviation(one_stage: dict[str, Any], tmp_path: Path) -> None:
    card = card_of(tmp_path, one_stage)
    assert "one seed (n = 1): how much of its accuracy is luck is not known" in card
    assert "58.12 (n = 1)" in card
    assert "By nobody: it learned from the labels alone" in card
    assert "± 0.00" not in card


def test_warnings_and_an_unfinished_run_are_limits(
    unfinished: dict[str, Any], told: Results, tmp_path: Path
) -> None:
    unfinished["delivered"] = {"name": "dense", "seed": 2, "key": "f" * 40}
    result = told(unfinished)
    next(s for s in result["stages"] if s["name"] == "dense" and s["seed"] == 2)["warnings"] = [
        "it hardly moved."
    ]
    limits = part(card_of(tmp_path, result), "Its limits")
    assert "The health check warned: it hardly moved." in limits
    assert "The run that it comes from is not finished" in limits


def test_every_shape_has_a_card(
    every_path: dict[str, Any], twenty: dict[str, Any], told: Results, tmp_path: Path
) -> None:
    for number, result in enumerate((every_path, twenty, told(every_path), told(twenty, classes=100))):
        folder = tmp_path / str(number)
        folder.mkdir()
        card_of(folder, result)


@pytest.mark.parametrize(
    ("name", "size", "resize"),
    [("plain_cnn-2", (8, 8), None), ("plain_cnn-4", (16, 16), [16, 16]), ("vgg-8", (32, 32), [32, 32])],
)
def test_the_code_of_a_card_runs_with_torch_alone_and_answers_as_the_student(
    name: str, size: tuple[int, int], resize: list[int] | None, made_up: Results, tmp_path: Path
) -> None:
    student = student_json(name, size=size, resize=resize)
    torch.manual_seed(0)
    model = build(name, classes=3, channels=1, size=size, width=0.1).eval()
    save_file(model.state_dict(), tmp_path / "student.safetensors")
    card = card_of(tmp_path, made_up(), student=student)
    (code,) = re.findall(r"```python\n(.*?)```", part(card, "How to load it"), re.DOTALL)
    assert "understudy" not in code
    code += "\ntorch.save({'images': images, 'logits': logits}, 'said.pt')\n"
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    assert re.fullmatch(r"\['(zero|one|two)'(, '(zero|one|two)'){3}\]\n", said.stdout)
    kept = torch.load(tmp_path / "said.pt", weights_only=True)
    assert tuple(kept["images"].shape[2:]) == size
    with torch.inference_mode():
        assert torch.allclose(kept["logits"], model((kept["images"] - 0.3) / 0.4), atol=1e-6)


def test_other_networks_point_at_what_describes_them(made_up: Results, tmp_path: Path) -> None:
    loading = part(
        card_of(tmp_path, made_up(), student=student_json("resnet-8", size=(16, 16))), "How to load it"
    )
    assert "`student.json`" in loading
    assert "```" not in loading


def test_networks_from_elsewhere_are_built_by_their_package(made_up: Results, tmp_path: Path) -> None:
    student = student_json()
    student["architecture"] |= {"wiring": "timm.create_model('resnet18', num_classes=3, in_chans=1)"}
    loading = part(card_of(tmp_path, made_up(), student=student), "How to load it")
    assert "import timm" in loading
    assert "student = timm.create_model('resnet18', num_classes=3, in_chans=1)" in loading


def test_names_cannot_become_markup(made_up: Results, told: Results, tmp_path: Path) -> None:
    arms = (
        (EVIL + "0", "teacher", EVIL, (), 100, 100, (0.9, 0.8)),
        (EVIL, "student", EVIL, (EVIL + "0",), 10, 10, (0.6, 0.7)),
    )
    result = told(made_up(arms, delivered=(EVIL,), controls=(), shape=EVIL))
    result["data"] |= {"name": EVIL, "class_names": [EVIL] * 3, "fingerprint": EVIL}
    result |= {"command": f"understudy ``` {EVIL}"}
    result["compare"] = {"against": EVIL, "claim": None, "level": 0.05, "varied": EVIL}
    result["summary"][1]["difference"] = {"n": 2, "mean": 0.1, "interval": [-0.1, 0.2], "p": 0.3}
    for stage in result["stages"]:
        stage["warnings"] = [EVIL]
    student = student_json() | {"name": EVIL, "class_names": [EVIL] * 3}
    student["preprocessing"]["order"] = EVIL
    card = card_of(tmp_path, result, student=student, recipe=f"teaching: {{method: {json.dumps(EVIL)}}}")
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(card)
    inline = [child for token in tokens for child in token.children or []]
    assert not [
        t
        for t in (*tokens, *inline)
        if t.type in ("html_block", "html_inline", "link_open", "image", "em_open")
    ]
    assert [t.tag for t in tokens if t.type == "heading_open"] == ["h1"] + ["h2"] * 8
    assert sum(t.type == "bullet_list_open" for t in tokens) == 5
    rows = [t for t in tokens if t.type in ("th_open", "td_open")]
    assert len(rows) == 5 * 3
    text = "".join(child.content for child in inline if child.type in ("text", "text_special"))
    assert text.count(EVIL) >= 12


def test_without_a_recipe_the_card_is_written_all_the_same(made_up: Results, tmp_path: Path) -> None:
    how = part(card_of(tmp_path, made_up(), recipe="a: [1"), "How")
    assert "Training: 60 epochs" in how


def test_a_student_of_an_older_understudy_has_its_epochs_and_no_settings(
    made_up: Results, tmp_path: Path
) -> None:
    student = {key: value for key, value in student_json().items() if key != "taught"}
    how = part(card_of(tmp_path, made_up(), student=student), "How")
    assert "Training: 60 epochs" in how
    assert "Method" not in how


def test_the_first_of_peers_was_taught_by_them_and_by_their_teachers(
    made_up: Results, tmp_path: Path
) -> None:
    inner = {"name": "soft_targets", "version": 1, "temperature": 4.0}
    method = {"name": "peers", "version": 1, "temperature": 3.0, "method": inner}
    taught = {
        "peers": "dense ensemble",
        "teachers": ["teacher"],
        "method": method,
        "training": {**TRAINING, "epochs": 30},
    }
    card = card_of(tmp_path, made_up(), student=student_json() | {"taught": taught})
    whom = part(card, "By whom")
    assert "By its peers: it is the first of the networks of dense ensemble, which learned together" in whom
    assert "- teacher (plain_cnn-10" in whom
    assert "By nobody" not in whom
    alone = student_json() | {"taught": taught | {"teachers": []}}
    result = made_up()
    for stage in result["stages"]:
        stage["teachers"] = []
    whom = part(card_of(tmp_path, result, student=alone), "By whom")
    assert "By its peers" in whom
    assert "By nobody" not in whom
    how = part(card, "How")
    assert "Method: peers; temperature 3.0, soft targets (temperature 4.0)" in how
    assert "Training: 30 epochs" in how


def test_no_claim_is_said_where_none_was_named(made_up: Results, told: Results, tmp_path: Path) -> None:
    result = told(made_up())
    for row in result["summary"]:
        if row.get("difference"):
            row["difference"]["claim"] = False
    figures = part(card_of(tmp_path, result), "Its figures")
    assert "Differences are paired by seed, with their interval" in figures
    assert "claim" not in figures


def test_nothing_delivered_is_refused(made_up: Results, tmp_path: Path) -> None:
    result = made_up() | {"delivered": None}
    with pytest.raises(BadInput, match="has no delivered student to write a card for"):
        card_of(tmp_path, result)
    assert not (tmp_path / "student.md").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is damaged: it is not JSON"),
        ("[]", "is damaged: it has no name"),
        ('{"name": "a"}', "has no architecture"),
        ('{"name": "a", "architecture": []}', "has no architecture"),
    ],
)
def test_a_damaged_student_is_named(content: str, words: str, made_up: Results, tmp_path: Path) -> None:
    folder_of(tmp_path, made_up())
    (tmp_path / "student.json").write_text(content, "utf-8")
    with pytest.raises(BadInput) as caught:
        write_card(tmp_path)
    assert words in str(caught.value)
    assert str(tmp_path / "student.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_student_is_named(made_up: Results, tmp_path: Path) -> None:
    folder_of(tmp_path, made_up())
    (tmp_path / "student.json").unlink()
    with pytest.raises(BadInput, match=r"student\.json cannot be read"):
        write_card(tmp_path)


def test_files_of_the_student_have_a_table(
    shaped: Results, deploy: Results, told: Results, tmp_path: Path
) -> None:
    (tmp_path / "deploy.json").write_text(json.dumps(deploy()), "utf-8")
    device = part(card_of(tmp_path, told(shaped())), "On a device")
    assert (
        "| form | test, % | validation, % | other answers | size | median, ms | p95, ms | memory | file |"
        in device
    )
    assert "| int8 after training | 61.21 | 62.21 | 41 | 812 kB | 0.550 | 0.660 | 45.7 MB |" in device
    assert "Measured on a made-up processor, 2 cores." in device
    assert "not how long they take" in device


@pytest.mark.parametrize("content", ["{", '{"version": 1, "rows": []}', None])
def test_without_figures_of_files_there_is_no_such_part(
    content: str | None, made_up: Results, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "deploy.json").write_text(content, "utf-8")
    assert "On a device" not in card_of(tmp_path, made_up())


def test_a_structure_is_said_and_what_was_never_trained_is_in_no_table(
    shaped: Results, tmp_path: Path
) -> None:
    card = card_of(tmp_path, shaped())
    assert (
        "- Structure, found by structure/search 3: budget: at most 12.4 MMAC, 0.3 of the whole network’s 41.3. What is "
        "left has 12.3 MMAC and 702k parameters: 99.3 % of the multiply-adds allowed\n"
    ) in part(card, "What it is")
    assert "| structure/search 3 |" in part(card, "Its figures")
    assert "| structure |" not in part(card, "Its figures")
