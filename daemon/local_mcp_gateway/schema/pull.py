"""Write a schema as a source for `db generate`: a .sql file, or a module with SQLAlchemy MetaData.

Each is read back before it counts, and has to be the same schema. SQLAlchemy cannot express every table
(an INTEGER PRIMARY KEY DESC, a UNIQUE with its own collation): those are SQL in the module.
"""

from __future__ import annotations

import re
from keyword import iskeyword
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import SchemaProblem
from local_mcp_gateway.schema.comparison import compare
from local_mcp_gateway.schema.ddl import create, create_table
from local_mcp_gateway.schema.diff import words
from local_mcp_gateway.schema.drizzle import default_as_written, parts_as_written
from local_mcp_gateway.schema.plan import creating
from local_mcp_gateway.schema.source import read_module, read_sql
from local_mcp_gateway.sql import fold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from local_mcp_gateway.schema.inspection import Prepare
    from local_mcp_gateway.schema.model import Column, ForeignKey, Index, Key, Schema, Table

_TYPES = {
    "BIGINT": "BigInteger",
    "BLOB": "LargeBinary",
    "BOOLEAN": "Boolean",
    "DATE": "Date",
    "DATETIME": "DateTime",
    "FLOAT": "Float",
    "INTEGER": "Integer",
    "JSON": "JSON",
    "NUMERIC": "Numeric",
    "REAL": "REAL",
    "SMALLINT": "SmallInteger",
    "TEXT": "Text",
    "TIMESTAMP": "TIMESTAMP",
}
_VARCHAR = re.compile(r"VARCHAR ?\((\d+)\)", re.IGNORECASE)
_BIND = re.compile(r"(?<=\\):|(?<![:\w\\]):(?=\w)")
"""A colon that SQLAlchemy's `text` would take for the beginning of a parameter, or for an escaped one."""
_IMPORTED = (
    *_TYPES.values(),
    *("CheckConstraint", "Column", "Computed", "DDL", "ForeignKeyConstraint", "Index", "MetaData"),
    *("PrimaryKeyConstraint", "String", "Table", "UniqueConstraint", "event", "text"),
)
_DECLARED = '''

class Declared(UserDefinedType[Any]):
    """A type by the text that SQLite keeps."""

    cache_ok = True

    def __init__(self, declared: str) -> None:
        """Declare a type."""
        self.declared = declared

    def get_col_spec(self, **_: Any) -> str:
        """Return the text."""
        return self.declared
'''


def pull_sql(schema: Schema, *, prepare: Prepare | None = None) -> str:
    """Return the schema as the text of a .sql file; raises SchemaProblem if it cannot be read back."""
    text = "\n".join(f"{statement};\n" for statement in creating(schema))
    _require_same(schema, text, "schema.sql", read_sql, prepare)
    return text


def pull_module(schema: Schema, *, prepare: Prepare | None = None) -> str:
    """Return the schema as the text of a Python module; raises SchemaProblem if it cannot be read back.

    The module is run, in memory, to find the tables that SQLAlchemy cannot express.
    """
    as_sql = _with_children(schema, set(_unreadable(schema)))
    while not as_sql >= schema.tables.keys():
        text = _module(schema, as_sql)
        try:
            wrong = _wrong_tables(schema, text, prepare)
        except SchemaProblem as error:
            wrong = (words(error.message) & schema.tables.keys()) - as_sql
            if not wrong:
                raise
        if not wrong - as_sql:
            return text
        as_sql = _with_children(schema, as_sql | wrong)
    raise NotExpressible(
        "SQLAlchemy can express none of the tables.", hint="Write a .sql file instead."
    )


class NotExpressible(SchemaProblem):
    """No table of the schema can be a table of SQLAlchemy."""


def _require_same(
    schema: Schema,
    text: str,
    name: str,
    read: Callable[..., Schema],
    prepare: Prepare | None,
) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder, name)
        file.write_text(text, encoding="utf-8")
        if text and (differences := compare(schema, read(file, prepare=prepare))):
            raise SchemaProblem(f"The schema cannot be read back: {differences[0]}.")


