from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.deploy.made import IMAGE, PREPROCESSING, small, split
from understudy.errors import BadInput

pytestmark = pytest.mark.slow


class Bessel(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return torch.special.bessel_j0(features)


@pytest.fixture(autouse=True)
def _executorch() -> None:
    pytest.importorskip("executorch.exir")


@pytest.mark.parametrize("inside", [False, True])
def test_the_program_answers_as_the_network_does(tmp_path: Path, inside: bool) -> None:
    from understudy.deploy.executorch_export import write_executorch
    from understudy.deploy.parity import demanded

    path = tmp_path / "a.pte"
    write_executorch(
        small(),
        path,
        channels=3,
        size=IMAGE if inside else (8, 8),
        preprocessing=PREPROCESSING if inside else None,
    )
    found = demanded(small(), path, split(), preprocessing=PREPROCESSING, classes=3, inside=inside)
    assert found.differing == 0
    assert found.largest_difference < 1e-3
    assert path.read_bytes()[4:6] == b"ET"  # what its format begins with
    assert b"XnnpackBackend" in path.read_bytes()


def test_an_operator_that_it_lacks_is_named_with_its_layer(tmp_path: Path) -> None:
    from understudy.deploy.executorch_export import write_executorch

    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(192, 3), Bessel()))
    with pytest.raises(
        BadInput, match=r"^ExecuTorch cannot express aten\.special_bessel_j0, which layer '1\.1' uses"
    ):
        write_executorch(model, tmp_path / "a.pte", channels=3, size=(8, 8))
    assert list(tmp_path.iterdir()) == []
