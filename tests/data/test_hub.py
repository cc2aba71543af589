import re
import sys
from pathlib import Path

import numpy as np
import pytest

from understudy.data import load
from understudy.errors import BadInput, MissingExtra


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r'hub data sets needs .*pip install "understudy\[hub\]"'):
        load(hub="owner/name")


@pytest.fixture
def datasets(monkeypatch, tmp_path):
    """The ``datasets`` package, kept from the network and from the user's cache."""
    package = pytest.importorskip("datasets")
    monkeypatch.setattr(package.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(package.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    package.disable_progress_bars()
    return package


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def table(datasets, seeds, *, labels=None, names=("cat", "dog"), **more):
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))}
    labels = [seed % len(names) for seed in seeds] if labels is None else labels
    columns = {"image": [picture(seed) for seed in seeds], "label": labels}
    for name, (feature, values) in more.items():
        features[name], columns[name] = feature, values
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def saved(datasets, folder: Path, **splits) -> str:
    datasets.DatasetDict(splits).save_to_disk(str(folder))
    return str(folder)


def everything(split) -> np.ndarray:
    return split.images.fetch(np.arange(len(split)))


def refused(hub: str, **options) -> str:
    with pytest.raises(BadInput) as caught:
        load(hub=hub, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("memory", ["memory", "stream"])
def test_a_saved_set_gives_its_images_labels_and_names(datasets, tmp_path, memory):
    hub = saved(
        datasets, tmp_path / "set", train=table(datasets, range(20)), test=table(datasets, range(30, 36))
    )
    data = load(hub=hub, memory=memory, validation=0)
    np.testing.assert_array_equal(everything(data.train), [picture(seed) for seed in range(20)])
    np.testing.assert_array_equal(everything(data.test), [picture(seed) for seed in range(30, 36)])
    assert data.train.labels.tolist() == [0, 1] * 10
    assert data.class_names == ("cat", "dog")
    assert data.train.images.in_memory == (memory == "memory")


def test_streamed_held_and_npz_agree(datasets, tmp_path):
    hub = saved(
        datasets, tmp_path / "set", train=table(datasets, range(20)), test=table(datasets, range(30, 36))
    )
    np.savez(
        tmp_path / "set.npz",
        x_train=[picture(seed) for seed in range(20)],
        y_train=np.arange(20) % 2,
        x_test=[picture(seed) for seed in range(30, 36)],
        y_test=np.arange(6) % 2,
    )
    loaded = [load(hub=hub), load(hub=hub, memory="stream"), load(path=tmp_path / "set.npz")]
    assert len({data.fingerprint for data in loaded}) == 1
    assert len({data.mean + data.std for data in loaded}) == 1


def test_streamed_images_can_be_sent_to_another_process(datasets, tmp_path):
    import pickle

    images = load(
        hub=saved(datasets, tmp_path / "set", train=table(datasets, range(20))), memory="stream"
    ).train.images
    again = pickle.loads(pickle.dumps(images))  # noqa: S301  (what a data loader does with its own object)
    np.testing.assert_array_equal(again.fetch(np.array([3, 0])), images.fetch(np.array([3, 0])))


def test_parquet_files_in_a_folder_are_read(datasets, tmp_path):
    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    table(datasets, range(20)).to_parquet(str(folder / "train-00000-of-00001.parquet"))
    table(datasets, range(30, 36)).to_parquet(str(folder / "test-00000-of-00001.parquet"))
    data = load(hub=str(tmp_path / "set"), validation=0)
    np.testing.assert_array_equal(everything(data.test), [picture(seed) for seed in range(30, 36)])
    assert data.class_names == ("cat", "dog")


def test_a_single_table_has_a_test_split_set_aside(datasets, tmp_path):
    table(datasets, range(20)).save_to_disk(str(tmp_path / "set"))
    data = load(hub=str(tmp_path / "set"), validation=0, test_fraction=0.3)
    assert (len(data.train), len(data.test)) == (14, 6)


def test_rows_that_were_chosen_or_shuffled_keep_their_labels(datasets, tmp_path):
    chosen = table(datasets, range(20)).shuffle(seed=1).select(range(3, 17))
    data = load(hub=saved(datasets, tmp_path / "set", train=chosen), validation=0)
    expected = {picture(seed).tobytes(): seed % 2 for seed in range(20)}
    for image, label in zip(everything(data.train), data.train.labels, strict=True):
        assert expected[image.tobytes()] == label


def test_a_validation_split_of_its_own_is_kept_or_becomes_the_test_split(datasets, tmp_path):
    train, valid, test = (table(datasets, range(start, start + 8)) for start in (0, 20, 40))
    both = load(hub=saved(datasets, tmp_path / "a", train=train, validation=valid, test=test))
    np.testing.assert_array_equal(everything(both.validation)[0], picture(20))
    hidden = table(datasets, range(40, 48), labels=[-1] * 8)
    for name, splits in (("b", {"valid": valid}), ("c", {"validation": valid, "test": hidden})):
        data = load(hub=saved(datasets, tmp_path / name, train=train, **splits))
        np.testing.assert_array_equal(everything(data.test)[0], picture(20))
        assert len(data.validation) == 2
        assert "used as the test split" in " ".join(data.notes)


def test_training_rows_may_be_unlabelled(datasets, tmp_path):
    train = table(datasets, range(12), labels=[0, 1] * 4 + [-1] * 4)
    data = load(hub=saved(datasets, tmp_path / "set", train=train, test=table(datasets, range(4))))
    assert (data.train.labels == -1).sum() == 4


def test_columns_that_cannot_be_told_apart_are_listed_and_can_be_named(datasets, tmp_path):
    coarse = (datasets.ClassLabel(names=["x", "y", "z"]), [seed % 3 for seed in range(12)])
    hub = saved(datasets, tmp_path / "set", train=table(datasets, range(12), coarse=coarse))
    message = refused(hub)
    assert "has several columns that could be the label; it has image" in message
    assert "label (int64), coarse (int64)" in message
    assert "columns: {label: …}" in message
    assert load(hub=hub, columns={"label": "coarse"}).class_names == ("x", "y", "z")
    assert load(hub=hub, columns={"image": "image", "label": "label"}).class_names == ("cat", "dog")


def test_plain_whole_numbers_will_do_for_labels(datasets, tmp_path):
    train = table(datasets, range(12), number=(datasets.Value("int32"), [seed % 2 for seed in range(12)]))
    hub = saved(datasets, tmp_path / "set", train=train.remove_columns("label"))
    assert load(hub=hub).class_names == ("0", "1")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"label": "lable"}, "has no column 'lable'; it has image"),
        ({"image": "label"}, "column 'label' holds no images"),
        ({"picture": "image"}, "columns is {'picture': 'image'}; it names the columns"),
        ({"label": "text"}, "text of train holds <U1 values; labels are whole numbers"),
    ],
)
def test_a_column_that_cannot_be_used_is_named(datasets, tmp_path, columns, expected):
    train = table(datasets, range(12), text=(datasets.Value("string"), ["a"] * 12))
    assert expected in refused(saved(datasets, tmp_path / "set", train=train), columns=columns)


