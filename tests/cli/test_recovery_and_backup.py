"""The verbs recover, audit, backup and restore: what they print, their exit codes, and what they leave.

Method: a process is killed in the middle of its work, so that there is something to recover; then what SQLite
left is removed, cut or changed.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from sqlstate import errors
from sqlstate.cli.commands import recovery_and_backup as safety
from sqlstate.cli.exits import MEANINGS, Exit, exit_code
from tests import MIGRATIONS, ROOT
from tests.cli.test_program import PROGRAM, bad, good, made, on_terminal, run
from tests.reference import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CRASH = """
import os, sys
import sqlstate
store = sqlstate.open(sys.argv[1], journal=sys.argv[2])
for number in range(3):
    store["c"][number] = number
draft = store.stage(note="a draft")
draft.put("drafts", "letter", "Dear")
os.kill(os.getpid(), 9)
"""


def crashed(file: Path, journal: str = "wal") -> str:
    """A store whose only process was killed: three commits, and a draft with one put."""
    subprocess.run([sys.executable, "-c", CRASH, file, journal], check=False, cwd=ROOT)
    return str(file)


@pytest.fixture(autouse=True)
def _judged(tmp_path: Path) -> Iterator[None]:
    """Every store is judged whole when its test ends, unless the test damaged it and says so by its name."""
    yield
    for file in tmp_path.glob("*.db"):
        assert plain.judge(file).findings == (), f"{file.name} is not sound"


@pytest.fixture
def db(tmp_path: Path) -> str:
    """A store at rest with three commits."""
    file = str(tmp_path / "app.db")
    with sqlstate.open(file) as store:
        for number in range(3):
            store["c"][number] = number
    return file


def said_json(result: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The report on standard output, and the error on standard error's last line."""
    assert "Traceback" not in result.stderr
    return json.loads(result.stdout), json.loads(result.stderr.splitlines()[-1])["error"]


def with_damage(file: Path, damage: Callable[[Path], object]) -> str:
    crashed(file)
    damage(Path(f"{file}-wal"))
    return str(file)


def flip(wal: Path) -> None:
    data = bytearray(wal.read_bytes())
    data[32 + 24 + 100] ^= 1  # in the first frame, long acknowledged
    wal.write_bytes(data)


# ---- recover ----


def test_recover_does_nothing_where_nothing_is_due(db: str) -> None:
    before = Path(db).read_bytes()
    for how in ("rollback", "resume", "refuse", "accept"):
        report = json.loads(good("recover", db, "--how", how))
        assert (report["clean"], report["damage"], report["entry"]) == (True, "", None)
        assert report["after"]["seq"] == 3
    assert Path(db).read_bytes() == before


def test_recover_prints_what_it_found_and_did(tmp_path: Path) -> None:
    file = crashed(tmp_path / "app.db")
    report = json.loads(good("recover", file, "--json"))
    assert (report["clean"], report["shared"], report["due"], report["damage"]) == (False, False, False, "")
    assert (len(report["rolled_back"]), report["pending"], report["in_doubt"]) == (1, [], 3)
    assert report["journal"]["kind"] == "wal"
    assert report["journal"]["sqlite_frames"] == report["journal"]["committed"] > 0
    with sqlstate.open(file, read_only=True) as store:
        head = store.head()
        assert report["after"] == {
            "seq": 3, "root": head.root.hex(), "count": 3, "at": head.at, "chain": head.chain.hex(),
        }  # fmt: skip
        (entry,) = [entry for entry in store.audit() if entry.kind == "recovery"]
        assert entry.number == report["entry"]
    again = json.loads(good("recover", file))
    assert (again["clean"], again["entry"]) == (True, None)


def test_recover_can_leave_drafts_to_be_resumed(tmp_path: Path) -> None:
    file = crashed(tmp_path / "app.db")
    report = json.loads(good("recover", file, "--how", "resume"))
    assert (report["rolled_back"], len(report["pending"])) == ([], 1)
    with sqlstate.open(file, recover="resume") as store:
        store.resume(report["pending"][0]).commit()
    assert good("get", file, "drafts", "letter", "--raw") == "Dear"


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith("-shm")}


