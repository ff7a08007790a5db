"""A plain reading of docs/reference/file-format.md, to judge the real implementation by.

It is slow and obvious on purpose: everything is recomputed from the entries and the records, nothing is
kept up to date. It imports nothing of sqlstate and only the standard library. Section numbers are those
of the page. Marker and audit trail stand in audit.py, the log over the commits in log.py, what was cut in cut.py,
notation and columns in notation.py.

`judge` uses the standard library's sqlite3. Never call it on a file that this process has open through
sqlstate: closing the second library's descriptor drops SQLite's locks.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

from tests.reference import audit, cut, log
from tests.reference.findings import Findings
from tests.reference.notation import (
    entry_faults,
    f,
    is_blob,
    is_key,
    is_number,
    is_time,
    is_value,
    json_faults,
    sha256,
    short,
    u8,
    u64,
    value_faults,
)

Key: TypeAlias = int | str | bytes
Value: TypeAlias = str | bytes
Name: TypeAlias = tuple[str, Key]
Entry: TypeAlias = tuple[str, Key, Value]
MerkleRow: TypeAlias = tuple[int, str, Key, bytes]

APPLICATION_ID = 1399935860
FORMAT = 4
MAX_RANK = 15
KINDS = ("BEGIN", "PUT", "DELETE", "COMMIT", "ROLLBACK")


# ---- 4 and 5. Order, bytes of a key ----


def kind(key: Key) -> bytes:
    """One byte for the key's storage class."""
    if isinstance(key, bool):
        raise TypeError("a bool is no key")
    if isinstance(key, int):
        return b"i"
    if isinstance(key, str):
        return b"t"
    return b"b"


def key_bytes(key: Key) -> bytes:
    """Bytes of the key, which order as the keys of one kind do."""
    if isinstance(key, int):
        return u64(key + 2**63)
    if isinstance(key, str):
        return key.encode("utf-8")
    return bytes(key)


def sort_key(collection: str, key: Key) -> tuple[bytes, int, bytes]:
    """What entries are ordered by."""
    return collection.encode("utf-8"), b"itb".index(kind(key)), key_bytes(key)


def sort_entries(entries: Iterable[Entry]) -> list[Entry]:
    """Entries in the order of section 4. Two entries of one name are refused."""
    keyed = [(sort_key(entry[0], entry[1]), entry) for entry in entries]
    keyed.sort(key=itemgetter(0))
    for (one, entry), (other, _) in pairwise(keyed):
        if one == other:
            raise ValueError(f"two entries have the name {entry[:2]!r}")
    return [entry for _, entry in keyed]


# ---- 6. The Merkle tree ----


def name_bytes(collection: str, key: Key) -> bytes:
    """The bytes that name an entry, name(e)."""
    return f(collection.encode("utf-8")) + kind(key) + f(key_bytes(key))


def leaf(collection: str, key: Key, value: Value) -> bytes:
    """The digest of one entry. A str is a JSON document as stored, bytes are bytes."""
    if isinstance(value, str):
        vkind, stored = b"j", value.encode("utf-8")
    else:
        vkind, stored = b"b", bytes(value)
    return sha256(b"\x00" + name_bytes(collection, key) + vkind + sha256(stored))


def rank(collection: str, key: Key) -> int:
    """How many zeros the hexadecimal digits of H(0x02 ‖ name(e)) end in, at most 15."""
    digits = sha256(b"\x02" + name_bytes(collection, key)).hex()
    return min(len(digits) - len(digits.rstrip("0")), MAX_RANK)


@dataclass(frozen=True, slots=True)
class Node:
    """A leaf (level 0, no children) or an inner node. `rank` is the rank of the first entry."""

    level: int
    first: Name
    rank: int
    count: int
    digest: bytes
    children: tuple["Node", ...] = ()


def leaf_node(collection: str, key: Key, value: Value) -> Node:
    """The node of level 0 of one entry."""
    return Node(0, (collection, key), rank(collection, key), 1, leaf(collection, key, value))


