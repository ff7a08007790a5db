"""Writes bcryptprimitives.dll for wine, which has none: what newer Rust programs call for random bytes.

Usage: forwarding.py FILE. The library holds no code, only one export: ProcessPrng is SystemFunction036 of advapi32
(RtlGenRandom), which takes the same arguments and which wine has. Without it, cryptography cannot be imported there.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

NAME = b"bcryptprimitives.dll\0"
EXPORTED = b"ProcessPrng\0"
MEANT = b"ADVAPI32.SystemFunction036\0"

SECTION = 0x1000
"""Where the section with the export lies in memory."""
FILE_UNIT = 0x200

_DIRECTORY = struct.Struct("<IIHH7I")
_ELEMENTS = struct.Struct("<IIH")
"""The tables' single elements: a function, a name, and the function's number that the name is of."""


def exports() -> bytes:
    """Return the export directory, its three tables of one element, and its strings."""
    functions = SECTION + _DIRECTORY.size
    names, ordinals, name = functions + 4, functions + 8, functions + _ELEMENTS.size
    exported = name + len(NAME)
    meant = exported + len(EXPORTED)
    directory = _DIRECTORY.pack(0, 0, 0, 0, name, 1, 1, 1, functions, names, ordinals)
    # A function whose address lies within the directory is the name of another.
    return directory + _ELEMENTS.pack(meant, exported, 0) + NAME + EXPORTED + MEANT


def library() -> bytes:
    """Return the whole file: the headers, and one section."""
    directory = exports()
    dos = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64)
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x2022)
    optional = struct.pack("<HBBIIIII", 0x20B, 14, 0, 0, FILE_UNIT, 0, 0, SECTION)
    optional += struct.pack("<QII6H4I2H", 1 << 33, SECTION, FILE_UNIT, 6, 0, 0, 0, 6, 0, 0, 2 * SECTION, 512, 0, 2, 256)
    optional += struct.pack("<4Q2I", 1 << 20, 1 << 12, 1 << 20, 1 << 12, 0, 16)
    optional += struct.pack("<II", SECTION, len(directory)).ljust(16 * 8, b"\0")
    section = struct.pack("<8s6I2HI", b".edata", len(directory), SECTION, FILE_UNIT, FILE_UNIT, 0, 0, 0, 0, 0x40000040)
    headers = dos + coff + optional + section
    return headers.ljust(FILE_UNIT, b"\0") + directory.ljust(FILE_UNIT, b"\0")


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(library())
