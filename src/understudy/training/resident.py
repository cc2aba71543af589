"""What lies on the GPU for a whole training, so that no step has to carry it there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from understudy.data.batches import DeviceImages
from understudy.data.dataset import Dataset, Split
from understudy.data.views import ViewPolicy

SHARE = 0.25
"""Of the memory that is free on the device when it is asked for: what takes as much or more stays in main memory.

Asked for once each: training images, validation images, all answers to one view, what teachers that are not there said.
The rest is for weights and layers.
"""


def free_bytes(device: str) -> int:
    """Bytes that can still be taken on ``device``: those that nobody has, and those that torch keeps without use."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def place_for(size: int, device: str) -> str:
    """``device`` where ``size`` bytes may lie there, see ``SHARE``; else ``cpu``."""
    return device if device != "cpu" and _room(size, device) else "cpu"


def placed(tensors: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    """``tensors``, from main memory, where ``place_for`` says."""
    if place == "cpu":
        return dict(tensors)
    return {name: tensor.to(place, non_blocking=True) for name, tensor in tensors.items()}


def resident(dataset: Dataset, *, policy: ViewPolicy, device: str, say: Callable[[str], None]) -> Dataset:
    """``dataset`` with its training images, and then its validation images, on ``device`` where they can be there.

    They can where they are in memory, take less than ``SHARE`` of the device's free memory, and have no torchvision
    transforms done to them, whose random numbers a GPU could not replay.

    Args:
        dataset: in main memory, or streamed.
        policy: what is done to the training images.
        device: cpu changes nothing.
        say: told why, where training images stay.
    """
    if device == "cpu":
        return dataset
    size = dataset.height * dataset.width * dataset.channels
    why = ""
    if policy.transforms:
        why = "torchvision transforms are done to them"
    elif not dataset.train.images.in_memory:
        why = "they are read from the disk"
    elif not _room(len(dataset.train) * size, device):
        why = (
            f"they take {len(dataset.train) * size / 1e9:.3g} GB, and of the GPU's memory {free_bytes(device) / 1e9:.3g} GB "
            f"are free, of which they may take {SHARE:.0%}"
        )
    if why:
        say(f"batches are made on the CPU and carried to the GPU: {why}")
        return dataset
    moved = replace(dataset, train=_moved(dataset.train, device))
    validation = dataset.validation
    if len(validation) and validation.images.in_memory and _room(len(validation) * size, device):
        moved = replace(moved, validation=_moved(validation, device))
    return moved


def _room(size: int, device: str) -> bool:
    return size < SHARE * free_bytes(device)


def _moved(split: Split, device: str) -> Split:
    return replace(split, images=DeviceImages(split, device))
