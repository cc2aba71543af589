"""The command that trains a paper's table anew: paper."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from understudy.cli.options import (
    Force,
    Hours,
    Jobs,
    Quiet,
    Seeds,
    Set,
    StoreFolder,
    changed_by,
    console,
    say,
)
from understudy.cli.run import run_raw
from understudy.errors import BadInput

if TYPE_CHECKING:
    from understudy.recipe.papers import Paper

_NO_FIGURES = "no published figures are known."


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
    hours: Hours = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/ and the name unless said.")
    ] = None,
    store: StoreFolder = None,
    force: Force = False,
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
    changed = [*(set_ or []), *([f"seeds={raw['seeds']}"] if seeds is not None else [])]
    labels = _labels(chosen, data=data, scale=scale, changed=changed)
    say(chosen.title)
    for label in labels:
        say(_item(label))
    run_raw(raw, out=where, jobs=jobs, hours=hours, store=store, force=force, quiet=quiet)
    _compare(chosen, where, labels)


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
        figures = "; ".join(f"{figure.percent:g} {figure.what}" for figure in one.figures)
        table.add_row(one.name, one.title)
        table.add_row("", f"[dim]{figures or _NO_FIGURES}[/dim]")
    console().print(table)


def _labels(chosen: Paper, *, data: str | None, scale: float, changed: Sequence[str]) -> list[str]:
    """What a reader must know of the figures to come, a sentence each."""
    said = []
    if data is not None:
        said.append(f"data: {data}, not the paper's {chosen.data}: the figures cannot be compared.")
    if scale != 1:
        said.append(f"epochs: {scale:g} of the published ones.")
    said += [f"changed: {setting}." for setting in changed]
    return said + [f"our choice: {choice}." for choice in chosen.ours]


def _item(sentence: str) -> str:
    """A sentence as an item of a list, in lines no longer than the terminal's."""
    width = max(40, min(console().width, 110))
    return textwrap.fill(sentence, width, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)


def _compare(chosen: Paper, out: Path, labels: Sequence[str]) -> None:
    """Prints what was published beside what came out, and writes it to ``paper.md`` in the run's folder."""
    from rich.table import Table

    from understudy.recipe.papers import MARKS
    from understudy.report.numbers import NOTHING, accuracy
    from understudy.report.result import read_result
    from understudy.store.files import write_text

    head = [f"# {chosen.title}", "", *(f"- {label}" for label in labels), ""]
    if not chosen.figures:
        say(_NO_FIGURES)
        write_text(out / "paper.md", "\n".join([*head, _NO_FIGURES, ""]))
        return
    ours: Mapping[str, Any] = {row["name"]: row for row in read_result(out)["summary"]}
    rows = []
    for figure in chosen.figures:
        row = ours.get(figure.arm)
        rows.append(
            (
                figure.arm,
                f"{figure.percent:.2f}" + ("" if figure.spread is None else f" ± {figure.spread:.2f}"),
                figure.what,
                figure.mark,
                accuracy(row["mean"], row["std"]) if row else NOTHING,
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
    for mark in marks:
        say(mark)
    say(f"table: {out / 'paper.md'}")
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(cells)} |" for cells in rows]
    write_text(out / "paper.md", "\n".join([*head, *lines, "", f"{'; '.join(marks)}.", ""]))
