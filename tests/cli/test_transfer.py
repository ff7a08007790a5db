"""Import and export: what goes out comes back the same, and what cannot come in leaves everything as it was."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import sqlite3
import stat
import sys
import tracemalloc
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pycountry
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import sqlstate
from sqlstate.cli.options import parse_key, shown_key
from sqlstate.cli.transfer import forms as exchange
from sqlstate.cli.transfer import import_export as transfer
from sqlstate.cli.transfer.exported import entry_text, key_text
from sqlstate.cli.transfer.forms import Source
from sqlstate.cli.transfer.import_export import (
    check_sources,
    export_file,
    export_lines,
    import_sources,
    put_entry,
    stored_view,
)
from sqlstate.cli.transfer.reading import Reading
from sqlstate.errors import Damaged, ImportRejected, InvalidName, InvalidOption, InvalidValue, ReadOnly, StoreMissing
from sqlstate.files.identity import belongs_to
from sqlstate.format import values
from sqlstate.format.keys import pack_key
from sqlstate.importing import exact_json
from sqlstate.importing import seen as seen_names
from sqlstate.importing.encoding import encode_entry
from sqlstate.importing.exact_json import parse, parse_document
from tests.reference import plain
from tests.support.system import WINDOWS, has_mode, mkfifo, symlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlstate import Store
    from tests.conftest import OpenStore

ISO = Path(pycountry.DATABASE_DIR)


def text_source(text: str | bytes, name: str = "the stream") -> Source:
    return Source(name, io.BytesIO(text if isinstance(text, bytes) else text.encode()))


def take(store: Store, text: str | bytes, format_: str = "jsonl", **how: Any) -> transfer.Imported:
    """Import one text."""
    return import_sources(store, [text_source(text)], Reading(format=format_, **how))  # type: ignore[arg-type]


def exported(store: Store, collections: list[str] | None = None) -> list[str]:
    with store.snapshot() as view:
        return [line.decode().removesuffix("\n") for line in export_lines(view, collections)]


def content(store: Store) -> dict[str, dict[Any, Any]]:
    """All entries; comparing with it tells 1 from 1.0 and True."""
    return {name: {key: exact(value) for key, value in store[name].items()} for name in store.collections()}


def exact(value: Any) -> Any:
    return value if isinstance(value, bytes) else json.dumps(value, sort_keys=True)


def exactly(collections: dict[str, dict[Any, Any]]) -> dict[str, dict[Any, Any]]:
    return {name: {key: exact(value) for key, value in entries.items()} for name, entries in collections.items()}


# ---- Out and in again ----

text_ = st.text(st.characters(codec="utf-8"), max_size=6)
some_text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
member_names = text_ | st.sampled_from(["$base64", "$json", "encoded", "$", '"$json"', "\\u0024json"])
documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text_,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(member_names, inner, max_size=3),
    max_leaves=8,
)
keys = st.integers(-(2**63), 2**63 - 1) | some_text | st.binary(min_size=1, max_size=6)
stores = st.dictionaries(
    st.sampled_from(["a", "a\0", "\n", "émoji 🦉", "$json"]) | some_text,
    st.dictionaries(keys, documents | st.binary(max_size=6), max_size=8),
    max_size=4,
)


@given(entries=stores)
@settings(max_examples=60, deadline=None)
@pytest.mark.slow
def test_an_export_imported_into_an_empty_store_gives_the_same_root(
    entries: dict[str, dict[Any, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("round")
    with sqlstate.open(folder / "source.db") as source, sqlstate.open(folder / "copy.db") as copy:
        with source.transaction() as txn:
            for name, collection in entries.items():
                txn[name].update(collection)
        with source.snapshot() as view:
            lines = b"".join(export_lines(view))
        done = take(copy, lines)
        assert done.head.root == source.head().root == copy.head().root
        assert done.entries == done.changed == len(lines.splitlines()) == source.head().count
        assert content(copy) == content(source)
        with copy.snapshot() as view:
            assert b"".join(export_lines(view)) == lines
    assert plain.judge(folder / "copy.db").findings == ()


tuple_keys = st.lists(st.integers(-(2**63), 2**63 - 1) | text_ | st.binary(max_size=6), min_size=1, max_size=4).map(
    tuple
)


def test_a_tuple_is_the_same_key_at_the_shell_in_a_file_and_in_the_store(store: Store) -> None:
    view = store.collection("c", key=tuple)

    @settings(max_examples=30, deadline=None)
    @given(key=tuple_keys)
    @example(key=("\0", b"\0\xff", -(2**63), "", b"", "$base64", "\u2028🦉"))
    def check(key: tuple[Any, ...]) -> None:
        text = key_text(key)
        packed = sqlstate.pack_key(key)
        assert "\n" not in text
        assert parse_key(text, "tuple") == packed
        assert shown_key(packed, "tuple") == key
        view.clear()
        take(store, entry_text("c", key, "1"))
        assert list(view.items()) == [(key, 1)]
        lines = exported(store)
        view.clear()
        take(store, "\n".join(lines))
        assert list(view.items()) == [(key, 1)]

    check()


DOCUMENTS = [
    "18446744073709551615",
    "-9223372036854775808",
    "9007199254740993",
    "1e22",
    "1.0",
    "-0.0",
    "5e-324",
    "1.7976931348623157e308",
    "0.1",
    "null",
    '"\\u0000\\u001f"',
    '"🦉\u2028\u0085\ufeff"',
    '"\\"\\\\"',
    "{}",
    "[]",
    '{"":{"":[[],{}]}}',
    "[" * 200 + "]" * 200,
    '{"a":' * 200 + "1" + "}" * 200,
]


def test_documents_go_out_byte_for_byte_and_come_back_so(store: Store, open_store: OpenStore, tmp_path: Path) -> None:
    with store.transaction() as txn:
        for number, document in enumerate(DOCUMENTS):
            put_entry(txn, *encode_entry("documents", number, parse_document(document)))
    assert exported(store) == [
        f'{{"collection":"documents","key":{number},"value":{document}}}' for number, document in enumerate(DOCUMENTS)
    ]
    copy = open_store(tmp_path / "copy.db")
    take(copy, "\n".join(exported(store)))
    with copy.snapshot() as view:
        assert [value for _, value in stored_view(view, "documents").items()] == DOCUMENTS


def test_the_exported_form_of_each_kind_of_key_and_value(store: Store) -> None:
    store["b"].update({-1: None, "1": {"z": 1, "a": [True]}, b"1": b"", "\n": "é"})
    store['a"'][0] = b"\0\xff"
    assert exported(store) == [
        '{"collection":"a\\"","key":0,"value":{"$base64":true,"encoded":"AP8="}}',
        '{"collection":"b","key":-1,"value":null}',
        '{"collection":"b","key":"\\n","value":"é"}',
        '{"collection":"b","key":"1","value":{"a":[true],"z":1}}',
        '{"collection":"b","key":{"$base64":true,"encoded":"MQ=="},"value":{"$base64":true,"encoded":""}}',
    ]


@pytest.mark.parametrize(
    ("document", "written"),
    [
        ({"$base64": True, "encoded": "AA=="}, '{"$json":{"$base64":true,"encoded":"AA=="}}'),
        ({"!": 0, "$base64": 1}, '{"$json":{"!":0,"$base64":1}}'),
        ({"$json": {"$json": 1}}, '{"$json":{"$json":{"$json":1}}}'),
        ({"$json": 1, "x": 2}, '{"$json":{"$json":1,"x":2}}'),
        # Only the document's own members count.
        ([{"$json": 1}], '[{"$json":1}]'),
        ({"x": {"$base64": True}}, '{"x":{"$base64":true}}'),
        ({"x": '"$json"'}, '{"x":"\\"$json\\""}'),
        ("$json", '"$json"'),
        ({"encoded": "AA=="}, '{"encoded":"AA=="}'),
    ],
)
def test_a_document_that_looks_like_a_form_stays_a_document(
    store: Store, open_store: OpenStore, tmp_path: Path, document: Any, written: str
) -> None:
    store["c"]["k"] = document
    (line,) = exported(store)
    assert line == f'{{"collection":"c","key":"k","value":{written}}}'
    copy = open_store(tmp_path / "copy.db")
    assert take(copy, line).head.root == store.head().root


def test_the_same_entries_give_the_same_bytes(store: Store, open_store: OpenStore, tmp_path: Path) -> None:
    other = open_store(tmp_path / "other.db")
    for number in range(40):
        store["c"][number * 7 % 40] = {"b": number * 7 % 40, "a": 0}
        other["c"][number] = "first"
    for number in reversed(range(40)):
        other["c"][number] = {"a": 0, "b": number}
    assert exported(store) == exported(other)


def test_an_export_can_be_restricted_to_collections(store: Store) -> None:
    for name in ("b", "a", "c"):
        store[name][1] = name
    assert [json.loads(line)["collection"] for line in exported(store, ["c", "a", "c", "none"])] == ["a", "c"]
    assert exported(store, []) == []
    with pytest.raises(InvalidName):
        exported(store, [""])


def edit(store: Store, sql: str) -> None:
    """Change a closed store's file from outside."""
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute(sql)


