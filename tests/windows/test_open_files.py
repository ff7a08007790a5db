"""Windows lets nobody take away a file that SQLite has open, so what other systems' stores must notice cannot happen.

It is why tests/windows/skipped.py lists those tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sqlstate.files import system
from tests.sqlite import test_main_file as ways
from tests.support.images import folder_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import OpenStore

pytestmark = pytest.mark.skipif(not system.PINS_OPEN_FILES, reason="this system lets open files be taken away")


@pytest.mark.parametrize("journal", ways.JOURNALS)
@pytest.mark.parametrize("how", ways.WAYS)
def test_nobody_takes_the_file_of_an_open_store_away(
    path: Path, open_store: OpenStore, journal: str, how: Callable[[Path], None]
) -> None:
    home = path.parent / "home"
    home.mkdir()
    store = open_store(home / "test.db", journal=journal)
    store["c"].update({"k": 1, "there": 1})
    with pytest.raises(PermissionError):
        how(store.path)
    for write in ways.WRITES:
        write(store)
    assert store["c"]["k"] == "late"


def test_nobody_removes_the_wal_of_an_open_store(path: Path, open_store: OpenStore) -> None:
    store = open_store()
    store["c"]["k"] = 1
    with pytest.raises(PermissionError):
        path.with_name(f"{path.name}-wal").unlink()
    store["c"]["k"] = 2
    store.close()
    assert set(folder_image(path.parent)) == {path.name}
