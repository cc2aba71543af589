"""A network of your own as the student of a built-in teacher.

Prints the ladder, then the table of the run, in which the student and the control `scratch` are both `two_layers`:

    stage      model              parameters    MMAC   epochs   n   accuracy, %   to direct
    teacher    plain_cnn-4 x0.5        17.9k   0.379       10   1         97.11
    direct *   two_layers                698   0.001       10   1         93.78
    scratch    two_layers                698   0.001       10   1         91.45       -2.33

(the figures vary with torch and processor). Run it twice: the second time nothing is trained.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

import understudy as us


def two_layers(*, classes: int, channels: int, size: tuple[int, int]) -> nn.Module:
    """Any module from images ``(batch, channels, height, width)`` to logits ``(batch, classes)`` will do."""
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * ((size[0] + 1) // 2) * ((size[1] + 1) // 2), classes),
    )


def main(store: Path = Path("runs/.store"), epochs: int = 10) -> us.RunResult:
    """Trains a teacher and two students and prints what became of them."""
    data = us.load(name="digits", train_images=300)
    ladder = us.direct(
        us.Network(name="plain_cnn-4", width=0.5),
        # The version is part of the key: change it when the function changes in a way that shapes do not show.
        us.Network(name="two_layers", factory=two_layers, version="1"),
        training=us.Training(epochs=epochs, batch_size=32),
        method=us.SoftTargets(temperature=4.0, soft_weight=0.8),
    )
    print(ladder)
    result = us.run(ladder, data, store=store)
    print(result)
    return result


if __name__ == "__main__":
    main()
