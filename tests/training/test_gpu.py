"""The GPU path without a GPU: no step waits for the device, and none mixes devices.

The stand-in is torch's ``meta`` device, whose tensors have shapes and no numbers, and a watch on each operator: what
would have to be read from the device, carried there while all wait, or computed from tensors on two devices is refused.
(Fake tensors that claim to lie on ``cuda`` cannot stand in: without a CUDA build torch refuses to index them, and its
autograd ends the process.) What a card rounds and how long it takes, nobody can say here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.ladder.tiny import made_up, network, same_tensors, training
from tests.training import test_loop
from tests.training.test_loop import DATA, PREPARED, Spoiling, log_of, position, trained, weights
from understudy.data import Dataset, Split
from understudy.data.batches import DeviceImages, batch_of
from understudy.data.views import PLAIN, View, ViewPolicy
from understudy.errors import StageFailed
from understudy.models.peers import PeerForm, peer_network
from understudy.store import Store
from understudy.store import signals as kept_signals
from understudy.store.signals import SignalFiles
from understudy.tasks import Classification
from understudy.teaching import Labels, Method, SoftTargets, Step, Stochastic, structure_search
from understudy.teaching.around import Around
from understudy.teaching.balanced import BalancedLabels, BalancedTargets
from understudy.teaching.curriculum import Curriculum
from understudy.teaching.decoupled import Decoupled
from understudy.teaching.hints import Hints
from understudy.teaching.peers import Peers
from understudy.teaching.sparse_codes import Dictionaries, SparseCodes
from understudy.teaching.standardised import Standardised
from understudy.teaching.structure_search import StructureSearch
from understudy.training import Training, clock, loop, resident, speaking
from understudy.training import teachers as teachers_module
from understudy.training.clock import Progress
from understudy.training.lesson import MovingAverage
from understudy.training.optimizers import build_optimizer
from understudy.training.signals import Signals
from understudy.training.tally import Tally
from understudy.training.teachers import FrozenTeachers, Lookup, Teacher

GPU = "meta"
SOME = np.array([5, 0, 39, 5])
POLICIES = {
    "plain": ViewPolicy(),
    "crop": ViewPolicy(crop=2),
    "flip": ViewPolicy(flip=True),
    "erase": ViewPolicy(erase=0.7, fill=9),
    "mixup": ViewPolicy(mixup=0.4),
    "all": ViewPolicy(crop=2, flip=True, erase=0.7, mixup=0.4),
}
PARTLY = replace(
    DATA, train=Split(images=DATA.train.images, labels=np.where(np.arange(40) % 3, DATA.train.labels, -1))
)


# ------------------------------------------------------------------------------------------------------- the watch
class Waits(AssertionError):
    """The host would wait for the device, or devices meet."""


class Watch(TorchDispatchMode):
    """Looks at each operator while it is on."""

    reads = (
        *("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "bincount"),
        *("_unique", "_unique2", "unique_dim", "unique_consecutive"),
    )
    device = GPU

    def __init__(self, *, on: bool = True) -> None:
        super().__init__()
        self.on = on
        self.seen = 0
        self.made = _Made(self)

    def __enter__(self) -> Watch:
        self.made.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.made.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.on:
            self.seen += 1
            self.check(func._schema.name.removeprefix("aten::"), args, kwargs)
        return func(*args, **kwargs)

    def check(self, name: str, args: Any, kwargs: Mapping[str, Any]) -> None:
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [tensor for tensor in given if tensor.device.type == self.device]
        if name in ("_to_copy", "copy_"):
            source = args[1] if name == "copy_" else args[0]
            goal = args[0].device if name == "copy_" else torch.device(kwargs.get("device") or source.device)
            free = bool(kwargs.get("non_blocking") or (name == "copy_" and args[2:] and args[2]))
            if source.device.type == self.device != goal.type:
                raise Waits(f"{name} from the device, in {_caller()}")
            if source.device.type != self.device == goal.type and not free:
                raise Waits(f"{name} to the device that is waited for, in {_caller()}")
            return
        if there and name in self.reads:
            raise Waits(f"{name} reads what is on the device, in {_caller()}")
        by = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else []
        if any(one is not None and one.dtype == torch.bool and one.device.type == self.device for one in by):
            raise Waits(f"{name} by a mask, in {_caller()}")
        # a scalar in main memory may take part anywhere
        if there and any(one.ndim and one.device.type != self.device for one in given):
            raise Waits(f"{name} of tensors on {[str(one.device) for one in given]}, in {_caller()}")


class _Made(TorchFunctionMode):
    """Sees tensors that are made of numbers on the device: torch makes them in main memory and carries them there."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.watch.on and func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            there = torch.device(kwargs["device"]).type == self.watch.device
            if there:
                raise Waits(f"{func.__name__} makes a tensor on the device, in {_caller()}")
        return func(*args, **kwargs)