@pytest.mark.parametrize(
    "sql", ["UPDATE state SET value = '{'", "UPDATE state SET value = 1", "UPDATE state SET key = 1.5"]
)
def test_a_damaged_entry_is_named_and_never_exported(tmp_path: Path, sql: str) -> None:
    with sqlstate.open(tmp_path / "app.db") as store:
        store["c"]["k"] = 1
    edit(store, sql)
    with sqlstate.open(tmp_path / "app.db") as store, pytest.raises(Damaged, match=r"I1: .*'c'\[|'c'\[.*I1: "):
        exported(store)


def test_a_foreign_document_stays_on_its_line_and_is_escaped_too(tmp_path: Path) -> None:
    with sqlstate.open(tmp_path / "app.db") as store:
        store["c"].update({1: 1, 2: 2})
    edit(store, "UPDATE state SET value = char(10) || '{ \"\\u0024json\":' || char(13,10) || '1}' WHERE key = 1")
    with sqlstate.open(tmp_path / "app.db") as store, sqlstate.open(tmp_path / "copy.db") as copy:
        lines = exported(store)
        assert len(lines) == 2
        take(copy, "\n".join(lines))
        assert content(copy) == {"c": {1: '{"$json": 1}', 2: "2"}}


# ---- Export to a file ----


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir() if not file.name.startswith("test.db")}


def test_an_exported_file_is_complete_private_and_alone(store: Store, tmp_path: Path) -> None:
    store["c"].update(dict.fromkeys(range(2000), "x" * 100))
    seen: list[tuple[int, int | None]] = []
    modes: set[int] = set()
    temporary = f".out.jsonl.sqlstate-{store.store_id.hex()}-*.tmp"

    def progress(done: int, total: int | None) -> None:
        seen.append((done, total))
        modes.update(stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob(temporary))

    with store.snapshot() as view:
        store["c"][5000] = "after the snapshot"
        done = export_file(view, tmp_path / "out.jsonl", None, progress)
    assert WINDOWS or modes == {0o600}  # never open to others, not even while it is written
    written = (tmp_path / "out.jsonl").read_bytes()
    assert (done.entries, done.bytes, done.head.seq) == (2000, len(written), 1)
    assert len(written.splitlines()) == 2000
    assert has_mode(tmp_path / "out.jsonl", 0o600)
    assert files(tmp_path) == {"out.jsonl"}
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert seen[-1] == (2000, 2000)


def test_an_exported_file_replaces_what_was_there_and_keeps_its_mode_and_link(store: Store, tmp_path: Path) -> None:
    store["c"][1] = 1
    store["d"][1] = 1
    (tmp_path / "real").write_text("old", encoding="utf-8")
    (tmp_path / "real").chmod(0o644)
    symlink(tmp_path / "link", "real")
    with store.snapshot() as view:
        assert export_file(view, tmp_path / "link", ["d"]).entries == 1
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text(encoding="utf-8") == '{"collection":"d","key":1,"value":1}\n'
    assert has_mode(tmp_path / "real", 0o644)
    assert files(tmp_path) == {"real", "link"}


def test_an_export_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    with sqlstate.open(tmp_path / "test.db") as store:
        store["c"].update(dict.fromkeys(range(2000), "x" * 100))
    edit(store, "UPDATE state SET value = '{' WHERE key = 1999")
    (tmp_path / "out").write_text("old", encoding="utf-8")
    with sqlstate.open(tmp_path / "test.db") as store, store.snapshot() as view:
        with pytest.raises(Damaged):
            export_file(view, tmp_path / "out")
        with pytest.raises(Damaged):
            export_file(view, tmp_path / "new")
    assert (tmp_path / "out").read_text(encoding="utf-8") == "old"
    assert files(tmp_path) == {"out"}


def test_an_export_to_no_regular_file_is_refused(store: Store, tmp_path: Path) -> None:
    mkfifo(tmp_path / "fifo")
    with store.snapshot() as view:
        for path in (tmp_path, tmp_path / "fifo"):
            with pytest.raises(InvalidOption, match="not a regular file"):
                export_file(view, path)
        with pytest.raises(FileNotFoundError) as caught:
            export_file(view, tmp_path / "none" / "out")
    assert caught.value.filename == str(tmp_path / "none" / "out")
    assert "as it was" in caught.value.__notes__[0]
    assert files(tmp_path) == {"fifo"}


def test_what_belongs_to_a_store_is_known_by_any_name(store: Store, tmp_path: Path) -> None:
    symlink(tmp_path / "link", store.path)
    (tmp_path / "hard").hardlink_to(store.path)
    ours = [
        "test.db",
        "test.db-wal",
        "test.db-shm",
        "test.db-journal",
        "link",
        "hard",
        "../" + tmp_path.name + "/test.db",
    ]
    assert [name for name in ours if not belongs_to(tmp_path / name, store.path)] == []
    (tmp_path / "other").write_bytes(b"")
    assert [name for name in ("other", "none", "test.db-other") if belongs_to(tmp_path / name, store.path)] == []


