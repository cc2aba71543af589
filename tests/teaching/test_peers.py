"""Peers: the formula in numpy, who has a gradient, the mean network, and a training that may be stopped anywhere."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.ladder.tiny import network, same_tensors, training
from tests.teaching.toys import ToyPeer, batch_with, drawn, made_step
from tests.training.test_loop import DATA, PREPARED, Stop, log_of, plain, trained, weights
from understudy.data.batches import Batch, batch_of
from understudy.data.views import View, ViewPolicy
from understudy.errors import BadInput, Interrupted
from understudy.models.peers import PeerForm, PeerNetwork, peer_network
from understudy.teaching import Beginning, Labels, Method, SoftTargets, Step, Stochastic
from understudy.teaching.around import Around
from understudy.teaching.balanced import BalancedTargets
from understudy.teaching.curriculum import Curriculum
from understudy.teaching.hints import Hints
from understudy.teaching.peers import Peers
from understudy.teaching.sparse_codes import Dictionaries

M, BATCH, CLASSES, WIDE = 3, 6, 4, 5
LABELS = torch.arange(BATCH) % CLASSES


class Fixed(PeerNetwork):
    """Peers that answer what is given, whatever the images."""

    def __init__(self, logits: Tensor, features: Tensor) -> None:
        nn.Module.__init__(self)
        self.logits, self.features = nn.Parameter(logits.clone()), nn.Parameter(features.clone())
        self.peers = nn.ModuleList(nn.Identity() for _ in logits)
        self.ensemble = nn.Linear(len(logits) * features.shape[-1], logits.shape[-1])
        with torch.no_grad():
            self.ensemble.weight.copy_(drawn(*self.ensemble.weight.shape, seed=7))
            self.ensemble.bias.copy_(drawn(*self.ensemble.bias.shape, seed=8))

    def peer(self, position: int, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.logits[position], self.features[position]


def beginning(model: nn.Module, *, epochs: int = 300) -> Beginning:
    return Beginning(
        model=model,
        labels=np.arange(8) % CLASSES,
        classes=CLASSES,
        epochs=epochs,
        seed=0,
        shapes={},
        teacher_shapes=(),
        handed=None,
    )


def fixed() -> Fixed:
    return Fixed(drawn(M, BATCH, CLASSES), drawn(M, BATCH, WIDE, seed=1))


def begun(
    model: PeerNetwork | None = None,
    *,
    inner: Method | None = None,
    teachers: int = 0,
    epochs: int = 300,
    **said: Any,
) -> tuple[Peers, Any]:
    """A method that has begun on fixed peers, and those. The mean network has logits of its own."""
    model = fixed() if model is None else model
    method = Peers(method=inner or Labels(), **said).for_stage(teachers=teachers)
    method.begin(beginning(model, epochs=epochs))
    assert isinstance(method.mean, Fixed)
    with torch.no_grad():
        method.mean.logits.copy_(drawn(M, BATCH, CLASSES, seed=2))
    return method, model


def views(count: int = M) -> tuple[Batch, ...]:
    return tuple(batch_with(LABELS) for _ in range(count))


def step_of(
    *,
    epoch: int = 0,
    number: int = 0,
    batches: Sequence[Batch] | None = None,
    teacher_logits: Callable[[Sequence[int], Batch], Tensor] | None = None,
) -> Step:
    step = made_step(torch.zeros(BATCH, CLASSES), LABELS, number=number)
    return replace(
        step,
        epoch=epoch,
        batches=batches or views(),
        teacher_logits=teacher_logits or step.teacher_logits,
        run=lambda function, batch: function(batch.pixels.float()),
        answered=lambda batch, logits: None,
    )


# ------------------------------------------------------------------------------------------------------ the formula
def log_softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(z - np.log(np.exp(z).sum(-1, keepdims=True)))


def divergence(a: NDArray[np.float64], b: NDArray[np.float64], heat: float) -> float:
    p, q = log_softmax(a / heat), log_softmax(b / heat)
    return float(heat**2 * (np.exp(p) * (p - q)).sum(-1).mean())


def by_hand(model: Fixed, mean: Fixed, heat: float, weight: float) -> dict[str, float]:
    z, z_t = (one.logits.detach().double().numpy() for one in (model, mean))
    f = model.features.detach().double().numpy()
    head = model.ensemble
    z_e = np.concatenate(list(f), axis=1) @ head.weight.detach().double().numpy().T
    z_e = z_e + head.bias.detach().double().numpy()
    y = LABELS.numpy()

    def hard(logits: NDArray[np.float64]) -> float:
        return float(-log_softmax(logits)[np.arange(BATCH), y].mean())

    peers = range(len(z))
    parts = {
        "ensemble": hard(z_e),
        "peers": sum(hard(z[j]) for j in peers),
        "from_ensemble": sum(divergence(z_e, z[j], heat) for j in peers),
        "from_means": sum(
            divergence(z_t[k], z[j], heat) / (len(z) - 1) for j in peers for k in peers if k != j
        ),
    }
    total = parts["ensemble"] + parts["peers"] + weight * (parts["from_ensemble"] + parts["from_means"])
    return {"total": total, **parts}


@pytest.mark.parametrize("heat", [1.0, 3.0])
@pytest.mark.parametrize("epoch", [0, 1, 10, 40, 79, 80, 299])
def test_the_loss_of_three_peers_is_the_formula(heat: float, epoch: int) -> None:
    method, model = begun(temperature=heat)
    assert isinstance(method.mean, Fixed)
    weight = math.exp(-5 * (1 - epoch / 80) ** 2) if epoch < 80 else 1.0
    parts = method.loss(step_of(epoch=epoch))
    expected = by_hand(model, method.mean, heat, weight)
    assert {name: value.item() for name, value in parts.items()} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("epoch", "factor"), [(0, 0.00674), (1, 0.00763), (10, 0.02175), (40, 0.28650), (79, 0.99922), (80, 1.0)]
)
def test_collaboration_rises_as_published(epoch: int, factor: float) -> None:
    method, _ = begun(weight=0.5)
    parts = method.loss(step_of(epoch=epoch))
    soft = parts["total"] - parts["ensemble"] - parts["peers"]
    heard = soft / (parts["from_ensemble"] + parts["from_means"])
    assert heard.item() == pytest.approx(0.5 * factor, rel=2e-3)


@pytest.mark.parametrize("ramp", [80 / 300, 0.267])
@pytest.mark.parametrize(
    ("epoch", "factor"), [(0, math.exp(-5)), (1, 1), (2, math.exp(-5)), (14, 0), (80, 0), (81, 1), (299, 1)]
)
def test_with_the_divisor_of_the_public_code_peers_hear_each_other_in_epoch_1_and_after_80(
    epoch: int, factor: float, ramp: float
) -> None:
    method, _ = begun(ramp=ramp, ramp_divisor="weight")
    parts = method.loss(step_of(epoch=epoch))
    assert set(parts) == {"total", "ensemble", "peers", "from_ensemble", "from_means"}  # in every epoch
    soft = parts["total"] - parts["ensemble"] - parts["peers"]
    heard = soft / (parts["from_ensemble"] + parts["from_means"])
    assert heard.item() == pytest.approx(factor, rel=2e-3, abs=1e-6)


def test_the_divisor_is_in_the_definition_where_it_decides_something() -> None:
    def said(**more: Any) -> dict[str, Any]:
        return Peers(method=Labels(), **more).definition(teachers=0)

    assert "ramp_divisor" not in said()
    assert said(ramp_divisor="weight") == {**said(), "ramp_divisor": "weight"}
    for settings in ({"weight": 0.0}, {"ramp": 0.0}):
        assert said(**settings, ramp_divisor="weight") == said(**settings)


@pytest.mark.parametrize(
    ("ramp", "epochs", "full"), [(80 / 300, 300, 80), (0.5, 4, 2), (1.0, 4, 4), (0.0, 9, 0)]
)
def test_the_ramp_is_a_share_of_the_epochs(ramp: float, epochs: int, full: int) -> None:
    method, _ = begun(ramp=ramp, epochs=epochs)

    def heard(epoch: int) -> float:
        parts = method.loss(step_of(epoch=epoch))
        soft = parts["total"] - parts["ensemble"] - parts["peers"]
        return (soft / (parts["from_ensemble"] + parts["from_means"])).item()

    assert heard(full) == pytest.approx(1.0, rel=1e-4)
    if full:
        assert heard(full - 1) < 0.9999
        assert heard(0) == pytest.approx(math.exp(-5), rel=1e-2)


# ------------------------------------------------------------------------------------------------------- gradients
def slopes(value: Tensor, *tensors: Tensor) -> list[Tensor | None]:
    return list(torch.autograd.grad(value, tensors, retain_graph=True, allow_unused=True))


def test_nobody_who_teaches_has_a_gradient() -> None:
    method, model = begun()
    assert method.mean is not None
    parts = method.loss(step_of(epoch=100))
    logits, features, head = model.logits, model.features, model.ensemble.weight
    for name in ("from_ensemble", "from_means"):
        found = slopes(parts[name], logits, features, head)
        assert found[0] is not None
        assert found[0].abs().sum() > 0
        assert found[1:] == [None, None]
    assert [one is None for one in slopes(parts["ensemble"], logits, features, head)] == [True, False, False]
    assert [one is None for one in slopes(parts["peers"], logits, features, head)] == [False, True, True]
    parts["total"].backward()
    assert all(not p.requires_grad and p.grad is None for p in method.mean.parameters())


def test_a_peer_is_not_taught_by_its_own_mean() -> None:
    method, model = begun()
    assert isinstance(method.mean, Fixed)
    (before,) = slopes(method.loss(step_of(epoch=100))["from_means"], model.logits)
    with torch.no_grad():
        method.mean.logits[1].add_(drawn(BATCH, CLASSES, seed=9))
    (after,) = slopes(method.loss(step_of(epoch=100))["from_means"], model.logits)
    assert before is not None
    assert after is not None
    assert [torch.equal(before[j], after[j]) for j in range(M)] == [False, True, False]


def test_soft_terms_are_zero_where_all_agree() -> None:
    agreed = drawn(1, BATCH, CLASSES).expand(M, -1, -1)
    model = Fixed(agreed, drawn(M, BATCH, WIDE, seed=1))
    method = Peers(method=Labels()).for_stage(teachers=0)
    method.begin(beginning(model))
    with torch.no_grad():
        model.ensemble.weight.zero_()
        model.ensemble.bias.zero_()
    parts = method.loss(step_of(epoch=100))
    torch.testing.assert_close(parts["from_means"], torch.zeros(()), atol=1e-5, rtol=0)
    assert parts["from_ensemble"] > 0.01


# --------------------------------------------------------------------------------------------------- the mean network
def wander(model: nn.Module, seed: int) -> None:
    """Other weights, as an optimiser would leave."""
    with torch.no_grad():
        for position, parameter in enumerate(model.parameters()):
            parameter.copy_(drawn(*parameter.shape, seed=100 * seed + position))


def built(count: int = M) -> PeerNetwork:
    return peer_network(lambda: network().build(DATA), PeerForm(count=count), channels=1, size=(8, 8))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def started(**said: Any) -> tuple[Peers, PeerNetwork]:
    torch.manual_seed(0)
    model = built()
    method = Peers(method=Labels(), **said).for_stage(teachers=0)
    method.begin(beginning(model))
    return method, model


def test_the_mean_network_begins_as_a_copy_that_shares_nothing() -> None:
    method, model = started()
    assert method.mean is not None
    assert same_tensors(state(method.mean), state(model))
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in method.mean.parameters()}
    assert method.delivered(model) is method.mean


def test_the_mean_is_the_plain_average_of_all_steps_until_the_ramp_of_phi_ends() -> None:
    method, model = started(ema=0.8)
    assert method.mean is not None
    seen: list[dict[str, Tensor]] = []
    expected: dict[str, Tensor] = {}
    for g in range(1, 9):
        wander(model, g)
        seen.append({name: p.detach().clone() for name, p in model.named_parameters()})
        method.after_step(model, step_of(number=g - 1))
        if g <= 5:  # 1 - 1/5 = 0.8
            expected = {name: torch.stack([one[name] for one in seen]).mean(0) for name in seen[0]}
        else:
            expected = {name: 0.8 * expected[name] + 0.2 * seen[-1][name] for name in seen[0]}
        for name, parameter in method.mean.named_parameters():
            torch.testing.assert_close(parameter, expected[name])
        if g == 1:
            assert all(torch.equal(p, seen[0][name]) for name, p in method.mean.named_parameters())
    assert method.steps == 8


def test_with_ema_0_the_mean_is_the_student() -> None:
    method, model = started(ema=0.0)
    assert method.mean is not None
    for g in range(3):
        wander(model, g)
        method.after_step(model, step_of(number=g))
        for name, parameter in method.mean.named_parameters():
            assert torch.equal(parameter, dict(model.named_parameters())[name])


def test_the_mean_network_learns_statistics_of_its_own() -> None:
    method, model = started(ema=0.5)
    assert method.mean is not None
    before = {name: buffer.clone() for name, buffer in method.mean.named_buffers()}
    wander(model, 1)
    with torch.no_grad():
        for buffer in model.buffers():
            buffer.add_(5)
    method.after_step(model, step_of())
    assert all(torch.equal(buffer, before[name]) for name, buffer in method.mean.named_buffers())
    method.loss(step_of(batches=images()))
    after = dict(method.mean.named_buffers())
    assert all(
        int(after[name]) == int(was) + (3 if "trunk" in name else 1)
        for name, was in before.items()
        if name.endswith("num_batches_tracked")
    )
    assert all(not torch.equal(after[name], was) for name, was in before.items() if "running_mean" in name)


def test_statistics_may_be_averaged_as_weights_are() -> None:
    method, model = started(ema=0.75, ema_buffers=True)
    assert method.mean is not None
    expected: dict[str, Tensor] = {}
    for g in range(1, 7):
        method.loss(step_of(batches=images(seed=g)))
        phi = min(1 - 1 / g, 0.75)
        method.after_step(model, step_of())
        for name, now in model.named_buffers():
            if not now.is_floating_point():
                expected[name] = now.clone()
            else:
                expected[name] = now.clone() if g == 1 else phi * expected[name] + (1 - phi) * now
        for name, buffer in method.mean.named_buffers():
            torch.testing.assert_close(buffer, expected[name])


def images(seed: int = 0, count: int = M) -> tuple[Batch, ...]:
    """Views of 16 images."""
    rows = np.arange(16)
    policy = ViewPolicy(crop=1, flip=True, erase=0.5)
    return tuple(
        replace(one, pixels=one.pixels.float() / 255)
        for one in (
            batch_of(DATA.train, View(policy=policy, seed=seed, number=0, copy=j), rows) for j in range(count)
        )
    )


# ---------------------------------------------------------------------------------------------------- inner methods
def test_teachers_teach_every_peer_on_its_view() -> None:
    batches = views()
    said = {id(batch): drawn(2, BATCH, CLASSES, seed=20 + j) for j, batch in enumerate(batches)}
    asked: list[int] = []

    def teacher_logits(which: Sequence[int], batch: Batch) -> Tensor:
        asked.append([id(one) for one in batches].index(id(batch)))
        return said[id(batch)][list(which)]

    inner = SoftTargets(temperature=2.0, soft_weight=0.3)
    method, model = begun(inner=inner, teachers=2)
    alone = inner.for_stage(teachers=2)
    parts = method.loss(step_of(epoch=100, batches=batches, teacher_logits=teacher_logits))
    assert asked == [0, 1, 2]
    expected = sum(
        alone.loss(made_step(model.logits[j].detach(), LABELS, said[id(batches[j])]))["total"].item()
        for j in range(M)
    )
    assert parts["peers"].item() == pytest.approx(expected, rel=1e-5)
    hand = by_hand(model, method.mean, 3.0, 1.0)  # type: ignore[arg-type]
    total = hand["total"] - hand["peers"] + expected
    assert parts["total"].item() == pytest.approx(total, rel=1e-5)
    assert method.needs().logits
    assert method.needs().copies == 3
    assert method.metrics()["taught"] == [1, 1]  # batches, not peers


def test_where_no_teacher_survives_peers_still_teach_each_other() -> None:
    nobody = Stochastic(mode="bernoulli_all", keep=1e-9)
    method, model = begun(inner=SoftTargets(soft_weight=1.0, stochastic=nobody), teachers=1)
    parts = method.loss(step_of(epoch=100))
    hand = by_hand(model, method.mean, 3.0, 1.0)  # type: ignore[arg-type]
    assert parts["peers"].item() == 0
    assert parts["total"].item() == pytest.approx(hand["total"] - hand["peers"], rel=1e-5)


@pytest.mark.parametrize(
    "inner",
    [
        Hints(pairs=(("a", "b"),)),
        Dictionaries(layers=("a",)),
        ToyPeer(classes=4),
        ToyPeer(classes=4, copies=1),
    ],
)
def test_methods_that_look_at_layers_or_views_of_their_own_are_refused(inner: Method) -> None:
    with pytest.raises(BadInput) as error:
        Peers(method=inner).for_stage(teachers=1)
    assert str(error.value) == f"peers go with labels and soft targets, not with {inner.name}."


def test_without_weight_peers_do_not_teach_each_other_but_the_mean_learns_its_statistics() -> None:
    method, model = begun(weight=0.0)
    parts = method.loss(step_of(epoch=100))
    hand = by_hand(model, method.mean, 3.0, 0.0)  # type: ignore[arg-type]
    assert set(parts) == {"total", "ensemble", "peers"}
    assert parts["total"].item() == pytest.approx(hand["total"], rel=1e-5)
    real, _ = started(weight=0.0)
    assert real.mean is not None
    before = state(real.mean)
    real.loss(step_of(batches=images()))
    changed = {name for name, tensor in state(real.mean).items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name, _ in real.mean.named_buffers()}


def test_the_definition_has_what_decides_the_result_and_no_more() -> None:
    def said(**settings: Any) -> dict[str, Any]:
        return Peers(method=Labels(), **settings).definition(teachers=0)

    base = said()
    assert base["method"] == Labels().definition(teachers=0)
    for changed in (
        {"count": 4},
        {"temperature": 2.0},
        {"weight": 0.5},
        {"ramp": 0.1},
        {"ema": 0.99},
        {"ema_buffers": True},
    ):
        assert said(**changed) != base
    assert said(weight=0.0, temperature=2.0, ramp=0.1) == said(weight=0.0)


# ------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"count": 1}, "peers are 2 or more; got 1. One network alone is what scratch trains."),
        ({"temperature": 0.0}, "peers.temperature is a positive number; got 0.0."),
        ({"temperature": math.inf}, "peers.temperature is a positive number; got inf."),
        ({"weight": -1.0}, "peers.weight is a number of 0 or more; got -1.0."),
        ({"ramp": 1.5}, "peers.ramp is a share of the epochs in [0, 1]; got 1.5."),
        ({"ema": 1.0}, "peers.ema lies in [0, 1); got 1.0. 0.999 is usual, 0 copies the student."),
    ],
)
def test_bad_settings_are_refused_in_one_line(said: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as error:
        Peers(method=Labels(), **said)
    assert str(error.value) == message


@pytest.mark.parametrize("build", [plain, lambda: built(2)])
def test_the_network_must_be_of_as_many_peers(tmp_path: Path, build: Callable[[], nn.Module]) -> None:
    with pytest.raises(BadInput) as error:
        trained(tmp_path, build, Peers(method=Labels()))
    assert str(error.value) == "3 peers need a network of as many: give the model peers: 3."


def test_mixed_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"mixup blends other images into each: leave mixup out"):
        trained(tmp_path, built, Peers(method=Labels()), policy=ViewPolicy(mixup=0.4))


# ----------------------------------------------------------------------------------------------- in a training
AUGMENTED = ViewPolicy(crop=1, flip=True, erase=0.5)
THREE = training(epochs=3)


@dataclass(kw_only=True)
class Noting(Around):
    """Another method, and what it was shown and left in each step."""

    name = "noting"

    method: Method
    steps: list[Step] = field(default_factory=list)
    after: list[dict[str, Tensor]] = field(default_factory=list)
    modes: list[bool] = field(default_factory=list)

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return self.method.definition(teachers=teachers)

    def for_stage(self, *, teachers: int) -> Noting:
        self.method = self.method.for_stage(teachers=teachers)
        return self

    def loss(self, step: Step) -> dict[str, Tensor]:
        self.steps.append(step)
        assert isinstance(self.method, Peers)
        assert self.method.mean is not None
        self.modes.append(all(module.training for module in self.method.mean.modules()))
        return super().loss(step)

    def after_step(self, model: nn.Module, step: Step) -> None:
        super().after_step(model, step)
        self.after.append({name: p.detach().clone() for name, p in model.named_parameters()})


def test_each_peer_sees_a_view_of_its_own_and_so_does_its_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int, Tensor]] = []
    real = PeerNetwork.peer

    def watched(self: PeerNetwork, position: int, shown: Tensor) -> tuple[Tensor, Tensor]:
        calls.append((id(self), position, shown))
        return real(self, position, shown)

    monkeypatch.setattr(PeerNetwork, "peer", watched)
    noting = Noting(method=Peers(method=Labels()))
    trained(tmp_path, built, noting, policy=AUGMENTED)
    assert len(noting.steps) == 6
    for step, group in zip(noting.steps, [calls[i : i + 6] for i in range(0, 36, 6)], strict=True):
        pixels = [batch.pixels for batch in step.batches]
        assert len(pixels) == 3
        assert not any(torch.equal(pixels[one], pixels[other]) for one, other in ((0, 1), (0, 2), (1, 2)))
        assert all(torch.equal(step.batches[j].index, step.batch.index) for j in range(3))
        assert [position for _, position, _ in group] == [0, 1, 2, 0, 1, 2]
        assert len({who for who, _, _ in group[:3]}) == len({who for who, _, _ in group[3:]}) == 1
        assert group[0][0] != group[3][0]
        for _, position, shown in group:
            assert torch.equal(shown, PREPARED(pixels[position]))


def test_the_mean_network_is_looked_at_and_delivered(tmp_path: Path) -> None:
    noting = Noting(method=Peers(method=Labels(), ema=0.6))
    done = trained(tmp_path, built, noting, policy=AUGMENTED, said=THREE)
    expected: dict[str, Tensor] = {}
    for g, after in enumerate(noting.after, start=1):
        phi = min(1 - 1 / g, 0.6)
        expected = (
            after if g == 1 else {name: phi * expected[name] + (1 - phi) * after[name] for name in after}
        )
    assert isinstance(noting.method, Peers)
    assert done.model is noting.method.mean
    for name, parameter in done.model.named_parameters():
        torch.testing.assert_close(parameter, expected[name])
    assert noting.modes == [True] * 9  # looking at it after an epoch leaves it in training mode
    looked = copy.deepcopy(done.model).eval()
    pixels = torch.from_numpy(DATA.validation.images.fetch(np.arange(8))).permute(0, 3, 1, 2)
    with torch.no_grad():
        right = (looked(PREPARED(pixels)).argmax(1).numpy() == DATA.validation.labels).mean()
    assert log_of(tmp_path)[-1]["validation"] == {"accuracy": right}
    assert dict(done.artefacts) == {}


def test_the_log_has_all_terms_and_how_the_first_peer_does(tmp_path: Path) -> None:
    trained(tmp_path, built, Peers(method=Labels()), said=THREE)
    for line in log_of(tmp_path):
        assert set(line["loss"]) == {"total", "ensemble", "peers", "from_ensemble", "from_means"}
        assert set(line["train"]) == {"accuracy"}
        # the ensemble's term does not go through the peer's logits: a share of 0 would be a false alarm
        assert line["gradient"] == {}


def test_the_optimiser_moves_the_peers_and_the_ensemble_and_not_the_mean(tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = state(built())
    noting = Noting(method=Peers(method=Labels()))
    trained(tmp_path, built, noting)
    last = noting.after[-1]
    assert all(not torch.equal(last[name], before[name]) for name in last if name.endswith("weight"))
    assert dict(noting.modules()) == {}


RESUMED: dict[str, dict[str, Any]] = {
    "labels": {"method": Peers(method=Labels(), ema=0.7), "policy": AUGMENTED},
    "soft targets of two teachers": {"method": Peers(method=SoftTargets(), count=2), "count": 2},
    "averaged statistics, accumulated": {
        "method": Peers(method=Labels(), ema_buffers=True),
        "said": training(epochs=2, accumulate=2, ema=0.9),
    },
    "a curriculum around": {"method": Curriculum(method=Peers(method=Labels(), count=2), score="loss")},
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_training_that_is_stopped_after_every_step_ends_with_the_same_bits(
    tmp_path: Path, case: str
) -> None:
    said = RESUMED[case]
    method = said["method"].method if isinstance(said["method"], Curriculum) else said["method"]
    said = {"build": lambda: built(method.count), **said}
    whole = trained(tmp_path / "whole", **said)
    attempts = 0
    while True:
        attempts += 1
        try:
            parts = trained(tmp_path / "parts", stop=Stop(1), **said)
            break
        except Interrupted:
            assert attempts < 30
    assert attempts > 3
    assert same_tensors(weights(parts), weights(whole))
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")
    assert parts.metrics == whole.metrics


def test_balanced_targets_teach_peers_too(tmp_path: Path) -> None:
    one = trained(tmp_path / "a", built, Peers(method=BalancedTargets(beta=0.9)), count=1)
    other = trained(tmp_path / "b", built, Peers(method=SoftTargets()), count=1)
    assert log_of(tmp_path / "a")[0]["loss"].keys() == log_of(tmp_path / "b")[0]["loss"].keys()
    # classes of equal size weigh the same
    for name, tensor in weights(one).items():
        torch.testing.assert_close(tensor, weights(other)[name], rtol=1e-3, atol=1e-4)