def children_bytes(children: Iterable[Node]) -> bytes:
    """u64(count_1) ‖ digest_1 ‖ u64(count_2) ‖ digest_2 ‖ …, as the table `merkle` holds it."""
    return b"".join([u64(child.count) + child.digest for child in children])


def inner_node(level: int, children: Sequence[Node]) -> Node:
    """The node over a run of nodes of the level below."""
    first = children[0]
    digest = sha256(b"\x01" + u8(level) + children_bytes(children))
    return Node(level, first.first, first.rank, sum(child.count for child in children), digest, tuple(children))


def level_above(level: int, nodes: Sequence[Node]) -> list[Node]:
    """Cut the nodes of level - 1 into runs and make one node of each."""
    runs: list[list[Node]] = []
    for node in nodes:
        if not runs or node.rank >= level:
            runs.append([])
        runs[-1].append(node)
    return [inner_node(level, run) for run in runs]


def levels_over(leaves: Sequence[Node]) -> list[list[Node]]:
    """Every level over leaves that are in order, up to the first level ≥ 1 with a single node."""
    result = [list(leaves)]
    while leaves and (len(result) == 1 or len(result[-1]) > 1):
        result.append(level_above(len(result), result[-1]))
    return result


def levels(entries: Iterable[Entry]) -> list[list[Node]]:
    """Every level of the tree, level 0 (the leaves) first. Without entries: level 0 alone, empty."""
    return levels_over([leaf_node(*entry) for entry in sort_entries(entries)])


def empty_root() -> bytes:
    """The root of an empty store."""
    return sha256(b"\x01\x01")


def root_of(tree: Sequence[Sequence[Node]]) -> bytes:
    """The root of levels already made."""
    return tree[-1][0].digest if tree[0] else empty_root()


def root(entries: Iterable[Entry]) -> bytes:
    """The root over the entries, given in any order."""
    return root_of(levels(entries))


def rows_of(tree: Sequence[Sequence[Node]]) -> set[MerkleRow]:
    """The rows of table `merkle` (3.3) of levels already made: (level, collection, key, children)."""
    rows: set[MerkleRow] = set()
    for nodes in tree[1:]:
        for node in nodes:
            collection, key = node.first if node.rank >= node.level else ("", "")
            rows.add((node.level, collection, key, children_bytes(node.children)))
    return rows


def merkle_rows(entries: Iterable[Entry]) -> set[MerkleRow]:
    """The rows that table `merkle` must hold (3.3), without their `id`."""
    return rows_of(levels(entries))


# ---- 7. The commit chain ----


@dataclass(frozen=True, slots=True)
class Record:
    """One row of table `wal` (3.4)."""

    lsn: int
    txn: int
    kind: str
    session: bytes | None = None
    collection: str | None = None
    key: Key | None = None
    value: Value | None = None
    before: Value | None = None
    seq: int | None = None
    root: bytes | None = None
    count: int | None = None
    chain: bytes | None = None
    at: str | None = None
    note: str | None = None
    records: bytes | None = None
    total: int | None = None
    digests: int | None = None


RECORD_COLUMNS = (
    "lsn, txn, kind, session, collection, key, value, before, seq, root, count, chain, at, note, records, total, "
    "digests"
)


def chain_zero(store_id: bytes) -> bytes:
    """chain_0."""
    return sha256(b"\x03" + store_id)


def record_bytes(record: Record) -> bytes:
    """Canonical bytes of one record of a commit. A ROLLBACK has none."""
    return u64(record.lsn) + u64(record.txn) + _record_body(record)


def leaf_after(record: Record) -> bytes | None:
    """The leaf of the entry with `value`: `value` itself where `digests` says that it is one (3.4)."""
    return _leaf_in(record, record.value, 1)


def leaf_before(record: Record) -> bytes | None:
    """The leaf of the entry with `before`, likewise."""
    return _leaf_in(record, record.before, 2)


def _leaf_in(record: Record, value: Value | None, bit: int) -> bytes | None:
    if value is None or record.collection is None or record.key is None:
        return None
    if (record.digests or 0) & bit:
        return value if isinstance(value, bytes) else None
    return leaf(record.collection, record.key, value)


