"""Opening a store, and restoring one from a backup."""

from __future__ import annotations

import os
import secrets
import threading
from typing import TYPE_CHECKING, Literal

from sqlstate import audit, backup, migrate, recovery, wal
from sqlstate import format as fmt
from sqlstate import meta as metadata
from sqlstate.commit import Writer, now
from sqlstate.engine import Engine
from sqlstate.errors import InvalidOption, ReadOnly
from sqlstate.group import GROUP_SIZE, GROUP_WAIT
from sqlstate.inspection import inspect, read_header, undoes_making
from sqlstate.store import Store, check_timeout

if TYPE_CHECKING:
    from sqlstate.backup import BackupReport, Progress
    from sqlstate.connection import Journal
    from sqlstate.inspection import Inspection
    from sqlstate.meta import Meta
    from sqlstate.recovery import Recover

Mode = Literal["full", "group"]


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
    vfs: str | None = None,
) -> Store:
    """Open the store at *path*, making it if there is none, and return it. Use it in a `with` block.

    Args:
        path: a file in an existing folder. A new one gets mode 0600, its owner's alone.
        mode: `"full"`: when a write returns, it survives a power cut. `"group"`: the same, and transactions of
            many threads share one COMMIT; each fails or holds alone. One thread by itself pays nothing for it.
        group_size: with `mode="group"`, the most transactions in one commit.
        group_wait: with `mode="group"`, seconds after which a commit takes no more transactions. It does not make
            any write wait: a commit is made as soon as nothing else is to be run.
        journal: how SQLite keeps transactions of a new store atomic; a store that is there keeps its own.
            `"wal"` with synchronous=FULL: one sync a commit, readers never wait. `"delete"` with
            synchronous=EXTRA: a rollback journal, for file systems without shared memory; five syncs a
            commit, and readers and writers wait for each other.
        read_only: refuse every write, and change nothing about the file.
        create: make the file if there is none.
        timeout: seconds that a write waits before Busy: for other threads, and then again for other processes.
        recover: what to do if the last close was not clean; `store.recovery` says what was found and done.
            `"rollback"`: recover, and roll back staged transactions that a dead process left. `"resume"`: the
            same, but leave those for store.pending() and store.resume(). `"refuse"`: raise, and touch nothing.
            `"accept"`: go on even if SQLite's journal is damaged, with what can be proven.
        vfs: name of a registered SQLite VFS that does the input and output; None is the system's.

    Raises:
        JournalDamaged: SQLite's -wal or -journal is lost, damaged, or of another file. Nothing was merged.
        RecoveryDue: the last close was not clean, and *recover* is `"refuse"`.
        StoreMissing: no such folder; or no such file, and *create* is False or *read_only* True.
        NotAStore: a folder, or a file of another program.
        FormatTooNew, MigrationMismatch: the file belongs to another version of sqlstate.
        SQLiteTooOld: the SQLite library could lose committed data.
        InvalidOption: an argument is outside what it may be.
        CannotOpen: the system does not let us look at the file, or make it.
        Damaged: the file contradicts itself.
        Busy: others had the file locked for the whole timeout.
    """
    _check_options(mode, journal, timeout, recover)
    _check_limits(group_size, group_wait)
    migrate.shipped()  # before a file is made that could not be filled
    engine = Engine(path, read_only=read_only, create=create, timeout=timeout, vfs=vfs)
    try:
        read_header(engine)
        new = migrate.is_new(engine.path, engine.header, undone=undoes_making(engine))
        if new and (read_only or not create):
            raise migrate.empty_file(engine.path)
        found = inspect(engine, thoroughly=migrate.is_older(engine.header))
        evidence = recovery.admit(engine, found, recover)
        meta = _connect(engine, journal)
        if _is_suspect(engine, meta, found):
            engine.disconnect()
            found = inspect(engine, thoroughly=True)
            evidence = recovery.admit(engine, found, recover)
            meta = _connect(engine, journal)
        if engine.journal != meta.journal and not read_only:
            engine.writer.set_journal(meta.journal)
            engine.settle()
        writer = Writer(engine, meta)
        report = recovery.recover(writer, found, recover, evidence)
    except BaseException:
        engine.close()
        raise
    return Store(writer, report, (group_size if mode == "group" else 1, group_wait))


