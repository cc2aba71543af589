from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.store.stages import (
    aged,
    content_of,
    finished_stage,
    held_by_another_process,
    key_for,
    unfinished_stage,
)
from understudy.cli import main
from understudy.store import Store, files, signals
from understudy.store.files import CannotWrite
from understudy.store.housekeeping import finished, gc, size_of, verify, verify_signals
from understudy.store.keys import key_of
from understudy.store.results import RECORD, VERSION, WEIGHTS
from understudy.store.signals import SignalFiles


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.prepare()
    return made


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def signals_of(store: Store, teacher: str = "a") -> SignalFiles:
    definition = {"kind": "signals", "teacher": teacher}
    return SignalFiles(store=store, key=key_of(definition), definition=definition, samples=50, row_bytes=8)


def spoken(store: Store, *days: float, teacher: str = "a") -> tuple[SignalFiles, list[Path]]:
    """Signals of one teacher, a view for each of ``days``: last used so many days ago."""
    kept = signals_of(store, teacher)
    places = []
    for view, age in enumerate(days):
        kept.write(view, 0, {"logits": torch.full((50, 4), float(view)).half()})
        places.append(kept.path(view, 0))
        aged(places[-1], age)
    return kept, places


def there(places: list[Path]) -> list[bool]:
    return [place.exists() for place in places]


# --- gc: what goes and what stays --------------------------------------------------------------------------------


def test_without_limits_every_stage_stays(store: Store) -> None:
    finished_stage(store, 1, days=1000)
    unfinished_stage(store, 2, days=1000)
    before = content_of(store.folder)
    cleaned = gc(store)
    assert (cleaned.keys, cleaned.leftovers, cleaned.bytes, cleaned.busy) == ([], 0, 0, 0)
    assert content_of(store.folder) == before


def test_what_was_not_used_for_longer_goes(store: Store) -> None:
    for number, days in ((1, 31.0), (2, 29.0), (3, 0.0)):
        finished_stage(store, number, days=days)
    unfinished_stage(store, 4, days=31)
    unfinished_stage(store, 5, days=29)
    size = sum(size_of(store.place(key_for(number))) for number in (1, 4))
    cleaned = gc(store, older_than_days=30)
    assert sorted(cleaned.keys) == [key_for(1), key_for(4)]
    assert cleaned.bytes == size
    assert store.keys() == [key_for(2), key_for(3), key_for(5)]
    assert verify(store) == []


def test_a_stage_that_was_used_again_stays(store: Store) -> None:
    store.used(finished_stage(store, 1, days=1000))
    assert gc(store, older_than_days=30).keys == []


def test_an_unfinished_stage_is_as_old_as_its_last_written_file(store: Store) -> None:
    folder = unfinished_stage(store, 1, days=1000)
    (folder / "checkpoint" / "000000002-0.safetensors").write_bytes(b"newer")
    assert gc(store, older_than_days=1).keys == []


def test_the_least_recently_used_go_first_until_the_rest_fits(store: Store) -> None:
    for number, days in ((1, 1.0), (2, 3.0), (3, 2.0), (4, 0.0)):
        finished_stage(store, number, days=days, values=10_000)
    sizes = {key: size_of(store.place(key)) for key in store.keys()}
    total = sum(sizes.values())
    assert gc(store, max_bytes=total).keys == []
    cleaned = gc(store, max_bytes=total - 1)
    assert cleaned.keys == [key_for(2)]
    assert cleaned.bytes == sizes[key_for(2)]
    assert gc(store, max_bytes=sizes[key_for(4)]).keys == [key_for(3), key_for(1)]
    assert store.keys() == [key_for(4)]
    assert gc(store, max_bytes=0).keys == [key_for(4)]


def test_age_and_size_both_count(store: Store) -> None:
    for number, days in ((1, 40.0), (2, 2.0), (3, 1.0)):
        finished_stage(store, number, days=days, values=10_000)
    one = size_of(store.place(key_for(3)))
    assert gc(store, older_than_days=30, max_bytes=one).keys == [key_for(1), key_for(2)]