def _record_body(record: Record) -> bytes:
    if record.kind == "BEGIN" and record.note is not None:
        return b"B" + f(record.note.encode("utf-8")) + f((record.at or "").encode("utf-8"))
    if record.kind == "COMMIT":
        return b"C"
    old, new = leaf_before(record), leaf_after(record)
    if record.kind == "PUT" and new is not None:
        return b"P" + f(old or b"") + new
    if record.kind == "DELETE" and old is not None:
        return b"D" + old
    raise ValueError(f"record {record.lsn} ({record.kind}) has no canonical bytes")


def records_bytes(records: Iterable[Record]) -> bytes:
    """Canonical bytes of a commit's records, given in the order of section 7."""
    return b"".join([record_bytes(record) for record in records])


def chain_next(previous: bytes, seq: int, root: bytes, count: int, at: str, records: bytes) -> bytes:
    """chain_n, from chain_{n-1}, the head of commit n and the joined bytes of its records."""
    head = u64(seq) + root + u64(count) + f(at.encode("utf-8"))
    return sha256(b"\x03" + previous + head + sha256(records))


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit: its head, its chain as stored, and its records in the order of section 7."""

    seq: int
    root: bytes
    count: int
    at: str
    chain: bytes
    records: tuple[Record, ...] = field(repr=False)
    digest: bytes | None = None
    """H(records) as stored."""


# ---- 9. Judging a file ----


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a file is worth.

    Each finding starts with what it is against: `I1` to `I15` (section 9), `format 3.4` and the like for
    a rule of the page outside the invariants, or `SQLite`. `seq` is that of the newest commit as the
    file has it; `root`, `count` and `chain` are recomputed, from the state and from all the records.
    """

    findings: tuple[str, ...]
    store_id: bytes = b""
    seq: int = 0
    root: bytes = b""
    count: int = 0
    chain: bytes = b""
    commits: tuple[Commit, ...] = field(default=(), repr=False)

    @property
    def sound(self) -> bool:
        """True when there is nothing to report."""
        return not self.findings


