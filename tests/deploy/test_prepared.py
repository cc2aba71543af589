from __future__ import annotations

import pytest
import torch
from torch import nn

from understudy.deploy.prepared import WithPreprocessing, resizing
from understudy.models.preprocessing import Preprocessing


@pytest.mark.parametrize("image", [(12, 10), (8, 8), (5, 7), (16, 3), (40, 33)])
@pytest.mark.parametrize("size", [None, (8, 8), (13, 6)])
def test_pixels_come_to_the_network_as_preprocessing_has_them(
    image: tuple[int, int], size: tuple[int, int] | None
) -> None:
    preprocessing = Preprocessing(mean=(0.5, 0.1, 0.3), std=(0.2, 0.4, 0.05), size=size)
    pixels = torch.randint(0, 256, (3, 3, *image), generator=torch.Generator().manual_seed(0))
    inside = WithPreprocessing(nn.Identity(), preprocessing, image=image)
    torch.testing.assert_close(inside(pixels.float()), preprocessing(pixels), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(("length", "to"), [(8, 3), (3, 8), (5, 5), (33, 224)])
def test_resizing_keeps_what_is_the_same_everywhere(length: int, to: int) -> None:
    assert resizing(length, to).shape == (to, length)
    torch.testing.assert_close(resizing(length, to).sum(1), torch.ones(to))


def test_what_is_not_resized_costs_no_matrix_product() -> None:
    inside = WithPreprocessing(nn.Identity(), Preprocessing((0.0,), (1.0,), size=(4, 4)), image=(4, 4))
    assert {name for name, _ in inside.named_buffers()} == {"mean", "std"}