def _wrong_tables(schema: Schema, text: str, prepare: Prepare | None) -> set[str]:
    """Return the tables that the module does not make as they are."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "pulled.py")
        file.write_text(text, encoding="utf-8")
        found = read_module(str(file), prepare=prepare)
    wrong = {
        key
        for key, table in schema.tables.items()
        if found.tables.get(key) != table
        or set(schema.indexes_of(key)) != set(found.indexes_of(key))
    }
    if not wrong and (differences := compare(schema, found)):
        raise SchemaProblem(f"The schema cannot be read back: {differences[0]}.")
    return wrong


def _unreadable(schema: Schema) -> Iterator[str]:
    """Yield the tables with a foreign key to what is not there, which SQLAlchemy does not accept."""
    for table in schema.tables.values():
        for link in table.foreign_keys:
            parent = schema.tables.get(link.table)
            if (
                parent is None
                or len(link.to) != len(link.columns)
                or set(link.to) - set(parent.columns)
            ):
                yield table.key


def _with_children(schema: Schema, tables: set[str]) -> set[str]:
    """Return these tables and those that refer to them: a foreign key needs its parent in the MetaData."""
    found = set(tables)
    while more := {
        table.key
        for table in schema.tables.values()
        if table.key not in found and any(link.table in found for link in table.foreign_keys)
    }:
        found |= more
    return found


def _module(schema: Schema, as_sql: set[str]) -> str:
    variables = _variables(schema)
    parts = [
        _table(schema, table, variables[table.key])
        for table in schema.tables.values()
        if table.key not in as_sql
    ]
    before = [create_table(schema.tables[key]) for key in schema.tables if key in as_sql]
    before += [create(index) for index in schema.indexes.values() if index.table in as_sql]
    code = (*schema.virtual_tables.values(), *schema.views.values(), *schema.triggers.values())
    parts += _listeners("before_create", before)
    parts += _listeners("after_create", [create(one) for one in code])
    body = "\n\n".join(parts)
    declared = "Declared(" in body
    used = {name for name in _IMPORTED if re.search(rf"\b{name}\b", f"{body} MetaData")}
    lines = [
        '"""The schema of the database, as it was pulled."""',
        "",
        "from __future__ import annotations",
        "",
    ]
    lines += ["from typing import Any", ""] if declared else []
    lines += [
        "from sqlalchemy import (",
        *(f"    {name}," for name in sorted(used, key=_as_isort)),
        ")",
    ]
    lines += ["from sqlalchemy.types import UserDefinedType"] if declared else []
    head = "\n".join(lines) + "\n\nmetadata = MetaData()\n"
    return f"{head}{_DECLARED}\n\n{body}\n" if declared else f"{head}\n{body}\n"


def _as_isort(name: str) -> tuple[bool, bool, str]:
    return (not name.isupper(), name.islower(), name)


def _listeners(moment: str, statements: Iterable[str]) -> Iterator[str]:
    for statement in statements:
        yield f'event.listen(metadata, "{moment}", DDL({_quoted(statement.replace("%", "%%"))}))'


def _table(schema: Schema, table: Table, variable: str) -> str:
    lines = [_quoted(table.name), "metadata"]
    lines += [_column(table, column) for column in table.columns.values()]
    lines += _keys(table)
    for link in sorted(table.foreign_keys, key=lambda link: (link.columns, link.table)):
        lines.append(_foreign_key(schema, table, link))
    for check in sorted(table.checks, key=lambda check: check.expression.normal):
        lines.append(
            _call("CheckConstraint", _quoted(_plain(check.expression.text)), name=check.name)
        )
    lines += [_index(table, index) for index in schema.indexes_of(table.key)]
    if table.primary_key is not None and table.primary_key.autoincrement:
        lines.append("sqlite_autoincrement=True")
    lines += ["sqlite_with_rowid=False"] if table.without_rowid else []
    lines += ["sqlite_strict=True"] if table.strict else []
    body = "\n".join(f"    {line}," for line in lines)
    return f"{variable} = Table(\n{body}\n)"


def _variables(schema: Schema) -> dict[str, str]:
    """Return a Python name for each table, by its key."""
    found: dict[str, str] = {}
    taken = {*_IMPORTED, "Any", "Declared", "metadata"}
    for table in schema.tables.values():
        name = re.sub(r"\W", "_", table.name)
        name = name if name.isidentifier() and not iskeyword(name) else f"table_{name}"
        while name in taken:
            name += "_"
        taken.add(name)
        found[table.key] = name
    return found


def _column(table: Table, column: Column) -> str:
    words_ = [_quoted(column.name), _type(column)]
    if column.generated is not None:
        words_.append(
            f"Computed({_quoted(_plain(column.generated.text))}, persisted={column.stored})"
        )
    key = table.primary_key
    if key is not None and key.columns == (column.key,) and _is_plain(key):
        words_.append("primary_key=True")
    if not table.is_rowid(column.key):
        words_.append(f"nullable={not column.not_null}")
    if column.default is not None:
        default = _plain(default_as_written(column.default.text))
        words_.append(f"server_default=text({_quoted(default)})")
    if column.on_conflict != "abort":
        words_.append(f"sqlite_on_conflict_not_null={_quoted(column.on_conflict.upper())}")
    return f"Column({', '.join(words_)})"


def _type(column: Column) -> str:
    declared = column.type.text
    if column.collation != "binary":
        with_collation = f"{declared} COLLATE {column.collation.upper()}".strip()
        return f"Declared({_quoted(with_collation)})"
    if declared in _TYPES:
        return _TYPES[declared]
    varchar = _VARCHAR.fullmatch(declared)
    return f"String({varchar[1]})" if varchar else f"Declared({_quoted(declared)})"


def _is_plain(key: Key) -> bool:
    return key.name is None and key.on_conflict == "abort"


def _keys(table: Table) -> Iterator[str]:
    key = table.primary_key
    if key is not None and not (len(key.parts) == 1 and _is_plain(key)):
        yield _key("PrimaryKeyConstraint", table, key)
    for unique in sorted(table.uniques, key=lambda unique: unique.columns):
        yield _key("UniqueConstraint", table, unique)


def _key(kind: str, table: Table, key: Key) -> str:
    conflict = None if key.on_conflict == "abort" else key.on_conflict.upper()
    names = [_quoted(table.columns[column].name) for column in key.columns]
    return _call(kind, *names, name=key.name, sqlite_on_conflict=conflict)


def _foreign_key(schema: Schema, table: Table, link: ForeignKey) -> str:
    parent = schema.tables[link.table]
    columns = [table.columns[column].name for column in link.columns]
    to = [f"{parent.name}.{parent.columns[column].name}" for column in link.to]
    return _call(
        "ForeignKeyConstraint",
        _list(columns),
        _list(to),
        name=link.name,
        onupdate=None if link.on_update == "NO ACTION" else link.on_update,
        ondelete=None if link.on_delete == "NO ACTION" else link.on_delete,
        deferrable=True if link.deferred else None,
        initially="DEFERRED" if link.deferred else None,
    )


def _index(table: Table, index: Index) -> str:
    parts = [
        _quoted(table.columns[fold(text)].name)
        if bare and fold(text) in table.columns
        else f"text({_quoted(_plain(text))})"
        for text, bare in parts_as_written(index)
    ]
    where = (
        "" if index.where is None else f", sqlite_where=text({_quoted(_plain(index.where.text))})"
    )
    unique = ", unique=True" if index.unique else ""
    return f"Index({', '.join([_quoted(index.name), *parts])}{unique}{where})"


def _call(what: str, /, *arguments: str, **options: object) -> str:
    named = [
        f"{key}={_quoted(value) if isinstance(value, str) else value}"
        for key, value in options.items()
        if value is not None
    ]
    return f"{what}({', '.join([*arguments, *named])})"


def _plain(sql: str) -> str:
    """Return SQL for `text`, in which a colon before a word would be a parameter."""
    return _BIND.sub(r"\\:", sql)


def _quoted(text: str) -> str:
    """Return a Python string; several lines stay several lines where they can."""
    readable = text.replace("\n", "").replace("\t", "").isprintable()
    if "\n" in text and readable and "\\" not in text and '"""' not in text and text[-1] != '"':
        return f'"""{text}"""'
    plain = repr(text)
    return f'"{text}"' if plain == f"'{text}'" and '"' not in text else plain


def _list(names: Iterable[str]) -> str:
    return f"[{', '.join(map(_quoted, names))}]"
