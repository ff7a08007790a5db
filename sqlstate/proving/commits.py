"""Proofs that a commit is in the log over the commits, and that this log only grew.

The log is that of RFC 6962: leaf n-1 is made of the chain of commit n (docs/reference/file-format.md, section 7.1).
Its formulas are `headlog`'s. Here is where its digests come from: the chains in the table wal, and, of complete blocks
of commits, the table log_blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlstate import headlog
from sqlstate.errors import Damaged, InvalidOption
from sqlstate.format import constants as fmt
from sqlstate.format.records import chain_next
from sqlstate.proof import Proof
from sqlstate.tables import cut_commits, log_blocks, wal, wal_chain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.commit.group import GroupCommit
    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Connection
    from sqlstate.tables.meta import Meta


class History:
    """The log over a store's commits, as one connection sees it.

    Args:
        connection: inside a transaction, so that all of it is of one committed state.
        meta: the store's facts.
        stored: take the digests of complete blocks from the table; False computes each from the chains.

    Raises:
        Damaged: the newest commit or a row of log_blocks is not what it must be.
    """

    __slots__ = ("_blocks", "_connection", "_meta", "_stored", "newest")

    newest: int
    """Number of the newest commit: how large the log can be."""

    def __init__(self, connection: Connection, meta: Meta, *, stored: bool = True) -> None:
        self._connection = connection
        self._meta = meta
        self.newest = wal.last(connection, meta)[1].seq
        self._blocks: dict[int, bytes] = dict(enumerate(log_blocks.read(connection, self.newest))) if stored else {}
        self._stored = len(self._blocks)

    def root(self, size: int) -> bytes:
        """Return the root of the log of the first *size* commits.

        Raises:
            InvalidOption: the store has fewer commits.
            Damaged: a commit in the log is not what it must be.
        """
        _check_number("size", size, (0, self.newest))
        return self.subtree(0, size)

    def subtree(self, start: int, stop: int) -> bytes:
        """Return the tree hash of the leaves [start, stop), of the commits with a number from start + 1 to stop.

        Raises:
            Damaged: a commit in the log is not what it must be.
        """
        leaves = stop - start
        aligned = start % fmt.LOG_BLOCK == 0
        if aligned and leaves == fmt.LOG_BLOCK:
            return self._block(start // fmt.LOG_BLOCK)
        if not aligned or leaves < fmt.LOG_BLOCK:
            return headlog.tree_hash(list(self._leaves(start, stop)))
        # Where RFC 6962 cuts it in two: both parts are aligned.
        middle = start + (1 << (leaves - 1).bit_length() - 1)
        return headlog.node_hash(self.subtree(start, middle), self.subtree(middle, stop))

    def missing(self, size: int) -> int:
        """Return how many complete blocks of the first *size* commits are not in the table yet."""
        return max(0, size // fmt.LOG_BLOCK - self._stored)

    def commit_body(self, seq: int) -> bytes:
        """Return what a proof about commit *seq* says of it: the body of the proof, without the path.

        Args:
            seq: of the commit.

        Raises:
            InvalidOption: there is no such commit.
            LogCut: it was cut from the log.
            Damaged: the commit is not what it must be, or does not follow from the one before.
        """
        _check_number("seq", seq, (1, self.newest))
        wal.check_kept(self._connection, seq - 1)
        before = cut_commits.chain(self._connection, self._meta, seq - 1)
        if before is None:
            raise _damaged(self._connection, f"I4: commit {seq - 1} is missing from the log or malformed")
        said = self._commit(seq)
        records = wal_chain.records_digest(self._connection, seq)
        if not records or chain_next(before, said[:4], records) != said.chain:
            raise _damaged(self._connection, f"I6: commit {seq} does not follow from the one before")
        at = said.at.encode()
        count = said.count.to_bytes(fmt.COUNT_BYTES)
        return b"".join((before, said.root, count, len(at).to_bytes(4), at, records))

    def check_block(self, seq: int) -> None:
        """Compare the block that commit *seq* stands in, if it is in the table, with the chains.

        Raises:
            Damaged: it is another.
        """
        block = (seq - 1) // fmt.LOG_BLOCK
        if block in self._blocks and self._blocks[block] != self._computed(block):
            raise _damaged(self._connection, f"I13: block {block} of log_blocks is not that of its commits")

    def computed(self) -> Iterator[tuple[int, bytes]]:
        """Yield (number, digest) of each complete block that is not in the table.

        Raises:
            Damaged: a commit in the log is not what it must be.
        """
        for block in range(self._stored, self.newest // fmt.LOG_BLOCK):
            yield block, self._computed(block)

    def _block(self, block: int) -> bytes:
        digest = self._blocks.get(block)
        if digest is None:
            digest = self._blocks[block] = self._computed(block)
        return digest

    def _computed(self, block: int) -> bytes:
        start = block * fmt.LOG_BLOCK
        return headlog.tree_hash(list(self._leaves(start, start + fmt.LOG_BLOCK)))

    def _leaves(self, start: int, stop: int) -> Iterator[bytes]:
        return map(headlog.leaf_hash, cut_commits.chains(self._connection, self._meta, start + 1, stop + 1))

    def _commit(self, seq: int) -> Head:
        head = wal.commit(self._connection, seq)
        if head is None:
            raise _damaged(self._connection, f"I4: commit {seq} is missing from the log or malformed")
        return head


def prove_commit(connection: Connection, meta: Meta, seq: int, size: int) -> Proof:
    """Return the proof of what commit *seq* is, against the root of the log of the first *size* commits.

    Args:
        connection: inside a transaction.
        meta: the store's facts.
        seq: from 1 to *size*.
        size: at most the number of the newest commit.

    Raises:
        InvalidOption: *seq* or *size* is outside that.
        Damaged: a commit in the log, or a row of log_blocks, is not what it must be.
    """
    history = History(connection, meta)
    _check_number("size", size, (1, history.newest))
    _check_number("seq", seq, (1, size))
    body = history.commit_body(seq)
    history.check_block(seq)
    return Proof("commit", body + b"".join(headlog.inclusion_path(history.subtree, seq - 1, size)))


def prove_consistency(connection: Connection, meta: Meta, old: int, new: int) -> Proof:
    """Return the proof that the log of the first *new* commits begins with that of the first *old* ones.

    Args:
        connection: inside a transaction.
        meta: the store's facts.
        old: from 0 to *new*.
        new: at most the number of the newest commit.

    Raises:
        InvalidOption: *old* or *new* is outside that.
        Damaged: a commit in the log, or a row of log_blocks, is not what it must be.
    """
    history = History(connection, meta)
    _check_number("new", new, (0, history.newest))
    _check_number("old", old, (0, new))
    if old in (0, new):
        return Proof("consistency", b"")
    for seq in (old, new):
        history.check_block(seq)
    return Proof("consistency", b"".join(headlog.consistency_path(history.subtree, old, new)))


def extend(group: GroupCommit[Any]) -> int:
    """Write the complete blocks that the table lacks, in one SQLite transaction, and return how many there were.

    They are computed before, so that other writers wait for the writing alone; with nothing to write they do not
    wait at all. No numbered commit is made.

    Raises:
        Busy, StoreFull: nothing was written.
        StoreUnusable: this thread has a transaction open.
        ReadOnly: the store was opened for reading.
        Damaged: a commit in the log, or a row of log_blocks, is not what it must be.
        StoreIOError: as WriteContext.commit_unnumbered().
    """
    context, engine = group.context, group.context.engine
    engine.life.check_writable()
    with engine.reading() as reader:
        rows = list(History(reader, context.meta).computed())
    if not rows:
        return 0
    with group.writing():
        context.dirty_flag.begin()
        rows = log_blocks.append(engine.write_connection, rows)
        if rows:
            context.commit_unnumbered(f"log block {rows[-1][0]}")
    return len(rows)


def _damaged(connection: Connection, what: str) -> Damaged:
    rule, _, rest = what.partition(": ")
    return Damaged.found(connection.path, rest, rule)


def _check_number(name: str, number: int, limits: tuple[int, int]) -> None:
    low, high = limits
    if type(number) is not int or not low <= number <= high:
        raise InvalidOption(f"{name}={number!r} is not the number of a commit from {low} to {high}")
