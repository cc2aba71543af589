"""Users' own logging: what a callback is told, where it is called, and what happens when it raises."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

import understudy as us
from tests.ladder import tiny
from understudy.callbacks import (
    CALLS,
    CallbackFailed,
    RunEnd,
    StageEnd,
    StageEpoch,
    StageProgress,
    StageStart,
)
from understudy.errors import BadInput, Interrupted, MissingExtra

TRAINING = us.Training(epochs=3, batch_size=16, precision="fp32", device="cpu")
SMALL = us.Network(name="plain_cnn-2", width=0.25)


class Notes(us.Callback):
    """Writes down what it is told, and in which process."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.processes: set[int] = set()

    def note(self, about: Any) -> None:
        self.told.append(about)
        self.processes.add(os.getpid())

    on_stage_start = on_progress = on_epoch = on_stage_end = on_run_end = note

    def of(self, kind: type) -> list[Any]:
        return [about for about in self.told if isinstance(about, kind)]


class Raises(us.Callback):
    """Raises in one of its parts, and counts how often it is called."""

    def __init__(self, call: str) -> None:
        self.count = 0

        def fail(about: Any) -> None:
            self.count += 1
            raise ZeroDivisionError("by nothing")

        setattr(self, call, fail)


def ladder(**more: Any) -> us.Ladder:
    return us.direct(
        us.Network(name="plain_cnn-2", width=0.5), SMALL, training=us.Training(**{**vars(TRAINING), **more})
    )


def run(callbacks: list[Any], store: Path, **more: Any) -> us.RunResult:
    return us.run(
        more.pop("ladder", ladder()), tiny.made_up(), callbacks=callbacks, store=store, quiet=True, **more
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[us.RunResult, Notes]:
    notes = Notes()
    return run([notes], tmp_path_factory.mktemp("alone")), notes


# -------------------------------------------------------------------------------------------- what it is told
def test_a_callback_is_told_of_every_stage_and_epoch_and_of_the_end(
    alone: tuple[us.RunResult, Notes],
) -> None:
    result, notes = alone
    names = ["teacher", "direct", "scratch"]
    assert [start.name for start in notes.of(StageStart)] == names
    assert [(epoch.name, epoch.epoch) for epoch in notes.of(StageEpoch)] == [
        (name, epoch) for name in names for epoch in (1, 2, 3)
    ]
    assert [(end.name, end.state, end.from_store) for end in notes.of(StageEnd)] == [
        (name, "done", False) for name in names
    ]
    assert [type(about) for about in notes.told][-1] is RunEnd
    (end,) = notes.of(RunEnd)
    assert (end.complete, end.delivered, end.out) == (True, "direct", None)
    assert end.result == result.content


def test_figures_of_an_epoch_are_those_of_the_stages_own_log(alone: tuple[us.RunResult, Notes]) -> None:
    result, notes = alone
    epochs = [epoch for epoch in notes.of(StageEpoch) if epoch.name == "direct"]
    own = next(stage for stage in result.stages if stage.name == "direct")
    assert [epoch.losses["total"] for epoch in epochs] == [point["loss"] for point in own.curve]
    assert [epoch.validation["accuracy"] for epoch in epochs] == [point["accuracy"] for point in own.curve]
    assert all(set(epoch.losses) == {"total", "hard", "soft"} for epoch in epochs)
    assert all(epoch.lr > 0 for epoch in epochs)
    assert epochs[-1].step == 9
    assert epochs[0].seconds <= epochs[-1].seconds


def test_the_end_of_a_stage_has_the_figures_of_the_result(alone: tuple[us.RunResult, Notes]) -> None:
    result, notes = alone
    for end, stage in zip(notes.of(StageEnd), result.stages, strict=True):
        assert (end.key, end.test, end.validation) == (stage.key, stage.test, stage.validation)


def test_a_stage_that_is_kept_ends_without_having_begun(
    alone: tuple[us.RunResult, Notes], tmp_path: Path
) -> None:
    run([], tmp_path)
    notes = Notes()
    run([notes], tmp_path)
    assert notes.of(StageStart) == notes.of(StageEpoch) == []
    assert [end.from_store for end in notes.of(StageEnd)] == [True] * 3


def test_callbacks_are_called_in_the_parent_also_beside_worker_processes(
    alone: tuple[us.RunResult, Notes], tmp_path: Path
) -> None:
    result, before = alone
    notes = Notes()
    several = run([notes], tmp_path, jobs=2)
    assert notes.processes == {os.getpid()}
    assert [stage.test for stage in several.stages] == [stage.test for stage in result.stages]
    told = {(epoch.name, epoch.epoch): epoch.losses for epoch in notes.of(StageEpoch)}
    assert told == {(epoch.name, epoch.epoch): epoch.losses for epoch in before.of(StageEpoch)}


def test_progress_comes_between_epochs_of_a_slow_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import itertools

    from understudy.training import clock

    ticks = itertools.count(step=0.3)
    monkeypatch.setattr(clock.time, "monotonic", lambda: next(ticks))
    notes = Notes()
    run([notes], tmp_path)
    progress = notes.of(StageProgress)
    assert progress
    assert all(0 < one.batch <= one.batches == 9 for one in progress)
    assert all(one.losses["total"] > 0 for one in progress)


def test_random_numbers_that_a_callback_draws_change_no_training(
    alone: tuple[us.RunResult, Notes], tmp_path: Path
) -> None:
    class Draws(us.Callback):
        def on_epoch(self, epoch: StageEpoch) -> None:
            torch.manual_seed(epoch.epoch)
            torch.rand(7)

    def dropping(*, classes: int, channels: int, size: tuple[int, int]) -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(channels * size[0] * size[1], classes)
        )

    own = us.scratch(us.Network(name="drops", factory=dropping, version="1"), training=TRAINING)
    quiet = run([], tmp_path / "one", ladder=own)
    drawn = run([Draws()], tmp_path / "other", ladder=own)
    assert quiet.stages[0].curve == drawn.stages[0].curve


