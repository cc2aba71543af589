"""Whole ladders, from the command to the report, against the same trainings with the usual loop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.commands import Cost, run, run_recipe
from benchmarks.made_up import Data, write_npz
from benchmarks.results import Figure

RESNETS = ("resnet-110", "resnet-20", "resnet-8")
PLAIN = ("plain_cnn-10", "plain_cnn-8", "plain_cnn-6", "plain_cnn-4", "plain_cnn-2")
SEEDS = (0, 1, 2)


# --- what is run ------------------------------------------------------------------------------------------------


def npz(bench: Bench) -> tuple[Path, Data, int]:
    """The file with the images of whole ladders, what it holds, and how many more there are for validation."""

    def make() -> tuple[Path, Data, int]:
        data = bench.data(images=bench.size.ladder_images)
        validation = max(data.images // 10, data.classes)
        file = bench.folder / "images.npz"
        write_npz(file, data, validation=validation, test=validation)
        return file, data, validation

    made: tuple[Path, Data, int] = bench.once("npz", make)
    return made


def recipe(
    bench: Bench,
    shape: str,
    networks: Sequence[str],
    *,
    seeds: Sequence[int] = SEEDS,
    temperature: float = 4.0,
    **more: Any,
) -> dict[str, Any]:
    """A recipe without controls: the first network teaches, the last one is the student."""
    file, data, validation = npz(bench)
    models: dict[str, Any] = {"teacher": networks[0], "student": networks[-1]}
    if len(networks) > 2:
        models["assistants"] = list(networks[1:-1])
    return {
        "data": {
            "path": str(file),
            "validation": validation / (data.images + validation),
            "views": {"crop": 4, "flip": True},
        },
        "ladder": {"shape": shape},
        "models": models,
        "teaching": {"temperature": temperature, "combine": "sum"},
        "training": {"epochs": bench.size.epochs, "batch_size": bench.size.batch, "lr": 0.01},
        "controls": [],
        "seeds": list(seeds),
        **more,
    }


def usual_plan(
    bench: Bench, shape: str, networks: Sequence[str], *, seeds: Sequence[int] = SEEDS
) -> dict[str, Any]:
    """The same for the usual loop: teacher and assistants once, the student with every seed."""
    file, data, _ = npz(bench)
    stages = []
    for position, name in enumerate(networks):
        above = list(networks[:position])
        stages.append(
            {
                "name": name,
                "network": name,
                "teachers": above if shape == "dense" else above[-1:],
                "seeds": list(seeds) if name == networks[-1] else [0],
            }
        )
    return {
        "data": str(file),
        "train_images": data.images,
        "settings": {"epochs": bench.size.epochs, "batch_size": bench.size.batch, "lr": 0.01},
        "stages": stages,
    }


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One ladder, climbed by both.

    Attributes:
        store: where ours keeps its results.
        stages: CPU seconds of each training of the usual loop, by network.
    """

    ours: Cost
    usual: Cost
    store: Path
    stages: dict[str, list[float]]

    @property
    def usual_start(self) -> float:
        """CPU seconds that the usual ladder spends outside of its trainings: imports, reading the images."""
        return self.usual.cpu - sum(sum(each) for each in self.stages.values())


def pair(bench: Bench, shape: str, networks: Sequence[str]) -> Pair:
    """Climbs a ladder with both; once for all figures that ask for it."""

    def make() -> Pair:
        folder = bench.folder / f"{shape} {networks[0]}"
        ours = run_recipe(recipe(bench, shape, networks), folder=folder / "ours", store=folder / "store")
        plan = folder / "plan.json"
        plan.write_text(json.dumps(usual_plan(bench, shape, networks)), encoding="utf-8")
        usual = run(["benchmarks.usual_ladder", str(plan)])
        stages = json.loads(usual.printed)["stages"]
        return Pair(ours=ours, usual=usual, store=folder / "store", stages=stages)

    made: Pair = bench.once(f"{shape} {networks}", make)
    return made


# --- figures ----------------------------------------------------------------------------------------------------


def ladder_resnet_chain(bench: Bench) -> Figure:
    """Chain of resnet-110, -20, -8 with 3 seeds, all of it made on the way: CPU time of the usual ladder over ours."""
    return _whole(bench, "ladder_resnet_chain", "chain", RESNETS, 2.3)


def ladder_resnet_dense(bench: Bench) -> Figure:
    """Dense ladder of resnet-110, -20, -8 with 3 seeds, all of it made on the way: CPU time of the usual one over ours."""
    return _whole(bench, "ladder_resnet_dense", "dense", RESNETS, 3.5)


def ladder_plain_dense(bench: Bench) -> Figure:
    """Dense ladder of plain_cnn-10, -8, -6, -4, -2 with 3 seeds: CPU time of the usual one over ours."""
    return _whole(bench, "ladder_plain_dense", "dense", PLAIN, 4.0)


