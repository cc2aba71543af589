from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.recipe.tiny import checked, short
from understudy.errors import BadInput
from understudy.recipe import Recipe, changed, check, read_text
from understudy.recipe.papers import paper_of, recipe_of
from understudy.recipe.validating import teaching_of, training_of
from understudy.training.settings import Training

STAGES: list[dict[str, Any]] = [
    {"name": "big", "model": "plain_cnn-4"},
    {"name": "middle", "model": "plain_cnn-3", "teachers": ["big"], "teaching": {"temperature": 8}},
    {
        "name": "small",
        "model": {"name": "plain_cnn-2"},
        "teachers": ["big", "middle"],
        "stochastic": {"keep": 0.5},
    },
]


def long(**sections: Any) -> dict[str, Any]:
    """The same ladder as ``short``, stage by stage."""
    whole = short(**sections)
    del whole["models"]
    return {**whole, "ladder": {"stages": STAGES, "student": "small"}}


def refusal(*settings: str, raw: dict[str, Any] | None = None, **sections: Any) -> str:
    """The one line that says why a recipe is refused."""
    with pytest.raises(BadInput) as caught:
        check(changed(short(**sections) if raw is None else raw, settings))
    said = str(caught.value)
    assert "\n" not in said
    assert "pydantic" not in said
    return said


# --- the resolved recipe --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        short(),
        long(),
        short(compat="takd"),
        short(compat="dgkd", seeds=[3, 1]),
        short(
            ladder={"stochastic": {"mode": "exact_k"}}, data={"mean": [0.5], "std": [0.25], "size": [8, 9]}
        ),
        short(training={"lr": 1e-7, "clip": 1.0, "ema": 0.999, "milestones": [0.25, 0.5]}),
        short(data={"path": "1e-3", "views": {"transforms": [{"name": "ColorJitter", "brightness": 0.2}]}}),
        {
            "data": {"hub": "a/b", "columns": {"image": "img"}},
            "ladder": "scratch",
            "models": {"student": "resnet-8"},
        },
    ],
)
def test_the_resolved_recipe_read_again_is_the_same_recipe(raw: dict[str, Any]) -> None:
    first = check(raw)
    text = first.as_yaml()
    again = check(read_text(text))
    assert again == first
    assert again.as_yaml() == text


def test_every_default_is_written_out() -> None:
    def holes(value: Any, model: Any, path: str) -> list[str]:
        kind = type(model)
        fields = getattr(kind, "model_fields", None) or getattr(kind, "__dataclass_fields__", {})
        missing = [f"{path}.{name}" for name in fields if name not in value]
        for name, inner in value.items():
            if isinstance(inner, dict) and name in fields:
                missing += holes(inner, getattr(model, name), f"{path}.{name}")
        return missing

    recipe = checked()
    said = recipe.as_dict()
    assert holes(said, recipe, "") == []
    assert said["training"].keys() == Training.__dataclass_fields__.keys()
    assert said["models"]["student"]["width"] == 1.0
    assert said["controls"] == ["scratch", "direct"]
    assert said["seeds"] == [0]


def test_names_alone_are_short_for_mappings() -> None:
    models = {
        "teacher": {"name": "plain_cnn-4"},
        "assistants": [{"name": "plain_cnn-3"}],
        "student": {"name": "plain_cnn-2", "width": 1},
    }
    assert checked(models=models) == checked()
    assert check({**short(), "ladder": "dense"}) == checked()


def test_what_a_recipe_leaves_out_is_a_direct_ladder() -> None:
    recipe = check(
        {"data": {"name": "digits"}, "models": {"teacher": "plain_cnn-4", "student": "plain_cnn-2"}}
    )
    assert recipe.ladder.shape == "direct"


def test_whole_numbers_stand_for_the_same_number() -> None:
    assert checked("teaching.temperature=4", "training.clip=1") == checked(
        "teaching.temperature=4.0", "training.clip=1.0"
    )


def test_checking_leaves_the_mapping_as_it_was() -> None:
    raw = short(compat="dgkd")
    check(raw)
    assert raw == short(compat="dgkd")


# --- what differs for one network or stage --------------------------------------------------------------------------


