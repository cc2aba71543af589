"""The command that lists the layers of a network by name: layers."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import typer

from understudy.cli.cost import WIDEST
from understudy.cli.options import console, say
from understudy.errors import BadInput

VERSION = 1  # of what --json prints
_ELLIPSIS_FROM = 12  # characters: a column of types narrower than this is left out


def layers(
    model: Annotated[str, typer.Argument(help="A network's name: resnet-20, densenet-121, timm/resnet18.")],
    classes: Annotated[
        int | None, typer.Option(help="100 unless said, 1000 for timm and torchvision.")
    ] = None,
    channels: Annotated[int, typer.Option(help="Of an image: 3 is colour, 1 grey.")] = 3,
    size: Annotated[
        str | None,
        typer.Option(
            help="Height and width of an image, or one number for both: 32 unless said, 224 for timm and torchvision.",
            metavar="HxW",
        ),
    ] = None,
    width: Annotated[float, typer.Option(help="Factor on the channels of a built-in network.")] = 1.0,
    every: Annotated[
        bool, typer.Option("--all", help="Not only layers that give feature maps of 2x2 or more.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """The layers of a network by name, with the shapes of what they give: channels x height x width."""
    from understudy.ladder.stage import Network
    from understudy.models import build
    from understudy.models.features import layer_shapes
    from understudy.models.names import is_built_in

    small = is_built_in(model)
    height, breadth = size_of(size or ("32" if small else "224"))
    if not 1 <= channels <= WIDEST:
        raise BadInput(f"--channels is a whole number from 1 to {WIDEST}; got {channels}.")
    if classes is None:
        classes = 100 if small else 1000
    label = Network(name=model, width=width).label
    built = build(model, classes=classes, channels=channels, size=(height, breadth), width=width)
    shapes = layer_shapes(built, channels=channels, size=(height, breadth))
    modules = dict(built.named_modules())
    rows = [
        (name, type(modules[name]).__name__, shape)
        for name, shape in shapes.items()
        if every or (len(shape) == 3 and min(shape[1:]) >= 2)
    ]
    if as_json:
        said = {
            "version": VERSION,
            "model": model,
            "classes": classes,
            "channels": channels,
            "size": [height, breadth],
            "width": width,
        }
        listed = [{"name": name, "type": kind, "output": list(shape)} for name, kind, shape in rows]
        print(json.dumps({**said, "layers": listed}, indent=2))
        return
    say(f"{label}, images of {channels}x{height}x{breadth}, {classes} classes\n")
    console().print(table_of(rows))
    if len(rows) < len(shapes):
        say(
            f"\n{len(shapes) - len(rows)} layers without feature maps of 2x2 or more are left out; --all has them."
        )


def size_of(text: str) -> tuple[int, int]:
    """Height and width from ``32`` or ``32x48``.

    Raises:
        BadInput: it does not say one or two whole numbers of a possible size.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,3})(?:[x×]([1-9][0-9]{0,3}))?", text.strip().lower())
    numbers = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not found or max(numbers) > WIDEST:
        raise BadInput(
            f"--size is height x width, such as 32x48, or one number for both, from 1 to {WIDEST}; got {text!r}."
        )
    return numbers


def table_of(rows: list[tuple[str, str, tuple[int, ...]]], *, width: int | None = None) -> Any:
    """A row for each layer.

    Args:
        rows: name, type and output shape.
        width: in characters; None: the terminal's. Too narrow a table loses the types; names fold, shapes never do.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shell = Console(width=width) if width else console()
    shapes = ["x".join(map(str, shape)) or "one number" for _, _, shape in rows]
    needed = max((len(name) for name, _, _ in rows), default=0) + max(map(len, shapes), default=0)
    typed = shell.width - min(needed, shell.width) >= _ELLIPSIS_FROM + 4
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("layer", overflow="fold")
    if typed:
        table.add_column("type", no_wrap=True, overflow="ellipsis")
    table.add_column("output", justify="right", no_wrap=True)
    for (name, kind, _), shape in zip(rows, shapes, strict=True):
        table.add_row(Text(name), *([Text(kind)] if typed else []), Text(shape))
    return table
