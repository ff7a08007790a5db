"""Every exception that sqlstate raises, in one tree.

    StoreError
    ├── CannotOpen              the path does not lead to a store that this version can use
    │   ├── StoreMissing        no file there, and create=False or read_only=True
    │   ├── NotAStore           a directory, another program's file, or a broken header
    │   ├── FormatTooNew        made by a newer sqlstate
    │   ├── MigrationMismatch   the file's recorded migrations are not the ones of this version
    │   ├── SQLiteTooOld        the SQLite library in use has a known bug that loses data
    │   └── RecoveryDue         the last close was not clean, and recover="refuse"
    ├── StoreUnusable           this handle cannot be used any more
    │   ├── StoreClosed
    │   ├── StoreForked         it was opened by a parent process
    │   └── TransactionEnded    a transaction or snapshot used after its block
    ├── ReadOnly                a write through a handle that only reads
    ├── Busy                    another writer held the lock for the whole timeout
    ├── Conflict                an entry is not what the transaction expected
    ├── ValueRedacted           the log has the digest of a value only
    ├── LogCut                  a commit is asked for whose records were cut from the log
    ├── InvalidInput (ValueError)
    │   ├── InvalidOption       an argument is invalid
    │   ├── InvalidName         a collection's name
    │   ├── InvalidKey
    │   ├── InvalidValue        names the place inside the value
    │   └── InvalidRecord       a WAL record that the protocol does not allow here
    ├── EntryNotFound (KeyError)
    ├── ImportRejected          a source file could not be imported; nothing of the batch was
    ├── RestoreRejected         a backup could not be restored; nothing was changed
    ├── ProofInvalid            a proof or a signed head does not prove what it was asked to
    ├── Damaged                 stored bytes contradict each other
    │   └── JournalDamaged      SQLite's -wal or -journal is lost, damaged, or of another file
    ├── StoreFull               the disk is full; the transaction was rolled back
    ├── StoreIOError            the operating system refused to read or write
    └── CommitOutcomeUnknown    an error at COMMIT: the commit may or may not be there

There are two warnings, WalPinned and BlocksEventLoop (RuntimeWarning).

A message says what happened, what it means for the data, and what to do. The facts in it are also
attributes of the exception. The page docs/reference/errors.md lists them with their exit codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence


class StoreError(Exception):
    """The root of all exceptions of sqlstate.

    Attributes:
        what: what happened, without the file's path in front and without what to do, where the error was made of such
            parts; else the whole message.
        do: what to do, where the error was made of such parts; else `""`.
    """

    _what = ""
    do = ""

    @classmethod
    def about(cls, path: str, what: str, do: str, rule: str = "") -> Self:
        """Return the error of which the message is made of these parts.

        Args:
            path: the file.
            what: what happened, and what it means for the data.
            do: what to do, and whether something was changed.
            rule: number of the invariant that does not hold.
        """
        front = f"{rule}: " if rule else ""
        error = cls(f"{front}{path}: {what}; {do}")
        error._what, error.do = f"{front}{what}", do
        return error

    @property
    def what(self) -> str:
        """See the class."""
        return self._what or str(self)


class CannotOpen(StoreError):
    """The path does not lead to a store that this version can use. Nothing was changed."""


class StoreMissing(CannotOpen):
    """There is no file at the path, and the caller did not ask to create one."""


class NotAStore(CannotOpen):
    """What is at the path is not a store: a directory, or a file of another program."""


class FormatTooNew(CannotOpen):
    """The file was written by a newer version of sqlstate."""


class MigrationMismatch(CannotOpen):
    """The migrations recorded in the file are not the ones that this version ships."""


class SQLiteTooOld(CannotOpen):
    """The SQLite library in use has a known bug that can lose committed data."""


class RecoveryDue(CannotOpen):
    """The last close was not clean, and `recover="refuse"` asked to leave everything as it is.

    Attributes:
        report: the RecoveryReport: what was found.
    """

    def __init__(self, message: str, report: Any) -> None:
        super().__init__(message)
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.report)


class StoreUnusable(StoreError):
    """The handle cannot be used, or cannot be used any more."""


class StoreClosed(StoreUnusable):
    """The store was used after close()."""


class StoreForked(StoreUnusable):
    """The store was opened before a fork and used in the child process."""


class TransactionEnded(StoreUnusable):
    """A transaction or snapshot was used after its block, or from another thread."""


class ReadOnly(StoreError):
    """A write was asked of a handle, a snapshot or a view that only reads."""


class Busy(StoreError):
    """Another writer held the lock for the whole timeout. Nothing was changed; try again.

    Attributes:
        holder: id of the process that held the lock at the end, None if it is not known.
    """

    def __init__(self, message: str, holder: int | None = None) -> None:
        super().__init__(message)
        self.holder = holder

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.holder)


class Conflict(StoreError):
    """An entry is not what the transaction expected, so the transaction changed nothing.

    Attributes:
        collection: name of the collection.
        key: the entry's key.
        expected: the value the caller expected, or ABSENT.
        actual: the value that is there, or ABSENT.
        entries: collection and key of all entries that are not as expected. The other attributes are of the first.
    """

    def __init__(
        self,
        collection: str,
        key: object,
        expected: object,
        actual: object,
        entries: Sequence[tuple[str, object]] = (),
    ) -> None:
        self.entries = [*entries] or [(collection, key)]
        others = f", and {len(self.entries) - 1:,} more entries are not as expected" if len(self.entries) > 1 else ""
        super().__init__(
            f"{collection!r}[{key!r}] is {_short(actual)}, expected {_short(expected)}{others}; nothing was changed. "
            "Read it again, and decide again"
        )
        self.collection = collection
        self.key = key
        self.expected = expected
        self.actual = actual

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.collection, self.key, self.expected, self.actual, self.entries)


class ValueRedacted(StoreError):
    """The value of an entry as it was is needed, and the log has its digest only. Nothing was changed.

    It was taken out by redact(), superseded within a staged transaction, or is of a collection that logs digests only.

    Attributes:
        collection: name of the collection.
        key: the entry's key.
        entries: collection and key of all entries whose values are needed. The other attributes are of the first.
    """

    def __init__(self, collection: str, key: object, entries: Sequence[tuple[str, object]] = ()) -> None:
        self.entries = [*entries] or [(collection, key)]
        others = f", and of {len(self.entries) - 1:,} more entries" if len(self.entries) > 1 else ""
        super().__init__(
            f"the value that {collection!r}[{key!r}]{others} had then is not known: the log has its digest only. "
            "Nothing was changed; a backup from before may have it"
        )
        self.collection = collection
        self.key = key

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.collection, self.key, self.entries)


class LogCut(StoreError):
    """A commit is asked for that was cut from the log. Nothing was skipped, and nothing was changed.

    Attributes:
        seq: number of the oldest commit that was asked for.
        oldest: number of the oldest commit that is in the log.
    """

    def __init__(self, path: str, seq: int, oldest: int, do: str = "") -> None:
        do = do or (
            "a greater log_limit keeps more, and store.claims keeps what a follower has not read. One that comes too "
            "late reads the whole state, and goes on from its commit"
        )
        what = f"commit {seq} was cut from the log; the oldest one there is commit {oldest}"
        super().__init__(f"{path}: {what}; {do}")
        self._what, self.do = what, do
        self.path = path
        self.seq = seq
        self.oldest = oldest

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.seq, self.oldest, self.do)


class InvalidInput(StoreError, ValueError):
    """An argument is invalid. Nothing was changed."""


class InvalidOption(InvalidInput):
    """An option is invalid."""


class InvalidName(InvalidInput):
    """A collection's name is not text of 1 to 255 bytes."""


