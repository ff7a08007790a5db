"""Writers of a drill that do what no writer may.

python -m tests.support.drill_writers KIND PATH NUMBER SEED TIMEOUT
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from sqlstate.cli.drill.writer import WRITERS, Worker, work

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sqlstate.cli.drill.writer import Put


class Early(Worker):
    """Says that its fifth commit returned before it is made, and waits for its end there."""

    def commit(self, change: Callable[[Any], list[Put]]) -> None:
        """Make it, or only say so."""
        made = 0

        def seen(txn: Any) -> list[Put]:
            nonlocal made
            puts = change(txn)
            made = self.store.head().seq + 1
            if txn.get(WRITERS, self._number, {"count": 0})["count"] >= 4:
                puts = [*puts, self._counter()]
                self.say("told", self._count, puts)
                self.say("done", self._count, made)
                time.sleep(3600)
            return puts

        super().commit(seen)


class Liar(Worker):
    """Tells of other puts than it makes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        say = self.say

        def lie(what: str, *rest: Any) -> None:
            if what == "told":
                count, puts = rest
                rest = count, [*puts, ("accounts", "account 00", {"balance": "all of it"})]
            say(what, *rest)

        self.say = lie


class Failing(Worker):
    """Ends with an exception after its first commits."""

    def run(self) -> None:
        """Move twice, and fail."""
        self._move()
        self._move()
        raise ZeroDivisionError("by zero")


class Idle(Worker):
    """Makes no commit."""

    def run(self) -> None:
        """Wait for its end."""
        time.sleep(3600)


if __name__ == "__main__":
    work(sys.argv[2:], {"early": Early, "liar": Liar, "failing": Failing, "idle": Idle}[sys.argv[1]])
