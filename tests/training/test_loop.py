"""The loop: what it does in each step, what it writes down, and that a resumed training ends with the same bits."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.ladder.tiny import made_up, network, same_tensors, small_network, training
from tests.teaching.toys import ToyPeer, ToySlimming
from understudy.data import Dataset, Split
from understudy.data.batches import batch_of
from understudy.data.dataset import MemoryImages
from understudy.data.views import PLAIN, View, ViewPolicy, Views
from understudy.errors import BadInput, Interrupted, StageFailed
from understudy.models.preprocessing import Preprocessing
from understudy.store.files import CannotWrite
from understudy.tasks import Classification
from understudy.teaching import Beginning, Labels, Method, Needs, SoftTargets, Step, Stochastic, Survey
from understudy.training import Training, checkpoint, loop
from understudy.training.clock import Progress
from understudy.training.loop import Trained, fit
from understudy.training.schedules import factor
from understudy.training.teachers import Lookup, Teacher

PREPARED = Preprocessing(mean=(0.5,), std=(0.3,))
DATA = made_up(train=40, validation=8, test=2)  # batches of 16, 16 and 8
AUGMENTED = ViewPolicy(crop=1, flip=True, erase=0.5)


def plain() -> nn.Module:
    """No normalisation, no dropout."""
    return small_network(classes=4, channels=1, size=(8, 8))


def normalised() -> nn.Module:
    return network().build(DATA)


def dropping() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4))


def always(model: nn.Module) -> nn.Module:
    return model


def teachers(count: int = 1) -> list[Teacher]:
    made = []
    for seed in range(count):
        torch.manual_seed(100 + seed)
        made.append(Teacher(load=partial(always, plain()), preprocessing=PREPARED))
    return made


def trained(
    folder: Path,
    build: Callable[[], nn.Module] = plain,
    method: Method | None = None,
    *,
    dataset: Dataset = DATA,
    policy: ViewPolicy | None = None,
    count: int = 0,
    speakers: Sequence[Teacher | Lookup] | None = None,
    said: Training | None = None,
    smoothing: float = 0.0,
    seed: int = 0,
    **more: Any,
) -> Trained:
    """One training as a stage would begin it, from weights of their own seed; teachers are ``speakers`` or ``count``."""
    torch.manual_seed(1)
    model = build()
    speakers = teachers(count) if speakers is None else speakers
    bound = (method or Labels()).for_stage(teachers=len(speakers))
    return fit(
        model,
        bound,
        task=Classification(label_smoothing=smoothing),
        dataset=dataset,
        views=Views(policy=policy or ViewPolicy(), seed=3),
        preprocessing=PREPARED,
        teachers=speakers,
        training=said or training(),
        seed=seed,
        folder=folder,
        **more,
    )


def weights(done: Trained) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in done.model.state_dict().items()}


def log_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of the log; seconds, which no two trainings share, are left out."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    for line in lines:
        assert line.pop("seconds") >= 0
    return lines


class Watching(Method):
    """Any method, with an eye on every step."""

    name = "watching"

    def __init__(
        self,
        inner: Method | None = None,
        *,
        before: Callable[[Step], None] = lambda step: None,
        after: Callable[[nn.Module], None] = lambda model: None,
    ) -> None:
        self.inner, self.before, self.after = inner or Labels(), before, after

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return self.inner.definition(teachers=teachers)

    def for_stage(self, *, teachers: int) -> Method:
        return Watching(self.inner.for_stage(teachers=teachers), before=self.before, after=self.after)

    def needs(self) -> Needs:
        return self.inner.needs()

    def modules(self) -> Mapping[str, nn.Module]:
        return self.inner.modules()

    def loss(self, step: Step) -> dict[str, Tensor]:
        self.before(step)
        return self.inner.loss(step)

    def after_step(self, model: nn.Module, step: Step) -> None:
        self.inner.after_step(model, step)
        self.after(model)

    def metrics(self) -> dict[str, Any]:
        return self.inner.metrics()

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(state)


class Nothing(Method):
    """A loss that is 0 everywhere: what moves is moved by something else."""

    name = "nothing"

    def __init__(self, spared: Sequence[str] = ()) -> None:
        self.spared = spared

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return {"name": self.name}

    def no_decay(self, model: nn.Module) -> Iterable[str]:
        return self.spared

    def loss(self, step: Step) -> dict[str, Tensor]:
        return {"total": 0.0 * step.student(step.batch).sum()}


def trained_a_step_at_a_time(stage_dir: Path, *positional: Any, **named: Any) -> Trained:
    """As ``trained``, stopped after every step of the optimiser and gone on with, at least five times."""
    for attempt in range(30):
        try:
            done = trained(stage_dir, *positional, stop=Stop(1), **named)
        except Interrupted:
            continue
        assert attempt >= 5
        return done
    raise AssertionError("it does not come to an end")


class Stop:
    """Says stop from the ``count``-th time on that it is asked."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


# ------------------------------------------------------------------------------------------------------ each step
def test_the_student_trains_in_train_mode_and_is_looked_at_in_eval_mode_every_epoch(tmp_path: Path) -> None:
    modes: list[tuple[bool, bool]] = []

    class Telling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = dropping()

        def forward(self, images: Tensor) -> Tensor:
            modes.append((self.training, self.inner[3].training))  # type: ignore[arg-type]
            answer: Tensor = self.inner(images)
            return answer

    trained(tmp_path, Telling, said=training(epochs=3))
    an_epoch = [(True, True)] * 3 + [(False, False)]
    assert modes == an_epoch * 3


