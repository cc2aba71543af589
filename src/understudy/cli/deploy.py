"""Commands for the device: a student as a file, and how long it takes for an image: export, latency."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from understudy.cli.cost import image_of
from understudy.cli.delivery import Form, record
from understudy.cli.options import say, store_of
from understudy.errors import BadInput

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset, Split
    from understudy.deploy.export import Exported
    from understudy.deploy.int8 import Int8Result
    from understudy.deploy.latency import Latency
    from understudy.deploy.student import Student

MAX_DROP, CALIBRATION = 0.5, 512  # as in understudy.deploy.int8 and .calibration, which need numpy


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN")],
    to: Annotated[str, typer.Option(help="onnx, torch (a .pt2 file) or executorch (a .pte file).")],
    out: Annotated[
        Path | None, typer.Option(help="The file; RUN/student.onnx, .pt2 or .pte unless said.")
    ] = None,
    with_preprocessing: Annotated[
        bool, typer.Option("--with-preprocessing", help="The file takes pixels from 0 to 255.")
    ] = False,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Do not compare the file with the student on real images.")
    ] = False,
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Write an int8 form beside it, such as student.int8.onnx; onnx only."),
    ] = False,
    max_drop: Annotated[
        float, typer.Option(help="Points of accuracy that int8 may cost.", metavar="POINTS")
    ] = MAX_DROP,
    calibration: Annotated[
        int, typer.Option(help="Training images that int8 is calibrated on.")
    ] = CALIBRATION,
) -> None:
    """Writes the student alone, as a file that needs nothing of understudy, and proves it on the validation images."""
    from understudy.deploy.targets import TARGETS, check_target

    check_target(to, out)
    check_int8(max_drop=max_drop, calibration=calibration)
    if int8 and (to != "onnx" or no_check):
        raise BadInput(
            f"--int8 goes with --to onnx and a check on real images, not with {_against(to, no_check)}."
        )

    from understudy.deploy.export import check_packages
    from understudy.deploy.export import export as write
    from understudy.deploy.student import read_student

    check_packages(to, prove=not no_check)
    student = read_student(run)
    unfinished(run)
    out = out or folder_of(run) / f"student{TARGETS[to]}"
    if no_check:
        show(write(student, out, to=to, split=None, with_preprocessing=with_preprocessing), student)
        return
    wanted = Int8(max_drop=max_drop, calibration=calibration) if int8 else None
    proved(run, student, out, to=to, with_preprocessing=with_preprocessing, int8=wanted)


def check_int8(*, max_drop: float = MAX_DROP, calibration: int = CALIBRATION) -> None:
    """Raises BadInput where ``--max-drop`` or ``--calibration`` is none."""
    if not 0 <= max_drop <= 100:
        raise BadInput(f"--max-drop is a number of points of accuracy, 0 to 100; got {max_drop:g}.")
    if calibration < 1:
        raise BadInput(f"--calibration is a number of training images, 1 or more; got {calibration}.")


def latency(
    file: Annotated[Path, typer.Argument(help="An .onnx or .pt2 file, or a run's folder.", metavar="FILE")],
    threads: Annotated[int, typer.Option(help="That one run may use.")] = 1,
    repeat: Annotated[int, typer.Option(help="Runs that are counted.")] = 200,
    input_: Annotated[
        str | None,
        typer.Option("--input", help="Size of an image, where the file does not say it.", metavar="CxHxW"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, with every run's seconds.")
    ] = False,
) -> None:
    """How long one image takes on this machine: measured in a process of its own, with its memory."""
    from understudy.deploy.latency import latency as measure

    image = None if input_ is None else image_of(input_)
    found = measure(file, threads=threads, repeat=repeat, image=image)
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
        return
    for line in in_words(found):
        say(line)


@dataclass(frozen=True, kw_only=True)
class Int8:
    """How an int8 form is made: see the options of ``export``."""

    max_drop: float = MAX_DROP
    calibration: int = CALIBRATION


def deliver(run: Path, *, int8: bool = False, max_drop: float = MAX_DROP) -> None:
    """Exports a finished run's student to ONNX, proves, measures and reports it; ``int8``: its integer form as well."""
    from understudy.deploy.student import read_student

    proved(
        run,
        read_student(run),
        folder_of(run) / "student.onnx",
        to="onnx",
        int8=Int8(max_drop=max_drop) if int8 else None,
    )


