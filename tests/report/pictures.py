"""Charts as a test sees them: elements by class, places in pixels."""

from __future__ import annotations

import re
from xml.etree import ElementTree


def parsed(chart: str) -> ElementTree.Element:
    return ElementTree.fromstring(chart)


def of_class(chart: str, name: str) -> list[ElementTree.Element]:
    return [one for one in parsed(chart).iter() if name in (one.get("class") or "").split()]


def size_of(chart: str) -> tuple[float, float]:
    _, _, width, height = map(float, (parsed(chart).get("viewBox") or "").split())
    return width, height


def places_of(path: str) -> list[tuple[float, float]]:
    """Points of a path of M and L with figures, absolute."""
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path)]


def mark_places(chart: str) -> list[tuple[float, float]]:
    found = []
    for mark in of_class(chart, "mark"):
        x, y = re.findall(r"-?[\d.]+", mark.get("transform") or "")
        found.append((float(x), float(y)))
    return found