def test_every_sample_is_seen_once_an_epoch_in_another_order_each_time(tmp_path: Path) -> None:
    seen: list[tuple[int, list[int]]] = []
    note = Watching(before=lambda step: seen.append((step.epoch, step.batch.index.tolist())))
    trained(tmp_path, method=note, said=training(epochs=3))
    orders = [[i for epoch, index in seen if epoch == wanted for i in index] for wanted in range(3)]
    assert all(sorted(order) == list(range(40)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert [len(index) for _, index in seen] == [16, 16, 8] * 3


def test_batches_are_numbered_through(tmp_path: Path) -> None:
    numbers: list[int] = []
    trained(
        tmp_path, method=Watching(before=lambda step: numbers.append(step.number)), said=training(epochs=3)
    )
    assert numbers == list(range(9))


@pytest.mark.parametrize(
    "schedule",
    [
        {"schedule": "one_cycle"},
        {"schedule": "cosine", "warmup": 1.0},
        {"schedule": "step", "milestones": (0.25, 0.75), "gamma": 0.5, "warmup": 0.5},
        {"schedule": "constant"},
        {"schedule": "cosine", "accumulate": 2},
    ],
)
def test_the_rate_follows_the_schedule_step_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: dict[str, Any]
) -> None:
    optimizers: list[torch.optim.Optimizer] = []
    real = loop.build_optimizer

    def watched(*positional: Any, **named: Any) -> torch.optim.Optimizer:
        optimizers.append(real(*positional, **named))
        return optimizers[-1]

    monkeypatch.setattr(loop, "build_optimizer", watched)
    rates: list[float] = []
    note = Watching(after=lambda model: rates.append(optimizers[0].param_groups[0]["lr"]))
    said = training(epochs=4, **schedule)
    done = trained(tmp_path, method=note, said=said)
    an_epoch = 2 if said.accumulate == 2 else 3
    steps = 4 * an_epoch
    assert done.steps == steps
    assert rates == [
        said.lr
        * factor(
            said.schedule,
            step=step,
            steps=steps,
            warmup_steps=round(said.warmup * an_epoch),
            milestones=said.milestones,
            gamma=said.gamma,
        )
        for step in range(steps)
    ]
    assert [line["lr"] for line in log_of(tmp_path)] == rates[an_epoch - 1 :: an_epoch]
    assert [line["step"] for line in log_of(tmp_path)] == [an_epoch * (epoch + 1) for epoch in range(4)]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_two_accumulated_batches_of_16_are_one_of_32(tmp_path: Path, optimizer: str) -> None:
    # 40 samples: 32 and 8 either way, so the last step is made of one batch alone
    whole = trained(tmp_path / "a", said=training(batch_size=32, optimizer=optimizer, epochs=3))
    parts = trained(tmp_path / "b", said=training(batch_size=16, accumulate=2, optimizer=optimizer, epochs=3))
    assert whole.steps == parts.steps == 6
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], tensor, atol=1e-5, rtol=1e-4)


def test_uneven_batches_that_are_accumulated_weigh_by_their_samples(tmp_path: Path) -> None:
    # 40 samples in batches of 24 and 16, both in one step, are the whole set at once
    whole = trained(tmp_path / "a", said=training(batch_size=40, epochs=3))
    parts = trained(tmp_path / "b", said=training(batch_size=24, accumulate=2, epochs=3))
    assert whole.steps == parts.steps == 3
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], tensor, atol=1e-5, rtol=1e-4)


def test_clipping_covers_what_the_method_trains_beside_the_student(tmp_path: Path) -> None:
    said = training(
        epochs=1,
        batch_size=40,
        lr=1.0,
        momentum=0.0,
        nesterov=False,
        weight_decay=0.0,
        clip=1e-3,
        schedule="constant",
    )
    peer = ToyPeer(classes=4, copies=2)
    with torch.no_grad():  # a large share of the gradient is the adapter's
        peer.adapter.weight.mul_(5)
    before = {name: tensor.clone() for name, tensor in peer.adapter.state_dict().items()}
    kept: list[Method] = []

    class Kept(ToyPeer):
        def for_stage(self, *, teachers: int) -> Method:
            kept.append(peer)
            return peer

    torch.manual_seed(1)
    initial = plain().state_dict()
    done = trained(tmp_path, method=Kept(classes=4), said=said)
    assert done.steps == 1
    own = torch.cat([(peer.adapter.state_dict()[name] - before[name]).flatten() for name in before])
    student = torch.cat([(weights(done)[name] - initial[name]).flatten() for name in initial])
    assert own.norm() > 1e-4
    assert student.norm() > 1e-5
    torch.testing.assert_close(torch.cat([own, student]).norm().item(), 1e-3, rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("decay", "spared", "untouched"),
    [
        ("all", (), set()),
        ("weights", (), {"1.bias", "3.bias"}),
        ("all", ("3.weight",), {"3.weight"}),
        ("weights", ("3.weight",), {"1.bias", "3.bias", "3.weight"}),
    ],
)
def test_weight_decay_leaves_alone_what_it_is_told_to(
    tmp_path: Path, decay: str, spared: tuple[str, ...], untouched: set[str]
) -> None:
    said = training(
        epochs=1,
        batch_size=40,
        lr=0.1,
        momentum=0.0,
        nesterov=False,
        weight_decay=0.5,
        decay=decay,
        schedule="constant",
    )
    torch.manual_seed(1)
    before = plain().state_dict()
    for name, tensor in weights(trained(tmp_path, method=Nothing(spared), said=said)).items():
        expected = before[name] if name in untouched else before[name] * (1 - 0.1 * 0.5)
        torch.testing.assert_close(tensor, expected)


