"""Looks at what a crash left, before SQLite touches it: SQLite takes what it can use, and says nothing of the rest.

SQLite drops acknowledged commits behind a damaged frame, merges a -wal that belongs to another file of the
same name, and takes a missing one for an empty one, all without an error. So the -wal or -journal is read
first, and our own tables as they will be: store id, marker, numbers and chain must fit the main file.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from struct import Struct
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Final

from sqlstate.commit import acknowledged
from sqlstate.errors import Damaged, StoreError, StoreIOError
from sqlstate.format import constants as fmt
from sqlstate.format.merkle import RootBuilder, leaf, rank
from sqlstate.format.names import Name, name_bytes, stored_name
from sqlstate.recovery import file_facts
from sqlstate.recovery.file_facts import RECORDS_RELINKED, Facts
from sqlstate.recovery.sqlite_journal import JournalScan, WalIndex, scan_journal, wal_index
from sqlstate.recovery.sqlite_wal import SALTS_APART, WalScan, scan_wal
from sqlstate.sqlite.connection import HEADER_BYTES, SQLITE_MAGIC, page_size
from sqlstate.sqlite.overlay import Pages
from sqlstate.sqlite.wal_frames import FRAME_HEADER_BYTES, WAL_HEADER_BYTES
from sqlstate.tables import audit, schema, state, wal
from sqlstate.tables import merkle as tree
from sqlstate.tables import meta as metadata
from sqlstate.tables.meta import Marker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlstate.files.file_bytes import FileBytes
    from sqlstate.format.records import Head
    from sqlstate.sqlite.connection import Connection
    from sqlstate.sqlite.engine import Engine
    from sqlstate.sqlite.wal_frames import Bytes

# Of the entries that the journal's commits changed, so many of the newest are followed up to the root.
ENTRIES_CHECKED: Final = 250
# Of more, those of the newest commits in SQLite's WAL are followed.
_RECORDS_FOLLOWED: Final = 1_000
# How long a -wal may take to appear when others open the store at the same moment.
_APPEARS_SECONDS: Final = 1.0
_FRAME: Final = Struct(">2I")  # page; size of the database after a commit, or 0
# Of a b-tree page: kinds that have pages below, and where the rightmost of them stands.
_INTERIOR: Final = (2, 5)
_RIGHTMOST: Final = 8
_DEPTH_MAX: Final = 20
_GROWING: Final = ("wal", "audit", "log_blocks")  # tables of which each of our transactions makes one longer
_INDEX_BYTES: Final = 136
_PAGE_SIZE: Final = 4096
_NEW_PAGES: Final = 64  # a store has far fewer when it is made
_MISSING: Final = "the file says that there are commits in a -wal, and there is no -wal"
_COPY: Final = (
    "it is a copy of a store that was open, made by a backup tool or by copying the file, and not the store itself"
)
_UNKNOWN: Final = "nothing is lost; nothing here can tell"


@dataclass(frozen=True, slots=True)
class JournalReport:
    """What SQLite's journal held when the store was opened."""

    kind: str = "none"
    """`"wal"`, `"rollback"` or `"none"`; `"folded"`: another program moved a -wal into the file, all that matters."""
    bytes: int = 0
    page_size: int = 0
    frames: int = 0
    """Whole frames of a -wal; records of a -journal that its headers count."""
    valid: int = 0
    """Those whose checksums hold, from the first on."""
    committed: int = 0
    """Those up to the last commit: what SQLite recovers. Of a -journal, the pages that it restores."""
    commits: int = 0
    """SQLite transactions among them."""
    uncommitted: int = 0
    """Valid frames behind the last commit: a transaction that was cut short."""
    torn_bytes: int = 0
    """Bytes behind the valid frames that are no frames: what a crash tears, or damage."""
    stale: int = 0
    """Frames that were moved into the main file long ago, and wait to be written over."""
    proved: int = 0
    """Frames behind damage that prove themselves."""
    rot: bool = False
    """Damage before frames that were written after it: a crash does not do that."""
    sqlite_frames: int | None = None
    """Frames that SQLite itself recovered; None if it was not asked, or does not say."""
    agrees: bool | None = None
    """Whether that is what the scan said."""


