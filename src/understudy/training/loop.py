"""The training loop. It knows no method and no task: both are handed in, and answer small protocols."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from understudy.data.batches import Batch, batches
from understudy.data.dataset import Dataset, Split
from understudy.data.sampling import sampled_order
from understudy.data.views import PLAIN, Views
from understudy.errors import Interrupted
from understudy.models.features import layer_shapes
from understudy.models.preprocessing import Preprocessing
from understudy.randomness import stream_seed
from understudy.store.keys import hash_of_tensors
from understudy.teaching.method import Beginning, Method, Survey
from understudy.training import precision
from understudy.training.clock import Clock, Progress
from understudy.training.evaluate import outputs
from understudy.training.keeping import Kept, Position
from understudy.training.lesson import Lesson, MovingAverage
from understudy.training.optimizers import build_optimizer
from understudy.training.resident import resident
from understudy.training.schedules import factor_of
from understudy.training.settings import Training
from understudy.training.signals import Signals
from understudy.training.student import Student
from understudy.training.tally import Tally, Task
from understudy.training.teachers import FrozenTeachers, Lookup, Teacher


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What ``fit`` leaves.

    Attributes:
        model: last step's weights, the moving average's where one was asked for, or what the method delivers.
        steps: of the optimiser. batches: seen. skipped: of them, those that taught nothing. seconds: of training.
        metrics: the method's figures at the end. artefacts: the tensors that it keeps beside the weights.
    """

    model: nn.Module
    steps: int
    batches: int
    skipped: int
    seconds: float
    metrics: Mapping[str, Any]
    artefacts: Mapping[str, Tensor]


