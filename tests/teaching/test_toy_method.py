"""A new way to teach is one file: this one. What stands above the line could be ``teaching/steady.py``.

It uses all of the protocol (a module of its own, two looks at each batch, teachers, memory, a penalty), and is put into a
ladder that is keyed, run, stopped and continued. No other file knows of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.ladder.tiny import jobs_of, keys_of, made_up, network, stage, states, training, weights_of
from understudy.data import Dataset
from understudy.data.views import ViewPolicy, Views
from understudy.errors import BadInput
from understudy.ladder.graph import Job
from understudy.ladder.runner import Outcome, run
from understudy.losses import soft_target_loss
from understudy.store import Store
from understudy.teaching.method import Method, Needs, Step, Survey


class Steady(Method):
    """The student's translated answers to two looks agree with the teacher's mean answer and with its slow average.

    Attributes:
        classes: of the data.
        pull: weight of the penalty on the student's largest weights.
        memory: share of the past in the slow average of the teacher's answers, in [0, 1).
    """

    name = "steady"

    def __init__(self, *, classes: int, pull: float = 1e-3, memory: float = 0.9) -> None:
        self.classes, self.pull, self.memory = classes, pull, memory
        self.translate = nn.Linear(classes, classes)
        nn.init.eye_(self.translate.weight)
        nn.init.zeros_(self.translate.bias)
        self.average = torch.zeros(classes)
        self.epochs: list[int] = []

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "classes": self.classes,
            "pull": self.pull,
            "memory": self.memory,
        }

    def needs(self) -> Needs:
        return Needs(logits=True, copies=2)

    def check(self, *, teachers: int) -> None:
        if teachers != 1:
            raise BadInput(f"steady teaching has one teacher; got {teachers}.")

    def modules(self) -> Mapping[str, nn.Module]:
        return {"translate": self.translate}

    def no_decay(self, model: nn.Module) -> Iterable[str]:
        return [name for name, parameter in model.named_parameters() if parameter.ndim < 2]

    def loss(self, step: Step) -> dict[str, Tensor]:
        looks = [step.student(batch) for batch in step.batches]
        taught = torch.stack([step.teacher_logits([0], batch)[0] for batch in step.batches]).mean(0)
        with torch.no_grad():
            self.average = self.average.lerp(taught.mean(0), 1 - self.memory)
        soft = torch.stack(
            [
                soft_target_loss(self.translate(look), taught - self.average, temperature=2.0).mean()
                for look in looks
            ]
        )
        hard = step.hard_loss(looks[0], step.batch)
        return {"total": hard + soft.sum(), "hard": hard, "soft": soft.mean()}

    def penalty(self, model: nn.Module) -> Tensor:
        return self.pull * torch.stack([parameter.abs().max() for parameter in model.parameters()]).sum()

    def on_epoch(self, epoch: int, survey: Survey) -> None:
        if epoch not in self.epochs:
            self.epochs.append(epoch)

    def metrics(self) -> dict[str, Any]:
        return {"average": [round(value, 6) for value in self.average.tolist()], "epochs": list(self.epochs)}

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average, "epochs": list(self.epochs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.average, self.epochs = state["average"], list(state["epochs"])


# ------------------------------------------------------------------------------------------------- end of the file


class Newer(Steady):
    """The same settings would now give other results."""

    version = 2


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return made_up()


def stages(method: Method | None = None) -> list[Any]:
    said = {"method": method or Steady(classes=4), "training": training(weight_decay=0.1)}
    return [
        stage("teacher", network=network("plain_cnn-2", width=0.5)),
        stage("assistant", "teacher", role="assistant", **said),
        stage("student", "assistant", network=network(width=0.125), **said),
    ]


@pytest.fixture(scope="module")
def all_jobs(dataset: Dataset) -> list[Job]:
    return jobs_of(stages(), dataset, views=Views(policy=ViewPolicy(crop=1, flip=True)))


@pytest.fixture(scope="module")
def finished(
    all_jobs: list[Job], dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Store, list[Outcome]]:
    store = Store(tmp_path_factory.mktemp("finished"))
    return store, run(all_jobs, store=store, dataset=dataset)


def test_a_ladder_is_made_with_it(finished: tuple[Store, list[Outcome]]) -> None:
    _, outcomes = finished
    assert states(outcomes) == {"teacher": "done", "assistant": "done", "student": "done"}
    for outcome in outcomes[1:]:
        assert outcome.result is not None
        record = outcome.result.record
        assert record["metrics"]["epochs"] == [0, 1]
        assert any(record["metrics"]["average"])
        assert record["definition"]["method"]["name"] == "steady"
        assert record["test"]["accuracy"] >= 0


def test_its_terms_and_its_penalty_are_in_the_log(finished: tuple[Store, list[Outcome]]) -> None:
    store, outcomes = finished
    log = (store.place(outcomes[-1].job.key) / "metrics.jsonl").read_text("utf-8")
    assert all(f'"{part}"' in log for part in ("total", "hard", "soft", "penalty"))


def test_a_second_run_finds_all_of_it(
    finished: tuple[Store, list[Outcome]], all_jobs: list[Job], dataset: Dataset
) -> None:
    store, first = finished
    again = run(all_jobs, store=store, dataset=dataset)
    assert all(outcome.from_store for outcome in again)
    assert weights_of(store, again) == weights_of(store, first)


def test_each_setting_and_the_version_of_it_are_in_the_key(dataset: Dataset) -> None:
    methods: list[Method] = [
        Steady(classes=4),
        Steady(classes=4, pull=0.0),
        Steady(classes=4, memory=0.5),
        Newer(classes=4),
    ]
    keys = [keys_of(stages(method), dataset) for method in methods]
    assert len({one["student"] for one in keys}) == len(methods)
    assert len({one["assistant"] for one in keys}) == len(methods)
    assert len({one["teacher"] for one in keys}) == 1


def test_a_ladder_that_does_not_fit_it_is_refused_before_anything_runs() -> None:
    with pytest.raises(BadInput, match=r"steady teaching has one teacher; got 2\."):
        stage("student", "teacher", "assistant", method=Steady(classes=4))


def test_stopped_again_and_again_it_ends_with_the_same_bits(
    finished: tuple[Store, list[Outcome]], all_jobs: list[Job], dataset: Dataset, tmp_path: Path
) -> None:
    store, runs = Store(tmp_path), 0
    outcomes: list[Outcome] = []
    while runs < 40 and set(states(outcomes).values()) != {"done"}:
        asked = iter(range(6))
        outcomes = run(
            all_jobs, store=store, dataset=dataset, stop=lambda asked=asked: next(asked, None) is None
        )
        runs += 1
    assert runs > 3  # it was stopped in the middle of stages
    assert weights_of(store, outcomes) == weights_of(*finished)
    records = [[o.result.record["metrics"] for o in made if o.result] for made in (outcomes, finished[1])]
    assert records[0] == records[1]


def test_what_it_trains_beside_the_student_changes_what_is_learned(
    finished: tuple[Store, list[Outcome]], dataset: Dataset, tmp_path: Path
) -> None:
    """With a translation that is not trained the student's weights are others: it was in the optimiser."""

    class Fixed(Steady):
        version = 3

        def modules(self) -> Mapping[str, nn.Module]:
            return {}

    jobs = jobs_of(stages(Fixed(classes=4)), dataset, views=Views(policy=ViewPolicy(crop=1, flip=True)))
    store = Store(tmp_path)
    fixed, trained = weights_of(store, run(jobs, store=store, dataset=dataset)), weights_of(*finished)
    assert fixed["teacher"] == trained["teacher"]
    assert fixed["assistant"] != trained["assistant"]
