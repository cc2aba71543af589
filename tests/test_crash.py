"""Real runs that are killed, asked to end or out of time, and go on: the same bits as a run that nobody disturbed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.forked import Forked
from tests.ladder.tiny import arrays
from understudy import cli
from understudy.store import Store, files
from understudy.store.housekeeping import verify
from understudy.training import clock

RECIPE = """
data: {path: DATA, validation: 0.15, views: {crop: 1, flip: true}}
ladder: {shape: dense, stochastic: {keep: 0.5}}
models:
  teacher: {name: plain_cnn-2, width: 0.5}
  assistants: [{name: plain_cnn-2, width: 0.375}]
  student: {name: plain_cnn-2, width: 0.25}
training: {epochs: 12, batch_size: 16, precision: fp32, device: cpu, checkpoint_minutes: 0.0005}
controls: [scratch]
"""
OTHER_WAYS = """
data: {path: DATA, validation: 0.15, views: {crop: 1, flip: true}}
ladder: {shape: dense}
models:
  teacher: {name: plain_cnn-2, width: 0.5}
  assistants: [{name: plain_cnn-2, width: 0.375, peers: 2}]
  student: {name: plain_cnn-2, width: 0.25}
teaching:
  curriculum: {boundaries: [0.25, 0.5], uniform: 0.25}
  sparse_codes: {sparsity: 0.25, epochs: 4}
  peers: {ema: 0.9}
