"""Three nodes of rqlite on this machine, which tests kill, stop and cut off. Everything they wait for is bounded."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import apsw
import pytest

from sqlstate.cluster.nodes import Nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION: Final = "8.26.8-0"
SECONDS: Final = 60.0
"""How long a cluster may take to be ready. No test passes or fails by how long it took."""
HOST: Final = "127.0.0.1"


def _empty() -> bytes:
    """A database without tables."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "empty.db")
        connection = apsw.Connection(path)
        connection.execute("CREATE TABLE t (x); DROP TABLE t")
        connection.close()
        return Path(path).read_bytes()


EMPTY: Final = _empty()


def binary() -> str:
    """Where rqlited is; the test is skipped where it cannot be had."""
    given = os.environ.get("SQLSTATE_RQLITED")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = Path(given) if given else cache / "sqlstate-rqlite" / f"rqlited-{VERSION}"
    if not os.access(place, os.X_OK):
        pytest.skip(f"there is no rqlited at {place}; run tests/cluster/rqlite, or set SQLSTATE_RQLITED")
    return str(place)


def free_ports(number: int) -> list[int]:
    with _Sockets(number) as sockets:
        return [each.getsockname()[1] for each in sockets]


class _Sockets(list[socket.socket]):
    def __init__(self, number: int) -> None:
        super().__init__()
        for _ in range(number):
            self.append(socket.create_server((HOST, 0)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self:
            each.close()


class Node:
    """One node: its process, its folder, and its addresses, which stay when it is started again."""

    def __init__(self, number: int, folder: Path, ports: tuple[int, int, int], options: tuple[str, ...]) -> None:
        self.number = number
        self.folder = folder / str(number)
        self.port, self.raft, self.advertised = ports
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / f"{number}.log"

    @property
    def url(self) -> str:
        return f"{'https' if '-http-cert' in self.options else 'http'}://{HOST}:{self.port}"

    def start(self, join: str) -> None:
        """Start it; a node that was in the cluster before finds it again by itself."""
        command = [
            binary(), "-node-id", str(self.number), "-http-addr", f"{HOST}:{self.port}",
            "-raft-addr", f"{HOST}:{self.raft}", "-raft-adv-addr", f"{HOST}:{self.advertised}",
            "-raft-timeout", "500ms", "-raft-election-timeout", "500ms", "-raft-leader-lease-timeout", "400ms",
            *self.options,
        ]  # fmt: skip
        if join:
            command += ["-join", join]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, str(self.folder)], stdout=log, stderr=log)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it as the out-of-memory killer would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(SECONDS)
            self.process = None


class Cluster:
    """Three nodes that know each other.

    Args:
        folder: for their data.
        options: of rqlited.
        proxied: other nodes reach each node through a proxy of the test, so that it can be cut off.
    """

    def __init__(self, folder: Path, options: tuple[str, ...] = (), *, proxied: bool = False) -> None:
        binary()
        ports = free_ports(9 if proxied else 6)
        self.nodes = [
            Node(
                number,
                folder,
                (ports[number], ports[number + 3], ports[number + 6 if proxied else number + 3]),
                options,
            )
            for number in range(3)
        ]
        self.auth: tuple[str, str] | None = None
        self.proxies = [Proxy(node, self) for node in self.nodes] if proxied else []

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.nodes]

    def start(self) -> None:
        """Start all nodes, and wait until they are one cluster with a leader."""
        first, *others = self.nodes
        first.start("")
        self.wait(lambda: self.leader() is not None)
        for node in others:
            node.start(f"{HOST}:{first.advertised}")
        self.wait(lambda: len(self.known()) == 3 and all(each["reachable"] for each in self.known()))

    def known(self) -> list[Any]:
        """What a node says of all of them."""
        for node in self.nodes:
            with suppress(OSError, ValueError, KeyError):
                return list(self.ask(node, "/nodes?ver=2")["nodes"])
        return []

    def ask(self, node: Node, path: str) -> Any:
        connection = HTTPConnection(HOST, node.port, timeout=5.0)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def leader(self) -> Node | None:
        """The node that the others follow, as one of those that answer says."""
        for node in self.nodes:
            if node.process is None:
                continue
            with suppress(OSError, ValueError, KeyError):
                for each in self.ask(node, "/nodes?ver=2")["nodes"]:
                    if each["leader"] and each["reachable"]:
                        return self.nodes[int(each["id"])]
        return None

    def wait(self, ready: Any) -> None:
        until = time.monotonic() + SECONDS
        while not ready():
            assert time.monotonic() < until, "the cluster was not ready in time"
            time.sleep(0.05)

    def wait_for_leader(self, *, but: Node | None = None) -> Node:
        found: list[Node] = []

        def there() -> bool:
            leader = self.leader()
            if leader is not None and leader is not but:
                found.append(leader)
            return bool(found)

        self.wait(there)
        return found[0]

    def clear(self) -> None:
        """Leave the cluster as it was when it was new."""
        self.wait_for_leader()
        with closing(Nodes(self.urls, auth=self.auth, tls=None, timeout=SECONDS)) as nodes:
            assert nodes.load(EMPTY) == ""

    def stop(self) -> None:
        """Kill all nodes."""
        for node in self.nodes:
            if node.process is not None:
                node.signal(signal.SIGCONT)
            node.kill()
        for proxy in self.proxies:
            proxy.close()


class Proxy:
    """What other nodes reach a node through: it knows from which node a connection comes, and cuts those of one off."""

    def __init__(self, node: Node, cluster: Cluster) -> None:
        self.node = node
        self.cluster = cluster
        self.cut: set[int] = set()
        self._server = socket.create_server((HOST, node.advertised))
        self._pairs: list[tuple[int, socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.close()
        self.drop({0, 1, 2})

    def drop(self, numbers: set[int]) -> None:
        """Break the connections that come from these nodes."""
        for number, *sockets in list(self._pairs):
            if number in numbers:
                for each in sockets:
                    with suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                there, (_, port) = self._server.accept()
            except OSError:
                return
            number = self._source(port)
            if number in self.cut or self.node.number in self.cut:
                there.close()
                continue
            try:
                here = socket.create_connection((HOST, self.node.raft), 5.0)
            except OSError:
                there.close()
                continue
            here.settimeout(None)
            self._pairs.append((number, there, here))
            for source, target in ((there, here), (here, there)):
                threading.Thread(target=_carry, args=(source, target), daemon=True).start()

    def _source(self, port: int) -> int:
        """Which node a connection comes from: whose process has the socket."""
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(f":{port:04X}") and fields[2].endswith(f":{self.node.advertised:04X}"):
                for node in self.cluster.nodes:
                    if node.process is not None and _has_socket(node.process.pid, fields[9]):
                        return node.number
        return -1


def _has_socket(pid: int, inode: str) -> bool:
    with suppress(OSError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if re.fullmatch(rf"socket:\[{inode}\]", str(file.readlink())):
                    return True
    return False


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextmanager
def cut_off(cluster: Cluster, node: Node) -> Iterator[None]:
    """Keep a node and the others from reaching each other, in both directions. Its clients still reach it."""
    for proxy in cluster.proxies:
        proxy.cut.add(node.number)
        proxy.drop({node.number} if proxy.node is not node else {0, 1, 2, -1})
    try:
        yield
    finally:
        for proxy in cluster.proxies:
            proxy.cut.discard(node.number)
