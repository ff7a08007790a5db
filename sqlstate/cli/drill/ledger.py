"""What must be in the store: what each writer said, and what the log says."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlstate.cli.drill.writer import ACCOUNTS, BALANCE, NAMES
from sqlstate.format.merkle import RootBuilder, rank
from sqlstate.format.names import name_bytes, stored_name
from sqlstate.format.records import Kind, chain_next, chain_zero, leaves, record_bytes
from sqlstate.store.access import entries_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlstate.cli.drill.report import DrillReport
    from sqlstate.cli.drill.writer import Put
    from sqlstate.format.names import Key, Stored
    from sqlstate.format.records import Head, Record
    from sqlstate.store.snapshot import Snapshot
    from sqlstate.store.store import Store


class Found(NamedTuple):
    """A commit as the log has it."""

    seq: int
    puts: list[Put]


class Ledger:
    """One writer: what it said, and what of it was found in the store."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.found: dict[int, Found] = {}
        self.drafts: dict[int, list[Put]] = {}
        self.undone: set[int] = set()
        """Drafts that it was going to roll back."""
        self.in_doubt: int | None = None
        """Number of the commit that is there, and had not returned when the writer was killed."""
        self._told: dict[int, list[Put]] = {}
        self._done: dict[int, int] = {}
        self._last = 0

    def hear(self, lines: Iterable[Any]) -> None:
        """Note what it said."""
        for what, number, *rest in lines:
            if what == "told":
                self._told[number] = _puts(rest[0])
            elif what == "done":
                self._done[number] = rest[0]
            elif what == "draft":
                self.drafts[number] = []
            elif what == "drafted":
                self.drafts[number] += _puts(rest)
            else:
                self.undone.add(number)

    def settle(self, tally: DrillReport, *, dead: bool) -> Iterator[str]:
        """Compare, count, forget what is settled, and yield what is wrong."""
        for count, seq in sorted(self._done.items()):
            there, told = self.found.pop(count, None), self._told.pop(count)
            tally.acknowledged += 1
            self._last = count
            if there is None:
                tally.lost += 1
                yield f"commit {seq}, the {count}. of writer {self.number}, was acknowledged and is not there"
            elif there != (seq, told):
                tally.lost += 1
                yield (
                    f"commit {seq}, the {count}. of writer {self.number}, is not what was acknowledged: "
                    f"commit {there.seq} has {there.puts!r} instead of {told!r}"
                )
        self._done.clear()
        if not dead:
            return
        for count, told in self._told.items():
            there = self.found.pop(count, None)
            self.in_doubt = there and there.seq
            tally.in_doubt_there += there is not None
            tally.in_doubt_gone += there is None
            if count != self._last + 1 or (there is not None and there.puts != told):
                yield f"the commit in doubt of writer {self.number}, its {count}., is {there}, and it told {told!r}"
        for count, there in self.found.items():
            yield f"commit {there.seq} says that it is the {count}. of writer {self.number}, which never told of it"


def _puts(told: Iterable[Any]) -> list[Put]:
    """Return puts as the log has them: sorted, one for each entry."""
    newest = {(collection, key): value for collection, key, value in told}
    return [(*name, newest[name]) for name in sorted(newest, key=repr)]


def _value(stored: Stored | None) -> Any:
    return json.loads(stored) if isinstance(stored, str) else stored


class Replay:
    """The store as its log says that it must be. Each record is read once."""

    def __init__(self, store_id: bytes) -> None:
        self.entries: dict[tuple[str, Key], tuple[Stored, bytes, int]] = {}
        self.ended: dict[int, tuple[Kind, list[Put]]] = {}
        """Staged transactions that have ended since the last check: how, and what was in them."""
        self.open: dict[int, list[Record]] = {}
        self._lsn = 0
        self._seq = 0
        self._chain = chain_zero(store_id)

    def follow(self, store: Store, head: Head) -> Iterator[Found | str]:
        """Read on in the log up to *head*; yield each commit, and what is wrong with it."""
        for record in store.wal.read(self._lsn):
            if (record.seq or 0) > head.seq:
                break  # made since
            self._lsn = record.lsn
            if record.kind is Kind.BEGIN:
                self.open[record.txn] = [record]
                continue
            records = self.open.setdefault(record.txn, [])
            records.append(record)
            if record.kind in (Kind.PUT, Kind.DELETE):
                continue
            del self.open[record.txn]
            puts = _puts((each.collection, each.key, _value(each.value)) for each in records[1:-1])
            if record.session is not None:
                self.ended[record.txn] = record.kind, puts
            if record.kind is Kind.COMMIT:
                yield from self._apply(record, records)
                yield Found(self._seq, puts)
        if (self._seq, self._chain) != (head.seq, head.chain):
            yield f"the log ends with commit {self._seq}, and the head is commit {head.seq}, or has another chain"

    def _apply(self, commit: Record, records: Sequence[Record]) -> Iterator[str]:
        digest = sha256(b"".join(record_bytes(record) for record in records)).digest()
        self._seq += 1
        facts = (self._seq, commit.root or b"", commit.count or 0, commit.at or "")
        self._chain = chain_next(self._chain, facts, digest)
        if (commit.seq, commit.chain) != (self._seq, self._chain):
            yield f"commit {commit.seq} does not follow from its records and commit {self._seq - 1}"
        for record in records[1:-1]:
            assert record.collection is not None and record.key is not None  # noqa: S101, PT018, for the type checker
            name = record.collection, record.key
            there = self.entries.pop(name, None)
            raw = name_bytes(stored_name(*name))
            before, after = leaves(raw, record.before, record.value, record.digests)
            if (None if there is None else there[1]) != before:
                yield f"record {record.lsn} was made without knowing what was there: an update is lost"
            if record.value is not None and after is not None:
                self.entries[name] = record.value, after, rank(raw) if there is None else there[2]

    def compare(self, view: Snapshot) -> Iterator[str]:
        """Yield what differs in the entries of *view*, and whether its root is theirs."""
        root = RootBuilder()
        count = balances = 0
        for collection, key, stored in entries_of(view).scan_all():
            there = self.entries.get((collection, key))
            count += 1
            if there is None or there[0] != stored:
                yield f"{collection!r}[{key!r}] is not what the log says"
                continue
            root.add(there[1], there[2])
            if collection == ACCOUNTS:
                balances += json.loads(stored)["balance"]
        if count != len(self.entries) or count != view.head.count:
            yield f"there are {count} entries; the log has {len(self.entries)}, and the head {view.head.count}"
        if balances != len(NAMES) * BALANCE:
            yield f"the accounts hold {balances}, not {len(NAMES) * BALANCE}"
        if root.finish() != (view.head.root, count):
            yield "the root is not that of the entries"
