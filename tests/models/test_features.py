from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.errors import BadInput, StageFailed
from understudy.models import build, features
from understudy.models.features import (
    Features,
    check_layers,
    check_pairs,
    innermost,
    layer_shapes,
    matched,
    published,
)

NAMES = ["stage2", "stage1.0.conv1"]  # a block, and a layer inside; not in the order in which they run


@pytest.fixture(autouse=True)
def compiled_code_is_forgotten() -> Iterator[None]:
    yield
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def resnet(*, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build("resnet-8", classes=5, size=(16, 16), width=0.25)


def images(count: int = 4, *, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def by_hand(model: Any, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """What a resnet-8 and its two named layers give, without hooks."""
    stem = model.stem(batch)
    stage2 = model.stage2(model.stage1(stem))
    logits = model.head(model.flatten(model.pool(model.stage3(stage2))))
    return logits, {"stage2": stage2, "stage1.0.conv1": model.stage1[0].conv1(stem)}


def assert_same(given: tuple[Any, dict[str, Tensor]], expected: tuple[Tensor, dict[str, Tensor]]) -> None:
    assert list(given[1]) == list(expected[1])
    torch.testing.assert_close(given[0], expected[0])
    for name, value in expected[1].items():
        torch.testing.assert_close(given[1][name], value)


# ------------------------------------------------------------------------------------------------- a plain network
@pytest.mark.parametrize("training", [True, False])
def test_layers_give_what_they_give_by_hand(training: bool) -> None:
    model = resnet().train(training)
    expected = by_hand(copy.deepcopy(model), images())
    assert_same(Features(model, NAMES)(images()), expected)


def test_the_gradient_flows_through_the_features() -> None:
    model: Any = resnet()
    _, features = Features(model, NAMES)(images())
    features["stage1.0.conv1"].square().sum().backward()
    other: Any = resnet()
    by_hand(other, images())[1]["stage1.0.conv1"].square().sum().backward()
    torch.testing.assert_close(model.stem.conv.weight.grad, other.stem.conv.weight.grad)
    assert model.head.weight.grad is None


def test_without_gradients_there_is_none() -> None:
    with torch.no_grad():
        assert not Features(resnet(), NAMES)(images())[1]["stage2"].requires_grad
    with torch.inference_mode():
        assert Features(resnet(), NAMES)(images())[1]["stage2"].is_inference()


def test_under_autocast_features_have_the_number_format_of_the_layer() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, features = Features(resnet(), NAMES)(images())
    assert features["stage1.0.conv1"].dtype == torch.bfloat16


def test_a_pass_changes_statistics_once() -> None:
    model, other = resnet(), resnet()
    Features(model, NAMES)(images())
    other(images())
    for name, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.unused = nn.Linear(3, 3)
        self.pair = Pair()

    def forward(self, batch: Tensor) -> Tensor:
        first, second = self.pair(self.layer(self.layer(batch)))
        return first + second  # type: ignore[no-any-return]


class Pair(nn.Module):
    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        return batch, batch + 1


def test_of_a_layer_that_runs_twice_the_last_output_counts() -> None:
    model, batch = Twice(), torch.randn(2, 3)
    _, features = Features(model, ["layer"])(batch)
    assert torch.equal(features["layer"], model.layer(model.layer(batch)))


def test_a_layer_that_takes_no_part_is_named() -> None:
    features = Features(Twice(), ["layer", "unused"])
    with pytest.raises(StageFailed, match="layer 'unused' gave nothing") as caught:
        features(torch.randn(2, 3))
    assert "understudy layers MODEL" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_layer_that_gives_two_tensors_is_refused() -> None:
    with pytest.raises(BadInput, match="layer 'pair' gives a tuple, not one tensor"):
        Features(Twice(), ["pair"])(torch.randn(2, 3))


def test_an_output_that_is_overwritten_later_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten())
    with pytest.raises(BadInput, match="overwrites the output of '0' in place"):
        Features(model, ["0"])(images())
    assert Features(model, ["1"])(images())[1]["1"].min() >= 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "'' names no layer but the whole network"),
        ("stage9", "the network (ResNet) has no layer 'stage9'. Did you mean 'stage"),
        ("stage1.0.conv", "Did you mean 'stage1.0.conv"),
        ("_orig_mod.stage1", "has no layer '_orig_mod.stage1'"),
    ],
)
def test_an_unknown_layer_is_answered_with_the_nearest(name: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        Features(resnet(), ["stage1", name])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_close_takes_the_hooks_off() -> None:
    model = resnet()
    features = Features(model, NAMES)
    features.close()
    features.close()
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(BadInput, match="taken off by close"):
        features(images())


def test_the_network_on_its_own_is_as_without() -> None:
    model, other = resnet(), resnet()
    features = Features(model, NAMES)
    assert list(model.state_dict()) == list(other.state_dict())
    assert torch.equal(model(images()), other(images()))
    assert features._seen.by_thread == {}
    assert features._seen.compiled == {}


def test_nothing_leaks_into_a_copy_of_the_network() -> None:
    model = resnet()
    features = Features(model, NAMES)
    features(images())
    copied = copy.deepcopy(model)
    alone = resnet()
    alone.load_state_dict(model.state_dict())

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.copied = model, copied

        def forward(self, batch: Tensor) -> Tensor:
            out: Tensor = self.model(batch)
            self.copied(batch + 1)
            return out

    expected = by_hand(alone.eval(), images())
    features.model = Both().eval()  # the copy runs in the middle of a pass that is recorded
    assert_same(features(images()), expected)
    assert torch.equal(copied.eval()(images()), expected[0])


def test_a_copy_of_features_records_its_own_network() -> None:
    features = Features(resnet(), NAMES).eval()
    copied = copy.deepcopy(features)
    assert not copied.training
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(0.1)
    assert_same(copied(images()), by_hand(copied.model, images()))
    assert_same(features(images()), by_hand(features.model, images()))


def test_two_may_watch_one_network() -> None:
    model = resnet().eval()
    one, two = Features(model, ["stage2"]), Features(model, NAMES)
    assert torch.equal(one(images())[1]["stage2"], two(images())[1]["stage2"])
    one.close()
    assert_same(two(images()), by_hand(model, images()))


def test_threads_may_share_one() -> None:
    meeting = threading.Barrier(2, timeout=20)

    class Meet(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            meeting.wait()
            return batch * 2

    features = Features(nn.Sequential(nn.Identity(), Meet()), ["0", "1"])
    found: dict[int, Tensor] = {}

    def run(number: int) -> None:
        for _ in range(5):
            _, given = features(torch.full((1,), float(number)))
            found[number] = torch.cat([given["0"], given["1"]])

    threads = [threading.Thread(target=run, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: value.tolist() for number, value in found.items()} == {1: [1, 2], 2: [2, 4]}


# ----------------------------------------------------------------------------------------------- wrapped and compiled
class Tiny(nn.Module):
    """Little to compile."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 2, 3)
        self.block = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU())
        self.head = nn.Linear(2, 3)

    def forward(self, batch: Tensor) -> Tensor:
        out: Tensor = self.head(self.block(self.stem(batch)).mean((2, 3)))
        return out


PARTS = ["block", "stem", "block.0"]


def parts_by_hand(model: Any, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    stem = model.stem(batch)
    return model(batch), {"block": model.block(stem), "stem": stem, "block.0": model.block[0](stem)}


@pytest.mark.parametrize(("backend", "whole"), [("eager", True), ("aot_eager", False)])
def test_features_may_be_compiled(backend: str, whole: bool) -> None:
    model: Any = Tiny()
    expected = parts_by_hand(copy.deepcopy(model), images())
    compiled = torch.compile(Features(model, PARTS), backend=backend, fullgraph=whole)
    assert_same(compiled(images()), expected)
    assert_same(compiled(images()), expected)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("called", [True, False])
def test_a_network_that_is_compiled_already_is_watched_as_well(backend: str, called: bool) -> None:
    model: Any = Tiny()
    other: Any = copy.deepcopy(model)
    expected = parts_by_hand(other, images())
    compiled: Any = torch.compile(model, backend=backend)
    if called:
        compiled(images())
    features = Features(compiled, PARTS)
    given = features(images())
    assert_same(given, expected)
    assert not features._seen.renewed
    given[1]["block.0"].square().sum().backward()
    expected[1]["block.0"].square().sum().backward()
    torch.testing.assert_close(model.stem.weight.grad, other.stem.weight.grad)


@pytest.mark.parametrize("part", [True, False])
@torch.no_grad()
def test_a_network_compiled_in_place_and_one_with_a_compiled_part_are_watched(part: bool) -> None:
    model: Any = Tiny()
    expected = parts_by_hand(copy.deepcopy(model), images())
    if part:
        model.block = torch.compile(model.block, backend="eager")
    else:
        model.compile(backend="eager")
    model(images())
    assert_same(Features(model, PARTS)(images()), expected)


def test_where_compiled_code_was_not_to_be_seen_it_is_forgotten_once_and_tried_again() -> None:
    model: Any = Tiny()
    expected = parts_by_hand(copy.deepcopy(model), images())
    model.forward = torch.compile(model.forward, backend="eager")
    model(images())
    features = Features(model, PARTS)
    assert_same(features(images()), expected)
    assert features._seen.renewed


def test_compiled_code_that_runs_on_its_own_leaves_nothing_that_could_be_taken_for_a_layers_output() -> None:
    model = Sometimes()
    compiled: Any = torch.compile(model, backend="eager")
    features = Features(compiled, ["layer"])
    compiled(torch.ones(1, 3))
    model.skip = True
    with pytest.raises(StageFailed, match="layer 'layer' gave nothing"):
        features(torch.ones(1, 3))


class Sometimes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.skip = False

    def forward(self, batch: Tensor) -> Tensor:
        return batch if self.skip else F.relu(self.layer(batch))


def test_what_could_not_be_traced_is_recorded_too() -> None:
    class Break(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            torch._dynamo.graph_break()  # type: ignore[no-untyped-call]
            return batch * 2

    model = nn.Sequential(nn.Identity(), Break(), nn.ReLU())
    batch = torch.randn(2, 3)
    for compiled in (
        torch.compile(Features(model, ["0", "1", "2"]), backend="eager"),
        Features(torch.compile(model, backend="eager"), ["0", "1", "2"]),  # type: ignore[arg-type]
    ):
        _, given = compiled(batch)
        assert torch.equal(given["0"], batch)
        assert torch.equal(given["1"], batch * 2)
        assert torch.equal(given["2"], (batch * 2).relu())


@pytest.mark.parametrize("outside", [True, False])
def test_data_parallel_may_be_inside_or_outside(outside: bool) -> None:
    model = resnet().eval()
    expected = by_hand(copy.deepcopy(model), images())
    given: Any = (
        nn.DataParallel(Features(model, NAMES)) if outside else Features(nn.DataParallel(model), NAMES)
    )
    assert_same(given(images()), expected)


def test_what_a_replica_gives_in_a_thread_of_its_own_is_kept_by_its_device() -> None:
    features = Features(nn.DataParallel(nn.Sequential(nn.Identity())), ["0"])
    replica = innermost(features.model).get_submodule("0")._replicate_for_data_parallel()  # type: ignore[operator]
    thread = threading.Thread(target=replica, args=(torch.ones(2),))
    thread.start()
    thread.join()
    assert features._seen.by_device["0"][torch.device("cpu")].tolist() == [1, 1]


def test_what_replicas_gave_is_joined_in_the_order_of_their_devices() -> None:
    first, second, third = (torch.full((2, 3), float(number)) for number in range(3))
    parts = {torch.device("cuda", 0): third, torch.device("cuda", 2): first, torch.device("cuda", 1): second}
    joined = features._joined(parts, [2, 1, 0], torch.device("cpu"))
    assert torch.equal(joined, torch.cat([first, second, third]))


@pytest.mark.parametrize("outside", [True, False])
def test_distributed_data_parallel_may_be_inside_or_outside(outside: bool, tmp_path: Path) -> None:
    distributed = torch.distributed
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = resnet().eval()
        expected = by_hand(copy.deepcopy(model), images())
        wrap = nn.parallel.DistributedDataParallel
        given: Any = wrap(Features(model, NAMES)) if outside else Features(wrap(model), NAMES)
        logits, features = given(images())
        assert_same((logits, features), expected)
        (logits.sum() + sum(value.sum() for value in features.values())).backward()
        assert model.stem.conv.weight.grad is not None
    finally:
        distributed.destroy_process_group()


def test_wrappers_are_taken_off_in_any_order() -> None:
    model = resnet()
    compiled: Any = torch.compile(model, backend="eager")
    assert innermost(nn.DataParallel(compiled)) is model
    assert innermost(torch.compile(nn.DataParallel(model), backend="eager")) is model  # type: ignore[arg-type]
    assert innermost(model) is model


# ------------------------------------------------------------------------------------------------------------- shapes
def test_shapes_come_in_the_order_in_which_layers_finish() -> None:
    shapes = layer_shapes(resnet(), channels=3, size=(16, 20))
    assert list(shapes)[:5] == ["stem.conv", "stem.norm", "stem.relu", "stem", "stage1.0.conv1"]
    assert list(shapes)[-1] == "head"
    assert shapes["stem"] == shapes["stage1"] == (4, 16, 20)
    assert shapes["stage2"] == (8, 8, 10)
    assert shapes["stage2.0.shortcut.conv"] == (8, 8, 10)
    assert shapes["flatten"] == (16,)
    assert shapes["head"] == (5,)
    assert "" not in shapes
    given = Features(resnet(), shapes)(torch.zeros(2, 3, 16, 20))[1]
    assert {name: tuple(value.shape[1:]) for name, value in given.items()} == shapes


def test_looking_at_shapes_changes_nothing() -> None:
    model: Any = resnet()
    model.stage1.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    layer_shapes(model, channels=3, size=(16, 16))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not model.stage1.training
    assert not model.stage1[0].training
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert not any(module._forward_hooks for module in model.modules())


class Counts(nn.Module):
    """Writes to a buffer in eval mode as well."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.layer = nn.Dropout(0.5)

    def forward(self, batch: Tensor) -> Tensor:
        self.seen += 1
        return self.layer(batch) + torch.rand(())  # type: ignore[no-any-return]


def test_a_buffer_that_is_written_in_eval_mode_keeps_its_value() -> None:
    model = Counts()
    assert layer_shapes(model, channels=1, size=(2, 2)) == {"layer": (1, 2, 2)}
    assert int(model.seen) == 0


def test_layers_that_take_no_part_or_give_no_tensor_have_no_shape() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Twice()

        def forward(self, batch: Tensor) -> Tensor:
            out: Tensor = self.inner(batch.flatten(1))
            return out

    assert layer_shapes(Flat(), channels=3, size=(1, 1)) == {"inner.layer": (3,), "inner": (3,)}


@pytest.mark.parametrize("wrap", ["compiled", "compiled part", "parallel"])
def test_wrappers_are_no_part_of_a_layers_name(wrap: str) -> None:
    model: Any = resnet()
    expected = layer_shapes(model, channels=3, size=(16, 16))
    if wrap == "compiled part":
        model.flatten = torch.compile(model.flatten, backend="eager")
        with torch.no_grad():
            model(images())
    elif wrap == "compiled":
        model = torch.compile(model, backend="eager")
    else:
        model = nn.DataParallel(model)
    assert layer_shapes(model, channels=3, size=(16, 16)) == expected


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadInput, match="ResNet cannot be run on 4-channel images of 16x16") as caught:
        layer_shapes(resnet(), channels=4, size=(16, 16))
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------------------- pairs
STUDENT = {
    "stem": (8, 32, 32),
    "stage2.conv": (16, 16, 16),
    "stage2": (16, 16, 16),
    "stage3": (32, 8, 8),
    "tiny": (32, 1, 1),
    "flatten": (32,),
    "head": (10,),
}
TEACHER = {
    "first": (64, 32, 32),
    "block1": (128, 16, 16),
    "block2": (256, 8, 8),
    "block3": (512, 4, 4),
    "pool": (512, 1, 1),
    "out": (10,),
}


def test_the_last_layers_of_each_common_size_are_paired_from_large_to_small() -> None:
    assert list(matched(STUDENT, TEACHER).items()) == [("stage2", "block1"), ("stage3", "block2")]


def test_the_largest_size_stays_where_little_else_is_common() -> None:
    student = {name: shape for name, shape in STUDENT.items() if name != "stage3"}
    assert matched(student, TEACHER) == {"stem": "first", "stage2": "block1"}


def test_a_largest_size_that_only_one_has_takes_nothing_away() -> None:
    teacher = {"before": (3, 64, 64), **TEACHER}
    assert matched(STUDENT, teacher) == {"stem": "first", "stage2": "block1", "stage3": "block2"}


def test_networks_without_a_common_size_are_refused() -> None:
    with pytest.raises(BadInput) as caught:
        matched({"a": (1, 5, 5), "b": (1, 1, 1)}, TEACHER)
    assert "the student has 5x5, the teacher 32x32, 16x16, 8x8, 4x4" in str(caught.value)


@pytest.mark.parametrize("student", ["allcnn", "resnet-8"])
def test_pairs_that_are_found_pass_the_check(student: str) -> None:
    shapes = [
        layer_shapes(build(name, classes=5, width=0.1), channels=3, size=(32, 32))
        for name in (student, "densenet_bc-40-12")
    ]
    pairs = matched(*shapes)
    assert len(pairs) == 2
    check_pairs(pairs, *shapes)
    assert [shapes[0][name][1:] for name in pairs] == [(16, 16), (8, 8)]


@pytest.mark.parametrize("pair", features._PUBLISHED)
def test_published_pairs_are_of_built_in_networks_and_pass_the_check(pair: tuple[str, str]) -> None:
    shapes = [layer_shapes(build(name, classes=5, width=0.1), channels=3, size=(32, 32)) for name in pair]
    pairs = published(*pair)
    assert pairs is not None
    check_pairs(pairs, *shapes)
    pairs.clear()
    assert published(*pair), "a copy"
    assert published(*reversed(pair)) is None


def test_the_pairs_of_sparse_codes_are_other_ones_than_the_rule_finds() -> None:
    shapes = [
        layer_shapes(build(name, classes=100), channels=3, size=(32, 32))
        for name in ("allcnn", "densenet-121")
    ]
    pairs = published("allcnn", "densenet-121")
    assert pairs == {"stage1": "transition1", "stage2": "transition2", "stage4": "block4"}
    # D of the paper's code on CIFAR-100, and where it stands in the network
    assert [shapes[1][name] for name in pairs.values()] == [(128, 16, 16), (256, 8, 8), (1024, 4, 4)]
    assert [shapes[0][name][1:] for name in pairs] == [(16, 16), (8, 8), (4, 4)]
    assert matched(*shapes) != pairs


def test_one_number_a_channel_fits_a_map_of_one_pixel() -> None:
    check_pairs({"stage2": "block1", "flatten": "pool", "tiny": "pool"}, STUDENT, TEACHER)


def test_a_pair_of_two_sizes_is_refused_with_layers_that_would_fit() -> None:
    with pytest.raises(BadInput) as caught:
        check_pairs({"stage2": "block1", "stage3": "block1"}, STUDENT, TEACHER)
    said = str(caught.value)
    assert "the student's 'stage3' gives 32x8x8 and the teacher's 'block1' 128x16x16" in said
    assert "With 16x16 the student has stage2.conv, stage2." in said
    assert "With 8x8 the teacher has block2." in said
    assert "\n" not in said


def test_what_is_no_feature_map_is_refused() -> None:
    with pytest.raises(BadInput, match="'tokens' gives 17x64 and the teacher's 'block1'"):
        check_pairs({"tokens": "block1"}, {**STUDENT, "tokens": (17, 64)}, TEACHER)


def test_an_unknown_layer_of_a_pair_says_whose_it_is() -> None:
    with pytest.raises(BadInput, match=r"the teacher has no layer 'blok1'\. Did you mean 'block1'\?"):
        check_pairs({"stage2": "blok1"}, STUDENT, TEACHER)
    with pytest.raises(BadInput, match="the student has no layer ''"):
        check_layers([""], STUDENT, whose="the student")
