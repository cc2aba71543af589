from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from torch import nn

from tests.cli.conftest import Command
from understudy.cli.cost import image_of, table_of
from understudy.errors import BadInput
from understudy.models import build
from understudy.structure.cost import layer_costs


@pytest.fixture
def cost(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("COLUMNS", "120")
    return Command(capsys, "cost")


# parameters and multiply-adds for an image of 3x32x32
@pytest.mark.parametrize(
    ("words", "parameters", "multiply_adds"),
    [
        (["mobilenet_v2"], 2_351_972, 88_091_648),
        (["mobilenet_v2", "--classes", "10"], 2_236_682, 87_976_448),
        (["resnet-20"], 278_324, 40_818_944),
        (["plain_cnn-2"], 215_172, 3_448_832),
        (["wrn-16-1"], 180_916, None),
        (["wrn-16-1", "--strip", "3"], 66_964, None),
    ],
)
def test_the_totals_are_those_of_the_papers(
    cost: Command, words: list[str], parameters: int, multiply_adds: int | None
) -> None:
    said = cost.raw(*words)
    assert said["parameters"] == parameters
    assert multiply_adds in (None, said["multiply_adds"])
    assert said["parameters"] == sum(layer["parameters"] for layer in said["layers"])
    assert said["multiply_adds"] == sum(layer["multiply_adds"] for layer in said["layers"])


def test_json_is_what_the_counter_found(cost: Command) -> None:
    said = cost.raw("resnet-8", "--input", "1x28x20", "--classes", "7", "--width", "0.5")
    model = build("resnet-8", classes=7, channels=1, size=(28, 20), width=0.5)
    counted = layer_costs(model, channels=1, size=(28, 20))
    assert list(said) == [
        *("version", "model", "input", "classes", "width", "strip"),
        *("parameters", "multiply_adds", "peak_activation_bytes", "layers"),
    ]
    assert (said["version"], said["input"], said["classes"], said["width"]) == (1, [1, 28, 20], 7, 0.5)
    assert said["peak_activation_bytes"] == counted.peak_activation_bytes
    assert [layer["name"] for layer in said["layers"]] == [layer.name for layer in counted.layers]
    assert said["layers"][0]["output"] == [8, 28, 20]


def test_the_table_has_each_layer_that_costs_something_and_units_everywhere(cost: Command) -> None:
    assert cost("plain_cnn-2", "--classes", "10") == 0
    lines = [" ".join(line.split()) for line in cost.out.splitlines()]
    assert lines[0] == "plain_cnn-2, one image of 3x32x32, 10 classes"
    assert "layer kind output parameters MMAC" in lines
    assert "features.conv1 Conv2d 32x32x32 896 0.885" in lines
    assert "features.norm1 BatchNorm2d 32x32x32 64 0" in lines
    assert "classifier.output Linear 10 20,490 0.020" in lines
    assert not any(line.startswith("features.relu1") for line in lines)
    assert "in all 30,762 3.26" in lines
    assert "30,762 parameters" in lines
    assert "3,264,512 multiply-adds = 3.26 MMAC; a multiply-add (MAC) is 2 FLOPs" in lines
    assert sum("FLOP" in line for line in lines) == 1
    assert any(
        line.endswith("one layer run after the other") and "kB of activations" in line for line in lines
    )
    assert "left out above" in lines[-1]


def test_strips_and_width_are_said_with_the_name(cost: Command) -> None:
    assert cost("wrn-10-1", "--strip", "5", "--width", "2") == 0
    assert cost.out.startswith("wrn-10-1 x2 1x5, one image")


@pytest.mark.parametrize("width", [120, 60, 44, 36])
def test_a_narrow_terminal_loses_columns_and_no_figure(width: int) -> None:
    model = build("mobilenet_v2", classes=10)
    costs = layer_costs(model, channels=3, size=(32, 32))
    shell = Console(width=width, record=True, file=io.StringIO())
    shell.print(table_of(costs, width=width))
    text = shell.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "409,600" in text  # the last convolution
    assert "…" not in text
    assert ("Conv2d" in text) == (width > 80)


def test_what_a_networks_own_method_costs_has_a_row() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(nn.init.ones_(nn.Linear(4, 2).weight.detach()))

        def forward(self, images: Any) -> Any:
            return images.flatten(1) @ self.weight.T

    table = table_of(layer_costs(Own(), channels=1, size=(2, 2)), width=80)
    assert next(iter(table.columns[0].cells)).plain == "(its own)"


@pytest.mark.parametrize("text", ["3x32x32", " 3X32X32 ", "3×32×32"])
def test_an_image_is_written_as_three_numbers(text: str) -> None:
    assert image_of(text) == (3, 32, 32)


@pytest.mark.parametrize(
    "text", ["", "32", "3x32", "3x32x", "3x0x32", "3x32x32x1", "3x-1x3", "3x9999x32", "٣x3x3"]
)
def test_an_image_that_does_not_parse_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        image_of(text)
    assert "such as 3x32x32" in str(caught.value)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["resnet20"], "Did you mean 'resnet-20'"),
        (["resnet-20", "--input", "32"], "--input is channels x height x width"),
        (["plain_cnn-10", "--input", "3x8x8"], "needs at least 16x16"),
        (["resnet-20", "--classes", "0"], "classes must be a whole number of at least 2"),
        (["resnet-20", "--width", "0"], "width multiplies"),
        (["resnet-20", "--strip", "4"], "odd whole number from 3"),
        (["resnet-20", "--strip", "many"], "--strip"),
        ([], "model"),
    ],
)
def test_bad_input_is_one_line_and_status_2(cost: Command, words: list[str], said: str) -> None:
    assert cost(*words) == 2
    assert cost.out == ""
    assert len(cost.err.splitlines()) == 1
    assert said in cost.err


def test_networks_from_elsewhere_have_their_usual_image_and_classes(cost: Command) -> None:
    pytest.importorskip("torchvision")
    said = cost.raw("torchvision/mobilenet_v2")
    assert (said["input"], said["classes"]) == ([3, 224, 224], 1000)
    assert (said["parameters"], said["multiply_adds"]) == (3_504_872, 300_774_272)


def test_layers_that_fit_together_no_more_as_strips_are_said_to_be_so(cost: Command) -> None:
    pytest.importorskip("torchvision")
    assert cost("torchvision/inception_v3", "--strip", "3", "--input", "3x96x96") == 2
    assert "with 1x3 filters the layers of torchvision/inception_v3 do not fit together any more" in cost.err


def test_nothing_is_written(cost: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cost("plain_cnn-2") == 0
    assert list(tmp_path.iterdir()) == []
