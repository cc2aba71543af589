"""The command ``understudy``. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from understudy import __version__
from understudy.cli import (
    compress,
    cost,
    deploy,
    doctor,
    landscape,
    layers,
    look,
    methods,
    paper,
    run,
    schema,
    store,
)
from understudy.errors import UnderstudyError

app = typer.Typer(
    help="Turns a big PyTorch teacher into a small student: understudy run recipe.yaml",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(run.demo)
app.command()(run.run)
app.command()(run.plan)
app.command()(look.report)
app.command()(look.compare)
app.command()(look.data)
app.command()(compress.compress)
app.command()(cost.cost)
app.command()(layers.layers)
app.command()(methods.methods)
app.command()(paper.paper)
app.command()(landscape.landscape)
app.command()(deploy.export)
app.command()(deploy.latency)
app.command()(doctor.doctor)
app.command()(schema.schema)
store_app = typer.Typer(help="Results that are kept: list, clean, check, move.", rich_markup_mode=None)
store_app.command("ls")(store.ls)
store_app.command("gc")(store.gc)
store_app.command("verify")(store.verify)
store_app.command("export")(store.export)
store_app.command("import")(store.import_)
app.add_typer(store_app, name="store")


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
        _complain(f"{said.rstrip('.')}{'' if said.endswith('?') else '.'} See {where} --help.")
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
