"""Import and export: a store's entries as JSON lines, and the files of other programs as entries.

`forms` reads and writes the formats; here they meet a store. Importing an export into an empty store gives the same
root.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, cast

from sqlstate.cli.transfer.compressed import decompressed
from sqlstate.cli.transfer.exported import entry_text
from sqlstate.cli.transfer.forms import Source, format_of, plain_name, read_entries
from sqlstate.cli.transfer.reading import Format, Reading, RecordKeys, check_reading
from sqlstate.errors import Damaged, ImportRejected, InvalidInput, InvalidOption
from sqlstate.files.identity import belongs_to
from sqlstate.files.replace import replacing
from sqlstate.format.names import Key, Name, Stored, check_collection
from sqlstate.format.values import Codec
from sqlstate.importing.encoding import encode_entry
from sqlstate.importing.exact_json import SourceError
from sqlstate.importing.seen import Seen
from sqlstate.importing.transactions import Transactions, check_batch
from sqlstate.store.access import as_stored, entries_of
from sqlstate.store.view import CollectionView
from sqlstate.tables.state import Span

if TYPE_CHECKING:
    from sqlstate.format.records import Head
    from sqlstate.store.access import Face, Reads
    from sqlstate.store.snapshot import View
    from sqlstate.store.store import Store
    from sqlstate.store.transaction import Transaction

Progress = Callable[[int, int | None], None]
"""Called with what is done and what there is in all, None if that is not known."""

_PROGRESS_BYTES: Final = 1 << 16
_PROGRESS_ENTRIES: Final = 512
_JSON: Final[Codec[Any]] = Codec()


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote."""

    entries: int
    bytes: int
    head: Head
    """The commit that was exported."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did."""

    sources: int
    entries: int
    """Entries read."""
    changed: int
    """Those among them that were not in the store already, with that value."""
    commits: int
    head: Head
    """The newest commit afterwards."""


# ---- Export ----


class _AsStored(Codec[Stored]):
    """Gives values as they are stored."""

    __slots__ = ()

    def decode(self, stored: Stored) -> Stored:
        return stored

    def keeps(self, kinds: set[type]) -> bool:  # noqa: ARG002, all
        return True


def stored_view(view: Face[Reads], collection: str) -> CollectionView[Stored]:
    """Return a collection whose values are given as they are stored: str for a JSON document, or bytes."""
    return CollectionView(entries_of(view), check_collection(collection), _AsStored())


def export_lines(view: View, collections: Sequence[str] | None = None) -> Generator[bytes]:
    """Yield the entries of a snapshot as JSON lines, in their order: the same entries give the same bytes.

    Args:
        view: the snapshot.
        collections: only those of these collections; None for all.

    Raises:
        InvalidName: one of *collections* cannot be a name.
        Damaged: an entry is not what it can be; or all were asked for, and at the end they are not
            as many as the commit says.
    """
    for collection, key, stored in _rows(view, collections):
        yield entry_text(collection, key, stored).encode() + b"\n"


