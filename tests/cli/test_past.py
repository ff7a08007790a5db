"""The verbs for what a store was: changes, history, index, undo, revert, diff, merge, and --at."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from tests.cli.test_program import bad, good, on_terminal, run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def db(tmp_path: Path) -> str:
    """A store of three commits."""
    file = str(tmp_path / "app.db")
    with sqlstate.open(file) as store:
        store["c"].update({"k": 1, 5: b"five", "gone": None})
        with store.transaction(note="second") as txn:
            txn["c"]["k"] = {"$json": 2}
            del txn["c"]["gone"]
        store["d"][b"x"] = "later"
    return file


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_changes_and_history_print_json_lines(db: str) -> None:
    found = lines(good("changes", db))
    assert [(each["seq"], each["key"]) for each in found][1:] == [
        (1, "gone"), (1, "k"), (2, "gone"), (2, "k"), (3, {"$base64": True, "encoded": "eA=="}),
    ]  # fmt: skip
    assert found[1] == {"seq": 1, "at": found[1]["at"], "collection": "c", "key": "gone", "value": None}
    assert (found[3]["note"], found[3]["before"], "value" in found[3]) == ("second", None, False)
    assert found[4]["value"] == {"$json": {"$json": 2}}
    assert lines(good("changes", db, "c", "--after", "1", "--prefix", "k")) == [found[4]]
    assert lines(good("changes", db, "--upto", "1", "--limit", "2")) == found[:2]
    assert json.loads(good("changes", db, "--json", "--after", "2")) == [found[5]]
    assert lines(good("history", db, "c", "k")) == [found[4], found[2]]
    assert lines(good("history", db, "c", "5", "--key-type", "int")) == [found[0]]
    result = run("history", db, "c", "none")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no changes\n")
    assert "an int has none" in bad(2, "changes", db, "--prefix", "5", "--key-type", "int")
    assert "--follow" in bad(2, "changes", db, "--follow", "--json")


def test_tuples_are_written_and_shown_as_lists(tmp_path: Path) -> None:
    file, typed = str(tmp_path / "t.db"), ("--key-type", "tuple")
    for key in ('["ann",9]', '["ann",10]', '["ann\\u0000",1]', '["bob",{"$base64":true,"encoded":"/w=="}]'):
        good("put", file, "c", key, "1", *typed)
    with sqlstate.open(file) as store:
        store["c"].update({"text": 2, b"\xff": 3})
    ann, others = [["ann", 9], ["ann", 10]], [["ann\0", 1], ["bob", {"$base64": True, "encoded": "/w=="}]]
    foreign = ["text"], [{"$base64": True, "encoded": "/w=="}]

    def keys(*options: str) -> list[Any]:
        return [each["key"] for each in lines(good(*options, *typed))]

    assert keys("list", file, "c") == [*foreign[0], *ann, *others, *foreign[1]], "other keys as ever"
    assert keys("list", file, "c", "--prefix", '["ann"]') == ann
    assert keys("list", file, "c", "--prefix", "[]", "--keys") == [*ann, *others]
    assert keys("list", file, "c", "--start", '["ann",10]', "--stop", '["bob"]') == [ann[1], others[0]]
    assert keys("changes", file, "--prefix", '["ann"]') == ann
    assert keys("changes", file, "--upto", "1") == [["ann", 9]]
    assert keys("history", file, "c", '["ann",9]') == [["ann", 9]]
    assert json.loads(good("prove", file, "c", '["ann",9]', *typed))
    shown = on_terminal("list", file, "c", *typed).shown
    assert "[ann, 9]" in shown
    assert '["ann\\u0000", 1]' in shown
    # What list prints, import reads.
    (tmp_path / "listed.jsonl").write_text(good("list", file, "c", *typed), "utf-8", newline="\n")
    good("import", str(tmp_path / "again.db"), str(tmp_path / "listed.jsonl"))
    with sqlstate.open(file) as one, sqlstate.open(tmp_path / "again.db") as two:
        assert one.head().root == two.head().root
    good("delete", file, "c", '["ann",9]', *typed)
    bad(1, "get", file, "c", '["ann",9]', *typed)
    for key, said in (
        ("ann", "not a JSON list"), ('{"a":1}', "not a JSON list"), ("[1.5]", "element 0"), ("[null]", "element 0"),
        ("[]", "1 to 1,048,576 bytes"), ('[{"a":1}]', "bytes are written"), ("[[1]]", "element 0"),
    ):  # fmt: skip
        assert said in bad(2, "get", file, "c", key, *typed)
    assert "element 0" in bad(2, "list", file, "c", "--prefix", "[true]", *typed)
    assert "prefix" in bad(2, "list", file, "c", "--prefix", "[1]", "--start", "[1]", *typed)
    (tmp_path / "bad.jsonl").write_text('{"collection":"c","key":["a",1.5],"value":1}\n', "utf-8", newline="\n")
    assert "element 1" in bad(2, "import", file, str(tmp_path / "bad.jsonl"))


def test_an_index_for_histories_is_made_and_dropped_once(db: str) -> None:
    before = good("history", db, "c", "k")
    for changed in (True, False):
        assert json.loads(good("index", db, "--json")) == {"changed": changed, "history_index": True}
    assert json.loads(good("stats", db))["history_index"] is True
    assert good("history", db, "c", "k") == before
    result = run("index", db)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "the index is there; nothing was changed\n")
    assert "index for histories made" in on_terminal("audit", db).shown
    assert run("index", db, "--drop").stderr == "the index was removed\n"
    assert json.loads(good("index", db, "--drop", "--json")) == {"changed": False, "history_index": False}
    assert run("index", db, "-q").stderr == ""
    assert "there is no file" in bad(5, "index", f"{db}.none")


def test_followed_changes_come_as_they_are_made(db: str) -> None:
    command = [sys.executable, "-m", "sqlstate", "changes", db, "--follow", "--after", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert json.loads(program.stdout.readline())["seq"] == 3
        good("put", db, "c", "k", "4")
        assert json.loads(program.stdout.readline())["value"] == 4
        program.terminate()


def test_undo_and_revert_make_commits(db: str) -> None:
    assert json.loads(good("undo", db, "2", "--json"))["seq"] == 4
    assert lines(good("list", db, "c", "--prefix", "k"))[0]["value"] == 1
    result = run("undo", db, "1")
    assert result.exit_code == 0, "the commit after it was undone, so it is as it left things"
    assert good("list", db, "c") == ""
    said = bad(1, "undo", db, "2")
    assert said.startswith("changed since: c k\nerror: 'c'['k'] is ABSENT, expected")
    assert "there is no commit 99" in bad(2, "undo", db, "99")
    assert "commit 6" in run("revert", db, "3", "--note", "back").stderr
    assert lines(good("changes", db, "--after", "5"))[0]["note"] == "back"
    assert run("revert", db, "3").stderr == "there is no difference; no commit was made\n"
    assert "neither the number of a commit nor a time" in bad(2, "revert", db, "soon")


def test_at_shows_what_was(db: str) -> None:
    assert good("get", db, "c", "k", "--at", "1") == "1\n"
    assert [each["key"] for each in lines(good("list", db, "c", "--at", "1"))] == [5, "gone", "k"]
    assert lines(good("collections", db, "--at", "2")) == [{"collection": "c", "entries": 2}]
    assert len(lines(good("export", db, "--at", "1"))) == 3
    with sqlstate.open(db) as store:
        second = datetime.fromisoformat(list(store.commits())[1].at)
    for time in (second.isoformat(), second.astimezone().replace(tzinfo=None).isoformat()):
        assert lines(good("collections", db, "--at", time)) == [{"collection": "c", "entries": 2}]
    assert "there is no commit 9" in bad(2, "get", db, "c", "k", "--at", "9")


def test_an_int_key_that_was_meant_is_pointed_at(db: str) -> None:
    assert "--key-type int" in bad(1, "get", db, "c", "5")
    assert "--key-type int" in bad(1, "delete", db, "c", "5")
    assert "--key-type int" not in bad(1, "get", db, "c", "6")
    assert "--key-type int" not in bad(1, "get", db, "c", "x")


def test_diff_says_by_its_exit_code_whether_there_is_a_difference(db: str, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy.db")
    good("backup", db, copy, "--quiet")
    result = run("diff", db, copy)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no difference\n")
    good("put", copy, "c", "k", "3", "--quiet")
    result = run("diff", db, copy)
    assert (result.exit_code, result.stderr) == (1, "1 entry differs\n")
    assert lines(result.stdout) == [{"collection": "c", "key": "k", "a": {"$json": {"$json": 2}}, "b": 3}]
    assert len(lines(run("diff", db, db, "--at-a", "1").stdout)) == 3
    assert run("diff", db, db, "--at-a", "3").exit_code == 0
    bad(5, "diff", db, str(tmp_path / "none.db"))


def test_merge_prints_collisions_and_leaves_the_copy(db: str, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy.db")
    good("backup", db, copy, "--quiet")
    good("put", copy, "c", "k", "3", "--quiet")
    good("put", copy, "c", "theirs", "4", "--quiet")
    good("put", db, "c", "k", "5", "--quiet")
    result = run("merge", db, copy, "--dry-run")
    assert result.exit_code == 1
    assert result.stderr == "parted after commit 3: 1 entry to change, 1 collision; nothing was changed\n"
    found = json.loads(result.stdout)
    assert found["collisions"] == [
        {"collection": "c", "key": "k", "base": {"$json": {"$json": 2}}, "ours": 5, "theirs": 3}
    ]
    assert (found["common"], found["applied"], found["seq"]) == (3, 1, 4)
    before = good("head", copy)
    assert json.loads(good("merge", db, copy, "--prefer", "theirs"))["applied"] == 2
    assert (good("get", db, "c", "k"), good("get", db, "c", "theirs")) == ("3\n", "4\n")
    assert good("head", copy) == before
    other = str(tmp_path / "other.db")
    good("put", other, "c", "k", "1", "--quiet")
    assert "not copies of one store" in bad(2, "merge", db, other)


def test_what_the_log_does_not_have_is_named(db: str) -> None:
    result = run("redact", db, "c", "k")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "2 records redacted\n")
    assert json.loads(good("redact", db, "c", "k", "--json")) == {"records": 0, "entry": None, "overwritten": True}
    first, second = lines(good("changes", db, "c", "--prefix", "k"))
    assert (first["redacted"], "value" in first, "before" in first) == (["value"], False, False)
    assert (second["redacted"], second["value"]) == (["before"], {"$json": {"$json": 2}})
    assert "(redacted)" in on_terminal("history", db, "c", "k").shown
    record = next(each for each in lines(good("log", db)) if each.get("key") == "k")
    assert (record["digests"], len(record["value"]["digest"])) == (1, 64)
    assert "(redacted)" in on_terminal("log", db).shown
    assert "has its digest only" in bad(1, "get", db, "c", "k", "--at", "1") + bad(1, "undo", db, "2")
    exported = run("export", db, "--at", "1")  # those before it were written
    assert (exported.exit_code, "has its digest only" in exported.stderr) == (1, True)
    assert "has its digest only" in bad(1, "revert", db, "1")
    assert json.loads(good("audit", db).splitlines()[-1])["kind"] == "redact"
    assert lines(run("diff", db, db, "--at-a", "1").stdout)[1]["redacted"] == ["a"]
    assert "staged" not in bad(5, "redact", "no.db", "c", "k")


def test_what_the_log_keeps_is_set_and_printed(db: str) -> None:
    assert run("logging", db).stderr == "the log keeps the values of all collections\n"
    assert json.loads(good("logging", db, "cache", "digests", "--json")) == {"collection": "cache", "log": "digests"}
    assert lines(good("logging", db)) == [{"collection": "cache", "log": "digests"}]
    assert json.loads(good("logging", db, "cache", "--json"))["log"] == "digests"
    assert json.loads(good("logging", db, "c", "--json"))["log"] == "values"
    assert run("logging", db, "cache", "values").stderr == "the log keeps the values of cache\n"
    assert json.loads(good("logging", db, "--json")) == []
    assert "digests" in bad(2, "logging", db, "cache", "nothing")
