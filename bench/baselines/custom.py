"""A write-ahead log, state files and a Merkle root by hand: what a careful engineer writes instead of a database.

A write goes to the log with its checksum and the new root, and is synced. Then the state files that it touches
are written under a temporary name, synced and renamed, and the folder is synced. What is in the state files is no
longer needed in the log, which is then overwritten from its beginning. Opening reads all state files, applies what
the log has beyond them, and compares the root. All entries are kept in memory.
"""

from __future__ import annotations

import os
import struct
import zlib
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from bench.baselines.files import sync_data

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from bench.baselines.protocol import Entry

BUCKETS: Final = 4096
"""Leaves of the tree: an entry belongs to the one that the hash of its key says."""

_LOG_BYTES: Final = 1 << 20
_FRAME: Final = struct.Struct(">II")  # bytes of the body, its CRC-32
_HEAD: Final = struct.Struct(">Q32s")  # number of the write, root after it
_LENGTHS: Final = struct.Struct(">II")


class CustomWal:
    """The store.

    Args:
        path: its folder.
        files: how many files hold the state. With 1, the whole state is one file, as small programs do it; with
            as many as there are buckets, a write rewrites little however large the store is.
        every: rewrite the state files once in so many writes; in between, the log alone makes them durable.
    """

    def __init__(self, path: Path, files: int = BUCKETS, every: int = 1) -> None:
        self.path = path
        self._files: Final = files
        self._every: Final = every
        self._folder: int
        self._log: int
        self._failed = True
        self._clear()

    def open(self) -> None:
        """Open it, making it if there is none; after a kill, bring the state files up to the log.

        Raises:
            ValueError: a state file is damaged, or the root is another than was written.
        """
        self._clear()
        self.path.mkdir(exist_ok=True)
        self._folder = os.open(self.path, os.O_RDONLY)
        log = self.path / "log"
        if not log.exists():
            self._make(log)
        self._log = os.open(log, os.O_RDWR)
        self._recover(self._read_states(), log.read_bytes())
        self._failed = False

    def put(self, key: str, value: bytes) -> None:
        """Put one entry durably."""
        self.bulk([(key, value)])

    def get(self, key: str) -> bytes:
        """Return the value of a key that is there."""
        return self._buckets[_bucket(key)][key]

    def bulk(self, entries: Sequence[Entry]) -> None:
        """Put all *entries* durably, all or none."""
        if self._failed:
            raise ValueError("an earlier write failed: open the store again")
        self._failed = True  # until this one is through
        self._seq += 1
        self._apply(entries)
        record = _framed(_HEAD.pack(self._seq, self.root), entries)
        os.pwrite(self._log, record, self._end)
        sync_data(self._log)
        self._end += len(record)
        self._unsaved += len(entries)
        if self._unsaved >= self._every:
            self._save()
        self._failed = False

    def scan(self) -> int:
        """Read every key and value in the order of keys; return how many there were."""
        return sum(1 for _ in sorted(entry for bucket in self._buckets for entry in bucket.items()))

    def close(self) -> None:
        """Save the state files, and close."""
        if not self._failed:
            self._save()
        os.close(self._log)
        os.close(self._folder)
        self._clear()
        self._failed = True

    @property
    def root(self) -> bytes:
        """The Merkle root over all entries."""
        return self._nodes[1]

    def _clear(self) -> None:
        self._buckets: list[dict[str, bytes]] = [{} for _ in range(BUCKETS)]
        self._digests: list[dict[str, bytes]] = [{} for _ in range(BUCKETS)]
        self._nodes = [b""] * (2 * BUCKETS)
        self._hash(range(BUCKETS))
        self._dirty: set[int] = set()
        self._seq = self._end = self._unsaved = 0

    def _make(self, log: Path) -> None:
        """Make the log at its full length, so that a sync of it need not record a new one."""
        temporary = log.with_suffix(".tmp")
        self._write(temporary, bytes(_LOG_BYTES))
        temporary.rename(log)
        os.fsync(self._folder)

    def _apply(self, entries: Iterable[Entry]) -> None:
        touched = set()
        for key, value in entries:
            bucket = _bucket(key)
            self._buckets[bucket][key] = value
            self._digests[bucket][key] = sha256(b"\0" + key.encode() + b"\0" + sha256(value).digest()).digest()
            touched.add(bucket)
        self._hash(touched)
        self._dirty.update(self._file_of(bucket) for bucket in touched)

    def _hash(self, buckets: Iterable[int]) -> None:
        """Hash these leaves, and each node above them once."""
        level = set()
        for bucket in buckets:
            digests = self._digests[bucket]
            self._nodes[BUCKETS + bucket] = sha256(b"\0" + b"".join(digests[key] for key in sorted(digests))).digest()
            level.add((BUCKETS + bucket) // 2)
        while level:
            for node in level:
                self._nodes[node] = sha256(b"\1" + self._nodes[2 * node] + self._nodes[2 * node + 1]).digest()
            level = {node // 2 for node in level if node > 1}

    def _save(self) -> None:
        """Write every state file that differs from memory, each as a whole or not at all."""
        for file in sorted(self._dirty):
            name = self.path / f"state-{file:04}"
            temporary = name.with_suffix(".tmp")
            entries = (entry for bucket in self._buckets_of(file) for entry in self._buckets[bucket].items())
            self._write(temporary, _framed(_HEAD.pack(self._seq, self.root), entries))
            temporary.replace(name)
        if self._dirty:
            os.fsync(self._folder)
        self._dirty.clear()
        self._end = self._unsaved = 0

    def _write(self, file: Path, content: bytes) -> None:
        descriptor = os.open(file, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        try:
            os.write(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _read_states(self) -> dict[int, tuple[int, bytes]]:
        """Read the state files; return number and root that each was written with."""
        heads = {}
        for file in sorted(self.path.iterdir()):
            if file.suffix == ".tmp":
                file.unlink()
            elif file.name != "log":
                content = file.read_bytes()
                body = _body(content, 0)
                if body is None or len(body) + _FRAME.size != len(content):
                    raise ValueError(f"{file} is damaged")
                heads[int(file.name.removeprefix("state-"))] = _HEAD.unpack_from(body)
                self._apply(_entries(body))
        self._dirty.clear()
        return heads

    def _recover(self, heads: dict[int, tuple[int, bytes]], log: bytes) -> None:
        """Apply what the log has beyond the state files, and check the root."""
        self._seq, root = max(heads.values(), default=(0, self.root))
        expected, at = None, 0
        while (body := _body(log, at)) is not None:
            seq, after = _HEAD.unpack_from(body)
            if expected not in (None, seq):
                break  # left from before the log was last begun again
            newer = [entry for entry in _entries(body) if seq > heads.get(self._file_of(_bucket(entry[0])), (0,))[0]]
            self._apply(newer)
            if seq >= self._seq:
                self._seq, root = seq, after
            expected = seq + 1
            at += _FRAME.size + len(body)
        if self.root != root:
            raise ValueError(f"{self.path}: the root is not the one of write {self._seq}")
        self._save()

    def _file_of(self, bucket: int) -> int:
        return bucket * self._files // BUCKETS

    def _buckets_of(self, file: int) -> range:
        each = BUCKETS // self._files
        return range(file * each, (file + 1) * each)


def _bucket(key: str) -> int:
    return int.from_bytes(sha256(key.encode()).digest()[:2]) * BUCKETS >> 16


def _framed(head: bytes, entries: Iterable[Entry]) -> bytes:
    parts = [head]
    for key, value in entries:
        name = key.encode()
        parts += (_LENGTHS.pack(len(name), len(value)), name, value)
    body = b"".join(parts)
    return _FRAME.pack(len(body), zlib.crc32(body)) + body


def _body(content: bytes, at: int) -> bytes | None:
    """Return what is framed at a place, or None if it is not whole."""
    if len(content) < at + _FRAME.size:
        return None
    length, checksum = _FRAME.unpack_from(content, at)
    body = content[at + _FRAME.size : at + _FRAME.size + length]
    return body if _HEAD.size <= length == len(body) and zlib.crc32(body) == checksum else None


def _entries(body: bytes) -> Iterator[Entry]:
    at = _HEAD.size
    while at < len(body):
        key, value = _LENGTHS.unpack_from(body, at)
        at += _LENGTHS.size
        yield body[at : at + key].decode(), body[at + key : at + key + value]
        at += key + value
