from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.ladder.tiny import jobs_of, keys_of, made_up, network, stage, states, training, weights_of
from tests.structure.nets import Row, family, images, normed, shaken
from tests.teaching.toys import NO_SURVEY, drawn, made_step
from understudy.errors import BadInput
from understudy.ladder.runner import run
from understudy.losses.resource import depthwise_resource_loss, layer_resource_loss, resource_loss
from understudy.models import build
from understudy.store import Store
from understudy.structure.budget import Budget
from understudy.structure.channels import read_channels
from understudy.structure.cost import cost
from understudy.structure.magnitudes import Magnitudes
from understudy.teaching import Labels, Method, Needs, SoftTargets, Survey
from understudy.teaching.method import Step
from understudy.teaching.structure_search import StructureSearch, unheld, usual_strength
from understudy.training.optimizers import build_optimizer


def search(method: Method | None = None, **changed: Any) -> StructureSearch:
    said: dict[str, Any] = {"strength": 1.0, "epochs": 4, "channels": 2, "size": (8, 8), **changed}
    return StructureSearch(method=method or Labels(), **said)


def resnet(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return shaken(family("resnet-8", width=0.25)(), seed=seed)


def pulls(model: nn.Module, looking: StructureSearch) -> dict[str, Tensor]:
    """The penalty's gradient of every parameter that has one."""
    model.zero_grad()
    looking.penalty(model).backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


# -------------------------------------------------------------------------------------------------------- the penalty
def test_the_penalty_by_hand() -> None:
    """Image (2) - conv 3x3 (2) - norm - depthwise 3x3 - norm - conv 1x1 (3) - norm - linear (3), on 4x4 pixels."""
    body = nn.Sequential(normed(nn.Conv2d(2, 2, 3, padding=1, groups=2)), normed(nn.Conv2d(2, 3, 1)))
    model = Row(normed(nn.Conv2d(2, 2, 3, padding=1)), body, 3)
    first, second = torch.tensor([1.0, 0.005]), torch.tensor([0.5, 2.0, 0.0])
    with torch.no_grad():
        model.stem[1].weight.copy_(first)  # type: ignore[index, union-attr, operator]
        body[1][1].weight.copy_(-second)
        body[0][1].weight.fill_(100.0)  # after the depthwise convolution: not asked
    none, options, pixels = torch.zeros(0), {"threshold": 0.01}, 16
    whole = cost(model, channels=2, size=(4, 4))
    for resource, each in (("multiply_adds", pixels), ("parameters", 1)):
        by_hand = (
            layer_resource_loss(none, first, coefficient=9 * each, fixed_into=2, **options)
            + depthwise_resource_loss(first, first, coefficient=9 * each)
            + layer_resource_loss(first, second, coefficient=each, **options)
            + layer_resource_loss(second, none, coefficient=1, fixed_out=3, **options)
        )
        said = search(strength=0.3, resources=(resource,), size=(4, 4)).penalty(model)
        assert float(said.detach()) == pytest.approx(
            0.3 * float(by_hand) / getattr(whole, resource), rel=1e-6
        )


def test_several_resources_are_added() -> None:
    model = resnet()
    one, other, both = (
        float(search(resources=resources).penalty(model).detach())
        for resources in (("multiply_adds",), ("parameters",), ("parameters", "multiply_adds"))
    )
    assert both == pytest.approx(one + other)


def test_it_begins_near_two_whatever_the_network() -> None:
    for name in ("resnet-14", "plain_cnn-4", "mobilenet_v2"):
        model = family(name)()
        for resource in ("multiply_adds", "parameters"):
            bracket = float(search(resources=(resource,)).penalty(model).detach())
            assert 1.6 < bracket < 2.1, (name, resource)


def test_it_pulls_at_batch_norm_scales_and_at_nothing_else() -> None:
    model = resnet()
    looking = search()
    pulled = pulls(model, looking)
    assert (
        set(pulled)
        == set(looking.no_decay(model))
        == {name for name, _ in model.named_parameters() if "norm" in name and name.endswith("weight")}
    )


def test_costly_channels_are_pulled_at_more() -> None:
    model = family("resnet-8")()  # all scales are 1
    pulled = pulls(model, search())
    assert float(pulled["stage1.0.norm1.weight"].min()) > float(pulled["stage2.0.norm1.weight"].max()) > 0


# ------------------------------------------------------------------------------------------------------------- blocks
def test_weights_of_one_are_the_plain_form_bit_for_bit() -> None:
    model = resnet()
    weights = dict.fromkeys(["stem", "stage1", "stage2", "stage3", "head"], 1.0)
    plain, weighted = pulls(model, search()), pulls(model, search(blocks=weights))
    assert plain.keys() == weighted.keys()
    assert all(torch.equal(plain[name], weighted[name]) for name in plain)
    assert search().definition(teachers=0) == search(blocks=weights).definition(teachers=0)


def test_the_plain_form_is_the_sum_over_the_network() -> None:
    model = resnet()
    reading = read_channels(model, channels=2, size=(8, 8))
    charges = reading.charges("multiply_adds")
    expected = resource_loss(Magnitudes(reading, model)(model), charges, threshold=0.01)
    said = search().penalty(model)
    assert float(said.detach()) == pytest.approx(
        float(expected.detach()) / reading.whole.multiply_adds, rel=1e-6
    )


def test_a_weight_multiplies_what_the_layers_of_a_block_charge() -> None:
    model = resnet()
    plain = float(search().penalty(model).detach())
    terms = {}
    for block in ("stem", "stage1", "stage2", "stage3", "head"):
        terms[block] = float(search(blocks={block: 2.0}).penalty(model).detach()) - plain
    assert min(terms.values()) > 0
    assert sum(terms.values()) == pytest.approx(plain, rel=1e-5)


def test_a_block_of_weight_zero_is_frozen() -> None:
    model = resnet()
    looking = search(blocks={"stage2": 0})
    pulled = pulls(model, looking)
    assert not pulled["stage2.0.norm1.weight"].any()
    assert not pulled["stage2.0.norm2.weight"].any()  # though stage3 reads it
    assert pulled["stage1.0.norm2.weight"].any()
    assert not [name for name in looking.no_decay(model) if name.startswith("stage2")]


def test_sums_belong_to_the_block_where_they_begin() -> None:
    model = resnet()
    pulled = pulls(model, search(blocks={"stem": 0}))
    assert not pulled["stage1.0.norm2.weight"].any()
    assert pulled["stage1.0.norm1.weight"].any()


def test_an_unknown_block_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"the network has no block 'stage9'\. Did you mean 'stage\d'"):
        search(blocks={"stage9": 2.0}).penalty(resnet())


