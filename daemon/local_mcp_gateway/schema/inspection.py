"""Read the schema of an open database with four queries and the stored CREATE statements.

PRAGMAs are the authority on columns, keys, indexes and foreign keys; what they omit comes from the text of
CREATE TABLE (create_table). It runs at every start and inside the guard's transaction, so it only reads,
and queries the whole schema at once instead of table by table.
"""

from __future__ import annotations

import re
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import lru_cache

from local_mcp_gateway.schema.create_table import TableClauses, read_index, read_part, read_table
from local_mcp_gateway.schema.double_quotes import in_single_quotes
from local_mcp_gateway.schema.model import Code, Column, ForeignKey, Key, Part, Schema, Sql, Table
from local_mcp_gateway.sql import NormalToken, fold, literal, normal, normal_tokens, unquote

Prepare = Callable[[sqlite3.Connection], None]
"""Registers the functions, collations and extensions that a schema uses."""

# In these SQLite, its services and other migration tools keep their own records: part of no schema.
_ENGINE_PREFIXES = ("sqlite_", "_litestream_", "libsql_")
_FOREIGN_PREFIXES = (*_ENGINE_PREFIXES, "_cf_", "__guard_")
_FOREIGN_TABLES = (
    "__diesel_schema_migrations",
    "__drizzle_migrations",
    "__efmigrationshistory",
    "__efmigrationslock",
    "__migrations__",
    "_prisma_migrations",
    "_sqlite_migrations",
    "_sqlx_migrations",
    "_yoyo_log",
    "_yoyo_migration",
    "_yoyo_version",
    "alembic_version",
    "ar_internal_metadata",
    "d1_migrations",
    "django_migrations",
    "flyway_schema_history",
    "goose_db_version",
    "gorp_migrations",
    "knex_migrations",
    "knex_migrations_lock",
    "refinery_schema_history",
    "schema_migrations",
    "sequelizemeta",
    "yoyo_lock",
)
_FOREIGN = re.compile(
    rf"(?:{'|'.join(_FOREIGN_PREFIXES)})|(?:{'|'.join(_FOREIGN_TABLES)})\Z", re.IGNORECASE
)
# A name that people use too: only with the columns of Laravel's, TypeORM's or node-sqlite's ledger.
_FOREIGN_IF_SHAPED = "migrations"
_FOREIGN_SHAPES = (
    {"id", "migration", "batch"},
    {"id", "timestamp", "name"},
    {"id", "name", "up", "down"},
)
_SHADOWS = {
    "fts3": ("_content", "_segments", "_segdir", "_docsize", "_stat"),
    "fts4": ("_content", "_segments", "_segdir", "_docsize", "_stat"),
    "fts5": ("_data", "_idx", "_content", "_docsize", "_config"),
    "rtree": ("_node", "_parent", "_rowid"),
    "rtree_i32": ("_node", "_parent", "_rowid"),
    "geopoly": ("_node", "_parent", "_rowid"),
    "spellfix1": ("_vocab",),
    "vec0": (
        "_chunks",
        "_rowids",
        "_info",
        "_auxiliary",
        *(
            f"_{kind}{number:02}"
            for kind in ("vector_chunks", "metadatachunks", "metadatatext")
            for number in range(16)
        ),
    ),
}
_TABLES = """FROM sqlite_schema AS m JOIN {pragma} AS p
    WHERE m.type = 'table' AND m.sql NOT LIKE 'CREATE VIRTUAL%' AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"""
_COLUMNS = (
    'SELECT m.name, p.name, p.type, p."notnull", p.dflt_value, p.pk, p.hidden '
    + _TABLES.format(pragma="pragma_table_xinfo(m.name)")
)
_INDEXES = (
    'SELECT m.name, p.name, p."unique", p.origin, x.cid, x.name, x.desc, x.coll, p.partial '
    + _TABLES.format(
        pragma="pragma_index_list(m.name) AS p JOIN pragma_index_xinfo(p.name)"
    ).replace("AS p\n", "AS x\n")
    + " AND x.key ORDER BY m.rowid, p.seq, x.seqno"
)
_FOREIGN_KEYS = (
    'SELECT m.name, p.id, p."table", p."from", p."to", p.on_update, p.on_delete '
    + _TABLES.format(pragma="pragma_foreign_key_list(m.name)")
    + " ORDER BY m.rowid, p.id DESC, p.seq"
)

Row = Sequence[object]


def is_engines(name: str) -> bool:
    """Return whether SQLite, its server or its replication keeps its own records in a table of this name."""
    return name.lower().startswith(_ENGINE_PREFIXES)