def proved(
    run: Path,
    student: Student,
    out: Path,
    *,
    to: str,
    with_preprocessing: bool = False,
    int8: Int8 | None = None,
) -> None:
    """Writes a student's file and proves it on the run's data; what lies in the run's folder is measured and reported.

    Raises:
        TooMuchLost: of accuracy in int8 after training, where the run made no student that was distilled as int8. What
            could be written is written and reported.
    """
    from understudy.deploy.export import export as write
    from understudy.deploy.int8 import TooMuchLost

    dataset = data_of(run, student)
    split, part = proving(dataset)
    exported = write(student, out, to=to, split=split, part=part, with_preprocessing=with_preprocessing)
    show(exported, student)
    assert exported.parity is not None
    runtime = {"onnx": "onnxruntime", "torch": "torch", "executorch": "ExecuTorch"}[to]
    common: dict[str, Any] = {"runtime": runtime, "inside": with_preprocessing, "part": part}
    accuracy, differing = exported.parity.file_accuracy, exported.parity.differing
    name = "float32" if to == "onnx" else f"float32, {to}"
    forms = [Form(name=name, path=out, accuracy=accuracy, differing=differing, **common)]
    lost: TooMuchLost | None = None
    if int8 is not None:
        try:
            found = to_int8(student, dataset, out, inside=with_preprocessing, how=int8)
            forms.append(
                Form(
                    name="int8 after training",
                    path=found.file.path,
                    accuracy=found.score.accuracy,
                    differing=found.score.differing,
                    **common,
                )
            )
        except TooMuchLost as error:
            lost = error
        distilled = distilled_int8(run, student, dataset, out, inside=with_preprocessing)
        if distilled is not None:
            forms.append(distilled)
            if lost is not None:
                say(f"note: there is no int8 file after training: {lost}")
                lost = None
    if out.resolve().is_relative_to(folder_of(run).resolve()):
        record(folder_of(run), student, dataset, forms)
    if lost is not None:
        raise lost


def to_int8(student: Student, dataset: Dataset, path: Path, *, inside: bool, how: Int8) -> Int8Result:
    """Quantises an exported ONNX file after training, and says what that cost."""
    from understudy.deploy.advice import warnings_on_quantising
    from understudy.deploy.int8_student import int8_beside
    from understudy.report.numbers import size

    for sentence in warnings_on_quantising(student.model):
        say(f"note: {sentence}")
    split, part = proving(dataset)
    found = int8_beside(
        student,
        path,
        train=dataset.train,
        split=split,
        may_choose=part == "validation",
        inside=inside,
        max_drop=how.max_drop,
        calibration=how.calibration,
    )
    say(f"{found.file.path}: {size(found.file.bytes)}")
    say(found.sentence())
    return found


def distilled_int8(run: Path, student: Student, dataset: Dataset, out: Path, *, inside: bool) -> Form | None:
    """Writes the student that was trained on as int8, where the run made one, and compares it with the float one."""
    from understudy.deploy.export import described
    from understudy.deploy.int8_export import export_int8
    from understudy.deploy.parity import parity
    from understudy.deploy.student import read_student
    from understudy.report.numbers import size
    from understudy.report.run_folder import INT8
    from understudy.store.files import write_json

    card = folder_of(run) / f"{INT8}.json"
    if not card.is_file():
        return None
    rounded = read_student(card)
    target = out.with_name(f"{out.stem}-int8.onnx")
    split, part = proving(dataset)
    export_int8(
        rounded.model,
        target,
        channels=rounded.channels,
        size=rounded.image if inside else rounded.size,
        preprocessing=rounded.preprocessing if inside else None,
        class_names=rounded.class_names,
    )
    classes = len(student.class_names)
    found = parity(
        student.model,
        target,
        split,
        preprocessing=student.preprocessing,
        classes=classes,
        inside=inside,
        part=part,
    )
    write_json(
        target.with_name(f"{target.name}.json"),
        described(rounded, target, to="onnx", inside=inside, parity=None),
    )
    say(f"{target}: {size(target.stat().st_size)}")
    say(
        f"int8 distilled: {100 * found.file_accuracy:.2f} % of the {part} images right, the float student "
        f"{100 * found.accuracy:.2f} %; {found.differing} of {found.images} answers differ"
    )
    return Form(
        name="int8 distilled",
        path=target,
        runtime="onnxruntime",
        inside=inside,
        part=part,
        accuracy=found.file_accuracy,
        differing=found.differing,
    )


