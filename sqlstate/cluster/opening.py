"""Opening a store on a cluster, and starting a cluster with a store's file."""

from __future__ import annotations

import os
import ssl
import tempfile
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack

from sqlstate.aio.opening import Opening
from sqlstate.cluster import transfer
from sqlstate.cluster.engine import ClusterEngine, ClusterFlag
from sqlstate.cluster.literals import filled, marked, rows
from sqlstate.cluster.nodes import Lost, Nodes
from sqlstate.cluster.store import ClusterStore
from sqlstate.commit.write_context import WriteContext
from sqlstate.errors import CannotOpen, InvalidOption, MigrationMismatch, NotAStore, StoreIOError, StoreMissing
from sqlstate.recovery.report import RecoveryReport
from sqlstate.sqlite.connection import Connection
from sqlstate.store import opening
from sqlstate.store.watch import check_timeout
from sqlstate.tables import meta as metadata
from sqlstate.tables import migrations, schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlstate.format.records import Head
    from sqlstate.tables.meta import Meta

GROUP_SIZE: Final = 1000
MILLISECOND: Final = 0.001  # rqlite takes 0 for no limit
_FACTS: Final = ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_schema")


def open(  # noqa: A001, the word every Python programmer looks for
    urls: Sequence[str],
    *,
    auth: tuple[str, str] | None = None,
    tls: str | os.PathLike[str] | ssl.SSLContext | None = None,
    timeout: float = 10.0,
    stale_ok: float | None = None,
    create: bool = True,
) -> ClusterStore:
    """Open the store on an rqlite cluster, and make it if the cluster is empty. Use it in a `with` block.

    Each commit is in the logs of most nodes when it returns. Threads of a process share commits.

    Cost: some 5 requests.

    Args:
        urls: the address of each node: `["http://host:4001", …]`. One is enough as long as it runs.
        auth: user name and password, which every node must know.
        tls: with https addresses: a file of certificates to trust, or an SSLContext; None trusts the system's.
        timeout: seconds that a call waits for a node that answers, and for other machines' commits, before Busy. An
            election takes 1 to 3 s.
        stale_ok: seconds by which what is read may be behind. Any node then answers reads, and writes are refused.
            None reads the newest commit.
        create: make a store if the cluster is empty.

    Raises:
        Busy: no node gave an answer in time, or there is no leader.
        CannotOpen: the user name or password was refused.
        NotAStore: the cluster holds other tables.
        StoreMissing: it is empty, and *create* is False or *stale_ok* is given.
        FormatTooNew, MigrationMismatch: another version of sqlstate made the store.
        Damaged: a table is not as it was made.
        InvalidOption: an argument is outside its range.

    Examples:
        >>> with cluster.open(urls) as store:
        ...     store["settings"]["lang"] = "fr"
        ...     print(store.run(lambda txn: txn.get("settings", "lang")), store.head().seq)
        fr 1
    """
    check_timeout(timeout)
    if stale_ok is not None and not (
        isinstance(stale_ok, int | float) and MILLISECOND <= stale_ok < threading.TIMEOUT_MAX
    ):
        raise InvalidOption(f"stale_ok={stale_ok!r} is not a number of seconds, {MILLISECOND} or more")
    nodes = Nodes(urls, auth=auth, tls=_context(tls), timeout=timeout, stale=stale_ok)
    try:
        while _is_empty(nodes):
            if not create or stale_ok is not None:
                raise StoreMissing(
                    f"{nodes.name}: the cluster is empty; open it with create=True to make a store in it"
                )
            _make(nodes)
        engine = ClusterEngine(nodes, read_only=stale_ok is not None)
        meta = engine.readers.steadily(lambda: _admit(engine))
    except BaseException:
        nodes.close()
        raise
    writer = WriteContext(engine, meta, ClusterFlag(engine, meta))
    writer.node_cache.moves = 0
    return ClusterStore(writer, engine, RecoveryReport(clean=True), GROUP_SIZE)


class Options(TypedDict, total=False):
    """The options of open() that open_async() passes on."""

    auth: tuple[str, str] | None
    """User name and password."""
    tls: str | os.PathLike[str] | ssl.SSLContext | None
    """How certificates are checked."""
    timeout: float
    """Seconds that a call waits before Busy."""
    stale_ok: float | None
    """Seconds by which what is read may be behind."""
    create: bool
    """Make a store if the cluster is empty."""


def open_async(urls: Sequence[str], **options: Unpack[Options]) -> Opening:
    """Open the store on an rqlite cluster for tasks, as `sqlstate.aio.open()` opens one in a file.

    Cost: 1 hop to a thread, and what open() costs.

    Args:
        urls: as for open().
        options: the other arguments of open().

    Raises:
        StoreError: what open() raises, when it is awaited.

    Examples:
        >>> async with cluster.open_async(urls) as store:
        ...     await store.put("settings", "lang", "fr")
        ...     print(await store.get("settings", "lang"))
        fr
    """
    return Opening(", ".join(map(str, urls)), lambda: open(urls, **options))


