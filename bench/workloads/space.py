"""Bytes on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.measure import Spread
from bench.report import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.run import Run


def space(run: Run) -> Iterator[Row]:
    """Bytes of the file for each entry after a load, and what each put adds: log, tree and all."""
    pair = run.pair(run.scale.reference)
    ours, theirs = (size / pair.entries for size in pair.loaded_sizes)
    ratio = Spread(*[ours / theirs] * 3)
    yield Row(
        "space/entry", f"file size for each of {pair.entries:,} loaded entries", "bytes", ours, theirs, ratio=ratio
    )
    pair.close()
    before = pair.file_sizes()
    changes = pair.changes(run.scale.operations // 2)
    for baseline in pair.fresh():
        for name, value in changes:
            baseline.put(name, value)
    pair.close()
    ours, theirs = ((after - size) / len(changes) for after, size in zip(pair.file_sizes(), before, strict=True))
    yield Row("space/put", "growth of the file with each put of a changed value", "bytes", ours, theirs)
