"""The command that trains a paper's table anew: paper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from understudy.cli.options import Jobs, Quiet, Seeds, Set, StoreFolder, changed_by, console, say
from understudy.cli.run import run_raw
from understudy.errors import BadInput

if TYPE_CHECKING:
    from understudy.recipe.papers import Paper


def paper(
    name: Annotated[
        str, typer.Argument(help="list, or a table such as takd-1, dgkd-stochastic, pcl-cifar100.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="An .npz file, a folder of class folders, or digits, in place of the paper's data."
        ),
    ] = None,
    scale: Annotated[float, typer.Option(help="Factor on all epochs, such as 0.1.")] = 1.0,
    show: Annotated[bool, typer.Option("--show", help="Print the recipe and train nothing.")] = False,
    seeds: Seeds = None,
    set_: Set = None,
    jobs: Jobs = 1,
    hours: Annotated[float | None, typer.Option(help="Stop after so many hours, with a checkpoint.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/ and the name unless said.")
    ] = None,
    store: StoreFolder = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over another run in --out; the store is not touched.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """A published table with its published settings; gaps are ours, and said. Its figures stand beside ours."""
    from understudy.recipe.papers import paper_of, recipe_of

    if name == "list":
        _list()
        return
    chosen = paper_of(name)
    raw = recipe_of(chosen, data=_data(data), scale=scale)
    raw = changed_by(raw, set_, seeds)
    if show:
        from understudy.recipe import check

        print(check(raw).as_yaml(), end="")
        return
    where = out or Path("runs") / chosen.name
    for sentence in _labels(chosen, data, scale):
        say(sentence)
    run_raw(raw, out=where, jobs=jobs, hours=hours, store=store, force=force, quiet=quiet)
    _compare(chosen, where, data, scale)


def _data(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    if text == "digits":
        return {"name": "digits"}
    if not Path(text).exists():
        raise BadInput(
            f"--data: there is no file or folder {text}. An .npz file, a folder of class folders, or digits."
        )
    return {"path": text}


def _list() -> None:
    from rich.table import Table

    from understudy.recipe.papers import PAPERS

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for one in PAPERS.values():
        figures = ", ".join(f"{figure.what} {figure.percent:g}" for figure in one.figures)
        table.add_row(one.name, one.title)
        table.add_row("", f"[dim]{figures or 'no published figures are known'}[/dim]")
    console().print(table)


def _labels(chosen: Paper, data: str | None, scale: float) -> list[str]:
    """What a reader must know of the figures to come."""
    said = [chosen.title]
    if data is not None:
        said.append(f"data: {data}, not the paper's {chosen.data}: the figures cannot be compared.")
    if scale != 1:
        said.append(f"epochs: {scale:g} of the published ones.")
    if chosen.ours:
        said.append(f"our choice where the paper is silent: {'; '.join(chosen.ours)}.")
    return said


def _compare(chosen: Paper, out: Path, data: str | None, scale: float) -> None:
    """Prints what was published beside what came out, and writes it to ``paper.md`` in the run's folder."""
    from rich.table import Table

    from understudy.recipe.papers import MARKS
    from understudy.report.result import read_result
    from understudy.store.files import write_text

    if not chosen.figures:
        return
    ours: Mapping[str, Any] = {row["name"]: row for row in read_result(out)["summary"]}
    rows = []
    for figure in chosen.figures:
        row = ours.get(figure.arm)
        spread = "" if figure.spread is None else f" ± {figure.spread:.2f}"
        found = "–"
        if row is not None and row["mean"] is not None:
            found = f"{100 * row['mean']:.2f}" + ("" if row["std"] is None else f" ± {100 * row['std']:.2f}")
        rows.append(
            (
                figure.arm,
                f"{figure.percent:.2f}{spread}",
                figure.what,
                figure.mark,
                found,
                str(row["n"]) if row else "0",
            )
        )
    columns = ("arm", "published, %", "called", "how sure", "here, %", "n")
    table = Table(title="Published, and here", title_justify="left", box=None)
    for column in columns:
        table.add_column(column)
    for cells in rows:
        table.add_row(*cells)
    console().print(table)
    marks = [
        f"{mark}: {words}" for mark, words in MARKS.items() if any(one.mark == mark for one in chosen.figures)
    ]
    say("; ".join(marks))
    labels = _labels(chosen, data, scale)
    lines = [
        f"# {labels[0]}",
        "",
        *(f"- {sentence}" for sentence in labels[1:]),
        "",
        f"| {' | '.join(columns)} |",
    ]
    lines += [
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(cells)} |" for cells in rows),
        "",
        f"{'; '.join(marks)}",
        "",
    ]
    write_text(out / "paper.md", "\n".join(lines))
