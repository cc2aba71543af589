"""How a student is loaded: the code runs without understudy, and no code is given that would not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.report.test_card import student_json
from understudy.models import build
from understudy.models.describe import architecture_of
from understudy.models.strips import stripped
from understudy.report.loading import loading

ARGUMENTS: dict[str, Any] = {"classes": 3, "channels": 1, "size": (16, 16), "width": 0.2}
TIMM = "timm.create_model('resnet18', num_classes=3, in_chans=1)"


def changed(model: nn.Module, name: str, **more: Any) -> dict[str, Any]:
    """The ``student.json`` of a network that was changed after it was built."""
    student = student_json()
    student["preprocessing"]["image"] = [16, 16]
    return student | {"architecture": architecture_of(model, name, ARGUMENTS)} | more


def smaller() -> nn.Module:
    pytest.importorskip("torch_pruning")
    from understudy.structure.shrinking import shrunk
    from understudy.structure.structures import Structure

    model = build("plain_cnn-4", **ARGUMENTS)
    structure = Structure({"features.conv1": (0, 2), "features.conv3": (1,)})
    return shrunk(model, structure, channels=1, size=(16, 16))


@pytest.mark.parametrize("kind", ["shrunk", "stripped"])
def test_the_code_builds_what_was_made_smaller_too(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = (smaller() if kind == "shrunk" else stripped(build("plain_cnn-4", **ARGUMENTS), 3)).eval()
    network = {"strip": 3 if kind == "stripped" else None}
    student = changed(
        model, "plain_cnn-4", network=network, structure={"kept": {}} if kind == "shrunk" else None
    )
    (code,) = re.findall(r"```python\n(.*?)```", loading(student), re.DOTALL)
    assert "understudy" not in code
    save_file(model.state_dict(), tmp_path / "student.safetensors")
    (tmp_path / "student.json").write_text(json.dumps(student), "utf-8")
    code += "\ntorch.save({'images': images, 'logits': logits}, 'said.pt')\n"
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    kept = torch.load(tmp_path / "said.pt", weights_only=True)
    with torch.inference_mode():
        assert torch.allclose(kept["logits"], model((kept["images"] - 0.3) / 0.4), atol=1e-6)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"structure": {"kept": {"a": [0]}}}, "it has fewer channels (`structure` says which were kept)."),
        ({"network": {"strip": 3}, "structure": None}, "its k × k filters became 1 × 3."),
        ({"network": {"strip": 5}, "structure": {"kept": {}}}, "became 1 × 5 and it has fewer channels"),
    ],
)
def test_networks_from_elsewhere_that_were_changed_are_not_built_by_their_package(
    more: dict[str, Any], words: str
) -> None:
    student = student_json()
    student["architecture"] |= {"wiring": TIMM}
    assert "```" in loading(student | {"network": {"strip": None}, "structure": None})
    said = loading(student | more)
    assert "```" not in said
    assert words in said
    assert "`understudy export . --to onnx`" in said


def test_layers_of_understudys_own_are_not_said_to_run_without_it() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten())
    student = changed(model, "mine")
    assert "Nothing of understudy is needed" in loading(student)
    student["architecture"]["layers"][0]["type"] = (
        "understudy.models.fake_quantised_layers.FakeQuantisedConv2d"
    )
    said = loading(student)
    assert "Nothing of understudy is needed" not in said
    assert "`understudy export . --to onnx`" in said
