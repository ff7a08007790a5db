"""The open store on a cluster: the face of a store in a file, as far as several machines can hold it."""

from __future__ import annotations

import functools
import os
import tempfile
from contextlib import contextmanager
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, Final, NoReturn

from sqlstate.cluster import transfer
from sqlstate.cluster.entries import ClusterEntries
from sqlstate.cluster.nodes import Lost
from sqlstate.errors import Busy, CommitOutcomeUnknown, StoreUnusable
from sqlstate.maintenance.closed_file import absolute
from sqlstate.store.access import condition
from sqlstate.store.past.at import PastView
from sqlstate.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlstate.cluster.engine import ClusterEngine
    from sqlstate.commit.write_context import WriteContext
    from sqlstate.headlog import SignedHead
    from sqlstate.maintenance.backup.backup import BackupReport
    from sqlstate.maintenance.check.check import CheckReport, Level
    from sqlstate.maintenance.closed_file import Progress
    from sqlstate.recovery.report import RecoveryReport

_READS: Final = (
    "audit", "changes", "collections", "commits", "head", "prove", "prove_commit", "prove_consistency", "prove_count",
    "prove_many", "prove_range", "signed_head", "stats",
)  # fmt: skip
"""Methods that read several things, which must be of one moment."""
_WRITES: Final = ("cut", "index_history", "revert", "set_log_limit", "set_logging", "undo")
"""Methods that write, and can be called again when another machine's commit came first."""
GROUP_SECONDS: Final = 0.05
"""A commit takes no more transactions after this time: each read of one takes a request."""
REFUSED: Final = {
    "batch": "each commit is durable on most nodes before it returns. Use transaction(), or submit() and barrier()",
    "compact": "each node keeps its own file. Let the nodes do it: `rqlited -auto-vacuum-int`",
    "pending": "there are no staged transactions on a cluster",
    "redact": "the values would stay in the logs and backups of the nodes. Delete the entry, and use set_logging()",
    "resume": "there are no staged transactions on a cluster",
    "salvage": "there is no one file to copy. Use backup(), or a node's own file",
    "sizes": "each node keeps its own file",
    "stage": "nobody could tell whether the process that staged is alive. Use transaction()",
}
"""Methods that a cluster cannot offer, and why."""
REFUSED_PROPERTIES: Final = {
    "path": "there is no one file. Its addresses are `urls`",
    "wal": "its records are those of commits alone. Read changes()",
}


