"""Frozen teachers: what they said is read where it is kept, and otherwise they answer at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from understudy.data.batches import Batch, batches, plain_order
from understudy.data.dataset import Dataset
from understudy.data.views import PLAIN, View
from understudy.errors import BadInput, Interrupted
from understudy.models.features import Features, layer_shapes
from understudy.models.folding import folded
from understudy.models.preprocessing import Preprocessing
from understudy.store.signals import SignalFiles
from understudy.training import precision
from understudy.training.resident import place_for, placed
from understudy.training.settings import Training
from understudy.training.signals import Signals, check_finite
from understudy.training.speaking import Speaking, rows_of

_ROWS_A_THREAD = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Teacher:
    """A trained network and how its images are prepared.

    Attributes:
        load: gives the network; not called where all that it would say is kept.
        preprocessing: of its images.
        name: what to call it.
        kept: where its answers are and go; None: it answers live in every step.
    """

    load: Callable[[], nn.Module]
    preprocessing: Preprocessing
    name: str = "a teacher"
    kept: SignalFiles | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Lookup:
    """What a teacher that is not there said of each training image as it is: ``(samples, classes)`` float32."""

    answers: Tensor


class FrozenTeachers:
    """Answers of teachers on the very pixels that the student sees; of a ``Lookup``, on the image as it is.

    Each teacher is put into eval mode (its normalisation keeps the statistics it was trained with), its parameters
    take no gradient, and nothing of it changes, buffers included. Where its answers are kept they are made for a
    whole view at once, the next view ahead of the student; kept or live, they are the same bits.

    Args:
        teachers: in the method's order.
        dataset: whose training split is learned.
        views: the view of each epoch to come, in order.
        training: of the student; gives device, number format, threads and loader processes.
        signals: what of an answer is kept.
        features: for each teacher, names of the layers whose outputs are asked for.
        core_free: asked before work is done ahead in a thread of its own.
        stop: asked between batches of a bulk pass; True ends it.
        say: told what a person should know.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher | Lookup],
        *,
        dataset: Dataset,
        views: Sequence[View],
        training: Training,
        signals: Signals,
        features: Sequence[Sequence[str]] = (),
        core_free: Callable[[], bool] = lambda: False,
        stop: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.teachers, self.signals, self.device = list(teachers), signals, training.device
        self.dataset, self.training, self.stop = dataset, training, stop
        self.classes = len(dataset.class_names)
        self.seen: dict[int, Tensor] = {}  # answers to all plain training images
        self.live: dict[int, FastTeacher] = {}
        self.known: dict[int, dict[str, Tensor]] = {}
        self.finite: Tensor | None = None  # whether all that was answered on a GPU is, since somebody looked
        for position, teacher in enumerate(teachers):
            if isinstance(teacher, Lookup):
                encoded = signals.encode(teacher.answers)
                place = place_for(sum(value.nbytes for value in encoded.values()), self.device)
                self.known[position] = placed(encoded, place)
            else:
                size = teacher.preprocessing.size or (dataset.height, dataset.width)
                self.live[position] = FastTeacher(teacher, training, size=size)
        self.seeing = {
            position: SeeingTeacher(self._with_layers(position), names, training)
            for position, names in enumerate(features)
            if names
        }
        self.speaking = Speaking(
            {
                position: teacher.kept
                for position, teacher in enumerate(teachers)
                if isinstance(teacher, Teacher) and teacher.kept is not None
            },
            answer=self.answer,
            load=self.load,
            split=dataset.train,
            views=views,
            training=training,
            signals=signals,
            core_free=core_free,
            stop=stop,
            say=say,
        )

    def __len__(self) -> int:
        return len(self.teachers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.speaking.close()

    def logits(self, which: Sequence[int], batch: Batch) -> Tensor:
        """Logits ``(asked, batch, classes)`` float32, less their mean over the classes, of the teachers at positions
        ``which``; others do not run."""
        kept = self.speaking.rows(which, batch)
        for position in which:
            if position in self.known:
                kept[position] = {name: rows_of(value, batch) for name, value in self.known[position].items()}
        missing = [position for position in which if position not in kept]
        for position, answer in zip(missing, self.answer(missing, batch), strict=True):
            kept[position] = self._heard(answer)
        return torch.stack([self._decoded(kept[position]) for position in which])

    def _heard(self, answer: Tensor) -> dict[str, Tensor]:
        if self.device == "cpu":
            return self.signals.encode(answer)
        finite = torch.isfinite(answer).all()
        self.finite = finite if self.finite is None else self.finite & finite
        return self.signals.rounded(answer)

    def look(self) -> None:
        """Waits for a GPU, and checks what teachers answered there; on the CPU it is checked as they answer.

        Raises:
            StageFailed: not all of it is finite.
        """
        finite, self.finite = self.finite, None
        check_finite(finite is None or bool(finite))

    def plain(self, which: Sequence[int]) -> Tensor:
        """Logits ``(asked, samples, classes)`` of all training images without augmentation, as ``logits`` has them, on
        the CPU. Computed at once when they are first asked for.

        Raises:
            Interrupted: ``stop`` said so.
        """
        split = self.dataset.train
        missing = [position for position in which if position not in self.seen]
        if missing:
            parts = []
            order = plain_order(len(split), 256)
            for batch in batches(split, PLAIN, order, workers=self.training.workers):
                if self.stop():
                    raise Interrupted("stopped while teachers looked at the plain images")
                parts.append(self.logits(missing, batch).cpu())
            self.look()
            self.seen |= dict(zip(missing, torch.cat(parts, dim=1), strict=True))
        return torch.stack([self.seen[position] for position in which])

    def features(self, position: int, batch: Batch) -> dict[str, Tensor]:
        """What the layers asked for gave in the teacher at ``position``: float32, without gradient."""
        return self.seeing[position](batch)

    def shapes(self) -> list[dict[str, tuple[int, ...]]]:
        """For each teacher the output shapes, without the batch, of the layers asked for that it has."""
        return [
            self.seeing[position].shapes(self.dataset) if position in self.seeing else {}
            for position in range(len(self.teachers))
        ]

    def _with_layers(self, position: int) -> Teacher:
        teacher = self.teachers[position]
        if isinstance(teacher, Lookup):
            raise BadInput(
                "a teacher is an array of logits, and what its layers give is asked for: give the network itself."
            )
        return teacher

    def _decoded(self, kept: dict[str, Tensor]) -> Tensor:
        on_device = {name: value.to(self.device, non_blocking=True) for name, value in kept.items()}
        return self.signals.decode(on_device, classes=self.classes)

    def load(self, positions: Iterable[int]) -> None:
        """Makes teachers ready to answer. Building a network draws from torch's global generator before that is put
        back, so this is not for a second thread."""
        for position in positions:
            self.live[position].ready()

    def answer(self, which: Sequence[int], batch: Batch) -> list[Tensor]:
        """Live logits ``(batch, classes)`` float32 of each of the teachers at ``which``."""
        prepared: dict[Preprocessing, Tensor] = {}
        answers = []
        for position in which:
            teacher = self.live[position]
            if teacher.preprocessing not in prepared:
                pixels = batch.pixels.to(self.device, non_blocking=True)
                prepared[teacher.preprocessing] = teacher.prepared(pixels)
            answers.append(teacher(prepared[teacher.preprocessing], rows=len(batch.index)))
        return answers


class FastTeacher:
    """A frozen network in the form in which it answers fastest: normalisations folded into the layers before them,
    channels_last, and weights in bfloat16 where the stage computes in it.

    A row of a small batch can come out with other bits than the same row of a large one, because matrix products
    take other paths for a few rows. So a batch is filled up, with its own images, to a multiple of 16 for each
    thread; among such batches no difference was seen.
    """

    def __init__(self, teacher: Teacher, training: Training, *, size: tuple[int, int]) -> None:
        self.teacher, self.training, self.size = teacher, training, size
        self.preprocessing = teacher.preprocessing
        self.model: nn.Module | None = None
        self.loading = threading.Lock()

    def prepared(self, pixels: Tensor) -> Tensor:
        """Images ``(batch, channels, height, width)`` as the network takes them, filled up."""
        multiple = _ROWS_A_THREAD * (self.training.threads if self.training.device == "cpu" else 1)
        missing = -len(pixels) % multiple
        if missing:
            again = torch.arange(missing, device=pixels.device) % len(pixels)
            pixels = torch.cat([pixels, pixels[again]])
        return self.preprocessing(pixels)

    def ready(self) -> nn.Module:
        """The network; made at the first call."""
        with self.loading:
            if self.model is None:
                self.model = self._made()
            return self.model

    @torch.no_grad()
    def _made(self) -> nn.Module:
        device = self.training.device
        model = self.teacher.load().to(device, memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]
        drawn = torch.Generator().manual_seed(0)
        example = torch.randn(16, len(self.preprocessing.mean), *self.size, generator=drawn)
        model = folded(model, example.to(device))
        if self.training.precision == "bf16":
            for layer in model.modules():
                if type(layer) in (nn.Conv2d, nn.Linear):
                    layer.to(torch.bfloat16)
        made: nn.Module = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return made

    def __call__(self, prepared: Tensor, *, rows: int) -> Tensor:
        """Logits ``(rows, classes)`` float32."""
        model = self.ready()
        with torch.inference_mode(), precision.autocast(self.training):
            answer: Tensor = model(prepared)
        # outside: what is made in inference mode may not take part in a backward pass
        return answer[:rows].to(torch.float32, copy=True)


class SeeingTeacher:
    """A frozen network whose layers are looked at. It is not folded: a folded layer gives something else."""

    def __init__(self, teacher: Teacher, names: Sequence[str], training: Training) -> None:
        self.teacher, self.names, self.training = teacher, tuple(names), training
        self.model: nn.Module | None = None
        self.capture: Features | None = None

    def ready(self) -> nn.Module:
        """The network; made at the first call."""
        if self.model is None:
            with torch.random.fork_rng(devices=[]):
                model = self.teacher.load().eval().requires_grad_(False)
            self.model = model.to(device=self.training.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self.model

    def shapes(self, dataset: Dataset) -> dict[str, tuple[int, ...]]:
        """Output shapes, without the batch, of the named layers; those that it does not have are left out."""
        size = self.teacher.preprocessing.size or (dataset.height, dataset.width)
        found = layer_shapes(self.ready(), channels=dataset.channels, size=size)
        return {name: found[name] for name in self.names if name in found}

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """What the named layers give, float32."""
        if self.capture is None:
            self.capture = Features(self.ready(), self.names)
        images = self.teacher.preprocessing(batch.pixels.to(self.training.device, non_blocking=True))
        with torch.inference_mode(), precision.autocast(self.training):
            _, found = self.capture(images)
        return {name: value.to(torch.float32, copy=True) for name, value in found.items()}
