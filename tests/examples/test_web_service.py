"""docs/examples/web_service.py with several workers: whatever is killed, every request that was acknowledged is stored.

Method: uvicorn and gunicorn are started as the page says, on a Unix socket. Where Starlette or the server is missing,
the tests are skipped.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

import sqlstate
from tests import ROOT
from tests.conftest import judge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

pytest.importorskip("starlette", reason="Starlette is missing")

EXAMPLES = ROOT / "docs" / "examples"
PATIENCE_SECONDS = 60
SERVERS = {
    "uvicorn": ("uvicorn", "web_service:app", "--workers", "3", "--log-level", "warning", "--uds"),
    "gunicorn": (
        "gunicorn", "web_service:app", "--workers", "3", "--preload",
        "--worker-class", "uvicorn_worker.UvicornWorker", "--log-level", "warning", "--bind",
    ),
}  # fmt: skip


NO_ANSWER = (OSError, HTTPException)


class Connection(HTTPConnection):
    """A connection by a Unix socket."""

    def connect(self) -> None:
        """Connect to the path that is given as the host."""
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            self.sock.settimeout(PATIENCE_SECONDS)
            self.sock.connect(self.host)
        except BaseException:
            self.close()
            raise


def ask(at: Path, method: str, path: str, value: Any = None) -> tuple[int, Any]:
    """Send a request by a connection of its own: the clients of a killed worker come to another one."""
    with closing(Connection(str(at))) as connection:
        connection.request(method, path, json.dumps(value) if method == "PUT" else None)
        answer = connection.getresponse()
        said = answer.read()
    return answer.status, json.loads(said) if said else None


@contextmanager
def serving(server: str, path: Path, at: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server, wait until it answers, and end it in good order."""
    for module in ("uvicorn", *(("gunicorn", "uvicorn_worker") if server == "gunicorn" else ())):
        if find_spec(module) is None:
            pytest.skip(f"{module} is missing")
    command = [sys.executable, "-m", *SERVERS[server]]
    place = f"unix:{at}" if server == "gunicorn" else str(at)
    with (path.parent / "said").open("wb") as said:
        process = subprocess.Popen(
            [*command, place],
            cwd=EXAMPLES,
            env=os.environ | {"STORE": str(path), "PYTHONPATH": str(ROOT)},
            stdout=said,
            stderr=said,
        )
    try:
        head(at)
        yield process
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_SECONDS)
    finally:
        if process.poll() is None:
            for each in (*workers(at), process.pid):
                os.kill(each, signal.SIGKILL)
            process.wait()