def _caller() -> str:
    """The innermost file of the package that is at work."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if "/understudy/" in frame.f_code.co_filename:
            return frame.f_code.co_filename.rpartition("/understudy/")[2]
    return "no file of ours"


@pytest.mark.parametrize(
    "refused",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x.cpu(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.unique(x),
        lambda x: x + torch.ones(4),
        lambda x: x[torch.arange(2)],
        lambda x: torch.ones(4).to(x.device),
        lambda x: torch.tensor([1.0], device=x.device),
        lambda x: x.copy_(torch.ones(4)),
        lambda x: x.tolist(),
    ],
)
def test_the_watch_sees_what_waits_and_what_mixes(refused: Callable[[Tensor], Any]) -> None:
    some = torch.zeros(4, device=GPU)
    with Watch(), pytest.raises(Waits):
        refused(some)


def test_the_watch_lets_pass_what_waits_for_nobody() -> None:
    with Watch() as watch:
        some = torch.zeros(4, device=GPU)
        some[torch.from_numpy(np.arange(2)).to(GPU, non_blocking=True)].mul(torch.ones(()))
        some.copy_(torch.ones(4), non_blocking=True)
    assert watch.seen > 3


# ------------------------------------------------------------------------------------------------ images on a device
@pytest.mark.parametrize("policy", POLICIES)
def test_a_batch_is_made_on_the_device_under_every_policy(policy: str) -> None:
    view = View(policy=POLICIES[policy], seed=3, number=1)
    usual = batch_of(DATA.train, view, SOME)
    split = replace(DATA.train, images=DeviceImages(DATA.train, GPU))
    with Watch() as watch:
        batch = batch_of(split, view, SOME)
    assert watch.seen
    for name, value in vars(usual).items():
        if isinstance(value, Tensor):
            made = getattr(batch, name)
            assert (made.device, made.shape, made.dtype) == (torch.device(GPU), value.shape, value.dtype)
    assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
    assert batch.on_host().index.tolist() == SOME.tolist()
    assert batch.on_host().labels.tolist() == DATA.train.labels[SOME].tolist()


def moved(dataset: Dataset) -> Dataset:
    """On the CPU, by the way that leads to a device."""
    return replace(dataset, train=replace(dataset.train, images=DeviceImages(dataset.train, "cpu")))


@pytest.mark.parametrize("policy", POLICIES)
def test_what_the_way_to_a_device_makes_are_the_usual_bytes(
    monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    monkeypatch.setattr("understudy.data.batches._COPIED", 7)  # in several pieces
    view = View(policy=POLICIES[policy], seed=3, number=1)
    usual, made = batch_of(PARTLY.train, view, SOME), batch_of(moved(PARTLY).train, view, SOME)
    for name, value in vars(usual).items():
        if isinstance(value, Tensor):
            assert torch.equal(getattr(made, name), value)
            assert getattr(made, name).stride() == value.stride()
    made.pixels.zero_()  # a batch is the caller's own
    assert torch.equal(
        batch_of(moved(PARTLY).train, PLAIN, SOME).pixels, batch_of(DATA.train, PLAIN, SOME).pixels
    )


def room(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(resident, "free_bytes", lambda device: free)


def test_images_move_where_they_take_less_than_the_share_of_what_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[str] = []

    def placed(free: int, dataset: Dataset = DATA, **policy: Any) -> Dataset:
        room(monkeypatch, free)
        return resident.resident(dataset, policy=ViewPolicy(**policy), device="meta", say=heard.append)

    taken = 40 * 64  # images of 8x8 pixels, 8 for validation
    done = placed(4 * taken + 4)
    assert isinstance(done.train.images, DeviceImages)
    assert isinstance(done.validation.images, DeviceImages)
    assert done.test is DATA.test
    assert heard == []
    assert placed(4 * taken) is DATA
    assert placed(10**9, transforms=({"name": "RandomInvert"},)) is DATA
    streamed = replace(DATA, train=replace(DATA.train, images=test_loop.Streamed(Path("nowhere"), 40)))
    assert placed(10**9, streamed) is streamed
    sentence = "batches are made on the CPU and carried to the GPU: "
    assert heard == [
        f"{sentence}they take 2.56e-06 GB, and of the GPU's memory 1.02e-05 GB are free, of which they may take 25%",
        f"{sentence}torchvision transforms are done to them",
        f"{sentence}they are read from the disk",
    ]
    assert resident.resident(DATA, policy=ViewPolicy(), device="cpu", say=heard.append) is DATA
    nobody = made_up(train=40, validation=0)
    assert placed(10**9, nobody).validation is nobody.validation


# ------------------------------------------------------------------------------------------------- the loop's steps
class Enough(BaseException):
    """All steps that were wanted are made."""


class Watched(Around):
    """Turns the watch on once the first step's loss is there, for which teachers load and kept answers are opened."""

    name = "watched"
    steps = 5  # an epoch has three

    def __init__(self, method: Method, watch: Watch) -> None:
        self.method, self.watch, self.again = method, watch, False

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return self.method.definition(teachers=teachers)

    def for_stage(self, *, teachers: int) -> Method:
        return Watched(self.method.for_stage(teachers=teachers), self.watch)

    def loss(self, step: Step) -> dict[str, Tensor]:
        if step.number == self.steps:
            raise Enough
        parts = super().loss(step)
        self.watch.on = True
        return parts

    def penalty(self, model: nn.Module) -> Tensor | None:
        on, self.watch.on = self.watch.on, self.again  # tables are carried there at the first call
        found = super().penalty(model)
        self.watch.on, self.again = on, True
        return found


