"""What is set stays set until a process ends, so it is set for real only in a process of its own."""

from __future__ import annotations

import ctypes
import json
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from understudy.training.memory import keep_pages

HEADER = Path("/usr/include/malloc.h")
needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc of another C library")

IN_A_PROCESS = """
import json, os, resource, statistics, threading
import torch
from understudy.training.memory import keep_pages

torch.set_num_threads(1)


def faults(rounds):
    # in the median round, for one activation above the 32 MiB up to which malloc keeps some blocks by itself;
    # the first rounds differ, until the blocks lie where there is room for the next ones
    counts = []
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(36 * 2**18)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return statistics.median(counts)


def in_threads(work, count):
    done = []
    threads = [threading.Thread(target=lambda: done.append(work())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


said = {"before": faults(5)}
said["answers"] = [keep_pages(), keep_pages()]
said["after"] = faults(31)
child = os.fork()
if child == 0:
    os._exit(0 if faults(31) < said["before"] / 10 else 1)
said["in a fork"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
# 200 MB is more than a heap of a thread's arena can hold
said["in a thread"] = in_threads(lambda: torch.ones(50_000_000, dtype=torch.float32)[::1000].sum().item(), 1)
said["in threads"] = in_threads(lambda: [torch.ones(n * 2**18)[-1].item() for n in (1, 63, 64)], 2)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", IN_A_PROCESS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


class Refusing:
    """A ``mallopt`` that says no to one option, and a list of what it was asked."""

    def __init__(self, refused: int | None = None) -> None:
        self.refused, self.asked = refused, list[tuple[int, int]]()

    def __call__(self, option: int, value: int) -> int:
        self.asked.append((option, value))
        return 0 if option == self.refused else 1


class Library:
    """A C library with these functions."""

    def __init__(self, **functions: Any) -> None:
        self.__dict__.update(functions)


def loaded(monkeypatch: pytest.MonkeyPatch, library: Library) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)


@needs_glibc
def test_it_is_set_where_there_is_glibc_and_a_second_call_says_so_too(seen: dict[str, Any]) -> None:
    assert seen["answers"] == [True, True]


@needs_glibc
def test_large_activations_are_faulted_in_once_and_not_in_every_step(seen: dict[str, Any]) -> None:
    assert seen["before"] > 10  # with huge pages there are fewer faults, but there are some
    assert seen["after"] < seen["before"] / 10


@needs_glibc
def test_a_thread_can_still_allocate_more_than_a_heap_of_its_arena_holds(seen: dict[str, Any]) -> None:
    assert seen["in a thread"] == [50_000]
    assert seen["in threads"] == [[1.0] * 3] * 2


@needs_glibc
def test_a_fork_keeps_pages_too(seen: dict[str, Any]) -> None:
    assert seen["in a fork"] == 0


@pytest.mark.skipif(not HEADER.exists(), reason="no header files of the C library here")
@needs_glibc
def test_the_numbers_of_the_options_are_those_of_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {
        name: int(number)
        for name, number in re.findall(r"#define\s+(M_\w+)\s+(-\d+)", HEADER.read_text(encoding="utf-8"))
    }
    mallopt = Refusing()
    loaded(monkeypatch, Library(mallopt=mallopt, gnu_get_libc_version=None))
    assert keep_pages()
    asked = dict(mallopt.asked)
    assert asked == {
        numbers["M_TOP_PAD"]: 64 * 2**20,
        numbers["M_TRIM_THRESHOLD"]: -1,
        numbers["M_MMAP_MAX"]: 0,
    }


def test_nothing_is_done_with_another_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    mallopt = Refusing()
    loaded(monkeypatch, Library(mallopt=mallopt))  # as on Android, where options have other numbers
    assert not keep_pages()
    assert mallopt.asked == []


def test_nothing_is_done_without_mallopt(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded(monkeypatch, Library(gnu_get_libc_version=None))
    assert not keep_pages()


@pytest.mark.parametrize("error", [TypeError, OSError])
def test_nothing_is_done_where_the_c_library_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refuse(name: object) -> None:
        raise error("bad argument type for built-in operation")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert not keep_pages()


def test_nothing_is_done_in_a_python_without_ctypes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert not keep_pages()


@pytest.mark.parametrize("refused", [-1, -2, -4])
def test_a_refusal_is_told(monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
    mallopt = Refusing(refused)
    loaded(monkeypatch, Library(mallopt=mallopt, gnu_get_libc_version=None))
    assert not keep_pages()
    assert mallopt.asked[-1][0] == refused  # nothing is asked after it


def test_importing_it_sets_nothing() -> None:
    program = (
        "import ctypes\n"
        "asked = []\n"
        "ctypes.CDLL = lambda *a, **k: asked.append(a)\n"
        "import understudy.training.memory\n"
        "assert not asked"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
