"""The command ``understudy``. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from understudy import __version__
from understudy.errors import BadInput, Interrupted, UnderstudyError

if TYPE_CHECKING:
    from understudy.ladder.runner import Outcome
    from understudy.recipe import Recipe
    from understudy.recipe.building import Built

app = typer.Typer(
    help="Turns a big PyTorch teacher into a small student: understudy run recipe.yaml",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
store_app = typer.Typer(help="Results that are kept: list, clean, check, move.", rich_markup_mode=None)
app.add_typer(store_app, name="store")

RecipeFile = Annotated[Path, typer.Argument(help="A recipe in YAML.", metavar="RECIPE")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a key: training.epochs=30. May be repeated.", metavar="KEY=VALUE"),
]
Seeds = Annotated[
    str | None, typer.Option(help="How many seeds (5 is 0 to 4), or a list such as 0,3,7.", metavar="N")
]
StoreFolder = Annotated[
    Path | None,
    typer.Option(
        "--store", envvar="UNDERSTUDY_STORE", help="Where results are kept; .store beside --out unless said."
    ),
]
Jobs = Annotated[int, typer.Option(help="Stages trained side by side, each in a process.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but problems and the table.")]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command; every error that is meant for a person is one line, and sets the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that has no ± shows ? in its place
            stream.reconfigure(errors="replace")
    try:
        status = app(
            args=list(arguments) if arguments is not None else None,
            prog_name="understudy",
            standalone_mode=False,
        )
    except UnderstudyError as error:
        _complain(str(error))
        sys.exit(error.exit_status)
    except _UsageError as error:
        where = error.ctx.command_path if error.ctx else "understudy"
        said = re.sub(
            r"Input should be a valid (\w+), unable to parse string as an? \w+",
            lambda found: f"it should be a {'whole number' if found[1] == 'integer' else found[1]}",
            error.format_message(),
        )
        _complain(f"{said.rstrip('.')}. See {where} --help.")
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except MemoryError as error:
        _complain(
            f"there is not enough memory ({str(error) or 'none left'}). Try smaller images or fewer of them."
        )
        sys.exit(1)
    except OSError as error:  # the system refuses something that no layer below explains
        _complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.")
        sys.exit(1)
    if status == 130:
        _complain("interrupted")
    sys.exit(status if isinstance(status, int) else 0)


# typer's own copy of click in newer versions, click's in older ones
_UsageError: Any = typer.BadParameter.__mro__[1]


def _complain(message: str) -> None:
    """One line on stderr; line breaks become spaces, and what a terminal would obey is written out."""
    words = " ".join(message.split())
    safe = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in words)
    print(f"understudy: {safe if len(safe) <= 4000 else safe[:3997] + '...'}", file=sys.stderr)


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True)
    ] = False,
) -> None:
    if version:
        print(f"understudy {__version__}")
        raise typer.Exit
    _help_unless_more(context)


@store_app.callback(invoke_without_command=True)
def _store_top(context: typer.Context) -> None:
    _help_unless_more(context)


def _help_unless_more(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/demo"),
    jobs: Jobs = 2,
    store: StoreFolder = None,
    quiet: Quiet = False,
) -> None:
    """Teacher, assistants and student on handwritten digits: no download, about a minute."""
    from importlib.resources import files

    from understudy.recipe import read_text

    text = files("understudy").joinpath("demo.yaml").read_text("utf-8")
    raw = read_text(text, source="the demo's recipe")
    _run(raw, out=out, jobs=jobs, store=store, quiet=quiet, command="understudy demo")


@app.command()
def run(
    recipe: RecipeFile,
    seeds: Seeds = None,
    set_: Set = None,
    jobs: Jobs = 1,
    hours: Annotated[float | None, typer.Option(help="Stop after so many hours, with a checkpoint.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/ and the recipe's name unless said.")
    ] = None,
    store: StoreFolder = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over another run in --out; the store is not touched.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Trains what is not kept yet, and shows the student with its controls beside it."""
    from understudy.recipe import read_file

    raw = _changed(read_file(recipe), set_, seeds)
    where = out or Path("runs") / recipe.stem
    _run(raw, out=where, jobs=jobs, hours=hours, store=store, force=force, quiet=quiet, command=_command())