def test_a_structure_penalty_is_in_the_total_and_in_the_log(tmp_path: Path) -> None:
    done = trained(tmp_path, normalised, ToySlimming(strength=0.05))
    for line in log_of(tmp_path):
        assert set(line["loss"]) == {"total", "hard", "penalty"}
        assert line["loss"]["total"] == pytest.approx(
            line["loss"]["hard"] + line["loss"]["penalty"], rel=1e-5
        )
        assert line["loss"]["penalty"] > 0
    assert done.metrics == {"closed": log_of(tmp_path)[-1]["closed"]}


def test_the_moving_average_is_what_is_looked_at_and_delivered(tmp_path: Path) -> None:
    steps: list[dict[str, Tensor]] = []

    def note(model: nn.Module) -> None:
        steps.append({name: tensor.detach().clone() for name, tensor in model.named_parameters()})

    done = trained(tmp_path, method=Watching(after=note), said=training(ema=0.75, lr=0.2))
    expected = dict(steps[0])  # begins where the first step ended
    for after in steps[1:]:
        expected = {name: 0.75 * expected[name] + 0.25 * after[name] for name in expected}
    for name, tensor in weights(done).items():
        torch.testing.assert_close(tensor, expected[name])
        assert not torch.equal(tensor, steps[-1][name])
    pixels = torch.from_numpy(DATA.validation.images.fetch(np.arange(8))).permute(0, 3, 1, 2)
    with torch.no_grad():
        right = (done.model.eval()(PREPARED(pixels)).argmax(1).numpy() == DATA.validation.labels).mean()
    assert log_of(tmp_path)[-1]["validation"] == {"accuracy": right}


def test_the_average_holds_the_statistics_of_normalisation_too(tmp_path: Path) -> None:
    last: list[dict[str, Tensor]] = []

    def note(model: nn.Module) -> None:
        last.append({name: tensor.clone() for name, tensor in model.state_dict().items()})

    done = weights(trained(tmp_path, normalised, Watching(after=note), said=training(ema=0.9)))
    means = [name for name in done if name.endswith("running_mean")]
    assert means
    for name in means:
        assert not torch.equal(done[name], last[-1][name])
        assert not torch.equal(done[name], torch.zeros_like(done[name]))


def test_label_smoothing_is_in_the_hard_term(tmp_path: Path) -> None:
    found: list[tuple[float, float]] = []

    def note(step: Step) -> None:
        logits = step.student(step.batch)
        by_hand = F.cross_entropy(logits, step.batch.labels, label_smoothing=0.3)
        found.append((step.hard_loss(logits, step.batch).item(), by_hand.item()))

    trained(tmp_path, method=Watching(before=note), smoothing=0.3)
    assert len(found) == 6
    for ours, by_hand in found:
        assert ours == pytest.approx(by_hand, rel=1e-6)


def test_every_epoch_is_a_view_of_its_own_every_copy_another_and_the_plain_batch_is_plain(
    tmp_path: Path,
) -> None:
    looks: list[Step] = []
    peer = Watching(ToyPeer(classes=4, copies=2), before=looks.append)
    trained(tmp_path, method=peer, policy=AUGMENTED)
    assert len(looks) == 6
    for step in looks:
        index = step.batch.index.numpy()
        assert step.plain is not None
        for copy, batch in enumerate(step.batches):
            view = View(policy=AUGMENTED, seed=3, number=step.epoch, copy=copy)
            assert torch.equal(batch.pixels, batch_of(DATA.train, view, index).pixels)
        assert torch.equal(step.plain.pixels, batch_of(DATA.train, PLAIN, index).pixels)
        assert not torch.equal(step.batches[0].pixels, step.batches[1].pixels)
    assert {step.epoch for step in looks} == {0, 1}


# ------------------------------------------------------------------------------------------ what a method can ask for
class Beginner(Labels):
    """Notes its beginning, and draws from torch's generator in it."""

    def __init__(self, drawn: int = 0, needs: Needs | None = None) -> None:
        self.drawn, self.asked = drawn, needs or Needs()
        self.beginnings: list[Beginning] = []
        self.layer: nn.Module = nn.Identity()

    def for_stage(self, *, teachers: int) -> Method:
        return self

    def needs(self) -> Needs:
        return self.asked

    def begin(self, beginning: Beginning) -> None:
        self.beginnings.append(beginning)
        torch.rand(self.drawn)
        self.layer = nn.Linear(3, 2)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"layer": self.layer}


def test_a_method_learns_of_its_stage_before_the_first_step(tmp_path: Path) -> None:
    needs = Needs(features=("features.pool1", "flatten"), teacher_features=((), ("1",)))
    method = Beginner(needs=needs)
    handed = [{"one": torch.ones(1)}, {}]
    trained(tmp_path / "a", normalised, method, count=2, said=training(epochs=1), seed=4, handed=handed)
    (beginning,) = method.beginnings
    assert isinstance(beginning.model, nn.Module)
    assert np.array_equal(beginning.labels, DATA.train.labels)
    assert (beginning.classes, beginning.epochs, beginning.seed) == (4, 1, 4)
    assert beginning.shapes == {"features.pool1": (8, 4, 4), "flatten": (32,)}
    assert beginning.teacher_shapes == [{}, {"1": (8,)}]
    assert beginning.handed == handed
    nobody = Beginner(needs=Needs(features=("flatten", "nowhere")))
    with pytest.raises(BadInput, match="nowhere"):
        trained(tmp_path / "b", normalised, nobody)
    assert nobody.beginnings[0].handed is None
    assert nobody.beginnings[0].shapes == {"flatten": (32,)}  # the method says what is missing


