"""Sparse codes: both losses in numpy, what is trained and what is not, what is handed on, and exact resumes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.ladder.tiny import network, same_tensors, training
from tests.teaching.toys import drawn, made_step
from tests.training.test_loop import DATA, PREPARED, Stop, log_of, normalised, trained, weights
from understudy.data.views import ViewPolicy
from understudy.errors import BadInput, Interrupted
from understudy.losses.sparse_codes import Dictionary
from understudy.models.features import Features
from understudy.teaching import Beginning, Method, Step
from understudy.teaching.around import Around
from understudy.teaching.sparse_codes import Dictionaries, SparseCodes, learnt_on
from understudy.training.teachers import Lookup, Teacher

LAYERS = ("features.pool1", "features.relu4", "features.pool2")  # of the teacher: 8x4x4, 16x4x4, 16x2x2
PAIRS = (("features.pool1", "features.relu4"), ("features.pool2", "features.pool2"))
TEACHES = ("features.relu4", "features.pool2")
SHAPES = {"a": (3, 2, 2), "b": (5,)}


def beginning(
    shapes: Mapping[str, tuple[int, ...]],
    teacher_shapes: Mapping[str, tuple[int, ...]] | None = None,
    handed: Mapping[str, Tensor] | None = None,
) -> Beginning:
    return Beginning(
        model=nn.Linear(1, 1),
        labels=np.arange(8) % 4,
        classes=4,
        epochs=2,
        seed=0,
        shapes=shapes,
        teacher_shapes=[teacher_shapes or {}],
        handed=None if handed is None else [handed],
    )


@cache
def teacher_state() -> dict[str, Tensor]:
    torch.manual_seed(5)
    model = network("plain_cnn-4").build(DATA).train()
    with torch.no_grad():
        model(drawn(64, 1, 8, 8))  # statistics other than the initial ones
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def teacher_model() -> nn.Module:
    model = network("plain_cnn-4").build(DATA)
    model.load_state_dict(teacher_state())
    return model


def teacher() -> Teacher:
    return Teacher(load=teacher_model, preprocessing=PREPARED)


# ------------------------------------------------------------------------------------------------ by hand, in numpy
def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-x)))


def codes_by_hand(
    x: NDArray[np.float64], atoms: NDArray[np.float64], c: float, k: int
) -> NDArray[np.float64]:
    """``(batch, channels, height, width)`` to ``(batch, atoms, height, width)``."""
    found = np.zeros((len(x), atoms.shape[1], *x.shape[2:]))
    for b, i, j in np.ndindex(len(x), *x.shape[2:]):
        s = sigmoid(atoms.T @ x[b, :, i, j] + c)
        for m in np.argsort(-s)[:k]:
            found[b, m, i, j] = s[m]
    return found


def as_maps(x: Tensor) -> NDArray[np.float64]:
    array = x.double().numpy()
    return array if array.ndim == 4 else array[:, :, None, None]


def of(dictionary: Dictionary) -> tuple[NDArray[np.float64], float]:
    return dictionary.weight.detach().double().numpy(), float(dictionary.intercept.detach())


def test_the_loss_of_dictionaries_is_the_squared_rest() -> None:
    method = Dictionaries(layers=("a", "b"), atoms=2.0, sparsity=0.3).for_stage(teachers=0)
    torch.manual_seed(3)
    method.begin(beginning(SHAPES))
    features = {"a": drawn(4, 3, 2, 2), "b": drawn(4, 5, seed=1)}
    step = replace(
        made_step(torch.zeros(4, 4), torch.zeros(4).long()),
        student_features=lambda batch: (torch.zeros(4, 4), features),
    )
    parts = method.loss(step)
    assert method.kept == {"a": 1, "b": 3}  # 3 * 0.6 and 5 * 0.6, truncated
    for layer, k in method.kept.items():
        atoms, c = of(method.dictionaries[layer])
        x = as_maps(features[layer])
        back = np.einsum("dm,bmij->bdij", atoms, codes_by_hand(x, atoms, c, k))
        assert parts[layer].item() == pytest.approx(((back - x) ** 2).mean(), rel=1e-5)
    assert parts["total"].item() == pytest.approx(parts["a"].item() + parts["b"].item(), rel=1e-6)


def begun(handed: Mapping[str, Tensor] | None = None, **said: Any) -> SparseCodes:
    method = SparseCodes(**{"pairs": (("s", "a"), ("t", "b")), "sparsity": 0.3, **said}).for_stage(teachers=1)
    torch.manual_seed(3)
    method.begin(beginning({"s": (4, 2, 2), "t": (7,)}, SHAPES, handed))
    return method


def codes_step() -> tuple[Step, dict[str, Tensor], dict[str, Tensor]]:
    student = {"s": drawn(4, 4, 2, 2, seed=2).requires_grad_(), "t": drawn(4, 7, seed=3).requires_grad_()}
    teaching = {"a": drawn(4, 3, 2, 2), "b": drawn(4, 5, seed=1)}
    step = replace(
        made_step(torch.zeros(4, 4), torch.zeros(4).long()),
        student_features=lambda batch: (torch.zeros(4, 4), student),
        teacher_features=lambda position, batch: teaching,
    )
    return step, student, teaching


@pytest.mark.parametrize("local_logits", ["sigmoid", "pre_sigmoid"])
@pytest.mark.parametrize("labels", ["both", "pixel", "image"])
def test_the_loss_of_codes_is_that_of_their_labels(labels: Any, local_logits: Any) -> None:
    method = begun(labels=labels, local_logits=local_logits)
    step, student, teaching = codes_step()
    parts = method.loss(step)
    pixels = whole = 0.0
    for position, (own, other) in enumerate(method.pairs):
        atoms, c = of(method.dictionaries[position])
        codes = codes_by_hand(as_maps(teaching[other]), atoms, c, method.kept[position])
        e, c2 = of(method.predictors[position])
        pre = np.einsum("dm,bdij->bmij", e, as_maps(student[own].detach())) + c2
        p = sigmoid(pre)
        scores = p if local_logits == "sigmoid" else pre
        nearest = codes.argmax(1)
        log_q = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        pixels += -np.take_along_axis(log_q, nearest[:, None], 1).mean()
        mean, g = p.mean((2, 3)), codes.mean((2, 3))
        whole += -(g * np.log(mean) + (1 - g) * np.log(1 - mean)).mean()
    expected = {"pixels": pixels, "images": whole}
    if labels != "both":
        del expected["images" if labels == "pixel" else "pixels"]
    assert set(parts) == {"total", *expected}
    for name, value in expected.items():
        assert parts[name].item() == pytest.approx(value, rel=1e-5)
    assert parts["total"].item() == pytest.approx(sum(expected.values()), rel=1e-5)


def test_the_codes_have_no_gradient_and_the_students_side_has() -> None:
    method = begun()
    step, student, teaching = codes_step()
    for tensor in teaching.values():
        tensor.requires_grad_()
    method.loss(step)["total"].backward()
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in student.values())
    assert all(tensor.grad is None for tensor in teaching.values())
    assert all(not p.requires_grad for one in method.dictionaries for p in one.parameters())
    assert all(p.grad is not None for module in method.modules().values() for p in module.parameters())
    assert list(method.modules()) == ["predictor0", "predictor1"]


def test_with_sigmoid_logits_the_first_term_stays_large() -> None:
    atoms = 256
    floor, alike = math.log(math.e + atoms - 1) - 1, math.log(atoms)
    assert (round(floor, 4), round(alike, 4)) == (4.5519, 5.5452)
    method = SparseCodes(pairs=(("s", "a"),), atoms=2.0, sparsity=0.02, labels="pixel").for_stage(teachers=1)
    method.begin(beginning({"s": (1, 4, 4)}, {"a": (128, 4, 4)}))
    step = replace(
        made_step(torch.zeros(2, 4), torch.zeros(2).long()),
        student_features=lambda batch: (torch.zeros(2, 4), {"s": drawn(2, 1, 4, 4)}),
        teacher_features=lambda position, batch: {"a": drawn(2, 128, 4, 4, seed=1)},
    )
    with torch.no_grad():
        for scale, least, most in ((0.0, alike - 1e-3, alike + 1e-3), (1e4, floor, math.log(math.e * atoms))):
            method.predictors[0].weight.copy_(scale * drawn(1, atoms))
            method.predictors[0].intercept.zero_()
            assert least <= method.loss(step)["pixels"].item() <= most


# ---------------------------------------------------------------------------------------------- handing dictionaries on
@cache
def dictionaries_state() -> dict[str, Tensor]:
    """Dictionaries of the teacher's layers that are matched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        made = [Dictionary(16, 32), Dictionary(16, 32)]
    return {
        f"dictionary{i}.{name}": tensor.detach().clone()
        for i, one in enumerate(made)
        for name, tensor in one.state_dict().items()
    }


