from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from understudy.errors import BadInput
from understudy.models.logits_files import read_logits

IMAGES = {"train": 6, "test": 3}


def arrays(dtype: Any = np.float32) -> dict[str, Any]:
    stream = np.random.default_rng(0)
    return {part: stream.normal(size=(count, 4)).astype(dtype) for part, count in IMAGES.items()}


def saved(path: Path, **changed: Any) -> Path:
    np.savez(path, **{name: array for name, array in {**arrays(), **changed}.items() if array is not None})
    return path


def refusal(path: Path) -> str:
    with pytest.raises(BadInput) as refused:
        read_logits(path, classes=4, images=IMAGES)
    assert "\n" not in str(refused.value)
    return str(refused.value).removeprefix(str(path))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_logits_of_every_float_type_are_read_as_float32(tmp_path: Path, dtype: Any) -> None:
    given = arrays(dtype)
    path = saved(tmp_path / "a.npz", **given)
    found = read_logits(path, classes=4, images=IMAGES)
    for part in IMAGES:
        assert found[part].dtype == np.float32
        np.testing.assert_array_equal(found[part], given[part].astype(np.float32))


def test_only_the_parts_that_are_needed_are_looked_at(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", test=np.zeros((99, 99), dtype=np.int64))
    assert list(read_logits(path, classes=4, images={"train": 6})) == ["train"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"test": None},
            " has no array test; it holds train. These data need one for each of: train (6 images), test",
        ),
        (
            {"train": np.zeros((5, 4))},
            ": train has 5 rows, and the data have 6 train images, before a validation split is carved from them.",
        ),
        (
            {"test": np.zeros((4, 4))},
            ": test has 4 rows, and the data have 3 test images. Give one row for each",
        ),
        ({"train": np.zeros((6, 5))}, ": train has logits of 5 classes, and the data have 4."),
        ({"train": np.zeros(6)}, ": train has shape (6,); logits are one row an image, (6, 4)."),
        (
            {"train": np.zeros((6, 4), dtype=np.int64)},
            ": train holds int64 values; logits are float16, float32 or",
        ),
        (
            {"train": np.full((6, 4), np.nan)},
            ": train has 6 rows with NaN or infinite values, the first of image 0.",
        ),
        (
            {"test": np.diag([0, 1e300, 0, 0])[:3]},
            ": test has 1 row with NaN or infinite values, the first of image 1",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_with_the_numbers(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    assert refusal(saved(tmp_path / "a.npz", **changed)).startswith(said)


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **{**arrays(), "train": np.array([[object()] * 4] * 6, dtype=object)})
    assert refusal(path).startswith(
        " is a damaged .npz file, or holds more than arrays: Object arrays cannot be loaded"
    )


@pytest.mark.parametrize("damage", ["text", "cut", "flipped"])
def test_a_damaged_file_is_one_line(tmp_path: Path, damage: str) -> None:
    path = saved(tmp_path / "a.npz")
    content = bytearray(path.read_bytes())
    if damage == "text":
        content = bytearray(b"not a zip file")
    if damage == "cut":
        content = content[: len(content) // 2]
    if damage == "flipped":
        content[150] ^= 255  # a number of the first array: its checksum no longer fits
    path.write_bytes(content)
    assert ".npz file" in refusal(path)
