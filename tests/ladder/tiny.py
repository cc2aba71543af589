"""Tiny made-up data, networks and ladders, for the tests of the ladder, of the loop, and of whole runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from understudy.data import Dataset, MemoryImages, Split, load
from understudy.data.views import Views
from understudy.ladder import Ladder, Network, Stage
from understudy.ladder.graph import Job, jobs
from understudy.ladder.runner import Outcome
from understudy.ladder.shapes import Rung
from understudy.store import Store
from understudy.teaching import Labels, Method, SoftTargets
from understudy.training import Training
from understudy.training.signals import Signals

CLASSES = 4


def arrays(*, train: int = 48, test: int = 16, channels: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    """Images of 8x8 pixels in four classes; each class is bright in one quarter of the image."""
    stream = np.random.default_rng(seed)
    made: dict[str, np.ndarray] = {}
    for name, count in (("train", train), ("test", test)):
        labels = np.arange(count) % CLASSES
        pixels = stream.integers(0, 160, (count, 8, 8, channels))
        for image, label in zip(pixels, labels, strict=True):
            row, column = 4 * (label // 2), 4 * (label % 2)
            image[row : row + 4, column : column + 4] += 80
        made[f"x_{name}"], made[f"y_{name}"] = pixels.astype(np.uint8), labels.astype(np.int64)
    return made


def split_of(pixels: np.ndarray, labels: np.ndarray) -> Split:
    return Split(images=MemoryImages(pixels), labels=labels.astype(np.int64))


def made_up(*, train: int = 48, validation: int = 8, test: int = 16, seed: int = 0) -> Dataset:
    """A data set in memory, from no file."""
    whole = arrays(train=train + validation, test=test, seed=seed)
    return Dataset(
        name="made up",
        train=split_of(whole["x_train"][:train], whole["y_train"][:train]),
        validation=split_of(whole["x_train"][train:], whole["y_train"][train:]),
        test=split_of(whole["x_test"], whole["y_test"]),
        class_names=tuple("abcd"),
        height=8,
        width=8,
        channels=1,
        mean=(0.5,),
        std=(0.3,),
        fingerprint=f"made up {train} {validation} {test} {seed}",
    )


def saved(path: Path, **changed: np.ndarray) -> Dataset:
    """The arrays, with some of them changed, written as an ``.npz`` file and loaded."""
    np.savez(path, **{**arrays(), **changed})  # type: ignore[arg-type]
    return load(path=path)


def training(**changed: Any) -> Training:
    """Two epochs of three batches; fp32, so that every machine does the same."""
    said: dict[str, Any] = {"epochs": 2, "batch_size": 16, "precision": "fp32", "device": "cpu", "lr": 0.02}
    return Training(**{**said, **changed})


def network(name: str = "plain_cnn-2", **changed: Any) -> Network:
    return Network(name=name, **{"width": 0.25, **changed})


def rung(name: str = "plain_cnn-2", *, width: float = 0.25, **changed: Any) -> Rung:
    return Rung(network=Network(name=name, width=width), training=training(**changed))


TEACHER = rung("plain_cnn-4")
ASSISTANTS = [rung(width=0.5), rung(width=0.375)]
STUDENT = rung(width=0.25)


def stage(name: str, *teachers: str, **changed: Any) -> Stage:
    """A stage that learns from ``teachers``, or from the labels where there are none."""
    method: Method = SoftTargets() if teachers else Labels()
    said = {
        "network": network(),
        "role": "student" if teachers else "teacher",
        "teachers": teachers,
        "method": method,
        "training": training(),
    }
    return Stage(name=name, **{**said, **changed})


def jobs_of(
    stages: Sequence[Stage], dataset: Dataset, *, seeds: Sequence[int] = (0,), **more: Any
) -> list[Job]:
    """Jobs of a ladder whose last stage is delivered."""
    ladder = Ladder(tuple(stages), (stages[-1].name,))
    return jobs(ladder, dataset, seeds=seeds, **{"views": Views(), "signals": Signals(), **more})


def keys_of(stages: Sequence[Stage], dataset: Dataset, **more: Any) -> dict[str, str]:
    """Key of each stage by its name."""
    return {job.name: job.key for job in jobs_of(stages, dataset, **more)}


def states(outcomes: Sequence[Outcome]) -> dict[str, str]:
    return {outcome.job.name: outcome.state for outcome in outcomes}


def weights_of(store: Store, outcomes: Sequence[Outcome]) -> dict[str, bytes]:
    """The file of weights of each stage, byte by byte."""
    return {o.job.name: (store.place(o.job.key) / "weights.safetensors").read_bytes() for o in outcomes}


def same_tensors(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def small_network(*, classes: int, channels: int, size: tuple[int, int]) -> nn.Module:
    """A factory of one's own, which other processes can import."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(channels * size[0] * size[1], 8), nn.ReLU(), nn.Linear(8, classes)
    )


def network_by_the_environment(*, classes: int, channels: int, size: tuple[int, int]) -> nn.Module:
    """As small as the environment of its process says; without a word there it cannot be made."""
    hidden = int(os.environ["HIDDEN_UNITS"])
    return nn.Sequential(
        nn.Flatten(), nn.Linear(channels * size[0] * size[1], hidden), nn.ReLU(), nn.Linear(hidden, classes)
    )


def other_small_network(*, classes: int, channels: int, size: tuple[int, int]) -> nn.Module:
    """The same names, another width."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(channels * size[0] * size[1], 9), nn.ReLU(), nn.Linear(9, classes)
    )


def by_name(all_jobs: Sequence[Job]) -> dict[str, list[Job]]:
    """Jobs of each stage, in order of their appearance."""
    found: dict[str, list[Job]] = {}
    for job in all_jobs:
        found.setdefault(job.name, []).append(job)
    return found