def test_a_dry_run_says_the_same_and_touches_nothing(store: Store) -> None:
    for number in range(4):
        finished_stage(store, number, days=float(number), values=1000)
    unfinished_stage(store, 9, days=10)
    store.set_aside(key_for(3))
    spoken(store, 3, 0, 0)
    for number in (2, 9):
        (store.stages / key_for(number) / ".part-1-weights").write_bytes(b"half")
        aged(store.stages / key_for(number) / ".part-1-weights", 5)
    limits: dict[str, Any] = {"older_than_days": 1.5, "max_bytes": 10}
    before = content_of(store.folder)
    said = gc(store, **limits, dry_run=True)
    assert content_of(store.folder) == before
    assert len(said.keys) == 4
    assert said.signals == 3
    done = gc(store, **limits)
    assert said == done
    assert set(content_of(store.folder)) == {"store.json"}


def test_leftovers_of_killed_processes_go_and_those_being_written_stay(store: Store) -> None:
    result = finished_stage(store, 1)
    old, young = store.folder / ".part-1-store.json", result.folder / ".part-2-weights"
    inbox = store.folder / ".part-import-3"
    (inbox / key_for(7)).mkdir(parents=True)
    for path in (old, young, inbox / key_for(7) / WEIGHTS):
        path.write_bytes(b"12345")
    aged(old, 0.1)
    aged(inbox, 0.1)
    cleaned = gc(store)
    assert (cleaned.leftovers, cleaned.bytes) == (2, 10)
    assert young.exists()
    assert not old.exists()
    assert not inbox.exists()
    assert verify(store) == []


def test_an_import_that_still_writes_stays(store: Store) -> None:
    inbox = store.folder / ".part-import-3"
    (inbox / key_for(7)).mkdir(parents=True)
    (inbox / key_for(7) / "old").write_bytes(b"")
    aged(inbox, 1)
    (inbox / key_for(7) / "new").write_bytes(b"")
    assert gc(store).leftovers == 0
    assert inbox.exists()


def test_what_was_set_aside_goes(store: Store) -> None:
    finished_stage(store, 1)
    aside = store.set_aside(key_for(1))
    size = size_of(aside)
    cleaned = gc(store)
    assert (cleaned.leftovers, cleaned.bytes) == (1, size)
    assert not aside.exists()


def test_an_empty_or_missing_store_is_clean(tmp_path: Path) -> None:
    assert gc(Store(tmp_path / "nowhere"), older_than_days=0, max_bytes=0).keys == []
    assert verify(Store(tmp_path / "nowhere")) == []
    assert finished(Store(tmp_path / "nowhere")) == []


# --- gc beside others --------------------------------------------------------------------------------------------


def test_stages_of_a_living_run_stay_and_those_of_a_killed_one_go(store: Store) -> None:
    for number in (1, 2):
        finished_stage(store, number, days=100)
    process = held_by_another_process(store, f"store.lease([{key_for(1)!r}])")
    try:
        cleaned = gc(store, older_than_days=1, max_bytes=0)
        assert (cleaned.keys, cleaned.busy) == ([key_for(2)], 1)
        assert store.keys() == [key_for(1)]
    finally:
        process.kill()
        process.communicate()
    assert gc(store, older_than_days=1).keys == [key_for(1)]


def test_a_stage_that_is_being_made_stays(store: Store) -> None:
    unfinished_stage(store, 1, days=100)
    process = held_by_another_process(store, f"store.lock({key_for(1)!r})")
    try:
        cleaned = gc(store, older_than_days=1)
        assert (cleaned.keys, cleaned.busy) == ([], 1)
        assert store.keys() == [key_for(1)]
    finally:
        process.kill()
        process.communicate()
    assert gc(store, older_than_days=1).keys == [key_for(1)]