training: {epochs: 4, batch_size: 16, precision: fp32, device: cpu, checkpoint_minutes: 0.0005}
controls: []
"""
KILLS = ("half", "after")
STAGES = 4
EPOCHS = 12  # of each stage, of 6 batches


def watched(pause: float, fatal: int, moment: str, arguments: Sequence[str]) -> None:
    """The command with an eye kept on it, in a process of its own.

    A mark on standard error for every batch and every epoch, each made to last a while, and a kill -9 from within at
    one of its writes of a checkpoint.

    Args:
        pause: seconds a batch.
        fatal: number of the write, from 1. moment: of it.
        arguments: the command's own.
    """
    writes, tick, replace, write_bytes = 0, clock.Clock.tick, Path.replace, files.write_bytes

    def killed() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def watched_tick(*given: Any, **named: Any) -> None:
        os.write(2, b"#")
        time.sleep(pause)
        tick(*given, **named)

    def watched_write(path: Path, content: bytes) -> None:
        nonlocal writes
        if path.parent.name == "checkpoint":
            writes += 1
            if writes == fatal and moment == "half":
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.with_name(files.PART + "0" * 32 + "-" + path.name).open("wb") as file:
                    file.write(content[: len(content) // 2])
                    file.flush()
                    killed()
        write_bytes(path, content)

    def watched_replace(part: Path, path: Path) -> Path:
        ours = path.parent.name == "checkpoint" and writes == fatal
        if ours and moment == "before":
            killed()
        done = replace(part, path)
        if ours and moment == "after":
            killed()
        return done

    changed: list[tuple[Any, str, Any]] = [
        (clock.Clock, "tick", watched_tick),
        (Path, "replace", watched_replace),
        (files, "write_bytes", watched_write),
    ]
    for owner, name, value in changed:
        setattr(owner, name, value)
    cli.main(arguments)


@dataclass(frozen=True)
class Run:
    """A recipe and where its runs go."""

    recipe: Path
    out: Path

    @property
    def store(self) -> Store:
        return Store(self.out.parent / ".store")

    def arguments(self, *more: str) -> list[str]:
        return ["run", str(self.recipe), "--out", str(self.out), "--quiet", *more]

    def ready(self, *more: str, pause: float = 0.0, fatal: int = 0, moment: str = "never") -> Forked:
        """The command in a process of its own, which waits to be told to go."""
        return Forked(watched, pause, fatal, moment, self.arguments(*more))

    def finish(self, *more: str) -> Any:
        """The command in this process, to its end; the exit status."""
        with pytest.raises(SystemExit) as ended:
            cli.main(self.arguments(*more))
        return ended.value.code

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "result.json").read_text("utf-8"))
        return found

    def weights(self) -> dict[str, bytes]:
        store = self.store
        return {key: (store.place(key) / "weights.safetensors").read_bytes() for key in store.keys()}

    def logs(self) -> dict[str, list[dict[str, Any]]]:
        """The log of each stage without its seconds, which no two runs share."""
        found = {}
        for key in self.store.keys():
            lines = (self.store.place(key) / "metrics.jsonl").read_text("utf-8").splitlines()
            found[key] = [{**json.loads(line), "seconds": None} for line in lines]
        return found


def wait_for_marks(process: Forked, count: int) -> None:
    """Returns when the process has made so many marks, or ended."""
    seen = 0
    while seen < count and (said := process.read()):
        seen += said == b"#"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    np.savez(folder / "tiny.npz", **arrays(train=112, test=16))  # type: ignore[arg-type]
    path = folder / "tiny.yaml"
    path.write_text(RECIPE.replace("DATA", str(folder / "tiny.npz")), "utf-8")
    return path


@pytest.fixture(scope="module")
def undisturbed(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(recipe, tmp_path_factory.mktemp("undisturbed") / "run")
    assert run.finish() == 0
    return run


@pytest.fixture
def run(recipe: Path, tmp_path: Path) -> Run:
    return Run(recipe, tmp_path / "run")


def same(run: Run, undisturbed: Run) -> None:
    """Everything that counts as a result is that of the other run, to the bit."""
    same_results(run, undisturbed)
    for key in run.store.keys():
        assert files_of(run, key) == {
            "stage.json",
            "weights.safetensors",
            "outputs.safetensors",
            "metrics.jsonl",
        }


def files_of(run: Run, key: str) -> set[str]:
    return {path.name for path in run.store.place(key).iterdir() if not path.name.startswith(files.PART)}


def same_results(run: Run, undisturbed: Run) -> None:
    """What a run made is what the other one made, to the bit."""
    assert run.weights() == undisturbed.weights()
    assert run.logs() == undisturbed.logs()
    assert (run.out / "student.safetensors").read_bytes() == (
        undisturbed.out / "student.safetensors"
    ).read_bytes()
    mine, other = run.result(), undisturbed.result()
    assert mine["complete"]
    for stage in (*mine["stages"], *other["stages"]):
        del stage["seconds"], stage["from_store"]
    for name in ("ladder", "data", "delivered", "stages", "summary"):
        assert mine[name] == other[name]
    assert verify(run.store) == []
    assert not any("checkpoint" in files_of(run, key) for key in run.store.keys())


def test_a_run_killed_at_ten_moments_goes_on_and_ends_with_the_same_bits(run: Run, undisturbed: Run) -> None:
    chance = random.Random(20)
    inside = ["half", "before", "after", "half", "before"]  # of a checkpoint's write
    moments = inside + ["anywhere"] * 5
    chance.shuffle(moments)
    plan = [
        (moment, chance.randrange(2, 6), chance.randrange(14, 32), chance.uniform(0, 0.01))
        for moment in moments
    ]

    done: list[int] = []
    for moment, fatal, marks, late in plan:
        anywhere = moment == "anywhere"
        process = run.ready(pause=0.01) if anywhere else run.ready(fatal=fatal, moment=moment)
        process.go()
        if anywhere:
            wait_for_marks(process, marks)
            time.sleep(late)
            process.kill()
        process.ended()
        assert process.status == -signal.SIGKILL, moment
        done.append(sum(stage["state"] == "done" for stage in run.result()["stages"]))
        assert not run.result()["complete"]
    assert done == sorted(done)  # nothing that was finished is lost
    assert done[-1] >= 1  # and it was killed in more than one stage
    assert run.finish() == 0
    same(run, undisturbed)


def test_other_ways_to_teach_are_killed_and_go_on_to_the_same_bits(recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(OTHER_WAYS.replace("DATA", str(recipe.with_name("tiny.npz"))), "utf-8")
    undisturbed, run = (Run(path, tmp_path / name / "run") for name in ("undisturbed", "killed"))
    assert undisturbed.finish() == 0

    for moment in KILLS:
        # a checkpoint every two batches, 12 in each of the five stages, or more where the machine is busy
        process = run.ready(pause=0.02, fatal=20, moment=moment)
        process.go()
        process.ended()
        assert process.status == -signal.SIGKILL
    assert not run.result()["complete"]
    assert run.finish() == 0
    same_results(run, undisturbed)
    artefacts = {
        key: (run.store.place(key) / "artefacts.safetensors").read_bytes()
        for key in run.store.keys()
        if "artefacts.safetensors" in files_of(run, key)
    }
    assert len(artefacts) == 3  # of the dictionaries, and the orders of two curricula
    for key, content in artefacts.items():
        assert (undisturbed.store.place(key) / "artefacts.safetensors").read_bytes() == content


def one_line_on_how_to_go_on(said: str, why: str) -> None:
    lines = [line.lstrip("#") for line in said.splitlines()]
    lines = [line for line in lines if line.startswith("understudy: ")]
    assert lines == [f"understudy: {why}; run the same command again to go on from the last checkpoint."]
    assert "Traceback" not in said


def test_a_run_that_is_asked_to_end_keeps_a_checkpoint_says_how_to_go_on_and_does(
    run: Run, undisturbed: Run
) -> None:
    process = run.ready(pause=0.02)
    process.go()
    wait_for_marks(process, 30)
    process.send_signal(signal.SIGTERM)
    said = process.ended()
    assert process.status == 130
    one_line_on_how_to_go_on(said, "asked to end")
    assert [stage["state"] for stage in run.result()["stages"]] == ["interrupted"] * STAGES
    (key,) = run.store.keys()
    assert len(list((run.store.place(key) / "checkpoint").iterdir())) == 1
    assert run.finish() == 0
    same(run, undisturbed)


def test_a_run_whose_hours_are_over_ends_like_one_that_was_asked_to(run: Run, undisturbed: Run) -> None:
    process = run.ready("--hours", "0.0005", pause=0.02)  # 1.8 seconds, of the 6 that it would take at least
    process.go()
    said = process.ended()
    assert process.status == 130
    one_line_on_how_to_go_on(said, "the hours are over")
    assert not run.result()["complete"]
    assert run.finish() == 0
    same(run, undisturbed)


def test_the_workers_of_a_run_that_was_killed_keep_a_checkpoint_and_end_by_themselves(run: Run) -> None:
    command = [
        sys.executable,
        "-m",
        "understudy",
        *run.arguments("--jobs", "2", "--set", "training.epochs=2000"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def checkpoints() -> list[Path]:
        return list(run.store.stages.glob("*/checkpoint/0*.safetensors"))

    try:
        until = time.monotonic() + 60
        while not checkpoints() and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()

    def busy(key: str) -> bool:
        with run.store.lock(key) as mine:
            return not mine

    until = time.monotonic() + 30
    while any(busy(key) for key in run.store.keys()) and time.monotonic() < until:
        time.sleep(0.05)
    assert run.store.keys()
    assert not any(busy(key) for key in run.store.keys())
    assert checkpoints()
    assert not any(run.store.result(key) for key in run.store.keys())


def test_a_finished_run_that_is_run_again_trains_nothing(
    undisturbed: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    def times(names: Sequence[str]) -> dict[Path, int]:
        return {
            path: path.stat().st_mtime_ns for name in names for path in undisturbed.store.stages.rglob(name)
        }

    names = ("weights.safetensors", "outputs.safetensors", "metrics.jsonl")
    before = times(names)
    assert undisturbed.finish() == 0
    assert "Every stage was kept already; nothing was trained." in capsys.readouterr().out
    assert times(names) == before
    assert len(before) == 3 * STAGES