def test_dictionaries_are_taken_over_by_their_layer() -> None:
    handed = {
        "dictionary0.weight": drawn(3, 6),
        "dictionary0.intercept": torch.tensor(0.5),
        "dictionary1.weight": drawn(5, 10, seed=1),
        "dictionary1.intercept": torch.tensor(-0.5),
        "something else": torch.zeros(1),
    }
    method = begun(handed)
    assert torch.equal(method.dictionaries[0].weight, handed["dictionary0.weight"])
    assert torch.equal(method.dictionaries[1].intercept, handed["dictionary1.intercept"])
    # a layer that teaches two has one dictionary
    twice = SparseCodes(pairs=(("s", "a"), ("u", "a"), ("t", "b"))).for_stage(teachers=1)
    twice.begin(beginning({"s": (4, 2, 2), "u": (2, 2, 2), "t": (7,)}, SHAPES, handed))
    assert [len(one.weight) for one in twice.dictionaries] == [3, 3, 5]
    assert torch.equal(twice.dictionaries[1].weight, handed["dictionary0.weight"])
    assert torch.equal(twice.dictionaries[2].weight, handed["dictionary1.weight"])


def test_a_dictionary_that_was_learnt_on_another_layer_codes_this_one() -> None:
    handed = {
        "dictionary0.weight": drawn(3, 6),
        "dictionary0.intercept": torch.tensor(0.5),
        "dictionary1.weight": drawn(5, 10, seed=1),
        "dictionary1.intercept": torch.tensor(-0.5),
    }
    pairs = (("s", "a"), ("t", "b"))
    usual, other = begun(handed), begun(handed, dictionary_layers={"a": "later"})
    assert learnt_on(pairs, {"a": "later"}) == ("later", "b")
    assert usual.needs() == other.needs()  # codes are taken of the layer that is matched
    step, _, _ = codes_step()
    assert all(torch.equal(value, usual.loss(step)[name]) for name, value in other.loss(step).items())
    # where the other layer is matched as well, both have its dictionary
    both = SparseCodes(
        pairs=(("s", "a"), ("u", "c"), ("t", "b")), sparsity=0.3, dictionary_layers={"a": "c"}
    ).for_stage(teachers=1)
    assert learnt_on(both.pairs, both.dictionary_layers) == ("c", "b")
    both.begin(beginning({"s": (4, 2, 2), "u": (2, 2, 2), "t": (7,)}, {**SHAPES, "c": (3, 2, 2)}, handed))
    for i, position in enumerate((0, 0, 1)):
        assert torch.equal(both.dictionaries[i].weight, handed[f"dictionary{position}.weight"])