def before_the_lock(store: Store, monkeypatch: pytest.MonkeyPatch, happens: Any) -> None:
    """Lets ``happens`` come between the look at a stage and its lock."""
    whole = store.lock

    def lock(key: str) -> Any:
        monkeypatch.setattr(store, "lock", whole)
        happens()
        return whole(key)

    monkeypatch.setattr(store, "lock", lock)


def test_a_stage_that_a_run_leases_at_the_last_moment_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_stage(store, 1, days=100)
    lease = store.lease([key_for(1)])
    before_the_lock(store, monkeypatch, lease.__enter__)
    assert gc(store, older_than_days=1).keys == []
    lease.__exit__(None, None, None)
    assert store.result(key_for(1)) is not None


def test_a_stage_that_is_used_or_finished_at_the_last_moment_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = finished_stage(store, 1, days=100)
    before_the_lock(store, monkeypatch, lambda: store.used(result))
    assert gc(store, older_than_days=1).keys == []
    unfinished_stage(store, 2, days=100)
    before_the_lock(store, monkeypatch, lambda: finished_stage(store, 2))
    assert gc(store, older_than_days=1).keys == []
    assert store.keys() == [key_for(1), key_for(2)]


def test_a_stage_that_another_gc_removed_first_is_passed_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        finished_stage(store, number, days=100)
    other = Store(store.folder)
    before_the_lock(store, monkeypatch, lambda: gc(other, older_than_days=1))
    assert gc(store, older_than_days=1).keys == []
    assert store.keys() == []


# --- gc of signals -----------------------------------------------------------------------------------------------


def test_without_limits_signals_stay(store: Store) -> None:
    spoken(store, 1000, 0)
    before = content_of(store.folder)
    cleaned = gc(store)
    assert (cleaned.signals, cleaned.signal_bytes, cleaned.bytes, cleaned.busy_signals) == (0, 0, 0, 0)
    assert content_of(store.folder) == before


def test_signals_that_were_not_used_for_longer_go_file_by_file(store: Store) -> None:
    finished_stage(store, 1, days=31)
    finished_stage(store, 2, days=29)
    kept, places = spoken(store, 31, 29, 32, 0)
    sizes = [place.stat().st_size for place in places]
    stage = size_of(store.place(key_for(1)))
    cleaned = gc(store, older_than_days=30)
    assert there(places) == [False, True, False, True]
    assert (cleaned.keys, cleaned.signals) == ([key_for(1)], 2)
    assert cleaned.signal_bytes == sizes[0] + sizes[2]
    assert cleaned.bytes == cleaned.signal_bytes + stage
    assert (kept.folder / signals.RECORD).exists()


def test_signals_that_were_read_again_stay(store: Store) -> None:
    kept, places = spoken(store, 31, 31)
    kept.read(1, 0)
    assert gc(store, older_than_days=30).signals == 1
    assert there(places) == [False, True]


def test_signals_go_before_stages_and_the_least_recently_used_first(store: Store) -> None:
    for number, days in ((1, 50.0), (2, 40.0)):
        finished_stage(store, number, days=days, values=10_000)
    _, a = spoken(store, 1, 4, 2)
    _, b = spoken(store, 3, 5, teacher="b")
    stages = sum(size_of(store.place(key_for(number))) for number in (1, 2))
    one = a[0].stat().st_size
    assert {place.stat().st_size for place in (*a, *b)} == {one}
    total = stages + 5 * one
    assert gc(store, max_bytes=total).signals == 0
    cleaned = gc(store, max_bytes=total - one - 1)
    assert (cleaned.keys, cleaned.signals, cleaned.bytes) == ([], 2, 2 * one)
    assert there([*a, *b]) == [True, False, True, True, False]
    assert gc(store, max_bytes=stages).keys == []
    assert there([*a, *b]) == [False] * 5
    assert gc(store, max_bytes=stages - 1).keys == [key_for(1)]


