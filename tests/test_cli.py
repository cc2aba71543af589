"""The command from end to end on made-up data, in this process except where a process of its own is the point."""

from __future__ import annotations

import importlib.resources
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from tests.recipe.tiny import TEXT, tree, write_data
from understudy import __version__
from understudy.cli import main
from understudy.recipe import check, read_file, read_text

ARMS = ["teacher", "dense/plain_cnn-2 x0.25", "dense", "scratch", "direct"]
NOTHING = "Every stage was kept already; nothing was trained."


class Command:
    """Runs the command in this process and keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object) -> int:
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        self.out, self.err = self.capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code


@pytest.fixture
def understudy(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.delenv("UNDERSTUDY_STORE", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    return Command(capsys)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with data and a recipe, which the command is called in."""
    write_data(tmp_path / "data.npz")
    (tmp_path / "r.yaml").write_text(TEXT, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder after ``run r.yaml --out runs/a``; tests that write take a copy."""
    folder = tmp_path_factory.mktemp("finished")
    write_data(folder / "data.npz")
    (folder / "r.yaml").write_text(TEXT, "utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        with pytest.raises(SystemExit) as ended:
            main(["run", "r.yaml", "--out", "runs/a", "--seeds", "2", "--quiet"])
        assert ended.value.code == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def after(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder after the run, which the command is called in."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return folder


def result(out: Path | str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((Path(out) / "result.json").read_text("utf-8"))
    return value


def written(store: Path | str) -> dict[str, int]:
    """When each kept stage's weights were written, by key."""
    return {
        path.parent.name: path.stat().st_mtime_ns for path in Path(store).glob("stages/*/weights.safetensors")
    }


# --- run ------------------------------------------------------------------------------------------------------------


def test_a_run_leaves_its_folder_and_shows_the_students_beside_their_controls(
    here: Path, understudy: Command
) -> None:
    assert understudy("run", "r.yaml") == 0
    assert sorted(path.name for path in (here / "runs" / "r").iterdir()) == [
        "recipe.yaml",
        "report.html",
        "result.json",
        "student.json",
        "student.md",
        "student.safetensors",
    ]
    for name in ARMS:
        assert re.search(rf"^{re.escape(name)}( \*)? .*\d\d", understudy.out, flags=re.MULTILINE), name
    assert f"student: {Path('runs/r/student.safetensors')}" in understudy.out
    assert f"report:  {Path('runs/r/report.html')}" in understudy.out
    assert "teacher begins" in understudy.err  # progress goes to stderr, so that the table can be piped
    assert NOTHING not in understudy.out
    assert check(read_file(Path("runs/r/recipe.yaml"))) == check(read_file(Path("r.yaml")))
    assert len(written("runs/.store")) == 5


def test_a_second_run_trains_nothing(after: Path, understudy: Command) -> None:
    stages = written("runs/.store")
    first = result("runs/a")
    assert understudy("run", "r.yaml", "--seeds", 2, "--out", "runs/a") == 0
    assert NOTHING in understudy.out
    assert written("runs/.store") == stages
    again = result("runs/a")
    assert all(stage["from_store"] for stage in again["stages"])
    for old, new in zip(first["stages"], again["stages"], strict=True):
        assert new == {**old, "from_store": True}  # seconds are of the training, whoever did it
    assert again["summary"] == first["summary"]


def test_another_folder_beside_it_finds_the_same_results(after: Path, understudy: Command) -> None:
    assert understudy("run", "r.yaml", "--seeds", "0,1", "--out", "runs/b") == 0
    assert NOTHING in understudy.out
    assert load_file("runs/b/student.safetensors").keys() == load_file("runs/a/student.safetensors").keys()


def test_more_seeds_and_controls_continue_a_run(after: Path, understudy: Command) -> None:
    stages = written("runs/.store")
    assert (
        understudy(
            "run",
            "r.yaml",
            "--seeds",
            "0,1,5",
            "--set",
            "controls=[scratch, direct, direct_long]",
            "--out",
            "runs/a",
        )
        == 0
    )
    now = written("runs/.store")
    assert {key: now[key] for key in stages} == stages
    assert len(now) == len(stages) + 3 + 3  # dense, scratch, direct of seed 5; direct_long of three
    found = result("runs/a")
    assert found["ladder"]["seeds"] == [0, 1, 5]
    assert found["ladder"]["controls"] == ["scratch", "direct", "direct_long"]
    by_name = {row["name"]: row for row in found["summary"]}
    assert by_name["dense"]["n"] == 3
    assert by_name["direct_long"]["epochs"] == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", "1"], "seeds is [0, 1] there and [0] here"),
        (
            ["--seeds", "2", "--set", "controls=[scratch]"],
            "controls is ['scratch', 'direct'] there and ['scratch'] here",
        ),
        (["--seeds", "2", "--set", "training.epochs=3"], "training.epochs is 2 there and 3 here"),
        (
            ["--seeds", "3", "--set", "models.student.width=0.25"],
            "models.student.width is 0.125 there and 0.25 here",
        ),
        (["--seeds", "2", "--set", "ladder.shape=chain"], "ladder.shape is dense there and chain here"),
    ],
)
def test_any_other_difference_is_refused_with_its_key(
    after: Path, understudy: Command, arguments: list[str], said: str
) -> None:
    before = tree(after)
    assert understudy("run", "r.yaml", "--out", "runs/a", *arguments) == 2
    assert understudy.err.startswith(
        f"understudy: --out runs/a holds another run: {said}. Choose another --out, or --force"
    )
    assert tree(after) == before