# ---- What can be imported ----

ADA = {"id": 7, "code": "a", "name": "Ada"}
BOB = {"id": 8, "code": "b", "name": "Bob"}
LINES = '{"collection":"c","key":"k","value":1}'


@pytest.mark.parametrize(
    ("format_", "text", "how", "expected"),
    [
        (
            "json",
            {"u": {"ada": ADA, "1": 2.5}, "s": {"x": None}, "e": {}},
            {},
            {"u": {"ada": ADA, "1": 2.5}, "s": {"x": None}},
        ),
        ("json", {"u": {"ada": ADA}}, {"key": ["id"]}, {"u": {"ada": ADA}}),
        ("json", {"u": {"7": 1, "-3": 2}}, {"key_type": "int"}, {"u": {7: 1, -3: 2}}),
        ("json", {"u": [ADA, BOB]}, {"key": ["code"]}, {"u": {"a": ADA, "b": BOB}}),
        ("json", {"u": [ADA], "v": [BOB]}, {"key": ["id"]}, {"u": {7: ADA}, "v": {8: BOB}}),
        ("json", {"u": [ADA], "v": [BOB]}, {"key": ["id"], "collection": "w"}, {"w": {7: ADA, 8: BOB}}),
        ("json", [ADA, BOB], {"key": ["id"], "collection": "w"}, {"w": {7: ADA, 8: BOB}}),
        ("json", [ADA], {"key": ["id"], "collection": "w", "key_type": "str"}, {"w": {"7": ADA}}),
        ("json", [{"id": "7"}], {"key": ["id"], "collection": "w", "key_type": "int"}, {"w": {7: {"id": "7"}}}),
        ("json", {"ada": 1, "bob": [2]}, {"collection": "w"}, {"w": {"ada": 1, "bob": [2]}}),
        ("json", {"ada": ADA}, {"collection": "w", "key": ["id"]}, {"w": {"ada": ADA}}),
        ("json", [{"a": ""}, {"a": None, "b": 2}, {"b": 3}], {"key": ["a", "b", "a"], "collection": "w"}, "no field"),
        (
            "json",
            [{"a": "", "b": 1}, {"a": None, "b": 2}, {"a": 0, "b": 3}],
            {"key": ["a", "b"], "collection": "w"},
            {"w": {1: {"a": "", "b": 1}, 2: {"a": None, "b": 2}, 0: {"a": 0, "b": 3}}},
        ),
        # Forms mean something in exported lines only.
        (
            "json",
            {"u": {"k": {"$json": 1}, "b": {"$base64": True, "encoded": ""}}},
            {},
            {"u": {"k": {"$json": 1}, "b": {"$base64": True, "encoded": ""}}},
        ),
        ("json", {}, {}, {}),
        ("json", [], {"collection": "w", "key": ["id"]}, {}),
        ("jsonl", "", {}, {}),
        ("jsonl", f"\n{LINES}\r\n  \n", {}, {"c": {"k": 1}}),
        (
            "jsonl",
            '{"key":{"encoded":"/w==","$base64":true},"value":{"$json":{"$json":1}},"collection":"c"}',
            {},
            {"c": {b"\xff": {"$json": 1}}},
        ),
        (
            "jsonl",
            f"{json.dumps(ADA)}\n{json.dumps(BOB)}",
            {"key": ["name"], "collection": "w"},
            {"w": {"Ada": ADA, "Bob": BOB}},
        ),
        ("jsonl", '{"$json":1,"id":2}', {"key": ["id"], "collection": "w"}, {"w": {2: {"$json": 1, "id": 2}}}),
        (
            "csv",
            'id,name\n7,Ada\n\n8,"B,""o""\nb"\n',
            {"key": ["id"], "collection": "w"},
            {"w": {"7": {"id": "7", "name": "Ada"}, "8": {"id": "8", "name": 'B,"o"\nb'}}},
        ),
        (
            "csv",
            "id,alt\r\n,x\r\n9,y\r\n",
            {"key": ["id", "alt"], "collection": "w"},
            {"w": {"x": {"id": "", "alt": "x"}, "9": {"id": "9", "alt": "y"}}},
        ),
        ("csv", "id\n-5\n", {"key": ["none", "id"], "collection": "w", "key_type": "int"}, {"w": {-5: {"id": "-5"}}}),
        ("csv", "id\n", {"key": ["id"], "collection": "w"}, {}),
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "BOM"])
def test_what_a_source_gives(
    store: Store, format_: str, text: Any, how: dict[str, Any], expected: Any, mark: bytes
) -> None:
    raw = mark + (text if isinstance(text, str) else json.dumps(text)).encode()
    if isinstance(expected, str):
        with pytest.raises(ImportRejected, match=expected):
            take(store, raw, format_, **how)
        expected = {}
    else:
        done = take(store, raw, format_, **how)
        assert done.entries == done.changed == sum(len(entries) for entries in expected.values())
        assert done.commits == (1 if expected else 0) == store.head().seq
    assert content(store) == exactly(expected)


