import contextlib
import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.data import load
from understudy.errors import BadInput


def arrays(**changes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    whole = {
        "x_train": rng.integers(0, 256, (12, 4, 5, 3), dtype=np.uint8),
        "y_train": np.arange(12) % 3,
        "x_test": rng.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8),
        "y_test": np.arange(6) % 3,
    }
    return {name: value for name, value in (whole | changes).items() if value is not None}


def saved(folder: Path, **changes) -> Path:
    path = folder / "set.npz"
    np.savez(path, **arrays(**changes))
    return path


def everything(split) -> np.ndarray:
    return split.images.fetch(np.arange(len(split)))


def test_images_labels_and_names_come_back(tmp_path):
    data = load(path=saved(tmp_path, names=np.array(["cat", "dog", "wörm"])), validation=0)
    np.testing.assert_array_equal(everything(data.train), arrays()["x_train"])
    np.testing.assert_array_equal(everything(data.test), arrays()["x_test"])
    np.testing.assert_array_equal(data.train.labels, arrays()["y_train"])
    assert data.class_names == ("cat", "dog", "wörm")
    assert (data.height, data.width, data.channels, data.name) == (4, 5, 3, "set")
    assert data.notes == ()


def test_names_may_be_bytes_and_need_not_be_given(tmp_path):
    assert load(path=saved(tmp_path, names=np.array([b"a", b"b", "ü".encode()]))).class_names == (
        "a",
        "b",
        "ü",
    )
    assert load(path=str(saved(tmp_path))).class_names == ("0", "1", "2")


@pytest.mark.parametrize("compressed", [False, True])
def test_every_accepted_shape_gives_the_same_grey_images(tmp_path, compressed):
    train, test = arrays()["x_train"][..., 0], arrays()["x_test"][..., 0]
    prints = set()
    for shaped in (lambda x: x, lambda x: x[..., None], lambda x: x[:, None]):
        path = tmp_path / "set.npz"
        (np.savez_compressed if compressed else np.savez)(
            path, **arrays(x_train=shaped(train), x_test=shaped(test))
        )
        data = load(path=path)
        assert data.channels == 1
        prints.add(data.fingerprint)
    assert len(prints) == 1


def test_channels_first_colour_is_understood(tmp_path):
    whole = load(path=saved(tmp_path)).fingerprint
    first = {name: arrays()[name].transpose(0, 3, 1, 2) for name in ("x_train", "x_test")}
    assert load(path=saved(tmp_path, **first)).fingerprint == whole


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64])
def test_any_whole_number_type_of_labels_will_do(tmp_path, dtype):
    whole = load(path=saved(tmp_path)).fingerprint
    changes = {
        "y_train": arrays()["y_train"].astype(dtype)[:, None],
        "y_test": arrays()["y_test"].astype(dtype),
    }
    assert load(path=saved(tmp_path, **changes)).fingerprint == whole


def test_training_images_may_be_unlabelled_and_then_stay_in_training(tmp_path):
    labels = np.array([0, 1, 2] * 3 + [-1] * 3)
    data = load(path=saved(tmp_path, y_train=labels), validation=0.4)
    assert (data.train.labels == -1).sum() == 3
    assert sorted(data.validation.labels) == [0, 1, 2]


def test_mean_and_deviation_are_of_the_training_split_without_validation(tmp_path):
    data = load(path=saved(tmp_path), validation=0.5)
    scaled = everything(data.train) / 255
    np.testing.assert_allclose(data.mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(data.std, scaled.std(axis=(0, 1, 2)), rtol=1e-12)


def test_mean_and_deviation_can_be_given_and_do_not_change_the_fingerprint(tmp_path):
    path = saved(tmp_path)
    data = load(path=path, mean=[0.5, 0.4, 0], std=(1, 0.2, 0.3))
    assert data.mean == (0.5, 0.4, 0.0)
    assert data.std == (1.0, 0.2, 0.3)
    assert data.fingerprint == load(path=path).fingerprint


def test_channels_and_size_can_be_asked_for(tmp_path):
    path = saved(tmp_path)
    grey = load(path=path, channels=1, size=(2, 3))
    assert everything(grey.test).shape == (6, 2, 3, 1)
    assert (grey.height, grey.width, grey.channels, len(grey.mean)) == (2, 3, 1, 1)
    assert load(path=path, size=8).height == 8


def test_limits_keep_only_what_they_name(tmp_path):
    data = load(path=saved(tmp_path), validation=0.25, train_images=6, test_images=3)
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 3, 3)
    assert data.test.labels.tolist().count(0) == 1