class InvalidKey(InvalidInput):
    """A key is not an int, str or bytes within the limits."""


class InvalidValue(InvalidInput):
    """A value could not be stored and read back exactly.

    Attributes:
        path: where in the value it is, such as `$.tags[2]`; `$` is the value itself.
        reason: what is wrong there.
        collection: name of the collection, `''` if not known.
        key: the entry's key, None if not known.
    """

    def __init__(self, reason: str, path: str = "$", collection: str = "", key: object = None) -> None:
        place = f"{collection!r}[{key!r}] at {path}" if collection else path
        super().__init__(f"{place}: {reason}")
        self.reason = reason
        self.path = path
        self.collection = collection
        self.key = key

    def located(self, collection: str, key: object) -> InvalidValue:
        """Return the same error with the entry's name in it."""
        return type(self)(self.reason, self.path, collection, key)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.path, self.collection, self.key)


class InvalidRecord(InvalidInput):
    """A write-ahead log record that its protocol does not allow here."""


class EntryNotFound(StoreError, KeyError):
    """The collection has no entry with this key, or none at all.

    Attributes:
        collection: name of the collection.
        key: the key asked for; None if any would have done.
    """

    def __init__(self, collection: str, key: object = None) -> None:
        super().__init__(f"{collection!r} has no entry{'' if key is None else f' {key!r}'}")
        self.collection = collection
        self.key = key

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.collection, self.key)


