"""Ladders by name from Python: networks go in, a checked ladder that shows itself in a notebook comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.errors import BadInput, listed, suggestion
from understudy.ladder import graph
from understudy.ladder.arms import CONTROLS, Material, arm
from understudy.ladder.shapes import Rung, merged
from understudy.ladder.stage import Network, Stage
from understudy.teaching.method import Method
from understudy.teaching.soft_targets import SoftTargets, Stochastic
from understudy.training.settings import Training

Place = str | Network | Rung
"""A network by name, with more said about it, or with a training or weights of its own."""


# A subclass, though nothing is overridden: what is drawn is for people, and the graph below knows no report.
@dataclass(frozen=True)
class Ladder(graph.Ladder):
    """Stages in an order in which each comes after its inputs; see ``dense`` and its neighbours for short forms.

    Attributes:
        stages: all of them, controls too.
        delivered: names of the students of which one is delivered: one, or for ``paths`` all paths.
        shape: what to call it in reports.

    Raises:
        BadInput: two stages of one name, an input that no stage makes, a cycle, or no student.

    >>> print(dense("plain_cnn-4", ["plain_cnn-2"], Network(name="plain_cnn-2", width=0.25), controls=["direct"]))
    teacher            plain_cnn-4         learns from the labels
    dense/plain_cnn-2  plain_cnn-2         learns from teacher
    dense              plain_cnn-2 x0.25   learns from teacher, dense/plain_cnn-2   (delivered)
    direct             plain_cnn-2 x0.25   learns from teacher
    """

    shape: str = "stages"

    def __str__(self) -> str:
        names = max(len(stage.name) for stage in self.stages)
        labels = max(len(stage.network.label) for stage in self.stages)
        return "\n".join(
            f"{stage.name:<{names}}  {stage.network.label:<{labels}}   {_source(stage)}"
            f"{'   (delivered)' if stage.name in self.delivered else ''}"
            for stage in self.stages
        )

    def _repr_html_(self) -> str:
        """The graph as a picture, for notebooks."""
        from understudy.report.notebook import picture_of_ladder

        return picture_of_ladder(self)


def _source(stage: Stage) -> str:
    if stage.network.file is not None:
        return "is there already"
    if stage.weights is not None:
        return f"has the weights of {stage.weights.name}"
    begun = f", begins with {stage.start}" if stage.start else ""
    return f"learns from {', '.join(stage.teachers) or 'the labels'}{begun}"


def given(network: str | Network, weights: str | Path) -> Rung:
    """A network that is trained already: a teacher or an assistant of a ladder.

    A whole network in a file needs no weights beside it: ``Network(file=Path("teacher.onnx"))`` stands for itself.

    Args:
        network: its name, or a ``Network``.
        weights: a file of its weights, ``.safetensors`` or a ``.pt`` of plain tensors.

    Raises:
        BadInput: there is no such file.
    """
    file = Path(weights)
    if not file.is_file():
        raise BadInput(f"weights: there is no file {file}. Save them with safetensors.torch.save_file.")
    return Rung(network=_network(network, "given"), training=Training(), weights=file)


def scratch(student: Place, *, training: Training | None = None, controls: Sequence[str] = ()) -> Ladder:
    """The student from the labels alone; arguments as for ``dense``."""
    return _ladder("scratch", None, (), student, training=training, controls=controls)


def direct(
    teacher: Place,
    student: Place,
    *,
    training: Training | None = None,
    method: Method | None = None,
    controls: Sequence[str] = ("scratch",),
) -> Ladder:
    """The student straight from the teacher; arguments as for ``dense``."""
    return _ladder("direct", teacher, (), student, training=training, method=method, controls=controls)


def chain(
    teacher: Place,
    assistants: Sequence[Place],
    student: Place,
    *,
    training: Training | None = None,
    method: Method | None = None,
    controls: Sequence[str] = ("scratch", "direct"),
) -> Ladder:
    """Teacher-assistant chain (TAKD): each learns from its predecessor; arguments as for ``dense``."""
    return _ladder("chain", teacher, assistants, student, training=training, method=method, controls=controls)


def dense(
    teacher: Place,
    assistants: Sequence[Place],
    student: Place,
    *,
    training: Training | None = None,
    method: Method | None = None,
    stochastic: Stochastic | None = None,
    controls: Sequence[str] = ("scratch", "direct"),
) -> Ladder:
    """Densely guided (DGKD): each learns from all larger ones.

    Args:
        teacher: a network's name, a ``Network``, or a ``Rung`` (see ``given`` for one with weights).
        assistants: likewise, largest first.
        student: likewise, of every arm.
        training: of every network that brings none of its own; None: ``Training`` as it is.
        method: how assistants and students are taught; None: ``SoftTargets`` as it is.
        stochastic: drops teachers at random while the last student learns.
        controls: arms beside the ladder, by name.

    Raises:
        BadInput: an unknown network or control, or no assistant.
    """
    return _ladder(
        "dense",
        teacher,
        assistants,
        student,
        training=training,
        method=method,
        stochastic=stochastic,
        controls=controls,
    )


def paths(
    teacher: Place,
    assistants: Sequence[Place],
    student: Place,
    *,
    training: Training | None = None,
    method: Method | None = None,
    controls: Sequence[str] = ("scratch",),
) -> Ladder:
    """Every chain through a subset of the assistants; the path best on validation is delivered. See ``dense``."""
    return _ladder("paths", teacher, assistants, student, training=training, method=method, controls=controls)


def _ladder(
    shape: str,
    teacher: Place | None,
    assistants: Sequence[Place],
    student: Place,
    *,
    training: Training | None,
    method: Method | None = None,
    stochastic: Stochastic | None = None,
    controls: Sequence[str],
) -> Ladder:
    for what, value in (("controls", controls), ("assistants", assistants)):
        if not isinstance(value, list | tuple):
            raise BadInput(f"{what} is {value!r}; it is a list such as [{value!r}].")
    kinds: tuple[tuple[str, Any, type], ...] = (
        ("training", training, Training),
        ("method", method, Method),
        ("stochastic", stochastic, Stochastic),
    )
    for what, value, kind in kinds:
        if value is not None and not isinstance(value, kind):
            raise BadInput(f"{what} is {value!r}; it is an understudy.{kind.__name__}(...).")
    for control in controls:
        if control not in CONTROLS:
            raise BadInput(
                f"controls has {control!r}; possible are {listed(CONTROLS)}.{suggestion(str(control), CONTROLS)}"
            )
    climbing = {shape, *controls} & {"chain", "dense", "paths"}
    if climbing and not assistants:
        raise BadInput(
            f"assistants is empty: {listed(sorted(climbing))} climbs over assistants. "
            f"Name some between teacher and student, or use direct(teacher, student)."
        )
    usual = training or Training()
    material = Material(
        teacher=None if teacher is None else _rung(teacher, usual, "teacher"),
        assistants=[_rung(one, usual, "assistants") for one in assistants],
        student=_rung(student, usual, "student"),
        method=method or SoftTargets(),
        stochastic=stochastic,
    )
    if material.student.weights is not None:
        raise BadInput(
            "the student has weights of its own; it is what is taught. Use start= to begin with some."
        )
    main = arm(shape, material)
    others = [arm(control, material) for control in controls if control != shape]
    delivered = tuple(stage.name for stage in main if stage.role == "student")
    return Ladder(merged(main, *others), delivered, shape=shape)


def _rung(place: Place, training: Training, what: str) -> Rung:
    if isinstance(place, Rung):
        return place
    network = _network(place, what)
    return Rung(network=network, training=training, weights=network.file)


def _network(network: str | Network, what: str) -> Network:
    if isinstance(network, Network):
        return network
    if isinstance(network, str):
        return Network(name=network)
    raise BadInput(
        f"{what} is a {type(network).__name__}; it is a network's name such as 'plain_cnn-4', or a Network, "
        f"whose factory= takes a function that builds one of your own."
    )