def export_file(
    view: View,
    path: str | os.PathLike[str],
    collections: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write export_lines() to *path*: the whole of it durably, or nothing. A file that is there is replaced.

    Args:
        view: the snapshot.
        path: the file; a new one gets mode 0600, its owner's alone, as a store does.
        collections: only those of these collections; None for all.
        progress: called with the number of entries written.

    Raises:
        InvalidOption: what is there is not a regular file.
        OSError: the file cannot be written; what was there before is untouched.
        InvalidName, Damaged: as for export_lines().
    """
    total = view.head.count if collections is None else sum(len(view[name]) for name in set(collections))
    entries = size = 0
    with replacing(path, view.store_id) as file:
        for line in export_lines(view, collections):
            size += file.write(line)
            entries += 1
            if progress is not None and entries % _PROGRESS_ENTRIES == 0:
                progress(entries, total)
    if progress is not None:
        progress(entries, total)
    return Exported(entries, size, view.head)


def _rows(view: View, collections: Sequence[str] | None) -> Iterator[tuple[str, Key, Stored]]:
    """Yield the entries of a snapshot; at the end of all of them, compare their number with what the commit says."""
    if collections is not None:
        for name in sorted({check_collection(name) for name in collections}):
            for key, stored in entries_of(view).scan(Span(name), as_stored, values=True):
                yield name, key, stored
        return
    there = 0
    for row in entries_of(view).scan_all():
        there += 1
        yield row
    if there != view.head.count:
        raise Damaged(
            f"I2: there are {there:,} entries to export, and commit {view.head.seq} says {view.head.count:,}; "
            "store.check() tells what is damaged. Repair the file, or restore a backup"
        )


# ---- Import ----


def import_sources(
    store: Store,
    sources: Sequence[Source | str | os.PathLike[str]],
    how: Reading | None = None,
    *,
    batch: int | None = None,
    note: str = "",
    progress: Progress | None = None,
) -> Imported:
    """Put the entries of all *sources* into *store*, in one transaction unless *batch* says otherwise.

    An entry that is there already with the same value is left alone, so a second import makes no commit. A
    later source can replace an entry that an earlier one gave; one source cannot give it twice.

    Formats: `json`, an object of collections, each an object of entries or a list of records; or a list of
    records. `jsonl`, exported lines, or records. `csv`, records with a header line, all values text. A
    record's value is the whole record. What gzip or zstd compressed is decompressed. JSON is read at once; the other
    formats one line after the other. A CSV field has at most csv.field_size_limit() characters.

    Args:
        store: where to.
        sources: paths of files, and streams; read in this order.
        how: collection, key fields and format; see Reading.
        batch: entries in each transaction; they are read before it begins.
        note: for the BEGIN record of each transaction.
        progress: called with bytes read, and bytes in all.

    Raises:
        ImportRejected: a source is not what its format says. It names source and place, and its note says
            what was kept: nothing of the transaction.
        InvalidOption: *how* does not go with the sources, or one of them is the store itself.
        OSError: a source cannot be read; nothing of the transaction was kept.
        Busy, StoreFull, CommitOutcomeUnknown, ReadOnly: as for a transaction.
    """
    how = how or Reading()
    check_batch(batch)
    planned = _plan(sources, how)
    for plan in planned:
        if plan.source.stream is None and belongs_to(plan.source.name, entries_of(store).path):
            raise InvalidOption(f"{plan.source.name} is the store itself; nothing was changed")
    feed = _Feed(planned, how, progress)
    run = Transactions(store, note, feed.check_twice)
    with closing(feed):
        run.put_all(feed, batch)
    return Imported(len(sources), run.entries, run.changed, run.commits, store.head())


def check_sources(sources: Sequence[Source | str | os.PathLike[str]], how: Reading) -> None:
    """Find what can be found wrong with *sources* and *how* before a store is opened or made.

    Raises:
        InvalidOption: a format is not known, or *how* does not go with it.
        InvalidName: the collection's name cannot be one.
        OSError: there is no such file.
    """
    _plan(sources, how)


def put_entry(txn: Transaction, name: Name, stored: Stored) -> bool:
    """Put an entry; return True if that changes the store."""
    entries = entries_of(txn)
    before = entries.get_stored(name)
    if type(before) is type(stored) and before == stored:
        return False
    entries.put_stored(name, stored)
    return True


class _Planned(NamedTuple):
    """A source, and what is known before it is read."""

    source: Source
    format: Format
    size: int | None


def _plan(sources: Sequence[Source | str | os.PathLike[str]], how: Reading) -> list[_Planned]:
    check_reading(how)
    named = [source if isinstance(source, Source) else Source(os.fsdecode(source)) for source in sources]
    return [_Planned(source, format_of(source, how), _size(source)) for source in named]


def _size(source: Source) -> int | None:
    """Return the bytes of a source, None if that is not known."""
    try:
        status = os.stat(source.name if source.stream is None else source.stream.fileno())
    except (OSError, ValueError):
        if source.stream is None:
            raise
        return None  # a stream that is no file
    return status.st_size if stat.S_ISREG(status.st_mode) else None


class _Feed(Iterator[tuple[Name, Stored]]):
    """The entries of all sources, one after the other, ready to be put."""

    def __init__(self, planned: Sequence[_Planned], how: Reading, progress: Progress | None) -> None:
        self._keys = RecordKeys(how)
        self._progress = progress
        sizes = [plan.size for plan in planned]
        self._total = None if None in sizes else sum(cast("list[int]", sizes))
        self._seen: Seen | None = None
        self._source = ""
        self._entries = self._all(planned)

    def __next__(self) -> tuple[Name, Stored]:
        return next(self._entries)

    def check_twice(self) -> None:
        """Raise if the source gave an entry twice; called before a commit."""
        if self._seen is not None:
            with self._naming_source():
                self._seen.check()

    def close(self) -> None:
        """Close the source that is open."""
        self._entries.close()

    def _all(self, planned: Sequence[_Planned]) -> Generator[tuple[Name, Stored]]:
        passed = 0
        for plan in planned:
            self._source = plan.source.name
            with self._naming_source(), closing(Seen()) as self._seen, _opened(plan.source) as raw:
                with decompressed(raw, plan.source.name) as stream:
                    yield from self._one(plan, raw, stream, passed)
                self._seen.check()
            self._seen = None
            passed += plan.size or 0
            self._report(passed)

    def _one(self, plan: _Planned, raw: IO[bytes], stream: IO[bytes], passed: int) -> Generator[tuple[Name, Stored]]:
        reported = 0
        seen = cast("Seen", self._seen)
        stem, was_compressed = plain_name(plan.source.name).stem, stream is not raw
        for read in read_entries(plan.format, stream, self._keys, stem, was_compressed=was_compressed):
            try:
                name, stored = encode_entry(read.collection, read.key, read.value)
            except InvalidInput as e:
                raise SourceError(read.place, e) from None
            seen.add(name, read.place)
            yield name, stored
            if read.position - reported >= _PROGRESS_BYTES:
                reported = read.position
                as_it_is = stream is raw or self._total is None  # what is not a file does not tell where it is
                self._report(passed + (reported if as_it_is else raw.tell()))

    def _report(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done, self._total)

    @contextmanager
    def _naming_source(self) -> Iterator[None]:
        try:
            yield
        except SourceError as e:
            raise ImportRejected(self._source, e.place, e.reason) from None


def _opened(source: Source) -> closing[IO[bytes]] | nullcontext[IO[bytes]]:
    return closing(open(source.name, "rb")) if source.stream is None else nullcontext(source.stream)
