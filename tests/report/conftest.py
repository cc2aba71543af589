"""Made-up results of runs: what the runner would have written, without running anything."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from PIL import Image

from understudy.report.statistics import mean_std_interval, paired_difference

Results = Callable[..., dict[str, Any]]

# name, role, model, teachers, parameters, multiply-adds, test accuracy of each seed
Arm = tuple[str, str, str, tuple[str, ...], int, int, tuple[float, ...]]

DENSE: tuple[Arm, ...] = (
    ("teacher", "teacher", "plain_cnn-10", (), 11_173_962, 41_300_000, (0.7012,)),
    ("dense/plain_cnn-8", "assistant", "plain_cnn-8", ("teacher",), 1_173_962, 21_300_000, (0.6831,)),
    (
        "dense/plain_cnn-4",
        "assistant",
        "plain_cnn-4",
        ("teacher", "dense/plain_cnn-8"),
        173_962,
        9_400_000,
        (0.6543,),
    ),
    (
        "dense",
        "student",
        "plain_cnn-2",
        ("teacher", "dense/plain_cnn-8", "dense/plain_cnn-4"),
        17_962,
        1_300_000,
        (0.6142, 0.6173, 0.6111),
    ),
    ("scratch", "student", "plain_cnn-2", (), 17_962, 1_300_000, (0.58, 0.585, 0.575)),
    ("direct", "student", "plain_cnn-2", ("teacher",), 17_962, 1_300_000, (0.60, 0.603, 0.597)),
)


def _result(
    arms: tuple[Arm, ...] = DENSE,
    *,
    delivered: tuple[str, ...] = ("dense",),
    controls: tuple[str, ...] = ("scratch", "direct"),
    shape: str = "dense",
    bad: dict[tuple[str, int], tuple[str, str]] | None = None,
) -> dict[str, Any]:
    """The content of ``result.json``; ``bad`` gives some (stage, seed) another state and a message."""
    bad = bad or {}
    graph, stages, summary = [], [], []
    for name, role, model, teachers, parameters, multiply_adds, accuracies in arms:
        about = {"model": model, "parameters": parameters, "multiply_adds": multiply_adds}
        graph.append({"name": name, "role": role, "teachers": list(teachers), **about})
        good = []
        for seed, accuracy in enumerate(accuracies):
            state, message = bad.get((name, seed), ("done", ""))
            done = state == "done"
            good += [accuracy] if done else []
            stages.append(
                {
                    "name": name,
                    "seed": seed,
                    "key": sha256(f"{name} {seed}".encode()).hexdigest()[:40],
                    "role": role,
                    **about,
                }
                | {"state": state, "message": message, "teachers": list(teachers), "epochs": 60}
                | {"seconds": 80.4 if done else None, "from_store": done and seed == 0}
                | {"validation": {"accuracy": accuracy + 0.01} if done else {}}
                | {"test": {"accuracy": accuracy} if done else {}}
            )
        if good:
            mean, std, interval = mean_std_interval(good)
            summary.append(
                {"name": name, "role": role, **about, "epochs": 60, "n": len(good)}
                | {"mean": mean, "std": std, "interval": list(interval) if interval else None}
            )
    complete = not any(state != "done" for state, _ in bad.values())
    return {
        "version": 1,
        "complete": complete,
        "ladder": {
            "shape": shape,
            "delivered": list(delivered),
            "controls": list(controls),
            "seeds": list(range(max(len(arm[-1]) for arm in arms))),
            "repeat": "student",
            "graph": graph,
            "edges": [
                {"from": teacher, "to": arm[0], "kind": "teaches"} for arm in arms for teacher in arm[3]
            ],
        },
        "data": {
            "name": "digits",
            "classes": 3,
            "class_names": ["zero", "one", "two"],
            "train": 1294,
            "validation": 143,
            "test": 360,
            "image": [8, 8, 1],
            "fingerprint": "ab" * 32,
        },
        "environment": {
            "understudy": "0.1.0",
            "python": "3.11.9",
            "torch": "2.13.0",
            "device": "cpu",
            "cores": 2,
        },
        "command": "understudy run recipe.yaml --seeds 3 --out runs/made-up",
        "delivered": {"name": delivered[0], "seed": 1 if len(arms[-1][-1]) > 1 else 0, "key": "f" * 40}
        if complete
        else None,
        "stages": stages,
        "summary": summary,
    }


@pytest.fixture
def made_up() -> Results:
    """Makes the content of a ``result.json``; without arguments, that of a finished dense ladder with two controls."""
    return _result


@pytest.fixture
def one_stage(made_up: Results) -> dict[str, Any]:
    """A single network, one seed."""
    arm: Arm = ("scratch", "student", "plain_cnn-2", (), 17_962, 1_300_000, (0.5812,))
    return made_up((arm,), delivered=("scratch",), controls=(), shape="scratch")


@pytest.fixture
def unfinished(made_up: Results) -> dict[str, Any]:
    """A dense ladder in which one seed failed, one was left out, and one was interrupted."""
    return made_up(
        bad={
            ("dense", 0): ("failed", "its loss became NaN in epoch 3. Try a smaller training.lr."),
            ("dense", 1): ("left out", "it needs dense/plain_cnn-4, which could not be made"),
            ("direct", 2): ("interrupted", ""),
        }
    )


@pytest.fixture
def every_path(made_up: Results) -> dict[str, Any]:
    """All 2^3 paths through three assistants."""
    arms: list[Arm] = [("teacher", "teacher", "plain_cnn-10", (), 11_173_962, 41_300_000, (0.7,))]
    places: list[str] = []
    for count in range(8):
        chosen = [f"plain_cnn-{width}" for bit, width in ((4, 8), (2, 6), (1, 4)) if count & bit]
        before = "teacher"
        for depth, model in enumerate(chosen):
            here = " > ".join(chosen[: depth + 1])
            if here not in places:
                places.append(here)
                arms.append(
                    (here, "assistant", model, (before,), 1_173_962, 21_300_000, (0.65 + count / 100,))
                )
            before = here
        name = "path " + (" > ".join(chosen) or "direct")
        arms.append((name, "student", "plain_cnn-2", (before,), 17_962, 1_300_000, (0.6, 0.6 + count / 100)))
    names = tuple(arm[0] for arm in arms if arm[1] == "student")
    return made_up(tuple(arms), delivered=names[::-1], controls=(), shape="paths")


@pytest.fixture
def twenty(made_up: Results) -> dict[str, Any]:
    """Twenty stages that all learn from all before them."""
    arms = [
        (
            f"rung {n}",
            "teacher" if n == 0 else "student" if n == 19 else "assistant",
            f"plain_cnn-{22 - n}",
            tuple(f"rung {before}" for before in range(n)),
            1_000_000 // (n + 1),
            10_000_000 // (n + 1),
            (0.7 - n / 200,),
        )
        for n in range(20)
    ]
    return made_up(tuple(arms), delivered=("rung 19",), controls=())


def _told(result: dict[str, Any], *, classes: int = 3, examples: int = 3, size: int = 8) -> dict[str, Any]:
    """Fills ``result`` with all that a finished run tells beside its accuracies: curves, analysis, images, comparison."""
    against = "direct" if any(entry["name"] == "direct" for entry in result["summary"]) else None
    students = [entry["name"] for entry in result["summary"] if entry["role"] == "student"]
    claim = result["ladder"]["delivered"][:1]
    result["compare"] = {
        "against": against,
        "claim": claim,
        "level": 0.05,
        "varied": "Over seeds the students varied.",
    }
    if len(result["data"]["class_names"]) != classes:
        result["data"] |= {"classes": classes, "class_names": [f"class-{n:03}" for n in range(classes)]}
    reached: dict[str, dict[int, float]] = {}
    for stage in result["stages"]:
        stage |= {"analysis": {}, "warnings": [], "curve": []}
        if stage["state"] != "done":
            continue
        if stage.get("choice"):  # nothing was trained
            continue
        accuracy = stage["test"]["accuracy"]
        reached.setdefault(stage["name"], {})[stage["seed"]] = accuracy
        wobble = [0.02 * math.sin(7 * epoch + stage["seed"]) for epoch in range(1, 61)]
        stage["curve"] = [
            {
                "epoch": epoch,
                "loss": 2.3 / epoch + 0.1,
                "accuracy": accuracy * (1 - 0.8 / epoch) + wobble[epoch - 1],
            }
            for epoch in range(1, 61)
        ]
        per_class = [min(1.0, max(0.0, accuracy + 0.2 * math.sin(3 * number))) for number in range(classes)]
        worst = min(range(classes), key=per_class.__getitem__)
        stage["analysis"] = {
            "ece": 0.05 + stage["seed"] / 1000,
            "entropy": {"temperature": 4.0, "nats": 1.0 + stage["seed"] / 10},
            "per_class": per_class,
            "worst_class": [worst, per_class[worst]],
            "teachers": {
                teacher: {"agreement": 0.85 + stage["seed"] / 500, "lost": 31 + stage["seed"], "gained": 12}
                | {"p": 0.004, "error_overlap": 0.7}
                for teacher in stage["teachers"]
            },
        }
    for entry in result["summary"]:
        entry["difference"] = None
        seeds = sorted(set(reached.get(entry["name"], {})) & set(reached.get(against or "", {})))
        if entry["name"] in students and entry["name"] != against and seeds:
            found = paired_difference(
                [reached[entry["name"]][seed] for seed in seeds], [reached["direct"][seed] for seed in seeds]
            )
            entry["difference"] = dataclasses.asdict(found) | {
                "interval": list(found.interval) if found.interval else None,
                "p_corrected": found.p,
                "claim": entry["name"] in claim,
            }
    delivered = result["delivered"]
    if delivered:
        result["lost_examples"] = [
            {"index": 10 * number, "label": number % classes, "answer": (number + 1) % classes}
            | {"teacher": number % classes, "png": _png(number, size)}
            for number in range(examples)
        ]
    if delivered and against and delivered["name"] != against:
        result["students_compared"] = {
            "first": delivered["name"],
            "second": against,
            "seed": delivered["seed"],
        }
        result["students_compared"] |= {"only_first": 41, "only_second": 26, "p": 0.086}
    return result


def _png(number: int, size: int) -> str:
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture
def told() -> Results:
    """Fills the content of a ``result.json`` with all that newer runs tell."""
    return _told


@pytest.fixture
def thirty_seeds(made_up: Results) -> dict[str, Any]:
    """A dense ladder whose students were made with thirty seeds."""
    spread = tuple(0.02 * math.sin(12.9 * seed) for seed in range(30))
    arms = [
        (*arm[:6], tuple(arm[6][0] + wobble for wobble in spread) if arm[1] == "student" else arm[6])
        for arm in DENSE
    ]
    return made_up(tuple(arms))


WIDE, MIDDLE, NARROW = (
    41_300_000,
    22_600_000,
    12_300_000,
)  # multiply-adds of the whole network, and of two structures

# a ladder of structures: what the whole network is searched for, and what is made of it
SHAPED: tuple[Arm, ...] = (
    ("teacher", "teacher", "mobilenet_v2", (), 2_351_972, WIDE, (0.6512,)),
    ("structure/search 1", "assistant", "mobilenet_v2", ("teacher",), 2_351_972, WIDE, (0.6431,)),
    ("structure/search 3", "assistant", "mobilenet_v2", ("teacher",), 2_351_972, WIDE, (0.6212,)),
    ("structure 0.548x MAC", "assistant", "mobilenet_v2 0.548x MAC", (), 1_402_120, MIDDLE, (0.0412,)),
    ("structure", "assistant", "mobilenet_v2 0.3x MAC", (), 702_345, NARROW, (0.0123,)),
    (
        "dense/mobilenet_v2 0.548x MAC",
        "assistant",
        "mobilenet_v2 0.548x MAC",
        ("teacher",),
        1_402_120,
        MIDDLE,
        (0.6468,),
    ),
    (
        "dense",
        "student",
        "mobilenet_v2 0.3x MAC",
        ("teacher", "dense/mobilenet_v2 0.548x MAC"),
        702_345,
        NARROW,
        (0.6342, 0.6373, 0.6311),
    ),
    ("scratch", "student", "mobilenet_v2 0.3x MAC", (), 702_345, NARROW, (0.60, 0.605, 0.595)),
    ("direct", "student", "mobilenet_v2 0.3x MAC", ("teacher",), 702_345, NARROW, (0.62, 0.623, 0.617)),
    ("uniform", "student", "mobilenet_v2 x0.52", ("teacher",), 690_001, 12_250_000, (0.611, 0.615, 0.609)),
    (
        "int8",
        "student",
        "mobilenet_v2 0.3x MAC",
        ("dense", "teacher"),
        702_345,
        NARROW,
        (0.6331, 0.636, 0.63),
    ),
)


def _choice(budget: float, layers: int, *, dropped: int = 1) -> dict[str, Any]:
    """What a stage that chose says of it: later layers lose more, and some are dropped."""
    widths = []
    for number in range(layers):
        before = 16 * 2 ** min(6, 7 * number // layers) * (3 if number % 3 == 1 else 1)
        after = max(1, round(before * (1 - (1 - budget) * (number + 1) / layers)))
        part = ("stem", *(f"stage{part}" for part in range(1, 7)), "head")[min(7, 8 * number // layers)]
        name = f"{part}.{number % 4}.{('expand', 'depthwise', 'project')[number % 3]}.conv"
        gone = layers // 2 < number <= layers // 2 + dropped
        widths.append({"layer": name, "before": before, "after": 0 if gone else after})
    return {
        "search": "structure/search 3",
        "budget": {"multiply_adds": budget},
        "whole": {"parameters": 2_351_972, "multiply_adds": WIDE},
        "reached": {"multiply_adds": 0.9932},
        "threshold": 0.012345,
        "widths": widths,
        "candidates": [
            {"search": f"structure/search {strength}", "validation": found, "threshold": 0.01 * strength}
            | {"reached": {"multiply_adds": 0.99}}
            for strength, found in ((1, 0.0381), (3, 0.0412))
        ],
    }


def _shaped(*, layers: int = 53) -> dict[str, Any]:
    """The content of ``result.json`` of a ladder of structures, with two budgets and two searches."""
    result = _result(SHAPED, controls=("scratch", "direct", "uniform"))
    budgets = {"structure 0.548x MAC": 0.548, "structure": 0.3}
    for stage in result["stages"]:
        if stage["name"] in budgets:
            stage |= {"choice": _choice(budgets[stage["name"]], layers), "epochs": 0}
    for entry in result["summary"]:
        if entry["name"] in budgets:
            entry["epochs"] = 0
    searches = ("structure/search 1", "structure/search 3")
    students = ("dense", "scratch", "direct", "int8")
    edges = [("teacher", search, "starts") for search in searches]
    edges += [(search, chosen, "chooses") for chosen in budgets for search in searches]
    edges += [("structure 0.548x MAC", "dense/mobilenet_v2 0.548x MAC", "shapes")]
    edges += [("structure", student, "shapes") for student in students]
    edges += [("dense", "int8", "starts")]
    result["ladder"]["edges"] += [
        {"from": source, "to": target, "kind": kind} for source, target, kind in edges
    ]
    return result


@pytest.fixture
def shaped() -> Results:
    """Makes the content of a ``result.json`` whose students have structures that were found; ``layers`` of each."""
    return _shaped


def _deploy() -> dict[str, Any]:
    """The content of ``deploy.json`` beside it: three forms."""
    rows = []
    for form, size, test, differing, median in (
        ("float32", 2_812_345, 0.6342, 0, 1.21),
        ("int8 after training", 812_345, 0.6121, 41, 0.55),
        ("int8 distilled", 812_400, 0.6331, 22, 0.56),
    ):
        rows.append(
            {"form": form, "runtime": "onnxruntime", "file": f"student {form}.onnx".replace(" ", "-")}
            | {"bytes": size, "test": {"accuracy": test}, "validation": {"accuracy": test + 0.01}}
            | {"differing": differing, "peak_bytes": 45_678_901, "note": ""}
            | {"latency": {"median_ms": median, "p95_ms": median + 0.11, "threads": 1}}
        )
    student = {"name": "dense", "seed": 1, "key": "f" * 40}
    return {"version": 1, "student": student, "machine": "a made-up processor, 2 cores", "rows": rows}


@pytest.fixture
def deploy() -> Results:
    """Makes the content of a ``deploy.json`` of the delivered student of all these results."""
    return _deploy