@dataclass(slots=True)
class Inspection:
    """What was found, and what follows from it."""

    journal: JournalReport = field(default_factory=JournalReport)
    shared: bool = False
    """Others have the file open, or it cannot be known: nothing was judged."""
    damage: str = ""
    reason: str = ""
    before: Head | None = None
    after: Head | None = None
    marker: Marker | None = None
    """As SQLite will see it; None if it was not looked at."""
    store_id: bytes = bytes(fmt.STORE_ID_BYTES)
    """Zeros if it is not known."""
    audited: int = 0
    """Number of the newest audit entry."""
    goes_on: bool = False
    """What SQLite would take from its -wal was proven to go on where the main file ends."""
    checked: str = "nothing to check"
    seconds: float = 0.0


class _Wrong(Exception):
    """The journal and the file do not belong together: damage and reason."""

    def __init__(self, damage: str, reason: str, *, certain: bool = False) -> None:
        super().__init__(reason)
        self.damage = damage
        self.certain = certain
        """So it is, also if the journal is damaged beside."""


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
    if (is_wal or thoroughly or engine.size("-wal") or engine.size("-journal")) and _page_size(engine):
        until = monotonic() + _APPEARS_SECONDS
        while not _inspect(engine, found, is_wal=is_wal, thoroughly=thoroughly) and not found.damage:
            if monotonic() >= until:
                found.damage = "missing"
                found.reason = (
                    "its -wal was removed while other processes have the store open; let them finish and close, "
                    "which saves what they have"
                )
    found.seconds = perf_counter() - start
    return found


def undoes_making(engine: Engine) -> bool:
    """Tell whether SQLite will undo the making of the file, which was cut short: its -journal says it was empty.

    Until then its first page can be anything.
    """
    journal = engine.sidecar("-journal")
    if not journal:  # or not any more: others may be at work
        return False
    scan = scan_journal(journal)
    small = engine.size() <= _NEW_PAGES * (scan.page_size or _PAGE_SIZE)
    return small and not scan.records and not scan.initial_pages and (scan.header == "valid" or not any(engine.header))


def _inspect(engine: Engine, found: Inspection, *, is_wal: bool, thoroughly: bool) -> bool:
    """Look once; False if others have the file open in WAL mode, and there is no -wal yet, or no more."""
    with engine.alone() as alone:
        found.shared = not alone
        if found.shared:
            return not is_wal or alone is None or engine.has("-wal")
        if engine.size("-wal"):
            with engine.sidecar_bytes("-wal") as data:
                _inspect_wal(engine, data, found)
        elif engine.size("-journal"):
            _inspect_journal(engine, engine.sidecar("-journal"), found)
        elif thoroughly or engine.has("-wal"):  # SQLite removes an empty one
            _inspect_missing(engine, found, is_wal=is_wal)
    return True


def _inspect_missing(engine: Engine, found: Inspection, *, is_wal: bool) -> None:
    """Look at a file without a -wal: is it whole, or a copy, or did somebody move the -wal into it, or lose it?"""
    main = _facts_of_main(engine, Pages(_page_size(engine), b"", {}, 0))
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
        with file_facts.reading(engine, Pages(_page_size(engine), b"", {}, 0)) as connection:
            head = _check_acknowledged(connection, main, noted)
            found.checked = _check_folded(connection, main, head)
    except StoreIOError:  # it says nothing of what is there
        raise
    except StoreError as e:
        found.reason += f"; {e}"
    else:
        found.damage = found.reason = ""
        found.after, found.journal = main.head, JournalReport(kind="folded")


def _check_acknowledged(connection: Connection, facts: Facts, noted: acknowledged.Position) -> Head:
    """Check that a file holds all that was acknowledged; return the newest commit of that.

    Raises:
        Damaged: it does not.
    """
    head = wal.head_at(connection, file_facts.read_meta(connection), noted.lsn)
    there = not noted.lsn or wal.has(connection, noted.lsn)
    if not there or head.chain != noted.chain or facts.audited < noted.audited:
        raise Damaged("what was acknowledged last is not in the file")
    return head


