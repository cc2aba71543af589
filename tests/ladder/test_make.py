"""One stage from its inputs to its record: given, begun from weights, taught, looked at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.ladder.tiny import (
    jobs_of,
    made_up,
    network,
    same_tensors,
    saved,
    small_network,
    stage,
    training,
)
from understudy.data import Dataset, load
from understudy.data.batches import batch_of
from understudy.data.long_tail import LongTail
from understudy.data.views import PLAIN as PLAIN_VIEW
from understudy.data.views import Views
from understudy.errors import Damaged, Interrupted, StageFailed
from understudy.ladder import Ladder, Network, Stage, make
from understudy.ladder.graph import Job, jobs
from understudy.models.preprocessing import Preprocessing
from understudy.store import Result, Store
from understudy.teaching import Method, Needs, Step
from understudy.training.signals import Signals
from understudy.training.teachers import Teacher

OWN = network(width=0.5, mean=(0.1,), std=(0.9,), size=(12, 16))  # prepared otherwise than the data's own


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return made_up()


def file_of(model: nn.Module, path: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return path


@pytest.fixture
def given(dataset: Dataset, tmp_path: Path) -> Stage:
    """A teacher that exists, with a size and a normalisation of its own and lived-in statistics."""
    torch.manual_seed(5)
    model = OWN.build(dataset)
    with torch.no_grad():
        model(torch.randn(8, 1, 12, 16) * 3 + 1)
    weights = file_of(model, tmp_path / "given.safetensors")
    return Stage(name="given", network=OWN, role="teacher", weights=weights)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.prepare()
    return store


def made(job: Job, store: Store, dataset: Dataset, **more: Any) -> Result:
    found = make.make(job, store=store, dataset=dataset, **more)
    assert found is not None
    return found[0]


def pixels_of(dataset: Dataset) -> Tensor:
    return batch_of(dataset.test, PLAIN_VIEW, range(len(dataset.test))).pixels  # type: ignore[arg-type]


class Listening(Method):
    """Learns from the labels and keeps what its teachers said and were, for the test to see."""

    name = "listening"

    def __init__(self, heard: list[tuple[Tensor, Tensor]]) -> None:
        self.heard = heard

    def for_stage(self, *, teachers: int) -> Method:
        return self

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return {"name": self.name, "version": self.version}

    def needs(self) -> Needs:
        return Needs(logits=True)

    def loss(self, step: Step) -> dict[str, Tensor]:
        logits = step.teacher_logits([0], step.batch)[0]
        self.heard.append((step.batch.pixels, logits))
        hard = step.hard_loss(step.student(step.batch), step.batch)
        return {"total": hard, "hard": hard}


# --------------------------------------------------------------------------------------------------------- given
def test_a_given_stage_is_looked_at_and_not_trained(
    dataset: Dataset, store: Store, given: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "fit", None)  # whoever trains now fails
    job = jobs_of([given], dataset)[0]
    result = made(job, store, dataset)
    assert given.weights is not None
    assert same_tensors(store.weights(result), load_file(given.weights))
    assert {name: result.record[name] for name in ("epochs", "steps", "seconds")} == {
        "epochs": 0,
        "steps": 0,
        "seconds": 0.0,
    }
    assert "metrics.jsonl" not in result.record["files"]

    model = OWN.build(dataset)
    model.load_state_dict(load_file(given.weights))
    prepared = Preprocessing(mean=(0.1,), std=(0.9,), size=(12, 16))(pixels_of(dataset))
    with torch.no_grad():
        expected = model.eval()(prepared)
    outputs = store.outputs(result)
    torch.testing.assert_close(outputs["test"], expected)
    accuracy = (expected.argmax(1) == torch.tensor(dataset.test.labels)).double().mean().item()
    assert result.record["test"] == {"accuracy": accuracy}
    assert result.record["preprocessing"] == {"mean": [0.1], "std": [0.9], "size": [12, 16]}


def test_a_given_stage_is_looked_at_in_float32_whatever_the_machine_can(
    dataset: Dataset, store: Store, given: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.training.precision.bf16_pays", lambda device: True)
    with_bf16 = store.outputs(made(jobs_of([given], dataset)[0], store, dataset))["test"]
    prepared = OWN.preprocessing(dataset)(pixels_of(dataset))
    model = OWN.build(dataset)
    assert given.weights is not None
    model.load_state_dict(load_file(given.weights))
    with torch.no_grad():
        torch.testing.assert_close(with_bf16, model.eval()(prepared), atol=1e-5, rtol=1e-5)


def test_a_given_stage_is_looked_at_where_the_others_are_trained(
    dataset: Dataset, given: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for device in ("cpu", "cuda"):
        student = stage("student", "given", training=training(device=device, precision="bf16"))
        job = jobs_of([given, student], dataset)[0]
        assert (job.name, job.look.device, job.look.precision) == ("given", device, "fp32")
    assert jobs_of([given], dataset)[0].look.device == "cpu"


def test_a_teacher_with_its_own_size_and_normalisation_gets_them(
    dataset: Dataset, store: Store, given: Stage
) -> None:
    heard: list[tuple[Tensor, Tensor]] = []
    student = stage("student", "given", method=Listening(heard))
    for job in jobs_of([given, student], dataset):
        made(job, store, dataset)
    model = OWN.build(dataset)
    assert given.weights is not None
    model.load_state_dict(load_file(given.weights))
    model.eval()
    assert len(heard) == 6
    for pixels, logits in heard:
        assert pixels.shape[1:] == (1, 8, 8)  # the student sees them as they are
        with torch.no_grad():
            said = model(OWN.preprocessing(dataset)(pixels))
        # heard less its mean, as float16
        torch.testing.assert_close(logits, said - said.mean(1, keepdim=True), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("trained", [False, True])
def test_a_teacher_is_bit_identical_before_and_after_its_buffers_too(
    dataset: Dataset, store: Store, given: Stage, monkeypatch: pytest.MonkeyPatch, trained: bool
) -> None:
    teacher = stage("teacher") if trained else given
    seen: list[tuple[nn.Module, dict[str, Tensor]]] = []
    real = make._teacher

    def watched(*arguments: Any) -> Teacher:
        found = real(*arguments)
        assert isinstance(found, Teacher)
        model = found.load()
        seen.append((model, {name: tensor.clone() for name, tensor in model.state_dict().items()}))
        return replace(found, load=lambda: model)

    monkeypatch.setattr(make, "_teacher", watched)
    first, second = jobs_of([teacher, stage("student", teacher.name)], dataset)
    kept = store.weights(made(first, store, dataset))
    made(second, store, dataset)
    ((model, before),) = seen
    assert same_tensors(before, kept)
    assert same_tensors(model.state_dict(), kept)
    assert any("running_mean" in name for name in kept)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    result = store.result(first.key)
    assert result is not None
    store.check(result)


# ------------------------------------------------------------------------------------------- weights to begin with
@pytest.fixture
def beginning(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Takes the weights that each training begins with."""
    seen: list[dict[str, Tensor]] = []
    real = make.fit

    def watched(model: nn.Module, *more: Any, **named: Any) -> Any:
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return real(model, *more, **named)

    monkeypatch.setattr(make, "fit", watched)
    return seen


