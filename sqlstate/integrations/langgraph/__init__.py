"""A checkpointer and a store for LangGraph: `pip install 'sqlstate-store[langgraph]'`. Start reading at `saver`.

`builder.compile(checkpointer=SqlstateSaver(store), store=SqlstateStore(store))` compiles a graph with both.
"""

from sqlstate.integrations.langgraph.saver import SqlstateSaver
from sqlstate.integrations.langgraph.store import SqlstateStore

__all__ = ["SqlstateSaver", "SqlstateStore"]
