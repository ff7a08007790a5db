"""Starts the roles of actor.py by a fork of a process that has imported the package: 20 ms instead of a quarter second.

Where the system has no fork, each is a new Python, which is slower and means the same.

The server opens no store and starts no thread, so its children are as good as new ones: what is forbidden after a fork
is to use what was open at it. Each child is a real process with pipes, a number and an exit code of its own.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import cache
from typing import IO, TYPE_CHECKING, Any, Self

import sqlstate
from tests import ROOT
from tests.support import actor

if TYPE_CHECKING:
    from collections.abc import Mapping

MESSAGE_BYTES = 1 << 17
STREAMS = 3
"""Standard input, output and error: descriptors in the message that asks for a child, before the one for its status."""


class Process:
    """One child: what subprocess.Popen offers, as far as tests need it."""

    def __init__(self, pid: int, streams: tuple[IO[str], IO[str], IO[str]], status: IO[str]) -> None:
        self.pid = pid
        self.stdin, self.stdout, self.stderr = streams
        self._status = status
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, None if it is alive."""
        if self._code is None and select.select([self._status], [], [], 0)[0]:
            self.wait()
        return self._code

    def wait(self) -> int:
        """Wait for its end, and return the exit code; of a signal, its negative number."""
        if self._code is None:
            self._code = int(self._status.readline())
        return self._code

    def kill(self) -> None:
        """Send SIGKILL, if it is alive."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdout, self.stderr, self.stdin):
            stream.close()
        self.wait()
        self._status.close()


# A fork beside threads is what one of the roles is about; Python 3.12 and newer warn of it.
PYTHON = [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning"]


class Spawner:
    """Starts a new Python for each role."""

    def start(self, *arguments: str) -> Any:
        """Return a new process in a role, given *arguments*, with the environment of this one: a subprocess.Popen."""
        return subprocess.Popen(
            [*PYTHON, "-m", "tests.support.actor", *arguments],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )


class Server:
    """The process that forks, from the side of the test."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*PYTHON, "-m", "tests.support.fork_server", str(theirs.fileno())],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def start(self, *arguments: str) -> Process:
        """Return a new process in a role, given *arguments*, with the environment of this one."""
        pipes = [os.pipe() for _ in range(STREAMS + 1)]
        pipes[0] = pipes[0][::-1]  # a child reads from the first, and writes to the others
        asked = {"arguments": arguments, "environment": os.environ | {"PYTHONPATH": str(ROOT)}}
        socket.send_fds(self._socket, [json.dumps(asked).encode()], [theirs for _, theirs in pipes])
        for _, theirs in pipes:
            os.close(theirs)
        stdin, stdout, stderr, status = [
            os.fdopen(ours, mode, encoding="utf-8") for (ours, _), mode in zip(pipes, "wrrr", strict=True)
        ]
        return Process(int(status.readline()), (stdin, stdout, stderr), status)

    def end(self) -> None:
        """End it, and wait for its end."""
        self._socket.close()
        self._process.wait()


@cache
def server() -> Server | Spawner:
    """Return what starts processes for this one."""
    if not hasattr(os, "fork"):
        return Spawner()
    started = Server()
    atexit.register(started.end)
    return started


# ---- In the server ----


def serve(asked: socket.socket) -> list[str] | None:
    """Fork for each message, until nobody can send another. Return in each child, with the arguments of its role."""
    alive: dict[int, int] = {}  # a child's descriptor: where its status goes
    with selectors.DefaultSelector() as selector, asked:
        selector.register(asked, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd != asked.fileno():
                    status = alive.pop(key.fd)
                    selector.unregister(key.fd)
                    _, ended = os.waitpid(key.data, 0)
                    os.close(key.fd)
                    _say(status, os.waitstatus_to_exitcode(ended))
                    os.close(status)
                    continue
                message, descriptors, _, _ = socket.recv_fds(asked, MESSAGE_BYTES, STREAMS + 1)
                if not message:
                    return None
                *streams, status = descriptors
                pid = os.fork()
                if pid == 0:
                    for each in (status, *alive, *alive.values()):
                        os.close(each)
                    return _become(json.loads(message), streams)
                for stream in streams:
                    os.close(stream)
                watched = os.pidfd_open(pid)
                alive[watched] = status
                selector.register(watched, selectors.EVENT_READ, pid)
                _say(status, pid)


def _say(status: int, number: int) -> None:
    with suppress(BrokenPipeError):  # whoever asked does not listen any more
        os.write(status, f"{number}\n".encode())


def _become(asked: Mapping[str, Any], streams: list[int]) -> list[str]:
    """Take over the streams and the environment of a new process; return its arguments."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(asked["environment"])
    return list(asked["arguments"])


if __name__ == "__main__":
    for name in sqlstate.__all__:
        getattr(sqlstate, name)  # the package loads its modules when they are first used
    arguments = serve(socket.socket(fileno=int(sys.argv[1])))
    if arguments is not None:
        actor.main(*arguments)
