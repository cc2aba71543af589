"""What a run came to, as plain frozen dataclasses: every stage, the accuracies over seeds, the delivered student."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.errors import BadInput, Damaged, listed, suggestion

if TYPE_CHECKING:
    from torch import nn

    from understudy.models.preprocessing import Preprocessing


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """A stage with one seed.

    Attributes:
        name, seed, key: which; the key is where the store keeps it.
        role: ``teacher``, ``assistant`` or ``student``. state: ``done``, ``failed``, ``left out`` or ``interrupted``.
        message: why it failed.
        model: such as ``plain_cnn-4 x0.5``. teachers: names of the stages it learned from.
        parameters, multiply_adds: of its network, multiply-adds for one image.
        epochs, seconds: of its training, whenever that was. from_store: it was kept already.
        validation, test: metrics such as ``accuracy``, a fraction; empty unless done. Where the training classes are
            imbalanced, also ``many``, ``medium``, ``few`` and ``balanced``.
        analysis: what its kept outputs say (calibration, accuracy of each class, agreement with its teachers).
        warnings: sentences about what does not look healthy.
        curve: ``epoch``, ``loss`` and validation ``accuracy``, 100 points at most.
    """

    name: str
    seed: int
    key: str
    role: str
    state: str
    message: str
    model: str
    teachers: tuple[str, ...]
    parameters: int | None
    multiply_adds: int | None
    epochs: int | None
    seconds: float | None
    from_store: bool
    validation: Mapping[str, float]
    test: Mapping[str, float]
    analysis: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    curve: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A paired difference of test accuracy to the control ``direct``, as fractions.

    Attributes:
        n: seeds that both have. mean, std: of the differences. interval: 95 %, or None.
        p, p_corrected: of the paired t-test; the latter for the number of comparisons.
        claim: it was named beforehand as what the run is about.
    """

    n: int
    mean: float
    std: float | None
    interval: tuple[float, float] | None
    p: float | None
    p_corrected: float | None
    claim: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """A stage over its seeds: test accuracies as fractions.

    Attributes:
        name, role, model, parameters, multiply_adds, epochs: as in ``StageResult``.
        n: seeds. mean: None at n = 0. std: sample deviation, None at n = 1. interval: 95 %, of the mean.
        difference: to ``direct``, for students beside it.
        groups: ``mean`` and ``std`` of the test accuracies ``many``, ``medium``, ``few`` (classes with more than 100, 20
            to 100, fewer than 20 training images) and ``balanced`` (mean over classes); empty where the training classes
            are about equally frequent.
    """

    name: str
    role: str
    model: str
    parameters: int | None
    multiply_adds: int | None
    epochs: int | None
    n: int
    mean: float | None
    std: float | None
    interval: tuple[float, float] | None
    difference: Difference | None
    groups: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """The student that the run is for: of all seeds (and, with ``paths``, all paths) the one best on validation.

    Attributes:
        stage: it and its figures.
        class_names: one for each logit.
    """

    stage: StageResult
    class_names: tuple[str, ...]
    prepare: Callable[[], Preprocessing] = field(repr=False, compare=False)
    rebuild: Callable[[], nn.Module] = field(repr=False, compare=False)

    @property
    def preprocessing(self) -> Preprocessing:
        """From pixels 0..255 ``(n, channels, height, width)`` to what the model takes."""
        return self.prepare()

    def model(self) -> nn.Module:
        """The student with its weights, on the CPU and in evaluation mode; a new module each time.

        It takes what ``preprocessing`` gives and returns logits ``(n, classes)``.

        Raises:
            Damaged: the kept weights differ from their checksum.
            BadInput: a network of the user's own, which only the program that ran it can build.
        """
        return self.rebuild().eval()


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A run: print it, look at it in a notebook, or take what is needed.

    Attributes:
        complete: every stage is done. problems: sentences about those that are not.
        delivered: the student, None where none is finished.
        stages: every stage with every seed. rows: every stage over its seeds.
        out: the run's folder, None where it has none.
        content: all of it, as in ``result.json``.
    """

    complete: bool
    problems: tuple[str, ...]
    delivered: Delivered | None
    stages: tuple[StageResult, ...]
    rows: tuple[Row, ...]
    out: Path | None
    content: Mapping[str, Any] = field(repr=False)

    def __getitem__(self, name: str) -> Row:
        """The stage called ``name`` over its seeds."""
        for row in self.rows:
            if row.name == name:
                return row
        names = [row.name for row in self.rows]
        raise BadInput(f"no stage is called {name!r}. Stages: {listed(names)}.{suggestion(str(name), names)}")

    def to_records(self) -> list[dict[str, Any]]:
        """A flat dictionary for each stage with each seed, as ``pandas.DataFrame`` takes them."""
        return [
            {
                "stage": stage.name,
                "seed": stage.seed,
                "role": stage.role,
                "state": stage.state,
                "model": stage.model,
                "teachers": ", ".join(stage.teachers),
                "parameters": stage.parameters,
                "multiply_adds": stage.multiply_adds,
                "epochs": stage.epochs,
                "seconds": stage.seconds,
                "from_store": stage.from_store,
                "validation_accuracy": stage.validation.get("accuracy"),
                "test_accuracy": stage.test.get("accuracy"),
                **{f"test_{name}": value for name, value in stage.test.items() if name != "accuracy"},
                "ece": stage.analysis.get("ece"),
                "delivered": self.delivered is not None and stage == self.delivered.stage,
                "key": stage.key,
            }
            for stage in self.stages
        ]

    def __str__(self) -> str:
        from rich.console import Console

        from understudy.report.tables import groups_table, summary_table, warnings

        console = Console(file=io.StringIO(), width=100, color_system=None)
        with console.capture() as captured:
            console.print(summary_table(self.content, width=100))
            by_group = groups_table({"": self.content}, width=100)
            if by_group is not None:
                console.print(by_group)
        lines = [line.rstrip() for line in captured.get().splitlines()]
        health = [f"health: {sentence}" for sentence in warnings(self.content)]
        return "\n".join([*lines, *self.problems, *health]).strip("\n")

    def _repr_html_(self) -> str:
        """Headline, table and graph, for notebooks."""
        from understudy.report.notebook import picture_of_result

        return picture_of_result(self.content)


def outcome_of(
    content: Mapping[str, Any],
    *,
    out: Path | None,
    prepare: Callable[[], Preprocessing],
    rebuild: Callable[[], nn.Module],
) -> RunResult:
    """A run's result from the content of its ``result.json``.

    Args:
        content: checked.
        out: the run's folder.
        prepare: gives the preprocessing of the delivered student.
        rebuild: makes the delivered student with its weights.
    """
    from understudy.report.tables import problems

    stages = tuple(_stage(entry) for entry in content["stages"])
    chosen = content.get("delivered")
    delivered = None
    if chosen is not None:
        own = next(s for s in stages if (s.name, s.seed) == (chosen["name"], chosen["seed"]))
        delivered = Delivered(
            stage=own,
            class_names=tuple(content["data"]["class_names"]),
            prepare=prepare,
            rebuild=rebuild,
        )
    return RunResult(
        complete=content["complete"],
        problems=tuple(problems(content)),
        delivered=delivered,
        stages=stages,
        rows=tuple(_row(entry) for entry in content["summary"]),
        out=out,
        content=content,
    )


def _stage(entry: Mapping[str, Any]) -> StageResult:
    return StageResult(
        name=entry["name"],
        seed=entry["seed"],
        key=entry.get("key") or "",
        role=entry.get("role") or "",
        state=entry["state"],
        message=entry.get("message") or "",
        model=entry.get("model") or "",
        teachers=tuple(entry.get("teachers") or ()),
        parameters=entry.get("parameters"),
        multiply_adds=entry.get("multiply_adds"),
        epochs=entry.get("epochs"),
        seconds=entry.get("seconds"),
        from_store=bool(entry.get("from_store")),
        validation=entry.get("validation") or {},
        test=entry.get("test") or {},
        analysis=entry.get("analysis") or {},
        warnings=tuple(entry.get("warnings") or ()),
        curve=tuple(entry.get("curve") or ()),
    )


def _row(entry: Mapping[str, Any]) -> Row:
    found = entry.get("difference")
    difference = None
    if found:
        difference = Difference(
            n=found["n"],
            mean=found["mean"],
            std=found.get("std"),
            interval=_pair(found.get("interval")),
            p=found.get("p"),
            p_corrected=found.get("p_corrected"),
            claim=bool(found.get("claim")),
        )
    return Row(
        name=entry["name"],
        role=entry.get("role") or "",
        model=entry.get("model") or "",
        parameters=entry.get("parameters"),
        multiply_adds=entry.get("multiply_adds"),
        epochs=entry.get("epochs"),
        n=entry["n"],
        mean=entry.get("mean"),
        std=entry.get("std"),
        interval=_pair(entry.get("interval")),
        difference=difference,
        groups=entry.get("groups") or {},
    )


def _pair(interval: Any) -> tuple[float, float] | None:
    return (interval[0], interval[1]) if interval else None


def read_run(folder: str | Path) -> RunResult:
    """A run from its folder, whoever ran it: the command, a program, another machine.

    Raises:
        BadInput: the folder has no ``result.json``, or one that is damaged or of another version.
    """
    from understudy.report.result import read_result

    where = Path(folder)
    content = read_result(where)
    key = (content.get("delivered") or {}).get("key")
    return outcome_of(
        content,
        out=where,
        prepare=lambda: _preprocessing(_card(where, key)),
        rebuild=lambda: _student(where, key),
    )


def _card(folder: Path, key: str | None) -> dict[str, Any]:
    from understudy.report.run_folder import STUDENT_CARD

    path = folder / STUDENT_CARD
    try:
        said: dict[str, Any] = json.loads(path.read_bytes())
        said["architecture"]["arguments"], said["preprocessing"]["mean"], said["weights"]["sha256"]
    except FileNotFoundError as error:
        raise BadInput(
            f"{path} is not there, although the run has a student. Run the same command again to write it anew."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path} is damaged. Run the same command again to write it anew.") from error
    if said.get("key") != key:
        raise BadInput(
            f"{path} is of another student than {folder / 'result.json'} says: the run is not finished. Wait for it, or run "
            f"the same command again."
        )
    return said


def _preprocessing(card: Mapping[str, Any]) -> Preprocessing:
    from understudy.models.preprocessing import Preprocessing

    said = card["preprocessing"]
    size = said.get("size")
    return Preprocessing(
        mean=tuple(said["mean"]), std=tuple(said["std"]), size=(size[0], size[1]) if size else None
    )


def _student(folder: Path, key: str | None) -> nn.Module:
    from understudy.models import build
    from understudy.models.names import check_name
    from understudy.models.weights import put_weights, read_weights
    from understudy.report.run_folder import STUDENT
    from understudy.store.files import sha256_of_file

    card = _card(folder, key)
    name, arguments = card["architecture"]["name"], dict(card["architecture"]["arguments"])
    try:
        check_name(name)
    except BadInput as error:
        raise BadInput(
            f"the student is {name!r}, a network of somebody's own: build it, then load {folder / STUDENT} into it "
            f"with safetensors.torch.load_model, or run the program again, whose result has the model."
        ) from error
    path = folder / STUDENT
    if not path.is_file() or sha256_of_file(path) != card["weights"]["sha256"]:
        raise Damaged(f"{path} is damaged or missing. Run the same command again to write it anew.")
    model = build(name, **{**arguments, "size": tuple(arguments["size"])})
    put_weights(model, read_weights(path), source=str(path))
    return model
