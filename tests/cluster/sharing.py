"""Measures what threads gain by sharing commits, by hand: `python -m tests.cluster.sharing`.

It prints transactions a second of one thread and of 16, and how long single calls take.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlstate import cluster
from tests.cluster.nodes import SECONDS, Cluster

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlstate import Transaction

THREADS: Final = 16
EACH: Final = 100


def rate(threads: int, work: Callable[[int, int], object]) -> float:
    """Return how often *work* is done in a second by so many threads."""

    def run(thread: int) -> None:
        for number in range(EACH):
            work(thread, number)

    workers = [threading.Thread(target=run, args=(each,)) for each in range(threads)]
    began = time.perf_counter()
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    return threads * EACH / (time.perf_counter() - began)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        nodes = Cluster(Path(folder))
        try:
            nodes.start()
            with cluster.open([nodes.wait_for_leader().url, *nodes.urls], timeout=SECONDS) as store:
                measure(store)
        finally:
            nodes.stop()


def measure(store: cluster.ClusterStore) -> None:
    def change(thread: int, number: int) -> None:
        store["changed"][thread] = number

    def insert(thread: int, number: int) -> None:
        store["new"][f"{thread}-{number}-{time.monotonic_ns()}"] = number

    def count(thread: int, _: int) -> None:
        def add(txn: Transaction) -> None:
            txn.put("counts", thread, txn.get("counts", thread, 0) + 1)

        store.run(add)

    store["new"].update({f"x{number}": number for number in range(5000)})
    for work in (change, insert, count):
        work(0, 0)
        alone, together = rate(1, work), rate(THREADS, work)
        sys.stdout.write(
            f"{work.__name__}: {alone:.0f}/s by one thread ({1000 / alone:.1f} ms each), "
            f"{together:.0f}/s by {THREADS}, {together / alone:.1f} times\n"
        )
    alone = rate(1, lambda _, number: store["changed"].get(number % THREADS))
    sys.stdout.write(f"get: {alone:.0f}/s by one thread ({1000 / alone:.2f} ms each)\n")


if __name__ == "__main__":
    main()
