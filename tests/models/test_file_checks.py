from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from understudy.errors import BadInput
from understudy.models.file_checks import check_answer, check_input, content_of, sha256_of


def test_a_file_is_hashed_by_its_bytes_alone(tmp_path: Path) -> None:
    one, other = tmp_path / "one.onnx", tmp_path / "other.pt2"
    one.write_bytes(b"abc")
    other.write_bytes(b"abc")
    assert sha256_of(one) == sha256_of(other) == hashlib.sha256(b"abc").hexdigest()
    assert content_of(one, sha256=sha256_of(other)) == b"abc"


def test_a_file_that_has_changed_since_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.onnx"
    path.write_bytes(b"abc")
    before = sha256_of(path)
    path.write_bytes(b"abd")
    with pytest.raises(BadInput, match="is not the file any more that this run began with"):
        content_of(path, sha256=before)


@pytest.mark.parametrize("what", ["missing", "folder", "empty"])
def test_what_cannot_be_read_is_one_line(tmp_path: Path, what: str) -> None:
    path = tmp_path / "one.onnx"
    if what == "folder":
        path.mkdir()
    if what == "empty":
        path.write_bytes(b"")
    with pytest.raises(BadInput, match="is empty" if what == "empty" else "cannot be read") as refused:
        content_of(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ([None, 3, 8, 8], r"takes input of shape \(any, 3, 8, 8\); the images are \(batch, 1, 8, 10\)"),
        ([None, 64], r"takes input of shape \(any, 64\)"),
        ([None, 1, 16, None], r"Write size: \[16, 10\] beside file:"),
        ([4, 1, 8, 10], r"takes batches of 4 only.* Export it again: like this"),
    ],
)
def test_other_images_than_a_network_takes_are_refused(shape: list[int | None], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        check_input(shape, channels=1, size=(8, 10), source="one.onnx", again="like this")


def test_any_length_will_do_where_the_network_says_so() -> None:
    check_input([None, None, None, None], channels=1, size=(8, 10), source="one.onnx", again="like this")
    check_input([None, 1, 8, 10], channels=1, size=(8, 10), source="one.onnx", again="like this")


@pytest.mark.parametrize(
    ("shape", "finite", "said"),
    [
        ((2, 5), True, "answers for 5 classes, and the data have 4"),
        ((2, 4, 1), True, r"answers 2 images with an array of shape \(2, 4, 1\)"),
        ((1, 4), True, r"answers 2 images with an array of shape \(1, 4\)"),
        ((2, 4), False, "NaN or infinite"),
    ],
)
def test_other_answers_than_logits_are_refused(shape: tuple[int, ...], finite: bool, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        check_answer(shape, images=2, classes=4, finite=finite, source="one.onnx")