def test_force_writes_over_a_run_and_leaves_the_store_alone(after: Path, understudy: Command) -> None:
    stages = written("runs/.store")
    assert understudy("run", "r.yaml", "--out", "runs/a", "--force", "--set", "training.epochs=1") == 0
    now = written("runs/.store")
    assert {key: now[key] for key in stages} == stages
    assert len(now) == len(stages) + 5
    found = result("runs/a")
    assert found["ladder"]["seeds"] == [0]
    assert {stage["epochs"] for stage in found["stages"]} == {1}
    assert read_file(Path("runs/a/recipe.yaml"))["training"]["epochs"] == 1


def test_settings_and_seeds_of_the_command_are_in_the_resolved_recipe(
    here: Path, understudy: Command
) -> None:
    settings = [
        "--set",
        "training.epochs=1",
        "--set",
        "ladder=scratch",
        "--set",
        "controls=[]",
        "--set",
        "data.views.flip=true",
    ]
    assert understudy("run", "r.yaml", "--seeds", "4,2", *settings) == 0
    said = read_file(Path("runs/r/recipe.yaml"))
    assert said["training"]["epochs"] == 1
    assert said["seeds"] == [4, 2]
    assert said["data"]["views"]["flip"] is True
    assert [(stage["name"], stage["seed"]) for stage in result("runs/r")["stages"]] == [
        ("scratch", 4),
        ("scratch", 2),
    ]


def test_quiet_says_the_table_and_nothing_of_the_way(here: Path, understudy: Command) -> None:
    settings = ["--set", "ladder=scratch", "--set", "controls=[]", "--set", "training.epochs=1"]
    assert understudy("run", "r.yaml", "--quiet", *settings) == 0
    assert understudy.err == ""
    assert "Test accuracy" in understudy.out
    assert "note:" not in understudy.out


def test_jobs_side_by_side_give_the_same_bits(after: Path, understudy: Command) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OMP_NUM_THREADS", "1")
        assert understudy("run", "r.yaml", "--seeds", 2, "--jobs", 2, "--out", "elsewhere/a", "--quiet") == 0
    one, two = result("runs/a"), result("elsewhere/a")
    assert [stage["from_store"] for stage in two["stages"]] == [False] * len(two["stages"])
    for old, new in zip(one["stages"], two["stages"], strict=True):
        assert new["key"] == old["key"]
        place = Path("stages") / new["key"] / "weights.safetensors"
        assert (Path("elsewhere/.store") / place).read_bytes() == (Path("runs/.store") / place).read_bytes()
    assert one["summary"] == two["summary"]
    assert one["delivered"] == two["delivered"]


