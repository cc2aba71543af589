from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.recipe.tiny import short, write_data
from understudy.data import Dataset
from understudy.data.views import Views
from understudy.errors import BadInput
from understudy.ladder import Ladder, Stage
from understudy.models import build as network
from understudy.recipe import changed, check
from understudy.recipe.building import Built, build, dataset_of, ladder_of, signals_of, views_of
from understudy.teaching import Labels, SoftTargets
from understudy.training.signals import Signals


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "data.npz")


@pytest.fixture(scope="module")
def dataset(data: Path) -> Dataset:
    return dataset_of(check(short(data={"path": str(data)})))


def small(**sections: Any) -> dict[str, Any]:
    """A dense ladder over one assistant, of networks that take no time to make."""
    networks: dict[str, Any] = {
        "teacher": {"name": "plain_cnn-4", "width": 0.125},
        "assistants": [{"name": "plain_cnn-3", "width": 0.125}],
        "student": {"name": "plain_cnn-2", "width": 0.125},
    }
    return short(**{"models": networks, **sections})


def built(data: Path, *settings: str, raw: dict[str, Any] | None = None, **sections: Any) -> Built:
    whole = raw or small(**sections)
    return build(check(changed({**whole, "data": {**whole.get("data", {}), "path": str(data)}}, settings)))


def ladder(dataset: Dataset, *settings: str, raw: dict[str, Any] | None = None, **sections: Any) -> Ladder:
    return ladder_of(check(changed(raw or small(**sections), settings)), dataset)


def taught_by(ladder: Ladder) -> dict[str, tuple[str, ...]]:
    return {stage.name: stage.teachers for stage in ladder.stages}


def soft(stage: Stage) -> SoftTargets:
    assert isinstance(stage.method, SoftTargets)
    return stage.method


STAGES: list[dict[str, Any]] = [
    {"name": "lead", "model": {"name": "plain_cnn-4", "width": 0.125}},
    {"name": "middle", "model": {"name": "plain_cnn-3", "width": 0.125}, "teachers": ["lead"]},
    {"name": "end", "model": {"name": "plain_cnn-2", "width": 0.125}, "teachers": ["lead", "middle"]},
]


def long(stages: list[dict[str, Any]] | None = None, **sections: Any) -> dict[str, Any]:
    whole = short(**sections)
    del whole["models"]
    return {**whole, "ladder": {"stages": STAGES if stages is None else stages}}


# --- the short form ---------------------------------------------------------------------------------------------


def test_a_dense_ladder_learns_from_all_above(dataset: Dataset) -> None:
    here = ladder(dataset)
    assert taught_by(here) == {
        "teacher": (),
        "dense/plain_cnn-3 x0.125": ("teacher",),
        "dense": ("teacher", "dense/plain_cnn-3 x0.125"),
        "scratch": (),
        "direct": ("teacher",),
    }
    assert here.delivered == ("dense",)
    assert [stage.role for stage in here.stages] == ["teacher", "assistant", "student", "student", "student"]


def test_a_chain_learns_from_the_next_above(dataset: Dataset) -> None:
    here = ladder(dataset, "ladder.shape=chain", "controls=[]")
    assert taught_by(here) == {
        "teacher": (),
        "chain/plain_cnn-3 x0.125": ("teacher",),
        "chain": ("chain/plain_cnn-3 x0.125",),
    }


def test_paths_are_all_subsets_of_the_assistants(dataset: Dataset) -> None:
    here = ladder(
        dataset, "ladder.shape=paths", "models.assistants=[plain_cnn-4, plain_cnn-3]", "controls=[scratch]"
    )
    assert set(here.delivered) == {
        "direct",
        "path plain_cnn-4",
        "path plain_cnn-3",
        "path plain_cnn-4 > plain_cnn-3",
    }
    assert "scratch" in taught_by(here)


def test_teacher_and_pacemaker_may_have_weights(dataset: Dataset) -> None:
    here = ladder(
        dataset, "ladder={shape: pacemaker}", "models.assistants=[]", "teaching.teacher_weights=[1, 0.5]"
    )
    method = here["pacemaker"].method
    assert isinstance(method, SoftTargets)
    assert method.teacher_weights == (1.0, 0.5)


def test_a_shape_is_not_its_own_control(dataset: Dataset) -> None:
    here = ladder(dataset, "ladder.shape=direct")
    assert [stage.name for stage in here.stages] == ["teacher", "direct", "scratch"]
    assert ladder(dataset, "ladder.shape=scratch", "controls=[scratch]").delivered == ("scratch",)


