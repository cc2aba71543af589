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
    """Every stage that is kept, and how much of teachers' signals."""
    from rich.table import Table

    from understudy.report.numbers import duration, percent
    from understudy.store.housekeeping import finished, size_of
    from understudy.store.signals import block_files, folders_of

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
    spoken = [file for folder in folders_of(kept) for file in block_files(folder)]
    views = len({(file.key, file.view) for file in spoken})
    said = (
        f"; of it {sum(file.bytes for file in spoken) / 1e6:.1f} MB are signals: {views} views in {len(spoken)} files, "
        f"of {len({file.key for file in spoken})} pairs of a teacher and a way to look"
    )
    say(
        f"{len(results)} stages, {unfinished} unfinished, {size_of(kept.folder) / 1e6:.1f} MB in {kept.folder}"
        f"{said if spoken else ', no signals'}"
    )


def gc(
    store: StoreFolder = None,
    older_than: Annotated[
        float | None, typer.Option(help="Remove what was not used for so many days.", metavar="DAYS")
    ] = None,
    max_gb: Annotated[
        float | None,
        typer.Option(
            help="Keep at most so many gigabytes: signals go before stages, the least recently used first."
        ),
    ] = None,
    only_signals: Annotated[
        bool,
        typer.Option("--signals", help="Look at teachers' signals only; without a limit all of them go."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Removes leftovers, and signals and stages by age or size; what a run uses stays."""
    from understudy.store import housekeeping

    for option, value in (("--older-than", older_than), ("--max-gb", max_gb)):
        if value is not None and not 0 <= value < 1e9:
            raise BadInput(f"{option} is a number of 0 or more; got {value:g}.")
    cleaned = housekeeping.gc(
        _open_store(store),
        older_than_days=older_than,
        max_bytes=None if max_gb is None else int(max_gb * 1e9),
        only_signals=only_signals,
        dry_run=dry_run,
    )
    for key in cleaned.keys:
        print(key)
    verb = "would remove" if dry_run else "removed"
    busy = [f"{cleaned.busy} stages"] if cleaned.busy else []
    if cleaned.busy_signals:
        busy.append(f"{cleaned.busy_signals} files of signals")
    say(
        f"{verb} {len(cleaned.keys)} stages, {cleaned.signals} files of signals ({cleaned.signal_bytes / 1e6:.1f} MB) "
        f"and {cleaned.leftovers} leftovers, {cleaned.bytes / 1e6:.1f} MB together"
        + (f"; {' and '.join(busy)} in use stay" if busy else "")
    )


def verify(store: StoreFolder = None) -> None:
    """Reads every kept file against its checksum; what is damaged is set aside (signals: removed) and made again."""
    from understudy.store import housekeeping

    kept = _open_store(store)
    stages = housekeeping.verify(kept)
    whole, signals = housekeeping.verify_signals(kept)
    for problem in (*signals, *stages):
        print(problem)
    if whole or signals:
        say(f"{whole} files of signals are whole, {len(signals)} damaged")
    say(f"{len(housekeeping.finished(kept))} stages are whole, {len(stages)} damaged")
    if stages or signals:
        raise typer.Exit(1)


def export(
    archive: Annotated[Path, typer.Argument(help="File to write, such as stages.tar.")],
    keys: Annotated[
        list[str] | None, typer.Option("--key", help="Beginning of a stage's key; all stages unless said.")
    ] = None,
    of: Annotated[Path | None, typer.Option("--run", help="All stages of this run.")] = None,
    store: StoreFolder = None,
) -> None:
    """Writes kept stages into one file for another machine; signals stay, they are made again there."""
    from understudy.report.result import read_result
    from understudy.store import archives, housekeeping

    kept = _open_store(store)
    chosen = [kept.find(key) for key in keys or []]
    if of is not None:
        chosen += [stage["key"] for stage in read_result(of)["stages"] if stage["state"] == "done"]
    if not keys and of is None:
        chosen = [result.key for result in housekeeping.finished(kept)]
    say(f"{archives.export(kept, chosen, archive)} stages written to {archive}")


def import_(
    archive: Annotated[Path, typer.Argument(help="A file that `store export` wrote.")],
    store: StoreFolder = None,
) -> None:
    """Takes over stages from another machine, each checked."""
    from understudy.store import Store, archives

    taken, there = archives.import_(Store(store or Path("runs") / ".store"), archive)
    say(f"{taken} stages taken over, {there} were there already")
