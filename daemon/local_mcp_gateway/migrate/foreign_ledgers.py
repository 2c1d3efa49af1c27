"""Read what another migration tool has recorded in a database, as migrations of this folder.

Each tool is a row of `_TOOLS`: its table, the columns by which that is known (two tools have one called
`schema_migrations`), and a query with a row for each record, in the order in which they were written:
version or name, what became of it, and the checksum of its file where the tool keeps one.

    done      applied           undone   reverted since
    failed    begun, never finished: the tool itself refuses to go on
    up to     applied, with all before it (golang-migrate, Alembic)
    baseline  the same, without a file of its own (Flyway)

A record is matched by the key that the tool itself uses. One that no file matches, or whose file has
changed since, contradicts the folder: then nothing is adopted.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256, sha384
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.errors import NotAdopted
from local_mcp_gateway.migrate.file_kinds import version_of

if TYPE_CHECKING:
    import sqlite3

    from local_mcp_gateway.migrate.folder import Migration

_OR_SAY_IT = " Or say where the database stands: `db adopt --to TAG`."


class ForeignLedger(NamedTuple):
    """What the ledger of another tool says."""

    tool: str
    table: str
    tags: frozenset[str]
    """The migrations of this folder that are applied."""
    records: int
    """How many rows it has; one without any may never have been used."""

    @property
    def name(self) -> str:
        """Return table and tool, for messages."""
        return f"{self.table} ({self.tool})"


_Key = tuple[int | str, ...]
"""What versions and names are compared by."""


class _Record(NamedTuple):
    """One row of a ledger."""

    key: str
    state: str
    checksum: str | int | None


def _name(text: str) -> _Key:
    """Return a file's name without its extensions."""
    return (re.sub(r"(\.up)?\.(sql|[cm]?[jt]s|py)\Z", "", text),)


def _diesel_version(text: str) -> _Key:
    return (text.partition("_")[0].replace("-", ""),)


def _flyway_checksum(data: bytes) -> int:
    """Return the CRC-32 of the lines without their ends, as a signed number."""
    lines = re.split(rb"\r\n|\n|\r", data.removeprefix(b"\xef\xbb\xbf"))
    found = zlib.crc32(b"".join(lines))
    return found - (1 << 32) if found >= 1 << 31 else found


class _Tool(NamedTuple):
    name: str
    table: str
    columns: str
    query: str
    key: Callable[[str], _Key | None] = version_of
    """The key of a record or a tag; None: there is no version."""
    checksum: Callable[[bytes], str | int] | None = None
    lock: tuple[str, str] = ("", "")
    """A table, and a query that finds a row in it while the tool works, or since it was killed."""
    by_revision: bool = False
    """Its records are the heads of a graph, which the files describe."""