class _NotText:
    """A TEXT that is not UTF-8. It equals nothing and is no str, so no rule takes it for text."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def __repr__(self) -> str:
        return f"<not UTF-8: {self.raw[:40]!r}>"


def _text(raw: bytes) -> str | _NotText:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return _NotText(raw)


_Row: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _File:
    """All rows as SQLite gives them: INTEGER as int, TEXT as str or _NotText, BLOB as bytes."""

    pragmas: dict[str, Any]
    integrity: list[_Row]
    meta: list[_Row]
    state: list[_Row]
    merkle: list[_Row]
    wal: list[_Row]
    staged: list[_Row]
    audit: list[_Row]
    log_blocks: list[_Row]
    cut_commits: list[_Row]
    claims: list[_Row]
    digest_logs: list[_Row]
    triggers: list[_Row]


def connect(path: str | Path) -> sqlite3.Connection:
    """Open a file for reading.

    A closed one is opened as immutable too: with `mode=ro` alone SQLite leaves an empty -wal and a -shm
    behind beside a store in WAL mode, and cannot open it at all in a directory without write permission.
    """
    in_use = _is_beside(path, "-wal") or _is_beside(path, "-journal")
    return _connect(path, "mode=ro" if in_use else "mode=ro&immutable=1")


def _connect(path: str | Path, how: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{Path(path).absolute().as_uri()}?{how}", uri=True)


def _is_beside(path: str | Path, suffix: str) -> bool:
    try:
        return Path(f"{path}{suffix}").stat().st_size > 0
    except FileNotFoundError:  # asked once: another process may remove it between two questions
        return False


def _read(path: str | Path) -> _File:
    with closing(connect(path)) as connection:
        connection.text_factory = _text
        connection.execute("BEGIN")

        def rows(sql: str) -> list[_Row]:
            return connection.execute(sql).fetchall()

        pragmas = ("application_id", "user_version", "encoding")
        return _File(
            pragmas={name: rows(f"PRAGMA {name}")[0][0] for name in pragmas},
            integrity=rows("PRAGMA integrity_check"),
            meta=rows("SELECT name, value FROM meta"),
            state=rows("SELECT collection, key, value FROM state ORDER BY collection, key"),
            merkle=rows("SELECT id, level, collection, key, children FROM merkle"),
            wal=rows(f"SELECT {RECORD_COLUMNS} FROM wal ORDER BY lsn"),
            staged=rows("SELECT txn, session FROM staged"),
            audit=rows(f"SELECT {audit.COLUMNS} FROM audit ORDER BY number"),
            log_blocks=rows("SELECT block, digest FROM log_blocks ORDER BY block"),
            cut_commits=rows("SELECT block, chains, digest FROM cut_commits ORDER BY block"),
            claims=rows("SELECT name, seq FROM claims ORDER BY name"),
            digest_logs=rows("SELECT collection FROM digest_logs"),
            triggers=rows("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'audit' ORDER BY name"),
        )


def judge(path: str | Path, *, history: int | None = 50) -> Judgement:
    """Judge a closed file by every rule of the page that can be recomputed.

    Args:
        path: the file.
        history: for I8, of how many earlier commits the root is recomputed, from scratch each time; None
            for all. Each `before` is compared with the value it stands for in any case, down to commit 1.
    """
    findings = Findings()
    try:
        file = _read(path)
    except sqlite3.Error as error:
        findings.add("SQLite", f"{error}")
        return Judgement(findings.listed())
    store_id = _judge_header(file, findings)
    entries = _judge_state(file.state, findings)
    tree = levels(entries)
    _judge_merkle(file.merkle, tree, findings)
    start, earlier = _judge_cut(file, store_id, findings)
    records = _judge_records(file.wal, findings)
    _judge_marker(path, file, max([0 if start is None else start.lsn, *(each.lsn for each in records)]), findings)
    records = _without_cut(records, start, findings)
    _judge_transactions(records, file.staged, findings)
    _judge_staged(records, file, findings)
    commits = _judge_numbers(records, len(earlier) + 1, findings)
    chain = _judge_chain(commits, earlier[-1] if earlier else chain_zero(store_id), findings)
    _judge_newest(commits, start, (root_of(tree), len(entries)), findings)
    _judge_history(commits, entries, history, start, findings)
    chains = dict(enumerate(earlier, start=1)) | {commit.seq: commit.chain for commit in commits}
    _judge_trail(file, store_id, chains, findings)
    for fault in audit.digest_log_faults(file.digest_logs, file.audit):
        findings.add("format 3.10", fault)
    for fault in log.block_faults(file.log_blocks, [*earlier, *(commit.chain for commit in commits)]):
        findings.add("I13", fault)
    return Judgement(
        findings=findings.listed(),
        store_id=store_id,
        seq=commits[-1].seq if commits else len(earlier),
        root=root_of(tree),
        count=len(entries),
        chain=chain,
        commits=tuple(commits),
    )


def _judge_header(file: _File, findings: Findings) -> bytes:
    """Sections 1 and 3.1, and SQLite's own opinion. The result is the store id."""
    if file.integrity != [("ok",)]:
        findings.add("SQLite", f"integrity_check says {file.integrity[:3]!r}")
    for name, expected in (
        ("application_id", APPLICATION_ID),
        ("user_version", FORMAT),
        ("encoding", "UTF-8"),
    ):
        found = file.pragmas[name]
        findings.expect("format 1", f"{name} is {found!r}, not {expected!r}", holds=found == expected)
    meta = _facts(file)
    store_id, version, created = meta.get("store_id"), meta.get("format"), meta.get("created")
    journal = meta.get("journal")
    findings.expect("format 3.1", f"journal is {journal!r}", holds=journal in ("wal", "delete"))
    right = isinstance(version, int) and version == FORMAT
    findings.expect("format 3.1", f"format is {version!r}, not {FORMAT}", holds=right)
    findings.expect("format 3.1", f"created is {created!r}, not a time", holds=is_time(created))
    if isinstance(store_id, bytes) and len(store_id) == 16:
        return store_id
    findings.add("format 3.1", f"store_id is {store_id!r}, not 16 bytes")
    return b""


