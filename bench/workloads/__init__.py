"""The workloads: each takes a run and yields rows of figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench.workloads.bulk import bulk
from bench.workloads.get import get
from bench.workloads.opening import opening
from bench.workloads.put import put
from bench.workloads.scan import scan
from bench.workloads.space import space
from bench.workloads.sync import sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.report import Row
    from bench.run import Run

WORKLOADS: Final[dict[str, Callable[[Run], Iterator[Row]]]] = {
    "put": put,
    "sync": sync,
    "bulk": bulk,
    "get": get,
    "scan": scan,
    "open": opening,
    "space": space,
}
