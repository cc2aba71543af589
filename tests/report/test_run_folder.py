from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from understudy import processes
from understudy.data import Dataset
from understudy.data import load as load_data
from understudy.data.long_tail import LongTail
from understudy.data.views import Views
from understudy.errors import BadInput, Damaged
from understudy.ladder import Ladder, Network, Stage
from understudy.ladder.graph import Job, jobs
from understudy.ladder.runner import Outcome
from understudy.recipe.reading import written
from understudy.report import run_folder
from understudy.report.run_folder import alone, check_out, choose, deliver, result_of, withdraw
from understudy.store import Store, files
from understudy.store.results import WEIGHTS
from understudy.teaching import Labels, SoftTargets
from understudy.training.settings import Training
from understudy.training.signals import Signals

RECIPE: dict[str, Any] = {
    "data": {"path": "a.npz"},
    "ladder": {"shape": "dense"},
    "training": {"epochs": 2, "lr": 0.1},
    "controls": ["scratch"],
    "seeds": [0, 1],
    "repeat": "student",
}


def left(out: Path, recipe: dict[str, Any] = RECIPE) -> Path:
    """A folder as a run of ``recipe`` leaves it."""
    out.mkdir(parents=True)
    (out / "recipe.yaml").write_text(written(recipe), "utf-8")
    (out / "result.json").write_text("{}", "utf-8")
    return out


# --- may a run go into a folder? ------------------------------------------------------------------------------------


def test_an_empty_or_a_new_folder_may_be_used(tmp_path: Path) -> None:
    check_out(tmp_path, RECIPE, force=False)
    check_out(tmp_path / "new" / "one", RECIPE, force=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"seeds": [0, 1, 2]},
        {"seeds": [5, 1, 0]},
        {"controls": ["direct", "scratch"]},
        {"seeds": [1, 0]},
        {"data": {"path": "a.npz"}},
    ],
)
def test_the_same_recipe_with_more_seeds_or_controls_continues(tmp_path: Path, more: dict[str, Any]) -> None:
    check_out(left(tmp_path / "a"), {**RECIPE, **more}, force=False)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"seeds": [0]}, "seeds is [0, 1] there and [0] here"),
        ({"seeds": [0, 2]}, "seeds is [0, 1] there and [0, 2] here"),
        ({"controls": []}, "controls is ['scratch'] there and [] here"),
        ({"training": {"epochs": 3, "lr": 0.1}}, "training.epochs is 2 there and 3 here"),
        (
            {"training": {"epochs": 3, "lr": 0.2}},
            "training.epochs is 2 there and 3 here, training.lr is 0.1 there and 0.2 here",
        ),
        ({"training": {"epochs": 2}}, "training.lr is 0.1 there and None here"),
        ({"ladder_seed": 1}, "ladder_seed is None there and 1 here"),
    ],
)
def test_any_other_difference_is_refused_with_its_keys(
    tmp_path: Path, other: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput) as caught:
        check_out(left(tmp_path / "a"), {**RECIPE, **other}, force=False)
    assert f"holds another run: {said}. Choose another --out" in str(caught.value)
    check_out(tmp_path / "a", {**RECIPE, **other}, force=True)


def test_a_long_value_is_cut_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        check_out(left(tmp_path / "a"), {**RECIPE, "data": {"path": "x" * 5000}}, force=False)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x", "utf-8")
    with pytest.raises(BadInput, match="holds files that no run left"):
        check_out(tmp_path, RECIPE, force=False)


@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_no_folder_for_a_run(tmp_path: Path, force: bool) -> None:
    file = tmp_path / "file"
    file.write_text("x", "utf-8")
    with pytest.raises(BadInput, match="is a file; name a folder"):
        check_out(file, RECIPE, force=force)
    with pytest.raises(BadInput, match=r"lies below .*file, which is a file; name a folder"):
        check_out(file / "run", RECIPE, force=force)


def test_a_name_that_no_folder_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be used: File name too long"):
        check_out(tmp_path / ("x" * 300), RECIPE, force=False)


@pytest.mark.parametrize("content", [b"", b"[1]", b"a: [", b"\xff\xfe", b"a: !!python/name:os.system"])
def test_a_run_whose_recipe_cannot_be_read_is_not_written_over_unasked(
    tmp_path: Path, content: bytes
) -> None:
    out = left(tmp_path / "a")
    (out / "recipe.yaml").write_bytes(content)
    with pytest.raises(BadInput, match=r"Choose another --out, or --force to write over this run\."):
        check_out(out, RECIPE, force=False)
    check_out(out, RECIPE, force=True)


def _hold(out: Path, store: Path, ready: Any, end: Any) -> None:
    with alone(out, store):
        ready.set()
        end.wait(60)


