"""What ``understudy plan`` predicts, against what then happens."""

from __future__ import annotations

import json
import math
from typing import Any

import yaml

from benchmarks.bench import Bench
from benchmarks.commands import run, run_recipe
from benchmarks.figures.ladders import PLAIN, recipe
from benchmarks.results import Figure

WITHIN = 0.30


def plan_time(bench: Bench) -> Figure:
    """Seconds that plan predicts for three recipes, and what they take: how far off the worst is, as a factor."""
    return _worst(bench, "plan_time", "seconds")


def plan_disk(bench: Bench) -> Figure:
    """Bytes that plan predicts a run to add to its store, and what it adds: how far off the worst is, as a factor."""
    return _worst(bench, "plan_disk", "disk")


def plan_memory(bench: Bench) -> Figure:
    """Anonymous memory that plan predicts, and what is there at most: how far off the worst is, as a factor."""
    return _worst(bench, "plan_memory", "memory")


def _recipes(bench: Bench) -> dict[str, dict[str, Any]]:
    return {
        "chain of resnet-32, -20, -8, two seeds": recipe(
            bench, "chain", ("resnet-32", "resnet-20", "resnet-8"), seeds=(0, 1)
        ),
        "dense plain_cnn-10, -8, -6, -4, -2": recipe(bench, "dense", PLAIN, seeds=(0,)),
        "wrn-16-2 to resnet-8, three seeds, two controls": recipe(
            bench, "direct", ("wrn-16-2", "resnet-8"), controls=["scratch", "direct_long"]
        ),
    }


def _compared(bench: Bench) -> dict[str, dict[str, dict[str, float]]]:
    """By recipe and quantity: what was predicted and what was measured."""

    def make() -> dict[str, dict[str, dict[str, float]]]:
        found = {}
        for number, (name, content) in enumerate(_recipes(bench).items()):
            folder = bench.folder / f"plan {number}"
            folder.mkdir()
            file = folder / "recipe.yaml"
            file.write_text(yaml.safe_dump(content), encoding="utf-8")
            store = folder / "store"
            predicted = json.loads(run(["benchmarks.predicted", str(file), str(store)]).printed)
            cost = run_recipe(content, folder=folder / "ours", store=store)
            measured = {"seconds": cost.wall, "disk": cost.disk, "memory": cost.memory}
            found[name] = {
                what: {
                    "predicted": predicted[what],
                    "measured": measured[what],
                    "ratio": predicted[what] / measured[what],
                }
                for what in measured
            }
            found[name]["seconds"]["measured_cpu"] = cost.cpu
        return found

    compared: dict[str, dict[str, dict[str, float]]] = bench.once("plan", make)
    return compared


def _worst(bench: Bench, name: str, what: str) -> Figure:
    found = {of: compared[what] for of, compared in _compared(bench).items()}
    ratios = [entry["ratio"] for entry in found.values()]
    worst = max(ratios, key=lambda ratio: abs(math.log(ratio)))
    rounded = {of: {key: round(value, 3) for key, value in entry.items()} for of, entry in found.items()}
    return Figure(
        name=name,
        value=max(worst, 1 / worst),
        unit="times off",
        bound=1 + WITHIN,
        side="at most",
        spread=(min(ratios), max(ratios)),
        details={"epochs": bench.size.epochs, "images": bench.size.ladder_images, "recipes": rounded},
    )
