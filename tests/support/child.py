"""A child process that says lines and is told lines, so that a test decides what happens before what."""

from __future__ import annotations

import json
from typing import Any, Self

from tests.support.fork_server import server


class Child:
    """A process in a role of tests/support/actor.py. Use it in a `with` block, which kills what is left of it."""

    def __init__(self, role: str, *arguments: object) -> None:
        self._process = server().start(role, *map(str, arguments))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def says(self) -> Any:
        """Return the next line that it says.

        Raises:
            AssertionError: it ended instead.
        """
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"the child ended with {self._process.wait()}:\n{self._process.stderr.read()}")
        return json.loads(line)

    def expects(self, what: object) -> None:
        """Wait until it says *what*."""
        heard = self.says()
        assert heard == what, f"it said {heard!r}"

    def tell(self, line: str = "go on") -> None:
        """Give it a line."""
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def ends(self) -> None:
        """Wait for its end, which must be a good one."""
        assert self.end() == (0, "", "")

    def end(self) -> tuple[int, str, str]:
        """Wait for its end; return its exit code, and what it wrote since the last line that it said."""
        self._process.stdin.close()
        out, err = self._rest()
        return self._process.wait(), out, err

    def kill(self) -> list[Any]:
        """Kill it with SIGKILL, and return all that it still said."""
        self._process.kill()
        out, _ = self._rest()
        self._process.wait()
        # The line that it was writing may be cut; a line is written once what it says is true.
        return [json.loads(line) for line in out.split("\n")[:-1]]

    def _rest(self) -> tuple[str, str]:
        # Not communicate(): it reads past what readline() has buffered.
        return self._process.stdout.read(), self._process.stderr.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process as process:  # closes its pipes and waits for it
            if process.poll() is None:
                process.kill()
