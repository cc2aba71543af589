"""Steps of distillation against the usual loop, and against plain training."""

from __future__ import annotations

from statistics import median

from benchmarks.bench import Bench
from benchmarks.results import Figure, of_ratio
from benchmarks.steps import Bare, Batches
from benchmarks.turns import Ratio, Work, as_json, paired

FIVE = ("resnet-110", "resnet-56", "resnet-44", "resnet-32", "resnet-20")
SEVEN = ("resnet-110", "resnet-56", "resnet-44", "resnet-32", "resnet-26", "resnet-20", "resnet-14")


def kept_step(bench: Bench) -> Figure:
    """resnet-110 teaches resnet-20, its answers kept: the usual loop's step over ours."""
    return bench.against(
        "kept_step",
        above=bench.usual("resnet-20", ["resnet-110"]),
        below=bench.ours("resnet-20", ["resnet-110"]),
        bound=4.5,
    )


def kept_step_official(bench: Bench) -> Figure:
    """``kept_step`` against the form of the official codes."""
    return bench.against(
        "kept_step_official",
        above=bench.usual("resnet-20", ["resnet-110"], official=True),
        below=bench.ours("resnet-20", ["resnet-110"]),
        bound=10.0,
    )


def dense_step(bench: Bench) -> Figure:
    """Five teachers teach resnet-8, their answers kept: the usual loop's step over ours."""
    return bench.against(
        "dense_step", above=bench.usual("resnet-8", FIVE), below=bench.ours("resnet-8", FIVE), bound=16.0
    )


def dense_step_official(bench: Bench) -> Figure:
    """``dense_step`` against the form of the official codes."""
    return bench.against(
        "dense_step_official",
        above=bench.usual("resnet-8", FIVE, official=True),
        below=bench.ours("resnet-8", FIVE),
        bound=45.0,
    )


def live_step(bench: Bench) -> Figure:
    """resnet-110 teaches resnet-20 and answers live in both loops: the usual loop's step over ours."""
    return bench.against(
        "live_step",
        above=bench.usual("resnet-20", ["resnet-110"]),
        below=bench.ours("resnet-20", ["resnet-110"], kept=False),
        bound=1.9,
    )


def kept_step_float32(bench: Bench) -> Figure:
    """``kept_step`` with float32 networks in our loop, too."""
    return bench.against(
        "kept_step_float32",
        above=bench.usual("resnet-20", ["resnet-110"]),
        below=bench.ours("resnet-20", ["resnet-110"], precision="fp32"),
        bound=2.7,
    )


def kept_over_plain(bench: Bench) -> Figure:
    """A step of resnet-8 with 1 to 7 kept teachers over one that learns from labels: the worst of the seven."""
    works: dict[str, Work] = {"plain": bench.ours("resnet-8")}
    for count in range(1, len(SEVEN) + 1):
        works[f"{count} kept"] = bench.ours("resnet-8", SEVEN[:count])
    rounds = bench.rounds(works)
    ratios = {
        name: paired(rounds.seconds(name), rounds.seconds("plain")) for name in works if name != "plain"
    }
    worst: Ratio = max(ratios.values(), key=lambda ratio: ratio.value)
    return of_ratio(
        worst,
        name="kept_over_plain",
        rounds=bench.size.rounds,
        bound=1.05,
        side="at most",
        details={
            "ratios": {name: round(ratio.value, 4) for name, ratio in ratios.items()},
            "seven_over_one": round(paired(rounds.seconds("7 kept"), rounds.seconds("1 kept")).value, 4),
            "steps": as_json(rounds),
        },
    )


def trainer_over_bare(bench: Bench) -> Figure:
    """A whole epoch of plain_cnn-2 in our loop, with log, metrics, checks and checkpoint, over one in a bare loop.

    The bare loop makes the same batches and the same steps with the same number format and optimiser, nothing else.
    """
    steps = (50_000 if bench.size.name == "full" else bench.size.images) // bench.size.batch
    data = bench.data(images=steps * bench.size.batch)
    works: dict[str, Work] = {
        "ours": bench.ours("plain_cnn-2", data=data),
        "bare": Bare(student="plain_cnn-2", data=data, batch=bench.size.batch),
    }
    rounds = bench.rounds(works, steps=dict.fromkeys(works, steps))
    middles = {
        name: [median(turn.cpu) for turn in rounds.turns[name]] for name in works
    }  # of a step: the end of the epoch is not in it
    return of_ratio(
        paired(rounds.seconds("ours"), rounds.seconds("bare")),
        name="trainer_over_bare",
        rounds=bench.size.rounds,
        bound=1.03,
        side="at most",
        details={
            "steps_in_the_epoch": steps,
            "without_the_end_of_the_epoch": round(paired(middles["ours"], middles["bare"]).value, 4),
            "steps": as_json(rounds),
        },
    )


def augmentation(bench: Bench) -> Figure:
    """CPU microseconds an image of crop, flip and normalisation of images in memory."""
    works: dict[str, Work] = {
        "ours": Batches(data=bench.data(), batch=bench.size.batch, keeps_pages=True),
        "usual": Batches(data=bench.data(), batch=bench.size.batch, usual=True),
    }
    rounds = bench.rounds(works)
    each = {name: [1e6 * value / bench.size.batch for value in rounds.seconds(name)] for name in works}
    return Figure(
        name="augmentation",
        value=median(each["ours"]),
        unit="µs an image",
        bound=8.0,
        side="at most",
        rounds=bench.size.rounds,
        spread=(min(each["ours"]), max(each["ours"])),
        details={"usual": round(median(each["usual"]), 2), "steps": as_json(rounds)},
    )


def memory_steps(bench: Bench) -> Figure:
    """Most anonymous memory of our process over that of the usual loop's, while steps are made: the worst of three.

    The bulk pass before the first step is in it.
    """
    folder = bench.folder / "memory"  # with nothing kept yet: the bulk passes count
    folder.mkdir()
    found: dict[str, dict[str, float]] = {}
    for student, teachers in (
        ("resnet-20", ("resnet-110",)),
        ("resnet-8", FIVE),
        ("plain_cnn-2", ("plain_cnn-10",)),
    ):
        rounds = bench.rounds(
            {
                "ours": bench.ours(student, teachers, folder=str(folder)),
                "usual": bench.usual(student, teachers),
            },
            rounds=2,
        )
        found[f"{', '.join(teachers)} to {student}"] = {
            "ratio": round(rounds.memory["ours"] / rounds.memory["usual"], 3),
            **{f"{name}_megabytes": round(rounds.memory[name] / 1e6, 1) for name in ("ours", "usual")},
        }
    return Figure(
        name="memory_steps",
        value=max(entry["ratio"] for entry in found.values()),
        bound=1.0,
        side="at most",
        details=found,
    )