def test_a_network_may_change_a_part_of_the_training() -> None:
    recipe = checked(
        "training.epochs=7", "models.teacher.training.lr=0.2", "models.teacher.training.milestones=[0.3]"
    )
    assert recipe.models is not None
    assert recipe.models.teacher is not None
    training = training_of(recipe, recipe.models.teacher, "models.teacher.training.")
    assert (training.epochs, training.lr, training.milestones) == (7, 0.2, (0.3,))
    assert training_of(recipe, recipe.models.student, "models.student.training.") == recipe.training


def test_a_stage_may_change_a_part_of_the_teaching() -> None:
    recipe = check(long(teaching={"soft_weight": 0.9}))
    assert recipe.ladder.stages is not None
    teaching = teaching_of(recipe, recipe.ladder.stages[1], "")
    assert (teaching.temperature, teaching.soft_weight) == (8, 0.9)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("models.student.training.lr=-1", "models.student.training.lr is a number in (0, 10000]; got -1.0."),
        ("models.student.training.lr=fast", 'models.student.training.lr is "fast"; it should be a number.'),
        (
            "models.assistants.0.training.epochs=0",
            "models.assistants.0.training.epochs is a whole number from 1 to 100000; got 0.",
        ),
        ("models.teacher.training.nesterv=true", "models.teacher.training.nesterv is no key."),
    ],
)
def test_what_is_wrong_with_a_networks_training_is_said_with_its_whole_path(setting: str, said: str) -> None:
    assert refusal(setting).startswith(said)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            "ladder.stages.1.teaching.temprature=2",
            "ladder.stages.1.teaching.temprature is no key. Possible: temperature, soft_weight, combine, hard_terms, kl_reduction, teacher_weights, balance, curriculum, sparse_codes, peers. Did you mean 'temperature'?",
        ),
        (
            "ladder.stages.1.teaching.temperature=0",
            "ladder.stages.1.teaching.temperature is 0; it should be more than 0.",
        ),
        (
            "ladder.stages.2.model.training.lr=0",
            "ladder.stages.2.model.training.lr is a number in (0, 10000]; got 0.0.",
        ),
        (
            "ladder.stages.2.stochastic.keep=0",
            "ladder.stages.2.stochastic.keep is 0; it should be more than 0.",
        ),
        ("ladder.stages.0.model.name=plain_cnn-40", "ladder.stages.0.model: there is no plain_cnn-40."),
        (
            "ladder.stages.0.teacher=big",
            "ladder.stages.0.teacher is no key. Possible: name, model, teachers, start, teaching, stochastic. Did you mean 'teachers'?",
        ),
    ],
)
def test_what_is_wrong_with_a_stage_is_said_with_its_whole_path(setting: str, said: str) -> None:
    assert refusal(setting, raw=long()).startswith(said)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('ladder.stages.0.name="a\\nb"', 'ladder.stages.0.name is "a\\nb"'),
        ("ladder.stages.0.name=' '", 'ladder.stages.0.name is " "'),
        ('ladder.stages.2.teachers=["\\e[31m"]', 'ladder.stages.2.teachers.0 is "\\u001b[31m"'),
    ],
)
def test_the_name_of_a_stage_can_be_seen(setting: str, said: str) -> None:
    assert refusal(setting, raw=long()) == (
        f"{said}; the name of a stage is one line of visible signs without spaces at its ends."
    )


def test_stages_may_be_called_anything_that_can_be_seen() -> None:
    stages = [{"name": "große Bühne > 1 #2", "model": "plain_cnn-2"}]
    assert check({**short(), "models": None, "ladder": {"stages": stages}}).ladder.stages is not None


# --- the official codes ---------------------------------------------------------------------------------------------

CIFAR100 = {"mean": [0.507, 0.487, 0.441], "std": [0.267, 0.256, 0.276]}
OFFICIAL_TRAINING = {
    "epochs": 160,
    "batch_size": 128,
    "optimizer": "sgd",
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 1e-4,
    "decay": "all",
    "label_smoothing": 0.0,
    "clip": None,
    "ema": None,
}


def by_compat(name: str, **sections: Any) -> dict[str, Any]:
    models = {"teacher": "plain_cnn-10", "assistants": ["resnet-20"], "student": "plain_cnn_narrow-2"}
    return check(short(compat=name, models=models, **sections)).as_dict()


