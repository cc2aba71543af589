from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from tests.deploy.made import small, write_student
from tests.deploy.test_student import NETWORK, plain
from understudy.deploy.latency import Latency, check, latency, size_of
from understudy.deploy.onnx_export import write_onnx
from understudy.deploy.stopwatch import one_image
from understudy.deploy.torch_export import write_torch
from understudy.errors import BadInput, MissingExtra, StageFailed

FOUND = Latency(
    file="a.onnx",
    bytes=1,
    runtime="onnxruntime",
    runtime_version="1.0",
    input=(1, 3, 8, 8),
    threads=1,
    warm_up=10,
    seconds=(1.0,),
    memory_before=1,
    memory_peak=2,
    hardware={},
)


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("files") / "a.onnx"
    write_onnx(small(), path, channels=3, size=(8, 8))
    return path


def test_median_and_p95_are_those_of_the_runs() -> None:
    found = replace(FOUND, seconds=tuple(float(i) for i in range(100, 0, -1)))
    assert (found.median, found.p95) == (50.5, 95.0)
    assert (FOUND.median, FOUND.p95) == (1.0, 1.0)
    assert replace(FOUND, seconds=(3.0, 1.0)).p95 == 3.0


def test_an_onnx_file_is_measured_without_torch(onnx: Path) -> None:
    """Its import alone takes more memory than is seen here."""
    found = latency(onnx, threads=1, repeat=30)
    assert (found.runtime, found.input, found.warm_up) == ("onnxruntime", (1, 3, 8, 8), 10)
    assert len(found.seconds) == 30
    assert 0 < found.median <= found.p95 <= max(found.seconds)
    assert found.bytes == onnx.stat().st_size
    assert found.memory_before is not None
    assert found.memory_peak is not None
    assert 10e6 < found.memory_before <= found.memory_peak < 150e6
    said = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert said["versions"].keys() == {"understudy", "python", "onnxruntime"}
    assert said["hardware"]["cores"] >= 1


def test_the_measuring_process_never_loads_torch_for_an_onnx_file(onnx: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from understudy.deploy.stopwatch import measured; "
        "measured(Path(sys.argv[1]), threads=1, repeat=1, warm_up=0, image=None); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(onnx)], check=False).returncode == 0


def test_a_run_is_measured_by_torch(tmp_path: Path) -> None:
    run = write_student(tmp_path / "run", plain(), network=NETWORK)
    found = latency(run, repeat=5)
    assert (found.runtime, found.input, len(found.seconds)) == ("torch", (1, 3, 8, 8), 5)
    assert found.bytes == (run / "student.safetensors").stat().st_size


def test_what_cannot_be_measured_is_one_line(onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(onnx.read_bytes()[:300])
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name, reason in (
        ("cut.onnx", r"onnxruntime cannot run .*cut\.onnx"),
        ("empty.onnx", "is empty: write it again"),
    ):
        with pytest.raises(BadInput, match=reason) as raised:
            latency(tmp_path / name)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("nothere.onnx", {}, "there is no .*nothere"),
        ("a.txt", {}, r"possible: \.onnx \(onnxruntime\), \.pt2 \(torch\), a run's folder \(torch\)\.$"),
        ("a.pte", {}, "executor_runner measures it"),
        ("a.txt", {"threads": 0}, "--threads is a whole number from 1"),
        ("a.txt", {"repeat": 0}, "--repeat is a whole number from 1"),
    ],
)
def test_what_cannot_be_meant_needs_no_process(
    tmp_path: Path, name: str, arguments: dict[str, Any], reason: str
) -> None:
    for here in ("a.txt", "a.pte"):
        (tmp_path / here).write_bytes(b"x")
    with pytest.raises(BadInput, match=reason):
        check(tmp_path / name, **{"threads": 1, "repeat": 1, **arguments})


def test_one_image_comes_from_the_file_or_from_whoever_asks() -> None:
    assert one_image([None, 3, 8, 9], None, source="a") == [1, 3, 8, 9]
    assert one_image([1, 3, 8, 9], [3, 8, 9], source="a") == [1, 3, 8, 9]
    assert one_image([None, 3, None, None], [3, 20, 30], source="a") == [1, 3, 20, 30]
    with pytest.raises(BadInput, match=r"a takes \(any, 3, any, any\) and does not say .* add --input"):
        one_image([None, 3, None, None], None, source="a")
    with pytest.raises(BadInput, match=r"a takes \(any, 3, 8, 8\); --input 1x8x8 does not fit"):
        one_image([None, 3, 8, 8], [1, 8, 8], source="a")
    with pytest.raises(BadInput, match=r"takes \(4, 3, 8, 8\): batches of one image cannot be measured"):
        one_image([4, 3, 8, 8], None, source="a")


def test_numbers_in_files_beside_it_count_as_its_size(onnx: Path, tmp_path: Path) -> None:
    import onnx as package

    described = package.load(onnx)
    package.save(
        described,
        tmp_path / "a.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    outside = (tmp_path / "weights.bin").stat().st_size
    assert outside > 0
    assert size_of(tmp_path / "a.onnx") == (tmp_path / "a.onnx").stat().st_size + outside


def answering(monkeypatch: pytest.MonkeyPatch, *, stdout: str, status: int = 0, stderr: str = "") -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, status, stdout, stderr)

    monkeypatch.setattr(subprocess, "run", run)


def test_a_process_that_dies_is_told_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.onnx").write_bytes(b"x")
    answering(monkeypatch, stdout="", status=-11, stderr="first\nSegmentation fault\n")
    with pytest.raises(StageFailed, match=r"a\.onnx ended with status -11: Segmentation fault"):
        latency(tmp_path / "a.onnx")


def test_without_onnxruntime_one_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from understudy.deploy.stopwatch import measured

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r'"understudy\[export\]"$') as raised:
        measured(tmp_path / "a.onnx", threads=1, repeat=1, warm_up=0, image=None)
    (tmp_path / "a.onnx").write_bytes(b"x")
    answering(monkeypatch, stdout=json.dumps({"error": str(raised.value), "status": 2}))
    with pytest.raises(BadInput, match=r'"understudy\[export\]"$'):
        latency(tmp_path / "a.onnx")


def test_a_network_of_another_kind_than_images_to_logits_is_refused(tmp_path: Path) -> None:
    from understudy.deploy.stopwatch import measured

    write_torch(nn.Flatten(), tmp_path / "a.pt2", channels=1, size=(2, 2))
    assert measured(tmp_path / "a.pt2", threads=1, repeat=1, warm_up=0, image=None)["input"] == [1, 1, 2, 2]
    with pytest.raises(BadInput, match=r"--input 1x3x3 does not fit"):
        measured(tmp_path / "a.pt2", threads=1, repeat=1, warm_up=0, image=[1, 3, 3])
