"""What is measured of a network, and that measuring leaves no trace."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.ladder.tiny import jobs_of, made_up, network, stage, training
from tests.recipe.tiny import tree
from understudy.data import Dataset, MemoryImages, Split
from understudy.data.views import ViewPolicy, Views
from understudy.ladder import pace
from understudy.ladder.graph import Job
from understudy.ladder.pace import Pace, _affordable, _some, _Watch, waited
from understudy.models.weights import read_weights
from understudy.store import Store
from understudy.training.clock import Progress

VIEWS = Views(policy=ViewPolicy(crop=1, flip=True))


class Streamed(MemoryImages):
    """Images that pretend to be decoded."""

    in_memory = False


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_SECONDS", 0.02)


@pytest.fixture
def dataset() -> Dataset:
    return made_up()


@pytest.fixture
def jobs(dataset: Dataset) -> list[Job]:
    stages = [stage("teacher"), stage("student", "teacher", network=network(width=0.5))]
    return jobs_of(stages, dataset, views=VIEWS)


# --- networks -------------------------------------------------------------------------------------------------------


def test_a_small_network_is_seen_in_whole_epochs(
    jobs: list[Job], dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "_SECONDS", 0.5)  # for two epochs, also where others work on this machine
    for job in jobs:
        found = pace.training_pace(job, dataset)
        assert found.step > 0
        assert found.lap is not None
        assert found.lap[0] == 3  # batches of 16 in 48 images
        assert found.looks.keys() == {"validation", "test"}
        assert min(found.looks.values()) > 0
        assert found.unseen == 0


def test_splits_that_are_not_there_are_not_looked_at() -> None:
    dataset = made_up(validation=0)
    (job,) = jobs_of([stage("one")], dataset, views=VIEWS)
    assert pace.training_pace(job, dataset).looks.keys() == {"test"}


def test_bytes_are_those_of_the_weights_that_are_kept(
    jobs: list[Job], dataset: Dataset, tmp_path: Path
) -> None:
    from understudy.ladder.make import make

    made = make(jobs[0], store=Store(tmp_path), dataset=dataset)
    assert made is not None
    weights = read_weights(made[0].folder / "weights.safetensors")
    expected = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    assert pace.training_pace(jobs[0], dataset).weights == expected


def test_measuring_leaves_no_trace(
    jobs: list[Job], dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    torch.manual_seed(2)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    teacher, student = jobs
    pace.training_pace(student, dataset)
    pace.voice(teacher, student, dataset)
    pace.looking_pace(teacher, dataset)
    pace.drawing_seconds(student, dataset)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("cores", [1, 2])
def test_a_teacher_is_heard_with_any_weights(
    jobs: list[Job], dataset: Dataset, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "cores", lambda: cores)
    teacher, student = jobs
    found = pace.voice(teacher, student, dataset)
    assert found.ready > 0
    assert found.image > 0


def test_where_an_epoch_is_one_batch_it_is_the_step(dataset: Dataset) -> None:
    (job,) = jobs_of([stage("one", training=training(batch_size=64))], dataset, views=VIEWS)
    found = pace.training_pace(job, dataset)
    assert found.lap is not None
    assert found.lap == (1, found.step)


def test_a_step_too_long_to_wait_for_is_measured_on_fewer_images(
    jobs: list[Job], dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(pace, "_MULTIPLY_ADDS", 1)
    network = jobs[0].stage.network.build(dataset)
    network.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    factory = replace(
        jobs[0],
        stage=replace(
            jobs[0].stage, network=replace(jobs[0].stage.network, factory=lambda **_: network, version="1")
        ),
    )
    found = pace.training_pace(factory, dataset)
    assert set(seen) == {8}
    assert found.lap is None, "an epoch of batches of 8 says nothing of one of 16"
    assert found.step > 0


# --- figures --------------------------------------------------------------------------------------------------------


def test_an_epoch_is_the_one_that_was_seen_and_steps_for_the_rest() -> None:
    found = Pace(step=2.0, lap=(3, 7.0), looks={}, weights=0)
    assert [found.epoch(batches) for batches in (3, 4, 10)] == [7, 9, 21]
    assert Pace(step=2.0, looks={}, weights=0).epoch(10) == 20
    assert Pace(looks={}, weights=0).epoch(10) == 0


def test_so_many_images_as_can_be_waited_for() -> None:
    assert _affordable(0, 128) == 128
    assert _affordable(10**6, 128) == 128
    assert 8 < _affordable(3 * 10**9, 128) < 128
    assert _affordable(10**15, 128) == 8
    assert _affordable(10**15, 5) == 5


@pytest.mark.parametrize(
    ("decoding", "workers", "seconds"),
    [
        (6.0, 0, 10.0),  # nobody else decodes
        (2.0, 1, 8.0),  # hidden
        (8.0, 1, 8.0),  # decoding is what takes longest
        (8.0, 4, 5.0),  # with so many the two cores are
    ],
)
def test_decoding_overlaps_with_work(
    decoding: float, workers: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "cores", lambda: 2)
    pixels, labels = np.zeros((4, 2, 2, 1), dtype=np.uint8), np.zeros(4, dtype=np.int64)
    streamed = Split(images=Streamed(pixels), labels=labels)
    assert waited(10.0, decoding, streamed, training(workers=workers)) == seconds
    held = Split(images=MemoryImages(pixels), labels=labels)
    assert waited(10.0, decoding, held, training(workers=workers)) == 10


def test_images_that_are_streamed_are_decoded_here_while_measuring(dataset: Dataset) -> None:
    pixels = dataset.train.images.fetch(np.arange(len(dataset.train)))
    streamed = replace(dataset, train=Split(images=Streamed(pixels), labels=dataset.train.labels))
    (job,) = jobs_of([stage("one", training=training(workers=2))], streamed, views=VIEWS)
    assert pace.training_pace(job, streamed).step > 0


def test_some_samples_are_from_all_over_the_split() -> None:
    pixels = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
    split = Split(images=MemoryImages(pixels), labels=np.arange(100))
    some = _some(split, 10)
    assert some.labels.tolist() == list(range(0, 100, 10))
    assert some.images.fetch(np.array([3, 9]))[:, 0, 0, 0].tolist() == [30, 90]
    assert _some(split, 1000).labels.tolist() == list(range(100))
    assert len(_some(split, 0)) == 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which is what a test says it is."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_steps_and_epochs_are_told_apart(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_SECONDS", 1e9)
    watch = _Watch("cpu")
    for epoch in (1, 2):
        clock[0] += 5  # what comes before the first step is no step
        for _ in range(4):
            clock[0] += epoch
            assert not watch()
        clock[0] += 10  # log and checkpoint
        watch.told(
            Progress(
                epoch=epoch,
                epochs=9,
                batch=4 * epoch,
                batches=36,
                images_per_second=1.0,
                seconds_left=1.0,
                losses={},
                validation={},
                epoch_done=True,
            )
        )
        assert not watch()
    assert watch.steps == [1, 1, 1, 2, 2, 2]
    assert watch.laps == [5 + 4 + 10, 5 + 8 + 10]
    assert watch.batches == 4


def test_the_first_steps_are_for_warming_up(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_SECONDS", 8.0)
    watch = _Watch("cpu")
    for seconds in (50, 5, 1, 1, 1):
        clock[0] += seconds
        assert not watch()
    clock[0] += 1
    with pytest.raises(pace._EnoughError):
        watch()
    assert watch.steps == [1, 1, 1, 1]


def test_memory_is_what_no_file_stands_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    said = pace.anonymous_bytes()
    assert said is None or 10**6 < said < 10**12

    def nothing(path: Path, encoding: str) -> str:
        return "VmRSS:\t 5 kB\n"

    monkeypatch.setattr(Path, "read_text", nothing)
    assert pace.anonymous_bytes() is None
