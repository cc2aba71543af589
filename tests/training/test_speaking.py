"""Kept answers: a student that reads them ends with the bits of one whose teachers stand beside it in every step."""

from __future__ import annotations

import errno
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.ladder.tiny import made_up, network, same_tensors, training
from understudy.data.batches import batch_of
from understudy.data.views import PLAIN, Transform, ViewPolicy, Views
from understudy.errors import BadInput, Interrupted
from understudy.models.preprocessing import Preprocessing
from understudy.store import Store, files
from understudy.store import signals as kept_signals
from understudy.store.signals import SignalFiles
from understudy.tasks import Classification
from understudy.teaching import Method, Needs, SoftTargets, Step, Stochastic
from understudy.training import Training
from understudy.training.loop import Trained, fit
from understudy.training.signals import Signals
from understudy.training.speaking import Speaking
from understudy.training.teachers import FrozenTeachers, Teacher

DATA = made_up(train=41, validation=4, test=2)  # batches of 16, 16 and 9
PREPARED = (Preprocessing(mean=(0.5,), std=(0.3,)), Preprocessing(mean=(0.4,), std=(0.2,)))
AUGMENTED = Views(policy=ViewPolicy(crop=1, flip=True, erase=0.5), seed=3)
DEFAULT = Signals()
MIXED = Views(policy=ViewPolicy(flip=True, mixup=0.4), seed=3)


def teacher_model(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(100 + seed)
        model = network("plain_cnn-4").build(DATA).train()
        with torch.no_grad():
            model(torch.randn(32, 1, 8, 8))  # statistics other than the initial ones
    return model


def unwanted() -> NoReturn:
    raise AssertionError("a teacher was loaded although all that it would say is kept")


def signal_files(
    place: Path, position: int = 0, *, signals: Signals = DEFAULT, views: Views = AUGMENTED
) -> SignalFiles:
    Store(place).prepare()
    definition = {"teacher": position, "views": views.definition(), "kept": signals.definition(classes=4)}
    return SignalFiles(
        store=Store(place),
        key=f"{abs(hash(str(definition))):040x}",
        definition=definition,
        samples=len(DATA.train),
        row_bytes=signals.row_bytes(classes=4),
    )


def teachers(
    count: int,
    place: Path | None,
    *,
    signals: Signals,
    views: Views = AUGMENTED,
    load: Callable[[int], nn.Module] = teacher_model,
) -> list[Teacher]:
    return [
        Teacher(
            load=partial(load, seed),
            preprocessing=PREPARED[seed % 2],
            kept=None if place is None else signal_files(place, seed, signals=signals, views=views),
        )
        for seed in range(count)
    ]


def trained(
    folder: Path,
    place: Path | None,
    *,
    count: int = 1,
    method: Method | None = None,
    signals: Signals = DEFAULT,
    views: Views = AUGMENTED,
    said: Training | None = None,
    seed: int = 0,
    load: Callable[[int], nn.Module] = teacher_model,
    **more: Any,
) -> Trained:
    torch.manual_seed(1)
    return fit(
        network().build(DATA),
        (method or SoftTargets()).for_stage(teachers=count),
        task=Classification(),
        dataset=DATA,
        views=views,
        preprocessing=PREPARED[0],
        teachers=teachers(count, place, signals=signals, views=views, load=load),
        training=said or training(epochs=3),
        seed=seed,
        folder=folder,
        signals=signals,
        **more,
    )


def weights(done: Trained) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in done.model.state_dict().items()}


def kept_files(place: Path) -> list[str]:
    return sorted(path.name for path in place.rglob("view-*"))


STOCHASTIC = Stochastic(keep=0.6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("count", "method"),
    [
        (1, SoftTargets()),
        (3, SoftTargets(combine="mean")),
        (3, SoftTargets(stochastic=STOCHASTIC, temperature=2.0)),
    ],
    ids=["direct", "dense", "stochastic"],
)
@pytest.mark.parametrize(
    "signals",
    [
        Signals(),
        Signals(dtype="float32"),
        Signals(top_k=2),
        Signals(top_k=2, dtype="float32"),
    ],
    ids=["float16", "float32", "top_k", "top_k float32"],
)
def test_kept_and_live_teachers_make_the_same_student(
    tmp_path: Path, signals: Signals, count: int, method: SoftTargets, precision: str
) -> None:
    more: dict[str, Any] = {
        "count": count,
        "method": method,
        "signals": signals,
        "said": training(epochs=3, precision=precision),
    }
    live = weights(trained(tmp_path / "live", None, **more))
    kept = weights(trained(tmp_path / "kept", tmp_path / "store", **more))
    read = weights(trained(tmp_path / "read", tmp_path / "store", **more, load=lambda position: unwanted()))
    assert same_tensors(live, kept)
    assert same_tensors(live, read)
    assert len(kept_files(tmp_path / "store")) == 3 * count