def test_a_folder_without_signals_goes_with_its_record(store: Store) -> None:
    kept, (place,) = spoken(store, 31)
    other, _ = spoken(store, 31, 0, teacher="b")
    record = (kept.folder / signals.RECORD).stat().st_size
    size = place.stat().st_size
    cleaned = gc(store, older_than_days=30)
    assert cleaned.signals == 2
    assert cleaned.signal_bytes == cleaned.bytes == 2 * size + record
    assert not kept.folder.exists()
    assert (other.folder / signals.RECORD).exists()
    kept.write(0, 0, {"logits": torch.zeros(50, 4).half()})
    assert verify_signals(store) == (2, [])


def test_an_empty_folder_goes_and_one_with_something_else_in_it_stays(store: Store) -> None:
    kept, (place,) = spoken(store, 0)
    place.unlink()
    (signals.signals_folder(store) / "somebody's").mkdir()
    (signals.signals_folder(store) / "somebody's" / "notes.txt").write_text("mine")
    assert gc(store).signals == 0
    assert not kept.folder.exists()
    assert content_of(store.folder).keys() == {"store.json", "signals/somebody's/notes.txt"}


def test_signals_alone_can_be_looked_at(store: Store) -> None:
    finished_stage(store, 1, days=100)
    store.set_aside(finished_stage(store, 2).key)
    kept, places = spoken(store, 31, 29, 0)
    inside, outside = kept.folder / ".part-1-view", store.folder / ".part-2-store.json"
    for part in (inside, outside):
        part.write_bytes(b"12345")
        aged(part, 1)
    one = places[0].stat().st_size
    stages = content_of(store.stages)
    cleaned = gc(store, older_than_days=30, only_signals=True)
    assert (cleaned.signals, cleaned.leftovers, cleaned.bytes) == (1, 1, one + 5)
    cleaned = gc(store, max_bytes=one, only_signals=True)  # stages do not count here
    assert (cleaned.signals, there(places)) == (1, [False, False, True])
    cleaned = gc(store, only_signals=True)
    assert (cleaned.keys, cleaned.signals, cleaned.leftovers) == ([], 1, 0)
    assert not kept.folder.exists()
    assert content_of(store.stages) == stages
    assert outside.exists()
    assert len(list((store.folder / "damaged").iterdir())) == 1


@pytest.mark.parametrize("only_signals", [False, True])
def test_a_dry_run_says_the_same_of_signals_and_touches_nothing(store: Store, only_signals: bool) -> None:
    spoken(store, 3, 0)
    gone, _ = spoken(store, 3, 3, teacher="b")
    part = gone.folder / ".part-1-view"
    part.write_bytes(b"12345")
    aged(part, 1)
    finished_stage(store, 1, days=3)
    before = content_of(store.folder)
    limits: dict[str, Any] = {"older_than_days": 1, "only_signals": only_signals}
    said = gc(store, **limits, dry_run=True)
    assert content_of(store.folder) == before
    assert said == gc(store, **limits)
    assert (said.signals, said.leftovers) == (3, 1)
    assert not gone.folder.exists()


def test_signals_of_a_living_run_stay_and_those_of_a_killed_one_go(store: Store) -> None:
    kept, places = spoken(store, 100, 100)
    _, others = spoken(store, 100, teacher="b")
    finished_stage(store, 1, days=100)
    process = held_by_another_process(store, f"store.lease([{kept.key!r}])")
    try:
        for limits in ({"older_than_days": 1}, {"max_bytes": 0}, {"only_signals": True}):
            cleaned = gc(store, **limits)
            assert cleaned.busy_signals == 2
            assert there(places) == [True, True]
        assert there(others) == [False]
        assert store.keys() == []  # signals that must stay count
    finally:
        process.kill()
        process.communicate()
    assert gc(store, only_signals=True).signals == 2


