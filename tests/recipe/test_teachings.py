"""Parts of a teaching on their way from a recipe to the stages, and what arms with and without them are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.recipe.tiny import short, write_data
from understudy.errors import BadInput
from understudy.ladder import Stage
from understudy.ladder.additions import Matching, matched_layers, unordered
from understudy.models import features
from understudy.recipe import Recipe, changed, check, read_text
from understudy.recipe.building import Built, build
from understudy.recipe.schema import Balance, CurriculumSection, PeersOf, PeersTeaching, SparseCodesSection
from understudy.recipe.teachings import peers_of
from understudy.teaching import Labels, SoftTargets
from understudy.teaching.around import Around, innermost
from understudy.teaching.balanced import BalancedHardTerm, BalancedLabels, BalancedTargets
from understudy.teaching.curriculum import Curriculum
from understudy.teaching.hints import Hints
from understudy.teaching.peers import Peers
from understudy.teaching.sparse_codes import Dictionaries, SparseCodes
from understudy.training import Training

MODELS: dict[str, Any] = {
    "teacher": {"name": "resnet-8", "width": 0.5},
    "assistants": [{"name": "resnet-8", "width": 0.375}],
    "student": {"name": "resnet-8", "width": 0.25},
}
PARTS = ("balance", "curriculum", "sparse_codes")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "data.npz")


def small(**sections: Any) -> dict[str, Any]:
    return short(**{"models": MODELS, **sections})


def long(
    *, teaching: Mapping[str, Any] | None = None, own: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The same networks stage by stage: ``teaching`` of the recipe, ``own`` of the student."""
    whole = small(teaching=dict(teaching or {}))
    del whole["models"]
    stages = [
        {"name": "lead", "model": MODELS["teacher"]},
        {"name": "middle", "model": MODELS["assistants"][0], "teachers": ["lead"]},
        {
            "name": "end",
            "model": MODELS["student"],
            "teachers": ["lead", "middle"],
            "teaching": dict(own or {}),
        },
    ]
    return {**whole, "ladder": {"stages": stages}}


def built(data: Path, *settings: str, raw: dict[str, Any] | None = None, **sections: Any) -> Built:
    whole = raw or small(**sections)
    return build(check(changed({**whole, "data": {**whole["data"], "path": str(data)}}, settings)))


def stages(made: Built) -> dict[str, Stage]:
    return {stage.name: stage for stage in made.ladder.stages}


def keys(made: Built) -> dict[str, str]:
    return {job.name: job.key for job in made.jobs}


def attributes(value: Any) -> dict[str, Any]:
    """What a method or a form is made of, inner methods left out."""
    return {one.name: getattr(value, one.name) for one in fields(value) if one.init and one.name != "method"}


# --- every key reaches its method -----------------------------------------------------------------------------------

WEIGHTS = {"beta": 0.5, "defer": 0.25, "form": "unnormalised"}
BALANCE = {**WEIGHTS, "control_labels": "balanced"}
CURRICULUM = {
    "score": "loss",
    "direction": "hard_first",
    "pacing": "linear",
    "start": 0.2,
    "growth": 3.0,
    "step": 0.1,
    "boundaries": [0.25, 0.5],
    "uniform": 0.125,
}
CODES = {
    "layers": {"stage2": "stage2"},
    "atoms": 1.5,
    "sparsity": 0.25,
    "labels": "pixel",
    "local_logits": "pre_sigmoid",
    "teacher_mode": "train",
    "dictionary_layers": {"stage2": "stage2.0"},
    "epochs": 4,
    "training": {"lr": 0.003},
    "dictionary_epochs": 3,
    "dictionary_training": {"lr": 0.004},
}
PEERS = {
    "temperature": 2.0,
    "weight": 0.5,
    "ramp": 0.125,
    "ramp_divisor": "weight",
    "ema": 0.75,
    "ema_buffers": True,
}
FORM = {"count": 2, "split": "stage2", "deliver": "ensemble"}


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (Balance, BALANCE),
        (CurriculumSection, CURRICULUM),
        (SparseCodesSection, CODES),
        (PeersTeaching, PEERS),
        (PeersOf, FORM),
    ],
)
def test_every_key_is_tried_here_with_another_value_than_its_own(
    section: type[BaseModel], said: dict[str, Any]
) -> None:
    assert said.keys() == section.model_fields.keys()
    for key, value in said.items():
        assert value != section.model_fields[key].get_default()


