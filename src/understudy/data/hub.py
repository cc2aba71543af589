"""Images from a Hugging Face data set: by its name on the hub, or from a local folder."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from understudy.data.dataset import UNLABELLED
from understudy.data.decoding import shown
from understudy.data.encoded import EncodedSource
from understudy.data.source import Part, checked_names, whole_labels
from understudy.errors import BadInput, MissingExtra, listed

SPLIT_NAMES: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


class Rows:
    """Encoded images of the splits of one data set, see ``understudy.data.encoded.Encoded``.

    Args:
        tables: ``datasets.Dataset`` objects, their images not decoded.
        places: names each table for messages.
        column: of the images.
    """

    def __init__(self, tables: Sequence[Any], places: Sequence[str], *, column: str) -> None:
        self.column = column
        self.tables = tuple(tables)
        self.places = tuple(places)
        self.starts = np.cumsum([0, *(len(table) for table in tables)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _find(self, row: int) -> tuple[int, int]:
        table = int(np.searchsorted(self.starts, row, side="right")) - 1
        return table, row - int(self.starts[table])

    def open(self, row: int) -> BinaryIO:
        """The encoded image."""
        table, place = self._find(row)
        image = self.tables[table][place][self.column]
        if image is None or (image["bytes"] is None and image["path"] is None):
            raise OSError("there is no image in this row")
        if image["bytes"] is None:
            return Path(image["path"]).open("rb")
        return io.BytesIO(image["bytes"])

    def where(self, row: int) -> str:
        """Data set, split and row."""
        table, place = self._find(row)
        return f"{self.places[table]} row {place}"

    def stamp(self, row: int) -> None:
        """Nothing tells whether a row has changed."""


def hub_source(name: str, *, columns: Mapping[str, str] | None = None) -> EncodedSource:
    """Reads a data set with the ``datasets`` package; images are decoded later, by our own decoder.

    Args:
        name: ``owner/name`` on the hub, ``owner/name:configuration`` where it has several, or a local
            folder: one that ``save_to_disk`` wrote, or one with Parquet files.
        columns: ``{"image": …, "label": …}``. Unless said, the image column is the only one of that kind,
            and the label column the only ``ClassLabel``, or else the only one of whole numbers.

    No code of the data set is ever run. A test split whose labels are all -1 (withheld, as for challenges)
    is left out, and the validation split becomes the test split.

    Raises:
        MissingExtra: the ``datasets`` package is not installed.
        BadInput: the set cannot be had, its columns cannot be told apart, or its labels are no class numbers.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtra("hub data sets", "hub") from None
    called = shown(name)
    tables = _splits(_fetched(name), called=called)
    image_column, label_column = _columns(tables["train"].features, columns, called=called)
    labels: dict[Part, np.ndarray] = {}
    for part, table in tables.items():
        for column in (image_column, label_column):
            if column not in table.features:
                raise BadInput(
                    f"{called}: the {part} split has no column {column!r}; it has {listed(table.features)}"
                )
        labels[part] = _labels(
            table.select_columns([label_column]).with_format("arrow")[:].column(label_column).to_pylist(),
            source=called,
            name=f"{label_column} of {part}",
            count=len(table),
        )
    notes: tuple[str, ...] = ()
    if "test" in tables and (labels["test"] == UNLABELLED).all():
        del tables["test"], labels["test"]
        notes += ("The test split has no labels and is left out.",)
    if "validation" in tables and "test" not in tables:
        tables["test"], labels["test"] = tables.pop("validation"), labels.pop("validation")
        notes += (
            "The set's validation split is used as the test split; validation is carved from training.",
        )
    for part in labels:
        whole_labels(
            labels[part],
            source=called,
            name=f"{label_column} of {part}",
            count=len(labels[part]),
            unlabelled=part == "train",
        )
    feature = tables["train"].features[label_column]
    class_names, more = checked_names(
        {f"{label_column} of {part}": values for part, values in labels.items()},
        feature.names if isinstance(feature, datasets.ClassLabel) else None,
        source=called,
    )
    encoded, parts, places = [], {}, []
    start = 0
    for part, table in tables.items():
        only = table.select_columns([image_column]).with_format(None)
        encoded.append(only.cast_column(image_column, datasets.Image(decode=False)))
        places.append(f"{called}, {part} split,")
        parts[part] = start, start + len(table)
        start += len(table)
    return EncodedSource(
        name=called,
        class_names=class_names,
        labels=labels,
        encoded=Rows(encoded, places, column=image_column),
        parts=parts,
        root=called,
        notes=notes + more,
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _fetched(name: str) -> Any:
    """What the ``datasets`` package makes of a name or folder."""
    import datasets

    folder = Path(name)
    called = shown(name)
    try:
        if folder.is_dir():
            if any((folder / mark).is_file() for mark in ("dataset_dict.json", "state.json")):
                return datasets.load_from_disk(name)
            return datasets.load_dataset(name)
        repository, _, configuration = name.partition(":")
        return datasets.load_dataset(repository, configuration or None)
    except datasets.exceptions.DatasetNotFoundError:
        raise BadInput(
            f"hub data set {called} is not on the Hugging Face hub, or is private, and is no local folder; "
            f"check the spelling (owner/name)"
        ) from None
    except Exception as error:  # files, network, server and format each have their own kinds of error
        if isinstance(error, OSError) and not folder.exists():
            raise BadInput(
                f"hub data set {called} could not be fetched: check the network, or download it elsewhere and give "
                f"its folder ({_one_line(error)})"
            ) from None
        raise BadInput(f"hub data set {called} cannot be read: {_one_line(error)}") from None


def _splits(found: Any, *, called: str) -> dict[Part, Any]:
    """The tables by part, training first."""
    import datasets

    if isinstance(found, datasets.Dataset):
        found = {"train": found}
    parts: dict[Part, Any] = {}
    names: dict[Part, str] = {}
    for name, table in found.items():
        part = SPLIT_NAMES.get(name)
        if part is None:
            continue
        if part in parts:
            raise BadInput(f"{called} has splits {names[part]} and {name}, which mean the same; keep one")
        if not len(table):
            raise BadInput(f"{called}: split {name} is empty; remove it or fill it")
        parts[part], names[part] = table, name
    if "train" not in parts:
        raise BadInput(f"{called} has no split named train; it has {listed(found)}")
    order: tuple[Part, ...] = ("train", "validation", "test")
    return {part: parts[part] for part in order if part in parts}


def _columns(features: Any, columns: Mapping[str, str] | None, *, called: str) -> tuple[str, str]:
    """Names of the image and of the label column."""
    import datasets

    kinds = listed(
        f"{name} ({getattr(f, 'dtype', None) or type(f).__name__})" for name, f in features.items()
    )
    columns = columns or {}
    if not isinstance(columns, Mapping) or any(key not in ("image", "label") for key in columns):
        raise BadInput(f"columns is {columns!r}; it names the columns as {{image: …, label: …}}")
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)] or [
        name
        for name, feature in features.items()
        if isinstance(feature, datasets.Value) and "int" in feature.dtype
    ]
    chosen = []
    for kind, possible in (("image", images), ("label", labels)):
        if kind in columns:
            if columns[kind] not in features:
                raise BadInput(f"{called} has no column {columns[kind]!r}; it has {kinds}")
            if kind == "image" and columns[kind] not in images:
                raise BadInput(f"{called}: column {columns[kind]!r} holds no images; the columns are {kinds}")
            chosen.append(columns[kind])
        elif len(possible) == 1:
            chosen.append(possible[0])
        else:
            many = "several columns that could be" if possible else "no column that is clearly"
            raise BadInput(
                f"{called} has {many} the {kind}; it has {kinds}: say which with columns: {{{kind}: …}}"
            )
    return chosen[0], chosen[1]


def _labels(values: list[object], *, source: str, name: str, count: int) -> np.ndarray:
    if any(value is None for value in values):
        raise BadInput(
            f"{source}: {name}, row {values.index(None)}, has no label; write -1 for an unlabelled training image"
        )
    return whole_labels(np.array(values), source=source, name=name, count=count, unlabelled=True)