def test_what_a_method_draws_as_it_begins_depends_on_the_seed_alone_and_shifts_no_other_draw(
    tmp_path: Path,
) -> None:
    runs = []
    for number, (seed, drawn) in enumerate(((0, 0), (0, 0), (1, 0), (0, 5))):
        method = Beginner(drawn)
        torch.rand(number)  # whatever came before
        done = trained(tmp_path / str(number), dropping, method, seed=seed)
        runs.append((weights(done), dict(done.artefacts)))
    plainly = trained(tmp_path / "plain", dropping)
    assert same_tensors(runs[0][1], runs[1][1])
    assert not same_tensors(runs[0][1], runs[2][1])
    assert not same_tensors(runs[0][1], runs[3][1])
    assert same_tensors(runs[0][0], weights(plainly))  # dropout draws as without
    assert same_tensors(runs[0][0], runs[3][0])


def test_modules_are_kept_as_artefacts_unless_said_otherwise(tmp_path: Path) -> None:
    method = Beginner()
    done = trained(tmp_path, plain, method)
    assert set(done.artefacts) == {"layer.weight", "layer.bias"}
    assert torch.equal(done.artefacts["layer.weight"], method.layer.weight)  # type: ignore[arg-type]
    assert not done.artefacts["layer.weight"].requires_grad
    assert dict(trained(tmp_path / "none").artefacts) == {}


class Turning(Labels):
    """Shows the batches from the last to the first, and only some of them where it is told to."""

    def __init__(self, drop: int = 0) -> None:
        self.drop = drop
        self.seen: list[tuple[int, list[int]]] = []

    def for_stage(self, *, teachers: int) -> Method:
        return self

    def order(self, epoch: int, usual: list[Any]) -> list[Any]:
        return usual[::-1][self.drop :]

    def loss(self, step: Step) -> dict[str, Tensor]:
        self.seen.append((step.epoch, step.batch.index.tolist()))
        return super().loss(step)


def test_a_method_may_say_which_samples_each_batch_has(tmp_path: Path) -> None:
    seen: list[tuple[int, list[int]]] = []
    note = Watching(before=lambda step: seen.append((step.epoch, step.batch.index.tolist())))
    trained(tmp_path / "a", method=note)
    turning = Turning()
    trained(tmp_path / "b", method=turning)
    assert turning.seen == [*seen[:3][::-1], *seen[3:][::-1]]
    with pytest.raises(AssertionError, match="keeps the number of batches"):
        trained(tmp_path / "c", method=Turning(drop=1))


def test_uneven_batches_in_another_order_weigh_by_their_samples_too(tmp_path: Path) -> None:
    whole = trained(tmp_path / "a", said=training(batch_size=40, epochs=3))
    parts = trained(tmp_path / "b", method=Turning(), said=training(batch_size=24, accumulate=2, epochs=3))
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], tensor, atol=1e-5, rtol=1e-4)


def test_the_network_that_a_method_delivers_is_looked_at_and_the_result(tmp_path: Path) -> None:
    torch.manual_seed(9)
    own = plain()

    class Delivering(Labels):
        def for_stage(self, *, teachers: int) -> Method:
            return self

        def delivered(self, model: nn.Module) -> nn.Module:
            return own

    done = trained(tmp_path, method=Delivering(), said=training(ema=0.5))
    assert done.model is own
    pixels = torch.from_numpy(DATA.validation.images.fetch(np.arange(8))).permute(0, 3, 1, 2)
    with torch.no_grad():
        right = (own(PREPARED(pixels)).argmax(1).numpy() == DATA.validation.labels).mean()
    assert [line["validation"] for line in log_of(tmp_path)] == [{"accuracy": right}] * 2


class Frozen(Labels):
    """Trains nothing of the student."""

    @property
    def trains_student(self) -> bool:
        return False

    def __init__(self) -> None:
        self.layer = nn.Linear(4, 4)
        self.modes: list[bool] = []

    def for_stage(self, *, teachers: int) -> Method:
        return self

    def modules(self) -> Mapping[str, nn.Module]:
        return {"layer": self.layer}

    def loss(self, step: Step) -> dict[str, Tensor]:
        answer = step.student(step.batch)
        self.modes.append(answer.requires_grad)
        hard = step.hard_loss(self.layer(answer), step.batch)
        return {"total": hard, "hard": hard}


