"""What a person sees while a run goes, on a terminal and in a log."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from understudy.data.views import Views
from understudy.ladder.graph import Job
from understudy.ladder.runner import Outcome
from understudy.ladder.stage import Network, Stage
from understudy.ladder.workers import Event
from understudy.report.progress import Display
from understudy.store.results import Result
from understudy.structure.cost import Cost
from understudy.teaching import Labels, SoftTargets
from understudy.training.clock import Progress
from understudy.training.settings import Training
from understudy.training.signals import Signals


def job(
    name: str, *, seed: int = 0, teachers: tuple[Job, ...] = (), epochs: int = 20, macs: int = 1_000_000
) -> Job:
    stage = Stage(
        name=name,
        network=Network(name="plain_cnn-2"),
        teachers=tuple(teacher.name for teacher in teachers),
        method=SoftTargets() if teachers else Labels(),
        training=Training(epochs=epochs),
    )
    return Job(
        stage=stage,
        seed=seed,
        key=f"{name}-{seed}",
        definition={},
        teachers=teachers,
        start=None,
        views=Views(),
        signals=Signals(),
        cost=Cost(parameters=1000, multiply_adds=macs),
        whole=Cost(parameters=1000, multiply_adds=macs),
    )


def at(epoch: int, *, epochs: int = 20, left: float = 80.0, done: bool = False, **more: Any) -> Progress:
    return Progress(
        epoch=epoch,
        epochs=epochs,
        batch=epoch * 10,
        batches=epochs * 10,
        images_per_second=12_345.6,
        seconds_left=left,
        losses={"total": 1.2345, "hard": 1.0, "soft": 0.2345},
        validation={"accuracy": 0.6142} if epoch else {},
        epoch_done=done,
        **more,
    )


def outcome(of: Job, state: Any = "done", *, kept: bool = False, message: str = "") -> Outcome:
    record = {"seconds": 80.4, "validation": {"accuracy": 0.6142}}
    result = Result(key=of.key, folder=Path("nowhere"), record=record) if state == "done" else None
    return Outcome(job=of, state=state, result=result, from_store=kept, message=message)


class Watched:
    """A display on a made-up console, with a clock that is moved by hand."""

    def __init__(self, jobs: list[Job], *, live: bool = False, quiet: bool = False, width: int = 80) -> None:
        self.now, self.file = 100.0, io.StringIO()
        console = Console(file=self.file, width=width, height=25, force_terminal=live)
        self.display = Display(jobs, console=console, live=live, quiet=quiet, clock=lambda: self.now)
        self.watcher = self.display.watcher

    def progress(self, of: Job, progress: Progress) -> None:
        self.watcher.event(of, Event(key=of.key, kind="progress", progress=progress))

    @property
    def lines(self) -> list[str]:
        return self.file.getvalue().splitlines()

    def moving(self, width: int = 80) -> list[str]:
        """The lines that would move on a terminal now."""
        console = Console(file=io.StringIO(), width=width, height=25)
        self.display.console = console
        with console.capture() as captured:
            console.print(self.display.render())
        return captured.get().splitlines()


def test_a_log_has_a_line_when_a_stage_begins_and_one_when_it_ends() -> None:
    teacher = job("teacher")
    student = job("chain", teachers=(teacher,))
    seen = Watched([teacher, student])
    seen.watcher.ended(outcome(teacher, kept=True))
    seen.watcher.began(student)
    seen.watcher.ended(outcome(student))
    assert seen.lines == [
        "teacher: kept already, validation 61.42 %",
        "chain begins: plain_cnn-2, taught by teacher",
        "chain: done in 1 min 20 s, validation 61.42 %",
    ]


def test_seeds_are_named_where_there_are_several() -> None:
    jobs = [job("teacher"), job("scratch", seed=0), job("scratch", seed=1)]
    seen = Watched(jobs)
    for each in jobs:
        seen.watcher.ended(outcome(each, kept=True))
    assert [line.partition(":")[0] for line in seen.lines] == [
        "teacher",
        "scratch, seed 0",
        "scratch, seed 1",
    ]


def test_a_quick_stage_says_nothing_between_begin_and_end() -> None:
    only = job("scratch")
    seen = Watched([only])
    seen.watcher.began(only)
    for epoch in range(21):
        seen.now += 0.3
        seen.progress(only, at(epoch, done=True))
    assert len(seen.lines) == 1


def test_a_log_has_a_line_for_each_tenth_but_not_more_than_one_in_ten_seconds() -> None:
    only = job("scratch")
    seen = Watched([only])
    seen.watcher.began(only)
    for epoch in range(21):
        for _ in range(7):
            seen.now += 1
            seen.progress(only, at(epoch))
    lines = seen.lines[1:]
    assert 9 <= len(lines) <= 10
    assert lines[0] == (
        "scratch, epoch 3/20, loss 1.234, hard 1.000, soft 0.234, validation 61.42 %, 12,346 images/s, "
        "1 min 20 s left"
    )


def test_between_two_epochs_the_losses_of_the_last_one_stand() -> None:
    only = job("scratch")
    seen = Watched([only])
    seen.watcher.began(only)
    seen.progress(only, at(1))
    seen.now += 20
    seen.progress(only, replace(at(2, done=True), losses={}))
    assert "epoch 2/20, loss 1.234" in seen.lines[-1]


def test_a_slow_stage_has_a_line_every_minute() -> None:
    only = job("scratch", epochs=1000)
    seen = Watched([only])
    seen.watcher.began(only)
    for _ in range(600):
        seen.now += 1
        seen.progress(only, at(1, epochs=1000))
    assert len(seen.lines) == 1 + 10


def test_a_stage_that_another_run_makes_begins_in_the_log_once() -> None:
    only = job("scratch")
    seen = Watched([only])
    for _ in range(5):
        seen.watcher.began(only)  # the runner tries again every second
    seen.watcher.said("scratch is being made by another run; it is waited for.")
    assert seen.lines == [
        "scratch begins: plain_cnn-2",
        "scratch is being made by another run; it is waited for.",
    ]
    assert seen.moving()[0] == "scratch  another run makes it"


@pytest.mark.parametrize("live", [True, False])
def test_failures_and_sentences_are_shown_in_both_modes(live: bool) -> None:
    first, second = job("scratch"), job("chain")
    seen = Watched([first, second], live=live, width=200)
    with seen.display:
        seen.watcher.began(first)
        seen.watcher.event(first, Event(key=first.key, kind="say", message="goes on from epoch 3, batch 1"))
        seen.watcher.ended(outcome(first, "failed", message="its loss [b]became\nNaN"))
        seen.watcher.ended(outcome(second, "left out", message="it needs scratch, which could not be made"))
        seen.watcher.said("runs/.store is nearly full")
    text = seen.file.getvalue()
    for sentence in (
        "scratch: goes on from epoch 3, batch 1",
        "scratch failed: its loss [b]became NaN",
        "chain is left out: it needs scratch, which could not be made",
        "runs/.store is nearly full",
    ):
        assert sentence in text


def test_quiet_shows_problems_and_nothing_else() -> None:
    good, bad = job("scratch"), job("chain")
    seen = Watched([good, bad], quiet=True)
    with seen.display:
        for each in (good, bad):
            seen.watcher.began(each)
            seen.now += 100
            seen.progress(each, at(10))
        seen.watcher.ended(outcome(good))
        seen.watcher.ended(outcome(bad, "failed", message="its loss became NaN"))
    assert seen.lines == ["chain failed: its loss became NaN"]


def test_a_log_carries_no_colours_and_breaks_no_sentence() -> None:
    only = job("scratch")
    seen = Watched([only], width=40)
    seen.watcher.ended(outcome(only, "failed", message="word " * 40))
    assert len(seen.lines) == 1
    assert "\x1b" not in seen.file.getvalue()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 160])
@pytest.mark.parametrize(
    "name", ["t", "dense/plain_cnn-8", "path plain_cnn-8 > plain_cnn-6 > plain_cnn-4", "名" * 40]
)
def test_moving_lines_fit_the_terminal(name: str, width: int) -> None:
    jobs = [job(name, seed=0), job(name, seed=1)]
    seen = Watched(jobs)
    for each in jobs:
        seen.watcher.began(each)
        seen.progress(each, at(7))
    lines = seen.moving(width)
    assert len(lines) == 3
    assert max(map(cell_len, lines)) <= width
    if width >= 40:
        assert all("epoch 8/20" in line for line in lines[:2])


def test_eighty_columns_show_epoch_loss_accuracy_and_time() -> None:
    only = job("dense")
    seen = Watched([only])
    seen.watcher.began(only)
    assert seen.moving()[0] == "dense  begins"
    seen.progress(only, at(10))
    line = seen.moving()[0]
    for figure in (
        "dense",
        "━━━━━╌╌╌╌╌",
        "epoch 11/20",
        "loss 1.234",
        "validation 61.42 %",
        "1 min 20 s left",
    ):
        assert figure in line
    assert "hard 1.000, soft 0.234" in seen.moving(160)[0]
    assert "12,346 images/s" in seen.moving(160)[0]


def test_more_stages_than_lines_are_counted() -> None:
    jobs = [job("scratch", seed=seed) for seed in range(40)]
    seen = Watched(jobs)
    for each in jobs:
        seen.watcher.began(each)
    lines = seen.moving()
    assert len(lines) == 25
    assert lines[-2] == "and 17 more"


def test_the_last_line_counts_stages_and_guesses_the_time_left() -> None:
    jobs = [job("teacher", macs=2_000_000), job("scratch", seed=0), job("scratch", seed=1)]
    seen = Watched(jobs)
    assert seen.moving()[-1] == "0 of 3 stages done"
    seen.watcher.began(jobs[0])
    seen.now += 60  # twice the multiply-adds of each of the others, so these take 30 s each
    seen.watcher.ended(outcome(jobs[0]))
    assert seen.moving()[-1] == "1 of 3 stages done, about 1 min left"
    seen.watcher.began(jobs[1])
    seen.now += 15
    seen.progress(jobs[1], at(10, left=15.0))
    assert seen.moving()[-1] == "1 of 3 stages done, about 45 s left"
    seen.watcher.ended(outcome(jobs[1], "failed", message="no"))
    assert seen.moving()[-1].startswith("1 of 3 stages done, 1 failed or left out")


def test_what_was_kept_or_done_before_a_resume_does_not_make_the_guess_too_good() -> None:
    jobs = [job("scratch", seed=0), job("scratch", seed=1), job("scratch", seed=2)]
    seen = Watched(jobs)
    seen.watcher.ended(outcome(jobs[0], kept=True))
    assert seen.display.seconds_left() is None
    seen.watcher.began(jobs[1])
    seen.progress(jobs[1], at(10, left=30.0))  # resumed at its half
    seen.now += 15
    seen.progress(jobs[1], at(15, left=15.0))  # a quarter in 15 s: a whole one takes 60 s
    assert seen.display.seconds_left() == pytest.approx(15 + 60)


def test_stages_side_by_side_share_the_time() -> None:
    jobs = [job("scratch", seed=seed) for seed in range(4)]
    seen = Watched(jobs)
    for each in jobs[:2]:
        seen.watcher.began(each)
        seen.progress(each, at(0, left=60.0))
    seen.now += 30
    for each in jobs[:2]:
        seen.progress(each, at(10, left=30.0))
    assert seen.display.seconds_left() == pytest.approx((30 + 30 + 60 + 60) / 2)


def test_a_file_is_no_terminal_whatever_the_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert Display([], console=Console(file=io.StringIO())).live is None


def test_live_lines_vanish_and_the_ended_ones_stay() -> None:
    only = job("scratch")
    seen = Watched([only], live=True)
    with seen.display:
        seen.watcher.began(only)
        seen.progress(only, at(3))
        seen.watcher.ended(outcome(only))
    assert "scratch: done in 1 min 20 s, validation 61.42 %" in seen.file.getvalue()
    assert seen.display.live is not None
    assert not seen.display.live.is_started