def _facts(file: _File) -> dict[str, Any]:
    return {name: value for name, value in file.meta if isinstance(name, str)}


def _judge_marker(path: str | Path, file: _File, lsn: int, findings: Findings) -> None:
    """The marker (3.1), and I11."""
    meta = _facts(file)
    marker = meta.get("marker")
    for against, fault in audit.marker_faults(marker, meta.get("journal"), lsn):
        findings.add(against, fault)
    has_wal = _is_beside(path, "-wal")
    if audit.is_open(marker):
        findings.expect("I11", "the marker is open, and there is no -wal", holds=has_wal)
    elif audit.is_at_rest(marker) and has_wal:
        try:
            differs = _contents(path, "mode=ro") != _contents(path, "mode=ro&immutable=1")
        except sqlite3.Error as error:
            findings.add("I11", f"the marker is at rest, and the main file by itself cannot be read: {error}")
        else:
            findings.expect("I11", "the marker is at rest, and the main file by itself differs", holds=not differs)


def _contents(path: str | Path, how: str) -> list[_Row]:
    """State and log as bytes; as `immutable`, without what is in the -wal."""
    with closing(_connect(path, how)) as connection:
        connection.text_factory = bytes
        state = connection.execute("SELECT * FROM state ORDER BY collection, key").fetchall()
        return state + connection.execute("SELECT * FROM wal ORDER BY lsn").fetchall()


def _judge_cut(file: _File, store_id: bytes, findings: Findings) -> tuple[cut.Start | None, list[bytes]]:
    """I15. The result is where the log begins, and the chains of what was cut."""
    start, fault = cut.start_of(_facts(file).get("log_start"))
    if fault:
        findings.add("I15", fault)
    chains, faults = cut.chains_of(file.cut_commits)
    for fault in faults:
        findings.add("I15", fault)
    seq = 0 if start is None else start.seq
    findings.expect("I15", f"{len(chains)} commits were cut, and the log begins after {seq}", holds=len(chains) == seq)
    if start is not None and len(chains) == seq:
        findings.expect("I15", f"the chain of commit {seq}, which was cut, is another", holds=chains[-1] == start.chain)
        before = chains[-2] if seq > 1 else chain_zero(store_id)
        follows = cut.chain(before, start)
        findings.expect("I15", f"commit {seq}, which was cut, does not follow", holds=follows == start.chain)
    for name, claimed in file.claims:
        right = isinstance(name, str) and is_number(claimed) and claimed >= seq
        findings.expect("I15", f"{name!r} claims commit {claimed!r}, and those up to {seq} were cut", holds=right)
    return start, chains


def _without_cut(records: list[Record], start: cut.Start | None, findings: Findings) -> list[Record]:
    """The records that belong to the log (3.9)."""
    if start is None:
        return records
    ended = {record.txn for record in records if record.kind in ("COMMIT", "ROLLBACK") and record.lsn <= start.lsn}
    kept = []
    for record in records:
        is_cut = record.lsn <= start.lsn and (record.session is None or record.txn in ended)
        if is_cut:
            gone = record.lsn > start.removed
            findings.expect("I15", f"record {record.lsn} was cut, and is there", holds=gone)
        else:
            kept.append(record)
    return kept


def _judge_trail(file: _File, store_id: bytes, chains: dict[int, bytes], findings: Findings) -> None:
    """I12, and the columns and triggers of 3.7."""
    triggers = tuple(name for (name,) in file.triggers)
    findings.expect("format 3.7", f"the triggers of audit are {triggers}", holds=triggers == audit.TRIGGERS)
    for against, fault in audit.trail_faults(file.audit, store_id, chains | {0: chain_zero(store_id)}):
        findings.add(against, fault)


