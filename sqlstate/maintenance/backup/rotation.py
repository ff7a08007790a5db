"""The places of a store's backups: the newest, and the older ones behind it."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from sqlstate.errors import Busy, InvalidOption, StoreError, StoreForked
from sqlstate.files import system
from sqlstate.files.identity import belongs_to
from sqlstate.maintenance.closed_file import reading, renaming, sidecars_of
from sqlstate.sqlite.raw_file import exclusive_lock
from sqlstate.tables import meta as metadata

if TYPE_CHECKING:
    from sqlstate.files.replace import Temporary
    from sqlstate.sqlite.connection import Connection
    from sqlstate.sqlite.engine import Engine


class Rotation:
    """The place of a backup, and those of the older ones: `path`, `path.1`, `path.2` and so on.

    Args:
        path: of the newest.
        engine: the store's connections.
        store_id: of the store.
        keep: how many backups to keep; with 0 there is only the one place.
    """

    def __init__(self, path: str, engine: Engine, store_id: bytes, keep: int) -> None:
        self.path = path
        self._engine = engine
        self._store_id = store_id
        self._keep = keep

    def check(self, stack: ExitStack) -> int:
        """Return how many older backups there are, and keep others from all of them until *stack* ends.

        Raises:
            InvalidOption: one of the places holds something else than a closed backup of the store.
            Busy: a process has it open.
        """
        self._check_one(self.path, stack)
        older = 1 if self._is_double() else 0
        while self._keep and self._stands_behind(older, stack):
            older += 1
        return older

    def put(self, made: Temporary) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Give the new backup its place, and the others theirs; return the names of the older, and of the removed.

        At every moment there are as many backups as before, and one of them is at the first place. What a crash
        leaves here, the next backup puts in order.
        """
        made.sync()  # from here on, only names change
        with ExitStack() as stack:
            older = self.check(stack)
            moved: list[tuple[str, str]] = []
            try:
                with renaming(stack, self.path, *map(self._older, range(1, older + 1))):
                    if self._keep > 1 and os.path.lexists(self.path):
                        older = self._shift(older, moved)
                        with suppress(InvalidOption, Busy), ExitStack() as behind:
                            # What stood behind a hole that is filled now.
                            while self._stands_behind(older, behind):
                                older += 1
                    made.replace()
            except BaseException as e:
                if not made.replaced:
                    self._shift_back(moved, e)
                raise
            removed = []
            for number in range(older, max(self._keep, 1) - 1, -1):
                with suppress(OSError):  # it is named among those that are kept
                    system.remove(self._older(number))
                    removed.append(number)
            if removed:
                with suppress(OSError):  # a power cut may bring one back, which the next backup removes
                    system.sync_folder(os.path.dirname(self.path))
        kept = [number for number in range(1, older + 1) if number not in removed]
        return self._names(kept), self._names(removed)

    def _shift(self, older: int, moved: list[tuple[str, str]]) -> int:
        """Move each backup one place on; the newest has two names then, until the next takes its first.

        Notes in *moved* each step, from and to, before it is taken.
        """
        folder, first = os.path.dirname(self.path), self._older(1)
        if self._is_double():
            return older
        for number in range(older, 0, -1):
            moved.append((self._older(number), self._older(number + 1)))
            system.replace(*moved[-1])
            system.sync_folder(folder)  # or a power cut could keep this step and lose the one before
        moved.append((self.path, first))
        try:
            os.link(self.path, first)
        except OSError:  # a file system without links
            system.replace(self.path, first)
        system.sync_folder(folder)
        return older + 1

    def _shift_back(self, moved: list[tuple[str, str]], error: BaseException) -> None:
        """Give the backups their places again, as the steps were not all taken; say in *error* if that fails too."""
        try:
            for source, target in reversed(moved):
                if os.path.lexists(source) and os.path.lexists(target):
                    system.remove(target)  # the newest, which had two names
                elif os.path.lexists(target):
                    system.replace(target, source)
        except OSError:
            error.add_note("all backups that were there are there, some of them one place further on")

    def _is_double(self) -> bool:
        """Return True if the newest has two names: a crash came between the last step of _shift() and what follows."""
        try:
            return self._keep > 0 and os.path.samefile(self.path, self._older(1))
        except FileNotFoundError:
            return False

    def _stands_behind(self, older: int, stack: ExitStack) -> bool:
        """Return True if there is a backup after *older* ones, and keep others from it."""
        path = self._older(older + 1)
        if not os.path.lexists(path):
            return False
        self._check_one(path, stack)
        return True

    def _older(self, number: int) -> str:
        return f"{self.path}.{number}"

    def _names(self, numbers: list[int]) -> tuple[str, ...]:
        return tuple(os.path.basename(self._older(number)) for number in numbers)

    def _check_one(self, path: str, stack: ExitStack) -> None:
        if belongs_to(path, self._engine.real_path):
            raise InvalidOption(f"{path} belongs to the store itself; nothing was written")
        if not os.path.lexists(path):
            return
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise InvalidOption(f"{path} is there and is not a regular file; move it away, or choose another place")
        for sidecar in sidecars_of(path):
            raise InvalidOption(
                f"{path} is in use, or was not closed: {sidecar} lies next to it. Open and close it, or choose "
                "another place; nothing was written"
            )
        try:
            if stack.enter_context(exclusive_lock(path, self._engine.vfs, 0.0)) is False:
                raise Busy(f"a process has {path} open; close it there. Nothing was written")
            with reading(path, self._engine.vfs) as connection:
                ours = _is_of(connection, self._store_id)
        except (Busy, StoreForked):
            raise
        except StoreError as e:
            raise InvalidOption(f"{path} is there, and is no backup that can be read ({e})") from e
        if not ours:
            raise InvalidOption(f"{path} is a backup of another store; choose another place. Nothing was written")


def _is_of(connection: Connection, store_id: bytes) -> bool:
    """Return True if a file, also one of an older format, is of the store with *store_id*."""
    return metadata.read(connection, connection.value("PRAGMA user_version")).store_id == store_id
