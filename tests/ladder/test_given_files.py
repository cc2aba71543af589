"""Teachers in files, from the file to the student: taught as by the same network, known by bytes, refused in one line."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.ladder.tiny import jobs_of, keys_of, made_up, saved, stage
from tests.recipe.tiny import tree, write_data
from understudy.cli import main
from understudy.data import Dataset, load
from understudy.data.views import ViewPolicy, Views
from understudy.errors import BadInput, StageFailed
from understudy.ladder import Network, Stage
from understudy.ladder.estimate import forecast
from understudy.ladder.graph import Job
from understudy.ladder.graph import warnings as warnings_of
from understudy.ladder.make import make
from understudy.ladder.networks import rebuilt
from understudy.models import build
from understudy.models.frozen_files import open_network
from understudy.recipe import check, read_text
from understudy.store import Result, Store
from understudy.training.evaluate import outputs

OWN: dict[str, Any] = {"mean": (0.4,), "std": (0.25,), "size": (16, 16)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return saved(tmp_path_factory.mktemp("data") / "data.npz")


@pytest.fixture(scope="module")
def teacher(dataset: Dataset) -> nn.Module:
    """A network with lived-in statistics for images of its own size."""
    torch.manual_seed(5)
    model = Network(name="resnet-8", width=0.5, **OWN).build(dataset)
    with torch.no_grad():
        model(torch.randn(8, 1, 16, 16) * 2 + 1)
    return model.eval()


@pytest.fixture(scope="module")
def weights(teacher: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "teacher.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in teacher.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def program(teacher: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "teacher.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter, about itself
        whole = torch.export.export(
            teacher, (torch.zeros(2, 1, 16, 16),), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        torch.export.save(whole, path)
    return path


@pytest.fixture
def onnx(teacher: nn.Module, tmp_path: Path) -> Path:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    path = tmp_path / "teacher.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            teacher,
            (torch.zeros(2, 1, 16, 16),),
            path,
            dynamo=True,
            external_data=False,
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
    return path


def logits_of(teacher: nn.Module, dataset: Dataset, path: Path) -> Path:
    """What the teacher says of the images of the source, in the order of the source."""
    prepare = Network(name="resnet-8", width=0.5, **OWN).preprocessing(dataset)
    found: dict[str, Any] = {
        part: np.zeros((count, 4), np.float32) for part, count in (("train", 48), ("test", 16))
    }
    for split in (dataset.train, dataset.validation, dataset.test):
        assert split.origin is not None
        found[split.origin.part][split.origin.rows] = outputs(teacher, split, preprocessing=prepare).numpy()
    np.savez(path, **found)
    return path


@pytest.fixture(scope="module")
def logits(teacher: nn.Module, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return logits_of(teacher, dataset, tmp_path_factory.mktemp("logits") / "teacher.npz")


def given(file: Path, **said: Any) -> Stage:
    """A teacher in a file."""
    return Stage(name="teacher", network=Network(file=file, **said), role="teacher")


def of_weights(weights: Path) -> Stage:
    return Stage(
        name="teacher", network=Network(name="resnet-8", width=0.5, **OWN), role="teacher", weights=weights
    )


def result(job: Job, store: Store, dataset: Dataset) -> Result:
    made = make(job, store=store, dataset=dataset)
    assert made is not None
    return made[0]


def climbed(teacher: Stage, store: Store, dataset: Dataset) -> tuple[Result, Result]:
    """Teacher and student."""
    first, second = jobs_of([teacher, stage("student", "teacher")], dataset)
    return result(first, store, dataset), result(second, store, dataset)


def refused(stages: list[Stage], dataset: Dataset, **more: Any) -> str:
    with pytest.raises(BadInput) as error:
        jobs_of(stages, dataset, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- taught as by the network itself ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["program", "onnx", "logits"])
def test_a_student_is_taught_as_by_the_same_network(
    kind: str, request: pytest.FixtureRequest, weights: Path, dataset: Dataset, tmp_path: Path
) -> None:
    file = request.getfixturevalue(kind)
    store = Store(tmp_path / "store")
    before, expected = climbed(of_weights(weights), store, dataset)
    after, found = climbed(given(file, **({} if kind == "logits" else OWN)), store, dataset)
    assert found.key != expected.key
    for name, tensor in store.outputs(before).items():
        torch.testing.assert_close(store.outputs(after)[name], tensor, atol=1e-4, rtol=1e-4)
    for name, tensor in store.weights(expected).items():
        torch.testing.assert_close(store.weights(found)[name], tensor, atol=1e-3, rtol=1e-3)
    assert after.record["test"] == before.record["test"]
    assert found.record["health"]["agreement"].keys() == {"teacher"}


def test_a_program_teaches_with_the_bits_of_its_network(
    program: Path, weights: Path, dataset: Dataset, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    _, expected = climbed(of_weights(weights), store, dataset)
    _, found = climbed(given(program, **OWN), store, dataset)
    assert all(torch.equal(store.weights(found)[name], t) for name, t in store.weights(expected).items())


def test_the_file_is_not_kept_a_second_time_and_its_answers_are(
    program: Path, dataset: Dataset, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    kept, _ = climbed(given(program, **OWN), store, dataset)
    assert store.weights(kept) == {}
    assert store.outputs(kept)["test"].shape == (16, 4)
    assert (kept.record["model"], kept.record["epochs"]) == ("teacher.pt2", 0)
    assert str(program.parent) not in json.dumps(kept.record)


def test_a_job_with_a_file_can_be_sent_to_another_process(
    program: Path, dataset: Dataset, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    for job in jobs_of([given(program, **OWN), stage("student", "teacher")], dataset):
        sent: Job = pickle.loads(pickle.dumps(job))  # noqa: S301 - our own, as worker processes get it
        assert result(sent, store, dataset).key == job.key


def test_costs_are_those_of_the_network(program: Path, weights: Path, dataset: Dataset) -> None:
    (before,) = jobs_of([of_weights(weights)], dataset)
    (after,) = jobs_of([given(program, **OWN)], dataset)
    assert after.cost == before.cost


def test_logits_cost_nothing_and_warn_of_nothing(logits: Path, dataset: Dataset, tmp_path: Path) -> None:
    made = jobs_of([given(logits), stage("student", "teacher")], dataset)
    assert (made[0].cost.parameters, made[0].cost.multiply_adds) == (0, 0)
    assert warnings_of(made) == []
    assert forecast(made, store=Store(tmp_path), dataset=dataset).stages[made[0].key].seconds == 0


# --- rows of logits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits", [{}, {"train_images": 20, "test_images": 7}, {"validation": 0.5, "split_seed": 3}]
)
def test_each_image_finds_its_own_row_however_the_data_are_split(
    limits: dict[str, Any], tmp_path: Path
) -> None:
    stream = np.random.default_rng(0)
    labels = np.arange(60) % 4
    pixels = stream.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    np.savez(
        tmp_path / "d.npz", x_train=pixels[:40], y_train=labels[:40], x_test=pixels[40:], y_test=labels[40:]
    )
    # a row of logits that can be told from its image: the first four pixels
    known = pixels[:, 0, :4, 0].astype(np.float32)
    np.savez(tmp_path / "l.npz", train=known[:40], test=known[40:])
    dataset = load(path=tmp_path / "d.npz", **limits)
    answers = Network(file=tmp_path / "l.npz").answers(dataset)
    for name in ("train", "validation", "test"):
        split = getattr(dataset, name)
        images = split.images.fetch(np.arange(len(split)))
        np.testing.assert_array_equal(answers[name], images[:, 0, :4, 0])


def test_a_split_that_is_empty_needs_no_logits(tmp_path: Path, logits: Path) -> None:
    dataset = saved(tmp_path / "data.npz")
    whole = load(path=tmp_path / "data.npz", validation=0)
    assert Network(file=logits).answers(dataset).keys() == {"train", "validation", "test"}
    assert Network(file=logits).answers(whole).keys() == {"train", "test"}
    kept, student = climbed(given(logits), Store(tmp_path / "store"), whole)
    assert (kept.record["validation"], student.record["health"]["agreement"]) == ({}, {})


def test_data_that_do_not_say_where_their_images_stand_are_refused(logits: Path) -> None:
    assert "do not say where their images stand" in refused([given(logits)], made_up())


@pytest.mark.parametrize(
    ("views", "said"), [({"crop": 1}, "the views (crop) make other images"), ({"mixup": 0.2}, "mixup")]
)
def test_logits_do_not_teach_on_other_views(
    logits: Path, dataset: Dataset, views: dict[str, Any], said: str
) -> None:
    stages = [given(logits), stage("student", "teacher")]
    assert said in refused(stages, dataset, views=Views(policy=ViewPolicy(**views)))
    jobs_of(
        [given(logits), stage("student")], dataset, views=Views(policy=ViewPolicy(**views))
    )  # it teaches nobody here


def test_rows_and_classes_that_do_not_fit_are_refused_before_anything_runs(
    dataset: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "l.npz"
    np.savez(path, train=np.zeros((47, 4)), test=np.zeros((16, 4)))
    assert "train has 47 rows, and the data have 48 train images" in refused([given(path)], dataset)
    np.savez(path, train=np.zeros((48, 5)), test=np.zeros((16, 5)))
    assert "logits of 5 classes, and the data have 4" in refused([given(path)], dataset)


# --- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["program", "logits"])
def test_a_file_is_known_by_its_bytes_and_not_by_its_name(
    kind: str, request: pytest.FixtureRequest, dataset: Dataset, tmp_path: Path
) -> None:
    file = request.getfixturevalue(kind)
    said = {} if kind == "logits" else OWN
    other = tmp_path / f"other name{file.suffix}"
    shutil.copy(file, other)
    stages = [given(file, **said), stage("student", "teacher")]
    assert keys_of(stages, dataset) == keys_of([given(other, **said), stages[1]], dataset)
    if kind == "logits":
        with np.load(file) as arrays:
            np.savez(other, train=arrays["train"] + 1, test=arrays["test"])
    else:
        with zipfile.ZipFile(other, "a") as archive:
            archive.writestr("teacher/extra/note", "nothing that the network looks at")
    changed = keys_of([given(other, **said), stages[1]], dataset)
    assert all(changed[name] != key for name, key in keys_of(stages, dataset).items())


def test_preprocessing_and_data_decide_the_key(
    program: Path, logits: Path, dataset: Dataset, tmp_path: Path
) -> None:
    one = keys_of([given(program, **OWN)], dataset)
    assert keys_of([given(program, **{**OWN, "mean": (0.5,)})], dataset) != one
    split_otherwise = load(path=_copy_of_data(tmp_path), split_seed=1)
    assert keys_of([given(program, **OWN)], split_otherwise) != one
    assert keys_of([given(logits)], split_otherwise) != keys_of([given(logits)], dataset)


def _copy_of_data(folder: Path) -> Path:
    saved(folder / "data.npz")
    return folder / "data.npz"


def test_the_rows_decide_the_key_of_logits(logits: Path, dataset: Dataset) -> None:
    origin = dataset.train.origin
    assert origin is not None
    moved = replace(dataset.train, origin=replace(origin, rows=origin.rows[::-1].copy()))
    assert keys_of([given(logits)], replace(dataset, train=moved)) != keys_of([given(logits)], dataset)


# --- what cannot be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["program", "logits"])
@pytest.mark.parametrize("what", ["changed", "gone"])
def test_a_file_that_is_changed_or_gone_is_said_in_one_line(
    kind: str, what: str, request: pytest.FixtureRequest, dataset: Dataset, tmp_path: Path
) -> None:
    source = request.getfixturevalue(kind)
    file = Path(shutil.copy(source, tmp_path / source.name))
    store = Store(tmp_path / "store")
    first, second = jobs_of(
        [given(file, **({} if kind == "logits" else OWN)), stage("student", "teacher")], dataset
    )
    result(first, store, dataset)
    if what == "changed":
        file.write_bytes(file.read_bytes() + b"\0")
    else:
        file.unlink()
    said = "is not the file any more that this run began with" if what == "changed" else "cannot be read"
    with pytest.raises((BadInput, StageFailed), match=said) as error:
        make(second, store=store, dataset=dataset)
    assert "\n" not in str(error.value)
    if kind == "program":
        with pytest.raises(BadInput, match=said):
            rebuilt(first, store, dataset)


def test_a_network_in_a_file_has_no_weights_to_begin_with(program: Path, dataset: Dataset) -> None:
    said = refused([given(program, **OWN), stage("student", start="teacher")], dataset)
    assert "its weights cannot be taken out" in said


@pytest.mark.parametrize(
    ("said", "wrong"),
    [({"name": "resnet-8"}, "name"), ({"width": 2.0}, "width"), ({"pretrained": True}, "pretrained")],
)
def test_a_network_in_a_file_is_whole(program: Path, said: dict[str, Any], wrong: str) -> None:
    with pytest.raises(BadInput, match=f"leave out {wrong}"):
        Network(file=program, **said)


def test_logits_have_no_preprocessing(logits: Path) -> None:
    with pytest.raises(BadInput, match="look at no image any more: leave out mean"):
        Network(file=logits, mean=(0.5,))


# --- from the command line ------------------------------------------------------------------------------------------

RECIPE = """\
data: {path: data.npz, validation: 0.2}
ladder: {shape: dense}
models:
  teacher: {file: teacher.npz}
  assistants: [{name: plain_cnn-2, width: 0.25}]
  student: {name: plain_cnn-2, width: 0.125}
