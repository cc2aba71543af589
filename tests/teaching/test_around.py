"""A method around another one passes every question on, and settings of the innermost can be changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.teaching.toys import NO_SURVEY, drawn, made_step
from understudy.errors import BadInput
from understudy.teaching import Beginning, Labels, Method, Needs, SoftTargets, Step, Survey
from understudy.teaching.around import Around, changed_inside, innermost
from understudy.teaching.curriculum import Curriculum
from understudy.teaching.peers import Peers
from understudy.teaching.structure_search import StructureSearch

NEEDS = Needs(logits=True, copies=2, plain=True, features=("a",), teacher_features=(("b",),))


class Asked(Method):
    """Answers everything with something that no default gives, and notes what it was asked."""

    name = "asked"

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.module = nn.Linear(2, 2)

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return {"name": self.name}

    @property
    def trains_student(self) -> bool:
        return False

    def needs(self) -> Needs:
        return NEEDS

    def check(self, *, teachers: int) -> None:
        raise BadInput(f"checked with {teachers}")

    def begin(self, beginning: Beginning) -> None:
        self.calls.append(("begin", beginning.epochs))

    def modules(self) -> Mapping[str, nn.Module]:
        return {"own": self.module}

    def no_decay(self, model: nn.Module) -> Iterable[str]:
        return ("weight",)

    def loss(self, step: Step) -> dict[str, Tensor]:
        return {"total": torch.tensor(float(step.number))}

    def penalty(self, model: nn.Module) -> Tensor | None:
        return torch.tensor(7.0)

    def after_step(self, model: nn.Module, step: Step) -> None:
        self.calls.append(("after_step", step.number))

    def on_epoch(self, epoch: int, survey: Survey) -> None:
        self.calls.append(("on_epoch", epoch, survey))

    def order(self, epoch: int, usual: list[np.ndarray]) -> list[np.ndarray]:
        return usual[::-1]

    def delivered(self, model: nn.Module) -> nn.Module:
        return self.module

    def artefacts(self) -> Mapping[str, Tensor]:
        return {"kept": torch.ones(1)}

    def metrics(self) -> dict[str, Any]:
        return {"asked": len(self.calls)}

    def state_dict(self) -> dict[str, Any]:
        return {"state": 5}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.calls.append(("load", dict(state)))


@dataclass(kw_only=True)
class Plain(Around):
    """As little as an around must write."""

    name = "plain"

    method: Method
    mark: int = 0

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return self.method.definition(teachers=teachers)

    def for_stage(self, *, teachers: int) -> Plain:
        return replace(self, method=self.method.for_stage(teachers=teachers))


@pytest.mark.parametrize("deep", [1, 3])
def test_every_question_is_passed_on(deep: int) -> None:
    inner = Asked()
    around: Method = inner
    for _ in range(deep):
        around = Plain(method=around)
    model, step = nn.Linear(1, 1), made_step(drawn(1, 4), torch.tensor([0]), number=3)
    beginning = Beginning(
        model=model,
        labels=np.zeros(1, np.int64),
        classes=4,
        epochs=9,
        seed=0,
        shapes={},
        teacher_shapes=(),
        handed=None,
    )
    assert not around.trains_student
    assert around.needs() == NEEDS
    with pytest.raises(BadInput, match="checked with 2"):
        around.check(teachers=2)
    around.begin(beginning)
    assert around.modules() == {"own": inner.module}
    assert list(around.no_decay(model)) == ["weight"]
    assert around.loss(step)["total"] == 3
    assert around.penalty(model) == 7
    around.after_step(model, step)
    around.on_epoch(4, NO_SURVEY)
    one, other = np.zeros(2, np.int64), np.ones(2, np.int64)
    assert around.order(0, [one, other])[0] is other
    assert around.delivered(model) is inner.module
    assert list(around.artefacts()) == ["kept"]
    assert around.metrics() == {"asked": 3}
    assert around.state_dict() == {"state": 5}
    around.load_state_dict({"state": 6})
    assert inner.calls == [
        ("begin", 9),
        ("after_step", 3),
        ("on_epoch", 4, NO_SURVEY),
        ("load", {"state": 6}),
    ]


def test_no_member_of_the_protocol_is_forgotten() -> None:
    members = {
        name
        for name, value in vars(Method).items()
        if not name.startswith("_") and (callable(value) or isinstance(value, property))
    }
    assert members - {"definition", "for_stage"} == {
        name for name in vars(Around) if not name.startswith("_")
    }
    assert members - {"definition", "for_stage"} <= set(vars(Asked))


def test_the_innermost_method_is_found_and_changed_and_those_around_it_stay() -> None:
    plain = SoftTargets()
    search = StructureSearch(
        method=Curriculum(method=Plain(method=plain, mark=4), score="loss"),
        strength=2.0,
        epochs=3,
        channels=1,
        size=(8, 8),
    )
    assert innermost(search) is plain
    assert innermost(plain) is plain
    changed = changed_inside(search, lambda method: Peers(method=method))
    assert isinstance(changed, StructureSearch)
    assert changed.strength == 2.0
    assert isinstance(changed.method, Curriculum)
    assert changed.method.score == "loss"
    assert isinstance(changed.method.method, Plain)
    assert changed.method.method.mark == 4
    assert isinstance(changed.method.method.method, Peers)
    assert innermost(changed) is plain  # peers are around it, too
    assert innermost(search.method) is plain
    assert isinstance(changed_inside(plain, lambda method: Labels()), Labels)