_TOOLS = (
    _Tool(
        "golang-migrate",
        "schema_migrations",
        "version dirty",
        "SELECT version, iif(dirty, 'failed', 'up to'), NULL FROM schema_migrations WHERE version >= 0",
    ),
    _Tool(
        "dbmate",
        "schema_migrations",
        "version",
        "SELECT version, 'done', NULL FROM schema_migrations ORDER BY version",
    ),
    _Tool(
        "goose",
        "goose_db_version",
        "id version_id is_applied",
        "SELECT version_id, iif(is_applied, 'done', 'undone'), NULL FROM goose_db_version"
        " WHERE version_id > 0 ORDER BY id",
    ),
    _Tool(
        "sqlx",
        "_sqlx_migrations",
        "version success checksum",
        "SELECT version, iif(success, 'done', 'failed'), lower(hex(checksum)) FROM _sqlx_migrations"
        " ORDER BY version",
        checksum=lambda data: sha384(data).hexdigest(),
    ),
    _Tool(
        "Flyway",
        "flyway_schema_history",
        "installed_rank version type script checksum success",
        "SELECT coalesce(version, script), CASE WHEN NOT success THEN 'failed'"
        " WHEN type LIKE 'UNDO%' OR type = 'DELETE' THEN 'undone'"
        " WHEN type LIKE '%BASELINE' THEN 'baseline' ELSE 'done' END, iif(type = 'SQL', checksum, NULL)"
        " FROM flyway_schema_history WHERE version IS NOT NULL OR NOT success ORDER BY installed_rank",
        checksum=_flyway_checksum,
    ),
    _Tool(
        "Prisma",
        "_prisma_migrations",
        "migration_name checksum started_at finished_at rolled_back_at",
        "SELECT migration_name, iif(finished_at IS NULL, 'failed', 'done'), checksum"
        " FROM _prisma_migrations WHERE rolled_back_at IS NULL ORDER BY started_at",
        key=_name,
        checksum=lambda data: sha256(data).hexdigest(),
    ),
    _Tool(
        "Knex",
        "knex_migrations",
        "id name batch",
        "SELECT name, 'done', NULL FROM knex_migrations ORDER BY id",
        key=_name,
        lock=("knex_migrations_lock", "SELECT 1 FROM knex_migrations_lock WHERE is_locked"),
    ),
    _Tool(
        "D1",
        "d1_migrations",
        "id name applied_at",
        "SELECT name, 'done', NULL FROM d1_migrations ORDER BY id",
        key=_name,
    ),
    _Tool(
        "Diesel",
        "__diesel_schema_migrations",
        "version run_on",
        "SELECT version, 'done', NULL FROM __diesel_schema_migrations ORDER BY version",
        key=_diesel_version,
    ),
    _Tool(
        "Alembic",
        "alembic_version",
        "version_num",
        "SELECT version_num, 'up to', NULL FROM alembic_version",
        by_revision=True,
    ),
    _Tool(
        "sql-migrate",
        "gorp_migrations",
        "id",
        "SELECT id, 'done', NULL FROM gorp_migrations ORDER BY id",
        key=_name,
    ),
    _Tool(
        "refinery",
        "refinery_schema_history",
        "version name",
        "SELECT version, 'done', NULL FROM refinery_schema_history ORDER BY version",
    ),
    _Tool(
        "Sequelize",
        "SequelizeMeta",
        "name",
        "SELECT name, 'done', NULL FROM SequelizeMeta ORDER BY name",
        key=_name,
    ),
)


def read_foreign_ledger(
    connection: sqlite3.Connection, migrations: Sequence[Migration], *, trust_files: bool = False
) -> ForeignLedger | None:
    """Return what another tool's ledger says of these migrations; None if there is no ledger.

    Raises NotAdopted for a ledger that is unfinished or contradicts the folder, and for two that
    contradict each other. With `trust_files` a changed file counts as applied.
    """
    tables = _tables(connection)
    found: dict[str, ForeignLedger] = {}
    for tool in _TOOLS:
        there = set(tool.columns.split()) <= tables.get(tool.table.lower(), set())
        if there and tool.table not in found:  # the tool that keeps more in a table comes first
            found[tool.table] = _read(
                connection, tool, migrations, tables=tables, trust_files=trust_files
            )
    used = [ledger for ledger in found.values() if ledger.records]
    for other in used[1:]:
        if other.tags != used[0].tags:
            raise NotAdopted(
                f"{used[0].name} says that {len(used[0].tags)} of {len(migrations)} migrations are"
                f" applied, and {other.name} says {len(other.tags)}.",
                hint=f"Drop the table that is no longer used.{_OR_SAY_IT}",
            )
    return next(iter([*used, *found.values()]), None)


def _tables(connection: sqlite3.Connection) -> dict[str, set[str]]:
    """Return the columns of each table, all names in lower case."""
    tables: dict[str, set[str]] = {}
    for table, column in connection.execute(
        "SELECT lower(m.name), lower(c.name) FROM sqlite_schema AS m"
        " JOIN pragma_table_info(m.name) AS c WHERE m.type = 'table'"
    ):
        tables.setdefault(table, set()).add(column)
    return tables


def _read(
    connection: sqlite3.Connection,
    tool: _Tool,
    migrations: Sequence[Migration],
    *,
    tables: Iterable[str],
    trust_files: bool,
) -> ForeignLedger:
    rows = connection.execute(tool.query).fetchall()
    records = [_Record(str(key), state, checksum) for key, state, checksum in rows]
    failed = next((record.key for record in records if record.state == "failed"), None)
    said = f"{tool.table} ({tool.name})"
    if failed is not None:
        raise NotAdopted(
            f"{said} says that {failed} was begun and never finished.",
            hint=f"Repair that with {tool.name}, then adopt.{_OR_SAY_IT}",
        )
    table, query = tool.lock
    if table in tables and connection.execute(query).fetchone():
        raise NotAdopted(
            f"{table} says that {tool.name} is at work, or was killed.",
            hint=f"Let it end, or release its lock with {tool.name}.{_OR_SAY_IT}",
        )
    if tool.by_revision:
        tags = _up_to_revisions({record.key for record in records}, migrations, said)
    else:
        tags = _matched(tool, records, migrations, said, trust_files=trust_files)
    return ForeignLedger(tool.name, tool.table, frozenset(tags), len(records))


