"""One side of `bench.beside`: does what it is told with the sqlstate that it imports, and prints how long it took.

It is started by its path, so that it imports nothing else of this checkout. A line names an operation and how often;
the answer is the seconds of the clock and of the processor.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from itertools import count, islice
from threading import Thread
from typing import TYPE_CHECKING, Any

import sqlstate
from sqlstate import aio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

THREADS = 16
TASKS = 64


def each(work: Callable[..., object], arguments: list[tuple[Any, ...]]) -> None:
    """Call *work* with each of *arguments*."""
    for given in arguments:
        work(*given)


class Worker:
    """A store with entries, a second one with `mode="group"`, and what is done with them."""

    def __init__(self, folder: str, entries: int) -> None:
        self.random = random.Random(1)
        self.keys = [self.random.randbytes(16) for _ in range(entries)]
        self.fresh: Iterator[bytes] = iter(lambda: self.random.randbytes(16), b"")
        self.numbers = count()
        self.group_path = f"{folder}/group.db"
        self.store = sqlstate.open(f"{folder}/store.db")
        self.group = sqlstate.open(self.group_path, mode="group")
        for store in (self.store, self.group):
            with store.transaction() as txn:
                txn["c"].update({key: bytes(100) for key in self.keys})
        self.entries = self.store["c"]

    def value(self) -> bytes:
        """Return a value that is not there yet."""
        return b"%0100d" % next(self.numbers)

    def some(self, n: int) -> list[bytes]:
        """Return keys that are there."""
        return self.random.choices(self.keys, k=n)

    def get(self, n: int) -> Callable[[], object]:
        """Read values, one by one."""
        keys = self.some(n)
        return lambda: [self.entries[key] for key in keys]

    def items(self, n: int) -> Callable[[], object]:
        """Scan."""
        return lambda: sum(1 for _ in islice(self.entries.items(), n))

    def put(self, n: int) -> Callable[[], object]:
        """Change values, a commit each."""
        pairs = [(key, self.value()) for key in self.some(n)]
        return lambda: each(self.entries.__setitem__, pairs)

    def new(self, n: int) -> Callable[[], object]:
        """Put new keys, a commit each."""
        keys = list(islice(self.fresh, n))
        return lambda: each(self.entries.__setitem__, [(key, b"new") for key in keys])

    def delete(self, n: int) -> Callable[[], object]:
        """Delete entries, a commit each."""
        keys = list(islice(self.fresh, n))
        self.entries.update(dict.fromkeys(keys, b"old"))
        return lambda: each(self.entries.__delitem__, [(key,) for key in keys])

    def transaction(self, n: int) -> Callable[[], object]:
        """Change values in one transaction."""
        pairs = [(key, self.value()) for key in self.some(n)]

        def work() -> None:
            with self.store.transaction() as txn:
                for key, value in pairs:
                    txn.put("c", key, value)

        return work

    def batch(self, n: int) -> Callable[[], object]:
        """Change values in a batch, a transaction each."""
        pairs = [(key, self.value()) for key in self.some(n)]

        def work() -> None:
            with self.store.batch() as batch:
                for key, value in pairs:
                    batch["c"][key] = value

        return work

    def load(self, n: int) -> Callable[[], object]:
        """Put new entries in the order of their keys, in one transaction."""
        start = next(self.numbers) * n
        pairs = {start + number: bytes(100) for number in range(n)}
        return lambda: self.store["loaded"].update(pairs)

    def shuffled(self, n: int) -> Callable[[], object]:
        """Put new entries in random order, in one transaction."""
        pairs = dict.fromkeys(islice(self.fresh, n), bytes(100))
        return lambda: self.store["shuffled"].update(pairs)

    def threads(self, n: int) -> Callable[[], object]:
        """Change values in 16 threads that share commits."""
        entries, shares = self.group["c"], [self.some(n // THREADS + 1) for _ in range(THREADS)]

        def share(keys: list[bytes]) -> None:
            for key in keys:
                entries[key] = self.value()

        def work() -> None:
            threads = [Thread(target=share, args=(keys,)) for keys in shares]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        return work

    def tasks(self, n: int) -> Callable[[], object]:
        """Change values in 64 tasks that share commits."""
        shares = [self.some(n // TASKS + 1) for _ in range(TASKS)]

        async def share(entries: Any, keys: list[bytes]) -> None:
            for key in keys:
                await entries.put(key, self.value())

        async def work() -> None:
            async with aio.open(self.group_path) as store:
                await asyncio.gather(*(share(store["c"], keys) for keys in shares))

        return lambda: asyncio.run(work())


def main() -> None:
    """Answer each line of the standard input."""
    worker = Worker(sys.argv[1], int(sys.argv[2]))
    print("ready", flush=True)
    for line in sys.stdin:
        operation, times = line.split()
        work = getattr(worker, operation)(int(times))
        wall, processor = time.perf_counter(), time.process_time()
        work()
        print(time.perf_counter() - wall, time.process_time() - processor, flush=True)
    worker.store.close()
    worker.group.close()


if __name__ == "__main__":
    main()
