"""Goal: who looks at a public object in a session reads what it is and whether it can be used; who forgets `with`
is told so. Method: each kind, open and ended, and each name that is used without the block.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from typing import TYPE_CHECKING

import pytest

import sqlstate
from sqlstate import aio
from sqlstate.maintenance.check.findings import FindingKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_each_object_of_a_store_says_what_it_is_and_whether_it_can_be_used(tmp_path: Path) -> None:
    path = str(tmp_path / "app.db")
    store = sqlstate.open(path)
    store["c"]["k"] = 1
    assert repr(store) == f"<sqlstate.Store {path!r}: open>"
    assert repr(store.wal) == f"<sqlstate.WriteAheadLog of {path!r}: open>"
    with store.transaction() as txn:
        assert repr(txn) == f"<sqlstate.Transaction of {path!r}: open, 0 writes>"
        txn.put("c", "a", 1)
        assert repr(txn) == f"<sqlstate.Transaction of {path!r}: open, 1 write>"
        with pytest.raises(LookupError), store.transaction() as nested:
            nested.put("c", "b", 1)
            nested.collections()
            assert repr(nested).endswith("open, 2 writes>")
            raise LookupError
        assert repr(txn).endswith("open, 1 write>")
    assert repr(txn).endswith(": ended, 1 write>")
    with store.batch() as batch:
        assert repr(batch) == f"<sqlstate.Batch of {path!r}: open>"
    assert repr(batch) == f"<sqlstate.Batch of {path!r}: ended>"
    with store.snapshot() as view:
        assert repr(view) == f"<sqlstate.Snapshot of {path!r}: commit 2, open>"
        assert repr(view["c"]) == "<sqlstate.CollectionView 'c': open>"
    assert repr(view) == f"<sqlstate.Snapshot of {path!r}: commit 2, ended>"
    staged = store.stage()
    assert repr(staged) == f"<sqlstate.StagedTransaction {staged.txn} of {path!r}: open>"
    staged.rollback()
    head = store.head()
    assert repr(head).startswith(f"Head(seq=2, root={head.root.hex()}, count=2, at='20")
    assert repr(head).endswith(f", chain={head.chain.hex()})")
    proof = store.prove("c", "k")
    assert repr(proof) == f"Proof(kind='present', body={proof.body[:32].hex()}…, {len(proof.body):,} bytes)"
    c = store["c"]
    assert repr(c) == "<sqlstate.Collection 'c': open>"
    assert repr(c.keys()) == f"<keys of {c!r}>"
    assert repr(view["c"]) == "<sqlstate.CollectionView 'c': ended>"
    store.close()
    assert repr(store) == f"<sqlstate.Store {path!r}: closed>"
    assert repr(c) == "<sqlstate.Collection 'c': closed>"
    assert repr(staged).endswith(": closed>")
    assert repr(view).endswith("commit 2, closed>")


EVIL = "<script>alert(1)</script>"


def test_a_notebook_shows_small_tables_with_nothing_unescaped(tmp_path: Path) -> None:
    with sqlstate.open(tmp_path / "app.db") as store:
        c = store[EVIL]
        c.update({EVIL: EVIL} | {number: f"{EVIL}{number}" * 1000 for number in range(25)})
        shown = c._repr_html_()
        assert shown.count("<tr>") == 11
        assert "26 entries in all" in shown
        assert len(shown) < 6000
        finding = sqlstate.Finding(FindingKind.ENTRY, EVIL, EVIL, EVIL)
        report = dataclasses.replace(store.check(), findings=(finding,) * 12, more=3)
        found = report._repr_html_()
        assert found.count(">entry<") == 10
        assert "further findings" in found
        assert ">5<" in found
        head, recovery = store.head()._repr_html_(), store.recovery._repr_html_()
        assert store.head().root.hex() in head
        assert "rolled back" in recovery
        with store.snapshot() as view:
            assert "<tr>" in view[EVIL]._repr_html_()
        for html in (shown, found, head, recovery, view[EVIL]._repr_html_()):
            assert "<script" not in html
            assert html.startswith("<table>")
        assert "has ended" in view[EVIL]._repr_html_()
    assert "closed" in c._repr_html_()


def test_a_failed_transaction_and_a_failed_store_say_so(tmp_path: Path) -> None:
    with sqlstate.open(tmp_path / "app.db") as store:
        with pytest.raises(sqlstate.TransactionEnded), store.transaction() as txn:
            txn._entries._connection.run("ROLLBACK")
            with pytest.raises(sqlstate.TransactionEnded):
                txn.collections()
            assert repr(txn).endswith(": failed, 0 writes>")
            txn.put("c", "k", 1)
        store._engine.life.fail("for a test")
        assert repr(store).endswith(": failed>")
        store._engine.life.failure = ""


@pytest.mark.parametrize("word", ["transaction", "batch"])
def test_who_forgets_with_is_told_so(tmp_path: Path, word: str) -> None:
    with sqlstate.open(tmp_path / "app.db") as store:
        block = getattr(store, word)()
        uses: tuple[Callable[[], object], ...] = (
            lambda: block.put("c", "k", 1),
            lambda: block.get("c", "k"),
            lambda: block.collection("c"),
            lambda: block["c"],
        )
        for use in uses:
            with pytest.raises(sqlstate.TransactionEnded, match=rf"with store\.{word}\(\) as {word}:"):
                use()
        with pytest.raises(AttributeError, match="no attribute 'puts'"):
            block.puts  # noqa: B018
        with block as inner:  # it still can be used as it should be
            inner.put("c", "k", 1)
            with pytest.raises(sqlstate.TransactionEnded):
                store["c"] and inner["c"] and store.batch
                block.put("c", "k", 2)
        assert dict(store["c"]) == {"k": 1}


def test_attempts_say_how_many_there_are(tmp_path: Path) -> None:
    with sqlstate.open(tmp_path / "app.db") as store:
        attempts = store.transaction(retries=2)
        assert repr(attempts) == "<sqlstate.Attempts at a transaction: 3>"
        assert [repr(attempt) for attempt in attempts] == ["<an attempt at a transaction: 2 more can be made>"]


def test_the_transaction_of_a_batch_wants_its_block_too(tmp_path: Path) -> None:
    with sqlstate.open(tmp_path / "app.db") as store, store.batch() as batch:
        with pytest.raises(sqlstate.TransactionEnded, match=r"with batch\.transaction\(\)"):
            batch.transaction().put("c", "k", 1)  # type: ignore[attr-defined]
        batch.put("c", "k", 1)


@pytest.mark.anyio
async def test_the_objects_of_an_async_store_say_what_they_are(tmp_path: Path) -> None:
    path = str(tmp_path / "app.db")
    opening = aio.open(path)
    assert repr(opening) == f"<sqlstate.aio.Opening: {path!r}, to be awaited>"
    store = await opening
    assert repr(opening) == "<sqlstate.aio.Opening: used>"
    await store.put("c", "k", 1)
    assert repr(store) == f"<sqlstate.aio.AsyncStore {path!r}: open>"
    ticket = store.submit(lambda txn: txn.put("c", "l", 2))
    await ticket
    assert repr(ticket) == "<sqlstate.aio.Ticket: durable>"
    view = store.snapshot()
    assert repr(view) == "<sqlstate.aio.AsyncSnapshot: not begun>"
    async with view:
        assert repr(view) == "<sqlstate.aio.AsyncSnapshot: commit 2, open>"
        scan = view["c"].items()
        await anext(scan)
        assert repr(scan) == "<sqlstate.aio.AsyncScan: open, 1 row taken>"
        await scan.aclose()
        assert repr(scan) == "<sqlstate.aio.AsyncScan: ended, 1 row taken>"
    assert repr(view) == "<sqlstate.aio.AsyncSnapshot: commit 2, ended>"
    assert repr(view["c"]) == "<sqlstate.aio.AsyncCollectionView 'c': ended>"
    txn = store.transaction()
    assert repr(txn) == "<sqlstate.aio.AsyncTransaction: not begun, 0 writes>"
    async with txn:
        txn.put("c", "k", 2)
        assert repr(txn) == "<sqlstate.aio.AsyncTransaction: open, 1 write>"
    assert repr(txn) == "<sqlstate.aio.AsyncTransaction: ended, 1 write>"
    assert repr(store.watch()) == f"<sqlstate.aio.AsyncWatch of {path!r}: open>"
    await store.close()
    assert repr(store) == f"<sqlstate.aio.AsyncStore {path!r}: closed>"
    assert repr(store["c"]) == "<sqlstate.aio.AsyncCollection 'c': closed>"


def test_the_names_of_the_package_are_the_same_for_type_checkers_and_at_run_time() -> None:
    """They are listed twice: typed, and by module, to be imported when first used."""
    source = ast.parse(inspect.getsource(sqlstate))
    block = next(node for node in source.body if isinstance(node, ast.If))
    typed = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    lazy = {name: f"sqlstate.{module}.{name}" for name, module in sqlstate._WHERE.items()}
    assert typed == lazy | {name: f"sqlstate.{name}" for name in sqlstate._NAMED}