def test_one_run_writes_into_a_folder_at_a_time(tmp_path: Path) -> None:
    server = processes.context()
    ready, end = server.Event(), server.Event()
    other = server.Process(target=_hold, args=(tmp_path / "a", tmp_path / "store", ready, end))
    other.start()
    try:
        assert ready.wait(60)
        with (
            pytest.raises(BadInput, match="another run writes into"),
            alone(tmp_path / "a", tmp_path / "store"),
        ):
            pass
        with alone(tmp_path / "b", tmp_path / "store"):
            pass
    finally:
        end.set()
        other.join(60)
    with alone(tmp_path / "a", tmp_path / "store"):
        pass


# --- the result -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data(name="digits", train_images=40, test_images=20)


@pytest.fixture(scope="module")
def ladder() -> Ladder:
    small = {
        "network": Network(name="plain_cnn-2", width=0.125),
        "training": Training(epochs=1, device="cpu", precision="fp32"),
    }
    return Ladder(
        (
            Stage(name="teacher", role="teacher", method=Labels(), **small),
            Stage(name="taught", role="student", teachers=("teacher",), method=SoftTargets(), **small),
            Stage(name="further", role="student", start="teacher", method=Labels(), **small),
        ),
        ("taught",),
    )


@pytest.fixture(scope="module")
def made(ladder: Ladder, digits: Dataset) -> list[Job]:
    return jobs(ladder, digits, seeds=[0, 1, 2], views=Views(), signals=Signals())


Finish = Callable[..., Outcome]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.prepare()
    return store


@pytest.fixture
def finish(store: Store, digits: Dataset) -> Finish:
    """Makes a job's result in the store, with accuracies of our choice."""

    def finish(job: Job, *, validation: float | None, test: float, **more: Any) -> Outcome:
        with torch.random.fork_rng(devices=[]):
            model = job.stage.network.build(digits)
        record = {
            "name": job.name,
            "seed": job.seed,
            "model": job.stage.network.label,
            "architecture": {"name": job.stage.network.name},
            "preprocessing": job.stage.network.preprocessing(digits).definition(),
            "epochs": 1,
            "seconds": 1.5,
            "parameters": job.cost.parameters,
            "multiply_adds": job.cost.multiply_adds,
            "validation": {} if validation is None else {"accuracy": validation},
            "test": {"accuracy": test},
        }
        kept = store.finish(job.key, record, {WEIGHTS: model.state_dict()})
        return Outcome(job=job, state="done", result=kept, **more)

    return finish


def of(made: list[Job], name: str) -> list[Job]:
    return [job for job in made if job.name == name]


def whole(outcomes: list[Outcome], ladder: Ladder, digits: Dataset) -> dict[str, Any]:
    recipe = {**RECIPE, "seeds": [0, 1, 2]}
    return result_of(
        outcomes,
        ladder=ladder,
        dataset=digits,
        recipe=recipe,
        environment={"cores": 2},
        command="understudy run r.yaml",
    )


def test_the_best_on_validation_is_delivered_whatever_it_does_on_test(
    made: list[Job], ladder: Ladder, finish: Finish
) -> None:
    one, two, three = of(made, "taught")
    outcomes = [
        finish(one, validation=0.5, test=0.9),
        finish(two, validation=0.7, test=0.1),
        finish(three, validation=0.6, test=0.8),
        finish(of(made, "further")[0], validation=1.0, test=1.0),  # a control is never delivered
    ]
    chosen = choose(outcomes, ladder)
    assert chosen is not None
    assert chosen.job is two


def test_the_earlier_seed_wins_a_tie_and_unfinished_ones_do_not_count(
    made: list[Job], ladder: Ladder, finish: Finish
) -> None:
    one, two, three = of(made, "taught")
    outcomes = [
        Outcome(job=one, state="failed"),
        finish(two, validation=0.5, test=0.2),
        finish(three, validation=0.5, test=0.9),
    ]
    chosen = choose(outcomes, ladder)
    assert chosen is not None
    assert chosen.job is two
    assert choose(outcomes[:1], ladder) is None


def test_a_student_without_a_validation_split_is_delivered(
    made: list[Job], ladder: Ladder, finish: Finish
) -> None:
    only = finish(of(made, "taught")[0], validation=None, test=0.5)
    assert choose([only], ladder) is only


