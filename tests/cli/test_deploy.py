from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.recipe.tiny import TEXT, write_data
from understudy.cli import main
from understudy.cli.delivery import Form
from understudy.cli.deploy import deliver, in_words
from understudy.deploy.int8 import TooMuchLost
from understudy.deploy.latency import Latency
from understudy.errors import StageFailed

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are not measured after an export: another test does that."""
    monkeypatch.setattr("understudy.cli.delivery._measured", lambda form: {})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder after ``run r.yaml --out runs/a``."""
    folder = tmp_path_factory.mktemp("finished")
    write_data(folder / "data.npz")
    (folder / "r.yaml").write_text(TEXT, "utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        with pytest.raises(SystemExit) as ended:
            main(["run", "r.yaml", "--out", "runs/a", "--quiet"])
        assert ended.value.code == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder without the store, in which the command is called."""
    monkeypatch.delenv("UNDERSTUDY_STORE", raising=False)
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".store"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_becomes_a_file_that_is_proved_and_measured(
    here: Path, understudy: Command, unmeasured: None
) -> None:
    before = {path.name for path in Path("runs/a").iterdir()}
    assert understudy("export", "runs/a", "--to", "onnx") == 0
    after = {path.name for path in Path("runs/a").iterdir()}
    assert after - before == {"student.onnx", "student.onnx.json", "deploy.json"}
    weights, written, parity, accuracy, *_ = understudy.out.splitlines()
    assert weights.startswith("runs/a/student.safetensors: ")
    assert written.startswith("runs/a/student.onnx: ")
    assert parity == "parity: 0 of 12 validation images answered otherwise than by the student (1 may be)"
    assert accuracy.startswith("accuracy ")
    said = json.loads(Path("runs/a/student.onnx.json").read_text("utf-8"))
    assert said["parity"]["accuracy"] == said["student"]["validation"]["accuracy"]

    assert understudy("latency", "runs/a/student.onnx", "--repeat", "5") == 0
    first, second, third = understudy.out.splitlines()
    assert "median" in first
    assert "one 1x8x8 image, 1 thread, 5 runs after 10 to warm up" in first
    assert "on disk; memory at most" in second
    assert third.startswith("onnxruntime ")
    assert understudy("latency", "runs/a/student.onnx", "--repeat", "5", "--json") == 0
    measured = json.loads(understudy.out)
    assert (measured["version"], measured["input"], len(measured["seconds"])) == (1, [1, 1, 8, 8], 5)


def test_the_other_options_do_what_they_say(here: Path, understudy: Command, unmeasured: None) -> None:
    assert (
        understudy("export", "runs/a/student.json", "--to", "torch", "--out", "a.pt2", "--with-preprocessing")
        == 0
    )
    said = json.loads(Path("a.pt2.json").read_text("utf-8"))
    assert said["preprocessing"]["inside"]
    assert said["parity"]["differing"] == 0
    Path("data.npz").unlink()
    assert understudy("export", "runs/a", "--to", "torch", "--no-check") == 0
    assert "parity: not checked" in understudy.out
    assert Path("runs/a/student.pt2").is_file()


def test_without_validation_images_the_test_images_are_answered(
    here: Path, understudy: Command, unmeasured: None
) -> None:
    recipe = Path("runs/a/recipe.yaml").read_text("utf-8")
    assert "validation: 0.2" in recipe
    Path("runs/a/recipe.yaml").write_text(recipe.replace("validation: 0.2", "validation: 0"), "utf-8")
    assert understudy("export", "runs/a", "--to", "torch") == 0
    assert "0 of 30 test images answered otherwise" in understudy.out
    (row,) = json.loads(Path("runs/a/deploy.json").read_text("utf-8"))["rows"]
    assert row["test"]["accuracy"] > 0
    assert "validation" not in row


def test_delivery_exports_measures_and_reports(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deliver(Path("runs/a"))
    said = capsys.readouterr().out
    assert "0 of 12 validation images answered otherwise" in said
    assert "The student as a file" in said
    found = json.loads(Path("runs/a/deploy.json").read_text("utf-8"))
    card = json.loads(Path("runs/a/student.json").read_text("utf-8"))
    assert found["student"] == {name: card[name] for name in ("key", "seed")} | {"name": card["stage"]}
    (row,) = found["rows"]
    assert (row["form"], row["file"], row["differing"]) == ("float32", "student.onnx", 0)
    assert row["bytes"] == Path("runs/a/student.onnx").stat().st_size
    assert (row["validation"], row["test"]) == (card["validation"], card["test"])
    assert 0 < row["latency"]["median_ms"] <= row["latency"]["p95_ms"]
    assert "student.onnx" in Path("runs/a/report.html").read_text("utf-8")


def test_rows_of_other_files_stay_and_those_of_another_student_go(
    here: Path, understudy: Command, unmeasured: None
) -> None:
    for arguments in (("onnx",), ("torch",), ("torch", "--with-preprocessing")):
        assert understudy("export", "runs/a", "--to", *arguments) == 0
    rows = json.loads(Path("runs/a/deploy.json").read_text("utf-8"))["rows"]
    assert [row["form"] for row in rows] == ["float32", "float32, torch, with preprocessing"]
    Path("runs/a/student.pt2").unlink()
    assert understudy("export", "runs/a", "--to", "onnx") == 0
    rows = json.loads(Path("runs/a/deploy.json").read_text("utf-8"))["rows"]
    assert [row["form"] for row in rows] == ["float32"]
    card = json.loads(Path("runs/a/student.json").read_text("utf-8"))
    Path("runs/a/student.json").write_text(json.dumps({**card, "key": "of another one"}), "utf-8")
    assert understudy("export", "runs/a", "--to", "torch") == 0
    rows = json.loads(Path("runs/a/deploy.json").read_text("utf-8"))["rows"]
    assert [row["form"] for row in rows] == ["float32, torch"]


def test_a_file_that_cannot_be_measured_is_good_all_the_same(
    here: Path, understudy: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path) -> None:
        raise StageFailed("no process was left")

    monkeypatch.setattr("understudy.deploy.latency.latency", fails)
    assert understudy("export", "runs/a", "--to", "torch") == 0
    assert "note: runs/a/student.pt2 could not be measured: no process was left" in understudy.out
    assert "latency" not in json.loads(Path("runs/a/deploy.json").read_text("utf-8"))["rows"][0]


def test_int8_is_written_beside_it_and_said_to_be_so(
    here: Path, understudy: Command, unmeasured: None
) -> None:
    more = ("--int8", "--max-drop", "50", "--calibration", "20", "--with-preprocessing")
    assert understudy("export", "runs/a", "--to", "onnx", *more) == 0
    assert "int8: all layers; accuracy" in understudy.out
    said = json.loads(Path("runs/a/student.int8.onnx.json").read_text("utf-8"))
    assert (said["file"], said["bytes"]) == (
        "student.int8.onnx",
        Path("runs/a/student.int8.onnx").stat().st_size,
    )
    assert (said["int8"]["calibration_images"], said["int8"]["images"]) == (20, 12)
    rows = json.loads(Path("runs/a/deploy.json").read_text("utf-8"))["rows"]
    assert [row["form"] for row in rows] == [
        "float32, with preprocessing",
        "int8 after training, with preprocessing",
    ]
    assert rows[1]["differing"] == said["int8"]["differing"]


def test_where_int8_after_training_loses_too_much_the_rest_is_written(
    here: Path, understudy: Command, unmeasured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loses(*_: object, **__: object) -> None:
        raise TooMuchLost("int8 costs too much accuracy: at best 1 %")

    def distilled(run: Path, student: object, dataset: object, out: Path, *, inside: bool) -> Form:
        target = Path(shutil.copy(out, out.with_name("student-int8.onnx")))
        figures = {"accuracy": 0.5, "differing": 0, "part": "validation"}
        return Form(name="int8 distilled", path=target, runtime="onnxruntime", inside=inside, **figures)

    def forms() -> list[str]:
        return [row["form"] for row in json.loads(Path("runs/a/deploy.json").read_text("utf-8"))["rows"]]

    monkeypatch.setattr("understudy.deploy.int8_student.int8_beside", loses)
    assert understudy("export", "runs/a", "--to", "onnx", "--int8") == 2
    assert understudy.err == "understudy: int8 costs too much accuracy: at best 1 %\n"
    assert forms() == ["float32"]
    monkeypatch.setattr("understudy.cli.deploy.distilled_int8", distilled)
    assert understudy("export", "runs/a", "--to", "onnx", "--int8") == 0
    assert "note: there is no int8 file after training: int8 costs too much accuracy" in understudy.out
    assert forms() == ["float32", "int8 distilled"]


def test_a_run_that_may_deliver_another_student_says_so(here: Path, understudy: Command) -> None:
    result = json.loads(Path("runs/a/result.json").read_text("utf-8"))
    Path("runs/a/result.json").write_text(json.dumps({**result, "complete": False}), "utf-8")
    assert understudy("export", "runs/a", "--to", "torch", "--no-check") == 0
    assert understudy.out.startswith("note: runs/a is not finished")


def test_bad_input_is_one_line(here: Path, understudy: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = understudy.refused
    assert "nothere is no run's folder" in refused("export", "nothere", "--to", "onnx")
    assert "possible: onnx, torch, executorch" in refused("export", "runs/a", "--to", "tflite")
    assert "Missing option '--to'" in refused("export", "runs/a")
    assert "end in .onnx; name it a.onnx" in refused("export", "runs/a", "--to", "onnx", "--out", "a.bin")
    assert "--int8 goes with --to onnx" in refused("export", "runs/a", "--to", "torch", "--int8")
    assert "--int8 goes with --to onnx" in refused("export", "runs/a", "--to", "onnx", "--int8", "--no-check")
    for drop in ("-1", "nan", "inf", "101"):
        assert "--max-drop is a number of points" in refused(
            "export", "runs/a", "--to", "onnx", "--int8", "--max-drop", drop
        )
    assert "--calibration is a number of training images" in refused(
        "export", "runs/a", "--to", "onnx", "--int8", "--calibration", "0"
    )
    assert "there is no nothere" in refused("latency", "nothere.onnx")
    assert "--input is channels x height x width" in refused("latency", "runs/a", "--input", "big")
    write_data(Path("data.npz"), classes=4)
    assert "have other classes than the student learned" in refused("export", "runs/a", "--to", "torch")
    write_data(Path("data.npz"), size=10)
    assert "have other images than the student learned" in refused("export", "runs/a", "--to", "torch")
    Path("runs/a/recipe.yaml").unlink()
    assert "Add --no-check" in refused("export", "runs/a", "--to", "torch")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert 'pip install "understudy[export]"' in refused("export", "runs/a", "--to", "onnx")
    assert not any(path.suffix in (".onnx", ".pt2") for path in here.rglob("*"))


def test_lines_of_a_measurement_read_well() -> None:
    found = Latency(
        file="a.onnx",
        bytes=1_234_567,
        runtime="onnxruntime",
        runtime_version="1.20.0",
        input=(1, 3, 32, 32),
        threads=2,
        warm_up=10,
        seconds=(0.004, 0.005, 0.006),
        memory_before=None,
        memory_peak=None,
        hardware={"board": "Raspberry Pi 4", "processor": "unknown", "machine": "aarch64", "cores": 4},
    )
    assert in_words(found) == [
        "5.00 ms median, 6.00 ms at the 95th percentile: one 3x32x32 image, 2 threads, 3 runs after 10 to warm up",
        "1.23 MB on disk",
        "onnxruntime 1.20.0 on Raspberry Pi 4, unknown, aarch64, 4 cores",
    ]
