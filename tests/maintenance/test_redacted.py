"""Goal: where the log has digests in the place of values, a check still names what is changed, and a repair neither
takes a digest for a value nor brings back what was taken out.

Method: closed stores are damaged with sqlite3; what is mended is judged by tests/reference/plain.py.
"""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from tests.reference import plain

if TYPE_CHECKING:
    from pathlib import Path

FORGOTTEN = "what ada wrote"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A closed store with values of every kind taken out of its log, and a backup from before."""
    path = tmp_path / "s.db"
    with sqlstate.open(path) as store:
        store.set_logging("cache", "digests")
        for number in range(4):
            store["users"].update({"ada": f"{FORGOTTEN} {number}", "eve": number})
            store["cache"].update({key: f"page {key} {number}" for key in range(5)})
            with store.stage() as draft:
                for part in range(3):
                    draft.put("drafts", number % 2, b"draft %d" % part)
        del store["cache"][4]
        store.backup(tmp_path / "backup.db")
        store["users"]["ada"] = "now"
        store.redact("users", "ada")
        assert store.check("replay").findings == ()
    return path


def damage(path: Path, *statements: str, values: Any = ()) -> int:
    with closing(sqlite3.connect(path)) as db, db:
        return sum(db.execute(statement, values).rowcount for statement in statements)


def rows(path: Path, sql: str) -> list[Any]:
    with closing(plain.connect(path)) as db:
        return db.execute(sql).fetchall()


DIGEST = "(SELECT lsn FROM wal WHERE digests IS NOT NULL AND collection = '{}' ORDER BY lsn LIMIT 1 OFFSET 2)"


@pytest.mark.parametrize("collection", ["users", "cache", "drafts"])
@pytest.mark.parametrize(
    "change",
    [
        "digests = NULL", "digests = 7", "digests = 0", "digests = 'x'", "digests = 1.5", "value = 'text'",
        "before = x'00'", "before = zeroblob(32), value = zeroblob(32)", "kind = 'DELETE', value = NULL", "seq = 1",
    ],
)  # fmt: skip
def test_each_change_of_a_record_with_digests_is_found_and_mended(made: Path, collection: str, change: str) -> None:
    before = rows(made, "SELECT lsn, kind, collection, key, digests, value, before FROM wal")
    held = rows(made, "SELECT * FROM state ORDER BY 1, 2")
    assert damage(made, f"UPDATE wal SET {change} WHERE lsn = {DIGEST.format(collection)}") == 1
    changed = rows(made, "SELECT lsn, kind, collection, key, digests, value, before FROM wal") != before
    with sqlstate.open(made, read_only=True) as store:
        assert bool(store.check().findings) or not changed
    report = sqlstate.repair(made)
    if report.ok:
        assert plain.judge(made).findings == ()
        assert rows(made, "SELECT * FROM state ORDER BY 1, 2") == held
    report = sqlstate.repair(made, source=made.with_name("backup.db"))
    assert report.ok
    assert plain.judge(made).findings == ()
    assert rows(made, "SELECT * FROM state ORDER BY 1, 2") == held
    assert FORGOTTEN.encode() not in made.read_bytes()
    digests = rows(made, "SELECT digests FROM wal WHERE collection = 'users' AND key = 'ada'")
    assert [each for (each,) in digests] == [1, 3, 3, 3, 3]


def test_a_backup_does_not_bring_back_what_was_taken_out(made: Path) -> None:
    damage(made, "UPDATE wal SET before = zeroblob(32) WHERE collection = 'users' AND key = 'ada' AND digests & 2")
    report = sqlstate.repair(made, source=made.with_name("backup.db"))
    assert report.ok
    assert FORGOTTEN.encode() not in made.read_bytes()
    assert plain.judge(made).findings == ()


def test_a_digest_is_never_taken_for_the_value_of_an_entry(made: Path) -> None:
    damage(made, "UPDATE state SET value = '\"another\"' WHERE collection = 'cache'")
    report = sqlstate.repair(made)
    assert not report.ok
    assert {each for each in report.lost if isinstance(each, tuple)} == {("cache", key) for key in range(4)}
    report = sqlstate.repair(made, source=made.with_name("backup.db"))
    assert report.ok
    with sqlstate.open(made) as store:
        assert dict(store["cache"]) == {key: f"page {key} 3" for key in range(4)}


def test_each_changed_byte_of_a_digest_is_named(made: Path) -> None:
    rng = random.Random(1)  # noqa: S311, no secret
    sound = made.read_bytes()
    for lsn, column, digest in rows(made, "SELECT lsn, 'value', value FROM wal WHERE digests & 1") + rows(
        made, "SELECT lsn, 'before', before FROM wal WHERE digests & 2"
    ):
        wrong = bytearray(digest)
        wrong[rng.randrange(32)] ^= 1 << rng.randrange(8)
        damage(made, f"UPDATE wal SET {column} = ? WHERE lsn = {lsn}", values=(bytes(wrong),))
        with sqlstate.open(made, read_only=True) as store:
            findings = store.check().findings
        assert findings, (lsn, column)
        made.write_bytes(sound)


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM digest_logs",
        "INSERT INTO digest_logs VALUES ('users')",
        "UPDATE digest_logs SET collection = 'cachf'",
        "UPDATE digest_logs SET collection = x'6361636865'",
        "UPDATE digest_logs SET collection = CAST(x'ff' AS TEXT)",
        "UPDATE digest_logs SET collection = ''",
        "INSERT INTO digest_logs VALUES (1)",
    ],
)
def test_settings_that_the_audit_trail_does_not_tell_of_are_found_and_mended(made: Path, change: str) -> None:
    damage(made, change)
    with sqlstate.open(made, read_only=True) as store:
        assert [str(each.kind) for each in store.check().findings] == ["setting"]
    assert sqlstate.repair(made).ok
    assert plain.judge(made).findings == ()
    with sqlstate.open(made) as store:
        assert store.digest_logs() == ["cache"]
        store["cache"][0] = "new"