def data_of(run: Path, student: Student) -> Dataset:
    """The data that a run learned, loaded again as its ``recipe.yaml`` says.

    Raises:
        BadInput: the run was started from Python, or its data are not there or are others by now.
    """
    from understudy.recipe import check, read_file
    from understudy.recipe.building import dataset_of

    recipe = folder_of(run) / "recipe.yaml"
    if not recipe.is_file():
        raise BadInput(
            f"{recipe} is not there, so no data can be loaded to check the file on. Add --no-check, or call "
            f"understudy.deploy.export.export with a split of your own."
        )
    said = os.environ.get("UNDERSTUDY_STORE")
    cache = store_of(folder_of(run), Path(said) if said else None)
    dataset = dataset_of(check(read_file(recipe)), cache=cache / "data" if cache.is_dir() else None)
    for what, now, then in (
        ("classes", list(dataset.class_names), list(student.class_names)),
        ("images", [dataset.channels, dataset.height, dataset.width], [student.channels, *student.image]),
    ):
        if now != then:
            raise BadInput(
                f"the data of {recipe} have other {what} than the student learned: {_short(now)}, and it learned "
                f"{_short(then)}. Put the data back, or add --no-check."
            )
    return dataset


def proving(dataset: Dataset) -> tuple[Split, str]:
    """The images that a file is proved on: validation images, or test images where there are none; and their name.

    Raises:
        BadInput: there are neither.
    """
    for split, part in ((dataset.validation, "validation"), (dataset.test, "test")):
        if len(split):
            return split, part
    raise BadInput(f"{dataset.name} has neither validation nor test images to check on. Add --no-check.")


def folder_of(run: Path) -> Path:
    """The folder of a run that is called by that, or by its ``student.json``."""
    return run.parent if run.suffix == ".json" else run


def unfinished(run: Path) -> None:
    """Says so where a run may still deliver another student."""
    from understudy.report.result import FILE, read_result

    if (folder_of(run) / FILE).is_file() and not read_result(folder_of(run))["complete"]:
        say(f"note: {folder_of(run)} is not finished, and may deliver another student when it is.")


def show(exported: Exported, student: Student) -> None:
    """What was written and what was found out, in lines."""
    from understudy.report.numbers import size

    say(f"{student.weights}: {size(exported.weights_bytes)}")
    say(f"{exported.path}: {size(exported.bytes)} (what it takes and gives: {exported.beside.name})")
    found = exported.parity
    if found is None:
        say("parity: not checked")
        return
    ties = f", {found.ties} more are ties" if found.ties else ""
    say(
        f"parity: {found.differing} of {found.images} {found.part} images answered otherwise than by the student "
        f"({found.allowed} may be{ties})"
    )
    say(
        f"accuracy {100 * found.file_accuracy:.2f} %, the student's {100 * found.accuracy:.2f} %; logits differ by "
        f"{found.largest_difference:.1g} at most"
    )


def in_words(found: Latency) -> list[str]:
    """A measurement in three lines."""
    from understudy.report.numbers import size

    image = "x".join(map(str, found.input[1:]))
    threads = f"{found.threads} thread{'s' if found.threads > 1 else ''}"
    lines = [
        f"{time_of(found.median)} median, {time_of(found.p95)} at the 95th percentile: one {image} image, "
        f"{threads}, {len(found.seconds)} runs after {found.warm_up} to warm up"
    ]
    memory = ""
    if found.memory_peak is not None:
        memory = f"; memory at most {size(found.memory_peak)}"
        if found.memory_before is not None:
            memory += f", of which {size(found.memory_before)} are {found.runtime} before it opens the file"
    lines.append(f"{size(found.bytes)} on disk{memory}")
    machine = found.hardware
    where = ", ".join(str(machine[key]) for key in ("board", "processor", "machine") if key in machine)
    lines.append(f"{found.runtime} {found.runtime_version} on {where}, {machine['cores']} cores")
    return lines


def time_of(seconds: float) -> str:
    """Milliseconds with three figures; microseconds below a tenth of one.

    >>> time_of(0.0123456), time_of(0.00002)
    ('12.3 ms', '20.0 µs')
    """
    from understudy.report.numbers import three_figures

    if seconds < 1e-4:
        return f"{three_figures(1e6 * seconds)} µs"
    return f"{three_figures(1000 * seconds)} ms"


def _against(to: str, no_check: bool) -> str:
    return "--no-check" if to == "onnx" and no_check else f"--to {to}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
