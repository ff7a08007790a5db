"""The drill: it finds nothing where nothing is lost, it finds each thing that is, and it leaves nothing behind.

Method: real drills with few kills; then drills whose store is changed between kill and check, whose writers
lie, or whose report does; and the judging parts alone, with books made by hand.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pycountry
import pytest

import sqlstate
from sqlstate.cli.commands import drill as verb
from sqlstate.cli.drill import run as course
from sqlstate.cli.drill.ledger import Found, Ledger, Replay
from sqlstate.cli.drill.report import DrillReport, Plan
from sqlstate.cli.drill.run import FILE_NAME, IMAGES, Drill
from sqlstate.cli.drill.writer import COLLECTIONS, Put, command_of
from sqlstate.cli.exits import Exit
from tests import ROOT
from tests.cli.test_program import DEADLINE, PROGRAM, bad, good, on_terminal, run
from tests.reference import plain
from tests.support.system import WINDOWS, mkfifo, says_it_is_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)
ISO = Path(pycountry.DATABASE_DIR)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# What a kill at the beginning of a commit leaves, and the next commit replaces.
VOID = {"wal": [], "delete": [f"{FILE_NAME}-journal"]}

# ---- Where nothing is lost ----


@pytest.mark.parametrize(("journal", "writers"), [("wal", 1), ("wal", 3), ("delete", 2)])
@pytest.mark.slow
def test_a_drill_loses_nothing_and_leaves_one_sound_file(tmp_path: Path, journal: Any, writers: int) -> None:
    shown: list[int] = []
    plan = Plan(kills=4, writers=writers, seed=writers, journal=journal, timeout=DEADLINE)
    drill = Drill(tmp_path, plan, progress=lambda report: shown.append(report.kills))
    report = drill.run()
    assert (report.findings, report.lost, report.interrupted) == ([], 0, False)
    assert (report.kills, shown) == (4, [1, 2, 3, 4])
    assert report.acknowledged >= report.processes >= writers + 3
    assert len(report.seconds) == 4 if writers == 1 else report.seconds
    assert report.frames > 0 or journal == "delete"
    assert {file.name for file in tmp_path.iterdir()} - {*VOID[journal]} == {FILE_NAME}
    judgement = plain.judge(drill.path)
    assert judgement.findings == ()
    assert (judgement.seq, judgement.count, judgement.root) == (report.seq, report.entries, report.root)
    with sqlstate.open(drill.path) as store:
        assert store.recovery.clean
        assert [entry for entry in store.audit() if entry.kind == "recovery"] or journal == "delete"
        # Setup makes one commit, and each further one was acknowledged or in doubt.
        assert report.seq == 1 + report.acknowledged + report.in_doubt_there


def test_a_drill_makes_every_kind_of_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "_RUN", (0.5, 0.5))
    Drill(tmp_path, Plan(kills=2, writers=1, seed=3, timeout=DEADLINE)).run()
    with sqlstate.open(tmp_path / FILE_NAME) as store:
        assert set(store.collections()) == set(COLLECTIONS)
        records = list(store.wal.read())
        assert {record.kind.value for record in records} >= {"BEGIN", "PUT", "COMMIT", "ROLLBACK"}
        staged = {record.txn for record in records if record.session is not None}
        assert {record.txn for record in records if record.kind == "COMMIT"} & staged, "no draft was committed"


def test_a_drill_begins_with_what_was_loaded(tmp_path: Path) -> None:
    def load(store: sqlstate.Store) -> None:
        store["mine"].update({"a": 1, b"\xff": b"\xff", 7: None})

    report = Drill(tmp_path, Plan(kills=1, writers=1, timeout=DEADLINE), load=load).run()
    assert report.findings == []
    with sqlstate.open(tmp_path / FILE_NAME) as store:
        assert dict(store["mine"]) == {"a": 1, b"\xff": b"\xff", 7: None}


@pytest.mark.slow
def test_the_same_seed_makes_the_same_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def choices() -> list[int]:
        Drill(tmp_path, Plan(kills=3, seed=11, timeout=DEADLINE)).run()
        (tmp_path / FILE_NAME).unlink()
        made, killed[:] = killed[:], []
        return made

    killed: list[int] = []
    kill = Drill._kill

    def noted(drill: Drill, *, everyone: bool) -> None:
        killed.append(everyone)
        kill(drill, everyone=everyone)

    monkeypatch.setattr(Drill, "_kill", noted)
    first = choices()
    assert first == [False, False, True]
    assert choices() == first


# ---- Refusals ----


@pytest.mark.parametrize("options", [{"kills": 0}, {"writers": 0}, {"writers": 65}])
def test_a_plan_outside_its_limits_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(sqlstate.InvalidOption, match=f"{next(iter(options))}="):
        Plan(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["drill.db", "drill.db-wal", "drill.db-journal"])
def test_a_store_that_is_there_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(sqlstate.InvalidOption, match="is there"):
        Drill(tmp_path, Plan()).run()
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(name, b"mine")]


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_what_is_loaded_must_not_be_the_drills_own(tmp_path: Path, collection: str) -> None:
    def load(store: sqlstate.Store) -> None:
        store[collection]["x"] = 1

    with pytest.raises(sqlstate.InvalidOption, match=repr(collection)):
        Drill(tmp_path, Plan(), load=load).run()
    assert list(tmp_path.iterdir()) == []


# ---- Teeth: the store ----


def sql(*statements: str) -> Callable[[Path], None]:
    """Change the store as a foreign program would, at rest."""

    def change(file: Path) -> None:
        sqlstate.open(file).close()  # recovers: what is changed is a sound store
        with closing(sqlite3.connect(file)) as db, db:
            for statement in statements:
                db.execute(statement)

    return change


def without_wal(file: Path) -> None:
    os.unlink(f"{file}-wal")


def cut_wal(file: Path) -> None:
    with open(f"{file}-wal", "r+b") as wal:
        wal.truncate(os.path.getsize(f"{file}-wal") // 2)


def stray(file: Path) -> None:
    file.with_name(f"{FILE_NAME}-of-somebody").touch()


TRIGGER = "CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit\nBEGIN\n  SELECT RAISE(ABORT, '{}');\nEND"
AUDIT_EDIT = (
    "DROP TRIGGER audit_no_update",
    "UPDATE audit SET detail = json_set(detail, '$.sqlite', 'other') WHERE kind = 'recovery'",
    TRIGGER.format("an audit entry is never changed"),
)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        pytest.param(change, finding, id=finding)
        for change, finding in [
            (sql("DELETE FROM state WHERE collection = 'writers'"), "the root is not that of the entries"),
            (sql("UPDATE state SET value = '{\"balance\":1}' WHERE key = 'account 03'"), "the accounts hold"),
            (sql("UPDATE state SET value = '{}' WHERE collection = 'writers'"), "is not what the log says"),
            (sql("INSERT INTO state VALUES ('other', 'x', '1')"), "['x'] is not what the log says"),
            (sql("DELETE FROM wal WHERE lsn > 18"), "its log ends with record 18"),
            (sql("UPDATE wal SET value = '{}' WHERE collection = 'accounts'"), "does not follow from its records"),
            (sql("UPDATE wal SET before = '{}' WHERE collection = 'accounts'"), "an update is lost"),
            (sql(*AUDIT_EDIT), "audit: "),
            (without_wal, "JournalDamaged"),
            (cut_wal, "JournalDamaged: "),
            (stray, "was left behind"),
        ]
    ],
)
def test_a_store_that_was_changed_after_the_kill_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], finding: str
) -> None:
    check = Drill._check

    def changed(drill: Drill) -> None:
        change(drill.path)
        check(drill)

    monkeypatch.setattr(Drill, "_check", changed)
    report = Drill(tmp_path, Plan(kills=3, writers=1, timeout=DEADLINE)).run()
    assert [said for said in report.findings if finding in said], report.findings
    assert report.kills == 1, "the drill went on with a store that is not sound"
    assert (tmp_path / IMAGES / FILE_NAME).exists()


def test_an_older_store_in_the_place_of_the_killed_one_lost_what_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sound in itself: only those who were told can know better."""
    check = Drill._check
    old = tmp_path / "old"

    def changed(drill: Drill) -> None:
        if drill.report.kills == 3:
            for file in drill._files():
                file.unlink(missing_ok=True)
            shutil.copy(old, drill.path)
        check(drill)
        if drill.report.kills == 2:
            shutil.copy(drill.path, old)

    monkeypatch.setattr(Drill, "_check", changed)
    report = Drill(tmp_path, Plan(kills=4, writers=1, timeout=DEADLINE)).run()
    assert report.lost > 0
    assert [said for said in report.findings if "was acknowledged and is not there" in said]
    assert report.kills == 3


