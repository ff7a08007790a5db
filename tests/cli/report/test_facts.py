"""The report of a store: what it says, where it goes, and the proof that it carries.

Method: the page is made by the program and parsed; its tables are compared with what the store says.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sqlstate
from bench.page import fill
from sqlstate.cli.exits import Exit
from sqlstate.cli.report import facts
from tests import ROOT
from tests.cli.report.reading import paper, report
from tests.cli.test_program import bad, good, run
from tests.support.child import Child
from tests.support.mounts import read_only
from tests.support.system import FORBIDDEN, has_mode

# ---- What it says ----


def test_the_page_says_what_the_store_is(db: str) -> None:
    text, found = report(db)
    assert text.startswith("<!doctype html>")
    with sqlstate.open(db, read_only=True) as store:
        head, sizes = store.head(), store.sizes()
    assert [row[0] for row in found.tables["heads"][1:]] == ["3", "2", "1"]
    assert found.tables["heads"][1][3] == head.root.hex()
    assert [row[0].split()[-1] for row in found.tables["sizes"]] == [*sizes._fields]
    assert [row[:2] for row in found.tables["collections"][1:]] == [["users", "2"]]
    changes = [(row[0], row[2], row[3], row[4], row[5], row[6]) for row in found.tables["changes"][1:]]
    assert changes == [
        ("3", "settings", "lang", '"fr"', "", ""),
        ("2", "users", "7", "", "2 bytes x'00ff'", "move in"),
        ("2", "users", "ada", "", '{"age":36}', "move in"),
        ("1", "settings", "lang", "", '"fr"', ""),
    ]
    assert ["last close", "clean"] in found.tables["recovery"]
    assert "mirror has commit 2" in text
    assert ">Sound<" in text
    assert "2 entries, 1 nodes of the tree" in text


def test_an_empty_store_and_one_whose_log_was_cut_are_shown(tmp_path: Path) -> None:
    db = str(tmp_path / "app.db")
    sqlstate.open(db).close()
    text, found = report(db)
    assert "There is no commit in the log" in text
    assert "no entry that could be proven" in text
    with sqlstate.open(db) as store:
        for number in range(5):
            store["c"][number] = number
        store.cut(5)
        store.cut(store.head().seq)
    text, found = report(db)
    assert [row[0] for row in found.tables["heads"][1:]] == ["5"]
    assert found.tables["proven"][1] == ["Key", "4"]
    assert "from commit 5 on" in text


def test_what_is_kept_or_taken_out_of_the_log_is_not_shown(tmp_path: Path) -> None:
    db = str(tmp_path / "app.db")
    with sqlstate.open(db) as store:
        store["users"]["gone"] = "REDACTED-1"
        store["users"]["there"] = {"phone": "REDACTED-2"}
        del store["users"]["gone"]
        store["users"]["there"] = {"phone": "kept"}
        store.redact("users", "gone")
        store.redact("users", "there")
        store.set_logging("tokens", "digests")
        store["tokens"]["k"] = "SECRET-1"
        store["tokens"]["k"] = "SECRET-2"
    text, found = report(db)
    assert not re.search("REDACTED-|SECRET-", text)
    assert [row[3:6] for row in found.tables["changes"][1:]] == [
        ["k", "(digest only)", "(digest only)"],
        ["k", "", "(digest only)"],
        ["there", "(redacted)", '{"phone":"kept"}'],
        ["gone", "(redacted)", ""],
        ["there", "", "(redacted)"],
        ["gone", "", "(redacted)"],
    ]
    assert [row[3] for row in found.tables["collections"][1:]] == ["digests only in the log", ""]
    assert found.tables["proven"][1] == ["Key", "there"]
    assert '"SECRET-2"' in report(db, "--entry", "tokens", "k")[1].tables["proven"][2]  # the caller said so
    with sqlstate.open(db) as store:
        del store["users"]["there"]
    assert "no entry that could be proven" in report(db)[0]


def test_a_page_without_content_has_no_key_value_or_note(tmp_path: Path) -> None:
    db = str(tmp_path / "app.db")
    with sqlstate.open(db) as store:
        for number in range(4):
            with store.transaction(note=f"zqnote{number}") as txn:
                txn.put("users", f"zqkey{number}", f"zqvalue{number}")
                txn.put("users", "zqboth", number)
        del store["users"]["zqkey3"]
    text, found = report(db, "--no-content")
    assert "zq" not in text
    assert [row[3] for row in found.tables["changes"][1:4]] == ["deleted", "changed", "new"]
    assert paper(found)["question"] is None
    assert found.tables["collections"][1][:2] == ["users", "4"]
    with sqlite3.connect(db) as connection:
        connection.execute("UPDATE state SET value = '\"zqother\"' WHERE key = 'zqkey1'")
        connection.execute("DELETE FROM state WHERE key = 'zqkey2'")
    connection.close()
    text, found = report(db, "--no-content", code=Exit.DAMAGED)
    assert "zq" not in text
    assert "entry: 1" in text
    assert "zqkey0" in report(db, "--no-content", "--entry", "users", "zqkey0", code=Exit.DAMAGED)[0]


def test_a_commit_of_many_changes_leaves_room_for_others(tmp_path: Path) -> None:
    db = str(tmp_path / "app.db")
    with sqlstate.open(db) as store:
        store["c"].update(dict.fromkeys(range(2000), 0))
        store["c"].update(dict.fromkeys(range(2000), 1))
    _, found = report(db)
    assert [row[0] for row in found.tables["changes"][1:]] == [
        *["2"] * 5, "and more in this commit", *["1"] * 5, "and more in this commit",
    ]  # fmt: skip


def test_what_is_huge_is_cut(tmp_path: Path) -> None:
    db = str(tmp_path / "app.db")
    with sqlstate.open(db) as store:
        for number in range(8):
            key = f"{number}" + "k" * 400_000
            with store.transaction(note="n" * 1000) as txn:
                txn.put("c" * 255, key, [key])
                txn.put("c" * 255, key.encode(), key.encode())
    text, _ = report(db)
    assert len(text) < 200_000
    assert "no entry that could be proven" in text
    assert "a report carries at most" in bad(2, "report", db, "-o", str(tmp_path / "r"), "--entry", "c", "k" * 100_000)


def test_the_largest_page_is_no_larger_than_it_must_be(tmp_path: Path) -> None:
    db = str(tmp_path / "app.db")
    most = "<" * (facts.PROVEN_BYTES_MAX - 2)  # in the page each is written as six characters
    with sqlstate.open(db) as store:
        fill(store, 3000, 1000)
        with store.transaction(note="<" * 1000) as txn:
            for number in range(20):
                txn.put(f"{number:02}" + "<" * 250, most, most)
            for start in "ac":
                txn.put("c", start * 500_000, 0)
    text, found = report(db, "--entry", "00" + "<" * 250, most)
    assert paper(found)["question"]["value"] == {"json": f'"{most}"'}
    assert len(text.encode()) < 1_200_000
    said = bad(2, "report", db, "-o", str(tmp_path / "r.html"), "--entry", "c", "b")  # its neighbours are in the proof
    assert "too many for a report; name another entry" in said


def test_many_collections_are_shown_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = str(tmp_path / "app.db")
    with sqlstate.open(db) as store, store.transaction() as txn:
        for number in range(1500):
            txn.put(f"c{number:04}", "k", number)
        txn.put("c0003", "other", 0)
    text, found = report(db)
    assert found.tables["collections"][1][:2] == ["c0003", "2"]
    assert len(found.tables["collections"]) == 1 + facts.COLLECTIONS_SHOWN
    assert "And 1,400 more, with 1,400 entries in all.</p>" in text
    monkeypatch.setattr(facts, "COLLECTIONS_COUNTED", 10)
    text, found = report(db)
    assert found.tables["collections"][1][:2] == ["c0003", "2"]
    assert len(found.tables["collections"]) == 1 + 10
    assert "And 1,490 more, with 1,490 entries in all. 1,490 of these were not looked at: the last by name.</p>" in text


def test_a_large_log_is_drawn_from_some_of_its_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = str(tmp_path / "app.db")
    with sqlstate.open(db) as store, store.batch() as batch:
        for number in range(40):
            batch["c"][number] = number
            batch.flush()
    whole, _ = report(db)
    monkeypatch.setattr(facts, "COMMITS_READ_MAX", 10)
    monkeypatch.setattr(facts, "POINTS_MAX", 7)
    some, found = report(db)
    assert "40 commits." in whole
    assert "40 commits." in some
    assert found.tables["heads"][1][0] == "40"
    assert len(re.findall("V", re.findall(r'class="line" d="([^"]+)"', some)[0])) < len(
        re.findall("V", re.findall(r'class="line" d="([^"]+)"', whole)[0])
    )


def test_a_damaged_store_is_shown_as_far_as_it_can_be_read(db: str) -> None:
    with sqlite3.connect(db) as connection:
        connection.execute("UPDATE state SET value = '99' WHERE key = 'ada'")
    connection.close()
    text, found = report(db, code=Exit.DAMAGED)
    assert ">DAMAGED<" in text
    assert "sqlstate repair" in text
    assert "&#39;ada&#39;" in text
    assert found.tables["heads"][1][0] == "3"


def test_a_part_that_cannot_be_read_says_so(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise sqlstate.Damaged(f"{db}: page <7> is not as it was written")

    for part in ("_heads", "_sizes", "_collections", "_changes", "_recovery", "_audit", "_proof", "_check"):
        monkeypatch.setattr(facts, part, broken)
    text, _ = report(db, code=Exit.CANNOT_OPEN)
    assert text.count("This part could not be read: app.db: page &lt;7&gt; is not") >= 8


def test_a_bug_of_ours_is_no_damage_of_the_file(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise TypeError("ours")

    monkeypatch.setattr(facts, "_sizes", broken)
    assert "a bug in sqlstate" in bad(Exit.BUG, "report", db, "-o", str(Path(db).with_suffix(".html")))
    assert not Path(db).with_suffix(".html").exists()


def test_a_store_with_any_byte_changed_gives_a_page_or_a_sentence(db: str, tmp_path: Path) -> None:
    with sqlite3.connect(db) as connection:
        connection.execute("VACUUM")  # no free space between rows, so that more of the bytes matter
    connection.close()
    sound = Path(db).read_bytes()
    rng = random.Random(5)  # noqa: S311
    file, out = tmp_path / "changed.db", tmp_path / "changed.html"
    ends = set()
    for _ in range(60):
        out.unlink(missing_ok=True)
        changed = bytearray(sound)
        changed[rng.randrange(len(sound))] ^= 1 << rng.randrange(8)
        file.write_bytes(changed)
        result = run("report", str(file), "-o", str(out))
        assert result.exit_code in (Exit.OK, Exit.DAMAGED, Exit.CANNOT_OPEN), (result.stderr, result.exception)
        assert out.exists() or result.stderr.startswith("error: ")
        assert not out.exists() or str(tmp_path) not in out.read_text("utf-8")
        ends.add((result.exit_code, out.exists()))
        assert file.read_bytes() == changed
        for left in tmp_path.glob("changed.db-*"):
            left.unlink()
    assert (Exit.DAMAGED, True) in ends


EDITS = [
    "UPDATE wal SET at = '0000-01-01T00:00:00.000000Z' WHERE seq = 2",
    "UPDATE wal SET at = '9999-12-31T23:59:59.999999Z' WHERE seq = 2",
    "UPDATE wal SET at = '2026-13-41T99:99:99.000000Z' WHERE seq = 2",
    "UPDATE wal SET at = NULL WHERE seq = 2",
    "UPDATE wal SET count = -5 WHERE seq = 2",
    "UPDATE wal SET count = 9223372036854775807 WHERE seq = 2",
    "UPDATE wal SET seq = 99 WHERE seq = 3",
    "UPDATE wal SET note = x'00ff'",
    "UPDATE wal SET value = 'nope', key = 2.5 WHERE kind = 'PUT'",
    "UPDATE wal SET collection = '' WHERE kind = 'PUT'",
    "DELETE FROM wal WHERE seq = 2",
    "DELETE FROM wal",
    "DELETE FROM merkle",
    "DELETE FROM state",
    "DELETE FROM meta",
    "UPDATE state SET value = '{'",
    "UPDATE state SET collection = x'ff'",
    "UPDATE state SET key = 1.5 WHERE key = 'ada'",
    "UPDATE state SET key = '' WHERE key = 'ada'",
    "UPDATE meta SET value = 'x' WHERE name = 'log_limit'",
    "UPDATE claims SET name = x'ff'",
    "UPDATE claims SET seq = -1",
    "DROP TRIGGER audit_no_update; UPDATE audit SET detail = 'nope'",
    "DROP TRIGGER audit_no_update; UPDATE audit SET detail = '[]', kind = 'recovery'",
    "DROP TRIGGER audit_no_update; UPDATE audit SET at = 'x'",
]


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_store_gives_a_page_or_a_sentence(db: str, tmp_path: Path, edit: str) -> None:
    with sqlite3.connect(db) as connection:
        connection.executescript(edit)
    connection.close()
    before = Path(db).read_bytes()
    for options in ((), ("--no-content",)):
        out = tmp_path / "edited.html"
        result = run("report", db, "-o", str(out), *options)
        assert result.exit_code in (Exit.DAMAGED, Exit.CANNOT_OPEN), (result.stderr, result.exception)
        assert out.exists() or result.stderr.startswith("error: ")
    assert Path(db).read_bytes() == before


@pytest.mark.parametrize("name", ["<img src=x onerror=hit()>.db", "a\u202egnp.db", '"&.db'])
def test_a_hostile_file_name_is_shown_as_text(db: str, name: str) -> None:
    if FORBIDDEN.intersection(name):
        pytest.skip("this system lets no file have this name")
    file = Path(db).with_name(name)
    shutil.move(db, file)
    text, found = report(str(file))
    assert not {"img"} & {element for element, _ in found.elements}
    assert "\u202e" not in text


# ---- What it leaves alone ----


def folder_of(db: str) -> dict[str, bytes]:
    """Return the store's files and what they hold; the -shm is an index that readers share."""
    return {each.name: each.read_bytes() for each in Path(db).parent.glob("app.db*") if not each.name.endswith("-shm")}