def test_a_student_that_is_not_trained_stays_as_it_is_and_the_methods_modules_learn(tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = normalised().state_dict()
    method = Frozen()
    began = {name: tensor.clone() for name, tensor in method.layer.state_dict().items()}
    done = trained(tmp_path, normalised, method, said=training(weight_decay=0.5, ema=0.5))
    assert same_tensors(weights(done), before)
    assert not same_tensors(dict(method.layer.state_dict()), began)
    assert method.modes == [False] * 6


def test_layers_that_someone_froze_stay_frozen(tmp_path: Path) -> None:
    def half() -> nn.Module:
        model = plain()
        model[1].requires_grad_(False)  # type: ignore[index]
        return model

    torch.manual_seed(1)
    before = plain().state_dict()
    after = weights(trained(tmp_path, half, said=training(weight_decay=0.5)))
    assert {name for name in before if torch.equal(before[name], after[name])} == {"1.weight", "1.bias"}


def test_features_come_with_the_answer_of_the_same_pass(tmp_path: Path) -> None:
    looked: list[tuple[Tensor, Mapping[str, Tensor], nn.Module, Tensor]] = []

    class Looking(Labels):
        def for_stage(self, *, teachers: int) -> Method:
            return self

        def needs(self) -> Needs:
            return Needs(features=("1", "2"))

        def begin(self, beginning: Beginning) -> None:
            self.model = beginning.model

        def loss(self, step: Step) -> dict[str, Tensor]:
            output, found = step.student_features(step.batch)
            copied = small_network(classes=4, channels=1, size=(8, 8))
            copied.load_state_dict(self.model.state_dict())
            looked.append((output.detach(), found, copied, step.batch.pixels))
            hard = step.hard_loss(output, step.batch)
            return {"total": hard, "hard": hard}

    done = trained(tmp_path / "a", method=Looking())
    assert len(looked) == 6
    for output, found, model, pixels in looked:
        flat = PREPARED(pixels).flatten(1)
        first = F.linear(flat, model[1].weight, model[1].bias)  # type: ignore[index]
        assert list(found) == ["1", "2"]
        torch.testing.assert_close(found["1"], first)
        torch.testing.assert_close(found["2"], first.relu())
        torch.testing.assert_close(output, model(PREPARED(pixels)))
        assert found["1"].requires_grad
    usual = trained(tmp_path / "b")
    assert same_tensors(weights(done), weights(usual))  # looking changes nothing
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")
    assert not any(module._forward_hooks for module in done.model.modules())  # and leaves nothing


def test_a_method_may_run_parts_of_the_student_and_say_what_it_answered(tmp_path: Path) -> None:
    class Running(Labels):
        def for_stage(self, *, teachers: int) -> Method:
            return self

        def begin(self, beginning: Beginning) -> None:
            self.model = beginning.model

        def loss(self, step: Step) -> dict[str, Tensor]:
            answer = step.run(self.model, step.batch).float()
            step.answered(step.batch, answer)
            hard = step.hard_loss(answer, step.batch)
            return {"total": hard, "hard": hard}

    one = trained(tmp_path / "a", dropping, Running())
    other = trained(tmp_path / "b", dropping)
    assert same_tensors(weights(one), weights(other))
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")
    assert log_of(tmp_path / "a")[0]["train"].keys() == {"accuracy"}


def test_a_survey_answers_all_training_images_as_they_are_and_changes_nothing(tmp_path: Path) -> None:
    found: list[tuple[str, Tensor, Tensor, dict[str, Tensor]]] = []

    class Surveying(SoftTargets):
        def begin(self, beginning: Beginning) -> None:
            self.model = beginning.model

        def on_epoch(self, epoch: int, survey: Survey) -> None:
            state = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
            found.append((survey.fingerprint(), survey.student(), survey.teachers([1, 0]), state))

    said = {"policy": AUGMENTED, "count": 2, "said": training(epochs=3)}
    one = trained(tmp_path / "a", dropping, Surveying(), **said)
    other = trained(tmp_path / "b", dropping, SoftTargets(), **said)
    assert same_tensors(weights(one), weights(other))
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")
    pixels = PREPARED(torch.from_numpy(DATA.train.images.fetch(np.arange(40))).permute(0, 3, 1, 2))
    taught = [teacher.load() for teacher in reversed(teachers(2))]
    assert len({fingerprint for fingerprint, *_ in found}) == 3
    for fingerprint, student, said_of, state in found:
        model = dropping()
        model.load_state_dict(state)
        with torch.no_grad():
            torch.testing.assert_close(student, model.eval()(pixels))
            for answer, network_of in zip(said_of, taught, strict=True):
                expected = network_of.eval()(pixels)
                torch.testing.assert_close(answer, (expected - expected.mean(1, keepdim=True)).half().float())
        assert len(fingerprint) == 16
        assert int(fingerprint, 16) >= 0


def test_a_step_made_by_hand_says_what_it_cannot_do() -> None:
    step = Step(
        number=0,
        epoch=0,
        seed=0,
        batches=(),
        student=lambda batch: None,
        hard_loss=lambda output, batch: torch.zeros(()),
        teacher_logits=lambda which, batch: torch.zeros(()),
    )
    batch = batch_of(DATA.train, PLAIN, np.arange(2))
    for ask in (
        partial(step.student_features, batch),
        partial(step.teacher_features, 0, batch),
        partial(step.run, always, batch),
        partial(step.answered, batch, torch.zeros(2, 4)),
    ):
        with pytest.raises(RuntimeError, match="did not provide what the method asks for"):
            ask()


# ----------------------------------------------------------------------------------------------------- unlabelled
def with_labels(labels: np.ndarray) -> Dataset:
    return replace(DATA, train=Split(images=DATA.train.images, labels=labels))


def test_samples_without_a_label_teach_nothing_by_themselves(tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = plain().state_dict()
    nobody = with_labels(np.full(40, -1, dtype=np.int64))
    done = trained(tmp_path, dataset=nobody, said=training(weight_decay=0.0))
    assert same_tensors(weights(done), before)


def test_samples_without_a_label_are_in_the_soft_term_only(tmp_path: Path) -> None:
    labels = DATA.train.labels.copy()
    labels[::2] = -1
    found: list[tuple[float, float]] = []

    def note(step: Step) -> None:
        logits = step.student(step.batch)
        labelled = step.batch.labels >= 0
        by_hand = F.cross_entropy(logits[labelled], step.batch.labels[labelled])
        found.append((step.hard_loss(logits, step.batch).item(), by_hand.item()))

    note_all = Watching(SoftTargets(), before=note)
    half = trained(tmp_path / "half", method=note_all, count=1, dataset=with_labels(labels))
    for ours, by_hand in found:
        assert ours == pytest.approx(by_hand, rel=1e-6)

    # the soft term alone does not see the labels at all
    soft = SoftTargets(soft_weight=1.0)
    nobody = with_labels(np.full(40, -1, dtype=np.int64))
    one = trained(tmp_path / "one", method=soft, count=1)
    other = trained(tmp_path / "other", method=soft, count=1, dataset=nobody)
    assert same_tensors(weights(one), weights(other))
    assert not same_tensors(weights(half), weights(one))


# ------------------------------------------------------------------------------------------------------------ log
def test_the_parts_of_the_loss_are_in_the_log_by_name(tmp_path: Path) -> None:
    method = SoftTargets(soft_weight=0.25, combine="mean")
    trained(tmp_path, method=method, count=2)
    lines = log_of(tmp_path)
    assert [line["epoch"] for line in lines] == [1, 2]
    for line in lines:
        assert set(line["loss"]) == {"total", "hard", "soft"}
        total = 0.75 * line["loss"]["hard"] + 0.25 * line["loss"]["soft"] / 2
        assert line["loss"]["total"] == pytest.approx(total, rel=1e-5)
        assert line["skipped"] == 0
        assert line["validation"].keys() == {"accuracy"}
    assert [line["taught"] for line in lines] == [[3, 3], [6, 6]]


def test_a_logged_loss_is_the_mean_over_samples(tmp_path: Path) -> None:
    losses: list[tuple[int, float]] = []

    def note(step: Step) -> None:
        value = step.hard_loss(step.student(step.batch), step.batch).item()
        losses.append((len(step.batch.labels), value))

    trained(tmp_path, method=Watching(before=note), said=training(epochs=1))
    expected = sum(count * value for count, value in losses) / 40
    assert log_of(tmp_path)[0]["loss"]["hard"] == pytest.approx(expected, rel=1e-6)


def test_without_a_validation_split_nothing_is_looked_at(tmp_path: Path) -> None:
    trained(tmp_path, dataset=made_up(train=40, validation=0))
    assert [line["validation"] for line in log_of(tmp_path)] == [{}, {}]


def test_progress_is_told_after_every_epoch(tmp_path: Path) -> None:
    heard: list[Progress] = []
    trained(tmp_path, progress=heard.append, said=training(epochs=3))
    ends = [one for one in heard if one.epoch_done]
    assert [(one.epoch, one.epochs, one.batch, one.batches) for one in ends] == [
        (n, 3, 3 * n, 9) for n in (1, 2, 3)
    ]
    assert all(one.validation.keys() == {"accuracy"} and one.images_per_second > 0 for one in ends)
    assert ends[-1].seconds_left == 0


# ----------------------------------------------------------------------------------------------- stochastic teaching
def test_a_step_in_which_nobody_teaches_is_skipped_and_counted(tmp_path: Path) -> None:
    dropping_all = Stochastic(mode="bernoulli_all", keep=0.5)
    method = SoftTargets(soft_weight=1.0, stochastic=dropping_all)
    states: list[dict[str, Tensor]] = []

    def note(model: nn.Module) -> None:
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})

    said = training(epochs=4)
    done = trained(tmp_path, method=Watching(method, after=note), count=1, said=said, seed=7)
    teaching = [bool(dropping_all.survivors(1, seed=7, step=step)) for step in range(12)]
    assert 0 < sum(teaching) < 12
    assert done.skipped == 12 - sum(teaching)
    assert len(states) == sum(teaching)  # the optimiser made no step where nothing was taught
    assert done.metrics == {"taught": [sum(teaching)]}
    assert done.steps == 12  # the schedule goes on all the same
    assert [line["skipped"] for line in log_of(tmp_path)] == [
        3 * epoch - sum(teaching[: 3 * epoch]) for epoch in range(1, 5)
    ]