def test_balance_reaches_every_stage_that_is_taught_and_no_other(data: Path) -> None:
    made = stages(built(data, teaching={"balance": WEIGHTS, "temperature": 2, "soft_weight": 0.25}))
    wanted = BalancedTargets(temperature=2.0, soft_weight=0.25, **WEIGHTS)  # type: ignore[arg-type]
    assert {name: stage.method for name, stage in made.items()} == {
        "teacher": Labels(),
        "dense + balance/resnet-8 x0.375": wanted,
        "dense + balance": wanted,
        "scratch": Labels(),
        "direct": SoftTargets(temperature=2.0, soft_weight=0.25),
    }


def test_the_labels_of_controls_weigh_by_class_where_that_is_asked_for(data: Path) -> None:
    controls = [
        "scratch",
        "direct",
        "dense",
        "mean_teachers",
        "label_smoothing",
        "balanced_labels",
        "logit_std",
    ]
    said = {"temperature": 2, "soft_weight": 0.25}
    made, usual = (
        stages(built(data, teaching={"balance": balance, **said}, controls=controls))
        for balance in (BALANCE, WEIGHTS)
    )
    wanted = BalancedHardTerm(temperature=2.0, soft_weight=0.25, beta=0.5, defer=0.25)
    changed = {name for name, stage in made.items() if stage.method != usual[name].method}
    assert changed == {"direct", "dense", "dense/resnet-8 x0.375", "mean_teachers"}
    for name in changed - {"mean_teachers"}:
        assert made[name].method == wanted
    assert made["mean_teachers"].method == replace(wanted, combine="mean", hard_terms="once")
    assert made["dense + balance"].method == BalancedTargets(temperature=2.0, soft_weight=0.25, **WEIGHTS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"training": {"label_smoothing": 0.1}}, "training.label_smoothing is 0.1"),
        ({"data": {"views": {"mixup": 0.4}}}, "data.views.mixup is 0.4"),
    ],
)
def test_weights_on_the_labels_of_controls_go_with_one_label_an_image(
    sections: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput) as error:
        check(small(teaching={"balance": BALANCE}, **sections))
    assert str(error.value) == (
        f"teaching.balance.control_labels: balanced weighs each image by its one label, and {said}: leave one of them out."
    )
    check(small(teaching={"balance": WEIGHTS}, **sections))


def test_a_curriculum_reaches_every_stage_that_is_taught_with_the_temperature_of_the_teaching(
    data: Path,
) -> None:
    made = stages(built(data, teaching={"curriculum": CURRICULUM, "temperature": 2}))
    wanted = {**CURRICULUM, "boundaries": (0.25, 0.5), "temperature": 2.0}
    for name in ("dense + curriculum/resnet-8 x0.375", "dense + curriculum"):
        method = made[name].method
        assert isinstance(method, Curriculum)
        assert attributes(method) == wanted
        assert method.method == SoftTargets(temperature=2.0)
    assert made["direct"].method == SoftTargets(temperature=2.0)
    assert made["teacher"].method == made["scratch"].method == Labels()


@pytest.mark.parametrize("shape", ["scratch", "peers"])
def test_a_curriculum_reaches_a_student_whom_nobody_teaches(data: Path, shape: str) -> None:
    said = {"score": "loss", "start": 0.25}
    made = stages(
        built(
            data,
            ladder={"shape": shape},
            teaching={"curriculum": said},
            controls=["scratch", "curriculum_random"],
        )
    )
    suffix = " ensemble" if shape == "peers" else ""
    for name, wanted in ((f"{shape} + curriculum", "loss"), ("curriculum_random", "random")):
        method = made[name + suffix].method
        if isinstance(method, Peers):
            method = method.method
        assert method == Curriculum(method=Labels(), score=wanted, start=0.25)  # type: ignore[arg-type]
    assert made["scratch"].method == Labels()


