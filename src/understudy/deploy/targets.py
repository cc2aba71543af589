"""What a student can be exported to, by name and by the ending of the file. Nothing heavy is imported."""

from __future__ import annotations

from pathlib import Path

from understudy.errors import BadInput, MissingExtra, listed, suggestion

TARGETS = {"onnx": ".onnx", "torch": ".pt2", "executorch": ".pte"}


def target_of(path: Path) -> str:
    """``onnx``, ``torch`` or ``executorch``, by the ending of a file's name.

    Raises:
        BadInput: none of these.

    >>> target_of(Path("student.onnx"))
    'onnx'
    """
    found = next((target for target, ending in TARGETS.items() if ending == path.suffix.lower()), None)
    if found is None:
        possible = listed(f"{ending} ({target})" for target, ending in TARGETS.items())
        raise BadInput(f"{path} is no exported file; possible: {possible}.")
    return found


def check_target(to: str, out: Path | None = None) -> None:
    """Whether an export to ``to`` (into ``out``) is possible.

    Raises:
        BadInput: an unknown target, a file with another ending, or a folder.
    """
    if to not in TARGETS:
        raise BadInput(f"--to {to!r} is no target; possible: {listed(TARGETS)}.{suggestion(to, TARGETS)}")
    if out is None:
        return
    if out.is_dir():
        raise BadInput(f"--out {out} is a folder; name a file, such as {out / f'student{TARGETS[to]}'}.")
    for place in out.parents:
        if place.exists() and not place.is_dir():
            raise BadInput(f"--out {out} lies below {place}, which is a file; name a file in a folder.")
    if out.suffix.lower() != TARGETS[to]:
        raise BadInput(f"--out {out}: files for {to} end in {TARGETS[to]}; name it {out.stem}{TARGETS[to]}.")


def require_onnx() -> None:
    """Raises MissingExtra where ONNX files cannot be written."""
    try:
        import onnx
        import onnxscript
    except ImportError as error:
        raise MissingExtra("an ONNX file", "export") from error
    del onnx, onnxscript
