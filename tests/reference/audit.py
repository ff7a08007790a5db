"""What docs/reference/file-format.md says of the marker (3.1, I11) and of the audit trail (3.7, I12), read plainly."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from tests.reference.notation import f, is_blob, is_number, is_time, json_faults, sha256, short, u8, u64

Fault: TypeAlias = tuple[str, str]
"""What it is against, and what it is."""

COLUMNS = "number, at, kind, seq, chain, detail, digest"
KINDS = ("migration", "recovery", "check", "backup", "restore", "repair", "cut", "compact", "redact", "setting")
TRIGGERS = ("audit_no_delete", "audit_no_replace", "audit_no_update")
MARKER_BYTES = (33, 25)
"""With the inode, and without it, as files of version 0.1.0 have it."""
AT_REST, OPEN = 0, 1


# ---- 3.1. The marker ----


def marker(state: int, nonce: bytes, lsn: int, inode: int) -> bytes:
    """The marker's bytes."""
    return u8(state) + nonce + u64(lsn) + u64(inode)


def marker_faults(value: object, journal: object, lsn: int) -> Iterator[Fault]:
    """What is wrong with the marker of a store with this `journal`, whose greatest `lsn` is *lsn*."""
    if not isinstance(value, bytes) or len(value) not in (0, *MARKER_BYTES) or value[:1] > b"\x01":
        yield "format 3.1", f"marker is {short(value)}, not one"
        return
    if not value:
        return
    said = int.from_bytes(value[17:25], "big")
    if journal == "delete":
        yield "format 3.1", "marker is not empty, and journal is delete"
    if is_open(value) and said > lsn:
        yield "format 3.1", f"marker was opened at lsn {said}, and the greatest is {lsn}"
    if is_at_rest(value) and said != lsn:
        yield "I11", f"marker is at rest at lsn {said}, and the greatest is {lsn}"


def is_open(value: object) -> bool:
    """Whether a marker says that the -wal may hold what the main file lacks."""
    return isinstance(value, bytes) and len(value) in MARKER_BYTES and value[0] == OPEN


def is_at_rest(value: object) -> bool:
    """Whether a marker says that the main file is complete by itself."""
    return isinstance(value, bytes) and len(value) in MARKER_BYTES and value[0] == AT_REST


# ---- 3.7. The audit trail ----


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of table `audit`."""

    number: int
    at: str
    kind: str
    seq: int
    chain: bytes
    detail: str
    digest: bytes = b""


def digest_zero(store_id: bytes) -> bytes:
    """digest_0."""
    return sha256(b"\x04" + store_id)


def preimage(previous: bytes, entry: Entry) -> bytes:
    """What digest_n is the hash of: digest_{n-1} and the other columns of entry n."""
    at, kind, detail = (f(text.encode("utf-8")) for text in (entry.at, entry.kind, entry.detail))
    return b"\x04" + previous + u64(entry.number) + at + kind + u64(entry.seq) + entry.chain + detail


def digest_next(previous: bytes, entry: Entry) -> bytes:
    """digest_n."""
    return sha256(preimage(previous, entry))


def trail_faults(rows: Iterable[tuple[Any, ...]], store_id: bytes, chains: Mapping[int, bytes]) -> Iterator[Fault]:
    """What is wrong with the rows, in the order of `number`; *chains* has those of the commits, and chain_0."""
    expected, previous, seq = 1, digest_zero(store_id), 0
    for row in rows:
        entry = Entry(*row)
        where = f"entry {short(entry.number)}"
        shape = list(_shape_faults(entry))
        for fault in shape:
            yield "format 3.7", f"{where}: {fault}"
        if entry.number != expected:
            yield "I12", f"{where} stands where {expected} must"
        if not shape:
            if entry.digest != digest_next(previous, entry):
                yield "I12", f"the digest of {where} is another"
            if chains.get(entry.seq) != entry.chain:
                yield "I12", f"{where} stands at a commit {entry.seq} that is not in the log"
            if entry.seq < seq:
                yield "I12", f"{where} stands at commit {entry.seq}, and one before at {seq}"
            seq = entry.seq
        expected = entry.number + 1 if is_number(entry.number) else expected + 1
        previous = entry.digest if is_blob(entry.digest, 32) else b""


def _shape_faults(entry: Entry) -> Iterator[str]:
    right = {
        "number": is_number(entry.number),
        "at": is_time(entry.at),
        "kind": entry.kind in KINDS,
        "seq": is_number(entry.seq),
        "chain": is_blob(entry.chain, 32),
        "detail": _is_detail(entry.detail),
        "digest": is_blob(entry.digest, 32),
    }
    for column, is_right in right.items():
        if not is_right:
            yield f"{column} is {short(getattr(entry, column))}"


def _is_detail(detail: object) -> bool:
    """One JSON object, the members of each object sorted by name, no white space outside strings."""
    if not isinstance(detail, str) or json_faults(detail) or re.search(r"\s", re.sub(r'"(?:[^"\\]|\\.)*"', "", detail)):
        return False
    try:
        return isinstance(json.loads(detail, object_pairs_hook=_sorted_members), dict)
    except (ValueError, RecursionError):
        return False


def _sorted_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if names != sorted(set(names)):
        raise ValueError("members are not sorted")
    return dict(pairs)


def resumed(rows: Iterable[tuple[Any, ...]]) -> dict[int, bytes]:
    """The session that each staged transaction was given last, by number, of those that were resumed."""
    found: dict[int, bytes] = {}
    for row in rows:
        entry = Entry(*row)
        if entry.kind == "recovery" and _is_detail(entry.detail):
            detail = json.loads(entry.detail)
            if "resumed" in detail:
                with suppress(KeyError, TypeError, ValueError):
                    found |= dict.fromkeys(detail["resumed"], bytes.fromhex(detail["by"]))
    return found


def digest_log_faults(rows: Iterable[tuple[Any, ...]], trail: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    """Where digest_logs (3.10) is not what the settings in the trail come to."""
    settings: dict[str, str] = {}
    for row in trail:
        entry = Entry(*row)
        if entry.kind == "setting" and _is_detail(entry.detail):
            detail = json.loads(entry.detail)
            if "collection" in detail:
                settings[detail["collection"]] = detail["log"]
    wanted = {name for name, log in settings.items() if log == "digests"}
    listed = {name for (name,) in rows}
    if listed != wanted:
        yield f"digest_logs lists {sorted(map(repr, listed))}, and the trail says {sorted(map(repr, wanted))}"
