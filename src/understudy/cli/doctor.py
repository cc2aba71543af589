"""The command that looks at this machine and this installation: doctor."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from understudy import __version__
from understudy.cli.options import StoreFolder, console, say, store_of

State = Literal["", "note", "broken"]

# What extras are for; those for people who work on understudy itself are not looked at.
PURPOSES = {
    "vision": "networks by the names of torchvision and timm",
    "hub": "data sets of the Hugging Face hub",
    "track": "TensorBoard",
    "export": "ONNX files",
    "compress": "structures under a budget",
    "executorch": "ExecuTorch files",
}
FOR_DEVELOPERS = ("docs", "dev")
VISION_MINOR = 15  # torch 2.n goes with torchvision 0.(n + 15)
LITTLE_SPACE = 2e9  # bytes


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of what was found.

    Attributes:
        what: is looked at. found: in words. state: ``broken`` where something cannot work, ``note`` where it is worth
            knowing. cure: what to do about it, a sentence.
    """

    what: str
    found: str
    state: State = ""
    cure: str = ""


def doctor(
    out: Annotated[Path, typer.Option(help="As for run: the store is looked for beside it.")] = Path(
        "runs/demo"
    ),
    store: StoreFolder = None,
) -> None:
    """Versions, devices, threads, extras and the store; what does not fit together, and the cure."""
    findings = list(examine(store_of(out, store)))
    console().print(_table(findings))
    for finding in findings:
        if finding.cure:
            say(f"{finding.what}: {finding.cure}")
    broken = sum(finding.state == "broken" for finding in findings)
    say(f"{broken} broken, see above." if broken else "Nothing is broken.")
    if broken:
        raise typer.Exit(1)


