"""What `--schema`, `--from` and `--to` take: anything that a schema can be read from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import SchemaProblem, UsageProblem

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_mcp_gateway.cli.context import Invocation
    from local_mcp_gateway.database.connections import Connection
    from local_mcp_gateway.schema import Schema

DEFAULT_SCHEMA = "local_mcp_gateway.store.tables"
WORDS = "`database`, `migrations`, `schema`"


def prepare(invocation: Invocation) -> Callable[[Connection], None]:
    """Return what registers the SQL functions that migrations may call (`[migrations.functions]`)."""
    from local_mcp_gateway.migrate import functions  # noqa: PLC0415  --help does not pay for it

    named = invocation.settings.migrations.functions
    return lambda connection: functions.prepare(connection, named)


def load_schema(invocation: Invocation, text: str) -> Schema:
    """Return the schema of a source: a word, FOLDER@TAG, a file of any kind, or a dotted module.

    Raises SchemaProblem, UsageProblem, or what opening a database or folder raises.
    """
    if text == "database":
        return _database(invocation.database)
    if text == "migrations":
        return _folder(invocation, invocation.migrations, None)
    if text == "schema":
        return load_schema(invocation, DEFAULT_SCHEMA)
    name, at, tag = text.rpartition("@")
    if at and Path(name).is_dir():
        return _folder(invocation, Path(name), tag)
    if at and name == "migrations":
        return _folder(invocation, invocation.migrations, tag)
    path = Path(text)
    if path.is_dir():
        if (path / "meta" / "_journal.json").exists() or any(path.glob("*/migration.sql")):
            return _folder(invocation, path, None)
        return _sql(path)
    if path.is_file():
        return _file(path)
    if path.suffix in {".db", ".sqlite", ".sqlite3", ".sql", ".json", ".py"} or "/" in text:
        raise UsageProblem(
            f"There is no file {text}.",
            hint=f"Give a database, .sql, .py or snapshot file, FOLDER@TAG, a module, or {WORDS}.",
        )
    from local_mcp_gateway.schema.source import read_module  # noqa: PLC0415  may import SQLAlchemy

    return read_module(text)


def load_both(invocation: Invocation, old: str, new: str) -> tuple[Schema, Schema]:
    """Return two schemas to compare.

    Beside a snapshot, the other side is seen through one too: Drizzle's format has no word for STRICT,
    triggers or full-text tables, and what it cannot say is no difference.
    """
    from local_mcp_gateway.schema.drizzle import as_snapshots_see  # noqa: PLC0415  --help is fast

    before, after = load_schema(invocation, old), load_schema(invocation, new)
    snapshots = [Path(text).suffix == ".json" and Path(text).is_file() for text in (old, new)]
    if snapshots == [True, False]:
        return before, as_snapshots_see(after)
    if snapshots == [False, True]:
        return as_snapshots_see(before), after
    return before, after


def _file(path: Path) -> Schema:
    with path.open("rb") as handle:
        head = handle.read(16)
    if head == b"SQLite format 3\0":
        return _database(path)
    if path.suffix == ".py":
        from local_mcp_gateway.schema.source import read_module  # noqa: PLC0415  imports SQLAlchemy

        return read_module(str(path))
    if path.suffix == ".json":
        return _snapshot(path)
    if path.suffix == ".sql":
        return _sql(path)
    if not head:  # an empty file is an empty database
        return _database(path)
    raise SchemaProblem(
        f"{path} is no database, .sql file, Python module or snapshot.", hint="Give one of these."
    )


def _sql(path: Path) -> Schema:
    from local_mcp_gateway.schema.source import read_sql  # noqa: PLC0415

    return read_sql(path)


def _snapshot(path: Path) -> Schema:
    from local_mcp_gateway.schema.drizzle import read_snapshot  # noqa: PLC0415

    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise SchemaProblem(
            f"{path} is no JSON: {error}.", hint="Give a snapshot of Drizzle's."
        ) from None
    return read_snapshot(found if isinstance(found, dict) else {}, str(path))


def _database(path: Path) -> Schema:
    from local_mcp_gateway.database.connections import reading  # noqa: PLC0415
    from local_mcp_gateway.schema import Schema, inspect  # noqa: PLC0415

    if not path.exists() or path.stat().st_size == 0:
        return Schema()
    with reading(path) as connection:
        return inspect(connection)


def _folder(invocation: Invocation, path: Path, tag: str | None) -> Schema:
    from local_mcp_gateway.errors import HistoryRefused  # noqa: PLC0415
    from local_mcp_gateway.migrate.folder import read_folder  # noqa: PLC0415
    from local_mcp_gateway.migrate.generate import schema_of  # noqa: PLC0415

    folder = read_folder(path)
    if folder.problems:
        raise HistoryRefused(folder.problems)
    if tag is not None and tag not in {migration.tag for migration in folder.migrations}:
        raise UsageProblem(
            f"There is no migration `{tag}` in {path}.", hint="`db status` lists the tags."
        )
    return schema_of(folder, to=tag, prepare=prepare(invocation))
