"""Small data, small recipes, and pictures of folders, for tests of the command."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from understudy.recipe import Recipe, changed, check

TEXT = """\
data: {path: data.npz, validation: 0.2}
ladder: {shape: dense}
models:
  teacher: {name: plain_cnn-3, width: 0.25}
  assistants: [{name: plain_cnn-2, width: 0.25}]
  student: {name: plain_cnn-2, width: 0.125}
training: {epochs: 2, batch_size: 16, precision: fp32, device: cpu}
"""


def write_data(path: Path, *, classes: int = 3, size: int = 8, channels: int | None = None) -> Path:
    """An ``.npz`` in which a bright column says the class, a little noisy: 60 images to learn from, 30 to test."""
    stream = np.random.default_rng(0)

    def some(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % classes
        shape = (count, size, size) if channels is None else (count, size, size, channels)
        images = stream.integers(0, 120, shape, dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[:, label * size // classes] += 90
        return images, labels.astype(np.int64)

    (x_train, y_train), (x_test, y_test) = some(60), some(30)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


def short(**sections: Any) -> dict[str, Any]:
    """A recipe as a mapping: a dense ladder over one assistant; ``sections`` replace or add to its sections."""
    whole: dict[str, Any] = {
        "data": {"path": "data.npz"},
        "ladder": {"shape": "dense"},
        "models": {"teacher": "plain_cnn-4", "assistants": ["plain_cnn-3"], "student": "plain_cnn-2"},
        "training": {"precision": "fp32", "device": "cpu"},
    }
    for name, value in sections.items():
        here = whole.get(name)
        whole[name] = {**here, **value} if isinstance(here, dict) and isinstance(value, dict) else value
    return whole


def checked(*settings: str, **sections: Any) -> Recipe:
    """:func:`short`, with ``--set`` settings put in, checked."""
    return check(changed(short(**sections), settings))


def tree(folder: Path) -> dict[str, str]:
    """Every file below ``folder`` with its content and time of writing, and every folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        what = "folder"
        if path.is_file():
            what = f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mtime_ns}"
        found[str(path.relative_to(folder))] = what
    return found