def _judge_state(rows: list[_Row], findings: Findings) -> list[Entry]:
    """I1, and the order of section 4. The result is the rows that are entries, in order."""
    entries: dict[Name, Entry] = {}
    for collection, key, value in rows:
        where = f"state row {collection!r}, {short(key)}"
        faults = entry_faults(collection, key) + value_faults(value) + json_faults(value)
        for fault in faults:
            findings.add("I1", f"{where}: {fault}")
        if isinstance(collection, str) and is_key(key) and is_value(value):
            findings.expect("format 3.2", f"{where} is there twice", holds=(collection, key) not in entries)
            entries[collection, key] = (collection, key, value)
    as_selected = list(entries.values())
    ordered = sort_entries(as_selected)
    findings.expect("format 4", "ORDER BY collection, key gives another order", holds=ordered == as_selected)
    return ordered


def _judge_merkle(rows: list[_Row], tree: Sequence[Sequence[Node]], findings: Findings) -> None:
    """I2, and the row numbers of 3.3."""
    expected = rows_of(tree)
    found = {(level, collection, key, children) for _, level, collection, key, children in rows}
    findings.expect("I2", "merkle has one row twice", holds=len(found) == len(rows))
    for (level, collection, key, _), fault in [
        *((row, "is missing or differs") for row in expected - found),
        *((row, "does not belong there") for row in found - expected),
    ]:
        findings.add("I2", f"merkle row of level {level} named {collection!r}, {short(key)} {fault}")
    for number, level, collection, key, _ in rows:
        # To Python 1.0 equals 1, to SQLite too; the page says INTEGER.
        typed = isinstance(number, int) and isinstance(level, int) and is_key(key)
        where = f"merkle row {number!r} of level {level!r} named {collection!r}, {short(key)}"
        findings.expect("I2", f"{where} has a REAL or NULL in it", holds=typed)
        if typed:
            in_level = 0 <= number - (16 - level) * 2**48 < 2**48
            findings.expect("format 3.3", f"id {number} is not one of level {level}", holds=in_level)


def _judge_records(rows: list[_Row], findings: Findings) -> list[Record]:
    """Which columns each kind of record fills (3.4). The result is the records that can be read."""
    records = []
    for row in rows:
        record = Record(*row)
        faults = _record_faults(record)
        for fault in faults:
            findings.add("format 3.4", f"record {record.lsn!r} ({record.kind!r}): {fault}")
        if not faults:
            records.append(record)
    return records


def _record_faults(record: Record) -> list[str]:  # noqa: PLR0912, a branch for each column that may be filled
    if not (is_number(record.lsn) and is_number(record.txn) and record.kind in KINDS):
        return ["lsn, txn or kind is none of those there are"]
    filled: dict[str, bool] = {}
    faults: list[str] = []
    if record.kind == "BEGIN":
        filled = {"note": isinstance(record.note, str)}
        if record.session is not None:
            filled["at"] = is_time(record.at)
    elif record.kind in ("PUT", "DELETE"):
        faults += entry_faults(record.collection, record.key)
        filled = {"collection": True, "key": True}
        marks = record.digests if isinstance(record.digests, int) else 0
        there = (record.value is not None) + 2 * (record.before is not None)
        if record.digests is not None:
            filled["digests"] = 0 < marks <= 3 and marks & there == marks
        if record.kind == "PUT":
            filled["value"] = is_blob(record.value, 32) if marks & 1 else not value_faults(record.value)
        if record.kind == "DELETE" or record.before is not None:
            filled["before"] = is_blob(record.before, 32) if marks & 2 else not value_faults(record.before)
    elif record.kind == "COMMIT":
        filled = {"seq": is_number(record.seq)}
        if record.root is not None:
            filled["root"] = is_blob(record.root, 32)
            filled["count"] = is_number(record.count)
            filled["chain"] = is_blob(record.chain, 32)
            filled["at"] = is_time(record.at)
            filled["records"] = record.records is None or is_blob(record.records, 32)
            filled["total"] = record.total is None or is_number(record.total)
    else:
        filled = {"at": is_time(record.at)}
    if record.session is not None and record.kind in ("BEGIN", "PUT", "DELETE"):
        filled["chain"] = record.chain is None or is_blob(record.chain, 32)
    faults += [f"{column} is {short(getattr(record, column))}" for column, good in filled.items() if not good]
    if record.session is not None and not is_blob(record.session, 16):
        faults.append(f"session is {short(record.session)}")
    for column in RECORD_COLUMNS.split(", ")[4:]:
        if column not in filled and getattr(record, column) is not None:
            faults.append(f"{column} is {short(getattr(record, column))}, not NULL")
    return faults


