"""Undo: new commits that take back what earlier ones did. Nothing in the log is rewritten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlstate.commit.commit import BUFFER_BYTES, BUFFER_ENTRIES, Commit
from sqlstate.errors import Conflict, InvalidOption, ValueRedacted
from sqlstate.format.merkle import Leaf
from sqlstate.format.names import check_number
from sqlstate.store.past import change
from sqlstate.store.past.at import commit_at
from sqlstate.store.transaction import check_note
from sqlstate.tables import wal, wal_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from sqlstate.commit.group import GroupCommit
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.format.names import Name, Stored
    from sqlstate.format.records import Head

    Put = tuple[Name, Stored | None]
    """An entry, and the value that it gets; None deletes it."""


def undo(group: GroupCommit[Any], seq: int, note: str) -> Head:
    """Take commit *seq* back, in a new commit; return that, or the newest if there is nothing to take back.

    Raises:
        Conflict: later commits changed entries of it. Nothing was changed.
    """
    check_number("seq", seq)
    return in_one_commit(group, note or f"undo of commit {seq}", lambda commit: _before(group.context, commit, seq))


def revert(group: GroupCommit[Any], to: int | datetime, note: str) -> Head:
    """Make the state equal to what it was, in a new commit; return that, or the newest if there is no difference."""
    return in_one_commit(group, note, lambda commit: _then(group.context, commit, to, note))


def in_one_commit(group: GroupCommit[Any], note: str, puts: Callable[[Commit], Iterable[Put]]) -> Head:
    """Write what *puts* yields in a commit of its own; return that, or the newest if nothing differs.

    Args:
        group: of the store.
        note: for the log.
        puts: called once with the commit, which has begun: nobody else writes from then on.
    """
    context = group.context
    check_note(note)
    context.nothing_made()
    try:
        with group.writing():
            commit = Commit(context, note)
            part: dict[Name, Stored | None] = {}
            size = 0
            for name, value in puts(commit):
                part[name] = value
                size += len(value or "")
                if len(part) >= BUFFER_ENTRIES or size >= BUFFER_BYTES:
                    commit.apply(part)
                    part, size = {}, 0
            commit.apply(part)
            return commit.finish() or commit.base
    except BaseException as e:
        context.note_outcome(e)
        raise


def _before(context: WriteContext, commit: Commit, seq: int) -> Iterator[Put]:
    """Yield what the entries of commit *seq* were before it, if they are now what it made them."""
    connection, newest = context.engine.write_connection, commit.base.seq
    if not 0 < seq <= newest:
        raise InvalidOption(f"there is no commit {seq} to undo: the newest is {newest}")
    wal.check_kept(connection, seq - 1)
    touched = wal_changes.together(connection, wal.commit_lsn(connection, seq - 1), wal.commit_lsn(connection, seq))
    conflicts: list[Name] = []
    unknown: list[Name] = []
    for name, touch in touched.items():
        before, value = wal_changes.values(connection, name, touch)
        if wal_changes.same(name, before, value):
            continue
        if not wal_changes.same(name, commit.get(name), value):
            conflicts.append(name)
        elif type(before) is Leaf:
            unknown.append(name)
    if conflicts:
        name = min(conflicts)
        expected, actual = (
            change.shown_as(name, each)
            for each in (wal_changes.values(connection, name, touched[name])[1], commit.get(name))
        )
        raise Conflict(name[0], name[2], expected, actual, [(name[0], name[2]) for name in sorted(conflicts)])
    _refuse(unknown)
    for name, touch in touched.items():
        before, value = wal_changes.values(connection, name, touch)
        if not wal_changes.same(name, before, value):
            yield name, before


def _then(context: WriteContext, commit: Commit, to: int | datetime, note: str) -> Iterator[Put]:
    """Yield what the entries that were changed since commit *to* were then."""
    connection, newest = context.engine.write_connection, commit.base.seq
    seq = commit_at(connection, to, newest)
    wal.check_kept(connection, seq)
    commit.begin(note or f"revert to commit {seq}")
    spans = wal.commit_lsn(connection, seq), wal.commit_lsn(connection, newest)
    touched = wal_changes.together(connection, *spans)
    _refuse([name for name, touch in touched.items() if type(wal_changes.before(connection, name, touch)) is Leaf])
    for name, touch in touched.items():
        yield name, wal_changes.before(connection, name, touch)


def _refuse(unknown: list[Name]) -> None:
    """Raise ValueRedacted if there are entries whose value is needed and not known."""
    if unknown:
        names = [(name[0], name[2]) for name in sorted(unknown)]
        raise ValueRedacted(*names[0], names)
