"""Goal: a session of the OpenAI Agents SDK in a store keeps the SDK's contract, and items that were added together.

Method: the SDK has no suite for sessions, so its contract is said here; beside it sessions with any name, many tasks
and processes at once, and items that JSON cannot hold.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("agents.memory")

from agents.memory import Session, SessionSettings

from sqlstate import InvalidOption, InvalidValue
from sqlstate.integrations.agents import SqlstateSession
from tests import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    import sqlstate

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The SDK is for asyncio only."""
    return "asyncio"


@pytest.fixture
def session(store: sqlstate.Store) -> SqlstateSession:
    return SqlstateSession("ada", store)


def said(*contents: object) -> Any:
    return [{"role": "user", "content": content} for content in contents]


async def test_it_is_a_session_of_the_sdk(session: SqlstateSession, store: sqlstate.Store) -> None:
    assert isinstance(session, Session)
    assert await session.get_items() == []
    assert await session.pop_item() is None
    await session.add_items([])
    assert store.head().seq == 0
    await session.add_items(said(*range(12)))
    assert store.head().seq == 1
    assert await session.get_items() == said(*range(12))
    assert [await session.get_items(limit) for limit in (0, 2, 99)] == [[], said(10, 11), said(*range(12))]
    assert await session.pop_item() == said(11)[0]
    await session.add_items(said("new"))
    assert await session.get_items(2) == said(10, "new")
    await session.clear_session()
    assert await session.get_items() == []
    assert list(store) == []
    with pytest.raises(InvalidOption):
        await session.get_items(-1)


async def test_the_settings_bound_what_is_read(store: sqlstate.Store) -> None:
    session = SqlstateSession("ada", store, session_settings=SessionSettings(limit=2))
    await session.add_items(said(1, 2, 3))
    assert await session.get_items() == said(2, 3)
    assert await session.get_items(3) == said(1, 2, 3)


async def test_sessions_with_any_name_are_apart(store: sqlstate.Store) -> None:
    sessions = [SqlstateSession(name, store) for name in ("a", "a/b", "a/", "a%2Fb", "", "é" * 300, "a\0")]
    for number, each in enumerate(sessions):
        await each.add_items(said(number))
    await sessions[0].add_items(said("more"))
    assert [await each.get_items(1) for each in sessions] == [said("more"), *(said(n) for n in range(1, 7))]
    await sessions[0].clear_session()
    assert [await each.get_items() for each in sessions] == [[], *(said(n) for n in range(1, 7))]


async def test_what_is_added_together_stays_together(session: SqlstateSession) -> None:
    await asyncio.gather(*(session.add_items(said(*[number] * 3)) for number in range(50)))
    items: list[Any] = await session.get_items()
    contents = [item["content"] for item in items]
    assert [len({*contents[start : start + 3]}) for start in range(0, 150, 3)] == [1] * 50
    assert sorted(contents) == sorted([*range(50)] * 3)


@pytest.mark.parametrize("item", [{"a": {1}}, {"a": (1,)}, {"a": object()}, {"a": float("nan")}, [1], "text", {1: 2}])
async def test_an_item_that_would_not_come_back_is_refused_with_its_call(
    session: SqlstateSession, store: sqlstate.Store, item: Any
) -> None:
    with pytest.raises(InvalidValue):
        await session.add_items([*said(1), item])
    assert store.head().seq == 0


async def test_what_others_wrote_there_is_named(session: SqlstateSession, store: sqlstate.Store) -> None:
    store["agents/sessions"]["ada/0000000000000001"] = 5
    for call in (session.get_items(), session.pop_item()):
        with pytest.raises(InvalidValue):
            await call
    assert len(store["agents/sessions"]) == 1


WRITER = """
import asyncio, sys
import sqlstate
from sqlstate.integrations.agents import SqlstateSession

async def main(path, who):
    with sqlstate.open(path, timeout=60) as store:
        session = SqlstateSession("shared", store)
        for number in range(10):
            await session.add_items([{"who": who, "number": number}] * 2)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_processes_add_at_once_and_lose_nothing(store: sqlstate.Store, path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), f"{n}"], env=environment) for n in range(3)]
    assert [writer.wait() for writer in writers] == [0] * 3
    items: list[Any] = await SqlstateSession("shared", store).get_items()
    assert items[::2] == items[1::2]
    for who in range(3):
        assert [item["number"] for item in items[::2] if item["who"] == f"{who}"] == [*range(10)]
