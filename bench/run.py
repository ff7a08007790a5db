"""One run of the benchmark: its scale, and the pairs of stores that its workloads share."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from bench.baselines import RawSQLite, Sqlstate
from bench.entries import batches, entries_of, key
from bench.fleet import Fleet
from bench.report import Goal
from sqlstate.sqlite.checkpoints import CHECKPOINT_PAGES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.baselines import Baseline, Entry

_WAL_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24


@dataclass(frozen=True, slots=True)
class Scale:
    """How much a run does."""

    tiny: int = 1_000
    """Entries of the store that opening a large one is compared with."""
    small: int = 10_000
    """Entries of the store that a put in a large one is compared with."""
    reference: int = 100_000
    """Entries of the stores that most figures are of."""
    large: int = 1_000_000
    bulk: int = 200_000
    """Entries of a bulk load."""
    batch: int = 10_000
    """Entries of one of its transactions."""
    operations: int = 12_000
    """Durable writes of each side for one figure beside raw SQLite."""
    passes: int = 4
    """Repetitions of a bulk load."""
    loads: int = 10
    """Transactions in which all kinds of store are loaded."""
    rounds: int = 15
    """Turns of each store, where many are compared."""
    puts: int = 200
    """Puts of one turn, at most."""
    turn: float = 0.5
    """Seconds of one turn, at most."""
    burst: float = 0.5
    """Seconds that a number of threads put."""
    threads: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    tail: int = 20_000
    """Puts that percentiles are of."""
    increments: int = 2_000
    """Transactions of each of several processes."""
    kills: int = 9
    """Times that a store is opened after a kill."""
    goals: bool = True
    """Whether the goals hold: they are for the sizes of FULL and QUICK."""

    @property
    def sizes(self) -> list[int]:
        """The sizes of stores that a put is measured in."""
        return sorted({self.small, self.reference, self.large})

    @classmethod
    def custom(cls, entries: int, operations: int) -> Scale:
        """Return the scale of a trial run; its figures are not held to the goals."""
        small = max(entries // 10, 1)
        return cls(
            small, small, entries, entries, 2 * entries, entries, operations, passes=1, loads=2, rounds=2,
            puts=operations // 2 or 1,
            burst=0.02, threads=(1, 4), tail=operations, increments=operations, kills=1, goals=False,
        )  # fmt: skip


FULL: Final = Scale()
QUICK: Final = Scale(
    large=100_000, operations=2_000, passes=1, loads=1, rounds=4, puts=100, turn=0.06, burst=0.1,
    threads=(1, 4, 16, 64), kills=1,
)  # fmt: skip


def wal_pages(path: Path) -> int:
    """Return how many pages the -wal file of a store has grown to.

    Unlike the main file, the -wal can be opened beside SQLite: it carries no locks.
    """
    file = path.with_name(path.name + "-wal")
    try:
        with file.open("rb") as wal:
            header = wal.read(_WAL_HEADER_BYTES)
            size = wal.seek(0, 2)
    except FileNotFoundError:
        return 0
    if len(header) < _WAL_HEADER_BYTES:
        return 0
    return (size - _WAL_HEADER_BYTES) // (_FRAME_HEADER_BYTES + int.from_bytes(header[8:12]))


class Pair:
    """sqlstate and raw SQLite with the same entries, at one size.

    Args:
        folder: where the two files are made.
        entries: how many.
        batch: entries of one transaction of the load.
    """

    def __init__(self, folder: Path, entries: int, batch: int) -> None:
        self.ours = Sqlstate(folder / f"sqlstate-{entries}.db")
        self.theirs = RawSQLite(folder / f"raw-{entries}.db")
        self.entries = entries
        self._batch = batch
        self._rng = random.Random(entries)
        self._state: Literal["closed", "open", "steady"] = "closed"
        self._load()
        self.loaded_sizes = self.file_sizes()
        """Bytes of the two files after the load."""

    def steady(self) -> tuple[Sqlstate, RawSQLite]:
        """Return both, open, as they are in a process that has run for a while.

        SQLite's WAL has then been written once to its full length, and commits overwrite it. Before that, each
        sync must record that the file has grown, and costs twice as much; as sqlstate writes more pages, it gets
        there sooner than raw SQLite does, and would look better than it is.
        """
        if self._state != "steady":
            ours, theirs = self.fresh()
            self._wear_in(ours)
            self._wear_in(theirs)
            self._state = "steady"
        return self.ours, self.theirs

    def fresh(self) -> tuple[Sqlstate, RawSQLite]:
        """Return both, just opened: SQLite's WAL is empty, and grows."""
        self.close()
        self.ours.open()
        self.theirs.open()
        self._state = "open"
        return self.ours, self.theirs

    def file_sizes(self) -> tuple[int, int]:
        """Return the bytes of the two files, which are closed."""
        return self.ours.path.stat().st_size, self.theirs.path.stat().st_size

    def close(self) -> None:
        """Close both cleanly."""
        if self._state != "closed":
            self._state = "closed"
            self.ours.close()
            self.theirs.close()

    def changes(self, number: int) -> list[tuple[str, bytes]]:
        """Return the arguments of *number* puts of random keys that are there, with new values."""
        return entries_of(self._rng.choices(range(self.entries), k=number), self._rng)

    def keys(self, number: int) -> list[tuple[str]]:
        """Return the arguments of *number* gets of random keys that are there."""
        return [(key(each),) for each in self._rng.choices(range(self.entries), k=number)]

    def additions(self, number: int) -> list[tuple[str, bytes]]:
        """Return the arguments of puts of *number* keys that are not there, or as many as there are entries."""
        places = self._rng.sample(range(self.entries), k=min(number, self.entries))
        return [(f"{name}+", value) for name, value in entries_of(places, self._rng)]

    def shuffled(self, additions: Sequence[Entry]) -> list[tuple[str]]:
        """Return the arguments of deletes of *additions*, in another random order."""
        return [(name,) for name, _ in self._rng.sample(additions, k=len(additions))]

    def _load(self) -> None:
        ours, theirs = self.fresh()
        for start in range(0, self.entries, self._batch):
            (((batch),),) = batches(range(self.entries)[start : start + self._batch], self._batch, self._rng)
            ours.bulk(batch)
            theirs.bulk(batch)
        self.close()

    def _wear_in(self, baseline: Baseline) -> None:
        numbers = range(min(self.entries, self._batch))
        while wal_pages(baseline.path) < CHECKPOINT_PAGES:
            baseline.bulk(entries_of(numbers, self._rng))


