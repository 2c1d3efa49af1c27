"""The consecutive schema states of the real migration folders, replayed file by file."""

from __future__ import annotations

import json
import re
import sqlite3
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.schema import Schema, inspect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

CHANGING = {
    "promptfoo": 24,
    "inkeep-agents-core": 10,
    "alchemy": 1,
    "actual-api": 43,
    "sonicjs-core": 17,
    "ai-devkit-memory": 1,
    "chromadb-sysdb": 8,
    "chromadb-metadb": 4,
    "chromadb-embeddings_queue": 1,
    "synapse-main": 58,
    "synapse-state": 1,
    "prefect-alembic": 105,
}
"""The fixed denominator: the steps of each folder that change the schema, the first not counted."""
LAST_OF_PREFECT = "a3b9c7d2e5f1"
"""The last revision that is counted, the 113th: two later ones are in the same package."""
COUNTED = f"real schema changes ({sum(CHANGING.values())} in all)"
"""The line under a test run that says how many of them pass which oracle."""


class Pair(NamedTuple):
    """Two states between which a step of a real folder changed the schema."""

    folder: str
    step: str
    old: Schema
    new: Schema


def pairs(folder: Path) -> Iterator[Pair]:
    """Yield each step that changed the schema as SQLite's text has it."""
    before: tuple[Schema, list[str]] | None = None
    for step, schema, texts in states(folder):
        if before is not None and before[1] != texts:
            yield Pair(folder.name, step, before[0], schema)
        before = schema, texts


def states(folder: Path) -> Iterator[tuple[str, Schema, list[str]]]:
    """Yield (step, schema, texts) after each migration of a folder."""
    if (folder / "_states.json").exists():
        yield from _written_states(folder / "_states.json")
        return
    connection = sqlite3.connect(":memory:", isolation_level=None)
    if (folder / "_base.sqlite").exists():
        base = sqlite3.connect(folder / "_base.sqlite")
        base.backup(connection)
        base.close()
    first, steps = _files(folder)
    for file in first:
        _run(connection, file)
    for file in steps:
        _run(connection, file)
        yield file.stem, inspect(connection), _texts(connection)
    connection.close()


def _written_states(file: Path) -> Iterator[tuple[str, Schema, list[str]]]:
    order = {"table": 0, "index": 1, "view": 2, "trigger": 3}
    for step, objects in json.loads(file.read_text()).items():
        connection = sqlite3.connect(":memory:", isolation_level=None)
        for _, _, sql in sorted(objects, key=lambda row: order[row[0]]):
            connection.execute(sql)
        yield step, inspect(connection), sorted(row[2] for row in objects)
        connection.close()
        if step == LAST_OF_PREFECT:
            break


def _files(folder: Path) -> tuple[Sequence[Path], Sequence[Path]]:
    """Return the files that make the first state, and the steps, in order."""
    if (folder / "meta" / "_journal.json").exists():
        journal = json.loads((folder / "meta" / "_journal.json").read_text())
        return (), [folder / f"{entry['tag']}.sql" for entry in journal["entries"]]
    if (folder / "delta").exists():
        full = sorted((folder / "full_schemas").glob("72/*"))
        if (
            folder.name == "synapse-main"
        ):  # its steps also write to the tables that every part shares
            full = [*sorted((folder.parent / "synapse-common" / "full_schemas").glob("*/*")), *full]
        later = [version for version in (folder / "delta").iterdir() if int(version.name) > 72]
        later.sort(key=lambda version: int(version.name))
        return full, [file for version in later for file in sorted(version.iterdir())]
    return (), sorted(folder.glob("*.sql"))


def _run(connection: sqlite3.Connection, file: Path) -> None:
    """Run a file up to its first failing statement: a few need a table of their application."""
    sql = file.read_text().replace("--> statement-breakpoint", "")
    sql = sql.replace("$%AUTO_INCREMENT_PRIMARY_KEY%$", "INTEGER PRIMARY KEY AUTOINCREMENT")
    statement = ""
    for piece in re.split(r"(?<=;)", sql + ";"):
        statement += piece
        if not sqlite3.complete_statement(statement):
            continue
        try:
            if not re.match(r"\s*(BEGIN|COMMIT)\b", statement, re.IGNORECASE):
                connection.execute(statement)
        except sqlite3.Error:
            return
        statement = ""


def _texts(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
        "AND name <> '__drizzle_migrations'"
    )
    return sorted(re.sub(r"\s+", " ", sql).strip() for (sql,) in rows)