def is_users(name: str) -> bool:
    """Return whether an object of this name belongs to the user's schema, not to a tool's records."""
    return _FOREIGN.match(name) is None


def count_objects(connection: sqlite3.Connection) -> int:
    """Count what `inspect` would find, shadow tables included, without parsing any of it."""
    rows = connection.execute("SELECT name, tbl_name FROM sqlite_schema WHERE sql IS NOT NULL")
    named = [fold(table) for name, table in rows if is_users(name) and is_users(table)]
    return len(named) - named.count(_foreign_by_shape(connection) or "")


def open_memory(prepare: Prepare | None = None) -> sqlite3.Connection:
    """Open a database in memory to build a schema in; the caller closes it.

    `prepare` registers the functions, collations and extensions that the schema uses.
    """
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    if prepare is not None:
        prepare(connection)
    return connection


def inspect(connection: sqlite3.Connection) -> Schema:
    """Return the schema of an open database; consistent if the caller holds a read transaction."""
    objects = _objects(connection)
    columns = _by_table(connection.execute(_COLUMNS))
    keys = _by_table(connection.execute(_INDEXES))
    links = _by_table(connection.execute(_FOREIGN_KEYS))
    primary = {
        fold(name): tuple(fold(str(row[1])) for row in sorted(rows, key=_pk) if _pk(row))
        for name, rows in columns.items()
    }
    schema = Schema({}, {}, {}, {}, {})
    groups = {"view": schema.views, "trigger": schema.triggers, "virtual": schema.virtual_tables}
    for kind, name, table, sql in objects:
        key = fold(name)
        if kind == "table":
            clauses = read_table(sql)
            schema.tables[key] = _table(
                name, sql, clauses, columns[name], keys.get(name, ()), links.get(name, ()), primary
            )
        elif kind == "index":
            if fold(table) in schema.tables:
                owner = schema.tables[fold(table)]
                schema.indexes[key] = read_index(name, owner, sql, keys[table])
        else:
            read = in_single_quotes(connection, sql) if kind == "view" else sql
            groups[kind][key] = read_code(name, read, fold(table) if kind == "trigger" else None)
    return schema


def read_code(name: str, sql: str, table: str | None = None) -> Code:
    """Return a view, trigger or virtual table as a value; `table` is the key of a trigger's."""
    return Code(fold(name), name, Sql(normal(normal_tokens(sql)), sql), table)


def _objects(connection: sqlite3.Connection) -> list[tuple[str, str, str, str]]:
    """Return (kind, name, table, sql) of every user object; tables come before their indexes."""
    rows = [
        (kind, name, table, sql)
        for kind, name, table, sql in connection.execute(
            "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid"
        )
        if is_users(name) and is_users(table)
    ]
    foreign = _foreign_by_shape(connection)
    rows = [
        (
            "virtual" if kind == "table" and sql[:14].upper() == "CREATE VIRTUAL" else kind,
            name,
            table,
            sql,
        )
        for kind, name, table, sql in rows
        if fold(table) != foreign
    ]
    shadows = _shadows((name, sql) for kind, name, _, sql in rows if kind == "virtual")
    rows = [row for row in rows if row[0] == "virtual" or fold(row[2]) not in shadows]
    return sorted(rows, key=lambda row: row[0] == "index")


def _shadows(virtual: Iterable[tuple[str, str]]) -> frozenset[str]:
    return frozenset(
        fold(name + suffix) for name, sql in virtual for suffix in _SHADOWS.get(_module(sql), ())
    )


def _foreign_by_shape(connection: sqlite3.Connection) -> str | None:
    """Return the folded name of a table that is a tool's ledger by its name and its columns."""
    found = connection.execute(
        "SELECT lower(name) FROM pragma_table_info(?)", (_FOREIGN_IF_SHAPED,)
    )
    return _FOREIGN_IF_SHAPED if {name for (name,) in found} in _FOREIGN_SHAPES else None


def _module(sql: str) -> str:
    words = [token[1] for token in normal_tokens(sql)[:8]]
    return words[words.index("using") + 1] if "using" in words else ""


def _by_table(rows: Iterable[Row]) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        grouped[str(row[0])].append(row)
    return grouped


def _pk(row: Row) -> int:
    place = row[5]
    return place if isinstance(place, int) else 0


