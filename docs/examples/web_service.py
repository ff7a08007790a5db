"""A web service over one store, for any number of workers: entries are read and written as JSON.

    STORE=app.db uvicorn web_service:app --workers 3
    STORE=app.db gunicorn web_service:app --workers 3 --preload --worker-class uvicorn_worker.UvicornWorker

Importing this module opens nothing: each worker opens the store when it starts, which is after the fork.
"""

import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import sqlstate
from sqlstate import ABSENT, aio

PATH = os.environ.get("STORE", "app.db")
TIMEOUT = 10.0  # seconds that a write waits for other workers before the answer is 503
BODY_BYTES_MAX = 1 << 20


class State(TypedDict):
    """What every request finds in its state."""

    store: aio.AsyncStore


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[State]:
    """Open the store of this worker, and close it behind the last request."""
    async with aio.open(PATH, timeout=TIMEOUT) as store:
        yield {"store": store}


def etag(value: Any) -> str:
    """Return the version of an entry: it depends on the value alone, so all workers say the same."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def named(request: Request, header: str, value: Any) -> bool:
    """Return True if a header, If-Match or If-None-Match, names the version of *value*; `*` names every entry."""
    tags = {tag.strip().removeprefix("W/") for tag in request.headers[header].split(",")}
    return value is not ABSENT and ("*" in tags or etag(value) in tags)


async def body(request: Request) -> Any:
    """Return the JSON of a request."""
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > BODY_BYTES_MAX:
            raise HTTPException(413, f"more than {BODY_BYTES_MAX} bytes")
    try:
        return json.loads(content)
    except ValueError as e:
        raise HTTPException(400, f"this is no JSON: {e}") from e


async def show_head(request: Request) -> Response:
    head = await request.state.store.head()
    return JSONResponse({"seq": head.seq, "count": head.count, "root": head.root.hex(), "worker": os.getpid()})


async def list_entries(request: Request) -> Response:
    bounds = {"start": request.query_params["start"]} if "start" in request.query_params else {}
    entries = request.state.store[request.path_params["collection"]].items(**bounds, limit=100)
    return JSONResponse([[key, value] async for key, value in entries if not isinstance(value, bytes)])


async def get(request: Request) -> Response:
    value = await request.state.store.get(*entry_of(request), ABSENT)
    if value is ABSENT or isinstance(value, bytes):
        raise HTTPException(404, "there is no such entry")
    headers = {"ETag": etag(value)}
    if "if-none-match" in request.headers and named(request, "if-none-match", value):
        return Response(status_code=304, headers=headers)
    return JSONResponse(value, headers=headers)


async def put(request: Request) -> Response:
    value = await body(request)
    existed = await write(request, value)
    return Response(status_code=204 if existed else 201, headers={"ETag": etag(value)})


async def delete(request: Request) -> Response:
    if not await write(request, ABSENT):
        raise HTTPException(404, "there is no such entry")
    return Response(status_code=204)


async def write(request: Request, value: Any) -> bool:
    """Put the value of an entry, or delete it, if the request's conditions hold. Return True if it was there."""
    store, name = request.state.store, entry_of(request)
    conditional = "if-match" in request.headers or "if-none-match" in request.headers
    seen = await store.get(*name, ABSENT) if conditional else ABSENT
    if ("if-match" in request.headers and not named(request, "if-match", seen)) or (
        "if-none-match" in request.headers and named(request, "if-none-match", seen)
    ):
        raise HTTPException(412, "the entry is not the version that the request names")

    def work(txn: sqlstate.Transaction) -> bool:
        if conditional:
            txn.expect(*name, seen)  # still so, now that nobody else writes; or Conflict, which is answered by 409
        existed = txn.get(*name, ABSENT) is not ABSENT
        if value is not ABSENT:
            txn.put(*name, value)
        elif existed:
            txn.delete(*name)
        return existed

    existed: bool = await store.run(work, note=f"{request.method} {request.url.path}"[:1000])
    return existed


def entry_of(request: Request) -> tuple[str, str]:
    return request.path_params["collection"], request.path_params["key"]


def answer(status: int, **headers: str) -> Any:
    """Return a handler that answers an error of the store."""

    def handler(_: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error)}, status, headers)

    return handler


def end_worker(_: Request, error: Exception) -> Response:
    """Answer, and end this worker: its store is of no use any more. The server starts another one."""
    os.kill(os.getpid(), signal.SIGTERM)
    return JSONResponse({"detail": str(error)}, 500)


app = Starlette(
    routes=[
        Route("/", show_head),
        Route("/{collection}", list_entries),
        Route("/{collection}/{key:path}", get, methods=["GET"]),
        Route("/{collection}/{key:path}", put, methods=["PUT"]),
        Route("/{collection}/{key:path}", delete, methods=["DELETE"]),
    ],
    exception_handlers={
        sqlstate.InvalidInput: answer(400),
        sqlstate.Conflict: answer(409),
        sqlstate.Busy: answer(503, **{"Retry-After": "1"}),
        sqlstate.StoreFull: answer(507),
        sqlstate.CommitOutcomeUnknown: end_worker,
        sqlstate.StoreIOError: end_worker,
        sqlstate.StoreUnusable: end_worker,
    },
    lifespan=lifespan,
)