def test_the_long_control_spends_what_the_ladder_spends_below_its_teacher(dataset: Dataset) -> None:
    settings = ["controls=[direct_long]", "training.epochs=10", "models.assistants.0.training.epochs=7"]
    long_one = ladder(dataset, *settings)["direct_long"]
    assert long_one.training is not None
    assert long_one.training.epochs == 17
    by_cost = ladder(dataset, *settings, "direct_long.match=multiply_adds")["direct_long"]
    assert by_cost.training is not None
    assert by_cost.training.epochs > 17  # an epoch of the assistant costs several of the student


def test_chain_and_dense_may_be_controls_of_each_other(dataset: Dataset) -> None:
    here = ladder(dataset, "controls=[chain]")
    assert here.delivered == ("dense",)
    assert here["chain"].teachers == ("chain/plain_cnn-3 x0.125",)


def test_stochastic_teaching_is_for_the_last_stage_only(dataset: Dataset) -> None:
    here = ladder(dataset, "ladder.stochastic.keep=0.5")
    assert soft(here["dense/plain_cnn-3 x0.125"]).stochastic is None
    assert soft(here["direct"]).stochastic is None
    dropping = soft(here["dense"]).stochastic
    assert dropping is not None
    assert (dropping.mode, dropping.keep) == ("bernoulli_assistants", 0.5)


def test_teaching_and_training_reach_the_stages(dataset: Dataset) -> None:
    here = ladder(
        dataset,
        "teaching={temperature: 7, soft_weight: 0.25, combine: mean, teacher_weights: [1, 0.5]}",
        "training.epochs=3",
        "models.teacher.training.epochs=9",
    )
    method = soft(here["dense"])
    assert (method.temperature, method.soft_weight, method.combine) == (7, 0.25, "mean")
    assert method.teacher_weights == (1, 0.5)
    assert soft(here["direct"]).teacher_weights == (1,)
    assert isinstance(here["scratch"].method, Labels)
    epochs = {stage.name: stage.training.epochs for stage in here.stages if stage.training}
    assert epochs == {"teacher": 9, "dense/plain_cnn-3 x0.125": 3, "dense": 3, "scratch": 3, "direct": 3}


def test_a_size_in_one_number_is_a_square(dataset: Dataset) -> None:
    assert ladder(dataset, "models.teacher.size=16")["teacher"].network.size == (16, 16)
    assert ladder(dataset, "models.teacher.size=[16, 12]")["teacher"].network.size == (16, 12)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["teaching.teacher_weights=[1, 1, 1]"],
            "teaching.teacher_weights has 3 numbers; the last stage has 2 teachers, largest first.",
        ),
        (
            ["ladder.shape=chain", "teaching.teacher_weights=[1, 1]"],
            "teaching.teacher_weights has 2 numbers; the last stage has 1 teacher, largest first.",
        ),
        (
            ["ladder.shape=pacemaker", "teaching.teacher_weights=[1]"],
            "teaching.teacher_weights has 1 numbers; the last stage has 2 teachers, largest first.",
        ),
        (["ladder.stochastic={mode: exact_k, drop: 2}"], "stochastic.drop 2 leaves no teacher of 2"),
    ],
)
def test_what_does_not_fit_the_number_of_teachers_is_refused(
    dataset: Dataset, settings: list[str], said: str
) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        ladder(dataset, *settings)


# --- the long form ----------------------------------------------------------------------------------------------


def test_the_stage_that_nothing_is_made_from_is_the_student(dataset: Dataset) -> None:
    here = ladder(dataset, raw=long())
    assert here.delivered == ("end",)
    assert {stage.name: stage.role for stage in here.stages} == {
        "lead": "teacher",
        "middle": "assistant",
        "end": "student",
        "scratch": "student",
        "direct": "student",
    }
    assert here["direct"].teachers == ("lead",)


def test_several_ends_need_a_word_about_which_is_delivered(dataset: Dataset) -> None:
    stages = [*STAGES, {"name": "other", "model": "plain_cnn-2", "teachers": ["lead"]}]
    with pytest.raises(BadInput, match=r"ladder.student is missing: .*: end, other\."):
        ladder(dataset, raw=long(stages))
    here = ladder(dataset, "ladder.student=other", raw=long(stages))
    assert here.delivered == ("other",)
    assert here.students == ["other", "end", "scratch", "direct"]  # the other end is an arm of the comparison