def test_recover_that_is_to_refuse_tells_and_touches_nothing(tmp_path: Path) -> None:
    file = crashed(tmp_path / "app.db")
    before = files_of(tmp_path)
    result = run("recover", file, "--how", "refuse", "--json")
    assert result.exit_code == Exit.CANNOT_OPEN
    report, error = said_json(result)
    assert (report["clean"], report["due"], report["entry"]) == (False, True, None)
    assert error["code"] == "RecoveryDue"
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("damage", [os.unlink, flip], ids=["missing", "rot"])
def test_a_damaged_journal_is_told_and_can_be_accepted(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    file = with_damage(tmp_path / "app.db", damage)
    kind = "missing" if damage is os.unlink else "rot"
    for command in (["recover", file], ["recover", file, "--how", "refuse"]):
        result = run(*command, "--json")
        assert result.exit_code == Exit.DAMAGED
        report, error = said_json(result)
        assert (report["damage"], error["code"]) == (kind, "JournalDamaged")
        assert error["message"].endswith("'sqlstate recover FILE --how accept' does so")
    for command in (["put", file, "c", "k", "1"], ["stats", file], ["backup", file, str(tmp_path / "copy")]):
        assert "'sqlstate recover FILE --how accept' does so" in bad(Exit.DAMAGED, *command)
    report = json.loads(good("recover", file, "--how", "accept"))
    assert (report["damage"], report["clean"]) == (kind, False)
    assert report["entry"] is not None
    assert json.loads(good("recover", file))["clean"] is True
    assert good("audit", file, "--check") == '{"sound":true,"findings":[]}\n'
    assert not (tmp_path / "copy").exists()


def test_recover_makes_no_store_and_knows_its_ways(tmp_path: Path, db: str) -> None:
    missing = str(tmp_path / "none")
    assert "there is no file" in bad(Exit.CANNOT_OPEN, "recover", missing)
    assert not Path(missing).exists()
    assert "'--how'" in bad(Exit.USAGE, "recover", db, "--how", "merge")
    (tmp_path / "text").write_text("no database " * 100, encoding="utf-8")
    bad(Exit.CANNOT_OPEN, "recover", str(tmp_path / "text"))


@pytest.mark.slow
def test_recover_prints_a_table_on_a_terminal(tmp_path: Path) -> None:
    file = crashed(tmp_path / "app.db")
    code, shown = on_terminal("recover", file, "--how", "refuse", columns=200)
    assert code == Exit.CANNOT_OPEN
    assert shown.splitlines()[0].split("  ")[-1] == "not clean, recovery is due"
    assert "error:" in shown.splitlines()[-1]
    code, shown = on_terminal("recover", file, columns=200)
    assert code == 0
    rows = dict(line.split("  ", 1) for line in shown.splitlines())
    rows = {name: text.strip() for name, text in rows.items()}
    assert list(rows) == [
        "last close", "journal", "rolled back", "in doubt", "file alone", "head", "checked", "audit entry",
        "time", "SQLite",
    ]  # fmt: skip
    assert rows["last close"] == "not clean"
    assert rows["in doubt"].startswith("commit 3")
    assert rows["head"].startswith("commit 3, 3 entries, root ")
    assert on_terminal("recover", file, "--jsonl").shown.startswith('{"clean":true')
    assert on_terminal("recover", file).shown.startswith("last close  clean\njournal     none\n")


def test_recover_of_a_rollback_journal(tmp_path: Path) -> None:
    file = crashed(tmp_path / "app.db", "delete")
    report = json.loads(good("recover", file))
    assert (len(report["rolled_back"]), report["after"]["seq"]) == (1, 3)
    assert safety._journal_text({"kind": "rollback", "frames": 3, "committed": 2}) == "-journal, 3 pages, 2 restored"


# ---- audit ----


def test_audit_prints_the_entries(tmp_path: Path) -> None:
    file = crashed(tmp_path / "app.db")
    good("recover", file)
    with sqlstate.open(file, read_only=True) as store:
        entries = list(store.audit())
    lines = [json.loads(line) for line in good("audit", file).splitlines()]
    assert lines == [{**entry._asdict(), "chain": entry.chain.hex(), "digest": entry.digest.hex()} for entry in entries]
    assert [line["kind"] for line in lines] == [*["migration"] * len(MIGRATIONS), "recovery"]
    assert json.loads(good("audit", file, "--json")) == lines
    one = good("audit", file, "--after", "1", "--limit", "1", "--jsonl")
    assert [json.loads(line) for line in one.splitlines()] == lines[1:2]
    assert run("audit", file, "--after", str(len(lines))).stderr == "no entries\n"
    assert json.loads(good("audit", file, "--after", str(len(lines)), "--json", "--quiet")) == []


def test_audit_prints_a_table_on_a_terminal(tmp_path: Path) -> None:
    file = crashed(tmp_path / "app.db")
    good("recover", file)
    good("backup", file, str(tmp_path / "copy.db"), "--quiet")
    rows = on_terminal("audit", file, columns=200).shown.splitlines()
    assert rows[0].split() == ["NUMBER", "AT", "KIND", "SEQ", "WHAT"]
    assert rows[1].endswith("  0001_initial.sql")
    assert "  recovery " in rows[len(MIGRATIONS) + 1]
    assert " rolled back; commit 3 in doubt; -wal, " in rows[len(MIGRATIONS) + 1]
    assert "copy.db, commit 3, " in rows[len(MIGRATIONS) + 2]
    assert max(map(len, on_terminal("audit", file, columns=80).shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("kind", "detail", "what"),
    [
        ("migration", {"name": "0003_x.sql", "number": 3}, "0003_x.sql"),
        ("backup", {"file": "b.db", "seq": 7, "bytes": 1234567}, "b.db, commit 7, 1,234,567 bytes"),
        ("restore", {"file": "b.db", "seq": 7, "bytes": 1234567}, "b.db, commit 7, 1,234,567 bytes"),
        ("check", {"entries": 3, "sound": True}, "entries 3, sound True"),
        ("recovery", {"resumed": [4, 9]}, "staged transactions 4, 9 resumed"),
        ("recovery", {"of": "another version"}, "of another version"),
        ("backup", {"file": "b.db", "bytes": "many", "seq": 1}, "file b.db, bytes many, seq 1"),
        (
            "recovery",
            {
                "clean": False, "shared": False, "damage": "rot", "in_doubt": 7, "rolled_back": [], "pending": [8, 12],
                "removed": [".x.tmp"], "evidence": ["app.db-wal.evidence-1"],
                "journal": {
                    "kind": "wal", "frames": 9, "committed": 5, "commits": 2, "uncommitted": 1, "torn_bytes": 7,
                    "stale": 0, "proved": 2, "sqlite_frames": 5,
                },
            },
            (
                "damage accepted: rot; staged transactions 8, 12 left; commit 7 in doubt; .x.tmp removed; "
                "app.db-wal.evidence-1 put aside; -wal, 5 of 9 frames, 2 SQLite commits, 1 not committed, "
                "7 bytes torn, 2 sound behind damage, SQLite counts 5"
            ),
        ),
        (
            "recovery",
            {
                "clean": True, "shared": True, "damage": "", "in_doubt": None, "rolled_back": [8], "pending": [],
                "removed": [], "evidence": [], "journal": {"kind": "none"},
            },
            "staged transaction 8 rolled back",
        ),
    ],
)  # fmt: skip
def test_what_an_entry_says_is_one_line(kind: str, detail: dict[str, Any], what: str) -> None:
    assert safety.event_text(sqlstate.AuditEntry(1, "", kind, 0, b"", detail, b"")) == what


def test_audit_check_finds_an_edited_entry(db: str, tmp_path: Path) -> None:
    assert good("audit", db, "--check") == '{"sound":true,"findings":[]}\n'
    assert on_terminal("audit", db, "--check").shown == "sound\n"
    file = str(tmp_path / "edited")
    shutil.copy(db, file)
    with closing(sqlite3.connect(file)) as edited, edited:
        (trigger,) = edited.execute("SELECT sql FROM sqlite_schema WHERE name = 'audit_no_update'").fetchone()
        edited.execute("DROP TRIGGER audit_no_update")
        edited.execute("UPDATE audit SET at = '1970' WHERE number = 1")
        edited.execute(trigger)
    result = run("audit", file, "--check", "--quiet")
    assert (result.exit_code, result.stderr) == (Exit.DAMAGED, "")
    facts = json.loads(result.stdout)
    assert facts["sound"] is False
    assert "entry 1 " in facts["findings"][0]
    code, shown = on_terminal("audit", file, "--check")
    assert (code, shown.splitlines()) == (Exit.DAMAGED, facts["findings"])


def test_audit_refuses_what_does_not_go_together(db: str, tmp_path: Path) -> None:
    for options in (["--after", "1"], ["--limit", "1"]):
        assert "leave out --after and --limit" in bad(Exit.USAGE, "audit", db, "--check", *options)
    bad(Exit.USAGE, "audit", db, "--after", "-1")
    assert "there is no file" in bad(Exit.CANNOT_OPEN, "audit", str(tmp_path / "none"))
    before = Path(db).read_bytes()
    good("audit", db)
    good("audit", db, "--check")
    assert Path(db).read_bytes() == before


# ---- backup and restore ----


def test_a_backup_is_one_sound_store_and_can_be_restored(db: str, tmp_path: Path) -> None:
    copy, back = tmp_path / "copy.db", tmp_path / "back.db"
    head = json.loads(good("head", db))
    result = run("backup", db, str(copy), "--json")
    assert result.stderr == f"3 entries of commit 3 written, {copy.stat().st_size:,} bytes\n"
    facts = {"path": str(copy), "entries": 3, "bytes": copy.stat().st_size, "seq": 3, "root": head["root"]}
    assert json.loads(result.stdout) == {**facts, "rotated": [], "removed": []}
    assert json.loads(good("audit", db, "--after", str(len(MIGRATIONS))))["kind"] == "backup"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["app.db", "copy.db"]
    result = run("restore", str(copy), str(back), "--json")
    assert json.loads(result.stdout) == {
        **facts, "path": str(back), "bytes": back.stat().st_size, "copied_open": False,
    }  # fmt: skip
    assert json.loads(good("head", str(back))) == head
    assert run("restore", str(copy), str(back), "--replace").stdout == ""
    assert sorted(file.name for file in tmp_path.iterdir()) == ["app.db", "back.db", "copy.db"]


def test_backups_rotate(db: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    for number in range(4):
        good("put", db, "c", "k", str(number))
        facts = json.loads(good("backup", db, str(copy), "--keep", "3", "--quiet", "--json"))
    kept = {file.name: json.loads(good("get", str(file), "c", "k")) for file in tmp_path.glob("copy*")}
    assert (facts["rotated"], facts["removed"]) == (["copy.db.1", "copy.db.2"], ["copy.db.3"])
    assert kept == {"copy.db": 3, "copy.db.1": 2, "copy.db.2": 1}


def test_a_damaged_store_is_not_backed_up_but_salvaged_under_a_name_of_its_own(db: str, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy.db")
    good("backup", db, copy, "--quiet")
    shutil.copy(db, tmp_path / "damaged")
    db = str(tmp_path / "damaged")
    with closing(sqlite3.connect(db)) as edited, edited:
        edited.execute("UPDATE merkle SET children = zeroblob(length(children))")
    before = files_of(tmp_path)
    said = bad(Exit.DAMAGED, "backup", db, copy, "--keep", "3")
    assert "'sqlstate backup --salvage' makes a copy of it as it is" in said
    assert files_of(tmp_path) == before
    bad(Exit.USAGE, "backup", db, copy, "--keep", "3", "--salvage")
    result = run("backup", db, copy, "--salvage", "--json")
    facts = json.loads(result.stdout)
    assert Path(facts["path"]).stat().st_size == facts["bytes"]
    assert facts["path"].startswith(f"{copy}.salvage-")
    assert f"'sqlstate check {facts['path']}'" in result.stderr
    bad(Exit.USAGE, "restore", facts["path"], copy, "--replace")
    assert {name: kept for name, kept in files_of(tmp_path).items() if "salvage" not in name} == before


def test_backup_refuses_what_would_do_harm(db: str, tmp_path: Path) -> None:
    before = files_of(tmp_path)
    bad(Exit.USAGE, "backup", db, db)
    bad(Exit.USAGE, "backup", db, str(tmp_path))
    bad(Exit.USAGE, "backup", db, str(tmp_path / "copy"), "--keep", "-1")
    bad(Exit.CANNOT_OPEN, "backup", str(tmp_path / "none"), str(tmp_path / "copy"))
    assert run("backup", db, str(tmp_path / "none" / "copy")).exit_code == Exit.IO
    assert files_of(tmp_path) == before


def test_restore_refuses_what_would_do_harm(db: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    good("backup", db, str(copy), "--quiet")
    before = files_of(tmp_path)
    assert bad(Exit.USAGE, "restore", str(copy), db).endswith("restore with --replace\n")
    assert "--replace" not in bad(Exit.USAGE, "restore", str(copy), str(tmp_path), "--replace")
    bad(Exit.CANNOT_OPEN, "restore", str(tmp_path / "none"), str(tmp_path / "back.db"))
    assert files_of(tmp_path) == before
    damaged = tmp_path / "damaged"
    shutil.copy(copy, damaged)
    with closing(sqlite3.connect(damaged)) as edited, edited:
        edited.execute("UPDATE state SET value = '7' WHERE key = 1")
    result = run("restore", str(damaged), str(tmp_path / "back.db"), "--json")
    assert (result.exit_code, result.stdout) == (Exit.USAGE, "")
    assert json.loads(result.stderr.splitlines()[-1])["error"]["code"] == "RestoreRejected"
    crash = crashed(tmp_path / "crashed")
    result = run("restore", crash, str(tmp_path / "back.db"))
    assert result.exit_code == Exit.USAGE, result.stderr
    assert not (tmp_path / "back.db").exists()


@pytest.mark.slow
def test_backup_and_restore_show_a_bar_on_a_terminal(db: str, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy.db")
    for command in (["backup", db, copy], ["restore", copy, str(tmp_path / "back.db"), "--replace"]):
        assert "100%" in on_terminal(*command).shown
        assert on_terminal(*command, "--quiet") == (0, "")


# ---- Exit codes ----


def test_the_new_errors_have_their_exit_codes() -> None:
    assert exit_code(made(errors.JournalDamaged)) is Exit.DAMAGED
    assert exit_code(made(errors.RecoveryDue)) is Exit.CANNOT_OPEN
    assert exit_code(made(errors.RestoreRejected)) is Exit.USAGE
    assert len(MEANINGS) == 10


def test_a_program_that_is_asked_for_a_report_ends_with_its_code(tmp_path: Path) -> None:
    """As a process of its own, too."""
    file = with_damage(tmp_path / "damaged", os.unlink)
    result = subprocess.run([*PROGRAM, "recover", file], capture_output=True, text=True, check=False)
    assert result.returncode == Exit.DAMAGED
    assert json.loads(result.stdout)["damage"] == "missing"
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


# ---- compact ----


def test_compact_gives_space_back_and_says_how_much(tmp_path: Path) -> None:
    file = tmp_path / "app.db"
    with sqlstate.open(file) as store:
        store["c"].update(dict.fromkeys(range(100), "x" * 100))
        connection = store._engine.write_connection
        connection.run("CREATE TABLE theirs (content)")
        connection.run("INSERT INTO theirs VALUES (zeroblob(400000))")
        connection.run("DROP TABLE theirs")
        store["c"]["last"] = 1
        head = store.head()
    size = file.stat().st_size
    sizes = json.loads(good("stats", str(file)))
    assert sizes["free_bytes"] > 400_000
    assert sum(sizes[f"{name}_bytes"] for name in ("entries", "log", "tree", "other", "free")) == size
    result = run("compact", str(file), "--json")
    report = json.loads(result.stdout)
    assert report["bytes_before"] == size
    assert report["bytes_after"] <= size - sizes["free_bytes"]
    assert report["shrunk"] is True
    assert f"{size:,} bytes before, {report['bytes_after']:,} bytes after" in result.stderr
    assert file.stat().st_size <= report["bytes_after"] + 4096
    [line] = [line for line in good("audit", str(file)).splitlines() if '"compact"' in line]
    assert json.loads(line)["number"] == report["entry"]
    assert json.loads(good("head", str(file)))["root"] == head.root.hex()
    again = run("compact", str(file))
    assert (again.exit_code, again.stdout) == (0, "")
    bad(Exit.CANNOT_OPEN, "compact", str(tmp_path / "none.db"))
    assert not (tmp_path / "none.db").exists()


def test_compact_beside_a_reader_says_when_the_file_shrinks(tmp_path: Path) -> None:
    file = tmp_path / "app.db"
    with sqlstate.open(file) as store:
        store["c"]["k"] = 1
        with store.snapshot() as view:
            store["c"]["k"] = 2
            done = subprocess.run(
                [sys.executable, "-m", "sqlstate", "compact", str(file)], capture_output=True, text=True, check=True
            )
            assert "somebody reads an older commit: the file shrinks" in done.stderr
            assert view["c"]["k"] == 1