@app.command()
def plan(
    recipe: RecipeFile,
    seeds: Seeds = None,
    set_: Set = None,
    jobs: Jobs = 1,
    out: Annotated[Path | None, typer.Option(help="As for run.")] = None,
    store: StoreFolder = None,
) -> None:
    """The graph, its cost, what is kept already and what is to do. Nothing is trained or written."""
    from understudy.recipe import check, read_file

    _check_jobs(jobs)
    checked = check(_changed(read_file(recipe), set_, seeds))

    from understudy.ladder.estimate import estimates
    from understudy.ladder.graph import warnings
    from understudy.recipe.building import build
    from understudy.report.numbers import duration
    from understudy.report.tables import PlanRow, plan_table
    from understudy.store import Store

    kept = Store(_store_of(out or Path("runs") / recipe.stem, store))
    built = build(checked)
    guessed = estimates(built.jobs, store=kept, dataset=built.dataset)
    rows = [
        PlanRow(
            name=job.name,
            seed=job.seed,
            model=job.stage.network.label,
            teachers=job.stage.teachers,
            parameters=job.cost.parameters,
            multiply_adds=job.cost.multiply_adds,
            epochs=job.stage.training.epochs if job.stage.training else 0,
            state=guessed[job.key].state,
            seconds=guessed[job.key].seconds,
        )
        for job in built.jobs
    ]
    console = _console()
    console.print(plan_table(rows))
    todo = {job.key: guessed[job.key] for job in built.jobs if guessed[job.key].state != "kept"}
    seconds = sum(estimate.seconds for estimate in todo.values())
    size = sum(estimate.bytes for estimate in todo.values())
    if todo:
        _say(
            "Times are from a few steps on this machine"
            + (f"; with --jobs {jobs} it takes {duration(seconds / jobs)} at best" if jobs > 1 else "")
            + f". The store {kept.folder} grows by {size / 1e6:.1f} MB."
        )
    _notes(built, warnings(built.jobs))


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN")],
) -> None:
    """Writes report.html of a run anew from its result.json, and shows the table."""
    from understudy.report.page import write_report
    from understudy.report.result import read_result
    from understudy.report.tables import problems, summary_table

    result = read_result(run_folder)
    console = _console()
    console.print(summary_table(result))
    for problem in problems(result):
        _say(problem)
    _say(f"report: {write_report(run_folder)}")


