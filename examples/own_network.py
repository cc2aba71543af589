"""A network of your own as the student of a built-in teacher, from Python.

Prints one line for each stage, its test accuracy in percent last, such as

    teacher        plain_cnn-4 x0.5   17.9 k parameters    97.1 %
    student        two_layers          0.7 k parameters    93.8 %
    scratch        two_layers          0.7 k parameters    91.5 %

(the figures vary with torch and processor). Run it twice: the second time nothing is trained.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from understudy.data import load
from understudy.data.views import ViewPolicy
from understudy.ladder import Ladder, Network, Stage
from understudy.ladder.graph import jobs
from understudy.ladder.runner import run
from understudy.store import Store
from understudy.teaching import Labels, SoftTargets
from understudy.training import Training


def two_layers(*, classes: int, channels: int, size: tuple[int, int]) -> nn.Module:
    """Any module from images ``(batch, channels, height, width)`` to logits ``(batch, classes)`` will do."""
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * ((size[0] + 1) // 2) * ((size[1] + 1) // 2), classes),
    )


def main(store: Path = Path("runs/.store"), epochs: int = 10) -> None:
    """Trains a teacher and two students and prints what became of them."""
    dataset = load(name="digits", train_images=300)
    training = Training(epochs=epochs, batch_size=32, lr=0.05)
    small = Network(name="two_layers", factory=two_layers, version="1")
    ladder = Ladder(
        stages=(
            Stage(
                name="teacher",
                role="teacher",
                network=Network(name="plain_cnn-4", width=0.5),
                method=Labels(),
                training=training,
            ),
            Stage(
                name="student",
                network=small,
                teachers=("teacher",),
                method=SoftTargets(temperature=4.0, soft_weight=0.8),
                training=training,
            ),
            Stage(name="scratch", network=small, method=Labels(), training=training),
        ),
        delivered=("student",),
    )
    climb = jobs(ladder, dataset, seeds=[0], policy=ViewPolicy())
    for outcome in run(climb, store=Store(store), dataset=dataset):
        assert outcome.result is not None, outcome.message
        record = outcome.result.record
        size = f"{record['parameters'] / 1000:.1f} k parameters"
        print(f"{record['name']:<15}{record['model']:<18}{size:>18}{100 * record['test']['accuracy']:>8.1f} %")


if __name__ == "__main__":
    main()