def test_the_suffix_says_the_format_and_a_csv_file_its_collection(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.JSON").write_text('{"j":{"1":1}}', encoding="utf-8")
    (tmp_path / "b.ndjson").write_text('{"id":"2"}', encoding="utf-8")
    (tmp_path / "people.csv").write_text("id\n3\n", encoding="utf-8")
    import_sources(store, [tmp_path / "a.JSON"])
    import_sources(store, [str(tmp_path / "b.ndjson")], Reading(collection="l", key=["id"]))
    import_sources(store, [Source(str(tmp_path / "people.csv"))], Reading(key=["id"]))
    assert {name: list(store[name]) for name in store} == {"j": ["1"], "l": ["2"], "people": ["3"]}


@pytest.mark.parametrize(
    ("source", "how", "message"),
    [
        ("x.txt", {}, "does not say"),
        ("the stream", {}, "does not say"),
        ("x.json", {"format": "xml"}, "'xml'"),
        ("x.json", {"key": "id"}, "list of fields"),
        ("x.json", {"key_type": "hex"}, "'hex'"),
        ("x.csv", {}, "need a key"),
        ("the stream", {"format": "csv", "key": ["id"]}, "needs a collection"),
        ("x.jsonl", {"key": ["id"]}, "both or none"),
        ("x.jsonl", {"collection": "c"}, "both or none"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_read(
    store: Store, tmp_path: Path, source: str, how: dict[str, Any], message: str
) -> None:
    (tmp_path / source).write_bytes(b"\xff")
    given_ = text_source(b"") if source == "the stream" else Source(str(tmp_path / source))
    for check in (
        lambda: check_sources([given_], Reading(**how)),
        lambda: import_sources(store, [given_], Reading(**how)),
    ):
        with pytest.raises(InvalidOption, match=message):
            check()
    with pytest.raises(InvalidOption, match="batch"):
        import_sources(store, [], batch=0)
    with pytest.raises(InvalidName):
        check_sources([], Reading(collection=""))


# ---- What cannot ----

REJECTED: list[tuple[str, str | bytes, dict[str, Any], str, str]] = [
    # JSON itself
    ("json", '{"c":\n {"a":1,\n  "a":2}}', {}, "line 3, column 3", '"a" is given twice'),
    ("json", '{"c":{"x":{"\\u0061":1,"b":[{"a":1}],"a":2}}}', {}, "line 1, column 37", '"a" is given twice'),
    ("json", '{"c":{"x":["a","a","a"],"y":1,"y":2}}', {}, "line 1, column 31", '"y" is given twice'),
    ("json", '{"c":{"x":{"a":1},"a":2,"x":3}}', {}, "line 1, column 25", '"x" is given twice'),
    ("json", '{"c":{"x":"NaN","y":\n[1,NaN]}}', {}, "line 2, column 4", "NaN is not a number"),
    ("json", '{"c":{"x":-Infinity}}', {}, "line 1, column 11", "-Infinity is not a number"),
    ("json", '{"c":{"x":1e999}}', {}, "line 1, column 11", "1e999 is too large for a double"),
    ("json", '{"c":{"x":[1e-999]}}', {}, "line 1, column 12", "1e-999 is too small"),
    ("json", '{"c":{"x":1}', {}, "line 1, column 13", "not JSON"),
    ("json", '{"c":{"x":1}}\n{}', {}, "line 2, column 1", "Extra data"),
    ("json", "", {}, "line 1, column 1", "not JSON"),
    ("json", '{"c":{"x":01}}', {}, "line 1, column 12", "not JSON"),
    ("json", '{"c":{"x":"\t"}}', {}, "line 1, column 12", "control character"),
    ("json", b'{"c":\n{"x":"\xff"}}', {}, "line 2", "not UTF-8"),
    ("json", '{"c":{"x":"\\ud800"}}', {}, 'member "c", member "x"', "lone surrogate"),
    ("json", '{"c":{"x":18446744073709551616}}', {}, 'member "c", member "x"', "outside -2^63 to 2^64-1"),
    ("json", '{"c":{"x":\n[-9223372036854775809]}}', {}, 'member "c", member "x"', "$[0]"),
    ("json", '{"c":{"x":\n' + "9" * 5000 + "}}", {}, "line 2, column 1", "5,000 digits"),
    ("json", '{"c":{"x":' + "[" * 201 + "]" * 201 + "}}", {}, 'member "c", member "x"', "200 levels"),
    ("json", "[" * 100_000, {}, "", "200 levels"),
    # its shape
    ("json", "1", {}, "", "an int"),
    ("json", "[]", {}, "", "needs a collection"),
    ("json", "[{}]", {"collection": "c"}, "", "needs a key"),
    ("json", '{"c":[{}]}', {}, 'member "c"', "needs a key"),
    ("json", '{"c":"dark"}', {}, 'member "c"', "a string"),
    ("json", '{"c":true}', {}, 'member "c"', "true or false"),
    ("json", '{"a":[],"b":{}}', {"collection": "c", "key": ["id"]}, "", "one by one"),
    # keys
    ("json", '{"":{"x":1}}', {}, 'member "", member "x"', "1 to 255 bytes"),
    ("json", '{"c":{"":1}}', {}, 'member "c", member ""', "1 to 1,048,576 bytes"),
    ("json", '{"c":[{"id":1},{"ID":2}]}', {"key": ["id", "no"]}, 'member "c", record 2', 'no field "id" or "no"'),
    (
        "json",
        '{"c":[{"id":1},{"id":1}]}',
        {"key": ["id"]},
        'member "c", record 2',
        'first given at member "c", record 1',
    ),
    ("json", '{"c":[{"id":1.0}]}', {"key": ["id"]}, 'member "c", record 1', "a number with a fraction"),
    ("json", '{"c":[{"id":false}]}', {"key": ["id"]}, 'member "c", record 1', "true or false"),
    ("json", '{"c":[[]]}', {"key": ["id"]}, 'member "c", record 1', "a list"),
    ("json", '{"c":[{"id":9223372036854775808}]}', {"key": ["id"]}, 'member "c", record 1', "outside"),
    ("json", '{"c":{"007":1}}', {"key_type": "int"}, 'member "c", member "007"', "leading zeros"),
    (
        "json",
        '{"c":{"9223372036854775808":1}}',
        {"key_type": "int"},
        'member "c", member "9223372036854775808"',
        "outside",
    ),
    ("json", '{"c":{"-0":1}}', {"key_type": "int"}, 'member "c", member "-0"', "not an int"),
    ("json", '{"c":{"\u0663":1}}', {"key_type": "int"}, 'member "c", member "\u0663"', "not an int"),
    # exported lines
    ("jsonl", f"{LINES}\n{{", {}, "line 2, column 2", "not JSON"),
    ("jsonl", f"{LINES}\n\n{LINES}", {}, "line 3", "first given at line 1"),
    ("jsonl", f"{LINES} {LINES}", {}, "line 1, column 40", "Extra data"),
    ("jsonl", f"{LINES}\n".encode() + b'"\xc3"', {}, "line 2", "byte 2 of the line is not UTF-8"),
    ("jsonl", '{"collection":"c","key":"k","key":"k","value":1}', {}, "line 1, column 29", '"key" is given twice'),
    ("jsonl", '{"collection":"c","key":1}', {}, "line 1", "not an exported entry"),
    ("jsonl", '{"collection":"c","key":1,"value":1,"more":1}', {}, "line 1", "not an exported entry"),
    ("jsonl", "[]", {}, "line 1", "not an exported entry"),
    ("jsonl", '{"collection":1,"key":1,"value":1}', {}, "line 1", "the collection is an int"),
    ("jsonl", '{"collection":"c","key":1.0,"value":1}', {}, "line 1", "the key is a number"),
    ("jsonl", '{"collection":"c","key":true,"value":1}', {}, "line 1", "the key is true or false"),
    ("jsonl", '{"collection":"c","key":null,"value":1}', {}, "line 1", "the key is null"),
    ("jsonl", '{"collection":"c","key":{},"value":1}', {}, "line 1", "bytes are written"),
    ("jsonl", '{"collection":"c","key":{"$base64":true,"encoded":""},"value":1}', {}, "line 1", "a key has 1 to"),
    ("jsonl", '{"collection":"c","key":1,"value":{"$base64":1,"encoded":"AA=="}}', {}, "line 1", "bytes are written"),
    (
        "jsonl",
        '{"collection":"c","key":1,"value":{"$base64":true,"encoded":"AA==","x":1}}',
        {},
        "line 1",
        "bytes are written",
    ),
    ("jsonl", '{"collection":"c","key":1,"value":{"$base64":true,"encoded":"AA="}}', {}, "line 1", "not base64"),
    ("jsonl", '{"collection":"c","key":1,"value":{"$base64":true,"encoded":"AB=="}}', {}, "line 1", "not base64"),
    ("jsonl", '{"collection":"c","key":1,"value":{"$base64":true,"encoded":"A A="}}', {}, "line 1", "not base64"),
    ("jsonl", '{"collection":"c","key":1,"value":{"$base64":true,"encoded":"é"}}', {}, "line 1", "not base64"),
    ("jsonl", '{"collection":"c","key":1,"value":{"$json":1,"x":1}}', {}, "line 1", "has no other"),
    ("jsonl", '{"id":1}\n7', {"collection": "c", "key": ["id"]}, "line 2", "a record is an object"),
    ("jsonl", '{"id":1}\n{"id":NaN}', {"collection": "c", "key": ["id"]}, "line 2, column 7", "NaN"),
    # CSV
    ("csv", "", {}, "", "no header line"),
    ("csv", "a,b\n1,2\n", {}, "line 1", 'no column "id"'),
    ("csv", "id,a,id\n1,2,3\n", {}, "line 1", "twice"),
    ("csv", "id,a\n1,2\n\n3\n", {}, "line 4", "1 fields, and the header 2"),
    ("csv", 'id,a\n1,"x\ny"\n3,"x"y\n', {}, "line 4", "not CSV"),
    ("csv", 'id,a\n1,"x\ny\n', {}, "line 2", "not CSV"),
    ("csv", "id,a\n1,2\n1,3\n", {}, "line 3", "first given at line 2"),
    ("csv", "id,a\n,2\n", {}, "line 2", "no field"),
    ("csv", "id,a\n1.5,2\n", {"key_type": "int"}, "line 2", "not an int"),
    ("csv", b"id,a\n1,\xe9\n", {}, "line 2", "byte 3 of the line is not UTF-8"),
    ("csv", "id\n1\n".encode("utf-16"), {}, "line 1", "not UTF-8"),
]


@pytest.mark.parametrize(("format_", "text", "how", "place", "reason"), REJECTED)
def test_a_source_that_is_not_right_changes_nothing_and_says_where(
    store: Store, format_: str, text: str | bytes, how: dict[str, Any], place: str, reason: str
) -> None:
    store["c"]["before"] = 1
    head = store.head()
    if format_ == "csv":
        how = {"collection": "c", "key": ["id"], **how}
    with pytest.raises(ImportRejected) as caught:
        take(store, text, format_, **how)
    assert (caught.value.source, caught.value.place) == ("the stream", place)
    assert reason in caught.value.reason
    assert caught.value.__notes__ == ["nothing was imported"]
    assert store.head() == head
    assert content(store) == {"c": {"before": "1"}}


def test_a_line_without_end_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "LINE_BYTES_MAX", 100)
    fits = '{"collection":"c","key":1,"value":"' + "x" * 62 + '"}\n'
    assert len(fits) == 100
    take(store, fits)
    with pytest.raises(ImportRejected, match="line 2: the line is longer than 100 bytes"):
        take(store, fits.replace('"key":1', '"key":2') + fits.replace("x", "xx", 1))
    assert list(store["c"]) == [1]


def test_one_wrong_source_rejects_those_before_it(store: Store, tmp_path: Path) -> None:
    (tmp_path / "good.json").write_text('{"a":{"x":1}}', encoding="utf-8")
    (tmp_path / "bad.json").write_text('{"b":{"x":}}', encoding="utf-8")
    sources = [Source(str(tmp_path / name)) for name in ("good.json", "bad.json")]
    with pytest.raises(ImportRejected) as caught:
        import_sources(store, sources)
    assert str(caught.value).startswith(f"{tmp_path / 'bad.json'}, line 1, column 11: this is not JSON")
    assert (store.head().seq, store.collections()) == (0, [])


def test_the_values_of_arguments_are_parsed_as_strictly() -> None:
    assert parse_document(" [1.0, 18446744073709551616] ") == [1.0, 2**64]
    for text, place in [('{"a":1,"a":1}', "column 8"), ("Infinity", "column 1"), ("'x'", "column 1"), ("", "column 1")]:
        with pytest.raises(InvalidValue, match=f"^{place} of the value: "):
            parse_document(text)


# ---- A name given twice, far apart ----


def numbered(numbers: list[int], collection: str = "c") -> str:
    return "".join(f'{{"collection":"{collection}","key":"{n}","value":{at}}}\n' for at, n in enumerate(numbers))


@pytest.mark.parametrize("batch", [None, 1, 3, 1000])
@pytest.mark.parametrize("second", [3, 4, 5, 9, 16, 29])
def test_a_name_given_twice_is_found_however_far_apart(
    store: Store, monkeypatch: pytest.MonkeyPatch, batch: int | None, second: int
) -> None:
    monkeypatch.setattr(seen_names, "NAMES_KEPT", 4)
    numbers = list(range(30))
    numbers[second] = 2
    with pytest.raises(ImportRejected) as caught:
        import_sources(store, [text_source(numbered(numbers))], Reading(format="jsonl"), batch=batch)
    assert caught.value.place == f"line {second + 1}"
    assert "'c' gets the key '2' a second time; it was first given at line 3" in caught.value.reason
    kept = 0 if batch is None else second - second % batch
    assert len(store["c"]) == store.head().count == kept


def test_names_are_told_apart_by_collection_and_type_and_source(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_names, "NAMES_KEPT", 4)
    text = numbered(list(range(9))) + numbered(list(range(9)), "d")
    text += "".join(f'{{"collection":"c","key":{n},"value":0}}\n' for n in range(9))
    text += '{"collection":"c","key":{"$base64":true,"encoded":"MA=="},"value":0}\n'
    assert take(store, text).changed == 28
    assert import_sources(store, [text_source(text)] * 1, Reading(format="jsonl")).changed == 0


# ---- Transactions ----


def test_importing_again_changes_nothing_and_makes_no_commit(store: Store) -> None:
    first = take(store, numbered(list(range(50))))
    again = take(store, numbered(list(range(50))))
    assert (first.changed, first.commits, first.head.seq) == (50, 1, 1)
    assert (again.entries, again.changed, again.commits, again.head) == (50, 0, 0, first.head)


def test_a_later_source_can_put_an_entry_anew(store: Store) -> None:
    store["c"].update({"0": 0, "1": "other"})
    done = import_sources(
        store,
        [text_source(numbered([0, 1])), text_source('{"collection":"c","key":"0","value":9}')],
        Reading(format="jsonl"),
    )
    assert (done.sources, done.entries, done.changed, done.commits) == (2, 3, 2, 1)
    assert dict(store["c"].items()) == {"0": 9, "1": 1}


def test_sources_that_undo_each_other_make_no_commit(store: Store) -> None:
    store["c"]["k"] = 1
    sources = [text_source(LINES.replace("1}", "2}")), text_source(LINES)]
    done = import_sources(store, sources, Reading(format="jsonl"))
    assert (done.changed, done.commits, done.head.seq) == (2, 0, 1)


def test_a_commit_of_another_writer_is_not_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    take(store, LINES)
    begin = store.transaction

    @contextmanager
    def crowded(note: str = "") -> Iterator[sqlstate.Transaction]:
        with begin(note) as txn:
            yield txn
        with begin() as other:  # comes in between the import's commit and its next look at the head
            other.put("other", "k", store.head().seq)

    monkeypatch.setattr(store, "transaction", crowded)
    done = take(store, LINES)
    assert (done.changed, done.commits, done.head.seq) == (0, 0, 2)


def test_an_import_can_be_made_of_several_transactions(store: Store) -> None:
    seqs: list[int] = []
    done = import_sources(
        store, [text_source(numbered(list(range(25))))], Reading(format="jsonl"), batch=10, note="load"
    )
    assert (done.entries, done.changed, done.commits, done.head.seq) == (25, 25, 3, 3)
    seqs = [head.count for head in store.commits()]
    assert seqs == [10, 20, 25]
    assert [record.note for record in store.wal.read() if record.kind == "BEGIN"] == ["load"] * 3
    # Only the second of its batches has something new.
    take(store, '{"collection":"c","key":"12","value":"x"}')
    done = import_sources(store, [text_source(numbered(list(range(25))))], Reading(format="jsonl"), batch=10)
    assert (done.changed, done.commits, done.head.seq) == (1, 1, 5)


def test_batches_before_a_wrong_line_stay_and_the_error_says_so(store: Store) -> None:
    with pytest.raises(ImportRejected) as caught:
        import_sources(store, [text_source(numbered(list(range(25))) + "x\n")], Reading(format="jsonl"), batch=10)
    assert caught.value.__notes__ == [
        "20 entries of the transactions before stay imported",
        "nothing of this transaction was kept",
    ]
    assert (store.head().seq, store.head().count) == (2, 20)


class Breaking(io.BytesIO):
    """A stream that fails once it was read to its end."""

    def __init__(self, text: str, error: BaseException) -> None:
        super().__init__(text.encode())
        self.error = error

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(size)
        if not line:
            raise self.error
        return line


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
@pytest.mark.parametrize("batch", [None, 10])
def test_a_source_that_breaks_off_keeps_whole_transactions_only(
    store: Store, error: BaseException, batch: int | None
) -> None:
    source = Source("the stream", Breaking(numbered(list(range(25))), error))
    with pytest.raises(type(error)) as caught:
        import_sources(store, [source], Reading(format="jsonl"), batch=batch)
    kept = 20 if batch else 0
    assert store.head().count == kept
    assert caught.value.__notes__[-1] == ("nothing of this transaction was kept" if batch else "nothing was imported")
    store["c"]["after"] = "the store is free again"


def test_a_file_that_is_not_there_is_found_before_the_store_is_touched(store: Store, tmp_path: Path) -> None:
    sources = [text_source(numbered([1])), Source(str(tmp_path / "none.jsonl"))]
    with pytest.raises(FileNotFoundError):
        check_sources(sources, Reading(format="jsonl"))
    with pytest.raises(FileNotFoundError):
        import_sources(store, sources, Reading(format="jsonl"), batch=1)
    assert store.head().seq == 0


def test_the_store_itself_is_no_source(store: Store, tmp_path: Path) -> None:
    store["c"][1] = 1
    symlink(tmp_path / "link.json", store.path)
    for name in ("link.json", "test.db-wal"):
        with pytest.raises(InvalidOption, match="the store itself"):
            import_sources(store, [Source(str(tmp_path / name))], Reading(format="json"))


def test_a_store_opened_for_reading_takes_no_import(store: Store, open_store: OpenStore) -> None:
    store["c"][1] = 1
    with pytest.raises(ReadOnly), sqlstate.open(store.path, read_only=True) as reader:
        take(reader, LINES)
    with pytest.raises(StoreMissing):
        sqlstate.open(store.path.with_name("none"), create=False)


# ---- Progress and memory ----


def test_progress_goes_from_nothing_to_all(store: Store, tmp_path: Path) -> None:
    big = numbered(list(range(9000)))
    (tmp_path / "a.jsonl").write_text(big, encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps({"d": {str(n): "x" * 50 for n in range(5000)}}), encoding="utf-8")
    total = (tmp_path / "a.jsonl").stat().st_size + (tmp_path / "b.json").stat().st_size
    seen: list[tuple[int, int | None]] = []
    import_sources(
        store,
        [Source(str(tmp_path / "a.jsonl")), Source(str(tmp_path / "b.json"))],
        progress=lambda done, all_: seen.append((done, all_)),
    )
    assert {all_ for _, all_ in seen} == {total}
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (total, total)
    assert len(seen) > 8
    seen.clear()
    import_sources(store, [text_source(big)], Reading(format="jsonl"), progress=lambda *now: seen.append(now))
    assert {all_ for _, all_ in seen} == {None}
    reading, writing = os.pipe()
    os.write(writing, numbered([1]).encode())
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        import_sources(store, [Source("a pipe", pipe)], Reading(format="jsonl"), progress=lambda *now: seen.append(now))
    assert {all_ for _, all_ in seen} == {None}
    assert max(done for done, _ in seen) > len(big) / 2


class Endless(io.RawIOBase):
    """A stream that makes its lines as they are read."""

    def __init__(self, line: Callable[[int], bytes], count: int) -> None:
        self.lines: Iterator[bytes] = (line(number) for number in range(count))

    def readline(self, size: int | None = -1) -> bytes:
        return next(self.lines, b"")


@pytest.mark.parametrize("format_", ["jsonl", "csv"])
@pytest.mark.slow
def test_memory_does_not_grow_with_the_source(store: Store, format_: str) -> None:
    value = "x" * 4000
    lines = {
        "jsonl": lambda n: b'{"id":"%d","v":"%s"}\n' % (n, value.encode()),
        "csv": lambda n: b"id,v\n" if n == 0 else b"%d,%s\n" % (n, value.encode()),
    }
    stream: Any = Endless(lines[format_], 10_000)
    how = Reading(format=format_, collection="c", key=["id"])  # type: ignore[arg-type]
    tracemalloc.start()
    try:
        # Batches, since what a transaction keeps in memory is another module's matter.
        done = import_sources(store, [Source("the stream", stream)], how, batch=500)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert done.entries >= 9_999
    assert peak < 16 << 20, peak  # the source has 40 MB


def test_names_beyond_what_is_kept_go_to_a_temporary_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_names, "NAMES_KEPT", 1000)
    seen = seen_names.Seen()
    with closing(seen):
        tracemalloc.start()
        try:
            for number in range(50_000):
                seen.add(("c", 1, f"a key of some length, number {number}"), f"line {number}")
            now, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        seen.check()
        assert now < 2 << 20  # 50,000 names take more than 10 MB
        seen.add(("c", 1, "a key of some length, number 7"), "line x")
        with pytest.raises(exact_json.SourceError, match="first given at line 7"):
            seen.check()


# ---- Real files ----


def test_the_iso_files_come_in_whole(store: Store) -> None:
    names = ["iso3166-1.json", "iso3166-2.json", "iso639-3.json"]
    records = {name[3:-5]: json.loads((ISO / name).read_text(encoding="utf-8"))[name[3:-5]] for name in names}
    sources = [Source(str(ISO / name)) for name in names]
    done = import_sources(store, sources, Reading(key=["code", "alpha_3"]))
    assert (done.sources, done.commits, done.head.seq) == (3, 1, 1)
    assert done.entries == done.changed == sum(map(len, records.values())) == done.head.count
    assert {name: len(store[name]) for name in store} == {name: len(listed) for name, listed in records.items()}
    for name, listed in records.items():
        assert dict(store[name].items()) == {record.get("code") or record["alpha_3"]: record for record in listed}
    assert store["3166-1"]["CHE"]["flag"] == "🇨🇭"
    assert store["3166-2"]["FR-75C"]["name"] == "Paris"
    assert store["639-3"]["gsw"]["name"] == "Swiss German"
    again = import_sources(store, sources, Reading(key=["code", "alpha_3"]))
    assert (again.entries, again.changed, again.commits, again.head) == (done.entries, 0, 0, done.head)


def test_the_iso_files_go_out_and_in_again(store: Store, open_store: OpenStore, tmp_path: Path) -> None:
    import_sources(store, [Source(str(ISO / "iso3166-2.json"))], Reading(key=["code"]))
    with store.snapshot() as view:
        export_file(view, tmp_path / "out.jsonl")
    copy = open_store(tmp_path / "copy.db")
    done = import_sources(copy, [Source(str(tmp_path / "out.jsonl"))], batch=1000)
    assert done.commits == -(-done.entries // 1000) > 3
    assert done.head.root == store.head().root
    assert re.match(rb'\{"collection":"3166-2","key":"[A-Z]{2}-', (tmp_path / "out.jsonl").read_bytes())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1e-999", "too small"),
        ("-1e-400", "too small"),
        ("[1e-999]", "too small"),
        ('{"a":[0.0,{"b":0.000000001e-400}]}', "too small"),
        ("1e999", "too large"),
        ("[1, -1e309]", "too large"),
        ("1" + "0" * 400 + ".0", "too large"),
        ("0." + "0" * 400 + "1", "too small"),
        ('{"a":"1e-999","b":[1e-999]}', "too small"),
        ("NaN", "not a number"),
        ("[-Infinity]", "not a number"),
        ('{"a":1,"b":{"c":1,"c":1}}', "given twice"),
    ],
)
def test_a_number_that_a_double_loses_and_what_json_has_not_are_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidValue, match=says) as caught:
        parse_document(text)

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "text", ["0", "-0", "0.0", "-0.0", "0e5", "0E-999", "-0.00e999", "5e-324", "1.7976931348623157e308"]
)
def test_a_number_that_a_double_holds_is_read(text: str) -> None:
    assert parse_document(text) == float(text)


