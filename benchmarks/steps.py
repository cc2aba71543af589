"""What takes turns: understudy's training loop, the usual loop, a bare loop, teachers that answer, matrix products."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from benchmarks import usual_loop
from benchmarks.made_up import Data, network, teacher, teacher_loader
from understudy.data.batches import Batch, batch_of, batches, epoch_order
from understudy.data.views import ViewPolicy, Views
from understudy.errors import Interrupted
from understudy.models.preprocessing import Preprocessing
from understudy.store import Store
from understudy.store.keys import key_of
from understudy.store.signals import SignalFiles
from understudy.tasks import Classification
from understudy.teaching import Labels, SoftTargets
from understudy.teaching.method import Method, Needs, Step
from understudy.training import Training, precision
from understudy.training.loop import fit
from understudy.training.optimizers import build_optimizer
from understudy.training.signals import Signals
from understudy.training.teachers import FrozenTeachers, Teacher

if TYPE_CHECKING:
    from torch import Tensor, nn

    from understudy.data.dataset import Dataset

POLICY = ViewPolicy(crop=4, flip=True)
EPOCHS = 2000  # more than anyone waits for
LR = 1e-3  # small: made-up images teach nothing, and a loss that blows up would end the training


def _training(work: Ours | Bare | Answers) -> Training:
    return precision.resolved(
        Training(
            epochs=EPOCHS,
            batch_size=work.batch,
            lr=LR,
            schedule="constant",
            precision=work.precision,  # type: ignore[arg-type]
            device=work.device,  # type: ignore[arg-type]
            threads=1,
        )
    )


def _preprocessing(dataset: Dataset) -> Preprocessing:
    return Preprocessing(mean=dataset.mean, std=dataset.std)


def _usual_images(dataset: Dataset) -> usual_loop.Images:
    pixels = dataset.train.images.fetch(torch.arange(len(dataset.train)).numpy())
    return usual_loop.training_images(pixels, dataset.train.labels, mean=dataset.mean, std=dataset.std)


class Watched(Method):
    """Any method; says when a step is over, all that belongs to it included."""

    name = "watched"

    def __init__(self, inner: Method, step_done: Callable[[], bool]) -> None:
        self.inner, self.step_done, self.over = inner, step_done, False

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return self.inner.definition(teachers=teachers)

    def needs(self) -> Needs:
        return self.inner.needs()

    def loss(self, step: Step) -> dict[str, Tensor]:
        return self.inner.loss(step)

    def metrics(self) -> dict[str, Any]:
        return self.inner.metrics()

    def after_step(self, model: nn.Module, step: Step) -> None:
        self.over = self.step_done()


@dataclass(frozen=True, kw_only=True)
class Ours:
    """Steps of ``understudy.training.loop.fit`` with all that it does: metrics, log, checkpoints, checks.

    What is timed lies between the ends of two steps; so the end of an epoch is in the step after it. All epochs show
    one view, whose answers are made in the first step: how an answer is read does not depend on the view.

    Attributes:
        student: network's name. teachers: likewise; without any, the labels teach.
        data: what is learned.
        folder: for the store with the kept answers; works with one folder share them.
        kept: whether the teachers' answers are kept; else they answer live.
        signals: how they are kept.
        batch: images in a step.
        precision: as in a recipe.
    """

    student: str
    data: Data
    folder: str
    teachers: tuple[str, ...] = ()
    kept: bool = True
    signals: Signals = Signals()  # noqa: RUF009 - frozen
    batch: int = 128
    precision: str = "auto"
    device: str = "cpu"
    keeps_pages: bool = True

    def run(self, step_done: Callable[[], bool]) -> None:
        """See ``benchmarks.turns.Work``."""
        dataset = self.data.dataset()
        training = _training(self)
        inner = SoftTargets(combine="sum") if self.teachers else Labels()
        method = Watched(inner.for_stage(teachers=len(self.teachers)), step_done)
        store = Store(Path(self.folder))
        store.prepare()
        with tempfile.TemporaryDirectory(dir=self.folder) as stage, contextlib.suppress(Interrupted):
            fit(
                network(self.student, dataset),
                method,
                task=Classification(),
                dataset=dataset,
                views=Views(policy=POLICY, distinct=1),
                preprocessing=_preprocessing(dataset),
                teachers=[
                    Teacher(
                        load=teacher_loader(name, dataset),
                        preprocessing=_preprocessing(dataset),
                        name=name,
                        kept=self._files(name, store, dataset, training) if self.kept else None,
                    )
                    for name in self.teachers
                ],
                training=training,
                seed=0,
                folder=Path(stage),
                signals=self.signals,
                stop=lambda: method.over,
            )

    def _files(self, name: str, store: Store, dataset: Dataset, training: Training) -> SignalFiles:
        classes = len(dataset.class_names)
        definition: Mapping[str, Any] = {
            "teacher": name,
            "data": dataset.fingerprint,
            "precision": training.precision,
            "device": training.device,
            "kept": self.signals.definition(classes=classes),
        }
        return SignalFiles(
            store=store,
            key=key_of(definition),
            definition=definition,
            samples=len(dataset.train),
            row_bytes=self.signals.row_bytes(classes=classes),
        )


@dataclass(frozen=True, kw_only=True)
class Usual:
    """Steps of the usual loop, on the same networks and images; ``official``: see ``benchmarks.usual_loop``."""

    student: str
    data: Data
    teachers: tuple[str, ...] = ()
    official: bool = False
    batch: int = 128
    device: str = "cpu"
    workers: int = 0
    keeps_pages: bool = False

    def run(self, step_done: Callable[[], bool]) -> None:
        """See ``benchmarks.turns.Work``."""
        dataset = self.data.dataset()
        student = network(self.student, dataset)
        teachers = [teacher(name, dataset) for name in self.teachers]
        images = _usual_images(dataset)
        del dataset  # the pixels are there once only
        usual_loop.train(
            student,
            teachers,
            images,
            usual_loop.Settings(
                epochs=EPOCHS,
                batch_size=self.batch,
                lr=LR,
                official=self.official,
                device=self.device,
                workers=self.workers,
            ),
            step_done=step_done,
        )


@dataclass(frozen=True, kw_only=True)
class Bare:
    """The steps of ``Ours`` without teachers, and nothing around them: the same batches, number format and optimiser."""

    student: str
    data: Data
    batch: int = 128
    precision: str = "auto"
    device: str = "cpu"
    keeps_pages: bool = True

    def run(self, step_done: Callable[[], bool]) -> None:
        """See ``benchmarks.turns.Work``."""
        dataset = self.data.dataset()
        training = _training(self)
        preprocessing = _preprocessing(dataset)
        model: nn.Module = network(self.student, dataset).to(
            training.device, memory_format=torch.channels_last
        )  # type: ignore[call-overload]
        optimizer = build_optimizer(training, [model])
        view = Views(policy=POLICY, distinct=1).at(0)
        model.train()
        for epoch in range(EPOCHS):
            orders = epoch_order(len(dataset.train), training.batch_size, seed=0, epoch=epoch)
            for batch in batches(dataset.train, view, orders):
                pixels, labels = batch.pixels.to(training.device), batch.labels.to(training.device)
                with precision.autocast(training):
                    logits = model(preprocessing(pixels))
                loss = F.cross_entropy(logits.float(), labels)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if step_done():
                    return


@dataclass(frozen=True, kw_only=True)
class Answers:
    """A frozen teacher that answers, in the form in which understudy has it do so; a step is one batch.

    ``whole``: with making the batch and encoding the answer, as in a bulk pass; else the answer alone.
    """

    teacher: str
    data: Data
    whole: bool = False
    batch: int = 256
    precision: str = "auto"
    device: str = "cpu"
    keeps_pages: bool = True

    def run(self, step_done: Callable[[], bool]) -> None:
        """See ``benchmarks.turns.Work``."""
        dataset = self.data.dataset()
        signals = Signals()
        view = Views(policy=POLICY).at(0)
        frozen = FrozenTeachers(
            [Teacher(load=teacher_loader(self.teacher, dataset), preprocessing=_preprocessing(dataset))],
            dataset=dataset,
            views=[view],
            training=_training(self),
            signals=signals,
        )
        orders = [
            torch.arange(start, start + self.batch).numpy()
            for start in range(0, len(dataset.train) - self.batch + 1, self.batch)
        ]
        fixed = batch_of(dataset.train, view, orders[0])

        def shown() -> Batch:
            return batch_of(dataset.train, view, next(turn)) if self.whole else fixed

        turn = itertools.cycle(orders)
        with frozen:
            while True:
                (answer,) = frozen.answer([0], shown())
                if self.whole:
                    signals.encode(answer)
                if step_done():
                    return


@dataclass(frozen=True, kw_only=True)
class Products:
    """Products of square matrices, the fastest use of a processor that there is; a step is one."""

    side: int
    dtype: str = "bfloat16"
    device: str = "cpu"
    keeps_pages: bool = True

    def run(self, step_done: Callable[[], bool]) -> None:
        """See ``benchmarks.turns.Work``."""
        square = torch.randn(self.side, self.side).to(self.device, getattr(torch, self.dtype))
        room = torch.empty_like(square)
        while not step_done():
            torch.mm(square, square, out=room)


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Batches made and nothing done with them: cropped, flipped, normalised; a step is one."""

    data: Data
    usual: bool = False
    batch: int = 128
    device: str = "cpu"
    keeps_pages: bool = False

    def run(self, step_done: Callable[[], bool]) -> None:
        """See ``benchmarks.turns.Work``."""
        dataset = self.data.dataset()
        view = Views(policy=POLICY).at(0)
        preprocessing = _preprocessing(dataset)
        loader = DataLoader(_usual_images(dataset), batch_size=self.batch, shuffle=True)
        orders = epoch_order(len(dataset.train), self.batch, seed=0, epoch=0)
        while True:
            for made in loader if self.usual else batches(dataset.train, view, orders):
                if isinstance(made, Batch):
                    preprocessing(made.pixels)
                if step_done():
                    return
