"""Changes one entry in a commit of its own, in one pass: the most frequent commits of all."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from sqlstate.commit.clock import now
from sqlstate.commit.commit import Commit
from sqlstate.format.merkle import as_leaf, leaf, rank
from sqlstate.format.names import name_bytes
from sqlstate.format.records import Head, Kind, chain_next, marks_of, short_bytes
from sqlstate.tables import merkle, state, wal

if TYPE_CHECKING:
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.format.names import Name, Stored


def change_one(context: WriteContext, name: Name, after: Stored | None) -> tuple[bool, Head | None]:
    """Put one entry, or delete it where *after* is None, in a transaction and commit of its own.

    Does in one pass what Commit does for any number of entries, unless the shape of the tree changes: 8 or 9
    statements and, besides the entry's, one digest a level. The caller holds the writer lock.

    Returns whether there was an entry; and the new head, None if nothing changed.
    """
    connection, cache = context.engine.write_connection, context.node_cache
    lsn, base = context.begin()
    try:
        cache.use(base.chain)
        before, run = merkle.value_and_run(connection, name)
        if before == after and type(before) is type(after):
            connection.rollback()
            return before is not None, None
        raw = name_bytes(name)
        root = None
        if run is not None and ((before is not None and after is not None) or not rank(raw)):
            leaf_before = None if before is None else leaf(raw, before)
            leaf_after = None if after is None else leaf(raw, after)
            root = cache.change(connection, name, run, (leaf_before, leaf_after), base.root)
        elif before is not None and after is not None:
            raise merkle.other_root(connection)
        if root is None:
            commit = Commit(context, begun=(lsn, base))
            commit.apply({name: after})
            return before is not None, commit.finish()
        txn, count = lsn + 1, base.count + (before is None) - (after is None)
        facts = (base.seq + 1, root, count, now())  # I4
        records = sha256(short_bytes(txn, leaf_before, leaf_after)).digest()
        head = Head(*facts, chain_next(base.chain, facts, records))
        kind = Kind.DELETE if after is None else Kind.PUT
        logged: tuple[Stored | None, Stored | None, int | None] = after, before, None
        if name[0] in context.digest_logs:
            new, old = as_leaf(leaf_after), as_leaf(leaf_before)
            logged = new, old, marks_of(old, new)
        total = context.total + wal.TRANSACTION_BYTES + wal.size_of_change(raw, *logged[:2])
        wal.write_short(connection, txn, (kind, name[0], name[2], *logged), (*head, records, total))
        there, before = before is not None, None  # a large value is not held any longer than it is needed
        state.write_one(connection, name, after, there=there)
        context.commit(head, txn + 2, total)
        cache.valid_for(head.chain)
    except BaseException:
        if context.engine.usable:
            connection.rollback()
        raise
    return there, head
