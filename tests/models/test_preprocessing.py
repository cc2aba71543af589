from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from understudy.errors import BadInput
from understudy.models.preprocessing import Preprocessing, preprocessing_of

MEAN, STD = (0.5, 0.25, 0.4), (0.25, 0.2, 0.3)


def pixels(batch: int = 4, channels: int = 3, size: tuple[int, int] = (6, 5)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, channels, *size), generator=generator, dtype=torch.uint8)


def test_pixels_are_normalised_by_channel() -> None:
    given = pixels()
    made = Preprocessing(mean=MEAN, std=STD)(given)
    assert made.dtype == torch.float32
    for channel in range(3):
        expected = (given[:, channel].double() / 255 - MEAN[channel]) / STD[channel]
        torch.testing.assert_close(made[:, channel].double(), expected, rtol=1e-6, atol=1e-6)


def test_uint8_and_the_same_values_as_float_give_the_same_bits() -> None:
    prepare = Preprocessing(mean=MEAN, std=STD)
    assert torch.equal(prepare(pixels()), prepare(pixels().float()))


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_pixels_are_left_as_they_were(channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    given = pixels().float().to(memory_format=layout)
    before = given.clone()
    Preprocessing(mean=MEAN, std=STD)(given)
    assert torch.equal(given, before)


@pytest.mark.parametrize("size", [None, (6, 5), (9, 12), (3, 2)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_result_is_in_channels_last_memory(size: tuple[int, int] | None, channels: int) -> None:
    made = Preprocessing(mean=MEAN[:channels], std=STD[:channels], size=size)(pixels(channels=channels))
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert made.shape == (4, channels, *(size or (6, 5)))


@pytest.mark.parametrize("size", [None, (9, 12), (3, 2)])
def test_a_sample_gets_the_same_bits_in_any_batch(size: tuple[int, int] | None) -> None:
    prepare = Preprocessing(mean=MEAN, std=STD, size=size)
    together = prepare(pixels(7))
    alone = torch.cat([prepare(pixels(7)[position : position + 1]) for position in range(7)])
    assert torch.equal(together, alone)


def test_resizing_keeps_a_flat_image_flat_and_comes_before_normalising() -> None:
    flat = torch.full((1, 3, 8, 8), 51, dtype=torch.uint8)
    made = Preprocessing(mean=(0.2, 0.2, 0.2), std=(1.0, 1.0, 1.0), size=(20, 12))(flat)
    torch.testing.assert_close(made, torch.zeros(1, 3, 20, 12), atol=1e-6, rtol=0)


def test_shrinking_averages_so_that_no_pixel_is_skipped() -> None:
    chessboard = torch.zeros(1, 1, 16, 16)
    chessboard[..., ::2, ::2] = 255.0
    chessboard[..., 1::2, 1::2] = 255.0
    made = Preprocessing(mean=(0.5,), std=(1.0,), size=(4, 4))(chessboard)
    assert float(made.abs().max()) < 0.1


def test_images_with_other_channels_are_refused() -> None:
    with pytest.raises(BadInput, match=r"for \(batch, 3, height, width\), got \(4, 1, 6, 5\)"):
        Preprocessing(mean=MEAN, std=STD)(pixels(channels=1))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"mean": (), "std": ()}, "one number for each channel"),
        ({"mean": (0.5,), "std": (0.5, 0.5)}, "got 1 and 2"),
        ({"mean": (float("nan"),), "std": (0.5,)}, "mean must be finite"),
        ({"mean": (0.5,), "std": (0.0,)}, "never changes has std 0"),
        ({"mean": (0.5,), "std": (float("inf"),)}, "std must be positive"),
        ({"mean": (0.5,), "std": (0.5,), "size": (0, 4)}, "size is (height, width)"),
    ],
)
def test_impossible_statistics_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        Preprocessing(**arguments)
    assert said in str(caught.value)


def test_the_definition_is_json_that_makes_it_again() -> None:
    prepare = Preprocessing(mean=MEAN, std=STD, size=(9, 12))
    read = json.loads(json.dumps(prepare.definition()))
    again = Preprocessing(mean=tuple(read["mean"]), std=tuple(read["std"]), size=tuple(read["size"]))
    assert again == prepare
    assert hash(again) == hash(prepare)


@pytest.mark.parametrize("name", ["plain_cnn-2", "timm/resnet18", "torchvision/mobilenet_v2"])
def test_a_network_without_published_weights_uses_the_statistics_of_the_data(name: str) -> None:
    assert preprocessing_of(name, False) is None


def test_a_built_in_network_never_has_preprocessing_of_its_own() -> None:
    assert preprocessing_of("plain_cnn-2", True) is None


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(BadInput, match="there is no model"):
        preprocessing_of("banana", True)
