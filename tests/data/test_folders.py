import io
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from understudy.data import encoded, load
from understudy.data.encoded import EncodedImages
from understudy.data.folders import natural_order
from understudy.errors import BadInput


def picture(seed: int, *, shape: tuple[int, ...] = (6, 5, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def put(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def class_folders(
    root: Path, *, start: int = 0, each: int = 4, classes: tuple[str, ...] = ("cat", "dog"), **options
) -> Path:
    for label, name in enumerate(classes):
        for number in range(each):
            put(root / name / f"{number}.png", picture(start + label * 100 + number, **options))
    return root


def parts(root: Path, **each: int) -> Path:
    for place, (part, count) in enumerate(each.items()):
        class_folders(root / part, start=1000 * place, each=count)
    return root


def everything(split) -> np.ndarray:
    return split.images.fetch(np.arange(len(split)))


def refused(root: Path, **options) -> str:
    with pytest.raises(BadInput) as caught:
        load(path=root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_images_labels_and_names_come_from_the_folders(tmp_path):
    data = load(path=parts(tmp_path, train=4, test=2), validation=0)
    assert data.class_names == ("cat", "dog")
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    assert (data.height, data.width, data.channels, data.name) == (6, 5, 3, tmp_path.name)
    np.testing.assert_array_equal(everything(data.train)[5], picture(101))
    np.testing.assert_array_equal(everything(data.test)[0], picture(1000))
    assert data.notes == ()


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test"])
def test_the_only_other_part_is_the_test_split(tmp_path, name):
    data = load(path=parts(tmp_path, train=10, **{name: 2}))
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 4)
    np.testing.assert_array_equal(everything(data.test)[0], picture(1000))


def test_with_both_each_is_what_it_is_called(tmp_path):
    data = load(path=parts(tmp_path, train=4, val=3, test=2))
    assert (len(data.train), len(data.validation), len(data.test)) == (8, 6, 4)
    np.testing.assert_array_equal(everything(data.validation)[0], picture(1000))
    np.testing.assert_array_equal(everything(data.test)[0], picture(2000))
    assert data.notes == ("The validation split is the set's own, 6 images.",)
    assert len(load(path=tmp_path, validation=0).validation) == 0


@pytest.mark.parametrize("below", ["", "train"])
def test_without_a_test_part_one_is_set_aside(tmp_path, below):
    class_folders(tmp_path / below, each=10)
    data = load(path=tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (14, 2, 4)
    assert "4 of 20 images (test_fraction 0.2, split_seed 0)" in data.notes[0]
    assert len(load(path=tmp_path, test_fraction=0.5).test) == 10
    assert load(path=tmp_path, split_seed=1).fingerprint != data.fingerprint
    seen = np.concatenate([everything(split) for split in (data.train, data.validation, data.test)])
    assert len({image.tobytes() for image in seen}) == 20


def test_a_class_may_be_called_train(tmp_path):
    class_folders(tmp_path, classes=("bus", "train"))
    assert load(path=tmp_path).class_names == ("bus", "train")


def test_images_may_lie_deeper_and_are_in_natural_order(tmp_path):
    class_folders(tmp_path)
    put(tmp_path / "cat" / "10.png", picture(110))
    put(tmp_path / "cat" / "images" / "more" / "0.png", picture(111))
    data = load(path=tmp_path, validation=0, test_fraction=0.01)
    there = {image.tobytes() for split in (data.train, data.test) for image in everything(split)}
    assert picture(111).tobytes() in there
    assert sorted(["10.png", "9.png"], key=natural_order) == ["9.png", "10.png"]
    cats = [everything(data.train)[i].tobytes() for i in np.flatnonzero(data.train.labels == 0)]
    expected = [picture(seed).tobytes() for seed in (0, 1, 2, 3, 110, 111)]
    assert cats == [image for image in expected if image in cats]


def test_hidden_files_and_the_litter_of_file_managers_are_ignored(tmp_path):
    whole = load(path=parts(tmp_path, train=4, test=2)).fingerprint
    for clutter in (".hidden", "train/.DS_Store", "train/cat/.x.png", "train/dog/Thumbs.db", "train/.git/x"):
        path = tmp_path / clutter
        path.parent.mkdir(exist_ok=True)
        path.write_text("not an image")
    (tmp_path / "README.md").write_text("files beside the parts do not matter")
    assert load(path=tmp_path).fingerprint == whole


def test_other_folders_beside_the_parts_are_named_in_a_note(tmp_path):
    (parts(tmp_path, train=4, test=2) / "scripts").mkdir()
    assert load(path=tmp_path).notes == ("Folders that were not used: scripts.",)


def test_every_format_is_read_and_case_does_not_matter(tmp_path):
    class_folders(tmp_path)
    for kind in ("jpg", "JPEG", "bmp", "gif", "webp", "PNG"):
        put(tmp_path / "cat" / f"more.{kind}", picture(7))
    assert len(load(path=tmp_path).train) == 9


@pytest.mark.parametrize("memory", ["memory", "stream"])
def test_grey_images_are_one_channel_only_if_all_are(tmp_path, memory):
    class_folders(tmp_path, shape=(6, 5), each=300)  # more than are decoded at once
    grey = load(path=tmp_path, memory=memory, test_fraction=0.5)
    assert (grey.channels, everything(grey.train).shape[3]) == (1, 1)
    asked = load(path=tmp_path, memory=memory, test_fraction=0.5, channels=3)
    put(tmp_path / "dog" / "last.png", picture(5))
    colour = load(path=tmp_path, memory=memory, test_fraction=0.5)
    for data in (asked, colour):
        assert data.channels == 3
        images = everything(data.train)
        plain = images[(images[..., 0] == images[..., 1]).all(axis=(1, 2))]
        assert len(plain) >= len(images) - 1
        np.testing.assert_array_equal(plain[..., 0], plain[..., 2])
    assert load(path=tmp_path, memory=memory, channels=1).channels == 1


@pytest.mark.parametrize("options", [{}, {"size": 4}, {"size": (3, 8), "channels": 1}, {"channels": 3}])
@pytest.mark.parametrize("mixed", [False, True])
def test_streamed_and_held_images_agree_in_every_byte(tmp_path, options, mixed):
    parts(tmp_path, train=6, val=2, test=3)
    if mixed:
        put(tmp_path / "train" / "cat" / "0.png", picture(0, shape=(6, 5)))
        if "size" in options:
            put(tmp_path / "test" / "dog" / "9.jpg", picture(9, shape=(20, 11, 3)))
    held, streamed = (load(path=tmp_path, memory=memory, **options) for memory in ("memory", "stream"))
    assert held.train.images.in_memory
    assert not streamed.train.images.in_memory
    assert held.fingerprint == streamed.fingerprint
    assert (held.mean, held.std) == (streamed.mean, streamed.std)
    for part in ("train", "validation", "test"):
        one, other = getattr(held, part), getattr(streamed, part)
        np.testing.assert_array_equal(everything(one), everything(other))
        np.testing.assert_array_equal(one.labels, other.labels)


@pytest.mark.parametrize("shape", [(6, 5, 3), (6, 5)])
@pytest.mark.parametrize("options", [{}, {"size": 3}, {"channels": 1}, {"channels": 3}])
def test_a_folder_and_an_npz_file_with_the_same_pixels_have_one_fingerprint(tmp_path, shape, options):
    folder = tmp_path / "folder"
    class_folders(folder / "train", shape=shape)
    class_folders(folder / "test", shape=shape, start=50, each=2)
    seeds = {"train": [0, 1, 2, 3, 100, 101, 102, 103], "test": [50, 51, 150, 151]}
    arrays = {f"x_{part}": np.stack([picture(s, shape=shape) for s in row]) for part, row in seeds.items()}
    labels = {f"y_{part}": np.array([s // 100 for s in row]) for part, row in seeds.items()}
    np.savez(tmp_path / "set.npz", **arrays, **labels)
    one, other = load(path=folder, **options), load(path=tmp_path / "set.npz", **options)
    assert one.fingerprint == other.fingerprint
    assert (one.mean, one.std) == (other.mean, other.std)


def test_moving_folders_keeps_the_fingerprint_and_changing_them_does_not(tmp_path):
    root = parts(tmp_path / "a", train=4, test=2)
    whole = load(path=root).fingerprint
    moved = root.rename(tmp_path / "b")
    for part in ("train", "test"):
        (moved / part / "dog").rename(moved / part / "hund")
    (moved / "train" / "cat" / "3.png").rename(moved / "train" / "cat" / "30.png")
    assert load(path=moved).fingerprint == whole
    changed = picture(3)
    changed[5, 4, 2] ^= 1
    put(moved / "train" / "cat" / "30.png", changed)
    one_pixel = load(path=moved).fingerprint
    put(moved / "train" / "cat" / "30.png", picture(3))
    assert load(path=moved).fingerprint == whole
    (moved / "train" / "cat" / "30.png").rename(moved / "train" / "hund" / "30.png")
    assert len({whole, one_pixel, load(path=moved).fingerprint}) == 3


def test_a_set_above_the_limit_is_streamed(tmp_path, monkeypatch):
    root = parts(tmp_path, train=4, test=2)
    monkeypatch.setattr(encoded, "MEMORY_LIMIT", 12 * 6 * 5 * 3)
    assert load(path=root).train.images.in_memory
    monkeypatch.setattr(encoded, "MEMORY_LIMIT", 12 * 6 * 5 * 3 - 1)
    data = load(path=root)
    assert not data.train.images.in_memory
    assert "decoded from disk for every batch" in data.notes[-1]
    assert load(path=root, memory="memory").train.images.in_memory
    put(root / "train" / "cat" / "0.png", picture(0, shape=(6, 5)))  # grey first, so the limit is met later
    assert not load(path=root).train.images.in_memory


def test_streamed_images_can_be_sent_to_another_process(tmp_path):
    images = load(path=parts(tmp_path, train=4, test=2), memory="stream").train.images
    again = pickle.loads(pickle.dumps(images))  # noqa: S301  (what a data loader does with its own object)
    index = np.array([3, 0, 3])
    np.testing.assert_array_equal(again.fetch(index), images.fetch(index))
    assert isinstance(again, EncodedImages)
    with pytest.raises(IndexError):
        again.fetch(np.array([-1]))


def test_only_images_that_are_used_are_decoded(tmp_path):
    root = parts(tmp_path, train=50, test=10)
    for seed in range(3):
        load(path=root, train_images=4, test_images=2, validation=0, split_seed=seed)
    for path in (root / "train" / "cat").iterdir():
        path.write_bytes(b"broken")
    assert "is not an image" in refused(root)


def test_a_file_that_changes_or_goes_while_it_is_streamed_is_named(tmp_path):
    images = load(path=parts(tmp_path, train=4, test=2), memory="stream", validation=0).train.images
    path = put(tmp_path / "train" / "cat" / "2.png", picture(0, shape=(9, 9, 3)))
    with pytest.raises(BadInput, match=rf"^{path} is 9x9 and was 6x5 when it was scanned"):
        images.fetch(np.array([2]))
    path.unlink()
    with pytest.raises(BadInput, match=rf"^{path} cannot be read: No such file"):
        images.fetch(np.array([0, 2]))


@pytest.mark.parametrize("memory", ["memory", "stream"])
def test_images_of_several_sizes_are_refused_by_name_unless_a_size_is_given(tmp_path, memory):
    root = class_folders(tmp_path)
    other = put(root / "dog" / "2.png", picture(0, shape=(9, 7, 3)))
    message = refused(root, memory=memory)
    assert re.search(r"images differ in size \(height x width\): .*6x5.*9x7|.*9x7.*6x5", message)
    assert str(other) in message
    assert "size:" in message
    assert load(path=root, memory=memory, size=4).height == 4


def broken_image(root: Path) -> Path:
    path = root / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:60])
    return path


def cut_jpeg(root: Path) -> Path:
    path = put(root / "dog" / "x.jpg", picture(1, shape=(64, 64, 3)))
    path.write_bytes(path.read_bytes()[:-1500])
    return path


def text_file(root: Path) -> Path:
    path = root / "cat" / "labels.csv"
    path.write_text("a,b")
    return path


def text_as_image(root: Path) -> Path:
    path = root / "cat" / "a.jpg"
    path.write_text("<html>not found</html>")
    return path


def empty_file(root: Path) -> Path:
    path = root / "cat" / "a.gif"
    path.touch()
    return path


def empty_class(root: Path) -> Path:
    path = root / "bird"
    path.mkdir()
    return path


def image_beside(root: Path) -> Path:
    return put(root / "lost.png", picture(0))


def loop_of_folders(root: Path) -> Path:
    path = root / "cat" / "again"
    path.symlink_to(root / "cat", target_is_directory=True)
    return path


def link_to_itself(root: Path) -> Path:
    path = root / "cat" / "self.png"
    path.symlink_to(path)
    return path


def link_to_nothing(root: Path) -> Path:
    path = root / "cat" / "gone.png"
    path.symlink_to(root / "nowhere.png")
    return path


def deep_image(root: Path) -> Path:
    path = root / "cat" / "deep.png"
    Image.fromarray(np.full((6, 5), 999, dtype=np.uint16)).save(path)
    return path


def pipe(root: Path) -> Path:
    path = root / "cat" / "pipe.png"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (broken_image, "is a damaged image"),
        (cut_jpeg, "is a damaged image"),
        (text_file, "is not an image file by its name"),
        (text_as_image, "is not an image, or is damaged"),
        (empty_file, "is not an image, or is damaged"),
        (empty_class, "holds no image; add some or remove the folder"),
        (image_beside, "lies beside the class folders"),
        (loop_of_folders, "is a link to a folder that contains it"),
        (link_to_itself, "cannot be read: Too many levels of symbolic links"),
        (link_to_nothing, "cannot be read: No such file"),
        (deep_image, "has 16 bits or more"),
        (pipe, "is not a regular file"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line_that_names_it(tmp_path, harm, expected):
    path = harm(class_folders(tmp_path))
    message = refused(tmp_path, test_fraction=0.5)
    assert str(path) in message
    assert expected in message


@pytest.mark.parametrize("memory", ["memory", "stream"])
def test_a_bomb_is_refused_by_name(tmp_path, memory):
    image = io.BytesIO()
    Image.new("1", (30_000, 4_000)).save(image, "PNG")  # 120 million pixels in some kilobytes
    path = class_folders(tmp_path) / "dog" / "bomb.png"
    path.write_bytes(image.getvalue())
    assert re.search(rf"^{path} claims to have .*64 million", refused(tmp_path, memory=memory))


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    root = class_folders(tmp_path)
    opened = Path.open

    def forbidding(path, *args, **options):
        if path.name == "2.png":
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", forbidding)
    assert re.search(r"(cat|dog)/2\.png cannot be read: Permission denied", refused(root))


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    root = class_folders(tmp_path)
    scandir = os.scandir

    def forbidding(path):
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidding)
    assert f"{root / 'dog'} cannot be read: Permission denied" in refused(root)


def test_a_class_with_one_image_is_named_with_its_file(tmp_path):
    root = class_folders(tmp_path)
    only = put(root / "bird" / "only.png", picture(1))
    assert refused(root).startswith(f"class 'bird' ({only}) has one image")
    shutil.rmtree(root / "bird")
    train = tmp_path / "train"
    for name in ("cat", "dog"):
        shutil.move(root / name, train / name)
    class_folders(tmp_path / "test")
    only = put(train / "bird" / "only.png", picture(1))
    message = refused(root)
    assert message.startswith(f"class 'bird' ({only}) has one training image")
    assert "validation: 0" in message
    assert len(load(path=root, validation=0).class_names) == 3


def test_a_small_class_unbalances_the_validation_split_and_a_note_says_so(tmp_path):
    class_folders(tmp_path / "train", each=40)
    for number in (2, 3):
        put(tmp_path / "train" / "bird" / f"{number}.png", picture(number))
    class_folders(tmp_path / "test")
    data = load(path=tmp_path, validation=0.2)
    assert np.bincount(data.validation.labels).tolist() == [1, 5, 5]
    assert "it has 5 images of most classes and 1 of the smallest" in data.notes[0]


def nothing(root: Path) -> None:
    root.mkdir()


def only_files(root: Path) -> None:
    put(root / "a.png", picture(0))


def one_class(root: Path) -> None:
    put(root / "cat" / "a.png", picture(0))


def no_train(root: Path) -> None:
    class_folders(root / "test")


def train_without_classes(root: Path) -> None:
    put(root / "train" / "a.png", picture(0))
    class_folders(root / "test")


def flat_test(root: Path) -> None:
    class_folders(root / "train")
    put(root / "test" / "a.png", picture(0))


def two_validations(root: Path) -> None:
    parts(root, train=2, val=2, validation=2)


def unknown_class(root: Path) -> None:
    class_folders(root / "train")
    class_folders(root / "test", classes=("cat", "wolf"))


def raw_tiny_imagenet(root: Path) -> None:
    class_folders(root / "train")
    (root / "val").mkdir()
    (root / "val" / "val_annotations.txt").touch()
    (root / "wnids.txt").touch()


def saved_by_datasets(root: Path) -> None:
    root.mkdir()
    (root / "dataset_dict.json").touch()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (nothing, "holds nothing; it needs one folder for each class"),
        (only_files, "holds only files; it needs one folder for each class"),
        (one_class, "holds one class folder, 'cat'; a classifier needs at least two"),
        (no_train, "holds test, but no class folders in"),
        (train_without_classes, "holds test, train, but no class folders in"),
        (flat_test, "test holds only files"),
        (two_validations, "has val and validation, both of which name a validation split"),
        (unknown_class, "never has: wolf; a student cannot learn them"),
        (raw_tiny_imagenet, "make_tinyimagenet100_32 makes a set from it"),
        (saved_by_datasets, "give it as hub: instead of path:"),
    ],
)
def test_a_layout_that_cannot_be_used_is_one_line(tmp_path, make, expected):
    root = tmp_path / "set"
    make(root)
    message = refused(root)
    assert expected in message
    assert str(root) in message


def test_a_set_with_its_own_test_split_needs_no_fraction(tmp_path):
    assert "has a test split of its own" in refused(parts(tmp_path, train=4, test=2), test_fraction=0.1)
