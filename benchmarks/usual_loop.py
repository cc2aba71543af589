"""The usual distillation loop: what understudy is measured against.

Written from scratch, in the way most toolkits write it: a ``Dataset`` that transforms one image at a time, a
``DataLoader`` that collates them, float32 networks in torch's default memory layout, and teachers that answer in every
step. Nothing is made slow on purpose, and nothing of understudy is used, so that what a reader knows of such loops
holds here too. Two things are lighter than elsewhere, which favours this loop: the transforms act on tensors (no PIL
image is made of each array), and only the loss is written down in each step.

``official`` is the form in which the published codes of TAKD and DGKD run: the teachers' forward passes build a graph
(no ``no_grad``, their parameters still ask for gradients, the loss does not detach them), and the backward pass runs
through them. The student's gradient is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


# ---------------------------------------------------------------------------------------------------------- images
class RandomCrop:
    """A window of the image's own size at a random place, after padding with black."""

    def __init__(self, padding: int) -> None:
        self.padding = padding

    def __call__(self, image: Tensor) -> Tensor:
        _, height, width = image.shape
        padded = F.pad(image, [self.padding] * 4)
        top = int(torch.randint(0, 2 * self.padding + 1, ()))
        left = int(torch.randint(0, 2 * self.padding + 1, ()))
        return padded[:, top : top + height, left : left + width]


class RandomFlip:
    """Left and right change places with probability 1/2."""

    def __call__(self, image: Tensor) -> Tensor:
        return image.flip(-1) if torch.rand(()) < 0.5 else image


class Normalise:
    """uint8 to float32, less the mean, over the standard deviation of each channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)

    def __call__(self, image: Tensor) -> Tensor:
        return (image.float() / 255 - self.mean) / self.std


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Sequence[Callable[[Tensor], Tensor]]) -> None:
        self.transforms = transforms

    def __call__(self, image: Tensor) -> Tensor:
        for transform in self.transforms:
            image = transform(image)
        return image


class Images(Dataset[tuple[Tensor, int]]):
    """Images ``(n, height, width, channels)`` uint8 in memory, transformed one at a time."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, transform: Callable[[Tensor], Tensor]) -> None:
        self.pixels, self.labels, self.transform = pixels, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        image = torch.from_numpy(self.pixels[position]).permute(2, 0, 1)
        return self.transform(image), int(self.labels[position])


def training_images(
    pixels: np.ndarray, labels: np.ndarray, *, mean: Sequence[float], std: Sequence[float]
) -> Images:
    """Random crop with 4 pixels of padding, random flip, normalised."""
    return Images(pixels, labels, Compose([RandomCrop(4), RandomFlip(), Normalise(mean, std)]))


def test_images(
    pixels: np.ndarray, labels: np.ndarray, *, mean: Sequence[float], std: Sequence[float]
) -> Images:
    """Normalised."""
    return Images(pixels, labels, Normalise(mean, std))


# ------------------------------------------------------------------------------------------------------------ loss
def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Sequence[Tensor],
    labels: Tensor,
    *,
    temperature: float,
    soft_weight: float,
) -> Tensor:
    """The terms of all teachers, summed as in DGKD; cross-entropy alone where there is none.

    For each teacher ``(1 - soft_weight) * CE + soft_weight * T**2 * KL(teacher || student)``, the divergence summed
    over classes and averaged over the batch.
    """
    hard = F.cross_entropy(student_logits, labels)
    if not teacher_logits:
        return hard
    total = torch.zeros((), device=student_logits.device)
    for logits in teacher_logits:
        soft = F.kl_div(
            F.log_softmax(student_logits / temperature, dim=1),
            F.softmax(logits / temperature, dim=1),
            reduction="batchmean",
        )
        total = total + (1 - soft_weight) * hard + soft_weight * temperature**2 * soft
    return total


# ------------------------------------------------------------------------------------------------------------ loop
@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of one training; the defaults are understudy's, where it has them."""

    epochs: int = 1
    batch_size: int = 128
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    temperature: float = 4.0
    soft_weight: float = 0.5
    official: bool = False
    device: str = "cpu"
    workers: int = 0


def train(
    student: nn.Module,
    teachers: Sequence[nn.Module],
    images: Images,
    settings: Settings,
    *,
    step_done: Callable[[], bool] = lambda: False,
    epoch_done: Callable[[], object] = lambda: None,
) -> list[float]:
    """Trains ``student`` on labels and, where there are some, on what its teachers say.

    Args:
        student, teachers: networks from images ``(batch, channels, height, width)`` to logits.
        images: the training set.
        settings: how.
        step_done: called after every step; True ends the training.
        epoch_done: called after every epoch.

    Returns:
        the mean loss of each finished epoch.
    """
    device = settings.device
    loader = DataLoader(
        images,
        batch_size=settings.batch_size,
        shuffle=True,
        num_workers=settings.workers,
        pin_memory=device == "cuda",
        persistent_workers=settings.workers > 0,
    )
    student.to(device)
    for teacher in teachers:
        teacher.to(device).eval()
    optimizer = torch.optim.SGD(
        student.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=True,
    )
    losses: list[float] = []
    for _ in range(settings.epochs):
        student.train()
        total = 0.0
        for batch, labels in loader:
            batch, labels = batch.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            with torch.set_grad_enabled(settings.official):
                teacher_logits = [teacher(batch) for teacher in teachers]
            loss = distillation_loss(
                student(batch),
                teacher_logits,
                labels,
                temperature=settings.temperature,
                soft_weight=settings.soft_weight,
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item() * len(labels)
            if step_done():
                return losses
        losses.append(total / len(images))
        epoch_done()
    return losses


@torch.no_grad()
def accuracy(model: nn.Module, images: Images, settings: Settings) -> float:
    """Share of ``images`` whose label has the largest logit."""
    model.eval()
    right = 0
    for batch, labels in DataLoader(images, batch_size=settings.batch_size, num_workers=settings.workers):
        right += int((model(batch.to(settings.device)).argmax(1).cpu() == labels).sum())
    return right / len(images)
