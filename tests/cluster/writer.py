"""A process that moves money between accounts of a cluster, and notes what it was told about each transfer.

A line of its notes is a word, the number of a transfer and a time: `begun`, then `done` once the call returned, `not`
if it was told that nothing was changed, `unknown` if it was told that, followed by what the cluster says when asked.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from sqlstate import Busy, CommitOutcomeUnknown, Conflict, StoreIOError, cluster

if TYPE_CHECKING:
    from sqlstate import Transaction

ACCOUNTS: Final = 10
SUM: Final = 1000


def begin(urls: list[str]) -> None:
    """Open the accounts."""
    with cluster.open(urls, timeout=60.0) as store:
        store["accounts"].update(dict.fromkeys(range(ACCOUNTS), SUM // ACCOUNTS))


def main(name: str, notes: Path, stop: Path, urls: list[str]) -> None:
    chance = random.Random(name)  # noqa: S311, repeatable
    number = 0
    with notes.open("a", 1) as lines:
        store = _opened(urls, stop)
        while store is not None and not stop.exists():
            number += 1
            _note(lines, "begun", number)
            again = _transfer(store, lines, (name, number), chance)
            if again is not None:  # the handle refuses further work
                store.close()
                store = _resolved(again, urls, stop, (lines, number))
        if store is not None:
            store.close()


def _opened(urls: list[str], stop: Path) -> cluster.ClusterStore | None:
    while not stop.exists():
        try:
            return cluster.open(urls, timeout=3.0)
        except (Busy, StoreIOError):
            continue
    return None


def _transfer(
    store: cluster.ClusterStore, lines: TextIO, which: tuple[str, int], chance: random.Random
) -> CommitOutcomeUnknown | None:
    name, number = which
    source, target = chance.sample(range(ACCOUNTS), 2)

    def move(txn: Transaction) -> None:
        txn.put("accounts", source, txn.get("accounts", source) - 1)
        txn.put("accounts", target, txn.get("accounts", target) + 1)
        txn.put("ledger", f"{name}-{number:06}", number)
        txn.put("counts", name, txn.get("counts", name, 0) + 1)

    try:
        if number % 5:
            store.run(move)
        else:
            with store.transaction() as txn:
                move(txn)
    except CommitOutcomeUnknown as e:
        _note(lines, "unknown", number)
        return e
    except (Busy, Conflict, StoreIOError):
        _note(lines, "not", number)
        return None
    _note(lines, "done", number)
    if number % 10 == 0:
        _read_back(store, which, lines)
    return None


def _resolved(
    error: CommitOutcomeUnknown, urls: list[str], stop: Path, noted: tuple[TextIO, int]
) -> cluster.ClusterStore | None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        store = _opened(urls, Path("/nonexistent"))
        assert store is not None
        try:
            _note(noted[0], "done" if store.committed(error) else "not", noted[1])
        except (Busy, Conflict, StoreIOError):
            store.close()
            continue
        return store
    return None


def _read_back(store: cluster.ClusterStore, which: tuple[str, int], lines: TextIO) -> None:
    """What a writer was told is done, it also reads."""
    name, number = which
    try:
        there = store.get("ledger", f"{name}-{number:06}")
    except Busy:
        return
    _note(lines, "read" if there == number else "unread", number)


def _note(lines: TextIO, word: str, number: int) -> None:
    lines.write(f"{word} {number} {time.monotonic()}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
