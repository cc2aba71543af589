"""How cost grows: with teachers, samples, classes and seeds. Each is a curve, drawn by ``benchmarks.plots``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.bench import Bench
from benchmarks.commands import run, run_recipe
from benchmarks.figures.ladders import recipe, usual_plan
from benchmarks.figures.steps import SEVEN
from benchmarks.made_up import Data
from benchmarks.results import Figure
from benchmarks.turns import Work, paired
from understudy.training.signals import Signals


def curve(
    x: Sequence[float], lines: dict[str, list[float]], *, x_label: str, y_label: str, log_x: bool = False
) -> dict[str, Any]:
    """What ``benchmarks.plots`` draws."""
    return {
        "x": list(x),
        "lines": {name: [round(value, 4) for value in line] for name, line in lines.items()},
        "x_label": x_label,
        "y_label": y_label,
        "log_x": log_x,
    }


def growth_teachers(bench: Bench) -> Figure:
    """Steps of resnet-8 by the number of teachers, over a step from labels alone; the figure is that of 7 kept ones."""
    counts = [0, 1, 2, 3, 5, 7]
    ratios, milliseconds = _over_plain(
        bench,
        counts,
        plain=lambda count: bench.ours("resnet-8"),
        works={
            "kept": lambda count: bench.ours("resnet-8", SEVEN[:count]),
            "live": lambda count: bench.ours("resnet-8", SEVEN[:count], kept=False),
            "usual loop": lambda count: bench.usual("resnet-8", SEVEN[:count]),
        },
    )
    return Figure(
        name="growth_teachers",
        value=ratios["kept"][-1],
        rounds=_few(bench),
        details={
            "curve": curve(counts, ratios, x_label="teachers", y_label="times a step from labels"),
            "ms_a_step": milliseconds,
        },
    )


def _few(bench: Bench) -> int:
    return max(2, bench.size.rounds // 3)


def _over_plain(
    bench: Bench,
    counts: Sequence[int],
    *,
    plain: Callable[[int], Work],
    works: Mapping[str, Callable[[int], Work]],
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """For each count, works interleaved with a plain one: the ratio to it within rounds, and milliseconds of a step."""
    ratios: dict[str, list[float]] = {name: [] for name in works}
    milliseconds: dict[str, list[float]] = {name: [] for name in ("plain", *works)}
    for count in counts:
        here = {"plain": plain(count), **{name: make(count) for name, make in works.items()}}
        rounds = bench.rounds(here, rounds=_few(bench))
        for name in works:
            ratios[name].append(paired(rounds.seconds(name), rounds.seconds("plain")).value)
        for name in here:
            milliseconds[name].append(round(1000 * rounds.typical(name), 3))
    return ratios, milliseconds


def growth_samples(bench: Bench) -> Figure:
    """Anonymous memory beyond that of the pixels, from 10,000 to 100,000 samples with 1,000 classes: last over first.

    Signals of two teachers take 4 kB a sample and view on disk; if they were held in memory, it would show.
    """
    unit = {"full": 10_000, "quick": 2_000, "tiny": 32}[bench.size.name]
    counts = [unit, 2 * unit, 5 * unit, 10 * unit]
    classes = 1000 if bench.size.name != "tiny" else 10
    works: dict[str, Work] = {
        str(count): bench.ours(
            "plain_cnn-2",
            ("plain_cnn-4", "plain_cnn-2"),
            data=bench.data(images=count, classes=classes, side=16, path=None),
        )
        for count in counts
    }
    rounds = bench.rounds(works, rounds=2)
    pixels = [count * 16 * 16 * 3 for count in counts]
    beyond = [(rounds.memory[str(count)] - size) / 1e6 for count, size in zip(counts, pixels, strict=True)]
    signals = [2 * 2 * classes * count / 1e6 for count in counts]
    return Figure(
        name="growth_samples",
        value=beyond[-1] / beyond[0],
        rounds=2,
        details={
            "curve": curve(
                counts,
                {"anonymous, less the pixels": beyond, "signals of a view, on disk": signals},
                x_label="samples",
                y_label="megabytes",
            ),
            "ms_a_step": {name: round(1000 * rounds.typical(name), 3) for name in works},
        },
    )


def growth_classes(bench: Bench) -> Figure:
    """Steps of resnet-8 with a kept teacher by the number of classes, over steps from labels; top_k 64 at the most classes."""
    counts = [10, 100, 1000, 10_000] if bench.size.name != "tiny" else [10, 100]

    def data(count: int) -> Data:
        return bench.data(classes=count, path=None)

    def top(count: int) -> Signals:
        return Signals(top_k=64 if count > 64 else None)

    ratios, milliseconds = _over_plain(
        bench,
        counts,
        plain=lambda count: bench.ours("resnet-8", data=data(count)),
        works={
            "top_k 64": lambda count: bench.ours(
                "resnet-8", ("resnet-14",), data=data(count), signals=top(count)
            ),
            "all logits": lambda count: bench.ours("resnet-8", ("resnet-14",), data=data(count)),
        },
    )
    sizes = {
        "top_k 64": [top(count).row_bytes(classes=count) for count in counts],
        "all logits": [Signals().row_bytes(classes=count) for count in counts],
    }
    return Figure(
        name="growth_classes",
        value=ratios["top_k 64"][-1],
        rounds=_few(bench),
        details={
            "curve": curve(counts, ratios, x_label="classes", y_label="times a step from labels", log_x=True),
            "ms_a_step": milliseconds,
            "bytes_a_sample": sizes,
        },
    )


def growth_seeds(bench: Bench) -> Figure:
    """CPU seconds of resnet-32 to resnet-8, whole, by the number of seeds: what a seed adds in the usual loop over ours."""
    counts = [1, 2, 4, 8]
    networks = ("resnet-32", "resnet-8")
    ours, usual = [], []
    for count in counts:
        folder = bench.folder / f"seeds {count}"
        content = recipe(bench, "direct", networks, seeds=range(count))
        ours.append(run_recipe(content, folder=folder / "ours", store=folder / "store").cpu)
        plan = folder / "plan.json"
        plan.write_text(
            json.dumps(usual_plan(bench, "chain", networks, seeds=range(count))), encoding="utf-8"
        )
        usual.append(run(["benchmarks.usual_ladder", str(plan)]).cpu)
    each = {name: (line[-1] - line[0]) / 7 for name, line in (("ours", ours), ("usual", usual))}
    return Figure(
        name="growth_seeds",
        value=each["usual"] / each["ours"],
        details={
            "curve": curve(counts, {"ours": ours, "usual": usual}, x_label="seeds", y_label="CPU seconds"),
            "seconds_a_seed": {name: round(value, 2) for name, value in each.items()},
            "middle_ratio": round(median(b / a for a, b in zip(ours, usual, strict=True)), 3),
            "epochs": bench.size.epochs,
        },
    )
