from __future__ import annotations

from pathlib import Path

import pytest

from understudy.errors import BadInput
from understudy.models.frozen_files import format_of, open_network


@pytest.mark.parametrize(
    ("name", "format_"),
    [("a.onnx", "onnx"), ("a.ONNX", "onnx"), ("a.b.pt2", "torch.export"), ("logits.npz", "logits")],
)
def test_a_file_is_known_by_its_ending(name: str, format_: str) -> None:
    assert format_of(Path(name)) == format_


def test_another_ending_names_the_possible_ones() -> None:
    with pytest.raises(
        BadInput, match=r"^a\.csv is no teacher in a file; possible: \.onnx \(onnx\), \.pt2 .*, \.npz"
    ):
        format_of(Path("a.csv"))


def test_a_file_of_weights_is_sent_to_the_key_for_weights() -> None:
    with pytest.raises(BadInput, match=r"Weights go with the name of their network: .* weights: a\.pth\}"):
        format_of(Path("folder/a.pth"))


def test_logits_are_no_network(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    path.write_bytes(b"abc")
    with pytest.raises(BadInput, match="holds logits, not a network"):
        open_network(path, classes=2, channels=1, size=(8, 8))