def test_an_empty_folder_that_a_living_run_or_a_writer_is_about_to_fill_stays(store: Store) -> None:
    kept, (place,) = spoken(store, 100)
    place.unlink()
    for holding in (f"store.lease([{kept.key!r}])", f"store.lock('signals-{kept.key}-3')"):
        process = held_by_another_process(store, holding)
        try:
            gc(store, only_signals=True)
            assert (kept.folder / signals.RECORD).exists()
        finally:
            process.kill()
            process.communicate()
    gc(store, only_signals=True)
    assert not kept.folder.exists()


def test_a_run_that_begins_while_signals_go_keeps_the_rest(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, places = spoken(store, 3, 2, 1)
    lease = store.lease([kept.key])
    whole = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        whole(path, missing_ok=missing_ok)
        if path == places[0]:
            lease.__enter__()

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Path, "unlink", unlink)
        cleaned = gc(store, only_signals=True)
    lease.__exit__(None, None, None)
    assert there(places) == [False, True, True]
    assert (cleaned.signals, cleaned.busy_signals) == (1, 2)


def test_signals_that_are_read_or_go_at_the_last_moment_are_passed_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, places = spoken(store, 9, 8, 7)
    finished_stage(store, 1)
    size = places[0].stat().st_size
    whole = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        whole(path, missing_ok=missing_ok)
        if path == places[0]:
            kept.read(1, 0)
            whole(places[2])

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Path, "unlink", unlink)
        cleaned = gc(store, max_bytes=size_of(store.place(key_for(1))) + size)
    assert there(places) == [False, True, False]
    assert (cleaned.signals, cleaned.busy_signals, cleaned.signal_bytes) == (1, 1, size)
    assert cleaned.keys == []  # what others removed makes room too


def test_a_file_that_is_being_read_can_go(store: Store) -> None:
    kept, _ = spoken(store, 0, 0)
    read = kept.read(1, 0)
    assert gc(store, only_signals=True).signals == 2
    assert torch.equal(read["logits"], torch.ones(50, 4).half())
    with pytest.raises(FileNotFoundError):
        kept.read(1, 0)


