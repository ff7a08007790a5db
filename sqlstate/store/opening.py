"""Opening a store."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final, Literal

from sqlstate.commit.clock import now
from sqlstate.commit.group import GROUP_SIZE, GROUP_WAIT
from sqlstate.commit.log_limit import DEFAULT
from sqlstate.commit.write_context import WriteContext
from sqlstate.errors import Busy, CannotOpen, Damaged, InvalidOption, NotAStore, ReadOnly, StoreFull
from sqlstate.files import system
from sqlstate.format import constants as fmt
from sqlstate.recovery import damage
from sqlstate.recovery import recover as recovery
from sqlstate.recovery.file_facts import read_meta
from sqlstate.recovery.inspect import inspect, read_header, undoes_making
from sqlstate.recovery.report import WAYS
from sqlstate.sqlite import settings
from sqlstate.sqlite.engine import Engine
from sqlstate.sqlite.main_file import SQLITE_MAGIC, page_size
from sqlstate.sqlite.overlay import Pages
from sqlstate.store.past.log import check_log_limit
from sqlstate.store.store import Store
from sqlstate.store.watch import check_timeout
from sqlstate.tables import audit, migrations, schema, wal
from sqlstate.tables import meta as metadata

if TYPE_CHECKING:
    from sqlstate.errors import StoreError
    from sqlstate.recovery.report import Inspection, Recover
    from sqlstate.sqlite.connection import Connection, Journal
    from sqlstate.tables.meta import Meta

Mode = Literal["full", "group"]
LogLimitOption = int | Literal["kept"] | None


def open(  # noqa: A001, PLR0913, the word every Python programmer looks for
    path: str | os.PathLike[str],
    *,
    mode: Mode = "full",
    group_size: int = GROUP_SIZE,
    group_wait: float = GROUP_WAIT,
    journal: Journal = "wal",
    read_only: bool = False,
    create: bool = True,
    timeout: float = 5.0,
    recover: Recover = "rollback",
    log_limit: LogLimitOption = "kept",
    cache_bytes: int = settings.CACHE_BYTES,
    vfs: str | None = None,
) -> Store:
    """Open the store at *path*, and make it if there is none. Use it in a `with` block.

    A clean open of a store that was closed writes nothing. After a crash, opening recovers the store first, and
    `store.recovery` says what was found and done. Opening tests the tables and each row that it reads, but does not
    hash the entries again: `Store.check()` does.

    Cost: some 30 statements; after a crash also 1 commit, and a pass over SQLite's journal.

    Args:
        path: a file in an existing folder. A new file gets mode 0600. There are no stores in memory: ":memory:" is a
            file name.
        mode: "full": when a write returns, it survives a power cut. "group": the same, and transactions of many
            threads share one commit; each succeeds or fails alone.
        group_size: with mode="group", the most transactions in one commit; 1,000 by default.
        group_wait: with mode="group", seconds after which a commit takes no more transactions; 0.01 by default. No
            write waits for it: a commit begins as soon as nothing else is to be run.
        journal: how SQLite keeps the transactions of a new store atomic; an existing store keeps its own way. "wal":
            one sync for each commit, and readers never wait. "delete": a rollback journal, for file systems without
            shared memory; five syncs for each commit, and readers and writers wait for each other.
        read_only: refuse every write, and leave the content of the file alone. A store that was closed can be read on
            read-only media, and where this user may not write.
        create: make the file if it is missing, and make a store of an empty file.
        timeout: seconds that a write waits for other threads, and then for other processes, before Busy. 0 does not
            wait.
        recover: what to do after a crash. "rollback": recover, and roll back staged transactions of dead processes.
            "resume": recover, and leave these for `Store.pending()` and `Store.resume()`. "refuse": raise, and change
            nothing. "accept": as "rollback", and go on with what can be proven where SQLite's journal is damaged.
        log_limit: the size in bytes that the log is kept at, in the file from then on: commits cut the oldest ones.
            None keeps all. "kept" is what the file says, 64 MiB in a new store. See `Store.set_log_limit()`.
        cache_bytes: memory for SQLite's page caches, 1 MiB to 1 TiB; 72 MiB by default. Three tenths are for writing,
            as much for each of the two readers that are used first, and a tenth is for the others, which take 128 KiB
            each at least. It is taken as pages are read, and given back by close().
        vfs: name of a registered SQLite VFS for input and output; None is the system's.

    Raises:
        JournalDamaged: SQLite's -wal or -journal is missing, damaged, or of another file. Nothing was merged.
        RecoveryDue: the last close was not clean, and *recover* is "refuse".
        StoreMissing: there is no such folder; or no such file, with create=False or read_only=True.
        NotAStore: the path is a folder, or a file of another program.
        FormatTooNew, MigrationMismatch: the file belongs to another version of sqlstate.
        SQLiteTooOld: the SQLite library could lose committed data.
        InvalidOption: an argument is outside its range.
        CannotOpen: the system does not let this process read or make the file.
        ReadOnly: the file cannot be written, and *read_only* is False; or it must be migrated first.
        StoreFull: the disk has no room for the files that SQLite keeps next to the store.
        Damaged: a table or row of the file is not as it was written.
        Busy: others had the file locked for the whole timeout.

    Examples:
        >>> with sqlstate.open("notes.db") as notes:
        ...     notes["todo"][1] = {"text": "water the plants", "done": False}
        >>> with sqlstate.open("notes.db", read_only=True) as notes:
        ...     notes["todo"][1]["text"]
        'water the plants'
    """
    _check_options(mode, journal, timeout, recover)
    _check_limits(group_size, group_wait, cache_bytes)
    if log_limit != "kept":
        check_log_limit(log_limit)
    migrations.shipped()  # before a file is made that could not be filled
    engine = Engine(path, read_only=read_only, create=create, timeout=timeout, vfs=vfs, cache_bytes=cache_bytes)
    try:
        engine.warn_in_loop()
        if _is_new(engine) and (read_only or not create):
            raise migrations.empty_file(engine.path)
        found = inspect(engine, thoroughly=migrations.is_older(engine.header))
        evidence = damage.admit(engine, found, recover)
        meta = _connect(engine, (journal, log_limit), found, recover)
        if _is_suspect(engine, meta, found):
            engine.disconnect()
            found = inspect(engine, thoroughly=True)
            evidence = damage.admit(engine, found, recover)
            meta = _connect(engine, (journal, log_limit), found, recover)
        _check_end(engine, meta)
        if engine.journal != meta.journal and not read_only:
            settings.set_journal(engine.write_connection, meta.journal)
            engine.apply_settings()
        writer = WriteContext(engine, meta)
        report = recovery.recover(writer, found, recover, evidence)
        engine.opener.check_unchanged()
    except BaseException:
        engine.stop()
        engine.close()
        raise
    store = Store(writer, report, (group_size if mode == "group" else 1, group_wait))
    try:
        if log_limit != "kept" and log_limit != store.log_limit:  # noqa: PLR1714, the second asks the file
            store.set_log_limit(log_limit)
    except BaseException:
        store.close()
        raise
    return store


def _is_new(engine: Engine) -> bool:
    """Return True if the file is still empty. If it looks like no store, look again with others kept away.

    Another process may be making it: SQLite writes later pages before the first one if its cache spills.

    Raises:
        NotAStore, FormatTooNew, Damaged: as migrations.is_new().
        Busy: another process was making it for the whole timeout.
    """
    read_header(engine)
    try:
        return migrations.is_new(engine.path, engine.header, undone=undoes_making(engine))
    except NotAStore:
        if engine.header.startswith(SQLITE_MAGIC):
            raise
    with engine.files.exclusive_lock() as alone:
        engine.load_header()
        read_header(engine)
        undone = undoes_making(engine)
        if alone is False and not any(engine.header) and not undone:
            raise Busy(
                f"{engine.path}: another process was making it for {engine.timeout:g} s; nothing was changed. Try "
                "again, or open with a longer timeout"
            )
        return migrations.is_new(engine.path, engine.header, undone=undone)


def _connect(engine: Engine, options: tuple[Journal, LogLimitOption], found: Inspection, recover: Recover) -> Meta:
    """Let SQLite open the file, and recover; bring it to this version's format, and return its facts."""
    there = engine.files.has("-wal") or engine.files.has("-journal")
    # A -wal that this user makes, the file's owner might not be able to write; one that is there can be read.
    if engine.header[18:19] == b"\2" and not (engine.read_only and there) and system.may_not_write(engine.real_path):
        _freeze(engine, None)
    else:
        try:
            if _lacks_shared_memory(engine, found):
                raise StoreFull(
                    f"{engine.path}: the disk is full: SQLite's shared memory has no room next to this file. Nothing "
                    "was changed, and nothing is lost. Free space on its file system, and open it again"
                )
            engine.connect()
            engine.apply_settings()
        except (CannotOpen, ReadOnly, StoreFull) as e:
            _freeze(engine, e)
    is_store = migrations.check_header(engine.write_connection)
    if not is_store or migrations.pending(engine.write_connection, migrations.shipped()):
        if is_store:
            recovery.admit_connected(engine, found, read_meta(engine.write_connection).store_id, recover)
        _migrate(engine, *options)
    schema.check_tables(engine.write_connection)
    meta = metadata.read(engine.write_connection)
    if (
        engine.opener.frozen is not None
        and not engine.opener.frozen.has_wal
        and metadata.read_dirty_flag(engine.write_connection).dirty
    ):
        found.damage, found.reason = "missing", "the file says that there are commits in a -wal, and there is no -wal"
        damage.admit(engine, found, "refuse")
    return meta


