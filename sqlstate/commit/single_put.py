"""Puts one entry in a commit of its own, in one pass: the most frequent commit."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from sqlstate.commit.clock import now
from sqlstate.commit.commit import Commit
from sqlstate.format.merkle import leaf, rank
from sqlstate.format.names import name_bytes
from sqlstate.format.records import Head, Kind, chain_next, short_bytes
from sqlstate.format.values import same
from sqlstate.tables import state, wal

if TYPE_CHECKING:
    from sqlstate.commit.node_cache import Leaves
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.format.names import Name, Stored


def put_one(context: WriteContext, name: Name, after: Stored) -> Head | None:
    """Put one entry in a transaction and commit of its own; the caller holds the engine's writer lock.

    A changed value, or a new key that starts no run of the tree, takes one pass: 8 or 9 statements, and one digest a
    level besides the entry's. Everything else is left to Commit.
    """
    connection = context.engine.write_connection
    lsn, base = context.begin()
    try:
        before, found = context.node_cache.find(connection, name, base)
        if not same(before, after):
            head = _put(context, lsn, base, name, (before, after), found)
            if head is not None:
                return head
        commit = Commit(context, begun=(lsn, base))
        commit.apply({name: after})
        return commit.finish()
    except BaseException:
        if context.engine.usable:
            connection.rollback()
        raise


def _put(
    context: WriteContext, lsn: int, base: Head, name: Name, values: tuple[Stored | None, Stored], found: Leaves | None
) -> Head | None:
    """Make the commit, or return None, with nothing written, if the shape of the tree changes."""
    connection, raw, (before, after) = context.engine.write_connection, name_bytes(name), values
    leaf_before, leaf_after = None if before is None else leaf(raw, before), leaf(raw, after)
    if leaf_before is not None:
        root: bytes | None = context.node_cache.replace(connection, name, (leaf_before, leaf_after), found, base)
        state.replace(connection, name, after)
    else:
        root = None if rank(raw) else context.node_cache.insert(connection, name, leaf_after, found, base)
        if root is None:
            return None
        state.put(connection, name, after)
    assert root is not None  # noqa: S101, for the type checker
    txn = lsn + 1
    facts = (base.seq + 1, root, base.count + (before is None), now())  # I4
    records = sha256(short_bytes(txn, leaf_before, leaf_after)).digest()
    head = Head(*facts, chain_next(base.chain, facts, records))
    wal.write_short(connection, txn, (Kind.PUT, name[0], name[2], after, before), head)
    context.commit(head, txn + 2)
    context.node_cache.valid_for(head.chain)
    return head