def test_other_arrays_are_named_in_a_note(tmp_path):
    assert load(path=saved(tmp_path, x_extra=np.zeros(3))).notes == ("Arrays that were not used: x_extra.",)


def test_a_class_without_training_images_is_named_in_a_note(tmp_path):
    data = load(path=saved(tmp_path, names=np.array(["a", "b", "c", "d"])))
    assert data.notes == ("1 of 4 classes have no training image: d.",)


def refused(path: Path, **options) -> str:
    with pytest.raises(BadInput) as caught:
        load(path=path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message or path.stem in message
    return message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"x_test": None}, "has no array x_test; it holds x_train, y_train, y_test and needs"),
        ({"x_train": np.zeros((12, 4, 5, 3))}, "x_train holds float64 values; images are uint8"),
        ({"x_train": np.zeros((12, 4, 5, 3), dtype=np.int64)}, "x_train holds int64 values"),
        ({"x_train": np.zeros((12, 4, 5, 4), dtype=np.uint8)}, "that is 4 channels"),
        ({"x_train": np.zeros((12, 3, 5, 3), dtype=np.uint8)}, "axis 1 and axis 3 could both be channels"),
        ({"x_train": np.zeros((12, 4), dtype=np.uint8)}, "x_train has 2 axes"),
        ({"x_train": np.zeros((0, 4, 5, 3), dtype=np.uint8)}, "x_train is empty"),
        ({"x_train": np.zeros((12, 0, 5, 3), dtype=np.uint8)}, "x_train is empty"),
        ({"x_train": np.zeros((12, 5, 5, 3), dtype=np.uint8)}, "images differ in size .*say size:"),
        ({"x_train": np.zeros((12, 4, 5), dtype=np.uint8)}, "the train images are grey"),
        (
            {"x_train": np.array([None] * 12)},
            "x_train is an array of Python objects .a pickle., which is never read",
        ),
        ({"y_train": np.array([{}] * 12)}, "y_train is an array of Python objects"),
        ({"y_train": np.arange(11) % 3}, "y_train has 11 labels for 12 images"),
        ({"y_train": np.arange(12) / 2}, "y_train holds float64 values; labels are whole numbers"),
        ({"y_train": np.array(["a"] * 12)}, "y_train holds <U1 values"),
        ({"y_train": np.zeros(12, dtype=bool)}, "y_train holds bool values"),
        ({"y_train": np.eye(12, dtype=int)}, r"y_train has shape \(12, 12\); labels are one whole number"),
        ({"y_train": np.array([0, 1, 2, -2] * 3)}, r"y_train\[3\] is -2; labels are 0, 1, 2, … or -1"),
        ({"y_train": np.full(12, -1)}, "y_train has no labelled image"),
        (
            {"y_train": np.array([0, 1, 2, 2**63] * 3, dtype=np.uint64)},
            r"y_train\[3\] is 9223372036854775808",
        ),
        ({"y_train": np.array([0, 1, 2, 10**9] * 3)}, "goes up to label 1000000000 but never has label 3"),
        ({"y_train": np.array([0, 2, 3] * 4)}, "goes up to label 3 but never has label 1"),
        ({"y_train": np.zeros(12, dtype=int), "y_test": np.zeros(6, dtype=int)}, "there is one class, '0'"),
        ({"y_test": np.array([0, 1, 2, 0, 1, -1])}, r"y_test\[5\] is -1; .*only training images may be -1"),
        (
            {"y_test": np.array([0, 1, 2, 0, 1, 3])},
            r"y_test\[5\] is 3, and there are 3 classes: labels are 0 .. 2",
        ),
        (
            {"names": np.array(["a", "b", "c", "d"]), "y_test": np.array([0, 1, 2, 0, 1, 3])},
            "y_test has classes that y_train never has: d",
        ),
        ({"names": np.array(["a", "b"])}, r"y_train\[2\] is 2, and there are 2 classes"),
        ({"names": np.arange(3)}, "names has type int64"),
        ({"names": np.array([["a", "b", "c"]])}, "names has type"),
        ({"names": np.array([b"\xff", b"b", b"c"])}, "names holds bytes that are not UTF-8"),
        ({"names": np.array(["a", None, 3], dtype=object)}, "names is an array of Python objects"),
    ],
)
def test_what_cannot_be_used_is_one_line_that_names_file_and_array(tmp_path, changes, expected):
    path = saved(tmp_path, **changes)
    message = refused(path)
    assert re.search(expected, message), message


