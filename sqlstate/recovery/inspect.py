"""Looks at what a crash left, before SQLite touches it: SQLite takes what it can use, and says nothing of the rest.

SQLite drops acknowledged commits behind a damaged frame, merges a -wal that belongs to another file of the
same name, and takes a missing one for an empty one, all without an error. So the -wal or -journal is read
first, and our own tables as they will be: store id, marker, numbers and chain must fit the main file.
"""

from __future__ import annotations

from contextlib import suppress
from time import monotonic, perf_counter, sleep
from typing import TYPE_CHECKING, Any, Final

from sqlstate.commit import acknowledged
from sqlstate.errors import Damaged, StoreError, StoreIOError
from sqlstate.recovery import file_facts, stale
from sqlstate.recovery.file_facts import RECORDS_RELINKED, Facts
from sqlstate.recovery.report import Inspection, JournalReport
from sqlstate.recovery.sqlite_journal import JournalScan, WalIndex, scan_journal, wal_index
from sqlstate.recovery.sqlite_wal import SALTS_APART, WalScan, scan_wal
from sqlstate.recovery.stale import Mismatch
from sqlstate.recovery.verify_content import check_acknowledged, check_folded, check_newest, prove_entries
from sqlstate.sqlite.header import HEADER_BYTES, SQLITE_MAGIC, page_size
from sqlstate.sqlite.overlay import Pages
from sqlstate.sqlite.wal_frames import FRAME_HEADER_BYTES, WAL_HEADER_BYTES
from sqlstate.tables import meta as metadata
from sqlstate.tables import wal
from sqlstate.tables.meta import Marker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlstate.files.file_bytes import FileBytes
    from sqlstate.sqlite.engine import Engine
    from sqlstate.sqlite.wal_frames import Bytes

# How long a -wal may take to appear when others open the store at the same moment.
_APPEARS_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.001
_INDEX_BYTES: Final = 136
_PAGE_SIZE: Final = 4096
_NEW_PAGES: Final = 64  # a store has far fewer when it is made
_MISSING: Final = "the file says that there are commits in a -wal, and there is no -wal"
_COPY: Final = (
    "it is a copy of a store that was open, made by a backup tool or by copying the file, and not the store itself"
)
_UNKNOWN: Final = "nothing is lost; nothing here can tell"


