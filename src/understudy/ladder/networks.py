"""The network of a job: built, with the channels that its structure leaves, and the weights of a finished one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from understudy.data.batches import batch_of
from understudy.data.dataset import Dataset
from understudy.data.views import PLAIN
from understudy.errors import StageFailed
from understudy.ladder.graph import Job
from understudy.models.fake_quantisation import fake_quantised
from understudy.models.preprocessing import Preprocessing
from understudy.models.weights import put_weights
from understudy.store.results import Result, Store
from understudy.structure.structures import Structure

CALIBRATION = 512  # images by which the ranges of activations are found
STATISTICS = 2048  # images by which the statistics of batch norms are measured anew


def built(
    job: Job, store: Store, dataset: Dataset, *, start: Callable[[nn.Module], None] = lambda model: None
) -> nn.Module:
    """The network with initial weights from torch's global generator; one in a file is read from there.

    Args:
        job: which.
        store: knows what was chosen.
        dataset: what it is made for.
        start: puts in the weights that it begins with. A quantised network takes them before its batch normalisation
            is folded.

    A network whose structure another stage chose is built whole and then made smaller, so that its initial weights
    are a part of the whole network's.

    Raises:
        BadInput: its file is gone or is another by now.
        StageFailed: the stage that chose its structure is not in the store any more.
    """
    model = job.stage.network.build(dataset, sha256=file_of(job))
    structure = structure_of(job, store)
    if structure is not None:
        model = smaller(model, structure, job, dataset)
    start(model)
    return fake_quantised(model, _example(job, dataset)) if job.stage.quantised else model


def _example(job: Job, dataset: Dataset) -> torch.Tensor:
    """Images as the network takes them, by which it is seen what follows what."""
    height, width = job.stage.network.arguments(dataset)["size"]
    return torch.zeros(2, dataset.channels, height, width)


def smaller(model: nn.Module, structure: Structure, job: Job, dataset: Dataset) -> nn.Module:
    """``model``, the whole network of ``job``, with the channels of ``structure`` only."""
    from understudy.structure.shrinking import shrunk

    size = tuple(job.stage.network.arguments(dataset)["size"])
    return shrunk(model, structure, channels=dataset.channels, size=size)


def structure_of(job: Job, store: Store) -> Structure | None:
    """Which channels the network of a job has; None: all. A stage that chooses must have done so."""
    chose = job.structure or (job if job.among else None)
    if chose is None:
        return None
    return Structure.from_dict(finished(store, chose).record["structure"])


def rebuilt(job: Job, store: Store, dataset: Dataset) -> nn.Module:
    """The network of a finished job with its weights, on the CPU; one in a file is read from there again.

    Raises:
        Damaged: the weights differ from their checksum.
        BadInput: its file is gone or is another by now, or holds logits only.
    """
    with torch.random.fork_rng(devices=[]):
        model = built(job, store, dataset)
    if job.stage.network.file is not None:
        return model
    put_weights(model, store.weights(finished(store, job)), source=f"the kept stage {job.name}")
    return model


def training_images(dataset: Dataset, preprocessing: Preprocessing, *, most: int) -> list[torch.Tensor]:
    """Plain training images as a network takes them, evenly spread over the split, in batches of 128 at most.

    Args:
        dataset: whose training split.
        preprocessing: of the network.
        most: how many images at most.
    """
    count = min(most, len(dataset.train))
    rows = np.linspace(0, len(dataset.train) - 1, num=count, dtype=np.int64)
    parts = np.array_split(rows, math.ceil(count / 128))
    return [preprocessing(batch_of(dataset.train, PLAIN, part).pixels) for part in parts]


def file_of(job: Job) -> str | None:
    """SHA-256 of the file that the job was keyed with, for a network in a file."""
    known: str | None = job.definition["network"].get("file")
    return known


def finished(store: Store, job: Job) -> Result:
    """The kept result of a job that another one needs.

    Raises:
        StageFailed: it is gone.
    """
    result = store.result(job.key)
    if result is None:
        raise StageFailed(f"its input {job.name} is not in the store any more. Run the same command again.")
    return result


def described(job: Job, dataset: Dataset) -> dict[str, Any]:
    """What ``student.json`` and ``stage.json`` say of a network, so that it can be built again by name."""
    network = job.stage.network
    filters: dict[str, Any] = {"strip": network.strip, "strip_part": network.strip_part}
    if network.peers is not None:
        filters["peers"] = {"count": network.peers.count, "split": network.peers.split}
    return {
        "name": network.name,
        **network.arguments(dataset),
        **filters,
        "factory": network.factory is not None,
        **({"quantised": "int8"} if job.stage.quantised else {}),
    }
