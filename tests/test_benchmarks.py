"""The benchmarks measure what they say: the usual loop computes the same, clocks and ratios are right. Nothing is timed."""

from __future__ import annotations

import io
import json
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from benchmarks import usual_loop
from benchmarks.__main__ import main
from benchmarks.figures import FIGURES, about
from benchmarks.made_up import Data, teacher, write_npz
from benchmarks.plots import draw, svg
from benchmarks.results import Figure, table
from benchmarks.sizes import TINY
from benchmarks.turns import Ratio, Spent, Turns, anonymous_bytes, bytes_in, paired
from benchmarks.usual_ladder import climb
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor, nn

from understudy.data.batches import Batch, batch_of
from understudy.data.views import PLAIN
from understudy.models.preprocessing import Preprocessing
from understudy.tasks import Classification
from understudy.teaching import SoftTargets, Step

NOISE = Data(images=32, classes=4, side=8)


# --- the usual loop ---------------------------------------------------------------------------------------------


def our_loss(student: Tensor, teachers: Tensor, labels: Tensor, **said: Any) -> Tensor:
    """What understudy's method minimises, given the same logits."""
    batch = Batch(index=torch.arange(len(labels)), pixels=torch.zeros(len(labels), 1, 1, 1), labels=labels)

    def answers(which: Sequence[int], batch: Batch) -> Tensor:
        return teachers[list(which)]

    step = Step(
        number=0,
        epoch=0,
        seed=0,
        batches=[batch],
        student=lambda batch: student,
        hard_loss=Classification().hard_loss,
        teacher_logits=answers,
    )
    return SoftTargets(combine="sum", **said).for_stage(teachers=len(teachers)).loss(step)["total"]


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 5),
    temperature=st.floats(0.5, 20),
    soft_weight=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_usual_loss_is_understudys(count: int, temperature: float, soft_weight: float, seed: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    student = torch.randn(6, 10, generator=drawn)
    teachers = 3 * torch.randn(count, 6, 10, generator=drawn)
    labels = torch.randint(0, 10, (6,), generator=drawn)
    said = {"temperature": temperature, "soft_weight": soft_weight}
    usual = usual_loop.distillation_loss(student, list(teachers), labels, **said)
    torch.testing.assert_close(usual, our_loss(student, teachers, labels, **said), atol=1e-4, rtol=1e-4)


def test_the_usual_loss_without_teachers_is_cross_entropy() -> None:
    logits, labels = torch.randn(6, 10), torch.arange(6)
    loss = usual_loop.distillation_loss(logits, [], labels, temperature=4.0, soft_weight=0.9)
    assert torch.equal(loss, nn.functional.cross_entropy(logits, labels))


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 4))


def one_step(*, official: bool) -> tuple[nn.Module, list[nn.Module]]:
    """A student after one step of the usual loop, and its teachers."""
    torch.manual_seed(1)
    student, teachers = small(), [small(), small()]
    split = NOISE.dataset().train
    images = usual_loop.training_images(
        split.images.fetch(np.arange(32)), split.labels, mean=(0.5,) * 3, std=(0.3,) * 3
    )
    usual_loop.train(
        student,
        teachers,
        images,
        usual_loop.Settings(batch_size=16, official=official),
        step_done=lambda: True,
    )
    return student, teachers


def test_the_official_form_gives_the_student_the_same_gradient_and_the_teachers_one_too() -> None:
    usual, silent = one_step(official=False)
    official, asked = one_step(official=True)
    for one, other in zip(usual.parameters(), official.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad, other.grad)
        torch.testing.assert_close(one, other)
    assert all(parameter.grad is None for teacher in silent for parameter in teacher.parameters())
    assert all(parameter.grad is not None for teacher in asked for parameter in teacher.parameters())


def test_the_usual_loop_leaves_the_statistics_of_its_teachers_alone() -> None:
    _, teachers = one_step(official=True)
    assert all(int(teacher[1].num_batches_tracked) == 0 for teacher in teachers)  # type: ignore[index]