# ---- Teeth: the writers ----


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let writers be of a kind that does what none may."""

    def be(kind: str) -> None:
        def command(path: Path, number: int, plan: Plan) -> list[str]:
            return [sys.executable, "-m", "tests.support.drill_writers", kind, *command_of(path, number, plan)[4:]]

        monkeypatch.setattr(course, "command_of", command)
        monkeypatch.syspath_prepend(ROOT)

    return be


def test_a_writer_that_acknowledges_before_its_commit_loses_it(
    here: Path, writers: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    writers("early")
    monkeypatch.setattr(course, "_RUN", (1.0, 1.0))
    result = run("drill", "--kills", "30", "--writers", "1", "--seed", "5", "--json")
    assert result.exit_code == Exit.NO
    facts = json.loads(result.stdout)
    assert facts["lost"] == 1
    (kept,) = here.iterdir()
    assert f"the store is kept in {kept}; {IMAGES} holds its files" in result.stderr
    assert "was acknowledged and is not there" in result.stderr
    assert "sqlstate drill --kills 30 --writers 1 --journal wal --seed 5\n" in result.stderr
    assert (kept / FILE_NAME).exists()
    assert (kept / IMAGES / f"{FILE_NAME}-wal").exists()


@pytest.mark.parametrize(
    ("kind", "finding"),
    [
        ("liar", "is not what was acknowledged"),
        ("failing", "ended by itself (1): ZeroDivisionError: by zero"),
        ("idle", "made no commit"),
    ],
)
def test_a_writer_that_does_not_do_as_it_says_is_found_out(
    tmp_path: Path, writers: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, kind: str, finding: str
) -> None:
    writers(kind)
    if kind == "idle":
        monkeypatch.setattr(course, "_PATIENCE", 0.5)
    if kind == "failing":
        monkeypatch.setattr(course, "_RUN", (1.0, 1.0))
    report = Drill(tmp_path, Plan(kills=2, writers=1, timeout=DEADLINE)).run()
    assert [said for said in report.findings if finding in said], report.findings


# ---- Teeth: the report and the audit ----


@pytest.mark.parametrize(
    ("wrong", "finding"),
    [
        ({"shared": True}, "saw another process"),
        ({"damage": "rot"}, "damage that a kill cannot do"),
        ({"clean": True}, "says that the last close was clean"),
        ({"after": None}, "another head"),
        ({"rolled_back": (99999,)}, "the audit does not say so"),
        ({"in_doubt": 99999}, "names commit 99999 as in doubt"),
        ({"journal": {"agrees": False}}, "SQLite"),
        ({"journal": {"sqlite_frames": 1}}, "SQLite"),
        ({"journal": {"frames": 99999}}, "other figures"),
    ],
    ids=str,
)
def test_a_recovery_that_reports_something_else_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any], finding: str
) -> None:
    real = sqlstate.Store.recovery.fget  # type: ignore[attr-defined]

    def reported(store: sqlstate.Store) -> Any:
        report = real(store)
        if "journal" in wrong:
            return replace(report, journal=replace(report.journal, **wrong["journal"]))
        return replace(report, **wrong)

    monkeypatch.setattr(sqlstate.Store, "recovery", property(reported))
    report = Drill(tmp_path, Plan(kills=2, writers=1, timeout=DEADLINE)).run()
    assert [said for said in report.findings if finding in said], report.findings


@pytest.mark.parametrize("reported", [True, False])
@pytest.mark.slow
def test_drafts_rolled_back_in_silence_are_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported: bool
) -> None:
    audit, recovery = sqlstate.Store.audit, sqlstate.Store.recovery.fget  # type: ignore[attr-defined]

    def silent(store: sqlstate.Store, after: int = 0) -> Iterator[sqlstate.AuditEntry]:
        for entry in audit(store, after):
            yield entry._replace(detail={**entry.detail, "rolled_back": []})

    monkeypatch.setattr(sqlstate.Store, "audit", silent)
    if not reported:
        quiet = property(lambda store: replace(recovery(store), rolled_back=()))
        monkeypatch.setattr(sqlstate.Store, "recovery", quiet)
    report = Drill(tmp_path, Plan(kills=50, writers=2, timeout=DEADLINE)).run()
    start = "recovery rolled back" if reported else "draft "
    assert [said for said in report.findings if said.startswith(start) and "the audit does not say so" in said]


def test_drafts_that_outlive_their_writer_are_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if recovery left them to be resumed."""

    def resuming(*arguments: Any, **options: Any) -> sqlstate.Store:
        return sqlstate.open(*arguments, **options, recover="resume")

    monkeypatch.setattr(course, "open_store", resuming)
    report = Drill(tmp_path, Plan(kills=50, writers=1, timeout=DEADLINE)).run()
    assert [said for said in report.findings if "has not ended" in said], report.findings


