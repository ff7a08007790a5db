"""Goal: a store makes the one proof of each question, byte for byte, about one commit, or says that it is damaged.
Method: the plain prover of tests/reference/proving.py over a model of the entries, on all questions about small
stores and on random ones about random stores; damage done through another SQLite library."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sqlstate
from sqlstate import Damaged, InvalidKey, InvalidName, InvalidOption, ProofInvalid, proof
from sqlstate.commit import node_cache, tree_update
from sqlstate.format import merkle, merkle_edit
from sqlstate.format.names import name_bytes, stored_name
from tests.mutated_proofs import any_question, frequent_rank
from tests.reference import plain, proving
from tests.reference.proving import Question, Tree
from tests.reference.universes import SHAPES, absences, gaps, manies, presences, ranges, spans, universe
from tests.support.asking import ask, asked, expected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlstate import Store
    from sqlstate.proving.entries import Provable
    from tests.conftest import OpenStore
    from tests.reference.plain import Name, Value


def prove(source: Provable, question: Question) -> proof.Proof:
    """What a store says when it is asked so."""
    span = question.start, question.stop
    if question.kind in ("present", "absent"):
        return source.prove(question.collection, question.key)
    if question.kind == "range":
        return source.prove_range(question.collection, *span, question.limit)
    if question.kind == "count":
        return source.prove_count(question.collection, *span)
    return source.prove_many([*question.absent, *(entry[:2] for entry in question.present)])


def expect(source: Provable, of: Tree, question: Question) -> None:
    """The one proof, which the verifier accepts; for a statement that is false, the contrary is proven or nothing."""
    made = prove(source, question)
    honest = proving.honest(of, question)
    if honest is not None:
        assert made.to_bytes() == honest, question
        assert ask(made, of.root, question) == expected(of, question)
    else:
        with pytest.raises(ProofInvalid):
            ask(made, of.root, question)


def fill(store: Store, of: Tree) -> None:
    """Put the entries of a tree into a store, in one commit."""
    with store.transaction():
        for collection, key, value in of.entries:
            store[collection][key] = json.loads(value) if isinstance(value, str) else value


def questions(of: Tree) -> Iterator[Question]:
    """All about a small store, but of many at once only some."""
    yield from presences(of)
    yield from absences(of)
    yield from spans(of)
    yield from ranges(of)
    every = list(manies(of))
    yield from every[:: max(1, len(every) // 300)]


@pytest.fixture
def deep_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every second entry a rank, so that few entries make a tree of many levels."""

    def rank(name: bytes) -> int:
        collection, key = NAMES[name]
        return frequent_rank(collection, key)

    monkeypatch.setattr(merkle, "rank", rank)
    monkeypatch.setattr(merkle_edit, "rank", rank)
    monkeypatch.setattr(merkle_edit, "ranked", lambda raws: [*enumerate(map(rank, raws))])
    monkeypatch.setattr(tree_update, "rank", rank)
    monkeypatch.setattr(node_cache, "rank", rank)
    monkeypatch.setattr(plain, "rank", frequent_rank)


# ---- Byte for byte ----


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=pytest.mark.slow if "three levels" in each else ()) for each in SHAPES]
)
def test_every_proof_of_a_small_store_is_the_plain_one(store: Store, name: str) -> None:
    of = universe(name)
    if of.entries:
        fill(store, of)
    assert store.head().root == of.root
    with store.snapshot() as view:
        for question in questions(of):
            expect(store, of, question)
            expect(view, of, question)


COLLECTIONS = ["a", "a\0", "b", "\u00e9"]
KEYS: list[Any] = [key for number in range(25) for key in (number - 5, f"k{number}", b"k%d" % number)]
POOL: list[Name] = [(collection, key) for collection in COLLECTIONS for key in KEYS]
NAMES = {name_bytes(stored_name(*name)): name for name in POOL}
TEXTS: list[Value | None] = [None, None, "1", '"\u00e9"', '{"a":[null]}', b"", b"1", "0"]
batches = st.lists(
    st.dictionaries(st.sampled_from(POOL), st.sampled_from(TEXTS), min_size=1, max_size=60), min_size=1, max_size=5
)


