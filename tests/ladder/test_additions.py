"""Peers, sparse codes and hints as stages: who makes them, for which seeds, under which keys, and what is taken over."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.ladder import tiny
from tests.ladder.tiny import by_name, jobs_of, keys_of, made_up, same_tensors, states, training
from understudy.data import Dataset
from understudy.errors import BadInput
from understudy.ladder import Ladder, Network, Stage, shapes
from understudy.ladder.additions import (
    Matching,
    first_of,
    renamed,
    with_hints,
    with_peers,
    with_sparse_codes,
)
from understudy.ladder.graph import Job, Repeat, seed_of
from understudy.ladder.runner import run
from understudy.models.peers import PeerForm, weights_of_peer
from understudy.store import Store
from understudy.teaching import Labels, SoftTargets
from understudy.teaching.hints import Hints
from understudy.teaching.peers import Peers
from understudy.teaching.sparse_codes import Dictionaries, SparseCodes

SMALL = Network(name="resnet-8", width=0.25)
TEACHER = Network(name="resnet-8", width=0.5)
TOGETHER = replace(SMALL, peers=PeerForm(count=2))
SETTINGS = Peers(method=Labels(), temperature=2.0, ema=0.5)
MATCHING = Matching(
    pairs=(("stage2", "stage2"), ("stage3", "stage3")),
    training=training(epochs=3),
    dictionary_training=training(epochs=4),
    atoms=1.5,
    sparsity=0.25,
)


def stage(name: str, *teachers: str, network: Network = SMALL, **more: Any) -> Stage:
    return tiny.stage(name, *teachers, network=network, **more)


LEAD = stage("teacher", network=TEACHER)
STUDENT = stage("student", "teacher")
OF_PEERS = stage("student", "teacher", network=TOGETHER)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return made_up()


# --- renamed --------------------------------------------------------------------------------------------------------


def test_all_that_belongs_to_an_arm_is_called_anew_and_nothing_else() -> None:
    chain = shapes.chain(tiny.TEACHER, tiny.ASSISTANTS, tiny.STUDENT, SoftTargets())
    before = {stage.name: stage for stage in chain}
    first, second = (f"chain/{label}" for label in shapes.labels(tiny.ASSISTANTS))
    found = renamed(chain, "chain", "chain + curriculum")
    assert [stage.name for stage in found] == [
        "teacher",
        first.replace("chain", "chain + curriculum"),
        second.replace("chain", "chain + curriculum"),
        "chain + curriculum",
    ]
    assert [stage.teachers for stage in found[1:]] == [("teacher",), (found[1].name,), (found[2].name,)]
    for stage, plain in zip(found, before.values(), strict=True):
        assert replace(stage, name=plain.name, teachers=plain.teachers) == plain


def test_names_that_only_begin_alike_stay() -> None:
    stages = [
        stage("chain"),
        stage("chain_long", "chain"),
        stage("chain/a", "chain_long"),
        stage("my chain/a"),
    ]
    assert [one.name for one in renamed(stages, "chain", "x")] == ["x", "chain_long", "x/a", "my chain/a"]
    assert renamed(stages, "chain", "x")[1].teachers == ("x",)


def test_a_start_a_structure_and_what_is_taken_follow_and_a_file_does_not(tmp_path: Path) -> None:
    begun = stage("b", "a", start="a/start", structure="a")
    taken = first_of(stage("a"), "c")
    from_file = stage("d", start=tmp_path / "a")
    found = renamed([begun, taken, from_file], "a", "n")
    assert (found[0].start, found[0].structure, found[0].teachers) == ("n/start", "n", ("n",))
    assert found[1].taken == "n"
    assert found[2].start == tmp_path / "a"


@pytest.mark.parametrize("role", ["assistants", "ladder", "student"])
def test_names_decide_no_key(dataset: Dataset, role: Repeat) -> None:
    stages = [
        LEAD,
        *with_sparse_codes(STUDENT, LEAD, MATCHING),
        *with_peers([replace(OF_PEERS, name="p")], SETTINGS),
    ]
    other = renamed(renamed(renamed(stages, "student", "s"), "p", "q"), "p ensemble", "many")
    before, after = (
        [job.key for job in jobs_of(each, dataset, seeds=[0, 1], repeat=role)] for each in (stages, other)
    )
    assert before == after


# --- peers ----------------------------------------------------------------------------------------------------------


def test_a_student_of_peers_is_two_stages_and_both_are_arms() -> None:
    together, first = with_peers([OF_PEERS], SETTINGS)
    assert (together.name, together.role, together.teachers) == ("student ensemble", "student", ("teacher",))
    assert together.method == replace(SETTINGS, method=SoftTargets(), count=2)
    assert (together.network, together.training) == (TOGETHER, OF_PEERS.training)
    assert first == Stage(name="student", network=SMALL, role="student", taken="student ensemble")
    ladder = Ladder((LEAD, together, first), ("student",))
    assert ladder.students == ["student", "student ensemble"]


@pytest.mark.parametrize("role", ["teacher", "assistant", "preparation", "start"])
def test_whoever_teaches_others_stays_one_stage_whose_ensemble_answers(role: Any) -> None:
    (found,) = with_peers([stage("a", network=TOGETHER, role=role)], SETTINGS)
    assert (found.name, found.role, found.network) == ("a", role, TOGETHER)
    assert found.method == replace(SETTINGS, method=Labels(), count=2)


def test_other_stages_stay_as_they_are() -> None:
    given = stage("given", network=TOGETHER, method=None, training=None, weights=Path("peers.safetensors"))
    (together, first) = with_peers([OF_PEERS], SETTINGS)
    others = [LEAD, STUDENT, given, together, first]
    assert with_peers(others, replace(SETTINGS, weight=0.0)) == others


@pytest.mark.parametrize("begun", [{"start": "teacher"}, {"structure": "teacher"}, {"start": Path("a.pt")}])
def test_peers_begin_with_weights_of_their_own(begun: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="stage 'student' is of peers, which begin with weights of their own"):
        with_peers([replace(OF_PEERS, **begun)], SETTINGS)


PEERS: dict[str, Any] = {
    "temperature": 3.5,
    "weight": 0.5,
    "ramp": 0.5,
    "ramp_divisor": "weight",
    "ema": 0.25,
    "ema_buffers": True,
}


def test_every_setting_of_peers_is_tried_here() -> None:
    assert {one.name for one in fields(Peers) if one.init} == PEERS.keys() | {"method", "count"}


@pytest.mark.parametrize("name", PEERS)
def test_every_setting_of_peers_changes_both_keys_and_not_the_teachers(dataset: Dataset, name: str) -> None:
    before, after = (
        keys_of([LEAD, *with_peers([OF_PEERS], each)], dataset)
        for each in (SETTINGS, replace(SETTINGS, **{name: PEERS[name]}))
    )
    assert [one for one in before if before[one] != after[one]] == ["student ensemble", "student"]


@pytest.mark.parametrize(
    "other",
    [
        replace(TOGETHER, peers=PeerForm(count=3)),
        replace(TOGETHER, peers=PeerForm(count=2, split="stage2")),
        replace(TOGETHER, width=0.5),
    ],
)
def test_the_form_of_peers_changes_both_keys(dataset: Dataset, other: Network) -> None:
    before, after = (
        keys_of([LEAD, *with_peers([replace(OF_PEERS, network=each)], SETTINGS)], dataset)
        for each in (TOGETHER, other)
    )
    assert [one for one in before if before[one] != after[one]] == ["student ensemble", "student"]


def test_where_peers_part_by_themselves_is_known_by_name(dataset: Dataset) -> None:
    said = replace(TOGETHER, peers=PeerForm(count=2, split="stage3"))
    before, after = (
        keys_of([LEAD, *with_peers([replace(OF_PEERS, network=each)], SETTINGS)], dataset)
        for each in (TOGETHER, said)
    )
    assert before == after


# --- sparse codes and hints -----------------------------------------------------------------------------------------


def test_sparse_codes_are_dictionaries_a_start_and_the_student() -> None:
    dictionaries, start, student = with_sparse_codes(STUDENT, LEAD, MATCHING)
    assert dictionaries == Stage(
        name="student/dictionaries",
        network=TEACHER,
        role="preparation",
        start="teacher",
        method=Dictionaries(layers=("stage2", "stage3"), atoms=1.5, sparsity=0.25),
        training=MATCHING.dictionary_training,
    )
    assert start == Stage(
        name="student/start",
        network=SMALL,
        role="start",
        teachers=("student/dictionaries",),
        method=SparseCodes(pairs=MATCHING.pairs, atoms=1.5, sparsity=0.25),
        training=MATCHING.training,
    )
    assert student == replace(STUDENT, start="student/start")
    assert Ladder((LEAD, dictionaries, start, student), ("student",)).students == ["student"]


def test_hints_are_a_start_from_the_teacher_itself_and_the_student() -> None:
    start, student = with_hints(STUDENT, LEAD, MATCHING)
    assert (start.name, start.role, start.teachers, start.start) == (
        "student/start",
        "start",
        ("teacher",),
        None,
    )
    assert start.method == Hints(pairs=MATCHING.pairs)
    assert start.training == MATCHING.training
    assert student == replace(STUDENT, start="student/start")


def test_a_layer_of_two_pairs_has_one_dictionary() -> None:
    twice = replace(MATCHING, pairs=(("stage2.0", "stage2"), ("stage2", "stage2")))
    dictionaries, start, _ = with_sparse_codes(STUDENT, LEAD, twice)
    assert isinstance(dictionaries.method, Dictionaries)
    assert isinstance(start.method, SparseCodes)
    assert dictionaries.method.layers == ("stage2",)
    assert start.method.pairs == twice.pairs


def test_dictionaries_are_learnt_in_the_mode_and_on_the_layers_that_are_said() -> None:
    said = replace(MATCHING, teacher_mode="train", dictionary_layers={"stage2": "stage2.0"})
    dictionaries, start, student = with_sparse_codes(STUDENT, LEAD, said)
    assert dictionaries.method == Dictionaries(
        layers=("stage2.0", "stage3"), atoms=1.5, sparsity=0.25, teacher_mode="train"
    )
    assert isinstance(start.method, SparseCodes)
    assert start.method.dictionary_layers == {"stage2": "stage2.0"}
    # codes are taken of the network that dictionaries leave; the student is taught by the teacher itself
    assert (start.teachers, student.teachers) == (("student/dictionaries",), ("teacher",))


def test_dictionaries_of_a_smaller_teacher_have_its_structure() -> None:
    lead = stage("lead", network=TEACHER, structure="chosen")
    assert with_sparse_codes(STUDENT, lead, MATCHING)[0].structure == "chosen"


@pytest.mark.parametrize("add", [with_sparse_codes, with_hints])
@pytest.mark.parametrize(
    "student",
    [
        replace(STUDENT, start="teacher"),
        replace(STUDENT, start=Path("a.pt")),
        replace(STUDENT, structure="teacher"),
        OF_PEERS,
    ],
)
def test_a_student_that_begins_otherwise_cannot_begin_so(
    add: Callable[..., list[Stage]], student: Stage
) -> None:
    with pytest.raises(
        BadInput, match="stage 'student' begins by matching layers, and has a start, a structure or peers"
    ):
        add(student, LEAD, MATCHING)


@pytest.mark.parametrize("add", [with_sparse_codes, with_hints])
def test_a_teacher_in_a_file_shows_no_layers(add: Callable[..., list[Stage]], tmp_path: Path) -> None:
    file = tmp_path / "teacher.onnx"
    lead = Stage(name="teacher", network=Network(file=file), role="teacher")
    with pytest.raises(
        BadInput, match=r"the teacher is the file .*teacher\.onnx, whose layers cannot be looked at"
    ):
        add(STUDENT, lead, MATCHING)


DICTIONARIES: dict[str, Any] = {
    "atoms": 2.5,
    "sparsity": 0.5,
    "dictionary_training": training(epochs=5),
    "pairs": (("stage2", "stage2"),),
    "teacher_mode": "train",
    "dictionary_layers": {"stage2": "stage2.0"},
}
STARTS: dict[str, Any] = {"training": training(epochs=5), "labels": "image", "local_logits": "pre_sigmoid"}


def test_every_setting_of_a_matching_is_tried_here() -> None:
    assert {one.name for one in fields(Matching)} == DICTIONARIES.keys() | STARTS.keys()


@pytest.mark.parametrize(("name", "value"), [*DICTIONARIES.items(), *STARTS.items()])
def test_every_setting_changes_the_keys_of_what_it_decides(dataset: Dataset, name: str, value: Any) -> None:
    before, after = (
        keys_of([LEAD, *with_sparse_codes(STUDENT, LEAD, each)], dataset)
        for each in (MATCHING, replace(MATCHING, **{name: value}))
    )
    changed = [one for one in before if before[one] != after[one]]
    below = ["student/start", "student"]
    assert changed == (["student/dictionaries", *below] if name in DICTIONARIES else below)


def test_the_keys_of_hints_do_not_follow_what_only_codes_have(dataset: Dataset) -> None:
    before = keys_of([LEAD, *with_hints(STUDENT, LEAD, MATCHING)], dataset)
    for name, value in {**DICTIONARIES, **STARTS}.items():
        after = keys_of([LEAD, *with_hints(STUDENT, LEAD, replace(MATCHING, **{name: value}))], dataset)
        assert (before != after) == (name in ("pairs", "training"))
        assert before["teacher"] == after["teacher"]


def test_the_same_student_from_scratch_codes_and_hints_has_three_keys(dataset: Dataset) -> None:
    found = [
        keys_of([LEAD, *stages], dataset)["student"]
        for stages in (
            [STUDENT],
            with_sparse_codes(STUDENT, LEAD, MATCHING),
            with_hints(STUDENT, LEAD, MATCHING),
        )
    ]
    assert len(set(found)) == 3


# --- seeds ----------------------------------------------------------------------------------------------------------


def seeds_of(jobs: list[Job]) -> dict[str, list[int]]:
    return {name: [job.seed for job in some] for name, some in by_name(jobs).items()}


@pytest.mark.parametrize(
    ("repeat", "own"),
    [
        ("student", {"student", "student/start"}),
        ("assistants", {"student", "student/start", "student/dictionaries"}),
        ("ladder", {"student", "student/start", "student/dictionaries", "teacher"}),
    ],
)
def test_dictionaries_are_made_once_and_starts_for_every_seed(
    dataset: Dataset, repeat: Repeat, own: set[str]
) -> None:
    stages = [LEAD, *with_sparse_codes(STUDENT, LEAD, MATCHING)]
    made = jobs_of(stages, dataset, seeds=[3, 4], repeat=repeat, ladder_seed=9)
    assert seeds_of(made) == {stage.name: [3, 4] if stage.name in own else [9] for stage in stages}
    for student in by_name(made)["student"]:
        assert student.start is not None
        assert student.start.seed == student.seed


def test_peers_of_a_student_are_made_for_every_seed_and_their_first_is_of_the_same(dataset: Dataset) -> None:
    made = jobs_of([LEAD, *with_peers([OF_PEERS], SETTINGS)], dataset, seeds=[3, 4])
    assert seeds_of(made) == {"teacher": [0], "student ensemble": [3, 4], "student": [3, 4]}
    for first in by_name(made)["student"]:
        assert first.taken is not None
        assert first.taken.seed == first.seed
        assert first.inputs == (first.taken,)


@pytest.mark.parametrize("role", ["teacher", "assistant", "preparation", "start", "student"])
def test_the_seed_of_a_role_is_that_of_the_repetition_or_the_ladders(role: Any) -> None:
    found = [
        seed_of(stage("a", role=role), 5, repeat=repeat, ladder_seed=1)
        for repeat in ("student", "assistants", "ladder")
    ]  # type: ignore[arg-type]
    wanted = {
        "teacher": [1, 1, 5],
        "assistant": [1, 5, 5],
        "preparation": [1, 5, 5],
        "start": [5, 5, 5],
        "student": [5, 5, 5],
    }
    assert found == wanted[role]


# --- made -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(
    dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Store, dict[str, Job], dict[str, str]]:
    """A teacher of peers, and students with sparse codes, hints and peers, made; not to be changed."""
    quick = replace(MATCHING, training=training(epochs=1), dictionary_training=training(epochs=1))
    lead = replace(
        stage("teacher", network=replace(TEACHER, peers=PeerForm(count=2))), training=training(epochs=1)
    )
    plain = replace(stage("plain", network=TEACHER), training=training(epochs=1))

    def taught(name: str, network: Network = SMALL) -> Stage:
        return replace(stage(name, "plain", network=network), training=training(epochs=1))

    stages = [
        *with_peers([lead], SETTINGS),
        plain,
        *with_sparse_codes(taught("codes"), plain, quick),
        *with_hints(taught("hints"), plain, quick),
        *with_peers([replace(taught("peers", TOGETHER), teachers=("teacher",))], SETTINGS),
    ]
    store = Store(tmp_path_factory.mktemp("finished"))
    made = jobs_of(stages, dataset)
    outcomes = run(made, store=store, dataset=dataset)
    return store, {job.name: job for job in made}, states(outcomes)


def weights(store: Store, job: Job) -> dict[str, torch.Tensor]:
    result = store.result(job.key)
    assert result is not None
    return dict(store.weights(result))


Finished = tuple[Store, dict[str, Job], dict[str, str]]


def test_all_of_them_can_be_made(finished: Finished) -> None:
    _, _, made = finished
    assert set(made.values()) == {"done"}


def test_what_is_taken_are_the_trunk_and_first_peer_bit_for_bit(finished: Finished) -> None:
    store, jobs, _ = finished
    together, first = weights(store, jobs["peers ensemble"]), weights(store, jobs["peers"])
    assert same_tensors(first, weights_of_peer(together))
    assert not same_tensors(first, weights_of_peer(together, 1))
    assert not any(name.startswith(("trunk", "peers", "ensemble")) for name in first)


def test_nothing_is_trained_for_what_is_taken(finished: Finished) -> None:
    store, jobs, _ = finished
    result = store.result(jobs["peers"].key)
    assert result is not None
    assert (result.record["epochs"], result.record["steps"]) == (0, 0)
    assert result.record["multiply_adds"] < jobs["peers ensemble"].cost.multiply_adds
    assert result.record["network"].get("peers") is None


def test_dictionaries_leave_the_teacher_as_it_is_and_keep_what_they_learnt(finished: Finished) -> None:
    store, jobs, _ = finished
    assert same_tensors(weights(store, jobs["codes/dictionaries"]), weights(store, jobs["plain"]))
    result = store.result(jobs["codes/dictionaries"].key)
    assert result is not None
    assert any(name.startswith("dictionary0") for name in store.artefacts(result))


def test_a_start_keeps_nothing_but_weights_and_its_head_is_as_it_was_drawn(finished: Finished) -> None:
    store, jobs, _ = finished
    for name in ("codes/start", "hints/start"):
        result = store.result(jobs[name].key)
        assert result is not None
        assert store.artefacts(result) == {}
    codes, hints = weights(store, jobs["codes/start"]), weights(store, jobs["hints/start"])
    heads = [name for name in codes if name.startswith("head")]
    assert heads
    for name in heads:  # no gradient comes there; both were drawn from one seed
        decayed = torch.nn.functional.cosine_similarity(codes[name].flatten(), hints[name].flatten(), dim=0)
        assert decayed > 0.999 or not codes[name].any()


# --- networks from elsewhere ----------------------------------------------------------------------------------------


class Mixer(nn.Module):
    """A block of one's own: a convolution that looks along rows, then one that looks along columns."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rows = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1))
        self.columns = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps + torch.relu(self.columns(torch.relu(self.rows(maps))))