def steps_on_a_device(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    build: Callable[[], nn.Module] = test_loop.normalised,
    method: Method | None = None,
    *,
    resident_images: bool = True,
    said: Training | None = None,
    **more: Any,
) -> Watch:
    """``fit`` itself, until ``Watched`` has enough: all steps lie in the first epoch, which is looked at afterwards."""
    said = said or training()
    said = replace(said, batch_size=6)  # seven batches an epoch
    object.__setattr__(said, "device", "meta")
    room(monkeypatch, 10**9 if resident_images else 0)
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: 0.0))  # nobody wants to know
    monkeypatch.setattr(teachers_module, "folded", lambda model, example: model)  # compares numbers, once
    on_cpu = structure_search.removable_channels  # reads numbers, once
    monkeypatch.setattr(
        structure_search, "removable_channels", lambda model, **given: on_cpu(test_loop.normalised(), **given)
    )
    real = torch.autocast
    monkeypatch.setattr(
        torch,
        "autocast",
        lambda device, **given: nullcontext() if device == "meta" else real(device, **given),
    )
    watch = Watch(on=False)
    with pytest.raises(Enough), watch:
        trained(folder, build, Watched(method or Labels(), watch), said=said, **more)
    assert watch.seen > 50
    return watch


def kept_teachers(
    place: Path, count: int, signals: Signals, *, block_rows: int | None = None
) -> list[Teacher]:
    """Teachers whose answers to every view of ``AUGMENTED`` were kept on the CPU."""
    Store(place).prepare()
    made = []
    for number, teacher in enumerate(test_loop.teachers(count)):
        row_bytes = signals.row_bytes(classes=4)
        files = SignalFiles(
            store=Store(place),
            key=f"{number:040x}",
            definition={"n": number},
            samples=40,
            row_bytes=row_bytes,
        )
        made.append(replace(teacher, kept=files))
    trained(
        place / "on the CPU",
        method=SoftTargets(),
        speakers=made,
        signals=signals,
        policy=test_loop.AUGMENTED,
        said=training(epochs=1),
    )
    return made


def peers() -> nn.Module:
    return peer_network(lambda: network().build(DATA), PeerForm(count=2), channels=1, size=(8, 8))


ALL_BEGIN = next(
    seed for seed in range(99) if len(Stochastic(keep=0.5).survivors(3, seed=seed, step=0)) == 3
)  # every teacher is loaded in the first step
PAIR = (("features.pool1", "features.pool1"),)
METHODS: dict[str, dict[str, Any]] = {
    "labels": {},
    "labels, some missing": {"dataset": PARTLY},
    "balanced labels, some missing": {"method": BalancedLabels(), "dataset": PARTLY},
    "soft targets": {"method": SoftTargets(), "count": 2},
    "soft targets, some labels missing": {"method": SoftTargets(), "count": 2, "dataset": PARTLY},
    "soft targets with mixed images": {
        "method": SoftTargets(),
        "count": 1,
        "policy": POLICIES["all"],
        "build": test_loop.dropping,
    },
    "stochastic": {
        "method": SoftTargets(stochastic=Stochastic(keep=0.5), soft_weight=1.0),
        "count": 3,
        "seed": ALL_BEGIN,
    },
    "one array of answers": {"method": SoftTargets(), "speakers": [Lookup(answers=torch.randn(40, 4))]},
    "standardised": {"method": Standardised(), "count": 1},
    "balanced targets": {"method": BalancedTargets(), "count": 2},
    "unnormalised balanced targets": {"method": BalancedTargets(form="unnormalised"), "count": 2},
    "curriculum": {"method": Curriculum(method=SoftTargets()), "count": 1},
    "peers": {"method": Peers(method=Labels(), count=2), "build": peers},
    "peers with a teacher": {"method": Peers(method=SoftTargets(), count=2), "build": peers, "count": 1},
    "hints": {"method": Hints(pairs=PAIR), "features": True},
    "dictionaries": {"method": Dictionaries(layers=("features.pool1",))},
    "sparse codes": {"method": SparseCodes(pairs=PAIR), "features": True},
    "structure search": {
        "method": StructureSearch(method=Labels(), strength=0.1, epochs=2, channels=1, size=(8, 8)),
    },
    "all that a recipe can ask of the optimiser": {"said": training(clip=0.5, ema=0.9, accumulate=2)},
    "decoupled": {"method": Decoupled(), "count": 1},
}