def restore(
    source: str | os.PathLike[str],
    dest: str | os.PathLike[str],
    *,
    replace: bool = False,
    accept_copy: bool = False,
    progress: Progress | None = None,
) -> BackupReport:
    """Make the store *dest* from a backup, whole or not at all; its audit trail says so.

    Args:
        source: a closed store. It is checked whole before, and the copy again before it gets its name.
        dest: a path where no file is yet.
        replace: replace the store that is there.
        accept_copy: take a *source* that is a copy of a store that was open, made by a backup tool that knows SQLite
            alone. All of it is checked, and it is taken with the commit that it ends with; later ones are not in it.
        progress: called with pages copied and entries checked, and how many there are of both.

    Raises:
        RestoreRejected: *source* is damaged, is not a store, or is in use; *dest* is as it was.
        InvalidOption: *dest* is there, or a -wal or -journal lies beside it; it is as it was.
        Busy: *dest* is in use.
        StoreFull, StoreIOError: *dest* could not be written; it is as it was.
    """
    done = backup.restore(source, dest, replace=replace, accept_copy=accept_copy, progress=progress)
    with open(done.path, recover="resume" if done.copied_open else "rollback") as store:
        detail = {"file": os.path.basename(source), "bytes": done.bytes, "seq": done.head.seq}
        if done.copied_open:
            detail["copied_open"] = True
        store.record("restore", detail | {"root": done.head.root.hex()})
    return done


def _connect(engine: Engine, journal: Journal) -> Meta:
    """Let SQLite open the file, and recover; bring it to this version's format, and return its facts."""
    engine.connect()
    engine.settle()
    if not migrate.check_header(engine.writer) or migrate.pending(engine.writer, migrate.shipped()):
        _migrate(engine, journal)
    migrate.check_schema(engine.writer)
    return metadata.read(engine.writer)


def _is_suspect(engine: Engine, meta: Meta, found: Inspection) -> bool:
    """Tell whether the marker is open where there was no -wal to look at: it is lost, or somebody just came."""
    if meta.journal != "wal" or found.shared or found.marker is not None or found.damage:
        return False
    return metadata.read_marker(engine.writer).open


def _check_options(mode: str, journal: str, timeout: float, recover: str) -> None:
    if mode not in ("full", "group"):
        raise InvalidOption(f"mode={mode!r} is not 'full' or 'group'")
    if journal not in ("wal", "delete"):
        raise InvalidOption(f"journal={journal!r} is not 'wal' or 'delete'")
    if recover not in recovery.WAYS:
        raise InvalidOption(f"recover={recover!r} is not {', '.join(map(repr, recovery.WAYS[:-1]))} or 'accept'")
    check_timeout(timeout)


def _check_limits(group_size: int, group_wait: float) -> None:
    if type(group_size) is not int or group_size < 1:
        raise InvalidOption(f"group_size={group_size!r} is not a number of transactions, 1 or more")
    if not isinstance(group_wait, int | float) or not 0 <= group_wait < threading.TIMEOUT_MAX:
        raise InvalidOption(f"group_wait={group_wait!r} is not a number of seconds, 0 or more")


def _migrate(engine: Engine, journal: Journal) -> None:
    """Bring the file to this version's format; of several processes that try at once, one does.

    A new file gets its tables through a rollback journal, so that its first page says from the beginning what
    it is. The journal mode that was asked for comes after, and is made good by the next open if not.
    """
    if engine.read_only:
        raise ReadOnly(f"{engine.path} must be migrated before this version can read it; open it for writing once")
    at = now()
    writer = engine.writer
    writer.begin()
    try:
        is_store = migrate.check_header(writer)
        pending = migrate.pending(writer, migrate.shipped()) if is_store else migrate.shipped()
        if pending:
            migrate.apply(writer, pending, at)
        if not is_store:
            metadata.write(writer, metadata.Meta(secrets.token_bytes(fmt.STORE_ID_BYTES), journal, at))
        meta = metadata.read(writer)
        for migration in pending:
            detail = {"number": migration.number, "name": migration.name, "sha256": migration.sha256.hex()}
            audit.append(writer, meta.store_id, wal.last(writer, meta)[1], at, ("migration", detail))
        engine.commit_other("bringing the file to this version's format")
    except BaseException:
        writer.rollback()
        raise
