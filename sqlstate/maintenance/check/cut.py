"""Checks what stays of the commits that were cut from the log, and where the log begins (I15)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlstate.format import constants as fmt
from sqlstate.format.records import chain_next
from sqlstate.tables import claims, cut_commits
from sqlstate.tables import meta as metadata
from sqlstate.tables.raw_rows import is_digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.sqlite.connection import Connection
    from sqlstate.tables.meta import Meta

_ROW_BYTES: Final = fmt.LOG_BLOCK * fmt.DIGEST_BYTES


def wrong_cut(connection: Connection, meta: Meta) -> Iterator[str]:
    """Yield what is wrong, a sentence each."""
    start = metadata.read_log_start(connection)
    seq = 0 if start is None else start.head.seq
    found = 0
    for expected, (block, chains, digest) in enumerate(cut_commits.rows(connection)):
        if block != expected:
            yield f"row {block} of cut_commits stands where row {expected} must be"
            return
        size = min(_ROW_BYTES, seq * fmt.DIGEST_BYTES - found)
        if type(chains) is not bytes or not is_digest(digest) or digest != cut_commits.digest(block, chains):
            yield f"row {block} of cut_commits is not what was written"
        elif len(chains) != size:
            yield f"row {block} of cut_commits has {len(chains)} bytes, and must have {max(size, 0)}"
        found += _ROW_BYTES
    if found < seq * fmt.DIGEST_BYTES:
        yield f"row {found // _ROW_BYTES} of cut_commits is missing"
        return
    if start is None:
        return
    for name, claimed in claims.read(connection).items():
        if claimed < seq:
            yield f"{name!r} claims the commits after {claimed}, and those up to {seq} were cut"
    cut_commits.check_end(connection)
    before = cut_commits.chain(connection, meta, seq - 1)
    if before is None or chain_next(before, start.head[:4], start.records) != start.head.chain:
        yield f"commit {seq}, behind which the log begins, does not follow from the one before"