def test_signals_that_the_system_does_not_let_go_are_one_clear_line(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (place,) = spoken(store, 0)
    whole = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path == place:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        whole(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(CannotWrite, match="may not be written"):
        gc(store, only_signals=True)


# --- verify ------------------------------------------------------------------------------------------------------


def test_a_sound_store_has_no_problems(store: Store) -> None:
    finished_stage(store, 1)
    unfinished_stage(store, 2)
    before = content_of(store.folder)
    assert verify(store) == []
    assert content_of(store.folder) == before


def test_damaged_stages_are_named_and_set_aside_and_the_others_stay(store: Store) -> None:
    for number in (1, 2, 3):
        finished_stage(store, number)
    flip(store.place(key_for(1)) / WEIGHTS)
    (store.place(key_for(3)) / RECORD).write_text("{")
    problems = verify(store)
    places = sorted((store.folder / "damaged").iterdir())
    assert problems == [
        f"{store.place(key_for(1)) / WEIGHTS} does not have the checksum written in {RECORD}; "
        f"set aside as {places[0]}",
        f"{store.place(key_for(3)) / RECORD} cannot be read; set aside as {places[1]}",
    ]
    assert store.keys() == [key_for(2)]
    assert verify(store) == []


def test_verify_can_leave_everything_where_it_is(store: Store) -> None:
    finished_stage(store, 1)
    flip(store.place(key_for(1)) / WEIGHTS)
    before = content_of(store.folder)
    assert len(verify(store, set_aside=False)) == 1
    assert content_of(store.folder) == before


def test_a_damaged_stage_that_another_process_holds_is_named_and_stays(store: Store) -> None:
    finished_stage(store, 1)
    flip(store.place(key_for(1)) / WEIGHTS)
    process = held_by_another_process(store, f"store.lock({key_for(1)!r})")
    try:
        (problem,) = verify(store)
        assert "set aside" not in problem
        assert store.keys() == [key_for(1)]
    finally:
        process.kill()
        process.communicate()


def test_a_damaged_stage_that_another_process_mended_at_the_last_moment_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_stage(store, 1)
    flip(store.place(key_for(1)) / WEIGHTS)

    def mended() -> None:
        store.set_aside(key_for(1))
        finished_stage(store, 1)

    before_the_lock(store, monkeypatch, mended)
    assert verify(store) == []
    assert store.result(key_for(1)) is not None


def test_a_stage_of_a_newer_understudy_is_named_and_stays(store: Store) -> None:
    finished_stage(store, 1)
    files.write_json(store.place(key_for(1)) / RECORD, {"version": VERSION + 1})
    (problem,) = verify(store)
    assert problem.endswith(f"has format {VERSION + 1}, this understudy reads format {VERSION}.")
    assert store.keys() == [key_for(1)]


def test_finished_lists_what_can_be_read(store: Store) -> None:
    for number in (1, 2, 3):
        finished_stage(store, number)
    unfinished_stage(store, 4)
    (store.place(key_for(2)) / RECORD).write_text("{")
    assert [result.key for result in finished(store)] == [key_for(1), key_for(3)]


# --- verify signals ----------------------------------------------------------------------------------------------


def test_sound_signals_have_no_problems_and_are_not_used_by_the_look(store: Store) -> None:
    assert verify_signals(store) == (0, [])
    _, places = spoken(store, 9, 8)
    spoken(store, 7, teacher="b")
    before = content_of(store.folder)
    used = [place.stat().st_mtime for place in places]
    assert verify_signals(store) == (3, [])
    assert content_of(store.folder) == before
    assert [place.stat().st_mtime for place in places] == used


def test_damaged_signals_are_named_and_removed_and_the_others_stay(store: Store) -> None:
    kept, places = spoken(store, 0, 0, 0, 0)
    flip(places[0])
    places[1].write_bytes(b"")
    shutil.copy(places[2], kept.path(9, 0))
    whole, problems = verify_signals(store)
    assert whole == 2
    assert problems == [
        f"{places[0]} does not have the checksum written in it; removed",
        f"{places[1]} cannot be read (Error while deserializing header: header too small); removed",
        f"{kept.path(9, 0)} does not hold what its name says; removed",
    ]
    assert there(places) == [False, False, True, True]
    assert verify_signals(store) == (2, [])


def test_a_damaged_record_of_signals_is_named_and_removed_and_its_files_stay(store: Store) -> None:
    kept, _ = spoken(store, 0, 0)
    (kept.folder / signals.RECORD).write_text("{")
    assert verify_signals(store) == (2, [f"{kept.folder / signals.RECORD} cannot be read; removed"])
    assert verify_signals(store) == (2, [])
    kept.write(2, 0, {"logits": torch.zeros(50, 4).half()})
    assert (kept.folder / signals.RECORD).exists()


def test_damaged_signals_can_be_left_where_they_are(store: Store) -> None:
    kept, places = spoken(store, 0)
    flip(places[0])
    (kept.folder / signals.RECORD).write_text("{")
    before = content_of(store.folder)
    whole, problems = verify_signals(store, discard=False)
    assert (whole, len(problems)) == (0, 2)
    assert content_of(store.folder) == before


def test_damaged_signals_that_another_process_writes_anew_are_left_to_it(store: Store) -> None:
    kept, places = spoken(store, 0)
    flip(places[0])
    process = held_by_another_process(store, f"store.lock('signals-{kept.key}-0')")
    try:
        whole, (problem,) = verify_signals(store)
        assert (whole, there(places)) == (0, [True])
        assert "removed" not in problem
    finally:
        process.kill()
        process.communicate()


def test_signals_that_were_mended_at_the_last_moment_stay(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (place,) = spoken(store, 0)
    sound = place.read_bytes()
    flip(place)
    before_the_lock(store, monkeypatch, lambda: files.write_bytes(place, sound))
    assert verify_signals(store) == (1, [])


def test_signals_of_another_format_are_named_once_and_stay(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken(store, 0)
    with monkeypatch.context() as later:
        later.setattr(signals, "VERSION", signals.VERSION + 1)
        kept, places = spoken(store, 0, 0, teacher="b")
    before = content_of(store.folder)
    whole, (problem,) = verify_signals(store)
    assert whole == 1
    assert problem.startswith(f"the teacher signals in {kept.folder} have format {signals.VERSION + 1}, ")
    assert content_of(store.folder) == before
    assert gc(store, only_signals=True).signals == 3  # age and size do not depend on what is in them
    assert there(places) == [False, False]


# --- what the commands say of signals ----------------------------------------------------------------------------


def said_by(capsys: pytest.CaptureFixture[str], status: int, *words: object) -> list[str]:
    with pytest.raises(SystemExit) as ended:
        main(["store", *(str(word) for word in words)])
    assert ended.value.code == status
    return capsys.readouterr().out.splitlines()


def test_the_list_ends_with_how_much_there_is(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    last = said_by(capsys, 0, "ls", "--store", store.folder)[-1]
    assert last == f"0 stages, 0 unfinished, 0.0 MB in {store.folder}, no signals"
    spoken(store, 0, 0, 0)
    kept = SignalFiles(store=store, key="b", definition={}, samples=50_000, row_bytes=20)
    for block in (0, 1):
        kept.write(0, block, {"logits": torch.zeros(len(kept.rows(block)), 10).half()})
    last = said_by(capsys, 0, "ls", "--store", store.folder)[-1]
    assert last == (
        f"0 stages, 0 unfinished, 0.7 MB in {store.folder}; of it 0.7 MB are signals: "
        "4 views in 5 files, of 2 pairs of a teacher and a way to look"
    )


def test_cleaning_says_what_went_and_what_stays(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    finished_stage(store, 1, days=2)
    spoken(store, 2, 0, 2)
    words = ("gc", "--store", store.folder)
    assert said_by(capsys, 0, *words) == [
        "removed 0 stages, 0 files of signals (0.0 MB) and 0 leftovers, 0.0 MB together"
    ]
    assert said_by(capsys, 0, *words, "--older-than", 1, "--dry-run") == [
        key_for(1),
        "would remove 1 stages, 2 files of signals (0.0 MB) and 0 leftovers, 0.0 MB together",
    ]
    with store.lease([signals_of(store).key]):
        assert said_by(capsys, 0, *words, "--signals", "--older-than", 1) == [
            "removed 0 stages, 0 files of signals (0.0 MB) and 0 leftovers, 0.0 MB together; "
            "2 files of signals in use stay"
        ]
        with store.lease([key_for(1)]):
            assert said_by(capsys, 0, *words, "--max-gb", 0)[-1].endswith(
                "; 1 stages and 3 files of signals in use stay"
            )
    assert said_by(capsys, 0, *words, "--signals") == [
        "removed 0 stages, 3 files of signals (0.0 MB) and 0 leftovers, 0.0 MB together"
    ]
    assert store.keys() == [key_for(1)]


def test_the_look_at_all_files_names_damaged_signals(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_stage(store, 1)
    _, places = spoken(store, 0, 0)
    words = ("verify", "--store", store.folder)
    assert said_by(capsys, 0, *words) == [
        "2 files of signals are whole, 0 damaged",
        "1 stages are whole, 0 damaged",
    ]
    flip(places[1])
    assert said_by(capsys, 1, *words) == [
        f"{places[1]} does not have the checksum written in it; removed",
        "1 files of signals are whole, 1 damaged",
        "1 stages are whole, 0 damaged",
    ]
    assert there(places) == [True, False]
    assert said_by(capsys, 0, *words)[0] == "1 files of signals are whole, 0 damaged"
