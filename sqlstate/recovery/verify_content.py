"""Checks a file's content, with or without SQLite's journal: its newest commits, or every entry."""

from __future__ import annotations

from contextlib import ExitStack
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from sqlstate.errors import Damaged
from sqlstate.format.merkle import RootBuilder, leaf, rank
from sqlstate.format.names import Name, name_bytes, stored_name
from sqlstate.recovery import file_facts
from sqlstate.recovery.file_facts import RECORDS_RELINKED
from sqlstate.recovery.sqlite_journal import scan_journal
from sqlstate.recovery.sqlite_wal import scan_wal
from sqlstate.sqlite.main_file import page_size
from sqlstate.sqlite.overlay import Pages
from sqlstate.tables import cut_commits, merkle, state, wal, wal_chain

if TYPE_CHECKING:
    from sqlstate.commit import acknowledged
    from sqlstate.format.records import Head
    from sqlstate.recovery.file_facts import Facts
    from sqlstate.recovery.report import Inspection
    from sqlstate.sqlite.connection import Connection
    from sqlstate.sqlite.engine import Engine

# How many of the newest entries that the journal's commits changed are followed up to the root.
ENTRIES_CHECKED: Final = 250
# With more records than this in SQLite's WAL, only the newest commits are relinked.
_RECORDS_FOLLOWED: Final = 1_000


def check_acknowledged(connection: Connection, facts: Facts, noted: acknowledged.Position) -> Head:
    """Check that a file holds all acknowledged commits; return the newest of them.

    Raises:
        Damaged: one is missing.
    """
    head = wal.head_at(connection, file_facts.read_meta(connection), noted.lsn)
    there = not noted.lsn or wal.has(connection, noted.lsn)
    known = head.chain == noted.chain or cut_commits.holds(connection, noted.chain)
    if not there or not known or facts.audited < noted.audited:
        raise Damaged("the newest acknowledged commit is not in the file")
    return head


def check_folded(connection: Connection, main: Facts, head: Head) -> str:
    """Check the newest commits of a file into which another program moved the -wal; return a description.

    Raises:
        Damaged: the file contradicts itself.
    """
    meta = file_facts.read_meta(connection)
    lsn = wal.commit_lsn(connection, main.head.seq) if main.head.seq else 0
    base = wal.head_at(connection, meta, max(0, main.flag.lsn, lsn - RECORDS_RELINKED))
    follows = check_commits(connection, (wal.commit_lsn(connection, base.seq) if base.seq else 0, base), main.head)
    return (
        f"another program moved SQLite's WAL into the file and removed it; commit {head.seq}, the newest that was "
        f"acknowledged, is in the file, so nothing acknowledged is missing; {follows}"
    )


def check_newest(connection: Connection, base: Head, full: Facts) -> str:
    """Relink the commits from *base* to the newest; with very many records, only the newest commits.

    The checksums of their frames are valid already. A single commit with more records is not relinked.
    """
    meta = file_facts.read_meta(connection)
    cut = wal.start(connection, meta)[1]
    base = base if base.seq > cut.seq else cut
    end = wal.commit_lsn(connection, full.head.seq) if full.head.seq else 0
    if end - (wal.commit_lsn(connection, base.seq) if base.seq else 0) > _RECORDS_FOLLOWED:
        base = wal.head_at(connection, meta, end - _RECORDS_FOLLOWED)
    start = wal.commit_lsn(connection, base.seq) if base.seq else 0
    if end - start > 2 * _RECORDS_FOLLOWED:
        start, base = end, full.head
    return check_commits(connection, (start, base), full.head)


def check_commits(connection: Connection, base: tuple[int, Head], head: Head) -> str:
    """Relink the commits from *base*, (LSN, head), to *head*, and follow changed entries up to the root.

    Returns a description of what was checked.

    Raises:
        Damaged: a commit does not follow from the one before, or an entry does not lead to the root.
    """
    lsn, last = base
    names: dict[Name, None] = {}
    commits = 0
    for said, follows, changes in wal_chain.relink(connection, lsn, last):
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
        if not merkle.holds(connection, name, digest, head.root, known):
            raise Damaged(f"I2: {name[0]!r}[{name[2]!r}] does not lead to the root of commit {head.seq}")
    return (
        f"{commits} commits follow from each other by chain; {len(newest)} of {len(names)} entries that they changed "
        "lead to the newest root"
    )


def verify_content(engine: Engine, found: Inspection, *, with_journal: bool) -> None:
    """Check the whole content: root and count from all entries, and the newest commits' chain.

    Notes in *found* what SQLite will recover, and how it was checked.

    Args:
        engine: not connected.
        found: the result of inspect().
        with_journal: include what SQLite would recover from its journal; otherwise check the main file alone.

    Raises:
        Damaged: the content contradicts itself, or other processes have the file open.
    """
    with engine.files.exclusive_lock() as alone, ExitStack() as stack:
        if not alone:
            raise Damaged("other processes have the file open.")
        pages = Pages(page_size(engine.header), b"", {}, 0)
        if with_journal and engine.files.size("-wal"):
            data = stack.enter_context(engine.files.sidecar_bytes("-wal"))
            scan = scan_wal(data, page_size(engine.header))
            if scan.committed:
                pages = Pages(scan.page_size, data, scan.pages, scan.database_pages)
        elif with_journal and engine.files.size("-journal"):
            undo = engine.files.sidecar("-journal")
            journal = scan_journal(undo)
            if journal.pages:
                pages = Pages(journal.page_size, undo, journal.pages, journal.initial_pages)
        facts = verify_entries(stack.enter_context(file_facts.connected(engine, pages)))
        found.after, found.flag, found.audited = facts.head, facts.flag, facts.audited
        found.checked = f"{facts.head.count} entries were hashed again and have the newest commit's root"


def verify_entries(connection: Connection) -> Facts:
    """Check everything that a connection sees: root and count from all entries, and the newest commits' chain.

    Raises:
        Damaged: the content contradicts itself.
    """
    facts = file_facts.read(connection)
    if not file_facts.is_coherent(connection, facts):
        raise Damaged("the newest commit does not follow from the one before.")
    cut_commits.check_end(connection)
    builder = RootBuilder()
    leaves = sha256()
    for collection, key, stored in state.scan_all(connection):
        raw = name_bytes(stored_name(collection, key))
        digest = leaf(raw, stored)
        leaves.update(digest)
        builder.add(digest, rank(raw))
    if builder.finish() != (facts.head.root, facts.head.count):
        raise Damaged("the entries do not have the root of the newest commit.")
    if not merkle.is_over(connection, leaves.digest(), facts.head.root):
        raise Damaged("the tree is not the one of the entries.")
    return facts