def test_a_training_in_which_nothing_is_ever_taught_leaves_the_weights_alone(tmp_path: Path) -> None:
    class Silent(Method):
        name = "silent"

        def definition(self, *, teachers: int) -> dict[str, Any]:
            return {"name": self.name}

        def loss(self, step: Step) -> dict[str, Tensor]:
            return {}

    torch.manual_seed(1)
    before = plain().state_dict()
    done = trained(tmp_path, method=Silent())
    assert same_tensors(weights(done), before)
    assert done.skipped == 6
    assert [line["loss"] for line in log_of(tmp_path)] == [{}, {}]


def who_taught(
    folder: Path, *, dataset: Dataset = DATA, said: Training | None = None, seed: int = 4
) -> list[list[int]]:
    """Which of three teachers were asked, batch by batch."""
    asked: list[list[int]] = []

    class Asking(SoftTargets):
        def loss(self, step: Step) -> dict[str, Tensor]:
            def noted(which: Sequence[int], batch: Any) -> Tensor:
                asked.append(list(which))
                return step.teacher_logits(which, batch)

            return super().loss(replace(step, teacher_logits=noted))

    method = Asking(stochastic=Stochastic(keep=0.5))
    trained(folder, method=method, count=3, dataset=dataset, said=said, seed=seed)
    return asked


def test_who_is_dropped_does_not_depend_on_the_data_its_order_or_its_loading(tmp_path: Path) -> None:
    reference = who_taught(tmp_path / "a")
    assert reference == [Stochastic(keep=0.5).survivors(3, seed=4, step=step) for step in range(6)]
    assert len({tuple(which) for which in reference}) > 1
    assert all(0 in which for which in reference)  # the teacher always teaches
    assert who_taught(tmp_path / "b", dataset=made_up(train=40, validation=8, seed=9)) == reference
    assert who_taught(tmp_path / "c", said=training(workers=0, lr=0.3)) == reference
    assert who_taught(tmp_path / "d", seed=5) != reference


