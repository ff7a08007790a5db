"""Other stores' files: each entry comes in as it is, or is refused by name; and no code in them runs.

Method: files that each peer's own package makes, with dates, tuples and floats among ordinary values; what was put is
compared with what the peer's package reads. Where a package is not installed, its tests are skipped.
"""

from __future__ import annotations

import dbm
import dbm.dumb
import json
import os
import pickle
import shelve
import sqlite3
import sys
import zlib
from contextlib import closing, suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

import sqlstate
from sqlstate import ImportRejected, InvalidName, InvalidOption, StoreUnusable
from sqlstate.importing.import_from import KINDS
from tests.importing.test_hostile_pickles import DEEP, WAYS
from tests.support.system import mkfifo, symlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlstate import ImportReport, Store


# ---- Files that each peer's own package makes ----


def value(number: int) -> Any:
    """Values of a program that pickles: most are JSON, some are made plain, some are refused."""
    return (
        {"n": number, "name": f"é{number}", "tags": ["a", {"b": None}]},
        number + 0.5,
        (number, "tuple"),
        f"text {number}",
        datetime(2026, 1, 1 + number % 28, tzinfo=UTC),
        [number, True, -0.0],
        {"when": date(2026, 2, 1 + number % 28)},
        None,
        Decimal(number) / 8,
        {1: "a key that is no text"},
        UUID(int=number),
        float("nan"),
        b"bytes %d" % number,
        {"in": {"it": {number}}},
        "x" * (40_000 if number % 200 == 14 else 10),
        2**70,
        complex(number, 1),
        {(number, 1): "a tuple is no name of a member"},
    )[number % 18]


def exact(found: Any) -> Any:
    """A value in a form that tells 1 from 1.0 and True."""
    return found if isinstance(found, bytes) else json.dumps(found, sort_keys=True)


def is_json(value: Any) -> bool:
    """Whether a value is stored as it is."""
    if isinstance(value, bytes):
        return True
    with suppress(TypeError, ValueError):
        return bool(json.loads(json.dumps(value)) == value) and value != 2**70
    return False


REFUSED = object()
"""What a file holds where JSON has nothing for it."""


def wanted(value: Any) -> Any:
    """What has to be stored for a value."""
    with suppress(sqlstate.InvalidValue):
        return REFUSED if value is REFUSED else sqlstate.plain(value)
    return REFUSED


Made = list[tuple[str, Any, Any]]
"""Collection, key and value of each entry that a file has."""


def make_shelve(path: Path, count: int) -> Made:
    with shelve.open(str(path)) as file:  # noqa: S301
        for number in range(count):
            file[f"k{number}"] = value(number)
    return [(path.name, f"k{number}", value(number)) for number in range(count)]


def make_dbm(path: Path, count: int) -> Made:
    with closing(dbm.dumb.open(str(path), "c")) as file:
        for number in range(count):
            file[f"k{number}"] = b"\xff%d" % number
    return [(path.name, f"k{number}", b"\xff%d" % number) for number in range(count)]


