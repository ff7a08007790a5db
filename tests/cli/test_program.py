"""The command line as its users meet it: exit codes, forms of output, what is on which stream, and real processes."""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import os
import shelve
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import pycountry
import pytest
from click.testing import CliRunner, Result

import sqlstate
from sqlstate import errors
from sqlstate.cli import main, program
from sqlstate.cli.exits import MEANINGS, Exit, exit_code
from sqlstate.cli.options import Settings
from sqlstate.cli.output import escaped, key_cell, printable, write
from tests.reference import plain
from tests.support.system import WINDOWS, says_it_is_missing, symlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ISO = Path(pycountry.DATABASE_DIR)
DEADLINE = 60.0
VERBS = list(program._VERBS)
READING = [
    ["get", "{}", "c", "k"],
    ["list", "{}", "c"],
    ["collections", "{}"],
    ["head", "{}"],
    ["log", "{}"],
    ["stats", "{}"],
    ["export", "{}"],
]


@pytest.fixture(autouse=True)
def _judged(tmp_path: Path) -> Iterator[None]:
    """Every store is judged whole when its test ends, unless the test damaged it and says so by its name."""
    yield
    for file in tmp_path.glob("*.db"):
        assert plain.judge(file).findings == (), f"{file.name} is not sound"


@pytest.fixture(autouse=True)
def _buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes buffer their output as they do for users, whatever this one does."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


@pytest.fixture
def db(tmp_path: Path) -> str:
    """Where a store lies, or will."""
    return str(tmp_path / "app.db")