# ------------------------------------------------------------------------------------------------------- streamed
@dataclass(frozen=True)
class Streamed:
    """Images that are read when they are asked for, as large data sets are."""

    folder: Path
    count: int
    in_memory = False

    def __len__(self) -> int:
        return self.count

    def fetch(self, index: np.ndarray) -> np.ndarray:
        return np.stack([np.load(self.folder / f"{position}.npy") for position in index.tolist()])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_streamed_split_gives_the_bits_of_one_in_memory_whoever_loads_it(
    tmp_path: Path, workers: int
) -> None:
    for position, image in enumerate(DATA.train.images.fetch(np.arange(40))):
        np.save(tmp_path / f"{position}.npy", image)
    streamed = replace(DATA, train=Split(images=Streamed(tmp_path, 40), labels=DATA.train.labels))
    policy = replace(AUGMENTED, mixup=0.4)
    # dropout: no draw for the loading may touch the generator of the training
    one = trained(tmp_path / "a", dropping, policy=policy, said=training(epochs=1))
    other = trained(
        tmp_path / "b", dropping, policy=policy, dataset=streamed, said=training(epochs=1, workers=workers)
    )
    assert same_tensors(weights(one), weights(other))
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")


# --------------------------------------------------------------------------------------------------------- resume
RESUMED: dict[str, dict[str, Any]] = {
    "a network with normalisation": {"build": normalised},
    "a network with dropout": {"build": dropping},
    "a peer method with modules, copies and an average of its own": {
        "build": normalised,
        "method": ToyPeer(classes=4, copies=3),
        "policy": AUGMENTED,
        "said": training(epochs=3, clip=0.5),
    },
    "a structure penalty": {"build": normalised, "method": ToySlimming(strength=0.05)},
    "adamw with a moving average": {
        "build": normalised,
        "said": training(optimizer="adamw", ema=0.8, schedule="cosine", warmup=1.0),
    },
    "accumulated batches": {"build": dropping, "said": training(epochs=3, accumulate=2)},
    "stochastic teaching": {
        "method": SoftTargets(soft_weight=1.0, stochastic=Stochastic(mode="bernoulli_all", keep=0.4)),
        "count": 2,
    },
    "mixed images": {"build": dropping, "policy": ViewPolicy(mixup=0.4, crop=2)},
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_training_that_is_stopped_after_every_step_ends_with_the_same_bits_and_log(
    tmp_path: Path, case: str
) -> None:
    said = RESUMED[case]
    whole = trained(tmp_path / "whole", **said)
    parts = trained_a_step_at_a_time(tmp_path / "parts", **said)
    assert same_tensors(weights(parts), weights(whole))
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")
    assert (parts.steps, parts.skipped, parts.metrics) == (whole.steps, whole.skipped, whole.metrics)


def test_what_a_peer_method_trains_and_remembers_is_resumed_with_it(tmp_path: Path) -> None:
    kept: list[ToyPeer] = []

    class Kept(ToyPeer):
        def for_stage(self, *, teachers: int) -> Method:
            kept.append(ToyPeer(classes=4, copies=2))
            return kept[-1]

    trained(tmp_path / "whole", method=Kept(classes=4))
    with pytest.raises(Interrupted):
        trained(tmp_path / "parts", method=Kept(classes=4), stop=Stop(2))
    trained(tmp_path / "parts", method=Kept(classes=4))
    whole, _, resumed = kept
    assert same_tensors(dict(resumed.adapter.state_dict()), dict(whole.adapter.state_dict()))
    assert same_tensors(resumed.average, whole.average)
    assert (resumed.steps, resumed.epochs) == (whole.steps, whole.epochs) == (6, [0, 1])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_what_the_optimiser_remembers_lies_in_memory_as_its_parameters_do_after_a_resume_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    made: list[torch.optim.Optimizer] = []
    real = loop.build_optimizer

    def watched(*positional: Any, **named: Any) -> torch.optim.Optimizer:
        made.append(real(*positional, **named))
        return made[-1]

    monkeypatch.setattr(loop, "build_optimizer", watched)
    said = training(optimizer=optimizer)
    with pytest.raises(Interrupted):
        trained(tmp_path, normalised, said=said, stop=Stop(2))
    trained(tmp_path, normalised, said=said)
    for one in made:  # another layout takes other paths through the kernels, which may round otherwise
        lying = [
            (order_in_memory(parameter), order_in_memory(value))
            for parameter, state in one.state.items()
            for value in state.values()
            if isinstance(value, Tensor) and value.shape == parameter.shape and parameter.ndim == 4
        ]
        assert lying
        assert all(parameter == value for parameter, value in lying)


def order_in_memory(tensor: Tensor) -> list[int]:
    """Strides; those of dimensions of size 1 are never used."""
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]


class Killed(BaseException):
    """Stands for an end without a last word."""


def killing(batch: int) -> Method:
    def note(step: Step) -> None:
        if step.number == batch:
            raise Killed

    return Watching(before=note)