def test_a_stage_that_fails_is_said_and_the_status_is_one(here: Path, understudy: Command) -> None:
    settings = ["--set", "models.student.training.lr=10000", "--set", "training.epochs=4"]
    assert understudy("run", "r.yaml", "--set", "models.student.training.schedule=constant", *settings) == 1
    found = result("runs/r")
    states = {stage["name"]: stage["state"] for stage in found["stages"]}
    assert states == {
        **dict.fromkeys(ARMS, "done"),
        "dense": "failed",
        "scratch": "failed",
        "direct": "failed",
    }
    assert found["complete"] is False
    assert found["delivered"] is None
    assert "dense, seed 0 failed: the loss is not a finite number" in understudy.out
    assert not Path("runs/r/student.safetensors").exists()
    assert Path("runs/r/report.html").exists()


def test_a_run_without_a_student_leaves_no_other_runs_student(after: Path, understudy: Command) -> None:
    settings = [
        "--set",
        "training.lr=10000",
        "--set",
        "training.schedule=constant",
        "--set",
        "training.epochs=6",
    ]
    assert understudy("run", "r.yaml", "--out", "runs/a", "--force", "--quiet", *settings) == 1
    assert result("runs/a")["delivered"] is None
    assert not Path("runs/a/student.safetensors").exists()
    assert not Path("runs/a/student.json").exists()


def test_hours_that_are_over_end_the_run_like_an_interrupt(here: Path, understudy: Command) -> None:
    assert understudy("run", "r.yaml", "--hours", "1e-9") == 130
    assert understudy.err.splitlines()[-1] == (
        "understudy: the hours are over; run the same command again to go on from the last checkpoint."
    )
    assert result("runs/r")["complete"] is False
    assert {stage["state"] for stage in result("runs/r")["stages"]} == {"interrupted"}
    assert understudy("run", "r.yaml") == 0
    assert result("runs/r")["complete"] is True


# --- where results are kept -------------------------------------------------------------------------------------