def said_of(whole: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    return {key: whole[key] for key in expected}


@pytest.mark.parametrize("name", ["takd", "dgkd"])
def test_compat_fills_in_what_both_official_codes_share(name: str) -> None:
    whole = by_compat(name)
    assert whole["compat"] is None  # nothing is left to expand: the plain keys say it all
    assert said_of(whole["data"], CIFAR100) == CIFAR100
    assert whole["data"]["views"]["crop"] == 0
    assert whole["data"]["views"]["flip"] is False
    assert said_of(whole["training"], OFFICIAL_TRAINING) == OFFICIAL_TRAINING
    assert whole["teaching"]["kl_reduction"] == "mean_over_classes"
    constant = {"schedule": "constant", "lr": 0.01}
    assert whole["models"]["teacher"]["training"] == constant
    assert whole["models"]["student"]["training"] == constant


def test_compat_takd_keeps_the_rate_that_its_code_ran_with() -> None:
    # Its first branch compares the epoch with half of itself: 120 epochs at 0.01, then 40 at 0.001.
    step = {"schedule": "step", "lr": 0.01, "milestones": [0.75], "gamma": 0.1}
    assert by_compat("takd")["models"]["assistants"][0]["training"] == step


def test_compat_dgkd_steps_down_at_half_and_three_quarters() -> None:
    step = {"schedule": "step", "lr": 0.1, "milestones": [0.5, 0.75], "gamma": 0.1}
    assert by_compat("dgkd")["models"]["assistants"][0]["training"] == step


def test_compat_dgkd_teaches_as_its_code_does() -> None:
    whole = by_compat("dgkd")
    expected = {"temperature": 5.0, "soft_weight": 1.0, "combine": "sum", "hard_terms": "once"}
    assert said_of(whole["teaching"], expected) == expected
    stochastic = {"mode": "exact_k", "drop": 1, "rescale": False}
    assert said_of(whole["ladder"]["stochastic"], stochastic) == stochastic


def test_compat_takd_leaves_temperature_and_weight_to_the_user() -> None:
    # Its code searches them for every hop; there is no one value.
    assert by_compat("takd")["teaching"] == {
        **checked().as_dict()["teaching"],
        "kl_reduction": "mean_over_classes",
    }
    assert by_compat("takd")["ladder"]["stochastic"] is None


@pytest.mark.parametrize("name", ["takd", "dgkd"])
def test_keys_of_the_recipe_win_over_compat(name: str) -> None:
    whole = by_compat(
        name,
        data={"mean": [0.5, 0.5, 0.5]},
        teaching={"kl_reduction": "batchmean", "temperature": 3},
        training={"epochs": 5, "lr": 0.2, "schedule": "cosine"},
        ladder={"stochastic": None},
    )
    assert whole["data"]["mean"] == [0.5, 0.5, 0.5]
    assert whole["data"]["std"] == CIFAR100["std"]
    assert whole["teaching"]["kl_reduction"] == "batchmean"
    assert whole["teaching"]["temperature"] == 3
    assert whole["ladder"]["stochastic"] is None
    assert (whole["training"]["epochs"], whole["training"]["momentum"]) == (5, 0.9)
    recipe = check(whole)
    assert recipe.models is not None
    for model in (recipe.models.teacher, *recipe.models.assistants, recipe.models.student):
        assert model is not None
        training = training_of(recipe, model, "")
        assert (training.lr, training.schedule) == (0.2, "cosine")


def test_keys_of_a_network_win_over_compat() -> None:
    whole = changed(short(compat="takd"), ["models.student.training.lr=0.3"])
    assert check(whole).as_dict()["models"]["student"]["training"] == {"schedule": "constant", "lr": 0.3}


OF_A_METHOD = {
    "srm": ("sparse_codes", "srm-cifar100"),
    "pcl": ("peers", "pcl-cifar100"),
    "bkd": ("balance", "bkd-cifar100-100"),
}


@pytest.mark.parametrize("name", OF_A_METHOD)
def test_compat_of_a_method_is_the_training_of_its_tables(name: str) -> None:
    part, table = OF_A_METHOD[name]
    paper = check(recipe_of(paper_of(table))).as_dict()
    whole = check(
        {**short(compat=name, data=paper["data"]), "training": {}, "teaching": {part: {}}}
    ).as_dict()
    assert whole["compat"] is None
    assert whole["training"] == paper["training"]
    own = {**whole["teaching"][part]}
    quirks = {
        "srm": {"teacher_mode": "train", "layers": None},
        "pcl": {"ramp_divisor": "weight"},
        "bkd": {"control_labels": "balanced"},
    }
    assert own == {**paper["teaching"][part], **quirks[name]}
    if name == "bkd":
        assert whole["models"]["teacher"]["training"] == {"lr": 0.1, "weight_decay": 2e-4}
        assert whole["models"]["student"]["training"] == {}
        assert (whole["teaching"]["temperature"], whole["teaching"]["soft_weight"]) == (2, 0.5)
        assert whole["control_training"] == {"scratch": {"lr": 0.1, "weight_decay": 2e-4}}


def test_compat_leaves_the_rate_of_whom_nobody_teaches_to_a_recipe_that_says_it() -> None:
    said = {"compat": "bkd", "controls": ["scratch", "direct", "label_smoothing"]}
    own = {"scratch": {"lr": 0.3}, "direct": {"lr": 0.4}}
    half = checked(**said, training={"weight_decay": 0.0}, control_training=own).control_training
    assert half == {"scratch": {"lr": 0.3}, "direct": {"lr": 0.4}, "label_smoothing": {"lr": 0.1}}
    assert checked(**said, training={"weight_decay": 0.0, "lr": 1.0}).control_training == {}


def test_slips_of_published_codes_are_never_the_default() -> None:
    whole = checked(teaching={"balance": True, "sparse_codes": True}).as_dict()["teaching"]
    assert whole["balance"]["control_labels"] == "plain"
    assert whole["sparse_codes"]["teacher_mode"] == "eval"
    assert whole["sparse_codes"]["dictionary_layers"] == {}
    assert whole["peers"]["ramp_divisor"] == "length"


def test_bkd_has_the_rate_and_decay_of_its_share_of_soft_targets() -> None:
    # L = CE + alpha KL at 0.1 and 2e-4 is (1 - w) CE + w KL with w = alpha / (1 + alpha) at 0.1 (1 + alpha), 2e-4 / (1 + alpha)
    for alpha in (1.0, 2.0, 0.5):
        weight = alpha / (1 + alpha)
        found = checked(compat="bkd", teaching={"soft_weight": weight}).training
        assert found.lr == pytest.approx(0.1 * (1 + alpha))
        assert found.weight_decay == pytest.approx(2e-4 / (1 + alpha))
    said = checked(compat="bkd", teaching={"soft_weight": 0.6}, training={"lr": 0.3}).training
    assert (said.lr, said.weight_decay) == (0.3, pytest.approx(8e-5))


def test_bkd_leaves_the_rate_of_a_student_whom_nobody_teaches_and_of_a_loss_without_a_half() -> None:
    said = {"data": {"name": "digits"}, "ladder": "scratch", "models": {"student": "resnet-8"}}
    alone = check({"compat": "bkd", **said}).as_dict()["models"]["student"]["training"]
    assert alone == {"lr": 0.1, "weight_decay": 2e-4}
    rivals = checked(compat="bkd", controls=["direct", "dkd", "logit_std"]).control_training
    assert rivals == {name: {"lr": 0.1, "weight_decay": 2e-4} for name in ("dkd", "logit_std")}


@pytest.mark.parametrize("name", ["srm", "bkd"])
def test_compat_of_a_method_adds_no_part_that_the_recipe_has_not(name: str) -> None:
    whole = checked(compat=name).as_dict()["teaching"]
    assert whole["balance"] is whole["sparse_codes"] is None


def test_keys_of_a_part_win_over_compat() -> None:
    said = {"teacher_mode": "eval", "epochs": 7, "training": {"batch_size": 9}}
    codes = checked(compat="srm", teaching={"sparse_codes": said}).as_dict()["teaching"]["sparse_codes"]
    assert (codes["teacher_mode"], codes["epochs"], codes["dictionary_epochs"]) == ("eval", 7, 100)
    assert codes["training"] == {"batch_size": 9, "milestones": [0.1875, 0.8125]}
    peers = checked(compat="pcl", teaching={"peers": {"ramp_divisor": "length"}}).as_dict()["teaching"][
        "peers"
    ]
    assert (peers["ramp_divisor"], peers["ramp"]) == ("length", 0.267)


def test_a_training_that_the_recipe_shortens_is_short_in_its_parts_too() -> None:
    whole = checked(compat="srm", teaching={"sparse_codes": {}}, training={"epochs": 3, "batch_size": 8})
    codes = whole.as_dict()["teaching"]["sparse_codes"]
    assert codes["epochs"] is codes["dictionary_epochs"] is None
    assert codes["training"] == {"milestones": [0.1875, 0.8125]}
    short_warmup = [checked(compat="bkd", training=said).training.warmup for said in ({}, {"epochs": 3})]
    assert short_warmup == [5, 0]


def test_compat_of_a_method_reaches_the_parts_and_roots_of_the_long_form() -> None:
    raw = changed(long(compat="bkd"), ["ladder.stages.2.teaching.balance={beta: 0.5}"])
    stages = check(raw).as_dict()["ladder"]["stages"]
    assert stages[-1]["teaching"]["balance"] == {
        "beta": 0.5,
        "form": "renormalised",
        "control_labels": "balanced",
    }
    for entry in stages:
        assert entry["model"]["training"] == ({} if entry["teachers"] else {"lr": 0.1, "weight_decay": 2e-4})


@pytest.mark.parametrize("name", OF_A_METHOD)
@pytest.mark.parametrize("teaching", [3, None, {"balance": 3, "sparse_codes": [1], "peers": "x"}])
def test_compat_of_a_method_over_nonsense_is_refused_like_nonsense(name: str, teaching: Any) -> None:
    refusal(compat=name, teaching=teaching)


def test_compat_reaches_the_stages_of_the_long_form() -> None:
    recipe = check(long(compat="dgkd"))
    assert recipe.ladder.stages is not None
    assert [entry.model.training for entry in recipe.ladder.stages] == [
        {"schedule": "constant", "lr": 0.01}
    ] * 3


def test_compat_trains_nothing_that_is_given(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(1)}, tmp_path / "t.safetensors")
    whole = changed(short(compat="takd"), [f"models.teacher.weights={tmp_path / 't.safetensors'}"])
    assert check(whole).as_dict()["models"]["teacher"]["training"] == {}