def test_a_search_in_which_all_is_frozen_is_refused() -> None:
    blocks = dict.fromkeys(["stem", "stage1", "stage2", "stage3"], 0.0)
    with pytest.raises(BadInput, match="there is no structure to learn"):
        search(blocks=blocks).penalty(resnet())


# --------------------------------------------------------------------------------------------------------- sequential
def test_one_block_after_the_other_has_its_turn() -> None:
    model = resnet()
    looking = search(schedule="sequential", epochs=8)
    seen = []
    for epoch in range(8):
        looking.on_epoch(epoch, NO_SURVEY)
        pulled = pulls(model, looking)
        seen.append({name.partition(".")[0] for name, gradient in pulled.items() if gradient.any()})
    # the sums of stage1 begin in the stem, so its last norms are pulled at together with the stem's
    turns = [{"stem", "stage1"}, {"stage1"}, {"stage2"}, {"stage3"}]
    assert seen == [turn for turn in turns for _ in range(2)]
    assert set(looking.no_decay(model)) == set(search().no_decay(model))


def test_blocks_of_weight_zero_have_no_turn() -> None:
    model = resnet()
    looking = search(schedule="sequential", epochs=2, blocks={"stem": 0, "stage2": 0})
    looking.on_epoch(0, NO_SURVEY)
    assert {name for name, g in pulls(model, looking).items() if g.any()} == {"stage1.0.norm1.weight"}
    looking.on_epoch(1, NO_SURVEY)
    assert all(name.startswith("stage3") for name, g in pulls(model, looking).items() if g.any())


def test_too_few_epochs_for_all_turns_are_refused() -> None:
    with pytest.raises(BadInput) as caught:
        search(schedule="sequential", epochs=3).penalty(resnet())
    assert "takes its 4 blocks (stem, stage1, stage2, stage3) one after the other" in str(caught.value)