def _check_folded(connection: Connection, main: Facts, head: Head) -> str:
    """Check the newest commits of a file that another program moved the -wal into, and say how.

    Raises:
        Damaged: it contradicts itself.
    """
    meta = file_facts.read_meta(connection)
    lsn = wal.commit_lsn(connection, main.head.seq) if main.head.seq else 0
    base = wal.head_at(connection, meta, max(0, main.marker.lsn, lsn - RECORDS_RELINKED))
    follows = check_commits(connection, (wal.commit_lsn(connection, base.seq) if base.seq else 0, base), main.head)
    return (
        f"another program moved SQLite's WAL into the file and removed it; commit {head.seq}, the newest that was "
        f"acknowledged, is in the file, so nothing acknowledged is missing; {follows}"
    )


def _inspect_wal(engine: Engine, data: FileBytes, found: Inspection) -> None:
    size = _page_size(engine)
    scan = scan_wal(data, size)
    found.journal = _report_wal(scan)
    main = _facts_of_main(engine, Pages(size, b"", {}, 0))
    if main is not None:
        found.before, found.after, found.marker = main.head, main.head, main.marker
        found.store_id, found.audited = main.store_id, main.audited
    wrong: _Wrong | None = None
    judged = None
    if scan.committed and scan.page_size == size:  # whose it is comes before what became of it
        try:
            judged = _judge_content(engine, scan, main, data)
        except _Wrong as e:
            wrong = e
    if wrong is None or not wrong.certain:
        try:
            _judge_frames(engine, scan, main, data)
        except _Wrong as e:
            wrong = e
    if wrong is None:
        wrong = _judge_acknowledged(engine, scan, main, data)
    found.goes_on = judged is not None and bool(main is not None or _identity_of_main(engine)[0])
    if wrong is not None:
        found.damage, found.reason = wrong.damage, str(wrong)
    elif judged is not None:
        facts, found.checked = judged
        found.after, found.marker, found.audited = facts.head, facts.marker, facts.audited


def _judge_acknowledged(engine: Engine, scan: WalScan, main: Facts | None, data: FileBytes) -> _Wrong | None:
    """Judge by what was noted beside the store, if that can be believed: a -wal can be cut without a trace."""
    if main is None:
        return None
    noted = acknowledged.newest(engine.real_path, main.store_id, main.marker.nonce)
    if noted is None:
        return None
    pages = Pages(_page_size(engine), b"", {}, 0)
    if scan.committed:
        pages = Pages(scan.page_size, data, scan.pages, scan.database_pages)
    try:
        with file_facts.reading(engine, pages) as connection:
            _check_acknowledged(connection, file_facts.read(connection), noted)
    except StoreIOError:  # it says nothing of what is there
        raise
    except StoreError:
        return _Wrong("truncated", "its -wal lacks what was acknowledged last: it was cut off, or damaged")
    return None


def _judge_frames(engine: Engine, scan: WalScan, main: Facts | None, data: FileBytes) -> None:
    """Judge by the frames alone: is what SQLite will recover all that was acknowledged?"""
    size = _page_size(engine)
    index = wal_index(engine.sidecar_start("-shm", _INDEX_BYTES))
    is_short = scan.bytes < WAL_HEADER_BYTES + FRAME_HEADER_BYTES + size and (main is None or main.marker.open)
    if scan.header != "valid" and is_short:
        raise _Wrong("truncated", "its -wal was cut off")
    if scan.header == "valid" and scan.page_size != size:
        raise _Wrong("foreign", "its -wal has pages of another size: it belongs to another file")
    # SQLite begins a -wal anew when the main file has all of it. A crash just then leaves no difference.
    if any(engine.page(number, size) != data[at : at + size] for number, at in scan.orphan_pages.items()):
        raise _Wrong("header", "the header of its -wal is not the one of the commits behind it, which the file lacks")
    if scan.header != "valid":
        _judge_headless(engine, scan, main, index)
        return
    if scan.rot:
        raise _Wrong("rot", "a frame of its -wal was damaged after it had been synced; SQLite would drop all behind it")
    if index is not None and index.frames and 0 < (index.salts[0] - scan.salts[0]) % 2**32 < SALTS_APART:
        raise _Wrong("stale", "SQLite had begun its -wal anew, and the one that is there is older")
    uses = 0 if index is None else (scan.salts[0] - index.salts[0]) % 2**32
    if index is not None and index.salts == scan.others and index.frames > index.backfilled and uses >= SALTS_APART:
        raise _Wrong("header", "the header of its -wal is not the one of the commits behind it")
    if index is not None and index.salts == scan.salts and index.frames > scan.committed:
        whole = scan.bytes >= WAL_HEADER_BYTES + index.frames * (FRAME_HEADER_BYTES + size)
        raise _Wrong(
            "rot" if whole else "truncated",
            f"{index.frames} frames of its -wal were committed, and SQLite would recover {scan.committed}",
        )
    if is_short:
        raise _Wrong("truncated", "its -wal was cut off")


