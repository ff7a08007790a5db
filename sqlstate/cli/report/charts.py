"""Numbers over time as shapes of SVG: no text, which would shrink with the picture; labels stand beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH: Final = 1000
HEIGHT: Final = 200
BARS: Final = 60


class Bar(NamedTuple):
    """A rectangle that stands on the bottom line, or lies in a row."""

    x: float
    width: float
    height: float


def line(points: Sequence[tuple[float, float]]) -> str:
    """Return the path of a line in steps through *points*, (time, number), whose times do not go back.

    A number holds until the next one. One moment alone is a line all the same.
    """
    start, end = points[0][0], points[-1][0]
    greatest = max(number for _, number in points) or 1
    parts: list[str] = []
    for time, number in points:
        x = _along(time, start, end)
        y = HEIGHT - HEIGHT * number / greatest
        parts.append(f"H{x:.1f}V{y:.1f}" if parts else f"M0,{y:.1f}")
    return "".join(parts) + f"H{WIDTH}"


def bars(points: Sequence[tuple[float, int]], before: int) -> tuple[list[Bar], int]:
    """Return how much a growing number grew, as bars of equal time, and what the highest of them stands for.

    Args:
        points: (time, number); the times do not go back.
        before: the number before the first of them.
    """
    start, end = points[0][0], points[-1][0]
    grown = [0] * BARS
    for time, number in points:
        slot = min(BARS - 1, int(_along(time, start, end) * BARS / WIDTH))
        grown[slot] += number - before
        before = number
    greatest = max(grown)
    step = WIDTH / BARS
    return [
        Bar(round(place * step, 1), round(step * 0.8, 1), max(1.0, round(HEIGHT * each / greatest, 1)))
        for place, each in enumerate(grown)
        if each > 0
    ], greatest


def row(sizes: Sequence[int]) -> list[Bar]:
    """Return parts of a whole, side by side."""
    whole = sum(sizes) or 1
    found, x = [], 0.0
    for size in sizes:
        found.append(Bar(round(x, 1), round(WIDTH * size / whole, 1), HEIGHT))
        x += WIDTH * size / whole
    return found


def _along(time: float, start: float, end: float) -> float:
    return WIDTH * (time - start) / (end - start) if end > start else 0.0
