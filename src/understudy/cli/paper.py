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
    from understudy.report.published import Published


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
    changed = [*(set_ or []), *([f"seeds={raw['seeds']}"] if seeds is not None else [])]
    published = _published(chosen, data=data, scale=scale, changed=changed)
    if show:
        from understudy.recipe import check

        print(_commented(published) + check(raw).as_yaml(), end="")
        return
    where = out or Path("runs") / chosen.name
    if not quiet:
        say(chosen.title)
        for label in published.labels:
            say(_item(label))
    try:
        run_raw(raw, out=where, jobs=jobs, hours=hours, store=store, force=force, quiet=quiet)
    finally:  # an unfinished run, or one of which a stage failed, needs its labels no less
        if _is_of(raw, where):
            _write(published, where)
    _compare(published, where)


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

    from understudy.recipe.papers import MARKS, PAPERS

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for one in PAPERS.values():
        table.add_row(one.name, one.title)
        for line in _figures(_published(one)):
            table.add_row("", f"[dim]{line}[/dim]")
        if one.said:
            table.add_row("", f"[dim]{one.said}[/dim]")
    console().print(table)
    say("Figures are top-1 on the test images. How sure a figure is:")
    for mark, words in MARKS.items():
        say(_item(f"{mark}: {words}"))
    say("understudy paper NAME --show has the recipe, and what in it is our choice.")


def _published(
    chosen: Paper, *, data: str | None = None, scale: float = 1, changed: Sequence[str] = ()
) -> Published:
    """The paper's figures, with what a reader must know of those that come out, a sentence each."""
    from understudy.recipe.papers import MARKS
    from understudy.report.published import Published

    labels = []
    if data is not None:
        labels.append(
            f"data: {data}, taken as not the paper's {chosen.data}: the figures cannot be compared."
        )
    if scale != 1:
        labels.append(f"epochs: {scale:g} of the published ones.")
    labels += [f"changed: {setting}." for setting in changed]
    labels += [f"our choice: {choice}." for choice in chosen.ours]
    return Published(
        title=chosen.title,
        said=chosen.said,
        labels=tuple(labels),
        figures=tuple(
            {"arm": one.arm, "percent": one.percent, "spread": one.spread, "what": one.what, "mark": one.mark}
            for one in chosen.figures
        ),
        marks={str(mark): words for mark, words in MARKS.items()},
    )


def _figures(published: Published) -> list[str]:
    """Each published figure in a line of its own."""
    from understudy.report.published import percent

    return [
        f"{figure['arm']}: {percent(figure)} % ({figure['what']}; {figure['mark']})"
        for figure in published.figures
    ]


def _commented(published: Published) -> str:
    """Title, figures and labels as comments at the head of a recipe."""
    lines = [published.title, *(f"published: {line}" for line in _figures(published))]
    lines += [published.said] if published.said else []
    return "".join(f"# {line}\n" for line in [*lines, *published.labels])


def _item(sentence: str) -> str:
    """A sentence as an item of a list, in lines no longer than the terminal's."""
    width = max(40, min(console().width, 110))
    return textwrap.fill(sentence, width, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)


def _is_of(raw: Mapping[str, Any], out: Path) -> bool:
    """Whether the run in ``out`` is one of this recipe."""
    from understudy.recipe import check, read_file

    there = all((out / name).is_file() for name in ("recipe.yaml", "result.json"))
    return there and check(read_file(out / "recipe.yaml")).as_dict() == check(raw).as_dict()


def _write(published: Published, out: Path) -> None:
    """Writes what was published beside what came out into the run's folder and onto its page."""
    from understudy.report.page import write_report
    from understudy.report.published import FILE, TEXT, as_markdown
    from understudy.report.result import read_result
    from understudy.store.files import write_json, write_text

    write_json(out / FILE, published.content(out))
    write_text(out / TEXT, as_markdown(published, read_result(out)["summary"]))
    write_report(out)


def _compare(published: Published, out: Path) -> None:
    """Prints what was published beside what came out."""
    from rich.table import Table

    from understudy.report.page import FILE as PAGE
    from understudy.report.published import COLUMNS, TEXT, TITLE, rows
    from understudy.report.result import read_result

    found = rows(published, read_result(out)["summary"])
    if found:
        table = Table(title=TITLE, title_justify="left", box=None)
        for column in COLUMNS:
            table.add_column(column)
        for cells in found:
            table.add_row(*cells)
        console().print(table)
    for label in [label for label in published.labels if not label.startswith("our choice")]:
        say(_item(label))
    for note in published.notes():
        say(note)
    say(f"table, and what is our choice: {out / TEXT}, and {out / PAGE}")