def head(at: Path) -> dict[str, Any]:
    """Return what the service says of its store, once it says something."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with suppress(*NO_ANSWER):
            found: dict[str, Any] = ask(at, "GET", "/")[1]
            return found
        assert time.monotonic() < deadline, "the service does not answer"
        time.sleep(0.05)


def workers(at: Path) -> set[int]:
    """Return the workers that answer: each connection may get another one."""
    return {head(at)["worker"] for _ in range(20)}


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
def test_what_was_acknowledged_is_stored_whichever_worker_is_killed(
    server: str, path: Path, request: pytest.FixtureRequest
) -> None:
    at = path.parent / "s"
    acknowledged: list[str] = []
    asked: set[str] = set()
    killed: set[int] = set()
    ended = threading.Event()

    def put(number: int) -> None:
        for turn in range(100_000):
            if ended.is_set():
                return
            key = f"{number}-{turn}"
            asked.add(key)
            with suppress(*NO_ANSWER):
                if ask(at, "PUT", f"/jobs/{key}", {"of": key})[0] == 201:
                    acknowledged.append(key)

    def wait_for(count: int) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(acknowledged) < count:
            assert time.monotonic() < deadline, f"{len(acknowledged)} requests were acknowledged"
            time.sleep(0.01)

    with serving(server, path, at):
        threads = [threading.Thread(target=put, args=(number,)) for number in range(6)]
        for each in threads:
            each.start()
        try:
            for _ in range(3):
                wait_for(len(acknowledged) + 40)
                for victim in sorted(workers(at))[:2]:
                    with suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                        killed.add(victim)
            wait_for(len(acknowledged) + 40)
        finally:
            ended.set()
            for each in threads:
                each.join()
    with sqlstate.open(path) as store:
        stored = {key: value["of"] for key, value in store["jobs"].items()}
    assert len(acknowledged) >= 160
    assert len(killed) >= 3
    assert {key: key for key in acknowledged}.items() <= stored.items()
    assert stored.keys() <= asked
    assert judge(path, request.node) == ()


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
def test_a_request_under_way_is_answered_when_the_service_is_told_to_end(server: str, path: Path) -> None:
    at = path.parent / "s"
    with serving(server, path, at) as process, closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(PATIENCE_SECONDS)
        connection.connect(str(at))
        connection.sendall(b"PUT /jobs/last HTTP/1.1\r\nHost: s\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        assert b" 100 " in connection.recv(1000)  # the program is at it, and wants the rest
        process.send_signal(signal.SIGTERM)
        connection.sendall(b"1")
        assert b" 201 " in connection.recv(1000)
        assert process.wait(PATIENCE_SECONDS) == 0
    with sqlstate.open(path) as store:
        assert store.recovery.clean
        assert store["jobs"]["last"] == 1


# ---- Answers, with the program in this process ----


@pytest.fixture
def service(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, ModuleType]]:
    pytest.importorskip("httpx", reason="httpx is missing, which Starlette's test client needs")
    testclient = pytest.importorskip("starlette.testclient")
    monkeypatch.setenv("STORE", str(path))
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.delitem(sys.modules, "web_service", raising=False)
    import web_service  # noqa: PLC0415, as it is in docs/examples

    assert not path.exists(), "importing it opened a store"
    monkeypatch.setattr(web_service, "TIMEOUT", 0.0)
    with testclient.TestClient(web_service.app) as each:
        yield each, web_service


def test_an_entry_is_put_read_listed_and_deleted(service: tuple[Any, ModuleType]) -> None:
    http, _ = service
    assert http.get("/users/ada").status_code == 404
    assert http.put("/users/ada", json={"name": "Ada"}).status_code == 201
    assert http.put("/users/ada", json={"name": "Ada L."}).status_code == 204
    assert http.get("/users/ada").json() == {"name": "Ada L."}
    assert http.put("/users/a/path", json=[]).status_code == 201
    assert http.get("/users").json() == [["a/path", []], ["ada", {"name": "Ada L."}]]
    assert http.get("/users?start=ad").json() == [["ada", {"name": "Ada L."}]]
    assert http.delete("/users/ada").status_code == 204
    assert http.delete("/users/ada").status_code == 404
    assert http.get("/").json()["count"] == 1


def test_conditions_hold_or_nothing_is_written(service: tuple[Any, ModuleType]) -> None:
    http, _ = service
    assert http.put("/users/ada", json=1, headers={"If-Match": "*"}).status_code == 412
    first = http.put("/users/ada", json=1, headers={"If-None-Match": "*"})
    assert first.status_code == 201
    assert http.put("/users/ada", json=2, headers={"If-None-Match": "*"}).status_code == 412
    tag = http.get("/users/ada").headers["ETag"]
    assert tag == first.headers["ETag"]
    assert http.get("/users/ada", headers={"If-None-Match": tag}).status_code == 304
    assert http.put("/users/ada", json=2, headers={"If-Match": f'"other", {tag}'}).status_code == 204
    assert http.put("/users/ada", json=3, headers={"If-Match": tag}).status_code == 412
    assert http.delete("/users/ada", headers={"If-Match": tag}).status_code == 412
    assert http.get("/users/ada", headers={"If-None-Match": tag}).json() == 2


def test_a_change_between_reading_and_writing_is_a_conflict(
    service: tuple[Any, ModuleType], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    http, program = service
    tag = http.put("/users/ada", json=1).headers["ETag"]
    named = program.named

    def change_meanwhile(*arguments: Any) -> Any:
        with sqlstate.open(path) as store:
            store["users"]["ada"] = 2
        return named(*arguments)

    monkeypatch.setattr(program, "named", change_meanwhile)
    answer = http.put("/users/ada", json=3, headers={"If-Match": tag})
    assert answer.status_code == 409
    assert "'users'['ada']" in answer.json()["detail"]
    assert http.get("/users/ada").json() == 2


def test_a_store_that_is_busy_is_answered_by_503(service: tuple[Any, ModuleType], path: Path) -> None:
    http, _ = service
    with sqlstate.open(path) as store, store.transaction() as txn:
        txn.put("other", 1, 1)
        answer = http.put("/users/ada", json=1)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert http.get("/users/ada").status_code == 404


@pytest.mark.parametrize(
    ("where", "content", "status", "says"),
    [
        ("/users/ada", b"{", 400, "no JSON"),
        ("/users/ada", b"1e999", 400, "inf"),
        ("/users/ada", b'"\\ud800"', 400, ""),
        (f"/{'n' * 256}/ada", b"1", 400, "name"),
        ("/users/ada", b'"' + b"x" * (1 << 20) + b'"', 413, "more than"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(
    where: str, content: bytes, status: int, says: str, service: tuple[Any, ModuleType]
) -> None:
    http, _ = service
    answer = http.put(where, content=content)
    assert answer.status_code == status
    assert says in answer.text
    assert http.get("/").json()["seq"] == 0


def test_a_handle_that_is_of_no_use_ends_its_worker(
    service: tuple[Any, ModuleType], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    http, program = service
    ended: list[tuple[int, int]] = []
    monkeypatch.setattr(program.os, "kill", lambda *arguments: ended.append(arguments))
    path.rename(path.with_name("moved.db"))
    answer = http.put("/users/ada", json=1)
    assert answer.status_code == 500
    assert ended == [(os.getpid(), signal.SIGTERM)]