# ---- The fast parser, and the one that it is as strict as ----

numbers = st.sampled_from(
    ["0", "-0", "1", "-0.0", "1.5", "1e5", "1E-05", "0e5", "1e-7", "3e-99", "5e-324", "1e-400", "1e400", "0.0e-999",
     "0." + "0" * 199 + "1e-99", "0." + "0" * 330 + "1", "0." + "0" * 250 + "1", "9007199254740993", "1" * 30,
     "1" * 5000, "0.1234567890123456789012345", "123456789012345678901234567890.5e-9",
     "01", "+1", "1.", ".5", "NaN", "-Infinity"]
)  # fmt: skip
strings = st.sampled_from(
    ['""', '"a"', '"a b"', '"\\""', '"\\\\"', '"\\u0022"', '"\\u005c"', '"e-500"', '"\\/\\n"', '"\\ud83d\\ude00"',
     '"\\ud800"', '"é🦉"', '"\\x"', '"\x01"', '"\x7f"', '"\\\\\\""']
)  # fmt: skip
texts = st.recursive(
    numbers | strings | st.sampled_from(["null", "true", "false", "nul", ""]),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(strings, inner), max_size=4).map(
            lambda pairs: "{" + ",".join(f"{name} : {value}" for name, value in pairs) + "}"
        )
    ),
    max_leaves=6,
)


