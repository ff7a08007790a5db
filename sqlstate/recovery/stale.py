"""Detects a -wal that is older than its file, or newer, by what the transactions in it wrote last."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from sqlstate.errors import StoreError, StoreIOError
from sqlstate.recovery import file_facts
from sqlstate.sqlite.overlay import Pages
from sqlstate.sqlite.wal_frames import FRAME_HEADER_BYTES, WAL_HEADER_BYTES
from sqlstate.tables import audit, cut_commits, schema, wal

if TYPE_CHECKING:
    from sqlstate.files.file_bytes import FileBytes
    from sqlstate.recovery.file_facts import Facts
    from sqlstate.recovery.sqlite_wal import WalScan
    from sqlstate.sqlite.connection import Connection
    from sqlstate.sqlite.engine import Engine

_FRAME: Final = Struct(">2I")  # page; size of the database after a commit, or 0
# Of a b-tree page: the kinds that have pages below, and the offset of the rightmost of those.
_INTERIOR: Final = (2, 5)
_RIGHTMOST: Final = 8
_DEPTH_MAX: Final = 20
_GROWING: Final = ("wal", "audit", "log_blocks")  # each of our transactions appends to one of these tables


class Mismatch(Exception):
    """The journal and the file do not belong together: damage and reason."""

    def __init__(self, damage: str, reason: str, *, certain: bool = False) -> None:
        super().__init__(reason)
        self.damage = damage
        self.certain = certain
        """Whether it holds even if the journal is also damaged."""


def last_pages(data: FileBytes, scan: WalScan) -> set[int]:
    """Return the pages that the last transaction in the -wal wrote."""
    found: set[int] = set()
    for frame in range(scan.committed - 1, -1, -1):
        at = WAL_HEADER_BYTES + frame * (FRAME_HEADER_BYTES + scan.page_size)
        page, size = _FRAME.unpack(data[at : at + _FRAME.size])
        if size and found:
            break
        found.add(page)
    return found


def is_reached(engine: Engine, connection: Connection, pages: Pages, written: set[int]) -> bool:
    """Return True if the file's b-trees lead to the pages that a transaction wrote last.

    Our transactions write to the end of the log, of the audit trail or of log_blocks, or to the dirty flag alone; those
    of other programs to tables of their own. If the file leads to none of these pages, it is another file.
    """
    rows = connection.rows("SELECT name, rootpage FROM sqlite_schema WHERE type = 'table' AND rootpage > 0")
    grown = {root for name, root in rows if name in _GROWING or name not in schema.tables()}
    if written & {_rightmost(engine, pages, root) for root in grown}:
        return True
    return written == {root for name, root in rows if name == "meta"}


def writes_log_alone(engine: Engine, connection: Connection, pages: Pages) -> bool:
    """Return True if a -wal wrote to the end of the log, and not to the dirty flag."""
    roots: dict[str, int] = dict(
        connection.rows("SELECT name, rootpage FROM sqlite_schema WHERE name IN ('wal', 'meta')")
    )
    return roots["meta"] not in pages.offsets and _rightmost(engine, pages, roots["wal"]) in pages.offsets


def _rightmost(engine: Engine, pages: Pages, root: int) -> int:
    """Return the page in which a table ends."""
    page = root
    for _ in range(_DEPTH_MAX):
        at = pages.offsets.get(page)
        image = engine.files.page(page, pages.page_size) if at is None else pages.data[at : at + pages.page_size]
        if not image or image[0] not in _INTERIOR:
            break
        page = int.from_bytes(image[_RIGHTMOST : _RIGHTMOST + 4])
    return page


def check_continues(main: Facts, full: Facts, connection: Connection) -> None:
    """Raise Mismatch unless the file with its -wal continues where the *main* file ends."""
    if main.store_id != full.store_id:
        raise Mismatch("foreign", "its -wal belongs to another store", certain=True)
    meta = file_facts.read_meta(connection)
    there = cut_commits.chain(connection, meta, main.head.seq) if main.head.seq else None
    if main.lsn > full.lsn or (main.head.seq and there != main.head.chain):
        raise Mismatch(
            "stale",
            f"its -wal does not continue from commit {main.head.seq} of the file: one of them is older",
            certain=there is not None and there != main.head.chain,
        )
    # No session goes back behind one that the file has seen.
    if full.flag.dirty and full.flag.nonce != main.flag.nonce and full.flag.lsn < main.flag.lsn:
        raise Mismatch("stale", "its -wal is of an earlier session than the file")
    if main.audited and audit.digest_of(connection, main.audited) != main.audit_digest:
        raise Mismatch("stale", f"its -wal lacks audit entry {main.audited}, which the file has: the -wal is older")
    if not full.flag.dirty and full.flag.lsn and full.flag.lsn != full.lsn:
        raise Mismatch("stale", "its -wal closes the store at another record than the file ends with")


def check_base(engine: Engine, scan: WalScan, main: Facts, data: FileBytes) -> None:
    """Compare where the first transaction in the -wal begins with where the main file ends."""
    pages = Pages(scan.page_size, data, scan.first_pages, scan.first_size)
    try:
        with file_facts.connected(engine, pages) as connection:
            first = file_facts.read(connection)
            base = wal.base_of(connection) if first.lsn > main.lsn else 0
            coherent = file_facts.is_coherent(connection, first)
    except StoreIOError:  # the content is unknown, not wrong
        raise
    except StoreError:
        return  # a checkpoint of later transactions was under way
    if coherent and base > main.lsn:
        raise Mismatch("stale", f"its -wal begins after record {base}, and the file ends with record {main.lsn}")