def fit(
    model: nn.Module,
    method: Method,
    *,
    task: Task,
    dataset: Dataset,
    views: Views,
    preprocessing: Preprocessing,
    teachers: Sequence[Teacher | Lookup],
    training: Training,
    seed: int,
    folder: Path,
    signals: Signals | None = None,
    handed: Sequence[Mapping[str, Tensor]] | None = None,
    core_free: Callable[[], bool] = lambda: False,
    progress: Callable[[Progress], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda sentence: None,
) -> Trained:
    """Trains ``model`` in place, going on from the checkpoint in ``folder`` where there is one.

    Every random choice comes from (seed, purpose) or from a generator kept in the checkpoint, so a training that was
    killed and goes on ends with the bits of one that was not.

    That holds on the CPU. On a GPU (never measured by us) the same seed on the same card should give nearly the same
    numbers, not the same bits: some kernels add in whatever order their threads come. ``torch.backends.cudnn.benchmark``
    stays as torch has it, off, so that no timing chooses among kernels. There, the images lie on the device where they
    fit (``understudy.training.resident``), and it is waited for only when progress is told, before a checkpoint and at
    an epoch's end: a loss that is not finite is found then, before anything is kept.

    Args:
        model: with its initial weights.
        method: the way to teach.
        task: hard loss and metrics.
        dataset: its training split is learned, its validation split looked at after each epoch, its test split not.
        views: what each epoch shows.
        preprocessing: the model's.
        teachers: frozen, in the method's order.
        training: with ``precision`` and ``device`` resolved.
        seed: of order, dropout and the method's streams.
        folder: of the stage; holds log and checkpoints.
        signals: what of the teachers' answers is kept; None: the default form.
        handed: for each teacher the artefacts of its own method; None where there is nothing yet, see ``Beginning``.
        core_free: whether teachers may speak ahead of the student, in a thread of their own.
        progress: told now and then.
        stop: asked after every batch; True writes a checkpoint and ends.
        say: told what a person should know.

    Raises:
        Interrupted: ``stop`` said so; the checkpoint is written.
        StageFailed: the loss is not a finite number any more; the last good checkpoint is kept.
        CannotWrite: no space or right to write.
    """
    device = training.device
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    labels, classes = dataset.train.labels, len(dataset.class_names)
    dataset = resident(dataset, policy=views.policy, device=device, say=say)
    frozen = FrozenTeachers(
        teachers,
        dataset=dataset,
        views=[views.at(epoch) for epoch in range(training.epochs)],
        training=training,
        signals=signals or Signals(),
        features=method.needs().teacher_features,
        core_free=core_free,
        stop=stop,
        say=say,
    )
    size = preprocessing.size or (dataset.height, dataset.width)
    with torch.random.fork_rng(devices=[]):  # the seed of all devices is set below
        torch.manual_seed(stream_seed(seed, "method"))
        method.begin(
            Beginning(
                model=model,
                labels=labels,
                classes=classes,
                epochs=training.epochs,
                seed=seed,
                shapes=_shapes(model, method.needs().features, channels=dataset.channels, size=size),
                teacher_shapes=frozen.shapes(),
                handed=handed,
            )
        )
    for module in method.modules().values():
        module.to(device)
    if not method.trains_student:
        model.requires_grad_(False)
    autocast = partial(precision.autocast, training)
    optimizer = build_optimizer(
        training, [model, *method.modules().values()], no_decay=method.no_decay(model)
    )
    average = None if training.ema is None else MovingAverage(model, training.ema)

    torch.manual_seed(seed)
    kept = Kept(
        folder, model=model, method=method, optimizer=optimizer, average=average, device=device, say=say
    )
    at = kept.resume()

    usual = partial(sampled_order, labels, training.batch_size, seed=seed, sampling=training.sampling)
    batches_an_epoch = len(usual(epoch=0))
    steps_an_epoch = math.ceil(batches_an_epoch / training.accumulate)
    clock = Clock(at, batches=batches_an_epoch * training.epochs)
    validation: dict[str, float] = {}

    student = Student(model, preprocessing=preprocessing, autocast=autocast, features=method.needs().features)
    survey = Survey(
        fingerprint=lambda: hash_of_tensors(dict(model.state_dict()))[:16],
        student=partial(_answers, model, dataset.train, training, preprocessing, autocast),
        teachers=frozen.plain,
    )
    tally = Tally(at, training, task)
    lesson = Lesson(
        model,
        method,
        student=student,
        teachers=frozen,
        optimizer=optimizer,
        average=average,
        tally=tally,
        training=training,
        seed=seed,
    )

    def look() -> None:
        frozen.look()
        tally.look()

    def keep() -> None:
        look()
        kept.write(at, seconds=clock.seconds())

    with frozen, contextlib.closing(student):
        while at.epoch < training.epochs:
            method.on_epoch(at.epoch, survey)
            model.train(method.trains_student)
            orders = method.order(at.epoch, usual(epoch=at.epoch))
            assert len(orders) == batches_an_epoch, "a method keeps the number of batches"
            looks = _looks(dataset.train, method, views, at.epoch, orders[at.batch :], training)
            for copies, plain in looks:
                images = len(copies[0].labels)
                group = orders[at.batch - at.batch % training.accumulate :][: training.accumulate]
                step = lesson.batch(copies, plain, share=images / sum(map(len, group)))
                at.batch += 1
                at.number += 1
                if at.batch % training.accumulate == 0 or at.batch == batches_an_epoch:
                    rate = factor_of(training, step=at.step, steps_an_epoch=steps_an_epoch)
                    lesson.move(step, rate=rate)
                    at.step += 1
                    # Only between steps of the optimiser: gradients are not part of a checkpoint.
                    if stop():
                        keep()
                        raise Interrupted(f"stopped in epoch {at.epoch + 1} of {training.epochs}")
                    if clock.checkpoint_due(training.checkpoint_minutes) and at.batch < batches_an_epoch:
                        keep()
                clock.tick(images, at, training.epochs, validation, progress, look=look)

            look()
            delivered = method.delivered(model if average is None else average.module)
            validation = _look(delivered, dataset.validation, task, training, preprocessing, autocast)
            kept.log(_line(at, training, optimizer, method, validation, clock))
            at.epoch, at.batch = at.epoch + 1, 0
            tally.next_epoch()
            keep()
            clock.tick(0, at, training.epochs, validation, progress, epoch_done=True)
            if stop() and at.epoch < training.epochs:
                raise Interrupted(f"stopped after epoch {at.epoch} of {training.epochs}")

    return Trained(
        model=method.delivered(model if average is None else average.module),
        steps=at.step,
        batches=at.number,
        skipped=at.skipped,
        seconds=clock.seconds(),
        metrics=method.metrics(),
        artefacts={name: tensor.detach().cpu() for name, tensor in method.artefacts().items()},
    )


def _shapes(
    model: nn.Module, features: Sequence[str], *, channels: int, size: tuple[int, int]
) -> dict[str, tuple[int, ...]]:
    if not features:
        return {}
    shapes = layer_shapes(model, channels=channels, size=size)
    return {name: shapes[name] for name in features if name in shapes}


def _looks(
    split: Split,
    method: Method,
    views: Views,
    epoch: int,
    orders: list[Any],
    training: Training,
) -> Iterator[tuple[list[Batch], Batch | None]]:
    """The copies of each batch that the method asks for, and the plain one where it asks for it."""
    needs = method.needs()
    shown = [views.at(epoch, copy) for copy in range(needs.copies)]
    streams = [batches(split, view, orders, workers=training.workers) for view in shown]
    if needs.plain:
        streams.append(batches(split, PLAIN, orders, workers=training.workers))
    for together in zip(*streams, strict=True):
        looked = [_on(batch, training.device) for batch in together]
        yield looked[: needs.copies], looked[-1] if needs.plain else None


def _on(batch: Batch, device: str) -> Batch:
    if batch.pixels.device.type == device:
        return batch

    def moved(tensor: Tensor) -> Tensor:
        # what lies in pinned memory a GPU fetches by itself, while the next batch is made
        return (tensor.pin_memory() if device == "cuda" else tensor).to(device, non_blocking=True)

    tensors: dict[str, Any] = {
        name: moved(value) for name, value in vars(batch).items() if isinstance(value, Tensor)
    }
    return replace(batch, **tensors).knowing(batch.on_host())


def _look(
    model: nn.Module,
    split: Split,
    task: Task,
    training: Training,
    preprocessing: Preprocessing,
    autocast: Any,
) -> dict[str, float]:
    if not len(split):
        return {}
    answers = _answers(model, split, training, preprocessing, autocast)
    return task.metrics(answers, torch.tensor(split.labels))


def _answers(
    model: nn.Module, split: Split, training: Training, preprocessing: Preprocessing, autocast: Any
) -> Tensor:
    return outputs(
        model,
        split,
        preprocessing=preprocessing,
        device=training.device,
        workers=training.workers,
        autocast=autocast,
    )


def _line(
    at: Position,
    training: Training,
    optimizer: torch.optim.Optimizer,
    method: Method,
    validation: Mapping[str, float],
    clock: Clock,
) -> dict[str, Any]:
    return {
        "epoch": at.epoch + 1,
        "step": at.step,
        "lr": optimizer.param_groups[0]["lr"],
        "loss": {name: total / max(1, at.examples) for name, total in at.sums.items()},
        "validation": dict(validation),
        "train": {name: total / max(1, at.labelled) for name, total in at.seen.items()},
        "gradient": dict(at.gradient),
        "skipped": at.skipped,
        "seconds": round(clock.seconds(), 3),
        **method.metrics(),
    }