def _table(findings: list[Finding]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for header in ("what", "found", ""):
        table.add_column(Text(header), overflow="fold")
    for finding in findings:
        style = {"broken": "bold red", "note": "yellow", "": ""}[finding.state]
        table.add_row(Text(finding.what), Text(finding.found), Text(finding.state or "ok", style=style))
    return table


def examine(store: Path) -> Iterator[Finding]:
    """Everything that is looked at, in order; nothing of it raises."""
    yield Finding(what="understudy", found=__version__)
    yield _python()
    yield from _core()
    yield from _devices()
    yield from _extras()
    yield from _store(store)


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if platform.system() != "Linux":
        return Finding(
            what="python",
            found=found,
            state="note",
            cure="understudy is tested on Linux; nobody has looked here.",
        )
    return Finding(what="python", found=found)


def _core() -> Iterator[Finding]:
    """The packages that are always needed, against the versions that are asked for."""
    found: list[str] = []
    for requirement in metadata.requires("understudy") or []:
        if ";" in requirement:  # of an extra
            continue
        name = re.match(r"[A-Za-z0-9_.-]+", requirement)
        assert name is not None
        version = _version(name[0])
        limits = requirement[name.end() :]
        if version is None or not fits(version, limits):
            yield Finding(
                what=name[0],
                found=version or "not installed",
                state="broken",
                cure=f'pip install "{requirement}"',
            )
        else:
            found.append(f"{name[0]} {version}")
    yield Finding(what="packages", found=", ".join(found))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def fits(version: str, limits: str) -> bool:
    """Whether a version is within limits such as ``>=2.6,<2.14``; suffixes such as ``+cpu`` do not count.

    >>> fits("2.13.0+cpu", ">=2.6,<2.14"), fits("2.14.1", ">=2.6,<2.14"), fits("2.5", ">=2.6")
    (True, False, False)
    """
    compare: dict[str, Callable[[Any, Any], bool]] = {
        ">=": lambda a, b: a >= b,
        "<=": lambda a, b: a <= b,
        "==": lambda a, b: a == b,
        "!=": lambda a, b: a != b,
        ">": lambda a, b: a > b,
        "<": lambda a, b: a < b,
    }
    own = numbers_of(version)
    for sign, limit in re.findall(r"(>=|<=|==|!=|>|<)\s*([0-9.]+)", limits):
        other = numbers_of(limit)
        length = max(len(own), len(other))
        padded = [(*part, *[0] * (length - len(part))) for part in (own, other)]
        if not compare[sign](padded[0], padded[1]):
            return False
    return True


def numbers_of(version: str) -> tuple[int, ...]:
    """The leading numbers of a version.

    >>> numbers_of("2.13.0+cpu")
    (2, 13, 0)
    """
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:  # a broken installation raises whatever its loader raises
        yield Finding(
            what="torch",
            found=_one_line(error),
            state="broken",
            cure="torch does not import. Install it anew with the command of pytorch.org/get-started/locally.",
        )
        return
    try:
        import numpy

        torch.from_numpy(numpy.zeros(1))
    except Exception as error:
        yield Finding(
            what="numpy",
            found=_one_line(error),
            state="broken",
            cure="torch and numpy do not work together. Install a newer torch, or a numpy of the release before.",
        )
    from understudy.training.precision import bf16_pays, environment, native_bf16

    build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for the CPU"
    yield Finding(what="torch", found=f"{torch.__version__}, {build}")
    said = environment()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding(
        what="cpu",
        found=f"{said['processor']}, {cores} of {said['cores']} cores, bf16 {_bf16(native_bf16('cpu'), bf16_pays('cpu'))}",
    )
    threads = os.environ.get("OMP_NUM_THREADS")
    yield Finding(
        what="threads",
        found=f"{torch.get_num_threads()} of torch here; a stage takes training.threads (1 unless said)"
        + (f"; OMP_NUM_THREADS={threads}" if threads else ""),
    )
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(number).total_memory
            bf16 = _bf16(native_bf16("cuda"), bf16_pays("cuda"))
            yield Finding(
                what="cuda" if not number else f"cuda:{number}",
                found=f"{torch.cuda.get_device_name(number)}, {memory / 2**30:.0f} GiB, bf16 {bf16}",
            )
    elif torch.version.cuda:
        yield Finding(
            what="cuda",
            found="torch is built for it and sees no device",
            state="note",
            cure="Training runs on the CPU. If there is a GPU, nvidia-smi says whether its driver runs and is new "
            f"enough for CUDA {torch.version.cuda}.",
        )
    elif shutil.which("nvidia-smi"):
        yield Finding(
            what="cuda",
            found="this torch is built for the CPU, and nvidia-smi is here",
            state="note",
            cure="Training runs on the CPU. For the GPU install a CUDA build of torch: pytorch.org/get-started/locally.",
        )
    else:
        yield Finding(what="cuda", found="no device; training runs on the CPU")


def _bf16(native: bool, pays: bool) -> str:
    if pays:
        return "native"
    return f"{'native but slower' if native else 'emulated'}, so auto means fp32"


def _extras() -> Iterator[Finding]:
    wanted: dict[str, list[str]] = {}
    for requirement in metadata.requires("understudy") or []:
        asked, _, condition = requirement.partition(";")
        marker = re.search(r"""extra == ['"](\w+)['"]""", condition)
        if marker and marker[1] not in FOR_DEVELOPERS:
            wanted.setdefault(marker[1], []).append(asked.strip())
    for extra, requirements in wanted.items():
        names = [re.split(r"[<>=!~ \[]", requirement)[0] for requirement in requirements]
        versions = {name: _version(name) for name in names}
        absent = [name for name, version in versions.items() if version is None]
        here = [f"{name} {version}" for name, version in versions.items() if version is not None]
        if absent:
            purpose = f" for {PURPOSES[extra]}" if extra in PURPOSES else ""
            here.append(f'{" and ".join(absent)} not installed: pip install "understudy[{extra}]"{purpose}')
        yield Finding(what=f"extra {extra}", found="; ".join(here))
        for name, requirement in zip(names, requirements, strict=True):
            version = versions[name]
            if version is None:
                continue
            if not fits(version, requirement[len(name) :]):
                yield Finding(
                    what=name,
                    found=f"{version}, and {requirement} is wanted",
                    state="broken",
                    cure=f'pip install "{requirement}"',
                )
            yield from _imports(name)


def _imports(package: str) -> Iterator[Finding]:
    """What keeps an installed package from being used, with the cure."""
    version = _version(package) or ""
    torch_version = _version("torch") or ""
    if package == "torchvision" and (wrong := mismatch(torch_version, version)):
        yield Finding(what="torchvision", found=wrong, state="broken", cure=_both(torch_version))
        return
    try:
        importlib.import_module(package.replace("-", "_"))
    except Exception as error:  # whatever its loader raises
        found = _one_line(error)
        cure = f"{package} {version} is installed and does not import. Install it anew."
        if package in ("torchvision", "timm") and "torchvision::nms" in found:
            cure = (
                "torch and torchvision are builds for different devices (one for the CPU, one for CUDA). "
                + _both(torch_version)
            )
        yield Finding(what=package, found=found, state="broken", cure=cure)


def mismatch(torch_version: str, vision_version: str) -> str:
    """How two versions do not go together, in words; empty where they do.

    >>> mismatch("2.13.0+cpu", "0.28.0+cpu")
    ''
    >>> mismatch("2.13.0", "0.26.0")
    'torchvision 0.26.0 is for torch 2.11, and torch is 2.13.0'
    """
    torch_numbers, vision_numbers = numbers_of(torch_version), numbers_of(vision_version)
    if len(torch_numbers) < 2 or len(vision_numbers) < 2:
        return ""
    if (
        torch_numbers[0] == 2
        and vision_numbers[0] == 0
        and vision_numbers[1] != torch_numbers[1] + VISION_MINOR
    ):
        wanted = f"2.{vision_numbers[1] - VISION_MINOR}"
        return f"torchvision {vision_version} is for torch {wanted}, and torch is {torch_version}"
    builds = [version.partition("+")[2] for version in (torch_version, vision_version)]
    if all(builds) and builds[0] != builds[1]:
        return f"torch is built for {builds[0]}, torchvision for {builds[1]}"
    return ""


def _both(torch_version: str) -> str:
    release = numbers_of(torch_version)[:2]
    pair = (
        f'"torch=={release[0]}.{release[1]}.*" "torchvision==0.{release[1] + VISION_MINOR}.*"'
        if len(release) == 2
        else "torch torchvision"
    )
    return (
        f"Install both for one device, in one command: pip install {pair}, with the --index-url that "
        f"pytorch.org/get-started/locally names for the device."
    )


def _store(store: Path) -> Iterator[Finding]:
    there = next(place for place in (store, *store.absolute().parents) if place.exists())
    probe = there / f".part-{uuid.uuid4().hex}-doctor"
    found = f"{store}{'' if store.exists() else ' (will be made)'}"
    try:
        if not there.is_dir():
            raise NotADirectoryError(0, "it is a file", str(there))
        probe.write_bytes(b"x")
    except OSError as error:
        yield Finding(
            what="store",
            found=f"{found}: {there} may not be written ({error.strerror})",
            state="broken",
            cure="Choose another folder with --store or UNDERSTUDY_STORE, or mend its permissions.",
        )
        return
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    free = shutil.disk_usage(there).free
    little = free < LITTLE_SPACE
    yield Finding(
        what="store",
        found=f"{found}, {free / 1e9:.1f} GB free",
        state="note" if little else "",
        cure="There is little space. `understudy store gc` removes old stages." if little else "",
    )
    yield from _locks(there)


def _locks(folder: Path) -> Iterator[Finding]:
    """Whether the operating system's locks work there: on some network folders they do not."""
    from filelock import FileLock, Timeout

    place = folder / f".part-{uuid.uuid4().hex}-doctor.lock"
    first, second = FileLock(place), FileLock(place)
    try:
        with first.acquire(timeout=0):
            try:
                second.acquire(timeout=0)
            except Timeout:
                yield Finding(what="locks", found="work in the store's folder")
                return
            second.release()
            state = "two holders of one lock"
    except (OSError, NotImplementedError) as error:
        state = _one_line(error)
    finally:
        with contextlib.suppress(OSError):
            place.unlink()
    yield Finding(
        what="locks",
        found=state,
        state="broken",
        cure="Locks do not work in the store's folder, so only one run at a time may use it. Put it on a local disk.",
    )


def _one_line(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else text[:197] + "..."
