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

from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage, function_tool
from agents.memory import Session, SessionSettings
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from sqlstate import InvalidKey, InvalidOption, InvalidValue, StoreClosed, pack_key
from sqlstate.integrations.agents import SqlstateSession
from tests import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    import sqlstate
    from tests.conftest import OpenStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def session(store: sqlstate.Store) -> SqlstateSession:
    return SqlstateSession("ada", store)


def said(*contents: object) -> Any:
    return [{"role": "user", "content": content} for content in contents]


async def test_it_is_a_session_of_the_sdk(session: SqlstateSession, store: sqlstate.Store) -> None:
    of_the_sdk: Session = session
    assert isinstance(of_the_sdk, Session)
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


async def test_settings_are_taken_as_the_sdk_takes_them(store: sqlstate.Store) -> None:
    given: Any = {"limit": 0}
    session = SqlstateSession("ada", store, session_settings=given)
    assert isinstance(session.session_settings, SessionSettings)
    await session.add_items(said(1))
    assert await session.get_items() == []
    session.session_settings = None
    assert await session.get_items() == said(1)
    assert SqlstateSession("ada", store).session_settings == SessionSettings()


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
    store["agents/sessions"][pack_key(("ada", 1))] = 5
    for call in (session.get_items(), session.pop_item()):
        with pytest.raises(InvalidValue):
            await call
    assert len(store["agents/sessions"]) == 1


class Scripted(Model):
    """Says one text after the other, calls a tool in between, and keeps what it was told. It needs no network."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **options: Any) -> ModelResponse:  # noqa: A002
        self.told.append([*input] if isinstance(input, list) else [{"role": "user", "content": input}])
        number = len(self.told)
        output: Any
        if number == 2:
            output = ResponseFunctionToolCall(
                id="f", call_id="c", type="function_call", name="weather", arguments='{"city": "Zürich"}'
            )
        else:
            text = ResponseOutputText(text=f"answer {number}", type="output_text", annotations=[], logprobs=[])
            output = ResponseOutputMessage(
                id=f"{number}", type="message", role="assistant", content=[text], status="completed"
            )
        return ModelResponse(output=[output], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError


async def test_an_agent_goes_on_with_its_conversation_in_another_process_of_the_store(
    session: SqlstateSession, store: sqlstate.Store, open_store: OpenStore
) -> None:
    @function_tool
    def weather(city: str) -> str:
        return f"rain in {city}"

    config, model = RunConfig(tracing_disabled=True), Scripted()
    agent = Agent("a", model=model, tools=[weather])
    assert (await Runner.run(agent, "hello", session=session, run_config=config)).final_output == "answer 1"
    other = SqlstateSession("ada", open_store())
    assert (await Runner.run(agent, "weather?", session=other, run_config=config)).final_output == "answer 3"
    kept: list[Any] = await session.get_items()
    assert [item.get("role") or item["type"] for item in kept] == [
        "user", "assistant", "user", "function_call", "function_call_output", "assistant",
    ]  # fmt: skip
    assert kept[4]["output"] == "rain in Zürich"
    assert [item.get("content") for item in model.told[1] if item.get("role") == "user"] == ["hello", "weather?"]
    bound = RunConfig(tracing_disabled=True, session_settings=SessionSettings(limit=1))
    await Runner.run(agent, "bye", session=session, run_config=bound)
    assert len(model.told[-1]) == 2


async def test_a_store_that_was_closed_says_so(session: SqlstateSession, store: sqlstate.Store) -> None:
    store.close()
    for task in (session.get_items(), session.add_items(said(1)), session.pop_item(), session.clear_session()):
        with pytest.raises(StoreClosed):
            await task


def test_one_session_serves_several_event_loops(session: SqlstateSession) -> None:
    for number in range(3):
        asyncio.run(session.add_items(said(number)))
    assert asyncio.run(session.get_items()) == said(0, 1, 2)


@pytest.mark.parametrize("name", ["\ud800", "x" * 1_048_577, 5, None])
def test_a_name_that_cannot_be_kept_is_refused(store: sqlstate.Store, name: Any) -> None:
    with pytest.raises((InvalidKey, InvalidOption)):
        SqlstateSession(name, store)
    assert store.head().seq == 0


def test_what_is_no_store_is_refused() -> None:
    other: Any
    for other in ("agents.db", None):
        with pytest.raises(InvalidOption, match=r"sqlstate\.open"):
            SqlstateSession("ada", other)


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


@pytest.mark.slow
async def test_processes_add_at_once_and_lose_nothing(store: sqlstate.Store, path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), f"{n}"], env=environment) for n in range(2)]
    assert [writer.wait() for writer in writers] == [0] * 2
    items: list[Any] = await SqlstateSession("shared", store).get_items()
    assert items[::2] == items[1::2]
    for who in range(2):
        assert [item["number"] for item in items[::2] if item["who"] == f"{who}"] == [*range(10)]
