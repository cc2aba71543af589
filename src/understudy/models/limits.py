"""Which numbers a network can be built with, and what a width factor does to a channel count."""

from __future__ import annotations

import math

from understudy.errors import BadInput

WIDEST = 16.0


def check_shapes(*, classes: int, channels: int, size: tuple[int, int]) -> None:
    """Raises BadInput unless there are at least 2 classes, 1 channel and 1x1 pixels, all whole numbers."""
    _check_count("classes", classes, at_least=2)
    _check_count("channels", channels, at_least=1)
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise BadInput(f"size is (height, width) in pixels, such as (32, 32), got {size!r}")
    _check_count("the height in size", size[0], at_least=1)
    _check_count("the width in size", size[1], at_least=1)


def _check_count(what: str, value: int, *, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise BadInput(f"{what} must be a whole number of at least {at_least}, got {value!r}")


def check_width(width: float) -> None:
    """Raises BadInput unless ``0 < width <= 16``."""
    if (
        isinstance(width, bool)
        or not isinstance(width, int | float)
        or not 0 < width <= WIDEST
        or math.isnan(width)
    ):
        raise BadInput(
            f"width multiplies every channel count and must be above 0 and at most {WIDEST:g}, got {width!r}. "
            "1.0 is the network as its paper has it; 0.5 halves every layer"
        )


def scaled(count: int, width: float) -> int:
    """``max(1, round(count * width))``: halves go to the even neighbour, as in Python's own ``round``.

    >>> [scaled(16, width) for width in (1.0, 0.5, 0.75, 0.01)]
    [16, 8, 12, 1]
    """
    return max(1, round(count * width))


def check_halvings(name: str, halvings: int, size: tuple[int, int], *, choose: str) -> None:
    """Raises BadInput where pooling would leave nothing of the image.

    Args:
        halvings: how many 2x2 poolings the network has.
        choose: what fits instead, as the end of ``Choose …``; empty where nothing does.
    """
    needed = 2**halvings
    height, width = size
    if min(height, width) >= needed:
        return
    times = {1: "once", 2: "twice"}.get(halvings, f"{halvings} times")
    advice = f"Choose {choose}, or larger images." if choose else "Choose larger images."
    raise BadInput(
        f"{name} halves the image {times} and needs at least {needed}x{needed}; "
        f"the images are {height}x{width}. {advice}"
    )
