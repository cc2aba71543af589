from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.store.stages import (
    content_of,
    finished_stage,
    held_by_another_process,
    key_for,
    unfinished_stage,
)
from understudy.errors import BadInput, Damaged
from understudy.store import Store, files
from understudy.store.files import CannotWrite
from understudy.store.results import CHECKPOINTS, METRICS, OUTPUTS, RECORD, VERSION, WEIGHTS, sealed

KEY = key_for(1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.prepare()
    return made


# --- finishing and reading ---------------------------------------------------------------------------------------


def test_a_finished_stage_gives_back_what_was_put_in(store: Store) -> None:
    weights = {
        "conv": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(7),
        "brain": torch.randn(3).bfloat16(),
        "turned": torch.randn(3, 2).t(),
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }
    store.finish(KEY, {"name": "student"}, {WEIGHTS: weights})
    result = store.result(KEY)
    assert result is not None
    assert result.record["name"] == "student"
    read = store.weights(result)
    assert read.keys() == weights.keys()
    for name, tensor in weights.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_weights_that_share_memory_are_kept_under_both_names(store: Store) -> None:
    tied = torch.randn(3, 3)
    result = store.finish(KEY, {}, {WEIGHTS: {"one": tied, "other": tied, "part": tied[0]}})
    read = store.weights(result)
    assert torch.equal(read["one"], tied)
    assert torch.equal(read["other"], tied)
    assert torch.equal(read["part"], tied[0])


def test_a_stage_without_validation_samples_can_be_kept(store: Store) -> None:
    empty = {"validation": torch.zeros(0, 0), "validation_labels": torch.zeros(0, dtype=torch.int64)}
    read = store.outputs(store.finish(KEY, {}, {OUTPUTS: empty}))
    assert read["validation"].shape == (0, 0)
    assert read["validation_labels"].dtype == torch.int64


def test_the_record_names_every_file_with_size_and_checksum(store: Store) -> None:
    result = finished_stage(store)
    written = json.loads((result.folder / RECORD).read_text("utf-8"))
    assert written == result.record
    assert written["version"] == VERSION
    assert written["key"] == KEY
    there = {path.name for path in result.folder.iterdir()} - {RECORD}
    assert set(written["files"]) == there == {WEIGHTS, OUTPUTS, METRICS}
    for name, entry in written["files"].items():
        assert entry["bytes"] == (result.folder / name).stat().st_size
        assert entry["sha256"] == files.sha256_of_file(result.folder / name)
    assert result.bytes == sum((result.folder / name).stat().st_size for name in there)


def test_the_same_stage_finished_twice_has_the_same_bytes(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    finished_stage(store)
    finished_stage(other)
    assert content_of(store.stages) == content_of(other.stages)


def test_finishing_removes_the_checkpoint_and_nothing_else(store: Store) -> None:
    folder = unfinished_stage(store, 1)
    assert store.result(KEY) is None
    finished_stage(store)
    assert not (folder / CHECKPOINTS).exists()
    assert store.result(KEY) is not None
    assert files.leftovers(store.folder) == []


def test_a_stage_that_is_not_there_is_no_result(store: Store) -> None:
    assert store.result(KEY) is None
    assert Store(store.folder / "nowhere").result(KEY) is None
    assert Store(store.folder / "nowhere").keys() == []


@pytest.mark.parametrize("name", [WEIGHTS, OUTPUTS, RECORD])
@pytest.mark.parametrize("where", ["open", "rename"])
def test_a_full_disk_while_finishing_keeps_the_checkpoint_and_the_stage_unfinished(
    name: str, where: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unfinished_stage(store, 1)
    whole_open, whole_replace = Path.open, Path.replace

    def opened(path: Path, *args: Any, **keywords: Any) -> Any:
        if where == "open" and path.name.endswith(name) and args == ("wb",):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole_open(path, *args, **keywords)

    def replaced(path: Path, target: Path) -> Path:
        if where == "rename" and target.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole_replace(path, target)

    with monkeypatch.context() as full:
        full.setattr(Path, "open", opened)
        full.setattr(Path, "replace", replaced)
        with pytest.raises(CannotWrite, match="the disk is full"):
            store.finish(KEY, {}, {WEIGHTS: {"a": torch.zeros(2)}, OUTPUTS: {"test": torch.zeros(2)}})
    assert store.result(KEY) is None
    assert content_of(folder / CHECKPOINTS) == {"000000001-0.safetensors": b"checkpoint"}
    assert files.leftovers(store.folder) == []
    finished_stage(store)  # space was made
    assert store.result(KEY) is not None


# --- what is damaged ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [WEIGHTS, OUTPUTS, METRICS])
@pytest.mark.parametrize("position", [0.0, 0.3, 0.999])
def test_one_flipped_bit_anywhere_in_a_file_is_noticed(name: str, position: float, store: Store) -> None:
    result = finished_stage(store)
    path = result.folder / name
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(Damaged) as error:
        store.check(result)
    assert str(error.value) == f"{path} does not have the checksum written in {RECORD}"


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [shorten, lengthen, empty, Path.unlink, make_folder])
@pytest.mark.parametrize("name", [WEIGHTS, OUTPUTS, METRICS])
def test_a_file_that_is_cut_or_missing_is_noticed(name: str, harm: Any, store: Store) -> None:
    result = finished_stage(store)
    harm(result.folder / name)
    with pytest.raises(Damaged, match=f"{name} (does not have the checksum|cannot be read)"):
        store.check(result)


def test_damaged_tensors_are_never_handed_out(store: Store) -> None:
    result = finished_stage(store)
    for name in (WEIGHTS, OUTPUTS):
        path = result.folder / name
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(Damaged, match=WEIGHTS):
        store.weights(result)
    with pytest.raises(Damaged, match=OUTPUTS):
        store.outputs(result)


def of_another_stage(record: dict[str, Any]) -> None:
    record["key"] = key_for(2)


def without_files(record: dict[str, Any]) -> None:
    del record["files"]


def files_as_list(record: dict[str, Any]) -> None:
    record["files"] = list(record["files"])


def without_checksum(record: dict[str, Any]) -> None:
    del record["files"][WEIGHTS]["sha256"]


def above(record: dict[str, Any]) -> None:
    record["files"]["../../store.json"] = record["files"][WEIGHTS]


def absolute(record: dict[str, Any]) -> None:
    record["files"]["/etc/hostname"] = record["files"][WEIGHTS]


@pytest.mark.parametrize(
    "harm", [of_another_stage, without_files, files_as_list, without_checksum, above, absolute]
)
def test_a_record_of_another_form_is_damaged(harm: Any, store: Store) -> None:
    path = finished_stage(store).folder / RECORD
    record = json.loads(path.read_text("utf-8"))
    harm(record)
    path.write_text(json.dumps(sealed(record)))
    with pytest.raises(Damaged) as error:
        store.result(KEY)
    assert str(error.value) == f"{path} does not say what a finished stage {KEY} says, or was changed"


def test_a_changed_figure_in_a_record_is_noticed(store: Store) -> None:
    path = finished_stage(store).folder / RECORD
    record = json.loads(path.read_text("utf-8"))
    record["seconds"] = 12.5
    path.write_text(json.dumps(record))
    with pytest.raises(Damaged, match="or was changed"):
        store.result(KEY)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"3", b"null", b"{}", b"\xff\xfe", b'{"version":'])
