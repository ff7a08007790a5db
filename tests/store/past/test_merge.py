"""merge() is the three-way merge of dicts, in one commit, and leaves the copy alone."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sqlstate
from sqlstate import ABSENT, Collision
from tests.support.images import image

if TYPE_CHECKING:
    from tests.conftest import OpenStore

steps = st.lists(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from([1, 1.0, "x", b"x", ABSENT])), min_size=1, max_size=4),
    max_size=6,
)
PREFER: dict[str, Any] = {"none": None, "ours": "ours", "theirs": "theirs", "function": lambda each: [each.key]}


def play(store: sqlstate.Store, content: dict[int, Any], commits: list[list[tuple[int, Any]]]) -> None:
    for commit in commits:
        with store.transaction() as txn:
            for key, value in commit:
                if value is ABSENT:
                    txn["c"].pop(key, None)
                    content.pop(key, None)
                else:
                    txn["c"][key] = content[key] = value


def same(a: Any, b: Any) -> bool:
    return (type(a), a) == (type(b), b)


@settings(max_examples=30)
@given(before=steps, ours=steps, theirs=steps, prefer=st.sampled_from(sorted(PREFER)))
def test_it_is_the_three_way_merge_of_dicts(before: Any, ours: Any, theirs: Any, prefer: str) -> None:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        our = stack.enter_context(sqlstate.open(Path(folder) / "ours.db"))
        base: dict[int, Any] = {}
        play(our, base, before)
        common = our.head().seq
        our.backup(Path(folder) / "theirs.db")
        their = stack.enter_context(sqlstate.open(Path(folder) / "theirs.db"))
        mine, other = dict(base), dict(base)
        play(our, mine, ours)
        play(their, other, theirs)
        expected, collisions = merged(base, mine, other, PREFER[prefer])

        rehearsed = sqlstate.merge(our, their, prefer=PREFER[prefer], dry_run=True)
        assert (dict(our["c"]), rehearsed.head) == (mine, our.head())
        report = sqlstate.merge(our, their, prefer=PREFER[prefer])
        assert rehearsed[2:] == report[2:]
        assert {key: (type(each), each) for key, each in our["c"].items()} == {
            key: (type(each), each) for key, each in expected.items()
        }
        assert report.collisions == collisions
        assert report.applied == sum(not same(mine.get(key), expected.get(key)) for key in range(10))
        assert common <= report.common <= min(our.head().seq, their.head().seq)
        assert report.head == our.head()
        assert dict(their["c"]) == other
        assert sqlstate.merge(their, their) == sqlstate.MergeReport(their.head().seq, their.head(), 0, [])


def merged(
    base: dict[int, Any], ours: dict[int, Any], theirs: dict[int, Any], prefer: Any
) -> tuple[dict[int, Any], list[Collision]]:
    content, collisions = {}, []
    for key in range(10):
        old, mine, other = (each.get(key, ABSENT) for each in (base, ours, theirs))
        value = mine
        if same(mine, old):
            value = other
        elif not same(other, old) and not same(mine, other):
            collisions.append(Collision("c", key, old, mine, other))
            value = prefer(collisions[-1]) if callable(prefer) else other if prefer == "theirs" else mine
        if value is not ABSENT:
            content[key] = value
    return content, collisions


@pytest.fixture
def copies(open_store: OpenStore, tmp_path: Path) -> tuple[sqlstate.Store, Path]:
    """A store, and a copy of it that went its own way, closed."""
    store = open_store()
    store["c"].update({"base": 0, "both": 0})
    store.backup(tmp_path / "copy.db")
    store["c"].update({"ours": 1, "both": 1})
    with sqlstate.open(tmp_path / "copy.db") as copy:
        copy["c"].update({"theirs": 2, "both": 2})
    return store, tmp_path / "copy.db"


def test_the_copy_is_not_changed_and_the_log_says_what_was_merged(copies: tuple[sqlstate.Store, Path]) -> None:
    store, file = copies
    before = image(file)
    with sqlstate.open(file, read_only=True) as copy:
        report = sqlstate.merge(store, copy)
    assert image(file) == before
    assert dict(store["c"]) == {"base": 0, "both": 1, "ours": 1, "theirs": 2}
    assert [(change.key, change.note) for change in store.changes(after=2)] == [
        ("theirs", "merge of commit 2 of a copy")
    ]
    assert report.collisions == [Collision("c", "both", 0, 1, 2)]


def test_a_snapshot_can_be_merged(copies: tuple[sqlstate.Store, Path]) -> None:
    store, file = copies
    with sqlstate.open(file) as copy, copy.snapshot() as view:
        copy["c"]["later"] = 1
        sqlstate.merge(store, view, prefer="theirs")
        assert view["c"]["both"] == 2
    assert dict(store["c"]) == {"base": 0, "both": 2, "ours": 1, "theirs": 2}


def test_a_function_decides_again_if_the_store_was_written_to_meanwhile(copies: tuple[sqlstate.Store, Path]) -> None:
    store, file = copies
    asked = []

    def decide(collision: Collision) -> Any:
        asked.append(collision.ours)
        if len(asked) < 3:
            store["c"]["both"] = [len(asked)]
        return [collision.ours, collision.theirs]

    with sqlstate.open(file) as copy:
        report = sqlstate.merge(store, copy, prefer=decide)
    assert asked == [1, [1], [2]]
    assert store["c"]["both"] == [[2], 2]
    assert [collision.ours for collision in report.collisions] == [[2]]


def test_a_function_that_fails_changes_nothing(copies: tuple[sqlstate.Store, Path]) -> None:
    store, file = copies
    head = store.head()

    def fail(_: Collision) -> Any:
        raise KeyboardInterrupt

    with sqlstate.open(file) as copy:
        with pytest.raises(KeyboardInterrupt):
            sqlstate.merge(store, copy, prefer=fail)
        with pytest.raises(sqlstate.InvalidValue, match="both"):
            sqlstate.merge(store, copy, prefer=lambda _: (1, 2))
        assert store._engine.readers.lent == copy._engine.readers.lent == []
    assert store.head() == head
    store["c"]["k"] = 1


def test_what_cannot_be_merged_is_refused(copies: tuple[sqlstate.Store, Path], open_store: OpenStore) -> None:
    store, file = copies
    other = open_store(store.path.with_name("other.db"))
    with pytest.raises(sqlstate.InvalidOption, match="not copies of one store"):
        sqlstate.merge(store, other)
    wrong: Any
    for wrong in (None, file, store["c"]):
        with pytest.raises(sqlstate.InvalidOption, match="not a store"):
            sqlstate.merge(store, wrong)
        with pytest.raises(sqlstate.InvalidOption, match="not a store"):
            sqlstate.merge(wrong, store)
    with store.at(1) as past, pytest.raises(sqlstate.InvalidOption):
        sqlstate.merge(store, past)  # type: ignore[arg-type]
    with sqlstate.open(file, read_only=True) as copy:
        for wrong in ("mine", 1, True):
            with pytest.raises(sqlstate.InvalidOption, match="prefer"):
                sqlstate.merge(store, copy, prefer=wrong)
        with store.transaction(), pytest.raises(sqlstate.StoreUnusable):
            sqlstate.merge(store, copy)
        with pytest.raises(sqlstate.ReadOnly):
            sqlstate.merge(copy, store)
        assert sqlstate.merge(copy, store, dry_run=True).applied == 1


def test_a_damaged_copy_changes_nothing(copies: tuple[sqlstate.Store, Path]) -> None:
    store, file = copies
    connection = apsw.Connection(str(file))
    connection.execute("UPDATE wal SET key = 1.5 WHERE key = 'theirs'")
    connection.close()
    head = store.head()
    with sqlstate.open(file, read_only=True) as copy, pytest.raises(sqlstate.Damaged):
        sqlstate.merge(store, copy)
    assert store.head() == head
