"""What each kind of store has done when a put returns: calls of fsync and fdatasync, and its promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.baselines import BASELINES
from bench.report import Cell, Row, Sheet
from bench.tracing import syncs_of_a_put

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.run import Run


def sync(run: Run) -> Iterator[Row | Sheet]:
    """Count the syncs of one put."""
    sheet = Sheet("sync", "What a put has done when it returns", ("done", "survives a power cut", "syncs"))
    counts: dict[str, float | None] = {}
    for name, kind in BASELINES.items():
        count = Cell("missing")
        if not kind.missing:
            counts[name] = syncs_of_a_put(run.folder, name)
            count = Cell(counts[name], "syncs")
        sheet.lines[kind.title] = [Cell(kind.does), Cell("yes" if kind.durable else "no"), count]
    goal = run.goal(1, "figure")
    yield Row("sync/put", "syncs of a put, counted by strace", "syncs", counts["sqlstate"], counts["raw"], goal=goal)
    yield sheet