def _matched(
    tool: _Tool,
    records: Iterable[_Record],
    migrations: Sequence[Migration],
    said: str,
    *,
    trust_files: bool,
) -> set[str]:
    """Return the tags of the applied migrations."""
    last: dict[_Key | None, _Record] = {}
    for record in records:
        last.pop(tool.key(record.key), None)
        if record.state != "undone":
            last[tool.key(record.key)] = record
    by_key = {key: m for m in migrations if (key := tool.key(m.tag)) is not None}
    tags: set[str] = set()
    for key, record in last.items():
        found = (key and by_key.get(key)) or _renamed(tool, record, migrations)
        if found is None and (record.state != "baseline" or key is None):
            raise _no_file(said, record.key)
        if record.state in {"up to", "baseline"} and key is not None:
            tags |= {m.tag for at, m in by_key.items() if at <= key}
        if found is not None:
            tags.add(found.tag)
            if not trust_files and not _is_as_applied(tool, record, found):
                raise NotAdopted(
                    f"{found.name} is not what was applied: {said} has the checksum of another text.",
                    hint=f"Bring {found.name} back from version control; or take the files as they are"
                    " with `db adopt --trust-files`.",
                )
    return tags


def _no_file(said: str, key: str) -> NotAdopted:
    return NotAdopted(
        f"{said} says that {key} is applied, and no file of the folder is that migration.",
        hint=f"Bring its file back from version control.{_OR_SAY_IT}",
    )


def _renamed(tool: _Tool, record: _Record, migrations: Iterable[Migration]) -> Migration | None:
    """Return the file that the checksum says it is."""
    if record.checksum is None:
        return None
    return next((m for m in migrations if _is_as_applied(tool, record, m)), None)


def _is_as_applied(tool: _Tool, record: _Record, migration: Migration) -> bool:
    if tool.checksum is None or record.checksum is None:
        return True
    return any(tool.checksum(text.encode()) == record.checksum for text in migration.spellings)


# --- Alembic: a graph of revisions --------------------------------------------------------------

_STEP = re.compile(r"^--[ \t]*Running upgrade[ \t]*(.*?)[ \t]*-> *([^\s,]+)", re.MULTILINE)
_SETS = re.compile(
    r"(?:version_num *= *|INTO alembic_version *\(version_num\) *VALUES *\()'([^']+)'",
    re.IGNORECASE,
)


def _up_to_revisions(heads: set[str], migrations: Sequence[Migration], said: str) -> set[str]:
    """Return the files with the revisions that lead to these.

    `alembic upgrade --sql` writes a comment before each. A file without one has its revision in its
    text or its name, and comes after the file before it.
    """
    made: dict[str, str] = {}
    parents: dict[str, list[str]] = {}
    last: list[str] = []
    for migration in migrations:
        steps = [(re.findall(r"[^\s,]+", old), new) for old, new in _STEP.findall(migration.sql)]
        if not steps:
            named = heads.intersection(re.split(r"[\W_]", migration.tag))
            revision = next(iter([*_SETS.findall(migration.sql)[-1:], *named, migration.tag]))
            steps = [(last, revision)]
        for old, new in steps:
            made[new], parents[new] = migration.tag, old
        last = [steps[-1][1]]
    reached: set[str] = set()
    left = sorted(heads)
    while left:
        revision = left.pop()
        if revision not in made:
            raise _no_file(said, revision)
        if revision not in reached:
            reached.add(revision)
            left += parents[revision]
    tags = {made[revision] for revision in reached}
    for revision, tag in made.items():
        if tag in tags and revision not in reached:
            raise NotAdopted(
                f"{said} stands in the middle of {tag}: {revision} is not applied.",
                hint=f"Bring the database to the end of that file with Alembic.{_OR_SAY_IT}",
            )
    return tags
