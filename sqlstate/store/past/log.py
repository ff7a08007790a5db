"""The size of the log: its limit, cuts by hand, and claims of those who follow the commits."""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sqlstate.commit.log_limit import advance
from sqlstate.errors import InvalidOption, LogCut
from sqlstate.format import constants as fmt
from sqlstate.format.names import check_collection, check_number
from sqlstate.store.access import in_one_write, note
from sqlstate.store.past.at import commit_at
from sqlstate.tables import claims, wal, wal_cut
from sqlstate.tables import meta as metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.commit.group import GroupCommit
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Connection


class CutReport(NamedTuple):
    """What `Store.cut()` did: a named tuple.

    Examples:
        >>> for lang in "fr", "de", "it":
        ...     store["settings"]["lang"] = lang
        >>> report = store.cut(before=3)
        >>> report.commits, report.oldest
        (2, 3)
    """

    commits: int
    """How many commits were cut."""
    oldest: int
    """Number of the oldest commit that is in the log now, or of the next one if there is none."""
    entry: int
    """Number of the audit entry; 0 if there was nothing to cut."""


class Claims(MutableMapping[str, int]):
    """Who follows the commits of a store, and the last one that each has: a mutable mapping, `store.claims`.

    Commits after the least of these numbers are not cut. A claim lasts until it is deleted: whoever stops following
    deletes the claim, or the log grows without bound. Each write is durable when it returns; an audit entry tells of
    the first one and of the end.

    Cost: 1 statement to read, 1 sync to write.

    Raises:
        InvalidName: a name is not text of 1 to 255 bytes.
        InvalidOption: there is no commit with that number.
        LogCut: later commits were cut already, so it has to begin anew.
        KeyError: there is no claim of that name.
        StoreError: what transaction() raises.

    Examples:
        >>> for lang in "fr", "de":
        ...     store["settings"]["lang"] = lang
        >>> store.claims["search index"] = 1
        >>> dict(store.claims)
        {'search index': 1}
        >>> [change.value for change in store.changes(after=store.claims["search index"])]
        ['de']
    """

    __slots__ = ("_group",)

    def __init__(self, group: GroupCommit[Any]) -> None:
        self._group = group

    def _read(self) -> dict[str, int]:
        with self._group.context.engine.reading() as connection:
            return claims.read(connection)

    def __getitem__(self, name: str) -> int:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return f"<sqlstate.Claims of {self._group.context.engine.path!r}>"

    def __setitem__(self, name: str, seq: int) -> None:
        check_collection(name)
        check_number("seq", seq)

        def claim(connection: Connection, head: Head) -> Literal[True] | None:
            if seq > head.seq:
                raise InvalidOption(f"there is no commit {seq} to claim: the newest is {head.seq}")
            wal.check_kept(connection, seq)
            before = claims.read(connection).get(name)
            if before == seq:
                return None
            claims.write(connection, name, seq)
            if before is None:
                note(self._group.context, head, ("setting", {"claim": name, "seq": seq}))
            return True

        in_one_write(self._group, "claims", claim)

    def __delitem__(self, name: str) -> None:
        def release(connection: Connection, head: Head) -> Literal[True]:
            del claims.read(connection)[name]
            claims.remove(connection, name)
            note(self._group.context, head, ("setting", {"claim": name, "seq": None}))
            return True

        in_one_write(self._group, "claims", release)