@pytest.mark.parametrize(
    "sections",
    [
        {"models": 3},
        {"models": {"assistants": 3}},
        {"models": {"student": [1]}},
        {"ladder": {"stages": 3}},
        {"data": [1]},
        {"training": "x"},
        {"teaching": None},
    ],
)
def test_compat_over_nonsense_is_refused_like_nonsense(sections: dict[str, Any]) -> None:
    refusal(compat="dgkd", **sections)


def test_an_unknown_compat_is_refused() -> None:
    assert (
        refusal(compat="takdd")
        == "compat is 'takdd'; it can be takd, dgkd, srm, pcl, bkd. Did you mean 'takd'?"
    )


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            "trainig={}",
            "trainig is no key. Possible: version, data, ladder, models, structure, quantise, teaching, training, signals, controls, control_training, compare, direct_long, seeds, repeat, ladder_seed, compat. Did you mean 'training'?",
        ),
        ("training.lrr=1", "training.lrr is no key."),
        (
            "data.views.flips=true",
            "data.views.flips is no key. Possible: crop, flip, erase, fill, mixup, transforms, seed, distinct, per_seed. Did you mean 'flip'?",
        ),
        ("models.assistants.0.widht=2", "models.assistants.0.widht is no key."),
        (
            "ladder.shape=denes",
            "ladder.shape is \"denes\"; it can be scratch, direct, chain, dense, paths, pacemaker, peers. Did you mean 'dense'?",
        ),
        (
            "controls=[scratch, dircet]",
            "controls.1 is \"dircet\"; it can be scratch, direct, direct_long, chain, dense, uniform, structure_alone, peers_alone, balanced_labels, curriculum_reverse, curriculum_random, hints, label_smoothing, early_teacher, mean_teachers, logit_std, dkd. Did you mean 'direct'?",
        ),
        (
            "models.student.name=resnet20",
            "models.student: there is no model 'resnet20'. Did you mean 'resnet-20'?",
        ),
        ("training.learning_rate=1", "training.learning_rate is no key."),
        (
            "training.device=gpu",
            "training.device is \"gpu\"; it can be auto, cpu, cuda. Did you mean 'cuda'?",
        ),
        ("data.channels=2", "data.channels is 2; it can be 1 or 3."),
        ("version=2", "version is 2; it can be 1."),
    ],
)
def test_unknown_keys_and_values_are_named_with_the_nearest_possible(setting: str, said: str) -> None:
    assert refusal(setting).startswith(said)


