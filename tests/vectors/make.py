"""Write the test vectors from the plain reading of the file format: `python -m tests.vectors.make`.

Five files, the same bytes each time: encoding.json (names, ranks, leaves), tree.json (roots and rows of
the Merkle tree), chain.json (a write-ahead log and the chain over it), log.json (the log over the commits, and paths
in it), audit.json (an audit trail beside the log of chain.json, and markers). In all of them a key or value stands
with its SQLite storage class; an integer is written in decimal digits inside a string, because many JSON readers
lose those beyond 2^53; bytes and digests are hexadecimal.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from tests import ROOT
from tests.reference import audit, log, plain
from tests.reference.notation import sha256, u64
from tests.reference.plain import Entry, Key, Name, Record, Value

HERE = Path(__file__).parent
STORE_ID = bytes(range(16))
SESSION_A = bytes([0xA0]) * 16
SESSION_B = bytes([0xB0]) * 16
MIGRATIONS = ROOT / "migrations"
ZERO = audit.Entry(0, "", "", 0, b"", "", audit.digest_zero(STORE_ID))
TEMPORARY = f".caf\u00e9.db.sqlstate-{STORE_ID.hex()}-0123456789abcdef.tmp"
PAIR: list[Entry] = [("a", 1, "1"), ("a", "k", b"")]


def typed(value: Key | None) -> dict[str, str] | None:
    """A key or value with its storage class; NULL is null."""
    if value is None:
        return None
    if isinstance(value, int):
        return {"type": "integer", "value": str(value)}
    if isinstance(value, str):
        return {"type": "text", "value": value}
    return {"type": "blob", "value": value.hex()}


def untyped(value: dict[str, str] | None) -> Key | None:
    """The reverse of `typed`."""
    if value is None:
        return None
    if value["type"] == "integer":
        return int(value["value"])
    return value["value"] if value["type"] == "text" else bytes.fromhex(value["value"])


def hexed(data: bytes | None) -> str | None:
    """Hexadecimal digits; NULL is null."""
    return None if data is None else data.hex()


# ---- encoding.json ----

NAMES: list[Name] = [
    *(("n", number) for number in (-(2**63), -(2**63) + 1, -(2**32), -256, -1, 0, 1, 2, 255, 2**32, 2**53 + 1)),
    ("n", 2**63 - 1),
    *(("n", text) for text in ("1", "a", "key", "é", "e\u0301", "\ufeff", "\x00", "a\x00", "a\x00b", "\U0001f511")),
    ("n", "\uffff"),
    ("n", "long " * 60),
    *(("n", data) for data in (b"\x00", b"\x00\x00", b"1", b"a", b"\xff", b"\xc3\xa9", bytes(range(256)) * 2)),
    ("a", 1),
    ("a", "k"),
    ("ab", "c"),
    ("a", "bc"),
    ("collection with spaces", 1),
    ("caf\u00e9", 1),
    ("\U0001f4e6", 1),
    ("n\x00n", 1),
    ("c" * 255, 1),
]

VALUES: list[Value] = [
    *(b"", b"\x00", b"1", b"null", bytes(range(256))),
    *("1", "0", "-1", "1.5", "1e100", "true", "false", "null", '""', '"1"', "[]", "{}"),
    *(
        '"\\u0000"',
        '"caf\u00e9 \U0001f511"',
        '{"a":[1,2,{"b":null}],"name":"x"}',
        "123456789012345678901234567890",
    ),
]


def encoding() -> dict[str, Any]:
    """Bytes of names, their ranks, and leaves."""
    names = [
        {
            "collection": collection,
            "key": typed(key),
            "kind": plain.kind(key).decode("ascii"),
            "key_bytes": plain.key_bytes(key).hex(),
            "name": plain.name_bytes(collection, key).hex(),
            "rank_hash": sha256(b"\x02" + plain.name_bytes(collection, key)).hex(),
            "rank": plain.rank(collection, key),
        }
        for collection, key in NAMES + [ranked(least) for least in (1, 2, 3)]
    ]
    entries = [(*PAIR[0][:2], value) for value in VALUES] + [(*PAIR[1][:2], value) for value in VALUES]
    leaves = [
        {
            "collection": collection,
            "key": typed(key),
            "value": typed(value),
            "leaf": plain.leaf(collection, key, value).hex(),
        }
        for collection, key, value in entries
    ]
    return {"about": "file-format.md, sections 5 and 6", "names": names, "leaves": leaves}


# ---- tree.json ----


def keys(wanted: Callable[[int], bool]) -> Iterator[str]:
    """Make those keys of k0, k1, k2 and so on whose rank, in collection "c", is wanted."""
    for number in count():
        if wanted(plain.rank("c", f"k{number}")):
            yield f"k{number}"


def ranked(least: int) -> Name:
    """The first of those keys whose rank is at least so high."""
    return "c", next(keys(lambda rank: rank >= least))


def entries_of(names: list[Key]) -> list[Entry]:
    """Entries in collection "c", numbered by their values."""
    return [("c", key, str(number)) for number, key in enumerate(names)]


def small_cases() -> dict[str, list[Entry]]:
    """Cases small enough to be written in full."""
    zero = keys(lambda rank: rank == 0)
    low: list[Key] = [next(zero) for _ in range(12)]
    ordered = sorted(str(key) for key in low)
    middle = ordered[len(ordered) // 2]
    # A suffix puts a key of the wanted rank behind another, before all others.
    after = {least: next(k for k in suffixed(middle) if plain.rank("c", k) >= least) for least in (1, 2, 3)}
    before = {least: next(k for k in suffixed("a") if plain.rank("c", k) >= least) for least in (1, 2, 3)}
    mixed_keys: list[Key] = [
        -(2**63),
        -1,
        0,
        1,
        2**63 - 1,
        "\x00",
        "1",
        "\u00e9",
        "\uffff",
        "\U0001f511",
        b"\x00",
        b"1",
        b"\xff",
    ]
    mixed: list[Entry] = [
        (collection, key, f'"{number}"' if number % 2 else bytes([number]))
        for collection in ("b", "ab", "a", "\uffff", "\U0001f4e6")
        for number, key in enumerate(mixed_keys)
    ]
    return {
        "empty": [],
        "one entry": [("c", low[0], "1")],
        "one entry of rank 1 or more": [(*ranked(1), "1")],
        "one entry of rank 3 or more": [(*ranked(3), "1")],
        "two entries": PAIR,
        "two entries, a BLOB in place of the TEXT": [(*PAIR[0][:2], b"1"), PAIR[1]],
        "one run: no entry has a rank": entries_of(low),
        "the first entry has rank 1 or more, no other": entries_of([before[1], *low]),
        "the first entry has rank 3 or more, no other": entries_of([before[3], *low]),
        "an entry in the middle has rank 1 or more, not the first": entries_of([after[1], *low]),
        "an entry in the middle has rank 2 or more": entries_of([after[2], *low]),
        "an entry in the middle has rank 3 or more": entries_of([after[3], *low]),
        "first and middle have ranks": entries_of([before[2], after[1], after[3], *low]),
        "the last entry has rank 2 or more": entries_of(
            [*low, next(k for k in suffixed("z") if plain.rank("c", k) >= 2)]
        ),
        "kinds of keys and several collections": mixed,
    }


def suffixed(start: str) -> Iterator[str]:
    """Make the keys start/0, start/1 and so on."""
    return (f"{start}/{number}" for number in count())


def generated(size: int) -> list[Entry]:
    """The large cases; tree.json states this rule."""
    return [("c", f"key{number:05d}", str(number)) for number in range(size)]


def tree() -> dict[str, Any]:
    """Roots and rows of the tree over small stores; roots over large ones."""
    cases: list[dict[str, Any]] = []
    for name, entries in small_cases().items():
        rows = sorted(plain.merkle_rows(entries), key=lambda row: (row[0], plain.sort_key(row[1], row[2])))
        cases.append(
            {
                "name": name,
                "entries": [{"collection": c, "key": typed(k), "value": typed(v)} for c, k, v in entries],
                **summary(entries),
                "merkle_rows": [
                    {"level": level, "collection": collection, "key": typed(key), "children": children.hex()}
                    for level, collection, key, children in rows
                ],
            }
        )
    cases.extend(
        {
            "name": f"{size} generated entries",
            "generated": {
                "for": f"number from 0 to {size - 1}",
                "collection": "c",
                "key": "TEXT: 'key' and the number in five decimal digits",
                "value": "TEXT: the number in decimal digits, none in front",
            },
            **summary(generated(size)),
        }
        for size in (300, 5_000)
    )
    about = "file-format.md, section 6; entries stand in no order; levels counts those of inner nodes"
    return {"about": about, "cases": cases}


def summary(entries: list[Entry]) -> dict[str, Any]:
    """What every case has."""
    levels = plain.levels(entries)
    return {"root": plain.root(entries).hex(), "count": len(entries), "levels": len(levels) - 1}


# ---- chain.json ----


def at(second: int) -> str:
    """A time."""
    return f"2026-11-23T17:09:{second:02d}.000000Z"


# Roots, counts and chains are filled in by `closed`. A COMMIT with a time is the last of its commit.
LOG = [
    Record(1, 1, "BEGIN", note=""),
    Record(2, 1, "PUT", collection="a", key=1, value="1"),
    Record(3, 1, "PUT", collection="a", key="k", value=b""),
    Record(4, 1, "COMMIT", seq=1, at=at(46)),
    # Staged, and committed much later.
    Record(5, 5, "BEGIN", session=SESSION_A, at=at(47), note="caf\u00e9"),
    Record(6, 5, "PUT", session=SESSION_A, collection="b", key=b"\x00", value='{"n":1}'),
    # One entry changed twice, one deleted.
    Record(7, 7, "BEGIN", note="a note"),
    Record(8, 7, "PUT", collection="a", key=1, value="2", before="1"),
    Record(9, 7, "PUT", collection="a", key=1, value="3", before="2"),
    Record(10, 7, "DELETE", collection="a", key="k", before=b""),
    # The clock went back.
    Record(11, 7, "COMMIT", seq=2, at=at(40)),
    # Staged and rolled back.
    Record(12, 12, "BEGIN", session=SESSION_B, at=at(48), note=""),
    Record(13, 12, "PUT", session=SESSION_B, collection="c", key=-1, value="null"),
    Record(14, 5, "PUT", session=SESSION_A, collection="b", key=b"\x00", value=b"\x00\xff", before='{"n":1}'),
    Record(15, 12, "ROLLBACK", session=SESSION_B, at=at(49)),
    # Three transactions in one commit; the numbers 20 and 21 were never used.
    Record(16, 16, "BEGIN", note=""),
    Record(17, 16, "PUT", collection="a", key="\x00", value='"\U0001f511"'),
    Record(18, 16, "COMMIT", seq=3),
    Record(19, 5, "COMMIT", session=SESSION_A, seq=3),
    Record(22, 22, "BEGIN", note="last of the three"),
    Record(23, 22, "PUT", collection="a", key="\x00", value="[]", before='"\U0001f511"'),
    Record(24, 22, "COMMIT", seq=3, at=at(50)),
    # Everything deleted.
    Record(25, 25, "BEGIN", note=""),
    Record(26, 25, "DELETE", collection="b", key=b"\x00", before=b"\x00\xff"),
    Record(27, 25, "DELETE", collection="a", key="\x00", before="[]"),
    Record(28, 25, "DELETE", collection="a", key=1, before="3"),
    Record(29, 25, "COMMIT", seq=4, at=at(51)),
    # Put and deleted in one transaction.
    Record(30, 30, "BEGIN", note=""),
    Record(31, 30, "PUT", collection="d", key=2**63 - 1, value="1"),
    Record(32, 30, "DELETE", collection="d", key=2**63 - 1, before="1"),
    Record(33, 30, "PUT", collection="a", key=1, value="true"),
    Record(34, 30, "COMMIT", seq=5, at=at(52)),
    # Still staged.
    Record(35, 35, "BEGIN", session=SESSION_B, at=at(53), note=""),
    Record(36, 35, "PUT", session=SESSION_B, collection="a", key=1, value="false", before="true"),
]


def closed(store_id: bytes, log: list[Record]) -> tuple[list[Record], list[plain.Commit], list[Entry]]:
    """Replay a log: the records with roots, counts and chains, the commits, and the entries at the end."""
    values: dict[Name, Value] = {}
    commits: list[plain.Commit] = []
    result: list[Record] = []
    joined: list[Record] = []
    previous = plain.chain_zero(store_id)
    for record in log:
        result.append(record)
        if record.kind == "COMMIT":
            own = [other for other in log if other.txn == record.txn]
            joined += own
            for change in own:
                apply(values, change)
        if record.kind == "COMMIT" and record.at is not None and record.seq is not None:
            root = plain.root((*name, value) for name, value in values.items())
            data = plain.records_bytes(joined)
            previous = plain.chain_next(previous, record.seq, root, len(values), record.at, data)
            commits.append(plain.Commit(record.seq, root, len(values), record.at, previous, tuple(joined)))
            result[-1] = replace(record, root=root, count=len(values), chain=previous)
            joined = []
    return result, commits, [(*name, value) for name, value in values.items()]


def apply(values: dict[Name, Value], change: Record) -> None:
    """Do to the entries what a record says."""
    if change.collection is not None and change.key is not None:
        name = (change.collection, change.key)
        if change.value is None:
            del values[name]
        else:
            values[name] = change.value


def chain() -> dict[str, Any]:
    """A log with direct and staged transactions, each commit of it, and the entries at its end."""
    log, commits, entries = closed(STORE_ID, LOG)
    return {
        "about": "file-format.md, sections 3.4 and 7; bytes: of the record alone; lsn: in canonical order",
        "store_id": STORE_ID.hex(),
        "chain_0": plain.chain_zero(STORE_ID).hex(),
        "wal": [
            {
                **{column: getattr(record, column) for column in ("lsn", "txn", "kind")},
                "session": hexed(record.session),
                "collection": record.collection,
                **{column: typed(getattr(record, column)) for column in ("key", "value", "before")},
                "seq": record.seq,
                "root": hexed(record.root),
                "count": record.count,
                "chain": hexed(record.chain),
                "at": record.at,
                "note": record.note,
                "bytes": None if record.kind == "ROLLBACK" else plain.record_bytes(record).hex(),
            }
            for record in log
        ],
        "commits": [
            {
                "seq": commit.seq,
                "lsn": [record.lsn for record in commit.records],
                "records_hash": sha256(plain.records_bytes(commit.records)).hex(),
                "root": commit.root.hex(),
                "count": commit.count,
                "at": commit.at,
                "chain": commit.chain.hex(),
            }
            for commit in commits
        ],
        "entries": [{"collection": c, "key": typed(k), "value": typed(v)} for c, k, v in entries],
        "staged": [{"txn": 35, "session": SESSION_B.hex()}],
    }


# ---- log.json ----

SMALL, LARGE = 20, 700
# Commit and size; sizes before and after. Paths within a block, over its border, and to the first and last commit.
SEQS = [(1, 256), (256, 257), (257, 257), (300, 700), (512, 700), (513, 700), (700, 700), (1, 700), (600, 600)]
SIZES = [(1, 700), (100, 300), (255, 256), (256, 512), (256, 700), (257, 700), (511, 513), (512, 700), (699, 700)]


def leaves_of(size: int) -> list[bytes]:
    """The leaves of a log whose chain of commit n is H(u64(n)); log.json states this rule."""
    return [log.leaf(sha256(u64(number))) for number in range(1, size + 1)]


def commit_log() -> dict[str, Any]:
    """Logs with their roots and blocks, and paths: all of the small one, some of the large one."""
    small, large = leaves_of(SMALL), leaves_of(LARGE)
    every = [(old, new) for new in range(1, SMALL + 1) for old in range(1, new + 1)]
    ends = [0, 1, 255, 256, 257, 511, 512, 513, 699, 700]
    return {
        "about": "file-format.md, sections 3.8 and 7.1; seq and old count commits from 1 on",
        "generated": {"chain of commit n": "H(u64(n))"},
        "leaves": [leaf.hex() for leaf in small],
        "roots": [{"size": size, "root": log.tree(large[:size]).hex()} for size in sorted({*range(SMALL + 1), *ends})],
        "blocks": [log.tree(large[start : start + log.BLOCK]).hex() for start in (0, log.BLOCK)],
        "inclusion": [
            {"seq": seq, "size": size, "path": list(map(bytes.hex, log.inclusion(seq - 1, large[:size])))}
            for seq, size in [*((seq, size) for seq, size in every if size in (1, 2, 7, 8, SMALL)), *SEQS]
        ],
        "consistency": [
            {"old": old, "new": new, "path": list(map(bytes.hex, log.consistency(old, large[:new])))}
            for old, new in [*((old, new) for old, new in every if new in (1, 2, 7, 8, SMALL)), *SIZES]
        ],
    }


# ---- audit.json ----


def migration(number: int, name: str) -> dict[str, Any]:
    """The detail of a migration."""
    return {"number": number, "name": name, "sha256": sha256((MIGRATIONS / name).read_bytes())}


def facts(commit: plain.Commit) -> dict[str, Any]:
    """A commit in the detail of a recovery."""
    return {name: getattr(commit, name) for name in ("seq", "root", "count", "at", "chain")}


def events(commits: list[plain.Commit]) -> list[tuple[str, str, int, dict[str, Any]]]:
    """Time, kind, seq and detail of each entry; bytes in a detail are written as hexadecimal digits."""
    first, second, third = commits[:3]
    journal = {
        "kind": "wal", "bytes": 41232, "page_size": 4096, "frames": 10, "valid": 9, "committed": 8, "commits": 2,
        "uncommitted": 1, "torn_bytes": 4120, "stale": 0, "proved": 0, "rot": False, "sqlite_frames": 8, "agrees": True,
    }  # fmt: skip
    recovered = {
        "how": "rollback", "clean": False, "shared": False, "damage": "", "journal": journal,
        "rolled_back": [12], "pending": [], "in_doubt": 2, "removed": [TEMPORARY], "evidence": [],
        "before": facts(first), "after": facts(second), "checked": "1 commit \u2026", "scan_seconds": 0.000125,
        "sqlite": "3.51.3", "verdict": "has the WAL-reset fix",
    }  # fmt: skip
    mended = {
        "mended": {"entries": 2, "removed": 1, "nodes": 3, "records": 0}, "lost_count": 1,
        "lost": [["caf\u00e9", "'k'"]], "from": None, "evidence": "caf\u00e9.db.damaged-0123456789abcdef",
    }  # fmt: skip
    copy = {"file": 'caf\u00e9 "copy".db', "bytes": 45056, "seq": 3, "root": third.root}
    return [
        (at(45), "migration", 0, migration(1, "0001_initial.sql")),
        (at(45), "check", 0, {}),
        (at(49), "recovery", 2, recovered),
        # The clock went back.
        (at(41), "recovery", 2, {"resumed": [5], "session": bytes(16), "by": SESSION_A}),
        (at(54), "backup", 5, copy),
        (at(55), "restore", 5, copy),
        (at(56), "repair", 5, mended),
    ]


def detail_text(detail: Any) -> str:
    """The detail as it is stored."""
    return json.dumps(detail, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=bytes.hex)


def trail(store_id: bytes, commits: list[plain.Commit]) -> list[audit.Entry]:
    """The entries with their digests."""
    chains = {0: plain.chain_zero(store_id)} | {commit.seq: commit.chain for commit in commits}
    digest = audit.digest_zero(store_id)
    result = []
    for number, (time, kind, seq, detail) in enumerate(events(commits), start=1):
        entry = audit.Entry(number, time, kind, seq, chains[seq], detail_text(detail))
        digest = audit.digest_next(digest, entry)
        result.append(replace(entry, digest=digest))
    return result


def audit_trail() -> dict[str, Any]:
    """An audit trail beside the log of chain.json, and markers."""
    _, commits, _ = closed(STORE_ID, LOG)
    markers = [
        (0, bytes(16), 0, 0),
        (0, bytes(range(16)), 36, 131),
        (0, b"\xff" * 16, 2**62, 2**64 - 1),
        (1, bytes(range(16)), 0, 2**32 + 7),
    ]
    return {
        "about": "file-format.md, sections 3.1 and 3.7; detail: TEXT as stored; preimage: what the digest is of",
        "store_id": STORE_ID.hex(),
        "digest_0": audit.digest_zero(STORE_ID).hex(),
        "audit": [
            {
                **{column: getattr(entry, column) for column in ("number", "at", "kind", "seq")},
                "chain": entry.chain.hex(),
                "detail": entry.detail,
                "preimage": audit.preimage(previous.digest, entry).hex(),
                "digest": entry.digest.hex(),
            }
            for previous, entry in pairwise([ZERO, *trail(STORE_ID, commits)])
        ],
        "markers": [
            {
                "state": state,
                "nonce": nonce.hex(),
                "lsn": str(lsn),
                "inode": str(inode),
                "marker": audit.marker(state, nonce, lsn, inode).hex(),
            }
            for state, nonce, lsn, inode in markers
        ],
    }


def documents() -> dict[str, str]:
    """Name and text of each vector file."""
    vectors = {
        "encoding.json": encoding(),
        "tree.json": tree(),
        "chain.json": chain(),
        "log.json": commit_log(),
        "audit.json": audit_trail(),
    }
    return {name: json.dumps(vector, indent=1) + "\n" for name, vector in vectors.items()}


def main() -> None:
    """Write the files beside this one."""
    for name, text in documents().items():
        (HERE / name).write_text(text, encoding="ascii")


if __name__ == "__main__":
    main()