def _lacks_shared_memory(engine: Engine, found: Inspection) -> bool:
    """Return True if SQLite could run out of room inside its shared memory: a signal would end the process.

    SQLite asks the system for one byte in each 4,096. With smaller blocks, the other blocks are not made sure of.
    """
    if engine.header[18:19] != b"\2" or found.shared:
        return False
    blocks = system.free_blocks(engine.files.folder)
    if blocks is None or blocks[0] >= _SHM_STEP:
        return False
    frames = engine.files.size("-wal") // page_size(engine.header)
    return blocks[1] + engine.files.blocks("-shm") < _SHM_BYTES * (2 + frames // _SHM_FRAMES)


_SHM_STEP: Final = 4096
_SHM_BYTES: Final = 32768  # for each _SHM_FRAMES
_SHM_FRAMES: Final = 4096


def _freeze(engine: Engine, cause: StoreError | None) -> None:
    """Read the file as it is where SQLite cannot make files next to it; *cause* is what kept SQLite from it.

    Raises:
        ReadOnly, StoreFull: the store was to be opened for writing.
        CannotOpen: it was not closed, and cannot be read like that; or *cause*, if it was something else.
    """
    engine.disconnect()
    full = isinstance(cause, StoreFull)
    if cause is not None and (engine.header[18:19] != b"\2" or not (full or system.may_not_write(engine.files.folder))):
        raise cause
    if not engine.read_only:
        if full:
            raise StoreFull(f"{cause}. To read it now, open it with read_only=True") from cause
        raise ReadOnly(
            f"{engine.path}: it cannot be written: it is on read-only media, or this user may not write it, or not its "
            "folder. Nothing was changed. To read it, open it with read_only=True"
        ) from cause
    if engine.files.size("-journal") or (engine.files.size("-wal") and not full):
        raise CannotOpen(
            f"{engine.path}: it was not closed, and its -wal or -journal cannot be read where nothing can be "
            "written. Nothing was changed. Copy it, with the -wal or -journal, to where this user may write, and open "
            "the copy"
        ) from cause
    with engine.files.exclusive_lock() as alone:
        if cause is not None and (alone is False or (alone is None and full)):
            raise cause
        engine.freeze(_pages(engine))
    engine.connect()
    engine.apply_settings()


def _pages(engine: Engine) -> Pages | None:
    """Return the pages that SQLite would take from the -wal, or None if it has none."""
    from sqlstate.recovery.sqlite_wal import scan_wal  # noqa: PLC0415, seldom needed

    data = engine.files.sidecar("-wal")
    scan = scan_wal(data, page_size(engine.header))
    return Pages(scan.page_size, data, scan.pages, scan.database_pages) if scan.committed else None


def _is_suspect(engine: Engine, meta: Meta, found: Inspection) -> bool:
    """Return True if the store is dirty and no -wal was found: it is lost, or another process came since."""
    if meta.journal != "wal" or found.shared or found.flag is not None or found.damage:
        return False
    return metadata.read_dirty_flag(engine.write_connection).dirty


def _check_end(engine: Engine, meta: Meta) -> None:
    """Raise if the log of a store that was closed ends with another record than when it was closed (I11)."""
    with engine.write_connection.one_state():
        flag, lsn = metadata.read_dirty_flag(engine.write_connection), wal.last(engine.write_connection, meta)[0]
    if not flag.dirty and flag.lsn and flag.lsn != lsn:
        raise Damaged(
            f"I11: {engine.path}: the store was closed with record {flag.lsn}, and its log ends with record {lsn}: "
            "part of the file was lost or changed. Nothing was changed. sqlstate.repair() mends what can be proven; "
            "or restore a backup"
        )


def _check_options(mode: str, journal: str, timeout: float, recover: str) -> None:
    if mode not in ("full", "group"):
        raise InvalidOption(f"mode={mode!r} is not 'full' or 'group'")
    if journal not in ("wal", "delete"):
        raise InvalidOption(f"journal={journal!r} is not 'wal' or 'delete'")
    if recover not in WAYS:
        raise InvalidOption(f"recover={recover!r} is not {', '.join(map(repr, WAYS[:-1]))} or 'accept'")
    check_timeout(timeout)


def _check_limits(group_size: int, group_wait: float, cache_bytes: int) -> None:
    if type(group_size) is not int or group_size < 1:
        raise InvalidOption(f"group_size={group_size!r} is not a number of transactions, 1 or more")
    if not isinstance(group_wait, int | float) or not 0 <= group_wait < threading.TIMEOUT_MAX:
        raise InvalidOption(f"group_wait={group_wait!r} is not a number of seconds, 0 or more")
    least, most = settings.CACHE_BYTES_MIN, settings.CACHE_BYTES_MAX
    if type(cache_bytes) is not int or not least <= cache_bytes <= most:
        raise InvalidOption(f"cache_bytes={cache_bytes!r} is not a number of bytes from {least:,} to {most:,}")


def _migrate(engine: Engine, journal: Journal, log_limit: LogLimitOption) -> None:
    """Bring the file to this version's format; of several processes that try at once, one does.

    A new file gets its tables through a rollback journal, so that its first page says from the beginning what
    it is. The journal mode that was asked for comes after, and is made good by the next open if not.
    """
    if engine.read_only:
        raise ReadOnly(f"{engine.path} must be migrated before this version can read it; open it for writing once")
    writer = engine.write_connection
    writer.begin()
    try:
        bring_up(writer, journal, log_limit)
        engine.commit_unnumbered("bringing the file to this version's format")
    except BaseException:
        writer.rollback()
        raise


def bring_up(writer: Connection, journal: Journal, log_limit: LogLimitOption) -> None:
    """Make a store of an empty database, or bring one to this version's format, inside the caller's transaction."""
    at = now()
    is_store = migrations.check_header(writer)
    pending = migrations.pending(writer, migrations.shipped()) if is_store else migrations.shipped()
    if pending:
        migrations.apply(writer, pending, at)
    if not is_store:
        metadata.write(writer, metadata.Meta(os.urandom(fmt.STORE_ID_BYTES), journal, at))
        metadata.write_log_limit(writer, DEFAULT if log_limit == "kept" else log_limit)
    meta = metadata.read(writer)
    for migration in pending:
        detail = {"number": migration.number, "name": migration.name, "sha256": migration.sha256.hex()}
        audit.append(writer, meta.store_id, wal.last(writer, meta)[1], at, ("migration", detail))