def test_a_set_without_images_lists_what_it_has(datasets, tmp_path):
    hub = saved(datasets, tmp_path / "set", train=table(datasets, range(4)).remove_columns("image"))
    assert "has no column that is clearly the image; it has label (int64)" in refused(hub)


def test_a_row_without_image_or_label_or_with_a_damaged_one_is_named(datasets, tmp_path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})

    def made(image, label):
        rows = {"image": [picture(seed) for seed in range(4)], "label": [0, 1, 0, 1]}
        rows["image"][2], rows["label"][3] = image, label
        return datasets.Dataset.from_dict(rows, features=features)

    for number, (image, label, expected) in enumerate(
        [
            (None, 1, "train split, row 2 cannot be read: there is no image in this row"),
            ({"bytes": b"junk", "path": None}, 1, "train split, row 2 is not an image, or is damaged"),
            (picture(9), None, "label of train, row 3, has no label"),
        ]
    ):
        hub = saved(
            datasets, tmp_path / str(number), train=made(image, label), test=table(datasets, range(4))
        )
        assert expected in refused(hub)


def test_splits_that_cannot_be_used_are_named(datasets, tmp_path):
    some = table(datasets, range(4))
    assert "has no split named train; it has unsupervised" in refused(
        saved(datasets, tmp_path / "a", unsupervised=some)
    )
    assert "has splits val and validation, which mean the same" in refused(
        saved(datasets, tmp_path / "b", train=some, val=some, validation=some)
    )
    assert "label of test[1] is -1" in refused(
        saved(datasets, tmp_path / "c", train=some, test=table(datasets, range(4), labels=[0, -1, 0, 1]))
    )


def test_a_damaged_or_empty_folder_is_one_line(datasets, tmp_path):
    hub = Path(saved(datasets, tmp_path / "set", train=table(datasets, range(4))))
    next((hub / "train").glob("*.arrow")).write_bytes(b"junk")
    assert str(hub) in refused(str(hub))
    (tmp_path / "nothing").mkdir()
    assert "nothing cannot be read" in refused(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionError("no\nroute"), r"could not be fetched: check the network, .*\(no route\)"),
        (TimeoutError(), r"could not be fetched: check the network"),
        (ValueError("Config name is missing"), r"cannot be read: Config name is missing"),
        (RuntimeError("scripts are no longer supported"), r"cannot be read: scripts"),
        ("not found", r"is not on the Hugging Face hub, or is private, and is no local folder"),
    ],
)
def test_what_keeps_a_set_from_being_fetched_is_one_line(datasets, monkeypatch, error, expected):
    if error == "not found":
        error = datasets.exceptions.DatasetNotFoundError("Dataset doesn't exist on the Hub")
    asked = []

    def failing(*names):
        asked.append(names)
        raise error

    monkeypatch.setattr(datasets, "load_dataset", failing)
    assert re.search(rf"^hub data set owner/name:small {expected}", refused("owner/name:small"))
    assert asked == [("owner/name", "small")]