@pytest.mark.parametrize("views", [Views(), MIXED], ids=["plain", "mixed"])
def test_kept_and_live_are_the_same_bits_for_every_kind_of_view(tmp_path: Path, views: Views) -> None:
    live = trained(tmp_path / "live", None, views=views, signals=Signals(dtype="float32"))
    kept = trained(tmp_path / "kept", tmp_path / "store", views=views, signals=Signals(dtype="float32"))
    assert same_tensors(weights(live), weights(kept))
    # images as they are, are one view
    assert len(kept_files(tmp_path / "store")) == (3 if views is MIXED else 1)


def test_the_order_of_the_samples_changes_no_row(tmp_path: Path) -> None:
    for seed in (0, 1):
        live = trained(tmp_path / f"live{seed}", None, seed=seed)
        kept = trained(tmp_path / f"kept{seed}", tmp_path / "store", seed=seed)
        assert same_tensors(weights(live), weights(kept))
    assert len(kept_files(tmp_path / "store")) == 3  # the second seed read what the first one wrote


def test_another_batch_size_reads_the_same_rows(tmp_path: Path) -> None:
    trained(tmp_path / "first", tmp_path / "store")
    said = training(epochs=3, batch_size=5)
    live = trained(tmp_path / "live", None, said=said)
    kept = trained(tmp_path / "kept", tmp_path / "store", said=said, load=lambda position: unwanted())
    assert same_tensors(weights(live), weights(kept))


def test_few_distinct_views_come_in_turn_and_are_all_that_is_kept(tmp_path: Path) -> None:
    views = Views(policy=AUGMENTED.policy, seed=3, distinct=2)
    said = training(epochs=5)
    live = trained(tmp_path / "live", None, views=views, said=said)
    kept = trained(tmp_path / "kept", tmp_path / "store", views=views, said=said)
    assert same_tensors(weights(live), weights(kept))
    assert [name[:11] for name in kept_files(tmp_path / "store")] == ["view-000000", "view-000001"]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_signals, "BLOCK_ROWS", 16)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("free", [False, True])
def test_blocks_are_put_together_to_the_same_rows(tmp_path: Path, free: bool) -> None:
    live = trained(tmp_path / "live", None, count=2)
    kept = trained(tmp_path / "kept", tmp_path / "store", count=2, core_free=lambda: free)
    assert same_tensors(weights(live), weights(kept))
    assert len(kept_files(tmp_path / "store")) == 3 * 2 * 3


@pytest.mark.usefixtures("small_blocks")
def test_only_the_blocks_that_are_looked_at_are_made(tmp_path: Path) -> None:
    ready = frozen(tmp_path)
    view = AUGMENTED.at(0)
    rows = np.array([3, 40, 1])
    with ready:
        ready.logits([0], batch_of(DATA.train, view, rows))
    assert [name[-17:-12] for name in kept_files(tmp_path)] == ["00000", "00002"]


def frozen(place: Path, *, signals: Signals = DEFAULT, epochs: int = 3, **more: Any) -> FrozenTeachers:
    load = more.pop("load", teacher_model)
    return FrozenTeachers(
        teachers(1, place, signals=signals, load=load),
        dataset=DATA,
        views=[AUGMENTED.at(epoch) for epoch in range(epochs)],
        training=training(),
        signals=signals,
        **more,
    )


def test_a_batch_is_paired_by_the_view_it_shows(tmp_path: Path) -> None:
    index = np.array([7, 0, 33, 7])
    with frozen(tmp_path) as ready, frozen(tmp_path / "none", signals=Signals(max_gb=0)) as live:
        for view in (
            AUGMENTED.at(1),
            AUGMENTED.at(0),
            AUGMENTED.at(1, copy=1),  # not kept
            AUGMENTED.at(99),  # not among those to come
            Views(policy=AUGMENTED.policy, seed=4).at(1),
            Views(policy=ViewPolicy(flip=True), seed=3).at(1),
            PLAIN,
        ):
            batch = batch_of(DATA.train, view, index)
            assert torch.equal(ready.logits([0], batch), live.logits([0], batch))
    assert len(kept_files(tmp_path)) == 2
    assert not kept_files(tmp_path / "none")