@pytest.mark.parametrize("batch", [2, 3, 4, 7])
def test_a_training_that_was_killed_goes_on_from_its_last_checkpoint(tmp_path: Path, batch: int) -> None:
    said = training(epochs=3)
    whole = trained(tmp_path / "whole", dropping, said=said)
    with pytest.raises(Killed):
        trained(tmp_path / "parts", dropping, killing(batch), said=said)
    heard: list[str] = []
    seen: list[int] = []
    note = Watching(before=lambda step: seen.append(step.number))
    parts = trained(tmp_path / "parts", dropping, note, said=said, say=heard.append)
    assert seen == list(range(batch // 3 * 3, 9))  # from the end of the epoch before
    assert heard == ([f"goes on from epoch {batch // 3 + 1}, batch 1"] if batch >= 3 else [])
    assert same_tensors(weights(parts), weights(whole))
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")


def test_inside_an_epoch_checkpoints_come_as_often_as_asked(tmp_path: Path) -> None:
    said = training(epochs=1, checkpoint_minutes=1e-9)
    with pytest.raises(Killed):
        trained(tmp_path, dropping, killing(2), said=said)
    seen: list[int] = []
    trained(tmp_path, dropping, Watching(before=lambda step: seen.append(step.number)), said=said)
    assert seen == [2]


def test_lines_that_were_written_after_the_checkpoint_are_not_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(tmp_path / "whole")
    real, calls = checkpoint.write, []  # type: ignore[var-annotated]

    def once(*positional: Any, **named: Any) -> Path:
        calls.append(named["step"])
        if calls == [3, 6]:
            raise Killed  # the second epoch's line is in the log, its checkpoint is not
        return real(*positional, **named)

    monkeypatch.setattr(checkpoint, "write", once)
    with pytest.raises(Killed):
        trained(tmp_path / "parts")
    assert len(log_of(tmp_path / "parts")) == 2
    parts = trained(tmp_path / "parts")
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")
    assert same_tensors(weights(parts), weights(whole))


def test_a_log_that_was_lost_is_not_filled_with_nothing(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        trained(tmp_path, stop=Stop(5))
    (tmp_path / "metrics.jsonl").unlink()
    trained(tmp_path)
    assert [line["epoch"] for line in log_of(tmp_path)] == [2]


def test_a_damaged_checkpoint_is_said_and_passed_over(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", dropping)
    with pytest.raises(Interrupted):
        trained(tmp_path / "parts", dropping, stop=Stop(4))
    (path,) = (tmp_path / "parts" / "checkpoint").iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    heard: list[str] = []
    parts = trained(tmp_path / "parts", dropping, say=heard.append)
    assert heard == [f"{path} is damaged and passed over"]
    assert same_tensors(weights(parts), weights(whole))
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")


def test_a_finished_training_is_not_begun_again(tmp_path: Path) -> None:
    whole = trained(tmp_path, dropping)
    again = trained(tmp_path, dropping, killing(0))
    assert same_tensors(weights(again), weights(whole))
    assert again.steps == whole.steps
    assert len(log_of(tmp_path)) == 2


# -------------------------------------------------------------------------------------------------- what goes wrong
def position(folder: Path) -> int:
    """Batches done at the checkpoint that is kept."""
    tree = checkpoint.read(folder / "checkpoint")
    assert tree is not None
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tree["model"].values())
    number: int = tree["position"]["number"]
    return number


class Spoiling(Method):
    """A loss that is no number in one batch."""

    name = "spoiling"

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return {"name": self.name}

    def loss(self, step: Step) -> dict[str, Tensor]:
        hard = step.hard_loss(step.student(step.batch), step.batch)
        return {"total": hard * (float("nan") if step.number == self.batch else 1.0), "hard": hard}


def test_a_loss_that_is_no_number_ends_the_stage_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(
        StageFailed, match=r"not a finite number in epoch 2, batch 2 \(total nan, hard "
    ) as error:
        trained(tmp_path, method=Spoiling(4))
    assert "Try a smaller training.lr (now 0.02) or training.clip: 1.0" in str(error.value)
    assert position(tmp_path) == 3
    assert len(log_of(tmp_path)) == 1
    with pytest.raises(StageFailed, match="epoch 2, batch 2"):  # and not from the beginning
        trained(tmp_path, method=Watching(Spoiling(4), before=lambda step: seen.append(step.number)))
    assert seen == [3, 4]


seen: list[int] = []


def test_weights_that_are_no_numbers_are_never_kept_as_a_checkpoint(tmp_path: Path) -> None:
    def spoil(model: nn.Module) -> None:
        counted.append(0)
        if len(counted) == 6:  # in the last step of the second epoch: its loss was still fine
            with torch.no_grad():
                next(model.parameters())[0, 0] = float("inf")

    counted: list[int] = []
    with pytest.raises(StageFailed, match="a weight is not a finite number any more after batch 6"):
        trained(
            tmp_path,
            method=Watching(after=spoil),
            dataset=made_up(train=40, validation=0),
            said=training(epochs=3),
        )
    assert position(tmp_path) == 3


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("place", ["checkpoint", "log"])
def test_where_nothing_can_be_written_the_state_before_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, place: str
) -> None:
    whole = trained(tmp_path / "whole", dropping)
    real = os.fsync

    def full(handle: int) -> None:
        name = Path(f"/proc/self/fd/{handle}").readlink().name
        if full_now and (place == "log") == (name == "metrics.jsonl"):
            raise OSError(code, os.strerror(code))
        real(handle)

    full_now: list[int] = []

    def fill(step: Step) -> None:
        if step.number == 4:
            full_now.append(1)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWrite, match=r"the disk is full|may not be written") as error:
        trained(tmp_path / "parts", dropping, Watching(before=fill))
    assert "\n" not in str(error.value)
    full_now.clear()
    assert position(tmp_path / "parts") == 3
    assert len(list((tmp_path / "parts" / "checkpoint").iterdir())) == 1  # nothing half-written is left
    parts = trained(tmp_path / "parts", dropping)
    assert same_tensors(weights(parts), weights(whole))
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")


def test_the_test_split_is_not_looked_at(tmp_path: Path) -> None:
    class Closed(MemoryImages):
        def fetch(self, index: np.ndarray) -> np.ndarray:
            raise AssertionError("the loop looked at the test split")

    closed = Closed(DATA.test.images.fetch(np.arange(2)))
    trained(tmp_path, dataset=replace(DATA, test=Split(images=closed, labels=DATA.test.labels)))
