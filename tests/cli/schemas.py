"""A schema in a file, and `db generate` on it: what tests of schemas by the command line share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.harness import Finished, Place

SERVERS = "CREATE TABLE mcp_servers (\n  id TEXT PRIMARY KEY NOT NULL,\n  name TEXT NOT NULL\n);\n"
DESCRIBED = SERVERS.replace("NOT NULL\n)", "NOT NULL,\n  description TEXT\n)")
Validate = Callable[[str, Any], None]


def schema(place: Place, sql: str) -> Path:
    file = place.root / "schema.sql"
    file.write_text(sql)
    return file


def generate(place: Place, sql: str, *options: str) -> Finished:
    return place.run("db", "generate", "--schema", schema(place, sql), *options)


def files(place: Place) -> dict[str, str]:
    """Return the text of each file of the migrations folder."""
    folder = place.folder.path
    return {
        str(f.relative_to(folder)): f.read_text() for f in sorted(folder.rglob("*")) if f.is_file()
    }
