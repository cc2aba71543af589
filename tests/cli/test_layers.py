from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.cli.conftest import Command
from understudy.cli.layers import size_of, table_of
from understudy.errors import BadInput
from understudy.models import build
from understudy.models.features import layer_shapes


@pytest.fixture
def layers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("COLUMNS", "100")
    return Command(capsys, "layers")


def test_the_table_has_layers_with_feature_maps(layers: Command) -> None:
    assert layers("resnet-8", "--classes", "10") == 0
    lines = [" ".join(line.split()) for line in layers.out.splitlines()]
    assert lines[0] == "resnet-8, images of 3x32x32, 10 classes"
    assert "layer type output" in lines
    assert "stem.conv Conv2d 16x32x32" in lines
    assert "stage2.0.shortcut.norm BatchNorm2d 32x16x16" in lines
    assert "stage3 Sequential 64x8x8" in lines
    assert lines.index("stage1.0.relu2 ReLU 16x32x32") < lines.index("stage1 Sequential 16x32x32")
    assert not any(line.startswith(("pool", "flatten", "head")) for line in lines)
    assert lines[-1] == "3 layers without feature maps of 2x2 or more are left out; --all has them."


def test_all_has_the_others_too(layers: Command) -> None:
    assert layers("resnet-8", "--all", "--width", "0.5") == 0
    lines = [" ".join(line.split()) for line in layers.out.splitlines()]
    assert lines[0] == "resnet-8 x0.5, images of 3x32x32, 100 classes"
    assert "pool AdaptiveAvgPool2d 32x1x1" in lines
    assert lines[-1] == "head Linear 100"


def test_json_says_what_was_measured(layers: Command) -> None:
    said = layers.raw("allcnn", "--classes", "7", "--channels", "1", "--size", "16x24", "--width", "0.66")
    assert list(said) == ["version", "model", "classes", "channels", "size", "width", "layers"]
    assert [said[key] for key in list(said)[:-1]] == [1, "allcnn", 7, 1, [16, 24], 0.66]
    by_name = {layer["name"]: layer for layer in said["layers"]}
    assert by_name["stage1"] == {"name": "stage1", "type": "Sequential", "output": [63, 8, 12]}
    every = layers.raw("allcnn", "--size", "16x24", "--all")["layers"]
    shapes = layer_shapes(build("allcnn", classes=100, size=(16, 24)), channels=3, size=(16, 24))
    assert {layer["name"]: tuple(layer["output"]) for layer in every} == shapes
    assert [layer["name"] for layer in every] == list(shapes)


def test_networks_from_elsewhere_have_their_usual_image_and_classes(layers: Command) -> None:
    pytest.importorskip("torchvision")
    said = layers.raw("torchvision/resnet18")
    assert (said["size"], said["classes"]) == ([224, 224], 1000)
    assert {"name": "layer2", "type": "Sequential", "output": [128, 28, 28]} in said["layers"]


@pytest.mark.parametrize("width", [100, 40, 28])
def test_a_narrow_terminal_loses_types_and_no_name_or_shape(width: int) -> None:
    rows = [("stage1.0.shortcut.conv", "Conv2d", (128, 16, 16)), ("head", "Linear", (10,))]
    shell = Console(width=width, record=True, file=io.StringIO())
    shell.print(table_of(rows, width=width))
    text = shell.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "128x16x16" in text
    assert "…" not in text
    assert ("Conv2d" in text) == (width == 100)


@pytest.mark.parametrize(
    ("text", "expected"), [("32", (32, 32)), (" 32X48 ", (32, 48)), ("1×4096", (1, 4096))]
)
def test_a_size_is_one_number_or_two(text: str, expected: tuple[int, int]) -> None:
    assert size_of(text) == expected


@pytest.mark.parametrize("text", ["", "0", "3x32x32", "32x", "-1", "9999", "٣", "big"])
def test_a_size_that_does_not_parse_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        size_of(text)
    assert "such as 32x48" in str(caught.value)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["resnet20"], "Did you mean 'resnet-20'"),
        (["resnet-20", "--size", "big"], "--size is height x width"),
        (["plain_cnn-10", "--size", "8"], "needs at least 16x16"),
        (["resnet-20", "--channels", "0"], "--channels is a whole number from 1"),
        (["resnet-20", "--classes", "1"], "classes must be a whole number of at least 2"),
        (["resnet-20", "--width", "0"], "width multiplies"),
        ([], "model"),
    ],
)
def test_bad_input_is_one_line_and_status_2(layers: Command, words: list[str], said: str) -> None:
    assert layers(*words) == 2
    assert layers.out == ""
    assert len(layers.err.splitlines()) == 1
    assert said in layers.err