def test_stages_may_stand_in_any_order(dataset: Dataset) -> None:
    assert [stage.name for stage in ladder(dataset, "controls=[]", raw=long(STAGES[::-1])).stages] == [
        "lead",
        "middle",
        "end",
    ]


def test_a_stage_may_begin_from_another(dataset: Dataset) -> None:
    stages = [
        {"name": "a", "model": "plain_cnn-2"},
        {
            "name": "b",
            "model": "plain_cnn-2",
            "start": "a",
            "teachers": ["a"],
            "teaching": {"temperature": 2},
        },
    ]
    here = ladder(dataset, raw=long(stages))
    assert here["b"].start == "a"
    assert soft(here["b"]).temperature == 2
    assert here["scratch"].start is None


def test_the_long_control_of_stages_counts_what_lies_above_the_student(dataset: Dataset) -> None:
    stages = [*STAGES, {"name": "aside", "model": {"name": "plain_cnn-2", "training": {"epochs": 100}}}]
    here = ladder(
        dataset, "training.epochs=5", "ladder.student=end", "controls=[direct_long]", raw=long(stages)
    )
    assert here["direct_long"].training is not None
    assert here["direct_long"].training.epochs == 10


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["ladder.student=ned"],
            "the student 'ned' is no stage. Stages: lead, middle, end. Did you mean 'end'?",
        ),
        (["ladder.stages.2.teachers=[laed]"], "stage 'end' needs 'laed', which no stage makes."),
        (
            ["ladder.stages.0.teachers=[end]", "ladder.student=end"],
            "these stages wait for each other in a circle: 'lead' needs 'end' needs 'lead'.",
        ),
        (["ladder.stages.1.name=lead"], "two stages are called 'lead'"),
        (["ladder.stages.0.teachers=[lead]"], "in a circle: 'lead' needs 'lead'"),
        (["ladder.stages.2.teachers=[lead, lead, middle]"], "names a teacher twice: lead, lead, middle"),
        (
            ["ladder.stages.0.teaching.temperature=2"],
            "ladder.stages.0 has no teachers; teaching and stochastic say how teachers teach.",
        ),
        (
            ["ladder.stages.2.teaching.teacher_weights=[1]"],
            "ladder.stages.2: teacher_weights has 1 numbers for 2 teachers.",
        ),
        (
            ["controls=[dense]"],
            "controls: dense goes with the short form; write its stages under ladder.stages.",
        ),
    ],
)
def test_stages_that_make_no_ladder_are_refused(dataset: Dataset, settings: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        ladder(dataset, *settings, raw=long())


def test_given_weights_are_not_trained(dataset: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "lead.safetensors"
    save_file(network("plain_cnn-4", classes=3, channels=1, size=(8, 8), width=0.125).state_dict(), file)
    given = f"ladder.stages.0.model.weights={file}"
    lead = ladder(dataset, given, raw=long())["lead"]
    assert (lead.weights, lead.role, lead.training) == (file, "teacher", None)
    with pytest.raises(BadInput, match=re.escape("ladder.stages.1 has model.weights, so nothing is trained")):
        ladder(dataset, f"ladder.stages.1.model.weights={file}", raw=long())
    with pytest.raises(BadInput, match="the student 'lead' has weights"):
        ladder(dataset, given, "ladder.student=lead", raw=long())


# --- keys -------------------------------------------------------------------------------------------------------


def keys(made: Built) -> dict[str, str]:
    return {job.name: job.key for job in made.jobs}


def test_a_ladder_in_short_and_in_long_form_has_the_same_keys(data: Path) -> None:
    here = keys(built(data, "teaching.temperature=6"))
    there = keys(built(data, "teaching.temperature=6", raw=long()))
    assert list(here.values()) == list(there.values())


def test_the_resolved_recipe_has_the_same_keys(data: Path) -> None:
    first = built(data, "seeds=[0, 2]", "data.views.crop=1")
    assert keys(build(check(first.recipe.as_dict()))) == keys(first)
    assert [job.seed for job in build(check(first.recipe.as_dict())).jobs] == [job.seed for job in first.jobs]


def test_partial_training_and_the_same_training_in_whole_have_the_same_keys(data: Path) -> None:
    models = small()["models"]
    apart = {**models, "student": {**models["student"], "training": {"epochs": 3}}}
    one = keys(built(data, "training.epochs=3", "models.teacher.training.epochs=5"))
    two = keys(built(data, "training.epochs=5", "models.assistants.0.training.epochs=3", models=apart))
    assert one == two


def test_where_the_data_lie_decides_nothing(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other name.npz"
    copy.write_bytes(data.read_bytes())
    assert keys(built(copy)) == keys(built(data))


def test_what_is_repeated_follows_the_recipe(data: Path) -> None:
    def seeds(repeat: str) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for job in built(data, "seeds=[3, 5]", "controls=[]", f"repeat={repeat}", "ladder_seed=9").jobs:
            found.setdefault(job.name, []).append(job.seed)
        return found

    middle = "dense/plain_cnn-3 x0.125"
    assert seeds("student") == {"teacher": [9], middle: [9], "dense": [3, 5]}
    assert seeds("assistants") == {"teacher": [9], middle: [3, 5], "dense": [3, 5]}
    assert seeds("ladder") == {"teacher": [3, 5], middle: [3, 5], "dense": [3, 5]}


# --- data, and what does not fit it -----------------------------------------------------------------------------


def test_the_augmentation_of_a_recipe_is_its_views() -> None:
    said = {"crop": 2, "flip": True, "erase": 0.5, "fill": 9, "mixup": 0.2, "seed": 4, "distinct": 3}
    views = views_of(check(short(data={"views": {**said, "per_seed": True}})))
    policy = views.policy
    assert (policy.crop, policy.flip, policy.erase, policy.fill, policy.mixup) == (2, True, 0.5, 9, 0.2)
    assert (views.seed, views.distinct, views.per_seed) == (4, 3, True)
    assert views_of(check(short())) == Views()


def test_how_signals_are_kept_is_read_from_the_recipe() -> None:
    said = {"dtype": "float32", "top_k": 5, "max_gb": 0.5}
    assert signals_of(check(short(signals=said))) == Signals(dtype="float32", top_k=5, max_gb=0.5)
    assert signals_of(check(short())) == Signals()


def test_without_a_validation_split_there_is_one_student_to_deliver(data: Path) -> None:
    assert built(data, "data.validation=0").ladder.delivered == ("dense",)
    with pytest.raises(
        BadInput,
        match=r"among several seeds the one best on validation is delivered, and the data have no validation",
    ):
        built(data, "data.validation=0", "seeds=[0, 1]")
    with pytest.raises(BadInput, match=r"paths are chosen on the validation split, and the data have none"):
        built(data, "data.validation=0", "ladder.shape=paths")


def test_a_network_larger_than_memory_is_refused_before_it_is_made(data: Path) -> None:
    with pytest.raises(BadInput, match=r"wrn-100-20 x16 has 156\.\d billion parameters on these images"):
        built(data, "models.teacher={name: wrn-100-20, width: 16}")


def test_counting_parameters_draws_no_random_numbers(data: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    built(data)
    assert torch.equal(torch.get_rng_state(), before)


def test_given_weights_are_checked_before_anything_runs(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "t.safetensors"
    save_file(network("plain_cnn-3", classes=3, channels=1, size=(8, 8), width=0.125).state_dict(), file)
    with pytest.raises(BadInput, match="does not fit this network"):
        built(data, f"models.teacher.weights={file}")


def test_a_long_tail_reaches_the_data_and_its_complaints_name_the_key(data: Path) -> None:
    tailed = built(data, "data.long_tail.imbalance=5", "data.validation=0.2").dataset
    assert np.bincount(tailed.train.labels).tolist() == [16, 7, 3]
    steps = built(data, "data.long_tail={imbalance: 5, profile: step}", "data.validation=0.2").dataset
    assert np.bincount(steps.train.labels).tolist() == [16, 3, 3]
    with pytest.raises(BadInput) as caught:
        built(data, "data.long_tail.imbalance=500")
    assert str(caught.value) == (
        "data.long_tail.imbalance is 500; the largest class has 18 training images, so the smallest would have none. "
        "Possible: 1 to 18"
    )


def test_keys_follow_the_long_tail_and_the_sampling(data: Path) -> None:
    usual = {job.key for job in built(data).jobs}
    assert {job.key for job in built(data, "training.sampling=instance").jobs} == usual
    for setting in ("data.long_tail.imbalance=5", "training.sampling=balanced"):
        assert not {job.key for job in built(data, setting).jobs} & usual


def test_a_ladder_can_be_changed_in_python(dataset: Dataset) -> None:
    here = ladder(dataset, "controls=[]")
    renamed = tuple(
        replace(stage, name="student") if stage.name == "dense" else stage for stage in here.stages
    )
    assert Ladder(renamed, ("student",)).delivered == ("student",)
