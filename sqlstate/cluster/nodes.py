"""The nodes of a cluster: sends each request to one that answers, until a deadline.

Any node takes any request, and passes it on to the leader. A read can be repeated, so it goes to one node after the
other. A write is sent once: if its reply is lost, nobody knows yet what became of it, and Lost says so.
"""

from __future__ import annotations

import base64
import http.client
import random
import socket
import time
from contextlib import closing
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from sqlstate.cluster.literals import marked, rows
from sqlstate.errors import Busy, CannotOpen, InvalidOption
from sqlstate.tables import meta as metadata

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Sequence

    Result = dict[str, Any]

PAUSE_SECONDS: Final = 0.05
"""Between two rounds of the nodes: an election takes a second or more."""
SHARE: Final = 4
"""A node may take this share of the timeout to answer: one that was stopped still accepts connections."""
BYTES_A_SECOND: Final = 4 << 20
"""What a node takes in at least, of a large request."""
TRANSFER_SECONDS: Final = 600.0
"""The longest wait for the next piece of a whole file."""
PIECE_BYTES: Final = 1 << 20
IDLE_KEPT: Final = 16
_REFUSED: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_QUERY: Final = "/db/query?transaction&"
_AS_WRITTEN: Final = "?transaction&norwrandom&norwtime"  # rqlite would rewrite statements that name random() or now


class Lost(Exception):
    """A write was sent, and no reply came that says what became of it."""


class _Silent(Exception):
    """A node gave no answer that can be used."""


_NO_ANSWER: Final = (OSError, http.client.HTTPException, _Silent)


class Node(NamedTuple):
    """The address of one node."""

    url: str
    host: str
    port: int
    secure: bool


