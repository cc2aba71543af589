"""The hub's source where the ``datasets`` package is not installed: on a stand-in that has what is used of it.

The package itself is used in test_hub.py, by ``make test-extras``.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from understudy.data import load
from understudy.errors import BadInput


class Feature:
    """A column's kind."""

    def __init__(self, dtype: str | None = None, names: list[str] | None = None, decode: bool = True) -> None:
        self.dtype, self.names, self.decode = dtype, names or [], decode


class Picture(Feature):
    pass


class Label(Feature):
    pass


class Value(Feature):
    pass


class Table:
    """Columns of one length; what is selected or cast is another table."""

    def __init__(self, columns: dict[str, list[Any]], features: dict[str, Feature]) -> None:
        self.columns, self.features = columns, features

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, slice):
            return SimpleNamespace(
                column=lambda name: SimpleNamespace(to_pylist=lambda: list(self.columns[name]))
            )
        assert not any(isinstance(f, Picture) and f.decode for f in self.features.values()), "decoded by us"
        return {name: values[which] for name, values in self.columns.items()}

    def select_columns(self, names: list[str]) -> Table:
        return Table({n: self.columns[n] for n in names}, {n: self.features[n] for n in names})

    def with_format(self, name: str | None) -> Table:
        assert name in (None, "arrow")
        return self

    def cast_column(self, name: str, feature: Feature) -> Table:
        return Table(self.columns, {**self.features, name: feature})