def test_the_usual_images_are_normalised_as_understudys() -> None:
    split = NOISE.dataset().train
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    images = usual_loop.test_images(split.images.fetch(np.arange(32)), split.labels, mean=mean, std=std)
    usual = torch.stack([images[position][0] for position in range(32)])
    ours = Preprocessing(mean=mean, std=std)(batch_of(split, PLAIN, np.arange(32)).pixels)
    torch.testing.assert_close(usual, ours)


def test_the_usual_crop_is_a_window_of_the_padded_image() -> None:
    torch.manual_seed(0)
    image = torch.randint(1, 256, (3, 8, 8), dtype=torch.uint8)
    padded = nn.functional.pad(image, [2] * 4)
    windows = [padded[:, top : top + 8, left : left + 8] for top in range(5) for left in range(5)]
    crops = [usual_loop.RandomCrop(2)(image) for _ in range(40)]
    assert all(any(torch.equal(crop, window) for window in windows) for crop in crops)
    assert len({crop.numpy().tobytes() for crop in crops}) > 5


def test_the_usual_flip_mirrors_about_half_of_the_images() -> None:
    torch.manual_seed(0)
    image = torch.arange(12.0).view(1, 3, 4)
    flips = [not torch.equal(usual_loop.RandomFlip()(image), image) for _ in range(100)]
    assert 30 < sum(flips) < 70


def test_the_usual_ladder_trains_each_stage_with_each_of_its_seeds(tmp_path: Path) -> None:
    write_npz(tmp_path / "images.npz", NOISE, validation=8, test=8)
    stages = [
        {"name": "teacher", "network": "plain_cnn-2", "teachers": [], "seeds": [0]},
        {"name": "student", "network": "plain_cnn-2", "teachers": ["teacher"], "seeds": [0, 1]},
    ]
    plan = {"data": str(tmp_path / "images.npz"), "train_images": 32, "stages": stages}
    spent = climb({**plan, "settings": {"epochs": 2, "batch_size": 16}})
    assert {name: len(each) for name, each in spent.items()} == {"teacher": 1, "student": 2}


# --- measuring --------------------------------------------------------------------------------------------------


class Pipe:
    """A parent that gives orders, and what it was told."""

    def __init__(self, *orders: int | None) -> None:
        self.orders, self.told = list(orders), list[Spent]()

    def recv(self) -> int | None:
        return self.orders.pop(0)

    def send(self, spent: Spent) -> None:
        self.told.append(spent)