def _judge_headless(engine: Engine, scan: WalScan, main: Facts | None, index: WalIndex | None) -> None:
    """Judge a -wal whose header is damaged, and in which nothing was found that the main file lacks.

    That is what a crash leaves if it tears the header of a -wal that is begun anew. But the same is left of commits
    that were lost with the header: somebody must know that there were none.
    """
    if scan.bytes < WAL_HEADER_BYTES + FRAME_HEADER_BYTES + _page_size(engine):
        return  # no commit was ever in it
    what = "the header of its -wal is damaged"
    if index is not None and index.frames > max(index.backfilled, scan.orphans if index.salts == scan.salts else 0):
        ahead = (index.salts[0] - scan.salts[0]) % 2**32
        if not scan.orphans or ahead < 2**32 - SALTS_APART:  # otherwise it is an older -shm
            raise _Wrong("header", f"{what}, and it held commits that the file lacks")
    if scan.rot:
        raise _Wrong("rot", f"{what}, and so are frames behind it")
    if main is None:
        raise _Wrong("header", f"{what}, and the file is in the middle of a checkpoint")
    if scan.orphans:
        return
    noted = acknowledged.newest(engine.real_path, main.store_id, main.marker.nonce, last=True)
    if noted is None or not main.marker.open:
        raise _Wrong("header", f"{what}, and nothing tells whether it held commits that the file lacks")
    # That the file has what was noted is judged with the notes.


def _judge_content(engine: Engine, scan: WalScan, main: Facts | None, data: FileBytes) -> tuple[Facts, str]:
    """Judge by our tables, as they will be with the -wal: do they go on where the main file ends?"""
    pages = Pages(scan.page_size, data, scan.pages, scan.database_pages)
    try:
        with file_facts.reading(engine, pages) as connection:
            full = file_facts.read(connection)
            if main is not None:
                _compare(main, full, connection)
                _compare_base(engine, scan, main, data)
                base = main.head
            else:  # a checkpoint was under way: part of what the -wal holds is in the main file
                meta = file_facts.read_meta(connection)
                if _identity_of_main(engine)[0] not in (b"", meta.store_id):
                    raise _Wrong("foreign", "its -wal belongs to another store", certain=True)
                base = wal.head_at(connection, meta, max(0, full.lsn - RECORDS_RELINKED))
            if engine.pages(scan.page_size) > scan.database_pages:
                raise _Wrong("stale", "the file is larger than its -wal says: the -wal is older")
            if full.marker.open and full.lsn <= full.marker.lsn and _writes_log_alone(engine, connection, pages):
                raise _Wrong("stale", "all that its -wal holds was in the file before it was opened last")
            if not _is_reached(engine, connection, pages, _last_pages(data, scan)):
                raise _Wrong("stale", "what its -wal changed last is not to be found in the file: one of them is older")
            checked = _check_newest(connection, base, full)
    except StoreIOError:  # it says nothing of what is there
        raise
    except StoreError as e:
        raise _Wrong("foreign", f"the file and its -wal contradict each other ({e})") from e
    return full, checked


def _check_newest(connection: Connection, base: Head, full: Facts) -> str:
    """Follow the chain from *base* to the newest commit; of very many records, over the newest commits alone.

    The frames that they are in were summed. One commit with more records is taken as it is.
    """
    end = wal.commit_lsn(connection, full.head.seq) if full.head.seq else 0
    if end - (wal.commit_lsn(connection, base.seq) if base.seq else 0) > _RECORDS_FOLLOWED:
        base = wal.head_at(connection, file_facts.read_meta(connection), end - _RECORDS_FOLLOWED)
    start = wal.commit_lsn(connection, base.seq) if base.seq else 0
    if end - start > 2 * _RECORDS_FOLLOWED:
        start, base = end, full.head
    return check_commits(connection, (start, base), full.head)