# ---- The books alone ----

A: list[Put] = [("accounts", "account 00", 1), ("writers", 7, {"count": 1})]
B: list[Put] = [("accounts", "account 00", 2), ("writers", 7, {"count": 2})]
C: list[Put] = [("accounts", "account 00", 3), ("writers", 7, {"count": 3})]


def told(count: int, puts: Any) -> Any:
    return json.loads(json.dumps(["told", count, puts]))


@pytest.mark.parametrize(
    ("lines", "found", "dead", "counts", "finding"),
    [
        # acknowledged, lost, in doubt and there, in doubt and not there
        ([told(1, A), ["done", 1, 5]], {1: (5, A)}, True, (1, 0, 0, 0), ""),
        ([told(1, A), ["done", 1, 5]], {}, True, (1, 1, 0, 0), "was acknowledged and is not there"),
        ([told(1, A), ["done", 1, 5]], {}, False, (1, 1, 0, 0), "was acknowledged and is not there"),
        ([told(1, A), ["done", 1, 5]], {1: (5, B)}, True, (1, 1, 0, 0), "is not what was acknowledged"),
        ([told(1, A), ["done", 1, 5]], {1: (6, A)}, True, (1, 1, 0, 0), "is not what was acknowledged"),
        ([told(1, A), ["done", 1, 5], told(2, B), ["done", 2, 6]], {2: (6, B)}, True, (2, 1, 0, 0), "not there"),
        ([told(1, A)], {}, True, (0, 0, 0, 1), ""),
        ([told(1, A)], {1: (5, A)}, True, (0, 0, 1, 0), ""),
        ([told(1, A)], {1: (5, B)}, True, (0, 0, 1, 0), "the commit in doubt"),
        ([told(1, A)], {1: (5, A)}, False, (0, 0, 0, 0), ""),
        ([told(1, A), ["done", 1, 5], told(3, C)], {1: (5, A)}, True, (1, 0, 0, 1), "the commit in doubt"),
        ([told(1, A), ["done", 1, 5]], {1: (5, A), 2: (6, B)}, True, (1, 0, 0, 0), "never told of it"),
        ([told(1, A), ["done", 1, 5]], {1: (5, A), 2: (6, B)}, False, (1, 0, 0, 0), ""),
    ],
)
def test_a_ledger_knows_what_must_be_there(
    lines: list[Any], found: dict[int, Any], dead: bool, counts: tuple[int, ...], finding: str
) -> None:
    ledger, report = Ledger(7), DrillReport()
    ledger.hear(lines)
    ledger.found = {count: Found(*there) for count, there in found.items()}
    said = list(ledger.settle(report, dead=dead))
    assert (report.acknowledged, report.lost, report.in_doubt_there, report.in_doubt_gone) == counts
    assert len(said) == bool(finding)
    assert finding in "".join(said)


