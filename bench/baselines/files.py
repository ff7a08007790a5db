"""Plain files: the least that can be done, and the least that a durable write can cost."""

from __future__ import annotations

import json
import os
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.baselines.protocol import Entry

sync_data: Final = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync

_CHUNK: Final = 8 << 20
_LENGTHS: Final = struct.Struct(">II")


class DirectWrite:
    """The whole state as one JSON file, written in place at every put, and not synced.

    A power cut can lose any number of puts. A kill in the middle of one leaves half a file, and so loses all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state: dict[str, str] = {}

    def open(self) -> None:
        """Read the file, or begin with nothing."""
        self._state = json.loads(self.path.read_text("utf-8")) if self.path.exists() else {}

    def put(self, key: str, value: bytes) -> None:
        """Put one entry, and write all."""
        self._state[key] = value.decode("latin-1")  # JSON has no bytes
        self._write()

    def get(self, key: str) -> bytes:
        """Return the value of a key that is there."""
        return self._state[key].encode("latin-1")

    def bulk(self, entries: Sequence[Entry]) -> None:
        """Put all *entries*, and write all."""
        self._state.update((key, value.decode("latin-1")) for key, value in entries)
        self._write()

    def scan(self) -> int:
        """Read every key and value in the order of keys; return how many there were."""
        return sum(1 for _ in sorted(self._state.items()))

    def close(self) -> None:
        """There is nothing to close."""
        self._state = {}

    def _write(self) -> None:
        self.path.write_text(json.dumps(self._state), "utf-8")


class Append:
    """A log and nothing else: each put is one write and one fdatasync. No checksum, no reclaiming of space.

    The log is filled with zeros ahead of time, so that a sync need not record a new length: this is what the disk
    can do. What is in the log is also kept in memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state: dict[str, bytes] = {}
        self._file: int
        self._end = 0
        self._size = 0

    def open(self) -> None:
        """Read the log, or begin one."""
        self._file = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600)
        log = self.path.read_bytes()
        self._end, self._size = 0, len(log)
        self._state = {}
        while self._end < len(log):
            key, value = _LENGTHS.unpack_from(log, self._end)
            if not key:
                break
            start = self._end + _LENGTHS.size
            self._state[log[start : start + key].decode()] = log[start + key : start + key + value]
            self._end = start + key + value

    def put(self, key: str, value: bytes) -> None:
        """Append one entry durably."""
        self.bulk([(key, value)])

    def get(self, key: str) -> bytes:
        """Return the value of a key that is there."""
        return self._state[key]

    def bulk(self, entries: Sequence[Entry]) -> None:
        """Append all *entries* with one sync."""
        records = b"".join(map(_record, entries))
        if self._end + len(records) + _LENGTHS.size > self._size:
            self._extend(len(records))
        os.pwrite(self._file, records, self._end)
        sync_data(self._file)
        self._end += len(records)
        self._state.update(entries)

    def scan(self) -> int:
        """Read every key and value in the order of keys; return how many there were."""
        return sum(1 for _ in sorted(self._state.items()))

    def close(self) -> None:
        """Cut off the zeros, and close the log."""
        os.truncate(self._file, self._end)
        os.close(self._file)
        self._state = {}

    def _extend(self, needed: int) -> None:
        more = -(-(needed + _LENGTHS.size) // _CHUNK) * _CHUNK
        os.pwrite(self._file, bytes(more), self._size)
        os.fsync(self._file)
        self._size += more


def _record(entry: Entry) -> bytes:
    key = entry[0].encode()
    return _LENGTHS.pack(len(key), len(entry[1])) + key + entry[1]
