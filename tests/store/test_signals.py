from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor

from tests.store.stages import aged, content_of, held_by_another_process
from understudy.errors import BadInput, Damaged
from understudy.store import Store, files
from understudy.store import signals as module
from understudy.store.files import CannotWrite
from understudy.store.housekeeping import verify_signals
from understudy.store.keys import key_of
from understudy.store.signals import (
    LOCKS,
    RECORD,
    VERSION,
    BlockFile,
    SignalFiles,
    Unreadable,
    block_files,
    check_record,
    folders_of,
    free_bytes,
    size_of_signals,
)

SAMPLES = 10
FORMS = ["all logits", "the largest"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.prepare()
    return made


def signals_of(
    store: Store, *, teacher: str = "a", samples: int = SAMPLES, row_bytes: int = 8
) -> SignalFiles:
    definition = {"kind": "signals", "teacher": teacher, "views": {"shift": (0, 2), "scale": 1.0}}
    return SignalFiles(
        store=store,
        key=key_of(definition),
        definition=definition,
        samples=samples,
        row_bytes=row_bytes,
    )


def answers(rows: int = SAMPLES, *, seed: int = 0, form: str = "all logits") -> dict[str, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    if form == "all logits":
        return {"logits": torch.randn(rows, 4, generator=stream).half()}
    return {
        "largest": torch.randn(rows, 3, generator=stream).half(),
        "classes": torch.randint(0, 1000, (rows, 3), generator=stream).to(torch.int16),
        "others": torch.randn(rows, generator=stream).half(),
    }


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def as_listed(kept: SignalFiles, view: int, block: int) -> BlockFile:
    (found,) = [file for file in block_files(kept.folder) if (file.view, file.block) == (view, block)]
    return found


def refused(kept: SignalFiles, view: int = 0, block: int = 0) -> str:
    """The one line with which both the run that needs a file and the look at a whole store refuse it."""
    with pytest.raises(Damaged) as error:
        kept.read(view, block)
    with pytest.raises(Damaged) as other:
        as_listed(kept, view, block).check()
    assert str(error.value) == str(other.value)
    assert "\n" not in str(error.value)
    assert str(kept.path(view, block)) in str(error.value)
    return str(error.value)


def rewritten(path: Path, *, tensors: Mapping[str, Tensor] | None = None, **said: Any) -> None:
    """The same file with other tensors, or with something else said of them."""
    with safe_open(path, framework="pt") as file:
        here = json.loads(file.metadata()["understudy"])
    content = dict(tensors or load(path.read_bytes()))
    path.write_bytes(save(content, metadata={"understudy": json.dumps({**here, **said})}))


# --- whose they are -----------------------------------------------------------------------------------------------


def test_answers_of_other_weights_of_the_same_teacher_are_refused(store: Store) -> None:
    before = replace(signals_of(store), weights="a1")
    before.write(0, 0, answers())
    assert same(before.read(0, 0), answers())
    for weights in ("b2", ""):
        after = replace(before, weights=weights)
        with pytest.raises(Damaged, match="answers of other weights than the teacher's"):
            after.read(0, 0)
    as_listed(before, 0, 0).check()  # as a file it is whole
    assert replace(before, weights="b2").discard(0, 0)
    assert not before.there(0, 0)


def test_what_is_whole_or_being_written_is_not_taken_away(store: Store) -> None:
    kept = signals_of(store)
    kept.write(0, 0, answers())
    assert not kept.discard(0, 0)
    assert same(kept.read(0, 0), answers())
    kept.path(0, 0).write_bytes(b"cut")
    with kept.lock(0):
        assert not kept.discard(0, 0)
    assert kept.discard(0, 0)
    assert not kept.discard(0, 0)


@pytest.mark.parametrize(
    "error", [FileNotFoundError("No such file"), RuntimeError("unable to mmap: Cannot allocate memory (12)")]
)
def test_a_file_that_cannot_be_opened_is_not_damaged_and_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    kept = signals_of(store)
    kept.write(0, 0, answers())

    def opened(path: Path, framework: str) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.safe_open", opened)
        with pytest.raises(Unreadable, match="is there and cannot be opened"):
            kept.read(0, 0)
        whole, problems = verify_signals(store)
        assert (whole, len(problems)) == (0, 1)
    assert same(kept.read(0, 0), answers())


# --- writing and reading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_what_was_written_is_read(store: Store, form: str) -> None:
    kept = signals_of(store)
    said = {view: answers(seed=view, form=form) for view in (0, 7, 1_234_567)}
    for view, tensors in said.items():
        assert not kept.there(view, 0)
        kept.write(view, 0, tensors)
        assert kept.there(view, 0)
    for view, tensors in said.items():
        assert same(kept.read(view, 0), tensors)
        as_listed(kept, view, 0).check()
    check_record(kept.folder)


def test_what_was_not_written_is_not_there(store: Store) -> None:
    kept = signals_of(store)
    with pytest.raises(FileNotFoundError):
        kept.read(0, 0)
    kept.check_version()
    check_record(kept.folder)
    kept.discard(0, 0)
    assert content_of(store.folder).keys() == {"store.json"}


def test_the_same_answers_give_the_same_bytes(store: Store) -> None:
    kept = signals_of(store)
    kept.write(0, 0, answers(form="the largest"))
    first = content_of(kept.folder)
    shutil.rmtree(kept.folder)
    kept.write(0, 0, answers(form="the largest"))
    assert content_of(kept.folder) == first


def mapped(path: Path) -> list[range]:
    """Addresses at which this process has a file in its memory."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(path)):
            start, end = line.split()[0].split("-")
            found.append(range(int(start, 16), int(end, 16)))
    return found


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell what is mapped")
@pytest.mark.parametrize("form", FORMS)
def test_what_is_read_lies_in_the_file_and_is_no_copy(store: Store, form: str) -> None:
    kept = signals_of(store)
    kept.write(0, 0, answers(form=form))
    read = kept.read(0, 0)
    places = mapped(kept.path(0, 0).resolve())
    assert places
    for tensor in read.values():
        assert any(tensor.data_ptr() in place for place in places)


def test_a_change_of_what_was_read_does_not_reach_the_file(store: Store) -> None:
    kept = signals_of(store)
    kept.write(0, 0, answers())
    kept.read(0, 0)["logits"].zero_()
    assert same(kept.read(0, 0), answers())


def test_what_was_read_outlives_its_file(store: Store) -> None:
    kept = signals_of(store)
    kept.write(0, 0, answers())
    read = kept.read(0, 0)
    kept.discard(0, 0)
    kept.write(0, 0, answers(seed=1))
    assert same(read, answers())
    assert same(kept.read(0, 0), answers(seed=1))


def test_reading_counts_as_use_and_looking_through_does_not(store: Store) -> None:
    kept = signals_of(store)
    kept.write(0, 0, answers())
    aged(kept.folder, 9)
    used = as_listed(kept, 0, 0).used
    as_listed(kept, 0, 0).check()
    assert as_listed(kept, 0, 0).used == used
    kept.read(0, 0)
    assert as_listed(kept, 0, 0).used > used + 8 * 86400


# --- blocks ------------------------------------------------------------------------------------------------------


def test_a_large_split_is_kept_in_blocks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_ROWS", 4)
    kept = signals_of(store)
    assert (kept.block_rows, kept.blocks, kept.view_bytes) == (4, 3, 80)
    assert [list(kept.rows(block)) for block in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    whole = answers()["logits"]
    for block in (2, 0, 1):
        rows = kept.rows(block)
        kept.write(5, block, {"logits": whole[rows.start : rows.stop]})
    assert torch.equal(torch.cat([kept.read(5, block)["logits"] for block in range(3)]), whole)
    assert [(file.view, file.block) for file in block_files(kept.folder)] == [(5, 0), (5, 1), (5, 2)]


def test_wide_rows_make_small_blocks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 100)
    assert signals_of(store, row_bytes=30).block_rows == 3
    assert signals_of(store, row_bytes=1000).block_rows == 1


@pytest.mark.parametrize("rows", [0, SAMPLES - 1, SAMPLES + 1])
def test_a_block_of_another_length_is_not_written(store: Store, rows: int) -> None:
    with pytest.raises(ValueError, match=f"block 0 has {SAMPLES} rows"):
        signals_of(store).write(0, 0, answers(rows))
    assert content_of(store.folder).keys() == {"store.json"}


def test_blocks_of_another_size_are_not_taken_for_these(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = signals_of(store)
    kept.write(0, 0, answers())
    monkeypatch.setattr(module, "BLOCK_ROWS", 4)
    with pytest.raises(Damaged, match="does not hold what its name says"):
        kept.read(0, 0)


# --- damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_was_cut_is_refused_wherever_it_was(store: Store, form: str) -> None:
    kept = signals_of(store)
    kept.write(0, 0, answers(form=form))
    whole = kept.path(0, 0).read_bytes()
    for length in (*range(12), *range(12, len(whole), 37), len(whole) - 1):
        kept.path(0, 0).write_bytes(whole[:length])
        refused(kept)
    kept.path(0, 0).write_bytes(whole + b"\0")
    refused(kept)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[SignalFiles, bytes]]:
    """A file of each form, and its bytes."""
    made = {}
    for form in FORMS:
        kept = signals_of(Store(tmp_path_factory.mktemp("flipped")))
        kept.write(3, 0, answers(form=form))
        made[form] = (kept, kept.path(3, 0).read_bytes())
    return made


@given(form=st.sampled_from(FORMS), place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
@example(form="all logits", place=0.0, bits=1)
@example(form="the largest", place=0.999999, bits=128)
def test_a_byte_that_was_flipped_never_gives_other_answers(
    whole: dict[str, tuple[SignalFiles, bytes]], form: str, place: float, bits: int
) -> None:
    kept, content = whole[form]
    changed = bytearray(content)
    changed[int(place * len(content))] ^= bits
    kept.path(3, 0).write_bytes(changed)
    try:
        read = kept.read(3, 0)
    except Damaged:
        with pytest.raises(Damaged):
            as_listed(kept, 3, 0).check()
    else:  # a space between two words of the header
        assert same(read, answers(form=form))


def test_a_flipped_answer_is_named(store: Store) -> None:
    kept = signals_of(store)
    kept.write(0, 0, answers())
    content = bytearray(kept.path(0, 0).read_bytes())
    content[-1] ^= 1
    kept.path(0, 0).write_bytes(content)
    assert refused(kept) == f"{kept.path(0, 0)} does not have the checksum written in it"


def test_a_file_of_another_view_block_or_teacher_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_ROWS", 5)
    kept, other = signals_of(store), signals_of(store, teacher="b")
    for block in (0, 1):
        kept.write(0, block, answers(5, seed=block))
    shutil.copy(kept.path(0, 0), kept.path(1, 0))
    shutil.copy(kept.path(0, 0), kept.path(1, 1))
    other.folder.mkdir()
    shutil.copy(kept.path(0, 0), other.path(0, 0))
    for files_of, view, block in ((kept, 1, 0), (kept, 1, 1), (other, 0, 0)):
        message = refused(files_of, view, block)
        assert message == f"{files_of.path(view, block)} does not hold what its name says"
    assert same(kept.read(0, 0), answers(5, seed=0))


@pytest.mark.parametrize(
    "said",
    [{"view": 1}, {"first": 5}, {"rows": 9}, {"key": "0" * 40}, {"block": None}, {"more": "than that"}],
    ids=str,
)
def test_what_a_file_says_of_itself_cannot_be_changed(store: Store, said: dict[str, Any]) -> None:
    kept = signals_of(store)
    kept.write(0, 0, answers())
    rewritten(kept.path(0, 0), **said)
    assert refused(kept) == f"{kept.path(0, 0)} does not hold what its name says"


@pytest.mark.parametrize(
    "tensors",
    [
        answers(seed=1),
        {"logits": answers()["logits"].float()},
        {"logits": answers()["logits"].reshape(SAMPLES, 2, 2)},
        {"others": answers()["logits"]},
        {**answers(), "more": torch.zeros(SAMPLES)},
    ],
    ids=["others", "another format", "another shape", "another name", "one more"],
)
def test_other_answers_under_the_same_words_are_refused(store: Store, tensors: dict[str, Tensor]) -> None:
    kept = signals_of(store)
    kept.write(0, 0, answers())
    rewritten(kept.path(0, 0), tensors=tensors)
    assert refused(kept) == f"{kept.path(0, 0)} does not have the checksum written in it"


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        save(answers()),
        save(answers(), metadata={"understudy": "hello"}),
        save(answers(), metadata={"understudy": "[]"}),
        save(answers(), metadata={"understudy": "{}"}),
    ],
    ids=["no tensors", "no words", "no JSON", "a list", "nothing said"],
)
def test_a_file_of_something_else_is_refused(store: Store, content: bytes) -> None:
    kept = signals_of(store)
    kept.write(0, 0, answers())
    kept.path(0, 0).write_bytes(content)
    refused(kept)


def test_what_was_damaged_can_be_made_again(store: Store) -> None:
    kept = signals_of(store)
    kept.write(0, 0, answers())
    kept.path(0, 0).write_bytes(b"")
    refused(kept)
    kept.discard(0, 0)
    assert not kept.there(0, 0)
    kept.write(0, 0, answers())
    assert same(kept.read(0, 0), answers())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'"text"', b"\xff"])
def test_a_damaged_record_is_found_and_is_in_nobodys_way(store: Store, content: bytes) -> None:
    kept = signals_of(store)
    kept.write(0, 0, answers())
    record = kept.folder / RECORD
    sound = record.read_bytes()
    record.write_bytes(content)
    with pytest.raises(Damaged) as error:
        check_record(kept.folder)
    assert str(record) in str(error.value)
    kept.check_version()
    assert same(kept.read(0, 0), answers())
    kept.write(1, 0, answers(seed=1))
    assert record.read_bytes() == sound
    check_record(kept.folder)


def test_a_record_that_was_changed_is_found(store: Store) -> None:
    kept = signals_of(store)
    kept.write(0, 0, answers())
    record = kept.folder / RECORD
    record.write_text(record.read_text("utf-8").replace(f'"samples": {SAMPLES}', '"samples": 7'), "utf-8")
    with pytest.raises(Damaged, match="does not have the checksum written in it"):
        check_record(kept.folder)


# --- other versions ----------------------------------------------------------------------------------------------


def test_signals_of_another_format_are_refused_in_one_line_and_stay(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = signals_of(store)
    with monkeypatch.context() as later:
        later.setattr(module, "VERSION", VERSION + 1)
        kept.write(0, 0, answers())
    before = content_of(store.folder)
    for look in (
        kept.check_version,
        lambda: kept.read(0, 0),
        lambda: check_record(kept.folder),
        as_listed(kept, 0, 0).check,
    ):
        with pytest.raises(BadInput) as error:
            look()
        assert str(error.value) == (
            f"the teacher signals in {kept.folder} have format {VERSION + 1}, this understudy reads format {VERSION}. "
            "Remove that folder (they are made again), or use the understudy that wrote them."
        )
    assert content_of(store.folder) == before


def test_a_single_file_of_another_format_is_damage(store: Store) -> None:
    kept = signals_of(store)
    kept.write(0, 0, answers())
    rewritten(kept.path(0, 0), version=VERSION + 1)
    assert refused(kept) == f"{kept.path(0, 0)} does not hold what its name says"


# --- a full disk -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS], ids=errno.errorcode.get)
@pytest.mark.parametrize("step", ["the record", "the file"])
def test_a_full_disk_is_one_clear_line_and_leaves_nothing_half_written(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str, code: int
) -> None:
    kept = signals_of(store)
    if step == "the file":
        kept.write(0, 0, answers())
    before = content_of(store.folder)

    def full(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(CannotWrite) as error:
            kept.write(1, 0, answers(seed=1))
    assert "\n" not in str(error.value)
    assert content_of(store.folder) == before
    assert not kept.there(1, 0)
    kept.write(1, 0, answers(seed=1))
    assert same(kept.read(1, 0), answers(seed=1))


def test_room_for_checkpoints_is_not_offered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(store.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(total=1000, free=200))
    assert free_bytes(store) == 190


# --- beside others -----------------------------------------------------------------------------------------------


def test_one_at_a_time_writes_a_view_and_others_write_others(store: Store) -> None:
    kept, again = signals_of(store), signals_of(Store(store.folder))
    other = signals_of(store, teacher="b")
    with kept.lock(0) as mine:
        assert mine
        for files_of, view, free in (
            (again, 0, False),
            (again, 1, True),
            (again, LOCKS, False),
            (other, 0, True),
        ):
            with files_of.lock(view) as theirs:
                assert theirs is free
    with again.lock(0) as theirs:
        assert theirs


def test_another_process_at_a_view_is_noticed_and_its_death_too(store: Store) -> None:
    kept = signals_of(store)
    process = held_by_another_process(store, f"store.lock('signals-{kept.key}-3')")
    try:
        with kept.lock(3) as mine:
            assert not mine
        with kept.lock(4) as mine:
            assert mine
    finally:
        process.kill()
        process.communicate()
    with kept.lock(3) as mine:
        assert mine


def test_readers_see_the_whole_file_or_none_while_others_write_and_remove(store: Store) -> None:
    kept = signals_of(store)
    kept.write(0, 0, answers(form="the largest"))
    enough = threading.Event()

    def change() -> None:
        other = signals_of(Store(store.folder))
        for _ in range(10):
            other.write(0, 0, answers(form="the largest"))
            other.discard(0, 0)
        other.write(0, 0, answers(form="the largest"))
        enough.set()

    def look() -> int:
        mine, seen = replace(kept, store=Store(store.folder)), 0
        while True:
            last = enough.is_set()
            try:
                assert same(mine.read(0, 0), answers(form="the largest"))
                seen += 1
            except FileNotFoundError:
                assert not last
            if last:
                return seen

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(look) for _ in range(3)]
        pool.submit(change).result()
        assert all(reader.result() for reader in readers)
    assert files.leftovers(store.folder) == []


def test_a_file_that_goes_while_it_is_opened_is_gone_and_not_damaged(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = signals_of(store)
    kept.write(0, 0, answers())

    def opened(path: Path, framework: str) -> None:
        path.unlink()
        raise RuntimeError(f"unable to open file <{path}> in read-only mode: No such file or directory (2)")

    monkeypatch.setattr("safetensors.safe_open", opened)
    with pytest.raises(FileNotFoundError):
        kept.read(0, 0)


# --- listing -----------------------------------------------------------------------------------------------------


def test_what_is_kept_is_listed_by_teacher_view_and_block(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (folders_of(store), size_of_signals(store)) == ([], 0)
    monkeypatch.setattr(module, "BLOCK_ROWS", 5)
    one, two = sorted((signals_of(store, teacher=name) for name in "ab"), key=lambda kept: kept.key)
    for kept, view, block in ((two, 10, 1), (two, 9, 0), (one, 3, 0)):
        kept.write(view, block, answers(5))
    (one.folder / ".part-1-view-000004-block-00000.safetensors").write_bytes(b"half")
    (one.folder / "view-4-block-0.safetensors").write_bytes(b"of somebody else")
    assert folders_of(store) == [one.folder, two.folder]
    listed = [file for folder in folders_of(store) for file in block_files(folder)]
    assert [(file.key, file.view, file.block) for file in listed] == [
        (one.key, 3, 0),
        (two.key, 9, 0),
        (two.key, 10, 1),
    ]
    assert [file.bytes for file in listed] == [file.path.stat().st_size for file in listed]
    assert size_of_signals(store) == sum(file.bytes for file in listed) + len(b"half") + len(
        b"of somebody else"
    )