@app.command()
def compare(
    run_folders: Annotated[list[Path], typer.Argument(help="Folders of runs.", metavar="RUN...")],
) -> None:
    """The students of several runs in one table."""
    from understudy.report.result import read_result
    from understudy.report.tables import compare_table, different_data, problems

    if len({folder.resolve() for folder in run_folders}) < len(run_folders):
        raise BadInput("a run stands twice; name each once.")
    results = {str(folder): read_result(folder) for folder in run_folders}
    _console().print(compare_table(results))
    difference = different_data(results)
    if difference:
        _say(f"Beware: {difference}")
    for name, result in results.items():
        for problem in problems(result):
            _say(f"{name}: {problem}")


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="What to make: tinyimagenet100-32.")],
    source: Annotated[
        Path, typer.Option("--from", help="The public download, unpacked: the folder tiny-imagenet-200.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("data"),
) -> None:
    """Makes a data set of the examples from its public download."""
    from understudy.errors import suggestion

    makers = {"tinyimagenet100-32": _tiny_imagenet}
    if name not in makers:
        raise BadInput(
            f"{name!r} is no set that can be made. Possible: {', '.join(makers)}.{suggestion(name, makers)}"
        )
    makers[name](source, out)


def _tiny_imagenet(source: Path, out: Path) -> None:
    from understudy.data.tiny_imagenet import make_tinyimagenet100_32

    _say(str(make_tinyimagenet100_32(source, out)))


# --- the store --------------------------------------------------------------------------------------------------


def _open_store(folder: Path | None) -> Any:
    from understudy.store import Store

    store = Store(folder or Path("runs") / ".store")
    if not (
        store.folder / "store.json"
    ).is_file():  # else it would be made here, in a folder of something else
        raise BadInput(f"there is no store in {store.folder}. Name one with --store.")
    store.prepare()
    return store


@store_app.command("ls")
def store_ls(store: StoreFolder = None) -> None:
    """Every stage that is kept."""
    from rich.table import Table

    from understudy.report.numbers import duration, percent
    from understudy.store.housekeeping import finished, size_of

    kept = _open_store(store)
    table = Table(box=None, header_style="bold")
    for heading in ("key", "stage", "model", "seed", "test %", "trained", "MB"):
        table.add_column(heading, no_wrap=True)
    results = finished(kept)
    for result in results:
        record = result.record
        accuracy = record["test"].get("accuracy")
        table.add_row(
            result.key[:12],
            record["name"],
            record["model"],
            str(record["seed"]),
            "" if accuracy is None else percent(accuracy),
            duration(record["seconds"]),
            f"{result.bytes / 1e6:.2f}",
        )
    _console().print(table)
    unfinished = len(kept.keys()) - len(results)
    _say(
        f"{len(results)} stages, {unfinished} unfinished, {size_of(kept.folder) / 1e6:.1f} MB in {kept.folder}"
    )


@store_app.command("gc")
def store_gc(
    store: StoreFolder = None,
    older_than: Annotated[
        float | None, typer.Option(help="Remove stages not used for so many days.", metavar="DAYS")
    ] = None,
    max_gb: Annotated[
        float | None, typer.Option(help="Keep at most so many gigabytes, most recently used first.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Removes leftovers, and stages by age or size; stages in use by a run stay."""
    from understudy.store.housekeeping import gc

    for option, value in (("--older-than", older_than), ("--max-gb", max_gb)):
        if value is not None and not 0 <= value < 1e9:
            raise BadInput(f"{option} is a number of 0 or more; got {value:g}.")
    cleaned = gc(
        _open_store(store),
        older_than_days=older_than,
        max_bytes=None if max_gb is None else int(max_gb * 1e9),
        dry_run=dry_run,
    )
    for key in cleaned.keys:
        print(key)
    verb = "would remove" if dry_run else "removed"
    busy = f"; {cleaned.busy} in use stay" if cleaned.busy else ""
    _say(
        f"{verb} {len(cleaned.keys)} stages and {cleaned.leftovers} leftovers, {cleaned.bytes / 1e6:.1f} MB{busy}"
    )


@store_app.command("verify")
def store_verify(store: StoreFolder = None) -> None:
    """Reads every kept file against its checksum; what is damaged is set aside and made again by the next run."""
    from understudy.store.housekeeping import finished, verify

    kept = _open_store(store)
    problems = verify(kept)
    for problem in problems:
        print(problem)
    _say(f"{len(finished(kept))} stages are whole, {len(problems)} damaged")
    if problems:
        raise typer.Exit(1)


@store_app.command("export")
def store_export(
    archive: Annotated[Path, typer.Argument(help="File to write, such as stages.tar.")],
    keys: Annotated[
        list[str] | None, typer.Option("--key", help="Beginning of a stage's key; all stages unless said.")
    ] = None,
    of: Annotated[Path | None, typer.Option("--run", help="All stages of this run.")] = None,
    store: StoreFolder = None,
) -> None:
    """Writes kept stages into one file for another machine."""
    from understudy.report.result import read_result
    from understudy.store.housekeeping import export, finished

    kept = _open_store(store)
    chosen = [kept.find(key) for key in keys or []]
    if of is not None:
        chosen += [stage["key"] for stage in read_result(of)["stages"] if stage["state"] == "done"]
    if not keys and of is None:
        chosen = [result.key for result in finished(kept)]
    _say(f"{export(kept, chosen, archive)} stages written to {archive}")


@store_app.command("import")
def store_import(
    archive: Annotated[Path, typer.Argument(help="A file that `store export` wrote.")],
    store: StoreFolder = None,
) -> None:
    """Takes over stages from another machine, each checked."""
    from understudy.store import Store
    from understudy.store.housekeeping import import_

    taken, there = import_(Store(store or Path("runs") / ".store"), archive)
    _say(f"{taken} stages taken over, {there} were there already")


# --- running ----------------------------------------------------------------------------------------------------


def _run(
    raw: dict[str, Any],
    *,
    out: Path,
    command: str,
    jobs: int = 1,
    hours: float | None = None,
    store: Path | None = None,
    force: bool = False,
    quiet: bool = False,
) -> None:
    _check_jobs(jobs)
    if hours is not None and not 0 < hours < 1e6:
        raise BadInput(f"--hours is a positive number; got {hours:g}.")
    from understudy.recipe import check
    from understudy.report.run_folder import alone, check_out

    recipe = check(raw)
    check_out(out, recipe.as_dict(), force=force)

    from understudy.ladder.graph import warnings
    from understudy.recipe.building import build
    from understudy.store import Store

    kept = Store(_store_of(out, store))
    built = build(recipe, cache=kept.folder / "data" if kept.folder.is_dir() else None)
    if not quiet:
        _notes(built, warnings(built.jobs))
    kept.prepare()
    with alone(out, kept.folder), _Stopper(hours) as stopper:
        outcomes = _climb(
            built, recipe, out=out, kept=kept, jobs=jobs, quiet=quiet, command=command, stopper=stopper
        )
    _finish(outcomes, out=out, stopper=stopper)


def _climb(
    built: Built,
    recipe: Recipe,
    *,
    out: Path,
    kept: Any,
    jobs: int,
    quiet: bool,
    command: str,
    stopper: _Stopper,
) -> list[Outcome]:
    from understudy.ladder.runner import Outcome, run
    from understudy.report.page import write_report
    from understudy.report.progress import Display
    from understudy.report.run_folder import RECIPE, RESULT, choose, deliver, result_of, withdraw
    from understudy.store import files
    from understudy.training.precision import environment

    device = next((job.stage.training.device for job in built.jobs if job.stage.training), "cpu")

    def write(outcomes: Sequence[Outcome]) -> None:
        result = result_of(
            outcomes,
            ladder=built.ladder,
            dataset=built.dataset,
            recipe=recipe.as_dict(),
            environment=environment(device),
            command=command,
        )
        files.write_json(out / RESULT, result)

    files.write_text(out / RECIPE, recipe.as_yaml())
    so_far = {job.key: Outcome(job=job) for job in built.jobs}

    def written(outcome: Outcome) -> None:
        so_far[outcome.job.key] = outcome
        write([Outcome(**{**vars(so_far[job.key]), "job": job}) for job in built.jobs])

    write([Outcome(job=job) for job in built.jobs])
    with Display(built.jobs, quiet=quiet) as display:

        def ended(outcome: Outcome) -> None:
            display.watcher.ended(outcome)
            written(outcome)

        watcher = replace(display.watcher, ended=ended)
        outcomes = run(
            built.jobs, store=kept, dataset=built.dataset, parallel=jobs, watcher=watcher, stop=stopper
        )
    chosen = choose(outcomes, built.ladder)
    if chosen is None:
        withdraw(out)
    else:
        deliver(out, chosen, store=kept, dataset=built.dataset)
    write(outcomes)
    write_report(out)
    return outcomes


def _finish(outcomes: Sequence[Outcome], *, out: Path, stopper: _Stopper) -> None:
    from understudy.report.result import read_result
    from understudy.report.tables import problems, summary_table

    result = read_result(out)
    _console().print(summary_table(result))
    for problem in problems(result):
        _say(problem)
    if result["complete"] and all(outcome.from_store for outcome in outcomes):
        _say("Every stage was kept already; nothing was trained.")
    if result["delivered"]:
        _say(f"student: {out / 'student.safetensors'} (student.json beside it says how to build it)")
    _say(f"report:  {out / 'report.html'}")
    states = {outcome.state for outcome in outcomes}
    if "interrupted" in states:
        raise Interrupted(f"{stopper.why}; run the same command again to go on from the last checkpoint.")
    if states & {"failed", "left out"}:
        raise typer.Exit(1)


class _Stopper:
    """Says when a run should end: Ctrl-C, SIGTERM or the hours are over. A second Ctrl-C ends at once."""

    def __init__(self, hours: float | None) -> None:
        self.until = None if hours is None else time.monotonic() + hours * 3600
        self.why = ""
        self.before: dict[int, Any] = {}

    def __call__(self) -> bool:
        if not self.why and self.until is not None and time.monotonic() > self.until:
            self.why = "the hours are over"
        return bool(self.why)

    def __enter__(self) -> _Stopper:
        def interrupted(number: int, frame: object) -> None:
            if self.why and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.why = "interrupted" if number == signal.SIGINT else "asked to end"
            print("\nstopping after this step; a checkpoint is written ...", file=sys.stderr)

        with contextlib.suppress(ValueError):  # not in the main thread: somebody else handles signals
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, interrupted)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def _check_jobs(jobs: int) -> None:
    if not 1 <= jobs <= 1024:
        raise BadInput(f"--jobs is a whole number from 1 to 1024; got {jobs}.")


def _store_of(out: Path, store: Path | None) -> Path:
    return store if store is not None else out.parent / ".store"


def _changed(raw: dict[str, Any], settings: Sequence[str] | None, seeds: str | None) -> dict[str, Any]:
    from understudy.recipe import changed

    raw = changed(raw, settings or [])
    if seeds is not None:
        words = [word.strip() for word in seeds.split(",")]
        if not all(re.fullmatch("[0-9]{1,10}", word) for word in words) or (
            len(words) == 1 and not 1 <= int(words[0]) <= 1000
        ):
            raise BadInput(f"--seeds is how many (1 to 1000), or a list such as 0,3,7; got {seeds!r}.")
        raw["seeds"] = [int(word) for word in words] if len(words) > 1 else list(range(int(words[0])))
    return raw


def _notes(built: Built, sentences: Sequence[str]) -> None:
    for sentence in (*built.dataset.notes, *sentences):
        _say(f"note: {sentence}")


def _command() -> str:
    return shlex.join(["understudy", *sys.argv[1:]])


def _console() -> Any:
    from rich.console import Console

    return Console()


def _say(sentence: str) -> None:
    print(sentence)
