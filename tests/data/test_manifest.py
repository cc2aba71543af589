import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from understudy.data import encoded, load
from understudy.data.manifest import Record, Stamp, read_manifest, write_manifest


def small_set(root: Path) -> Path:
    for label, name in enumerate(("cat", "dog")):
        for number in range(6):
            path = root / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(10 * label + number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return root


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the files that are decoded."""
    names: list[str] = []
    decode = encoded.decode

    def watching(file, *, where, **options):
        names.append(Path(where).name)
        return decode(file, where=where, **options)

    monkeypatch.setattr(encoded, "decode", watching)
    return names


def manifest(cache: Path) -> Path:
    (path,) = cache.iterdir()
    return path


@pytest.mark.parametrize("options", [{}, {"size": 2}, {"channels": 1}, {"channels": 3}])
def test_a_second_load_decodes_nothing_and_gives_the_same_set(tmp_path, decoded, options):
    root, cache = small_set(tmp_path / "set"), tmp_path / "cache"
    first = load(path=root, memory="stream", cache=cache, **options)
    assert len(decoded) == 12
    decoded.clear()
    second = load(path=root, memory="stream", cache=cache, **options)
    assert decoded == []
    plain = load(path=root, memory="memory", **options)
    for data in (second, plain):
        assert (data.fingerprint, data.mean, data.std) == (first.fingerprint, first.mean, first.std)


def test_a_changed_file_is_scanned_again_and_the_others_are_not(tmp_path, decoded):
    root, cache = small_set(tmp_path / "set"), tmp_path / "cache"
    first = load(path=root, memory="stream", cache=cache)
    decoded.clear()
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(root / "dog" / "2.png")
    changed = load(path=root, memory="stream", cache=cache)
    assert decoded == ["2.png"]
    assert changed.fingerprint != first.fingerprint
    assert changed.fingerprint == load(path=root, memory="memory").fingerprint


def test_a_changed_file_of_the_same_length_is_noticed_by_its_time(tmp_path, decoded):
    root, cache = small_set(tmp_path / "set"), tmp_path / "cache"
    load(path=root, memory="stream", cache=cache)
    decoded.clear()
    path = root / "cat" / "0.png"
    path.write_bytes(path.read_bytes())
    load(path=root, memory="stream", cache=cache)
    assert decoded == ["0.png"]


def test_another_way_of_reading_has_its_own_manifest(tmp_path, decoded):
    root, cache = small_set(tmp_path / "set"), tmp_path / "cache"
    prints = {load(path=root, memory="stream", cache=cache, size=size).fingerprint for size in (None, 2, 3)}
    assert len(prints) == len(list(cache.iterdir())) == 3


def test_a_part_of_a_set_adds_to_the_manifest(tmp_path, decoded):
    root, cache = small_set(tmp_path / "set"), tmp_path / "cache"
    load(path=root, memory="stream", cache=cache, train_images=2, validation=0)
    part = len(decoded)
    assert part < 12
    load(path=root, memory="stream", cache=cache)
    load(path=root, memory="stream", cache=cache)
    assert len(decoded) == 12


def test_a_scan_that_held_the_images_serves_a_streamed_load(tmp_path, decoded):
    root, cache = small_set(tmp_path / "set"), tmp_path / "cache"
    load(path=root, memory="memory", cache=cache)
    decoded.clear()
    load(path=root, memory="stream", cache=cache)
    assert decoded == []


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"version": 1}', '{"version": 1, "files": 3, "sha256": ""}']
)
def test_a_damaged_manifest_is_ignored_and_written_anew(tmp_path, decoded, content):
    root, cache = small_set(tmp_path / "set"), tmp_path / "cache"
    first = load(path=root, memory="stream", cache=cache)
    whole = manifest(cache).read_text()
    manifest(cache).write_text(content)
    decoded.clear()
    assert load(path=root, memory="stream", cache=cache).fingerprint == first.fingerprint
    assert len(decoded) == 12
    assert manifest(cache).read_text() == whole


def test_a_manifest_of_another_version_is_ignored(tmp_path):
    path = tmp_path / "scan.json"
    write_manifest(path, RECORDS)
    assert read_manifest(path) == RECORDS
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    assert read_manifest(path) == {}


RECORDS = {
    Stamp(name="a/1.png", size=10, mtime_ns=20): Record(
        height=2, width=3, channels=3, digest=b"0" * 16, colour_digest=b"", sums=(1, 2, 3), squares=(1, 4, 9)
    ),
    Stamp(name="b/\udcff.png", size=10, mtime_ns=20): Record(
        height=2, width=3, channels=1, digest=b"0" * 16, colour_digest=b"1" * 16, sums=(1,), squares=(4,)
    ),
    Stamp(name="c.png", size=0, mtime_ns=0): Record(
        height=2, width=3, channels=1, digest=b"0" * 16, colour_digest=b"", sums=(1,), squares=(4,)
    ),
}


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_manifest_with_any_damage_is_whole_or_nothing(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("m") / "scan.json"
    write_manifest(path, RECORDS)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    assert read_manifest(path) in ({}, RECORDS)
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    assert read_manifest(path) in ({}, RECORDS)


def test_a_manifest_is_written_whole_and_leaves_nothing_beside(tmp_path):
    write_manifest(tmp_path / "new" / "scan.json", RECORDS)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scan.json"]


def test_a_cache_that_cannot_be_written_costs_a_note_and_nothing_else(tmp_path):
    root = small_set(tmp_path / "set")
    blocked = tmp_path / "file"
    blocked.touch()
    data = load(path=root, memory="stream", cache=blocked)
    assert len(data.train) == 8
    assert any("could not be kept" in note for note in data.notes)
