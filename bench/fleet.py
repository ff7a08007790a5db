"""One store of each kind, all with the same entries."""

from __future__ import annotations

import random
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import TYPE_CHECKING, Final

from bench.baselines import BASELINES
from bench.entries import batches, entries_of
from bench.measure import Blocks, Side, in_turns
from bench.report import Cell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bench.baselines import Baseline, Entry

_WEAR: Final = 10_000  # entries that one wearing in writes
_WEARS: Final = 60  # at most
_SIDECARS: Final = ("-wal", "-shm", "-journal")
_REST: Final = 0.02  # seconds for what a store still does behind its last commit


class Fleet:
    """Every kind of store whose package is installed, loaded with the same entries.

    Args:
        folder: where they are made.
        entries: how many.
        loads: in how many transactions.
        names: the kinds; all by default.
    """

    def __init__(self, folder: Path, entries: int, loads: int, names: Sequence[str] = tuple(BASELINES)) -> None:
        self.entries = entries
        self.stores: dict[str, Baseline] = {
            name: BASELINES[name].make(folder / f"fleet-{entries}-{name}")
            for name in names
            if not BASELINES[name].missing
        }
        self.loads: dict[str, Blocks]
        """What each transaction of the load took."""
        self.sizes: dict[str, int]
        """Bytes on disk after the load."""
        self._names = names
        self._open: set[str] = set()
        self._worn: set[str] = set()
        self._rng = random.Random(entries)
        self._load(loads)

    def open(self, *names: str, worn: bool = True) -> dict[str, Baseline]:
        """Return the stores of these kinds, or all, open; they stay so until close().

        Args:
            names: which; those that are missing are left out.
            worn: bring them first to where they are in a process that has run for a while: the -wal file of a
                store on SQLite has its full length then. While it grows, a sync costs about twice as much.
        """
        chosen = {name: self.stores[name] for name in names or self.stores if name in self.stores}
        for name, store in chosen.items():
            if name not in self._open:
                store.open()
                self._open.add(name)
            if worn and name not in self._worn:
                self._wear_in(store)
                self._worn.add(name)
        return chosen

    def close(self) -> None:
        """Close what is open."""
        while self._open:
            self.stores[self._open.pop()].close()
        self._worn.clear()

    def changes(self, number: int) -> list[Entry]:
        """Return *number* puts of random keys that are there, with new values."""
        return entries_of(self._rng.choices(range(self.entries), k=number), self._rng)

    def measure(
        self,
        sides: Mapping[str, Callable[..., object]],
        calls: Sequence[tuple[object, ...]],
        rounds: int,
        seconds: float,
    ) -> dict[str, Blocks]:
        """Let each side make the same *calls*, in turns of at most so many seconds."""
        return in_turns({name: Side(call, calls) for name, call in sides.items()}, rounds, seconds=seconds, rest=_REST)

    def lines(self, cells: Mapping[str, list[Cell]], *, every: bool = True) -> dict[str, list[Cell]]:
        """Return the lines of a sheet: those with cells, and a word for each kind that is missing.

        Args:
            cells: by kind, as many for each.
            every: whether kinds that are not durable belong to the sheet.
        """
        columns = max(map(len, cells.values()), default=0)
        found = {}
        for name in self._names:
            kind = BASELINES[name]
            if name in cells:
                found[kind.title] = cells[name]
            elif kind.missing and (every or kind.durable):
                found[kind.title] = [Cell("missing")] * columns
        return found

    def _load(self, loads: int) -> None:
        each = -(-self.entries // loads)
        calls = batches(range(self.entries), each, self._rng)
        sides = {name: Side(store.bulk, calls) for name, store in self.open(worn=False).items()}
        self.loads = in_turns(sides, len(calls), rest=_REST)
        self.close()
        self.sizes = {name: disk_bytes(store.path) for name, store in self.stores.items()}

    def _wear_in(self, store: Baseline) -> None:
        store.put(*self.changes(1)[0])
        numbers = range(min(self.entries, _WEAR))
        length = wal_bytes(store.path)
        for _ in range(_WEARS):
            if not length:
                return
            store.bulk(entries_of(numbers, self._rng))
            before, length = length, wal_bytes(store.path)
            if length == before:
                return


def wal_bytes(path: Path) -> int:
    """Return the length of the -wal file of a store on SQLite; 0 if it has none."""
    beside = [path.with_name(path.name + "-wal"), path / "cache.db-wal"]
    return sum(file.stat().st_size for file in beside if file.exists())


def disk_bytes(path: Path) -> int:
    """Return the bytes of a store's file with its sidecars, or of all in its folder."""
    files = path.rglob("*") if path.is_dir() else [path, *(path.with_name(path.name + end) for end in _SIDECARS)]
    return sum(file.stat().st_size for file in files if file.is_file())


def lock_of(name: str) -> AbstractContextManager[object]:
    """Return what threads hold around each put of a store of this kind."""
    return nullcontext() if BASELINES[name].threads == "own" else Lock()