class DatasetNotFoundError(OSError):
    pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the hub has, by name; an error under a name is raised."""
    shelf: dict[str, Any] = {}

    def load_dataset(name: str, configuration: str | None = None) -> Any:
        found = shelf.get(name if configuration is None else f"{name}:{configuration}")
        if found is None:
            raise DatasetNotFoundError(name)
        if isinstance(found, Exception):
            raise found
        return found

    package: Any = ModuleType("datasets")
    package.load_dataset = load_dataset
    package.load_from_disk = lambda name: shelf[Path(name).name]
    package.Dataset, package.Image, package.ClassLabel, package.Value = Table, Picture, Label, Value
    package.exceptions = SimpleNamespace(DatasetNotFoundError=DatasetNotFoundError)
    monkeypatch.setitem(sys.modules, "datasets", package)
    return shelf


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def png(seed: int) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(picture(seed)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def table(seeds: Any, *, labels: list[Any] | None = None, **more: tuple[Feature, list[Any]]) -> Table:
    """Pictures of cats and dogs in turn."""
    columns: dict[str, list[Any]] = {"image": [png(seed) for seed in seeds]}
    columns["label"] = [seed % 2 for seed in seeds] if labels is None else labels
    features: dict[str, Feature] = {"image": Picture(), "label": Label("int64", ["cat", "dog"])}
    for name, (feature, values) in more.items():
        features[name], columns[name] = feature, values
    return Table(columns, features)


def everything(split: Any) -> np.ndarray:
    found: np.ndarray = split.images.fetch(np.arange(len(split)))
    return found


def refused(name: str, **options: Any) -> str:
    with pytest.raises(BadInput) as caught:
        load(hub=name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("memory", ["memory", "stream"])
def test_a_set_gives_its_images_labels_and_names(hub: dict[str, Any], memory: Any) -> None:
    hub["owner/pets"] = {"train": table(range(20)), "test": table(range(30, 36)), "extra": table(range(2))}
    data = load(hub="owner/pets", memory=memory, validation=0)
    np.testing.assert_array_equal(everything(data.train), [picture(seed) for seed in range(20)])
    np.testing.assert_array_equal(everything(data.test), [picture(seed) for seed in range(30, 36)])
    assert data.train.labels.tolist() == [0, 1] * 10
    assert data.class_names == ("cat", "dog")


def test_a_configuration_is_named_after_a_colon(hub: dict[str, Any]) -> None:
    hub["owner/pets:small"] = table(range(20))
    data = load(hub="owner/pets:small", validation=0)
    assert len(data.train) + len(data.test) == 20


def test_a_saved_folder_is_read_from_the_disk(hub: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / "dataset_dict.json").write_text("{}", "utf-8")
    hub["pets"] = {"train": table(range(20)), "test": table(range(6))}
    assert len(load(hub=str(tmp_path / "pets"), validation=0).train) == 20


def test_an_image_may_be_a_path(hub: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(0)["bytes"])
    first = table(range(4))
    first.columns["image"][0] = {"bytes": None, "path": str(tmp_path / "a.png")}
    hub["owner/pets"] = {"train": first, "test": table(range(4))}
    np.testing.assert_array_equal(
        everything(load(hub="owner/pets", validation=0).train), [picture(seed) for seed in range(4)]
    )


def test_a_row_without_an_image_is_named(hub: dict[str, Any]) -> None:
    first = table(range(4))
    first.columns["image"][2] = None
    hub["owner/pets"] = {"train": first, "test": table(range(4))}
    assert "train split, row 2" in refused("owner/pets", validation=0)


def test_a_withheld_test_split_is_left_out_and_validation_takes_its_place(hub: dict[str, Any]) -> None:
    hub["owner/pets"] = {
        "train": table(range(20)),
        "validation": table(range(30, 36)),
        "test": table(range(4), labels=[-1] * 4),
    }
    data = load(hub="owner/pets")
    np.testing.assert_array_equal(everything(data.test), [picture(seed) for seed in range(30, 36)])
    assert any("has no labels and is left out" in note for note in data.notes)
    assert any("validation split is used as the test split" in note for note in data.notes)


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ({"test": [0, 1]}, "has no split named train"),
        ({"train": [0, 1], "training": [0, 1]}, "which mean the same"),
        ({"train": []}, "split train is empty"),
    ],
)
def test_splits_that_cannot_be_used_are_named(
    hub: dict[str, Any], splits: dict[str, list[int]], expected: str
) -> None:
    hub["owner/pets"] = {name: table(seeds) for name, seeds in splits.items()}
    assert expected in refused("owner/pets")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (None, "several columns that could be the image"),
        ({"image": "nothing"}, "has no column 'nothing'"),
        ({"image": "label"}, "column 'label' holds no images"),
        ({"picture": "image"}, "columns is"),
    ],
)
def test_columns_that_cannot_be_told_apart_are_listed(
    hub: dict[str, Any], columns: Any, expected: str
) -> None:
    hub["owner/pets"] = table(range(4), other=(Picture(), [png(seed) for seed in range(4)]))
    assert expected in refused("owner/pets", columns=columns)


def test_a_column_that_one_split_lacks_is_named(hub: dict[str, Any]) -> None:
    lacking = table(range(4))
    del lacking.features["label"], lacking.columns["label"]
    hub["owner/pets"] = {"train": table(range(4)), "test": lacking}
    assert "the test split has no column 'label'" in refused("owner/pets")


def test_plain_whole_numbers_will_do_for_labels_and_a_missing_one_is_named(hub: dict[str, Any]) -> None:
    numbers = table(range(8))
    numbers.features["label"] = Value("int64")
    hub["owner/pets"] = numbers
    assert len(load(hub="owner/pets", validation=0).class_names) == 2
    hub["owner/pets"] = table(range(4), labels=[0, None, 0, 1])
    assert "row 1, has no label" in refused("owner/pets")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, "is not on the Hugging Face hub, or is private"),
        (OSError("no route\nto host"), "could not be fetched: check the network"),
        (ValueError("what a mess"), "cannot be read: what a mess"),
        (ValueError(), "cannot be read: ValueError"),
    ],
)
def test_what_keeps_a_set_from_being_fetched_is_one_line(
    hub: dict[str, Any], error: Exception | None, expected: str
) -> None:
    hub["owner/pets"] = error
    assert expected in refused("owner/pets")