@pytest.fixture(scope="session")
def geo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of the ISO lists: large enough to fill a pipe."""
    file = str(tmp_path_factory.mktemp("geo") / "geo.db")
    names = ["iso3166-1.json", "iso3166-2.json", "iso639-3.json"]
    good("import", file, *(str(ISO / name) for name in names), "--key", "code", "--key", "alpha_3")
    return file


def run(*arguments: str, input: bytes | str | None = None) -> Result:  # noqa: A002, click's word
    return CliRunner().invoke(main, arguments, input=input)


def good(*arguments: str, input: bytes | str | None = None) -> str:  # noqa: A002
    """Run, expect success and return what went to standard output."""
    result = run(*arguments, input=input)
    assert (result.exit_code, result.exception) == (0, None), result.stderr
    return result.stdout


def bad(code: int, *arguments: str, input: bytes | str | None = None) -> str:  # noqa: A002
    """Run, expect an exit code and nothing on standard output, and return what was said."""
    result = run(*arguments, input=input)
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


def entries(db: str) -> dict[str, dict[Any, Any]]:
    with sqlstate.open(db, create=False) as store:
        return {name: dict(store[name].items()) for name in store}


# ---- put, get, delete ----


@pytest.mark.parametrize(
    ("arguments", "stdin", "value"),
    [
        (['{"b":[1,2.5,null],"a":"é"}'], None, {"a": "é", "b": [1, 2.5, None]}),
        (["18446744073709551615"], None, 2**64 - 1),
        (["--", "-5"], None, -5),
        (["-"], ' {"a":1}\n', {"a": 1}),
        ([], "[]", []),
        (["-"], b"\xef\xbb\xbf7", 7),
        (["--text", "dark \n"], None, "dark \n"),
        (["--text", "-"], b"\xef\xbb\xbfx\r\n", "\ufeffx\r\n"),
        (["--text", ""], None, ""),
        (["--bytes", "hello"], None, b"hello"),
        (["--bytes"], b"\0\xff\n", b"\0\xff\n"),
        (["--bytes", ""], None, b""),
        (["--from", "{file}"], None, {"from": "a file"}),
        (["--from", "{file}", "--bytes"], None, b'{"from":"a file"}\n'),
        (["--from", "-", "--text"], "x", "x"),
    ],
)
def test_put_stores_exactly_what_it_is_given(
    db: str, tmp_path: Path, arguments: list[str], stdin: bytes | str | None, value: Any
) -> None:
    (tmp_path / "value.json").write_bytes(b'{"from":"a file"}\n')
    given = [
        argument.format(file=tmp_path / "value.json") if "{file}" in argument else argument for argument in arguments
    ]
    assert good("put", db, "c", "k", *given, input=stdin) == ""
    stored = entries(db)["c"]["k"]
    assert (stored, type(stored)) == (value, type(value))


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (["{"], None, "column 2 of the value: this is not JSON"),
        (["dark"], None, "this is not JSON"),
        (['{"a":1,"a":2}'], None, "twice"),
        (["NaN"], None, "NaN is not a number"),
        (["18446744073709551616"], None, "outside -2^63 to 2^64-1"),
        ([], b'"\xff"', "byte 2 is not UTF-8; --bytes"),
        (["--text"], b"\xff", "byte 1 is not UTF-8"),
        (["--text", "--bytes", "x"], None, "two forms"),
        (["--from", "x", "y"], None, "leave out VALUE"),
        (["-5"], None, "Put -- before"),
        (["1", "2"], None, "unexpected extra argument"),
        (["1", "--key-type", "int"], None, '"k" is not an int'),
        (["1", "--key-type", "hex"], None, "hexadecimal"),
        (["1", "--timeout", "-1"], None, "--timeout -1.0"),
        (["1", "--note", "x" * 5000], None, "4096 bytes"),
    ],
)
def test_put_refuses_what_it_cannot_store(db: str, arguments: list[str], stdin: bytes | None, said: str) -> None:
    assert said in bad(Exit.USAGE, "put", db, "c", "k", *arguments, input=stdin)
    if "--note" not in arguments and "--timeout" not in arguments:
        assert not Path(db).exists()  # what can be known before is known before a store is made


def test_put_makes_a_store_unless_told_not_to(db: str) -> None:
    assert "there is no file" in bad(Exit.CANNOT_OPEN, "put", db, "c", "k", "1", "--no-create")
    assert "1 to 255 bytes" in bad(Exit.USAGE, "put", db, "", "k", "1")
    assert "a key has" in bad(Exit.USAGE, "put", db, "c", "", "1")
    assert not Path(db).exists()
    good("put", db, "c", "k", "1")
    good("put", db, "c", "k2", "1", "--no-create")
    assert entries(db) == {"c": {"k": 1, "k2": 1}}


def test_put_says_what_it_did(db: str) -> None:
    first, again = run("put", db, "c", "k", "1"), run("put", db, "c", "k", "1")
    assert (first.stdout, first.stderr) == ("", "commit 1\n")
    assert (again.stdout, again.stderr) == ("", "the entry has this value already; no commit was made\n")
    result = run("put", db, "c", "k", "2", "--json", "--quiet", "--note", "by hand")
    assert result.stderr == ""
    with sqlstate.open(db) as store:
        assert json.loads(result.stdout) == {"changed": True, "seq": 2, "root": store.head().root.hex()}
        assert [record.note for record in store.wal.read() if record.kind == "BEGIN"] == ["", "by hand"]
    assert json.loads(good("put", db, "c", "k", "2", "--jsonl"))["changed"] is False


KEYS = [
    *(("ada", "str", "ada"), ("-7", "int", -7), ("7", "str", "7"), ("00fF", "hex", b"\0\xff"), ("-x", "str", "-x")),
    ('["ann", -9, {"$base64":true,"encoded":"AA=="}]', "tuple", sqlstate.pack_key(("ann", -9, b"\0"))),
]


@pytest.mark.parametrize(("text", "key_type", "key"), KEYS)
def test_keys_are_written_as_their_type_says(db: str, text: str, key_type: str, key: Any) -> None:
    options = ["--key-type", key_type, "--"]
    good("put", *options, db, "c", text, "true")
    assert entries(db) == {"c": {key: True}}
    assert good("get", *options, db, "c", text) == "true\n"
    good("delete", *options, db, "c", text)
    assert entries(db) == {}


@pytest.mark.parametrize(
    ("value", "shown", "raw"),
    [
        ({"b": 1e22, "a": [-0.0]}, '{"a":[-0.0],"b":1e22}', b'{"a":[-0.0],"b":1e22}'),
        ("line\nend", '"line\\nend"', b"line\nend"),
        (None, "null", b"null"),
        (b"\0\xff", '{"$base64":true,"encoded":"AP8="}', b"\0\xff"),
        ({"$json": 1}, '{"$json":{"$json":1}}', b'{"$json":1}'),
    ],
)
def test_get_prints_the_value(db: str, value: Any, shown: str, raw: bytes) -> None:
    with sqlstate.open(db) as store:
        store["c"]["k"] = value
    assert good("get", db, "c", "k") == good("get", db, "c", "k", "--json") == shown + "\n"
    assert CliRunner().invoke(main, ["get", db, "c", "k", "--raw"]).stdout_bytes == raw


def test_an_absent_entry_is_an_answer(db: str) -> None:
    good("put", db, "c", "k", "1")
    assert bad(Exit.NO, "get", db, "c", "x") == "error: 'c' has no entry 'x'\n"
    assert bad(Exit.NO, "get", db, "c", "x", "--quiet") == ""
    assert bad(Exit.NO, "get", db, "none", "k").startswith("error: 'none' has no entry")
    assert bad(Exit.NO, "delete", db, "c", "x", "--quiet") == ""


def test_delete_takes_all_or_none(db: str) -> None:
    for key in "abc":
        good("put", db, "c", key, "1")
    assert bad(Exit.NO, "delete", db, "c", "a", "x", "b") == "error: 'c' has no entry 'x'; nothing was deleted\n"
    assert list(entries(db)["c"]) == ["a", "b", "c"]
    result = run("delete", db, "c", "a", "x", "b", "a", "--missing-ok", "--json")
    assert (json.loads(result.stdout)["deleted"], result.stderr) == (2, "2 entries deleted, commit 4\n")
    assert list(entries(db)["c"]) == ["c"]
    assert run("delete", db, "c", "x", "--missing-ok").stderr == "nothing to delete; no commit was made\n"
    assert "Missing argument" in bad(Exit.USAGE, "delete", db, "c")
    missing = str(Path(db).with_name("none"))
    bad(Exit.CANNOT_OPEN, "delete", missing, "c", "x")
    assert not Path(missing).exists()


# ---- list, collections, head, log, stats ----


@pytest.fixture
def letters(db: str) -> str:
    with sqlstate.open(db) as store:
        store["c"].update({key: ord(key) for key in "abcde"} | {1: "one", b"\xff": b"bytes"})
        store["d"]["x"] = {"$json": 1}
    return db


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ([], [1, "a", "b", "c", "d", "e", b"\xff"]),
        (["--start", "b", "--stop", "d"], ["b", "c"]),
        (["--prefix", "c"], ["c"]),
        (["--reverse", "--limit", "2"], [b"\xff", "e"]),
        (["--limit", "0"], []),
        (["--start", "0", "--stop", "2", "--key-type", "int"], [1]),
        (["--prefix", "ff", "--key-type", "hex"], [b"\xff"]),
        (["--start", "x", "--stop", "b"], []),
    ],
)
@pytest.mark.parametrize("keys_only", [False, True])
def test_list_prints_what_is_asked_in_order(letters: str, options: list[str], keys: list[Any], keys_only: bool) -> None:
    form = {b"\xff": {"$base64": True, "encoded": "/w=="}}
    values = {1: "one", b"\xff": {"$base64": True, "encoded": "Ynl0ZXM="}} | {key: ord(key) for key in "abcde"}
    more = ["--keys"] if keys_only else []
    expected = [
        {"collection": "c", "key": form.get(key, key)} | ({} if keys_only else {"value": values[key]}) for key in keys
    ]
    lines = good("list", letters, "c", *options, *more)
    assert [json.loads(line) for line in lines.splitlines()] == expected
    assert good("list", letters, "c", *options, *more, "--jsonl") == lines
    assert json.loads(good("list", letters, "c", *options, *more, "--json")) == expected


def test_what_list_prints_can_be_imported(letters: str, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy.db")
    for name in ("c", "d"):
        good("import", copy, "-", "--format", "jsonl", input=good("list", letters, name))
    assert json.loads(good("head", copy))["root"] == json.loads(good("head", letters))["root"]


def test_list_refuses_bounds_that_contradict(letters: str) -> None:
    assert "prefix=" in bad(Exit.USAGE, "list", letters, "c", "--prefix", "a", "--start", "b")
    bad(Exit.USAGE, "list", letters, "c", "--limit", "-1")
    bad(Exit.USAGE, "list", letters, "c", "--prefix", "1", "--key-type", "int")
    result = run("list", letters, "none", "--json")
    assert (result.exit_code, json.loads(result.stdout), result.stderr) == (0, [], "no entries\n")


def test_collections_head_and_stats_print_what_the_store_says(letters: str) -> None:
    with sqlstate.open(letters) as store:
        head, stats = store.head(), store.stats()
    assert good("collections", letters) == '{"collection":"c","entries":7}\n{"collection":"d","entries":1}\n'
    assert json.loads(good("collections", letters, "--json"))[1] == {"collection": "d", "entries": 1}
    printed = json.loads(good("head", letters))
    assert printed == {"seq": 2, "root": head.root.hex(), "chain": head.chain.hex(), "count": 8, "at": head.at}
    printed = json.loads(good("stats", letters))
    assert printed["path"] == letters
    for name in (
        "store_id",
        "format",
        "seq",
        "entries",
        "collections",
        "levels",
        "nodes",
        "records",
        "journal",
        "sqlite",
    ):
        assert printed[name] == getattr(stats, name), name


def test_log_prints_records_and_commits(db: str) -> None:
    with sqlstate.open(db) as store:
        with store.transaction("a note"):
            store["c"][b"\xff"] = {"$json": 1}
        store["c"][b"\xff"] = b""
        del store["c"][b"\xff"]
        session = store.wal.append("BEGIN").session
        heads = list(store.commits())
        closing = list(store.wal.read())[2]
    assert session is not None
    assert closing.records is not None
    lines = [json.loads(line) for line in good("log", db).splitlines()]
    key = {"$base64": True, "encoded": "/w=="}
    assert lines[:2] == [
        {"lsn": 1, "txn": 1, "kind": "BEGIN", "note": "a note"},
        {"lsn": 2, "txn": 1, "kind": "PUT", "collection": "c", "key": key, "value": {"$json": {"$json": 1}}},
    ]
    assert lines[2] == {
        "lsn": 3, "txn": 1, "kind": "COMMIT", "seq": 1, "root": heads[0].root.hex(), "count": 1, "at": heads[0].at,
        "chain": heads[0].chain.hex(), "records": closing.records.hex(), "total": closing.total,
    }  # fmt: skip
    assert lines[4]["before"] == {"$json": {"$json": 1}}
    assert lines[4]["value"] == {"$base64": True, "encoded": ""}
    assert (lines[7]["kind"], "value" in lines[7], lines[7]["before"]) == ("DELETE", False, lines[4]["value"])
    assert lines[9]["session"] == session.hex()
    assert json.loads(good("log", db, "--json")) == lines
    assert [json.loads(line) for line in good("log", db, "--after", "3", "--limit", "2").splitlines()] == lines[3:5]
    commits = [json.loads(line) for line in good("log", db, "--commits").splitlines()]
    assert [commit["seq"] for commit in commits] == [1, 2, 3]
    assert commits[-1] == json.loads(good("head", db))
    assert [
        json.loads(line)["seq"] for line in good("log", db, "--commits", "--after", "1", "--limit", "1").splitlines()
    ] == [2]
    assert run("log", db, "--commits", "--after", "3").stderr == "no commits\n"


# ---- import, export ----


@pytest.mark.slow
def test_import_takes_the_iso_files_whole_and_once(db: str) -> None:
    names = ["iso3166-1.json", "iso3166-2.json", "iso639-3.json"]
    records = {name[3:-5]: json.loads((ISO / name).read_text(encoding="utf-8"))[name[3:-5]] for name in names}
    command = ["import", db, *(str(ISO / name) for name in names), "--key", "code", "--key", "alpha_3"]
    count = sum(map(len, records.values()))
    result = run(*command, "--json")
    assert result.stderr == f"{count:,} entries read, {count:,} changed; commit 1\n"
    done = json.loads(result.stdout)
    assert (done["sources"], done["entries"], done["changed"], done["commits"], done["seq"]) == (3, count, count, 1, 1)
    printed = [json.loads(line) for line in good("collections", db).splitlines()]
    assert printed == [{"collection": name, "entries": len(listed)} for name, listed in records.items()]
    assert json.loads(good("get", db, "3166-1", "CHE"))["flag"] == "🇨🇭"
    again = run(*command)
    assert again.stderr == f"{count:,} entries read, 0 changed; no commit was made\n"
    assert json.loads(good("head", db))["seq"] == 1


def test_import_reads_standard_input_csv_and_options(db: str) -> None:
    csv_text = "id,name\n1,Ada\n2,Bob\n3," + "x" * 200_000 + "\n"  # longer than the csv module takes by itself
    options = ["--format", "csv", "--collection", "people", "--key", "id", "--key-type", "int", "--batch", "2"]
    good("import", db, "-", *options, "--note", "people", input=csv_text)
    assert entries(db)["people"][2] == {"id": "2", "name": "Bob"}
    assert len(entries(db)["people"][3]["name"]) == 200_000
    with sqlstate.open(db) as store:
        assert [record.note for record in store.wal.read() if record.kind == "BEGIN"] == ["people", "people"]


def test_import_takes_another_store_and_lists_what_it_refuses(db: str, tmp_path: Path) -> None:
    old = str(tmp_path / "old")
    with shelve.open(old) as file:  # noqa: S301
        file["theme"], file["size"], file["wave"] = "dark", (800, 600), 1j
    command = ["import", db, "--from", "shelve", old]
    dry_run = run(*command, "--dry-run")
    assert dry_run.exit_code == Exit.NO
    assert dry_run.stderr == "3 entries read: 2 can be stored (1 made plain), 1 refused\n"
    assert not Path(db).exists()
    refused = {"collection": "old", "key": "'wave'", "reason": "complex 1j has no plain form"}
    dry = json.loads(run(*command, "--dry-run", "--json").stdout)
    assert dry == {"read": 3, "entries": 2, "made_plain": 1, "refused": [refused]}
    assert "3 entries read: 1 can be stored, 2 refused\n" in run(*command, "--dry-run", "--exact").stderr
    said = bad(Exit.USAGE, *command)
    advice = "--dry-run lists all such entries, and --skip-refused leaves them out"
    assert f"old, 'old'['wave']: {refused['reason']}. {advice}" in said
    done = json.loads(good(*command, "--skip-refused", "--json", "--batch", "1", "--note", "moved"))
    assert (done["read"], done["entries"], done["changed"], done["commits"], done["seq"]) == (3, 2, 2, 2, 2)
    assert (done["made_plain"], done["refused"]) == (1, [refused])
    assert (good("get", db, "old", "theme"), good("get", db, "old", "size")) == ('"dark"\n', "[800,600]\n")
    again = run(*command, "--skip-refused")
    assert json.loads(again.stdout)["key"] == "'wave'"
    assert again.stderr == "3 entries read, 0 changed, 1 made plain, 1 refused; no commit was made\n"


def test_import_of_pickles_runs_them_only_when_asked_and_says_so(db: str, tmp_path: Path) -> None:
    old, ran = str(tmp_path / "old"), tmp_path / "ran"

    class Runs:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(ran),)

    with shelve.open(old) as file:  # noqa: S301
        file["k"] = Runs()
    command = ["import", db, "--from", "shelve", old, "--quiet"]
    assert "only builtin types are built" in bad(Exit.USAGE, *command)
    assert not ran.exists()
    warning = f"warning: --allow-pickle runs whatever code is in the pickles of {old}\n"
    assert run(*command, "--allow-pickle").stderr == warning
    assert ran.exists()


def test_options_of_the_two_kinds_of_import_are_told_apart(db: str, tmp_path: Path) -> None:
    source = str(tmp_path / "a.csv")
    Path(source).write_text("a,b\n1,2\n", encoding="utf-8")
    for options, message in (
        (["--dry-run"], "--dry-run goes only with --from"),
        (["--values", "json"], "--values goes only with --from"),
        (["--from", "dbm", "--format", "csv"], "--format goes not with --from"),
        (["--from", "dbm", "--key", "a"], "--key goes not with --from"),
        (["--from", "dbm", source], "--from takes one SOURCE"),
        (["--from", "shelve", "--values", "json"], "--values 'json' does not go with shelve"),
        (["--key-type", "bytes", "--key", "a"], "--key-type bytes goes with --from"),
        (["--key", 'a,"b'], "no list of fields"),
        (["--key", "a", "--row-numbers"], "one of both"),
    ):
        assert message in bad(Exit.USAGE, "import", db, source, *options), options
    assert not Path(db).exists()
    good("import", db, source, "--key", "a,b")
    good("import", db, source, "--row-numbers", "--collection", "rows")
    assert json.loads(good("list", db, "a", "--key-type", "tuple"))["key"] == ["1", "2"]
    assert json.loads(good("list", db, "rows"))["key"] == 1
    good("import", db, "-", "--format", "csv", "--collection", "c", "--key", '"x,y"', input='"x,y",z\n5,6\n')
    assert json.loads(good("list", db, "c"))["key"] == "5"


def test_import_that_is_refused_says_where_and_changes_nothing(db: str, tmp_path: Path) -> None:
    source = tmp_path / "users.json"
    source.write_text('{"users":\n{"ada":1,"ada":2}}', encoding="utf-8")
    said = bad(Exit.USAGE, "import", db, str(source))
    assert said == (
        f'error: {source}, line 2, column 10: the member "ada" is given twice in one object; nothing was imported\n'
    )
    assert entries(db) == {}
    other = str(tmp_path / "other.db")
    assert "does not say what it is" in bad(Exit.USAGE, "import", other, "-", input="{}")
    assert says_it_is_missing() in bad(Exit.IO, "import", other, str(tmp_path / "none.json"))
    assert "read once" in bad(Exit.USAGE, "import", other, "-", "-", "--format", "json", input="{}")
    assert "Missing argument" in bad(Exit.USAGE, "import", other)
    bad(Exit.CANNOT_OPEN, "import", other, "-", "--format", "json", "--no-create", input="{}")
    assert not Path(other).exists()
    good("import", other, "-", "--format", "json", input="{}")
    assert Path(other).exists()


def test_export_writes_the_same_lines_to_standard_output_and_to_a_file(letters: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    result = run("export", letters, "-o", str(out), "--json")
    head = json.loads(good("head", letters))
    assert json.loads(result.stdout) == {
        "entries": 8, "bytes": out.stat().st_size, "seq": head["seq"], "root": head["root"],
    }  # fmt: skip
    assert result.stderr == f"8 entries of commit 2 written, {out.stat().st_size} bytes\n"
    assert good("export", letters) == good("export", letters, "-o", "-") == out.read_text(encoding="utf-8")
    assert good("export", letters, "d", "--jsonl") == '{"collection":"d","key":"x","value":{"$json":{"$json":1}}}\n'
    good("export", letters, "d", "-o", str(out), "--quiet")
    assert out.read_text(encoding="utf-8") == good("export", letters, "d")


def test_export_refuses_what_would_do_harm(letters: str, tmp_path: Path) -> None:
    before = Path(letters).read_bytes()
    symlink(tmp_path / "link", letters)
    for name in ("app.db", "app.db-wal", "link"):
        assert "the store itself" in bad(Exit.USAGE, "export", letters, "-o", str(tmp_path / name))
    assert "not a regular file" in bad(Exit.USAGE, "export", letters, "-o", str(tmp_path))
    assert "no collection 'none'" in bad(Exit.NO, "export", letters, "c", "none", "-o", str(tmp_path / "out"))
    assert "needs -o" in bad(Exit.USAGE, "export", letters, "--json")
    assert says_it_is_missing() in bad(Exit.IO, "export", letters, "-o", str(tmp_path / "none" / "out"))
    assert {file.name for file in tmp_path.iterdir()} - {"app.db-wal", "app.db-shm"} == {"app.db", "link"}
    assert Path(letters).read_bytes() == before


@pytest.mark.slow
def test_an_imported_export_has_the_same_root(geo: str, tmp_path: Path) -> None:
    copy, out = str(tmp_path / "copy.db"), str(tmp_path / "out.jsonl")
    good("export", geo, "-o", out)
    good("import", copy, out)
    assert json.loads(good("head", copy))["root"] == json.loads(good("head", geo))["root"]


# ---- Exit codes and errors ----


def all_errors() -> list[type[errors.StoreError]]:
    return [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.StoreError)]


def made(kind: type[BaseException]) -> BaseException:
    """An exception of that type, whatever its arguments are."""
    return kind.__new__(kind)


@pytest.mark.parametrize("kind", all_errors())
def test_each_error_has_its_exit_code(kind: type[errors.StoreError]) -> None:
    """Some can hardly be brought about here: a full disk, an unknown outcome. The mapping is what is tested."""
    families: list[tuple[type[BaseException], Exit]] = [
        (errors.EntryNotFound, Exit.NO),
        (errors.Conflict, Exit.NO),
        (errors.LogCut, Exit.NO),
        (errors.ValueRedacted, Exit.NO),
        (errors.ProofInvalid, Exit.NO),
        (errors.InvalidInput, Exit.USAGE),
        (errors.ImportRejected, Exit.USAGE),
        (errors.RestoreRejected, Exit.USAGE),
        (errors.Damaged, Exit.DAMAGED),
        (errors.Busy, Exit.BUSY),
        (errors.CannotOpen, Exit.CANNOT_OPEN),
        (errors.ReadOnly, Exit.CANNOT_OPEN),
        (errors.StoreFull, Exit.IO),
        (errors.StoreIOError, Exit.IO),
        (errors.CommitOutcomeUnknown, Exit.IO),
        (errors.StoreUnusable, Exit.IO),
        (errors.StoreError, Exit.IO),
    ]
    assert exit_code(made(kind)) is next(code for family, code in families if issubclass(kind, family))


def test_other_errors_have_theirs() -> None:
    assert exit_code(PermissionError()) is Exit.IO
    assert exit_code(BrokenPipeError()) is Exit.CLOSED_PIPE
    assert exit_code(KeyboardInterrupt()) is Exit.INTERRUPTED
    assert exit_code(ZeroDivisionError()) is Exit.BUG
    assert [int(code) for code in MEANINGS] == [0, 1, 2, 3, 4, 5, 6, 70, 130, 141]


def test_a_file_that_is_no_store_cannot_be_opened(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "foreign")) as foreign, foreign:
        foreign.execute("CREATE TABLE t (x)")
    (tmp_path / "text").write_text("no database " * 100, encoding="utf-8")
    (tmp_path / "empty").touch()
    good("put", str(tmp_path / "newer"), "c", "k", "1")
    with closing(sqlite3.connect(tmp_path / "newer")) as newer, newer:
        newer.execute("PRAGMA user_version = 99")
    said = {
        name: bad(Exit.CANNOT_OPEN, "head", str(tmp_path / name))
        for name in ("foreign", "text", "empty", "newer", ".", "none")
    }
    assert "another program" in said["foreign"]
    assert "format 99" in said["newer"]
    assert "folder" in said["."]
    assert all(text.startswith("error: ") and text.count("\n") == 1 for text in said.values())
    assert "another program" in bad(Exit.CANNOT_OPEN, "put", str(tmp_path / "foreign"), "c", "k", "1")


@pytest.mark.parametrize("arguments", READING, ids=lambda arguments: arguments[0])
def test_a_reading_verb_makes_nothing_and_changes_nothing(db: str, arguments: list[str]) -> None:
    command = [argument.format(db) for argument in arguments]
    bad(Exit.CANNOT_OPEN, *command)
    assert not Path(db).exists()
    good("put", db, "c", "k", "1")
    before = Path(db).read_bytes()
    good(*command)
    assert Path(db).read_bytes() == before


def test_a_store_opened_for_reading_cannot_be_written(db: str) -> None:
    good("put", db, "c", "k", "1")
    with Settings().read(db) as store, pytest.raises(errors.ReadOnly):
        store["c"]["k"] = 2


@pytest.mark.parametrize(
    ("sql", "command"),
    [
        ("UPDATE merkle SET children = zeroblob(40)", ["put", "{}", "c", "k", "2"]),
        ("UPDATE state SET value = '{'", ["get", "{}", "c", "k"]),
        ("UPDATE state SET value = '{'", ["list", "{}", "c"]),
        ("UPDATE state SET value = '{'", ["export", "{}"]),
        ("DROP TABLE merkle", ["head", "{}"]),
    ],
)
def test_a_damaged_store_has_its_exit_code(tmp_path: Path, sql: str, command: list[str]) -> None:
    file = str(tmp_path / "damaged")  # its name keeps it from the judge
    good("put", file, "c", "k", "1")
    with closing(sqlite3.connect(file)) as db, db:
        db.execute(sql)
    said = bad(Exit.DAMAGED, *(argument.format(file) for argument in command))
    assert said.startswith("error: ")


def test_a_writer_that_waits_in_vain_is_busy(db: str) -> None:
    with sqlstate.open(db) as store, store.transaction() as txn:
        txn.put("c", "k", 1)
        txn["c"].clear()  # applied now, so that the lock is held
        result = subprocess.run(
            [*PROGRAM, "put", db, "c", "k", "2", "--timeout", "0", "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
    assert (result.returncode, result.stdout) == (Exit.BUSY, "")
    human, machine = result.stderr.splitlines()
    assert human.startswith("error: ")
    error = json.loads(machine)["error"]
    assert error["code"] == "Busy"
    assert human == f"error: {error['message']}"


def test_errors_are_sentences_and_json_on_request(db: str) -> None:
    said = bad(Exit.USAGE, "put", db, "c", "--json")
    usage, human, machine = said.splitlines()
    assert usage.startswith("Usage: ")
    assert human.startswith("error: Missing argument 'KEY'.")
    assert json.loads(machine) == {"error": {"code": "MissingParameter", "message": human.removeprefix("error: ")}}
    assert '"StoreMissing"' in bad(Exit.CANNOT_OPEN, "head", db, "--jsonl")
    assert "{" not in bad(Exit.USAGE, "put", db, "c", "k", "--", "--json")  # a value, not an option
    assert "two forms" in bad(Exit.USAGE, "head", db, "--json", "--jsonl")
    assert "No such command 'frob'" in bad(Exit.USAGE, "frob")


def test_a_bug_is_told_as_one_and_never_as_a_traceback(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(sqlstate, "open", broken)
    monkeypatch.delenv("SQLSTATE_DEBUG", raising=False)
    assert "error: ZeroDivisionError: by zero. This is a bug" in bad(Exit.BUG, "head", db)
    monkeypatch.setenv("SQLSTATE_DEBUG", "1")
    assert run("head", db).exit_code == Exit.BUG
    assert "in broken" in CliRunner().invoke(main, ["head", db]).stderr


def test_what_is_said_cannot_command_a_terminal(db: str) -> None:
    said = bad(Exit.CANNOT_OPEN, "head", db + "\x1b[31m\x9b\u202e")
    assert "app.db\\x1b[31m\\x9b\\u202e" in said
    assert said.isascii()
    assert printable("a\x1b[31m\u202e\né") == "a\\x1b[31m\\u202e\né"
    assert escaped('{"a":"\x9b\U000e0001é"}') == '{"a":"\\u009b\\udb40\\udc01é"}'
    assert json.loads(escaped('{"a":"\x9b\U000e0001é"}')) == {"a": "\x9b\U000e0001é"}


def test_keys_are_told_apart_in_a_table() -> None:
    keys: list[int | str | bytes] = [
        7,
        "7",
        "-7",
        -7,
        b"7",
        "x'37'",
        "ada",
        '"ada"',
        " ada",
        "a\nb",
        "a\\nb",
        "é",
        b"\xff" * 100,
    ]
    assert [key_cell(key) for key in keys[:8]] == ["7", '"7"', '"-7"', "-7", "x'37'", "\"x'37'\"", "ada", '"\\"ada\\""']
    assert len({key_cell(key) for key in keys}) == len(keys)


# ---- Every verb ----


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_the_common_options(verb: str) -> None:
    text = good(verb, "--help")
    assert text.startswith((f"Usage: main {verb} ", f"Usage: sqlstate {verb} "))
    if verb != "completion":
        for option in ("--timeout SECONDS", "--quiet", "--json ", "--jsonl"):
            assert option in text, option


def test_help_lists_verbs_exit_codes_and_completion() -> None:
    text = good("--help")
    assert [verb for verb in VERBS if f"  {verb} " not in text] == []
    assert [code for code, meaning in MEANINGS.items() if f"{code:>3}  {meaning}" not in text] == []
    assert 'eval "$(sqlstate completion bash)"' in text
    assert bad(Exit.USAGE) == text
    assert good("-h") == text
    assert good("--version") == f"sqlstate {sqlstate.__version__}\n"


def test_no_module_is_imported_before_its_verb_is_used() -> None:
    code = """
