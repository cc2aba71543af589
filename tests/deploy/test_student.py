from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.deploy.made import IMAGE, NAMES, PREPROCESSING, write_student
from understudy.deploy.student import read_student
from understudy.errors import BadInput
from understudy.models import build
from understudy.models.strips import stripped

NETWORK: dict[str, Any] = {
    "name": "plain_cnn-2",
    "classes": 3,
    "channels": 3,
    "size": [8, 8],
    "width": 0.25,
    "strip": None,
    "strip_part": "all",
    "factory": False,
}


def plain() -> nn.Module:
    return build("plain_cnn-2", classes=3, channels=3, size=(8, 8), width=0.25)


def rewritten(folder: Path, **changes: Any) -> Path:
    path = folder / "student.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")
    return folder


def same(one: nn.Module, other: nn.Module, *, size: tuple[int, int] = (8, 8)) -> bool:
    images = torch.randn(2, 3, *size)
    return bool(torch.equal(one.eval()(images), other.eval()(images)))


def test_it_answers_as_the_network_that_was_kept(tmp_path: Path) -> None:
    model = plain()
    student = read_student(write_student(tmp_path, model, network=NETWORK))
    assert same(model, student.model)
    assert not student.model.training
    assert not any(weight.requires_grad for weight in student.model.parameters())
    assert (student.class_names, student.channels) == (NAMES, 3)
    assert (student.image, student.size) == (IMAGE, (8, 8))
    assert student.preprocessing == PREPROCESSING


def test_the_card_itself_can_be_named(tmp_path: Path) -> None:
    write_student(tmp_path, plain(), network=NETWORK)
    assert read_student(tmp_path / "student.json").card["name"] == "the student"


def test_strips_are_made_again(tmp_path: Path) -> None:
    for part in ("all", "late"):
        model = stripped(plain(), 3, part=part)  # type: ignore[arg-type]
        folder = write_student(tmp_path / part, model, network={**NETWORK, "strip": 3, "strip_part": part})
        assert same(model, read_student(folder).model)


def test_a_structure_is_cut_again(tmp_path: Path) -> None:
    pytest.importorskip("torch_pruning")
    from understudy.structure.shrinking import shrunk
    from understudy.structure.structures import Structure

    structure = Structure({"features.conv1": (0, 3, 5)})
    model = shrunk(plain(), structure, channels=3, size=(8, 8))
    folder = write_student(tmp_path, model, network=NETWORK, structure=structure.as_dict())
    again = read_student(folder).model
    assert same(model, again)
    assert again.get_submodule("features.conv1").out_channels == 3


def test_nobodys_random_numbers_are_used_up(tmp_path: Path) -> None:
    folder = write_student(tmp_path, plain(), network=NETWORK)
    before = torch.get_rng_state()
    read_student(folder)
    assert torch.equal(before, torch.get_rng_state())


def test_an_older_card_is_read_from_its_architecture(tmp_path: Path) -> None:
    described = {
        "name": "plain_cnn-2",
        "arguments": {"classes": 3, "channels": 3, "size": [8, 8], "width": 0.25},
        "wiring": "one layer after the other",
    }
    model = plain()
    assert same(
        model, read_student(write_student(tmp_path, model, network=None, architecture=described)).model
    )


@pytest.mark.parametrize("old", [True, False])
def test_a_network_of_the_users_own_is_left_to_python(tmp_path: Path, old: bool) -> None:
    own = {"name": "mine", "arguments": {}, "wiring": "as in the forward method of the module that was given"}
    network = None if old else {"name": "mine", "factory": True}
    folder = write_student(tmp_path, plain(), network=network, architecture=own)
    with pytest.raises(
        BadInput, match=r"code of yours.* In Python, understudy\.deploy\.onnx_export\.write_onnx"
    ):
        read_student(folder)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    folder = write_student(tmp_path, plain(), network=NETWORK)
    content = bytearray((folder / "student.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "student.safetensors").write_bytes(content)
    with pytest.raises(BadInput, match=r"is not the file that student\.json describes"):
        read_student(folder)


def test_what_is_no_run_is_told_apart_from_one_without_a_student(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nothere is no run's folder: .*student\.json is not there"):
        read_student(tmp_path / "nothere")
    (tmp_path / "result.json").write_text("{}", "utf-8")
    with pytest.raises(BadInput, match="has no student yet: none of its students is trained to the end"):
        read_student(tmp_path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weights": None}, "names no file of weights"),
        ({"class_names": None}, "is damaged: TypeError"),
        ({"preprocessing": {}}, "is damaged: KeyError 'mean'"),
        ({"network": {**NETWORK, "width": "wide"}}, "width"),
        ({"network": {**NETWORK, "name": "resnet-9"}}, "resnet-9"),
        ({"network": {**NETWORK, "name": ""}}, "a network that is a file itself"),
        ({"structure": {"kept": 1}}, "structure"),
    ],
)
def test_a_card_that_makes_no_sense_is_one_line(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    folder = rewritten(write_student(tmp_path, plain(), network=NETWORK), **changes)
    with pytest.raises(BadInput, match=reason) as raised:
        read_student(folder)
    assert "\n" not in str(raised.value)


def test_half_a_card_is_damaged(tmp_path: Path) -> None:
    folder = write_student(tmp_path, plain(), network=NETWORK)
    path = folder / "student.json"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(BadInput, match="is damaged: it is not JSON"):
        read_student(folder)
