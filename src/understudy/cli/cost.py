"""The command that counts what a network costs: cost."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from understudy.cli.options import console, say
from understudy.errors import BadInput

if TYPE_CHECKING:
    from understudy.structure.cost import Costs

VERSION = 1  # of what --json prints
WIDEST = 4096  # pixels and channels; one image of that passes through the network for real


def cost(
    model: Annotated[str, typer.Argument(help="A network's name: resnet-20, mobilenet_v2, timm/resnet18.")],
    input_: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="Channels, height and width of an image: 3x32x32 unless said, 3x224x224 for timm and torchvision.",
            metavar="CxHxW",
        ),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="100 unless said, 1000 for timm and torchvision.")
    ] = None,
    width: Annotated[float, typer.Option(help="Factor on the channels of a built-in network.")] = 1.0,
    strip: Annotated[
        int | None, typer.Option(help="Count it with 1xN filters in place of kxk ones.", metavar="N")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, all figures as whole numbers.")
    ] = False,
) -> None:
    """Parameters, multiply-adds and peak activation memory of a network, layer by layer, for one image."""
    from understudy.ladder.stage import Network
    from understudy.models import build
    from understudy.models.names import is_built_in
    from understudy.models.strips import stripped
    from understudy.structure.cost import layer_costs

    network = Network(name=model, width=width, strip=strip)
    small = is_built_in(model)
    channels, *size = image_of(input_ or ("3x32x32" if small else "3x224x224"))
    if classes is None:
        classes = 100 if small else 1000
    built = build(model, classes=classes, channels=channels, size=(size[0], size[1]), width=width)
    if strip is not None:
        built = stripped(built, strip)
    try:
        costs = layer_costs(built, channels=channels, size=(size[0], size[1]))
    except BadInput as error:
        if strip is None:
            raise
        raise BadInput(
            f"with 1x{strip} filters the layers of {model} do not fit together any more: {error}"
        ) from error
    if as_json:
        said = {
            "model": model,
            "input": [channels, *size],
            "classes": classes,
            "width": width,
            "strip": strip,
        }
        print(json.dumps({"version": VERSION, **said, **_raw(costs)}, indent=2))
        return
    say(f"{network.label}, one image of {channels}x{size[0]}x{size[1]}, {classes} classes\n")
    console().print(table_of(costs))
    say(f"\n{_in_all(costs)}")


def image_of(text: str) -> tuple[int, int, int]:
    """Channels, height and width from ``3x32x32``.

    Raises:
        BadInput: it does not say three whole numbers of a possible size.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,3})[x×]([1-9][0-9]{0,3})[x×]([1-9][0-9]{0,3})", text.strip().lower())
    numbers = tuple(int(part) for part in found.groups()) if found else ()
    if len(numbers) != 3 or max(numbers) > WIDEST:
        raise BadInput(
            f"--input is channels x height x width, such as 3x32x32, each from 1 to {WIDEST}; got {text!r}."
        )
    return numbers[0], numbers[1], numbers[2]


def table_of(costs: Costs, *, width: int | None = None) -> Any:
    """A row for each layer that has parameters or multiply-adds, and one for all of them.

    Args:
        costs: of a network.
        width: in characters; None: the terminal's. Too narrow a table loses the kind of the layers, then their
            output; names fold, figures never do.
    """
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    from understudy.report.numbers import mmac

    total = ("in all", "", "", f"{costs.total.parameters:,}", mmac(costs.total.multiply_adds))
    headers = ("layer", "kind", "output", "parameters", "MMAC")

    def table(shown: list[int], cut: int | None = None) -> Table:
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for i in shown:
            name = i == 0
            made.add_column(
                headers[i],
                justify="left" if i < 2 else "right",
                no_wrap=not name,
                overflow="fold" if name else "ellipsis",
            )
        for row in _rows(costs):
            made.add_row(*(Text(row[i][:cut] if i == 0 else row[i]) for i in shown))
        made.add_section()
        made.add_row(*(Text(total[i], style="bold") for i in shown))
        return made

    shell = Console(width=width) if width else console()
    shown = [0, 1, 2, 3, 4]
    for drop in (1, 2):
        if Measurement.get(shell, shell.options.update(width=10_000), table(shown, 16)).maximum > shell.width:
            shown.remove(drop)
    return table(shown)


def _rows(costs: Costs) -> list[tuple[str, ...]]:
    from understudy.report.numbers import mmac

    return [
        (
            layer.name or "(its own)",
            layer.kind,
            "" if layer.output is None else "x".join(map(str, layer.output)),
            f"{layer.parameters:,}",
            mmac(layer.multiply_adds),
        )
        for layer in costs.layers
        if layer.parameters or layer.multiply_adds
    ]


def _in_all(costs: Costs) -> str:
    from understudy.report.numbers import mmac, three_figures

    macs, peak = costs.total.multiply_adds, costs.peak_activation_bytes
    memory = f"{three_figures(peak / 1e6)} MB" if peak >= 1e6 else f"{three_figures(peak / 1e3)} kB"
    lines = [
        f"{costs.total.parameters:,} parameters",
        f"{macs:,} multiply-adds = {mmac(macs)} MMAC; a multiply-add (MAC) is 2 FLOPs",
        f"{memory} of activations at the peak, in float32, one layer run after the other",
    ]
    if len(_rows(costs)) < len(costs.layers):
        lines.append("Layers without parameters and multiply-adds are left out above; --json has them.")
    return "\n".join(lines)


def _raw(costs: Costs) -> dict[str, Any]:
    return {
        "parameters": costs.total.parameters,
        "multiply_adds": costs.total.multiply_adds,
        "peak_activation_bytes": costs.peak_activation_bytes,
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "output": None if layer.output is None else list(layer.output),
                "parameters": layer.parameters,
                "multiply_adds": layer.multiply_adds,
            }
            for layer in costs.layers
        ],
    }
