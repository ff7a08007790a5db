"""The header of an SQLite file, its first 100 bytes (https://sqlite.org/fileformat2.html, section 1.3)."""

from __future__ import annotations

from typing import Final

SQLITE_MAGIC: Final = b"SQLite format 3\0"
HEADER_BYTES: Final = 100
MODES: Final = 18  # offset of the two bytes in the header that say how the file is journaled


def page_size(header: bytes) -> int:
    """Return the size of a file's pages as its header says it; 0 if that is none."""
    size = int.from_bytes(header[16:18])
    if size == 1:
        return 65536
    return size if size in (512, 1024, 2048, 4096, 8192, 16384, 32768) else 0
