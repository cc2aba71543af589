"""Moving stages to another machine, and archives that somebody else made."""

from __future__ import annotations

import errno
import io
import json
import os
import tarfile
from collections.abc import Mapping
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
from understudy.errors import BadInput, Damaged, UnderstudyError
from understudy.store import Store, files
from understudy.store.archives import export, import_
from understudy.store.files import CannotWrite
from understudy.store.housekeeping import verify
from understudy.store.keys import key_of
from understudy.store.results import CHECKPOINTS, METRICS, OUTPUTS, RECORD, VERSION, WEIGHTS, sealed
from understudy.store.signals import SignalFiles, signals_folder

KEY = key_for(1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "there" / "store")
    made.prepare()
    return made


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere" / "stages.tar"


def exported(store: Store, archive: Path, *numbers: int) -> Store:
    """The store ``archive`` is exported from, with stages of those numbers."""
    source = Store(archive.parent / "source")
    source.prepare()
    for number in numbers:
        finished_stage(source, number)
    export(source, [key_for(number) for number in numbers], archive)
    return source


# --- there and back ----------------------------------------------------------------------------------------------


def test_stages_arrive_with_every_byte(store: Store, archive: Path) -> None:
    source = exported(store, archive, 1, 2, 3)
    assert import_(store, archive) == (3, 0)
    assert content_of(store.stages) == content_of(source.stages)
    assert verify(store) == []
    assert files.leftovers(store.folder) == []


def test_signals_stay_behind(store: Store, archive: Path) -> None:
    source = exported(store, archive, 1)
    without = archive.read_bytes()
    definition = {"kind": "signals"}
    kept = SignalFiles(store=source, key=key_of(definition), definition=definition, samples=2, row_bytes=4)
    kept.write(0, 0, {"logits": torch.zeros(2, 2).half()})
    export(source, source.keys(), archive)
    assert archive.read_bytes() == without
    import_(store, archive)
    assert not signals_folder(store).exists()


def test_what_is_there_already_stays_as_it_is(store: Store, archive: Path) -> None:
    exported(store, archive, 1, 2)
    finished_stage(store, 1, values=9)
    before = content_of(store.place(KEY))
    assert import_(store, archive) == (1, 1)
    assert import_(store, archive) == (0, 2)
    assert content_of(store.place(KEY)) == before


def test_a_finished_stage_takes_the_place_of_an_unfinished_one(store: Store, archive: Path) -> None:
    exported(store, archive, 1)
    unfinished_stage(store, 1)
    assert import_(store, archive) == (1, 0)
    assert not (store.place(KEY) / CHECKPOINTS).exists()
    assert store.result(KEY) is not None


def test_a_stage_that_is_being_made_is_left_to_its_process(store: Store, archive: Path) -> None:
    exported(store, archive, 1)
    folder = unfinished_stage(store, 1)
    before = content_of(folder)
    process = held_by_another_process(store, f"store.lock({KEY!r})")
    try:
        assert import_(store, archive) == (0, 1)
    finally:
        process.kill()
        process.communicate()
    assert content_of(folder) == before


def test_a_key_that_is_named_twice_is_exported_once(store: Store, archive: Path) -> None:
    finished_stage(store, 1)
    assert export(store, [KEY, KEY], archive) == 1
    with tarfile.open(archive) as tar:
        assert sorted(tar.getnames()) == sorted(
            f"{KEY}/{name}" for name in (WEIGHTS, OUTPUTS, METRICS, RECORD)
        )


def test_only_what_is_finished_can_be_exported(store: Store, archive: Path) -> None:
    unfinished_stage(store, 1)
    with pytest.raises(BadInput) as error:
        export(store, [KEY], archive)
    assert str(error.value) == (
        f"stage {KEY} is not finished in {store.folder}; `understudy store ls` lists what is."
    )
    with pytest.raises(BadInput, match="there is no finished stage to export"):
        export(store, [], archive)
    assert list(archive.parent.iterdir()) == []


def test_what_is_damaged_is_not_exported(store: Store, archive: Path) -> None:
    path = finished_stage(store, 1).folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Damaged, match=WEIGHTS):
        export(store, [KEY], archive)
    assert list(archive.parent.iterdir()) == []


