"""The table cut_commits: the chains of the commits that were cut (docs/reference/file-format.md, section 3.9).

And the chain of any commit, whether its records are in the log or not.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from sqlstate.errors import Damaged
from sqlstate.format import constants as fmt
from sqlstate.format.records import chain_zero
from sqlstate.tables import meta as metadata
from sqlstate.tables import wal, wal_chain
from sqlstate.tables.raw_rows import is_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlstate.sqlite.connection import Connection
    from sqlstate.tables.meta import Meta

_ROW: Final = "SELECT chains, digest FROM cut_commits WHERE block = ?"
_ROWS: Final = "SELECT block, chains, digest FROM cut_commits ORDER BY block"
_WRITE: Final = "INSERT OR REPLACE INTO cut_commits (block, chains, digest) VALUES (?, ?, ?)"
_ROW_BYTES: Final = fmt.LOG_BLOCK * fmt.DIGEST_BYTES


def append(connection: Connection, seq: int, chains: Sequence[bytes]) -> None:
    """Add the chains of the commits from number *seq* on, which are the next, inside the caller's transaction.

    Raises:
        Damaged: the newest row is not what it must be.
    """
    block, there = divmod(seq - 1, fmt.LOG_BLOCK)
    packed = _chains(connection, block) if there else b""
    if len(packed) != there * fmt.DIGEST_BYTES:
        raise _damaged(connection, f"row {block} of cut_commits does not end with commit {seq - 1}")
    packed += b"".join(chains)
    parts = (packed[start : start + _ROW_BYTES] for start in range(0, len(packed), _ROW_BYTES))
    connection.run_many(_WRITE, [(number, part, digest(number, part)) for number, part in enumerate(parts, block)])


def digest(block: int, chains: bytes) -> bytes:
    """Return the digest of the row *block* with these chains."""
    return sha256(fmt.TAG_CUT + block.to_bytes(8) + chains).digest()


def chain(connection: Connection, meta: Meta, seq: int) -> bytes | None:
    """Return the chain of commit *seq*, cut or not, that of the empty store for 0; None if there is no such commit.

    Raises:
        Damaged: a row on the way is not what it must be.
    """
    if not seq:
        return chain_zero(meta.store_id)
    if seq > wal.start(connection, meta)[1].seq:
        there = wal.commit(connection, seq)
        return None if there is None else there.chain
    return next(_cut(connection, seq, seq + 1))


def chains(connection: Connection, meta: Meta, first: int, stop: int) -> Iterator[bytes]:
    """Yield the chains of the commits [first, stop), all of which must exist, cut or not.

    Raises:
        Damaged: a commit is missing, or its chain is malformed.
    """
    kept = wal.start(connection, meta)[1].seq + 1
    yield from _cut(connection, first, min(stop, kept))
    if stop > kept:
        yield from wal_chain.chains(connection, max(first, kept), stop)


def holds(connection: Connection, chain: bytes) -> bool:
    """Return True if a commit with this chain was cut. Cost: reads all that stays of cut commits."""
    return connection.value("SELECT 1 FROM cut_commits WHERE instr(chains, ?) LIMIT 1", (chain,)) is not None


def check_end(connection: Connection) -> None:
    """Raise unless the newest commit that was cut is the one behind which the log begins.

    Raises:
        Damaged: it is another, or a row is not what it must be.
    """
    start = metadata.read_log_start(connection)
    newest = connection.value("SELECT max(block) FROM cut_commits")
    if start is None and newest is None:
        return
    seq = 0 if start is None else start.head.seq
    ends = seq and newest == (seq - 1) // fmt.LOG_BLOCK
    if start is None or not ends or next(_cut(connection, seq, seq + 1)) != start.head.chain:
        raise _damaged(connection, f"cut_commits does not end with commit {seq}, behind which the log begins")


def rows(connection: Connection) -> Iterator[tuple[Any, ...]]:
    """Yield (block, chains, digest) of each row, in order, whatever is in it."""
    return connection.iterate(_ROWS)


def _cut(connection: Connection, first: int, stop: int) -> Iterator[bytes]:
    while first < stop:
        block, skipped = divmod(first - 1, fmt.LOG_BLOCK)
        packed = _chains(connection, block)
        found = [packed[at : at + fmt.DIGEST_BYTES] for at in range(0, len(packed), fmt.DIGEST_BYTES)]
        found = found[skipped : skipped + stop - first]
        if not found:
            raise _damaged(connection, f"row {block} of cut_commits does not hold commit {first}")
        yield from found
        first += len(found)


def _chains(connection: Connection, block: int) -> bytes:
    packed, said = connection.row(_ROW, (block,)) or (None, None)
    if type(packed) is not bytes or not is_digest(said) or said != digest(block, packed):
        raise _damaged(connection, f"row {block} of cut_commits is missing or is not what was written")
    return packed


def _damaged(connection: Connection, what: str) -> Damaged:
    return Damaged.found(connection.path, what, "I15")
