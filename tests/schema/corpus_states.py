"""The consecutive schema states of the real migration folders, replayed file by file.

A folder that was not fetched gives no states: the caller compares with the fixed number of pairs.
"""

from __future__ import annotations

import json
import re
import sqlite3
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.schema import Schema, inspect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FOLDERS = (
    "promptfoo",
    "inkeep-agents-core",
    "alchemy",
    "astrotask-migrations-drizzle-sqlite",
    "actual-api",
    "sonicjs-core",
    "ai-devkit-memory",
    "chromadb-sysdb",
    "chromadb-metadb",
    "chromadb-embeddings_queue",
    "synapse-main",
    "synapse-common",
    "synapse-state",
    "prefect-alembic",
)


class Pair(NamedTuple):
    """Two states between which a step of a real folder changed the schema."""

    folder: str
    step: str
    old: Schema
    new: Schema


def pairs(corpus: Path, folder: str) -> Iterator[Pair]:
    """Yield each step that changed the schema as SQLite's text has it, the first state not counted."""
    before: tuple[Schema, list[str]] | None = None
    for step, schema, texts in states(corpus / folder):
        if before is not None and before[1] != texts:
            yield Pair(folder, step, before[0], schema)
        before = schema, texts


def states(folder: Path) -> Iterator[tuple[str, Schema, list[str]]]:
    """Yield (step, schema, texts) after each migration of a folder."""
    if (folder / "_states.json").exists():
        yield from _written_states(folder / "_states.json")
        return
    connection = sqlite3.connect(":memory:", isolation_level=None)
    if (folder / "_base.sqlite").exists():
        with sqlite3.connect(folder / "_base.sqlite") as base:
            base.backup(connection)
        base.close()
    first, steps = _files(folder)
    for file in first:
        _run(connection, file.read_text())
    if first:
        yield "full", inspect(connection), _texts(connection)
    for file in steps:
        _run(connection, file.read_text())
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
        versions = sorted(
            (f for f in (folder / "delta").iterdir() if int(f.name) > 72), key=lambda f: int(f.name)
        )
        return full, [file for version in versions for file in sorted(version.iterdir())]
    return (), sorted(folder.glob("*.sql"))


def _run(connection: sqlite3.Connection, sql: str) -> None:
    """Run a file up to its first failing statement: a few need a table of their application."""
    statement = ""
    for piece in re.split(r"(?<=;)", sql.replace("--> statement-breakpoint", "") + ";"):
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