class Nodes:
    """Sends requests to the nodes of one cluster. Threads can share it.

    Args:
        urls: the address of each node, `http://` or `https://`.
        auth: user name and password.
        tls: how certificates are checked; None asks the system's authorities.
        timeout: seconds after which a request is given up.
        stale: seconds by which what is read may be behind; None for not at all.

    Raises:
        InvalidOption: an address is none, or the name or password cannot be sent.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        auth: tuple[str, str] | None,
        tls: ssl.SSLContext | None,
        timeout: float,
        stale: float | None = None,
    ) -> None:
        if isinstance(urls, str) or not urls:
            raise InvalidOption(f"urls={urls!r} is not a list of addresses, one or more")
        self._nodes = [_node(url) for url in urls]
        self.urls: list[str] = [node.url for node in self._nodes]
        self.name: str = self.urls[0]
        """What messages call the cluster."""
        self.timeout: float = timeout
        self._headers = {"Content-Type": "application/json", **_authorization(auth)}
        self._tls = tls
        self._closed = False
        self._idle: dict[Node, list[http.client.HTTPConnection]] = {node: [] for node in self._nodes}
        # Followers share the reads that may be behind.
        self._first = 0 if stale is None else random.randrange(len(self._nodes))  # noqa: S311
        # By "strong", the leader asks the others. Without that, one that was cut off may not know yet that it is none.
        # rqlite 8.26 takes "linearizable" for "weak", and says nothing.
        behind = "" if stale is None else f"level=none&freshness={round(stale * 1000)}ms&freshness_strict"
        self._newest = _QUERY + (behind or "level=strong")
        self._any = _QUERY + (behind or "level=weak")

    def query(self, statements: Sequence[str], *, newest: bool = True) -> list[Result]:
        """Return the results of statements that read, all of one moment.

        Args:
            statements: each reads.
            newest: the moment is one after all writes that were acknowledged; without it, it may be an earlier one.

        Raises:
            Busy: no node answered in time.
            CannotOpen: the user name or password was refused.
        """
        return self._answered(self._newest if newest else self._any, statements)

    def try_out(self, statements: Sequence[str]) -> list[Result]:
        """Return the results of statements of which the last one fails, so that the cluster undoes them all.

        Raises:
            Busy, CannotOpen: as query().
        """
        return self._answered(f"/db/request{_AS_WRITTEN}", statements)

    def execute(self, statements: Sequence[str]) -> str:
        """Run statements in one transaction; return the error that undid it, "" if none did.

        Raises:
            Lost: they may have been run, or may be run later.
            Busy: no node could be reached; nothing was sent.
            CannotOpen: the user name or password was refused.
        """
        body = msgspec.json.encode(statements)
        patience = self.timeout / SHARE + len(body) / BYTES_A_SECOND
        return _first_error(self._sent_once(f"/db/execute{_AS_WRITTEN}", body, patience))

    def exchange_marker(self, renew: str) -> bytes:
        """Run *renew*, which writes the marker, and return the marker as it was before.

        Raises:
            Lost, Busy, CannotOpen: as execute().
        """
        body = msgspec.json.encode([marked(f"SELECT {metadata.MARKER}", ()), renew])
        results = self._sent_once(f"/db/request{_AS_WRITTEN}", body, self.timeout / SHARE)
        error = _first_error(results)
        if error:
            raise Lost(error)
        return bytes(rows(results[0].get("values"))[0][0])

    def load(self, content: Any) -> str:
        """Have the cluster take an SQLite file in place of what it holds; return why it did not, "" if it did.

        Raises:
            Lost, Busy, CannotOpen: as execute().
        """
        return _first_error(self._sent_once("/db/load", content, max(self.timeout, TRANSFER_SECONDS)))

    def backup(self, write: Callable[[bytes], object]) -> None:
        """Write what the cluster holds, an SQLite file, piece by piece.

        Raises:
            Busy, CannotOpen: as query(); what was written by then is not whole.
        """
        for node in self._turns(said := []):
            try:
                connection = self._connect(node, max(self.timeout, TRANSFER_SECONDS))
            except OSError as e:
                said.append(f"{node.url}: {_cause(e)}")
                continue
            with closing(connection):
                try:
                    connection.request("GET", "/db/backup", headers=self._headers)
                    reply = connection.getresponse()
                    self._check(node, reply.status, b"" if reply.status == HTTPStatus.OK else reply.read())
                except _NO_ANSWER as e:
                    said.append(f"{node.url}: {_cause(e)}")
                    continue
                while piece := _piece(node, reply):
                    write(piece)
            return
        raise self._gave_up(said)

    def close(self) -> None:
        """Close the connections that are idle, and others once they are."""
        self._closed = True
        for idle in self._idle.values():
            while idle:
                idle.pop().close()

    def _answered(self, path: str, statements: Sequence[str]) -> list[Result]:
        """Return the results of a request that can be repeated."""
        body = msgspec.json.encode(statements)
        for node in self._turns(said := []):
            try:
                return self._exchange(node, self._connect(node, self.timeout / SHARE), path, body)
            except _NO_ANSWER as e:
                said.append(f"{node.url}: {_cause(e)}")
        raise self._gave_up(said)

    def _sent_once(self, path: str, body: Any, patience: float) -> list[Result]:
        """Return the results of a request that is sent once."""
        for node in self._turns(said := []):
            try:
                connection = self._connect(node, patience)
            except OSError as e:  # nothing was sent
                said.append(f"{node.url}: {_cause(e)}")
                continue
            try:
                return self._exchange(node, connection, path, body)
            except _NO_ANSWER as e:
                self._pass_on(node)
                raise Lost(f"{node.url}: {_cause(e)}") from e
        raise self._gave_up(said)

    def _turns(self, said: list[str]) -> Iterator[Node]:
        """Yield the nodes in turn, from the one that answered last, until the timeout; *said* grows with each miss."""
        until = time.monotonic() + self.timeout
        while True:
            for node in (*self._nodes[self._first :], *self._nodes[: self._first]):
                yield node
                self._pass_on(node)
            if time.monotonic() >= until:
                return
            del said[: -len(self._nodes)]
            time.sleep(PAUSE_SECONDS)

    def _pass_on(self, node: Node) -> None:
        """Begin with the next node from now on; the connections to this one may be dead."""
        if self._nodes[self._first] == node:
            self._first = (self._first + 1) % len(self._nodes)
        idle = self._idle[node]
        while idle:
            idle.pop().close()

    def _connect(self, node: Node, patience: float) -> http.client.HTTPConnection:
        """Return a connection to a node that is in no use; the caller has it alone until _exchange() returns it."""
        try:
            connection = self._idle[node].pop()
        except IndexError:
            if node.secure:
                connection = http.client.HTTPSConnection(node.host, node.port, timeout=patience, context=self._tls)
            else:
                connection = http.client.HTTPConnection(node.host, node.port, timeout=patience)
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sock.settimeout(patience)
        return connection

    def _exchange(self, node: Node, connection: http.client.HTTPConnection, path: str, body: Any) -> list[Result]:
        whole = False
        try:
            headers = self._headers
            if path == "/db/load":
                headers = {**headers, "Content-Type": "application/octet-stream"}
            connection.request("POST", path, body, headers)
            reply = connection.getresponse()
            content = reply.read()
            whole = not reply.will_close
        finally:
            if whole and len(self._idle[node]) < IDLE_KEPT and not self._closed:
                self._idle[node].append(connection)
            else:
                connection.close()
        self._check(node, reply.status, content)
        return _results(content)

    def _check(self, node: Node, status: int, content: bytes) -> None:
        if status in _REFUSED:
            raise CannotOpen(
                f"{node.url} refused the user name or password, or the user may not do this (HTTP {status}); nothing "
                "was changed. Give auth=(name, password) of a user who may query, execute, load and backup"
            )
        if status != HTTPStatus.OK:
            raise _Silent(content[:200].decode(errors="replace").strip() or f"HTTP {status}")

    def _gave_up(self, said: Sequence[str]) -> Busy:
        reasons = "; ".join(dict.fromkeys(said[-len(self._nodes) :]))
        return Busy(
            f"no node of the cluster gave an answer within {self.timeout:g} s ({reasons}); nothing was changed. See "
            "that most of its nodes run and reach each other, and try again"
        )


def _piece(node: Node, reply: http.client.HTTPResponse) -> bytes:
    try:
        return reply.read(PIECE_BYTES)
    except _NO_ANSWER as e:
        raise Busy(f"{node.url} broke off while its content was copied ({_cause(e)}); try again") from e


def _first_error(results: Sequence[Result]) -> str:
    return next((str(each["error"]) for each in results if "error" in each), "")


def _results(content: bytes) -> list[Result]:
    try:
        reply = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        if not content:
            return []
        raise _Silent(f"not JSON: {content[:80]!r}") from None
    if "error" in reply:
        raise _Silent(str(reply["error"]))
    return list(reply.get("results", ()))


def _cause(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__


def _node(url: str) -> Node:
    try:
        parts = urlsplit(url)
        port = parts.port
    except (AttributeError, TypeError, ValueError):
        raise InvalidOption(f"{url!r} is not the address of a node, such as 'http://host:4001'") from None
    if parts.username is not None:
        raise InvalidOption("an address holds no user name or password; give auth=(name, password)")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise InvalidOption(f"{url!r} is not the address of a node, such as 'http://host:4001'")
    return Node(url.rstrip("/"), parts.hostname, port or 4001, parts.scheme == "https")


def _authorization(auth: tuple[str, str] | None) -> dict[str, str]:
    if auth is None:
        return {}
    try:
        name, password = auth
        both = base64.b64encode(f"{name}:{password}".encode()).decode()
    except (TypeError, ValueError):
        raise InvalidOption("auth is not a pair of a user name and a password") from None
    return {"Authorization": f"Basic {both}"}
