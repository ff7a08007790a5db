"""The tests: what a user relies on, and the judge that every store is shown to when its test ends."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
"""The root of the project."""

MIGRATIONS: Final = tuple(sorted((ROOT / "migrations").glob("*.sql")))
"""The files that make a store's tables, by number. The trail of a new store begins with an entry for each."""