class ClusterStore(Store):
    """One open store on a cluster, made by `sqlstate.cluster.open()`. Close it, or use it in a `with` block.

    It is used as a Store is. Each commit is one request, which changes nothing if another machine's commit came first:
    then `store.run(work)`, and puts and deletes outside a transaction, are done again until the timeout. A block of
    `store.transaction()` cannot be done again, and raises Conflict.

    What it cannot offer raises StoreUnusable, and says why; see docs/reference/cluster.md.

    Examples:
        >>> with cluster.open(urls) as store:
        ...     store["users"].update({1: "ada", 2: "bob"})
        ...     print(store, len(store["users"]), store.check().ok)
        <sqlstate.cluster.ClusterStore 'http://...': open> 2 True
        >>> store.stage()
        Traceback (most recent call last):
        StoreUnusable: ...
    """

    _engine: ClusterEngine
    _entries: ClusterEntries

    def __init__(self, writer: WriteContext, engine: ClusterEngine, recovery: RecoveryReport, size: int) -> None:
        super().__init__(writer, recovery, (size, GROUP_SECONDS))
        self._engine = engine
        self._entries = ClusterEntries(self._group, writer, engine)

    @property
    def urls(self) -> list[str]:
        """The addresses of the nodes, as they were given to open()."""
        return self._engine.nodes.urls

    def snapshot(self) -> PastView:  # type: ignore[override]
        """Return the store as the newest commit left it, for reading while others write. Use it in a `with` block.

        It reads the newest state, and from the log what was there before later commits. It makes no proofs.

        Cost: 1 request, and 1 or more for each read.

        Raises:
            LogCut: while it is read: later commits were cut from the log.
            StoreClosed: the store was closed.

        Examples:
            >>> with cluster.open(urls) as store:
            ...     store["a"][1] = "old"
            ...     with store.snapshot() as view:
            ...         store["a"][1] = "new"
            ...         print(view["a"][1])
            old
        """
        return PastView(self._entries.snapshot())

    def committed(self, error: CommitOutcomeUnknown) -> bool:
        """Return True if the commit whose outcome *error* left unknown is in the store. If not, it never will be.

        Cost: 1 write of the cluster, which makes no commit, and 2 requests.

        Args:
            error: as it was raised.

        Raises:
            Busy: the cluster could not be asked in time. Ask again.
            StoreClosed: the store was closed.

        Examples:
            >>> def visit(store):
            ...     try:
            ...         store["visits"][1] = True
            ...     except sqlstate.CommitOutcomeUnknown as error:
            ...         with cluster.open(store.urls) as again:
            ...             return again.committed(error)
            ...     return True
            >>> with cluster.open(urls) as store:
            ...     print(visit(store))
            True
        """
        self._engine.life.check()
        try:
            self._engine.fence()
        except Lost as e:
            raise Busy(f"{self._engine.path}: the cluster could not be asked ({e}); ask again") from e
        return self._engine.readers.steadily(lambda: self._engine.holds(error.seq, error.chain))

    def backup(self, dest: str | os.PathLike[str], *, keep: int = 0, progress: Progress | None = None) -> BackupReport:
        """Copy the newest commit's state into one file, a store, and check the copy before it gets its name.

        Cost: what the cluster holds is sent once, and written twice here; the copy is hashed.

        Args:
            dest: the path of the copy. An existing backup of this store is replaced, or rotated.
            keep: how many backups to keep: *dest*, and the older ones as `dest.1`, `dest.2`, …; 0 keeps one.
            progress: called with the work done, and the work in all.

        Raises:
            InvalidOption: *dest* is not a closed backup of this store; or *keep* is not a number.
            Busy: the cluster could not be asked in time, or somebody has a backup open that would be replaced.
            Damaged: the copy is not sound; *dest* and older backups are unchanged.
            StoreFull, StoreIOError: the copy could not be written; *dest* is unchanged.

        Examples:
            >>> with cluster.open(urls) as store:
            ...     store["a"][1] = 1
            ...     print(store.backup("app.backup").head == store.head())
            True
        """
        with self._copied(os.path.dirname(absolute(dest))) as copy:
            return self._recorded(copy.backup(dest, keep=keep, progress=progress))

    def check(
        self, level: Level = "full", *, against: SignedHead | bytes | None = None, progress: Progress | None = None
    ) -> CheckReport:
        """Copy the newest commit's state, and compare everything in the copy, as `Store.check()` does.

        Cost: what the cluster holds is sent once, and written to a temporary file; then as `Store.check()`.

        Args:
            level: "quick", "full" or "replay".
            against: a signed head, or the 32 bytes of a commit's root.
            progress: called with the number of rows read, and of all rows.

        Raises:
            InvalidOption: *level* or *against* is invalid.
            Busy: the cluster could not be asked in time.

        Examples:
            >>> with cluster.open(urls) as store:
            ...     print(store.check("quick").ok)
            True
        """
        with self._copied() as copy:
            return copy.check(level, against=against, progress=progress)

    def check_audit(self) -> list[str]:
        """Copy the newest state, and read the audit trail in the copy again, as `Store.check_audit()` does.

        Cost: as check("quick").

        Raises:
            Busy: the cluster could not be asked in time.

        Examples:
            >>> with cluster.open(urls) as store:
            ...     print(store.check_audit())
            []
        """
        with self._copied() as copy:
            return copy.check_audit()

    @contextmanager
    def _copied(self, folder: str | None = None) -> Iterator[Store]:
        """Return a block with a copy of what the cluster holds, at least as new as now."""
        head = self.head()
        nodes = self._engine.nodes
        with (
            tempfile.TemporaryDirectory(prefix=".sqlstate-cluster-", dir=folder) as place,
            transfer.fetched(nodes, os.path.join(place, "copy.db"), head) as copy,
        ):
            yield copy

    def __repr__(self) -> str:
        return f"<sqlstate.cluster.ClusterStore {self._engine.path!r}: {condition(self._engine.life)}>"


_NO_ARGUMENTS: Final = Signature([Parameter("self", Parameter.POSITIONAL_ONLY)])
_REFUSAL: Final = """Raise StoreUnusable: a store on a cluster has no {name}.

{why}.

Cost: none.

Raises:
    StoreUnusable: always.

Examples:
    >>> store.{name}
    Traceback (most recent call last):
    StoreUnusable: ...
"""


def _steady(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def read(self: ClusterStore, *arguments: Any, **options: Any) -> Any:
        return self._engine.readers.steadily(lambda: method(self, *arguments, **options))

    return read


def _again(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def write(self: ClusterStore, *arguments: Any, **options: Any) -> Any:
        return self._entries.until_first(lambda: method(self, *arguments, **options))

    return write


def _refusal(name: str, why: str) -> Callable[..., NoReturn]:
    def refuse(self: ClusterStore, *_: Any, **__: Any) -> NoReturn:
        raise StoreUnusable(f"{self._engine.path}: a store on a cluster has no {name}: {why}")

    refuse.__name__ = name
    refuse.__signature__ = _NO_ARGUMENTS  # type: ignore[attr-defined]  # what help() shows
    refuse.__doc__ = _REFUSAL.format(name=name, why=why[0].upper() + why[1:])
    return refuse


for _name in _READS:
    setattr(ClusterStore, _name, _steady(getattr(Store, _name)))
for _name in _WRITES:
    setattr(ClusterStore, _name, _again(getattr(Store, _name)))
for _name, _why in REFUSED.items():
    setattr(ClusterStore, _name, _refusal(f"{_name}()", _why))
for _name, _why in REFUSED_PROPERTIES.items():
    setattr(ClusterStore, _name, property(_refusal(_name, _why)))
