"""Goal: real graphs of LangGraph keep their state in a store, and go on where a killed process left them.

Method: graphs with interrupts, with parallel nodes, with a subgraph, with a channel kept as changes, and with memories;
one is run by a process that kills itself in the middle of a node, and taken over by this one.
"""

from __future__ import annotations

import operator
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import pytest

pytest.importorskip("langgraph.graph")

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.store.base import BaseStore  # noqa: TC002, LangGraph reads the annotation
from langgraph.types import Command, interrupt

from sqlstate.integrations.langgraph import SqlstateSaver, SqlstateStore
from tests import ROOT
from tests.support.system import KILLED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import sqlstate
    from tests.conftest import OpenStore

pytestmark = pytest.mark.anyio
AT: Any = {"configurable": {"thread_id": "7"}}


class State(TypedDict):
    """Of the graphs below."""

    log: Annotated[list[str], operator.add]


def graph(two: Callable[[Any], Any] = lambda state: {"log": ["two"]}, **options: Any) -> Any:
    builder: Any = StateGraph(State)
    builder.add_node("one", lambda state: {"log": ["one"]})
    builder.add_node("two", two)
    builder.add_edge(START, "one")
    builder.add_edge("one", "two")
    builder.add_edge("two", END)
    return builder.compile(**options)


async def test_a_graph_goes_on_where_another_left_it(store: sqlstate.Store, open_store: OpenStore) -> None:
    graph(checkpointer=SqlstateSaver(store), interrupt_before=["two"]).invoke({"log": ["go"]}, AT)
    other = graph(checkpointer=SqlstateSaver(open_store()))
    assert other.get_state(AT).next == ("two",)
    assert (await other.ainvoke(None, AT))["log"] == ["go", "one", "two"]
    steps = [state.metadata["step"] async for state in other.aget_state_history(AT)]
    assert steps == [2, 1, 0, -1]


async def test_an_answer_to_a_question_goes_to_the_node_that_asked(store: sqlstate.Store) -> None:
    def ask(state: State) -> Any:
        return {"log": [interrupt({"question": "sure?"})]}

    asking = graph(ask, checkpointer=SqlstateSaver(store))
    [asked] = asking.invoke({"log": []}, AT)["__interrupt__"]
    assert asked.value == {"question": "sure?"}
    assert asking.get_state(AT).tasks[0].interrupts[0].value == {"question": "sure?"}
    assert (await asking.ainvoke(Command(resume="yes"), AT))["log"] == ["one", "yes"]


def test_a_graph_goes_back_in_time_and_takes_another_way(store: sqlstate.Store) -> None:
    compiled = graph(checkpointer=SqlstateSaver(store))
    compiled.invoke({"log": ["go"]}, AT)
    [before] = [state for state in compiled.get_state_history(AT) if state.next == ("two",)]
    forked = compiled.update_state(before.config, {"log": ["changed"]})
    assert compiled.invoke(None, forked)["log"] == ["go", "one", "changed", "two"]
    assert [state.values["log"][-1:] for state in compiled.get_state_history(AT, limit=2)] == [["two"], ["changed"]]
    assert len([*compiled.get_state_history(AT, filter={"source": "update"})]) == 1