def test_a_curriculum_of_stochastic_teaching_has_it_inside(data: Path) -> None:
    made = stages(
        built(data, ladder={"stochastic": {"keep": 0.5}}, teaching={"curriculum": True, "balance": True})
    )
    method = made["dense + balance + curriculum"].method
    assert isinstance(method, Curriculum)
    assert isinstance(method.method, BalancedTargets)
    assert method.method.stochastic is not None
    assert method.method.stochastic.keep == 0.5


def test_sparse_codes_reach_the_two_stages_before_the_student(data: Path) -> None:
    made = stages(built(data, teaching={"sparse_codes": CODES}))
    name = "dense + sparse_codes"
    dictionaries, start, student = made[f"{name}/dictionaries"], made[f"{name}/start"], made[name]
    assert dictionaries.method == Dictionaries(
        layers=("stage2.0",), atoms=1.5, sparsity=0.25, teacher_mode="train"
    )
    assert start.method == SparseCodes(
        pairs=(("stage2", "stage2"),),
        atoms=1.5,
        sparsity=0.25,
        labels="pixel",
        local_logits="pre_sigmoid",
        dictionary_layers={"stage2": "stage2.0"},
    )
    assert (start.start, student.start) == (None, start.name)
    assert dictionaries.training is not None
    assert start.training is not None
    assert (dictionaries.training.epochs, dictionaries.training.lr) == (3, 0.004)
    assert (start.training.epochs, start.training.lr) == (4, 0.003)
    assert student.training == made["direct"].training


def test_dictionaries_are_trained_as_published_unless_said(data: Path) -> None:
    made = stages(built(data, teaching={"sparse_codes": {"epochs": 4, "training": {"batch_size": 8}}}))
    training = made["dense + sparse_codes/dictionaries"].training
    assert training is not None
    assert (training.optimizer, training.lr, training.weight_decay) == ("adamw", 1e-3, 0.0)
    assert (training.epochs, training.batch_size) == (4, Training().batch_size)


def test_layers_are_found_where_none_are_named(data: Path) -> None:
    made = stages(built(data, teaching={"sparse_codes": True}))
    method = made["dense + sparse_codes/start"].method
    assert isinstance(method, SparseCodes)
    assert method.pairs == (("stage2", "stage2"), ("stage3", "stage3"))


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (
            {"stage1": "stage2"},
            "teaching.sparse_codes.dictionary_layers names 'stage1', which is matched with no",
        ),
        ({"stage2": "stage9"}, "teaching.sparse_codes.dictionary_layers: the teacher has no layer 'stage9'."),
        (
            {"stage2": "stage3"},
            "dictionary_layers: the teacher's 'stage2' has 16 channels and 'stage3' 32; atoms",
        ),
    ],
)
def test_dictionaries_are_learnt_on_layers_of_as_many_channels(
    data: Path, layers: dict[str, str], said: str
) -> None:
    with pytest.raises(BadInput) as error:
        built(data, teaching={"sparse_codes": {**CODES, "dictionary_layers": layers}})
    assert said in str(error.value)
    assert "\n" not in str(error.value)


PAIRS_OF_SRM = (("stage1", "transition1"), ("stage2", "transition2"), ("stage4", "block4"))
OF_SRM = {"teacher": {"name": "densenet-121", "width": 0.06}, "student": {"name": "allcnn", "width": 0.05}}


def started(data: Path, models: dict[str, Any], **codes: Any) -> tuple[Built, Any]:
    made = built(
        data,
        raw=short(models=models, teaching={"sparse_codes": codes}, controls=["hints"], ladder="direct"),
    )
    method = stages(made)["direct + sparse_codes/start"].method
    assert isinstance(method, SparseCodes)
    return made, method.pairs