# -------------------------------------------------------------------------------------------- when it raises
@pytest.mark.parametrize("call", [call for call in CALLS if call != "on_progress"])
def test_one_that_raises_is_named_once_and_the_run_goes_on_without_it(
    call: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = Raises(call), Notes()
    result = run([bad, good], tmp_path)
    assert result.complete
    assert bad.count == 1
    assert len(good.of(StageEnd)) == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"the callback Raises raised in {call} (ZeroDivisionError: by nothing); the run goes on" in err


def test_one_that_raises_stops_the_run_where_that_was_chosen(tmp_path: Path) -> None:
    notes = Notes()
    with pytest.raises(CallbackFailed, match="the callback Raises raised in on_epoch") as caught:
        run([Raises("on_epoch"), notes], tmp_path, on_callback_error="stop")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "\n" not in str(caught.value)
    assert [end.state for end in notes.of(StageEnd)] == ["interrupted"]
    assert [end.complete for end in notes.of(RunEnd)] == [False]


def test_a_run_that_a_callback_stopped_goes_on_from_its_checkpoint_to_the_same_bits(
    alone: tuple[us.RunResult, Notes], tmp_path: Path
) -> None:
    with pytest.raises(CallbackFailed):
        run([Raises("on_epoch")], tmp_path, on_callback_error="stop")
    notes = Notes()
    result = run([notes], tmp_path)
    assert [stage.test for stage in result.stages] == [stage.test for stage in alone[0].stages]
    assert [epoch.epoch for epoch in notes.of(StageEpoch) if epoch.name == "teacher"] == [2, 3]


def test_an_interrupt_is_told_as_the_end_of_an_incomplete_run(tmp_path: Path) -> None:
    import signal

    class Interrupts(us.Callback):
        def on_epoch(self, epoch: StageEpoch) -> None:
            signal.raise_signal(signal.SIGINT)

    notes = Notes()
    with pytest.raises(Interrupted, match="interrupted; run again, it goes on from the last checkpoint"):
        run([Interrupts(), notes], tmp_path)
    assert [end.complete for end in notes.of(RunEnd)] == [False]


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ([Notes], r"callbacks holds the class Notes; give an object, Notes\(\)"),
        ([print], "builtin_function_or_method is no callback: it has no on_stage_start"),
        (Notes(), "it is a list, such as"),
    ],
)
def test_what_is_no_callback_is_refused_before_anything_is_trained(
    callbacks: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=message):
        run(callbacks, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_callback_needs_no_part_of_the_protocol_that_it_does_not_want(tmp_path: Path) -> None:
    class Nothing(us.Callback):
        pass

    assert run([Nothing()], tmp_path).complete


# -------------------------------------------------------------------------------------------- TensorBoard
def test_without_tensorboard_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtra, match=r'pip install "understudy\[track\]"'):
        us.callbacks.TensorBoard()


class Writer:
    """Stands in for torch's writer."""

    made: dict[str, Writer]

    def __init__(self, folder: str) -> None:
        self.scalars: list[tuple[str, float, int]] = []
        self.closed = False
        Writer.made[folder] = self

    def add_scalar(self, name: str, value: float, step: int) -> None:
        assert not self.closed
        self.scalars.append((name, value, step))

    def close(self) -> None:
        self.closed = True


def test_tensorboard_gets_a_folder_for_each_stage_and_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Writer.made = {}
    monkeypatch.setitem(sys.modules, "tensorboard", types.ModuleType("tensorboard"))
    fake = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    chain = us.chain(
        "plain_cnn-2", [us.Network(name="plain_cnn-2", width=0.5)], SMALL, training=TRAINING, controls=[]
    )
    result = run([us.callbacks.TensorBoard(tmp_path / "board")], tmp_path / "store", ladder=chain)
    board = tmp_path / "board"
    assert {Path(folder).relative_to(board).as_posix() for folder in Writer.made} == {
        "teacher-seed-0",
        "chain_plain_cnn-2_x0.5-seed-0",
        "chain-seed-0",
    }
    assert all(writer.closed for writer in Writer.made.values())
    own = Writer.made[str(board / "chain-seed-0")].scalars
    assert {name for name, _, _ in own} == {
        "loss/total",
        "loss/hard",
        "loss/soft",
        "validation/accuracy",
        "learning rate",
        "test/accuracy",
    }
    assert [step for name, _, step in own if name == "loss/total"] == [1, 2, 3]
    assert result.delivered is not None
    assert ("test/accuracy", result.delivered.stage.test["accuracy"], 3) in own


@pytest.mark.filterwarnings("ignore")  # tensorboard's own
def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(
        [us.callbacks.TensorBoard(tmp_path / "board")],
        tmp_path / "store",
        ladder=us.scratch(SMALL, training=TRAINING),
    )
    found = EventAccumulator(str(tmp_path / "board" / "scratch-seed-0")).Reload()
    assert [event.step for event in found.Scalars("loss/total")] == [1, 2, 3]