def make_sqlitedict(path: Path, count: int) -> Made:
    sqlitedict = pytest.importorskip("sqlitedict", reason="sqlitedict is not installed")
    made: Made = []
    for table in ("first", "second"):
        with sqlitedict.SqliteDict(str(path), tablename=table) as file:
            for number in range(count // 2):
                file[f"k{number}"] = value(number)
            file.commit()
        made += [(table, f"k{number}", value(number)) for number in range(count // 2)]
    return made


def make_diskcache(path: Path, count: int) -> Made:
    diskcache = pytest.importorskip("diskcache", reason="diskcache is not installed")
    made: Made = []
    with diskcache.Cache(str(path)) as cache, cache.transact():
        for number in range(count):
            key = (f"k{number}", number, b"k%d" % number, (number, "t"), number + 0.5)[number // 18 % 5]
            cache[key] = value(number)
            made.append((path.name, key, cache[key]))  # None for NaN, which SQLite has no room for
        assert len(cache) == count
    return made


def make_lmdb(path: Path, count: int) -> Made:
    lmdb = pytest.importorskip("lmdb", reason="lmdb is not installed")
    made: Made = []
    with lmdb.open(str(path), max_dbs=4, map_size=1 << 26) as environment:
        names = [(path.name, environment.open_db()), ("users", environment.open_db(b"users"))]
        with environment.begin(write=True) as txn:
            for name, database in names:
                rows = [(number.to_bytes(4), b"\0%d" % number) for number in range(count // 2)]
                for key, raw in [*rows, (b"as long as a database", b"x" * 48)]:
                    txn.put(key, raw, db=database)
                    made.append((name, key, raw))
    return made


def make_tinydb(path: Path, count: int) -> Made:
    tinydb = pytest.importorskip("tinydb", reason="tinydb is not installed")
    made: Made = []
    with tinydb.TinyDB(str(path)) as file:
        for name, table in (("_default", file), ("users", file.table("users"))):
            documents = [
                {"n": n, "half": n + 0.5, "at": datetime(2026, 1, 1, tzinfo=UTC).isoformat(), "bad": float("inf")}
                if n % 10 == 3
                else {"n": n, "half": n + 0.5, "list": [n, None], "when": str(date(2026, 1, 1))}
                for n in range(count // 2)
            ]
            ids = table.insert_multiple(documents)
            rows = zip(ids, documents, strict=True)
            made += [(name, number, REFUSED if "bad" in document else document) for number, document in rows]
    return made


def make_dir(path: Path, count: int) -> Made:
    made: Made = []
    for number in range(count):
        folder = path / f"d{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        key = f"d{number % 7}/{number}"
        if number % 10 == 0:
            (folder / f"{number}.bin").write_bytes(b"\xff%d" % number)
            made.append((path.name, f"{key}.bin", b"\xff%d" % number))
        else:
            text = '{"a": NaN}' if number % 10 == 1 else json.dumps({"n": number, "f": 0.1})
            (folder / f"{number}.json").write_text(text, encoding="utf-8")
            made.append((path.name, key, REFUSED if number % 10 == 1 else json.loads(text)))
    return made


MAKERS: dict[str, Callable[[Path, int], Made]] = {
    "shelve": make_shelve,
    "dbm": make_dbm,
    "sqlitedict": make_sqlitedict,
    "diskcache": make_diskcache,
    "lmdb": make_lmdb,
    "tinydb": make_tinydb,
    "dir": make_dir,
}


def content(store: Store) -> dict[tuple[str, Any], Any]:
    return {(name, key): exact(each) for name in store for key, each in store[name].items()}


def check(kind: str, store: Store, path: Path, count: int) -> None:
    made = MAKERS[kind](path, count)
    entries = [(name, key, each) for name, key, each in made if type(key) is not float and wanted(each) is not REFUSED]
    expected = {
        (name, sqlstate.pack_key(key) if type(key) is tuple else key): exact(wanted(each))
        for name, key, each in entries
    }
    made_plain = sum(not is_json(each) for _, _, each in entries)
    seen: list[tuple[int, int | None]] = []
    dry = sqlstate.import_from(store, kind, path, dry_run=True, progress=lambda *at: seen.append(at))  # type: ignore[arg-type]
    assert (dry.read, dry.entries, dry.made_plain, dry.changed, dry.commits) == (
        len(made),
        len(expected),
        made_plain,
        0,
        0,
    )
    assert len(dry.refused) == len(made) - len(expected)
    strict = sqlstate.import_from(store, kind, path, dry_run=True, exact=True)  # type: ignore[arg-type]
    assert (strict.entries, strict.made_plain, len(strict.refused)) == (
        len(expected) - made_plain,
        0,
        len(dry.refused) + made_plain,
    )
    assert seen[-1] == (len(made), None if kind == "dir" else len(made))
    assert store.head().seq == 0
    if dry.refused:
        with pytest.raises(ImportRejected, match="dry_run=True lists all") as caught:
            sqlstate.import_from(store, kind, path)  # type: ignore[arg-type]
        assert caught.value.__notes__ == ["nothing was imported"]
        assert store.head().seq == 0
    done = sqlstate.import_from(store, kind, path, skip_refused=True, note="moved")  # type: ignore[arg-type]
    assert content(store) == expected
    assert (done.read, done.entries, done.changed, done.commits) == (len(made), len(expected), len(expected), 1)
    assert (done.refused, done.made_plain) == (dry.refused, made_plain)
    again = sqlstate.import_from(store, kind, path, skip_refused=True, batch=7)  # type: ignore[arg-type]
    assert (again.entries, again.changed, again.commits) == (len(expected), 0, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_all_entries_of_a_peers_own_file_come_in_or_are_refused(kind: str, store: Store, tmp_path: Path) -> None:
    check(kind, store, tmp_path / "old", 320)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_entries_of_a_peers_own_file(kind: str, store: Store, tmp_path: Path) -> None:
    check(kind, store, tmp_path / "old", 10_000)


def refusals(report: ImportReport) -> dict[str, str]:
    return {each.key: each.reason for each in report.refused}


def test_each_refusal_names_the_place_and_the_reason(store: Store, tmp_path: Path) -> None:
    with shelve.open(str(tmp_path / "old")) as file:  # noqa: S301
        for number in range(18):
            file[str(number)] = value(number)
    found = refusals(sqlstate.import_from(store, "shelve", tmp_path / "old", dry_run=True))
    assert found.keys() == {"'16'", "'17'"}
    assert found["'16'"] == "complex (16+1j) has no plain form"
    assert "the key (17, 1) has no form as text" in found["'17'"]
    found = refusals(sqlstate.import_from(store, "shelve", tmp_path / "old", dry_run=True, exact=True))
    parts = {
        "'2'": "tuple would not read back",
        "'4'": "datetime would not",
        "'6'": "at $.when: date would not",
        "'8'": "Decimal would not",
        "'9'": "a member's name is a str in JSON, not 1",
        "'10'": "UUID would not",
        "'11'": "nan is not a number in JSON",
        "'13'": "at $.in.it: set would not",
        "'15'": "outside -2^63 to 2^64-1",
        "'16'": "complex would not",
        "'17'": "a member's name is a str in JSON, not (17, 1)",
    }
    assert found.keys() == parts.keys()
    assert [part for key, part in parts.items() if part not in found[key]] == []


# ---- What else the peers make ----


def test_index_deque_fanout_and_expired_entries_of_diskcache(store: Store, tmp_path: Path) -> None:
    diskcache = pytest.importorskip("diskcache", reason="diskcache is not installed")
    diskcache.Index(str(tmp_path / "index"), {"a": 1, "b": [2]}).cache.close()
    diskcache.Deque(["x", "y"], str(tmp_path / "deque")).cache.close()
    with diskcache.FanoutCache(str(tmp_path / "fan"), shards=3) as fan:
        for number in range(30):
            fan[number] = str(number)
    with diskcache.Cache(str(tmp_path / "cache"), cull_limit=0) as cache:
        cache.set("gone", 1, expire=-1)
        cache.set("stays", 2, expire=10_000, tag="t")
    for name in ("index", "deque", "fan"):
        sqlstate.import_from(store, "diskcache", tmp_path / name)
    assert dict(store["index"]) == {"a": 1, "b": [2]}
    assert [*store["deque"].values()] == ["x", "y"]
    assert dict(store["fan"]) == {number: str(number) for number in range(30)}
    done = sqlstate.import_from(store, "diskcache", tmp_path / "cache", skip_refused=True)
    assert dict(store["cache"]) == {"stays": 2}
    assert "expired" in refusals(done)["'gone'"]


def test_what_jsondisk_made_is_read_when_it_is_named(store: Store, tmp_path: Path) -> None:
    diskcache = pytest.importorskip("diskcache", reason="diskcache is not installed")
    with diskcache.Cache(str(tmp_path / "j"), disk=diskcache.JSONDisk) as cache:
        cache["a"] = {"b": [1, 2.5]}
        cache[7] = "x" * 100_000
    sqlstate.import_from(store, "diskcache", tmp_path / "j", values="json")
    assert dict(store["j"]) == {"a": {"b": [1, 2.5]}, 7: "x" * 100_000}
    with closing(sqlite3.connect(tmp_path / "j/cache.db")) as db, db:
        bomb = zlib.compress(b"1")[:-1]
        db.execute("UPDATE Cache SET value = ?, filename = NULL", (bomb,))
    found = sqlstate.import_from(store, "diskcache", tmp_path / "j", values="json", dry_run=True)
    assert len(found.refused) == 2


def test_sqlitedict_with_other_encodings(store: Store, tmp_path: Path) -> None:
    sqlitedict = pytest.importorskip("sqlitedict", reason="sqlitedict is not installed")
    with sqlitedict.SqliteDict(str(tmp_path / "s"), encode=json.dumps, decode=json.loads) as file:
        file["a"], file["7"] = {"b": 1.5}, None
        file.commit()
    sqlstate.import_from(store, "sqlitedict", tmp_path / "s", collection="c")
    assert dict(store["c"]) == {"a": {"b": 1.5}, "7": None}
    done = sqlstate.import_from(store, "sqlitedict", tmp_path / "s", key_type="int", skip_refused=True)
    assert dict(store["unnamed"]) == {7: None}
    assert "not an int" in done.refused[0].reason
    sqlstate.import_from(store, "sqlitedict", tmp_path / "s", collection="raw", values="bytes", key_type="bytes")
    assert dict(store["raw"]) == {b"7": b"null", b"a": b'{"b": 1.5}'}


def sqlite_dbm(path: Path, entries: dict[bytes, bytes]) -> None:
    """Make a file as dbm.sqlite3 does, which Python has from 3.13 on."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE Dict (key BLOB UNIQUE NOT NULL, value BLOB NOT NULL)")
        db.executemany("INSERT INTO Dict VALUES (CAST(? AS BLOB), CAST(? AS BLOB))", entries.items())


def test_dbm_sqlite_and_shelve_in_it(store: Store, tmp_path: Path) -> None:
    sqlite_dbm(tmp_path / "s.db", {b"k": b"\xff", b"\xff": b""})
    done = sqlstate.import_from(store, "dbm", tmp_path / "s.db", skip_refused=True)
    assert dict(store["s"]) == {"k": b"\xff"}
    assert "is not text in UTF-8; ask for keys of the type bytes" in done.refused[0].reason
    sqlstate.import_from(store, "dbm", tmp_path / "s.db", collection="b", key_type="bytes")
    assert dict(store["b"]) == {b"k": b"\xff", b"\xff": b""}
    sqlite_dbm(tmp_path / "shelf", {b"k": pickle.dumps([1])})
    sqlstate.import_from(store, "shelve", tmp_path / "shelf")
    assert dict(store["shelf"]) == {"k": [1]}


def test_a_dbm_file_is_found_by_each_of_its_names(store: Store, tmp_path: Path) -> None:
    make_dbm(tmp_path / "old", 3)
    for name in ("old", "old.dir", "old.dat"):
        assert sqlstate.import_from(store, "dbm", tmp_path / name, values="bytes").read == 3
    assert store.collections() == ["old"]
    with pytest.raises(FileNotFoundError):
        sqlstate.import_from(store, "dbm", tmp_path / "none")


@pytest.mark.parametrize("subdir", [True, False])
def test_lmdb_in_a_file_or_a_directory_and_other_values(store: Store, tmp_path: Path, subdir: bool) -> None:
    lmdb = pytest.importorskip("lmdb", reason="lmdb is not installed")
    with lmdb.open(str(tmp_path / "e.lmdb"), subdir=subdir) as environment, environment.begin(write=True) as txn:
        txn.put("é".encode(), b'{"a":1}')
        txn.put(b"2", b"x")
    done = sqlstate.import_from(store, "lmdb", tmp_path / "e.lmdb", key_type="str", values="json", skip_refused=True)
    assert dict(store["e"]) == {"é": {"a": 1}}
    assert "not JSON" in refusals(done)["'2'"]


def test_lmdb_that_is_not_installed(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(InvalidOption, match=r"sqlstate-store\[lmdb\]"):
        sqlstate.import_from(store, "lmdb", tmp_path)


def test_a_tinydb_file_refuses_documents_and_not_itself(store: Store, tmp_path: Path) -> None:
    documents = '"1":{"a":1},"2":{"a":NaN},"3":{"a":1,"a":2},"4":{"a":1e999},"x":{},"5":' + "9" * 5000
    (tmp_path / "t.json").write_text(f'\ufeff{{"_default":{{{documents}}}}}', encoding="utf-8")
    done = sqlstate.import_from(store, "tinydb", tmp_path / "t.json", skip_refused=True)
    assert dict(store["_default"]) == {1: {"a": 1}}
    assert len(done.refused) == done.read - 1 == 5
    assert "at $.a: NaN is not a number" in refusals(done)["2"]
    assert "twice" in refusals(done)["3"]


@pytest.mark.parametrize("text", ["", "[]", '{"a":1}', '{"a":{},"a":{}}', "[" * 100_000, b"\xff", '{"a":{"1":{}}'])
def test_what_is_no_tinydb_file_is_rejected(store: Store, tmp_path: Path, text: str | bytes) -> None:
    (tmp_path / "t").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ImportRejected):
        sqlstate.import_from(store, "tinydb", tmp_path / "t")


def test_a_directory_gives_its_own_regular_files_alone(store: Store, tmp_path: Path) -> None:
    root = tmp_path / "d"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    symlink(root / "link", tmp_path / "secret")
    symlink(root / "linked", tmp_path / "folder")
    mkfifo(root / "fifo")
    (root / "sub/a.json").write_text("\ufeff1", encoding="utf-8")
    (root / "sub/a").write_bytes(b"")
    (root / ".json").write_bytes(b"hidden")
    with open(os.fsencode(root) + b"/\xff", "wb"):
        pass
    with pytest.raises(ImportRejected, match="'sub/a' a second time"):
        sqlstate.import_from(store, "dir", root, skip_refused=True)
    (root / "sub/a").unlink()
    done = sqlstate.import_from(store, "dir", root, skip_refused=True)
    assert dict(store["d"]) == {".json": b"hidden", "sub/a": 1}
    assert [each.key for each in done.refused] == ["'fifo'", "'link'", "'linked'", r"'\udcff'"]


def test_a_directory_with_the_store_in_it_leaves_the_store_alone(tmp_path: Path) -> None:
    with sqlstate.open(tmp_path / "app.db") as store:
        store["c"]["k"] = 1
        (tmp_path / "a.json").write_text("1", encoding="utf-8")
        done = sqlstate.import_from(store, "dir", tmp_path, collection="d", skip_refused=True)
        assert dict(store["d"]) == {"a": 1}
        assert {each.key for each in done.refused} >= {"'app.db'", "'app.db-wal'", "'app.db-shm'"}
        assert all("open in this process" in each.reason for each in done.refused if "shm" in each.key)


# ---- Pickles that would run something ----


def plant_dumb(path: Path, raws: list[bytes]) -> None:
    with closing(dbm.dumb.open(str(path), "c")) as file:
        for number, raw in enumerate(raws):
            file[f"k{number}"] = raw


def plant_sqlitedict(path: Path, raws: list[bytes]) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE unnamed (key TEXT PRIMARY KEY, value BLOB)")
        db.executemany("INSERT INTO unnamed VALUES (?, ?)", [(f"k{n}", raw) for n, raw in enumerate(raws)])


def plant_diskcache(path: Path, raws: list[bytes], *, key: bool = False, file: bool = False) -> None:
    """Make a cache as diskcache does, with pickles in values, in keys, or in files beside."""
    path.mkdir()
    (path / "00").mkdir()
    with closing(sqlite3.connect(path / "cache.db")) as db, db:
        db.execute(
            "CREATE TABLE Cache (rowid INTEGER PRIMARY KEY, key BLOB, raw INTEGER, store_time REAL, expire_time REAL, "
            "access_time REAL, access_count INTEGER, tag BLOB, size INTEGER, mode INTEGER, filename TEXT, value BLOB)"
        )
        for n, raw in enumerate(raws):
            (path / f"00/{n}.val").write_bytes(raw)
            name, value = (f"00/{n}.val", None) if file else (None, raw)
            row = (raw if key else f"k{n}", not key, 1 if key else 4, name, value)
            db.execute("INSERT INTO Cache (key, raw, mode, filename, value) VALUES (?, ?, ?, ?, ?)", row)


def plant_lmdb(path: Path, raws: list[bytes]) -> None:
    lmdb = pytest.importorskip("lmdb", reason="lmdb is not installed")
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as txn:
        for number, raw in enumerate(raws):
            txn.put(b"%d" % number, raw)


def plant_dbm_sqlite(path: Path, raws: list[bytes]) -> None:
    sqlite_dbm(path, {b"%d" % number: raw for number, raw in enumerate(raws)})


PLANTS: dict[str, tuple[str, Callable[[Path, list[bytes]], None], str | None]] = {
    "shelve": ("shelve", plant_dumb, None),
    "dbm": ("dbm", plant_dumb, "pickle"),
    "shelve in SQLite": ("shelve", plant_dbm_sqlite, None),
    "sqlitedict": ("sqlitedict", plant_sqlitedict, None),
    "diskcache": ("diskcache", plant_diskcache, None),
    "diskcache, key": ("diskcache", lambda path, raws: plant_diskcache(path, raws, key=True), None),
    "diskcache, file": ("diskcache", lambda path, raws: plant_diskcache(path, raws, file=True), None),
    "lmdb": ("lmdb", plant_lmdb, "pickle"),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_hostile_pickle_never_runs(plant: str, store: Store, tmp_path: Path) -> None:
    kind, make, values = PLANTS[plant]
    ran = tmp_path / "ran"
    ran.mkdir()
    raws = [way(str(ran / str(number))) for number, way in enumerate(WAYS.values())]
    make(tmp_path / "old", raws)
    how: dict[str, Any] = {"values": values}
    dry = sqlstate.import_from(store, kind, tmp_path / "old", dry_run=True, **how)  # type: ignore[arg-type]
    assert (dry.read, len(dry.refused) >= len(raws) - 1) == (len(raws), True)
    assert any("the pickle needs os.mkdir, and only builtin types are built" in each.reason for each in dry.refused)
    with pytest.raises(ImportRejected, match=r"only builtin types are built"):
        sqlstate.import_from(store, kind, tmp_path / "old", **how)  # type: ignore[arg-type]
    sqlstate.import_from(store, kind, tmp_path / "old", skip_refused=True, **how)  # type: ignore[arg-type]
    assert [*ran.iterdir()] == []
    sqlstate.import_from(store, kind, tmp_path / "old", allow_pickle=True, skip_refused=True, **how)  # type: ignore[arg-type]
    assert len([*ran.iterdir()]) == len(raws), "each does run where that was asked for"


def test_a_key_that_has_no_end_when_it_is_shown_is_refused(store: Store, tmp_path: Path) -> None:
    plant_diskcache(tmp_path / "old", [DEEP + b"."], key=True)
    done = sqlstate.import_from(store, "diskcache", tmp_path / "old", skip_refused=True)
    assert [(each.key, each.reason[:24]) for each in done.refused] == [("?", "a key has at most 1,048,")]


def test_bytes_of_a_tinydb_or_a_directory_are_never_unpickled(store: Store, tmp_path: Path) -> None:
    raw = WAYS["REDUCE of a GLOBAL"](str(tmp_path / "ran"))
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x.pickle").write_bytes(raw)
    (tmp_path / "d/y.json").write_bytes(raw)
    (tmp_path / "t.json").write_bytes(raw)
    done = sqlstate.import_from(store, "dir", tmp_path / "d", allow_pickle=True, skip_refused=True)
    assert (dict(store["d"]), len(done.refused)) == ({"x.pickle": raw}, 1)
    with pytest.raises(ImportRejected):
        sqlstate.import_from(store, "tinydb", tmp_path / "t.json", allow_pickle=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "00/../../secret", "00/link", "00", "00/none", "a\0b"])
def test_no_file_outside_a_diskcache_is_read(name: str, store: Store, tmp_path: Path) -> None:
    plant_diskcache(tmp_path / "old", [pickle.dumps([1])], file=True)
    (tmp_path / "secret").write_bytes(pickle.dumps("secret"))
    symlink(tmp_path / "old/00/link", tmp_path / "secret")
    with closing(sqlite3.connect(tmp_path / "old/cache.db")) as db, db:
        db.execute("UPDATE Cache SET filename = ?", (name,))
    done = sqlstate.import_from(store, "diskcache", tmp_path / "old", skip_refused=True)
    assert (done.entries, len(done.refused)) == (0, 1)


# ---- What is no such file ----


def make_wrong(path: Path) -> Iterator[Path]:
    (path / "folder").mkdir()
    (path / "empty").write_bytes(b"")
    (path / "text").write_text("no store", encoding="utf-8")
    (path / "magic").write_bytes(b"SQLite format 3\0" + b"\xff" * 200)
    (path / "x.dir").write_bytes(b"(" * 5000)
    (path / "x.dat").write_bytes(b"")
    (path / "y.dir").write_bytes(b"'k', (0, 1000000000000000000)\n'l', ('a', None)\n")
    (path / "y.dat").write_bytes(b"")
    with closing(sqlite3.connect(path / "other")) as db, db:
        db.execute("CREATE TABLE t (a, b)")
        db.execute("CREATE VIEW Dict AS SELECT a AS key, b AS value FROM t")
    (path / "cached").mkdir()
    (path / "cached/cache.db").write_bytes((path / "other").read_bytes())
    mkfifo(path / "fifo")
    yield from (path / name for name in ("folder", "empty", "text", "magic", "x", "y", "other", "cached", "fifo"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_such_file_is_rejected_and_changes_nothing(kind: Any, store: Store, tmp_path: Path) -> None:
    if kind == "lmdb":
        pytest.importorskip("lmdb", reason="lmdb is not installed")
    with pytest.raises(FileNotFoundError):
        sqlstate.import_from(store, kind, tmp_path / "none")
    for path in make_wrong(tmp_path):
        if kind == "dir" and path.is_dir():
            continue
        with pytest.raises((ImportRejected, FileNotFoundError)):
            sqlstate.import_from(store, kind, path)
    assert store.head().seq == 0


def test_a_wrong_option_is_refused_before_anything_is_read(store: Store, tmp_path: Path) -> None:
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("redis", {}, "is not one of shelve, dbm"),
        ("dbm", {"key_type": "hex"}, "'hex'"),
        ("shelve", {"values": "json"}, "says itself"),
        ("diskcache", {"values": "text"}, "has json"),
        ("dbm", {"batch": 0}, "batch"),
    ]
    for kind, options, message in wrong:
        with pytest.raises(InvalidOption, match=message):
            sqlstate.import_from(store, kind, tmp_path / "none", **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidName):
        sqlstate.import_from(store, "dbm", tmp_path / "none", collection="")
    with pytest.raises(InvalidOption, match="the store itself"):
        sqlstate.import_from(store, "sqlitedict", store.path)
    with pytest.raises(InvalidOption, match="is not a store"):
        sqlstate.import_from({}, "dbm", tmp_path / "none")  # type: ignore[arg-type]
    make_dbm(tmp_path / "old", 1)
    with store.transaction(), pytest.raises(StoreUnusable, match="import_from"):
        sqlstate.import_from(store, "dbm", tmp_path / "old")


def test_batches_before_a_refused_entry_stay_and_the_error_says_so(store: Store, tmp_path: Path) -> None:
    sqlite_dbm(tmp_path / "s", {b"%d" % n: pickle.dumps(1j if n == 25 else n) for n in range(30)})
    with pytest.raises(ImportRejected, match=r"'s'\['25'\]: complex 1j has no plain form") as caught:
        sqlstate.import_from(store, "shelve", tmp_path / "s", batch=10)
    assert caught.value.__notes__ == [
        "20 entries of the transactions before stay imported",
        "nothing of this transaction was kept",
    ]
    assert store.head().count == 20