def test_a_stage_can_begin_with_the_weights_of_another(
    dataset: Dataset, store: Store, beginning: list[dict[str, Tensor]]
) -> None:
    first, second = jobs_of([stage("before"), stage("after", start="before", role="student")], dataset)
    assert second.inputs == (first,)
    kept = store.weights(made(first, store, dataset))
    result = made(second, store, dataset)
    assert same_tensors(beginning[1], kept)
    assert not same_tensors(store.weights(result), kept)


def test_a_stage_can_begin_with_a_file_for_other_classes_under_a_new_head(
    dataset: Dataset, store: Store, tmp_path: Path, beginning: list[dict[str, Tensor]]
) -> None:
    torch.manual_seed(1)
    ten = network().build(replace(dataset, class_names=tuple("abcdefghij")))
    file = file_of(ten, tmp_path / "ten.safetensors")
    fresh, begun = jobs_of([stage("fresh"), stage("begun", start=file)], dataset)
    made(fresh, store, dataset)
    made(begun, store, dataset)
    new, old = beginning[0], load_file(file)
    head = [name for name in new if new[name].shape != old[name].shape]
    assert {name.rpartition(".")[2] for name in head} == {"weight", "bias"}
    for name, tensor in beginning[1].items():
        assert torch.equal(tensor, new[name] if name in head else old[name])


