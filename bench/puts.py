"""Makes durable puts in a process of its own, to be traced or killed: `python -m bench.puts BASELINE PATH NUMBER`."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.baselines import BASELINES
from bench.entries import key
from bench.fleet import lock_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

MARK: Final = 1_000_000
"""A descriptor that is not open: a sync of it does nothing, and shows in a trace."""

_WARMUP: Final = 3  # the first commits of a handle may sync more than the others


def value(number: int) -> bytes:
    """Return what put *number* puts."""
    return f"put {number} ".encode() * 10


def main(arguments: Sequence[str] | None = None) -> None:
    """Put entries 0 to NUMBER-1, each another value."""
    parser = argparse.ArgumentParser(prog="python -m bench.puts", description=__doc__)
    parser.add_argument("baseline", choices=list(BASELINES))
    parser.add_argument("path", type=Path)
    parser.add_argument("number", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--marks", action="store_true", help="sync a descriptor that is not open, before and after")
    parser.add_argument("--kill", action="store_true", help="end by SIGKILL, with the store open")
    options = parser.parse_args(arguments)
    store = BASELINES[options.baseline].make(options.path)
    store.open()
    for number in range(_WARMUP):
        store.put(key(0), b"%d" % number)
    if options.marks:
        _mark()
    _put(store.put, lock_of(options.baseline), options.number // options.threads, options.threads)
    if options.kill:
        os.kill(os.getpid(), signal.SIGKILL)
    if options.marks:
        _mark()
    store.close()


def _put(put: Callable[[str, bytes], object], lock: AbstractContextManager[object], each: int, threads: int) -> None:
    def work(first: int) -> None:
        for number in range(first, first + each):
            with lock:
                put(key(number), value(number))

    if threads == 1:
        work(0)
        return
    workers = [threading.Thread(target=work, args=(number * each,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _mark() -> None:
    with suppress(OSError):
        os.fsync(MARK)


if __name__ == "__main__":
    main()
