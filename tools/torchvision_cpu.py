#!/usr/bin/env python3
"""Makes a torchvision that was built for CUDA import beside a CPU build of torch. For test machines only.

Run it with the Python of the environment to mend: ``.venv/bin/python tools/torchvision_cpu.py``. The better
cure is a torchvision built for the CPU; this is for machines that cannot get one.

A CUDA-built torchvision is linked against two libraries that a CPU torch does not bring, ``libc10_cuda.so`` and
``libtorch_cuda.so``; the loader then refuses the whole extension and torchvision's import ends with "operator
torchvision::nms does not exist". This script compiles two libraries of those names in which every function that
torchvision asks for aborts the process when it is called. CPU code never calls one. A ``.pth`` file makes
``import torchvision``, and no other import, load them first.

Nothing is done where torchvision imports already or is absent, where torch is absent or has CUDA, or where
torchvision is no CUDA build; if torchvision still does not import in the end, everything is taken away again.
Exit status: 0 mended or nothing to do, 1 could not be mended. To undo it by hand, delete the folder and the file
that it names.

Needs a C compiler (``cc``) and ``nm``; Linux only. Tried with torch 2.13.0 (CPU) and torchvision 0.28.0.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

SITE = Path(sysconfig.get_paths()["platlib"])
FOLDER = SITE / "_torchvision_cpu"
HOOK = SITE / "_torchvision_cpu.pth"

# What the environment gets. It stands aside as soon as torch brings the real libraries, so that a CUDA torch
# installed later is never shadowed.
PRELOAD = '''\
"""Loads stand-ins for torch's CUDA libraries before torchvision. Written by understudy's torchvision_cpu.py."""
import sys


class Preload:
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import ctypes
            import pathlib

            here = pathlib.Path(__file__).parent
            if not (here.parent / "torch" / "lib" / "libtorch_cuda.so").exists():
                for library in [
                    *sorted((here.parent / "torchvision.libs").glob("libcudart*")),
                    here / "libc10_cuda.so",
                    here / "libtorch_cuda.so",
                ]:
                    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        return None


sys.meta_path.insert(0, Preload())
'''


def attempt(code: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a new process of this Python."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def reason_to_do_nothing() -> str | None:
    """Why this environment is left as it is, or ``None`` where it can be mended."""
    extension = SITE / "torchvision" / "_C.so"
    if not extension.parent.is_dir():
        return "torchvision is not installed here"
    if attempt("import torchvision").returncode == 0:
        return "torchvision imports already"
    if attempt("import torch").returncode != 0:
        return "torch does not import here"
    if attempt("import sys, torch; sys.exit(torch.version.cuda is not None)").returncode != 0:
        return "torch has CUDA"
    if not extension.is_file() or b"libtorch_cuda.so" not in extension.read_bytes():
        return "torchvision is not a CUDA build, so something else keeps it from importing"
    return None


def is_variable(symbol: str) -> bool:
    """Whether a mangled C++ name is a variable: a nested name, ``_ZN…E``, with no parameter types after it.

    Itanium C++ ABI, section 5.1: each part of the name is its length followed by its characters, and a function's
    name is followed by the types of its parameters (``v`` for none).
    """
    rest = symbol.removeprefix("_ZN")
    while part := re.match(r"\d+", rest):
        rest = rest[part.end() + int(part.group()) :]
    return rest == "E"


def missing_symbols() -> set[str]:
    """The names in ``at::cuda`` and ``c10::cuda`` that torchvision's extensions expect from elsewhere."""
    symbols: set[str] = set()
    for library in sorted((SITE / "torchvision").glob("*.so")):
        listing = subprocess.run(
            ["nm", "--dynamic", "--undefined-only", "--format=posix", str(library)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        names = {line.split()[0].partition("@")[0] for line in listing.splitlines() if line.strip()}
        symbols |= {name for name in names if re.match(r"_ZNK?(2at|3c10)4cuda", name)}
    return symbols


def compile_library(name: str, source: str) -> None:
    """Compile C ``source`` into the shared library ``name`` in `FOLDER`."""
    subprocess.run(
        ["cc", "-x", "c", "-w", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(FOLDER / name), "-"],
        input=source,
        text=True,
        check=True,
    )


def main() -> int:
    """Mend the environment of the running Python; the exit status."""
    if reason := reason_to_do_nothing():
        print(f"{reason}: nothing to do")
        return 0
    absent = [tool for tool in ("cc", "nm") if shutil.which(tool) is None]
    if absent:
        print(
            f"not mended: {' and '.join(absent)} not found; install a C compiler and binutils",
            file=sys.stderr,
        )
        return 1

    symbols = missing_symbols()
    lines = [
        f"void *{name} = 0;" if is_variable(name) else f"void {name}(void) {{ abort(); }}"
        for name in sorted(symbols)
    ]
    FOLDER.mkdir(exist_ok=True)
    try:
        compile_library("libc10_cuda.so", "\n".join(["#include <stdlib.h>", *lines, ""]))
        compile_library("libtorch_cuda.so", "int torchvision_cpu;\n")
        (FOLDER / "__init__.py").write_text(PRELOAD, encoding="utf-8")
        HOOK.write_text("import _torchvision_cpu\n", encoding="utf-8")
        result = attempt("import torchvision")
        mended = result.returncode == 0
        complaint = (result.stderr.strip().splitlines() or ["it was killed"])[-1]
    except (OSError, subprocess.CalledProcessError) as error:
        mended, complaint = False, str(error)
    if not mended:
        HOOK.unlink(missing_ok=True)
        shutil.rmtree(FOLDER, ignore_errors=True)
        print(f"not mended, torchvision still does not import: {complaint}", file=sys.stderr)
        return 1
    print(f"torchvision imports now ({len(symbols)} CUDA names stand in): {FOLDER}, {HOOK}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
