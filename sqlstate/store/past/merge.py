"""Merges a copy of a store that went its own way: a three-way merge from the last commit that both have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sqlstate.errors import InvalidOption, LogCut
from sqlstate.format.values import ABSENT, same
from sqlstate.store.access import entries_of, refuse_inside
from sqlstate.store.collection import encode
from sqlstate.store.entries import StoreEntries
from sqlstate.store.past import change
from sqlstate.store.past.at import OpenPast
from sqlstate.store.past.undo import in_one_commit
from sqlstate.store.snapshot import OpenSnapshot
from sqlstate.tables import cut_commits, merkle_diff, state, wal, wal_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlstate.format.names import Key, Name, Stored
    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Connection
    from sqlstate.store.past.undo import Put
    from sqlstate.store.snapshot import Snapshot
    from sqlstate.store.store import Store
    from sqlstate.tables.meta import Meta
    from sqlstate.tables.wal_changes import Logged, Touched

    Prefer = Literal["ours", "theirs"] | Callable[["Collision"], Any] | None
    Case = tuple[Name, Stored | None, Stored | None]


class Collision(NamedTuple):
    """An entry that both copies of a store changed since their last common commit, to different values.

    Examples:
        >>> _ = store.backup("copy.db")
        >>> store["users"][1] = "ada"
        >>> with sqlstate.open("copy.db") as copy:
        ...     copy["users"][1] = "eve"
        ...     report = sqlstate.merge(store, copy, prefer=lambda each: f"{each.ours} or {each.theirs}")
        >>> store["users"][1]
        'ada or eve'
    """

    collection: str
    """Name of the entry's collection."""
    key: Key
    """Key of the entry."""
    base: Any
    """Value in the last common commit, ABSENT for none; or REDACTED, where the logs have its digest alone."""
    ours: Any
    """Value in our store, or ABSENT."""
    theirs: Any
    """Value in the copy, or ABSENT."""


class MergeReport(NamedTuple):
    """What merge() did, or would do.

    Examples:
        >>> store["users"][1] = "ada"
        >>> _ = store.backup("copy.db")
        >>> with sqlstate.open("copy.db") as copy:
        ...     copy["users"][2] = "bob"
        ...     report = sqlstate.merge(store, copy)
        >>> report.common, report.applied, report.collisions, store["users"][2]
        (1, 1, [], 'bob')
    """

    common: int
    """Number of the last commit that both have."""
    head: Head
    """Our newest commit after it."""
    applied: int
    """Entries of ours that were changed."""
    collisions: list[Collision]
    """Entries that both changed to different values, in order, however they were decided."""


def merge(
    ours: Store, theirs: Store | Snapshot, *, prefer: Prefer = None, two_way: bool = False, dry_run: bool = False
) -> MergeReport:
    """Carry into our store what a copy of it changed since the two parted, in one commit. The copy is not changed.

    The last common commit is the base: an entry that only the copy changed gets the copy's value, one that only ours
    changed keeps ours. One that both changed to different values is a collision, which *prefer* decides.

    Cost: reads the records of both since the last common commit, and keeps the names of their entries; 1 commit.

    Args:
        ours: an open store.
        theirs: an open copy of it, or a snapshot of one: made by a backup, or with other tools when it was closed.
        prefer: "ours", or None, keeps our value; "theirs" takes the copy's; a function gets each Collision and returns
            the value, or ABSENT for no entry. It may be called again if ours was written to meanwhile.
        two_way: merge without the base, where a log was cut behind the last common commit. What only one side has is
            taken to be new there, so deleted entries come back; each entry that differs is a collision, with ABSENT as
            its base. The cost is that of diff().
        dry_run: change nothing, and report what would be.

    Raises:
        LogCut: one of the logs was cut behind the last common commit. Nothing was changed: see *two_way*.
        InvalidOption: they are not copies of one store, or an argument is none of the above.
        InvalidValue: the function returned what cannot be stored. Nothing was changed.
        StoreUnusable: this thread has a transaction or batch open.
        Damaged: a record of one of the logs is not as it was written. Nothing was changed.
        StoreError: what `Store.transaction()` raises. Nothing was changed.

    Examples:
        >>> store["users"].update({1: "ada", 2: "bob"})
        >>> _ = store.backup("copy.db")
        >>> store["users"][1] = "eve"
        >>> with sqlstate.open("copy.db") as copy:
        ...     copy["users"].update({1: "adele", 3: "cyd"})
        ...     report = sqlstate.merge(store, copy)
        >>> [(each.base, each.ours, each.theirs) for each in report.collisions]
        [('ada', 'eve', 'adele')]
        >>> dict(store["users"])
        {1: 'eve', 2: 'bob', 3: 'cyd'}
    """
    own, other = (entries_of(each) if hasattr(each, "_entries") else None for each in (ours, theirs))
    if not isinstance(own, StoreEntries):
        raise InvalidOption(f"{ours!r} is not a store")
    if not isinstance(other, StoreEntries | OpenSnapshot) or isinstance(other, OpenPast):
        raise InvalidOption(f"{theirs!r} is not a store or a snapshot of one")
    if prefer not in (None, "ours", "theirs") and not callable(prefer):
        raise InvalidOption(f'prefer={prefer!r} is not "ours", "theirs", None or a function')
    refuse_inside(own.writer, "merge")
    if ours.store_id != theirs.store_id:
        raise InvalidOption("these are not copies of one store: their ids differ; nothing was changed")
    taken = other.snapshot() if isinstance(other, StoreEntries) else other
    try:
        return _Merge(own, taken, prefer, two_way=two_way).run(dry_run=dry_run)
    finally:
        if taken is not other:
            taken.close()