def _table(
    name: str,
    sql: str,
    clauses: TableClauses,
    columns: Sequence[Row],
    keys: Sequence[Row],
    links: Sequence[Row],
    primary: dict[str, tuple[str, ...]],
) -> Table:
    key = fold(name)
    own: dict[str, list[Part]] = {}
    origin: dict[str, object] = {}
    for row in keys:
        if row[3] != "c":
            own.setdefault(str(row[1]), []).append(read_part(row))
            origin[str(row[1])] = row[3]
    primary_key = _primary_key(clauses, primary[key], [own[at] for at in own if origin[at] == "pk"])
    rowid = primary_key.columns[0] if primary_key and primary_key.rowid else None
    return Table(
        key=key,
        name=name,
        columns={fold(str(row[1])): _column(row, clauses, rowid) for row in columns},
        primary_key=primary_key,
        uniques=frozenset(
            _unique(clauses, parts) for at, parts in own.items() if origin[at] == "u"
        ),
        checks=frozenset(clauses.checks),
        foreign_keys=frozenset(_foreign_keys(clauses, links, primary)),
        without_rowid=clauses.without_rowid,
        strict=clauses.strict,
        sql=sql,
    )


def _column(row: Row, clauses: TableClauses, rowid: str | None) -> Column:
    """Return one column; NOT NULL has no meaning for the rowid column."""
    _, name, declared, not_null, default, _, hidden = row
    key = fold(str(name))
    found = clauses.columns[key]
    return Column(
        key=key,
        name=str(name),
        type=_sql(str(declared)),
        not_null=bool(not_null) and key != rowid,
        default=None if default is None else read_default(str(default)),
        collation=found.collation,
        generated=found.generated,
        stored=hidden == 3,
        on_conflict=found.on_conflict,
        sql=found.sql,
    )


@lru_cache(maxsize=256)
def _sql(text: str) -> Sql:
    return Sql(normal(normal_tokens(text)), text)


@lru_cache(maxsize=512)
def constraints_of(sql: str) -> tuple[str, ...]:
    """Return the kinds of what a CREATE TABLE statement has besides columns and types, as SQL calls them."""
    with closing(open_memory()) as memory:
        try:
            memory.execute(sql)
        except sqlite3.Error:  # it calls a function of the application
            return ()
        table = next(iter(inspect(memory).tables.values()), None)
    if table is None:  # the records of another tool are not part of the schema
        return ()
    columns = [column for column in table.columns.values() if not table.is_rowid(column.key)]
    kinds = {
        "PRIMARY KEY": table.primary_key,
        "UNIQUE": table.uniques,
        "FOREIGN KEY": table.foreign_keys,
        "CHECK": table.checks,
        "NOT NULL": any(column.not_null for column in columns),
        "DEFAULT": any(column.default for column in columns),
    }
    return tuple(kind for kind, found in kinds.items() if found)


def read_default(text: str) -> Sql:
    """Return a default; SQLite reads a bare name as a string, unless it is one of six keywords."""
    tokens: list[NormalToken] = normal_tokens(text)
    if len(tokens) == 1:
        kind, word, _, _ = tokens[0]
        plain = kind == "word" and not (
            word.startswith("current_") or word in {"null", "true", "false"}
        )
        if plain or kind == "name":
            value = literal(unquote(text.strip()))
            return Sql(value, value)
    return Sql(normal(tokens), text)


def _primary_key(
    clauses: TableClauses, columns: tuple[str, ...], indexed: list[list[Part]]
) -> Key | None:
    clause = clauses.primary
    if clause is None:
        return None
    # Without an index behind it, it is the rowid; WITHOUT ROWID tables always have one.
    parts = (
        indexed[0]
        if indexed
        else [Part(Sql(column, column), False, "binary", True) for column in columns]
    )
    return Key(
        tuple(parts),
        clause.on_conflict,
        rowid=not indexed,
        autoincrement=clauses.autoincrement,
        name=clause.name,
    )


def _unique(clauses: TableClauses, parts: list[Part]) -> Key:
    columns = tuple(part.sql.normal for part in parts)
    clause = next((key for key in clauses.keys if key.columns == columns), None)
    return Key(
        tuple(parts),
        clause.on_conflict if clause else "abort",
        name=clause.name if clause else None,
    )


def _foreign_keys(
    clauses: TableClauses, rows: Sequence[Row], primary: dict[str, tuple[str, ...]]
) -> Iterable[ForeignKey]:
    """Yield the foreign keys; PRAGMA lists them backwards, so the rows come by falling id."""
    grouped: dict[object, list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row[1]].append(row)
    for (name, deferred), parts in zip(clauses.foreign_keys, grouped.values(), strict=True):
        _, _, parent, _, to, on_update, on_delete = parts[0]
        table = fold(str(parent))
        yield ForeignKey(
            columns=tuple(fold(str(row[3])) for row in parts),
            table=table,
            to=primary.get(table, ()) if to is None else tuple(fold(str(row[4])) for row in parts),
            on_update=str(on_update),
            on_delete=str(on_delete),
            deferred=deferred,
            name=name,
        )