def _last_pages(data: FileBytes, scan: WalScan) -> set[int]:
    """Return the pages that the last transaction in the -wal wrote."""
    found: set[int] = set()
    for frame in range(scan.committed - 1, -1, -1):
        at = WAL_HEADER_BYTES + frame * (FRAME_HEADER_BYTES + scan.page_size)
        page, size = _FRAME.unpack(data[at : at + _FRAME.size])
        if size and found:
            break
        found.add(page)
    return found


def _is_reached(engine: Engine, connection: Connection, pages: Pages, written: set[int]) -> bool:
    """Tell whether the file leads to what a transaction wrote last.

    Ours write to the end of the log, of the audit trail or of log_blocks, or the marker alone; those of other tools
    in tables of their own. If the file leads to none of these pages, it is another one.
    """
    rows = connection.rows("SELECT name, rootpage FROM sqlite_schema WHERE type = 'table' AND rootpage > 0")
    grown = {root for name, root in rows if name in _GROWING or name not in schema.tables()}
    if written & {_rightmost(engine, pages, root) for root in grown}:
        return True
    return written == {root for name, root in rows if name == "meta"}


def _writes_log_alone(engine: Engine, connection: Connection, pages: Pages) -> bool:
    """Tell whether a -wal wrote where the log ends, and not the marker."""
    roots: dict[str, int] = dict(
        connection.rows("SELECT name, rootpage FROM sqlite_schema WHERE name IN ('wal', 'meta')")
    )
    return roots["meta"] not in pages.offsets and _rightmost(engine, pages, roots["wal"]) in pages.offsets


def _rightmost(engine: Engine, pages: Pages, root: int) -> int:
    """Return the page in which a table ends."""
    page = root
    for _ in range(_DEPTH_MAX):
        at = pages.offsets.get(page)
        image = engine.page(page, pages.page_size) if at is None else pages.data[at : at + pages.page_size]
        if not image or image[0] not in _INTERIOR:
            break
        page = int.from_bytes(image[_RIGHTMOST : _RIGHTMOST + 4])
    return page


def _compare(main: Facts, full: Facts, connection: Connection) -> None:
    if main.store_id != full.store_id:
        raise _Wrong("foreign", "its -wal belongs to another store", certain=True)
    there = wal.commit(connection, main.head.seq) if main.head.seq else None
    if main.lsn > full.lsn or (main.head.seq and (there is None or there.chain != main.head.chain)):
        raise _Wrong(
            "stale",
            f"its -wal does not go on from commit {main.head.seq} of the file: one of them is older",
            certain=there is not None and there.chain != main.head.chain,
        )
    # An opening never goes back behind one that the file has seen.
    if full.marker.open and full.marker.nonce != main.marker.nonce and full.marker.lsn < main.marker.lsn:
        raise _Wrong("stale", "its -wal is of an earlier session than the file")
    if main.audited and audit.digest_of(connection, main.audited) != main.audit_digest:
        raise _Wrong("stale", f"its -wal lacks audit entry {main.audited}, which the file has: the -wal is older")
    if not full.marker.open and full.marker.lsn and full.marker.lsn != full.lsn:
        raise _Wrong("stale", "its -wal closes the store at another record than the file ends with")


def _compare_base(engine: Engine, scan: WalScan, main: Facts, data: FileBytes) -> None:
    """Compare where the first transaction in the -wal begins with where the main file ends."""
    pages = Pages(scan.page_size, data, scan.first_pages, scan.first_size)
    try:
        with file_facts.reading(engine, pages) as connection:
            first = file_facts.read(connection)
            base = wal.base_of(connection) if first.lsn > main.lsn else 0
            coherent = file_facts.is_coherent(connection, first)
    except StoreIOError:  # it says nothing of what is there
        raise
    except StoreError:
        return  # a checkpoint of later transactions was under way
    if coherent and base > main.lsn:
        raise _Wrong("stale", f"its -wal begins after record {base}, and the file ends with record {main.lsn}")