def _whole(bench: Bench, name: str, shape: str, networks: Sequence[str], bound: float) -> Figure:
    both = pair(bench, shape, networks)
    return Figure(
        name=name,
        value=both.usual.cpu / both.ours.cpu,
        bound=bound,
        details={
            **_said(bench),
            "ours": both.ours.as_json(),
            "usual": both.usual.as_json(),
            "usual_seconds_of_each_training": _rounded(both.stages),
        },
    )


def everyday_seed(bench: Bench) -> Figure:
    """The dense resnet ladder is there; then three students with other seeds: CPU time of the usual loop over ours."""
    both = pair(bench, "dense", RESNETS)
    again = recipe(bench, "dense", RESNETS, seeds=(3, 4, 5))
    return _again(bench, "everyday_seed", both, again, trained=RESNETS[-1:])


def everyday_temperature(bench: Bench) -> Figure:
    """The dense resnet ladder is there; then its assistant and three students at another temperature: the same ratio."""
    both = pair(bench, "dense", RESNETS)
    again = recipe(bench, "dense", RESNETS, temperature=6.0)
    return _again(bench, "everyday_temperature", both, again, trained=RESNETS[1:])


def everyday_shape(bench: Bench) -> Figure:
    """The resnet chain is there; then three dense students of the same teacher and assistant: the same ratio."""
    chain, dense = pair(bench, "chain", RESNETS), pair(bench, "dense", RESNETS)
    both = Pair(ours=chain.ours, usual=dense.usual, store=chain.store, stages=dense.stages)
    again = recipe(bench, "dense", RESNETS)
    return _again(bench, "everyday_shape", both, again, trained=RESNETS[-1:])


def _again(bench: Bench, name: str, both: Pair, changed: dict[str, Any], *, trained: Sequence[str]) -> Figure:
    """``trained``: what the usual loop trains again; it keeps all other networks as checkpoints, as ours does."""
    ours = run_recipe(changed, folder=bench.folder / name, store=both.store)
    usual = both.usual_start + sum(sum(both.stages[network]) for network in trained)
    return Figure(
        name=name,
        value=usual / ours.cpu,
        bound=10.0,
        details={
            **_said(bench),
            "ours": ours.as_json(),
            "usual_cpu_seconds": round(usual, 2),
            "usual_trains_again": list(trained),
            "times_where_it_trains_all_again": round(both.usual.cpu / ours.cpu, 2),
        },
    )


def paths(bench: Bench) -> Figure:
    """All 8 paths from plain_cnn-10 through some of 8, 6, 4 to 2: how many trainings are run, the teacher's, too.

    One path after the other, each from its teacher on, there are 28 trainings. ``times_faster`` compares the CPU time
    with that of these eight, run by understudy in stores of their own.
    """
    networks = (PLAIN[0], *PLAIN[1:-1], PLAIN[-1])
    folder = bench.folder / "paths"
    ours = run_recipe(
        recipe(bench, "paths", networks, seeds=[0]), folder=folder / "all", store=folder / "store"
    )
    result = json.loads((folder / "all" / "run" / "result.json").read_text("utf-8"))
    trainings = len({stage["key"] for stage in result["stages"]})
    alone = 0.0
    naive = 0
    for number in range(8):
        among = [name for bit, name in enumerate(PLAIN[1:-1]) if number >> bit & 1]
        way = (PLAIN[0], *among, PLAIN[-1])
        naive += len(way)
        shape = "chain" if among else "direct"
        place = folder / str(number)
        alone += run_recipe(
            recipe(bench, shape, way, seeds=[0]), folder=place / "ours", store=place / "store"
        ).cpu
    return Figure(
        name="paths",
        value=trainings,
        unit="trainings",
        bound=16,
        side="at most",
        details={
            **_said(bench),
            "one_after_the_other": naive,
            "fewer_trainings": round(naive / trainings, 3),
            "times_faster": round(alone / ours.cpu, 3),
            "ours": ours.as_json(),
            "one_after_the_other_cpu_seconds": round(alone, 2),
        },
    )


def memory_ladder(bench: Bench) -> Figure:
    """Anonymous memory of all processes of a whole run over that of the usual ladder's: the worst of the ladders."""
    found = {}
    for shape, networks in (("dense", RESNETS), ("dense", PLAIN)):
        both = pair(bench, shape, networks)
        found[f"{shape} {', '.join(networks)}"] = {
            "ratio": round(both.ours.memory / both.usual.memory, 3),
            "ours_megabytes": round(both.ours.memory / 1e6, 1),
            "usual_megabytes": round(both.usual.memory / 1e6, 1),
        }
    return Figure(
        name="memory_ladder",
        value=max(entry["ratio"] for entry in found.values()),
        bound=1.0,
        side="at most",
        details={**_said(bench), **found},
    )


def _said(bench: Bench) -> dict[str, Any]:
    return {"images": bench.size.ladder_images, "epochs": bench.size.epochs}


def _rounded(stages: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: [round(value, 2) for value in each] for name, each in stages.items()}