def in_parts(raw: bytes) -> Any:
    """What parse_file() gives, with all its parts."""
    whole = exact_json.parse_file(raw)
    if isinstance(whole, dict):
        return {name: list(member) if isinstance(member, list) else member for name, member in whole.items()}
    return list(whole) if isinstance(whole, list) else whole


def parsed(parse_: Any, text: Any) -> tuple[str, object]:
    try:
        return "value", repr(parse_(text))
    except exact_json.ContentError as e:
        return str(e), e.at


@given(text=texts)
@settings(max_examples=1500, deadline=None)
def test_both_parsers_give_the_same_value_or_the_same_fault(text: str) -> None:
    assert parsed(parse, text.encode()) == parsed(exact_json._parse_exactly, text)
    assert parsed(in_parts, text.encode()) == parsed(exact_json._parse_exactly, text)


def test_ordinary_records_need_no_second_parser(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(text: str) -> None:
        raise AssertionError(text)

    monkeypatch.setattr(exact_json, "_parse_exactly", refused)
    monkeypatch.setattr(values, "document", refused)
    ring = [[number / 7, -number / 3e9] for number in range(20)]
    record = {"id": "a/1", "names": ["é", 'the "e-5"', "\n", ""], "ring": ring, "height": None, "small": 1e-50}
    for format_, text in (
        ("jsonl", json.dumps(record) + "\n"),
        ("json", json.dumps([record], ensure_ascii=False, indent=1)),
        ("csv", 'id,b\n1,"2"\n'),
    ):
        take(store, text, format_, collection=format_, key=["id"])
    assert store["json"]["a/1"] == store["jsonl"]["a/1"] == record


@pytest.mark.parametrize("levels", [200, 201, 3000])
@pytest.mark.parametrize("format_", ["json", "jsonl"])
def test_a_record_has_as_many_levels_as_a_value(store: Store, format_: str, levels: int) -> None:
    record = '{"id":1,"a":' + "[" * (levels - 1) + "]" * (levels - 1) + "}"
    text = f"[{record}]" if format_ == "json" else record
    if levels == 200:
        assert take(store, text, format_, collection="c", key=["id"]).changed == 1
    else:
        with pytest.raises(ImportRejected, match="nested more than 200 levels deep"):
            take(store, text, format_, collection="c", key=["id"])


def test_what_several_sources_change_counts_each_time(store: Store) -> None:
    store["c"].update({"0": 5, "1": 1, "2": 0})
    sources = [
        text_source(numbered(list(range(4)))),
        text_source(numbered([3, 2, 1, 0])),
        text_source(numbered([9, 2])),
    ]
    done = import_sources(store, sources, Reading(format="jsonl"))
    values_then = [{"0": 5, "1": 1, "2": 0}, {"0": 0, "1": 1, "2": 2, "3": 3}, {"0": 3, "1": 2, "2": 1, "3": 0}]
    later = [{"0": 0, "1": 1, "2": 2, "3": 3}, {"0": 3, "1": 2, "2": 1, "3": 0}, {"9": 0, "2": 1}]
    expected = sum(there.get(key) != value for there, puts in zip(values_then, later, strict=True)
                   for key, value in puts.items())  # fmt: skip
    assert (done.entries, done.changed) == (10, expected)


# ---- Keys of several fields, numbers of rows, compressed sources ----

PLACES = "country,city,people\nNZ,Otago,1\nCL,Osorno,2\n"


@pytest.mark.parametrize(
    ("format_", "text", "how", "expected"),
    [
        ("csv", PLACES, {"key": [("country", "city")]}, [("CL", "Osorno"), ("NZ", "Otago")]),
        ("csv", PLACES, {"key": ["none", ("people", "city")]}, [("1", "Otago"), ("2", "Osorno")]),
        ("csv", "a,b,c\n1,,x\n2,3,y\n", {"key": [("a", "b"), "c"]}, ["x", ("2", "3")]),
        ("csv", "a,b\n1,2\n", {"key": [("a", "b")], "key_type": "int"}, [(1, 2)]),
        ("csv", PLACES, {"row_numbers": True}, [1, 2]),
        ("csv", "a\n", {"row_numbers": True}, []),
        ("json", '[{"a":1,"b":"é"},{"a":"1","b":"é"}]', {"key": [("a", "b")]}, [(1, "é"), ("1", "é")]),
        ("json", '[{"a":1,"b":2}]', {"key": [("a", "b")], "key_type": "str"}, [("1", "2")]),
        ("json", "[{},{}]", {"row_numbers": True}, [1, 2]),
        ("json", '{"x":[{}],"y":[{},{}]}', {"row_numbers": True}, [1, 2, 3]),
        ("jsonl", '{"a":1,"b":2}\n{"a":1,"b":3}', {"key": [("a", "b")]}, [(1, 2), (1, 3)]),
        ("jsonl", "{}\n\n{}", {"row_numbers": True}, [1, 2]),
    ],
)
def test_keys_of_several_fields_and_numbers_of_rows(
    store: Store, format_: str, text: str, how: dict[str, Any], expected: list[Any]
) -> None:
    take(store, text, format_, collection="c", **how)
    assert list(store["c"]) == [pack_key(key) if type(key) is tuple else key for key in expected]
    assert take(store, text, format_, collection="c", **how).changed == 0


def test_rows_are_counted_for_each_collection_over_all_sources(store: Store, tmp_path: Path) -> None:
    sources = [text_source('{"x":[{"n":1}],"y":[{"n":2}]}'), text_source('{"x":[{"n":3}]}')]
    import_sources(store, sources, Reading(format="json", row_numbers=True))
    assert content(store) == exactly({"x": {1: {"n": 1}, 2: {"n": 3}}, "y": {1: {"n": 2}}})


@pytest.mark.parametrize(
    ("format_", "text", "how", "message"),
    [
        ("csv", "a,b\n1,2\n", {"key": [("a", "c")]}, 'the header has no column "a" with "c"'),
        ("csv", "a,b\n1,\n", {"key": [("a", "b"), "b"]}, 'the record has no field "a" with "b" or "b"'),
        ("csv", "a,b\n1,2\n1,2\n", {"key": [("a", "b")]}, "a second time"),
        ("json", '[{"a":1,"b":1.5}]', {"key": [("a", "b")]}, 'the field "b" is a number with a fraction'),
        ("json", "[1]", {"row_numbers": True}, "a record is an object"),
    ],
)
def test_a_record_without_such_a_key_is_rejected(
    store: Store, format_: str, text: str, how: dict[str, Any], message: str
) -> None:
    with pytest.raises(ImportRejected, match=re.escape(message)):
        take(store, text, format_, collection="c", **how)
    with pytest.raises(InvalidOption, match="one of both"):
        take(store, text, format_, collection="c", key=["a"], row_numbers=True)


def packed(text: str, how: str) -> bytes:
    if how == "gzip":
        half = len(text) // 2
        return gzip.compress(text[:half].encode()) + gzip.compress(text[half:].encode())  # members follow each other
    zstd = pytest.importorskip("backports.zstd", reason="backports.zstd is not installed")
    return bytes(zstd.compress(text.encode()))


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_compressed_sources_are_read_from_files_and_streams(store: Store, tmp_path: Path, how: str) -> None:
    suffix = {"gzip": ".gz", "zstd": ".zst"}[how]
    lines = numbered(list(range(3000)))
    for name, text in (("places.csv", PLACES), ("all.jsonl", lines), ("doc.json", '{"d":{"k":1}}')):
        (tmp_path / (name + suffix)).write_bytes(packed(text, how))
    (tmp_path / "named.jsonl").write_bytes(packed('{"collection":"n","key":1,"value":1}', how))
    seen: list[tuple[int, int | None]] = []
    import_sources(store, [tmp_path / f"places.csv{suffix}"], Reading(row_numbers=True))
    import_sources(
        store,
        [tmp_path / f"all.jsonl{suffix}", tmp_path / f"doc.json{suffix}", tmp_path / "named.jsonl"],
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [(name, len(store[name])) for name in store] == [("c", 3000), ("d", 1), ("n", 1), ("places", 2)]
    sizes = [
        (tmp_path / f"{name}").stat().st_size for name in (f"all.jsonl{suffix}", f"doc.json{suffix}", "named.jsonl")
    ]
    assert seen[-1] == (sum(sizes), sum(sizes))
    assert seen == sorted(seen)
    head = store.head()
    assert take(store, packed(lines, how)).changed == 0
    with os.fdopen(os.open(tmp_path / f"all.jsonl{suffix}", os.O_RDONLY), "rb") as stream:
        import_sources(store, [Source("standard input", stream)], Reading(format="jsonl"))
    assert store.head() == head


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_compressed_source_that_is_damaged_is_rejected(store: Store, how: str) -> None:
    raw = packed(numbered(list(range(3000))), how)
    for broken in (raw[:-20], raw[:100], raw[:50] + b"\xff" * 50 + raw[100:]):
        with pytest.raises(ImportRejected, match=r"cut short|damaged") as caught:
            take(store, broken)
        assert caught.value.__notes__ == ["nothing was imported"]
    assert store.head().seq == 0


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_little_that_decompresses_to_very_much_is_rejected(
    store: Store, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "LINE_BYTES_MAX", 1000)
    text = '{"c":{"k":"' + "x" * 985 + '"}}'
    assert take(store, packed(text, how), "json").changed == 1
    for format_, bomb in (("json", text + " " * 1_000_000), ("jsonl", " " * 1_000_000)):
        with pytest.raises(ImportRejected, match=r"more than 1,000 bytes|longer than 1,000 bytes"):
            take(store, packed(bomb, how), format_)
    assert take(store, text + " " * 1_000_000, "json").changed == 0


def test_zstd_that_cannot_be_read_says_what_to_install(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("compression", "backports"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InvalidOption, match=r"sqlstate-store\[zstd\]"):
        take(store, b"\x28\xb5\x2f\xfd and more")
