"""Made-up results of runs: what the runner would have written, without running anything."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from understudy.report.statistics import mean_std_interval

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
