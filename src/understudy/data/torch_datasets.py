"""Images from a ``torch.utils.data.Dataset`` of a program's own: read once, checked, and held as bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from understudy.data.arrays import ArraySource
from understudy.data.dataset import Dataset
from understudy.data.decoding import decode, fit_array, to_channels
from understudy.data.loading import assembled
from understudy.data.source import Part, checked_names, whole_labels
from understudy.data.splits import carve_validation
from understudy.errors import BadInput

READ_TWICE = 8  # of the first images, to notice transforms that are drawn anew each time
MEMORY_SHARE = 0.8  # of this machine's memory that pixels may take
WHOLE = 1e-3  # how far 255 times a float may lie from a whole grey level


class Samples(Protocol):
    """What is asked of a data set: as many samples as it says, each an image and a label."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


def from_torch(
    train: Samples,
    test: Samples,
    *,
    validation: float | Samples = 0.1,
    name: str = "own data",
    class_names: Sequence[str] | None = None,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    split_seed: int = 0,
) -> Dataset:
    """Makes a data set of ``torch.utils.data.Dataset`` objects, or anything with ``len`` and whole-number indexing.

    Every sample is read once, here, and its pixels are kept; what a model sees of them (augmentation, normalisation)
    is said elsewhere, so the data sets come **without random transforms and without Normalize**. The same pixels and
    labels give the same data, and so the same kept results, as an ``.npz`` file of them.

    Args:
        train: samples ``(image, label)``. An image is a PIL image, a uint8 array or tensor, or a float tensor in
            [0, 1] as ``ToTensor`` gives it; arrays are ``(height, width[, 1 or 3])``, tensors
            ``([1 or 3, ]height, width)``. A label is a whole number; -1 in ``train`` is unlabelled.
        test: likewise.
        validation: fraction of ``train`` to set aside, the same number of every class; or a data set of its own.
        name: what to call it.
        class_names: one for each label; None: what ``train.classes`` says, as torchvision's data sets do, else
            the numbers.
        size: ``(height, width)``, or one number for a square, to which every image is brought.
        channels: 1 or 3; None: as the images are.
        split_seed: of the validation split.

    Raises:
        BadInput: a sample of another form, images of several sizes without ``size``, transforms that are random,
            or more pixels than this machine's memory can hold. The message names the sample.
    """
    if isinstance(size, int):
        size = (size, size)
    if size is not None and (len(size) != 2 or not all(1 <= side <= 8192 for side in size)):
        raise BadInput(
            f"size is {size!r}; it is one number of pixels, or (height, width), each from 1 to 8192."
        )
    if channels not in (None, 1, 3):
        raise BadInput(f"channels is {channels!r}; it can be 1 (grey) or 3 (colour), or left out.")
    parts: dict[Part, Any] = {"train": train, "test": test}
    own = not isinstance(validation, int | float)
    if own:
        parts["validation"] = validation
    elif not 0 <= validation < 1:  # type: ignore[operator]
        raise BadInput(
            f"validation is {validation!r}; it is a fraction from 0 up to but not including 1, or a data set."
        )
    pixels: dict[Part, np.ndarray] = {}
    labels: dict[Part, np.ndarray] = {}
    for part, samples in parts.items():
        pixels[part], found = _read(samples, part, size=size, channels=channels)
        labels[part] = whole_labels(
            found, source=name, name=f"{part} labels", count=len(found), unlabelled=part == "train"
        )
    names = class_names
    if names is None and isinstance(said := getattr(train, "classes", None), list | tuple):
        names = [str(one) for one in said]
    checked, notes = checked_names(
        {f"{part} labels": values for part, values in labels.items()}, names, source=name
    )
    source = ArraySource(name=name, class_names=checked, labels=labels, pixels=pixels, notes=notes)
    rows: np.ndarray = np.arange(len(labels["train"]))
    chosen: dict[Part, tuple[Part, np.ndarray]]
    if own:
        chosen = {
            "train": ("train", rows),
            "validation": ("validation", np.arange(len(labels["validation"]))),
        }
    else:
        stays, carved = carve_validation(
            labels["train"],
            fraction=float(validation),  # type: ignore[arg-type]
            seed=split_seed,
            describe=lambda row: f"class {checked[labels['train'][row]]!r} (train sample {row})",
        )
        chosen = {"train": ("train", stays), "validation": ("train", carved)}
    chosen["test"] = ("test", np.arange(len(labels["test"])))
    return assembled(source, chosen, channels=channels)


