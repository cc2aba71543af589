from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.store.stages import (
    aged,
    content_of,
    finished_stage,
    held_by_another_process,
    key_for,
    unfinished_stage,
)
from understudy.store import Store, files
from understudy.store.housekeeping import finished, gc, size_of, verify
from understudy.store.results import RECORD, VERSION, WEIGHTS


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.prepare()
    return made


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


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
    for number in (2, 9):
        (store.stages / key_for(number) / ".part-1-weights").write_bytes(b"half")
        aged(store.stages / key_for(number) / ".part-1-weights", 5)
    limits: dict[str, Any] = {"older_than_days": 1.5, "max_bytes": 10}
    before = content_of(store.folder)
    said = gc(store, **limits, dry_run=True)
    assert content_of(store.folder) == before
    assert len(said.keys) == 4
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
