"""Rows and sheets of figures, the tables they are printed in, and the pages that show them."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from bench.measure import Spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.measure import Blocks, Timing

PLOTS: Final = {
    "latency": "How long single durable puts take, from the fastest to the slowest",
    "threads": "Commits a second from 1 to 64 threads",
    "sizes": "What a single put costs in small and large stores",
}
"""The plots by name, each with what it shows."""

_HEADINGS: Final = ("what", "sqlstate", "against", "ratio", "quartiles", "goal", "met")
_MARKED: Final = re.compile(r"<!-- bench:begin ([\w -]+) -->\n.*?<!-- bench:end -->", re.DOTALL)

Unit = Literal["ns", "bytes", "frames", "syncs", "commits/s", "number", "share", "seconds"]


@dataclass(frozen=True, slots=True)
class Goal:
    """The most that a figure may be, or the least."""

    limit: float
    of: Literal["ratio", "figure"] = "ratio"
    least: bool = False

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.limit:,g}"

    def met(self, figure: float) -> bool:
        """Tell whether *figure* keeps within it."""
        return figure >= self.limit if self.least else figure <= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of sqlstate beside the one it is compared with."""

    name: str
    what: str
    unit: Unit
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
        return None if figure is None else self.goal.met(figure)

    def as_dict(self) -> dict[str, Any]:
        """Return the row for JSON."""
        fields = asdict(self)
        fields["ratio"] = None if self.ratio is None else self.ratio._asdict()
        return fields | {"met": self.met}

    def cells(self) -> tuple[str, ...]:
        """Return the row as text, one cell for each heading."""
        goal = met = ""
        if self.goal is not None:
            goal = str(self.goal)
            met = {True: "yes", False: "NO", None: "not measured"}[self.met]
        ratio = quartiles = ""
        if self.ratio is not None:
            low, median, high = (_number(value) for value in self.ratio)
            ratio, quartiles = median, f"{low} to {high}" if low != high else ""
        theirs = "" if self.theirs is None else f"{self.against}: {_figure(self.theirs, self.unit)}"
        ours = "not measured" if self.ours is None else _figure(self.ours, self.unit)
        return self.what, ours, theirs, ratio, quartiles, goal, met