def _read(
    samples: Samples, part: str, *, size: tuple[int, int] | None, channels: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels ``(n, height, width, channels)`` uint8 and labels ``(n,)`` of all samples, read one after another."""
    try:
        count = len(samples)
    except TypeError as error:
        raise BadInput(
            f"{part} is a {type(samples).__name__} without a length; a data set has len() and gives a sample for each "
            f"number below it. Put the samples of an iterable into a list."
        ) from error
    if not count:
        raise BadInput(f"{part} has no sample.")
    pixels: np.ndarray | None = None
    labels: list[Any] = []
    for index in range(count):
        where = f"{part} sample {index}"
        image, label = _sample(samples, index, part)
        own = _pixels(image, where)
        if channels is not None:
            own = to_channels(own[None], channels)[0]
        if size is not None:
            own = fit_array(own[None], size)[0]
        if pixels is None:
            _check_memory(count, own.nbytes, part)
            pixels = np.zeros((count, *own.shape), dtype=np.uint8)
        if own.shape != pixels.shape[1:]:
            raise BadInput(
                f"{where} is {_shape(own)}, those before it are {_shape(pixels[0])} (height x width x channels). "
                f"Say size= to bring all to one size, channels= to one number of channels."
            )
        pixels[index] = own
        labels.append(_label(label, where))
        if index < READ_TWICE and not np.array_equal(
            _pixels(_sample(samples, index, part)[0], where), _pixels(image, where)
        ):
            raise BadInput(
                f"{where} is another image each time it is read: take random transforms out of the data set. "
                f"Augmentation is said with views=ViewPolicy(crop=4, flip=True) where the ladder is run."
            )
    assert pixels is not None
    return pixels, np.array(labels, dtype=np.int64)


def _sample(samples: Samples, index: int, part: str) -> tuple[Any, Any]:
    try:
        sample = samples[index]
    except Exception as error:  # whatever the user's code raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadInput(f"{part} sample {index} cannot be read ({reason}).") from error
    if not isinstance(sample, list | tuple) or len(sample) != 2:
        form = f"{len(sample)} values" if isinstance(sample, list | tuple) else f"a {type(sample).__name__}"
        raise BadInput(f"{part} sample {index} is {form}; a sample is (image, label).")
    return sample[0], sample[1]


def _pixels(image: Any, where: str) -> np.ndarray:
    """``(height, width, channels)`` uint8 of one image."""
    import torch
    from PIL import Image

    if isinstance(image, Image.Image):
        return _pixels_of_pil(image, where)
    if isinstance(image, torch.Tensor):
        array = image.detach().cpu()
        if array.ndim == 3:
            if array.shape[0] not in (1, 3):
                raise BadInput(
                    f"{where} is a tensor of shape {tuple(image.shape)}; a tensor is (channels, height, width) with 1 "
                    f"or 3 channels, or (height, width)."
                )
            array = array.permute(1, 2, 0)
        values = array.numpy()
    elif isinstance(image, np.ndarray):
        values = image
    else:
        raise BadInput(
            f"{where} holds a {type(image).__name__} as its image; it can be a PIL image, a tensor or an array."
        )
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in (1, 3) or 0 in values.shape:
        raise BadInput(
            f"{where} is an image of shape {tuple(image.shape)}; it is (height, width) or (height, width, 1 or 3), "
            f"for tensors (1 or 3, height, width)."
        )
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype.kind != "f":
        raise BadInput(
            f"{where} holds {values.dtype} values; pixels are uint8 from 0 to 255, or floats from 0 to 1."
        )
    levels = values.astype(np.float64) * 255
    whole = np.rint(levels)
    if (
        not np.isfinite(levels).all()
        or np.abs(levels - whole).max() > WHOLE
        or whole.min() < 0
        or whole.max() > 255
    ):
        raise BadInput(
            f"{where} holds floats from {values.min():.3g} to {values.max():.3g} that are no grey levels divided by "
            f"255: take Normalize and other arithmetic out of the data set (normalisation belongs to the network), or "
            f"give uint8."
        )
    return np.ascontiguousarray(whole.astype(np.uint8))


def _pixels_of_pil(image: Any, where: str) -> np.ndarray:
    if image.mode == "L":
        return np.asarray(image)[..., None].copy()
    if image.mode == "RGB":
        return np.asarray(image).copy()
    file = io.BytesIO()
    try:  # palettes, transparency and single bits become pixels as they would from a file
        image.save(file, format="PNG")
    except OSError as error:
        raise BadInput(
            f"{where} is a PIL image of mode {image.mode}; convert it with .convert('RGB') or .convert('L')."
        ) from error
    file.seek(0)
    return decode(file, where=where)


def _label(label: Any, where: str) -> int:
    import torch

    value = label
    if isinstance(label, torch.Tensor | np.ndarray | np.generic) and int(np.prod(label.shape)) == 1:
        value = label.item()
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadInput(f"{where} has the label {str(label)[:60]!r}; a label is a whole number 0, 1, 2, ...")
    return value


def _check_memory(count: int, size: int, part: str) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if count * size > MEMORY_SHARE * memory:
        raise BadInput(
            f"{part} has {count} images of {size} bytes, {count * size / 1e9:.0f} GB, and this machine has "
            f"{memory / 1e9:.0f} GB of memory. Say a smaller size=, or load(path=...) a folder of image files, which "
            f"are read as they are needed."
        )


def _shape(pixels: np.ndarray) -> str:
    return "x".join(str(side) for side in pixels.shape)
