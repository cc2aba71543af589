from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from understudy.data import Dataset, MemoryImages, Split
from understudy.data.batches import Batch, batch_of
from understudy.data.views import PLAIN
from understudy.errors import BadInput, Interrupted
from understudy.models.preprocessing import Preprocessing
from understudy.store import Store
from understudy.store.signals import SignalFiles
from understudy.training import Training
from understudy.training.signals import Signals
from understudy.training.teachers import FrozenTeachers, Lookup, Teacher

USUAL = Preprocessing(mean=(0.5,), std=(0.25,))
OTHER = Preprocessing(mean=(0.1,), std=(0.5,))
LARGER = Preprocessing(mean=(0.5,), std=(0.25,), size=(12, 12))


def made_model(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    model(torch.randn(16, 1, 6, 6))  # statistics other than the initial ones
    return model


def made_batch(size: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        index=torch.arange(size),
        pixels=torch.randint(0, 256, (size, 1, 6, 6), dtype=torch.uint8, generator=generator),
        labels=torch.zeros(size, dtype=torch.int64),
    )


DATA = Dataset(
    name="made up",
    train=Split(images=MemoryImages(np.zeros((9, 6, 6, 1), np.uint8)), labels=np.zeros(9, np.int64)),
    validation=Split(images=MemoryImages(np.zeros((0, 6, 6, 1), np.uint8)), labels=np.zeros(0, np.int64)),
    test=Split(images=MemoryImages(np.zeros((0, 6, 6, 1), np.uint8)), labels=np.zeros(0, np.int64)),
    class_names=tuple("abcde"),
    height=6,
    width=6,
    channels=1,
    mean=(0.5,),
    std=(0.25,),
    fingerprint="made up",
)
EXACT = Signals(dtype="float32")
FLOAT32 = Training(precision="fp32", device="cpu")


def frozen(
    *teachers: Teacher | Lookup, signals: Signals = EXACT, training: Training = FLOAT32, **more: Any
) -> FrozenTeachers:
    said = {"dataset": DATA, "views": [], **more}
    return FrozenTeachers(teachers, training=training, signals=signals, **said)


def teacher_of(model: nn.Module, preprocessing: Preprocessing = USUAL) -> Teacher:
    return Teacher(load=lambda: model, preprocessing=preprocessing)


def three() -> list[Teacher]:
    return [
        teacher_of(made_model(seed), preprocessing)
        for seed, preprocessing in enumerate((USUAL, OTHER, LARGER))
    ]


def centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(-1, keepdim=True)


def answer(teacher: Teacher, batch: Batch) -> Tensor:
    with torch.no_grad():
        logits: Tensor = teacher.load().eval()(teacher.preprocessing(batch.pixels))
    return centred(logits)


def test_each_teacher_sees_the_pixels_through_its_own_preprocessing() -> None:
    teachers, batch = three(), made_batch()
    logits = frozen(*teachers).logits([0, 1, 2], batch)
    assert logits.shape == (3, 8, 5)
    assert logits.dtype == torch.float32
    for given, teacher in zip(logits, teachers, strict=True):
        torch.testing.assert_close(given, answer(teacher, batch))
    same_weights = [teacher_of(made_model(0), p) for p in (USUAL, OTHER, LARGER)]
    one, other, larger = frozen(*same_weights).logits([0, 1, 2], batch)
    assert not torch.equal(one, other)
    assert not torch.equal(one, larger)


@pytest.mark.parametrize("which", [[0], [2, 0], [1, 2], [2, 1, 0]])
def test_answers_come_in_the_order_asked(which: list[int]) -> None:
    teachers, batch = frozen(*three()), made_batch()
    everyone = teachers.logits([0, 1, 2], batch)
    assert torch.equal(teachers.logits(which, batch), everyone[which])


class Counting(nn.Module):
    """Counts its passes in the tensor it is given; no hook, so that nothing keeps it from being folded."""

    def __init__(self, ran: list[int]) -> None:
        super().__init__()
        self.inner, self.ran = made_model(0), ran

    def __deepcopy__(self, memo: object) -> Counting:
        return Counting(self.ran)

    def forward(self, images: Tensor) -> Tensor:
        self.ran.append(len(images))
        answer: Tensor = self.inner(images)
        return answer


def test_only_those_who_are_asked_are_loaded_and_run() -> None:
    loaded = Counter[int]()

    def load(position: int) -> nn.Module:
        loaded.update([position])
        return made_model(position)

    ready = frozen(*(Teacher(load=partial(load, n), preprocessing=USUAL) for n in range(3)))
    assert len(ready) == 3
    assert not loaded
    ready.logits([1], made_batch())
    ready.logits([1, 2], made_batch())
    assert loaded == Counter({1: 1, 2: 1})


def test_a_small_batch_is_filled_up_and_a_whole_one_is_not() -> None:
    ran: list[int] = []
    ready = frozen(teacher_of(Counting(ran)))
    ready.logits([0], made_batch(16))
    ran.clear()
    for size in (1, 2, 15, 16, 17):
        assert ready.logits([0], made_batch(size)).shape == (1, size, 5)
    assert ran == [16, 16, 16, 16, 32]
    two_threads = frozen(teacher_of(Counting(ran)), training=replace(FLOAT32, threads=2))
    ran.clear()
    two_threads.logits([0], made_batch(17))
    assert ran[-1] == 32


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_answer_for_an_example_is_the_same_bits_in_every_batch(
    precision: Literal["fp32", "bf16"],
) -> None:
    ready, batch = frozen(*three(), training=replace(FLOAT32, precision=precision)), made_batch(70)
    whole = ready.logits([0, 1, 2], batch)
    for order in (torch.arange(69, -1, -1), torch.tensor([3]), torch.tensor([5, 4, 69]), torch.arange(9)):
        part = Batch(index=order, pixels=batch.pixels[order], labels=batch.labels[order])
        assert torch.equal(ready.logits([0, 1, 2], part), whole[:, order])


def test_teachers_answer_in_eval_mode_and_without_gradient() -> None:
    models = [made_model(seed).train() for seed in range(3)]
    ready = frozen(*(teacher_of(model) for model in models))
    batch = made_batch()
    logits = ready.logits([0, 1, 2], batch)
    assert not logits.requires_grad
    assert torch.equal(logits, ready.logits([0, 1, 2], batch))  # no dropout
    for model, said in zip(models, logits, strict=True):
        torch.testing.assert_close(said, answer(teacher_of(model), batch))
    student = torch.zeros(8, 5, requires_grad=True)
    (student * logits[0]).square().sum().backward()  # what is kept for the backward pass may be an answer
    assert all(parameter.grad is None for model in models for parameter in model.parameters())


def test_an_answer_has_no_gradient_whatever_else_a_teacher_is_made_of() -> None:
    class Odd(nn.Module):
        """Holds a tensor that is no parameter, and so is not frozen with them."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.ones(1, requires_grad=True)

        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3)).expand(-1, 5) * self.scale

    ready = frozen(teacher_of(Odd()))
    assert not ready.logits([0], made_batch()).requires_grad


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_teaching_changes_no_bit_of_a_teacher_buffers_included(precision: Literal["fp32", "bf16"]) -> None:
    models = [made_model(seed) for seed in range(3)]
    before = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for model in models]
    assert any("running_mean" in name for name in before[0])
    ready = frozen(*(teacher_of(model) for model in models), training=replace(FLOAT32, precision=precision))
    for _ in range(5):
        ready.logits([0, 1, 2], made_batch())
    for model, kept in zip(models, before, strict=True):
        assert model.state_dict().keys() == kept.keys()
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, kept[name]), name


def test_the_batch_is_left_as_it_was() -> None:
    batch = made_batch()
    before = batch.pixels.clone()
    frozen(*three()).logits([0, 1, 2], batch)
    assert torch.equal(batch.pixels, before)


def test_asking_draws_no_random_number() -> None:
    ready, batch = frozen(*three()), made_batch()
    ready.logits([0, 1, 2], batch)  # building a network may, and its stage has put the generator back
    before = torch.get_rng_state()
    ready.logits([0, 1, 2], batch)
    assert torch.equal(torch.get_rng_state(), before)


def test_bfloat16_teachers_answer_nearly_as_float32_ones() -> None:
    batch = made_batch(32)
    exact = frozen(*three()).logits([0, 1, 2], batch)
    rounded = frozen(*three(), training=replace(FLOAT32, precision="bf16")).logits([0, 1, 2], batch)
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0.05)


def test_what_a_file_said_is_looked_up_by_sample_and_heard_like_a_teacher() -> None:
    said = torch.randn(9, 5)
    batch = made_batch(4)
    turned = Batch(index=torch.tensor([8, 0, 3, 3]), pixels=batch.pixels, labels=batch.labels)
    heard = frozen(Lookup(answers=said), *three()).logits([1, 0], turned)
    torch.testing.assert_close(heard[1], centred(said)[turned.index])
    torch.testing.assert_close(heard[0], answer(three()[0], batch))
    half = frozen(Lookup(answers=said), signals=Signals()).logits([0], turned)
    assert torch.equal(half[0], heard[1].half().float())


def test_what_is_kept_of_an_answer_is_what_a_live_teacher_gives() -> None:
    batch = made_batch()
    exact = frozen(*three()).logits([0, 1, 2], batch)
    for signals in (Signals(), Signals(top_k=2), Signals(top_k=2, dtype="float32")):
        heard = frozen(*three(), signals=signals).logits([0, 1, 2], batch)
        for said, given in zip(exact, heard, strict=True):
            expected = signals.decode(signals.encode(said), classes=5)
            torch.testing.assert_close(
                given, expected, rtol=0, atol=1e-6 if signals.dtype == "float32" else 1e-3
            )


def test_no_teachers_are_possible() -> None:
    assert len(frozen()) == 0


# --------------------------------------------------------------------------------------- all plain images, and layers
def many(samples: int = 300) -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (samples, 6, 6, 1)).astype(np.uint8)
    labels = np.zeros(samples, np.int64)
    return replace(DATA, train=Split(images=MemoryImages(pixels), labels=labels))


def whole(dataset: Dataset) -> Batch:
    return batch_of(dataset.train, PLAIN, np.arange(len(dataset.train)))


@pytest.mark.parametrize("signals", [EXACT, Signals(), Signals(top_k=2)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_answers_to_all_plain_images_are_the_bits_of_any_other_answer(
    signals: Signals, precision: Literal["fp32", "bf16"]
) -> None:
    said = {"signals": signals, "training": replace(FLOAT32, precision=precision), "dataset": many()}
    found = frozen(*three(), **said).plain([0, 1, 2])
    assert found.shape == (3, 300, 5)
    assert found.dtype == torch.float32
    assert found.device.type == "cpu"
    batch = whole(many())
    assert torch.equal(found, frozen(*three(), **said).logits([0, 1, 2], batch))


def test_answers_to_all_plain_images_are_those_that_are_kept_in_bulk(tmp_path: Path) -> None:
    signals = Signals()
    Store(tmp_path).prepare()

    def heard(*, live: bool) -> FrozenTeachers:
        made = []
        for position, teacher in enumerate(three()):
            files = SignalFiles(
                store=Store(tmp_path),
                key=f"{position:040x}",
                definition={"teacher": position},
                samples=300,
                row_bytes=signals.row_bytes(classes=5),
            )
            made.append(teacher if live else replace(teacher, kept=files))
        return frozen(*made, signals=signals, dataset=many(), views=[PLAIN])

    with heard(live=False) as kept, heard(live=True) as live:
        in_bulk = kept.logits([0, 1, 2], whole(many()))  # the view is the plain one: kept
        assert torch.equal(live.plain([0, 1, 2]), in_bulk)
        assert torch.equal(kept.plain([2, 0]), in_bulk[[2, 0]])
    assert list(tmp_path.rglob("view-*"))


def test_plain_images_are_looked_at_once_and_by_those_who_are_asked() -> None:
    ran: list[int] = []
    loaded = Counter[int]()

    def load(position: int) -> nn.Module:
        loaded.update([position])
        return Counting(ran)

    ready = frozen(*(Teacher(load=partial(load, n), preprocessing=USUAL) for n in range(3)), dataset=many(40))
    first = ready.plain([1])
    looks = len(ran)
    assert loaded == Counter({1: 1})
    assert torch.equal(ready.plain([1])[0], first[0])
    assert len(ran) == looks
    both = ready.plain([2, 1])
    assert loaded == Counter({1: 1, 2: 1})
    assert torch.equal(both[1], first[0])


def test_what_a_file_said_is_what_it_says_of_the_plain_images() -> None:
    said = torch.randn(300, 5)
    ready = frozen(Lookup(answers=said), three()[0], dataset=many())
    torch.testing.assert_close(ready.plain([1, 0])[1], centred(said))


def test_looking_at_the_plain_images_can_be_stopped() -> None:
    ready = frozen(*three(), dataset=many(), stop=lambda: True)
    with pytest.raises(Interrupted, match="stopped while teachers looked at the plain images"):
        ready.plain([0])
    assert ready.seen == {}


def test_asking_for_plain_answers_draws_no_random_number() -> None:
    ready = frozen(*three(), dataset=many(40))
    ready.load([0, 1, 2])
    before = torch.get_rng_state()
    ready.plain([0, 1, 2])
    assert torch.equal(torch.get_rng_state(), before)


def hooked(teacher: Teacher, names: Sequence[str], batch: Batch) -> dict[str, Tensor]:
    """What layers give, by hand."""
    found: dict[str, Tensor] = {}
    model = teacher.load().eval()
    for name in names:
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: found.update({name: output.detach().clone()})
        )
    with torch.no_grad():
        model(teacher.preprocessing(batch.pixels))
    return found


def fresh(seed: int, preprocessing: Preprocessing = USUAL) -> Teacher:
    return Teacher(load=partial(made_model, seed), preprocessing=preprocessing)


NAMES = ("0", "1", "4", "6")  # the convolution, its normalisation, the pooled map, the head


def test_layers_give_what_a_hook_finds_there_and_nothing_is_folded() -> None:
    ones = [fresh(0), fresh(1, OTHER), fresh(2, LARGER)]
    ready = frozen(*ones, features=[NAMES, (), NAMES[1:]])
    batch = made_batch()
    for position, names in ((0, NAMES), (2, NAMES[1:])):
        found, expected = ready.features(position, batch), hooked(ones[position], names, batch)
        assert list(found) == list(names)
        for name in names:
            torch.testing.assert_close(found[name], expected[name])
            assert found[name].dtype == torch.float32
    # folded, the convolution would give what its normalisation does
    found = ready.features(0, batch)
    assert (found["0"] - found["1"]).abs().max() > 0.01
    with pytest.raises(KeyError):
        ready.features(1, batch)


def test_the_shapes_of_layers_are_told_and_those_that_are_not_there_left_out() -> None:
    ready = frozen(fresh(0), fresh(1), fresh(2, LARGER), features=[("0", "4", "99"), (), ("0",)])
    assert ready.shapes() == [{"0": (4, 4, 4), "4": (4, 2, 2)}, {}, {"0": (4, 10, 10)}]
    assert frozen(fresh(0)).shapes() == [{}]


def test_features_take_part_in_a_backward_pass_and_have_no_gradient() -> None:
    ready = frozen(fresh(0), features=[("0",)])
    found = ready.features(0, made_batch())["0"]
    assert not found.requires_grad
    student = torch.zeros_like(found).requires_grad_()
    (student * found).sum().backward()
    assert torch.equal(student.grad, found)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_looking_at_layers_changes_no_bit_of_a_teacher_and_draws_nothing(
    precision: Literal["fp32", "bf16"],
) -> None:
    model = made_model(0).train()
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ready = frozen(teacher_of(model), features=[("0", "6")], training=replace(FLOAT32, precision=precision))
    before = torch.get_rng_state()
    for _ in range(3):
        found = ready.features(0, made_batch())
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())
    assert all(tensor.dtype == torch.float32 for tensor in found.values())
    exact = hooked(fresh(0), ("0", "6"), made_batch())
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, exact[name], atol=0.05 if precision == "bf16" else 1e-5, rtol=0.05)


def test_building_a_teacher_that_is_looked_at_shifts_no_draw() -> None:
    ready = frozen(fresh(0), features=[("0",)])
    before = torch.get_rng_state()
    ready.features(0, made_batch())
    assert torch.equal(torch.get_rng_state(), before)


def test_answers_of_a_teacher_that_is_looked_at_are_as_before() -> None:
    ready, batch = frozen(fresh(0), fresh(1), features=[("1",), ()]), made_batch()
    ready.features(0, batch)
    assert torch.equal(ready.logits([0, 1], batch), frozen(fresh(0), fresh(1)).logits([0, 1], batch))


def test_a_list_of_answers_has_no_layers() -> None:
    with pytest.raises(BadInput) as error:
        frozen(Lookup(answers=torch.zeros(9, 5)), features=[("0",)])
    assert str(error.value) == (
        "a teacher is an array of logits, and what its layers give is asked for: give the network itself."
    )