def load(
    file: str | os.PathLike[str],
    urls: Sequence[str],
    *,
    auth: tuple[str, str] | None = None,
    tls: str | os.PathLike[str] | ssl.SSLContext | None = None,
    timeout: float = 10.0,
) -> Head:
    """Start a new cluster with a store's file, and return the newest commit as the cluster has it.

    The cluster gets the entries, the log and the audit trail. The file is checked and copied first, and is not changed.
    Nobody else may write to the cluster meanwhile.

    Cost: the file is read and hashed, sent once, and written by each node. Its copy is in memory as a whole.

    Args:
        file: a store.
        urls: as for open().
        auth: as for open().
        tls: as for open().
        timeout: as for open().

    Raises:
        InvalidOption: the cluster is not empty, or the file has staged transactions. Nothing was changed.
        StoreIOError: the cluster refused the file, or nobody knows whether it took it.
        StoreError: what `sqlstate.open()` and open() raise.

    Examples:
        >>> with sqlstate.open("app.db") as origin:
        ...     origin["settings"]["lang"] = "fr"
        >>> cluster.load("app.db", urls).seq
        1
    """
    check_timeout(timeout)
    nodes = Nodes(urls, auth=auth, tls=_context(tls), timeout=timeout)
    with closing(nodes), tempfile.TemporaryDirectory(prefix="sqlstate-cluster-") as folder:
        if not _is_empty(nodes):
            raise InvalidOption(
                f"{nodes.name}: the cluster is not empty; load the file into a new one. Nothing was changed"
            )
        copy = os.path.join(folder, "copy.db")
        with opening.open(file, create=False, read_only=True) as store:
            if store.stats().staged:
                raise InvalidOption(
                    f"{file}: it has staged transactions that have not ended, and a cluster has none; commit them or "
                    "roll them back first. Nothing was changed"
                )
            head = store.backup(copy).head
        transfer.put(nodes, copy)
    with open(urls, auth=auth, tls=tls, timeout=timeout, create=False) as loaded:
        there = loaded.head()
    if there != head:
        raise StoreIOError(f"{nodes.name}: the cluster holds commit {there.seq}, and the file ends with {head.seq}")
    return there


def _context(tls: str | os.PathLike[str] | ssl.SSLContext | None) -> ssl.SSLContext | None:
    if tls is None or isinstance(tls, ssl.SSLContext):
        return tls
    try:
        return ssl.create_default_context(cafile=tls)
    except (OSError, TypeError, ssl.SSLError) as e:
        raise InvalidOption(f"tls={tls!r} is not a file of certificates, and no SSLContext ({e})") from e


def _is_empty(nodes: Nodes) -> bool:
    """Return True if the cluster holds nothing.

    Raises:
        NotAStore, FormatTooNew, Damaged: it holds something else than a store of this version.
    """
    results = nodes.query([marked(sql, ()) for sql in _FACTS])
    application_id, version, items = (rows(each.get("values"))[0][0] for each in results)
    if not (application_id or version or items):
        return True
    try:
        migrations.check_numbers(nodes.name, application_id, version)
    except NotAStore:
        raise NotAStore(
            f"{nodes.name}: the cluster holds tables of another program; nothing was changed. Use an empty one"
        ) from None
    return False


def _admit(engine: ClusterEngine) -> Meta:
    """Return the facts of the store.

    Raises:
        MigrationMismatch, Damaged: it is not as this version makes it.
    """
    with engine.reading() as connection:
        if migrations.pending(connection, migrations.shipped()):
            raise MigrationMismatch(
                f"{engine.path}: the cluster's store has an older format. Nothing was changed. Back it up to a file, "
                "open that once, and load it into a new cluster"
            )
        schema.check_tables(connection)
        return metadata.read(connection)


class _Rehearsal(Connection):
    """A database in memory, and the statements that were run in it."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        super().__init__(":memory:", 0.0)
        self.done: list[str] = []

    def run(self, sql: str, values: Sequence[Any] = (), *, keep: bool = True) -> None:
        """Run a statement, and note it."""
        super().run(sql, values, keep=keep)
        if sql not in ("BEGIN", "ROLLBACK"):
            self.done.append(filled(sql, values))

    def run_many(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each of *values*, and note it."""
        for each in values:
            self.run(sql, each)


def _make(nodes: Nodes) -> None:
    """Make a store in an empty cluster. Of several processes that try at once, one does: a table is made once."""
    rehearsal = _Rehearsal()
    opening.bring_up(rehearsal, "wal", "kept")
    try:
        error = nodes.execute(rehearsal.done)
    except Lost:
        return  # the next look says whether it was done; if it is done later, a table is there already
    if error and "already exists" not in error:
        raise CannotOpen(f"{nodes.name}: a store could not be made in the cluster ({error}); nothing was changed")
