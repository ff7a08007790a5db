"""What docs/reference/file-format.md says of what was cut (3.9, I15): the row log_start of meta, and cut_commits."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.reference.notation import f, is_blob, is_number, is_time, sha256, short, u64

BLOCK = 256


@dataclass(frozen=True, slots=True)
class Start:
    """Where a log begins: behind the newest commit that was cut."""

    lsn: int
    removed: int
    total: int
    seq: int
    root: bytes
    count: int
    chain: bytes
    records: bytes
    at: str


def start_of(stored: Any) -> tuple[Start | None, str]:
    """What the row log_start says, None if there is no such row; and what is wrong with it."""
    if stored is None:
        return None, ""
    if not is_blob(stored, 195) or stored[163:] != sha256(b"\x07" + stored[:163]):
        return None, f"log_start is {short(stored)}"
    rest = stored[:163]
    numbers = {}
    for name in ("lsn", "removed", "total", "seq"):
        numbers[name], rest = int.from_bytes(rest[:8], signed=name == "total"), rest[8:]
    root, count, chain, records, at = rest[:32], int.from_bytes(rest[32:40]), rest[40:72], rest[72:104], rest[104:]
    start = Start(**numbers, root=root, count=count, chain=chain, records=records, at=at.decode("utf-8", "replace"))
    sound = start.removed <= start.lsn and is_number(start.lsn) and start.seq > 0 and is_time(start.at)
    return (start, "") if sound else (None, f"log_start says {start}")


def chains_of(rows: Iterable[tuple[Any, ...]]) -> tuple[list[bytes], list[str]]:
    """The chains in cut_commits, and what is wrong with its rows, given in order."""
    chains: list[bytes] = []
    faults = []
    for expected, (block, packed, digest) in enumerate(rows):
        if block != expected or not isinstance(block, int):
            faults.append(f"row {short(block)} of cut_commits stands where {expected} must")
            break
        shape = isinstance(packed, bytes) and len(packed) > 0 and len(packed) % 32 == 0
        if not shape or digest != sha256(b"\x06" + u64(block) + packed):
            faults.append(f"row {block} of cut_commits is not what was written")
            break
        if len(chains) != block * BLOCK or len(packed) > BLOCK * 32:
            faults.append(f"row {block} of cut_commits has too many chains, or the one before too few")
        chains += [packed[at : at + 32] for at in range(0, len(packed), 32)]
    return chains, faults


def chain(before: bytes, start: Start) -> bytes:
    """The chain of the newest commit that was cut, from that of the one before (7)."""
    head = u64(start.seq) + start.root + u64(start.count) + f(start.at.encode("utf-8"))
    return sha256(b"\x03" + before + head + start.records)