def mixers(width: int, blocks: int) -> Callable[..., nn.Module]:
    def build(*, classes: int, channels: int, size: tuple[int, int]) -> nn.Module:
        return nn.Sequential(
            OrderedDict[str, nn.Module](
                stem=nn.Conv2d(channels, width, 3, stride=2, padding=1),
                **{f"mixer{i}": Mixer(width) for i in range(blocks)},
                pool=nn.AdaptiveAvgPool2d(1),
                flat=nn.Flatten(),
                head=nn.Linear(width, classes),
            )
        )

    return build


def answers_of(stages: list[Stage], dataset: Dataset, folder: Path) -> Any:
    """The kept results of all stages by name, after the last one was made."""
    store = Store(folder)
    made = jobs_of(stages, dataset)
    outcomes = run(made, store=store, dataset=dataset)
    assert set(states(outcomes).values()) == {"done"}
    return {outcome.job.name: outcome.result for outcome in outcomes}


@pytest.mark.parametrize("add", [with_sparse_codes, with_hints])
def test_blocks_of_ones_own_are_matched_by_their_names(
    dataset: Dataset, tmp_path: Path, add: Callable[..., list[Stage]]
) -> None:
    large = Network(name="large", factory=mixers(12, 3), version="1")
    little = Network(name="little", factory=mixers(4, 1), version="1")
    lead, student = stage("teacher", network=large), stage("student", "teacher", network=little)
    quick = training(epochs=2)
    matching = Matching(
        pairs=(("mixer0", "mixer2"),), training=quick, dictionary_training=quick, sparsity=0.2
    )
    found = answers_of([lead, *add(student, lead, matching)], dataset, tmp_path)
    losses = [line["loss"]["total"] for line in lines_of(found["student/start"])]
    assert losses[-1] < losses[0]


def test_sparse_codes_of_networks_from_timm(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    dataset = made_up(train=16, validation=4, test=4)
    large, little = (Network(name=f"timm/{name}", size=(32, 32)) for name in ("resnet18", "resnet10t"))
    lead, student = stage("teacher", network=large), stage("student", "teacher", network=little)
    quick = training(epochs=2)
    pairs = (("layer2", "layer2"), ("layer3", "layer3"))
    matching = Matching(pairs=pairs, training=quick, dictionary_training=quick, atoms=1.0)
    stages = [replace(one, training=quick) for one in (lead, *with_sparse_codes(student, lead, matching))]
    found = answers_of(stages, dataset, tmp_path)
    assert found["student"].record["model"] == "timm/resnet10t"
    losses = [line["loss"]["total"] for line in lines_of(found["student/start"])]
    assert losses[-1] < losses[0]


def lines_of(result: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text("utf-8").splitlines()]
