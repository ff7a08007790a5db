"""The judge judged: its vectors, its digests against literal hashlib, whether it finds what is wrong."""

import hashlib
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import astuple, replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import ROOT
from tests.reference import audit, findings, notation, plain
from tests.reference import log as rfc6962
from tests.reference.plain import Entry, Key, Record, Value
from tests.support.system import WINDOWS
from tests.vectors import make

PAGE = (ROOT / "docs/reference/file-format.md").read_text(encoding="utf-8")
STORE_ID = make.STORE_ID

text_ = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
names = st.tuples(text_, st.integers(-(2**63), 2**63 - 1) | text_ | st.binary(min_size=1, max_size=8))
values = st.sampled_from(["1", "null", '"x"', '{"a":1}']) | st.binary(max_size=8)
stores = st.dictionaries(names, values, max_size=60)


def listed(store: dict[tuple[str, Key], Value]) -> list[Entry]:
    return [(*name, value) for name, value in store.items()]


def section(number: int) -> str:
    found = re.search(rf"^## {number}\. .*?(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found.group()


def table(number: int) -> list[list[str]]:
    """The rows below the head of the one table of a section."""
    lines = [line for line in section(number).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# ---- The files on disk ----


@pytest.mark.parametrize("name", ["encoding.json", "tree.json", "chain.json", "log.json", "audit.json"])
def test_the_vector_file_is_what_make_writes(name: str) -> None:
    assert (make.HERE / name).read_text(encoding="ascii") == make.documents()[name]


def test_the_vectors_stay_small() -> None:
    assert sum(len(text) for text in make.documents().values()) < 300_000


def test_the_tree_vectors_reach_every_shape() -> None:
    """A case that no longer has the shape its name promises is worth nothing."""
    trees = {name: plain.levels(entries) for name, entries in make.small_cases().items()}
    assert len(trees["empty"]) == 1
    assert [len(level) for level in trees["one run: no entry has a rank"]] == [12, 1]
    assert trees["one entry of rank 3 or more"][0][0].rank >= 3
    first = trees["the first entry has rank 3 or more, no other"][0]
    assert first[0].rank >= 3
    assert {node.rank for node in first[1:]} == {0}
    for least in (1, 2, 3):
        sizes = [len(level) for level in trees[f"an entry in the middle has rank {least} or more{tail(least)}"]]
        assert sizes == [13, *[2] * least, 1]
    kinds = trees["kinds of keys and several collections"][0]
    assert {type(node.first[1]) for node in kinds} == {int, str, bytes}
    assert len({node.first[0] for node in kinds}) == 5


def tail(least: int) -> str:
    return ", not the first" if least == 1 else ""


def test_the_chain_vectors_reach_every_record() -> None:
    log, commits, entries = make.closed(STORE_ID, make.LOG)
    assert {record.kind for record in log} == set(plain.KINDS)
    assert any(record.session and record.kind == "COMMIT" for record in log)
    order = [[record.lsn for record in commit.records] for commit in commits]
    assert order[2] == [16, 17, 18, 5, 6, 14, 19, 22, 23, 24], "not in the order of lsn"
    assert commits[3].root == plain.empty_root()
    assert entries == [("a", 1, "true")]


def test_the_audit_vectors_reach_every_kind_of_detail() -> None:
    _, commits, _ = make.closed(STORE_ID, make.LOG)
    trail = make.trail(STORE_ID, commits)
    assert [entry.kind for entry in trail] == [
        "migration",
        "check",
        "recovery",
        "recovery",
        "backup",
        "restore",
        "repair",
    ]
    assert {entry.seq for entry in trail} == {0, 2, 5}
    assert any(one.at > other.at for one, other in pairwise(trail)), "the clock never went back"
    assert not trail[2].detail.isascii()
    assert set(section_members("recovery")) == set(json.loads(trail[2].detail))
    repair = json.loads(trail[6].detail)
    assert set(section_members("repair")) - {"schema"} == {*repair, *repair["mended"]}  # it is of an earlier program
    assert audit.resumed([astuple(entry) for entry in trail]) == {5: make.SESSION_A}


def section_members(kind: str) -> Iterator[str]:
    """The members of a detail that the page lists, in its own table of 3.7."""
    found = PAGE.split(f"| member of `{kind}` | value |")[1].split("\n\n")[0]
    if kind == "repair":
        yield from re.findall(r"`(\w+)`", found.split("| `mended` |")[1].split("|")[0])
    for first in re.findall(r"^\| (`.*?) \|", found, re.MULTILINE):
        yield from re.findall(r"`(\w+)`", first)


# ---- The reference against literal calls ----


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


NAME_1 = b"\x00\x00\x00\x01ai\x00\x00\x00\x08\x80\x00\x00\x00\x00\x00\x00\x01"
LEAF_1 = sha(b"\x00" + NAME_1 + b"j" + sha(b"1"))
LEAF_2 = sha(b"\x00" + b"\x00\x00\x00\x01a" + b"t" + b"\x00\x00\x00\x01k" + b"b" + sha(b""))
ONE = b"\x00\x00\x00\x00\x00\x00\x00\x01"


def test_leaves_by_hand() -> None:
    assert plain.leaf("a", 1, "1") == LEAF_1
    assert plain.leaf("a", "k", b"") == LEAF_2


def test_the_root_of_two_entries_by_hand() -> None:
    by_hand = sha(b"\x01\x01" + ONE + LEAF_1 + ONE + LEAF_2)
    assert plain.root([("a", 1, "1"), ("a", "k", b"")]) == by_hand


def test_the_root_over_two_runs_by_hand() -> None:
    """k11 has rank 1, so it starts a run of its own; k0 has none."""
    assert re.search("[^0]0$", sha(b"\x02\x00\x00\x00\x01ct\x00\x00\x00\x03k11").hex())
    low = sha(b"\x00\x00\x00\x00\x01ct\x00\x00\x00\x02k0j" + sha(b"0"))
    high = sha(b"\x00\x00\x00\x00\x01ct\x00\x00\x00\x03k11b" + sha(b"1"))
    last = sha(b"\x00\x00\x00\x00\x01ct\x00\x00\x00\x03k12j" + sha(b"2"))
    runs = [ONE + low, ONE + high + ONE + last]
    above = ONE + sha(b"\x01\x01" + runs[0]) + ONE[:-1] + b"\x02" + sha(b"\x01\x01" + runs[1])
    entries: list[Entry] = [("c", "k12", "2"), ("c", "k11", b"1"), ("c", "k0", "0")]
    assert plain.root(entries) == sha(b"\x01\x02" + above)
    assert plain.merkle_rows(entries) == {(1, "", "", runs[0]), (1, "c", "k11", runs[1]), (2, "", "", above)}


def test_the_first_node_is_named_when_its_entry_has_the_rank() -> None:
    assert {row[:3] for row in plain.merkle_rows([("c", "k11", "1")])} == {(1, "c", "k11")}


def test_an_empty_store_by_hand() -> None:
    assert plain.root([]) == sha(b"\x01\x01")
    assert plain.merkle_rows([]) == set()
    assert plain.levels([]) == [[]]


def test_chain_0_by_hand() -> None:
    assert plain.chain_zero(bytes(range(16))) == sha(bytes([3, *range(16)]))


def test_a_chain_link_by_hand() -> None:
    when = "2026-11-23T17:09:46.000000Z"
    link = b"\x03" + b"\x01" * 32 + ONE + b"\x02" * 32 + ONE + b"\x00\x00\x00\x1b" + when.encode() + sha(b"xyz")
    assert plain.chain_next(b"\x01" * 32, 1, b"\x02" * 32, 1, when, b"xyz") == sha(link)


def test_digest_0_of_the_audit_trail_by_hand() -> None:
    assert audit.digest_zero(bytes(range(16))) == sha(bytes([4, *range(16)]))


def test_a_digest_of_the_audit_trail_by_hand() -> None:
    entry = audit.Entry(1, "T", "caf\u00e9", 1, b"\x02" * 32, '{"a":1}', b"not part of it")
    text = b"\x00\x00\x00\x01T\x00\x00\x00\x05caf\xc3\xa9"
    link = b"\x04" + b"\x01" * 32 + ONE + text + ONE + b"\x02" * 32 + b'\x00\x00\x00\x07{"a":1}'
    assert audit.digest_next(b"\x01" * 32, entry) == sha(link)


def test_markers_by_hand() -> None:
    assert audit.marker(1, b"\xaa" * 16, 0, 1) == b"\x01" + b"\xaa" * 16 + bytes(8) + ONE
    assert audit.marker(0, b"\xaa" * 16, 1, 0) == b"\x00" + b"\xaa" * 16 + ONE + bytes(8)
    for size in (33, 25):
        assert [audit.is_open(audit.marker(state, bytes(16), 0, 7)[:size]) for state in (0, 1)] == [False, True]
        assert [audit.is_at_rest(audit.marker(state, bytes(16), 0, 7)[:size]) for state in (0, 1)] == [True, False]
    assert (audit.is_open(b""), audit.is_at_rest(b"")) == (False, False)


def test_record_bytes_by_hand() -> None:
    two, seven = b"\x00" * 7 + b"\x02", b"\x00" * 7 + b"\x07"
    begin = Record(2, 2, "BEGIN", session=bytes(16), note="é", at="T")
    assert plain.record_bytes(begin) == two + two + b"B\x00\x00\x00\x02\xc3\xa9\x00\x00\x00\x01T"
    direct = Record(2, 2, "BEGIN", note="")
    assert plain.record_bytes(direct) == two + two + b"B" + bytes(4) + bytes(4)
    put = Record(7, 2, "PUT", collection="a", key=1, value="1")
    assert plain.record_bytes(put) == seven + two + b"P" + bytes(4) + LEAF_1
    over = Record(7, 2, "PUT", collection="a", key="k", value=b"", before=b"")
    assert plain.record_bytes(over) == seven + two + b"P\x00\x00\x00\x20" + LEAF_2 + LEAF_2
    delete = Record(7, 2, "DELETE", collection="a", key=1, before="1")
    assert plain.record_bytes(delete) == seven + two + b"D" + LEAF_1
    commit = Record(7, 2, "COMMIT", seq=1, root=bytes(32), count=0, chain=bytes(32), at="T")
    assert plain.record_bytes(commit) == seven + two + b"C"
    with pytest.raises(ValueError, match="no canonical bytes"):
        plain.record_bytes(Record(7, 2, "ROLLBACK", at="T"))


# ---- Properties of the reference ----


@settings(deadline=None)
@given(stores, st.randoms(use_true_random=False))
def test_the_root_does_not_depend_on_the_order(store: dict[tuple[str, Key], Value], random: object) -> None:
    entries = listed(store)
    shuffled = sorted(entries, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert plain.root(shuffled) == plain.root(entries)
    assert plain.merkle_rows(shuffled) == plain.merkle_rows(entries)


@settings(deadline=None)
@given(stores)
def test_levels_keep_count_and_order(store: dict[tuple[str, Key], Value]) -> None:
    levels = plain.levels(listed(store))
    for level, nodes in enumerate(levels):
        assert sum(node.count for node in nodes) == len(store)
        assert {node.level for node in nodes} <= {level}
    for below, above in pairwise(levels):
        assert [child for node in above for child in node.children] == below
    assert len(levels[-1]) == min(len(store), 1)


@settings(deadline=None)
@given(stores.filter(bool), st.data())
def test_every_change_changes_the_root(store: dict[tuple[str, Key], Value], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(store, key=repr)))
    before = plain.root(listed(store))
    value = store[name]
    as_other_kind = value.encode() if isinstance(value, str) else value.hex()
    changed = {**store, name: as_other_kind}
    without = {other: value for other, value in store.items() if other != name}
    assert len({before, plain.root(listed(changed)), plain.root(listed(without))}) == 3


def test_large_trees_have_about_sixteen_children() -> None:
    sizes = [len(level) for level in plain.levels(make.generated(5_000))]
    assert 250 < sizes[1] < 375
    assert 10 < sizes[2] < 32
    assert sizes[-1] == 1


def test_the_order_is_that_of_the_page() -> None:
    ordered: list[Entry] = [
        *(("a", key, "1") for key in (-(2**63), -1, 0, 2**63 - 1, "", "A", "a", "a\x00", "b", "\uffff", "\U0001f511")),
        *(("a", key, "1") for key in (b"\x00", b"A", b"\xff")),
        ("ab", -5, "1"),
        ("b", 1, "1"),
        ("\uffff", 1, "1"),
        ("\U0001f511", 1, "1"),
    ]
    assert plain.sort_entries(reversed(ordered)) == ordered


def test_two_entries_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two entries"):
        plain.root([("a", 1, "1"), ("b", 1, "1"), ("a", 1, b"1")])


def test_ranks_come_from_trailing_zero_digits() -> None:
    ranks = [plain.rank("c", number) for number in range(5_000)]
    for number, rank in enumerate(ranks):
        digits = sha(b"\x02" + plain.name_bytes("c", number)).hex()
        assert digits.endswith("0" * rank)
        assert not digits.endswith("0" * (rank + 1))
    assert {0, 1, 2} <= set(ranks)


# ---- The page ----


def test_the_table_of_key_bytes() -> None:
    rows = table(5)
    assert len(rows) >= 7
    for written, kind, digits in rows:
        bare = written.strip("`")
        key: Key = int(bare) if re.fullmatch("-?[0-9]+", bare) else bare[1:-1]
        if bare.startswith("x'"):
            key = bytes.fromhex(bare[2:-1])
        assert (plain.kind(key).decode(), plain.key_bytes(key).hex()) == (kind, digits.strip("`")), written


def test_the_table_of_worked_digests() -> None:
    log, commits, _ = make.closed(STORE_ID, make.LOG)
    assert plain.root(make.PAIR) == commits[0].root
    expected = {
        "root of an empty store": plain.empty_root(),
        "leaf of collection `a`, key INTEGER 1, value TEXT `1`": plain.leaf("a", 1, "1"),
        "leaf of collection `a`, key TEXT `k`, value BLOB of no bytes": plain.leaf("a", "k", b""),
        "root of the store of these two entries": plain.root([("a", 1, "1"), ("a", "k", b"")]),
        "chain_0 of store id `000102030405060708090a0b0c0d0e0f`": plain.chain_zero(bytes(range(16))),
        "records hash of commit 1, below": notation.sha256(plain.records_bytes(log[:4])),
        "chain_1, below": commits[0].chain,
        "log root of an empty log": rfc6962.tree([]),
        "leaf_0 of the log, which is also the log root of 1 commit, below": rfc6962.tree(
            [rfc6962.leaf(commits[0].chain)]
        ),
        "digest_0 of the audit trail of that store": audit.digest_zero(bytes(range(16))),
        "digest_1 of the audit trail, below": make.trail(STORE_ID, commits)[0].digest,
    }
    assert {of: digest.strip("`") for of, digest in table(12)} == {of: d.hex() for of, d in expected.items()}
    assert f"```\n{make.trail(STORE_ID, commits)[0].detail}\n```" in section(12)


def test_the_page_states_the_constants() -> None:
    for number in (plain.APPLICATION_ID, notation.MAX_COLLECTION, f"{notation.MAX_KEY:,}", f"{notation.MAX_VALUE:,}"):
        assert str(number) in PAGE
    assert f"Format version {plain.FORMAT}." in PAGE
    for name in (*audit.KINDS, *audit.TRIGGERS):
        assert f"`{name}`" in PAGE
    assert int.from_bytes(b"SqSt", "big") == plain.APPLICATION_ID
    assert set(re.findall(r"\*\*(I[0-9]+)\*\*", section(9))) == {f"I{number}" for number in range(1, 16)}


# ---- The judge, on files made by hand from section 3 ----

# Laxer than a real one, so that every rule can be broken.
SCHEMA = """
PRAGMA application_id = 1399935860;
PRAGMA user_version = 4;
CREATE TABLE meta (name TEXT PRIMARY KEY, value);
CREATE TABLE state (collection TEXT, key, value, PRIMARY KEY (collection, key));
CREATE TABLE merkle (id INTEGER PRIMARY KEY, level INTEGER, collection TEXT, key, children BLOB);
CREATE TABLE wal (lsn INTEGER, txn INTEGER, kind TEXT, session BLOB, collection TEXT, key, value,
                  before, seq INTEGER, root BLOB, count INTEGER, chain BLOB, at TEXT, note TEXT,
                  records BLOB, total INTEGER, digests INTEGER);
CREATE TABLE staged (txn, session);
CREATE TABLE audit (number, at, kind, seq, chain, detail, digest);
CREATE TABLE log_blocks (block, digest);
CREATE TABLE cut_commits (block, chains, digest);
CREATE TABLE claims (name, seq);
CREATE TABLE digest_logs (collection);
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'never changed'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'never deleted'); END;
CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE number >= NEW.number)
BEGIN SELECT RAISE(ABORT, 'appended'); END;
"""


def write(
    path: Path,
    records: list[Record],
    entries: Iterable[Entry],
    staged: list[tuple[int, bytes]],
    schema: str = SCHEMA,
) -> None:
    """Write a file as the page describes it."""
    entries = list(entries)
    rows = sorted(plain.merkle_rows(entries), key=lambda row: (row[0], plain.sort_key(row[1], row[2])))
    marker = audit.marker(0, NONCE, max((record.lsn for record in records), default=0), 1)
    facts = [("store_id", STORE_ID), ("format", 4), ("journal", "wal"), ("created", make.at(0)), ("marker", marker)]
    columns = plain.RECORD_COLUMNS.split(", ")
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(schema)
        db.executemany("INSERT INTO meta VALUES (?, ?)", facts)
        db.executemany("INSERT INTO state VALUES (?, ?, ?)", entries)
        numbered = [((16 - row[0]) * 2**48 + number, *row) for number, row in enumerate(rows)]
        db.executemany("INSERT INTO merkle VALUES (?, ?, ?, ?, ?)", numbered)
        marks = ", ".join("?" * len(columns))
        filled = [[getattr(record, column) for column in columns] for record in records]
        db.executemany(f"INSERT INTO wal ({plain.RECORD_COLUMNS}) VALUES ({marks})", filled)
        db.executemany("INSERT INTO staged VALUES (?, ?)", staged)
        add_trail(db, linked([entry("check", seq, chain) for seq, chain in newest(records)]))


def newest(records: list[Record]) -> list[tuple[int, bytes]]:
    """(seq, chain) before the first commit and of the last."""
    found = [(0, plain.chain_zero(STORE_ID))]
    found += [(record.seq, record.chain) for record in records if record.seq is not None and record.chain is not None]
    return [found[0], found[-1]]


def entry(kind: str, seq: int, chain: bytes, detail: str = "{}", number: int = 0) -> audit.Entry:
    return audit.Entry(number, make.at(10), kind, seq, chain, detail)


def linked(entries: list[audit.Entry]) -> list[audit.Entry]:
    """The entries with digests that follow from each other, numbered where they are not yet."""
    digest = audit.digest_zero(STORE_ID)
    result = []
    for number, each in enumerate(entries, start=1):
        numbered = replace(each, number=each.number or number)
        digest = audit.digest_next(digest, numbered)
        result.append(replace(numbered, digest=digest))
    return result


def add_trail(db: sqlite3.Connection, entries: list[audit.Entry]) -> None:
    rows = [astuple(each) for each in entries]
    db.executemany(f"INSERT INTO audit ({audit.COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


NONCE = bytes([0xCC]) * 16
STAGED = [(35, make.SESSION_B)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ("made by hand#.db" if WINDOWS else "made by hand?.db")


def write_log(path: Path, log: list[Record], staged: list[tuple[int, bytes]] = STAGED, schema: str = SCHEMA) -> None:
    records, _, entries = make.closed(STORE_ID, log)
    write(path, records, entries, staged, schema)


def edit(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(sql)


def edit_trail(path: Path, sql: str) -> None:
    """Change the audit trail as somebody does who takes its triggers away, and puts them back."""
    with closing(sqlite3.connect(path)) as db, db:
        triggers = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        db.execute(sql)
        for _, trigger in triggers:
            db.execute(trigger)


def write_trail(path: Path, entries: list[audit.Entry], staged: list[tuple[int, bytes]] = STAGED) -> None:
    """The log of the vectors with another audit trail."""
    write_log(path, make.LOG, staged)
    edit_trail(path, "DELETE FROM audit")
    with closing(sqlite3.connect(path)) as db, db:
        add_trail(db, entries)


def against(judgement: plain.Judgement) -> set[str]:
    return {finding.split(":")[0] for finding in judgement.findings}


def edited(changes: dict[int, dict[str, object]]) -> list[Record]:
    """The log of the vectors with columns of some records changed, by lsn."""
    return [replace(record, **changes.get(record.lsn, {})) for record in make.LOG]  # type: ignore[arg-type]


def added(*records: Record) -> list[Record]:
    """The log of the vectors with records more, at the end."""
    return [*make.LOG, *records]


def one_commit(*changes: Record) -> list[Record]:
    """The log of the vectors and one commit more."""
    end = Record(60, 40, "COMMIT", seq=6, at=make.at(59))
    return added(Record(40, 40, "BEGIN", note=""), *changes, end)


def test_a_sound_file(path: Path) -> None:
    write_log(path, make.LOG)
    judgement = plain.judge(path, history=None)
    assert judgement.findings == ()
    assert judgement.sound
    _, commits, entries = make.closed(STORE_ID, make.LOG)
    assert [commit.chain for commit in judgement.commits] == [commit.chain for commit in commits]
    newest = (judgement.store_id, judgement.seq, judgement.root, judgement.count, judgement.chain)
    assert newest == (STORE_ID, 5, plain.root(entries), 1, commits[-1].chain)


def test_a_file_without_commits(path: Path) -> None:
    write_log(path, [], staged=[])
    judgement = plain.judge(path)
    assert judgement.findings == ()
    assert (judgement.seq, judgement.root) == (0, sha(b"\x01\x01"))
    assert judgement.chain == sha(b"\x03" + STORE_ID)


def test_judging_leaves_nothing_behind(path: Path) -> None:
    write_log(path, make.LOG)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
    before = path.read_bytes()
    assert plain.judge(path).sound
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_a_wal_that_was_not_checkpointed_is_read(path: Path) -> None:
    write_log(path, make.LOG)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        with db:
            db.execute("UPDATE wal SET note = 'x' WHERE lsn = 30")
            db.execute("UPDATE meta SET value = ? WHERE name = 'marker'", (audit.marker(1, NONCE, 0, 1),))
        assert against(plain.judge(path)) == {"I6"}


def put(collection: str, key: Key, value: Value) -> Record:
    return Record(41, 40, "PUT", collection=collection, key=key, value=value)


# A record that cannot be read is left out, and what hangs on it is found missing as well.
LOGS = {
    "I1 not JSON": (one_commit(put("j", 1, "{")), {"I1"}),
    "I1 NaN is not JSON": (one_commit(put("j", 1, "[NaN]")), {"I1"}),
    "I1 two documents": (one_commit(put("j", 1, "1 2")), {"I1"}),
    "I1 no document": (one_commit(put("j", 1, "")), {"I1"}),
    "I1 empty key": (one_commit(put("j", "", "1")), {"I1", "format 3.4", "I6", "I8", "I10"}),
    "I4 starts at 2": ([replace(r, seq=r.seq + 1) if r.seq else r for r in make.LOG], {"I4"}),
    "I4 a hole": (edited({34: {"seq": 6}}), {"I4"}),
    "I4 one number twice": (edited({34: {"seq": 4}}), {"I4"}),
    "I4 a transaction of another commit": (edited({18: {"seq": 2}}), {"I4"}),
    "I4 no closing record": (
        added(
            Record(40, 40, "BEGIN", note=""),
            Record(41, 40, "PUT", collection="a", key=1, value="true", before="true"),
            Record(42, 40, "COMMIT", seq=6),
        ),
        {"I4"},
    ),
    "I5 txn is no BEGIN": (edited({n: {"txn": 29} for n in (30, 31, 32, 33, 34)}), {"I5"}),
    "I5 txn is none's": (edited({n: {"txn": 99} for n in (30, 31, 32, 33, 34)}), {"I5"}),
    "I8 before is another": (edited({8: {"before": "9"}}), {"I8"}),
    "I8 before of a DELETE": (edited({32: {"before": "2"}}), {"I8"}),
    "I8 before is NULL": (edited({9: {"before": None}}), {"I8"}),
    "I8 before where nothing was": (edited({2: {"before": "0"}}), {"I8"}),
    "I8 bytes are not text": (edited({9: {"before": b"2"}}), {"I8"}),
    "I10 nothing changed": (one_commit(), {"I10"}),
    "format 3.4 time": (edited({34: {"at": "2026-11-23 17:09:52"}}), {"format 3.4", "I3", "I8", "I12"}),
}


@pytest.mark.parametrize("name", LOGS)
def test_a_log_that_breaks_one_rule(path: Path, name: str) -> None:
    """The chain over these logs is right, so only the rule named can find them."""
    log, expected = LOGS[name]
    write_log(path, log)
    assert against(plain.judge(path)) == expected


def marker_sql(value: str) -> str:
    return f"UPDATE meta SET value = {value} WHERE name = 'marker'"


EDITS = {
    "I1 key is REAL": ("INSERT INTO state VALUES ('z', 1.5, '1')", {"I1"}),
    "I1 key is NULL": ("INSERT INTO state VALUES ('z', NULL, '1')", {"I1"}),
    "I1 value is a number": ("UPDATE state SET value = 1", {"I1", "I2", "I3", "I8"}),
    "I1 collection too long": (
        f"INSERT INTO state VALUES ('{'é' * 128}', 1, '1')",
        {"I1", "I2", "I3", "I8"},
    ),
    "I1 not UTF-8": ("INSERT INTO state VALUES ('z', 1, CAST(x'ff' AS TEXT))", {"I1"}),
    "I2 row missing": ("DELETE FROM merkle", {"I2"}),
    "I2 row too many": (
        f"INSERT INTO merkle VALUES ({14 * 2**48}, 2, '', '', (SELECT children FROM merkle))",
        {"I2"},
    ),
    "I2 a row twice": (
        f"INSERT INTO merkle SELECT {15 * 2**48 + 9}, 1, collection, key, children FROM merkle",
        {"I2"},
    ),
    "I2 other digest": ("UPDATE merkle SET children = substr(children, 1, 39) || x'00'", {"I2"}),
    "I2 other name": ("UPDATE merkle SET collection = 'a', key = 1", {"I2"}),
    "I2 children as TEXT": ("UPDATE merkle SET children = hex(children)", {"I2"}),
    "format 3.3 below the level": (f"UPDATE merkle SET id = {15 * 2**48 - 1}", {"format 3.3"}),
    "format 3.3 above the level": (f"UPDATE merkle SET id = {16 * 2**48}", {"format 3.3"}),
    "I3 an entry more": ("INSERT INTO state VALUES ('z', 1, '1')", {"I2", "I3", "I8"}),
    "I3 an entry gone": ("DELETE FROM state", {"I2", "I3", "I8"}),
    "I3 other count": ("UPDATE wal SET count = 2 WHERE lsn = 34", {"I3", "I6"}),
    "I6 at": ("UPDATE wal SET at = replace(at, '17:', '18:') WHERE lsn = 29", {"I6"}),
    "I6 note": ("UPDATE wal SET note = 'another' WHERE lsn = 7", {"I6"}),
    "I6 chain": ("UPDATE wal SET chain = zeroblob(32) WHERE lsn = 34", {"I6", "I12"}),
    "I6 store id": ("UPDATE meta SET value = zeroblob(16) WHERE name = 'store_id'", {"I6", "I12"}),
    "I6 value": ("UPDATE wal SET value = '8' WHERE lsn = 8", {"I6", "I8"}),
    "I5 one lsn twice": ("INSERT INTO wal SELECT * FROM wal WHERE lsn = 36", {"I5"}),
    "I5 BEGIN after its records": ("UPDATE wal SET lsn = 20 WHERE lsn = 12", {"I5", "I7"}),
    "I5 lsn below zero": ("UPDATE wal SET lsn = -1 WHERE lsn = 1", {"format 3.4", "I5", "I6", "I7"}),
    "I7 after its end": (
        "INSERT INTO wal (lsn, txn, kind, collection, key, value) VALUES (50, 30, 'PUT', 'a', 1, '1')",
        {"I7", "I11"},
    ),
    "I7 two ends": (
        "INSERT INTO wal (lsn, txn, kind, at) SELECT 50, 30, 'ROLLBACK', at FROM wal WHERE lsn = 34",
        {"I7", "I11"},
    ),
    "I7 two BEGINs": (
        """INSERT INTO wal (lsn, txn, kind, session, note, at)
        SELECT 50, txn, kind, session, note, at FROM wal WHERE lsn = 35""",
        {"I7", "I5", "I11"},
    ),
    "I14 a digest where there is none before": ("UPDATE wal SET chain = zeroblob(32) WHERE lsn = 36", {"I14"}),
    "I9 not listed": ("DELETE FROM staged", {"I9"}),
    "I9 listed and ended": ("INSERT INTO staged SELECT 5, session FROM wal WHERE lsn = 5", {"I9"}),
    "format 3.5 another session": ("UPDATE staged SET session = zeroblob(16)", {"format 3.5"}),
    "format 3.5 no session": ("UPDATE staged SET session = 'abcdefghijklmnop'", {"format 3.5"}),
    "I9 txn is REAL": ("UPDATE staged SET txn = 35.0", {"I9"}),
    "I9 listed twice": ("INSERT INTO staged SELECT * FROM staged", {"I9"}),
    "format 3.4 a direct one has no end": (
        "INSERT INTO wal (lsn, txn, kind, note) VALUES (50, 50, 'BEGIN', '')",
        {"format 3.4", "I11"},
    ),
    "format 3.4 session": ("UPDATE wal SET session = zeroblob(16) WHERE lsn = 14", {"format 3.4"}),
    "I6 the digest of the records": ("UPDATE wal SET records = zeroblob(32) WHERE lsn = 34", {"I6"}),
    "format 3.4 the digest of the records is short": (
        "UPDATE wal SET records = zeroblob(31) WHERE lsn = 34",
        {"format 3.4", "I3", "I8", "I12"},
    ),
    "format 3.4 a total below zero": (
        "UPDATE wal SET total = -1 WHERE lsn = 34",
        {"format 3.4", "I3", "I8", "I12"},
    ),
    "format 3.4 a total in a PUT": ("UPDATE wal SET total = 1 WHERE lsn = 36", {"format 3.4", "I11"}),
    "I15 a commit that was cut, and no beginning": (
        "INSERT INTO cut_commits VALUES (0, zeroblob(32), zeroblob(32))",
        {"I15"},
    ),
    "I15 a beginning that is none": ("INSERT INTO meta VALUES ('log_start', zeroblob(195))", {"I15"}),
    "I15 a claim of no commit": ("INSERT INTO claims VALUES ('feed', -1)", {"I15"}),
    "format 1 application_id": ("PRAGMA application_id = 1", {"format 1"}),
    "format 1 user_version": ("PRAGMA user_version = 1", {"format 1"}),
    "format 3.1 format": ("UPDATE meta SET value = 1 WHERE name = 'format'", {"format 3.1"}),
    "format 3.1 created": ("UPDATE meta SET value = 'now' WHERE name = 'created'", {"format 3.1"}),
    "format 3.1 store id": ("DELETE FROM meta WHERE name = 'store_id'", {"format 3.1", "I6", "I12"}),
    "format 3.1 journal": ("UPDATE meta SET value = 'truncate' WHERE name = 'journal'", {"format 3.1"}),
    "format 3.1 a marker without SQLite's WAL": (
        "UPDATE meta SET value = 'delete' WHERE name = 'journal'",
        {"format 3.1"},
    ),
    "format 3.1 no marker": ("DELETE FROM meta WHERE name = 'marker'", {"format 3.1"}),
    "format 3.1 marker is TEXT": (marker_sql("''"), {"format 3.1"}),
    "format 3.1 marker too short": (marker_sql("zeroblob(24)"), {"format 3.1"}),
    "format 3.1 marker too long": (marker_sql("zeroblob(26)"), {"format 3.1"}),
    "format 3.1 marker of no state": (marker_sql(f"x'02{bytes(24).hex()}'"), {"format 3.1"}),
    "format 3.1 marker opened at a later record": (marker_sql(f"x'01{bytes(23).hex()}25'"), {"format 3.1", "I11"}),
    "I11 open, and no -wal": (marker_sql(f"x'01{bytes(24).hex()}'"), {"I11"}),
    "I11 at rest too early": (marker_sql(f"x'00{bytes(23).hex()}23'"), {"I11"}),
    "I11 at rest too late": (marker_sql(f"x'00{bytes(23).hex()}25'"), {"I11"}),
    "I11 at rest at 0": (marker_sql("zeroblob(25)"), {"I11"}),
    "format 3.7 trigger": ("DROP TRIGGER audit_no_replace", {"format 3.7"}),
    "SQLite": ("DROP TABLE wal", {"SQLite"}),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_file(path: Path, name: str) -> None:
    write_log(path, make.LOG)
    sql, expected = EDITS[name]
    edit(path, sql)
    assert against(plain.judge(path)) == expected


# Entry 1 stands before the first commit, entry 2 at commit 5.
TRAIL_EDITS = {
    "I12 at": ("UPDATE audit SET at = replace(at, '17:', '18:') WHERE number = 1", {"I12"}),
    "I12 kind": ("UPDATE audit SET kind = 'repair' WHERE number = 2", {"I12"}),
    "I12 seq": ("UPDATE audit SET seq = 4 WHERE number = 2", {"I12"}),
    "I12 chain": ("UPDATE audit SET chain = zeroblob(32) WHERE number = 1", {"I12"}),
    "I12 detail": ("""UPDATE audit SET detail = '{"a":1}' WHERE number = 2""", {"I12"}),
    "I12 digest": ("UPDATE audit SET digest = zeroblob(32) WHERE number = 1", {"I12"}),
    "I12 the first is gone": ("DELETE FROM audit WHERE number = 1", {"I12"}),
    "I12 one is there twice": ("INSERT INTO audit SELECT * FROM audit WHERE number = 2", {"I12"}),
    "I12 a hole": ("UPDATE audit SET number = 3 WHERE number = 2", {"I12"}),
    "format 3.7 number": ("UPDATE audit SET number = '2' WHERE number = 2", {"format 3.7", "I12"}),
    "format 3.7 at": ("UPDATE audit SET at = 'now' WHERE number = 2", {"format 3.7"}),
    "format 3.7 kind": ("UPDATE audit SET kind = 'crash' WHERE number = 2", {"format 3.7"}),
    "format 3.7 seq": ("UPDATE audit SET seq = -1 WHERE number = 2", {"format 3.7"}),
    "format 3.7 seq is REAL": ("UPDATE audit SET seq = 5.0 WHERE number = 2", {"format 3.7"}),
    "format 3.7 chain": ("UPDATE audit SET chain = zeroblob(31) WHERE number = 2", {"format 3.7"}),
    "format 3.7 digest": ("UPDATE audit SET digest = hex(digest) WHERE number = 2", {"format 3.7"}),
    **{
        f"format 3.7 detail {detail}": (f"UPDATE audit SET detail = {detail} WHERE number = 2", {"format 3.7"})
        for detail in (
            *("NULL", "x'7b7d'", "CAST(x'ff' AS TEXT)", "''", "'[]'", "'{'", "'{} '", "'{}{}'", """'{"a": 1}'"""),
            *("""'{"b":1,"a":1}'""", """'{"a":1,"a":1}'""", """'{"a":{"c":1,"b":1}}'""", """'{"a":NaN}'"""),
        )
    },
}


@pytest.mark.parametrize("name", TRAIL_EDITS)
def test_an_edited_trail(path: Path, name: str) -> None:
    write_log(path, make.LOG)
    sql, expected = TRAIL_EDITS[name]
    edit_trail(path, sql)
    assert against(plain.judge(path)) == expected


def test_what_is_cut_off_the_end_of_a_trail_is_not_found(path: Path) -> None:
    """The page says so; only a digest that was kept elsewhere can tell."""
    write_log(path, make.LOG)
    edit_trail(path, "DELETE FROM audit WHERE number = 2")
    assert plain.judge(path).sound


COMMITS = {commit.seq: commit.chain for commit in make.closed(STORE_ID, make.LOG)[1]}
ZERO = plain.chain_zero(STORE_ID)
# The digests follow from each other, so only the rule named can find what is wrong.
TRAILS = {
    "starts at 2": [entry("check", 5, COMMITS[5], number=2)],
    "a hole": [entry("check", 0, ZERO), entry("check", 5, COMMITS[5], number=3)],
    "seq decreases": [entry("check", 5, COMMITS[5]), entry("check", 4, COMMITS[4])],
    "a commit to come": [entry("check", 6, COMMITS[5])],
    "another chain": [entry("check", 4, COMMITS[5])],
    "another chain before the first": [entry("check", 0, bytes(32))],
}


@pytest.mark.parametrize("name", TRAILS)
def test_a_trail_that_breaks_i12_and_nothing_else(path: Path, name: str) -> None:
    write_trail(path, linked(TRAILS[name]))
    assert [finding.split(":")[0] for finding in plain.judge(path).findings] == ["I12"]


def test_a_trail_without_entries_and_that_of_the_vectors_are_sound(path: Path) -> None:
    write_trail(path, [])
    assert plain.judge(path).findings == ()
    other = path.with_name("other.db")
    write_trail(other, make.trail(STORE_ID, make.closed(STORE_ID, make.LOG)[1]))
    assert plain.judge(other).findings == ()


def test_a_staged_transaction_is_its_sessions_or_of_who_resumed_it_last(path: Path) -> None:
    def resumes(*txns: int, by: bytes) -> audit.Entry:
        detail = {"by": by.hex(), "resumed": txns, "session": make.SESSION_B.hex()}
        return entry("recovery", 5, COMMITS[5], json.dumps(detail, separators=(",", ":")))

    other = bytes([0xD0]) * 16
    trail = linked([resumes(35, by=other), resumes(5, 35, by=make.SESSION_A), resumes(5, by=other)])
    for number, (session, expected) in enumerate(
        [(make.SESSION_A, set()), (make.SESSION_B, {"format 3.5"}), (other, {"format 3.5"})]
    ):
        file = path.with_name(str(number))
        write_trail(file, trail, [(35, session)])
        assert against(plain.judge(file)) == expected


def long_log(size: int) -> list[Record]:
    """A log of so many commits, each of which changes the same entry."""
    log: list[Record] = []
    for number in range(size):
        lsn, before = 3 * number + 1, str(number - 1) if number else None
        log += [
            Record(lsn, lsn, "BEGIN", note=""),
            Record(lsn + 1, lsn, "PUT", collection="a", key=1, value=str(number), before=before),
            Record(lsn + 2, lsn, "COMMIT", seq=number + 1, at=make.at(46)),
        ]
    return log


COMMITS_OF_LONG = 2 * rfc6962.BLOCK + 88


@pytest.fixture(scope="session")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """A file of two complete blocks, neither of which is stored, and their digests."""
    file = tmp_path_factory.mktemp("long") / "long.db"
    write_log(file, long_log(COMMITS_OF_LONG), staged=[])
    leaves = [rfc6962.leaf(commit.chain) for commit in plain.judge(file).commits]
    return file, [rfc6962.tree(leaves[start : start + rfc6962.BLOCK]) for start in (0, rfc6962.BLOCK)]


# What is in log_blocks, by number; 0 and 1 as digests stand for those that must be there.
BLOCKS: dict[str, tuple[list[tuple[object, object]], int]] = {
    "none": ([], 0),
    "the first": ([(0, 0)], 0),
    "both": ([(0, 0), (1, 1)], 0),
    "without the first": ([(1, 1)], 1),
    "exchanged": ([(0, 1), (1, 0)], 2),
    "one of commits that are not there": ([(0, 0), (1, 1), (2, b"\x00" * 32)], 1),
    "one twice": ([(0, 0), (0, 0)], 1),
    "before the first": ([(-1, 0), (0, 0)], 2),
    "another digest": ([(0, b"\x00" * 32), (1, 1)], 1),
    "a short digest": ([(0, 0), (1, b"\x00" * 31)], 1),
    "a digest as TEXT": ([(0, "0" * 32)], 1),
    "no digest": ([(0, None)], 1),
    "no number": ([(None, 0)], 1),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_of_the_log(path: Path, tmp_path: Path, long_file: tuple[Path, list[bytes]], name: str) -> None:
    file, digests = long_file
    shutil.copy(file, path)
    rows, faults = BLOCKS[name]
    with closing(sqlite3.connect(path)) as db, db:
        filled = [(block, digests[each] if isinstance(each, int) else each) for block, each in rows]
        db.executemany("INSERT INTO log_blocks VALUES (?, ?)", filled)
    assert [finding.split(":")[0] for finding in plain.judge(path, history=1).findings] == ["I13"] * faults
    result = run_reader(tmp_path, path)
    assert (result.returncode, result.stderr) == (1 if faults else 0, "")
    assert [line.split()[0] for line in result.stdout.splitlines() if "but" in line] == ["blocks"] * bool(faults)


def test_the_vectors_of_the_log_are_consistent_in_themselves() -> None:
    """The paths are checked as RFC 6962 checks them, which needs nothing but the paths and the roots."""
    vectors = make.commit_log()
    roots = {each["size"]: each["root"] for each in vectors["roots"]}
    assert roots[0] == sha(b"").hex()
    leaves = make.leaves_of(make.LARGE)
    for each in vectors["inclusion"]:
        size = each["size"]
        root = from_inclusion(each["seq"] - 1, size, leaves[each["seq"] - 1], list(map(bytes.fromhex, each["path"])))
        assert root == rfc6962.tree(leaves[:size])
    for each in vectors["consistency"]:
        old, new = each["old"], each["new"]
        roots_of = (rfc6962.tree(leaves[:old]), rfc6962.tree(leaves[:new]))
        assert from_consistency(old, new, roots_of[0], list(map(bytes.fromhex, each["path"]))) == roots_of


def from_inclusion(index: int, size: int, leaf: bytes, path: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.3.2: the root, from a leaf and its path."""
    node, last, found = index, size - 1, leaf
    for each in path:
        assert last, "the path is too long"
        if node % 2 or node == last:
            found = sha(b"\x01" + each + found)
            while node and not node % 2:
                node, last = node >> 1, last >> 1
        else:
            found = sha(b"\x01" + found + each)
        node, last = node >> 1, last >> 1
    assert not last, "the path is too short"
    return found


def from_consistency(old: int, new: int, root: bytes, path: list[bytes]) -> tuple[bytes, bytes]:
    """RFC 9162, section 2.1.4.2: both roots, from that of the smaller log and the path."""
    if old == new:
        assert not path
        return root, root
    if old & (old - 1) == 0:
        path = [root, *path]
    node, last = old - 1, new - 1
    while node % 2:
        node, last = node >> 1, last >> 1
    smaller = larger = path[0]
    for each in path[1:]:
        assert last, "the path is too long"
        if node % 2 or node == last:
            smaller, larger = sha(b"\x01" + each + smaller), sha(b"\x01" + each + larger)
            while node and not node % 2:
                node, last = node >> 1, last >> 1
        else:
            larger = sha(b"\x01" + larger + each)
        node, last = node >> 1, last >> 1
    assert not last, "the path is too short"
    return smaller, larger


# What somebody who may not have closed the store wrote last: none of it is in the main file.
OPEN, AT_36, AT_50 = (audit.marker(*each) for each in ((1, NONCE, 0, 1), (0, NONCE, 36, 1), (0, NONCE, 50, 1)))
STAGES = "INSERT INTO wal (lsn, txn, kind, session, note, at) VALUES (50, 50, 'BEGIN', zeroblob(16), '', ?)"


@pytest.mark.parametrize(
    ("stages", "before", "marker", "expected"),
    [
        (False, OPEN, OPEN, set()),
        (False, OPEN, AT_36, set()),
        (False, AT_36, AT_36, set()),
        (True, OPEN, OPEN, set()),
        (True, AT_36, OPEN, set()),
        (True, AT_36, AT_50, {"I11"}),
        (True, OPEN, AT_50, {"I11"}),
        (True, AT_36, AT_36, {"I11"}),
        (True, b"", b"", set()),
    ],
)
def test_a_marker_at_rest_means_that_the_wal_can_go(
    path: Path, stages: bool, before: bytes, marker: bytes, expected: set[str]
) -> None:
    write_log(path, make.LOG)
    edit(path, marker_sql(f"x'{before.hex()}'"))
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        with db:
            db.execute(marker_sql("?"), (marker,))
            # An entry that comes while the store is closed is carried with the marker.
            add_trail(db, [next_entry(db)])
            if stages:
                db.execute(STAGES, (make.at(55),))
                db.execute("INSERT INTO staged VALUES (50, zeroblob(16))")
        assert against(plain.judge(path)) == expected


def next_entry(db: sqlite3.Connection) -> audit.Entry:
    (digest,) = db.execute("SELECT digest FROM audit WHERE number = 2").fetchone()
    made = entry("check", 5, COMMITS[5], number=3)
    return replace(made, digest=audit.digest_next(digest, made))


# Each breaks a row of the table in 3.4: lsn, column, what it is set to.
SHAPES = [
    *((lsn, "txn", "NULL") for lsn in (1, 9)),
    *((9, "kind", to) for to in ("'SET'", "NULL", "x'505554'")),
    *((12, "session", to) for to in ("x'01'", "'0123456789abcdef'")),
    *((1, "note", to) for to in ("NULL", "x'00'", "CAST(x'ff' AS TEXT)")),
    *((5, "at", to) for to in ("NULL", "'now'", "'2026-11-23T17:09:46Z'")),
    *((2, "collection", to) for to in ("NULL", "''", "x'61'")),
    *((2, "key", to) for to in ("NULL", "0.5", "''", "x''", f"zeroblob({2**20 + 1})")),
    *((2, "value", to) for to in ("NULL", "1")),
    *((8, "before", to) for to in ("1.5", "CAST(x'ff' AS TEXT)")),
    *((10, "before", to) for to in ("NULL", "1")),
    *((4, "seq", to) for to in ("NULL", "-1", "'x'")),
    *((4, "root", to) for to in ("zeroblob(31)", "'0123456789abcdef0123456789abcdef'")),
    *((4, "count", to) for to in ("NULL", "-1", "'x'")),
    *((4, "chain", to) for to in ("NULL", "zeroblob(33)")),
    *((4, "at", to) for to in ("NULL", "'now'")),
    *((15, "at", to) for to in ("NULL", "'now'")),
    # What must be NULL, mostly where no chain would tell.
    *((30, column, "1") for column in ("collection", "key", "value", "before", "seq", "root", "count", "chain", "at")),
    *((31, column, "1") for column in ("seq", "root", "count", "chain", "at", "note")),
    *((32, column, "1") for column in ("value", "seq", "root", "count", "chain", "at", "note")),
    *((34, column, "1") for column in ("collection", "key", "value", "before", "note")),
    *((18, column, "1") for column in ("count", "chain", "at")),
    *((15, column, "1") for column in ("key", "value", "seq", "root", "note")),
]


@pytest.mark.parametrize(("lsn", "column", "to"), SHAPES)
def test_a_column_that_the_record_may_not_have(path: Path, lsn: int, column: str, to: str) -> None:
    write_log(path, make.LOG)
    edit(path, f"UPDATE wal SET {column} = {to} WHERE lsn = {lsn}")
    found = plain.judge(path).findings
    assert [f for f in found if f.startswith(f"format 3.4: record {lsn} ") and column in f], found


def test_a_key_of_the_tree_that_is_real(path: Path) -> None:
    """To SQLite and to Python 1.0 equals 1."""
    number = next(number for number in range(1_000) if plain.rank("j", number) >= 1)
    write_log(path, one_commit(put("j", number, "1")))
    assert plain.judge(path).sound
    edit(path, "UPDATE merkle SET key = CAST(key AS REAL) WHERE typeof(key) = 'integer'")
    assert against(plain.judge(path)) == {"I2"}


def test_an_entry_that_is_there_twice(path: Path) -> None:
    write_log(path, make.LOG, schema=SCHEMA.replace(", PRIMARY KEY (collection, key)", ""))
    edit(path, "INSERT INTO state SELECT * FROM state")
    assert against(plain.judge(path)) == {"format 3.2"}


def test_a_table_that_is_not_in_bytewise_order(path: Path) -> None:
    log = one_commit(put("j", "B", "1"), replace(put("j", "a", "1"), lsn=42))
    write_log(
        path,
        log,
        schema=SCHEMA.replace("state (collection TEXT, key,", "state (collection TEXT, key COLLATE NOCASE,"),
    )
    assert against(plain.judge(path)) == {"format 4"}


def test_what_sqlite_itself_finds(path: Path) -> None:
    write_log(path, make.LOG)
    # The header now counts five pages in a free list that is empty.
    damaged = bytearray(path.read_bytes())
    damaged[36:40] = b"\x00\x00\x00\x05"
    path.write_bytes(damaged)
    found = plain.judge(path).findings
    assert len(found) == 1
    assert found[0].startswith("SQLite: integrity_check says")


def test_limits_of_length(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notation, "MAX_KEY", 2)
    write_log(path, one_commit(put("j", "12", "1"), replace(put("j", b"12", "1"), lsn=42)))
    assert plain.judge(path).sound
    edit(path, "INSERT INTO state VALUES ('j', '123', '1')")
    assert "I1" in against(plain.judge(path))
    monkeypatch.undo()
    monkeypatch.setattr(notation, "MAX_VALUE", 3)
    assert "I1: state row 'a', 1: value is 'true', not TEXT or BLOB within the limit" in plain.judge(path).findings


def test_one_broken_link_is_found_once(path: Path) -> None:
    write_log(path, make.LOG)
    edit(path, "UPDATE wal SET note = 'another' WHERE lsn = 7")
    assert plain.judge(path).findings == ("I6: the chain of commit 2 is another",)


def test_one_hole_is_found_once(path: Path) -> None:
    write_log(path, [replace(r, seq=r.seq + 1) if r.seq and r.seq > 3 else r for r in make.LOG])
    assert plain.judge(path).findings == ("I4: record 29 has seq 5, not 4",)


def test_what_was_there_before_commit_1_is_found_in_any_case(path: Path) -> None:
    write_log(path, edited({2: {"before": "0"}}))
    assert plain.judge(path, history=0).findings == ("I8: 1 entries were there before commit 1",)


def false_head(seq: int, root: bytes, count: int) -> list[Record]:
    """The log of the vectors, one commit of it telling another head, with a chain that fits all the same."""
    records, commits, _ = make.closed(STORE_ID, make.LOG)
    previous = plain.chain_zero(STORE_ID)
    heads = {}
    for commit in commits:
        said = (root, count) if commit.seq == seq else (commit.root, commit.count)
        data = plain.records_bytes(commit.records)
        previous = plain.chain_next(previous, commit.seq, *said, commit.at, data)
        heads[commit.seq] = (*said, previous)
    return [
        replace(record, root=heads[record.seq][0], count=heads[record.seq][1], chain=heads[record.seq][2])
        if record.root is not None and record.seq is not None
        else record
        for record in records
    ]


@pytest.mark.parametrize(("root", "count"), [(bytes(32), 1), (plain.root([("a", 1, "true")]), 2)])
def test_a_false_newest_head_breaks_i3(path: Path, root: bytes, count: int) -> None:
    write(path, false_head(5, root, count), [("a", 1, "true")], STAGED)
    assert against(plain.judge(path)) == {"I3"}


@pytest.mark.parametrize("seq", [1, 2, 3, 4])
@pytest.mark.parametrize("false", ["root", "count"])
def test_a_false_earlier_head_breaks_i8_as_far_back_as_asked(path: Path, seq: int, false: str) -> None:
    commit = make.closed(STORE_ID, make.LOG)[1][seq - 1]
    head = (bytes(32), commit.count) if false == "root" else (commit.root, 77)
    write(path, false_head(seq, *head), [("a", 1, "true")], STAGED)
    assert against(plain.judge(path, history=None)) == {"I8"}
    assert against(plain.judge(path, history=5 - seq)) == {"I8"}
    assert plain.judge(path, history=5 - seq - 1).sound


def test_many_findings_of_one_kind_are_summed_up(path: Path) -> None:
    write_log(path, make.LOG)
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany("INSERT INTO state VALUES ('z', ?, '{')", [(number,) for number in range(100)])
    found = [finding for finding in plain.judge(path).findings if finding.startswith("I1:")]
    assert len(found) == findings.FINDINGS_SHOWN + 1
    assert found[-1] == "I1: … and 95 more"


def test_a_file_that_is_no_database(path: Path) -> None:
    path.write_bytes(b"no database " * 100)
    assert against(plain.judge(path)) == {"SQLite"}


# ---- The reader on the page ----


def run_reader(tmp_path: Path, path: Path) -> subprocess.CompletedProcess[str]:
    found = re.search(r"```python\n(.*?)```", section(13), re.DOTALL)
    assert found is not None
    script = tmp_path / "reader.py"
    script.write_text(found.group(1), encoding="utf-8")
    command = [sys.executable, "-W", "error", "-I", str(script), str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_reader_agrees_with_a_sound_file(path: Path, tmp_path: Path) -> None:
    # Two commits left out: the newest then has three entries of three kinds of keys.
    kept = [record for record in make.LOG if record.lsn < 25]
    write_log(path, kept, staged=[])
    result = run_reader(tmp_path, path)
    judgement = plain.judge(path)
    assert judgement.sound
    assert judgement.count == 3
    assert result.stdout.splitlines() == [
        "commit 3",
        f"log {rfc6962.tree([rfc6962.leaf(commit.chain) for commit in judgement.commits]).hex()}",
        f"root {judgement.root.hex()} as recorded",
        f"count {judgement.count} as recorded",
        f"chain {judgement.chain.hex()} as recorded",
        "blocks 0 as recorded",
        f"audit {linked([entry('check', 0, ZERO), entry('check', 3, judgement.chain)])[-1].digest.hex()} as recorded",
    ]
    assert (result.returncode, result.stderr) == (0, "")


def test_the_reader_agrees_over_several_levels_and_on_nothing(path: Path, tmp_path: Path) -> None:
    entries = [Record(n + 2, 1, "PUT", collection=c, key=k, value=v) for n, (c, k, v) in enumerate(make.generated(300))]
    for name, log in {
        "empty": [],
        "large": [Record(1, 1, "BEGIN", note=""), *entries, Record(999, 1, "COMMIT", seq=1, at=make.at(1))],
    }.items():
        other = path.with_name(name)
        write_log(other, log, staged=[])
        result = run_reader(tmp_path, other)
        assert (result.returncode, result.stderr) == (0, "")
        assert plain.judge(other).root.hex() in result.stdout


@pytest.mark.parametrize("name", ["I3 an entry more", "I3 other count", "I6 note", "I6 store id", "I6 chain"])
def test_the_reader_finds_fault(path: Path, tmp_path: Path, name: str) -> None:
    write_log(path, make.LOG)
    edit(path, EDITS[name][0])
    result = run_reader(tmp_path, path)
    assert (result.returncode, result.stderr) == (1, "")
    assert "but the file says" in result.stdout


@pytest.mark.parametrize("name", [name for name in TRAIL_EDITS if name.startswith("I12")])
def test_the_reader_finds_fault_with_the_trail(path: Path, tmp_path: Path, name: str) -> None:
    write_log(path, make.LOG)
    edit_trail(path, TRAIL_EDITS[name][0])
    result = run_reader(tmp_path, path)
    assert (result.returncode, result.stderr) == (1, "")
    [wrong] = [line for line in result.stdout.splitlines() if "but the file says" in line]
    assert wrong.startswith("audit ")


def test_the_reader_agrees_with_the_trail_of_the_vectors_and_with_none(path: Path, tmp_path: Path) -> None:
    trail = make.trail(STORE_ID, make.closed(STORE_ID, make.LOG)[1])
    for name, entries, digest in (("all", trail, trail[-1].digest), ("none", [], audit.digest_zero(STORE_ID))):
        write_trail(path.with_name(name), entries)
        result = run_reader(tmp_path, path.with_name(name))
        assert (result.returncode, result.stderr) == (0, "")
        assert f"audit {digest.hex()} as recorded" in result.stdout


def test_the_reader_refuses_a_store_whose_marker_is_open(path: Path, tmp_path: Path) -> None:
    write_log(path, make.LOG)
    edit(path, EDITS["I11 open, and no -wal"][0])
    result = run_reader(tmp_path, path)
    assert result.returncode == 1
    assert "the marker is open" in result.stderr


def test_the_reader_refuses_a_store_that_is_not_closed(path: Path, tmp_path: Path) -> None:
    write_log(path, make.LOG)
    path.with_name(path.name + "-wal").write_bytes(b"x")
    result = run_reader(tmp_path, path)
    assert result.returncode == 1
    assert "not closed" in result.stderr