PROCESS = """
import os, sys
import sqlstate
from tests.integrations.langgraph.test_graph import AT, SqlstateSaver, graph

def die(state):
    os.kill(os.getpid(), 9)

store = sqlstate.open(sys.argv[1], mode=sys.argv[2])
graph(die, checkpointer=SqlstateSaver(store)).invoke({"log": ["go"]}, AT, durability="sync")
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "group"])
def test_a_graph_goes_on_where_a_killed_process_left_it(open_store: OpenStore, path: Path, mode: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", PROCESS, str(path), mode], env=environment, check=False)
    assert ran.returncode == KILLED
    compiled = graph(checkpointer=SqlstateSaver(open_store()))
    assert compiled.get_state(AT).next == ("two",)
    assert compiled.get_state(AT).values == {"log": ["go", "one"]}
    assert compiled.invoke(None, AT)["log"] == ["go", "one", "two"]


def test_what_parallel_nodes_wrote_is_not_done_again_after_one_failed(store: sqlstate.Store) -> None:
    done: list[str] = []

    def node(name: str, *, fails: bool) -> Callable[[Any], Any]:
        def run(state: State) -> Any:
            done.append(name)
            if fails and done.count(name) == 1:
                raise RuntimeError(name)
            return {"log": [name]}

        return run

    builder: Any = StateGraph(State)
    for name in ("a", "b", "c"):
        builder.add_node(name, node(name, fails=name == "b"))
        builder.add_edge(START, name)
    compiled = builder.compile(checkpointer=SqlstateSaver(store))
    with pytest.raises(RuntimeError):
        compiled.invoke({"log": []}, AT)
    assert compiled.invoke(None, AT)["log"] == ["a", "b", "c"]
    assert done.count("b") == 2
    assert done.count("a") + done.count("c") <= 4


def folded(state: list[Any] | None, writes: Any) -> list[Any]:
    return [*(state or []), *(item for write in writes for item in write)]


class Changes(TypedDict):
    """Of a graph whose channel is kept as changes."""

    log: Annotated[list[str], DeltaChannel(folded, snapshot_frequency=3)]


@pytest.mark.filterwarnings("ignore")  # the channel is in beta
async def test_a_channel_kept_as_changes_is_whole_also_after_pruning_and_copying(store: sqlstate.Store) -> None:
    builder: Any = StateGraph(Changes)
    builder.add_node("one", lambda state: {"log": [f"one {len(state['log'])}"]})
    builder.add_edge(START, "one")
    saver = SqlstateSaver(store)
    compiled, model = builder.compile(checkpointer=saver), builder.compile(checkpointer=InMemorySaver())
    for number in range(8):
        for each in (compiled, model):
            await each.ainvoke({"log": [f"go {number}"]}, AT)
        wanted = model.get_state(AT).values
        assert compiled.get_state(AT).values == wanted
        saver.prune(["7"])
        assert compiled.get_state(AT).values == wanted
    saver.copy_thread("7", "8")
    assert compiled.get_state({"configurable": {"thread_id": "8"}}).values == wanted
    assert len(wanted["log"]) == 16


async def test_messages_and_a_subgraph(store: sqlstate.Store) -> None:
    inner: Any = StateGraph(MessagesState)
    inner.add_node("say", lambda state: {"messages": [AIMessage("inner", id="2")]})
    inner.add_edge(START, "say")
    outer: Any = StateGraph(MessagesState)
    outer.add_node("inner", inner.compile(checkpointer=True))
    outer.add_edge(START, "inner")
    saver = SqlstateSaver(store)
    compiled = outer.compile(checkpointer=saver)
    said = await compiled.ainvoke({"messages": [HumanMessage("outer", id="1")]}, AT)
    assert [message.content for message in said["messages"]] == ["outer", "inner"]
    assert {found.config["configurable"]["checkpoint_ns"] for found in saver.list(AT)} == {"", "inner"}
    saver.prune(["7"])
    assert len([*saver.list(AT)]) == 2
    assert compiled.get_state(AT).values["messages"] == said["messages"]


async def test_a_node_reads_and_puts_memories(store: sqlstate.Store) -> None:
    def remember(state: State, *, store: BaseStore) -> Any:
        known = [item.value["text"] for item in store.search(("notes",))]
        store.put(("notes",), f"{len(known)}", {"text": f"{len(known)}"})
        return {"log": known}

    builder: Any = StateGraph(State)
    builder.add_node("remember", remember)
    builder.add_edge(START, "remember")
    compiled = builder.compile(checkpointer=SqlstateSaver(store), store=SqlstateStore(store))
    for number in range(3):
        told = await compiled.ainvoke({"log": []}, {"configurable": {"thread_id": f"{number}"}})
        assert told["log"] == [f"{each}" for each in range(number)]
