"""Recipes that learn a structure: their stages, keys and errors, and whole tiny runs of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.recipe.tiny import write_data
from understudy.cli import main
from understudy.climb import climb
from understudy.errors import BadInput
from understudy.ladder.networks import rebuilt
from understudy.ladder.runner import run
from understudy.recipe import check
from understudy.recipe.building import Built, build
from understudy.recipe.reading import written
from understudy.report.result import read_result
from understudy.store import Store
from understudy.structure.cost import cost
from understudy.teaching.structure_search import StructureSearch


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "data.npz"
    write_data(path)
    return path


def recipe(path: Path, *, structure: Mapping[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    """Teacher, searches of two strengths, a student of half the multiply-adds."""
    said = {
        "data": {"path": str(path)},
        "models": {"teacher": {"name": "resnet-8", "width": 0.5}},
        "ladder": {"shape": "direct"},
        "structure": {"budget": {"multiply_adds": "0.5x"}, "strengths": [1.0, 3.0], **(structure or {})},
        "training": {"epochs": 1, "batch_size": 16, "lr": 0.05, "precision": "fp32", "device": "cpu"},
        "controls": ["scratch"],
    }
    return {**said, **changed}


def built(path: Path, **more: Any) -> Built:
    return build(check({**recipe(path), **recipe(path, **more)}))


def names(found: Built) -> list[str]:
    return [stage.name for stage in found.ladder.stages]


def keys(found: Built) -> dict[str, str]:
    return {job.name: job.key for job in found.jobs}


# ---------------------------------------------------------------------------------------------- stages and keys
def test_a_structure_is_a_teacher_searches_and_a_choice(data: Path) -> None:
    found = built(data)
    assert names(found) == [
        "teacher",
        "structure/search 1",
        "structure/search 3",
        "structure",
        "direct",
        "scratch",
    ]
    search, choice, student = (found.ladder[name] for name in ("structure/search 1", "structure", "direct"))
    assert (search.start, search.teachers, search.role) == ("teacher", ("teacher",), "assistant")
    assert search.training is not None
    assert search.training.schedule == "constant"
    assert choice.choice is not None
    assert choice.choice.among == ("structure/search 1", "structure/search 3")
    assert (student.structure, student.start) == ("structure", None)
    assert found.ladder["scratch"].structure == "structure"
    whole, half = found.jobs[0].cost, next(job for job in found.jobs if job.name == "direct").cost
    assert half.multiply_adds == whole.multiply_adds // 2


def test_assistants_are_structures_on_the_way(data: Path) -> None:
    found = built(
        data, structure={"assistants": 1, "budget": {"multiply_adds": "0.25x"}}, ladder={"shape": "dense"}
    )
    assert "structure 0.500x MAC" in names(found)
    assistant = found.ladder["dense/resnet-8 x0.5 0.500x MAC"]
    assert assistant.structure == "structure 0.500x MAC"
    assert found.ladder["dense"].teachers == ("teacher", assistant.name)
    nearer = built(
        data, structure={"assistants": [0.9], "budget": {"multiply_adds": "0.25x"}}, ladder={"shape": "dense"}
    )
    assert "structure 0.287x MAC" in names(nearer)


def test_finetuning_begins_with_what_the_search_left(data: Path) -> None:
    assert built(data, structure={"retrain": "finetune"}).ladder["direct"].start == "structure"


def test_a_named_student_is_taught_first_and_then_searched(data: Path) -> None:
    models = {"teacher": {"name": "resnet-8", "width": 0.5}, "student": {"name": "plain_cnn-2", "width": 0.5}}
    found = built(data, models=models)
    assert found.ladder["whole"].teachers == ("teacher",)
    assert found.ladder["structure/search 1"].start == "whole"
    assert found.ladder["direct"].network.name == "plain_cnn-2"


def test_uniform_is_as_wide_as_the_budget_allows_and_alone_has_no_teacher(data: Path) -> None:
    found = built(data, controls=["uniform", "structure_alone"])
    uniform = next(job for job in found.jobs if job.name == "uniform")
    assert (
        0.85 * found.jobs[0].cost.multiply_adds / 2
        < uniform.cost.multiply_adds
        <= found.jobs[0].cost.multiply_adds / 2
    )
    assert not found.ladder["structure_alone/structure/search 1"].teachers
    assert not found.ladder["structure_alone"].teachers


def test_uniform_takes_channels_of_all_layers_where_no_width_is_small_enough(
    data: Path, tmp_path: Path
) -> None:
    """The last layer of this network has 1,280 channels at every width below one."""
    found = built(
        data,
        models={"teacher": {"name": "mobilenet_v2", "width": 0.1}},
        structure={"budget": {"parameters": "0.15x"}, "strengths": [1.0]},
        controls=["uniform"],
    )
    jobs = {job.name: job for job in found.jobs}
    assert found.ladder["uniform"].structure == "uniform/structure"
    assert found.ladder["uniform"].teachers == ("teacher",)
    choice = jobs["uniform/structure"]
    assert (choice.stage.choice is not None, choice.among) == (True, ())
    assert choice.key != jobs["structure"].key
    climb(found, out=tmp_path / "run", store=Store(tmp_path / "store"))
    result = read_result(tmp_path / "run")  # it is what a report is made of
    (stage,) = [stage for stage in result["stages"] if stage["name"] == "uniform/structure"]
    record = stage["choice"]
    assert record["search"] is None
    assert 0.97 < record["reached"]["parameters"] <= 1
    shares = [one["after"] / one["before"] for one in record["widths"] if one["before"] >= 100]
    assert 0.05 < min(shares) <= max(shares) < min(shares) + 0.05
    assert "Nothing was searched" in (tmp_path / "run" / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    "structure",
    [
        {"strengths": [1.0, 4.0]},
        {"blocks": {"stage2": 2.0}},
        {"schedule": "sequential"},
        {"epochs": 2},
        {"training": {"lr": 0.01}},
    ],
    ids=str,
)
def test_what_decides_a_search_decides_the_student(data: Path, structure: dict[str, Any]) -> None:
    usual, other = keys(built(data)), keys(built(data, structure=structure))
    assert usual["teacher"] == other["teacher"]
    for name in ("structure", "direct", "scratch"):
        assert usual[name] != other[name]


def test_a_smaller_budget_is_searched_for_harder(data: Path) -> None:
    def strength(**said: Any) -> float:
        method = built(data, structure=said).ladder["structure/search 1"].method
        assert isinstance(method, StructureSearch)
        return method.strength

    usual = strength()
    assert strength(budget={"multiply_adds": "0.2x"}) > usual
    assert strength(training={"lr": 0.025}) == pytest.approx(2 * usual, rel=1e-3)
    assert strength(epochs=2) == pytest.approx(usual / 2, rel=1e-3)
    assert strength(training={"schedule": "cosine"}) > 1.5 * usual
    assert strength(assistants=1) == usual  # those on the way are cut from the same searches


def test_weights_of_one_keep_the_key_of_the_plain_form(data: Path) -> None:
    assert keys(built(data)) == keys(built(data, structure={"blocks": {"stage2": 1.0}}))


# ------------------------------------------------------------------------------------------------------- whole runs
@pytest.fixture(scope="module")
def finished(
    data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Built, Store, dict[str, dict[str, Any]]]:
    found = built(data, structure={"retrain": "finetune"}, quantise={"epochs": 1})
    store = Store(tmp_path_factory.mktemp("store"))
    outcomes = run(found.jobs, store=store, dataset=found.dataset)
    assert [outcome.message for outcome in outcomes if outcome.state != "done"] == []
    return found, store, {o.job.name: o.result.record for o in outcomes if o.result}


def test_what_is_delivered_is_within_the_budget(
    finished: tuple[Built, Store, dict[str, dict[str, Any]]],
) -> None:
    found, store, records = finished
    whole = records["teacher"]["multiply_adds"]
    job = next(job for job in found.jobs if job.name == "direct")
    model = rebuilt(job, store, found.dataset)
    size = (found.dataset.height, found.dataset.width)
    assert (
        cost(model, channels=found.dataset.channels, size=size).multiply_adds
        == records["direct"]["multiply_adds"]
    )
    assert 0.9 * whole / 2 < records["direct"]["multiply_adds"] <= whole / 2
    assert records["direct"]["structure"] == records["structure"]["structure"]
    choice = records["structure"]["choice"]
    assert choice["search"] in ("structure/search 1", "structure/search 3")
    best = max(choice["candidates"], key=lambda candidate: candidate["validation"])
    assert choice["search"] == best["search"]
    assert choice["reached"]["multiply_adds"] == pytest.approx(
        records["direct"]["multiply_adds"] / (whole // 2)
    )
    assert {"layer", "before", "after"} == set(choice["widths"][0])
    assert records["structure"]["epochs"] == 0


def test_a_choice_keeps_the_weights_that_it_left(
    finished: tuple[Built, Store, dict[str, dict[str, Any]]],
) -> None:
    found, store, records = finished
    jobs = {job.name: job for job in found.jobs}
    whole = rebuilt(jobs[records["structure"]["choice"]["search"]], store, found.dataset)
    smaller = rebuilt(jobs["structure"], store, found.dataset)
    kept = records["structure"]["structure"]["kept"]["stem.conv"]
    weights = dict(whole.named_parameters())["stem.conv.weight"]
    assert torch.equal(dict(smaller.named_parameters())["stem.conv.weight"], weights[kept])


def test_the_int8_arm_begins_with_the_student_and_is_kept(
    finished: tuple[Built, Store, dict[str, dict[str, Any]]],
) -> None:
    found, store, records = finished
    job = next(job for job in found.jobs if job.name == "int8")
    assert job.start is not None
    assert job.start.name == "direct"
    assert [teacher.name for teacher in job.teachers] == ["direct", "teacher"]
    model = rebuilt(job, store, found.dataset)
    assert any("fake" in type(module).__name__.lower() for module in model.modules())
    assert records["int8"]["structure"] == records["structure"]["structure"]


def test_the_command_leaves_a_student_that_says_its_structure(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(written(recipe(data, structure={"strengths": [1.0]})), "utf-8")
    for command in ("plan", "run", "plan"):
        with pytest.raises(SystemExit) as ended:
            main(
                [
                    command,
                    str(path),
                    "--out",
                    str(tmp_path / "run"),
                    *(["--quiet"] if command == "run" else []),
                ]
            )
        assert ended.value.code == 0, capsys.readouterr().err
    card = json.loads((tmp_path / "run" / "student.json").read_text("utf-8"))
    assert card["structure"]["kept"]
    assert card["network"]["name"] == "resnet-8"
    result = json.loads((tmp_path / "run" / "result.json").read_text("utf-8"))
    assert {"from": "structure", "to": "direct", "kind": "shapes"} in result["ladder"]["edges"]
    assert {"from": "structure/search 1", "to": "structure", "kind": "chooses"} in result["ladder"]["edges"]
    (chosen,) = [stage for stage in result["stages"] if stage["name"] == "structure"]
    assert chosen["choice"]["widths"]


# ---------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"structure": {"budget": {}}}, r"structure.budget is empty: say multiply_adds"),
        ({"structure": {"budget": {"multiply_adds": "20"}}}, r"structure.budget.multiply_adds '20' has no unit"),
        ({"structure": {"budget": {"parameters": "many"}}}, r"structure.budget.parameters 'many' cannot be read"),
        ({"structure": {"budget": {"multiply_adds": "9GMAC"}}}, r"structure.budget.multiply_adds '9GMAC' is more than"),
        ({"structure": {"budget": {"multiply_adds": "1MAC"}}}, r"less than the network can be made: .* at least"),
        ({"structure": {"blocks": {"stagge2": 2.0}}}, r"structure.blocks: the network has no block 'stagge2'.*stage2"),
        ({"structure": {"strengths": [1.0, 1.0]}}, r"structure.strengths has a number twice"),
        ({"structure": {"training": {"lr": -1}}}, r"structure.training.lr is a number in"),
        ({"structure": {"training": {"optimizer": "adamw"}}}, r"a search trains by sgd, .* is adamw"),
        ({"models": {"student": "resnet-8"}}, r"models.teacher is missing"),
        (
            {"models": {"teacher": "resnet-8", "assistants": ["resnet-8"]}},
            r"models.assistants and structure: the assistants are structures",
        ),
        ({"ladder": {"shape": "dense"}}, r"structure.assistants is 0: dense needs assistants"),
        ({"structure": None, "controls": ["uniform"], "models": {"teacher": "resnet-8", "student": "resnet-8"}},
         r"controls: uniform goes with structure"),
        ({"structure": None}, r"models.student is missing: name what is taught, or learn a structure"),
        ({"quantise": {"training": {"precision": "bf16"}}}, r"'int8' is quantised, and int8 is rounded from float32"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_one_clear_line(data: Path, changed: dict[str, Any], said: str) -> None:
    whole = recipe(data)
    for key, value in changed.items():
        whole[key] = {**whole[key], **value} if key == "structure" and value else value
    with pytest.raises(BadInput, match=said):
        build(check({key: value for key, value in whole.items() if value is not None}))


def test_several_strengths_need_a_validation_split(data: Path) -> None:
    without = {"path": str(data), "validation": 0}
    with pytest.raises(BadInput, match=r"structure.strengths are chosen among on the validation split"):
        built(data, data=without)


def test_a_budget_without_a_unit_is_shown_one(data: Path) -> None:
    with pytest.raises(BadInput, match=r"structure.budget.multiply_adds is 0.5; .* such as 0.5x or 20MMAC"):
        check(recipe(data, structure={"budget": {"multiply_adds": 0.5}}))
