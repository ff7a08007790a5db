"""Rows of figures, and the one table they are printed in."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.measure import Spread, Timing

BEGIN: Final = "<!-- bench:begin -->"
END: Final = "<!-- bench:end -->"

_HEADINGS: Final = ("what", "sqlstate", "against", "ratio", "quartiles", "goal", "met")


@dataclass(frozen=True, slots=True)
class Goal:
    """The most that a figure may be."""

    limit: float
    of: Literal["ratio", "figure"] = "ratio"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of sqlstate beside the one it is compared with."""

    name: str
    what: str
    unit: Literal["ns", "bytes", "frames", "syncs"]
    ours: float | None
    """None if it was not measured."""
    theirs: float | None
    against: str = "raw"
    ratio: Spread | None = None
    goal: Goal | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal was met; None if there is no goal or no figure."""
        if self.goal is None:
            return None
        figure = self.ours if self.goal.of == "figure" else self.ratio and self.ratio.median
        return None if figure is None else figure <= self.goal.limit

    def as_dict(self) -> dict[str, Any]:
        """Return the row for JSON."""
        fields = asdict(self)
        fields["ratio"] = None if self.ratio is None else self.ratio._asdict()
        return fields | {"met": self.met}

    def cells(self) -> tuple[str, ...]:
        """Return the row as text, one cell for each heading."""
        goal = met = ""
        if self.goal is not None:
            goal = f"≤ {self.goal.limit:g}"
            met = {True: "yes", False: "NO", None: "not measured"}[self.met]
        ratio = quartiles = ""
        if self.ratio is not None:
            low, median, high = (_number(value) for value in self.ratio)
            ratio, quartiles = median, f"{low} to {high}" if low != high else ""
        theirs = "" if self.theirs is None else f"{self.against}: {_figure(self.theirs, self.unit)}"
        ours = "not measured" if self.ours is None else _figure(self.ours, self.unit)
        return self.what, ours, theirs, ratio, quartiles, goal, met


def timed(name: str, what: str, timing: Timing, *, against: str = "raw", goal: Goal | None = None) -> Row:
    """Return the row of a timing: median calls, and the ratio of medians over its blocks."""
    ours, theirs = timing.medians
    return Row(name, what, "ns", ours, theirs, against, timing.ratio(), goal)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table that reads as well in a terminal as in Markdown."""
    lines = [_HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def verdict(rows: Sequence[Row]) -> str:
    """Return one sentence on the goals, naming the ones that were missed."""
    judged = [row for row in rows if row.met is not None]
    missed = [row.what for row in judged if not row.met]
    text = f"{len(judged) - len(missed)} of {len(judged)} goals met."
    return f"{text} Not met: {'; '.join(missed)}." if missed else text


def document(facts: Mapping[str, str], rows: Sequence[Row]) -> str:
    """Return header, table and verdict."""
    header = "\n".join(f"* {name}: {value}" for name, value in facts.items())
    return f"{header}\n\n{table(rows)}\n\n{verdict(rows)}\n"


def between_markers(page: str, text: str) -> str:
    """Return *page* with *text* between its two markers.

    Raises:
        ValueError: the page does not have both, in order.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there is no {BEGIN} with {END} after it")
    return f"{head}{BEGIN}\n{text}{END}{tail}"


def _figure(value: float, unit: str) -> str:
    if unit != "ns":
        return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:.3g}"
    micro = value / 1000
    return f"{_number(micro)} µs" if micro < 10_000 else f"{_number(micro / 1000)} ms"


def _number(value: float) -> str:
    digits = 3 if value < 0.1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"