def test_the_networks_of_the_paper_have_its_layers_unless_said(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = write_data(tmp_path / "large.npz", size=32)
    made, pairs = started(large, OF_SRM)
    assert pairs == PAIRS_OF_SRM
    hints = stages(made)["hints/start"].method
    assert isinstance(hints, Hints)
    assert hints.pairs == PAIRS_OF_SRM
    assert matched_layers(made.jobs) == [
        f"{name}/start matches layers of student and teacher: stage1 with transition1, stage2 with transition2, stage4 "
        f"with block4 (the pairs of the paper)."
        for name in ("direct + sparse_codes", "hints")
    ]
    assert started(large, OF_SRM, layers={"stage4": "block4"})[1] == (("stage4", "block4"),)
    # the same networks the other way round, and others: the rule
    assert started(large, {"teacher": OF_SRM["student"], "student": OF_SRM["teacher"]})[1] != tuple(
        (teacher, student) for student, teacher in PAIRS_OF_SRM
    )
    # images on which the two networks halve otherwise
    monkeypatch.setitem(features._PUBLISHED, ("allcnn", "densenet-121"), {"stage1": "block4"})
    found, by_rule = started(large, OF_SRM)
    assert by_rule not in ((("stage1", "block4"),), PAIRS_OF_SRM)
    assert not any("of the paper" in sentence for sentence in matched_layers(found.jobs))


def test_the_layers_that_were_found_are_said_once_for_all_seeds(data: Path) -> None:
    made = built(data, teaching={"sparse_codes": True}, seeds=[0, 1])
    assert matched_layers(made.jobs) == [
        "dense + sparse_codes/start matches layers of student and teacher: stage2 with stage2, stage3 with stage3."
    ]
    assert matched_layers(built(data).jobs) == []


def test_a_curriculum_without_room_for_a_phase_is_said(data: Path) -> None:
    made = built(data, teaching={"curriculum": True}, training={"epochs": 1}, ladder="direct", seeds=[0, 1])
    assert unordered(made.jobs) == [
        "direct + curriculum has a curriculum and no room for a phase of it with training.epochs 1: samples come as usual. "
        "Train longer, or see teaching.curriculum.boundaries and uniform."
    ]
    assert unordered(built(data, teaching={"curriculum": True}, training={"epochs": 9}).jobs) == []
    assert unordered(built(data).jobs) == []


def test_the_teaching_of_peers_and_their_form_reach_every_network_of_peers(data: Path) -> None:
    of_two = {**MODELS["assistants"][0], "peers": FORM}
    made = stages(
        built(
            data,
            "teaching.temperature=2",
            models={
                **MODELS,
                "assistants": [of_two],
                "student": {**MODELS["student"], "peers": {**FORM, "count": 4}},
            },
            teaching={"peers": PEERS},
            controls=["direct", "peers_alone"],
        )
    )
    assistant, student = made["dense + peers/resnet-8 x0.375 2 peers"], made["dense + peers ensemble"]
    for stage, count in ((assistant, 2), (student, 4)):
        assert isinstance(stage.method, Peers)
        assert attributes(stage.method) == {**PEERS, "count": count}
        assert stage.method.method == SoftTargets(temperature=2.0)
        assert stage.network.peers is not None
        assert (stage.network.peers.count, stage.network.peers.split) == (count, "stage2")
    alone = made["peers_alone ensemble"]
    assert isinstance(alone.method, Peers)
    assert attributes(alone.method) == {**PEERS, "count": 4, "weight": 0.0}
    assert alone.network == student.network
    assert made["dense + peers"].network == made["direct"].network == made["peers_alone"].network
    assert made["direct"].network.peers is None


# --- defaults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "method", "elsewhere"),
    [
        (Balance(), BalancedTargets(), attributes(SoftTargets()).keys()),
        (CurriculumSection(), Curriculum(method=Labels()), {"temperature"}),
        (PeersTeaching(), Peers(method=Labels()), {"count"}),
        (
            SparseCodesSection(),
            Matching(pairs=(), training=Training(), dictionary_training=Training()),
            {"pairs", "training", "dictionary_training"},
        ),
    ],
)
def test_defaults_are_those_of_the_methods(section: BaseModel, method: Any, elsewhere: Any) -> None:
    own = {name: value for name, value in attributes(method).items() if name not in elsewhere}
    said = section.model_dump()
    for name, value in own.items():
        if isinstance(value, float):
            assert said[name] == pytest.approx(value, abs=5e-4)  # 80 / 300 epochs are written 0.267
        else:
            assert said[name] == (list(value) if isinstance(value, tuple) else value)


