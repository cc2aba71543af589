"""One function from where a data set lies to a data set that can be trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from understudy.data.dataset import UNLABELLED, Dataset, Origin, Split
from understudy.data.decoding import shown
from understudy.data.long_tail import LongTail, class_sizes, long_tailed, note_on
from understudy.data.scan import fingerprint, mean_and_std
from understudy.data.source import Chosen, Memory, Part, Source
from understudy.data.splits import carve_test, carve_validation, limit
from understudy.errors import BadInput, listed, suggestion

NAMES = ("digits",)
"""Data sets that need no file."""

DEFAULT_TEST_FRACTION = 0.2


def load(
    *,
    name: str | None = None,
    path: str | Path | None = None,
    hub: str | None = None,
    validation: float = 0.1,
    split_seed: int = 0,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    train_images: int | None = None,
    test_images: int | None = None,
    long_tail: LongTail | None = None,
    memory: Memory = "auto",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    test_fraction: float | None = None,
    columns: Mapping[str, str] | None = None,
    cache: str | Path | None = None,
) -> Dataset:
    """Loads a data set and splits it. Say exactly one of ``name``, ``path`` and ``hub``.

    Args:
        name: a set that needs no file: ``digits``.
        path: an ``.npz`` file (``understudy.data.arrays.npz_source``) or a folder of class folders
            (``understudy.data.folders.folder_source``).
        hub: a Hugging Face data set (``understudy.data.hub.hub_source``).
        validation: fraction of the training images that becomes the validation split, in [0, 1), the same
            number of every class (``understudy.data.splits.carve_validation``). A set that comes with
            a validation split keeps its own; 0 leaves the split empty in every case.
        split_seed: of the splits that are made here and of ``train_images``, ``test_images``; seeds of
            training are others.
        size: ``(height, width)``, or one number for a square, to which every image is brought
            (``understudy.data.decoding`` says how). None keeps the images, which must then agree.
        channels: 1 or 3; None is 1 if every image is grey, otherwise 3.
        train_images: length of the training split after validation was carved; the proportions of the
            classes are kept and fewer images are a subset of more (``understudy.data.splits.limit``).
        test_images: the same for the test split.
        long_tail: leaves out training images, after all of that, so that classes are rarer and rarer; see
            ``understudy.data.long_tail``. Validation and test split stay as they are.
        memory: ``memory`` holds decoded images, ``stream`` decodes them for every batch, ``auto`` holds
            up to 2 GiB. The pixels are the same.
        mean, std: per channel, 1.0 = grey level 255; None takes them from the training split.
        test_fraction: of a set without a test split, in (0, 1); 0.2 unless said.
        columns: ``{"image": …, "label": …}``, for hub sets whose columns cannot be told apart.
        cache: a folder where the scan of a folder of images is kept; loading it again is then quick.

    Raises:
        BadInput: an argument or the data cannot be used; the message says which and what to do.
        MissingExtra: ``hub`` without the packages that it needs.

    >>> digits = load(name="digits")
    >>> len(digits.train), len(digits.validation), len(digits.test)
    (816, 80, 901)
    """
    _check_numbers(validation, split_seed, train_images, test_images, test_fraction)
    size = _checked_size(size)
    if channels not in (None, 1, 3) or isinstance(channels, bool):
        raise BadInput(f"channels is {channels!r}; it can be 1 (grey) or 3 (colour), or left out")
    if memory not in get_args(Memory):
        raise BadInput(
            f"memory is {memory!r}; it can be {listed(get_args(Memory))}.{suggestion(str(memory), get_args(Memory))}"
        )
    source = _source(name=name, path=path, hub=hub, columns=columns)
    chosen, notes = _choose(
        source,
        validation=validation,
        test_fraction=test_fraction,
        split_seed=split_seed,
        train_images=train_images,
        test_images=test_images,
        long_tail=long_tail,
    )
    return assembled(
        source,
        chosen,
        size=size,
        channels=channels,
        memory=memory,
        cache=Path(cache) if cache is not None else None,
        mean=mean,
        std=std,
        notes=notes,
    )


def assembled(
    source: Source,
    chosen: Chosen,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    memory: Memory = "memory",
    cache: Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    notes: Sequence[str] = (),
) -> Dataset:
    """The data set of chosen rows of a source: pixels prepared, statistics measured unless given, fingerprint taken.

    Args:
        source: what every kind of data becomes.
        chosen: for ``train``, ``validation`` and ``test``, the source's part and the rows of it, ``(n,)`` int64.
        size, channels, memory, cache, mean, std: as for ``load``.
        notes: said after the source's own.
    """
    prepared = source.prepare(chosen, size=size, channels=channels, memory=memory, cache=cache)
    splits = {
        split: Split(
            images=prepared.splits[split][0],
            labels=source.labels[part][rows],
            origin=Origin(part=part, rows=rows, images=len(source.labels[part])),
        )
        for split, (part, rows) in chosen.items()
    }
    measured_mean, measured_std = mean_and_std(prepared.splits["train"][1])
    counts = class_sizes(splits["train"].labels, classes=len(source.class_names))
    parts: tuple[Part, ...] = ("train", "validation", "test")
    return Dataset(
        name=source.name,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        class_names=source.class_names,
        height=prepared.height,
        width=prepared.width,
        channels=prepared.channels,
        mean=_given("mean", mean, prepared.channels) or measured_mean,
        std=_given("std", std, prepared.channels) or measured_std,
        fingerprint=fingerprint(
            [(split, splits[split].labels, prepared.splits[split][1]) for split in parts],
            height=prepared.height,
            width=prepared.width,
            channels=prepared.channels,
            classes=len(source.class_names),
        ),
        notes=(*source.notes, *notes, *prepared.notes, *note_on(counts)),
    )


def _source(
    *, name: str | None, path: str | Path | None, hub: str | None, columns: Mapping[str, str] | None
) -> Source:
    given = {key: value for key, value in (("name", name), ("path", path), ("hub", hub)) if value is not None}
    if len(given) != 1:
        said = listed(f"{key}: {value}" for key, value in given.items())
        raise BadInput(f"say exactly one of name, path and hub for the data; got {said}")
    if columns is not None and hub is None:
        raise BadInput("columns is for hub data sets only; leave it out")
    if name is not None:
        if name not in NAMES:
            raise BadInput(
                f"no data set is named {name!r}; there is {listed(NAMES)}, and path: for a file or folder, "
                f"hub: for a Hugging Face data set.{suggestion(str(name), NAMES)}"
            )
        from understudy.data.digits import digits_source

        return digits_source()
    if hub is not None:
        from understudy.data.hub import hub_source

        return hub_source(hub, columns=columns)
    assert path is not None
    where = Path(path)
    try:
        where.stat()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadInput(
            f"data path {shown(where)} cannot be read: {reason}; give an .npz file or a folder of class folders"
        ) from None
    if where.is_dir():
        from understudy.data.folders import folder_source

        return folder_source(where)
    if not where.is_file():
        raise BadInput(f"data path {shown(where)} is neither a file nor a folder")
    from understudy.data.arrays import npz_source

    return npz_source(where)


def _choose(
    source: Source,
    *,
    validation: float,
    test_fraction: float | None,
    split_seed: int,
    train_images: int | None,
    test_images: int | None,
    long_tail: LongTail | None,
) -> tuple[Chosen, list[str]]:
    """Which images go into which split: test first, then validation, the limits, the long tail. And notes."""
    notes = []
    everything = source.labels["train"]
    train: np.ndarray = np.arange(len(everything))
    if "test" in source.labels:
        if test_fraction is not None:
            raise BadInput(
                f"test_fraction is {test_fraction}, but {source.name} has a test split of its own; leave it out"
            )
        test_part: Part = "test"
        test = np.arange(len(source.labels["test"]))
    else:
        share = DEFAULT_TEST_FRACTION if test_fraction is None else test_fraction
        test_part = "train"
        train, test = carve_test(
            everything, fraction=share, seed=split_seed, describe=_describe(source, train)
        )
        notes.append(
            f"The set has no test split: {len(test)} of {len(everything)} images "
            f"(test_fraction {share:g}, split_seed {split_seed}) were set aside as one."
        )
    if "validation" in source.labels:
        own = np.arange(len(source.labels["validation"]))
        validation_part: Part = "validation"
        carved = own if validation else own[:0]
        what = "is the set's own" if validation else "is left out, though the set has one"
        notes.append(f"The validation split {what}, {len(own)} images.")
    else:
        validation_part = "train"
        stays, taken = carve_validation(
            everything[train], fraction=validation, seed=split_seed, describe=_describe(source, train)
        )
        train, carved = train[stays], train[taken]
        counts = np.unique(everything[carved], return_counts=True)[1]
        if counts.size and counts.min() < counts.max():
            notes.append(
                f"The validation split is not balanced: it has {counts.max()} images of most classes and "
                f"{counts.min()} of the smallest, which cannot give more."
            )
    train = train[_limited(everything[train], train_images, "train_images", split_seed)]
    test = test[_limited(source.labels[test_part][test], test_images, "test_images", split_seed)]
    if long_tail is not None:
        train, said = _with_long_tail(source, train, long_tail, split_seed)
        notes += said
    return {
        "train": ("train", train),
        "validation": (validation_part, carved),
        "test": (test_part, test),
    }, notes


def _with_long_tail(
    source: Source, train: np.ndarray, long_tail: LongTail, seed: int
) -> tuple[np.ndarray, list[str]]:
    """The rows that stay, and what to say of the others."""
    labels = source.labels["train"][train]
    kept = train[
        long_tailed(
            labels,
            long_tail,
            classes=len(source.class_names),
            seed=seed,
            describe=lambda label: f"class {source.class_names[label]!r}",
        )
    ]
    notes = [f"long_tail keeps {len(kept)} of {len(train)} training images."]
    if unlabelled := int((labels == UNLABELLED).sum()):
        notes.append(f"long_tail leaves out the {unlabelled} unlabelled images.")
    return kept, notes


def _describe(source: Source, rows: np.ndarray) -> Callable[[int], str]:
    """Names the class of a row of ``rows`` and the file that is its only image."""

    def describe(row: int) -> str:
        label = int(source.labels["train"][rows[row]])
        return f"class {source.class_names[label]!r} ({source.where('train', int(rows[row]))})"

    return describe


def _limited(labels: np.ndarray, count: int | None, argument: str, seed: int) -> np.ndarray:
    if count is None:
        return np.arange(len(labels))
    classes = np.unique(labels[labels != UNLABELLED]).size if argument == "train_images" else 1
    if not classes <= count <= len(labels):
        why = f"{classes}, one for each class," if classes > 1 else "1"
        raise BadInput(f"{argument} is {count}; it can be from {why} to {len(labels)}, all that there are")
    return limit(labels, count=count, seed=seed, purpose=argument)


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, float | np.floating) and math.isfinite(value))


def _check_numbers(
    validation: float,
    split_seed: int,
    train_images: int | None,
    test_images: int | None,
    test_fraction: float | None,
) -> None:
    if not _is_number(validation) or not 0 <= validation < 1:
        raise BadInput(
            f"validation is {validation!r}; it is the fraction of training images to set aside, from 0 up to "
            f"but not including 1 (0.1 is a tenth)"
        )
    if not _is_whole(split_seed):
        raise BadInput(f"split_seed is {split_seed!r}; it is a whole number")
    for argument, count in (("train_images", train_images), ("test_images", test_images)):
        if count is not None and (not _is_whole(count) or count < 1):
            raise BadInput(
                f"{argument} is {count!r}; it is a number of images, 1 or more, or left out for all"
            )
    if test_fraction is not None and (not _is_number(test_fraction) or not 0 < test_fraction < 1):
        raise BadInput(f"test_fraction is {test_fraction!r}; it lies between 0 and 1, both excluded")


def _checked_size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if len(pair) != 2 or not all(_is_whole(side) and 1 <= side <= 8192 for side in pair):
        raise BadInput(
            f"size is {size!r}; it is one number of pixels, or [height, width], each from 1 to 8192"
        )
    return int(pair[0]), int(pair[1])


def _given(argument: str, values: Sequence[float] | None, channels: int) -> tuple[float, ...] | None:
    if values is None:
        return None
    low = "above 0" if argument == "std" else "from 0"
    if (
        not isinstance(values, list | tuple)
        or len(values) != channels
        or not all(_is_number(value) and 0 <= value <= 1 for value in values)
        or (argument == "std" and 0 in values)
    ):
        raise BadInput(
            f"{argument} is {values!r}; it is {channels} number{'s' if channels > 1 else ''}, one for each channel, "
            f"{low} to 1, where 1 is grey level 255"
        )
    return tuple(float(value) for value in values)