def test_predictors_are_drawn_alike_whatever_is_handed_on() -> None:
    one, other = (
        begun(),
        begun(
            {
                "dictionary0.weight": drawn(3, 6),
                "dictionary0.intercept": torch.tensor(0.5),
                "dictionary1.weight": drawn(5, 10, seed=1),
                "dictionary1.intercept": torch.tensor(-0.5),
            }
        ),
    )
    for mine, theirs in zip(one.predictors, other.predictors, strict=True):
        assert same_tensors(dict(mine.state_dict()), dict(theirs.state_dict()))


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        ({"dictionary0.weight": None}, "none"),
        ({"dictionary0.weight": drawn(3, 9)}, "one of shape (3, 9)"),
        ({"dictionary0.weight": drawn(4, 6)}, "one of shape (4, 6)"),
    ],
)
def test_dictionaries_that_do_not_fit_are_refused_in_one_line(
    changed: dict[str, Tensor | None], left: str
) -> None:
    fitting: dict[str, Tensor | None] = {
        "dictionary0.weight": drawn(3, 6),
        "dictionary0.intercept": torch.zeros(()),
    }
    handed = {name: tensor for name, tensor in {**fitting, **changed}.items() if tensor is not None}
    with pytest.raises(BadInput) as error:
        begun(handed)
    assert str(error.value) == (
        "sparse codes need a dictionary for the teacher's 'a', its weight of shape (3, 6); the teacher's stage left "
        f"{left}. Let it learn them (Dictionaries) with the same layers in order and atoms."
    )