def test_a_matching_has_the_defaults_of_the_methods_it_makes() -> None:
    matching = Matching(pairs=(("a", "b"),), training=Training(), dictionary_training=Training())
    codes, dictionaries = SparseCodes(pairs=(("a", "b"),)), Dictionaries(layers=("b",))
    for name in ("atoms", "sparsity", "labels", "local_logits", "dictionary_layers"):
        assert getattr(matching, name) == getattr(codes, name)
    for name in ("atoms", "sparsity", "teacher_mode"):
        assert getattr(matching, name) == getattr(dictionaries, name)


def test_a_recipe_without_a_word_on_peers_has_their_usual_teaching() -> None:
    recipe: Recipe = check(small())
    assert peers_of(recipe.teaching) == Peers(method=Labels(), ramp=0.267)


# --- controls are plain ---------------------------------------------------------------------------------------------

CONTROLS = [
    *("scratch", "direct", "direct_long", "chain", "dense", "label_smoothing", "early_teacher"),
    *(
        "mean_teachers",
        "logit_std",
        "dkd",
        "balanced_labels",
        "curriculum_reverse",
        "curriculum_random",
        "hints",
    ),
]


def test_controls_have_plain_teaching_and_those_of_a_part_have_that_part(data: Path) -> None:
    plain = keys(built(data, controls=[*CONTROLS[:4], *CONTROLS[5:10]]))
    whole = built(data, teaching=dict.fromkeys(PARTS, True), controls=CONTROLS)
    found = stages(whole)
    for name in CONTROLS[:10]:
        assert (keys(whole)[name] == plain[name]) == (name != "direct_long")
    longer, start = found["direct_long"], found["dense + balance + curriculum + sparse_codes/start"]
    usual = stages(built(data, controls=["direct_long"]))["direct_long"]
    assert longer.method == SoftTargets()
    assert longer.training is not None
    assert start.training is not None
    assert usual.training is not None
    assert longer.training.epochs == usual.training.epochs + start.training.epochs
    assert found["balanced_labels"].method == BalancedLabels()
    assert found["balanced_labels"].teachers == ()
    for name, wanted in (
        ("curriculum_reverse", Curriculum(method=BalancedTargets(), direction="hard_first")),
        ("curriculum_random", Curriculum(method=BalancedTargets(), score="random")),
    ):
        assert found[name].method == wanted
        assert found[name].teachers == ("teacher", f"{name}/resnet-8 x0.375")
        assert found[name].start == f"{name}/start"
    assert isinstance(found["hints/start"].method, Hints)
    assert found["hints"].method == SoftTargets()
    assert found["hints"].start == "hints/start"


def test_hints_match_the_layers_of_sparse_codes_and_are_trained_like_the_start(data: Path) -> None:
    made = stages(built(data, teaching={"sparse_codes": CODES}, controls=["hints"]))
    hints, codes = made["hints/start"], made["dense + sparse_codes/start"]
    assert isinstance(hints.method, Hints)
    assert isinstance(codes.method, SparseCodes)
    assert hints.method.pairs == codes.method.pairs
    assert hints.training == codes.training


def test_balanced_labels_have_the_weights_and_the_schedule_of_the_balance(data: Path) -> None:
    made = stages(built(data, teaching={"balance": {"beta": 0.25}}, controls=["balanced_labels"]))
    assert made["balanced_labels"].method == BalancedLabels(beta=0.25)
    made = stages(built(data, teaching={"balance": {"defer": 0.5}}, controls=["balanced_labels"]))
    assert made["balanced_labels"].method == BalancedLabels(defer=0.5)