def test_what_a_living_writer_said_is_compared_when_more_of_it_is_seen() -> None:
    ledger, report = Ledger(7), DrillReport()
    ledger.hear([told(1, A), ["done", 1, 5], told(2, B)])
    ledger.found = {1: Found(5, A), 2: Found(6, B)}
    assert list(ledger.settle(report, dead=False)) == []
    ledger.hear([["done", 2, 6], told(3, C)])
    assert list(ledger.settle(report, dead=True)) == []
    assert (report.acknowledged, report.in_doubt_there, report.in_doubt_gone) == (2, 0, 1)


def test_a_replay_stops_at_the_head_that_it_is_given(store: sqlstate.Store) -> None:
    replay = Replay(store.store_id)
    store["a"].update({"x": 1, "y": 2})
    first = store.head()
    store["a"]["x"] = 3
    del store["a"]["y"]
    assert [found.seq for found in replay.follow(store, first) if isinstance(found, Found)] == [1]
    found = list(replay.follow(store, store.head()))
    assert found == [Found(2, [("a", "x", 3)]), Found(3, [("a", "y", None)])]
    assert {name: stored for name, (stored, *_) in replay.entries.items()} == {("a", "x"): "3"}
    assert list(replay.follow(store, first._replace(seq=4, chain=b""))) != []


# ---- The verb ----