# ----------------------------------------------------------------------------------------------- what it passes through
class Busy(Method):
    """Answers every member of the protocol."""

    name = "busy"

    def __init__(self) -> None:
        self.head = nn.Linear(3, 3)
        self.calls: list[Any] = []

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return {"name": self.name, "teachers": teachers}

    def needs(self) -> Needs:
        return Needs(logits=True, copies=2)

    def check(self, *, teachers: int) -> None:
        if teachers == 7:
            raise BadInput("not seven")

    def modules(self) -> Mapping[str, nn.Module]:
        return {"head": self.head}

    def no_decay(self, model: nn.Module) -> Iterable[str]:
        return ["head.bias", "stem.norm.weight"]

    def loss(self, step: Step) -> dict[str, Tensor]:
        return {"total": torch.tensor(3.0)}

    def penalty(self, model: nn.Module) -> Tensor:
        return torch.tensor(1000.0)

    def after_step(self, model: nn.Module, step: Step) -> None:
        self.calls.append("after_step")

    def on_epoch(self, epoch: int, survey: Survey) -> None:
        self.calls.append(epoch)

    def metrics(self) -> dict[str, Any]:
        return {"calls": len(self.calls)}

    def state_dict(self) -> dict[str, Any]:
        return {"calls": list(self.calls)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.calls = list(state["calls"])


def test_everything_is_passed_on() -> None:
    model = resnet()
    inner = Busy()
    looking = search(inner)
    step = made_step(drawn(4, 3), torch.arange(4) % 3)
    assert looking.needs() == Needs(logits=True, copies=2)
    assert looking.modules() == {"head": inner.head}
    assert list(looking.no_decay(model))[:2] == ["head.bias", "stem.norm.weight"]
    assert len(set(looking.no_decay(model))) == len(list(looking.no_decay(model)))
    assert float(looking.loss(step)["total"]) == 3.0
    assert float(looking.penalty(model).detach()) == pytest.approx(
        1000 + float(search().penalty(model).detach())
    )
    looking.on_epoch(2, NO_SURVEY)
    looking.after_step(model, step)
    assert inner.calls == [2, "after_step"]
    assert looking.metrics()["calls"] == 2
    assert looking.state_dict() == {"calls": [2, "after_step"]}
    looking.load_state_dict({"calls": [1]})
    assert inner.calls == [1]
    assert looking.definition(teachers=5)["method"] == {"name": "busy", "teachers": 5}
    with pytest.raises(BadInput, match="not seven"):
        looking.check(teachers=7)


def test_a_stage_has_its_own_copy() -> None:
    looking = search(SoftTargets())
    bound = looking.for_stage(teachers=2)
    assert isinstance(bound.method, SoftTargets)
    assert bound.method is not looking.method
    assert bound.method.teachers == 2
    assert bound.definition(teachers=2) == looking.definition(teachers=2)


def test_the_loss_is_that_of_the_taught_method() -> None:
    student, labels, teachers = drawn(8, 3), torch.arange(8) % 3, drawn(1, 8, 3, seed=1)
    step = made_step(student, labels, teachers)
    inner = SoftTargets().for_stage(teachers=1)
    said = search(SoftTargets()).for_stage(teachers=1).loss(step)
    assert all(torch.equal(said[name], part) for name, part in inner.loss(step).items())


def test_the_definition_holds_what_decides() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"method": SoftTargets()},
        {"strength": 2.0},
        {"resources": ("parameters",)},
        {"resources": ("parameters", "multiply_adds")},
        {"blocks": {"stem": 0.0}},
        {"schedule": "sequential"},
        {"threshold": 0.1},
        {"size": (4, 4)},
        {"channels": 3},
    ]
    definitions = [search(**change).definition(teachers=1) for change in changes]
    assert len({str(one) for one in definitions}) == len(changes)
    order = ("multiply_adds", "parameters")
    assert search(resources=order).definition(teachers=1) == definitions[4]
    assert search(epochs=9).definition(teachers=1) == definitions[0]  # it looks at them in turns only
    sequential = [search(schedule="sequential", epochs=n).definition(teachers=1) for n in (8, 9)]
    assert sequential[0] != sequential[1]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"strength": 0.0}, "strength is a positive number; got 0.0."),
        ({"strength": float("nan")}, "strength is a positive number"),
        ({"threshold": -1.0}, "threshold is a positive number"),
        ({"resources": ()}, "resources are multiply_adds, parameters or one of them; got none."),
        ({"resources": ("flops",)}, "got 'flops'."),
        ({"blocks": {"stem": -1.0}}, "blocks: the weight of stem is a number of 0 or more; got -1.0."),
        ({"schedule": "random"}, "schedule 'random' is none of joint, sequential."),
        ({"epochs": 0}, "epochs is 1 or more; got 0."),
    ],
)
def test_settings_that_cannot_be_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        search(**changed)
    assert said in str(caught.value)


