"""A data set of your own: any `torch.utils.data.Dataset` whose samples are (image, label).

Prints the table of a run on made-up pictures of bars, and what the student says to four of them, such as

    stage       model               parameters    MMAC   epochs   n   accuracy, %
    scratch *   plain_cnn-2 x0.25          828   0.014       10   1        100.00

    across: across, down: down, falling: falling, rising: rising

The data set has no random transforms and no Normalize: augmentation is said where the ladder is run, and normalisation
belongs to the network.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

import understudy as us

SIDE = 8


class Bars(Dataset[tuple[np.ndarray, int]]):
    """Grey pictures of one bright bar each on a noisy ground; the label says which way it goes."""

    classes = ("across", "down", "falling", "rising")

    def __init__(self, count: int, *, seed: int) -> None:
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        # Drawn from seed and index alone: the same sample each time it is read, in any order.
        stream = np.random.default_rng((self.seed, index))
        label = index % len(self.classes)
        picture = stream.integers(0, 120, (SIDE, SIDE)).astype(np.uint8)
        along, place = np.arange(SIDE), int(stream.integers(1, SIDE - 1))
        rows, columns = (
            (np.full(SIDE, place), along),
            (along, np.full(SIDE, place)),
            (along, along),
            (along, SIDE - 1 - along),
        )[label]
        picture[rows, columns] = 255
        return picture, label


def main(store: Path = Path("runs/.store"), epochs: int = 10) -> us.RunResult:
    """Trains one small network on bars, and asks it about four of them."""
    test = Bars(200, seed=1)
    data = us.from_torch(Bars(400, seed=0), test, name="bars")
    ladder = us.scratch(
        us.Network(name="plain_cnn-2", width=0.25), training=us.Training(epochs=epochs, batch_size=32)
    )
    result = us.run(ladder, data, store=store)
    print(result)

    assert result.delivered is not None
    model, prepare = result.delivered.model(), result.delivered.preprocessing
    pictures = torch.stack([torch.from_numpy(test[index][0])[None] for index in range(4)])
    with torch.no_grad():
        answers = model(prepare(pictures)).argmax(dim=1).tolist()
    names = result.delivered.class_names
    print(", ".join(f"{names[test[index][1]]}: {names[answer]}" for index, answer in enumerate(answers)))
    return result


if __name__ == "__main__":
    main()