def _judge_transactions(records: list[Record], staged: list[_Row], findings: Findings) -> None:
    """I5, I7, I9, I10, and what 3.4 says of `session`."""
    _judge_lsn(records, findings)
    members: dict[int, list[Record]] = {}
    for record in records:
        members.setdefault(record.txn, []).append(record)
    open_staged: set[int] = set()
    for txn, own in members.items():
        begins = [record for record in own if record.kind == "BEGIN"]
        ends = [record for record in own if record.kind in ("COMMIT", "ROLLBACK")]
        changes = [record for record in own if record.kind in ("PUT", "DELETE")]
        findings.expect("I7", f"transaction {txn} has {len(begins)} BEGIN", holds=len(begins) == 1)
        findings.expect("I7", f"transaction {txn} has {len(ends)} ends", holds=len(ends) <= 1)
        if ends:
            findings.expect("I7", f"transaction {txn} goes on after its end", holds=own[-1] is ends[0])
            bare = ends[0].kind == "COMMIT" and not changes
            findings.expect("I10", f"transaction {txn} committed without a change", holds=not bare)
        elif own[0].session is not None:
            open_staged.add(txn)
            whole = all(record.digests is None for record in own)
            findings.expect("format 3.4", f"transaction {txn} has not ended, and has a digest for a value", holds=whole)
        else:
            findings.add("format 3.4", f"transaction {txn} is direct and has no end")
        one_session = len({record.session for record in own}) == 1
        findings.expect("format 3.4", f"transaction {txn} has records of several sessions", holds=one_session)
    listed = [txn for txn, _ in staged]
    findings.expect("I9", "staged lists a transaction twice", holds=len(set(listed)) == len(listed))
    typed = all(isinstance(txn, int) for txn in listed)
    findings.expect("I9", "staged has a txn that is no INTEGER", holds=typed)
    for txn in open_staged - set(listed):
        findings.add("I9", f"staged lacks transaction {txn}, which has not ended")
    for txn in set(listed) - open_staged:
        findings.add("I9", f"staged lists transaction {txn!r}, which is no staged one without an end")


def _judge_staged(records: list[Record], file: _File, findings: Findings) -> None:
    """Who has a staged transaction (3.5): the session of its BEGIN, or the one that resumed it last."""
    sessions = {record.txn: record.session for record in records if record.kind == "BEGIN"} | audit.resumed(file.audit)
    for txn, session in file.staged:
        right = session == sessions.get(txn, session)
        findings.expect("format 3.5", f"staged has transaction {txn!r} with session {short(session)}", holds=right)
    digests: dict[int, bytes | None] = {}
    rolled_back = {record.txn for record in records if record.kind == "ROLLBACK"}
    for record in records:
        if record.txn in rolled_back or record.session is None or record.kind not in ("BEGIN", "PUT", "DELETE"):
            continue
        before = digests.get(record.txn, None if record.chain is None else bytes(32))
        if before is None and record.chain is None:
            digests[record.txn] = None
            continue
        with suppress(ValueError):
            follows = sha256(b"\x05" + (before or bytes(32)) + record.session + record_bytes(record))
            findings.expect("I14", f"the digest of record {record.lsn} is another", holds=record.chain == follows)
        digests[record.txn] = record.chain


def _judge_lsn(records: list[Record], findings: Findings) -> None:
    """I5."""
    begun: set[int] = set()
    last = -1
    for record in records:
        findings.expect("I5", f"lsn {record.lsn} comes after {last}", holds=record.lsn > last)
        last = record.lsn
        if record.kind == "BEGIN":
            begun.add(record.lsn)
            is_own = record.txn == record.lsn
            findings.expect("I5", f"BEGIN {record.lsn} says txn {record.txn}", holds=is_own)
        else:
            is_begun = record.txn in begun
            findings.expect("I5", f"record {record.lsn}: no BEGIN {record.txn} before it", holds=is_begun)