# ------------------------------------------------------------------------------------------------------ while it trains
@pytest.mark.parametrize(
    "said",
    [
        {"budget": {"multiply_adds": "0.5x"}},
        {"budget": {"parameters": "0.3x"}},
        {"budget": {"multiply_adds": "0.5x", "parameters": "0.6x"}, "blocks": {"stage1": 0.5, "stem": 0}},
    ],
    ids=str,
)
def test_the_usual_strength_just_meets_the_budget_where_nothing_holds(said: dict[str, Any]) -> None:
    budget, blocks = Budget(**said["budget"]), said.get("blocks", {})
    torch.manual_seed(0)
    model = family("resnet-8", width=0.25)()
    whole = cost(model, channels=2, size=(8, 8))
    limits, resources = budget.limits(whole), tuple(said["budget"])
    (way,) = unheld(model, [limits], resources=resources, blocks=blocks, channels=2, size=(8, 8))
    assert min(getattr(limits, what) / getattr(way.cost, what) for what in resources) == pytest.approx(
        1, abs=0.01
    )
    steps, ended = 200, []
    for part in (0.97, 1.03):
        strength = part * usual_strength(way.pull, rates=[0.1] * steps, momentum=0.5)
        looking, pulled = search(strength=strength, resources=resources, blocks=blocks), copy.deepcopy(model)
        looking.no_decay(pulled)
        scales = [module.weight for module in pulled.modules() if isinstance(module, nn.BatchNorm2d)]
        optimizer = torch.optim.SGD(scales, lr=0.1, momentum=0.5)
        for _ in range(steps + 1):  # one for the momentum to build up
            optimizer.zero_grad()
            looking.penalty(pulled).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            for scale in scales:  # what is gone stays gone
                scale.data.mul_(scale.data > 0.01)
        alive = looking.metrics()["alive"]
        ended.append(all(alive[what] * getattr(whole, what) <= getattr(limits, what) for what in resources))
    assert ended == [False, True]


def test_blocks_one_after_the_other_are_pulled_as_many_times_as_hard() -> None:
    model = resnet()
    limits = Budget(multiply_adds="0.5x").limits(cost(model, channels=2, size=(8, 8)))
    takes: dict[str, Any] = {"resources": ("multiply_adds",), "channels": 2, "size": (8, 8)}
    (at_once,) = unheld(model, [limits], **takes)
    (one_by_one,) = unheld(model, [limits], schedule="sequential", **takes)
    assert one_by_one.pull == 4 * at_once.pull  # stem, three stages
    assert one_by_one.cost == at_once.cost
    assert unheld(shaken(model, seed=5), [limits], **takes) == (at_once,)  # weights do not count


def test_what_is_not_limited_is_reckoned_from_the_channels_that_would_go() -> None:
    torch.manual_seed(0)
    model = build("resnet-20", classes=100)
    whole = cost(model, channels=3, size=(32, 32))
    limits = [Budget(parameters=part).limits(whole) for part in ("0.6x", "0.2x")]
    takes: dict[str, Any] = {"resources": ("parameters",), "channels": 3, "size": (32, 32)}
    ways = unheld(model, limits, **takes)
    assert ways == unheld(model, limits[:1], **takes) + unheld(model, limits[1:], **takes)
    assert ways[0].pull < ways[1].pull
    for way, limit in zip(ways, limits, strict=True):
        assert way.cost.parameters == pytest.approx(limit.parameters, abs=1)
        # late layers have the parameters and early ones as many multiply-adds
        assert way.cost.multiply_adds / whole.multiply_adds > way.cost.parameters / whole.parameters + 0.1


