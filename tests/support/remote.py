"""A store in another process, whose every step a test asks for: the role `serves` of actor.py."""

from __future__ import annotations

import json
from typing import Any, Self

from tests.support.child import Child


class Remote(Child):
    """A process that opens a store when told so, and does what ask() says. Kill it, close the store, or let it end.

    Args:
        path: the store.
        options: of sqlstate.open().
    """

    report: dict[str, Any]
    """store.recovery, once it is open."""

    def __init__(self, path: object, /, **options: Any) -> None:
        super().__init__("serves", path, json.dumps(options))
        self.expects("ready")

    @classmethod
    def opened(cls, path: object, /, **options: Any) -> Self:
        """Return one that has opened the store."""
        remote = cls(path, **options)
        remote.tell()
        return remote.opens()

    def opens(self) -> Self:
        """Wait until it has opened the store, which it was told to.

        Raises:
            AssertionError: the store could not be opened.
        """
        self.report = self._answer()
        return self

    def outcome(self) -> Self | str:
        """Wait until it has opened the store, or return the name of the error that it raised."""
        said = self.says()
        if "error" in said:
            return str(said["error"])
        self.report = said["answer"]
        return self

    def ask(self, what: str, *arguments: object) -> Any:
        """Let it do one of the things that actor.Server can, and return what that gave.

        Raises:
            AssertionError: it raised something; use error() where that is expected.
        """
        self.tell(json.dumps([what, *arguments]))
        return self._answer()

    def error(self, what: str, *arguments: object) -> str:
        """Let it do something that must raise one of our errors; return the error's name."""
        self.tell(json.dumps([what, *arguments]))
        said = self.says()
        assert "error" in said, f"{what} raised nothing and gave {said}"
        return str(said["error"])

    def _answer(self) -> Any:
        said = self.says()
        assert "answer" in said, f"it raised {said}"
        return said["answer"]