import sys
from sqlstate.cli import main
try:
    main(["--version"])
except SystemExit as e:
    assert not e.code
print(*sorted(name for name in sys.modules if name.startswith("sqlstate.")), "csv" in sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "sqlstate.cli.program" in printed
    assert [
        name
        for name in printed
        if name
        in ("sqlstate.cli.transfer.import_export", "sqlstate.cli.transfer.forms", "sqlstate.cli.commands.entries")
    ] == []
    assert printed[-1] == "False"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell: str) -> None:
    script = good("completion", shell)
    assert f"_SQLSTATE_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n", "/dev/stdin"], input=script, text=True, check=True, capture_output=True)


def test_completion_knows_verbs_and_options() -> None:
    def completed(*words: str) -> list[str]:
        code = "from sqlstate.cli import main; main(prog_name='sqlstate')"
        environment = os.environ | {
            "_SQLSTATE_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1),
        }  # fmt: skip
        result = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        return result.stdout.split()

    assert completed("sqlstate", "ex") == ["plain,export"]
    assert completed("sqlstate", "list", "--re") == ["plain,--reverse"]


# ---- Real processes ----

PROGRAM = [sys.executable, "-m", "sqlstate"]


def test_a_closed_pipe_ends_quietly(geo: str) -> None:
    for command in (["export", geo], ["list", geo, "639-3", "--json"], ["log", geo], ["log", geo, "--jsonl"]):
        with subprocess.Popen([*PROGRAM, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.read(10)
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == Exit.CLOSED_PIPE


def test_a_pipe_that_is_closed_from_the_start_ends_quietly_too(geo: str) -> None:
    for command in (["--help"], ["put", "--help"], ["--version"], ["head", geo]):
        reading, writing = os.pipe()
        os.close(reading)
        result = subprocess.run([*PROGRAM, *command], stdout=writing, stderr=subprocess.PIPE, check=False)
        os.close(writing)
        assert (result.returncode, result.stderr) == (Exit.CLOSED_PIPE, b""), command


def test_a_stream_that_takes_little_at_a_time_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unbuffered one can, and what is left over must not be lost."""
    taken: list[bytes] = []

    class Slow(io.BytesIO):
        def write(self, data: Any) -> int:
            taken.append(bytes(data[:3]))
            return len(taken[-1])

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(Slow()))
    write(b"0123456789")
    assert taken == [b"012", b"345", b"678", b"9"]


@pytest.mark.skipif(WINDOWS or not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_standard_output_is_an_error_even_for_a_short_answer(
    geo: str, monkeypatch: pytest.MonkeyPatch, unbuffered: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    for command in (["export", geo], ["head", geo], ["get", geo, "3166-1", "CHE"]):
        with Path("/dev/full").open("wb") as full:
            result = subprocess.run([*PROGRAM, *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert (result.returncode, result.stderr) == (Exit.IO, "error: standard output: No space left on device\n")


def test_a_closed_standard_output_is_an_error(geo: str) -> None:
    result = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *PROGRAM, "head", geo], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (Exit.IO, "error: standard output: is closed\n")


def limited_files() -> None:
    """No file can grow beyond 200 kB, as if the disk had an end there."""
    resource = import_module("resource")
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


def test_a_file_that_cannot_grow_leaves_store_and_target_as_they_were(geo: str, db: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("old", encoding="utf-8")
    good("put", db, "c", "k", "1")
    before = json.loads(good("head", db))
    source = str(ISO / "iso639-3.json")
    for command in (["export", geo, "-o", str(out)], ["import", db, source, "--key", "alpha_3"]):
        result = subprocess.run(
            [*PROGRAM, *command],
            preexec_fn=limited_files,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode, result.stdout) == (Exit.IO, ""), result.stderr
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
    assert out.read_text(encoding="utf-8") == "old"
    assert [file.name for file in tmp_path.iterdir() if file.name.endswith(".tmp")] == []
    assert json.loads(good("head", db)) == before


def wait_for(what: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + DEADLINE
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def commits(db: str) -> int:
    result = run("head", db)  # it may be in the making
    return json.loads(result.stdout)["seq"] if result.exit_code == 0 else 0


def unread(process: subprocess.Popen[bytes]) -> int:
    """How many bytes of its standard input the process has not read yet: it reads inside its transaction."""
    import fcntl  # noqa: PLC0415, Windows has neither
    import termios  # noqa: PLC0415

    assert process.stdin is not None
    return int.from_bytes(fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4)), sys.byteorder)


def importing(db: str, *options: str) -> subprocess.Popen[bytes]:
    """A process that has read three lines and waits for more."""
    command = [*PROGRAM, "import", db, "-", "--format", "jsonl", *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"".join(b'{"collection":"c","key":%d,"value":0}\n' % number for number in range(3)))
    process.stdin.flush()
    return process


def test_an_interrupted_import_keeps_nothing_of_its_transaction(db: str) -> None:
    good("put", db, "c", "before", "1")
    with importing(db) as process:
        wait_for(lambda: not unread(process), process)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out) == (Exit.INTERRUPTED, b"")
    assert said.decode().endswith("is undone; nothing was imported\n")
    assert b"Traceback" not in said
    assert entries(db)["c"] == {"before": 1}
    good("put", db, "c", "after", "1", "--timeout", "0")


def test_an_interrupted_import_in_batches_keeps_those_before(db: str) -> None:
    with importing(db, "--batch", "2", "--json") as process:
        wait_for(lambda: commits(db) == 1, process)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out) == (Exit.INTERRUPTED, b"")
    # We can see the commit before the program knows that it is through; what it says is true in either case.
    kept = b"2 entries of the transactions before stay imported; nothing of this transaction was kept\n"
    assert kept in said or b"not certain" in said
    assert json.loads(said.splitlines()[-1])["error"]["code"] == "Interrupted"
    assert entries(db) == {"c": {0: 0, 1: 0}}


class Terminal(NamedTuple):
    """What a program did on a terminal."""

    code: int
    shown: str


def on_terminal(*arguments: str, columns: int = 80, stdout: bool = True, **environment: str) -> Terminal:
    """Run with standard error, and standard output unless told not to, on a terminal."""
    pty, fcntl, termios = (pytest.importorskip(name) for name in ("pty", "fcntl", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    clean = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "TERM")}
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=theirs,
        stdout=theirs if stdout else subprocess.DEVNULL,
        stderr=theirs,
        env=clean | {"TERM": "xterm"} | environment,
    )
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:
        pass  # all that had the terminal open are gone
    finally:
        os.close(ours)
    return Terminal(process.wait(timeout=DEADLINE), shown.decode().replace("\r\n", "\n"))


@pytest.mark.slow
def test_a_terminal_gets_tables_that_fit_it(db: str) -> None:
    with sqlstate.open(db) as store:
        store["c"].update(
            {"ada": {"name": "Ada Lovelace", "born": 1815}, "漢字": "x" * 100, 7: "\x9b31m", b"\xff": b"abc"}
        )
    code, shown = on_terminal("list", db, "c", columns=40)
    assert code == 0
    assert shown == (
        "KEY    VALUE\n"
        '7      "\\u009b31m"\n'
        'ada    {"born":1815,"name":"Ada Lovelac…\n'
        '漢字   "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…\n'
        "x'ff'  3 bytes x'616263'\n"
    )
    assert on_terminal("list", db, "c", "--jsonl").shown == good("list", db, "c")[:-1].replace("\x9b", "\\u009b") + "\n"
    assert on_terminal("collections", db).shown == "COLLECTION  ENTRIES\nc                 4\n"
    assert on_terminal("list", db, "none").shown == "no entries\n"
    assert on_terminal("get", db, "c", "ada").shown == '{\n  "born": 1815,\n  "name": "Ada Lovelace"\n}\n'
    assert on_terminal("get", db, "c", "7", "--key-type", "int").shown == '"\\u009b31m"\n'
    assert on_terminal("export", db).shown.splitlines()[0].endswith('"\\u009b31m"}')
    assert on_terminal("get", db, "c", "ada", "--json").shown == '{"born":1815,"name":"Ada Lovelace"}\n'
    head = json.loads(good("head", db))
    assert on_terminal("head", db).shown.splitlines()[:2] == ["seq    1", f"root   {head['root']}"]
    rows = on_terminal("log", db).shown.splitlines()
    assert rows[0].split() == ["LSN", "TXN", "KIND", "COLLECTION", "KEY", "WHAT"]
    assert rows[3] == '  3    1  PUT     c           ada    {"born":1815,"name":"Ada Lovelace"}'
    assert f"seq 1, 4 entries, {head['at']}"[:25] in rows[6]
    assert max(map(len, rows)) <= 80


def test_errors_are_red_on_a_terminal_unless_it_should_not_be(db: str) -> None:
    assert on_terminal("head", db).shown.startswith("\x1b[31m\x1b[1merror:\x1b[0m there is no file")
    assert on_terminal("head", db, NO_COLOR="1").shown.startswith("error: there is no file")
    assert on_terminal("head", db, TERM="dumb").shown.startswith("error: there is no file")


def test_progress_shows_on_a_terminal_only_and_on_standard_error(db: str, tmp_path: Path) -> None:
    command = ["import", db, str(ISO / "iso639-3.json"), "--key", "alpha_3"]
    code, shown = on_terminal(*command, stdout=False)
    assert code == 0
    assert "100%" in shown
    assert shown.endswith("changed; commit 1\n")
    export = ["export", db, "-o", str(tmp_path / "out")]
    assert "100%" in on_terminal(*export).shown
    assert on_terminal(*export, "--quiet") == Terminal(0, "")
    assert "%" not in run(*export).stderr


def test_put_asks_for_a_value_instead_of_waiting_on_a_terminal(db: str) -> None:
    code, shown = on_terminal("put", db, "c", "k")
    assert code == Exit.USAGE
    assert "Missing VALUE" in shown


def test_the_installed_script_is_the_program(geo: str) -> None:
    script = Path(sys.executable).with_name("sqlstate")
    if not script.exists():
        pytest.skip("sqlstate is not installed beside this Python")
    result = subprocess.run([script, "get", geo, "3166-1", "CHE", "--raw"], capture_output=True, check=True)
    assert json.loads(result.stdout)["name"] == "Switzerland"


def test_the_same_export_twice_is_the_same_bytes(geo: str) -> None:
    digests = {
        hashlib.sha256(subprocess.run([*PROGRAM, "export", geo], capture_output=True, check=True).stdout).hexdigest()
        for _ in range(2)
    }
    assert len(digests) == 1


def test_a_click_error_of_any_kind_is_usage() -> None:
    kinds: Sequence[BaseException] = (click.UsageError("x"), click.FileError("x"), click.BadParameter("x"))
    assert {exit_code(kind) for kind in kinds} == {Exit.USAGE}
