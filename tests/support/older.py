"""A file of an older format, made of one that the package made: the same content in the tables of that format."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from tests import MIGRATIONS

if TYPE_CHECKING:
    from pathlib import Path

_AUDITED_SINCE = 2
"""The format that brought the audit trail and the marker."""


def make_older(path: Path, version: int) -> None:
    """Bring a closed store back to the format *version*, if its audit trail has migrations alone."""
    older = path.with_name("older")
    with closing(sqlite3.connect(older, isolation_level=None)) as db:
        db.execute("ATTACH ? AS newer", (str(path),))
        [(migrations,)] = db.execute("SELECT sql FROM newer.sqlite_schema WHERE name = 'schema_migrations'")
        for script in (migrations, *(file.read_text("utf-8") for file in MIGRATIONS[:version])):
            db.executescript(script)
        db.execute("DELETE FROM meta")
        later = dict.fromkeys(("schema_migrations", "audit"), f"number > {version}")
        if version < _AUDITED_SINCE:
            later["meta"] = "name = 'marker'"
        for (table,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            columns = ", ".join(row[1] for row in db.execute(f"PRAGMA main.table_info({table})"))
            db.execute(f"INSERT INTO {table} SELECT {columns} FROM newer.{table} WHERE NOT ({later.get(table, '0')})")
        db.execute("UPDATE meta SET value = ? WHERE name = 'format'", (version,))
        [(journal,)] = db.execute("PRAGMA newer.journal_mode")
        [(application_id,)] = db.execute("PRAGMA newer.application_id")
        db.execute(f"PRAGMA main.application_id = {application_id}")
        db.execute(f"PRAGMA main.user_version = {version}")
        db.execute("DETACH newer")
        db.execute(f"PRAGMA journal_mode = {journal}")
    shutil.copymode(path, older)
    os.replace(older, path)