def test_words_of_other_programs_are_understood() -> None:
    assert refusal("training.learning_rate=1").endswith("Did you mean 'lr'?")
    assert refusal("teaching.alpha=1").endswith("Did you mean 'soft_weight'?")
    assert refusal("seed=1").endswith("Did you mean 'seeds'?")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("seeds=3", "seeds is 3; it should be a list, such as [0, 1, 2]."),
        ("seeds=[1.5]", "seeds.0 is 1.5; it should be a whole number."),
        ("seeds=[]", "seeds is []; it should have at least 1 entry, such as [0, 1, 2]."),
        ("data=digits", 'data is "digits"; it should be keys with values, such as {name: digits}.'),
        (
            "models.student=3",
            "models.student is 3; it should be a network such as plain_cnn-4, or keys such as {name: plain_cnn-4}.",
        ),
        ("training.epochs=2.5", "training.epochs is 2.5; it should be a whole number."),
        ("training.epochs=true", "training.epochs is true; it should be a whole number."),
        ("training.nesterov=1", "training.nesterov is 1; it should be true or false."),
        ("training.lr='0.1'", 'training.lr is "0.1"; it should be a number.'),
        ("models.student.name=''", 'models.student.name is ""; it should not be empty.'),
        (
            "models.student.size=[1, 2, 3]",
            "models.student.size is [1, 2, 3]; it is a number of pixels from 1 to 4096, or [height, width].",
        ),
        (
            "data.size={a: 1}",
            'data.size is {"a": 1}; it is a number of pixels from 1 to 4096, or [height, width].',
        ),
        (
            "ladder.stochastic=true",
            "ladder.stochastic is true; it should be keys with values, such as {keep: 0.75}.",
        ),
    ],
)
def test_values_of_a_wrong_type_are_shown_with_what_is_wanted(setting: str, said: str) -> None:
    assert refusal(setting) == said


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("training.lr=-1", "training.lr is a number in (0, 10000]; got -1.0."),
        ("training.epochs=-3", "training.epochs is a whole number from 1 to 100000; got -3."),
        ("training.epochs=1000000", "training.epochs is a whole number from 1 to 100000; got 1000000."),
        ("training.batch_size=1", "training.batch_size is a whole number from 2 to 1000000; got 1."),
        ("training.momentum=1", "training.momentum is a number in [0, 1); got 1.0."),
        ("seeds=[-1]", "seeds.0 is -1; it should be at least 0."),
        ("ladder_seed=99999999999", "ladder_seed is 99999999999; it should be less than 2147483648."),
        ("models.student.width=1e9", "models.student.width is 1000000000.0; it should be at most 16."),
        ("data.validation=1", "data.validation is 1; it should be less than 1."),
        ("data.views.crop=-1", "data.views.crop is -1; it should be at least 0."),
        ("data.long_tail.imbalance=0.5", "data.long_tail.imbalance is 0.5; it should be at least 1."),
        ("data.long_tail={profile: step}", "data.long_tail.imbalance is missing."),
        (
            "data.long_tail={imbalance: 10, profile: steps}",
            "data.long_tail.profile is \"steps\"; it can be exp, step. Did you mean 'step'?",
        ),
        (
            "data.long_tail={imbalance: 10, profil: step}",
            "data.long_tail.profil is no key. Possible: imbalance, profile. Did you mean 'profile'?",
        ),
        (
            "training.sampling=balance",
            "training.sampling is \"balance\"; it can be instance, balanced, square_root. Did you mean 'balanced'?",
        ),
        ("teaching.soft_weight=1.5", "teaching.soft_weight is 1.5; it should be at most 1."),
        ("teaching.temperature=.nan", "teaching.temperature is nan; a finite number is needed."),
    ],
)
def test_negative_and_absurd_numbers_are_refused_with_their_limits(setting: str, said: str) -> None:
    assert refusal(setting) == said


