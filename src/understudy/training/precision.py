"""Device, number format and threads of a stage; nothing falls back silently."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from understudy.errors import BadInput
from understudy.training.settings import Training


def bf16_pays(device: str) -> bool:
    """Whether ``device`` computes products in bfloat16 faster than in float32.

    One that has no instruction for them emulates them, slowly. Intel's processors with such an instruction but without
    AMX (also where a virtual machine hides it) gain no products a second by it: convolutional networks were seen to
    train 15 % slower there than in float32.
    """
    if not native_bf16(device):
        return False
    if device == "cuda" or "GenuineIntel" not in _cpu("vendor_id"):
        return True
    return "amx_bf16" in _cpu("flags").split()


def native_bf16(device: str) -> bool:
    """Whether ``device`` computes bfloat16 products itself; elsewhere they are emulated and slow."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    for word in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        if getattr(torch.cpu, word, lambda: False)():
            return True
    return platform.machine() == "x86_64" and "avx512_bf16" in _cpu("flags").split()


def _cpu(word: str) -> str:
    """What the system says of the first processor under ``word``; nothing where it does not say."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - a pseudo file
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith(word)), "")
    except OSError:
        return ""


def arithmetic(training: Training) -> dict[str, object]:
    """What decides the bits that a network in evaluation answers, beside itself and its images, in plain JSON.

    On a processor the instructions count that torch and oneDNN choose among: in bfloat16 more than in float32.
    """
    said: dict[str, object] = {
        "precision": training.precision,
        "device": training.device,
        "torch": torch.__version__,
    }
    if training.device == "cpu":
        said |= {"threads": training.threads, "processor": torch.backends.cpu.get_cpu_capability()}
        if training.precision == "bf16":
            said["bf16"] = sorted({"avx512_bf16", "amx_bf16", "amx_tile"} & set(_cpu("flags").split()))
        if chosen := os.environ.get("ONEDNN_MAX_CPU_ISA"):
            said["onednn"] = chosen
    return said


def resolved(training: Training) -> Training:
    """``training`` with ``auto`` replaced by what this machine has.

    Raises:
        BadInput: cuda is asked for where there is none.
    """
    device = training.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInput(
            "training.device is cuda, and this machine shows no CUDA device to torch "
            f"{torch.__version__}. Set device: cpu (or auto), or install a CUDA build of torch."
        )
    precision = training.precision
    if precision == "auto":
        precision = "bf16" if bf16_pays(device) else "fp32"
    return replace(training, device=device, precision=precision)


def autocast(training: Training) -> AbstractContextManager[object]:
    """The context in which networks run; weights, optimiser and losses stay float32."""
    if training.precision == "bf16":
        # Without its cache of rounded weights, which all threads share: a teacher that ends an answer in another thread
        # would empty it in the middle of the student's pass, and a weight that is used twice be rounded twice.
        return torch.autocast(training.device, dtype=torch.bfloat16, cache_enabled=False)
    return contextlib.nullcontext()


@contextlib.contextmanager
def as_in_a_stage(training: Training) -> Iterator[None]:
    """Torch set as for a stage, the same wherever it is made, and random numbers as they were afterwards.

    Convolutions in float32 are that on a GPU, too: not TF32, which torch would take. Without one nothing of CUDA is
    touched, and a card that is there is left alone where a stage is made on the processor.
    """
    drawn = [torch.cuda.current_device()] if training.device == "cuda" else []
    cudnn = torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False, allow_tf32=False)
    with torch.random.fork_rng(devices=drawn), threads(training.threads), cudnn:
        yield


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch computes with ``count`` threads inside, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def environment(device: str = "cpu") -> dict[str, object]:
    """What a figure must have beside it: versions, processor, cores."""
    from understudy import __version__

    said: dict[str, object] = {
        "understudy": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _cpu("model name") or platform.processor() or "unknown",
        "cores": os.cpu_count(),
        "device": device,
    }
    if device == "cuda":
        said["gpu"] = torch.cuda.get_device_name()
    return said