def test_a_second_look_at_a_batch_is_answered_live(tmp_path: Path) -> None:
    class TwoLooks(SoftTargets):
        name = "two looks"

        def needs(self) -> Needs:
            return Needs(logits=True, copies=2, plain=True)

        def loss(self, step: Step) -> dict[str, Tensor]:
            assert step.plain is not None
            output = step.student(step.batches[1])
            targets = [step.teacher_logits([0], batch)[0] for batch in (*step.batches, step.plain)]
            return {"total": sum((output - target).square().mean() for target in targets) / 3}  # type: ignore[dict-item]

    live = trained(tmp_path / "live", None, method=TwoLooks())
    kept = trained(tmp_path / "kept", tmp_path / "store", method=TwoLooks())
    assert same_tensors(weights(live), weights(kept))
    assert len(kept_files(tmp_path / "store")) == 3


def test_work_ahead_changes_no_bit_and_makes_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = counted_writes(monkeypatch)
    alone = weights(trained(tmp_path / "alone", tmp_path / "one", count=2))
    assert set(written.values()) == {1}
    written.clear()
    ahead = weights(trained(tmp_path / "ahead", tmp_path / "two", count=2, core_free=lambda: True))
    assert same_tensors(alone, ahead)
    assert set(written.values()) == {1}
    assert len(written) == 6
    one = {path.name: path.read_bytes() for path in (tmp_path / "one").rglob("view-*")}
    assert one == {path.name: path.read_bytes() for path in (tmp_path / "two").rglob("view-*")}


def counted_writes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    written: Counter[str] = Counter()
    original = SignalFiles.write

    def write(self: SignalFiles, view: int, block: int, tensors: dict[str, Tensor]) -> None:
        written[f"{self.key} {view} {block}"] += 1
        original(self, view, block, tensors)

    monkeypatch.setattr(SignalFiles, "write", write)
    return written


