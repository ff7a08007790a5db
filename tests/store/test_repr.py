"""Goal: who looks at a public object in a session reads what it is and whether it can be used; who forgets `with`
is told so. Method: each kind, open and ended, and each name that is used without the block.
"""

from __future__ import annotations

import ast
import inspect
from typing import TYPE_CHECKING

import pytest

import sqlstate
from sqlstate import aio

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_each_object_of_a_store_says_what_it_is_and_whether_it_can_be_used(tmp_path: Path) -> None:
    path = str(tmp_path / "app.db")
    store = sqlstate.open(path)
    store["c"]["k"] = 1
    assert repr(store) == f"<sqlstate.Store {path!r}: open>"
    assert repr(store.wal) == f"<sqlstate.WriteAheadLog of {path!r}>"
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
        assert repr(view["c"]) == "<CollectionView 'c'>"
    assert repr(view) == f"<sqlstate.Snapshot of {path!r}: commit 2, ended>"
    staged = store.stage()
    assert repr(staged) == f"<sqlstate.StagedTransaction {staged.txn} of {path!r}>"
    staged.rollback()
    head = store.head()
    assert repr(head).startswith(f"Head(seq=2, root={head.root.hex()}, count=2, at='20")
    assert repr(head).endswith(f", chain={head.chain.hex()})")
    proof = store.prove("c", "k")
    assert repr(proof) == f"Proof(kind='present', body={proof.body[:32].hex()}…, {len(proof.body):,} bytes)"
    store.close()
    assert repr(store) == f"<sqlstate.Store {path!r}: closed>"
    assert repr(view).endswith("commit 2, closed>")


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


def test_the_transaction_of_a_batch_wants_its_block_too(tmp_path: Path) -> None:
    with sqlstate.open(tmp_path / "app.db") as store, store.batch() as batch:
        with pytest.raises(sqlstate.TransactionEnded, match=r"with store\.transaction\(\)"):
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
    txn = store.transaction()
    assert repr(txn) == "<sqlstate.aio.AsyncTransaction: not begun, 0 writes>"
    async with txn:
        txn.put("c", "k", 2)
        assert repr(txn) == "<sqlstate.aio.AsyncTransaction: open, 1 write>"
    assert repr(txn) == "<sqlstate.aio.AsyncTransaction: ended, 1 write>"
    assert repr(store.watch()) == f"<sqlstate.aio.AsyncWatch of {path!r}>"
    await store.close()
    assert repr(store) == f"<sqlstate.aio.AsyncStore {path!r}: closed>"


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
