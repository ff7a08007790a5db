"""Looks at what a crash left, before SQLite touches it.

SQLite drops acknowledged commits behind a damaged frame, merges a -wal that belongs to another file of the same name,
and takes a missing -wal for an empty one, all without an error. So the -wal or -journal is read first, and our own
tables as SQLite will recover them: store id, dirty flag, numbers and chain must continue from the main file.
"""

from __future__ import annotations

from time import monotonic, perf_counter, sleep
from typing import TYPE_CHECKING, Final

from sqlstate.recovery.report import Inspection
from sqlstate.sqlite.main_file import HEADER_BYTES, SQLITE_MAGIC, page_size

if TYPE_CHECKING:
    from sqlstate.sqlite.engine import Engine
    from sqlstate.sqlite.wal_frames import Bytes

# What only a crash needs is imported where there is something to look at: most stores were closed.

# How long a -wal may take to appear when other processes open the store at the same time.
_APPEARS_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.001
_PAGE_SIZE: Final = 4096
_NEW_PAGES: Final = 64  # a store has far fewer when it is made


def inspect(engine: Engine, *, thoroughly: bool = False) -> Inspection:
    """Look at the file and its -wal or -journal, and change nothing.

    Args:
        engine: not connected yet.
        thoroughly: read the dirty flag even if there is no journal, whatever the header says.

    Raises:
        CannotOpen: the journal is there and cannot be read.
    """
    start = perf_counter()
    found = Inspection()
    is_wal = engine.header[18:19] == b"\2"
    if (is_wal or thoroughly or engine.files.size("-wal") or engine.files.size("-journal")) and page_size(
        engine.header
    ):
        until = monotonic() + _APPEARS_SECONDS
        while not _inspect(engine, found, is_wal=is_wal, thoroughly=thoroughly) and not found.damage:
            if monotonic() >= until:
                found.damage = "missing"
                found.reason = (
                    "its -wal was removed while other processes have the store open; let them finish and close, "
                    "which saves what they have"
                )
            sleep(_LOOK_SECONDS)
    found.seconds = perf_counter() - start
    return found


def undoes_making(engine: Engine) -> bool:
    """Return True if the creation of the file was cut short, and its -journal will make it empty again.

    Until then its first page can hold anything.
    """
    journal = engine.files.sidecar("-journal")
    if not journal:  # another process at work may just have removed it
        return False
    from sqlstate.recovery.sqlite_journal import scan_journal  # noqa: PLC0415, see above

    scan = scan_journal(journal)
    small = engine.files.size() <= _NEW_PAGES * (scan.page_size or _PAGE_SIZE)
    return small and not scan.records and not scan.initial_pages and (scan.header == "valid" or not any(engine.header))


def _inspect(engine: Engine, found: Inspection, *, is_wal: bool, thoroughly: bool) -> bool:
    """Look once; return False if others have the file open in WAL mode, but there is no -wal."""
    with engine.files.exclusive_lock() as alone:
        found.shared = not alone
        if found.shared:
            return not is_wal or alone is None or engine.files.has("-wal")
        wal, journal = engine.files.size("-wal"), engine.files.size("-journal")
        if not (wal or journal or thoroughly or engine.files.has("-wal")):  # SQLite removes an empty -wal
            return True
        from sqlstate.recovery import judge  # noqa: PLC0415, see above

        if wal:
            with engine.files.sidecar_bytes("-wal") as data:
                judge.inspect_wal(engine, data, found)
        elif journal:
            judge.inspect_journal(engine, engine.files.sidecar("-journal"), found)
        else:
            judge.inspect_missing(engine, found, is_wal=is_wal)
    return True


def read_header(engine: Engine) -> None:
    """Read the file's header from its journal, if a crash tore the first page: SQLite will restore it.

    Raises:
        CannotOpen: the journal is there and cannot be read.
    """
    if engine.header[:16] == SQLITE_MAGIC or not engine.header:
        return
    if engine.files.size("-wal"):
        from sqlstate.recovery.sqlite_wal import scan_wal  # noqa: PLC0415, see above

        with engine.files.sidecar_bytes("-wal") as data:
            scan = scan_wal(data)
            _take_header(engine, data, scan.pages.get(1))
    elif engine.files.size("-journal"):
        from sqlstate.recovery.sqlite_journal import scan_journal  # noqa: PLC0415, see above

        undo = engine.files.sidecar("-journal")
        _take_header(engine, undo, scan_journal(undo).pages.get(1))


def _take_header(engine: Engine, data: Bytes, at: int | None) -> None:
    if at is not None and bytes(data[at : at + len(SQLITE_MAGIC)]) == SQLITE_MAGIC:
        engine.header = bytes(data[at : at + HEADER_BYTES])
