"""From a teacher to a file in one command: the plan and its reasons, the pilots, the run, the exported student."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from understudy.cli import main
from understudy.ladder.assistants import Pilot, ranked

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
    assert "nothing was trained" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--teacher", "resnet-9", "--budget", "1k"], "there is no resnet-9"),
        (["--teacher", "resnet-8", "--budget", "0.5x"], "--budget 0.5x: a part of what?"),
        (["--teacher", "resnet-8", "--budget", "1k", "--budget", "2k"], "--budget is given twice for parameters"),
        (["--teacher", "resnet-8", "--budget", "9GMAC"], "multiply_adds '9GMAC' is more than the network has"),
        (["--teacher", "resnet-8", "--budget", "20"], "has no unit"),
        (["--teacher", "resnet-8", "--budget", "1MAC"], "multiply_adds '1MAC'"),
        (["--teacher", "resnet-8", "--budget", "0.5xMAC", "--hours", "0"], "--hours is a positive number"),
        (["--teacher", "resnet-8", "--budget", "0.5xMAC", "--hours", "1e-7"], "is too short: one epoch of every"),
        (["--teacher", "resnet-8", "--budget", "0.5xMAC", "--weights", "no.safetensors"], "there is no file no.safe"),
        (["--teacher", "resnet-8", "--budget", "0.5xMAC", "--set", "models.student=x"], "compress decides on that"),
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
