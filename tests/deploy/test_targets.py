from __future__ import annotations

from pathlib import Path

import pytest

from understudy.deploy.targets import TARGETS, check_target, target_of
from understudy.errors import BadInput


def test_every_target_has_an_ending_of_its_own() -> None:
    for target, ending in TARGETS.items():
        assert target_of(Path(f"a{ending}")) == target
        check_target(target, Path(f"new/folder/a{ending}"))


def test_a_wrong_target_is_named_with_the_right_one() -> None:
    with pytest.raises(
        BadInput, match=r"--to 'onx' is no target; possible: onnx, torch, executorch.*'onnx'\?$"
    ):
        check_target("onx")


def test_a_file_of_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"files for torch end in \.pt2; name it a\.pt2"):
        check_target("torch", tmp_path / "a.onnx")
    with pytest.raises(BadInput, match="is no exported file"):
        target_of(tmp_path / "a.tflite")


def test_a_place_that_cannot_be_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a folder; name a file"):
        check_target("onnx", tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BadInput, match=r"lies below .*file, which is a file"):
        check_target("onnx", tmp_path / "file" / "a.onnx")
