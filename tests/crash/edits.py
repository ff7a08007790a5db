"""Campaign 22: rows and schemas of a store edited by somebody who knows SQLite, and all that is then done with it.

Method: a store with every kind of row is laid out anew for each run, and edited through plain SQLite: a field set to a
value of any storage class, with the column's type and NOT NULL taken away for the moment; rows removed, put in twice,
exchanged; tables, indexes, triggers and views dropped, altered, or put where they do not belong. Then everything is
tried with it: it is opened, read, listed, exported, proven, checked, written, backed up, repaired, restored.

Nothing but our own exceptions may come out. A check never calls an edited store sound, unless the edit is of a field
that is under no digest (FREE). An export has the names that the table has, no others. A repair that says that nothing
is lost gives all entries back.

A case is the seed of the edit.
"""

from __future__ import annotations

import base64
import json
import random
import re
import shutil
import signal
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlstate
from sqlstate.cli.transfer import import_export as transfer
from tests.crash.campaign import Plan, Result, campaign, expect, figures, merged, scratch, spread, where

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EDITS_OF_A_WORKER: Final = 50
SECONDS_HUNG: Final = 60
LENGTH_OF_MANY: Final = 1_000
"""A megabyte in each row makes a file that only takes long."""
COMMITS: Final = 270
TABLES: Final = ("state", "merkle", "wal", "staged", "meta", "audit", "schema_migrations", "log_blocks")
FREE: Final = (
    "merkle.id ",  # within its level; it means nothing
    "meta.value of journal ",
    "meta.value of marker ",  # its nonce and inode
    "meta.value of created ",  # another time
    "rows of log_blocks are gone",  # the newest may be missing
    "log_blocks is empty",
)
"""Edits of what no digest covers: another value that can stand there is not found."""

TIME: Final = "2026-11-23T17:09:46.000000Z"
VALUES: Final[tuple[Any, ...]] = (
    None, 0, 1, -1, 2, 16, 17, 255, 2**31, 2**53, 2**62, 2**62 + 1, 2**63 - 1, -(2**63), 1.0, 1.5, -0.5, 1e300,
    float("inf"), "", "x", "1", "1.5", "'", "\0", "a\0b", "ÿ", "\U0001f600", "9" * 100, "9" * 5000, "{}", "[]", "{",
    "null", '{"a":1}', "[" * 300, "NaN", "BEGIN", "PUT", "DELETE", "COMMIT", "ROLLBACK", "wal", "delete", "repair",
    "recovery", TIME, "2026-13-23T17:09:46.000000Z", "2026-11-23", "z" * 300, "k" * (1 << 20), "k" * ((1 << 20) + 1),
    b"", b"\0", b"x", bytes(16), bytes(25), bytes(32), bytes(33), bytes(40), b"\xff" * 40, bytes(80), b"\xff" * 32,
    b"\1" + bytes(32), bytes(1 << 21),
)  # fmt: skip
ENCODED: Final = "encoded"
"""The member of an exported key of bytes that holds them."""
TORN: Final = ("ff", "eda080", "c0af", "61ff62")
"""Bytes that are no UTF-8, as text."""

# ---- The store ----


def make(path: Path) -> None:
    """Make a store with every kind of row."""
    with sqlstate.open(path) as store:
        store["numbers"].update({n: {"n": n, "text": "x" * (n % 7)} for n in range(-20, 60)})
        store["words"].update({f"w{n}": [n, None, "é"] for n in range(40)})
        store["bytes"].update({bytes([n, 0]): bytes([n]) * n for n in range(1, 20)})
        for n in range(COMMITS):
            store["counts"][n % 10] = n
        del store["words"]["w3"]
        with store.transaction(note="a note") as txn:
            txn.put("words", "w1", "new")
            txn.delete("bytes", b"\5\0")
        with store.batch() as batch:
            for n in range(5):
                batch["many"][n] = n
        staged = store.stage(note="a draft")
        staged.put("drafts", "done", 1)
        staged.commit()
        store.stage().rollback()
        store.prove_consistency(10, 270)
        store.backup(path.with_name("backup.db"))
    with sqlstate.open(path) as store:
        draft = store.stage(note="left open")
        draft.put("drafts", "letter", {"text": "Dear"})
        draft.put("numbers", 5, "changed")
    with sqlstate.open(path, recover="resume") as store:
        store.resume(store.pending()[0].txn)
        store["counts"][0] = -1


