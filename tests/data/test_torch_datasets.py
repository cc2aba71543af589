"""Data from torch data sets of a program's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.ladder import tiny
from torch.utils.data import IterableDataset, Subset, TensorDataset

from understudy.data import load
from understudy.data.torch_datasets import from_torch
from understudy.errors import BadInput

ARRAYS = tiny.arrays(channels=3)


class Samples:
    """Made-up images in one of the forms that a data set may give."""

    def __init__(self, part: str = "train", form: Any = lambda pixels: pixels, label: Any = int) -> None:
        self.pixels, self.labels = ARRAYS[f"x_{part}"], ARRAYS[f"y_{part}"]
        self.form, self.label = form, label

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.form(self.pixels[index]), self.label(self.labels[index])


def first(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.permute(2, 0, 1)


FORMS = {
    "array": lambda pixels: pixels,
    "PIL": Image.fromarray,
    "uint8 tensor": lambda pixels: first(torch.from_numpy(pixels)),
    "float tensor": lambda pixels: first(torch.from_numpy(pixels)).float() / 255,
    "float64 array": lambda pixels: pixels / 255,
    "palette": lambda pixels: Image.fromarray(pixels).convert("RGB").quantize(256),
}


@pytest.mark.parametrize("form", [form for form in FORMS if form != "palette"])
def test_every_form_gives_the_data_that_a_file_of_the_arrays_gives(form: str, tmp_path: Path) -> None:
    file = tiny.saved(tmp_path / "arrays.npz", **ARRAYS)
    own = from_torch(Samples(form=FORMS[form]), Samples("test", form=FORMS[form]))
    assert own.fingerprint == file.fingerprint
    assert (own.mean, own.std, own.class_names) == (file.mean, file.std, file.class_names)
    for mine, theirs in ((own.train, file.train), (own.validation, file.validation), (own.test, file.test)):
        rows = np.arange(len(theirs))
        assert np.array_equal(mine.images.fetch(rows), theirs.images.fetch(rows))
        assert np.array_equal(mine.labels, theirs.labels)


@pytest.mark.parametrize("label", [int, np.int32, torch.tensor, lambda value: torch.tensor([int(value)])])
def test_labels_may_be_numbers_of_any_library(label: Any) -> None:
    assert (
        from_torch(Samples(label=label), Samples("test")).fingerprint
        == from_torch(Samples(), Samples("test")).fingerprint
    )


def test_a_palette_becomes_colour() -> None:
    assert from_torch(Samples(form=FORMS["palette"]), Samples("test")).channels == 3


def test_grey_images_may_leave_out_the_channel() -> None:
    flat = from_torch(
        Samples(form=lambda p: p[..., 0]), Samples("test", form=lambda p: torch.from_numpy(p[..., 0]))
    )
    assert flat.channels == 1


def test_torchs_own_data_sets_and_parts_of_them_will_do() -> None:
    pixels = torch.from_numpy(ARRAYS["x_train"]).permute(0, 3, 1, 2)
    whole = TensorDataset(pixels, torch.from_numpy(ARRAYS["y_train"]))
    data = from_torch(Subset(whole, range(40)), Samples("test"), validation=0)
    assert (len(data.train), len(data.validation), len(data.test)) == (40, 0, 16)


def test_a_list_of_samples_will_do() -> None:
    samples = [Samples()[index] for index in range(24)]
    assert len(from_torch(samples, samples, validation=0.25).validation) == 4


def test_validation_is_a_share_or_a_data_set_of_its_own() -> None:
    share = from_torch(Samples(), Samples("test"), validation=0.25)
    assert (len(share.train), len(share.validation)) == (36, 12)
    own = from_torch(Samples(), Samples("test"), validation=Samples("test"))
    assert (len(own.train), len(own.validation)) == (48, 16)


def test_class_names_are_given_or_the_data_sets_own_or_numbers() -> None:
    named = Samples()
    named.classes = ["north", "east", "south", "west"]  # type: ignore[attr-defined]
    assert from_torch(named, Samples("test")).class_names == ("north", "east", "south", "west")
    assert from_torch(named, Samples("test"), class_names=list("abcd")).class_names == tuple("abcd")
    assert from_torch(Samples(), Samples("test")).class_names == ("0", "1", "2", "3")


def test_images_of_several_sizes_are_brought_to_one() -> None:
    def cropped(pixels: np.ndarray) -> np.ndarray:
        return pixels[: 6 + int(pixels[0, 0, 0]) % 3]

    with pytest.raises(BadInput, match=r"train sample \d+ is \dx8x3, those before it are \dx8x3"):
        from_torch(Samples(form=cropped), Samples("test"))
    data = from_torch(Samples(form=cropped), Samples("test"), size=6, channels=1)
    assert (data.height, data.width, data.channels) == (6, 6, 1)


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([])


class Broken(Samples):
    def __getitem__(self, index: int) -> Any:
        raise FileNotFoundError("image 0 is gone")


def noisy(pixels: np.ndarray) -> np.ndarray:
    return np.random.default_rng().integers(0, 255, pixels.shape).astype(np.uint8)


@pytest.mark.parametrize(
    ("train", "more", "message"),
    [
        (Endless(), {}, "train is a Endless without a length"),
        ([], {}, "train has no sample"),
        (Broken(), {}, r"train sample 0 cannot be read \(FileNotFoundError: image 0 is gone\)"),
        ([1, 2], {}, r"train sample 0 is a int; a sample is \(image, label\)"),
        ([(1, 2, 3)], {}, "train sample 0 is 3 values"),
        (Samples(form=lambda p: "picture"), {}, "holds a str as its image"),
        (Samples(form=lambda p: p.astype(np.int64)), {}, "holds int64 values; pixels are uint8"),
        (Samples(form=lambda p: (p / 255 - 0.5) / 0.2), {}, "take Normalize and other arithmetic out"),
        (Samples(form=lambda p: p * np.nan), {}, "no grey levels divided by 255"),
        (Samples(form=lambda p: p / 255 * 0.7), {}, "no grey levels divided by 255"),
        (Samples(form=lambda p: torch.from_numpy(p)), {}, r"is a tensor of shape \(8, 8, 3\)"),
        (Samples(form=lambda p: p[..., :2]), {}, r"image of shape \(8, 8, 2\)"),
        (Samples(form=lambda p: p[0, 0]), {}, r"image of shape \(3,\)"),
        (Samples(form=lambda p: Image.fromarray(p[..., 0].astype(np.float32))), {}, "PIL image of mode F"),
        (Samples(form=noisy), {}, "another image each time it is read: take random transforms out"),
        (Samples(label=float), {}, "has the label '0.0'; a label is a whole number"),
        (Samples(label=lambda value: torch.zeros(4)), {}, "a label is a whole number"),
        (Samples(label=lambda value: int(value) - 3), {}, "labels are 0, 1, 2"),
        (Samples(label=lambda value: 2 * int(value)), {}, "never has label 1"),
        (Samples(), {"validation": 1.5}, "validation is 1.5; it is a fraction"),
        (Samples(), {"size": (1, 2, 3)}, r"size is \(1, 2, 3\)"),
        (Samples(), {"channels": 2}, "channels is 2"),
        (Samples(), {"class_names": ["one"]}, "there are 1 classes"),
    ],
)
def test_what_is_no_data_set_is_one_clear_line(train: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        from_torch(train, Samples("test"), **more)
    assert "\n" not in str(caught.value)


def test_more_pixels_than_memory_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    with pytest.raises(BadInput, match="train has 48 images of 192 bytes"):
        from_torch(Samples(), Samples("test"))


def test_samples_change_the_fingerprint_and_names_do_not(tmp_path: Path) -> None:
    base = from_torch(Samples(), Samples("test"))
    assert (
        from_torch(Samples(), Samples("test"), name="x", class_names=list("abcd")).fingerprint
        == base.fingerprint
    )
    other = from_torch(Samples(form=lambda p: np.minimum(p, 200)), Samples("test"))
    assert other.fingerprint != base.fingerprint
    assert from_torch(Samples(), Samples("test"), split_seed=1).fingerprint != base.fingerprint
    assert load(name="digits").fingerprint != base.fingerprint