# ----------------------------------------------------------------------------------------------------- the first stage
LEARNING = training(epochs=6, lr=0.3, weight_decay=0.0, schedule="constant")


@pytest.mark.parametrize(
    "said",
    [
        LEARNING,
        replace(LEARNING, weight_decay=1e-3, ema=0.5, accumulate=2),
        replace(LEARNING, optimizer="adamw", lr=0.01, weight_decay=0.1),
    ],
)
def test_learning_dictionaries_leaves_the_teacher_as_it_was_bit_for_bit(tmp_path: Path, said: Any) -> None:
    policy = ViewPolicy(crop=1, flip=True)
    method = Dictionaries(layers=LAYERS)
    done = trained(tmp_path, teacher_model, method, said=said, policy=policy)
    assert same_tensors(weights(done), teacher_state())
    lines = log_of(tmp_path)
    assert set(lines[0]["loss"]) == {"total", *LAYERS}
    for part in ("total", *LAYERS):
        assert lines[-1]["loss"][part] < lines[0]["loss"][part]
    assert set(done.artefacts) == {
        f"dictionary{i}.{name}" for i in range(3) for name in ("weight", "intercept")
    }
    assert [tuple(done.artefacts[f"dictionary{i}.weight"].shape) for i in range(3)] == [
        (8, 16),
        (16, 32),
        (16, 32),
    ]
    assert lines[0]["validation"] == lines[-1]["validation"]  # the same network all the time


def test_the_teacher_is_looked_at_in_eval_mode(tmp_path: Path) -> None:
    modes: list[bool] = []

    class Telling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = teacher_model()

        def forward(self, images: Tensor) -> Tensor:
            modes.extend(module.training for module in self.modules())
            answer: Tensor = self.inner(images)
            return answer

    trained(tmp_path, Telling, Dictionaries(layers=("inner.features.pool1",)))
    assert modes
    assert not any(modes)


IN_TRAINING = Dictionaries(layers=TEACHES, teacher_mode="train")


def test_in_training_mode_only_the_statistics_of_the_teacher_drift_batch_by_batch(tmp_path: Path) -> None:
    shown: list[Tensor] = []

    class Looking(Dictionaries):
        def loss(self, step: Step) -> dict[str, Tensor]:
            shown.append(step.batch.pixels)
            return super().loss(step)

    done = trained(
        tmp_path,
        teacher_model,
        Looking(layers=TEACHES, teacher_mode="train"),
        said=LEARNING,
        policy=ViewPolicy(crop=1, flip=True),
    )
    by_hand = teacher_model().train()
    with torch.no_grad():
        for pixels in shown:
            by_hand(PREPARED(pixels))
    assert len(shown) == 18
    assert same_tensors(weights(done), dict(by_hand.state_dict()))
    drifted = [
        name for name, tensor in weights(done).items() if not torch.equal(tensor, teacher_state()[name])
    ]
    assert drifted
    assert {name.rpartition(".")[2] for name in drifted} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }


def test_in_training_mode_dictionaries_learn_features_that_their_batch_normalises() -> None:
    model = teacher_model().eval()
    features = Features(model, TEACHES)
    batch = drawn(16, 1, 8, 8)
    method = replace(IN_TRAINING).for_stage(teachers=0)
    torch.manual_seed(3)
    shapes = {"features.relu4": (16, 4, 4), "features.pool2": (16, 2, 2)}
    method.begin(replace(beginning(shapes), model=model))
    step = replace(
        made_step(torch.zeros(16, 4), torch.zeros(16).long()), student_features=lambda _: features(batch)
    )
    parts = method.loss(step)
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        _, normalised_here = Features(teacher_model().train(), TEACHES)(batch)
        _, usual = Features(teacher_model().eval(), TEACHES)(batch)
    for layer in TEACHES:
        atoms, c = of(method.dictionaries[layer])
        found = []
        for x in (as_maps(normalised_here[layer]), as_maps(usual[layer])):
            back = np.einsum("dm,bmij->bdij", atoms, codes_by_hand(x, atoms, c, method.kept[layer]))
            found.append(((back - x) ** 2).mean())
        assert parts[layer].item() == pytest.approx(found[0], rel=1e-4)
        assert parts[layer].item() != pytest.approx(found[1], rel=1e-2)


@dataclass(kw_only=True)
class Passing(Around):
    """Another method, unchanged."""

    name = "passing"

    method: Method

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return self.method.definition(teachers=teachers)

    def for_stage(self, *, teachers: int) -> Passing:
        return replace(self, method=self.method.for_stage(teachers=teachers))


def test_a_method_around_leaves_the_teacher_as_it_was_too(tmp_path: Path) -> None:
    around = Passing(method=Dictionaries(layers=LAYERS))
    one = trained(tmp_path / "a", teacher_model, around, said=LEARNING)
    other = trained(tmp_path / "b", teacher_model, Dictionaries(layers=LAYERS), said=LEARNING)
    assert same_tensors(weights(one), teacher_state())
    assert same_tensors(dict(one.artefacts), dict(other.artefacts))


# ---------------------------------------------------------------------------------------------------- the second stage
def kept_method(into: list[SparseCodes], **said: Any) -> SparseCodes:
    class Kept(SparseCodes):
        def for_stage(self, *, teachers: int) -> SparseCodes:
            into.append(super().for_stage(teachers=teachers))
            return into[-1]

    return Kept(pairs=PAIRS, **said)


def second(folder: Path, method: Method | None = None, **more: Any) -> Any:
    said = {"said": training(epochs=3, weight_decay=0.05), **more}
    return trained(
        folder,
        normalised,
        method or SparseCodes(pairs=PAIRS),
        speakers=[teacher()],
        handed=[dictionaries_state()],
        **said,
    )


def initial() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {name: tensor.clone() for name, tensor in normalised().state_dict().items()}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("labels", ["both", "pixel", "image"])
def test_the_classifier_stays_as_it_was_drawn(tmp_path: Path, optimizer: str, labels: Any) -> None:
    said = training(epochs=3, weight_decay=0.05, optimizer=optimizer, clip=1.0)
    done = second(tmp_path, SparseCodes(pairs=PAIRS, labels=labels), said=said)
    before = initial()
    for name, tensor in weights(done).items():
        if name.startswith("classifier") or not tensor.is_floating_point():
            continue
        moved = not torch.equal(tensor, before[name])
        # the bias of a convolution before a normalisation has no effect, and no gradient but rounding
        assert moved or name.endswith(("conv1.bias", "conv2.bias")), name
    for name in ("classifier.output.weight", "classifier.output.bias"):
        assert torch.equal(weights(done)[name], before[name])


def test_the_predictors_are_trained_and_thrown_away_and_the_dictionaries_stay(tmp_path: Path) -> None:
    into: list[SparseCodes] = []
    done = second(tmp_path, kept_method(into))
    (method,) = into
    assert dict(done.artefacts) == {}
    assert set(weights(done)) == set(initial())
    handed = dictionaries_state()
    for i, one in enumerate(method.dictionaries):
        assert same_tensors(
            dict(one.state_dict()),
            {name: handed[f"dictionary{i}.{name}"] for name in ("weight", "intercept")},
        )
    again: list[SparseCodes] = []
    with pytest.raises(Interrupted):
        second(tmp_path / "other", kept_method(again), stop=Stop(1))
    for after, early in zip(method.predictors, again[0].predictors, strict=True):
        assert not torch.equal(after.weight, early.weight)
    lines = log_of(tmp_path)
    assert set(lines[0]["loss"]) == {"total", "pixels", "images"}
    assert lines[-1]["loss"]["total"] < lines[0]["loss"]["total"]