class ImportRejected(StoreError):
    """A source could not be imported.

    Attributes:
        source: name of the source.
        place: line, record or member in it, `''` for the source as a whole.
    """

    def __init__(self, source: str, place: str, reason: str) -> None:
        super().__init__(f"{source}{', ' if place else ''}{place}: {reason}")
        self.source = source
        self.place = place
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.source, self.place, self.reason)


class RestoreRejected(StoreError):
    """A backup could not be restored. The target is as it was.

    Attributes:
        source: name of the backup.
        reason: what is wrong with it.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.source, self.reason)


class ProofInvalid(StoreError):
    """A proof, a signature or a signed head does not prove what it was asked to. It says nothing about the contrary."""


class Damaged(StoreError):
    """Stored bytes contradict each other. Nothing was changed; keep the file and restore a backup."""

    @classmethod
    def found(cls, path: str, what: str, rule: str = "") -> Self:
        """Return the error about a file in which *what* is wrong; *rule* is the invariant that does not hold."""
        return cls.about(path, what, "restore a backup", rule)


class JournalDamaged(Damaged):
    """SQLite's -wal or -journal is lost, damaged, or belongs to another file: acknowledged commits may be missing.

    Nothing of it was merged into the store, and nothing was changed. `recover="accept"` goes on with what can be
    proven.

    Attributes:
        report: the RecoveryReport: what was found.
        evidence: paths of copies of the damaged journal.
    """

    def __init__(self, message: str, report: Any, evidence: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.report = report
        self.evidence: tuple[str, ...] = tuple(evidence)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.report, self.evidence)


class StoreFull(StoreError):
    """The disk is full. The transaction was rolled back and nothing was changed."""


class StoreIOError(StoreError):
    """The operating system refused to read or write the store's files.

    Attributes:
        durable: number of the commit that is durable although the error came after it, else None.
    """

    def __init__(self, message: str, durable: int | None = None) -> None:
        super().__init__(message)
        self.durable = durable

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.durable)


class CommitOutcomeUnknown(StoreError):
    """COMMIT failed after it may have reached the disk: the commit may or may not be there.

    The handle refuses further work. Open the store again and ask its committed(), which tells this commit
    from another with the same number.

    Attributes:
        seq: number of the commit in doubt.
        chain: its chain's digest, which no other commit has; empty if it was not known.
    """

    def __init__(self, seq: int, cause: str, chain: bytes = b"") -> None:
        super().__init__(
            f"commit {seq} may or may not have reached the disk ({cause}); this handle refuses further work. "
            "Open the store again: its committed(error) says whether the commit is there"
        )
        self.seq = seq
        self.cause = cause
        self.chain = chain

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.seq, self.cause, self.chain)


class WalPinned(RuntimeWarning):
    """SQLite's WAL has grown beyond its bound, and cannot be emptied while a reader needs what is in it.

    It is given once each time that this happens, and never raised: commits are durable all the same. The message names
    the oldest reader.
    """


class BlocksEventLoop(RuntimeWarning):
    """A blocking call was made in the thread of a running event loop: while it waits, no task runs.

    It is given once for each handle, and never raised. The message names what to use instead.
    """


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
