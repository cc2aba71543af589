"""What `understudy doctor` finds on a healthy machine, and that it names each planted fault with its cure."""

from __future__ import annotations

import builtins
import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from understudy.cli import doctor, main
from understudy.cli.doctor import Finding, examine, fits, mismatch


def found(store: Path, what: str) -> list[Finding]:
    return [finding for finding in examine(store) if finding.what == what]


def run(*more: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "understudy", "doctor", *more],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def versions(monkeypatch: pytest.MonkeyPatch, **changed: str | None) -> None:
    """Other versions of packages than are installed; None: it is not."""
    real = metadata.version

    def version(package: str) -> str:
        if package in changed:
            said = changed[package]
            if said is None:
                raise metadata.PackageNotFoundError(package)
            return said
        return real(package)

    monkeypatch.setattr(doctor.metadata, "version", version)


def failing_import(monkeypatch: pytest.MonkeyPatch, package: str, message: str) -> None:
    real = importlib.import_module

    def import_module(name: str, anchor: str | None = None) -> Any:
        if name == package:
            raise RuntimeError(message)
        return real(name, anchor)

    monkeypatch.setattr(doctor.importlib, "import_module", import_module)


def test_a_healthy_machine_is_told_so_with_status_0(tmp_path: Path) -> None:
    done = run(cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("Nothing is broken.")
    for what in ("understudy", "python", "torch", "cpu", "threads", "cuda", "extra vision", "store", "locks"):
        assert any(line.startswith(what) for line in done.stdout.splitlines()), what
    assert list(tmp_path.iterdir()) == []  # it only looks


def test_what_is_broken_sets_status_1_and_has_a_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store").write_text("a file", "utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--store", "store"])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "store: Choose another folder with --store or UNDERSTUDY_STORE" in said
    assert said.rstrip().endswith("1 broken, see above.")


def test_everything_broken_has_a_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, numpy="1.0", safetensors=None, torchvision="0.1.0", timm="1.0.20")
    failing_import(monkeypatch, "timm", "no")
    broken = [finding for finding in examine(tmp_path) if finding.state == "broken"]
    assert {finding.what for finding in broken} >= {"numpy", "safetensors", "torchvision", "timm"}
    assert all(finding.cure for finding in broken)


def test_a_version_outside_the_limits_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(monkeypatch, numpy="1.0")
    (finding,) = [one for one in found(tmp_path, "numpy") if one.state == "broken"]
    assert finding.found == "1.0"
    assert finding.cure.startswith('pip install "numpy')


def test_an_extra_that_is_not_there_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, torchvision=None, timm=None)
    (finding,) = found(tmp_path, "extra vision")
    assert finding.state == ""
    assert 'pip install "understudy[vision]"' in finding.found


def test_builds_for_different_devices_are_named_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minor = torch.__version__.split(".")[1]
    versions(monkeypatch, torchvision=f"0.{int(minor) + 15}.0", timm=None)
    failing_import(monkeypatch, "torchvision", "operator torchvision::nms does not exist")
    (finding,) = found(tmp_path, "torchvision")
    assert finding.state == "broken"
    assert "builds for different devices" in finding.cure
    assert f'"torch==2.{minor}.*" "torchvision==0.{int(minor) + 15}.*"' in finding.cure


@pytest.mark.parametrize(
    ("torch_version", "vision_version", "wrong"),
    [
        ("2.13.0", "0.28.0", False),
        ("2.6.0+cu124", "0.21.0+cu124", False),
        ("2.13.0+cpu", "0.28.0+cpu", False),
        ("2.13.0+cpu", "0.28.0+cu126", True),
        ("2.12.1", "0.28.0", True),
        ("3.0.0", "0.28.0", False),
        ("unknown", "0.28.0", False),
    ],
)
def test_releases_that_belong_together_are_known(
    torch_version: str, vision_version: str, wrong: bool
) -> None:
    assert bool(mismatch(torch_version, vision_version)) == wrong


@pytest.mark.parametrize(
    ("version", "limits", "good"),
    [
        ("2.13.0+cpu", ">=2.6,<2.14", True),
        ("2.14.0", ">=2.6,<2.14", False),
        ("2.14.0.dev1", "<2.14", False),
        ("10.0", ">=9.9", True),
        ("1.0", "", True),
        ("3.1", "!=3.1", False),
        ("2", "==2.0.0", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str, limits: str, good: bool) -> None:
    assert fits(version, limits) is good


def test_a_torch_that_does_not_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *more: Any, **words: Any) -> Any:
        if name == "torch":
            raise OSError("libtorch_cpu.so: cannot open shared object file")
        return real(name, *more, **words)

    monkeypatch.setattr(builtins, "__import__", refuse)
    (finding,) = found(tmp_path, "torch")
    assert finding.state == "broken"
    assert "libtorch_cpu.so" in finding.found


def test_a_cuda_build_without_a_device_is_worth_knowing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (finding,) = found(tmp_path, "cuda")
    assert finding.state == "note"
    assert "nvidia-smi" in finding.cure


def test_a_cpu_build_beside_a_driver_is_worth_knowing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    (finding,) = found(tmp_path, "cuda")
    assert finding.state == "note"
    assert "CUDA build of torch" in finding.cure


def test_a_full_disk_is_worth_knowing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1e6})())
    (finding,) = found(tmp_path / "store", "store")
    assert finding.state == "note"
    assert "(will be made), 0.0 GB free" in finding.found
    assert "understudy store gc" in finding.cure


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    (finding,) = found(tmp_path / "below" / "store", "store")
    assert finding.state == "broken"
    assert f"{tmp_path} may not be written (Permission denied)" in finding.found


def test_locks_that_do_not_lock_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    class Loose(filelock.SoftFileLock):
        def _acquire(self) -> None:
            self._context.lock_file_fd = 0

        def _release(self) -> None:
            self._context.lock_file_fd = None

    monkeypatch.setattr(filelock, "FileLock", Loose)
    (finding,) = found(tmp_path, "locks")
    assert finding.state == "broken"
    assert "only one run at a time" in finding.cure