@dataclass(frozen=True, slots=True)
class Sheet:
    """One figure, or a few, of many stores: a line for each."""

    name: str
    title: str
    columns: Sequence[str]
    lines: dict[str, list[Cell]] = field(default_factory=dict)
    """By the title of the store, or what else the line is of."""
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """What a plot of it shows: points by the title of the store."""

    def as_dict(self) -> dict[str, Any]:
        """Return the sheet for JSON."""
        return asdict(self)

    def table(self) -> str:
        """Return the sheet as a table."""
        lines = [(name, *map(str, cells)) for name, cells in self.lines.items()]
        return table(("", *self.columns), lines)


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure with its quartiles, or a word in its place."""

    value: float | str | None
    unit: Unit = "number"
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if isinstance(self.value, str):
            return self.value
        if self.value is None:
            return "not measured"
        spread = ""
        if self.low is not None and self.high is not None and self.low != self.high:
            spread = f" ({_figure(self.low, self.unit)} to {_figure(self.high, self.unit)})"
        return _figure(self.value, self.unit) + spread


def of_spread(value: Spread, unit: Unit) -> Cell:
    """Return the cell of a median with its quartiles."""
    return Cell(value.median, unit, value.low, value.high)


def timed(name: str, what: str, timing: Timing, *, against: str = "raw", goal: Goal | None = None) -> Row:
    """Return the row of a timing: median calls, and the ratio of medians over its blocks."""
    ours, theirs = timing.medians
    return Row(name, what, "ns", ours, theirs, against, timing.ratio(), goal)


def in_turn(name: str, what: str, ours: Blocks, theirs: Blocks | None, against: str, goal: Goal | None = None) -> Row:
    """Return the row of two sides that had their turns; without the other side it cannot be judged."""
    if theirs is None:
        return Row(name, what, "ns", None, None, against, goal=goal)
    return Row(name, what, "ns", ours.usual.median, theirs.usual.median, against, ours.ratio(theirs), goal)


def table(headings: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a table that reads as well in a terminal as in Markdown."""
    lines = [headings, *body]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    lines.insert(1, ["-" * max(width, 1) for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def verdict(rows: Sequence[Row]) -> str:
    """Return one sentence on the goals, naming the ones that were missed or could not be judged."""
    judged = [row for row in rows if row.met is not None]
    missed = [row.what for row in judged if not row.met]
    unknown = [row.what for row in rows if row.goal is not None and row.met is None]
    text = f"{len(judged) - len(missed)} of {len(judged)} goals met."
    if missed:
        text += f" Not met: {'; '.join(missed)}."
    return f"{text} Not measured: {'; '.join(unknown)}." if unknown else text


@dataclass(frozen=True, slots=True)
class Result:
    """All that one run found."""

    facts: Mapping[str, str]
    rows: Sequence[Row]
    sheets: Sequence[Sheet]
    scale: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return {
            "facts": dict(self.facts),
            "scale": dict(self.scale),
            "rows": [row.as_dict() for row in self.rows],
            "sheets": [sheet.as_dict() for sheet in self.sheets],
        }

    @classmethod
    def from_dict(cls, result: Mapping[str, Any]) -> Result:
        """Return the result that was written as JSON."""
        return cls(
            result["facts"],
            [_row(each) for each in result["rows"]],
            [_sheet(each) for each in result["sheets"]],
            result["scale"],
        )

    def document(self) -> str:
        """Return all of it as text."""
        parts = [self.header(), self.figures(self.rows)] if self.rows else [self.header()]
        parts += [f"{sheet.title}\n\n{sheet.table()}" for sheet in self.sheets]
        return "\n\n".join(parts) + "\n"

    def header(self) -> str:
        """Return where and with what it was measured."""
        return "\n".join(f"* {name}: {value}" for name, value in self.facts.items())

    @staticmethod
    def figures(rows: Sequence[Row]) -> str:
        """Return the table of these rows, and what it says of the goals."""
        return f"{table(_HEADINGS, [row.cells() for row in rows])}\n\n{verdict(rows)}"

    def block(self, name: str, plots: str) -> str:
        """Return what belongs between the markers of this name.

        Args:
            name: `facts`; `goals`; `rows` and the workloads they are of; `plot` and one of its names; or a sheet.
            plots: the folder of the plots, as seen from the page.

        Raises:
            ValueError: there is no such block.
        """
        kind, _, rest = name.partition(" ")
        if kind == "plot" and rest in PLOTS:
            drawn = any(sheet.name == rest and sheet.curves for sheet in self.sheets)
            return f"![{PLOTS[rest]}]({plots}/{rest}.svg)" if drawn else _NOT_MEASURED
        if kind == "facts":
            return self.header()
        if kind in ("rows", "goals"):
            rows = [row for row in self.rows if row.goal is not None or kind == "rows"]
            rows = [row for row in rows if not rest or row.name.partition("/")[0] in rest.split()]
            return self.figures(rows) if rows else _NOT_MEASURED
        found = [sheet.table() for sheet in self.sheets if sheet.name == name]
        return found[0] if found else _NOT_MEASURED

    def fill(self, page: str, plots: str) -> str:
        """Return *page* with every marked block replaced."""

        def replaced(marked: re.Match[str]) -> str:
            return f"<!-- bench:begin {marked[1]} -->\n{self.block(marked[1], plots)}\n<!-- bench:end -->"

        return _MARKED.sub(replaced, page)


_NOT_MEASURED: Final = "Not measured in this run."


def blocks_of(page: str) -> list[str]:
    """Return the names of the blocks that a page has.

    Raises:
        ValueError: it has none, or a marker without the other.
    """
    names = _MARKED.findall(page)
    if not names or not len(names) == page.count("<!-- bench:begin") == page.count("<!-- bench:end -->"):
        raise ValueError("the page needs blocks of <!-- bench:begin NAME --> and <!-- bench:end -->")
    return names


def write(result: Result, page: Path, plots: Path | None) -> None:
    """Put the figures into the blocks of a page."""
    folder = "" if plots is None else os.path.relpath(plots, page.parent)
    page.write_text(result.fill(page.read_text("utf-8"), folder), "utf-8")


def _row(fields: Mapping[str, Any]) -> Row:
    kept = {name: value for name, value in fields.items() if name != "met"}
    kept["ratio"] = None if kept["ratio"] is None else Spread(**kept["ratio"])
    kept["goal"] = None if kept["goal"] is None else Goal(**kept["goal"])
    return Row(**kept)


def _sheet(fields: Mapping[str, Any]) -> Sheet:
    lines = {name: [Cell(**cell) for cell in cells] for name, cells in fields["lines"].items()}
    return Sheet(**{**fields, "lines": lines})


def _figure(value: float, unit: Unit) -> str:
    if unit in ("bytes", "commits/s"):
        return f"{value:,.0f}" + (" bytes" if unit == "bytes" else "")
    if unit == "share":
        return f"{value:.0%}"
    if unit == "seconds":
        return f"{value:.3g} s"
    if unit != "ns":
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    micro = value / 1000
    return f"{_number(micro)} µs" if micro < 10_000 else f"{_number(micro / 1000)} ms"


def _number(value: float) -> str:
    digits = 3 if value < 0.1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"
