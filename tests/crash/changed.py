"""Campaign 13: single bytes of a closed store changed from outside, and what a full check says.

Method: a store of some hundred entries, three levels of nodes, staged and direct commits and audit entries is
closed. Each run changes one byte of it: of one cell, by UPDATE through Python's sqlite3, text through CAST and the
audit's triggers dropped and made again; or of a page, where the content of a cell lies. The rows are then compared
with those before, through sqlite3 alone, which says what was changed. The check must find the store damaged, and
name that: the entry, the node, the record or its commit, the audit entry. A change of the bytes of a page that
changes no row, or that SQLite cannot read past, must be found all the same.

Left out are what no digest covers: the number in a node's `id`, records of staged transactions that never
committed, and the facts in `meta`.

A case is `STORE-CHANGE`: the seed of the store, the seed of the change.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sqlstate
from sqlstate.errors import Damaged
from sqlstate.maintenance.check.check import examine
from sqlstate.sqlite.connection import Connection
from sqlstate.tables import meta as metadata
from tests.crash.campaign import Plan, Result, campaign, expect, merged, scratch, spread, where

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate.maintenance.check.check import CheckReport
    from sqlstate.maintenance.check.findings import Finding

CHANGES_OF_A_STORE: Final = 125
ENTRIES: Final = 700
RAW_SHARE: Final = 0.3
TABLES: Final = {
    "state": ("collection", "key", "value"),
    "merkle": ("id", "level", "collection", "key", "children"),
    "wal": (
        "lsn", "txn", "kind", "session", "collection", "key", "value", "before", "seq", "root", "count", "at", "chain",
        "note",
    ),
    "audit": ("number", "at", "kind", "seq", "chain", "detail", "digest"),
}  # fmt: skip
Cell = tuple[str, Any]  # type and bytes, or number
Rows = dict[str, list[tuple[Cell, ...]]]


class Made(NamedTuple):
    """A store as a file, its rows, the commit of each record, and those records that no digest covers."""

    file: bytes
    rows: Rows
    commit_of: dict[int, int]
    loose: frozenset[int]
    is_cut: bool
    """Whether the oldest commits were cut: then an entry whose name was changed can be named by its place alone."""


def make(seed: int, folder: Path) -> Made:
    """Make the store with *seed*."""
    rng = random.Random(seed)  # noqa: S311, no secret
    path = folder / "made.db"
    with sqlstate.open(path) as store:
        with store.transaction() as txn:
            for number in range(ENTRIES):
                txn.put(*name(number), content(rng))
        for number in range(60):
            with store.transaction(note=f"step {number}") as txn:
                for _ in range(rng.choice((1, 1, 1, 2, 5))):
                    collection, key = name(rng.randrange(ENTRIES))
                    if rng.random() < 0.3 and txn.get(collection, key) is not None:
                        txn.delete(collection, key)
                    else:
                        txn.put(collection, key, content(rng))
                txn.put("steps", number, content(rng))
            if number % 6 == 0:
                stage(store, rng, ends=number % 12 == 0)
            if number % 20 == 0:
                store.backup(folder / "backup.db")
        if seed % 2:
            store.cut(before=30)
    file = path.read_bytes()
    rows = read(path)
    open_, commit_of, loose = _follow(rows)
    return Made(file, rows, commit_of, frozenset(loose | open_), bool(seed % 2))


def stage(store: sqlstate.Store, rng: random.Random, *, ends: bool) -> None:
    """Stage a transaction, and commit it or roll it back."""
    wal = store.wal
    txn = wal.append("BEGIN", note="staged").txn
    for _ in range(2):
        collection, key = name(rng.randrange(ENTRIES))
        wal.append("PUT", txn=txn, collection=collection, key=key, value=rng.random())
    if ends:
        wal.mark_committed(txn)
    else:
        wal.append("ROLLBACK", txn=txn)


def name(number: int) -> tuple[str, Any]:
    """Return one of the names that the store knows."""
    keys: tuple[Any, ...] = (number, f"key {number}", b"key %d" % number)
    return ("alpha", "beta", "gämma")[number % 7 % 3], keys[number % 3]


def content(rng: random.Random) -> Any:
    """Return a value."""
    text = "".join(rng.choices("abcdefgh", k=rng.randrange(8, 90)))
    return rng.choice((text, text.encode(), {"name": text, "at": rng.random()}))


def _follow(rows: Rows) -> tuple[set[int], dict[int, int], set[int]]:
    """Return the records of open transactions, the commit of each record, and those that were rolled back."""
    members: dict[int, list[int]] = {}
    commit_of: dict[int, int] = {}
    loose: set[int] = set()
    for row in rows["wal"]:
        lsn, txn, kind, seq = (row[at][1] for at in (0, 1, 2, 8))
        members.setdefault(txn, []).append(lsn)
        if kind == b"COMMIT":
            commit_of |= dict.fromkeys(members.pop(txn), int(seq))
        elif kind == b"ROLLBACK":
            loose |= {*members.pop(txn)}
    return {lsn for each in members.values() for lsn in each}, commit_of, loose


def read(path: Path) -> Rows:
    """Return all rows, whatever is in them, through Python's sqlite3."""
    found: Rows = {}
    with closing(sqlite3.connect(path)) as db:
        for table, columns in TABLES.items():
            cells = ", ".join(
                f"typeof({each}), CASE typeof({each}) WHEN 'text' THEN CAST({each} AS BLOB) ELSE {each} END"
                for each in columns
            )
            order = {"state": "collection, key", "merkle": "id", "wal": "lsn", "audit": "number"}[table]
            found[table] = [
                tuple(zip(row[::2], row[1::2], strict=True))
                for row in db.execute(f"SELECT {cells} FROM {table} ORDER BY {order}")
            ]
    return found