def test_controls_of_a_curriculum_have_sparse_codes_of_a_teacher_of_peers_as_the_ladder_has(
    data: Path,
) -> None:
    models = {**MODELS, "teacher": {**MODELS["teacher"], "peers": {"count": 2}}}
    sections: Any = {"models": models, "ladder": {"shape": "direct"}}
    parts = {"teaching": {"curriculum": True, "sparse_codes": True}}
    made = stages(built(data, controls=["curriculum_reverse"], **sections, **parts))
    dictionaries = made["curriculum_reverse/dictionaries"]
    assert isinstance(dictionaries.method, Dictionaries)
    assert dictionaries.network.peers is not None
    assert dictionaries.start == "teacher"


# --- trainings of controls ------------------------------------------------------------------------------------------


def test_a_control_may_be_trained_otherwise_and_nobody_else_is(data: Path) -> None:
    controls = ["scratch", "direct", "early_teacher", "peers_alone", "chain"]
    models = {**MODELS, "student": {**MODELS["student"], "peers": {"count": 2}, "training": {"lr": 0.07}}}
    usual = stages(built(data, controls=controls, models=models))
    own = {name: {"lr": 0.01 * (1 + place)} for place, name in enumerate(controls)}
    made = stages(built(data, controls=controls, models=models, control_training=own))
    assert made.keys() == usual.keys()
    changed_ones = {name for name in made if made[name] != usual[name]}
    assert changed_ones == {*controls[:3], "peers_alone ensemble", "chain"}
    for place, name in enumerate(["scratch", "direct", "early_teacher", "peers_alone ensemble", "chain"]):
        whole = usual[name].training
        assert whole is not None
        assert whole.lr == 0.07
        assert made[name].training == replace(whole, lr=0.01 * (1 + place))


def test_a_control_of_the_long_form_may_be_trained_otherwise(data: Path) -> None:
    raw = {**long(), "controls": ["scratch", "direct"], "control_training": {"scratch": {"epochs": 7}}}
    made = stages(built(data, raw=raw))
    assert made["scratch"].training is not None
    assert made["direct"].training is not None
    assert made["scratch"].training == replace(made["direct"].training, epochs=7)


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "parts", "peers", "name"),
    [
        ("direct", ["balance"], False, "direct + balance"),
        ("chain", ["curriculum"], False, "chain + curriculum"),
        ("dense", ["sparse_codes"], False, "dense + sparse_codes"),
        (
            "dense",
            ["sparse_codes", "curriculum", "balance"],
            False,
            "dense + balance + curriculum + sparse_codes",
        ),
        ("direct", [], True, "direct + peers"),
        ("dense", ["balance", "curriculum"], True, "dense + balance + curriculum + peers"),
        ("dense", [], False, "dense"),
        ("peers", [], False, "peers"),
        ("peers", [], True, "peers"),
    ],
)
def test_a_student_is_called_by_its_shape_and_what_it_has(
    data: Path, shape: str, parts: list[str], peers: bool, name: str
) -> None:
    student = {**MODELS["student"], "peers": peers}
    made = built(
        data,
        ladder={"shape": shape},
        models={**MODELS, "student": student},
        teaching=dict.fromkeys(parts, True),
        controls=["scratch", "direct"],
    )
    assert made.ladder.delivered == (name,)
    ensemble = [f"{name} ensemble"] if peers or shape == "peers" else []
    rest = ["scratch", "direct"]
    assert sorted(made.ladder.students) == sorted({name, *ensemble, *rest})
    for stage in made.ladder.stages:
        for needed in stage.inputs:
            assert needed in stages(made)


def test_the_ladder_itself_may_be_a_control_of_the_one_with_a_part(data: Path) -> None:
    made = built(data, teaching={"balance": True}, controls=["dense"])
    assert made.ladder.students == ["dense + balance", "dense"]
    assert keys(made)["dense"] == keys(built(data))["dense"]


# --- short forms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS)
def test_true_is_a_part_with_its_defaults_and_false_is_none(part: str) -> None:
    whole = check(small(teaching={part: {}}))
    assert check(small(teaching={part: True})) == whole
    assert getattr(whole.teaching, part) is not None
    assert check(small(teaching={part: False})) == check(small(teaching={part: None})) == check(small())


