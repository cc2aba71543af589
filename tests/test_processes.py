"""Processes that are started by the server: they begin at once, and end when the one that asked for them does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from understudy import processes

# A loader with a process that makes batches, in the middle of a pass; prints the numbers of all processes that there are.
LOADING = """
import os, sys
import numpy as np
from pathlib import Path
from PIL import Image
from understudy.data import load
from understudy.data.batches import batches, plain_order
from understudy.data.views import PLAIN

if __name__ == "__main__":
    split = load(path=sys.argv[1], validation=0, memory="stream").train
    assert not split.images.in_memory
    stream = batches(split, PLAIN, plain_order(len(split), 2), workers=1)
    next(stream)
    me = os.getpid()
    born = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            born[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            pass
    below = {me}
    while more := {pid for pid, parent in born.items() if parent in below} - below:
        below |= more
    print(*sorted(below - {me}), flush=True)
    sys.stdin.read()
"""


def test_a_process_that_nobody_asked_for_has_no_parent_to_end_with() -> None:
    assert processes.parent_is_alive()
    processes.end_with_parent()


def test_there_is_one_way_to_start_them() -> None:
    assert processes.context() is processes.context()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no server")
def test_where_the_path_of_a_socket_would_be_too_long_each_is_started_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for folder, way in (
        ("/" + "long/" * 20, "spawn"),
        ("/" + "ä" * 50, "spawn"),  # 101 bytes
        ("/tmp", "forkserver"),
    ):
        monkeypatch.setattr(tempfile, "tempdir", folder)
        assert processes._chosen.__wrapped__().get_start_method() == way


# A server that takes its time, and a file in the working folder that is called like a module which it imports.
STARTING = """
import os, signal, sys, time
from understudy import processes

processes.LOADED = ["slow"]

def ask(pipe):
    import statistics
    pipe.send([statistics.__file__, os.environ.get("PYTHONSAFEPATH")])

if __name__ == "__main__":
    context = processes.context()
    from multiprocessing.forkserver import _forkserver as server
    first = server._forkserver_pid
    assert "PYTHONSAFEPATH" not in os.environ
    ours, theirs = context.Pipe()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGINT)
    os.killpg(0, signal.SIGTERM)
    process = context.Process(target=ask, args=(theirs,))
    process.start()
    assert server._forkserver_pid == first, "it was ended, and begun anew"
    print(*ours.recv())
    process.join()
    print(process.exitcode)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no server")
def test_the_server_stands_signals_to_its_group_and_files_that_are_called_like_modules(
    tmp_path: Path,
) -> None:
    library, here = tmp_path / "library", tmp_path / "here"
    for folder in (library, here):
        folder.mkdir()
    (library / "slow.py").write_text("import statistics, time\ntime.sleep(1)\n", "utf-8")
    (library / "program.py").write_text(STARTING, "utf-8")
    (here / "statistics.py").write_text("raise SystemExit('not this one')\n", "utf-8")
    done = subprocess.run(
        [sys.executable, str(library / "program.py")],
        cwd=here,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(library), str(Path(processes.__file__).parents[1])]),
        },
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    file, status = done.stdout.split("\n")[:2]
    assert "here" not in file
    assert status == "0"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_nobody_is_left_when_the_one_that_asked_is_killed(tmp_path: Path) -> None:
    from PIL import Image

    for split in ("train", "test"):
        for label in "ab":
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(6):
                pixels = np.full((8, 8, 3), number, np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / label / f"{number}.png")
    program = tmp_path / "program.py"
    program.write_text(LOADING, "utf-8")
    with subprocess.Popen(
        [sys.executable, str(program), str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        others = [int(pid) for pid in process.stdout.readline().split()]
        assert len(others) >= 2  # the server and the loader, beside Python's own tracker
        process.send_signal(signal.SIGKILL)
        process.wait()
    late = time.monotonic() + 20
    while time.monotonic() < late and (left := [pid for pid in others if _runs(pid)]):
        time.sleep(0.05)
    assert not left


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