@pytest.mark.parametrize("resident_images", [True, False], ids=["resident", "carried"])
@pytest.mark.parametrize("case", METHODS)
def test_no_step_of_the_loop_waits_for_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, resident_images: bool
) -> None:
    said = {"policy": test_loop.AUGMENTED, **METHODS[case]}
    if said.pop("features", False):
        said["speakers"] = [Teacher(load=test_loop.normalised, preprocessing=PREPARED)]
    steps_on_a_device(tmp_path, monkeypatch, resident_images=resident_images, **said)


@pytest.mark.parametrize("resident_images", [True, False], ids=["resident", "carried"])
@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize(
    "signals",
    [Signals(), Signals(dtype="float32"), Signals(top_k=2), Signals(top_k=1, dtype="float32")],
    ids=["float16", "float32", "top two", "the top"],
)
def test_kept_answers_are_picked_and_decoded_on_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: Signals, blocks: int, resident_images: bool
) -> None:
    monkeypatch.setattr(kept_signals, "BLOCK_ROWS", 48 // blocks)
    opened: list[str] = []
    real = speaking.placed

    def noted(tensors: Mapping[str, Tensor], device: str) -> dict[str, Tensor]:
        found = real(tensors, device)
        opened.extend(tensor.device.type for tensor in found.values())
        return found

    made = kept_teachers(tmp_path / "store", 2, signals)
    monkeypatch.setattr(speaking, "placed", noted)
    steps_on_a_device(
        tmp_path / "here",
        monkeypatch,
        method=SoftTargets(),
        speakers=[replace(teacher, load=unwanted) for teacher in made],
        signals=signals,
        policy=test_loop.AUGMENTED,
        resident_images=resident_images,
    )
    assert len(opened) == 2 * blocks * len(signals.rounded(torch.zeros(1, 4)))
    assert set(opened) == {GPU if resident_images else "cpu"}


def unwanted() -> nn.Module:
    raise AssertionError("a teacher was loaded although all that it would say is kept")


def test_blocks_that_found_room_and_blocks_that_found_none_go_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_signals, "BLOCK_ROWS", 16)
    made = kept_teachers(tmp_path / "store", 1, Signals())
    turns = iter([True, False] * 99)
    monkeypatch.setattr(resident, "_room", lambda size, device: next(turns))
    monkeypatch.setattr(resident, "free_bytes", lambda device: 0)
    steps_on_a_device(
        tmp_path / "here", monkeypatch, method=SoftTargets(), speakers=made, policy=test_loop.AUGMENTED
    )


def test_a_live_teacher_is_checked_when_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    said = training()
    object.__setattr__(said, "device", GPU)
    room(monkeypatch, 0)
    monkeypatch.setattr(teachers_module, "folded", lambda model, example: model)
    frozen = FrozenTeachers(test_loop.teachers(1), dataset=DATA, views=[], training=said, signals=Signals())
    batch = batch_of(replace(DATA.train, images=DeviceImages(DATA.train, GPU)), PLAIN, SOME)
    with frozen:
        frozen.look()  # nothing was said
        for _ in range(2):
            assert frozen.logits([0], batch).device.type == GPU
        assert frozen.finite is not None
        frozen.finite = torch.tensor(True)
        frozen.look()
        frozen.finite = torch.tensor(False)
        with pytest.raises(StageFailed, match="a teacher answers with numbers that are not finite"):
            frozen.look()
        frozen.look()