def test_a_part_may_be_set_on_the_command_line() -> None:
    assert check(changed(small(), ["teaching.balance=true"])).teaching.balance == Balance()
    raw = small(teaching={"balance": True}, models={**MODELS, "student": {"name": "resnet-8", "peers": 3}})
    said = check(changed(raw, ["teaching.balance.beta=0.5", "models.student.peers.count=2"]))
    assert said.teaching.balance == Balance(beta=0.5)
    assert said.models is not None
    assert said.models.student is not None
    assert said.models.student.peers == PeersOf(count=2)


def test_peers_are_a_number_true_or_keys() -> None:
    def form(said: Any) -> PeersOf | None:
        recipe = check(small(models={**MODELS, "student": {**MODELS["student"], "peers": said}}))
        assert recipe.models is not None
        assert recipe.models.student is not None
        return recipe.models.student.peers

    assert form(3) == form(True) == form({}) == form({"count": 3}) == PeersOf()
    assert form(2) == form({"count": 2}) == PeersOf(count=2)
    assert form(False) is form(0) is form(None) is None


def test_short_forms_stand_in_the_long_form_too() -> None:
    raw = long(own={"balance": True})
    raw["ladder"]["stages"][1]["model"] = {"name": "resnet-8", "peers": 2}
    recipe = check(raw)
    assert recipe.ladder.stages is not None
    assert recipe.ladder.stages[1].model.peers == PeersOf(count=2)
    assert recipe.ladder.stages[2].teaching == {"balance": {}}


def test_a_resolved_recipe_read_again_is_the_same_recipe(data: Path) -> None:
    raw = small(
        teaching={"balance": BALANCE, "curriculum": CURRICULUM, "peers": PEERS},
        models={**MODELS, "student": {**MODELS["student"], "peers": FORM}},
        data={"long_tail": {"imbalance": 2}},
    )
    first = check(raw)
    assert check(read_text(first.as_yaml())) == first
    assert first.data.long_tail is not None
    assert keys(built(data, raw=raw)) == keys(built(data, raw=first.as_dict()))


# --- what of peers is delivered -------------------------------------------------------------------------------------


def of_peers(data: Path, *settings: str, shape: str = "direct", **said: Any) -> Built:
    models = {**MODELS, "student": {**MODELS["student"], "peers": {"count": 2, **said}}}
    return built(data, *settings, ladder={"shape": shape}, models=models)


@pytest.mark.parametrize(("shape", "name"), [("peers", "peers"), ("direct", "direct + peers")])
def test_the_first_peer_is_delivered_or_the_ensemble_and_both_are_arms(
    data: Path, shape: str, name: str
) -> None:
    first, together = of_peers(data, shape=shape), of_peers(data, shape=shape, deliver="ensemble")
    assert first.ladder.delivered == (name,)
    assert together.ladder.delivered == (f"{name} ensemble",)
    assert keys(first) == keys(together)
    for made in (first, together):
        assert {name, f"{name} ensemble"} <= set(made.ladder.students)


def test_peers_of_a_long_form_are_delivered_alike(data: Path) -> None:
    raw = long()
    raw["ladder"]["stages"][2]["model"] = {**MODELS["student"], "peers": {"count": 2}}
    first = built(data, raw=raw)
    assert first.ladder.delivered == ("end",)
    together = built(data, "ladder.stages.2.model.peers.deliver=ensemble", raw=raw)
    assert together.ladder.delivered == ("end ensemble",)
    assert keys(first) == keys(together)
    assert stages(first)["end"].taken == "end ensemble"
    assert stages(first)["end ensemble"].teachers == ("lead", "middle")


def test_the_usual_controls_of_peers_have_a_teacher_only_where_there_is_one(data: Path) -> None:
    alone = {"student": MODELS["student"]}
    assert check(small(ladder={"shape": "peers"}, models=MODELS)).controls == ["scratch", "direct"]
    raw = {**small(), "models": alone, "ladder": "peers"}
    assert check(raw).controls == ["scratch"]
    assert built(data, raw=raw).ladder.students == ["peers", "peers ensemble", "scratch"]


def test_the_int8_student_of_peers_is_taught_by_those_who_taught_the_peers(data: Path) -> None:
    int8 = stages(of_peers(data, "quantise={epochs: 1}"))["int8"]
    assert int8.teachers == ("direct + peers", "teacher")
    assert int8.network.peers is None
    assert stages(of_peers(data, "quantise={epochs: 1}", shape="peers"))["int8"].teachers == ("peers",)