class Run:
    """What the workloads of one run share.

    Args:
        folder: an empty folder on the disk that is measured.
        scale: how much to do.
    """

    def __init__(self, folder: Path, scale: Scale) -> None:
        self.folder = folder
        self.scale = scale
        self.rng = random.Random(4)
        self._pairs: dict[int, Pair] = {}
        self._fleets: dict[int, Fleet] = {}

    def pair(self, entries: int) -> Pair:
        """Return the two stores with *entries* entries; they are made once."""
        for fleet in self._fleets.values():
            fleet.close()
        if entries not in self._pairs:
            self._pairs[entries] = Pair(self.folder, entries, self.scale.batch)
        return self._pairs[entries]

    def fleet(self, entries: int) -> Fleet:
        """Return one store of each kind with *entries* entries; they are made once."""
        self._close(but=entries)
        if entries not in self._fleets:
            self._fleets[entries] = Fleet(self.folder, entries, self.scale.loads)
        return self._fleets[entries]

    def goal(self, limit: float, of: Literal["ratio", "figure"] = "ratio", *, least: bool = False) -> Goal | None:
        """Return a goal, if the scale is one that goals are meant for."""
        return Goal(limit, of, least) if self.scale.goals else None

    def close(self) -> None:
        """Close all stores."""
        self._close(but=None)

    def _close(self, but: int | None) -> None:
        for pair in self._pairs.values():
            pair.close()
        for entries, fleet in self._fleets.items():
            if entries != but:
                fleet.close()