class _Merge:
    """One merge: what was found, and how collisions were decided."""

    def __init__(self, ours: StoreEntries, theirs: OpenSnapshot, prefer: Prefer, *, two_way: bool) -> None:
        self._ours = ours
        self._theirs = theirs
        self._prefer = prefer
        self._two_way = two_way
        self._decided: dict[Case, Stored | None] = {}
        self._undecided: list[tuple[Case, Collision]] = []
        self._begin()

    def _begin(self) -> None:
        self._common = self._applied = 0
        self._collisions: list[Collision] = []

    def run(self, *, dry_run: bool) -> MergeReport:
        """Merge, or only find out what there is to merge."""
        while True:
            head = self._rehearse()
            if self._undecided:
                self._decide()  # while nobody waits for the writer lock
                continue
            if not dry_run:
                head = self._commit()
            if not self._undecided:
                return MergeReport(self._common, head, self._applied, self._collisions)

    def _rehearse(self) -> Head:
        snapshot = self._ours.snapshot()
        try:
            for _ in self._puts(snapshot.reader(), snapshot.head):
                pass
            return snapshot.head
        finally:
            snapshot.close()

    def _commit(self) -> Head:
        connection = self._ours.writer.engine.write_connection
        note = f"merge of commit {self._theirs.head.seq} of a copy"
        try:
            return in_one_commit(self._ours.group, note, lambda commit: self._puts(connection, commit.base, sure=True))
        except _Undecided as e:
            return e.head

    def _decide(self) -> None:
        for case, collision in self._undecided:
            value = self._prefer(collision) if callable(self._prefer) else ABSENT
            self._decided[case] = None if value is ABSENT else encode(case[0], value)
        self._undecided.clear()

    def _puts(self, ours: Connection, head: Head, *, sure: bool = False) -> Iterator[Put]:
        """Yield the entries of ours that change, and their values; count them, and collect the collisions.

        Raises:
            _Undecided: with *sure*, a collision has not been decided.
        """
        self._begin()
        theirs = self._theirs.reader()
        meta = self._ours.writer.meta
        self._common = _last_common(meta, (ours, head), (theirs, self._theirs.head))
        heads = head, self._theirs.head
        for name, base, our, their in (self._differing if self._two_way else self._changed)(ours, theirs, *heads):
            value = their if wal_changes.same(name, our, base) else self._collided((name, our, their), base)
            if same(our, value):
                continue
            self._applied += 1
            yield name, value
        if sure and self._undecided:
            raise _Undecided(head)

    def _changed(self, ours: Connection, theirs: Connection, our_head: Head, their_head: Head) -> Iterator[_Case]:
        """Yield each entry that theirs changed since the last common commit, as it was, and as both have it."""
        for connection in (ours, theirs):
            try:
                wal.check_kept(connection, self._common)
            except LogCut as e:
                do = "nothing was changed. To merge without what both had in common, ask for a two-way merge (two_way)"
                raise LogCut(connection.path, e.seq, e.oldest, do) from None
        changed = _touched(ours, self._common, our_head)
        for name, touch in sorted(_touched(theirs, self._common, their_head).items()):
            base, their = wal_changes.before(theirs, name, touch), state.get(theirs, name[0], name[2])
            if not wal_changes.same(name, base, their):
                our = state.get(ours, name[0], name[2])
                yield _Case(name, base if name in changed else our, our, their)

    @staticmethod
    def _differing(ours: Connection, theirs: Connection, our_head: Head, their_head: Head) -> Iterator[_Case]:
        """Yield each entry that theirs has, and ours has not or with another value."""
        trees = merkle_diff.Tree(ours, our_head.root), merkle_diff.Tree(theirs, their_head.root)
        for name in list(merkle_diff.differing(*trees)):  # our tree changes as soon as the first are written
            our, their = (state.get(each, name[0], name[2]) for each in (ours, theirs))
            if their is not None and not same(our, their):
                yield _Case(name, None, our, their)

    def _collided(self, case: Case, base: Logged) -> Stored | None:
        """Return the value of an entry that ours and theirs changed."""
        name, ours, theirs = case
        if same(ours, theirs):
            return ours
        shown = (change.shown_as(name, each) for each in (base, *case[1:]))
        collision = Collision(name[0], name[2], *shown)
        self._collisions.append(collision)
        if not callable(self._prefer):
            return theirs if self._prefer == "theirs" else ours
        if case not in self._decided:
            self._undecided.append((case, collision))
        return self._decided.get(case)


class _Case(NamedTuple):
    """An entry that may have to be changed: as it was, as ours has it and as theirs does."""

    name: Name
    base: Stored | None
    our: Stored | None
    their: Stored | None


class _Undecided(Exception):
    """Our store was written to meanwhile, and there are collisions that nobody has decided yet."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head


def _last_common(meta: Meta, ours: tuple[Connection, Head], theirs: tuple[Connection, Head]) -> int:
    """Return the number of the last commit that both have; the digest of each covers all before it."""
    low, high = 0, min(ours[1].seq, theirs[1].seq)
    while low < high:
        middle = (low + high + 1) // 2
        our, their = (cut_commits.chain(each, meta, middle) for each, _ in (ours, theirs))
        if our is not None and our == their:
            low = middle
        else:
            high = middle - 1
    return low


def _touched(connection: Connection, seq: int, head: Head) -> Touched:
    return wal_changes.together(connection, wal.commit_lsn(connection, seq), wal.commit_lsn(connection, head.seq))