def inspect(engine: Engine, *, thoroughly: bool = False) -> Inspection:
    """Look at the file and what lies beside it, and change nothing.

    Args:
        engine: not connected yet.
        thoroughly: read the marker too if there is no journal, whatever the header says of it.

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
    """Tell whether SQLite will undo the making of the file, which was cut short: its -journal says it was empty.

    Until then its first page can be anything.
    """
    journal = engine.files.sidecar("-journal")
    if not journal:  # or not any more: others may be at work
        return False
    scan = scan_journal(journal)
    small = engine.files.size() <= _NEW_PAGES * (scan.page_size or _PAGE_SIZE)
    return small and not scan.records and not scan.initial_pages and (scan.header == "valid" or not any(engine.header))


def _inspect(engine: Engine, found: Inspection, *, is_wal: bool, thoroughly: bool) -> bool:
    """Look once; False if others have the file open in WAL mode, and there is no -wal yet, or no more."""
    with engine.files.alone() as alone:
        found.shared = not alone
        if found.shared:
            return not is_wal or alone is None or engine.files.has("-wal")
        if engine.files.size("-wal"):
            with engine.files.sidecar_bytes("-wal") as data:
                _inspect_wal(engine, data, found)
        elif engine.files.size("-journal"):
            _inspect_journal(engine, engine.files.sidecar("-journal"), found)
        elif thoroughly or engine.files.has("-wal"):  # SQLite removes an empty one
            _inspect_missing(engine, found, is_wal=is_wal)
    return True


def _inspect_missing(engine: Engine, found: Inspection, *, is_wal: bool) -> None:
    """Look at a file without a -wal: is it whole, or a copy, or did somebody move the -wal into it, or lose it?"""
    main = _facts_of_main(engine, Pages(page_size(engine.header), b"", {}, 0))
    if main is not None:
        found.before, found.marker, found.store_id = main.head, main.marker, main.store_id
        found.audited = main.audited
    marker = _identity_of_main(engine)[1] if main is None else main.marker
    if not marker.open and (main is not None or not is_wal):
        return  # no -wal can be missing; what else may be wrong with the file is told by others
    if marker.open and marker.inode not in (0, engine.opener.inode):
        end = "It contradicts itself: it was copied while it was written"
        if main is not None:
            end = f"It ends with commit {main.head.seq}; what the store committed later is not in it"
        found.damage, found.reason = "copy", f"{_COPY}. {end}"
        return
    found.damage, found.reason = "missing", _MISSING
    if main is None:
        return
    noted = acknowledged.newest(engine.real_path, main.store_id, main.marker.nonce)
    if noted is None:
        found.reason += f". If another program moved it into the file and removed it, {_UNKNOWN}"
        return
    try:
        with file_facts.reading(engine, Pages(page_size(engine.header), b"", {}, 0)) as connection:
            head = check_acknowledged(connection, main, noted)
            found.checked = check_folded(connection, main, head)
    except StoreIOError:  # it says nothing of what is there
        raise
    except StoreError as e:
        found.reason += f"; {e}"
    else:
        found.damage = found.reason = ""
        found.after, found.journal = main.head, JournalReport(kind="folded")


def _inspect_wal(engine: Engine, data: FileBytes, found: Inspection) -> None:
    size = page_size(engine.header)
    scan = scan_wal(data, size)
    found.journal = _report_wal(scan)
    main = _facts_of_main(engine, Pages(size, b"", {}, 0))
    if main is not None:
        found.before, found.after, found.marker = main.head, main.head, main.marker
        found.store_id, found.audited = main.store_id, main.audited
    wrong: Mismatch | None = None
    judged = None
    if scan.committed and scan.page_size == size:  # whose it is comes before what became of it
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
        found.after, found.marker, found.audited = facts.head, facts.marker, facts.audited


def _judge_acknowledged(engine: Engine, scan: WalScan, main: Facts | None, data: FileBytes) -> Mismatch | None:
    """Judge by what was noted beside the store, if that can be believed: a -wal can be cut without a trace."""
    if main is None:
        return None
    noted = acknowledged.newest(engine.real_path, main.store_id, main.marker.nonce)
    if noted is None:
        return None
    pages = Pages(page_size(engine.header), b"", {}, 0)
    if scan.committed:
        pages = Pages(scan.page_size, data, scan.pages, scan.database_pages)
    try:
        with file_facts.reading(engine, pages) as connection:
            check_acknowledged(connection, file_facts.read(connection), noted)
    except StoreIOError:  # it says nothing of what is there
        raise
    except StoreError:
        return Mismatch("truncated", "its -wal lacks what was acknowledged last: it was cut off, or damaged")
    return None


def _judge_frames(engine: Engine, scan: WalScan, main: Facts | None, data: FileBytes) -> None:
    """Judge by the frames alone: is what SQLite will recover all that was acknowledged?"""
    size = page_size(engine.header)
    index = wal_index(engine.files.sidecar_start("-shm", _INDEX_BYTES))
    is_short = scan.bytes < WAL_HEADER_BYTES + FRAME_HEADER_BYTES + size and (main is None or main.marker.open)
    if scan.header != "valid" and is_short:
        raise Mismatch("truncated", "its -wal was cut off")
    if scan.header == "valid" and scan.page_size != size:
        raise Mismatch("foreign", "its -wal has pages of another size: it belongs to another file")
    # SQLite begins a -wal anew when the main file has all of it. A crash just then leaves no difference.
    if any(engine.files.page(number, size) != data[at : at + size] for number, at in scan.orphan_pages.items()):
        raise Mismatch("header", "the header of its -wal is not the one of the commits behind it, which the file lacks")
    if scan.header != "valid":
        _judge_headless(engine, scan, main, index)
        return
    if scan.rot:
        raise Mismatch(
            "rot", "a frame of its -wal was damaged after it had been synced; SQLite would drop all behind it"
        )
    if index is not None and index.frames and 0 < (index.salts[0] - scan.salts[0]) % 2**32 < SALTS_APART:
        raise Mismatch("stale", "SQLite had begun its -wal anew, and the one that is there is older")
    uses = 0 if index is None else (scan.salts[0] - index.salts[0]) % 2**32
    if index is not None and index.salts == scan.others and index.frames > index.backfilled and uses >= SALTS_APART:
        raise Mismatch("header", "the header of its -wal is not the one of the commits behind it")
    if index is not None and index.salts == scan.salts and index.frames > scan.committed:
        whole = scan.bytes >= WAL_HEADER_BYTES + index.frames * (FRAME_HEADER_BYTES + size)
        raise Mismatch(
            "rot" if whole else "truncated",
            f"{index.frames} frames of its -wal were committed, and SQLite would recover {scan.committed}",
        )
    if is_short:
        raise Mismatch("truncated", "its -wal was cut off")


def _judge_headless(engine: Engine, scan: WalScan, main: Facts | None, index: WalIndex | None) -> None:
    """Judge a -wal whose header is damaged, and in which nothing was found that the main file lacks.

    That is what a crash leaves if it tears the header of a -wal that is begun anew. But the same is left of commits
    that were lost with the header: somebody must know that there were none.
    """
    if scan.bytes < WAL_HEADER_BYTES + FRAME_HEADER_BYTES + page_size(engine.header):
        return  # no commit was ever in it
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
    noted = acknowledged.newest(engine.real_path, main.store_id, main.marker.nonce, last=True)
    if noted is None or not main.marker.open:
        raise Mismatch("header", f"{what}, and nothing tells whether it held commits that the file lacks")
    # That the file has what was noted is judged with the notes.


def _judge_content(engine: Engine, scan: WalScan, main: Facts | None, data: FileBytes) -> tuple[Facts, str]:
    """Judge by our tables, as they will be with the -wal: do they go on where the main file ends?"""
    pages = Pages(scan.page_size, data, scan.pages, scan.database_pages)
    try:
        with file_facts.reading(engine, pages) as connection:
            full = file_facts.read(connection)
            if main is not None:
                stale.compare(main, full, connection)
                stale.compare_base(engine, scan, main, data)
                base = main.head
            else:  # a checkpoint was under way: part of what the -wal holds is in the main file
                meta = file_facts.read_meta(connection)
                if _identity_of_main(engine)[0] not in (b"", meta.store_id):
                    raise Mismatch("foreign", "its -wal belongs to another store", certain=True)
                base = wal.head_at(connection, meta, max(0, full.lsn - RECORDS_RELINKED))
            if engine.files.pages(scan.page_size) > scan.database_pages:
                raise Mismatch("stale", "the file is larger than its -wal says: the -wal is older")
            if full.marker.open and full.lsn <= full.marker.lsn and stale.writes_log_alone(engine, connection, pages):
                raise Mismatch("stale", "all that its -wal holds was in the file before it was opened last")
            if not stale.is_reached(engine, connection, pages, stale.last_pages(data, scan)):
                raise Mismatch(
                    "stale", "what its -wal changed last is not to be found in the file: one of them is older"
                )
            checked = check_newest(connection, base, full)
    except StoreIOError:  # it says nothing of what is there
        raise
    except StoreError as e:
        raise Mismatch("foreign", f"the file and its -wal contradict each other ({e})") from e
    return full, checked


def _inspect_journal(engine: Engine, data: bytes, found: Inspection) -> None:
    scan = scan_journal(data)
    if scan.header in ("empty", "zeroed"):
        return  # how some programs leave a journal that they are done with
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
            file_facts.reading(engine, Pages(page_size(engine.header), b"", {}, 0)) as connection,
        ):
            facts = prove_entries(connection)  # it was not synced yet, so no page was written over
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
        with file_facts.reading(engine, pages) as connection:
            facts = file_facts.read(connection)
            if not file_facts.is_coherent(connection, facts):
                raise Damaged("the newest commit does not follow from the one before")
            found.after, found.marker, found.store_id = facts.head, facts.marker, facts.store_id
            found.audited = facts.audited
    except StoreIOError:  # it says nothing of what is there
        raise
    except StoreError as e:
        if not _is_new(engine, scan):
            found.damage, found.reason = "foreign", f"its -journal does not belong to the file ({e})"


def read_header(engine: Engine) -> None:
    """Take the header of the file from its journal, if a crash tore the first page: SQLite will restore it.

    Raises:
        CannotOpen: the journal is there and cannot be read.
    """
    if engine.header[:16] == SQLITE_MAGIC or not engine.header:
        return
    if engine.files.size("-wal"):
        with engine.files.sidecar_bytes("-wal") as data:
            scan = scan_wal(data)
            _take_header(engine, data, scan.pages.get(1))
    elif engine.files.size("-journal"):
        undo = engine.files.sidecar("-journal")
        _take_header(engine, undo, scan_journal(undo).pages.get(1))


def _take_header(engine: Engine, data: Bytes, at: int | None) -> None:
    if at is not None and bytes(data[at : at + len(SQLITE_MAGIC)]) == SQLITE_MAGIC:
        engine.header = bytes(data[at : at + HEADER_BYTES])


def _is_new(engine: Engine, scan: JournalScan) -> bool:
    """Tell whether the journal undoes the making of the store itself."""
    return scan.initial_pages <= 1 or not any(engine.header)


def _facts_of_main(engine: Engine, pages: Pages) -> Facts | None:
    """Return what the main file says by itself, None if it is in the middle of a checkpoint."""
    try:
        with file_facts.reading(engine, pages) as connection:
            facts = file_facts.read(connection)
            return facts if file_facts.is_coherent(connection, facts) else None
    except StoreIOError:  # it says nothing of what is there
        raise
    except StoreError:
        return None


def _identity_of_main(engine: Engine) -> tuple[bytes, Marker]:
    """Return store id and marker of the main file, also in the middle of a checkpoint; none if they are unreadable."""
    with suppress(StoreError), file_facts.reading(engine, Pages(page_size(engine.header), b"", {}, 0)) as connection:
        return file_facts.read_meta(connection).store_id, metadata.read_marker(connection)
    return b"", Marker()


def _report_wal(scan: WalScan) -> JournalReport:
    facts: Mapping[str, Any] = {
        name: getattr(scan, name)
        for name in (
            "bytes", "page_size", "frames", "valid", "committed", "commits", "uncommitted", "torn_bytes", "stale",
            "proved", "rot",
        )
    }  # fmt: skip
    return JournalReport(kind="wal", **facts)