def test_a_full_disk_leaves_the_old_archive_and_no_half_of_a_new_one(
    store: Store, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_stage(store, 1)
    archive.write_bytes(b"old")

    def refused(*args: Any, **keywords: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tarfile, "copyfileobj", refused)
    with pytest.raises(CannotWrite, match="the disk is full"):
        export(store, [KEY], archive)
    assert content_of(archive.parent) == {"stages.tar": b"old"}


def test_a_full_disk_while_importing_leaves_the_store_as_it_was(
    store: Store, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(store, archive, 1, 2)
    before = content_of(store.folder)
    whole, written = Path.replace, []

    def replaced(path: Path, target: Path) -> Path:
        written.append(target)
        if len(written) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(path, target)

    with monkeypatch.context() as full:
        full.setattr(Path, "replace", replaced)
        with pytest.raises(CannotWrite, match="the disk is full"):
            import_(store, archive)
    assert content_of(store.folder) == before
    assert import_(store, archive) == (2, 0)


# --- archives that no export wrote -------------------------------------------------------------------------------


def file_member(name: str, content: bytes = b"content") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    return member, content


def special_member(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def stage_members(
    changes: Mapping[str, Any] | None = None, key: str = KEY
) -> list[tuple[tarfile.TarInfo, bytes]]:
    """A sound stage of one file; ``changes`` go into its record."""
    record = {
        "version": VERSION,
        "key": key,
        "files": {WEIGHTS: {"sha256": files.sha256_of_bytes(b"content"), "bytes": 7}},
        **(changes or {}),
    }
    return [
        file_member(f"{key}/{WEIGHTS}"),
        file_member(f"{key}/{RECORD}", json.dumps(sealed(record)).encode()),
    ]


def written(archive: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(archive, "w") as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return archive


def test_the_sound_archive_that_the_others_are_made_from_is_taken(store: Store, archive: Path) -> None:
    assert import_(store, written(archive, stage_members())) == (1, 0)


def entry(content: bytes) -> dict[str, Any]:
    return {"sha256": files.sha256_of_bytes(content), "bytes": len(content)}


FOREIGN = {
    "a path above": [file_member(f"{KEY}/../../../outside")],
    "a short path above": [file_member("../outside")],
    "only dots": [file_member("../..")],
    "an absolute path": [file_member("/tmp/outside")],
    "a file at the top": [file_member("outside")],
    "a deeper file": [file_member(f"{KEY}/checkpoint/outside")],
    "a symbolic link to a file": [special_member(f"{KEY}/{WEIGHTS}", tarfile.SYMTYPE, "../../../outside")],
    "a symbolic link as a stage": [
        special_member(KEY, tarfile.SYMTYPE, "../../.."),
        file_member(f"{KEY}/outside"),
    ],
    "a hard link": [special_member(f"{KEY}/{WEIGHTS}", tarfile.LNKTYPE, "../outside")],
    "a folder": [special_member(KEY, tarfile.DIRTYPE)],
    "a device": [special_member(f"{KEY}/{WEIGHTS}", tarfile.CHRTYPE)],
    "a pipe": [special_member(f"{KEY}/{WEIGHTS}", tarfile.FIFOTYPE)],
    "a key with a dot": [file_member(f".{KEY}/{WEIGHTS}")],
    "a key with other letters": [file_member(f"schlüssel/{WEIGHTS}")],
    "a key that is too long": [file_member(f"{'a' * 250}/{WEIGHTS}")],
    "a name that is too long": [file_member(f"{KEY}/{'a' * 250}")],
    "a name with a backslash": [file_member(f"{KEY}/..\\outside")],
    "signals": [file_member(f"signals/{KEY}/view-000000-block-00000.safetensors")],
    "signals beside a stage": [file_member(f"../signals/{KEY}/view-000000-block-00000.safetensors")],
    "a name with a line break in the key": [file_member(f"a\nb/{WEIGHTS}")],
}
OTHER_FORMAT = {
    "a newer format": stage_members({"version": VERSION + 1}),
    "another key": stage_members({"key": key_for(2)}),
    "no files": stage_members({"files": None}),
    "files as a list": stage_members({"files": [WEIGHTS]}),
    "a file above": stage_members({"files": {WEIGHTS: entry(b"content"), "../../secret": entry(b"secret")}}),
    "an absolute file": stage_members({"files": {WEIGHTS: entry(b"content"), "/etc/hostname": entry(b"")}}),
    "no checksum": stage_members({"files": {WEIGHTS: {"bytes": 7}}}),
    "a file that is not in the record": [*stage_members(), file_member(f"{KEY}/outside")],
    "a file that is missing": stage_members({"files": {WEIGHTS: entry(b"content"), OUTPUTS: entry(b"")}}),
}
UNREADABLE = {
    "no record": [file_member(f"{KEY}/{WEIGHTS}")],
    "half a record": [file_member(f"{KEY}/{RECORD}", b"{")],
    "a record that is a list": [file_member(f"{KEY}/{RECORD}", b"[]")],
    "a record that is no text": [file_member(f"{KEY}/{RECORD}", b"\xff")],
    "an empty record": [file_member(f"{KEY}/{RECORD}", b"{}")],
}


def refused(store: Store, archive: Path, kind: type[UnderstudyError] = BadInput) -> str:
    """The one line with which an import ends that changes nothing anywhere."""
    root = store.folder.parents[1]
    before = content_of(root)
    with pytest.raises(kind) as error:
        import_(store, archive)
    assert content_of(root) == before
    assert files.leftovers(store.folder) == []
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("members", FOREIGN.values(), ids=FOREIGN)
def test_a_member_that_no_export_writes_is_refused_and_nothing_is_written(
    members: list[tuple[tarfile.TarInfo, bytes]], store: Store, archive: Path
) -> None:
    for others in ([], stage_members()):
        message = refused(store, written(archive, [*others, *members]))
        assert message.startswith(f"{archive} holds ")
        assert message.endswith(", which no store export writes; not imported.")


@pytest.mark.parametrize("members", OTHER_FORMAT.values(), ids=OTHER_FORMAT)
def test_a_stage_of_another_form_is_refused_and_nothing_is_written(
    members: list[tuple[tarfile.TarInfo, bytes]], store: Store, archive: Path
) -> None:
    (store.folder.parent / "secret").write_bytes(b"secret")
    message = refused(store, written(archive, members))
    assert message == f"{archive}: stage {KEY} is of another format; not imported."


@pytest.mark.parametrize("members", UNREADABLE.values(), ids=UNREADABLE)
def test_a_stage_without_readable_record_is_refused_and_nothing_is_written(
    members: list[tuple[tarfile.TarInfo, bytes]], store: Store, archive: Path
) -> None:
    message = refused(store, written(archive, members))
    assert message == f"{archive}: stage {KEY} has no readable {RECORD}; not imported."


def test_a_file_with_another_checksum_is_refused_and_nothing_is_written(store: Store, archive: Path) -> None:
    members = stage_members({"files": {WEIGHTS: entry(b"Content")}})
    assert WEIGHTS in refused(store, written(archive, members), Damaged)


def test_one_flipped_bit_on_the_way_is_noticed(store: Store, archive: Path) -> None:
    exported(store, archive, 1)
    with tarfile.open(archive) as tar:
        places = [member.offset_data + member.size - 1 for member in tar if not member.name.endswith(RECORD)]
    whole = archive.read_bytes()
    for place in places:
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        refused(store, archive, Damaged)


def test_stages_before_a_damaged_one_stay_imported(store: Store, archive: Path) -> None:
    damaged = stage_members({"files": {WEIGHTS: entry(b"Content")}}, key=key_for(2))
    with pytest.raises(Damaged):
        import_(store, written(archive, [*stage_members(), *damaged]))
    assert store.keys() == [KEY]
    assert verify(store) == []


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x1f\x8b" + bytes(600), bytes(511), b"PK\x03\x04" + bytes(600)], ids=repr
)
def test_what_is_no_archive_is_refused_and_nothing_is_written(
    content: bytes, store: Store, archive: Path
) -> None:
    archive.write_bytes(content)
    assert refused(store, archive).startswith(f"{archive} is not a store export (")


def test_an_archive_that_was_cut_is_refused_wherever_it_was(store: Store, archive: Path) -> None:
    exported(store, archive, 1)
    with tarfile.open(archive) as tar:
        end = max(member.offset_data + member.size for member in tar)
    whole = archive.read_bytes()
    for length in range(0, end, 331):
        archive.write_bytes(whole[:length])
        refused(store, archive)


def test_an_archive_of_nothing_is_refused(store: Store, archive: Path) -> None:
    assert refused(store, written(archive, [])) == f"{archive} holds no stages."


def test_an_archive_that_is_not_there_is_refused(store: Store, archive: Path) -> None:
    assert refused(store, archive) == f"there is no file {archive}."
    assert refused(store, archive.parent) == f"there is no file {archive.parent}."


def test_an_import_makes_the_store_it_needs(archive: Path, tmp_path: Path) -> None:
    fresh = Store(tmp_path / "fresh")
    assert import_(fresh, written(archive, stage_members())) == (1, 0)
    fresh.prepare()
    assert fresh.result(KEY) is not None