@pytest.mark.parametrize("how", ["weights", "start"])
def test_a_file_that_was_exchanged_since_it_was_looked_at_is_refused(
    dataset: Dataset, store: Store, tmp_path: Path, how: str
) -> None:
    torch.manual_seed(0)
    file = file_of(network().build(dataset), tmp_path / "a.safetensors")
    other = file_of(network().build(dataset), tmp_path / "b.safetensors")
    given = Stage(name="given", network=network(), weights=file)
    (job,) = jobs_of([given if how == "weights" else stage("begun", role="student", start=file)], dataset)
    file.write_bytes(other.read_bytes())
    with pytest.raises(StageFailed, match="has changed since the run began"):
        made(job, store, dataset)
    assert store.result(job.key) is None


def test_initial_weights_come_from_the_seed_alone(
    dataset: Dataset, store: Store, beginning: list[dict[str, Tensor]]
) -> None:
    stages = [stage("one", role="student"), stage("other", role="student", training=training(lr=0.01))]
    ladder = Ladder(tuple(stages), ("one",))
    for job in jobs(ladder, dataset, seeds=[0, 1], views=Views(), signals=Signals()):
        torch.manual_seed(len(beginning))  # whatever was drawn before
        made(job, store, dataset)
    one, other, one_again, other_again = beginning
    assert same_tensors(one, other)
    assert same_tensors(one_again, other_again)
    assert not same_tensors(one, one_again)


# ------------------------------------------------------------------------------------------------- own modules
def test_an_own_module_can_be_every_stage(dataset: Dataset, store: Store) -> None:
    mine = Network(name="mine", factory=small_network, version="1")
    stages = [stage("teacher", network=mine), stage("student", "teacher", network=mine)]
    first, second = jobs_of(stages, dataset)
    result = made(first, store, dataset)
    assert result.record["network"] == {
        "name": "mine",
        "classes": 4,
        "channels": 1,
        "size": [8, 8],
        "strip": None,
        "strip_part": "all",
        "factory": True,
    }
    assert result.record["model"] == "mine"
    assert result.record["parameters"] == sum(p.numel() for p in mine.build(dataset).parameters())
    assert made(second, store, dataset).record["teachers"] == [first.key]
    assert same_tensors(make.rebuilt(first, store, dataset).state_dict(), store.weights(result))


# ---------------------------------------------------------------------------------------------- found and waited
def test_what_is_there_is_found_and_what_another_process_makes_is_left_to_it(
    dataset: Dataset, store: Store
) -> None:
    (job,) = jobs_of([stage("a")], dataset)
    with store.lock(job.key) as mine:
        assert mine
        assert make.make(job, store=store, dataset=dataset) is None
    first = make.make(job, store=store, dataset=dataset)
    second = make.make(job, store=store, dataset=dataset)
    assert first is not None
    assert second is not None
    assert (first[1], second[1]) == (False, True)
    assert first[0] == second[0]


def test_the_record_says_what_the_outputs_say(dataset: Dataset, store: Store) -> None:
    (job,) = jobs_of([stage("a", training=training(epochs=3))], dataset)
    result = made(job, store, dataset)
    record, outputs = result.record, store.outputs(result)
    for name, split in (("validation", dataset.validation), ("test", dataset.test)):
        assert outputs[name].shape == (len(split), 4)
        assert outputs[name].dtype == torch.float32
        assert outputs[f"{name}_labels"].tolist() == split.labels.tolist()
        accuracy = (outputs[name].argmax(1) == outputs[f"{name}_labels"]).double().mean().item()
        assert record[name] == {"accuracy": accuracy}
    assert (record["epochs"], record["steps"], record["skipped"]) == (3, 9, 0)
    assert record["definition"] == job.definition
    assert record["seconds"] > 0
    again = make.rebuilt(job, store, dataset).eval()
    with torch.no_grad():
        logits = again(job.stage.network.preprocessing(dataset)(pixels_of(dataset)))
    torch.testing.assert_close(logits, outputs["test"])


def test_a_data_set_without_validation_has_no_figures_of_one(store: Store) -> None:
    dataset = made_up(validation=0)
    (job,) = jobs_of([stage("a")], dataset)
    record = made(job, store, dataset).record
    assert record["validation"] == {}
    assert set(record["test"]) == {"accuracy"}


def test_generator_and_threads_are_left_as_they_were(dataset: Dataset, store: Store) -> None:
    (job,) = jobs_of([stage("a", training=training(threads=2))], dataset)
    torch.manual_seed(11)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    inside: list[int] = []
    made(job, store, dataset, progress=lambda progress: inside.append(torch.get_num_threads()))
    assert set(inside) == {2}
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