# ------------------------------------------------------------------------------------------------- looked at later
class Later(Tally):
    """Sums as on a GPU, where there is none."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.at_once = False


LOGGED: dict[str, dict[str, Any]] = {
    "labels": {"build": test_loop.normalised},
    "some missing": {"dataset": PARTLY, "method": SoftTargets(), "count": 1},
    "nothing taught": {
        "method": SoftTargets(soft_weight=1.0, stochastic=Stochastic(mode="bernoulli_all", keep=0.4)),
        "count": 2,
    },
    "mixed": {"policy": POLICIES["mixup"]},
    "a penalty": {"build": test_loop.normalised, "method": test_loop.ToySlimming(strength=0.05)},
}


@pytest.mark.parametrize("case", LOGGED)
@pytest.mark.parametrize("often", [True, False])
def test_whenever_somebody_looks_log_and_weights_are_those_of_sums_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, often: bool
) -> None:
    usual = trained(tmp_path / "usual", **LOGGED[case])
    monkeypatch.setattr(loop, "Tally", Later)
    heard: list[Progress] = []
    if often:
        now = iter(range(10**6))
        monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: float(next(now))))
    done = trained(tmp_path / "later", progress=heard.append, **LOGGED[case])
    assert same_tensors(weights(done), weights(usual))
    assert log_of(tmp_path / "later") == log_of(tmp_path / "usual")
    if often:
        assert len(heard) == 8
        assert all(one.losses for one in heard if not one.epoch_done) or case == "nothing taught"


def test_sums_that_are_looked_at_later_survive_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "Tally", Later)
    whole = trained(tmp_path / "whole", test_loop.dropping)
    parts = test_loop.trained_a_step_at_a_time(tmp_path / "parts", test_loop.dropping)
    assert same_tensors(weights(parts), weights(whole))
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")


class SpoilingOn(Spoiling):
    """No number from one batch on."""

    def loss(self, step: Step) -> dict[str, Tensor]:
        return Spoiling(max(step.number, self.batch)).loss(step)


@pytest.mark.parametrize("minutes", [1e-9, 3.0])
def test_a_loss_that_is_no_number_is_found_before_a_checkpoint_and_its_first_batch_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float
) -> None:
    monkeypatch.setattr(loop, "Tally", Later)
    with pytest.raises(StageFailed) as error:
        trained(tmp_path, method=SpoilingOn(4), said=training(checkpoint_minutes=minutes))
    monkeypatch.setattr(loop, "Tally", Tally)
    with pytest.raises(StageFailed) as usual:
        trained(tmp_path / "usual", method=Spoiling(4))
    assert str(error.value) == str(usual.value)
    assert "in epoch 2, batch 2 (total nan, hard " in str(error.value)
    assert position(tmp_path) == (4 if minutes < 1 else 3)


COUNTS = (200, 40, 5, 1)


def test_figures_wait_for_nobody_and_are_the_ones_that_are_read() -> None:
    task, labels = Classification(train_counts=COUNTS), torch.tensor([0, 0, 1, 3, 3])
    outputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    found = task.measured(outputs, labels)
    assert {name: value.item() for name, value in found.items()} == task.metrics(outputs, labels)
    assert set(found) == {"accuracy", "many", "medium", "few", "balanced"}
    with Watch():
        there = task.measured(torch.zeros(5, 4, device=GPU), labels)
    assert there.keys() == found.keys()
    assert {(value.device.type, value.dtype, value.shape) for value in there.values()} == {
        (GPU, torch.float64, torch.Size([]))
    }


# ------------------------------------------------------------------------------------------------------- optimiser
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_optimiser_is_fused_on_a_gpu_alone(optimizer: str) -> None:
    said = training(optimizer=optimizer)
    with FakeTensorMode():
        module = nn.Module()
        module.weight = nn.Parameter(torch.empty(3, 3, device="cuda:0"))
        fused = build_optimizer(said, [module])
        module.other = nn.Parameter(torch.empty(3))
        mixed = build_optimizer(said, [module])
    assert [group["fused"] for group in fused.param_groups] == [True]
    assert {group["fused"] for group in mixed.param_groups} == {None}
    assert {group["fused"] for group in build_optimizer(said, [nn.Linear(2, 2)]).param_groups} == {None}


def test_the_moving_average_is_torchs_bit_for_bit() -> None:
    torch.manual_seed(0)
    model = test_loop.normalised()
    ours = MovingAverage(model, 0.8)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8), use_buffers=True)  # type: ignore[no-untyped-call]
    for _ in range(4):
        model(torch.randn(4, 1, 8, 8))  # statistics and their count move
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        ours.update_parameters(model)
        theirs.update_parameters(model)
        assert same_tensors(dict(ours.state_dict()), dict(theirs.state_dict()))
