"""Events of a run for programs: one JSON object a line."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.report.test_progress import at, job, outcome
from understudy.ladder.graph import Job
from understudy.ladder.runner import Outcome
from understudy.ladder.workers import Event
from understudy.report.events import VERSION, Events
from understudy.store import Store
from understudy.store.logs import epoch_line
from understudy.training.clock import Progress

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "events.md"


class Read:
    """Events written into memory, with a clock that is moved by hand."""

    def __init__(self, jobs: list[Job], **more: Any) -> None:
        self.now, self.file = 100.0, io.StringIO()
        self.events = Events(
            jobs, file=self.file, clock=lambda: self.now, now=lambda: 1_800_000_000.5, **more
        )
        self.watcher = self.events.watcher

    def progress(self, of: Job, progress: Progress) -> None:
        self.watcher.event(of, Event(key=of.key, kind="progress", progress=progress))

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.getvalue().splitlines()]


def test_every_line_says_version_kind_and_time_first() -> None:
    read = Read([])
    read.watcher.said("a sentence\nand \x1b[31mmore")
    assert read.file.getvalue() == (
        '{"version": 1, "event": "message", "time": "2027-01-15T08:00:00.500Z", "text": "a sentence and [31mmore"}\n'
    )


def test_a_stage_begins_once_goes_on_and_ends() -> None:
    only = job("scratch")
    read = Read([only])
    read.watcher.began(only)
    read.watcher.began(only)  # it was left to another run for a while
    read.progress(only, at(0))
    read.progress(only, at(1, done=True))
    read.watcher.event(only, Event(key=only.key, kind="say", message="goes on"))
    read.watcher.ended(outcome(only))
    assert [line["event"] for line in read.lines] == [
        "stage_started",
        "progress",
        "epoch",
        "stage_message",
        "stage_finished",
    ]
    assert {(line["stage"], line["seed"], line["key"]) for line in read.lines} == {
        ("scratch", 0, "scratch-0")
    }
    assert read.lines[-1]["validation"] == {"accuracy": 0.6142}
    assert read.lines[-1]["state"] == "done"


def test_progress_comes_once_a_second_and_epochs_always() -> None:
    only = job("scratch")
    read = Read([only])
    for _ in range(50):
        read.now += 0.25
        read.progress(only, at(1))
    assert len(read.lines) in (12, 13)
    for epoch in range(1, 6):
        read.progress(only, at(epoch, done=True))
    assert [line["epoch"] for line in read.lines if line["event"] == "epoch"] == [1, 2, 3, 4, 5]


def test_an_epoch_has_what_the_stages_own_log_says(tmp_path: Path) -> None:
    only = job("scratch")
    store = Store(tmp_path)
    store.place(only.key).mkdir(parents=True)
    log = [
        {"epoch": n, "lr": 0.1 / n, "loss": {"total": 1.0 / n}, "train": {"accuracy": 0.5}} for n in (1, 2)
    ]
    (store.place(only.key) / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in log), "utf-8"
    )
    read = Read([only], store=store)
    read.progress(only, at(2, done=True))
    (line,) = read.lines
    assert (line["losses"], line["lr"], line["train"]) == ({"total": 0.5}, 0.05, {"accuracy": 0.5})


@pytest.mark.parametrize("content", [None, "", "{", "[]\n", '{"epoch": 7}\n'])
def test_a_log_that_says_nothing_is_no_error(content: str | None, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.place("key").mkdir(parents=True)
    if content is not None:
        (store.place("key") / "metrics.jsonl").write_text(content, "utf-8")
    assert epoch_line(store, "key", 3) == {}


def test_a_loss_that_is_no_number_becomes_null() -> None:
    only = job("scratch")
    read = Read([only])
    read.events.write("message", text="x", figures=[float("nan"), float("inf"), {"a": -float("inf")}, 1.5])
    assert read.lines[0]["figures"] == [None, None, {"a": None}, 1.5]


def test_the_run_begins_with_all_its_stages_and_ends_with_what_came_of_it() -> None:
    teacher = job("teacher")
    student = job("direct", teachers=(teacher,))
    read = Read([teacher, student])
    read.events.run_started(out=Path("runs/mine"), command="understudy run recipe.yaml --json")
    result = {
        "complete": False,
        "delivered": None,
        "stages": [{"state": "done"}, {"state": "failed"}],
        "summary": [],
    }
    read.events.run_finished(result, out=Path("runs/mine"))
    read.events.run_finished({**result, "stages": [{"state": "interrupted"}]}, out=None, why="interrupted")
    read.events.run_finished({**result, "complete": True}, out=None)
    begun, failed, interrupted, done = read.lines
    assert [stage["stage"] for stage in begun["stages"]] == ["teacher", "direct"]
    assert begun["stages"][1]["teachers"] == ["teacher"]
    assert [line["state"] for line in (failed, interrupted, done)] == ["failed", "interrupted", "done"]
    assert interrupted["why"] == "interrupted"


def test_a_failed_stage_says_why_on_one_line() -> None:
    only = job("scratch")
    read = Read([only])
    read.watcher.ended(Outcome(job=only, state="failed", message="first\nsecond"))
    assert read.lines[0]["message"] == "first second"
    assert read.lines[0]["seconds"] is None


def test_a_reader_that_goes_away_is_noticed_and_nothing_raises() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    events = Events([], file=Closed())
    events.watcher.said("a sentence")
    assert events.broken
    events.watcher.said("another")
    file = io.StringIO()
    events = Events([], file=file)
    file.close()
    events.watcher.said("a sentence")
    assert events.broken


def test_the_page_in_the_docs_names_every_event_and_every_field_of_it() -> None:
    text = PAGE.read_text("utf-8")
    teacher = job("teacher")
    read = Read([teacher])
    read.events.run_started(out=None, command="")
    read.watcher.began(teacher)
    read.progress(teacher, at(0))
    read.progress(teacher, at(1, done=True))
    read.watcher.event(teacher, Event(key=teacher.key, kind="say", message="x"))
    read.watcher.ended(outcome(teacher))
    read.watcher.said("x")
    read.events.run_finished({"complete": True, "delivered": None, "stages": [], "summary": []}, out=None)
    for line in read.lines:
        (section,) = re.findall(
            rf"^## {line['event']}\n(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE
        )
        for field in set(line) - {"version", "event", "time"}:
            assert f"`{field}`" in section or f"`{field}`" in text.partition("\n## ")[0], (
                line["event"],
                field,
            )
    assert f"version {VERSION}" in text


# ------------------------------------------------------------------------------------------------ the command
RECIPE = """
data: {name: digits, train_images: 60, test_images: 40}
ladder: scratch
models: {student: {name: plain_cnn-2, width: 0.25}}
training: {epochs: 2, batch_size: 16, precision: fp32, device: cpu}
"""


def command(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    (folder / "recipe.yaml").write_text(RECIPE, "utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "understudy", "run", "recipe.yaml", "--json", *more],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_with_json_there_is_nothing_but_events_on_standard_output(tmp_path: Path) -> None:
    done = command(tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["version"] for line in lines} == {1}
    kinds = [line["event"] for line in lines]
    assert (kinds[0], kinds[-1]) == ("run_started", "run_finished")
    assert kinds.count("epoch") == 2
    assert [line["losses"]["total"] for line in lines if line["event"] == "epoch"]
    assert lines[-1]["state"] == "done"
    assert lines[-1]["summary"][0]["mean"] == pytest.approx(
        next(line["test"]["accuracy"] for line in lines if line["event"] == "stage_finished")
    )
    assert (tmp_path / "runs" / "recipe" / "report.html").is_file()


def test_with_json_a_mistake_is_one_line_on_standard_error(tmp_path: Path) -> None:
    done = command(tmp_path, "--set", "training.epoch=3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("understudy: ")
    assert done.stderr.count("\n") == 1
