"""Order, errors, warnings, seeds, and above all keys: what must change one, and what must not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from tests.ladder.tiny import (
    ASSISTANTS,
    STUDENT,
    TEACHER,
    arrays,
    by_name,
    jobs_of,
    keys_of,
    made_up,
    network,
    other_small_network,
    saved,
    small_network,
    stage,
    training,
)
from understudy.data import Dataset
from understudy.data.views import ViewPolicy, Views
from understudy.errors import BadInput
from understudy.ladder import Ladder, Network, Stage, shapes
from understudy.ladder.graph import in_order, jobs, seed_of, temperature_of, unique, warnings
from understudy.recipe import check, read_text
from understudy.recipe.building import build
from understudy.teaching import Labels, Method, SoftTargets, Step, Stochastic
from understudy.teaching.curriculum import Curriculum
from understudy.training import Training
from understudy.training.signals import Signals


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return made_up()


# --------------------------------------------------------------------------------------------- errors and order
def test_an_unknown_input_is_named_with_what_is_there_and_what_was_meant() -> None:
    with pytest.raises(BadInput, match=r"stage 'student' needs 'techer', which no stage makes") as error:
        in_order([stage("teacher"), stage("student", "techer")])
    assert "Other stages: teacher. Did you mean 'teacher'?" in str(error.value)


def test_a_stage_to_start_from_must_exist_too() -> None:
    with pytest.raises(BadInput, match="stage 'student' needs 'teacher', which no stage makes"):
        in_order([stage("student", start="teacher")])


def test_a_cycle_is_named_stage_by_stage() -> None:
    stages = [stage("teacher"), stage("a", "c", "teacher"), stage("b", "a"), stage("c", "b"), stage("d", "c")]
    with pytest.raises(BadInput, match=r"in a circle: 'a' needs 'c' needs 'b' needs 'a'\."):
        in_order(stages)


def test_a_circle_that_is_only_led_to_is_named_without_what_leads_to_it() -> None:
    with pytest.raises(BadInput, match=r"in a circle: 'a' needs 'b' needs 'a'\."):
        in_order([stage("end", "a"), stage("a", "b"), stage("b", "a")])


def test_a_stage_cannot_learn_from_itself() -> None:
    with pytest.raises(BadInput, match="in a circle: 'a' needs 'a'"):
        in_order([stage("a", "a")])


def test_two_stages_of_one_name_are_refused() -> None:
    with pytest.raises(BadInput, match="two stages are called 'teacher'; every stage has a name of its own"):
        in_order([stage("teacher"), stage("teacher")])


def test_a_ladder_without_a_student_is_refused() -> None:
    with pytest.raises(BadInput, match="the ladder has no student: name the stage that is delivered"):
        Ladder((stage("teacher"),), ())


def test_a_student_that_is_no_stage_is_refused_with_a_suggestion() -> None:
    with pytest.raises(BadInput, match=r"the student 'studnt' is no stage.* Did you mean 'student'\?"):
        Ladder((stage("teacher"), stage("student", "teacher")), ("studnt",))


def test_every_stage_comes_after_its_inputs_and_otherwise_as_given() -> None:
    stages = [stage("d", "b", "c"), stage("free"), stage("b", "a"), stage("c", "a", start="free"), stage("a")]
    assert [one.name for one in in_order(stages)] == ["free", "a", "b", "c", "d"]
    assert in_order(stages[::-1])[0].name == "a"


def test_stages_that_are_in_order_stay_as_they_are() -> None:
    stages = tuple(shapes.dense(TEACHER, ASSISTANTS, STUDENT, SoftTargets()))
    assert in_order(stages) == stages


def test_the_arms_are_what_is_delivered_and_then_the_controls() -> None:
    ladder = Ladder((stage("t"), stage("scratch", role="student"), stage("a", "t"), stage("b", "t")), ("b",))
    assert ladder.students == ["b", "scratch", "a"]
    assert ladder["a"].teachers == ("t",)
    assert ladder.controls == ["scratch", "a"]


def test_the_int8_form_of_what_is_delivered_is_an_arm_and_no_control() -> None:
    whole = replace(stage("b", "t"), training=training(precision="fp32"))
    int8 = replace(whole, name="int8", start="b", quantised=True)
    ladder = Ladder((stage("t"), stage("scratch", role="student"), whole, int8), ("b",))
    assert ladder.students == ["b", "scratch", "int8"]
    assert ladder.controls == ["scratch"]


def test_a_network_that_does_not_fit_the_images_is_refused_before_anything_runs(dataset: Dataset) -> None:
    with pytest.raises(BadInput, match="plain_cnn-8"):
        jobs_of([stage("deep", network=network("plain_cnn-8"))], dataset)


def test_weights_that_do_not_fit_are_refused_whoever_has_the_same_network(
    dataset: Dataset, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.safetensors"
    save_file({"weight": torch.zeros(2, 2)}, wrong)
    given = Stage(name="given", network=network(), role="teacher", weights=wrong)
    with pytest.raises(BadInput, match=r"wrong\.safetensors does not fit this network"):
        jobs_of([stage("trained"), given], dataset)  # the first one's network was built and is fine
    with pytest.raises(BadInput, match=r"wrong\.safetensors does not fit this network"):
        jobs_of([stage("trained"), stage("begun", start=wrong)], dataset)


def test_weights_for_other_classes_are_refused_as_they_are_and_taken_to_begin_with(
    dataset: Dataset, tmp_path: Path
) -> None:
    file = tmp_path / "ten.safetensors"
    ten = replace(dataset, class_names=tuple("abcdefghij"))
    save_file({n: t.contiguous() for n, t in network().build(ten).state_dict().items()}, file)
    with pytest.raises(BadInput, match=r"has 10 outputs at .*, but 4 classes are needed here"):
        jobs_of([Stage(name="given", network=network(), weights=file)], dataset)
    assert jobs_of([stage("begun", start=file)], dataset)


# ----------------------------------------------------------------------------------------------------- warnings
def test_a_teacher_with_fewer_multiply_adds_than_its_student_is_worth_a_warning(dataset: Dataset) -> None:
    big, small = network(width=0.5), network(width=0.25)
    made = jobs_of([stage("small", network=small), stage("big", "small", network=big)], dataset, seeds=[0, 1])
    (sentence,) = warnings(made)  # once, not for every seed
    assert "small (plain_cnn-2 x0.25" in sentence
    assert "teaches big, which is bigger (plain_cnn-2 x0.5" in sentence
    assert "MMAC" in sentence


def test_a_ladder_that_descends_is_worth_none(dataset: Dataset) -> None:
    stages = shapes.dense(TEACHER, ASSISTANTS, STUDENT, SoftTargets())
    assert warnings(jobs_of(stages, dataset)) == []
    same = [stage("teacher"), stage("student", "teacher")]  # born-again: as big is no mistake
    assert warnings(jobs_of(same, dataset, ladder_seed=100)) == []


def test_a_student_that_begins_as_its_teacher_did_is_said(dataset: Dataset) -> None:
    same = [stage("teacher"), stage("student", "teacher")]
    said = (
        "teacher and student are one network with one seed (0), so they begin with the same weights: ladder_seed: 100 "
        "(and repeat: student) sets the teacher apart."
    )
    assert warnings(jobs_of(same, dataset, seeds=[0, 1, 2])) == [said]
    assert len(warnings(jobs_of(same, dataset, seeds=[5, 6], ladder_seed=100, repeat="ladder"))) == 2
    other = [stage("teacher", network=network(width=0.75)), stage("student", "teacher")]
    assert not any("one network" in sentence for sentence in warnings(jobs_of(other, dataset)))


# -------------------------------------------------------------------------------------------- seeds and repeats
CHAIN = shapes.chain(TEACHER, ASSISTANTS[:1], STUDENT, SoftTargets())


@pytest.mark.parametrize(
    ("repeat", "made"),
    [("student", [1, 1, 3]), ("assistants", [1, 3, 3]), ("ladder", [3, 3, 3])],
)
def test_repeat_says_which_stages_are_made_anew_for_each_seed(
    dataset: Dataset, repeat: Any, made: list[int]
) -> None:
    all_jobs = jobs_of(CHAIN, dataset, seeds=[5, 6, 7], repeat=repeat, ladder_seed=9)
    found = by_name(all_jobs)
    assert [len(found[one.name]) for one in CHAIN] == made
    for count, one in zip(made, CHAIN, strict=True):
        assert [job.seed for job in found[one.name]] == ([9] if count == 1 else [5, 6, 7])
    assert len({job.key for job in all_jobs}) == sum(made)


@pytest.mark.parametrize(("repeat", "own"), [("student", 0), ("assistants", 0), ("ladder", 1)])
def test_a_student_learns_from_the_teacher_of_its_own_seed_where_that_varies(
    dataset: Dataset, repeat: Any, own: int
) -> None:
    stages = shapes.direct(TEACHER, STUDENT, SoftTargets())
    for job in jobs_of(stages, dataset, seeds=[3, 4], repeat=repeat, ladder_seed=8):
        for teacher in job.teachers:
            assert teacher.seed == (job.seed if own else 8)


def test_controls_vary_with_the_seed_in_every_repeat() -> None:
    control = shapes.scratch(STUDENT)[0]
    assert {
        seed_of(control, 4, repeat=repeat, ladder_seed=0) for repeat in ("student", "assistants", "ladder")
    } == {4}  # type: ignore[arg-type]


def test_inputs_come_first_in_the_list_of_jobs(dataset: Dataset) -> None:
    seen: set[str] = set()
    stages = shapes.paths(TEACHER, ASSISTANTS, STUDENT, SoftTargets())
    for job in jobs(
        Ladder(tuple(stages), (stages[-1].name,)), dataset, seeds=[0, 1], views=Views(), signals=Signals()
    ):
        assert {needed.key for needed in job.inputs} <= seen
        seen.add(job.key)


# ----------------------------------------------------------------------------------- keys: what must not change
def test_the_first_assistant_of_dense_and_of_chain_is_one_and_the_same(dataset: Dataset) -> None:
    chain = keys_of(shapes.chain(TEACHER, ASSISTANTS, STUDENT, SoftTargets()), dataset)
    dense = keys_of(shapes.dense(TEACHER, ASSISTANTS, STUDENT, SoftTargets()), dataset)
    first, second = "plain_cnn-2 x0.5", "plain_cnn-2 x0.375"
    assert chain["teacher"] == dense["teacher"]
    assert chain[f"chain/{first}"] == dense[f"dense/{first}"]
    assert chain[f"chain/{second}"] != dense[f"dense/{second}"]
    assert chain["chain"] != dense["dense"]


def test_how_several_teachers_are_combined_does_not_change_what_one_teacher_taught(dataset: Dataset) -> None:
    def keys(method: SoftTargets) -> list[str]:
        return list(keys_of(shapes.dense(TEACHER, ASSISTANTS[:1], STUDENT, method), dataset).values())

    one, other = keys(SoftTargets(combine="sum")), keys(SoftTargets(combine="mean"))
    assert one[:2] == other[:2]
    assert one[2] != other[2]


def test_names_and_roles_decide_nothing(dataset: Dataset) -> None:
    before = keys_of([stage("teacher"), stage("student", "teacher")], dataset)
    after = keys_of([stage("old master"), stage("pupil", "old master", role="assistant")], dataset)
    assert list(before.values()) == list(after.values())


def test_the_order_of_declaration_decides_nothing(dataset: Dataset) -> None:
    stages = shapes.dense(TEACHER, ASSISTANTS, STUDENT, SoftTargets())
    backwards = Ladder(tuple(reversed(stages)), (stages[-1].name,))
    made = {
        job.name: job.key for job in jobs(backwards, dataset, seeds=[0], views=Views(), signals=Signals())
    }
    assert made == keys_of(stages, dataset)


def test_seeds_beside_it_and_their_order_decide_nothing(dataset: Dataset) -> None:
    alone = {job.seed: job.key for job in jobs_of([stage("s", role="student")], dataset, seeds=[2])}
    among = {job.seed: job.key for job in jobs_of([stage("s", role="student")], dataset, seeds=[7, 2, 0])}
    assert among[2] == alone[2]


@pytest.mark.parametrize("changed", [{"checkpoint_minutes": 0.5}, {"workers": 0}])
def test_how_often_checkpoints_are_written_and_how_data_is_loaded_decide_nothing(
    dataset: Dataset, changed: dict[str, Any]
) -> None:
    before = keys_of([stage("a"), stage("b", "a")], dataset)
    now = training(**changed)
    assert keys_of([stage("a", training=now), stage("b", "a", training=now)], dataset) == before


@pytest.mark.parametrize(
    ("asked", "changed"),
    [
        ({}, {"lr": 0.02, "epochs": 2}),
        (
            {"schedule": "constant"},
            {"milestones": (0.1, 0.2), "gamma": 0.5},
        ),  # only a step schedule looks at them
        ({"optimizer": "adamw"}, {"nesterov": False}),
    ],
)
def test_settings_that_nobody_looks_at_decide_nothing(
    dataset: Dataset, asked: dict[str, Any], changed: dict[str, Any]
) -> None:
    one = keys_of([stage("a", training=training(**asked))], dataset)
    assert keys_of([stage("a", training=training(**asked, **changed))], dataset) == one


def test_a_whole_number_written_with_a_point_is_the_same_number(dataset: Dataset) -> None:
    one = keys_of(
        [stage("a", training=training(lr=1)), stage("b", "a", method=SoftTargets(temperature=4))], dataset
    )
    other = [stage("a", training=training(lr=1.0)), stage("b", "a", method=SoftTargets(temperature=4.0))]
    assert keys_of(other, dataset) == one


def test_the_seed_of_views_decides_nothing_where_there_is_one_view(dataset: Dataset) -> None:
    stages = [stage("a")]
    assert keys_of(stages, dataset, views=Views(seed=1)) == keys_of(stages, dataset, views=Views(seed=2))
    flips = ViewPolicy(flip=True)
    assert keys_of(stages, dataset, views=Views(policy=flips, seed=1)) != keys_of(
        stages, dataset, views=Views(policy=flips, seed=2)
    )


def test_stochastic_teaching_that_never_drops_anyone_is_none(dataset: Dataset) -> None:
    whole = shapes.dense(TEACHER, ASSISTANTS, STUDENT, SoftTargets())
    never = shapes.dense(TEACHER, ASSISTANTS, STUDENT, SoftTargets(), stochastic=Stochastic(keep=1.0))
    sometimes = shapes.dense(TEACHER, ASSISTANTS, STUDENT, SoftTargets(), stochastic=Stochastic(keep=0.5))
    assert keys_of(never, dataset) == keys_of(whole, dataset)
    before, after = keys_of(whole, dataset), keys_of(sometimes, dataset)
    assert [name for name in before if before[name] != after[name]] == ["dense"]


def test_the_place_of_the_data_decides_nothing(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    one, other = saved(tmp_path / "a.npz"), saved(tmp_path / "elsewhere" / "b.npz")
    stages = [stage("a"), stage("b", "a")]
    assert keys_of(stages, one) == keys_of(stages, other)
    assert keys_of(stages, replace(one, name="other", class_names=tuple("wxyz"))) == keys_of(stages, one)


RECIPE = """
data: {path: DATA, validation: 0.2}
ladder: {shape: dense}
models: {teacher: {name: plain_cnn-4, width: 0.25}, assistants: [{name: plain_cnn-2, width: 0.5}], student: {name: plain_cnn-2, width: 0.25}}
training: {epochs: 2, batch_size: 16, precision: fp32, device: cpu}
seeds: [0]
"""


def recipe_keys(text: str, data: Path) -> dict[str, str]:
    built = build(check(read_text(text.replace("DATA", str(data)))))
    return {job.name: job.key for job in built.jobs}


def test_comments_and_the_order_of_a_recipe_decide_nothing(tmp_path: Path) -> None:
    saved(tmp_path / "a.npz")
    before = recipe_keys(RECIPE, tmp_path / "a.npz")
    backwards = yaml.safe_dump(dict(reversed(yaml.safe_load(RECIPE).items())), sort_keys=False)
    assert recipe_keys(f"# a remark\n{backwards}", tmp_path / "a.npz") == before
    resolved = check(read_text(RECIPE)).as_yaml()
    assert recipe_keys(resolved, tmp_path / "a.npz") == before


def test_more_controls_and_seeds_leave_the_keys_that_were_there(tmp_path: Path) -> None:
    saved(tmp_path / "a.npz")
    before = recipe_keys(RECIPE, tmp_path / "a.npz")
    more = recipe_keys(RECIPE + "controls: [direct_long, scratch, chain, direct]\n", tmp_path / "a.npz")
    assert before.items() <= more.items()
    assert more["chain/plain_cnn-2 x0.5"] == before["dense/plain_cnn-2 x0.5"]


# -------------------------------------------------------------------------------------- keys: what must change
def test_one_pixel_of_any_split_changes_every_key(tmp_path: Path) -> None:
    stages = [stage("a"), stage("b", "a")]
    known = [keys_of(stages, saved(tmp_path / "a.npz"))]
    for name, row in (("x_train", 0), ("x_train", 47), ("x_test", 3)):
        pixels = arrays()[name].copy()
        pixels[row, 7, 7, 0] ^= 1
        known.append(keys_of(stages, saved(tmp_path / "a.npz", **{name: pixels})))
    for one in ("a", "b"):
        assert len({keys[one] for keys in known}) == len(known)


def test_one_label_of_any_split_changes_every_key(tmp_path: Path) -> None:
    stages = [stage("a"), stage("b", "a")]
    known = [keys_of(stages, saved(tmp_path / "a.npz"))]
    for name in ("y_train", "y_test"):
        labels = arrays()[name].copy()
        labels[5] = (labels[5] + 1) % 4
        known.append(keys_of(stages, saved(tmp_path / "a.npz", **{name: labels})))
    for one in ("a", "b"):
        assert len({keys[one] for keys in known}) == len(known)


@pytest.mark.parametrize(
    "changed",
    [{"validation": 0.25}, {"split_seed": 1}, {"train_images": 40}, {"test_images": 12}, {"size": 10}],
)
def test_how_the_data_is_split_changes_the_key(tmp_path: Path, changed: dict[str, Any]) -> None:
    from understudy.data import load

    before = saved(tmp_path / "a.npz")
    assert keys_of([stage("a")], load(path=tmp_path / "a.npz", **changed)) != keys_of([stage("a")], before)


TRAININGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "epochs": (3, {}),
    "batch_size": (24, {}),
    "optimizer": ("adamw", {}),
    "lr": (0.0200001, {}),
    "momentum": (0.85, {}),
    "nesterov": (False, {}),
    "weight_decay": (4e-4, {}),
    "decay": ("weights", {}),
    "schedule": ("cosine", {}),
    "warmup": (0.5, {"schedule": "cosine"}),
    "milestones": ((0.4, 0.75), {"schedule": "step"}),
    "gamma": (0.2, {"schedule": "step"}),
    "clip": (1.0, {}),
    "label_smoothing": (0.1, {}),
    "sampling": ("balanced", {}),
    "ema": (0.99, {}),
    "accumulate": (2, {}),
    "precision": ("bf16", {}),
    "threads": (2, {}),
}


def test_every_setting_of_a_training_is_tried_here() -> None:
    elsewhere = {
        "checkpoint_minutes",
        "workers",
        "device",
    }  # the first two decide nothing, the third needs a GPU
    assert {one.name for one in fields(Training)} == TRAININGS.keys() | elsewhere


@pytest.mark.parametrize("name", TRAININGS)
def test_every_number_of_a_training_changes_its_key_and_those_below_it(dataset: Dataset, name: str) -> None:
    value, beside = TRAININGS[name]

    def keys(**changed: Any) -> dict[str, str]:
        return keys_of(
            [stage("other"), stage("a", training=training(**beside, **changed)), stage("b", "a")], dataset
        )

    before, after = keys(), keys(**{name: value})
    assert before["other"] == after["other"]
    assert before["a"] != after["a"]
    assert before["b"] != after["b"]


def test_the_device_is_part_of_what_decides() -> None:
    assert training(device="cuda").definition() != training(device="cpu").definition()


TEACHINGS: dict[str, Callable[[SoftTargets], SoftTargets]] = {
    "temperature": lambda method: replace(method, temperature=4.5),
    "soft_weight": lambda method: replace(method, soft_weight=0.4),
    "combine": lambda method: replace(method, combine="mean"),
    "hard_terms": lambda method: replace(method, hard_terms="once"),
    "kl_reduction": lambda method: replace(method, kl_reduction="mean_over_classes"),
    "teacher_weights": lambda method: replace(method, teacher_weights=(1.0, 0.5)),
    "stochastic": lambda method: replace(method, stochastic=Stochastic()),
}
STOCHASTICS: dict[str, tuple[Stochastic, Stochastic]] = {
    "mode": (Stochastic(), Stochastic(mode="bernoulli_all")),
    "keep": (Stochastic(), Stochastic(keep=0.7)),
    "drop": (Stochastic(mode="exact_k", drop=1), Stochastic(mode="exact_k", drop=0)),
    "rescale": (Stochastic(), Stochastic(rescale=True)),
}


def test_every_setting_of_soft_targets_is_tried_here() -> None:
    assert {one.name for one in fields(SoftTargets) if one.init} == TEACHINGS.keys()
    assert {one.name for one in fields(Stochastic)} == STOCHASTICS.keys()


@pytest.mark.parametrize("name", TEACHINGS)
def test_every_number_of_the_teaching_changes_the_key(dataset: Dataset, name: str) -> None:
    def key(method: SoftTargets) -> str:
        return keys_of([stage("t"), stage("a"), stage("s", "t", "a", method=method)], dataset)["s"]

    before = SoftTargets(combine="sum")  # in a mean the hard term counts once either way
    assert key(before) != key(TEACHINGS[name](before))


@pytest.mark.parametrize("name", STOCHASTICS)
def test_every_number_of_stochastic_teaching_changes_the_key(dataset: Dataset, name: str) -> None:
    before, after = (
        keys_of([stage("t"), stage("a"), stage("s", "t", "a", method=SoftTargets(stochastic=one))], dataset)[
            "s"
        ]
        for one in STOCHASTICS[name]
    )
    assert before != after


def test_weights_in_another_order_change_the_key(dataset: Dataset) -> None:
    def key(weights: tuple[float, ...]) -> str:
        stages = [stage("t"), stage("a"), stage("s", "t", "a", method=SoftTargets(teacher_weights=weights))]
        return keys_of(stages, dataset)["s"]

    assert key((1.0, 0.5)) != key((0.5, 1.0))


def test_the_order_of_the_teachers_changes_the_key(dataset: Dataset) -> None:
    stages = [stage("t"), stage("a", network=network(width=0.5))]
    one = keys_of([*stages, stage("s", "t", "a")], dataset)
    other = keys_of([*stages, stage("s", "a", "t")], dataset)
    assert one["t"] == other["t"]
    assert one["s"] != other["s"]


def test_one_teacher_more_changes_the_key(dataset: Dataset) -> None:
    stages = [stage("t"), stage("a", network=network(width=0.5))]
    assert (
        keys_of([*stages, stage("s", "t")], dataset)["s"]
        != keys_of([*stages, stage("s", "t", "a")], dataset)["s"]
    )


NETWORKS: dict[str, dict[str, Any]] = {
    "name": {"name": "plain_cnn-4"},
    "width": {"width": 0.5},
    "size": {"size": (12, 8)},
    "mean": {"mean": (0.4,)},
    "std": {"std": (0.25,)},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_setting_of_a_network_changes_the_key(dataset: Dataset, name: str) -> None:
    before = keys_of([stage("a")], dataset)
    assert keys_of([stage("a", network=network(**NETWORKS[name]))], dataset) != before


VIEWS: dict[str, Any] = {"crop": 1, "flip": True, "erase": 0.5, "mixup": 0.4}


@pytest.mark.parametrize("name", VIEWS)
def test_every_setting_of_the_views_changes_the_key(dataset: Dataset, name: str) -> None:
    policy = ViewPolicy(**{name: VIEWS[name]})
    assert keys_of([stage("a")], dataset, views=Views(policy=policy)) != keys_of([stage("a")], dataset)


def test_two_policies_have_two_keys(dataset: Dataset) -> None:
    policies = [ViewPolicy(**{name: VIEWS[name]}) for name in VIEWS]
    policies += [ViewPolicy(crop=2), ViewPolicy(crop=1, flip=True), ViewPolicy(mixup=0.2)]
    policies += [ViewPolicy(erase=0.25), ViewPolicy(erase=0.5, fill=9)]
    assert len(
        {keys_of([stage("a")], dataset, views=Views(policy=policy))["a"] for policy in policies}
    ) == len(policies)


TAUGHT = (stage("t"), stage("s", "t"))
FLIPPED = Views(policy=ViewPolicy(flip=True))


def test_the_number_of_distinct_views_changes_the_key_of_the_taught_only(dataset: Dataset) -> None:
    before = keys_of(TAUGHT, dataset, views=FLIPPED)
    after = keys_of(TAUGHT, dataset, views=replace(FLIPPED, distinct=1))
    assert before["t"] == after["t"]
    assert before["s"] != after["s"]


@pytest.mark.parametrize("distinct", [2, 3, 1000])
def test_as_many_distinct_views_as_epochs_are_no_bound(dataset: Dataset, distinct: int) -> None:
    bound = replace(FLIPPED, distinct=distinct)  # there are two epochs
    assert keys_of(TAUGHT, dataset, views=bound) == keys_of(TAUGHT, dataset, views=FLIPPED)


def test_without_augmentation_there_is_one_view_however_it_is_counted(dataset: Dataset) -> None:
    bound = Views(distinct=1, per_seed=True, seed=7)
    assert keys_of(TAUGHT, dataset, views=bound) == keys_of(TAUGHT, dataset)


def test_seeds_share_their_views_unless_each_is_to_have_its_own(dataset: Dataset) -> None:
    def seeds_of_views(views: Views) -> set[int]:
        return {job.views.seed for job in jobs_of(TAUGHT, dataset, seeds=[0, 1, 2], views=views)}

    assert seeds_of_views(replace(FLIPPED, seed=5)) == {5}
    assert len(seeds_of_views(replace(FLIPPED, seed=5, per_seed=True))) == 3  # the teacher has seed 0, too
    assert not seeds_of_views(replace(FLIPPED, per_seed=True)) & seeds_of_views(
        replace(FLIPPED, seed=1, per_seed=True)
    )


SIGNALS: dict[str, dict[str, Any]] = {"dtype": {"dtype": "float32"}, "top_k": {"top_k": 2}}


@pytest.mark.parametrize("name", SIGNALS)
def test_how_signals_are_kept_changes_the_key_of_those_who_hear_them_only(
    dataset: Dataset, name: str
) -> None:
    assert {one.name for one in fields(Signals)} == SIGNALS.keys() | {"max_gb"}
    before, after = (keys_of(TAUGHT, dataset, signals=Signals(**said)) for said in ({}, SIGNALS[name]))
    assert before["t"] == after["t"]
    assert before["s"] != after["s"]


def test_the_room_for_signals_changes_no_key(dataset: Dataset) -> None:
    assert keys_of(TAUGHT, dataset, signals=Signals(max_gb=0)) == keys_of(TAUGHT, dataset)


def test_the_seed_changes_the_key(dataset: Dataset) -> None:
    keys = {job.key for job in jobs_of([stage("s", role="student")], dataset, seeds=[0, 1, 2])}
    assert len(keys) == 3
    one, other = (keys_of([stage("t"), stage("s", "t")], dataset, ladder_seed=seed) for seed in (0, 1))
    assert one["t"] != other["t"]
    assert one["s"] != other["s"]


def test_another_way_to_teach_and_another_version_of_one_change_the_key(dataset: Dataset) -> None:
    class Mine(Method):
        name = "mine"

        def definition(self, *, teachers: int) -> dict[str, Any]:
            return {"name": self.name, "version": self.version}

        def loss(self, step: Step) -> dict[str, Any]:
            return {}

    class Newer(Mine):
        version = 2

    keys = [keys_of([stage("a", method=method)], dataset)["a"] for method in (Labels(), Mine(), Newer())]
    assert len(set(keys)) == 3


def test_to_begin_with_a_stage_or_a_file_changes_the_key(dataset: Dataset, tmp_path: Path) -> None:
    tensors = {n: t.contiguous() for n, t in network().build(dataset).state_dict().items()}
    save_file(tensors, tmp_path / "a.safetensors")
    keys = [
        keys_of([stage("t"), stage("s", "t", **more)], dataset)["s"]
        for more in ({}, {"start": "t"}, {"start": tmp_path / "a.safetensors"})
    ]
    assert len(set(keys)) == 3


# ------------------------------------------------------------------------------------------- files of weights
@pytest.fixture
def tensors(dataset: Dataset) -> Mapping[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        name: tensor.contiguous().clone() for name, tensor in network().build(dataset).state_dict().items()
    }


@pytest.mark.parametrize("how", ["weights", "start"])
def test_weights_are_known_by_their_tensors_not_by_the_name_or_kind_of_the_file(
    dataset: Dataset, tensors: Mapping[str, torch.Tensor], tmp_path: Path, how: str
) -> None:
    def key(path: Path) -> str:
        if how == "weights":
            return keys_of([Stage(name="given", network=network(), role="teacher", weights=path)], dataset)[
                "given"
            ]
        return keys_of([stage("begun", start=path)], dataset)["begun"]

    save_file(dict(tensors), tmp_path / "a.safetensors")
    save_file(dict(reversed(tensors.items())), tmp_path / "b.safetensors", metadata={"made": "today"})
    torch.save(dict(tensors), tmp_path / "c.pt")
    torch.save({"state_dict": dict(tensors), "epoch": 3}, tmp_path / "d.pth")
    names = ["a.safetensors", "b.safetensors", "c.pt", "d.pth"]
    assert len({key(tmp_path / name) for name in names}) == 1

    before = key(tmp_path / "a.safetensors")
    changed = {name: tensor.clone() for name, tensor in tensors.items()}
    next(iter(changed.values())).view(-1)[0] += 1e-3
    save_file(changed, tmp_path / "a.safetensors")
    assert key(tmp_path / "a.safetensors") != before


def test_a_given_stage_does_not_vary_with_seeds_or_trainings(
    dataset: Dataset, tensors: Mapping[str, torch.Tensor], tmp_path: Path
) -> None:
    save_file(dict(tensors), tmp_path / "a.safetensors")
    given = Stage(name="given", network=network(), role="teacher", weights=tmp_path / "a.safetensors")
    made = jobs_of([given, stage("s", "given")], dataset, seeds=[0, 1], repeat="ladder")
    assert len({job.key for job in by_name(made)["given"]}) == 1
    assert len({job.key for job in by_name(made)["s"]}) == 2


# --------------------------------------------------------------------------------------- factories of one's own
def own(factory: Any = small_network, *, version: str = "1", name: str = "mine") -> Network:
    return Network(name=name, factory=factory, version=version)


def test_a_given_stage_has_other_answers_on_other_data_and_so_another_key(
    dataset: Dataset, tmp_path: Path
) -> None:
    tensors = {n: t.contiguous() for n, t in network().build(dataset).state_dict().items()}
    save_file(tensors, tmp_path / "a.safetensors")
    given = stage("a", method=None, training=None, weights=tmp_path / "a.safetensors")
    assert keys_of([given], dataset) != keys_of([given], replace(dataset, fingerprint="another"))


def test_a_factory_is_known_by_version_shapes_and_initial_weights_not_by_its_name(dataset: Dataset) -> None:
    def key(one: Network) -> str:
        return keys_of([stage("a", network=one)], dataset)["a"]

    before = key(own())
    assert key(own(name="another name")) == before
    assert key(own(lambda **arguments: small_network(**arguments))) == before
    assert key(own(version="2")) != before
    assert key(own(other_small_network)) != before

    def scaled(**arguments: Any) -> torch.nn.Module:
        made = small_network(**arguments)
        with torch.no_grad():
            next(made.parameters()).mul_(2)
        return made

    assert key(own(scaled)) != before


def test_two_factories_of_one_name_and_version_are_told_apart_in_one_ladder(dataset: Dataset) -> None:
    one, other = stage("one", network=own()), stage("other", network=own(other_small_network))
    made = by_name(jobs_of([one, other], dataset))
    assert made["one"][0].key != made["other"][0].key
    assert made["one"][0].cost.parameters == 64 * 8 + 8 + 8 * 4 + 4
    assert made["other"][0].cost.parameters == 64 * 9 + 9 + 9 * 4 + 4


def test_looking_at_a_ladder_draws_nothing_from_the_generator(dataset: Dataset) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    keys_of([stage("a", network=own()), stage("b", "a")], dataset)
    assert torch.equal(torch.get_rng_state(), before)


def test_keys_do_not_depend_on_the_generator_either(dataset: Dataset) -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    one = keys_of([stage("a", network=own()), stage("b", "a")], dataset)
    torch.manual_seed(4)
    assert keys_of([stage("a", network=own()), stage("b", "a")], dataset) == one


def test_jobs_of_one_key_are_one_and_the_first_stands_for_them(dataset: Dataset) -> None:
    made = jobs_of([stage("a"), stage("b", "a"), stage("same as b", "a")], dataset)
    assert [job.name for job in made] == ["a", "b", "same as b"]
    assert made[1].key == made[2].key
    assert [job.name for job in unique(made).values()] == ["a", "b"]


def test_the_temperature_is_that_of_the_first_stage_with_soft_targets_whatever_is_around_them(
    dataset: Dataset,
) -> None:
    inside = Curriculum(method=SoftTargets(temperature=3.0))
    hot = stage("hot", "teacher", method=SoftTargets(temperature=9.0))
    assert temperature_of(jobs_of([stage("teacher")], dataset)) is None
    assert (
        temperature_of(jobs_of([stage("teacher"), stage("a", "teacher", method=inside), hot], dataset)) == 3.0
    )
    assert temperature_of(jobs_of([stage("teacher"), hot], dataset)) == 9.0


def test_what_another_method_calls_a_temperature_is_none_of_soft_targets(dataset: Dataset) -> None:
    class Warming(Labels):
        name = "warming"
        temperature = (8.0, 2.0)

    odd = stage("odd", "teacher", method=Warming())
    assert temperature_of(jobs_of([stage("teacher"), odd], dataset)) is None
