from __future__ import annotations

import errno
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from understudy.store.files import CannotWrite
from understudy.training import checkpoint
from understudy.training.checkpoint import pack, read, unpack, write

# --- taking apart and putting together ---------------------------------------------------------------------------

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
tensors = st.builds(
    lambda shape, dtype, seed: torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).to(
        dtype
    ),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(DTYPES),
    st.integers(0, 99),
)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | tensors
names = st.text("ab/'01", max_size=3) | st.integers(
    0, 3
)  # names that could be taken for each other in a path
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(names, inner, max_size=3)
    ),
    max_leaves=10,
)


def same(one: Any, other: Any) -> bool:
    """Whether two trees are the same, types and order included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)


@settings(deadline=None, max_examples=150)
@given(trees)
def test_what_is_packed_is_unpacked(tree: Any) -> None:
    packed, rest = pack(tree)
    assert same(unpack(packed, rest), tree)


@settings(deadline=None, max_examples=40)
@given(tree=trees)
def test_what_is_written_is_read(tree: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("checkpoint")
    write(folder, {"tree": tree}, step=3)
    assert same(read(folder), {"tree": tree})


def test_names_that_lead_to_one_path_stay_apart() -> None:
    tree = {"a/b": torch.tensor(1), "a": {"b": torch.tensor(2), "b'": torch.tensor(3)}, 0: torch.tensor(4)}
    tree["0"] = torch.tensor(5)
    assert same(unpack(*pack(tree)), tree)


def test_what_is_packed_is_a_copy() -> None:
    weight = torch.zeros(2, 2)
    packed, rest = pack({"weight": weight, "row": weight[0]})
    weight.fill_(1.0)
    assert not unpack(packed, rest)["weight"].any()
    assert packed["/weight"].data_ptr() != packed["/row"].data_ptr()


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": [object()]}, "a checkpoint cannot hold object at /a/0"),
        ({"a": {1, 2}}, "a checkpoint cannot hold set at /a"),
        ({"a": {(1, 2): 3}}, r"names in a checkpoint are strings or whole numbers; got \[\(1, 2\)\]"),
        (b"bytes", "a checkpoint cannot hold bytes at /"),
    ],
)
def test_what_a_checkpoint_cannot_hold_is_refused_by_its_place(tree: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        pack(tree)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_an_optimiser_goes_on_to_the_bit(kind: str, tmp_path: Path) -> None:
    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        layer = nn.Linear(5, 5)
        if kind == "sgd":
            return layer, torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, nesterov=True)
        return layer, torch.optim.AdamW(layer.parameters(), lr=0.1)

    def train(layer: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            inputs = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            layer(inputs).square().sum().backward()
            optimizer.step()

    straight, optimizer = made()
    train(straight, optimizer, range(6))

    broken, optimizer = made()
    train(broken, optimizer, range(3))
    tree = {"model": dict(broken.state_dict()), "optimizer": optimizer.state_dict()}
    write(tmp_path, tree, step=3)

    again, optimizer = made()
    kept = read(tmp_path)
    assert kept is not None
    again.load_state_dict(kept["model"])
    optimizer.load_state_dict(kept["optimizer"])
    train(again, optimizer, range(3, 6))
    for name, parameter in straight.state_dict().items():
        assert torch.equal(again.state_dict()[name], parameter)


# --- files -------------------------------------------------------------------------------------------------------


def tree_at(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.full((50,), float(step))}


def write_both(folder: Path) -> tuple[Path, Path]:
    """Two checkpoints as a process leaves them that was killed after writing the second, before removing the first."""
    first = write(folder, tree_at(1), step=1)
    content = first.read_bytes()
    second = write(folder, tree_at(2), step=2)
    assert not first.exists()
    first.write_bytes(content)
    return first, second


def step_of(folder: Path) -> int | None:
    tree = read(folder)
    if tree is None:
        return None
    assert same(tree, tree_at(tree["step"]))
    return int(tree["step"])


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert read(tmp_path / "nowhere") is None
    assert read(tmp_path) is None


def test_only_the_newest_is_left(tmp_path: Path) -> None:
    for step in (1, 2, 10, 100):
        path = write(tmp_path, tree_at(step), step=step)
        assert list(tmp_path.iterdir()) == [path]
        assert step_of(tmp_path) == step


def test_of_two_that_a_killed_process_left_the_newer_counts(tmp_path: Path) -> None:
    write_both(tmp_path)
    assert step_of(tmp_path) == 2
    newest = write(tmp_path, tree_at(3), step=3)
    assert list(tmp_path.iterdir()) == [newest]


@pytest.mark.parametrize("length", [0, 7, 8, 100, -1])
def test_when_the_newest_was_cut_the_one_before_counts(length: int, tmp_path: Path) -> None:
    _, second = write_both(tmp_path)
    second.write_bytes(second.read_bytes()[:length])
    said: list[Path] = []
    tree = read(tmp_path, damaged=said.append)
    assert same(tree, tree_at(1))
    assert said == [second]


@pytest.mark.parametrize("position", [0, 20, -1])
def test_when_a_bit_of_the_newest_flipped_the_one_before_counts(position: int, tmp_path: Path) -> None:
    _, second = write_both(tmp_path)
    content = bytearray(second.read_bytes())
    content[position] ^= 1
    second.write_bytes(content)
    said: list[Path] = []
    assert same(read(tmp_path, damaged=said.append), tree_at(1))
    assert said == [second]


def test_when_all_are_damaged_the_stage_begins_again_and_it_is_said(tmp_path: Path) -> None:
    both = write_both(tmp_path)
    for path in both:
        path.write_bytes(b"")
    said: list[Path] = []
    assert read(tmp_path, damaged=said.append) is None
    assert said == list(reversed(both))
    write(tmp_path, tree_at(1), step=1)
    assert step_of(tmp_path) == 1


def test_half_written_files_are_not_looked_at(tmp_path: Path) -> None:
    write(tmp_path, tree_at(1), step=1)
    (tmp_path / ".part-1-000000002-0.safetensors").write_bytes(b"half")
    said: list[Path] = []
    assert same(read(tmp_path, damaged=said.append), tree_at(1))
    assert said == []


def test_a_checkpoint_of_another_format_is_not_misread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(checkpoint, "VERSION", checkpoint.VERSION + 1)
        write(tmp_path, tree_at(1), step=1)
    assert read(tmp_path) is None


@pytest.mark.parametrize("call", ["open", "replace"])
def test_a_full_disk_keeps_the_checkpoint_before(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write(tmp_path, tree_at(1), step=1)

    def refused(*args: Any, **keywords: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(Path, call, refused)
        with pytest.raises(CannotWrite, match="the disk is full"):
            write(tmp_path, tree_at(2), step=2)
    assert list(tmp_path.iterdir()) == [before]
    assert step_of(tmp_path) == 1


def test_an_old_checkpoint_that_cannot_be_removed_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, tree_at(1), step=1)

    def refused(*args: Any, **keywords: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as locked:
        locked.setattr(Path, "unlink", refused)
        write(tmp_path, tree_at(2), step=2)
    assert step_of(tmp_path) == 2


WRITER = """
import itertools, sys
from pathlib import Path
import torch
from understudy.training.checkpoint import write

for step in itertools.count(1):
    write(Path(sys.argv[1]), {"step": step, "weights": torch.full((50,), float(step))}, step=step)
    if step >= 5:
        print(step, flush=True)
"""


def test_a_writer_that_is_killed_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    try:
        for _ in range(7):
            said = int(writer.stdout.readline())
    finally:
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
    last = int(rest.split()[-1]) if rest.split() else said
    assert step_of(tmp_path) in (last, last + 1)
