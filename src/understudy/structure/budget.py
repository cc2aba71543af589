"""Budgets: how many multiply-adds or parameters a network may have, as a person writes them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from understudy.errors import BadInput

if TYPE_CHECKING:
    from understudy.structure.cost import Cost

_RATIO = re.compile(r"([0-9]*\.?[0-9]+)\s*[x×]")
_AMOUNT = re.compile(r"([0-9]*\.?[0-9]+)\s*([A-Za-z]*)")
_PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_EXAMPLES = {
    "multiply_adds": "0.5x for half of the network's own, 20MMAC or 1.5GMAC",
    "parameters": "0.5x for half of the network's own, 300k or 1.2M",
}
_NOUNS = {"multiply_adds": "multiply-adds", "parameters": "parameters"}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that a network may have of each; None: no limit. Multiply-adds are those of one image."""

    multiply_adds: int | None = None
    parameters: int | None = None

    def hold(self, cost: Cost) -> bool:
        """Whether a network of that cost is within all of them."""
        return self.share(cost) <= 1

    def share(self, cost: Cost) -> float:
        """Of the limit that is fullest, how much a network of that cost uses; 1.0 is all of it."""
        pairs = [(getattr(cost, one.name), getattr(self, one.name)) for one in fields(self)]
        return max((spent / limit for spent, limit in pairs if limit is not None), default=0.0)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A limit on multiply-adds, on parameters, or on both, which then both hold.

    Attributes:
        multiply_adds: of one image: a share of the network's own (``0.5x``), or a number with a unit
            (``20MMAC``, ``1.5GMAC``). One multiply-add is what many papers call two FLOPs.
        parameters: of the whole network, biases and normalisation too: ``0.19x``, ``300k`` or ``1.2M``.

    Raises:
        BadInput: neither is given, or one cannot be read.

    >>> Budget(multiply_adds="20 MMAC").definition()
    {'multiply_adds': 20000000}
    """

    multiply_adds: str | None = None
    parameters: str | None = None

    def __post_init__(self) -> None:
        if self.multiply_adds is None and self.parameters is None:
            raise BadInput(
                "a budget limits multiply_adds, parameters or both, and neither is given. "
                f"multiply_adds is such as {_EXAMPLES['multiply_adds']}"
            )
        self.definition()

    def definition(self) -> dict[str, int | float]:
        """What is asked for, however it is written: a share as a float, a number as a whole one."""
        said = {"multiply_adds": self.multiply_adds, "parameters": self.parameters}
        return {what: _parse(what, text) for what, text in said.items() if text is not None}

    def limits(self, own: Cost) -> Limits:
        """The limits in numbers, for a network that costs ``own`` before anything is removed.

        Raises:
            BadInput: a limit that the network keeps as it is, or one of less than one.
        """
        found: dict[str, int] = {}
        for what, asked in self.definition().items():
            whole, noun, text = getattr(own, what), _NOUNS[what], getattr(self, what)
            limit = math.floor(asked * whole * (1 + 1e-12)) if isinstance(asked, float) else asked
            if limit > whole:
                raise BadInput(
                    f"{what} {text!r} is more than the network has: {shown(what, whole)}. Give less than that, "
                    "a share such as 0.5x, or leave the budget out"
                )
            if limit < 1:
                raise BadInput(
                    f"{what} {text!r} leaves none of the network's {whole:,} {noun}. Give more than that"
                )
            found[what] = limit
        return Limits(**found)


def shown(what: str, number: int) -> str:
    """A number of ``multiply_adds`` or ``parameters`` with its unit, as a budget may be written.

    >>> shown("multiply_adds", 41_200_000), shown("parameters", 78_042), shown("parameters", 999)
    ('41.2 MMAC', '78.0 k parameters', '999 parameters')
    """
    unit = "MAC" if what == "multiply_adds" else "parameters"
    for letter in "GMk":
        if number >= _PREFIXES[letter.lower()]:
            between = "" if what == "multiply_adds" else " "
            return f"{number / _PREFIXES[letter.lower()]:.1f} {letter}{between}{unit}"
    return f"{number} {unit}"


def _parse(what: str, text: object) -> int | float:
    """A share as a float, a number as an int."""
    examples = f"Write {_EXAMPLES[what]}"
    if isinstance(text, int | float) and not isinstance(text, bool):
        raise BadInput(f"{what} {text!r} has no unit (is it {_with_unit(what, text)}?). {examples}")
    if not isinstance(text, str):
        raise BadInput(f"{what} {text!r} cannot be read. {examples}")
    said = text.strip()
    if ratio := _RATIO.fullmatch(said):
        share = float(ratio[1])
        if not 0 < share <= 1:
            raise BadInput(f"{what} {text!r} is no share of the network's own, in (0x, 1x]. {examples}")
        return share
    amount = _AMOUNT.fullmatch(said)
    if not amount:
        raise BadInput(f"{what} {text!r} cannot be read. {examples}")
    value, unit = float(amount[1]), amount[2].lower()
    if not math.isfinite(value):
        raise BadInput(f"{what} {text[:20]!r} is more than any network has. {examples}")
    if "flop" in unit:
        raise BadInput(
            f"{what} {text!r} counts FLOPs, which some papers take for multiply-adds and others for twice as many. "
            "Give multiply-adds: one is two FLOPs, so 40MFLOPs are 20MMAC"
        )
    prefix = _prefix(what, unit)
    if prefix is None:
        missing = "has no unit" if unit in _PREFIXES else f"has an unknown unit {amount[2]!r}"
        raise BadInput(f"{what} {text!r} {missing}. {examples}")
    count = round(value * _PREFIXES[prefix])
    if count < 1:
        raise BadInput(f"{what} {text!r} is less than one. {examples}")
    return count


def _with_unit(what: str, number: float) -> str:
    if number <= 1:
        return f"{number:g}x"
    letter = next((one for one in "GMk" if number >= _PREFIXES[one.lower()]), "")
    unit = "MAC" if what == "multiply_adds" else ""
    return f"{number / _PREFIXES[letter.lower()]:g}{letter}{unit}"


def _prefix(what: str, unit: str) -> str | None:
    if what == "parameters":
        return unit if unit and unit in _PREFIXES else None
    stem = unit.removesuffix("s")
    return (
        stem.removesuffix("mac") if stem.endswith("mac") and stem.removesuffix("mac") in _PREFIXES else None
    )