training: {epochs: 1, batch_size: 16, precision: fp32, device: cpu}
"""

LONG = """\
data: {path: data.npz, validation: 0.2}
ladder:
  stages:
    - {name: big, model: {file: teacher.npz}}
    - {name: small, model: {name: plain_cnn-2, width: 0.125}, teachers: [big]}
training: {epochs: 1, batch_size: 16, precision: fp32, device: cpu}
controls: [label_smoothing, scratch]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, logits of a teacher that knows the labels, and a recipe, which the command is called in."""
    with np.load(write_data(tmp_path / "data.npz")) as arrays:
        known = {part: 3 * np.eye(3, dtype=np.float16)[arrays[f"y_{part}"]] for part in ("train", "test")}
    np.savez(tmp_path / "teacher.npz", **known)  # type: ignore[arg-type]
    (tmp_path / "r.yaml").write_text(RECIPE, "utf-8")
    (tmp_path / "long.yaml").write_text(LONG, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNDERSTUDY_STORE", raising=False)
    return tmp_path


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def understudy(here: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def understudy(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return understudy


@pytest.mark.parametrize("recipe", ["r.yaml", "long.yaml"])
def test_logits_teach_from_the_command_line(understudy: Command, here: Path, recipe: str) -> None:
    assert understudy("plan", recipe)[0] == 0
    status, _, err = understudy("run", recipe, "--out", "runs/one")
    assert status == 0, err
    said = json.loads((here / "runs/one/result.json").read_text("utf-8"))
    assert said["complete"]
    first = said["stages"][0]
    assert (first["model"], first["test"], first["validation"]) == (
        "teacher.npz",
        {"accuracy": 1.0},
        {"accuracy": 1.0},
    )
    shutil.copytree(here / "runs", here / "again" / "runs")
    assert understudy("run", recipe, "--out", "runs/one")[0] == 0
    (here / "teacher.npz").rename(here / "other.npz")
    text = (here / recipe).read_text("utf-8").replace("teacher.npz", "other.npz")
    (here / recipe).write_text(text, "utf-8")
    status, _, _ = understudy("run", recipe, "--out", "runs/two")
    assert status == 0
    kept = json.loads((here / "runs/two/result.json").read_text("utf-8"))
    assert all(stage["from_store"] for stage in kept["stages"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["models.teacher.file=teacher.onx"],
            "teacher.onx is no teacher in a file; possible: .onnx (onnx), .pt2",
        ),
        (["models.teacher.file=gone.onnx"], "models.teacher.file: there is no file gone.onnx."),
        (["models.teacher.file=w.safetensors"], "Weights go with the name of their network"),
        (
            ["models.teacher.name=resnet-8"],
            "models.teacher: file is a teacher that is there already, whole: leave out name",
        ),
        (["models.teacher.weights=w.safetensors"], "leave out weights"),
        (["models.teacher.start=w.safetensors"], "leave out start"),
        (["models.teacher.width=0.5"], "leave out width"),
        (["models.teacher.training={epochs: 3}"], "leave out training"),
        (["models.teacher.pretrained=true"], "leave out pretrained"),
        (
            ["models.teacher.size=16"],
            "models.teacher: file holds logits, which look at no image any more: leave out size",
        ),
        (["models.student={file: teacher.npz}"], "models.student: the student is what is taught"),
        (["models.teacher={width: 0.5}"], "models.teacher.name is missing."),
        (
            ["data.views.flip=true"],
            "is an array of logits (teacher.npz), its answers to the images as they are; the views",
        ),
        (["models.teacher.file=rows.npz"], "rows.npz: train has 59 rows, and the data have 60 train images"),
        (
            ["models.teacher.file=classes.npz"],
            "classes.npz: test has logits of 4 classes, and the data have 3.",
        ),
        (["models.teacher.file=alone.npz"], "alone.npz has no array test; it holds train."),
        (["models.teacher.file=damaged.pt2"], "damaged.pt2 is not a whole file of torch.export.save"),
        (["controls=[early_teacher]"], "this teacher's weights are given"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_bad_input_is_one_line(
    understudy: Command, here: Path, command: str, settings: list[str], said: str
) -> None:
    np.savez(here / "rows.npz", train=np.zeros((59, 3)), test=np.zeros((30, 3)))
    np.savez(here / "classes.npz", train=np.zeros((60, 3)), test=np.zeros((30, 4)))
    np.savez(here / "alone.npz", train=np.zeros((60, 3)))
    (here / "damaged.pt2").write_bytes(b"PK\3\4 and then nothing")
    (here / "w.safetensors").write_bytes(b"weights")
    before = tree(here)
    status, out, err = understudy(command, "r.yaml", *(word for one in settings for word in ("--set", one)))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("understudy: ")
    assert said in err
    assert tree(here) == before


def test_the_student_of_the_long_form_is_no_file(understudy: Command, here: Path) -> None:
    status, _, err = understudy("plan", "long.yaml", "--set", "ladder.student=big")
    assert (status, err.count("\n")) == (2, 1)
    assert "the student 'big' has a file: the student is what is taught" in err


def test_an_onnx_file_with_data_outside_is_one_line(understudy: Command, here: Path, onnx: Path) -> None:
    package = pytest.importorskip("onnx")
    model = package.load(onnx)
    tensor = next(one for one in model.graph.initializer if one.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = package.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    (here / "outside.onnx").write_bytes(model.SerializeToString())
    status, _, err = understudy("plan", "r.yaml", "--set", "models.teacher.file=outside.onnx")
    assert (status, err.count("\n")) == (2, 1)
    assert "outside, in '../../etc/passwd'; only files that are whole are read." in err


@pytest.mark.parametrize("kind", ["onnx", "program"])
def test_a_network_in_a_file_teaches_from_the_command_line(
    kind: str, request: pytest.FixtureRequest, understudy: Command, here: Path
) -> None:
    file = request.getfixturevalue(kind)
    saved(here / "data.npz")  # four classes, as the teacher has
    settings = [f"models.teacher={{file: '{file}', size: 16}}", "ladder.shape=direct", "controls=[scratch]"]
    status, _, err = understudy(
        "run", "r.yaml", "--out", "runs/one", *(w for s in settings for w in ("--set", s))
    )
    assert status == 0, err
    said = json.loads((here / "runs/one/result.json").read_text("utf-8"))
    assert said["complete"]
    assert said["stages"][0]["model"] == file.name
    assert said["stages"][0]["multiply_adds"] > 0


# --- the page about it ----------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "teacher-files.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


def test_the_recipes_on_the_page_are_recipes(here: Path) -> None:
    (here / "teacher.onnx").write_bytes(b"only that it is there")
    whole, teacher = (read_text(block) for block in blocks("text"))
    assert check(whole).models is not None
    models = check({**whole, "models": {**whole["models"], **teacher}}).models
    assert models is not None
    assert models.teacher is not None
    assert models.teacher.size == 224


def test_the_logits_on_the_page_fit_the_data(here: Path) -> None:
    saved_by = blocks("python")[1]
    exec(saved_by, {"teacher": lambda images: np.eye(3)[images[:, 0, 0] % 3]})
    assert len(Network(file=here / "teacher.npz").answers(load(path=here / "data.npz"))["test"]) == 30


def test_the_exports_on_the_page_are_read(here: Path) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(blocks("python")[0], {"model": build("plain_cnn-2", classes=10, width=0.25)})
    for name in ("teacher.onnx", "teacher.pt2"):
        open_network(here / name, classes=10, channels=3, size=(32, 32))
