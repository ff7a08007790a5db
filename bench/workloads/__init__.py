"""The workloads: each takes a run and yields rows and sheets of figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench.workloads.batch import batch
from bench.workloads.bulk import bulk
from bench.workloads.get import get
from bench.workloads.opening import opening
from bench.workloads.original import original
from bench.workloads.others import others
from bench.workloads.peers import peers
from bench.workloads.processes import processes
from bench.workloads.put import put
from bench.workloads.scan import scan
from bench.workloads.space import space
from bench.workloads.sync import sync
from bench.workloads.tail import tail
from bench.workloads.tasks import tasks
from bench.workloads.threads import threads
from bench.workloads.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.report import Row, Sheet
    from bench.run import Run

WORKLOADS: Final[dict[str, Callable[[Run], Iterator[Row | Sheet]]]] = {
    "put": put,
    "sync": sync,
    "bulk": bulk,
    "get": get,
    "scan": scan,
    "open": opening,
    "verify": verify,
    "space": space,
    "original": original,
    "peers": peers,
    "threads": threads,
    "tasks": tasks,
    "batch": batch,
    "tail": tail,
    "processes": processes,
    "others": others,
}
