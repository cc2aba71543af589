from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.deploy.made import IMAGE, NAMES, PREPROCESSING, pixels, small
from understudy.deploy.torch_export import write_torch
from understudy.deploy.torch_programs import TorchRun, shapes_of
from understudy.errors import BadInput


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network as ``plain.pt2``, and as ``pixels.pt2`` with its preprocessing."""
    folder = tmp_path_factory.mktemp("torch")
    write_torch(small(), folder / "plain.pt2", channels=3, size=(8, 8), class_names=NAMES)
    write_torch(small(), folder / "pixels.pt2", channels=3, size=IMAGE, preprocessing=PREPROCESSING)
    return folder


def both(path: Path, images: Tensor) -> list[Tensor]:
    """Torch's own reader, and ours, which does not unpickle."""
    size = (images.shape[2], images.shape[3])
    ours = TorchRun(path.read_bytes(), source="a.pt2", classes=3, channels=3, size=size)
    with torch.no_grad():
        return [torch.export.load(path).module()(images), ours(images)]


@pytest.mark.filterwarnings("ignore:`isinstance.treespec:FutureWarning")
@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_file_answers_batches_of_any_length_as_the_network_does(folder: Path, count: int) -> None:
    images = PREPROCESSING(pixels(count))
    for answer in both(folder / "plain.pt2", images):
        torch.testing.assert_close(answer, small()(images), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`isinstance.treespec:FutureWarning")
def test_with_preprocessing_it_takes_pixels(folder: Path) -> None:
    expected = small()(PREPROCESSING(pixels()))
    for answer in both(folder / "pixels.pt2", pixels()):
        torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-4)


def test_it_holds_class_names_and_no_images_and_nothing_of_the_machine(folder: Path) -> None:
    with zipfile.ZipFile(folder / "plain.pt2") as archive:
        inside = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    (names,) = (content for name, content in inside.items() if name.endswith("class_names.json"))
    assert json.loads(names) == list(NAMES)
    assert not any(b"site-packages" in content or b"stack_trace" in content for content in inside.values())
    images = [len(content) for name, content in inside.items() if "sample_inputs" in name]
    assert max(images, default=0) < 2 * 3 * 8 * 8 * 4  # bytes of the two that it is captured with


def test_its_shapes_are_read_without_running_it(folder: Path) -> None:
    assert shapes_of((folder / "pixels.pt2").read_bytes(), source="a") == ([None, 3, *IMAGE], [None, 3])
    with pytest.raises(BadInput, match=r"a\.pt2 is not a whole file of torch\.export\.save"):
        shapes_of((folder / "plain.pt2").read_bytes()[:500], source="a.pt2")
