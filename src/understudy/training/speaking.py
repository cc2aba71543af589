"""Bulk passes: what teachers say of a whole view is computed once and kept; the loop then only reads rows."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from understudy.data.batches import Batch, batches
from understudy.data.dataset import Split
from understudy.data.views import View
from understudy.errors import Damaged, Interrupted
from understudy.store.files import CannotWrite
from understudy.store.signals import SignalFiles, Unreadable, free_bytes, size_of_signals
from understudy.training.resident import place_for, placed
from understudy.training.settings import Training
from understudy.training.signals import Signals

BATCH = {"cpu": 128, "cuda": 1024}
"""Images that teachers answer at once in a bulk pass. On CPUs more were no faster and took more memory."""


class Speaking:
    """Kept answers of teachers, made when they are first needed.

    Answers are paired with a batch by the view that the batch says it shows and by the samples in it, so that a row
    cannot meet other pixels than those it was computed from. A view is made by whichever process and thread comes
    first; others wait for it, or make the next one meanwhile. While the student learns, the next view is made in a
    thread of its own where a core is free.

    Args:
        files: of the teachers whose answers can be kept, by position.
        answer: computes live logits of teachers on a batch.
        load: makes teachers ready to answer, so that a second thread can ask them.
        split: the training images.
        views: the view of each epoch to come, in order.
        training: device, threads and loader processes.
        signals: what of an answer is kept.
        core_free: whether work may be done ahead.
        stop: True ends a bulk pass.
        say: told what a person should know.
    """

    def __init__(
        self,
        files: Mapping[int, SignalFiles],
        *,
        answer: Callable[[Sequence[int], Batch], list[Tensor]],
        load: Callable[[Iterable[int]], None],
        split: Split,
        views: Sequence[View],
        training: Training,
        signals: Signals,
        core_free: Callable[[], bool],
        stop: Callable[[], bool],
        say: Callable[[str], None],
    ) -> None:
        self.files = dict(files)
        self.answer, self.load, self.split = answer, load, split
        self.training, self.signals = training, signals
        self.core_free, self.stop, self.say = core_free, stop, say
        self.views = dict.fromkeys(views)
        self.following = {one: other for one, other in pairwise(views) if one != other}
        self.view: View | None = None
        self.place = "cpu"  # where its answers lie
        self.opened: dict[tuple[int, int], dict[str, Tensor]] = {}  # by position and block, of this view
        self.used: set[int] = set()  # blocks of this view
        self.unfit: set[tuple[int, View, int]] = set()  # blocks of a teacher for which there is no room
        self.given_up = False  # the disk is full: nothing more is written
        self.said: set[str] = set()
        self.thread = ThreadPoolExecutor(
            1, thread_name_prefix="ahead", initializer=torch.set_num_threads, initargs=(training.threads,)
        )
        self.ahead: Future[None] | None = None
        self.sent: set[int] = set()  # blocks of the next view that are being made ahead
        self.closing = False

    def close(self) -> None:
        """Ends what is done ahead."""
        self.closing = True
        self.thread.shutdown(wait=True, cancel_futures=True)

    # --- reading ------------------------------------------------------------------------------------------------

    def rows(self, which: Sequence[int], batch: Batch) -> dict[int, dict[str, Tensor]]:
        """What is kept of the teachers' answers to ``batch``, by position; what cannot be kept is left out.

        Raises:
            Interrupted: ``stop`` said so in the middle of a bulk pass; finished blocks of it are kept.
        """
        asked = [position for position in which if position in self.files]
        if not asked or batch.view is None:
            return {}
        if batch.view is not self.view and batch.view != self.view:
            if batch.view not in self.views:
                return {}
            self.view, self.opened, self.used, self.sent = batch.view, {}, set(), set()
            size = sum(files.view_bytes for files in self.files.values())
            self.place = place_for(size, self.training.device)
        index = batch.on_host().index
        blocks = self._blocks(asked[0], index)
        if not self.used.issuperset(blocks):
            self._provide(self.view, blocks)
            self.used.update(blocks)
        self._look_ahead(self.view)
        found = {}
        for position in asked:
            if all((position, block) in self.opened for block in blocks):
                found[position] = self._picked(position, batch, blocks)
        return found

    def _blocks(self, position: int, index: NDArray[np.int64]) -> list[int]:
        files = self.files[position]
        if files.blocks == 1:
            return [0]
        blocks: list[int] = np.unique(index // files.block_rows).tolist()
        return blocks

    def _picked(self, position: int, batch: Batch, blocks: Sequence[int]) -> dict[str, Tensor]:
        parts = self.opened[position, blocks[0]]
        if self.files[position].blocks == 1:
            return {name: rows_of(value, batch) for name, value in parts.items()}
        index, device = batch.on_host().index, self.training.device
        picked = {
            name: torch.empty((len(index), *value.shape[1:]), dtype=value.dtype, device=device)
            for name, value in parts.items()
        }
        for block in blocks:
            rows = self.files[position].rows(block)
            here = np.flatnonzero((index >= rows.start) & (index < rows.stop))
            for name, value in self.opened[position, block].items():
                found = value[_there(index[here] - rows.start, value.device)]
                picked[name][_there(here, device)] = found.to(device, non_blocking=True)
        return picked

    def _provide(self, view: View, blocks: Collection[int]) -> None:
        """Opens ``blocks`` of ``view`` of every teacher; makes what is not there and fits."""
        if self.ahead is not None:
            self.ahead.result()
            self.ahead = None
        for _ in range(2):  # what is damaged, or was removed in between, is made again, once
            self._make(view, blocks)
            again = False
            for position, files in self.files.items():
                for block in blocks:
                    if (position, block) in self.opened:
                        continue
                    try:
                        self.opened[position, block] = placed(files.read(view.number, block), self.place)
                    except FileNotFoundError:
                        again |= (
                            not self.given_up and (position, view, block) not in self.unfit
                        )  # else no room
                    except Unreadable as error:
                        self.unfit.add((position, view, block))
                        self._say_once(f"teachers answer live where their answers cannot be read: {error}")
                    except Damaged as error:
                        again = True
                        self._discard(files, view, block, error)
            if not again:
                break

    def _discard(self, files: SignalFiles, view: View, block: int, problem: Damaged) -> None:
        """Takes away what is damaged, so that it is made again."""
        try:
            if files.discard(view.number, block):
                self.say(f"{problem}: it is made again")
        except CannotWrite as error:
            self._give_up(error)

    def _give_up(self, error: CannotWrite) -> None:
        self.given_up = True
        self._say_once(f"teachers answer live from here on, because their answers cannot be kept: {error}")

    def _look_ahead(self, view: View) -> None:
        """Has the next view made in the other thread, as far as this one is used."""
        after = self.following.get(view)
        if after is None or self.used <= self.sent:
            return
        if self.ahead is not None:
            if not self.ahead.done():
                return
            self.ahead.result()
        # transforms draw from torch's global generator, which belongs to the student meanwhile
        if after.policy.transforms or not self.core_free():
            return
        blocks = self.used - self.sent
        self.sent |= blocks
        if self._missing(after, blocks):
            self.load(self.files)
            self.ahead = self.thread.submit(self._make, after, blocks, wait=False)

    # --- making -------------------------------------------------------------------------------------------------

    def _missing(self, view: View, blocks: Iterable[int]) -> list[tuple[int, int]]:
        """Positions and blocks that are not there and could be."""
        if self.given_up:
            return []
        return [
            (position, block)
            for block in blocks
            for position, files in self.files.items()
            if (position, view, block) not in self.unfit and not files.there(view.number, block)
        ]

    def _make(self, view: View, blocks: Collection[int], *, wait: bool = True) -> None:
        """Makes what is missing; waits for what another process makes meanwhile, or makes the next view."""
        if self._missing(view, blocks) and wait:
            self.load(self.files)
        while missing := self._missing(view, blocks):
            made = [self._make_block(view, block) for block in sorted({block for _, block in missing})]
            if any(made) or not self._missing(view, blocks):
                continue
            if not wait:
                return
            after = self.following.get(view)
            others = {block for _, block in self._missing(after, blocks)} if after is not None else set()
            if after is None or not any(self._make_block(after, block) for block in sorted(others)[:1]):
                self._check_stop()
                time.sleep(0.02)

    def _make_block(self, view: View, block: int) -> bool:
        """Makes one block for each teacher that misses it and that no other process is at; whether there was one."""
        with contextlib.ExitStack() as locks:
            try:
                mine = []
                for position, files in self.files.items():
                    if files.there(view.number, block) or (position, view, block) in self.unfit:
                        continue
                    # asked again under the lock: another process may have just made it
                    if locks.enter_context(files.lock(view.number)) and not files.there(view.number, block):
                        mine.append(position)
                if not mine:
                    return False
                if fitting := self._fitting(view, block, mine):
                    self._tell()
                    self._speak(fitting, view, block)
            except CannotWrite as error:
                self._give_up(error)
            return True

    def _speak(self, positions: Sequence[int], view: View, block: int) -> None:
        """Asks teachers about one block of a view, and keeps their answers."""
        rows, size = self.files[positions[0]].rows(block), BATCH[self.training.device]
        orders = [
            np.arange(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size)
        ]
        said: dict[int, dict[str, Tensor]] = {position: {} for position in positions}
        for batch in batches(self.split, view, orders, workers=self.training.workers):
            self._check_stop()
            here = torch.from_numpy(batch.on_host().index - rows.start)
            for position, answer in zip(positions, self.answer(positions, batch), strict=True):
                for name, value in self.signals.encode(answer).items():
                    if name not in said[position]:
                        shape = len(rows), *value.shape[1:]
                        said[position][name] = torch.empty(shape, dtype=value.dtype)
                    said[position][name][here] = value.cpu()
        for position in positions:
            self.files[position].write(view.number, block, said.pop(position))

    def _check_stop(self) -> None:
        if self.closing or self.stop():
            raise Interrupted("stopped while teachers spoke")

    def _fitting(self, view: View, block: int, positions: Sequence[int]) -> list[int]:
        """The teachers at ``positions``, one after the other, whose answers find room."""
        store, bound = self.files[positions[0]].store, self.signals.max_gb
        allowed = math.inf if bound is None else bound * 1e9 - size_of_signals(store)
        free = free_bytes(store)
        found: list[int] = []
        for position in positions:
            files = self.files[position]
            size = len(files.rows(block)) * files.row_bytes
            if size <= min(allowed, free):
                allowed, free = allowed - size, free - size
                found.append(position)
                continue
            self.unfit.add((position, view, block))
            no_room = f"the disk of {store.folder} has no room to spare"
            why = f"signals.max_gb is {bound:g}" if size > allowed else no_room
            self._say_once(f"teachers answer live where their answers cannot be kept: {why}")
        return found

    def _tell(self) -> None:
        files = next(iter(self.files.values()))
        size = files.view_bytes * len(self.files)
        who = (
            "the teacher's answers" if len(self.files) == 1 else f"the answers of {len(self.files)} teachers"
        )
        views = len(self.views)
        self._say_once(
            f"{who} to {views} {'view' if views == 1 else 'views'} of {files.samples} images are kept as they are "
            f"needed ({size / 1e6:.1f} MB a view)"
        )

    def _say_once(self, sentence: str) -> None:
        if sentence not in self.said:
            self.said.add(sentence)
            self.say(sentence)


def rows_of(value: Tensor, batch: Batch) -> Tensor:
    """The rows ``(batch, ...)`` of ``value`` ``(samples, ...)``, where that lies; no GPU is asked or waited for."""
    here = batch.index.device == value.device
    return value[batch.index if here else _there(batch.on_host().index, value.device)]


def _there(index: NDArray[np.int64], device: torch.device | str) -> Tensor:
    return torch.from_numpy(index).to(device, non_blocking=True)