def test_costly_channels_die_and_the_others_stay() -> None:
    """Two ways side by side do the same work; one has filters of 1x1, the other of 5x5."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cheap = normed(nn.Conv2d(4, 6, 1))
            self.dear = normed(nn.Conv2d(4, 6, 5, padding=2))

        def forward(self, features: Tensor) -> Tensor:
            return torch.cat([self.cheap(features), self.dear(features)], 1)

    torch.manual_seed(0)
    model = Row(normed(nn.Conv2d(2, 4, 1)), Two(), 12)
    looking = search(strength=1.6, size=(5, 5))
    optimizer = build_optimizer(training(lr=0.05), [model], no_decay=looking.no_decay(model))
    example = images(48, channels=2, size=(5, 5))
    labels = torch.arange(48) % 3
    for number in range(3):  # the mean of one channel tells the class, and that takes no neighbours
        example[labels == number, 0] += number - 1.0
    first = 0.0
    for _ in range(120):
        loss = nn.functional.cross_entropy(model(example), labels)
        optimizer.zero_grad()
        (loss + looking.penalty(model)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        first = first or float(loss.detach())
    cheap, dear = (
        model.get_submodule(f"body.{name}.1").get_parameter("weight").detach().abs()
        for name in ("cheap", "dear")
    )
    # without the penalty both grow, the dear ones most: to 1.8 and 1.2 on average
    assert float(dear.max()) < 0.1
    assert float(cheap.max()) > 0.8
    assert float(loss.detach()) < 0.5 * first


def test_the_share_that_is_alive_is_the_cost_of_the_channels_above_the_threshold() -> None:
    model = resnet()
    looking = search()
    assert looking.metrics() == {}  # nothing was looked at yet
    looking.penalty(model)
    assert looking.metrics()["alive"] == {"channels": 1.0, "multiply_adds": 1.0, "parameters": 1.0}
    with torch.no_grad():
        model.get_submodule("stage3.0.norm1").get_parameter("weight")[:8] = 1e-3
    reading = read_channels(model, channels=2, size=(8, 8))
    expected = reading.cost_of(reading.alive({"stage3.0.conv1": range(8, 16)}))
    assert looking.metrics()["alive"]["parameters"] == pytest.approx(
        expected.parameters / reading.whole.parameters, abs=1e-6
    )


def test_network_and_generator_are_left_alone_by_looking_at_it() -> None:
    model = resnet().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    looking = search()
    looking.no_decay(model)
    looking.penalty(model)
    assert torch.equal(torch.get_rng_state(), generator)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_network_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from understudy.teaching import structure_search

    reads = []
    whole = structure_search.removable_channels
    monkeypatch.setattr(
        structure_search, "removable_channels", lambda *args, **more: reads.append(1) or whole(*args, **more)
    )
    model = resnet()
    looking = search()
    for epoch in range(3):
        looking.on_epoch(epoch, NO_SURVEY)
        looking.no_decay(model)
        looking.penalty(model)
        looking.metrics()
    assert len(reads) == 1


def test_it_takes_a_small_part_of_a_step() -> None:
    model = family("resnet-8", size=(32, 32))().train()
    looking = search(size=(32, 32))
    example, labels = images(64, channels=2, size=(32, 32)), torch.arange(64) % 3
    steps, penalties = [], []
    for _ in range(5):
        start = time.perf_counter()
        nn.functional.cross_entropy(model(example), labels).backward()  # type: ignore[no-untyped-call]
        between = time.perf_counter()
        looking.penalty(model).backward()  # type: ignore[no-untyped-call]
        steps.append(between - start)
        penalties.append(time.perf_counter() - between)
    assert min(penalties) < 0.15 * min(steps)  # 1 % on a quiet machine


def test_the_mean_price_is_what_the_rule_of_thumb_takes_it_for() -> None:
    model = family("mobilenet_v2")()
    reading = read_channels(model, channels=2, size=(8, 8))
    pulled = pulls(model, search())
    total = sum(float(gradient.sum()) for gradient in pulled.values())
    assert total / reading.count == pytest.approx(2 / reading.count, rel=0.2)


# ----------------------------------------------------------------------------------------------------------- in a ladder
def test_in_a_ladder_it_is_stopped_and_continued_with_the_same_bits(tmp_path: Any) -> None:
    dataset = made_up()
    narrow = network("resnet-8", width=0.25)
    looking = search(
        SoftTargets(), channels=1, epochs=2, resources=("multiply_adds", "parameters"), strength=60.0
    )
    stages = [
        stage("teacher", network=narrow),
        stage("search", "teacher", network=narrow, method=looking, training=training(weight_decay=0.1)),
    ]
    jobs = jobs_of(stages, dataset)
    store = Store(tmp_path / "at once")
    finished = run(jobs, store=store, dataset=dataset)
    assert states(finished) == {"teacher": "done", "search": "done"}
    record = finished[-1].result
    assert record is not None
    assert set(record.record["metrics"]["alive"]) == {"channels", "multiply_adds", "parameters"}
    scale, before = (
        store.weights(one.result)["stage1.0.norm1.weight"].abs().mean() for one in (finished[1], finished[0])
    )
    assert float(scale) < 0.9 * float(before)
    assert '"penalty"' in (store.place(jobs[-1].key) / "metrics.jsonl").read_text("utf-8")

    again, outcomes, runs = Store(tmp_path / "stopped"), list(finished), 0
    while runs < 20 and (not runs or set(states(outcomes).values()) != {"done"}):
        asked = iter(range(3))
        outcomes = run(jobs, store=again, dataset=dataset, stop=lambda asked=asked: next(asked, None) is None)
        runs += 1
    assert runs > 2
    assert weights_of(again, outcomes) == weights_of(store, finished)
    resumed = outcomes[-1].result
    assert resumed is not None
    assert resumed.record["metrics"] == record.record["metrics"]

    other = [stages[0], stage("search", "teacher", network=narrow, method=copy.deepcopy(looking))]
    assert keys_of(other, dataset)["search"] != jobs[-1].key  # another training
