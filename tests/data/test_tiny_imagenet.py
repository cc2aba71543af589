from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from understudy.data import load
from understudy.data.tiny_imagenet import CHECKSUMS, checksum, make_tinyimagenet100_32, verdict
from understudy.errors import BadInput

WNIDS = ("n0003", "n0001", "n0002")


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def put(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")  # lossless, whatever the name says


def layout(root: Path, *, each: int = 3) -> Path:
    """Three classes, ``each`` training images and twelve validation images in all, as the download has them."""
    root.mkdir()
    (root / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (root / "words.txt").write_text("n0001\tgoldfish, Carassius\nn0002\tnewt\nn0003\tfrog\nn9999\tentity\n")
    for wnid in WNIDS:
        for number in range(each):
            put(
                root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG",
                picture(int(wnid[1:]) * 100 + number),
            )
    lines = []
    for number in range(12):
        put(root / "val" / "images" / f"val_{number}.JPEG", picture(number))
        lines.append(f"val_{number}.JPEG\t{WNIDS[number % 3]}\t0\t0\t62\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(sorted(lines)))
    return root


def halved(pixels: np.ndarray) -> np.ndarray:
    quarters = [pixels[i::2, j::2].astype(float) for i in (0, 1) for j in (0, 1)]
    return np.floor(sum(quarters) / 4 + 0.5).astype(np.uint8)


def test_classes_go_by_wordnet_id_and_images_by_file_number(tmp_path):
    path = make_tinyimagenet100_32(layout(tmp_path / "raw"), tmp_path / "out", classes=2, per_class=3)
    assert path == tmp_path / "out" / "tinyimagenet100-32.npz"
    made = np.load(path)
    assert made["y_train"].tolist() == [0, 0, 0, 1, 1, 1]
    assert made["y_train"].dtype == made["y_test"].dtype == np.int64
    np.testing.assert_array_equal(made["x_train"][4], halved(picture(201)))
    kept = [(n, WNIDS[n % 3]) for n in range(12) if WNIDS[n % 3] != "n0003"]
    assert made["y_test"].tolist() == [int(wnid[-1]) - 1 for _, wnid in kept]
    for image, (number, _) in zip(made["x_test"], kept, strict=True):
        np.testing.assert_array_equal(image, halved(picture(number)))
    assert made["names"].tolist() == [b"goldfish, Carassius", b"newt"]


def test_grey_images_become_colour(tmp_path):
    root = layout(tmp_path / "raw")
    put(root / "train" / "n0001" / "images" / "n0001_0.JPEG", picture(0)[..., 0])
    image = np.load(make_tinyimagenet100_32(root, tmp_path, classes=2, per_class=3))["x_train"][0]
    np.testing.assert_array_equal(image, np.repeat(halved(picture(0)[..., 0])[..., None], 3, axis=2))


def test_the_file_can_be_loaded_and_nothing_is_left_beside_it(tmp_path):
    path = make_tinyimagenet100_32(
        layout(tmp_path / "raw"), tmp_path / "out" / "mine.npz", classes=3, per_class=3
    )
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.npz"]
    data = load(path=path)
    assert (data.height, data.width, data.channels) == (32, 32, 3)
    assert data.class_names == ("goldfish, Carassius", "newt", "frog")


def without(name: str):
    def harm(root: Path) -> Path:
        (root / name).unlink()
        return root / name

    return harm


def broken(root: Path) -> Path:
    path = root / "val" / "images" / "val_1.JPEG"
    path.write_bytes(path.read_bytes()[:100])
    return path


def small(root: Path) -> Path:
    path = root / "train" / "n0002" / "images" / "n0002_1.JPEG"
    put(path, picture(0)[:32])
    return path


def strange_line(root: Path) -> Path:
    path = root / "val" / "val_annotations.txt"
    path.write_text("hello\n")
    return path


@pytest.mark.parametrize(
    "harm",
    [
        without("wnids.txt"),
        without("words.txt"),
        without("val/val_annotations.txt"),
        without("val/images/val_1.JPEG"),
        without("train/n0001/images/n0001_2.JPEG"),
        broken,
        small,
        strange_line,
    ],
)
def test_a_damaged_download_is_one_line_that_names_the_file(tmp_path, harm):
    path = harm(layout(tmp_path / "raw"))
    with pytest.raises(BadInput) as caught:
        make_tinyimagenet100_32(tmp_path / "raw", tmp_path / "out", classes=2, per_class=3)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("out/*"))


def test_too_few_classes_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"lists 3 classes; 100 are needed"):
        make_tinyimagenet100_32(layout(tmp_path / "raw"), tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"file/tinyimagenet100-32\.npz cannot be written"):
        make_tinyimagenet100_32(layout(tmp_path / "raw"), tmp_path / "file", classes=2, per_class=3)


def test_the_verdict_tells_equal_from_another_decoder_from_another_set(monkeypatch):
    arrays = {name: np.arange(4) for name in CHECKSUMS}
    for name, array in arrays.items():
        monkeypatch.setitem(CHECKSUMS, name, checksum(array))
    assert "all four arrays have the known checksums" in verdict(arrays)
    assert "another JPEG decoder" in verdict(arrays | {"x_train": np.arange(5)})
    assert "y_test do not have the known checksums" in verdict(arrays | {"y_test": np.arange(5)})


def test_a_checksum_does_not_depend_on_the_machine():
    assert checksum(np.arange(4, dtype=">i8")) == checksum(np.arange(4, dtype="<i8"))
    assert checksum(np.arange(4)) != checksum(np.arange(4)[::-1])


def test_the_known_checksums_are_of_this_many_bytes():
    assert all(len(value) == 64 for value in CHECKSUMS.values())
    assert CHECKSUMS["y_train"] == checksum(np.repeat(np.arange(100), 500))