def test_the_result_tells_done_failed_and_left_out_apart(
    made: list[Job], ladder: Ladder, digits: Dataset, finish: Finish
) -> None:
    outcomes = []
    for job in made:
        if job.name == "teacher":
            outcomes.append(finish(job, validation=0.9, test=0.9, from_store=True))
        elif job.name == "taught":
            outcomes.append(finish(job, validation=0.5, test=0.4 + 0.1 * job.seed))
        elif job.seed == 0:
            outcomes.append(Outcome(job=job, state="failed", message="the loss is not a finite number"))
        else:
            outcomes.append(Outcome(job=job, state="left out", message="it needs x"))
    found = whole(outcomes, ladder, digits)
    json.dumps(found, allow_nan=False)
    assert found["complete"] is False
    assert found["delivered"] == {"name": "taught", "seed": 0, "key": of(made, "taught")[0].key}
    assert found["ladder"]["edges"] == [
        {"from": "teacher", "to": "taught", "kind": "teaches"},
        {"from": "teacher", "to": "further", "kind": "starts"},
    ]
    states = {(stage["name"], stage["seed"]): (stage["state"], stage["message"]) for stage in found["stages"]}
    assert states["further", 0] == ("failed", "the loss is not a finite number")
    assert states["further", 1] == ("left out", "it needs x")
    failed = next(stage for stage in found["stages"] if stage["state"] == "failed")
    assert (failed["seconds"], failed["test"], failed["validation"], failed["epochs"]) == (None, {}, {}, 1)
    teacher, taught, further = found["summary"]
    assert (teacher["n"], teacher["std"], teacher["interval"]) == (1, None, None)
    assert (taught["n"], taught["mean"], taught["std"]) == (3, pytest.approx(0.5), pytest.approx(0.1))
    low, high = taught["interval"]
    assert high - 0.5 == pytest.approx(0.5 - low) == pytest.approx(4.302652730 * 0.1 / 3**0.5, rel=1e-4)
    assert (further["n"], further["mean"], further["std"]) == (0, None, None)


def test_a_summary_lists_teachers_then_students_then_controls(
    ladder: Ladder, made: list[Job], digits: Dataset
) -> None:
    turned = replace(ladder, delivered=("further",))
    found = whole([Outcome(job=job) for job in made], turned, digits)
    assert [row["name"] for row in found["summary"]] == ["teacher", "further", "taught"]
    assert found["delivered"] is None


def test_training_images_of_classes_are_told_where_they_differ_much(
    ladder: Ladder, made: list[Job], digits: Dataset
) -> None:
    outcomes = [Outcome(job=job) for job in made]
    assert "train_counts" not in whole(outcomes, ladder, digits)["data"]
    tailed = load_data(name="digits", train_images=40, test_images=20, long_tail=LongTail(imbalance=4))
    assert whole(outcomes, ladder, tailed)["data"]["train_counts"] == [4, 3, 2, 2, 2, 1, 1, 1, 1, 1]


def test_a_student_is_delivered_with_its_card_and_checksum(
    tmp_path: Path, made: list[Job], digits: Dataset, store: Store, finish: Finish
) -> None:
    chosen = finish(of(made, "taught")[1], validation=0.5, test=0.4)
    assert chosen.result is not None
    deliver(tmp_path, chosen, store=store, dataset=digits)
    card = json.loads((tmp_path / "student.json").read_text("utf-8"))
    tensors = load_file(tmp_path / "student.safetensors")
    kept = store.weights(chosen.result)
    assert tensors.keys() == kept.keys()
    assert all(torch.equal(tensors[name], kept[name]) for name in kept)
    assert card["weights"] == {
        "file": "student.safetensors",
        "sha256": files.sha256_of_file(tmp_path / "student.safetensors"),
    }
    assert (card["stage"], card["seed"], card["key"]) == ("taught", 1, chosen.job.key)
    assert card["class_names"] == [str(digit) for digit in range(10)]
    assert card["preprocessing"]["mean"] == list(digits.mean)
    assert card["preprocessing"]["std"] == list(digits.std)
    assert card["preprocessing"]["image"] == [8, 8]
    assert card["preprocessing"]["channels"] == 1
    (tmp_path / "deploy.json").write_text("{}", "utf-8")
    withdraw(tmp_path)
    withdraw(tmp_path)
    assert not (tmp_path / "student.json").exists()
    assert not (tmp_path / "deploy.json").exists()
    assert not (tmp_path / "student.safetensors").exists()


def test_damaged_weights_are_not_delivered(
    tmp_path: Path, made: list[Job], digits: Dataset, store: Store, finish: Finish
) -> None:
    chosen = finish(of(made, "taught")[0], validation=0.5, test=0.4)
    (store.place(chosen.job.key) / WEIGHTS).write_bytes(b"x")
    with pytest.raises(Damaged, match="does not have the checksum"):
        deliver(tmp_path, chosen, store=store, dataset=digits)
    assert not (tmp_path / "student.safetensors").exists()


def test_a_student_is_never_half_written(
    tmp_path: Path,
    made: list[Job],
    digits: Dataset,
    store: Store,
    finish: Finish,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = finish(of(made, "taught")[0], validation=0.5, test=0.4)
    deliver(tmp_path, chosen, store=store, dataset=digits)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("student.*")}

    def refuse(path: Path, content: bytes) -> None:
        raise files.CannotWrite("the disk is full")

    monkeypatch.setattr(run_folder.files, "write_bytes", refuse)
    with pytest.raises(files.CannotWrite):
        deliver(
            tmp_path, finish(of(made, "taught")[2], validation=0.5, test=0.4), store=store, dataset=digits
        )
    assert {path.name: path.read_bytes() for path in tmp_path.glob("student.*")} == before