# ------------------------------------------------------------------------------------------------- what goes wrong
def test_an_input_that_is_gone_is_named(dataset: Dataset, store: Store) -> None:
    _, student = jobs_of([stage("teacher"), stage("student", "teacher")], dataset)
    with pytest.raises(StageFailed, match="its input teacher is not in the store any more"):
        made(student, store, dataset)


def test_a_damaged_input_is_refused(dataset: Dataset, store: Store) -> None:
    teacher, student = jobs_of([stage("teacher"), stage("student", "teacher")], dataset)
    made(teacher, store, dataset)
    file = store.place(teacher.key) / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(Damaged, match=r"weights\.safetensors does not have the checksum"):
        made(student, store, dataset)
    assert store.result(student.key) is None


def test_answers_that_are_no_numbers_are_no_result(
    dataset: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Tensor] = make.outputs
    monkeypatch.setattr(make, "outputs", lambda *p, **n: real(*p, **n) * float("nan"))
    (job,) = jobs_of([stage("a")], dataset)
    with pytest.raises(StageFailed, match="answers that are not finite numbers"):
        made(job, store, dataset)
    assert store.result(job.key) is None


def test_a_stop_at_the_last_look_costs_only_the_look(dataset: Dataset, store: Store) -> None:
    (job,) = jobs_of([stage("a")], dataset)
    done: list[int] = []

    def note(progress: Any) -> None:
        done.append(progress.batch)

    with pytest.raises(Interrupted, match="while the finished stage was looked at"):
        made(job, store, dataset, progress=note, stop=lambda: bool(done) and done[-1] == 6)
    assert done[-1] == 6
    done.clear()
    result = made(job, store, dataset, progress=note)
    assert done == []  # nothing was trained again
    assert result.record["steps"] == 6


class Killed(BaseException):
    """Stands for an end without a last word."""


@pytest.mark.parametrize(
    ("place", "kept"),
    [
        ("understudy.store.files.write_bytes", set()),
        ("understudy.store.files.write_json", {"weights.safetensors", "outputs.safetensors"}),
        (
            "understudy.store.results.shutil.rmtree",
            {"weights.safetensors", "outputs.safetensors", "stage.json"},
        ),
    ],
)
def test_a_kill_while_a_stage_is_written_down_costs_no_training(
    dataset: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch, place: str, kept: set[str]
) -> None:
    (job,) = jobs_of([stage("a")], dataset)
    reference = Store(store.folder.parent / "reference")
    weights = reference.weights(made(job, reference, dataset))

    def kill(*positional: Any, **named: Any) -> None:
        raise Killed

    real = make.outputs

    def last_look(*positional: Any, **named: Any) -> Tensor:
        monkeypatch.setattr(place, kill)  # from now on: the training has written its checkpoints
        return real(*positional, **named)

    monkeypatch.setattr(make, "outputs", last_look)
    with pytest.raises(Killed):
        made(job, store, dataset)
    there = {path.name for path in store.place(job.key).iterdir()}
    assert there == kept | {"metrics.jsonl", "checkpoint"}
    assert (store.result(job.key) is not None) == ("stage.json" in kept)
    monkeypatch.undo()

    done: list[int] = []
    result = made(job, store, dataset, progress=lambda progress: done.append(progress.batch))
    assert done == []
    assert same_tensors(store.weights(result), weights)
    store.check(result)


def test_the_definition_of_a_job_can_be_kept_as_it_is(dataset: Dataset) -> None:
    import json

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(entry) for name, entry in value.items()}
        return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value

    for job in jobs_of([stage("a"), stage("b", "a")], dataset):
        assert json.loads(json.dumps(job.definition)) == plain(job.definition)


# ------------------------------------------------------------------------------------------- imbalanced classes
def test_figures_by_how_often_a_class_is_seen_are_of_the_finished_stage(store: Store, tmp_path: Path) -> None:
    saved(tmp_path / "data.npz")
    dataset = load(path=tmp_path / "data.npz", long_tail=LongTail(imbalance=4))
    (job,) = jobs_of([stage("teacher")], dataset)
    result = made(job, store, dataset)
    for split in ("validation", "test"):
        assert set(result.record[split]) == {"accuracy", "few", "balanced"}
    lines = [json.loads(line) for line in (store.place(job.key) / "metrics.jsonl").read_text().splitlines()]
    assert {key for line in lines for key in (*line["train"], *line["validation"])} == {"accuracy"}
