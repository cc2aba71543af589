"""The benchmarks: ``python -m benchmarks [--only NAME ...] [--quick] [--out FILE] [--plots FOLDER]``, see ``--help``."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is asked for. Status 0; 1 where a figure could not be measured; 2 for a name that is none."""
    from rich.console import Console

    from benchmarks.bench import Bench
    from benchmarks.figures import FIGURES, about
    from benchmarks.plots import draw
    from benchmarks.results import surroundings, table
    from benchmarks.sizes import SIZES

    asked = _parser().parse_args(arguments)
    screen = Console()
    if asked.list:
        for name in FIGURES:
            print(f"{name:<22}{about(name)}")
        return 0
    for name in asked.only:
        if name not in FIGURES:
            print(f"there is no figure {name!r}; there are: {', '.join(FIGURES)}.", file=sys.stderr)
            return 2
    size = SIZES["tiny" if asked.tiny else "quick" if asked.quick else "full"]
    if asked.epochs is not None:
        size = replace(size, epochs=asked.epochs)
    report: dict[str, Any] = {
        "command": shlex.join(
            ["python", "-m", "benchmarks", *(sys.argv[1:] if arguments is None else arguments)]
        ),
        "size": asdict(size),
        "environment": surroundings(),
        "figures": [],
    }
    failed = False
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        bench = Bench(size=size, folder=Path(folder), path=asked.data)
        for name in asked.only or FIGURES:
            print(f"{name}: {about(name)}", flush=True)
            began = time.perf_counter()
            try:
                figure = FIGURES[name](bench).as_json()
            except Exception as error:  # the others are measured nevertheless
                failed = True
                print(f"{name} failed: {error}", flush=True)
                continue
            figure["about"] = about(name)
            figure["seconds"] = round(time.perf_counter() - began, 1)
            figure["load_average"] = surroundings()["load_average"]
            report["figures"].append(figure)
            if asked.out is not None:  # after every figure: what is measured is not lost
                _write(asked.out, report)
            if asked.plots is not None:
                draw(figure, asked.plots)
    screen.print(table(report["figures"]))
    return int(failed)


def _write(file: Path, report: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What understudy costs.")
    parser.add_argument("--list", action="store_true", help="say which figures there are")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="measure these figures only")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, smaller ladders")
    parser.add_argument(
        "--tiny", action="store_true", help="just see that all of it runs; the figures mean nothing"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="of each training in whole ladders")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw growth curves as SVG")
    parser.add_argument("--data", metavar="FILE", help="an .npz file of real images instead of made-up ones")
    return parser


if __name__ == "__main__":
    # before torch is there: one thread, here and in all processes that are started
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    sys.exit(main())