def rows_of(path: Path, table: str) -> list[tuple[Any, ...]]:
    """Return the rows of a table, each field with its storage class."""
    with closing(sqlite3.connect(path)) as db:
        columns = [row[1] for row in db.execute(f"PRAGMA table_xinfo({table})")]
        fields = ", ".join(f"typeof({each}) || ':' || hex({each})" for each in columns)
        return sorted(db.execute(f"SELECT {fields} FROM {table}")) if columns else []


def content(path: Path) -> dict[str, Any]:
    """Return all that the file holds, by table, and its schema."""
    with closing(sqlite3.connect(path)) as db:
        schema = sorted(map(repr, db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema")))
        numbers = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        names = {row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    tables = {table: rows_of(path, table) for table in TABLES if table in names}
    return {"schema": schema, "numbers": numbers, **tables}


# ---- Edits ----


@contextmanager
def loose(path: Path, table: str, *, twice: bool = False) -> Iterator[sqlite3.Connection]:
    """Give a connection to which the columns of a table have no type, no constraint, and no trigger or unique index.

    With *twice*, a name of state can be there twice: the value is in its key, and the rows look the same.
    """
    with closing(sqlite3.connect(path)) as db:
        strict = dict(
            db.execute("SELECT name, sql FROM sqlite_schema WHERE tbl_name = ? AND sql IS NOT NULL", (table,))
        )
        kinds = dict(
            db.execute("SELECT name, type FROM sqlite_schema WHERE tbl_name = ? AND sql IS NOT NULL", (table,))
        )
        for name, kind in kinds.items():
            if kind == "trigger":
                db.execute(f"DROP TRIGGER {name}")
        wide = "(collection, key, value)" if twice else "(collection, key)"
        _rewrite(db, {table: _without_types(strict[table]).replace("(collection, key)", wide)})
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for name, kind in kinds.items():
            if kind == "index":
                db.execute(f"DROP INDEX {name}")
        db.execute("BEGIN")
        try:
            yield db
            db.execute("COMMIT")
        except sqlite3.Error:
            db.execute("ROLLBACK")
            raise
        finally:
            for name, kind in kinds.items():
                if kind == "index":
                    db.execute(strict[name].replace("UNIQUE", ""))
                elif kind == "trigger":
                    db.execute(strict[name])
            _rewrite(db, {name: sql for name, sql in strict.items() if kinds[name] != "trigger"})


def _without_types(sql: str) -> str:
    lines = []
    for line in sql.splitlines():
        if re.match(r"\s+\w+", line) and "INTEGER PRIMARY KEY" not in line and "PRIMARY KEY (" not in line:
            key = " PRIMARY KEY" if "PRIMARY KEY" in line else ""
            lines.append(f"  {line.split()[0].rstrip(',')}{key}{',' if line.rstrip().endswith(',') else ''}")
        else:
            lines.append(line)
    return "\n".join(lines)


def _rewrite(db: sqlite3.Connection, statements: dict[str, str]) -> None:
    db.execute("PRAGMA writable_schema = ON")
    for name, sql in statements.items():
        db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (sql, name))
    db.commit()
    db.execute("PRAGMA writable_schema = RESET")


def _columns(db: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]


def _key(db: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in db.execute(f"PRAGMA table_info({table})") if row[5]]


def _row(db: sqlite3.Connection, table: str, rng: random.Random) -> dict[str, Any] | None:
    """Return the key of a row, likely an outer one."""
    key = _key(db, table)
    rows = db.execute(f"SELECT {', '.join(key)} FROM {table} ORDER BY {', '.join(key)}").fetchall()
    if not rows:
        return None
    at = rng.choice((0, len(rows) - 1, max(0, len(rows) - 2), rng.randrange(len(rows)), rng.randrange(len(rows))))
    return dict(zip(key, rows[at], strict=True))


def _where(row: dict[str, Any]) -> str:
    return " AND ".join(f"{name} IS :{name}" for name in row)


def set_field(path: Path, rng: random.Random) -> str:
    """Set one field of one row, or of all, to a value."""
    table = rng.choice(TABLES)
    with loose(path, table) as db:
        column = rng.choice(_columns(db, table))
        row = _row(db, table, rng)
        value: Any = rng.choice(VALUES)
        said = repr(value)[:40]
        if rng.random() < 0.1:
            torn = rng.choice(TORN)
            expression, value, said = f"CAST(x'{torn}' AS TEXT)", None, f"text {torn}"
        elif rng.random() < 0.15:
            expression, value, said = rng.choice(
                (f"{column} + 1", f"CAST({column} AS BLOB)", f"CAST({column} AS TEXT)", f"{column} || {column}",
                 f"substr({column}, 2)", f"-{column}", f"zeroblob(length({column}))")
            ), None, "an expression"  # fmt: skip
        else:
            expression = ":value_"
        if row is None:
            return f"{table} has no rows"
        db.execute(f"UPDATE {table} SET {column} = {expression} WHERE {_where(row)}", {**row, "value_": value})
    of = f" of {row['name']}" if table == "meta" else ""
    return f"{table}.{column}{of} = {said}"


def set_column(path: Path, rng: random.Random) -> str:
    """Set a field of many rows."""
    table = rng.choice(TABLES)
    with loose(path, table) as db:
        column = rng.choice(_columns(db, table)[1:])
        value = rng.choice([each for each in VALUES if len(repr(each)) < LENGTH_OF_MANY])
        some = f"length({column})" if "WITHOUT ROWID" in _sql(db, table) else "rowid"
        db.execute(f"UPDATE {table} SET {column} = ? WHERE {some} % ? = 0", (value, rng.choice((1, 2, 5))))
    return f"{table}.{column} of many = {value!r:.40}"


def _sql(db: sqlite3.Connection, table: str) -> str:
    return str(db.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0])


def delete(path: Path, rng: random.Random) -> str:
    """Remove a row, or several, or all."""
    table = rng.choice(TABLES)
    with loose(path, table) as db:
        if rng.random() < 0.2:
            db.execute(f"DELETE FROM {table}")
            return f"{table} is empty"
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            row = _row(db, table, rng)
            if row is not None:
                db.execute(f"DELETE FROM {table} WHERE {_where(row)}", row)
    return f"rows of {table} are gone"


def insert(path: Path, rng: random.Random) -> str:
    """Put in a copy of a row with another key, or with the same where the key allows."""
    table = rng.choice(TABLES)
    with loose(path, table, twice=True) as db:
        row = _row(db, table, rng)
        if row is None:
            return f"{table} has no rows"
        columns = _columns(db, table)
        values = list(db.execute(f"SELECT {', '.join(columns)} FROM {table} WHERE {_where(row)}", row).fetchone())
        for column in rng.sample(columns, rng.choice((1, 2))):
            values[columns.index(column)] = rng.choice(VALUES)
        marks = ", ".join("?" * len(columns))
        db.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", values)
    return f"another row of {table}"


def exchange(path: Path, rng: random.Random) -> str:
    """Exchange a field of two rows."""
    table = rng.choice(TABLES)
    with loose(path, table) as db:
        one, other = _row(db, table, rng), _row(db, table, rng)
        if one is None or other is None:
            return f"{table} has no rows"
        column = rng.choice(_columns(db, table)[1:])
        first, second = (
            db.execute(f"SELECT {column} FROM {table} WHERE {_where(row)}", row).fetchone()[0] for row in (one, other)
        )
        db.execute(f"UPDATE {table} SET {column} = :value_ WHERE {_where(one)}", {**one, "value_": second})
        db.execute(f"UPDATE {table} SET {column} = :value_ WHERE {_where(other)}", {**other, "value_": first})
    return f"{table}.{column} of two rows is exchanged"


SCHEMA: Final = (
    *(f"DROP VIEW {name}" for name in ("entries", "commits", "log", "events")),
    *(f"DROP TRIGGER {name}" for name in ("audit_no_update", "audit_no_delete", "audit_no_replace")),
    *(f"DROP INDEX {name}" for name in ("merkle_name", "wal_milestones", "wal_staged")),
    *(f"DROP TABLE {name}" for name in TABLES),
    *(f"ALTER TABLE {name} RENAME TO other" for name in TABLES),
    *(f"ALTER TABLE {name} ADD COLUMN other TEXT" for name in TABLES),
    *(f"ALTER TABLE {name} ADD COLUMN other TEXT GENERATED ALWAYS AS (1)" for name in TABLES),
    "CREATE UNIQUE INDEX other ON state (value)", "CREATE UNIQUE INDEX other ON state (collection)",
    "CREATE INDEX other ON state (value)", "CREATE INDEX other ON state (abs(value))",
    "CREATE INDEX other ON wal (seq)", "CREATE UNIQUE INDEX other ON wal (seq) WHERE seq > 275",
    "CREATE UNIQUE INDEX other ON audit (at)", "CREATE INDEX other ON meta (value)",
    "CREATE INDEX other ON merkle (id)",
    "CREATE TRIGGER other AFTER INSERT ON state BEGIN DELETE FROM state; END",
    "CREATE TRIGGER other BEFORE UPDATE ON merkle BEGIN SELECT RAISE(ABORT, 'no'); END",
    "CREATE TRIGGER other AFTER INSERT ON wal BEGIN UPDATE meta SET value = 1; END",
    "CREATE TRIGGER other INSTEAD OF INSERT ON entries BEGIN DELETE FROM state; END",
    "DROP VIEW entries; CREATE VIEW entries AS SELECT 1", "DROP VIEW log; CREATE TABLE log (x)",
    "DROP VIEW log; CREATE TABLE theirs (x); CREATE INDEX log ON theirs (x)",
    "DROP VIEW events; CREATE VIEW Events AS SELECT 2", "DROP INDEX wal_staged; CREATE INDEX wal_staged ON wal (at)",
    "CREATE INDEX wal_history ON wal (kind)", "CREATE UNIQUE INDEX Wal_History ON wal (txn, lsn)",
    "DROP INDEX merkle_name; CREATE INDEX merkle_name ON merkle (level, collection, key)",
    "PRAGMA user_version = 0", "PRAGMA user_version = 1", "PRAGMA user_version = 2", "PRAGMA user_version = 99",
    "PRAGMA application_id = 0", "PRAGMA application_id = 7",
)  # fmt: skip
WELCOME: Final = (
    "CREATE TABLE theirs (x); CREATE INDEX other ON theirs (x)",
    "CREATE TABLE theirs (x); CREATE TRIGGER other AFTER INSERT ON theirs BEGIN DELETE FROM state; END",
    "CREATE TABLE theirs (c REFERENCES state (collection), x REFERENCES wal)",
    "CREATE VIEW theirs AS SELECT * FROM state",
    "CREATE INDEX wal_history ON wal (collection, key) WHERE kind IN ('PUT', 'DELETE')",
    "ANALYZE",
)
"""What others may have in the file."""


def alter(path: Path, rng: random.Random) -> str:
    """Change the schema."""
    statement = rng.choice(SCHEMA + WELCOME)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(statement)
    return statement


EDITS: Final = (set_field,) * 10 + (set_column, delete, insert, insert, exchange, alter, alter)


def edit(path: Path, rng: random.Random) -> str:
    """Edit the file, and say how; nothing if SQLite refuses, or nothing is another than before."""
    before = content(path)
    try:
        said = rng.choice(EDITS)(path, rng)
    except sqlite3.Error:
        return ""
    after = content(path)
    return said if after != before else ""


# ---- What is done with it ----


class Attempts:
    """Does one thing after the other, and notes what came out."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.refused: dict[str, str] = {}

    def do(self, name: str, step: Callable[[], Any]) -> Any:
        """Return what *step* returns; None if it raised an exception of ours."""
        try:
            return step()
        except sqlstate.StoreError as e:
            expect(str(e).strip(), f"{self.what}: {name} raised a {type(e).__name__} without a word")
            self.refused[name] = f"{type(e).__name__}: {e}"
        except Exception as e:  # noqa: BLE001, that is what is looked for
            expect(False, f"{self.what}: {name} raised {type(e).__name__}: {e}{where(e)}")
        return None


def read(store: Any, attempts: Attempts, folder: Path) -> None:
    """Read all there is, in every way."""
    do = attempts.do
    names = do("collections", store.collections) or ["numbers", "words", "bytes", "drafts"]
    for name in names[:8]:
        _read_collection(store, name, attempts)
    for name, key in (("numbers", 5), ("words", "w3"), ("nothing", 1), ("bytes", b"\1\0")):
        do("proof", partial(store.prove, name, key))
    do("proof of many", lambda: store.prove_many([("numbers", 5), ("words", "w3"), ("drafts", "done")]))
    for seq, size in ((1, 3), (5, 270), (256, 270), (272, None)):
        do("commit proof", partial(store.prove_commit, seq, size))
    do("consistency proof", lambda: store.prove_consistency(100, 270))
    do("head", store.head)
    do("commits", lambda: list(store.commits()))
    do("some commits", lambda: list(store.commits(260)))
    do("log", lambda: list(store.wal.read()))
    do("uncommitted", store.wal.uncommitted)
    do("pending", store.pending)
    do("audit", lambda: list(store.audit()))
    do("audit check", store.check_audit)
    do("stats", store.stats)
    do("snapshot", lambda: _snapshot(store))
    do("export", lambda: _export(store, folder / "all.jsonl"))


def _read_collection(store: Any, name: str, attempts: Attempts) -> None:
    do = attempts.do
    view = do("collection", lambda: store[name])
    if view is None:
        return
    do("list", lambda: list(view.items()))
    do("keys", lambda: list(view))
    do("reversed", lambda: list(reversed(view)))
    do("len", lambda: len(view))
    do("bool", lambda: bool(view))
    do("in", lambda: (1 in view, "w1" in view, b"\1\0" in view.keys(prefix=b"\1"), [1] in view.values()))
    do("part", lambda: (list(view.keys(start=3, stop="x")), len(view.items(start=3, stop="x"))))
    do("get", lambda: [view.get(key) for key in (5, "w1", b"\1\0", "letter", 59)])
    do("count proof", lambda: store.prove_count(name))
    do("range proof", lambda: store.prove_range(name, limit=5))


def _snapshot(store: Any) -> None:
    with store.snapshot() as snapshot:
        for name in snapshot.collections():
            list(snapshot[name].items())
            len(snapshot[name])


def _export(store: Any, path: Path) -> None:
    with store.snapshot() as snapshot:
        transfer.export_file(snapshot, path)


def write(store: Any, attempts: Attempts) -> None:
    """Write in every way."""
    do = attempts.do
    do("put", lambda: store["numbers"].__setitem__(5, "new"))
    do("first put", lambda: store["a"].__setitem__("first", 1))
    do("last put", lambda: store["zz"].__setitem__(b"last", 1))
    do("puts", lambda: store["words"].update({f"w{n}": n for n in range(0, 60, 3)}))
    do("delete", lambda: store["numbers"].pop(7, None))
    do("clear", lambda: store["counts"].clear())
    do("transaction", lambda: _transaction(store))
    do("batch", lambda: _batch(store))
    for pending in do("pending", store.pending) or ():
        _resume(store, pending.txn, attempts)
    do("draft", lambda: _stage(store))
    do("record", lambda: store._record("check", {"ok": True}))
    do("signing", lambda: store.prove_commit(1))


def _resume(store: Any, txn: int, attempts: Attempts) -> None:
    draft = attempts.do("resume", lambda: store.resume(txn))
    if draft is not None:
        attempts.do("draft get", lambda: (draft.get("drafts", "letter"), draft.get("numbers", 5)))
        attempts.do("draft put", lambda: draft.put("drafts", "more", 1))
        attempts.do("draft commit", draft.commit)


def _transaction(store: Any) -> None:
    with store.transaction() as txn:
        list(txn["numbers"].items())
        len(txn["words"])
        txn.put("numbers", 9, 1)
        txn.delete("words", "w5")


def _batch(store: Any) -> None:
    with store.batch() as batch:
        batch["numbers"][11] = 11
        list(batch["numbers"])


def _stage(store: Any) -> None:
    with store.stage() as draft:
        draft.put("numbers", 13, 13)
        draft.delete("words", "w7")


def _use(path: Path, attempts: Attempts, name: str, use: Callable[[Any], None], **options: Any) -> None:
    store = attempts.do(f"open for {name}", lambda: sqlstate.open(path, **options))
    if store is not None:
        try:
            use(store)
        finally:
            attempts.do(f"close after {name}", store.close)


def lay(made: Path, folder: Path) -> Path:
    """Return a copy of a file in a new folder."""
    folder.mkdir()
    return Path(shutil.copy(made, folder / "store.db"))


def try_all(path: Path, what: str, base: Path, folder: Path) -> Result:
    """Do everything with copies of an edited file, and judge it."""
    attempts = Attempts(what)
    result = Result(1)
    only = lay(path, folder / "reading")
    _use(only, attempts, "reading", lambda store: read(store, attempts, only.parent), read_only=True)
    exported = only.parent / "all.jsonl"
    if exported.exists():
        result.counts["exported"] += 1
        invented = set(_names(exported)) - {row[:2] for row in rows_of(path, "state")}
        expect(not invented, f"{what}: the export invents")
    reports: list[Any] = []
    for level in ("quick", "full"):
        check = lay(path, folder / level)

        def checks(store: Any, level: str = level) -> None:
            reports.append(attempts.do(f"{level} check", lambda: store.check(level)))

        _use(check, attempts, f"{level} check", checks, read_only=True)
    report = reports[-1] if len(reports) == 2 else None
    if report is not None:
        result.counts[report.outcome] += 1
        sound = what in WELCOME or any(what.startswith(each) for each in FREE)
        expect(report.outcome != "sound" or sound, f"{what}: it is called sound")
        expect(report.outcome == "sound" or what not in WELCOME, f"{what}: it is called {report.outcome}")
    else:
        result.counts["not opened"] += 1
    writing = lay(path, folder / "writing")
    _use(writing, attempts, "writing", lambda store: write(store, attempts), recover="resume")
    again = lay(path, folder / "again")
    _use(again, attempts, "use", lambda store: attempts.do("backup", lambda: store.backup(again.with_name("b.db"))))
    source = lay(path, folder / "source")
    dest = lay(base, folder / "dest")
    for name, target in (("restore", source.with_name("new.db")), ("restore over", dest)):
        before = content(target) if target.exists() else None
        done = attempts.do(name, partial(sqlstate.restore, source, target, replace=target == dest))
        if done is None:
            expect(
                (content(target) if target.exists() else None) == before, f"{what}: a {name} that failed left traces"
            )
        else:
            result.counts["restored"] += 1
            expect(
                report is not None and report.outcome == "sound", f"{what}: a {name} took it, which is no sound store"
            )
            expect(rows_of(target, "state") == rows_of(path, "state"), f"{what}: a {name} gave other entries")
    _repair(path, attempts, base, folder, result)
    return result


def _repair(path: Path, attempts: Attempts, base: Path, folder: Path, result: Result) -> None:
    seed = int(folder.name)
    source = base.with_name("backup.db") if seed % 3 == 0 else None
    broken = lay(path, folder / "broken")
    if seed % 3 == 1:
        attempts.do("dry repair", lambda: sqlstate.repair(broken, source=source, dry_run=True))
    done = attempts.do("repair", lambda: sqlstate.repair(broken, source=source))
    if done is None or done.after is None:
        return
    result.counts["repaired"] += done.ok
    if done.ok:
        expect(done.after == "sound", f"{attempts.what}: repair lost nothing, and the check says {done.after}")
        same = rows_of(broken, "state") == rows_of(base, "state")
        expect(same, f"{attempts.what}: repair says that nothing is lost, and entries are others")


def _names(exported: Path) -> list[tuple[str, str]]:
    """Return the names of the entries of an export, as rows_of() gives those of the table."""
    found = []
    for line in exported.read_text("utf-8").splitlines():
        entry = json.loads(line, parse_int=_digits)
        found.append((_field(entry["collection"]), _field(entry["key"])))
    return found


def _digits(text: str) -> int:
    return int(text) if len(text) < 100 else 0  # Python reads no more than 4,300; a key has at most 20


def _field(key: Any) -> str:
    if isinstance(key, dict):
        return f"blob:{base64.b64decode(key[ENCODED]).hex().upper()}"
    raw = str(key).encode().hex().upper()
    return f"{'integer' if isinstance(key, int) else 'text'}:{raw}"


# ---- The campaign ----


def one(seeds: list[int]) -> Result:
    """Try some edits."""
    result = Result()
    folder = Path(tempfile.mkdtemp(prefix="sqlstate-edits-", dir=scratch()))
    try:
        base = folder / "store.db"
        make(base)
        for seed in seeds:
            rng = random.Random(seed)  # noqa: S311, no secret
            own = folder / str(seed)
            path = lay(base, own)
            what = edit(path, rng)
            while not what:
                shutil.copy(base, path)
                what = edit(path, rng)
            signal.signal(signal.SIGALRM, _hung)
            signal.alarm(SECONDS_HUNG)
            try:
                result = merged([result, try_all(path, what, base, own)])
            except AssertionError as e:
                result.runs += 1
                result.miss(str(seed), str(e))
            except Exception as e:  # noqa: BLE001, of the judge itself
                result.runs += 1
                result.miss(str(seed), f"{what}: the judge raised {type(e).__name__}: {e}{where(e)}")
            finally:
                signal.alarm(0)
            shutil.rmtree(own)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def _hung(*_: object) -> None:
    raise AssertionError(f"it hung for {SECONDS_HUNG} s")


@campaign(22, "hostile edits of rows and schema", bar="our errors only, none falsely sound", ci=40, long=5_000)
def edits(plan: Plan) -> Result:
    """Edit stores, and do everything with them."""
    if plan.case:
        return one([int(plan.case)])
    rng = random.Random(plan.seed)  # noqa: S311, no secret
    seeds = [rng.randrange(10**12) for _ in range(plan.count)]
    size = min(EDITS_OF_A_WORKER, -(-plan.count // plan.jobs))
    result = merged(spread(plan, one, [seeds[at : at + size] for at in range(0, len(seeds), size)]))
    result.found = figures(result, "failures", "damaged", "sound", "not opened", "restored", "repaired")
    return result
