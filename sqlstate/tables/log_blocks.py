"""The table log_blocks: digests of complete blocks of commits (docs/reference/file-format.md, section 7.1).

A commit never writes it: a handle that makes a proof, and may write, fills in the missing blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlstate.errors import Damaged
from sqlstate.format import constants as fmt
from sqlstate.tables.raw_rows import is_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlstate.sqlite.connection import Connection

_STORED: Final = "SELECT block, digest FROM log_blocks ORDER BY block"
_STORED_COUNT: Final = "SELECT count(*) FROM log_blocks"
_STORE: Final = "INSERT INTO log_blocks (block, digest) VALUES (?, ?)"


def trim(connection: Connection, seq: int) -> None:
    """Remove the blocks that reach beyond commit *seq*, inside the caller's transaction.

    For a file that was left in the middle of a checkpoint, with the newest blocks and without their commits. With 0,
    for a file whose blocks are wrong: they are computed again when a proof needs them.
    """
    connection.run("DELETE FROM log_blocks WHERE block >= ?", (seq // fmt.LOG_BLOCK,))


def read(connection: Connection, seq: int) -> list[bytes]:
    """Return the digests in the table, in order, of a store whose newest commit is *seq*."""
    found: list[bytes] = []
    for block, digest in connection.rows(_STORED):
        if block != len(found) or not is_digest(digest):
            raise _damaged(connection, f"block {block} of log_blocks is not the digest of block {len(found)}")
        found.append(digest)
    if len(found) > seq // fmt.LOG_BLOCK:
        raise _damaged(connection, f"log_blocks has {len(found)} blocks, and {seq} commits have fewer")
    return found


def append(connection: Connection, blocks: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Insert those of *blocks*, (number, digest) of each, that the table lacks; return them.

    Runs inside the caller's transaction. Another handle may have inserted some; I13 allows no holes.
    """
    stored = connection.value(_STORED_COUNT)
    missing = [block for block in blocks if block[0] >= stored]
    connection.run_many(_STORE, missing)
    return missing


def _damaged(connection: Connection, what: str) -> Damaged:
    return Damaged.found(connection.path, what, "I13")