class Log:
    """What a Store knows of the size of its log."""

    _group: GroupCommit[Any]
    _writer: WriteContext

    @property
    def claims(self) -> Claims:
        """Who follows the commits, and the last one that each has: a mutable mapping. Later ones are not cut."""
        return Claims(self._group)

    @property
    def log_limit(self) -> int | None:
        """The size in bytes that the log is kept at; None keeps all of it. Cost: 1 statement."""
        with self._writer.engine.reading() as connection:
            return metadata.read_log_limit(connection)

    def set_log_limit(self, limit: int | None) -> None:
        """Set the size that the log is kept at, durably; an audit entry says so.

        Later commits cut the oldest ones, some at a time, until the log is as small. Not cut are the newest commit and
        what `claims` names. The limit counts the records, their values above all, and the 32 bytes that stay of each
        cut commit; an eighth of it is for the records in any case.

        Cost: 1 sync; a pass over the log, if an earlier version made a part of it.

        Args:
            limit: a number of bytes, 0 or more; None keeps all.

        Raises:
            InvalidOption: *limit* is not such a number.
            StoreUnusable: this thread has a transaction or batch open.
            StoreError: what transaction() raises.

        Examples:
            >>> store.set_log_limit(16 << 20)
            >>> store.log_limit
            16777216
        """
        check_log_limit(limit)
        context = self._writer

        def set_limit(connection: Connection, head: Head) -> Literal[True] | None:
            if context.log.bytes == limit:
                return None
            metadata.write_log_limit(connection, limit)
            first = _SIZED if context.log.start.lsn else next(wal.closing(connection, 1, 1), _SIZED)
            if limit is not None and first[-1] is None:
                metadata.write_log_unsized(connection, max(0, wal_cut.size(connection) - context.total))
            note(context, head, ("setting", {"log_limit": limit}))
            return True

        in_one_write(self._group, "set_log_limit", set_limit)

    def cut(self, before: int | datetime) -> CutReport:
        """Cut the oldest commits from the log, in one SQLite transaction with an audit entry.

        What they changed cannot be read, undone or looked back at any more. Of each, 32 bytes stay: heads that were
        signed before a cut verify as they did, and prove_consistency() goes back to any of them. Their room in the file
        is used again; compact() gives it back. Open staged transactions stay whole.

        Cost: writes 32 bytes for each commit, and removes its records; writers wait meanwhile.

        Args:
            before: number of the oldest commit to keep, 1 more than the newest's for none; or a datetime with a time
                zone, to keep those made since.

        Raises:
            InvalidOption: there is no such commit; the time has no time zone; or somebody claims a commit that would
                be cut. Nothing was changed.
            StoreUnusable: this thread has a transaction or batch open.
            Damaged: a commit that would be cut is not as it was written. Nothing was changed.
            StoreError: what transaction() raises.

        Examples:
            >>> for lang in "fr", "de", "it":
            ...     store["settings"]["lang"] = lang
            >>> store.cut(before=3).commits
            2
            >>> [head.seq for head in store.commits()]
            [3]
        """
        context = self._writer

        def cut(connection: Connection, head: Head) -> CutReport | None:
            start = context.log.start
            last = _last_before(connection, before, head.seq)
            if last <= start.head.seq:
                return None
            for name, seq in claims.read(connection).items():
                if seq < last:
                    raise InvalidOption(
                        f"{name!r} claims the commits after {seq}, so none after that can be cut; nothing was "
                        "changed. Delete its claim in store.claims if it follows no more"
                    )
            new = advance(connection, context.meta, start, last - start.head.seq)
            while new.removed < new.lsn:
                gone = wal_cut.remove(connection, new.removed, new.lsn, rows=_ROWS, size=fmt.INT_MAX)
                new = new._replace(removed=gone)
            metadata.write_log_start(connection, new)
            commits = new.head.seq - start.head.seq
            number = note(context, head, ("cut", {"commits": commits, "oldest": new.head.seq + 1}))
            return CutReport(commits, new.head.seq + 1, number)

        return in_one_write(self._group, "cut", cut) or CutReport(0, context.log.start.head.seq + 1, 0)


def check_log_limit(limit: int | None) -> None:
    """Raise InvalidOption unless *limit* is a number of bytes, or None."""
    if limit is not None and (type(limit) is not int or not 0 <= limit <= fmt.NUMBER_MAX):
        raise InvalidOption(f"log_limit={limit!r} is not a number of bytes, 0 or more, or None")


_SIZED = (0,)  # in the place of a first commit that is not there
_ROWS = 16_384  # that are removed at a time, so that their sizes take no memory


def _last_before(connection: Connection, before: int | datetime, newest: int) -> int:
    """Return the number of the last commit before a commit or a time."""
    if not isinstance(before, datetime):
        if check_number("before", before) > newest + 1:
            raise InvalidOption(f"there is no commit {before} to keep: the newest is {newest}")
        return before - 1
    try:
        earlier = before - timedelta(microseconds=1)
    except OverflowError:
        return 0
    try:
        return commit_at(connection, earlier, newest)
    except LogCut:
        return 0