def test_a_pickle_inside_is_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    path = saved(tmp_path, names=np.array([Bomb()], dtype=object))
    refused(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x80\x04N."])
def test_a_file_that_is_no_zip_is_refused(tmp_path, content):
    path = tmp_path / "set.npz"
    path.write_bytes(content)
    assert "is not an .npz file" in refused(path)


def test_a_single_array_is_refused(tmp_path):
    path = tmp_path / "set.npy"
    np.save(path, np.zeros(3))
    assert "is not an .npz file" in refused(path)


def test_a_zip_of_other_things_is_refused(tmp_path):
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")
    assert "has no array x_train, y_train, x_test, y_test; it holds readme.txt" in refused(path)


def test_a_member_that_is_no_array_or_claims_too_much_is_damaged(tmp_path):
    for member in (b"text", header_claiming((10**9, 10**4, 10**4, 3))):
        path = tmp_path / "set.npz"
        with zipfile.ZipFile(saved(tmp_path)) as file:
            members = {name: file.read(name) for name in file.namelist()}
        with zipfile.ZipFile(path, "w") as file:
            for name, content in (members | {"x_train.npy": member}).items():
                file.writestr(name, content)
        assert "x_train" in refused(path)


def header_claiming(shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return out.getvalue() + b"few"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_bytes_give_a_set_or_one_line_and_nothing_else(tmp_path_factory, data):
    path = saved(tmp_path_factory.mktemp("damaged"))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    else:
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(BadInput):
        load(path=path)
        return
    refused(path)


def test_one_pixel_one_label_or_one_setting_changes_the_fingerprint_and_moving_does_not(tmp_path):
    path = saved(tmp_path)
    whole = load(path=path).fingerprint
    moved = path.rename(tmp_path / "other name.npz")
    assert load(path=moved).fingerprint == whole
    images, labels = arrays()["x_test"].copy(), arrays()["y_train"].copy()
    images[3, 2, 1, 0] ^= 1
    labels[[0, 1]] = labels[[1, 0]]
    assert load(path=saved(tmp_path, names=np.array(["x", "y", "z"]))).fingerprint == whole
    path = saved(tmp_path)
    others = [
        load(path=path, split_seed=1),
        load(path=path, validation=0),
        load(path=path, train_images=4),
        load(path=path, test_images=4),
        load(path=path, channels=1),
        load(path=path, size=4),
        load(path=saved(tmp_path, x_test=images)),
        load(path=saved(tmp_path, y_train=labels)),
        load(path=saved(tmp_path, names=np.array(["x", "y", "z", "unused"]))),
    ]
    assert len({whole, *(other.fingerprint for other in others)}) == 1 + len(others)


def test_arrays_ignore_streaming_and_say_so(tmp_path):
    path = saved(tmp_path)
    data = load(path=path, memory="stream")
    assert data.train.images.in_memory
    assert data.notes == ("Arrays are always held in memory; memory: stream changes nothing.",)
    assert data.fingerprint == load(path=path).fingerprint
