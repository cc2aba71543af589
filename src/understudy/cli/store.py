"""Commands on the store: ls, gc, verify, export, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from understudy.cli.options import StoreFolder, console, say
from understudy.errors import BadInput


def _open_store(folder: Path | None) -> Any:
    from understudy.store import Store

    store = Store(folder or Path("runs") / ".store")
    if not (
        store.folder / "store.json"
    ).is_file():  # else it would be made here, in a folder of something else
        raise BadInput(f"there is no store in {store.folder}. Name one with --store.")
    store.prepare()
    return store


def ls(store: StoreFolder = None) -> None:
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
    console().print(table)
    unfinished = len(kept.keys()) - len(results)
    say(
        f"{len(results)} stages, {unfinished} unfinished, {size_of(kept.folder) / 1e6:.1f} MB in {kept.folder}"
    )


def gc(
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
    from understudy.store import housekeeping

    for option, value in (("--older-than", older_than), ("--max-gb", max_gb)):
        if value is not None and not 0 <= value < 1e9:
            raise BadInput(f"{option} is a number of 0 or more; got {value:g}.")
    cleaned = housekeeping.gc(
        _open_store(store),
        older_than_days=older_than,
        max_bytes=None if max_gb is None else int(max_gb * 1e9),
        dry_run=dry_run,
    )
    for key in cleaned.keys:
        print(key)
    verb = "would remove" if dry_run else "removed"
    busy = f"; {cleaned.busy} in use stay" if cleaned.busy else ""
    say(
        f"{verb} {len(cleaned.keys)} stages and {cleaned.leftovers} leftovers, {cleaned.bytes / 1e6:.1f} MB{busy}"
    )


def verify(store: StoreFolder = None) -> None:
    """Reads every kept file against its checksum; what is damaged is set aside and made again by the next run."""
    from understudy.store import housekeeping

    kept = _open_store(store)
    problems = housekeeping.verify(kept)
    for problem in problems:
        print(problem)
    say(f"{len(housekeeping.finished(kept))} stages are whole, {len(problems)} damaged")
    if problems:
        raise typer.Exit(1)


def export(
    archive: Annotated[Path, typer.Argument(help="File to write, such as stages.tar.")],
    keys: Annotated[
        list[str] | None, typer.Option("--key", help="Beginning of a stage's key; all stages unless said.")
    ] = None,
    of: Annotated[Path | None, typer.Option("--run", help="All stages of this run.")] = None,
    store: StoreFolder = None,
) -> None:
    """Writes kept stages into one file for another machine."""
    from understudy.report.result import read_result
    from understudy.store import housekeeping

    kept = _open_store(store)
    chosen = [kept.find(key) for key in keys or []]
    if of is not None:
        chosen += [stage["key"] for stage in read_result(of)["stages"] if stage["state"] == "done"]
    if not keys and of is None:
        chosen = [result.key for result in housekeeping.finished(kept)]
    say(f"{housekeeping.export(kept, chosen, archive)} stages written to {archive}")


def import_(
    archive: Annotated[Path, typer.Argument(help="A file that `store export` wrote.")],
    store: StoreFolder = None,
) -> None:
    """Takes over stages from another machine, each checked."""
    from understudy.store import Store, housekeeping

    taken, there = housekeeping.import_(Store(store or Path("runs") / ".store"), archive)
    say(f"{taken} stages taken over, {there} were there already")