def test_what_the_teacher_gives_is_what_its_layers_give(tmp_path: Path) -> None:
    looked: list[tuple[Tensor, Mapping[str, Tensor]]] = []

    class Looking(SparseCodes):
        def loss(self, step: Step) -> dict[str, Tensor]:
            looked.append((step.batch.pixels, step.teacher_features(0, step.batch)))
            return super().loss(step)

    second(tmp_path, Looking(pairs=PAIRS), policy=ViewPolicy(crop=1, flip=True))
    features = Features(teacher_model().eval(), TEACHES)
    assert len(looked) == 9
    for pixels, found in looked:
        with torch.no_grad():
            _, expected = features(PREPARED(pixels))
        assert list(found) == list(TEACHES)
        for name in TEACHES:
            torch.testing.assert_close(found[name], expected[name])


RESUMED: dict[str, dict[str, Any]] = {
    "dictionaries": {"build": teacher_model, "method": Dictionaries(layers=LAYERS)},
    "dictionaries of a teacher in training mode": {"build": teacher_model, "method": IN_TRAINING},
    "codes": {
        "build": normalised,
        "method": SparseCodes(pairs=PAIRS),
        "speakers": [teacher()],
        "handed": [dictionaries_state()],
    },
    "codes of nothing yet": {
        "build": normalised,
        "method": SparseCodes(pairs=PAIRS),
        "speakers": [teacher()],
    },
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_training_that_is_stopped_after_every_step_ends_with_the_same_bits(
    tmp_path: Path, case: str
) -> None:
    said = {"policy": ViewPolicy(crop=1, flip=True), "said": training(ema=0.5), **RESUMED[case]}
    whole = trained(tmp_path / "whole", **said)
    attempts = 0
    while True:
        attempts += 1
        try:
            parts = trained(tmp_path / "parts", stop=Stop(1), **said)
            break
        except Interrupted:
            assert attempts < 20
    assert attempts > 5
    assert same_tensors(weights(parts), weights(whole))
    assert same_tensors(dict(parts.artefacts), dict(whole.artefacts))
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")


def test_both_stages_one_after_the_other(tmp_path: Path) -> None:
    first = trained(tmp_path / "a", teacher_model, Dictionaries(layers=TEACHES), said=LEARNING)
    into: list[SparseCodes] = []
    trained(tmp_path / "b", normalised, kept_method(into), speakers=[teacher()], handed=[first.artefacts])
    for i, one in enumerate(into[0].dictionaries):
        assert torch.equal(one.weight, first.artefacts[f"dictionary{i}.weight"])


# ------------------------------------------------------------------------------------------------------- definitions
def test_what_decides_the_result_is_in_the_definition() -> None:
    def dictionaries(**said: Any) -> dict[str, Any]:
        return Dictionaries(**{"layers": ("a", "b"), **said}).definition(teachers=0)

    def codes(**said: Any) -> dict[str, Any]:
        return SparseCodes(**{"pairs": PAIRS, **said}).definition(teachers=1)

    for changed in ({"layers": ("b", "a")}, {"atoms": 3.0}, {"sparsity": 0.1}, {"teacher_mode": "train"}):
        assert dictionaries(**changed) != dictionaries()
    for changed in (
        {"pairs": PAIRS[:1]},
        {"atoms": 3.0},
        {"sparsity": 0.1},
        {"labels": "pixel"},
        {"local_logits": "pre_sigmoid"},
        {"dictionary_layers": {TEACHES[0]: "features.relu3"}},
    ):
        assert codes(**changed) != codes()
    assert codes(dictionary_layers={TEACHES[0]: TEACHES[0]}) == codes()
    assert "teacher_mode" not in dictionaries()
    assert "dictionary_layers" not in codes()
    assert codes(labels="image", local_logits="pre_sigmoid") == codes(labels="image")


# --------------------------------------------------------------------------------------------------------- refusals
def refusal(make: Any) -> str:
    with pytest.raises(BadInput) as error:
        make()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(Dictionaries, layers=()), "dictionaries need the names of layers, each once."),
        (partial(Dictionaries, layers=("a", "a")), "dictionaries need the names of layers, each once."),
        (
            partial(Dictionaries, layers=("a",), atoms=0.0),
            "sparse_codes.atoms, a multiple of a layer's channels, is above 0 and at most 100; got 0.0.",
        ),
        (
            partial(SparseCodes, pairs=PAIRS, sparsity=1.5),
            "sparse_codes.sparsity is the share of atoms in a code, in (0, 1]; got 1.5.",
        ),
        (
            partial(SparseCodes, pairs=()),
            "sparse_codes need pairs of layers (student's, teacher's), each once; got [].",
        ),
        (
            partial(SparseCodes, pairs=PAIRS, labels="none"),
            "sparse_codes.labels 'none' is none of both, pixel, image.",
        ),
        (
            partial(SparseCodes, pairs=PAIRS, local_logits="tanh"),
            "sparse_codes.local_logits 'tanh' is none of sigmoid, pre_sigmoid.",
        ),
        (
            partial(Dictionaries, layers=("a",), teacher_mode="both"),
            "sparse_codes.teacher_mode 'both' is none of eval, train.",
        ),
        (
            partial(SparseCodes, pairs=PAIRS, dictionary_layers={"features.relu3": "features.relu2"}),
            "sparse_codes.dictionary_layers names 'features.relu3', which is matched with no layer of the student. Matched "
            "are features.relu4, features.pool2. Did you mean 'features.relu4'?",
        ),
        (
            partial(SparseCodes(pairs=PAIRS).for_stage, teachers=2),
            "sparse_codes match the layers of one teacher; the stage has 2.",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_line(make: Any, message: str) -> None:
    assert refusal(make) == message


def test_less_than_one_atom_is_refused_with_the_layer() -> None:
    method = Dictionaries(layers=("a",), atoms=0.1).for_stage(teachers=0)
    message = refusal(partial(method.begin, beginning(SHAPES)))
    assert message == (
        "sparse_codes.atoms for the layer 'a': 0.1 atoms for each of 3 channels are less than one atom in all."
    )


def test_a_layer_that_is_no_feature_map_is_refused() -> None:
    method = Dictionaries(layers=("a",)).for_stage(teachers=0)
    message = refusal(partial(method.begin, beginning({"a": (17, 192)})))
    assert message == (
        "the teacher's 'a' gives 17x192 an image, which is no feature map and not pooled: name another layer."
    )


def test_layers_that_are_not_there_are_named_with_whose_they_are_and_the_nearest(tmp_path: Path) -> None:
    def start(pairs: tuple[tuple[str, str], ...]) -> str:
        return refusal(partial(second, tmp_path, SparseCodes(pairs=pairs)))

    message = start((("features.pool1", "features.relu9"),))
    assert message.startswith("the teacher has no layer 'features.relu9'.")
    message = start((("features.pool9", "features.relu4"),))
    assert message.startswith("the student has no layer 'features.pool9'.")
    message = refusal(partial(trained, tmp_path, teacher_model, Dictionaries(layers=("features.pool9",))))
    assert message.startswith("the teacher has no layer 'features.pool9'.")


def test_layers_of_different_sizes_are_refused_with_both(tmp_path: Path) -> None:
    pairs = (("features.pool1", "features.pool2"), ("features.pool1", "features.relu4"))
    message = refusal(partial(second, tmp_path, SparseCodes(pairs=pairs)))
    assert message.startswith(
        "the student's 'features.pool1' gives 8x4x4 and the teacher's 'features.pool2' 16x2x2: "
        "a pair needs one height and width."
    )


def test_a_teacher_of_which_only_answers_are_known_has_no_layers(tmp_path: Path) -> None:
    known = Lookup(answers=torch.zeros(40, 4))
    message = refusal(partial(trained, tmp_path, normalised, SparseCodes(pairs=PAIRS), speakers=[known]))
    assert message == (
        "a teacher is an array of logits, and what its layers give is asked for: give the network itself."
    )


def test_stages_share_nothing() -> None:
    template = Dictionaries(layers=("a", "b"))
    one, other = template.for_stage(teachers=0), template.for_stage(teachers=0)
    one.begin(beginning(SHAPES))
    assert list(one.modules()) == ["dictionary0", "dictionary1"]
    assert dict(other.modules()) == dict(template.modules()) == {}