@pytest.mark.slow
def test_the_verb_prints_its_facts_and_removes_what_it_made(here: Path) -> None:
    result = run("drill", "--kills", "3", "--seed", "4")
    assert (result.exit_code, result.exception) == (0, None), result.stderr
    facts = json.loads(result.stdout)
    assert list(facts) == [
        "kills", "processes", "acknowledged", "lost", "in_doubt", "drafts_rolled_back", "frames_recovered",
        "recovery_seconds", "entries", "seq", "root", "writers", "journal", "seed", "interrupted", "findings",
    ]  # fmt: skip
    assert (facts["kills"], facts["lost"], facts["findings"], facts["seed"]) == (3, 0, [], 4)
    assert facts["seq"] == 1 + facts["acknowledged"] + facts["in_doubt"]["there"]
    assert 0 < facts["recovery_seconds"]["median"] <= facts["recovery_seconds"]["max"]
    assert list(here.iterdir()) == []


def test_the_verb_loads_sources_and_leaves_the_store_where_it_was_asked_to(here: Path) -> None:
    (here / "d").mkdir()
    options = ["--kills", "1", "--writers", "1", "--dir", "d", "--quiet", "--json"]
    facts = json.loads(good("drill", *options, "--from", str(ISO / "iso3166-1.json"), "--key", "alpha_3"))
    assert facts["entries"] > 249
    assert [file.name for file in here.rglob("*") if file.is_file()] == [FILE_NAME]
    head = json.loads(good("head", f"d/{FILE_NAME}"))
    assert (head["seq"], head["root"]) == (facts["seq"], facts["root"])
    assert good("audit", f"d/{FILE_NAME}", "--check") == '{"sound":true,"findings":[]}\n'
    assert "is there, and the drill makes a new store" in bad(Exit.USAGE, "drill", *options)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--kills", "0"], Exit.USAGE, "--kills"),
        (["--writers", "0"], Exit.USAGE, "--writers"),
        (["--writers", "65"], Exit.USAGE, "--writers"),
        (["--seed", "-1"], Exit.USAGE, "--seed"),
        (["--journal", "memory"], Exit.USAGE, "--journal"),
        (["--dir", "none"], Exit.USAGE, "does not exist"),
        (["--dir", "file.json"], Exit.USAGE, "is a file"),
        (["--from", "none.json"], Exit.IO, says_it_is_missing()),
        (["--from", "file"], Exit.USAGE, "does not say what it is"),
        (["--from", "file.json"], Exit.USAGE, "nothing was imported"),
        (["--from", "own.json"], Exit.USAGE, "the drill's own"),
        (["--dir", ".", "--from", "own.json"], Exit.USAGE, "the drill's own"),
        (["drill.db"], Exit.USAGE, "unexpected extra argument"),
    ],
)
def test_what_the_verb_refuses_leaves_nothing(here: Path, options: list[str], code: Exit, said: str) -> None:
    (here / "file.json").write_text("{", encoding="utf-8")
    (here / "file").touch()
    (here / "own.json").write_text('{"accounts":{"x":1}}', encoding="utf-8")
    assert said in bad(code, "drill", *options)
    assert {file.name for file in here.iterdir()} == {"file", "file.json", "own.json"}


@pytest.mark.slow
def test_a_terminal_gets_a_bar_and_the_closing_table(here: Path) -> None:
    code, shown = on_terminal("drill", "--kills", "2", "--seed", "9", columns=120)
    assert code == 0
    assert "drill  [" in shown
    assert "100%" in shown
    rows = [line.split("  ")[0] for line in shown.splitlines()[-11:]]
    assert rows == [
        "kills", "processes started", "commits acknowledged", "lost", "in doubt", "drafts rolled back",
        "frames recovered", "recovery time", "entries", "head", "seed",
    ]  # fmt: skip
    assert on_terminal("drill", "--kills", "1", "--journal", "delete", "--quiet").shown.startswith("kills  ")


def test_a_line_now_and_then_stands_in_for_the_bar(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "_LINE_EVERY", 0.0)
    lines = run("drill", "--kills", "2", "--writers", "1").stderr.splitlines()
    assert [line.partition(";")[0] for line in lines] == ["1 of 2 kills", "2 of 2 kills"]
    assert run("drill", "--kills", "1", "--writers", "1", "--quiet").stderr == ""