def test_a_store_that_was_not_closed_is_shown_as_recovery_will_find_it_and_left_alone(db: str) -> None:
    with Child("leaves", db) as child:
        child.expects("put")
        child.end()
    before = folder_of(db)
    assert "app.db-wal" in before
    text, found = report(db)
    assert "The last close was not clean" in text
    assert found.tables["heads"][1][0] == "4"
    assert folder_of(db) == before


def test_a_store_in_use_is_shown_and_left_alone(db: str) -> None:
    with sqlstate.open(db) as store:
        store["left"][0] = store["right"][0] = 0
    with Child("holds", db) as child:
        child.expects("holding")
        before = folder_of(db)
        text, found = report(db)
        assert ">Sound<" in text
        assert found.tables["heads"][1][0] == "5"
        assert folder_of(db) == before
        child.tell()
        child.expects("committed")


@pytest.mark.parametrize(
    "part", ["_heads", "_sizes", "_collections", "_changes", "_recovery", "_audit", "_proof", "_check"]
)
def test_a_store_that_goes_on_and_is_cut_meanwhile_is_shown(
    db: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(facts, part)
    with sqlstate.open(db) as store:
        root = store.head().root
        del store.claims["mirror"]

        def overtaken(*arguments: Any) -> Any:
            for number in range(5):
                store["more"][number] = number
            store.cut(store.head().seq)
            return original(*arguments)

        monkeypatch.setattr(facts, part, overtaken)
        text, found = report(db)
    assert ">Sound<" in text
    assert f">{root.hex()}<" in text
    carried = sqlstate.proof.Proof.from_json(paper(found)["proof"])
    sqlstate.proof.verify_present(carried, root, "users", 7, b"\x00\xff")


def test_a_store_on_read_only_media_is_shown(db: str, tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    shutil.copy(db, media / "app.db")
    with read_only(media) as folder:
        result = run("report", str(folder / "app.db"), "-o", str(tmp_path / "r.html"))
        assert result.exit_code == 0, result.stderr
        assert "Read-only file system" in bad(Exit.IO, "report", str(folder / "app.db"), "-o", str(folder / "r.html"))
    assert [each.name for each in media.iterdir()] == ["app.db"]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_store_of_an_older_format_gets_the_answer_that_check_gives(version: int, tmp_path: Path) -> None:
    source = next((ROOT / f"tests/fixtures/format-{version}").glob("[ce]*.db"))
    db = tmp_path / "app.db"
    shutil.copy(source, db)
    checked, reported = run("check", str(db)), run("report", str(db), "-o", str(tmp_path / "r.html"))
    assert reported.exit_code == checked.exit_code
    if reported.exit_code:
        assert reported.stderr == checked.stderr
    assert db.read_bytes() == source.read_bytes()


# ---- Where it goes ----


def test_the_page_replaces_what_was_there_and_never_the_store(db: str, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    out.write_text("before", "utf-8", newline="\n")
    said = json.loads(good("report", db, "-o", str(out), "--json"))
    assert said == {"outcome": "sound", "seq": 3, "bytes": out.stat().st_size}
    before = Path(db).read_bytes()
    for target in (db, db + "-wal"):
        assert "belongs to the store itself" in bad(2, "report", db, "-o", target)
    assert Path(db).read_bytes() == before
    assert "Missing option '-o'" in bad(2, "report", db)
    bad(Exit.CANNOT_OPEN, "report", str(tmp_path / "none.db"), "-o", str(tmp_path / "none.html"))
    assert not (tmp_path / "none.html").exists()
    assert good("report", db, "-o", "-", "--quiet").startswith("<!doctype html>")


def test_a_page_that_cannot_be_written_is_refused_before_the_store_is_read(
    db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "gather", None)
    bad(Exit.IO, "report", db, "-o", str(tmp_path / "none" / "r.html"))
    assert "not a regular file" in bad(Exit.USAGE, "report", db, "-o", str(tmp_path))


def test_a_page_is_its_owners_alone(db: str, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    good("report", db, "-o", str(out))
    assert has_mode(out, 0o600)
    out.chmod(0o644)
    good("report", db, "-o", str(out))
    assert has_mode(out, 0o644)


def test_without_jinja2_it_says_what_to_install(db: str, tmp_path: Path) -> None:
    code = "import sys; sys.modules['jinja2'] = None; from sqlstate.cli import main; main()"
    out = tmp_path / "r.html"
    done = subprocess.run(
        [sys.executable, "-c", code, "report", db, "-o", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == Exit.USAGE
    assert "pip install 'sqlstate-store[report]'" in done.stderr
    assert not out.exists()


# ---- What it proves ----


def test_the_page_carries_a_proof_of_the_entry_that_was_asked_for(db: str) -> None:
    with sqlstate.open(db, read_only=True) as store:
        root = store.head().root
    _, found = report(db, "--entry", "users", "7", "--key-type", "int")
    carried = paper(found)
    assert carried["question"] == {
        "kind": "present",
        "collection": "users",
        "key": {"int": "7"},
        "value": {"bytes": "00ff"},
    }
    sqlstate.proof.verify_present(sqlstate.proof.Proof.from_json(carried["proof"]), root, "users", 7, b"\x00\xff")
    _, found = report(db, "--entry", "users", "nobody")
    carried = paper(found)
    assert carried["question"]["kind"] == "absent"
    sqlstate.proof.verify_absent(sqlstate.proof.Proof.from_json(carried["proof"]), root, "users", "nobody")


def test_a_value_too_large_for_a_page_is_refused_if_asked_for_and_passed_over_if_not(tmp_path: Path) -> None:
    db = str(tmp_path / "app.db")
    with sqlstate.open(db) as store:
        store["c"]["small"] = 1
        store["c"]["large"] = "x" * facts.PROVEN_BYTES_MAX
    assert "key" in bad(2, "report", db, "-o", str(tmp_path / "r.html"), "--entry", "c", "")
    assert "65,538 bytes" in bad(2, "report", db, "-o", str(tmp_path / "r.html"), "--entry", "c", "large")
    _, found = report(db)
    assert found.tables["proven"][1] == ["Key", "small"]