# --- the long form --------------------------------------------------------------------------------------------------


def test_what_the_recipe_says_of_teachers_is_about_all_stages_that_have_some(data: Path) -> None:
    made = stages(built(data, raw=long(teaching={"balance": WEIGHTS, "curriculum": CURRICULUM})))
    assert made["lead"].method == Labels()
    for name in ("middle", "end"):
        method = made[name].method
        assert isinstance(method, Curriculum)
        assert isinstance(method.method, BalancedTargets)
        assert method.method.beta == 0.5
    assert made["direct"].method == SoftTargets()


def test_a_stage_may_have_a_part_of_its_own_or_go_without_that_of_the_recipe(data: Path) -> None:
    made = stages(built(data, raw=long(own={"curriculum": True})))
    assert isinstance(made["middle"].method, SoftTargets)
    assert isinstance(made["end"].method, Curriculum)
    made = stages(built(data, raw=long(teaching={"balance": True}, own={"balance": False})))
    assert isinstance(made["middle"].method, BalancedTargets)
    assert made["end"].method == SoftTargets()


def test_a_stage_without_teachers_may_have_a_curriculum_of_its_own(data: Path) -> None:
    raw = long()
    raw["ladder"]["stages"][0]["teaching"] = {"curriculum": {"score": "confidence"}}
    assert stages(built(data, raw=raw))["lead"].method == Curriculum(method=Labels(), score="confidence")


def test_a_stage_of_the_long_form_begins_with_sparse_codes_of_its_first_teacher(data: Path) -> None:
    found = stages(built(data, raw=long(own={"sparse_codes": CODES})))
    assert found["end/dictionaries"].start == "lead"
    assert found["end/start"].teachers == ("end/dictionaries",)
    assert found["end"].start == "end/start"
    short_form = built(data, teaching={"sparse_codes": CODES})
    long_form = keys(built(data, raw=long(own={"sparse_codes": CODES})))
    for name, same in (
        ("end", "dense + sparse_codes"),
        ("end/start", "dense + sparse_codes/start"),
        ("end/dictionaries", "dense + sparse_codes/dictionaries"),
    ):
        assert long_form[name] == keys(short_form)[same]


@pytest.mark.parametrize(
    "control", ["balanced_labels", "curriculum_reverse", "curriculum_random", "hints", "peers_alone"]
)
def test_controls_of_parts_go_with_the_short_form(data: Path, control: str) -> None:
    with pytest.raises(BadInput, match=f"controls: {control} goes with the short form"):
        built(data, raw={**long(teaching=dict.fromkeys(PARTS, True)), "controls": [control]})


# --- compat ---------------------------------------------------------------------------------------------------------


def test_the_keys_of_an_official_code_go_with_a_part(data: Path) -> None:
    grey = {"mean": [0.5], "std": [0.25]}
    made = stages(built(data, raw={**small(teaching={"balance": WEIGHTS}, data=grey), "compat": "dgkd"}))
    method = made["dense + balance"].method
    assert isinstance(method, BalancedTargets)
    assert (method.kl_reduction, method.hard_terms, method.soft_weight) == ("mean_over_classes", "once", 1.0)
    assert method.stochastic is not None
    assert {name: getattr(method, name) for name in WEIGHTS} == WEIGHTS
    plain = made["direct"].method
    assert isinstance(plain, SoftTargets)
    assert replace(plain, stochastic=None) == replace(
        SoftTargets(**{name: getattr(method, name) for name in attributes(plain)}), stochastic=None
    )


def test_methods_around_others_are_known_by_what_is_inside(data: Path) -> None:
    made = stages(of_peers(data, "teaching={balance: true, curriculum: true}"))
    method = made["direct + balance + curriculum + peers ensemble"].method
    assert isinstance(method, Around)
    assert isinstance(method, Peers)
    assert isinstance(method.method, Curriculum)
    assert isinstance(innermost(method), BalancedTargets)