def test_results_are_kept_beside_the_run_unless_said(
    here: Path, understudy: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = [
        "run",
        "r.yaml",
        "--quiet",
        "--set",
        "ladder=scratch",
        "--set",
        "controls=[]",
        "--set",
        "training.epochs=1",
    ]
    assert understudy(*quick, "--out", "one/two/run") == 0
    assert len(written("one/two/.store")) == 1
    assert understudy(*quick, "--out", "three", "--store", "mine") == 0
    assert len(written("mine")) == 1
    monkeypatch.setenv("UNDERSTUDY_STORE", str(here / "one" / "two" / ".store"))
    assert understudy(*quick, "--out", "four") == 0
    assert NOTHING in understudy.out
    assert understudy("store", "ls") == 0
    assert str(here / "one" / "two" / ".store") in understudy.out
    assert not (here / ".store").exists()
    assert not (here / "runs").exists()


def test_the_store_lists_what_is_kept(after: Path, understudy: Command) -> None:
    assert understudy("store", "ls") == 0
    for stage in result("runs/a")["stages"]:
        assert stage["key"][:12] in understudy.out
    assert "8 stages, 0 unfinished, " in understudy.out


def test_cleaning_the_store_keeps_what_is_young_or_fits(after: Path, understudy: Command) -> None:
    assert understudy("store", "gc") == 0
    assert understudy.out.startswith("removed 0 stages")
    assert understudy("store", "gc", "--older-than", 0, "--dry-run") == 0
    assert understudy.out.splitlines()[-1].startswith("would remove 8 stages")
    assert len(written("runs/.store")) == 8
    assert understudy("store", "gc", "--max-gb", 0) == 0
    assert len(written("runs/.store")) == 0


def test_a_damaged_stage_is_found_set_aside_and_made_again(after: Path, understudy: Command) -> None:
    key = result("runs/a")["delivered"]["key"]
    file = Path("runs/.store/stages") / key / "weights.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert understudy("store", "verify") == 1
    assert str(file) in understudy.out
    assert understudy.out.splitlines()[-1] == "7 stages are whole, 1 damaged"
    assert understudy("store", "verify") == 0
    assert understudy("run", "r.yaml", "--seeds", 2, "--out", "runs/a", "--quiet") == 0
    assert file.read_bytes() == whole


def test_stages_move_to_another_store_in_one_file(after: Path, understudy: Command) -> None:
    assert understudy("store", "export", "all.tar") == 0
    assert understudy.out == "8 stages written to all.tar\n"
    assert understudy("store", "import", "all.tar", "--store", "other/.store") == 0
    assert understudy.out == "8 stages taken over, 0 were there already\n"
    assert understudy("store", "import", "all.tar", "--store", "other/.store") == 0
    assert understudy.out == "0 stages taken over, 8 were there already\n"
    assert understudy("run", "r.yaml", "--seeds", 2, "--out", "other/a") == 0
    assert NOTHING in understudy.out


def test_stages_are_chosen_by_key_or_by_run(after: Path, understudy: Command) -> None:
    key = result("runs/a")["delivered"]["key"]
    assert understudy("store", "export", "one.tar", "--key", key[:10]) == 0
    assert understudy.out == "1 stages written to one.tar\n"
    assert understudy("store", "export", "run.tar", "--run", "runs/a") == 0
    assert understudy.out == "8 stages written to run.tar\n"
    assert understudy("store", "export", "no.tar", "--key", "zzz") == 2
    assert not Path("no.tar").exists()


@pytest.mark.parametrize("command", [["ls"], ["gc"], ["verify"], ["export", "x.tar"]])
def test_a_folder_that_is_no_store_is_left_as_it_is(
    here: Path, understudy: Command, command: list[str]
) -> None:
    before = tree(here)
    assert understudy("store", *command, "--store", here) == 2
    assert understudy.err == f"understudy: there is no store in {here}. Name one with --store.\n"
    assert tree(here) == before


# --- plan, report, compare, data, demo ----------------------------------------------------------------------------


def test_a_plan_knows_what_is_to_do_and_writes_nothing(here: Path, understudy: Command) -> None:
    before = tree(here)
    assert understudy("plan", "r.yaml", "--seeds", 2) == 0
    assert tree(here) == before
    assert understudy.out.count("to do") >= 8
    assert "8 stages: 8 to do" in understudy.out
    for name in ARMS:
        assert name in understudy.out


def test_a_plan_knows_what_is_kept_and_what_resumes(after: Path, understudy: Command) -> None:
    gone, begun = (
        s["key"] for s in result("runs/a")["stages"] if s["name"] in ("scratch", "direct") and s["seed"] == 1
    )
    shutil.rmtree(Path("runs/.store/stages") / gone)
    stage = Path("runs/.store/stages") / begun
    (stage / "stage.json").unlink()
    (stage / "checkpoint" / "00000001").mkdir(parents=True)
    before = tree(after)
    assert understudy("plan", "r.yaml", "--seeds", 2, "--out", "runs/a") == 0
    assert tree(after) == before
    rows = {
        tuple(re.split(r"\s{2,}", line.strip())[:2]): line
        for line in understudy.out.splitlines()
        if line.startswith(tuple(ARMS))
    }
    assert "kept" in rows["dense", "0"]
    assert "to do" in rows["scratch", "1"]
    assert "resumes" in rows["direct", "1"]
    assert "8 stages: 6 kept already" in understudy.out


def test_a_plan_of_a_store_with_a_damaged_record_makes_that_stage_again(
    after: Path, understudy: Command
) -> None:
    key = result("runs/a")["delivered"]["key"]
    (Path("runs/.store/stages") / key / "stage.json").write_text("{", "utf-8")
    before = tree(after)
    assert understudy("plan", "r.yaml", "--seeds", 2, "--out", "runs/a") == 0
    assert "8 stages: 7 kept already" in understudy.out
    assert tree(after) == before


def test_a_plan_warns_of_a_teacher_smaller_than_its_student(here: Path, understudy: Command) -> None:
    assert understudy("plan", "r.yaml", "--set", "models.student.width=2") == 0
    assert re.search(
        r"note: teacher \(plain_cnn-3 x0.25, .* MMAC\) teaches dense, which is bigger", understudy.out
    )


def test_a_plan_says_which_layers_a_start_matches(here: Path, understudy: Command) -> None:
    assert understudy("plan", "r.yaml", "--seeds", 2, "--set", "teaching.sparse_codes=true") == 0
    said = [line for line in understudy.out.splitlines() if "matches layers of student and teacher" in line]
    assert len(said) == 1
    assert said[0].startswith("note: dense + sparse_codes/start matches layers of student and teacher: ")


def test_a_report_is_written_anew_from_the_result(after: Path, understudy: Command) -> None:
    page = Path("runs/a/report.html")
    page.unlink()
    assert understudy("report", "runs/a") == 0
    assert understudy.out.splitlines()[-1] == f"report: {page}"
    assert "dense *" in understudy.out
    text = page.read_text("utf-8")
    assert text.lstrip().lower().startswith("<!doctype html>")
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_runs_are_compared_in_one_table(after: Path, understudy: Command) -> None:
    assert understudy("run", "r.yaml", "--out", "runs/b", "--quiet", "--set", "ladder.shape=chain") == 0
    assert understudy("compare", "runs/a", "runs/b") == 0
    assert "runs/a" in understudy.out
    assert "chain" in understudy.out
    assert "Beware" not in understudy.out
    assert understudy("compare", "runs/a", "runs/b", "--out", "both.html") == 0
    assert "runs/b" in Path("both.html").read_text("utf-8")
    assert understudy("compare", "runs/a", "runs/a/") == 2
    assert "stands twice" in understudy.err


def test_a_stage_that_two_arms_share_is_trained_once_and_shown_for_both(
    after: Path, understudy: Command
) -> None:
    shared = ["--set", "controls=[scratch, direct, chain, mean_teachers]", "--out", "runs/shared", "--quiet"]
    assert understudy("run", "r.yaml", *shared) == 0
    found = result(Path("runs/shared"))
    keys = {stage["name"]: stage["key"] for stage in found["stages"]}
    (of_dense,) = [key for name, key in keys.items() if name.startswith("dense/")]
    (of_chain,) = [key for name, key in keys.items() if name.startswith("chain/")]
    assert of_dense == of_chain
    names = [row["name"] for row in found["summary"]]
    assert len(names) == len(set(names)) == len(set(keys))
    assert all(stage["state"] == "done" for stage in found["stages"])


def test_runs_on_different_data_are_not_compared_silently(after: Path, understudy: Command) -> None:
    write_data(after / "other.npz", size=9)
    quick = ["--quiet", "--set", "ladder=scratch", "--set", "controls=[]", "--set", "training.epochs=1"]
    assert understudy("run", "r.yaml", "--out", "runs/b", "--set", "data.path=other.npz", *quick) == 0
    assert understudy("compare", "runs/a", "runs/b") == 2
    assert understudy.err.startswith("understudy: these runs cannot be compared: ")
    assert "--anyway" in understudy.err
    assert understudy("compare", "runs/a", "runs/b", "--anyway") == 0
    assert "Beware: " in understudy.out


def test_the_set_of_the_examples_is_made_from_its_download(tmp_path: Path, understudy: Command) -> None:
    source = tmp_path / "tiny-imagenet-200"
    classes = [f"n{number:08d}" for number in range(200)]
    source.mkdir()
    (source / "wnids.txt").write_text("\n".join(classes) + "\n")
    assert understudy("data", "tinyimagenet100-32", "--from", source, "--out", tmp_path / "out") == 2
    assert understudy.err.startswith("understudy: ")
    assert not (tmp_path / "out").exists()


def test_the_demo_is_a_ladder_with_three_controls(
    tmp_path: Path, understudy: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = importlib.resources.files("understudy").joinpath("demo.yaml").read_text("utf-8")
    whole = check(read_text(recipe))
    assert whole.data.name == "digits"
    assert whole.models is not None
    assert len(whole.models.assistants) == 2
    assert whole.controls == ["scratch", "direct", "direct_long"]
    assert len(whole.seeds) == 3

    # the same, but in two epochs
    import understudy.recipe as recipes

    real = recipes.read_text
    monkeypatch.setattr(
        recipes,
        "read_text",
        lambda text, source: {**real(text), "training": {"epochs": 2, "precision": "fp32"}},
    )
    assert understudy("demo", "--out", tmp_path / "runs" / "demo", "--jobs", 1) == 0
    found = result(tmp_path / "runs" / "demo")
    assert found["complete"]
    assert found["data"]["name"] == "digits"
    assert {row["name"]: row["n"] for row in found["summary"] if row["role"] == "student"} == {
        "dense": 3,
        "scratch": 3,
        "direct": 3,
        "direct_long": 3,
    }
    assert "direct_long" in understudy.out


# --- what a run leaves --------------------------------------------------------------------------------------------

INT, NUMBER, TEXT_TYPE = (int,), (int, float), (str,)
STAGE = {
    "name": TEXT_TYPE,
    "seed": INT,
    "key": TEXT_TYPE,
    "role": TEXT_TYPE,
    "state": TEXT_TYPE,
    "message": TEXT_TYPE,
    "model": TEXT_TYPE,
    "teachers": (list,),
    "parameters": INT,
    "multiply_adds": INT,
    "epochs": INT,
    "seconds": NUMBER,
    "from_store": (bool,),
    "validation": (dict,),
    "test": (dict,),
    "analysis": (dict,),
    "warnings": (list,),
    "curve": (list,),
}
SUMMARY = {
    "name": TEXT_TYPE,
    "role": TEXT_TYPE,
    "model": TEXT_TYPE,
    "parameters": INT,
    "multiply_adds": INT,
    "epochs": INT,
    "n": INT,
    "mean": (float,),
    "std": (float, type(None)),
    "interval": (list, type(None)),
    "difference": (dict, type(None)),
}


def has(value: dict[str, Any], form: dict[str, tuple[type, ...]]) -> bool:
    assert value.keys() == form.keys()
    return all(type(value[key]) in types for key, types in form.items())


def test_the_result_has_the_form_that_is_documented(finished: Path) -> None:
    found = result(finished / "runs" / "a")
    assert list(found) == [
        "version",
        "complete",
        "ladder",
        "data",
        "environment",
        "command",
        "delivered",
        "stages",
        "compare",
        "summary",
        "lost_examples",
        "students_compared",
    ]
    assert found["version"] == 1
    assert found["complete"] is True
    ladder = found["ladder"]
    assert ladder.keys() == {"shape", "delivered", "controls", "seeds", "repeat", "graph", "edges"}
    assert (ladder["shape"], ladder["delivered"], ladder["controls"]) == (
        "dense",
        ["dense"],
        ["scratch", "direct"],
    )
    assert (ladder["seeds"], ladder["repeat"]) == ([0, 1], "student")
    assert [node["name"] for node in ladder["graph"]] == ARMS
    assert {"from": "teacher", "to": "dense", "kind": "teaches"} in ladder["edges"]
    assert found["data"] == {
        "name": "data",
        "classes": 3,
        "class_names": ["0", "1", "2"],
        "train": 48,
        "validation": 12,
        "test": 30,
        "image": [8, 8, 1],
        "fingerprint": found["data"]["fingerprint"],
    }
    assert re.fullmatch("[0-9a-f]{64}", found["data"]["fingerprint"])
    assert {"understudy", "python", "torch", "processor", "cores", "device"} <= found["environment"].keys()
    assert found["environment"]["understudy"] == __version__
    assert found["delivered"].keys() == {"name", "seed", "key"}
    assert all(has(stage, STAGE) for stage in found["stages"])
    assert all(has(row, SUMMARY) for row in found["summary"])
    for stage in found["stages"]:
        assert stage["analysis"]["entropy"]["temperature"] == 4
        assert 0 < stage["analysis"]["entropy"]["nats"] < math.log(3)
    assert [(stage["name"], stage["seed"]) for stage in found["stages"]] == [
        *((name, 0) for name in ARMS),
        *((name, 1) for name in ARMS[2:]),
    ]
    assert [row["name"] for row in found["summary"]] == ARMS


def test_accuracies_are_fractions_and_deviations_need_two_seeds(finished: Path) -> None:
    found = result(finished / "runs" / "a")
    for stage in found["stages"]:
        assert stage["test"].keys() == stage["validation"].keys() == {"accuracy"}
        assert 0 <= stage["test"]["accuracy"] <= 1
        assert stage["test"]["accuracy"] * 30 == pytest.approx(round(stage["test"]["accuracy"] * 30))
        assert stage["seconds"] > 0
    for row in found["summary"]:
        values = [stage["test"]["accuracy"] for stage in found["stages"] if stage["name"] == row["name"]]
        assert row["n"] == len(values)
        assert row["mean"] == pytest.approx(float(np.mean(values)))
        if len(values) == 1:
            assert row["std"] is None
            assert row["interval"] is None
        else:
            assert row["std"] == pytest.approx(float(np.std(values, ddof=1)))
            assert len(row["interval"]) == 2


def test_the_student_that_is_delivered_is_the_best_on_validation(finished: Path) -> None:
    found = result(finished / "runs" / "a")
    students = [stage for stage in found["stages"] if stage["name"] == "dense"]
    chosen = next(stage for stage in students if stage["key"] == found["delivered"]["key"])
    assert chosen["seed"] == found["delivered"]["seed"]
    assert chosen["validation"]["accuracy"] == max(stage["validation"]["accuracy"] for stage in students)


def plain_cnn(card: dict[str, Any]) -> nn.Sequential:
    """The student from its card with torch alone, by the rule that its ``wiring`` states."""
    steps: list[nn.Module] = []
    for layer in card["architecture"]["layers"]:
        arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in layer["arguments"].items()}
        steps.append(getattr(nn, layer["type"])(**arguments))
    return nn.Sequential(*steps)


def test_the_student_is_rebuilt_in_plain_torch_and_answers_as_it_did(finished: Path) -> None:
    out = finished / "runs" / "a"
    card = json.loads((out / "student.json").read_text("utf-8"))
    tensors = load_file(out / "student.safetensors")
    model = plain_cnn(card)
    own = model.state_dict()
    assert [tensor.shape for tensor in own.values()] != []
    prefixes = [layer["name"] for layer in card["architecture"]["layers"]]
    renamed = {
        f"{prefixes.index(name.rpartition('.')[0])}.{name.rpartition('.')[2]}": tensor
        for name, tensor in tensors.items()
    }
    model.load_state_dict(renamed, strict=True)
    model.eval()

    arrays = np.load(finished / "data.npz")
    pixels = torch.tensor(arrays["x_test"])[:, None].float() / 255
    prepared = card["preprocessing"]
    assert prepared["size"] is None
    mean, std = (torch.tensor(prepared[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        answers = model((pixels - mean) / std)
    accuracy = float((answers.argmax(1) == torch.tensor(arrays["y_test"])).double().mean())

    found = result(out)
    chosen = next(stage for stage in found["stages"] if stage["key"] == found["delivered"]["key"])
    assert accuracy == chosen["test"]["accuracy"] == card["test"]["accuracy"]
    assert card["class_names"] == found["data"]["class_names"]
    assert sum(tensor.numel() for tensor in model.parameters()) == card["parameters"] == chosen["parameters"]


# --- help, and the command as a process -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [[], ["store"], ["--help"], ["run", "--help"], ["store", "gc", "--help"]]
)
def test_help_is_shown_when_asked_for_or_when_nothing_is_asked(
    understudy: Command, arguments: list[str]
) -> None:
    assert understudy(*arguments) == 0
    assert understudy.out.startswith("Usage: understudy")
    assert understudy.err == ""


def test_the_version_is_told(understudy: Command) -> None:
    assert understudy("--version") == 0
    assert understudy.out == f"understudy {__version__}\n"


def test_the_module_is_the_command(finished: Path) -> None:
    environment = {**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-m", "understudy", "compare", "runs/a"],
        cwd=finished,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "dense" in done.stdout


def test_a_terminal_without_the_signs_of_the_table_shows_it_all_the_same(finished: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "understudy", "report", "runs/a"],
        cwd=finished,
        env={**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"dense \*.* \? ", done.stdout)  # where the mean and the deviation meet


def test_a_folder_of_images_is_learned_from(
    tmp_path: Path, understudy: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arrays = np.load(write_data(tmp_path / "data.npz"))
    for split in ("train", "test"):
        for number, (image, label) in enumerate(zip(arrays[f"x_{split}"], arrays[f"y_{split}"], strict=True)):
            folder = tmp_path / "pictures" / split / f"kind {label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number}.png")
    (tmp_path / "r.yaml").write_text(TEXT.replace("data.npz", "pictures"), "utf-8")
    quick = ["--set", "ladder=scratch", "--set", "controls=[]", "--set", "training.workers=0", "--quiet"]
    assert understudy("run", "r.yaml", "--out", "runs/memory", *quick) == 0
    assert understudy("run", "r.yaml", "--out", "runs/stream", "--set", "data.memory=stream", *quick) == 0
    assert NOTHING in understudy.out  # how images are held decides nothing
    assert result("runs/stream")["data"]["class_names"] == ["kind 0", "kind 1", "kind 2"]
