"""A whole ladder with the usual loop: ``python -m benchmarks.usual_ladder PLAN.json`` prints what each training cost.

The plan says ``data`` (an .npz file), ``train_images`` (of ``x_train``; the others are for validation), ``settings``
(of ``usual_loop.Settings``) and ``stages``: for each ``name``, ``network``, ``teachers`` (names of stages above) and
``seeds``. What a stage teaches later is its network of the first seed. As in understudy, the validation images are
looked at after each epoch, the test images once.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.usual_loop import Settings, accuracy, test_images, train, training_images
from understudy.models import build


def climb(plan: dict[str, Any]) -> dict[str, list[float]]:
    """Trains every stage with every seed of it; CPU seconds of each training."""
    settings = Settings(**plan["settings"])
    with np.load(plan["data"], allow_pickle=False) as file:
        x_train, y_train, x_test, y_test = (file[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    classes = int(y_train.max()) + 1
    count = plan["train_images"]
    pixels = x_train[:count]
    statistics: dict[str, Any] = {
        "mean": (pixels.mean(axis=(0, 1, 2)) / 255).tolist(),
        "std": (pixels.std(axis=(0, 1, 2)) / 255).tolist(),
    }
    images = training_images(pixels, y_train[:count], **statistics)
    validation = test_images(x_train[count:], y_train[count:], **statistics)
    test = test_images(x_test, y_test, **statistics)

    models: dict[str, torch.nn.Module] = {}
    spent: dict[str, list[float]] = {}
    for stage in plan["stages"]:
        teachers = [models[name] for name in stage["teachers"]]
        for seed in stage["seeds"]:
            began = time.process_time()
            torch.manual_seed(seed)
            model = build(stage["network"], classes=classes, size=pixels.shape[1:3])
            look = partial(accuracy, model, validation, settings)
            train(model, teachers, images, settings, epoch_done=look)
            accuracy(model, test, settings)
            models.setdefault(stage["name"], model)
            spent.setdefault(stage["name"], []).append(time.process_time() - began)
    return spent


def main() -> None:
    """Reads the plan, climbs, prints the cost as JSON."""
    torch.set_num_threads(1)
    plan = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    stages = climb(plan)
    print(json.dumps({"stages": stages, "cpu": time.process_time()}))


if __name__ == "__main__":
    main()