@pytest.mark.usefixtures("small_blocks")
def test_those_who_need_the_same_view_at_once_make_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = counted_writes(monkeypatch)
    answers: dict[int, list[Tensor]] = {}

    def read(who: int) -> None:
        with frozen(tmp_path, load=lambda seed: models[who]) as ready:
            answers[who] = [
                ready.logits([0], batch_of(DATA.train, AUGMENTED.at(epoch), np.arange(41)))
                for epoch in range(3)
            ]

    models = [teacher_model(0) for _ in range(3)]
    threads = [threading.Thread(target=read, args=(who,)) for who in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 9
    assert set(written.values()) == {1}
    for who in (1, 2):
        assert all(torch.equal(one, other) for one, other in zip(answers[0], answers[who], strict=True))


def test_what_is_damaged_is_made_again_and_said(tmp_path: Path) -> None:
    first = weights(trained(tmp_path / "first", tmp_path / "store"))
    cut, changed, _ = sorted((tmp_path / "store").rglob("view-*"))
    before = {path: path.read_bytes() for path in (cut, changed)}
    cut.write_bytes(before[cut][:-5])
    flipped = bytearray(before[changed])
    flipped[-1] ^= 1
    changed.write_bytes(flipped)
    said: list[str] = []
    again = weights(trained(tmp_path / "again", tmp_path / "store", say=said.append))
    assert same_tensors(first, again)
    assert {path: path.read_bytes() for path in (cut, changed)} == before
    damaged = [sentence for sentence in said if "made again" in sentence]
    assert len(damaged) == 2
    assert cut.name in damaged[0]


def test_what_is_removed_before_it_is_read_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = trained(tmp_path / "live", None)
    original, removed = SignalFiles.read, []

    def read(self: SignalFiles, view: int, block: int) -> dict[str, Tensor]:
        if not removed:
            removed.append(self.path(view, block))
            removed[0].unlink()
        return original(self, view, block)

    monkeypatch.setattr(SignalFiles, "read", read)
    kept = trained(tmp_path / "kept", tmp_path / "store")
    assert same_tensors(weights(live), weights(kept))
    assert len(kept_files(tmp_path / "store")) == 3


def test_signals_of_another_version_are_refused(tmp_path: Path) -> None:
    trained(tmp_path / "first", tmp_path / "store")
    (marker,) = (tmp_path / "store").rglob("signals.json")
    marker.write_text(marker.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(BadInput, match="have format 2, this understudy reads format 1"):
        signal_files(tmp_path / "store").check_version()


# --- where they cannot be kept ----------------------------------------------------------------------------------


def test_where_nothing_may_be_kept_teachers_answer_live_and_it_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    live = trained(tmp_path / "live", None)
    kept = trained(tmp_path / "kept", tmp_path / "store", signals=Signals(max_gb=0), say=said.append)
    assert same_tensors(weights(live), weights(kept))
    assert not kept_files(tmp_path / "store")
    assert [sentence for sentence in said if "live" in sentence] == [
        "teachers answer live where their answers cannot be kept: signals.max_gb is 0"
    ]


def test_what_fits_is_kept_and_the_rest_is_live(tmp_path: Path) -> None:
    views = 2 * len(DATA.train) * Signals().row_bytes(classes=4) + 600  # two of three, with their headers
    live = trained(tmp_path / "live", None)
    kept = trained(tmp_path / "kept", tmp_path / "store", signals=Signals(max_gb=views / 1e9))
    assert same_tensors(weights(live), weights(kept))
    assert len(kept_files(tmp_path / "store")) == 2


def test_the_last_hundredth_of_a_disk_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil._ntuple_diskusage(100_000, 99_000, 1_000)  # type: ignore[attr-defined]
    monkeypatch.setattr(kept_signals.shutil, "disk_usage", lambda folder: usage)
    said: list[str] = []
    trained(tmp_path / "kept", tmp_path / "store", say=said.append)
    assert not kept_files(tmp_path / "store")
    assert "no room to spare" in " ".join(said)


def test_each_teacher_for_whom_there_is_room_is_kept(tmp_path: Path) -> None:
    many: dict[str, Any] = {"count": 2, "said": training(epochs=2)}
    whole = trained(tmp_path / "whole", tmp_path / "all", **many)
    (size,) = {path.stat().st_size for path in (tmp_path / "all").rglob("view-*")}  # with its header
    rows = len(DATA.train) * Signals().row_bytes(classes=4)
    for count in range(1, 5):
        place, room = tmp_path / f"room for {count}", (count - 1) * size + rows + 1
        bounded = trained(tmp_path / str(count), place, signals=Signals(max_gb=room / 1e9), **many)
        assert same_tensors(weights(whole), weights(bounded))
        assert len(kept_files(place)) == count


@pytest.mark.parametrize("refused", ["lock", "discard"])
def test_a_store_that_refuses_anything_lets_the_run_go_on_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    live = trained(tmp_path / "live", None)
    if refused == "discard":
        trained(tmp_path / "before", tmp_path / "store")
        for path in (tmp_path / "store").rglob("view-*"):
            path.write_bytes(b"cut")

    def no(self: SignalFiles, *given: int) -> NoReturn:
        raise files.CannotWrite("there may not be written")

    monkeypatch.setattr(SignalFiles, refused, no)
    said: list[str] = []
    kept = trained(tmp_path / "kept", tmp_path / "store", say=said.append)
    assert same_tensors(weights(live), weights(kept))
    assert [sentence for sentence in said if "there may not be written" in sentence] == [
        "teachers answer live from here on, because their answers cannot be kept: there may not be written"
    ]


def test_kept_files_that_cannot_be_opened_are_said_and_answered_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = trained(tmp_path / "live", None)
    trained(tmp_path / "before", tmp_path / "store")
    there = kept_files(tmp_path / "store")

    def no(self: SignalFiles, view: int, block: int) -> NoReturn:
        raise kept_signals.Unreadable(f"view {view} is there and cannot be opened")

    monkeypatch.setattr(SignalFiles, "read", no)
    said: list[str] = []
    kept = trained(tmp_path / "kept", tmp_path / "store", say=said.append)
    assert same_tensors(weights(live), weights(kept))
    assert len([sentence for sentence in said if "answers cannot be read" in sentence]) == 3
    assert kept_files(tmp_path / "store") == there


def test_a_teacher_that_was_trained_anew_to_other_weights_speaks_anew(tmp_path: Path) -> None:
    def of(weights: str, *, load: Callable[[int], nn.Module]) -> Trained:
        torch.manual_seed(1)
        kept = replace(signal_files(tmp_path / "store"), weights=weights)
        return fit(
            network().build(DATA),
            SoftTargets().for_stage(teachers=1),
            task=Classification(),
            dataset=DATA,
            views=AUGMENTED,
            preprocessing=PREPARED[0],
            teachers=[Teacher(load=partial(load, 0), preprocessing=PREPARED[0], kept=kept)],
            training=training(epochs=3),
            seed=0,
            folder=tmp_path / f"{weights} {len(list(tmp_path.iterdir()))}",
            say=said.append,
        )

    said: list[str] = []
    before = weights(of("before", load=teacher_model))
    assert said == [said[0]]  # that answers are kept
    after = weights(of("after", load=lambda seed: teacher_model(7)))
    assert len([sentence for sentence in said if "other weights" in sentence]) == 3
    assert not same_tensors(before, after)
    live = trained(tmp_path / "live", None, load=lambda seed: teacher_model(7))
    assert same_tensors(after, weights(live))


@pytest.mark.parametrize("free", [False, True])
def test_a_disk_that_fills_up_in_a_bulk_pass_lets_the_run_go_on_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: bool
) -> None:
    live = trained(tmp_path / "live", None)
    original = files.write_bytes

    def full(path: Path, content: bytes) -> None:
        if path.name.startswith("view-000001"):
            with files.explained(path):
                raise OSError(errno.ENOSPC, "No space left on device")
        original(path, content)

    monkeypatch.setattr(files, "write_bytes", full)
    said: list[str] = []
    kept = trained(tmp_path / "kept", tmp_path / "store", say=said.append, core_free=lambda: free)
    assert same_tensors(weights(live), weights(kept))
    assert [name[:11] for name in kept_files(tmp_path / "store")] == ["view-000000"]
    assert len([sentence for sentence in said if "disk is full" in sentence]) == 1


# --- stopping ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("after", [1, 2, 3, 4, 7])
def test_a_bulk_pass_that_is_stopped_goes_on_where_it_was(tmp_path: Path, after: int) -> None:
    whole = weights(trained(tmp_path / "whole", tmp_path / "one"))
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > after

    with pytest.raises(Interrupted):
        trained(tmp_path / "stopped", tmp_path / "two", stop=stop)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").rglob("view-*")}
    again = weights(trained(tmp_path / "stopped", tmp_path / "two"))
    assert same_tensors(whole, again)
    assert len(before) == min(after, 3) if after < 4 else len(before) >= 3


def test_a_stage_that_ends_takes_its_second_thread_with_it(tmp_path: Path) -> None:
    trained(tmp_path / "kept", tmp_path / "store", core_free=lambda: True)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_transforms_are_not_drawn_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # they draw from torch's global generator, which the student's dropout uses at the same time
    made, policy = teachers(1, tmp_path, signals=Signals()), ViewPolicy(flip=True)
    object.__setattr__(
        policy, "transforms", (Transform({"name": "RandomInvert"}),)
    )  # torchvision need not be there
    views = [Views(policy=policy).at(epoch) for epoch in range(2)]
    monkeypatch.setattr("understudy.data.views._transformed", lambda transforms, key, index, images: images)
    asked: list[int] = []
    original = Speaking._make

    def make(self: Speaking, view: Any, blocks: Any, *, wait: bool = True) -> None:
        asked.append(threading.get_ident())
        original(self, view, blocks, wait=wait)

    monkeypatch.setattr(Speaking, "_make", make)
    with FrozenTeachers(
        made,
        dataset=DATA,
        views=views,
        training=training(),
        signals=Signals(),
        core_free=lambda: True,
    ) as ready:
        for view in views:
            ready.logits([0], batch_of(DATA.train, view, np.arange(4)))
    assert set(asked) == {threading.get_ident()}


class Streamed:
    """Images that have to be fetched by loader processes."""

    in_memory = False

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def fetch(self, index: np.ndarray) -> np.ndarray:
        return self.pixels[index].copy()


def test_what_is_kept_does_not_depend_on_who_fetches_the_images(tmp_path: Path) -> None:
    pixels = DATA.train.images.fetch(np.arange(len(DATA.train)))
    streamed = replace(DATA, train=replace(DATA.train, images=Streamed(pixels)))
    for workers in (0, 1):
        with FrozenTeachers(
            teachers(1, tmp_path / str(workers), signals=DEFAULT),
            dataset=streamed if workers else DATA,
            views=[AUGMENTED.at(0)],
            training=training(workers=workers),
            signals=DEFAULT,
        ) as ready:
            ready.logits([0], batch_of(DATA.train, AUGMENTED.at(0), np.arange(4)))
    one, other = ((next((tmp_path / str(n)).rglob("view-*"))).read_bytes() for n in (0, 1))
    assert one == other
