"""From a teacher to a file in one command: the plan and its reasons, the pilots, the run, the exported student."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from understudy.cli import main
from understudy.compress import Wish, _recipe, fitting_epochs, keep_plan, kept_plan, planned
from understudy.ladder.assistants import Pilot, ranked
from understudy.recipe import check
from understudy.recipe.validating import structure_training_of
from understudy.store import Store

SMALL = ["--data", "digits", "--set", "data.train_images=120", "--set", "training.batch_size=32"]
FAST = ["--set", "training.precision=fp32", "--set", "training.device=cpu"]


def compress(*arguments: str, status: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compress", *SMALL, *FAST, *arguments])
    assert ended.value.code == status


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNDERSTUDY_STORE", raising=False)
    return tmp_path


def test_the_plan_gives_its_reasons_and_trains_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budget = ["--budget", "0.4xMAC"]
    compress("--teacher", "resnet-8", *budget, "--set", "training.epochs=4", "--out", "small", "--dry-run")
    said = capsys.readouterr().out
    assert "The teacher resnet-8 costs" in said
    assert "within 0.4x MAC" in said
    assert "Candidates for an assistant: structures at 0.25, 0.5, 0.75 of the way" in said
    assert "Every stage is trained for 4 epochs" in said
    assert list(here.iterdir()) == []


def test_few_epochs_leave_no_room_for_an_assistant(capsys: pytest.CaptureFixture[str]) -> None:
    compress(
        "--teacher",
        "resnet-8",
        "--budget",
        "0.4xMAC",
        "--set",
        "training.epochs=2",
        "--out",
        "s",
        "--dry-run",
    )
    assert "No assistant: 2 epochs are too few" in capsys.readouterr().out


def test_a_budget_of_parameters_promises_no_multiply_adds(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--teacher", "resnet-8", "--budget", "0.3xparameters", "--set", "training.epochs=2"]
    compress(*asked, "--out", "s", "--dry-run")
    said = capsys.readouterr().out
    (sentence,) = [line for line in said.replace("\n", " ").split(". ") if "structure search leaves" in line]
    assert sentence.endswith("parameters at most")
    assert "multiply-adds" not in sentence


def test_adamw_is_for_all_but_the_search() -> None:
    with_adamw = wish(settings={"training": {"optimizer": "adamw", "lr": 0.001}})
    recipe = check(_recipe(with_adamw, assistants=(), epochs=2))
    assert recipe.training.optimizer == "adamw"
    assert structure_training_of(recipe).optimizer == "sgd"
    assert "training" not in _recipe(wish(), assistants=(), epochs=2)["structure"]


def test_a_new_plan_is_refused_for_a_run_of_another_before_its_pilots(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["--teacher", "resnet-8", "--budget", "0.4xMAC", "--out", "s"]
    (here / "s").mkdir()
    recipe = check(_recipe(wish(), assistants=(), epochs=3))
    (here / "s" / "recipe.yaml").write_text(recipe.as_yaml(), "utf-8")
    monkeypatch.setattr("understudy.compress.piloted", lambda *_, **__: pytest.fail("pilots"))
    compress(*asked, "--set", "training.epochs=2", status=2)
    said = " ".join(capsys.readouterr().err.split())
    assert "--out s holds a run of another plan: its training.epochs is 3, and this plan's 2." in said
    assert not (here / "s-pilots" / "plan.json").exists()


def test_a_named_student_within_the_budget_is_taken_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    students = ["--teacher", "resnet-20", "--student", "resnet-8", "--budget", "0.5xMAC"]
    compress(*students, "--set", "training.epochs=4", "--out", "s", "--dry-run")
    said = capsys.readouterr().out
    assert "is within 0.5x MAC as it is" in said
    assert "The assistant is the only network between teacher and student: resnet-14" in said


def test_from_a_teacher_to_int8(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        "--teacher",
        "resnet-8",
        "--budget",
        "0.5xMAC",
        "--set",
        "training.epochs=4",
        "--out",
        "runs/small",
    ]
    compress(*asked, "--int8", "--max-drop", "100", "--quiet")
    said = capsys.readouterr().out
    assert "Pilots, on the validation split:" in said
    assert "its accuracy lies nearest to the middle of teacher and student" in said
    out = here / "runs" / "small"
    assert (here / "runs" / "small-pilots" / "plan.json").is_file()
    result = json.loads((out / "result.json").read_text("utf-8"))
    assert result["complete"]
    stages = {stage["name"]: stage for stage in result["stages"]}
    student = stages[result["delivered"]["name"]]
    assert student["multiply_adds"] <= stages["teacher"]["multiply_adds"] / 2
    assert result["ladder"]["shape"] == "dense"
    assert (out / "student.onnx").is_file()
    assert (out / "student.int8.onnx").stat().st_size < (out / "student.onnx").stat().st_size
    rows = json.loads((out / "deploy.json").read_text("utf-8"))["rows"]
    assert {row["form"] for row in rows} == {"float32", "int8 after training"}
    compress(*asked, "--quiet")
    said = capsys.readouterr().out
    assert "This plan was made before and is gone on with (runs/small-pilots/plan.json)" in said
    assert "nothing was trained" in said


def wish(**changed: Any) -> Wish:
    small: dict[str, Any] = {
        "data": {"name": "digits", "train_images": 120},
        "teacher": {"name": "resnet-8"},
        "multiply_adds": "0.5x",
        "settings": {"training": {"batch_size": 32, "precision": "fp32", "device": "cpu"}},
    }
    return Wish(**{**small, **changed})


def test_a_plan_is_gone_on_with_for_an_equal_wish_only(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = here / "a-pilots" / "plan.json"
    asked = wish(hours=1.0)
    assert kept_plan(file, asked) is None
    seconds = {1: 10.0, 11: 110.0}
    monkeypatch.setattr(
        "understudy.compress._forecast", lambda said, *_: seconds.get(said["training"]["epochs"], 1e3)
    )
    plan = planned(asked, store=Store(here / "store"))
    assert plan.epochs == 270  # 3060 s, 11.3 of them for an epoch with its pilots
    keep_plan(file, asked, plan)
    seconds[11] = 210.0
    found = kept_plan(file, asked)
    assert found is not None
    assert replace(found, dataset=plan.dataset) == plan
    assert planned(asked, store=Store(here / "store")).epochs < plan.epochs
    assert kept_plan(file, wish(hours=2.0)) is None
    whole = file.read_text("utf-8")
    other = json.loads(whole)
    other["plan"]["recipe"] = {"models": 5}
    for damaged in (
        whole.replace(plan.dataset.fingerprint, "of fewer images", 1),
        whole[:-40],
        "[]",
        whole.replace('"epochs": 270,', '"epochs": "x",', 1),
        json.dumps(other),
    ):
        file.write_text(damaged, "utf-8")
        assert kept_plan(file, asked) is None
    file.write_bytes(b"\xff\x00")
    assert kept_plan(file, asked) is None


def test_what_does_not_grow_with_the_epochs_is_counted_once() -> None:
    assert fitting_epochs(30.0, 130.0, seconds=120.0, pilots=0) == 10
    assert fitting_epochs(30.0, 130.0, seconds=25.0, pilots=0) == 0
    assert fitting_epochs(30.0, 130.0, seconds=120.0, pilots=3) == 7  # 40 s; 11 s an epoch
    assert fitting_epochs(30.0, 20.0, seconds=120.0, pilots=0) == 4  # no slope: an epoch as long as the first


def test_pilots_and_run_share_the_hours(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 600.0, 3000.0, 1e6, 0.0, 4000.0, 5000.0])
    given = []

    def pilots(plan: Any, *, hours: float, **_: Any) -> tuple[Any, tuple[str, ...]]:
        given.append(hours)
        return plan.recipe, ()

    monkeypatch.setattr("understudy.cli.compress._now", lambda: next(clock))
    monkeypatch.setattr("understudy.compress._forecast", lambda said, *_: 10.0 * said["training"]["epochs"])
    monkeypatch.setattr("understudy.compress.piloted", pilots)
    monkeypatch.setattr("understudy.cli.run.run_raw", lambda *_, hours, **__: given.append(hours))
    monkeypatch.setattr("understudy.cli.deploy.deliver", lambda *_, **__: None)
    asked = ["--teacher", "resnet-8", "--budget", "0.5xMAC", "--hours", "1", "--out", "small"]
    with pytest.raises(SystemExit) as ended:
        main(["compress", *SMALL, *FAST, *asked])
    assert ended.value.code == 0
    assert given == [pytest.approx(3000 / 3600), pytest.approx(600 / 3600)]
    assert next(clock) == 1e6
    with pytest.raises(SystemExit):
        main(["compress", *SMALL, *FAST, *asked])
    assert given[2:] == [1 / 3600, 1 / 3600]


def test_a_share_is_one_of_the_teachers_also_for_a_named_student(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.compress._forecast", lambda *_: 1.0)
    both = wish(teacher={"name": "resnet-20"}, student="resnet-14", multiply_adds="0.4x", parameters="0.9x")
    plan = planned(both, store=Store(here / "store"))
    (limit,) = plan.recipe["structure"]["budget"].items()  # parameters are within it as they are
    assert limit[0] == "multiply_adds"
    assert limit[1].endswith("kMAC")
    (teacher,) = [one for one in plan.reasons if one.startswith("The teacher resnet-20 costs")]
    whole = float(teacher.split("costs ")[1].split(" MMAC")[0])
    assert float(limit[1].removesuffix("kMAC")) / 1000 == pytest.approx(0.4 * whole, abs=0.01)
    assert "of the teacher's" in " ".join(plan.reasons)


@pytest.mark.parametrize("setting", ["ladder_seed=3", "repeat=ladder", "version=1"])
def test_settings_need_not_be_sections(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], setting: str
) -> None:
    monkeypatch.setattr("understudy.compress._forecast", lambda *_: 1.0)
    compress("--teacher", "resnet-8", "--budget", "0.5xMAC", "--set", setting, "--out", "s", "--dry-run")
    assert "Every stage is trained for 30 epochs" in capsys.readouterr().out


def test_what_a_file_needs_is_asked_for_at_the_start(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    asked = ["--teacher", "resnet-8", "--budget", "0.5xMAC"]
    with pytest.raises(SystemExit) as ended:
        main(["compress", *SMALL, *asked, "--out", "small", "--dry-run"])
    assert ended.value.code != 0
    assert 'pip install "understudy[export]"' in capsys.readouterr().err


@pytest.mark.parametrize("name", ["small", "small-pilots"])
def test_a_file_in_the_place_of_a_folder_is_refused_first(
    here: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (here / name).write_text("mine", "utf-8")
    compress("--teacher", "resnet-8", "--budget", "0.5xMAC", "--out", "small", status=2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"{name} is a file" in shown.err
    assert [path.name for path in here.iterdir()] == [name]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--teacher", "resnet-9", "--budget", "1k"], "there is no resnet-9"),
        (["--teacher", "resnet-8", "--budget", "0.5x"], "--budget 0.5x: a part of what?"),
        (["--teacher", "resnet-8", "--budget", "1k", "--budget", "2k"], "--budget is given twice for parameters"),
        (["--teacher", "resnet-8", "--budget", "9GMAC"], "multiply_adds '9GMAC' is more than the network has"),
        (["--teacher", "resnet-8", "--budget", "20"], "--budget 20 is neither multiply-adds nor parameters. Write"),
        (["--teacher", "resnet-8", "--budget", "20bananas"], "--budget 20bananas is neither multiply-adds nor"),
        (["--teacher", "resnet-8", "--budget", "90000parameters"], "parameters '90.0k' is more than the network has"),
        (["--teacher", "resnet-8", "--budget", "1MAC"], "multiply_adds '1MAC'"),
        (["--teacher", "resnet-8", "--budget", "0.5xMAC", "--hours", "0"], "--hours is a positive number"),
        (["--teacher", "resnet-8", "--budget", "0.5xMAC", "--hours", "1e-7"], "is too short: one epoch of every"),
        (["--teacher", "resnet-8", "--budget", "0.5xMAC", "--weights", "no.safetensors"], "there is no file no.safe"),
        (["--teacher", "resnet-8", "--budget", "0.5xMAC", "--set", "models.student=x"], "compress decides on that"),
        (["--teacher", "resnet-8", "--budget", "0.5xMAC", "--set", "training=5"], "training: 5 is no section"),
        (["--teacher", "resnet-8", "--budget", "0.5xMAC", "--set", "data=5"], "data: 5 is no section"),
        (["--teacher", "resnet-8", "--budget", "0.5xMAC", "--set", "compare=[x]"], "compare"),
        (["--teacher", "resnet-8", "--budget", "0.5xMAC", "--max-drop", "nan"], "--max-drop is a number of points"),
        (["--teacher", "resnet-8", "--budget", "0.5xMAC", "--max-drop", "101"], "--max-drop is a number of points"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_one_clear_line(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    compress(*arguments, "--out", "small", status=2)
    shown = capsys.readouterr()
    assert shown.err.startswith("understudy: ")
    assert shown.err.count("\n") == 1
    assert said in shown.err
    assert list(here.iterdir()) == []


def test_the_best_candidate_is_nearest_to_the_middle_and_agrees_most_among_equals() -> None:
    def pilot(name: str, accuracy: float, agreement: float = 0.5) -> Pilot:
        return Pilot(name=name, accuracy=accuracy, agreement=agreement)

    some = [pilot("high", 0.78), pilot("middle", 0.61), pilot("low", 0.45)]
    assert [one.name for one in ranked(some, teacher=0.8, student=0.4)] == ["middle", "low", "high"]
    equal = [pilot("one", 0.601, 0.6), pilot("other", 0.599, 0.7)]
    assert ranked(equal, teacher=0.8, student=0.4)[0].name == "other"


def test_a_teacher_of_timm_with_weights(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    from safetensors.torch import save_file

    from understudy.models import build

    weights = build("timm/resnet10t", classes=10, channels=1, size=(32, 32)).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, here / "teacher.safetensors")
    asked = ["--teacher", "timm/resnet10t", "--weights", "teacher.safetensors", "--budget", "0.2xparameters"]
    small = ["--set", "training.epochs=1", "--set", "data.size=32", "--out", "small", "--quiet"]
    compress(*asked, *small)
    card = json.loads((here / "small" / "student.json").read_text("utf-8"))
    assert card["structure"]["kept"]
    assert (here / "small" / "student.onnx").is_file()