# ---- One change ----


def changed_cell(made: Made, rng: random.Random) -> tuple[str, tuple[Cell, ...], str, Cell]:
    """Choose a cell, and what it becomes with one byte changed: table, row, column, new content."""
    while True:
        table = rng.choice(("state", "state", "merkle", "wal", "wal", "audit"))
        row = rng.choice(made.rows[table])
        at = rng.randrange(len(row))
        column = TABLES[table][at]
        kind, old = row[at]
        if kind == "null" or column == "id" or (table == "wal" and row[0][1] in made.loose):
            continue
        if kind in ("text", "blob") and old:
            place = rng.randrange(len(old))
            new = bytearray(old)
            new[place] ^= rng.choice((1 << rng.randrange(8), rng.randrange(1, 256)))
            return table, row, column, (kind, bytes(new))
        if kind == "integer":
            size = max(1, (abs(old).bit_length() + 7) // 8)
            new_number = old ^ 1 << rng.randrange(size * 8 - 1)
            return table, row, column, (kind, new_number)


def update(path: Path, table: str, row: tuple[Cell, ...], column: str, new: Cell) -> bool:
    """Change one cell; False if the table does not take it."""
    identity = {"state": ("collection", "key"), "merkle": ("id",), "wal": ("lsn",), "audit": ("number",)}[table]
    where = " AND ".join(f"{each} = {_mark(row[TABLES[table].index(each)])}" for each in identity)
    bound = [row[TABLES[table].index(each)][1] for each in identity]
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        triggers = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        db.execute("BEGIN")
        for trigger, _ in triggers:
            db.execute(f"DROP TRIGGER {trigger}")
        try:
            sql = f"UPDATE {table} SET {column} = {_mark(new)} WHERE {where}"
            count = db.execute(sql, [new[1], *bound]).rowcount
        except sqlite3.IntegrityError:
            return False
        for _, sql in triggers:
            db.execute(sql)
        db.execute("COMMIT")
    return count == 1


def _mark(cell: Cell) -> str:
    return "CAST(? AS TEXT)" if cell[0] == "text" else "?"


def flipped_page(made: Made, rng: random.Random) -> bytes:
    """Return the file with one byte changed where the content of a cell lies."""
    while True:
        table = rng.choice(tuple(TABLES))
        row = rng.choice(made.rows[table])
        if table == "wal" and row[0][1] in made.loose:
            continue
        content = [cell[1] for cell in row if cell[0] in ("text", "blob") and len(cell[1]) >= 6]
        if not content:
            continue
        piece = rng.choice(content)[:64]
        places = []
        at = made.file.find(piece)
        while at >= 0:
            places.append(at)
            at = made.file.find(piece, at + 1)
        if places:
            file = bytearray(made.file)
            file[rng.choice(places) + rng.randrange(len(piece))] ^= rng.randrange(1, 256)
            return bytes(file)


def touches(made: Made, path: Path) -> bool:
    """Tell whether the change is in what SQLite reads, and not in bytes that are free or in what no digest covers."""
    try:
        if changed := differences(made, path):
            return not any(table == "wal" and row and row[0][1] in made.loose for table, row, _ in changed)
        with closing(sqlite3.connect(path)) as db:
            return bool(db.execute("PRAGMA integrity_check").fetchone() != ("ok",))
    except (sqlite3.Error, UnicodeDecodeError):  # of a name in the schema
        return True


# ---- Judging ----


def differences(made: Made, path: Path) -> list[tuple[str, tuple[Cell, ...] | None, tuple[Cell, ...] | None]]:
    """Return what rows differ: table, row before, row now."""
    now = read(path)
    found: list[tuple[str, tuple[Cell, ...] | None, tuple[Cell, ...] | None]] = []
    for table, before in made.rows.items():
        there, then = set(now[table]), set(before)
        gone = [row for row in before if row not in there]
        new = [row for row in now[table] if row not in then]
        pairs = max(len(gone), len(new))
        found += [(table, *pair) for pair in zip(gone + [None] * pairs, new + [None] * pairs, strict=False)][:pairs]
    return found


def judged(made: Made, report: CheckReport, path: Path, *, raw: bool) -> str:
    """Check that the report names what was changed; return what it is called."""
    expect(report.outcome == "damaged", f"CALLED {report.outcome}")
    try:
        changed = differences(made, path)
    except (sqlite3.Error, UnicodeDecodeError):
        return "unreadable"
    if not changed:
        expect(raw, "the change changed nothing")
        return "no row changed"
    expect(len(changed) == 1, f"{len(changed)} rows changed")
    table, before, now = changed[0]
    named = {"state": _entry, "merkle": _node, "wal": _record, "audit": _event}[table]
    broken = [each for each in report.findings if each.kind in ("sqlite", "unreadable")] if raw else []
    if not named(made, before, now, report.findings):
        expect(bool(broken), f"{table} {before} -> {now} is not named by {report.findings}")
        return "named by SQLite"
    return table


def _text(cell: Cell) -> Any:
    try:
        return cell[1].decode() if cell[0] == "text" else cell[1]
    except UnicodeDecodeError:
        return None


def _entry(made: Made, before: Any, now: Any, findings: tuple[Finding, ...]) -> bool:
    was, is_ = (None if row is None else (_text(row[0]), _text(row[1])) for row in (before, now))
    ours = [(each.kind, each.collection, each.key) for each in findings if each.kind in ("entry", "missing", "extra")]
    if was == is_:
        return ours == [("entry", *was)] if was else False
    extra = [each for each in ours if each[0] == "extra"]
    missing = [each[1:] for each in ours if each[0] == "missing"]
    if made.is_cut and is_ is not None and (ours == [("entry", *is_)] or missing == [(None, None)]):
        return True  # the log does not tell any more what the name was: it is told what stands there, or where it was
    return missing == [was] and len(extra) == 1


def _node(_: Made, before: Any, now: Any, findings: tuple[Finding, ...]) -> bool:
    levels = {row[1][1] for row in (before, now) if row is not None}
    return any(each.kind == "node" and each.level in levels for each in findings)


def _record(made: Made, before: Any, now: Any, findings: tuple[Finding, ...]) -> bool:
    lsns = {row[0][1] for row in (before, now) if row is not None}
    seqs = {made.commit_of[lsn] for lsn in lsns if lsn in made.commit_of}
    return any(each.lsn in lsns or each.seq in seqs for each in findings if each.kind in ("record", "commit"))


def _event(_: Made, before: Any, now: Any, findings: tuple[Finding, ...]) -> bool:
    numbers = {row[0][1] for row in (before, now) if row is not None}
    return any(each.kind == "audit" and any(f"entry {number}" in each.what for number in numbers) for each in findings)


def one_change(made: Made, seed: int, folder: Path) -> str:
    """Change one byte and check; return what was named."""
    rng = random.Random(seed)  # noqa: S311, no secret
    path = folder / "changed.db"
    raw = rng.random() < RAW_SHARE
    while True:
        path.write_bytes(flipped_page(made, rng) if raw else made.file)
        if touches(made, path) if raw else update(path, *changed_cell(made, rng)):
            break
    aside = path.with_name("aside.db")
    shutil.copy(path, aside)
    try:
        with sqlstate.open(path, read_only=True, create=False) as store:
            report = store.check()
    except Damaged:  # what opening looks at already
        with closing(Connection(str(path), 1.0, read_only=True)) as connection:
            try:
                meta = metadata.read(connection)
            except Damaged:  # the byte was in the schema, and SQLite itself can read nothing
                expect(raw, "a cell makes the file one that SQLite cannot read")
                return "refused"
            report = examine(connection, meta)
    return judged(made, report, aside, raw=raw)


def changes(item: tuple[int, int, str]) -> Result:
    """Make *count* changes to the store with *seed*; of a case, that one alone."""
    seed, count, case = item
    result = Result()
    folder = Path(tempfile.mkdtemp(prefix="sqlstate-changed-", dir=scratch()))
    try:
        made = make(seed, folder)
        rng = random.Random(seed)  # noqa: S311, no secret
        todo = [rng.randrange(10**9) for _ in range(count)]
        for each in [int(case.split("-")[1])] if case else todo:
            result.runs += 1
            try:
                called = one_change(made, each, folder)
            except Exception as e:  # noqa: BLE001, whatever it is, it is a finding
                result.miss(f"{seed}-{each}", f"{type(e).__name__}: {e}{where(e)}")
            else:
                result.counts[called] += 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def stores(plan: Plan) -> Iterator[tuple[int, int, str]]:
    """Yield the stores of a plan: seed, how many changes, and the case to replay."""
    if plan.case:
        yield int(plan.case.split("-")[0]), 1, plan.case
        return
    rng = random.Random(plan.seed)  # noqa: S311, no secret
    for done in range(0, plan.count, CHANGES_OF_A_STORE):
        yield rng.randrange(10**9), min(CHANGES_OF_A_STORE, plan.count - done), ""


@campaign(13, "single bytes changed from outside", bar="each named, 0 called sound", ci=150, long=2_000)
def changed(plan: Plan) -> Result:
    """Change single bytes of closed stores."""
    result = merged(spread(plan, changes, stores(plan)))
    result.found = ", ".join(f"{number} {called}" for called, number in sorted(result.counts.items()))
    return result