def test_a_long_word_is_cut_in_the_message() -> None:
    assert len(refusal(raw={**short(), "x" * 100_000: 1})) < 400
    assert len(refusal(f"training.device={'y' * 100_000}")) < 400


def test_a_missing_part_is_named() -> None:
    assert refusal(raw={"models": {"student": "plain_cnn-2"}}) == "data is missing."
    assert refusal(models={"student": {}}) == "models.student.name is missing."


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["data.name=digits"], "data needs exactly one of name, path and hub; it has name, path."),
        (["data.path=null"], "data needs exactly one of name, path and hub; it has none."),
        (["seeds=[0, 1, 0]"], "seeds has a number twice: [0, 1, 0]."),
        (["controls=[direct, direct]"], "controls names an arm twice: direct, direct."),
        (["ladder.shape=null"], "ladder needs a shape"),
        (["ladder.student=x"], "ladder.student goes with ladder.stages"),
        (["models=null"], "models is missing"),
        (["models.teacher=null"], "models.teacher is missing"),
        (["models.assistants=[]"], "models.assistants is empty: dense needs assistants."),
        (
            ["ladder.shape=direct", "controls=[chain]", "models.assistants=[]"],
            "models.assistants is empty: chain",
        ),
        (
            ["ladder.shape=chain", "ladder.stochastic.keep=0.5"],
            "ladder.stochastic goes with shape: dense; the shape is chain.",
        ),
        (["ladder.shape=scratch", "models.teacher=null", "controls=[direct]"], "models.teacher is missing"),
        (["models.student.weights=x.pt"], "models.student.weights: the student is what is taught"),
        (["models.teacher.weights=nope.pt"], "models.teacher.weights: there is no file nope.pt."),
        (["models.student.start=nope.pt"], "models.student.start: there is no file nope.pt."),
        ([f"models.student.start={'n' * 300}"], "models.student.start: there is no file nnn"),
        (
            ["models.teacher.weights=x.pt", "models.teacher.training.lr=0.1"],
            "models.teacher has weights, so nothing is trained",
        ),
        (
            ["models.teacher.weights=x.pt", "models.teacher.start=y.pt"],
            "models.teacher has weights, so nothing is trained",
        ),
        (
            ["models.teacher.weights=x.pt", "models.teacher.pretrained=true"],
            "models.teacher is pretrained and has weights of its own",
        ),
        (["training.warmup=1"], "training.warmup goes with another schedule"),
        (["training.momentum=0"], "training.nesterov needs a momentum"),
        (["training.milestones=[0.9, 0.1]"], "training.milestones are rising fractions"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(settings: list[str], said: str) -> None:
    assert refusal(*settings).startswith(said)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["ladder.shape=dense"], "ladder.stages is the long form and ladder.shape the short one"),
        (["models={student: plain_cnn-2}"], "ladder.stages is the long form and models the short one"),
        (
            ["ladder.stochastic.keep=0.5"],
            "ladder.stochastic goes with shape: dense; in the long form it belongs to a stage.",
        ),
        (["ladder.stages=[]"], "ladder.stages is empty."),
        (
            ["ladder.stages.2.start=big", "ladder.stages.2.model.start=x.pt"],
            "ladder.stages.2 starts from the stage 'big' and from a file",
        ),
    ],
)
def test_parts_that_do_not_go_with_stages_are_refused(settings: list[str], said: str) -> None:
    assert refusal(*settings, raw=long()).startswith(said)


@pytest.mark.parametrize("version", ["1", "1.0"])
def test_the_format_has_a_version(version: str) -> None:
    assert isinstance(checked(f"version={version}"), Recipe)


def test_paths_may_be_long_and_names_may_not() -> None:
    assert checked(f"data.path={'d/' * 500}x.npz").data.path is not None
    assert re.match(
        r"models\.student\.name is .* it has 200 signs at most\.", refusal(f"models.student.name={'x' * 201}")
    )
