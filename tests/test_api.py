"""The public names: what there is, what it costs to ask for them, and a whole run from Python."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import FrozenInstanceError
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import understudy as us
from tests.ladder import tiny
from understudy.errors import BadInput, Damaged, StageFailed

PUBLIC = [
    "Callback",
    "Dataset",
    "Labels",
    "Ladder",
    "Method",
    "Needs",
    "Network",
    "RunResult",
    "Rung",
    "Signals",
    "SoftTargets",
    "Stage",
    "Step",
    "Stochastic",
    "Training",
    "UnderstudyError",
    "ViewPolicy",
    "Views",
    "callbacks",
    "chain",
    "dense",
    "direct",
    "from_torch",
    "given",
    "keep_pages",
    "load",
    "paths",
    "read_run",
    "run",
    "run_recipe",
    "scratch",
]
SMALL = us.Network(name="plain_cnn-2", width=0.25)
TRAINING = us.Training(epochs=1, batch_size=16, precision="fp32", device="cpu")


def small_ladder(**more: Any) -> us.Ladder:
    return us.direct(us.Network(name="plain_cnn-2", width=0.5), SMALL, training=TRAINING, **more)


@pytest.fixture
def digits() -> us.Dataset:
    return tiny.made_up()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> us.RunResult:
    """A run with two seeds, in a folder."""
    folder = tmp_path_factory.mktemp("api")
    return us.run(small_ladder(), tiny.made_up(), seeds=[0, 1], out=folder / "mine", quiet=True)


# -------------------------------------------------------------------------------------------------- the names
def test_the_public_names_are_these() -> None:
    assert us.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(us))


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in PUBLIC:
        assert getattr(us, name).__doc__, name


def test_a_name_that_is_not_there_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'distil'"):
        us.distil  # noqa: B018


def test_type_checkers_see_the_same_names_from_the_same_places() -> None:
    source = Path(us.__file__).read_text("utf-8")
    (block,) = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    there = {name: room for room, names in us._ROOMS.items() for name in names}
    assert seen == {**there, "callbacks": "understudy"}
    assert sorted(seen) == sorted(PUBLIC)


def test_neither_the_import_nor_a_look_at_the_names_loads_anything_heavy() -> None:
    code = "import sys, json, understudy; dir(understudy); print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & {"torch", "numpy", "pydantic", "typer", "rich", "yaml", "jinja2", "sklearn"}


# -------------------------------------------------------------------------------------------------- ladders
def test_shapes_take_names_and_networks() -> None:
    ladder = us.dense("plain_cnn-4", ["plain_cnn-2"], SMALL, controls=["scratch", "direct", "chain"])
    assert [stage.name for stage in ladder.stages if stage.role == "student"] == [
        "dense",
        "scratch",
        "direct",
        "chain",
    ]
    assert ladder["dense"].teachers == ("teacher", "dense/plain_cnn-2")
    assert ladder.delivered == ("dense",)
    assert ladder.shape == "dense"


def test_each_shape_has_its_own_graph() -> None:
    assert us.scratch(SMALL).students == ["scratch"]
    assert us.direct("plain_cnn-4", SMALL).students == ["direct", "scratch"]
    assert us.chain("plain_cnn-4", ["plain_cnn-2"], SMALL)["chain"].teachers == ("chain/plain_cnn-2",)
    assert us.paths("plain_cnn-4", ["plain_cnn-2"], SMALL).delivered == ("direct", "path plain_cnn-2")


def test_a_rung_brings_its_own_training_and_a_given_one_is_not_trained(tmp_path: Path) -> None:
    weights = tmp_path / "teacher.safetensors"
    weights.write_bytes(b"")
    longer = us.Rung(network=us.Network(name="plain_cnn-2"), training=us.Training(epochs=9))
    ladder = us.chain(us.given("plain_cnn-4", weights), [longer], SMALL, training=TRAINING, controls=[])
    assert ladder["teacher"].weights == weights
    assert ladder["teacher"].training is None
    assert ladder["chain/plain_cnn-2"].training == us.Training(epochs=9)
    assert ladder["chain"].training == TRAINING


def test_a_teacher_in_a_file_stands_for_itself_also_beside_a_torch_data_set(tmp_path: Path) -> None:
    arrays = tiny.arrays()
    logits = {part: np.eye(4, dtype=np.float32)[arrays[f"y_{part}"]] for part in ("train", "test")}
    np.savez(tmp_path / "teacher.npz", **logits)
    data = us.from_torch(
        list(zip(arrays["x_train"], arrays["y_train"], strict=True)),
        list(zip(arrays["x_test"], arrays["y_test"], strict=True)),
    )
    ladder = us.direct(us.Network(file=tmp_path / "teacher.npz"), SMALL, training=TRAINING)
    assert "is there already" in str(ladder)
    result = us.run(ladder, data, store=tmp_path / "store", quiet=True)
    assert result["teacher"].mean == 1.0
    assert result.complete


def test_rival_remedies_are_controls_by_name() -> None:
    ladder = us.direct(
        "plain_cnn-4", SMALL, controls=["dkd", "logit_std", "label_smoothing", "early_teacher"]
    )
    assert ladder.students == ["direct", "dkd", "logit_std", "label_smoothing", "early_teacher"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: us.dense("plain_cnn-4", [], SMALL), "assistants is empty: dense climbs over assistants"),
        (lambda: us.direct("plain_cnn-44", SMALL), "plain_cnn-44"),
        (lambda: us.direct("plain_cnn-4", SMALL, controls=["scrath"]), "Did you mean 'scratch'"),
        (lambda: us.direct("plain_cnn-4", SMALL, controls="scratch"), "controls is 'scratch'; it is a list"),
        (lambda: us.direct(torch.nn.Linear(2, 2), SMALL), "teacher is a Linear; it is a network's name"),
        (lambda: us.given("plain_cnn-4", "nowhere.pt"), "there is no file nowhere.pt"),
        (
            lambda: us.direct("plain_cnn-4", SMALL, method=us.Labels(), controls=["mean_teachers"]),
            "the control mean_teachers averages soft targets; the method is labels",
        ),
        (lambda: us.scratch(SMALL, controls=["direct"]), "a teacher is missing"),
        (lambda: us.direct("plain_cnn-4", SMALL, training={"epochs": 3}), r"it is an understudy\.Training"),
        (lambda: us.direct("plain_cnn-4", SMALL, method=us.SoftTargets), r"it is an understudy\.Method"),
        (lambda: us.Network(name="plain_cnn-4", mean=0.5), "mean has a number for each channel"),
        (
            lambda: us.Ladder(us.scratch(SMALL).stages, "scratch"),
            "delivered is a list of names; got 'scratch'",
        ),
        (
            lambda: us.Stage(name="a", network=SMALL, teachers="lead"),
            "teachers is a list of names; got 'lead'",
        ),
    ],
)
def test_what_makes_no_ladder_is_one_clear_line(make: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------- runs
def test_the_lines_of_the_guide_are_a_whole_run(finished: us.RunResult) -> None:
    assert finished.complete
    assert finished.problems == ()
    assert [row.name for row in finished.rows] == ["teacher", "direct", "scratch"]
    assert finished["direct"].n == 2
    assert finished["scratch"].difference is not None
    assert finished["teacher"].difference is None


def test_the_run_leaves_the_folder_that_the_command_leaves_but_for_the_recipe(finished: us.RunResult) -> None:
    assert finished.out is not None
    assert {path.name for path in finished.out.iterdir()} >= {
        "result.json",
        "report.html",
        "student.safetensors",
        "student.json",
    }
    assert not (finished.out / "recipe.yaml").exists()
    content = json.loads((finished.out / "result.json").read_text("utf-8"))
    assert content == json.loads(json.dumps(finished.content))
    assert content["recipe"] == "none: this run was started from Python"
    assert content["ladder"]["shape"] == "direct"
    assert content["command"]


def test_records_are_flat_and_one_for_each_stage_and_seed(finished: us.RunResult) -> None:
    records = finished.to_records()
    assert [(record["stage"], record["seed"]) for record in records] == [
        ("teacher", 0),
        ("direct", 0),
        ("scratch", 0),
        ("direct", 1),
        ("scratch", 1),
    ]
    assert all(
        isinstance(value, str | int | float | bool | None) for record in records for value in record.values()
    )
    assert sum(record["delivered"] for record in records) == 1
    assert len({tuple(record) for record in records}) == 1


def test_results_cannot_be_changed(finished: us.RunResult) -> None:
    with pytest.raises(FrozenInstanceError):
        finished.complete = False  # type: ignore[misc]


def test_a_stage_that_is_not_there_is_named_with_those_that_are(finished: us.RunResult) -> None:
    with pytest.raises(
        BadInput, match=r"no stage is called 'dirct'\. Stages: teacher, direct, scratch\. Did you mean"
    ):
        finished["dirct"]


def test_the_student_answers_as_it_was_tested(finished: us.RunResult) -> None:
    delivered, data = finished.delivered, tiny.made_up()
    assert delivered is not None
    pixels = torch.from_numpy(data.test.images.fetch(torch.arange(len(data.test)).numpy())).permute(
        0, 3, 1, 2
    )
    model = delivered.model()
    assert not model.training
    with torch.no_grad():
        right = model(delivered.preprocessing(pixels)).argmax(1).numpy() == data.test.labels
    assert right.mean() == delivered.stage.test["accuracy"]


def test_a_run_is_read_back_from_its_folder(finished: us.RunResult) -> None:
    assert finished.out is not None
    again = us.read_run(finished.out)
    assert (again.rows, again.stages) == (finished.rows, finished.stages)
    assert again.delivered is not None
    assert finished.delivered is not None
    assert again.delivered.preprocessing == finished.delivered.preprocessing
    same = zip(
        again.delivered.model().state_dict().values(),
        finished.delivered.model().state_dict().values(),
        strict=True,
    )
    assert all(torch.equal(one, other) for one, other in same)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"views": {"flip": True}}, "views is {'flip': True}; it is understudy.Views"),
        ({"signals": "float32"}, "signals is 'float32'; it is understudy.Signals"),
        ({"ladder_seed": -1}, "ladder_seed is a whole number, 0 or more; got -1"),
        ({"compare": "dense"}, "compare is a list of arms"),
    ],
)
def test_what_a_run_cannot_take_is_one_clear_line(said: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        us.run(us.scratch(SMALL), us.load(name="digits"), **said)
    assert str(caught.value).startswith(message)


def test_a_recipe_from_python_may_hold_paths_and_nothing_that_is_no_recipe() -> None:
    from understudy.recipe import check

    raw = {"data": {"path": Path("a.npz")}, "ladder": "scratch", "models": {"student": "plain_cnn-2"}}
    assert check(raw).data.path == "a.npz"
    with pytest.raises(BadInput, match="the recipe cannot be written down"):
        check({**raw, "training": {"lr": float("nan")}})
    with pytest.raises(BadInput, match="the recipe cannot be written down"):
        check({**raw, "seeds": {1, 2}})


def test_a_student_of_another_run_than_the_result_is_not_taken(
    finished: us.RunResult, tmp_path: Path
) -> None:
    assert finished.out is not None
    for name in ("result.json", "student.json", "student.safetensors"):
        (tmp_path / name).write_bytes((finished.out / name).read_bytes())
    card = json.loads((tmp_path / "student.json").read_text("utf-8"))
    (tmp_path / "student.json").write_text(json.dumps({**card, "key": "0" * 64}), "utf-8")
    delivered = us.read_run(tmp_path).delivered
    assert delivered is not None
    with pytest.raises(BadInput, match="the run is not finished"):
        delivered.model()


def test_a_changed_student_is_noticed_when_it_is_read(finished: us.RunResult, tmp_path: Path) -> None:
    assert finished.out is not None
    for name in ("result.json", "student.json", "student.safetensors"):
        (tmp_path / name).write_bytes((finished.out / name).read_bytes())
    content = bytearray((tmp_path / "student.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "student.safetensors").write_bytes(content)
    delivered = us.read_run(tmp_path).delivered
    assert delivered is not None
    with pytest.raises(Damaged, match=r"student\.safetensors is damaged"):
        delivered.model()
    (tmp_path / "student.json").unlink()
    with pytest.raises(BadInput, match=r"student\.json is not there"):
        delivered.model()


def test_a_network_of_ones_own_is_read_back_only_by_its_program(tmp_path: Path) -> None:
    own = us.Network(name="mine", factory=tiny.small_network, version="1")
    result = us.run(us.scratch(own, training=TRAINING), tiny.made_up(), out=tmp_path / "run", quiet=True)
    assert result.delivered is not None
    assert isinstance(result.delivered.model(), torch.nn.Sequential)
    again = us.read_run(tmp_path / "run").delivered
    assert again is not None
    with pytest.raises(BadInput, match="'mine', a network of somebody's own"):
        again.model()


def test_a_folder_is_not_needed_and_nothing_is_trained_twice(tmp_path: Path, digits: us.Dataset) -> None:
    first = us.run(small_ladder(), digits, store=tmp_path / "store", quiet=True)
    second = us.run(small_ladder(), digits, store=tmp_path / "store", quiet=True)
    assert not any(stage.from_store for stage in first.stages)
    assert all(stage.from_store for stage in second.stages)
    assert first.out is None
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_the_store_is_where_the_environment_says(
    tmp_path: Path, digits: us.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNDERSTUDY_STORE", str(tmp_path / "elsewhere"))
    us.run(us.scratch(SMALL, training=TRAINING), digits, quiet=True)
    assert (tmp_path / "elsewhere" / "stages").is_dir()


def test_the_same_settings_in_a_recipe_find_what_the_program_made(tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    tiny.saved(data)
    first = us.run(small_ladder(), us.load(path=data), store=tmp_path / "store", quiet=True)
    recipe = {
        "data": {"path": str(data)},
        "ladder": "direct",
        "models": {
            "teacher": {"name": "plain_cnn-2", "width": 0.5},
            "student": {"name": "plain_cnn-2", "width": 0.25},
        },
        "training": {"epochs": 1, "batch_size": 16, "precision": "fp32", "device": "cpu"},
        "controls": ["scratch"],
    }
    second = us.run_recipe(recipe, out=tmp_path / "run", store=tmp_path / "store", quiet=True)
    assert all(stage.from_store for stage in second.stages)
    assert {stage.key for stage in first.stages} == {stage.key for stage in second.stages}
    assert (tmp_path / "run" / "recipe.yaml").is_file()
    with pytest.raises(BadInput, match=r"holds the run of a recipe. Choose another out, or force=True"):
        us.run(small_ladder(), us.load(path=data), out=tmp_path / "run", store=tmp_path / "store")
    us.run(
        small_ladder(),
        us.load(path=data),
        out=tmp_path / "run",
        store=tmp_path / "store",
        force=True,
        quiet=True,
    )
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_more_seeds_go_on_in_the_same_folder_and_other_settings_do_not(
    tmp_path: Path, digits: us.Dataset
) -> None:
    out = tmp_path / "run"
    us.run(small_ladder(), digits, out=out, quiet=True)
    more = us.run(small_ladder(controls=["scratch", "dkd"]), digits, seeds=[0, 1], out=out, quiet=True)
    assert sum(stage.from_store for stage in more.stages) == 3
    with pytest.raises(BadInput, match="stage 'direct', seed 1 is there and not here"):
        us.run(small_ladder(controls=["scratch", "dkd"]), digits, out=out)
    other = us.Training(epochs=2, batch_size=16, precision="fp32", device="cpu")
    ladder = us.direct(
        us.Network(name="plain_cnn-2", width=0.5), SMALL, training=other, controls=["scratch", "dkd"]
    )
    with pytest.raises(
        BadInput, match=r"stage 'teacher', seed 0 differs \(training.epochs is 1 there and 2 here\)"
    ):
        us.run(ladder, digits, seeds=[0, 1], out=out)


def test_a_folder_with_other_files_or_below_a_file_is_refused(tmp_path: Path, digits: us.Dataset) -> None:
    (tmp_path / "letter.txt").write_text("dear", "utf-8")
    with pytest.raises(BadInput, match="holds files that no run left"):
        us.run(small_ladder(), digits, out=tmp_path)
    with pytest.raises(BadInput, match="below, a file"):
        us.run(small_ladder(), digits, out=tmp_path / "letter.txt" / "run")


def failing(*, classes: int, channels: int, size: tuple[int, int]) -> torch.nn.Module:
    class Fails(torch.nn.Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if self.training and images.shape[0] > 1:
                raise RuntimeError("no")
            return super().forward(images.flatten(1))

    return Fails(channels * size[0] * size[1], classes)


def test_a_failed_control_is_a_problem_and_a_failed_student_an_error(
    tmp_path: Path, digits: us.Dataset
) -> None:
    bad = us.Network(name="fails", factory=failing, version="1")
    control = us.Stage(name="control", network=bad, method=us.Labels(), training=TRAINING)
    student = us.Stage(name="student", network=SMALL, method=us.Labels(), training=TRAINING)
    result = us.run(us.Ladder((control, student), ("student",)), digits, store=tmp_path, quiet=True)
    assert not result.complete
    assert result.delivered is not None
    assert result.problems[0].startswith("control, seed 0 failed: RuntimeError: no")
    assert "control, seed 0 failed" in str(result)
    with pytest.raises(
        StageFailed, match="stage control failed, and so there is no student: RuntimeError: no"
    ):
        us.run(us.Ladder((control,), ("control",)), digits, store=tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"seeds": 3}, r"seeds is 3; it is a list such as \[0, 1, 2\]; range\(3\) gives so many"),
        ({"seeds": []}, "seeds is"),
        ({"seeds": [0, 1, 0]}, "seeds has 0 twice"),
        ({"seeds": [-1]}, "seeds has -1"),
        ({"jobs": 0}, "jobs is a whole number from 1 to 1024; got 0"),
        ({"hours": -1}, "hours is a positive number; got -1"),
        ({"repeat": "all"}, "repeat is 'all'; it can be student, assistants, ladder"),
        ({"compare": ["dense"]}, "compare names 'dense', which is no arm beside direct. Arms: scratch"),
        ({"views": us.ViewPolicy(crop=400)}, "crop"),
        ({"on_callback_error": "shout"}, "on_callback_error is 'shout'"),
    ],
)
def test_what_cannot_be_run_is_one_clear_line(
    more: dict[str, Any], message: str, tmp_path: Path, digits: us.Dataset
) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        us.run(small_ladder(), digits, store=tmp_path / "store", **more)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_other_things_than_ladders_and_data_are_named(digits: us.Dataset) -> None:
    with pytest.raises(
        BadInput, match=r"the ladder is a str; understudy.dense\(...\) and its neighbours make one"
    ):
        us.run("dense", digits)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"the data are a str; understudy.load\(name='digits'\)"):
        us.run(small_ladder(), "digits")  # type: ignore[arg-type]


def test_without_a_validation_split_nothing_may_be_chosen() -> None:
    data = us.load(name="digits", train_images=50, validation=0)
    with pytest.raises(BadInput, match="among several seeds the one best on validation is delivered"):
        us.run(small_ladder(), data, seeds=[0, 1])
    ladder = us.paths("plain_cnn-4", ["plain_cnn-2"], SMALL)
    with pytest.raises(BadInput, match="paths are chosen on the validation split"):
        us.run(ladder, data)


def test_networks_that_no_machine_can_hold_are_refused_before_they_are_made(digits: us.Dataset) -> None:
    with pytest.raises(BadInput, match="billion parameters on these images"):
        us.run(us.scratch(us.Network(name="vgg-16", width=16)), digits)


# -------------------------------------------------------------------------------------------------- to look at
class Page(HTMLParser):
    """Counts what opens and closes, and gathers the text."""

    void = ("br", "img", "hr", "path", "rect")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_ladder_is_a_picture_in_a_notebook() -> None:
    ladder = us.dense("plain_cnn-4", ["plain_cnn-2"], SMALL)
    page = Page(ladder._repr_html_())
    assert page.open == []
    assert page.tags.count("rect") == len(ladder.stages)
    assert "dense/plain_cnn-2" in page.text
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert page.addresses == []


def test_a_result_is_a_table_and_a_picture_in_a_notebook(finished: us.RunResult) -> None:
    page = Page(finished._repr_html_())
    assert page.open == []
    assert page.tags.count("tr") == 1 + len(finished.rows)
    assert page.text.lstrip().startswith("Delivered: direct")
    assert page.addresses == []


def test_names_with_markup_are_shown_as_they_are() -> None:
    name = '<script>alert("x")</script>&'
    stage = us.Stage(name=name, network=SMALL, method=us.Labels(), training=TRAINING)
    shown = us.Ladder((stage,), (name,))._repr_html_()
    assert "<script" not in shown
    assert "script" not in Page(shown).tags


def test_a_printed_result_is_the_table_of_the_command(finished: us.RunResult) -> None:
    lines = str(finished).splitlines()
    assert lines[0].startswith("Test accuracy on made up")
    assert any(line.startswith("direct *") for line in lines)
    assert all(len(line) <= 100 for line in lines if not line.startswith("health: "))