@contextmanager
def new_store() -> Iterator[Store]:
    with TemporaryDirectory() as folder, sqlstate.open(Path(folder) / "p.db") as store:
        yield store


def change(store: Store, values: dict[Name, Value], batch: dict[Name, Value | None]) -> None:
    """Do a batch in one transaction, to the store and to the model."""
    with store.transaction():
        for (collection, key), value in batch.items():
            if value is None:
                store[collection].pop(key, None)
                values.pop((collection, key), None)
            else:
                store[collection][key] = json.loads(value) if isinstance(value, str) else value
                values[collection, key] = value


@pytest.mark.usefixtures("deep_trees")
@given(changes=batches, seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.slow
def test_random_proofs_of_random_stores_are_the_plain_ones(changes: list[dict[Name, Value | None]], seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311, no secret
    values: dict[Name, Value] = {}
    with new_store() as store:
        for batch in changes:
            change(store, values, batch)
            of = proving.tree([(*name, value) for name, value in values.items()])
            assert store.head().root == of.root
            for _ in range(25):
                expect(store, of, any_question(rng, of))
        newest = of
        with store.snapshot() as view:
            change(store, values, {("a", 1): "77", ("b", "k3"): b"77"})
            for _ in range(25):
                expect(view, newest, any_question(rng, newest))
        of = proving.tree([(*name, value) for name, value in values.items()])
        with sqlstate.open(store.path, read_only=True) as reader:
            for _ in range(25):
                expect(reader, of, any_question(rng, of))


@pytest.mark.usefixtures("deep_trees")
@pytest.mark.slow
def test_a_store_of_some_hundred_entries_gives_the_plain_proofs_of_every_span() -> None:
    values: dict[Name, Value] = {}
    with new_store() as store:
        change(store, values, {name: str(number) for number, name in enumerate(POOL)})
        of = proving.tree([(*name, value) for name, value in values.items()])
        assert len(of.levels) > 6
        for question in list(spans(of))[::40]:
            expect(store, of, question)
        for question in list(ranges(of, (1, 17)))[::150]:
            expect(store, of, question)
        for question in (*presences(of), *absences(of)):
            expect(store, of, question)
        free = tuple(name for name in gaps(of) if of.find(*name) is None)
        everything = Question("many", present=of.entries, absent=free)
        expect(store, of, everything)


def test_a_proof_of_the_value_that_the_store_returns(store: Store) -> None:
    given_: list[Any] = [None, True, 1.0, -0.0, 1e16, 5e-324, 1e-5, "\x00\x7f\u2028\U0001f511", b""]
    given_ += [[1, [2]], {"b": 1, "a": 2}]
    with store.transaction():
        for number, value in enumerate(given_):
            store["c"][number] = value
    root = store.head().root
    for number in range(len(given_)):
        proof.verify_present(store.prove("c", number), root, "c", number, store["c"][number])
    listed = proof.verify_range(store.prove_range("c"), root, "c")
    assert repr(listed) == repr(list(store["c"].items()))


def test_names_asked_for_twice_and_in_any_order_give_the_one_proof(store: Store) -> None:
    of = universe("three levels")
    fill(store, of)
    names = [*(entry[:2] for entry in of.entries[2:5]), *gaps(of)[:3]]
    for asked_for in (names, names[::-1], names * 2, dict.fromkeys(names), iter(names)):
        question = Question("many", present=of.entries[2:5], absent=tuple(gaps(of)[:3]))
        assert store.prove_many(asked_for).to_bytes() == proving.honest(of, question)


# ---- Questions that are none ----


@pytest.mark.parametrize(
    ("start", "stop"), [(1, 1), (2, 1), ("", ""), ("", 5), (b"", "z"), ("b", "a"), (None, -(2**63))]
)
def test_prover_and_verifier_refuse_the_same_spans(store: Store, start: Any, stop: Any) -> None:
    for question in (store.prove_range, store.prove_count):
        with pytest.raises(InvalidOption):
            question("c", start, stop)


@pytest.mark.parametrize("limit", [0, -1, True, 1.0, "1"])
def test_prover_and_verifier_refuse_the_same_limits(store: Store, limit: Any) -> None:
    with pytest.raises(InvalidOption):
        store.prove_range("c", limit=limit)


def test_a_name_that_no_entry_can_have_is_no_question(store: Store) -> None:
    for key in ("", b"", True, 1.0, None, 2**63, "\ud800"):
        with pytest.raises(InvalidKey):
            store.prove("c", key)  # type: ignore[arg-type]
        with pytest.raises(InvalidKey):
            store.prove_many([("c", key)])  # type: ignore[list-item]
    for name in ("", "c" * 256, "\ud800"):
        with pytest.raises(InvalidName):
            store.prove(name, 1)
        with pytest.raises(InvalidName):
            store.prove_range(name)
        with pytest.raises(InvalidName):
            store.prove_count(name)
    with pytest.raises(InvalidOption):
        store.prove_many([])


# ---- One commit ----


def test_proofs_while_others_write_belong_to_one_commit(open_store: OpenStore) -> None:
    store = open_store()
    writer = open_store()
    seen: dict[bytes, int] = {}
    done = threading.Event()

    def write() -> None:
        for number in range(60):
            with writer.transaction():
                # In each commit all values are the same, and their number is the value.
                for key in range(1, number % 7 + 2):
                    writer["c"][key] = number
                for key in range(number % 7 + 2, 9):
                    writer["c"].pop(key, None)
            seen[writer.head().root] = number
        done.set()

    thread = threading.Thread(target=write)
    made: list[proof.Proof] = []
    thread.start()
    while not done.is_set():
        made += store.prove_range("c"), store.prove_count("c", 2, 6)
        with store.snapshot() as view:
            root = view.head.root
            several = view.prove_many([("c", key) for key in range(1, 9)])
            present: dict[Name, Any] = {("c", key): view["c"][key] for key in range(1, 9) if key in view["c"]}
            absent: list[Name] = [("c", key) for key in range(1, 9) if ("c", key) not in present]
            proof.verify_many(several, root, present, absent)
    thread.join()
    assert len(made) > 2
    for each in made:
        if each.kind == "range":
            assert any(holds(each, root, number) for root, number in seen.items()) or each.body == b"\0"
        else:
            assert any(counted(each, root) for root in seen) or each.body == b"\0"


def holds(made: proof.Proof, root: bytes, number: int) -> bool:
    question = Question("range", "c")
    return bool(asked(made, root, question) == [(key, number) for key in range(1, number % 7 + 2)])


def counted(made: proof.Proof, root: bytes) -> bool:
    return asked(made, root, Question("count", "c", start=2, stop=6)) in range(5)


def test_inside_a_transaction_what_is_not_committed_is_not_proven(store: Store) -> None:
    store["c"][1] = "before"
    root = store.head().root
    with store.transaction():
        store["c"][1] = "after"
        made = store.prove("c", 1)
    proof.verify_present(made, root, "c", 1, "before")


# ---- Damage ----


def damaged_store(path: Path, *statements: str) -> None:
    """A closed store of 300 entries, 10, 20, 30 …, and then something done to it by another program."""
    with sqlstate.open(path) as store, store.transaction():
        for number in range(300):
            store["c"][number * 10] = number
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for sql in statements:
            assert connection.execute(sql).rowcount > 0


def wrong_or_right(path: Path) -> tuple[int, int]:
    """Ask everything around the middle: how often it was Damaged, how often right. No proof may be wrong."""
    values: dict[Name, Value] = {("c", number * 10): str(number) for number in range(300)}
    of = proving.tree([(*name, value) for name, value in values.items()])
    tally = [0, 0]
    keys = [1490, 1495, 1500, 1505, 1510, 0, 2990]
    asked_of = [Question("absent" if key % 10 else "present", "c", key, str(key // 10)) for key in keys]
    asked_of += [
        Question(kind, "c", start=a, stop=b) for kind in ("range", "count") for a in keys for b in keys if a < b
    ]
    asked_of += [Question("range", "c", start=key, limit=2) for key in keys]
    asked_of += [Question("range", "c"), Question("count", "c"), Question("count", "d"), Question("absent", "b", 1)]
    asked_of += [Question("many", present=(("c", 10, "1"), ("c", 1500, "150")), absent=(("c", 5), ("c", 1515)))]
    with sqlstate.open(path, read_only=True) as store:
        assert store.head().root == of.root
        for question in asked_of:
            try:
                made = prove(store, question)
            except Damaged:
                tally[0] += 1
            else:
                tally[1] += 1
                assert made.to_bytes() == proving.honest(of, question), question
    return tally[0], tally[1]


RUN = """
SELECT id FROM merkle WHERE level = 1 AND (collection, key) <= ('c', 1505) ORDER BY collection DESC, key DESC LIMIT 1
"""


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE state SET value = '99' WHERE key = 1500",
        "UPDATE state SET value = CAST(value AS BLOB) WHERE key = 1500",
        "DELETE FROM state WHERE key = 1500",
        "DELETE FROM state WHERE key BETWEEN 1400 AND 1600",
        "UPDATE state SET key = 1501 WHERE key = 1500",
        "UPDATE state SET collection = 'd' WHERE key = 1500",
        "INSERT INTO state VALUES ('c', 1495, '1')",
        "INSERT INTO state VALUES ('c', 1505, '1')",
        "UPDATE merkle SET children = zeroblob(length(children)) WHERE level = 1",
        "UPDATE merkle SET children = substr(children, 1, length(children) - 40) WHERE level = 1",
        "UPDATE merkle SET children = children || zeroblob(40) WHERE level = 1",
        "UPDATE merkle SET children = children || x'00' WHERE level = 1",
        "UPDATE merkle SET children = x'' WHERE level = 1",
        "UPDATE merkle SET children = substr(children, 1, 7) || x'7f' || substr(children, 9) WHERE level = 2",
        f"DELETE FROM merkle WHERE id = ({RUN})",
        f"UPDATE merkle SET key = 1499 WHERE id = ({RUN})",
        f"UPDATE merkle SET children = CAST(children AS TEXT) WHERE id = ({RUN})",
        f"UPDATE merkle SET children = 5 WHERE id = ({RUN})",
        "UPDATE state SET value = 5 WHERE key = 1500",
        "UPDATE state SET value = CAST(x'ff' AS TEXT) WHERE key = 1500",
        "UPDATE state SET key = 1499.5 WHERE key = 1500",
        "UPDATE state SET key = CAST(x'ff' AS TEXT) WHERE key = 1500",
        "UPDATE state SET collection = CAST(x'63ff' AS TEXT) WHERE key = 2990",
        "DELETE FROM merkle WHERE level = (SELECT max(level) FROM merkle)",
        "DELETE FROM merkle",
        "INSERT INTO merkle SELECT 1, max(level) + 1, '', '', x'' FROM merkle",
    ],
)
def test_damage_never_gives_a_wrong_proof(path: Path, sql: str) -> None:
    damaged_store(path, sql)
    wrong, _ = wrong_or_right(path)
    assert wrong, "nothing that was asked for met the damage"


def test_a_sound_store_gives_every_proof(path: Path) -> None:
    damaged_store(path)
    assert wrong_or_right(path)[0] == 0


# ---- Size ----


def test_a_proof_of_presence_is_small() -> None:
    with new_store() as store:
        with store.transaction():
            for number in range(50_000):
                store["c"][number] = number
        root = store.head().root
        rng = random.Random(1)  # noqa: S311, no secret
        sizes = []
        for key in rng.sample(range(50_000), 300):
            made = store.prove("c", key)
            proof.verify_present(made, root, "c", key, key)
            sizes.append(len(made.to_bytes()))
        assert median(sizes) < 8 * 1024
        # A count over nearly everything opens no more than two paths.
        made = store.prove_count("c", 100, 49_000)
        assert proof.verify_count(made, root, "c", 100, 49_000) == 48_900
        assert len(made.to_bytes()) < 4 * max(sizes)