class Clock:
    """Goes on when it is told to, and while the parent has others work."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_turn_holds_the_time_of_its_own_steps_only() -> None:
    cpu, wall = Clock(), Clock()

    class Waiting(Pipe):
        def recv(self) -> int | None:
            cpu.now, wall.now = cpu.now + 50, wall.now + 500  # others work meanwhile
            return super().recv()

    pipe = Waiting(2, 1, None)
    finished: list[float] = []
    turns = Turns(pipe, finish=lambda: finished.append(cpu.now), cpu=cpu, wall=wall)  # type: ignore[arg-type]
    over = []
    for seconds in (1.0, 2.0, 4.0):
        cpu.now, wall.now = cpu.now + seconds, wall.now + 10 * seconds
        over.append(turns())
    assert over == [False, False, True]
    assert pipe.told == [Spent((1.0, 2.0), 30.0), Spent((4.0,), 40.0)]
    assert len(finished) == 2  # at the last step of each turn


def test_a_ratio_is_taken_within_each_round() -> None:
    # the machine was half as fast in the second round: no ratio shows it
    assert paired([4.0, 8.0, 5.0], [2.0, 4.0, 2.0]) == Ratio(2.0, 2.0, 2.5)


def test_memory_of_this_process_is_seen_and_that_of_a_dead_one_is_nothing() -> None:
    before = anonymous_bytes(os.getpid())
    # not from malloc, which may have pages left over
    with mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        held.write(b"1" * (64 << 20))
        assert anonymous_bytes(os.getpid()) - before > 32 << 20
    assert anonymous_bytes(2**22 + 1) == 0


def test_the_size_of_a_folder_is_that_of_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "one").write_bytes(b"12345")
    (tmp_path / "below" / "two").write_bytes(b"123")
    assert bytes_in(tmp_path) == 8


def test_made_up_images_are_the_same_in_every_process_and_teachers_answer_with_sane_numbers() -> None:
    one, other = NOISE.dataset(), NOISE.dataset()
    everything = np.arange(32)
    assert (one.train.images.fetch(everything) == other.train.images.fetch(everything)).all()
    with torch.no_grad():
        logits = teacher("resnet-20", one)(torch.randn(8, 3, 8, 8))
    assert 0.001 < float(logits.std()) < 1000


# --- figures ----------------------------------------------------------------------------------------------------

GOOD = Figure(name="kept_step", value=5.0, bound=4.5, rounds=3, spread=(4.9, 5.1))


@pytest.mark.parametrize(
    ("changed", "reached"),
    [
        ({}, True),
        ({"value": 4.4}, False),
        ({"side": "at most"}, False),
        ({"value": 1.04, "bound": 1.05, "side": "at most"}, True),
        ({"value": None}, None),
        ({"bound": None}, None),
    ],
)
def test_a_figure_is_reached_on_its_side_of_the_bound(changed: dict[str, Any], reached: bool | None) -> None:
    said: dict[str, Any] = {"name": "kept_step", "value": 5.0, "bound": 4.5}
    assert Figure(**{**said, **changed}).reached is reached


def test_a_figure_as_json_can_be_read_back_and_shown() -> None:
    nothing = Figure(name="gpu_kept_step", value=None, details={"said": "no GPU here"})
    figures = json.loads(json.dumps([GOOD.as_json(), nothing.as_json()]))
    assert set(figures[0]) >= {"name", "value", "bound", "reached", "rounds", "spread", "details"}
    assert figures[0]["reached"] is True
    screen = Console(width=120, file=io.StringIO())
    with screen.capture() as captured:
        screen.print(table(figures))
    assert "kept_step" in captured.get()
    assert "no GPU here" in captured.get()


def test_the_command_lists_every_figure_and_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    printed = capsys.readouterr().out
    for name in FIGURES:
        assert name in printed
        assert 20 < len(about(name)) <= 130
        assert about(name) in printed


def test_a_figure_that_is_none_is_refused_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "kept_steps"]) == 2
    said = capsys.readouterr().err
    assert "kept_steps" in said
    assert "kept_step," in said


def test_the_command_writes_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def growing(bench: Any) -> Figure:
        assert bench.size == TINY
        return Figure(name="growing", value=2.0, details={"curve": CURVE})

    def failing(bench: Any) -> Figure:
        raise RuntimeError("out of luck")

    monkeypatch.setitem(FIGURES, "failing", failing)
    monkeypatch.setitem(FIGURES, "growing", growing)
    out, plots = tmp_path / "there" / "figures.json", tmp_path / "plots"
    asked = ["--tiny", "--only", "failing", "growing", "--out", str(out), "--plots", str(plots)]
    assert main(asked) == 1
    report = json.loads(out.read_text("utf-8"))
    assert [figure["name"] for figure in report["figures"]] == ["growing"]
    assert report["size"]["name"] == "tiny"
    assert {"processor", "torch", "commit", "load_average"} <= set(report["environment"])
    assert (plots / "growing.svg").is_file()


# --- plots ------------------------------------------------------------------------------------------------------

CURVE: dict[str, Any] = {
    "x": [1, 2, 8],
    "lines": {"kept & read": [1.0, 1.0, 1.0], "usual": [2.0, 4.0, 16.0]},
    "x_label": "teachers",
    "y_label": "milliseconds",
    "log_x": False,
}


def test_a_curve_is_drawn_from_zero_so_that_what_is_flat_looks_flat() -> None:
    root = ElementTree.fromstring(svg(CURVE, about="a < b"))
    lines = [path.get("d", "") for path in root.iter("{http://www.w3.org/2000/svg}path")]
    flat, steep = [path for path in lines if path.count("L") == 2]
    assert len({point.split()[1] for point in flat[1:].split("L")}) == 1
    assert len({point.split()[1] for point in steep[1:].split("L")}) == 3
    assert root.find("{http://www.w3.org/2000/svg}title").text == "a < b"  # type: ignore[union-attr]


def test_a_figure_without_a_curve_is_not_drawn(tmp_path: Path) -> None:
    assert draw(GOOD.as_json(), tmp_path) is None
    assert list(tmp_path.iterdir()) == []
