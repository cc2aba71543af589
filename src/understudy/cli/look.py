"""Commands that look at runs, and one that makes a data set: report, compare, data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.cli.options import console, say
from understudy.errors import BadInput


def report(
    run_folder: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN")],
    open_: Annotated[bool, typer.Option("--open", help="Show the page in a browser.")] = False,
) -> None:
    """Writes report.html of a run anew from its result.json, and shows the table."""
    from understudy.report.deploy import read_deploy
    from understudy.report.page import write_report
    from understudy.report.result import read_result
    from understudy.report.tables import deploy_table, groups_table, problems, summary_table, warnings

    result = read_result(run_folder)
    console().print(summary_table(result))
    if (by_group := groups_table({str(run_folder): result})) is not None:
        console().print(by_group)
    for sentence in (*problems(result), *(f"health: {warning}" for warning in warnings(result))):
        say(sentence)
    page = write_report(run_folder)
    files = read_deploy(run_folder, result["delivered"])
    if files.rows:
        console().print(deploy_table(files.rows, machine=files.machine))
    if files.problem:
        say(files.problem)
    say(f"report: {page}")
    if open_:
        import webbrowser

        if not webbrowser.open(page.resolve().as_uri()):
            say("no browser was found to show it in.")


def compare(
    run_folders: Annotated[list[Path], typer.Argument(help="Folders of runs.", metavar="RUN...")],
    out: Annotated[Path | None, typer.Option(help="Write a page too, such as compare.html.")] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Compare runs on different data or splits, too.")
    ] = False,
) -> None:
    """The students of several runs in one table, and on one page with --out."""
    from understudy.report.result import read_result
    from understudy.report.tables import compare_table, different_data, groups_table, problems

    if len({folder.resolve() for folder in run_folders}) < len(run_folders):
        raise BadInput("a run stands twice; name each once.")
    results = {str(folder): read_result(folder) for folder in run_folders}
    difference = different_data(results)
    if difference and not anyway:
        raise BadInput(
            f"these runs cannot be compared: {difference} With --anyway they are shown all the same."
        )
    console().print(compare_table(results))
    if (by_group := groups_table(results)) is not None:
        console().print(by_group)
    if difference:
        say(f"Beware: {difference}")
    for name, result in results.items():
        for problem in problems(result):
            say(f"{name}: {problem}")
    if out is not None:
        from understudy.report.compare_page import write_comparison

        say(f"page: {write_comparison(results, out)}")


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

    say(str(make_tinyimagenet100_32(source, out)))