def _judge_numbers(records: list[Record], expected: int, findings: Findings) -> list[Commit]:
    """I4. The result is the commits in the order of `lsn`."""
    commits: list[Commit] = []
    members: dict[int, list[Record]] = {}
    joined: list[Record] = []
    for record in records:
        members.setdefault(record.txn, []).append(record)
        if record.kind == "COMMIT":
            right = record.seq == expected
            findings.expect("I4", f"record {record.lsn} has seq {record.seq}, not {expected}", holds=right)
            joined += members[record.txn]
            commit = _closed_commit(record, tuple(joined))
            if commit is not None:
                commits.append(commit)
                joined = []
                expected = commit.seq + 1
    findings.expect("I4", "the last COMMIT records have no closing one", holds=not joined)
    return commits


def _closed_commit(record: Record, records: tuple[Record, ...]) -> Commit | None:
    """The commit that this COMMIT record closes, or None if it is not the last of its commit."""
    if record.seq is None or record.root is None or record.count is None:
        return None
    if record.at is None or record.chain is None:
        return None
    return Commit(record.seq, record.root, record.count, record.at, record.chain, records, record.records)


def _judge_chain(commits: list[Commit], zero: bytes, findings: Findings) -> bytes:
    """I6, link by link from the digest stored before. The result is the chain recomputed from chain_0."""
    stored = chain = zero
    for commit in commits:
        records = records_bytes(commit.records)
        follows = chain_next(stored, commit.seq, commit.root, commit.count, commit.at, records)
        findings.expect("I6", f"the chain of commit {commit.seq} is another", holds=commit.chain == follows)
        same = commit.digest in (None, sha256(records))
        findings.expect("I6", f"commit {commit.seq} has another digest of its records", holds=same)
        stored = commit.chain
        chain = chain_next(chain, commit.seq, commit.root, commit.count, commit.at, records)
    return chain


def _judge_newest(commits: list[Commit], start: cut.Start | None, made: tuple[bytes, int], findings: Findings) -> None:
    """I3."""
    root, count = made
    newest = commits[-1] if commits else start
    said_root, said_count = (newest.root, newest.count) if newest else (empty_root(), 0)
    findings.expect("I3", f"the root is {root.hex()}, not {said_root.hex()}", holds=root == said_root)
    findings.expect("I3", f"there are {count} entries, not {said_count}", holds=count == said_count)


def _judge_history(
    commits: list[Commit], entries: list[Entry], history: int | None, start: cut.Start | None, findings: Findings
) -> None:
    """I8: undo record by record, backwards, and compare the root of each earlier commit; at last where it begins."""
    at_start = (empty_root(), 0) if start is None else (start.root, start.count)
    leaves = {(collection, key): leaf_node(collection, key, value) for collection, key, value in entries}
    place = {name: sort_key(*name) for name in leaves}
    for back, commit in enumerate(reversed(commits), start=1):
        for record in reversed(commit.records):
            if record.collection is None or record.key is None:
                continue
            name = (record.collection, record.key)
            left = leaves[name].digest if name in leaves else None
            as_left = left == leaf_after(record)
            findings.expect("I8", f"record {record.lsn} left another value than is there", holds=as_left)
            before = leaf_before(record)
            if before is None:
                leaves.pop(name, None)
            else:
                leaves[name] = Node(0, name, rank(*name), 1, before)
                place[name] = sort_key(*name)
        if history is None or back <= history:
            earlier = commits[-1 - back] if back < len(commits) else None
            said = (earlier.root, earlier.count) if earlier else at_start
            undone = root_of(levels_over([leaves[name] for name in sorted(leaves, key=place.__getitem__)]))
            where = f"commit {earlier.seq if earlier else 0}"
            findings.expect("I8", f"undoing to {where} gives another root", holds=undone == said[0])
            findings.expect("I8", f"undoing to {where} gives {len(leaves)} entries", holds=len(leaves) == said[1])
    if start is None:
        findings.expect("I8", f"{len(leaves)} entries were there before commit 1", holds=not leaves)