def test_many_findings_are_told_in_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    verb._tell(DrillReport(kills=3, findings=[f"finding {n}\x1b" for n in range(30)]), Path("d"), "again")
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "kill 3: finding 0\\x1b"
    assert said[-3:] == [
        "and 20 findings more", "the store is kept in d", "the same choices again, if not the same moments: again",
    ]  # fmt: skip
    assert len(said) == 13


# ---- Its end ----


def heeding() -> None:
    """Heed signals that this process ignores, as one in the background may."""
    for number in (signal.SIGINT, signal.SIGTERM, HANGUP):
        signal.signal(number, signal.SIG_DFL)


class Group:
    """A drill in a process group of its own."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [*PROGRAM, "drill", "--kills", "100000", "--json", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=heeding,  # noqa: PLW1509, no thread of ours is at work here
        )

    def members(self) -> int:
        """How many processes it has that have not ended."""
        count = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text("utf-8").rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            count += int(fields[2]) == self.process.pid and fields[0] != "Z"
        return count

    def wait_for(self, members: int) -> None:
        """Wait until it has so many."""
        until = time.monotonic() + DEADLINE
        while self.members() != members:
            assert members == 0 or self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < until
            time.sleep(0.01)

    def end(self) -> tuple[int, dict[str, Any], str]:
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, json.loads(out), err.decode()


@pytest.fixture
def group(here: Path) -> Iterator[Callable[..., Group]]:
    if WINDOWS or not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc")
    groups: list[Group] = []

    def start(*options: str) -> Group:
        groups.append(Group(*options))
        return groups[-1]

    yield start
    for each in groups:
        if each.members():
            os.killpg(each.process.pid, signal.SIGKILL)
        each.process.communicate()


@pytest.mark.parametrize(
    ("number", "everybody"),
    [
        pytest.param(number, everybody, marks=marks, id=f"{number.name}-{'group' if everybody else 'drill'}")
        for number, everybody, marks in (
            (signal.SIGINT, True, ()),
            (signal.SIGTERM, False, ()),
            (signal.SIGINT, False, pytest.mark.slow),
            (signal.SIGTERM, True, pytest.mark.slow),
            (HANGUP, True, pytest.mark.slow),
            (HANGUP, False, pytest.mark.slow),
        )
    ],
)
def test_a_drill_that_is_stopped_leaves_a_summary_and_nothing_else(
    here: Path, group: Callable[..., Group], number: signal.Signals, everybody: bool
) -> None:
    drill = group("--writers", "3")
    drill.wait_for(4)
    if everybody:  # as the terminal does it
        os.killpg(drill.process.pid, number)
    else:
        drill.process.send_signal(number)
    code, facts, said = drill.end()
    assert code == Exit.INTERRUPTED, said
    assert facts["interrupted"] is True
    assert facts["findings"] == []
    assert drill.members() == 0
    assert list(here.iterdir()) == []
    assert "Traceback" not in said


def test_a_drill_that_is_stopped_in_a_folder_of_the_users_leaves_a_store_at_rest(
    here: Path, group: Callable[..., Group]
) -> None:
    drill = group("--dir", ".")
    drill.wait_for(3)
    drill.process.send_signal(signal.SIGINT)
    assert drill.end()[0] == Exit.INTERRUPTED
    assert [file.name for file in here.iterdir()] == [FILE_NAME]
    assert plain.judge(here / FILE_NAME).findings == ()


def test_a_drill_that_is_stopped_while_it_loads_leaves_nothing(here: Path, group: Callable[..., Group]) -> None:
    mkfifo(here / "endless.jsonl")
    drill = group("--from", "endless.jsonl", "--dir", ".")
    lines = b"".join(b'{"collection":"c","key":%d,"value":"%s"}\n' % (key, b"x" * 1000) for key in range(1000))
    with open(here / "endless.jsonl", "wb", buffering=0) as source:
        source.write(lines[:10_000])
        drill.process.send_signal(signal.SIGINT)
        with suppress(BrokenPipeError):
            source.write(lines[10_000:])
        code, facts, said = drill.end()
    assert (code, facts["kills"], facts["findings"]) == (Exit.INTERRUPTED, 0, []), said
    assert [file.name for file in here.iterdir()] == ["endless.jsonl"]


def test_no_writer_outlives_a_drill_that_is_killed(here: Path, group: Callable[..., Group]) -> None:
    drill = group("--writers", "3")
    drill.wait_for(4)
    drill.process.kill()
    drill.process.communicate()
    drill.wait_for(0)


def test_a_drill_that_is_stopped_again_and_again_gives_up_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with verb._stopping() as stopped:
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