def check_commits(connection: Connection, base: tuple[int, Head], head: Head) -> str:
    """Follow the chain from *base*, (LSN, head), to *head*, and the entries it changed up to the root; say how.

    Raises:
        Damaged: a commit does not follow from the one before, or an entry does not lead to the root.
    """
    lsn, last = base
    names: dict[Name, None] = {}
    commits = 0
    for said, follows, changes in wal.relink(connection, lsn, last):
        if said != follows:
            raise Damaged(f"I6: commit {said.seq} does not follow from the one before")
        commits += 1
        last = said
        for record in changes:
            assert record.collection is not None and record.key is not None  # noqa: S101, PT018, for the type checker
            name = stored_name(record.collection, record.key)
            names.pop(name, None)
            names[name] = None
    if last != head:
        raise Damaged(f"I6: the chain ends with commit {last.seq}, and the log with commit {head.seq}")
    known: dict[int, bytes] = {}
    newest = list(names)[-ENTRIES_CHECKED:]
    for name in newest:
        stored = state.get(connection, name[0], name[2])
        digest = None if stored is None else leaf(name_bytes(name), stored)
        if not tree.holds(connection, name, digest, head.root, known):
            raise Damaged(f"I2: {name[0]!r}[{name[2]!r}] does not lead to the root of commit {head.seq}")
    return (
        f"{commits} commits follow from each other by chain; {len(newest)} of {len(names)} entries that they changed "
        "lead to the newest root"
    )


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
        with suppress(StoreError), file_facts.reading(engine, Pages(_page_size(engine), b"", {}, 0)) as connection:
            facts = _prove(connection)  # it was not synced yet, so no page was written over
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
    if engine.size("-wal"):
        with engine.sidecar_bytes("-wal") as data:
            scan = scan_wal(data)
            _take_header(engine, data, scan.pages.get(1))
    elif engine.size("-journal"):
        undo = engine.sidecar("-journal")
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
    with suppress(StoreError), file_facts.reading(engine, Pages(_page_size(engine), b"", {}, 0)) as connection:
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


def _page_size(engine: Engine) -> int:
    return page_size(engine.header)


def prove(engine: Engine, found: Inspection, *, with_journal: bool) -> None:
    """Check everything that would be in the store: root from all entries, count, the newest commits' chain.

    Says in *found* what SQLite will see then, and how it was checked.

    Args:
        engine: not connected.
        found: what inspect() found.
        with_journal: with what SQLite would take from its journal; otherwise the main file alone.

    Raises:
        Damaged: something contradicts something else, or others have the file open.
    """
    with engine.alone() as alone, ExitStack() as stack:
        if not alone:
            raise Damaged("others have the file open.")
        pages = Pages(_page_size(engine), b"", {}, 0)
        if with_journal and engine.size("-wal"):
            data = stack.enter_context(engine.sidecar_bytes("-wal"))
            scan = scan_wal(data, _page_size(engine))
            if scan.committed:
                pages = Pages(scan.page_size, data, scan.pages, scan.database_pages)
        elif with_journal and engine.size("-journal"):
            undo = engine.sidecar("-journal")
            journal = scan_journal(undo)
            if journal.pages:
                pages = Pages(journal.page_size, undo, journal.pages, journal.initial_pages)
        facts = _prove(stack.enter_context(file_facts.reading(engine, pages)))
        found.after, found.marker, found.audited = facts.head, facts.marker, facts.audited
        found.checked = f"{facts.head.count} entries were hashed anew and have the newest commit's root"


def _prove(connection: Connection) -> Facts:
    facts = file_facts.read(connection)
    if not file_facts.is_coherent(connection, facts):
        raise Damaged("the newest commit does not follow from the one before.")
    builder = RootBuilder()
    leaves = sha256()
    for collection, key, stored in state.scan_all(connection):
        raw = name_bytes(stored_name(collection, key))
        digest = leaf(raw, stored)
        leaves.update(digest)
        builder.add(digest, rank(raw))
    if builder.finish() != (facts.head.root, facts.head.count):
        raise Damaged("the entries do not have the root of the newest commit.")
    if not tree.is_over(connection, leaves.digest(), facts.head.root):
        raise Damaged("the tree is not the one of the entries.")
    return facts
