"""How near training and teachers' answers come to the fastest that the processor can do."""

from __future__ import annotations

from statistics import median

from benchmarks.bench import Bench
from benchmarks.made_up import network
from benchmarks.results import Figure
from benchmarks.steps import Answers, Products
from benchmarks.turns import Rounds, Work, as_json
from understudy.structure.cost import cost
from understudy.training.precision import native_bf16

SIDES = (1024, 1536, 2048)
TRAINING = 3  # passes that a training step costs: forward, and backward to inputs and to weights


def train_resnet_20(bench: Bench) -> Figure:
    """Training resnet-20 from labels in our loop, as a share of the bf16 peak."""
    return _training(bench, "train_resnet_20", "resnet-20", 0.50)


def train_resnet_110(bench: Bench) -> Figure:
    """Training resnet-110 from labels in our loop, as a share of the bf16 peak."""
    return _training(bench, "train_resnet_110", "resnet-110", 0.53)


def train_plain_cnn_10(bench: Bench) -> Figure:
    """Training plain_cnn-10 from labels in our loop, as a share of the bf16 peak."""
    return _training(bench, "train_plain_cnn_10", "plain_cnn-10", 0.70)


def train_wrn_40_2(bench: Bench) -> Figure:
    """Training wrn-40-2 from labels in our loop, as a share of the bf16 peak."""
    return _training(bench, "train_wrn_40_2", "wrn-40-2", 0.70)


def answers_resnet_110(bench: Bench) -> Figure:
    """Answers of a frozen resnet-110 in batches of 256, as a share of the bf16 peak.

    ``whole bulk pass`` in the details is the share with making the batches and encoding the answers.
    """
    batch = 256 if bench.size.name != "tiny" else 32
    data = bench.data()
    works: dict[str, Work] = {
        "answers": Answers(teacher="resnet-110", data=data, batch=batch),
        "whole bulk pass": Answers(teacher="resnet-110", data=data, batch=batch, whole=True),
    }
    return _share(
        bench, "answers_resnet_110", works, operations=2 * batch * _macs(bench, "resnet-110"), bound=0.70
    )


def _training(bench: Bench, name: str, student: str, bound: float) -> Figure:
    operations = 2 * TRAINING * bench.size.batch * _macs(bench, student)
    return _share(bench, name, {"training": bench.ours(student)}, operations=operations, bound=bound)


def _macs(bench: Bench, name: str) -> int:
    """Multiply-adds of one image, taps in the padding counted, too."""
    dataset = bench.data(images=max(bench.size.batch, 16)).dataset()
    size = (dataset.height, dataset.width)
    return cost(network(name, dataset), channels=dataset.channels, size=size).multiply_adds


def _share(bench: Bench, name: str, works: dict[str, Work], *, operations: int, bound: float) -> Figure:
    if not native_bf16("cpu"):
        return Figure(
            name=name,
            value=None,
            unit="of the peak",
            bound=bound,
            details={"said": "no bf16 in this processor"},
        )
    products = {f"product {side}": Products(side=side) for side in SIDES}
    rounds = bench.rounds({**works, **products})
    peaks = [_peak(rounds, number) for number in range(bench.size.rounds)]
    shares = {
        work: [operations / seconds / peak for seconds, peak in zip(rounds.seconds(work), peaks, strict=True)]
        for work in works
    }
    main, *others = works
    return Figure(
        name=name,
        value=median(shares[main]),
        unit="of the peak",
        bound=bound,
        rounds=bench.size.rounds,
        spread=(min(shares[main]), max(shares[main])),
        details={
            "peak_gigaflops": round(median(peaks) / 1e9, 1),
            "highest_peak_gigaflops": round(max(peaks) / 1e9, 1),
            "share_of_the_highest_peak": round(operations / rounds.typical(main) / max(peaks), 4),
            "gigaflops_of_a_step": round(operations / 1e9, 3),
            "other_shares": {other: round(median(shares[other]), 4) for other in others},
            "steps": as_json(rounds),
        },
    )


def _peak(rounds: Rounds, number: int) -> float:
    """Operations a second of the fastest product in one round."""
    return max(2 * side**3 / min(rounds.turns[f"product {side}"][number].cpu) for side in SIDES)
