"""Judges the -wal or -journal that a crash left, or one that is missing: is it whole, and does it belong to the file?

The store id, dirty flag, record numbers and chain in our own tables, as SQLite will recover them, must continue from
the main file.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from sqlstate.commit import acknowledged
from sqlstate.errors import Damaged, StoreError, StoreIOError
from sqlstate.recovery import file_facts, stale
from sqlstate.recovery.file_facts import RECORDS_RELINKED, Facts
from sqlstate.recovery.report import Inspection, JournalReport
from sqlstate.recovery.sqlite_journal import JournalScan, WalIndex, scan_journal, wal_index
from sqlstate.recovery.sqlite_wal import SALTS_APART, WalScan, scan_wal
from sqlstate.recovery.stale import Mismatch
from sqlstate.recovery.verify_content import check_acknowledged, check_folded, check_newest, verify_entries
from sqlstate.sqlite.main_file import page_size
from sqlstate.sqlite.overlay import Pages
from sqlstate.sqlite.wal_frames import FRAME_HEADER_BYTES, WAL_HEADER_BYTES
from sqlstate.tables import meta as metadata
from sqlstate.tables import wal
from sqlstate.tables.meta import DirtyFlag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlstate.files.file_bytes import FileBytes
    from sqlstate.sqlite.engine import Engine

_INDEX_BYTES: Final = 136
_MISSING: Final = "the file says that there are commits in a -wal, and there is no -wal"
_COPY: Final = (
    "it is a copy of a store that was open, made by a backup tool or by copying the file, and not the store itself"
)
_UNKNOWN: Final = "nothing is lost; nothing here can tell"


def inspect_missing(engine: Engine, found: Inspection, *, is_wal: bool) -> None:
    """Judge a file without a -wal: it can be whole or a copy, or its -wal was moved into it, or was lost."""
    main = _facts_of_main(engine, Pages(page_size(engine.header), b"", {}, 0))
    if main is not None:
        found.before, found.flag, found.store_id = main.head, main.flag, main.store_id
        found.audited = main.audited
    flag = _identity_of_main(engine)[1] if main is None else main.flag
    if not flag.dirty and (main is not None or not is_wal):
        return  # no -wal can be missing; other checks find other damage
    if flag.dirty and flag.inode not in (0, engine.opener.inode):
        end = "It contradicts itself: it was copied while it was written"
        if main is not None:
            end = f"It ends with commit {main.head.seq}; what the store committed later is not in it"
        found.damage, found.reason = "copy", f"{_COPY}. {end}"
        return
    found.damage, found.reason = "missing", _MISSING
    if main is None:
        return
    noted = acknowledged.newest(engine.real_path, main.store_id, main.flag.nonce)
    if noted is None:
        found.reason += f". If another program moved it into the file and removed it, {_UNKNOWN}"
        return
    try:
        with file_facts.connected(engine, Pages(page_size(engine.header), b"", {}, 0)) as connection:
            head = check_acknowledged(connection, main, noted)
            found.checked = check_folded(connection, main, head)
    except StoreIOError:  # the content is unknown, not wrong
        raise
    except StoreError as e:
        found.reason += f"; {e}"
    else:
        found.damage = found.reason = ""
        found.after, found.journal = main.head, JournalReport(kind="folded")


def inspect_wal(engine: Engine, data: FileBytes, found: Inspection) -> None:
    """Judge a -wal: what SQLite would recover of it, and whether it belongs to the file. The outcome is in *found*."""
    size = page_size(engine.header)
    scan = scan_wal(data, size)
    found.journal = _report_wal(scan)
    main = _facts_of_main(engine, Pages(size, b"", {}, 0))
    if main is not None:
        found.before, found.after, found.flag = main.head, main.head, main.flag
        found.store_id, found.audited = main.store_id, main.audited
    wrong: Mismatch | None = None
    judged = None
    if scan.committed and scan.page_size == size:  # whether it belongs to the file comes before its damage
        try:
            judged = _judge_content(engine, scan, main, data)
        except Mismatch as e:
            wrong = e
    if wrong is None or not wrong.certain:
        try:
            _judge_frames(engine, scan, main, data)
        except Mismatch as e:
            wrong = e
    if wrong is None:
        wrong = _judge_acknowledged(engine, scan, main, data)
    found.goes_on = judged is not None and bool(main is not None or _identity_of_main(engine)[0])
    if wrong is not None:
        found.damage, found.reason = wrong.damage, str(wrong)
    elif judged is not None:
        facts, found.checked = judged
        found.after, found.flag, found.audited = facts.head, facts.flag, facts.audited


def _judge_acknowledged(engine: Engine, scan: WalScan, main: Facts | None, data: FileBytes) -> Mismatch | None:
    """Judge by the acknowledged notes, if they can be trusted: a -wal can be cut without a trace."""
    if main is None:
        return None
    noted = acknowledged.newest(engine.real_path, main.store_id, main.flag.nonce)
    if noted is None:
        return None
    pages = Pages(page_size(engine.header), b"", {}, 0)
    if scan.committed:
        pages = Pages(scan.page_size, data, scan.pages, scan.database_pages)
    try:
        with file_facts.connected(engine, pages) as connection:
            check_acknowledged(connection, file_facts.read(connection), noted)
    except StoreIOError:  # the content is unknown, not wrong
        raise
    except StoreError:
        return Mismatch("truncated", "its -wal lacks what was acknowledged last: it was cut off, or damaged")
    return None


def _judge_frames(engine: Engine, scan: WalScan, main: Facts | None, data: FileBytes) -> None:
    """Judge by the frames alone whether SQLite will recover all acknowledged commits."""
    size = page_size(engine.header)
    index = wal_index(engine.files.sidecar_start("-shm", _INDEX_BYTES))
    is_short = scan.bytes < WAL_HEADER_BYTES + FRAME_HEADER_BYTES + size and (main is None or main.flag.dirty)
    if scan.header != "valid" and is_short:
        raise Mismatch("truncated", "its -wal was cut off")
    if scan.header == "valid" and scan.page_size != size:
        raise Mismatch("foreign", "its -wal has pages of another size: it belongs to another file")
    # SQLite restarts its -wal when the main file has all of it. A crash at that time leaves no difference.
    if any(engine.files.page(number, size) != data[at : at + size] for number, at in scan.orphan_pages.items()):
        raise Mismatch("header", "the header of its -wal is not the one of the commits behind it, which the file lacks")
    if scan.header != "valid":
        _judge_headless(engine, scan, main, index)
        return
    if scan.rot:
        raise Mismatch(
            "rot", "a frame of its -wal was damaged after it had been synced; SQLite would drop all frames behind it"
        )
    if index is not None and index.frames and 0 < (index.salts[0] - scan.salts[0]) % 2**32 < SALTS_APART:
        raise Mismatch("stale", "SQLite had restarted its -wal, and the one that is there is older")
    uses = 0 if index is None else (scan.salts[0] - index.salts[0]) % 2**32
    if index is not None and index.salts == scan.others and index.frames > index.backfilled and uses >= SALTS_APART:
        raise Mismatch("header", "the header of its -wal is not the one of the commits behind it")
    if index is not None and index.salts == scan.salts and index.frames > scan.committed:
        whole = scan.bytes >= WAL_HEADER_BYTES + index.frames * (FRAME_HEADER_BYTES + size)
        raise Mismatch(
            "rot" if whole else "truncated",
            f"{index.frames} frames of its -wal were committed, and SQLite would recover only {scan.committed}",
        )
    if is_short:
        raise Mismatch("truncated", "its -wal was cut off")


def _judge_headless(engine: Engine, scan: WalScan, main: Facts | None, index: WalIndex | None) -> None:
    """Judge a -wal whose header is damaged, and in which nothing was found that the main file lacks.

    A crash leaves that if it tears the header of a -wal that SQLite restarts. But commits that were lost with the
    header leave the same: something else must show that there were none.
    """
    if scan.bytes < WAL_HEADER_BYTES + FRAME_HEADER_BYTES + page_size(engine.header):
        return  # it never held a commit
    what = "the header of its -wal is damaged"
    if index is not None and index.frames > max(index.backfilled, scan.orphans if index.salts == scan.salts else 0):
        ahead = (index.salts[0] - scan.salts[0]) % 2**32
        if not scan.orphans or ahead < 2**32 - SALTS_APART:  # otherwise it is an older -shm
            raise Mismatch("header", f"{what}, and it held commits that the file lacks")
    if scan.rot:
        raise Mismatch("rot", f"{what}, and so are frames behind it")
    if main is None:
        raise Mismatch("header", f"{what}, and the file is in the middle of a checkpoint")
    if scan.orphans:
        return
    noted = acknowledged.newest(engine.real_path, main.store_id, main.flag.nonce, last=True)
    if noted is None or not main.flag.dirty:
        raise Mismatch("header", f"{what}, and nothing tells whether it held commits that the file lacks")
    # _judge_acknowledged() tests that the file has what was noted.


def _judge_content(engine: Engine, scan: WalScan, main: Facts | None, data: FileBytes) -> tuple[Facts, str]:
    """Judge by our tables, as the -wal will make them: do they continue where the main file ends?"""
    pages = Pages(scan.page_size, data, scan.pages, scan.database_pages)
    try:
        with file_facts.connected(engine, pages) as connection:
            full = file_facts.read(connection)
            if main is not None:
                stale.check_continues(main, full, connection)
                if not scan.rewritten:
                    stale.check_base(engine, scan, main, data)
                base = main.head
            else:  # a checkpoint was under way: part of what the -wal holds is in the main file
                meta = file_facts.read_meta(connection)
                if _identity_of_main(engine)[0] not in (b"", meta.store_id):
                    raise Mismatch("foreign", "its -wal belongs to another store", certain=True)
                base = wal.head_at(connection, meta, max(0, full.lsn - RECORDS_RELINKED))
            if engine.files.pages(scan.page_size) > scan.database_pages and not scan.rewritten:
                raise Mismatch("stale", "the file is larger than its -wal says: the -wal is older")
            if full.flag.dirty and full.lsn <= full.flag.lsn and stale.writes_log_alone(engine, connection, pages):
                raise Mismatch("stale", "everything in its -wal was in the file before it was opened last")
            if not stale.is_reached(engine, connection, pages, stale.last_pages(data, scan)):
                raise Mismatch("stale", "the newest change in its -wal is not found in the file: one of them is older")
            checked = check_newest(connection, base, full)
    except StoreIOError:  # the content is unknown, not wrong
        raise
    except StoreError as e:
        raise Mismatch("foreign", f"the file and its -wal contradict each other ({e})") from e
    return full, checked


def inspect_journal(engine: Engine, data: bytes, found: Inspection) -> None:
    """Judge a rollback journal: what SQLite would restore from it, and whether it belongs to the file."""
    scan = scan_journal(data)
    if scan.header in ("empty", "zeroed"):
        return  # some programs leave a finished journal like this
    found.journal = JournalReport(
        kind="rollback",
        bytes=scan.bytes,
        page_size=scan.page_size,
        frames=scan.records,
        valid=scan.valid,
        committed=len(scan.pages),
        rot=scan.rot,
    )
    if scan.header != "valid" or scan.rot:
        with (
            suppress(StoreError),
            file_facts.connected(engine, Pages(page_size(engine.header), b"", {}, 0)) as connection,
        ):
            facts = verify_entries(connection)  # the journal was not synced yet, so no page was overwritten
            found.before, found.after, found.store_id = facts.head, facts.head, facts.store_id
            found.audited = facts.audited
            return
        found.damage = "rot"
        found.reason = "a page in its -journal was damaged after it had been synced; SQLite would restore only part"
        return
    if not scan.pages:
        return
    pages = Pages(scan.page_size, data, scan.pages, scan.initial_pages)
    try:
        with file_facts.connected(engine, pages) as connection:
            facts = file_facts.read(connection)
            if not file_facts.is_coherent(connection, facts):
                raise Damaged("the newest commit does not follow from the one before")
            found.after, found.flag, found.store_id = facts.head, facts.flag, facts.store_id
            found.audited = facts.audited
    except StoreIOError:  # the content is unknown, not wrong
        raise
    except StoreError as e:
        if not _undoes_making(engine, scan):
            found.damage, found.reason = "foreign", f"its -journal does not belong to the file ({e})"


def _undoes_making(engine: Engine, scan: JournalScan) -> bool:
    """Return True if the journal undoes the creation of the store."""
    return scan.initial_pages <= 1 or not any(engine.header)


def _facts_of_main(engine: Engine, pages: Pages) -> Facts | None:
    """Return the facts in the main file alone, None if it is in the middle of a checkpoint."""
    try:
        with file_facts.connected(engine, pages) as connection:
            facts = file_facts.read(connection)
            return facts if file_facts.is_coherent(connection, facts) else None
    except StoreIOError:  # the content is unknown, not wrong
        raise
    except StoreError:
        return None


def _identity_of_main(engine: Engine) -> tuple[bytes, DirtyFlag]:
    """Return store id and dirty flag of the main file, also in the middle of a checkpoint; empty if unreadable."""
    with suppress(StoreError), file_facts.connected(engine, Pages(page_size(engine.header), b"", {}, 0)) as connection:
        return file_facts.read_meta(connection).store_id, metadata.read_dirty_flag(connection)
    return b"", DirtyFlag()


def _report_wal(scan: WalScan) -> JournalReport:
    facts: Mapping[str, Any] = {
        name: getattr(scan, name)
        for name in (
            "bytes", "page_size", "frames", "valid", "committed", "commits", "uncommitted", "torn_bytes", "stale",
            "proved", "rot",
        )
    }  # fmt: skip
    return JournalReport(kind="wal", **facts)