def test_an_unreadable_record_is_damaged(text: bytes, store: Store) -> None:
    path = finished_stage(store).folder / RECORD
    path.write_bytes(text)
    with pytest.raises(Damaged, match=f"{RECORD} cannot be read"):
        store.result(KEY)


@pytest.mark.parametrize("version", [VERSION + 1, "2", None])
def test_a_record_of_a_newer_format_is_refused_not_misread(version: Any, store: Store) -> None:
    path = finished_stage(store).folder / RECORD
    path.write_text(json.dumps({"version": version}))
    with pytest.raises(BadInput) as error:
        store.result(KEY)
    assert str(error.value) == f"{path} has format {version!r}, this understudy reads format {VERSION}."


def test_what_is_set_aside_is_whole_and_makes_room(store: Store) -> None:
    result = finished_stage(store)
    before = content_of(result.folder)
    first = store.set_aside(KEY)
    assert store.result(KEY) is None
    assert content_of(first) == before
    finished_stage(store)
    second = store.set_aside(KEY)
    assert first != second
    assert content_of(first) == before


# --- the folder --------------------------------------------------------------------------------------------------


def test_a_new_store_says_its_format(store: Store) -> None:
    assert json.loads((store.folder / "store.json").read_text("utf-8")) == {"version": VERSION}
    store.prepare()  # again, which changes nothing
    assert store.keys() == []


def test_a_store_of_a_newer_format_is_refused(store: Store) -> None:
    files.write_json(store.folder / "store.json", {"version": VERSION + 1})
    with pytest.raises(BadInput) as error:
        store.prepare()
    assert str(error.value) == (
        f"the store {store.folder} has format {VERSION + 1}, this understudy reads format {VERSION}. "
        "Use the version of understudy that wrote it, or another folder with --store."
    )


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7"])
def test_a_store_whose_format_cannot_be_read_is_refused(text: str, store: Store) -> None:
    (store.folder / "store.json").write_text(text)
    with pytest.raises(BadInput, match="cannot be read; choose another folder with --store"):
        store.prepare()


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput) as error:
        Store(tmp_path / "file").prepare()
    assert str(error.value) == f"--store {tmp_path / 'file'} is a file; name a folder."
    with pytest.raises(CannotWrite, match="cannot be written"):
        Store(tmp_path / "file" / "below").prepare()


def test_a_place_that_may_not_be_written_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: Any, **keywords: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refused)
    for attempt in (Store(tmp_path / "new").prepare, Store(tmp_path / "new").lock(KEY).__enter__):
        with pytest.raises(CannotWrite, match="may not be written"):
            attempt()


def test_a_stage_is_found_by_the_beginning_of_its_key(store: Store) -> None:
    for number in (0xABC << 148, 0xABD << 148, 0xF << 156):
        finished_stage(store, number)
    assert store.find("abc") == key_for(0xABC << 148)
    assert store.find("f") == key_for(0xF << 156)
    assert store.find(key_for(0xABD << 148)) == key_for(0xABD << 148)
    for start, what in (("ab", "2 stages"), ("", "3 stages"), ("0", "no stage"), ("../", "no stage")):
        with pytest.raises(BadInput) as error:
            store.find(start)
        assert str(error.value) == (
            f"{what} in {store.folder} begins with {start!r}; `understudy store ls` lists the keys."
        )


def test_keys_are_those_of_finished_and_unfinished_stages_in_order(store: Store) -> None:
    finished_stage(store, 3)
    unfinished_stage(store, 1)
    (store.stages / "a file").write_text("")
    assert store.keys() == [key_for(1), key_for(3)]


# --- locks and leases --------------------------------------------------------------------------------------------


def test_a_lock_is_free_again_after_use_also_after_an_error(store: Store) -> None:
    with store.lock(KEY) as mine:
        assert mine
    with pytest.raises(ZeroDivisionError), store.lock(KEY) as mine:
        raise ZeroDivisionError
    with store.lock(KEY) as mine:
        assert mine


def test_a_lock_is_of_one_stage_and_one_holder(store: Store) -> None:
    with store.lock(KEY) as mine, store.lock(KEY) as again, store.lock(key_for(2)) as other:
        assert (mine, again, other) == (True, False, True)


def test_a_lock_keeps_out_other_processes_until_its_own_is_killed(store: Store) -> None:
    process = held_by_another_process(store, f"store.lock({KEY!r})")
    try:
        with store.lock(KEY) as mine:
            assert not mine
        with store.lock(key_for(2)) as mine:
            assert mine
    finally:
        process.kill()
        process.communicate()
    with store.lock(KEY) as mine:
        assert mine


def test_keys_are_leased_while_the_lease_lasts(store: Store) -> None:
    with store.lease([KEY, key_for(2)]), store.lease([key_for(3), KEY]):
        assert store.leased() == {KEY, key_for(2), key_for(3)}
        assert store.leased() == {KEY, key_for(2), key_for(3)}  # looking takes nothing away
    assert store.leased() == set()
    assert list((store.folder / "leases").iterdir()) == []


def test_a_lease_ends_with_an_error(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.lease([KEY]):
        raise ZeroDivisionError
    assert store.leased() == set()


def test_a_lease_of_another_process_ends_when_it_is_killed(store: Store) -> None:
    process = held_by_another_process(store, f"store.lease([{KEY!r}])")
    try:
        assert store.leased() == {KEY}
    finally:
        process.kill()
        process.communicate()
    assert store.leased() == set()
    assert list((store.folder / "leases").iterdir()) == []


def test_a_lease_is_never_looked_at_before_it_is_locked(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another process may ask for leases at any moment, also between the two steps of taking one.
    seen: list[set[str]] = []
    whole = files.write_json

    def watched(path: Path, value: Any) -> None:
        whole(path, value)
        seen.append(store.leased())

    monkeypatch.setattr(files, "write_json", watched)
    with store.lease([KEY]):
        pass
    assert seen == [{KEY}]


def test_a_lease_that_cannot_be_written_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(Path, "replace", refused)
        with pytest.raises(CannotWrite, match="the disk is full"), store.lease([KEY]):
            pass
    assert list((store.folder / "leases").iterdir()) == []


def test_a_store_without_leases_has_none(store: Store) -> None:
    assert store.leased() == set()


def test_reading_a_result_notes_no_use_but_used_does(store: Store) -> None:
    result = finished_stage(store, days=10)
    before = (result.folder / RECORD).stat().st_mtime
    store.check(result)
    assert (result.folder / RECORD).stat().st_mtime == before
    store.used(result)
    assert (result.folder / RECORD).stat().st_mtime > before + 9 * 86400


def test_noting_the_use_of_what_is_gone_does_no_harm(store: Store) -> None:
    result = finished_stage(store)
    store.set_aside(KEY)
    store.used(result)
