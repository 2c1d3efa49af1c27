"""Write DDL statements: create, rebuild and column definitions, as a careful person would type them.

Whole objects keep the wording of the schema they come from; only new text (an added column, a temporary
name, a copy) is written here. Statements come without a semicolon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_mcp_gateway.sql import literal, normal_tokens, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from local_mcp_gateway.schema.model import Check, Code, Column, ForeignKey, Index, Table


def create_table(table: Table, name: str | None = None) -> str:
    """Return the CREATE TABLE as written, optionally under another name.

    `sqlite_schema` always begins with CREATE TABLE and the name. A CHECK may qualify a column with the
    table's own name, which must change too.
    """
    tokens = normal_tokens(table.sql)
    new = quote(name or table.name)
    text, last = f"CREATE TABLE {new} ", tokens[2][3]
    body = table.sql[last:]
    if name is not None:
        mark = quote(table.key)
        own = [
            (start - last, end - last)
            for at, (_, word, start, end) in enumerate(tokens[3:-1], 3)
            if word == mark and tokens[at + 1][1] == "."
        ]
        for start, end in reversed(own):
            body = body[:start] + new + body[end:]
    return tidy(text + body.lstrip())


def create(thing: Index | Code) -> str:
    """Return the CREATE statement of an index, view, trigger or virtual table as written."""
    return tidy(thing.sql)


def tidy(sql: str) -> str:
    """Strip trailing spaces and common indentation, but not inside a string."""
    if "\n" not in sql or any(
        kind in {"string", "name"} and "\n" in text for kind, text, _, _ in normal_tokens(sql)
    ):
        return sql.strip()
    lines = [line.rstrip() for line in sql.strip().splitlines()]
    indents = [len(line) - len(line.lstrip()) for line in lines[1:] if line]
    closing = len(lines[-1]) - len(lines[-1].lstrip())
    shift = (
        closing if lines[-1].lstrip().startswith(")") and min(indents, default=0) >= closing else 0
    )
    return "\n".join([lines[0], *(line[shift:] for line in lines[1:])])


def column_definition(
    column: Column,
    checks: Iterable[Check] = (),
    link: ForeignKey | None = None,
    *,
    parent: str = "",
) -> str:
    """Return a column for ALTER TABLE ADD COLUMN with its own constraints."""
    words = [quote(column.name)]
    if column.type.text:
        words.append(column.type.text)
    if column.collation != "binary":
        words.append(f"COLLATE {quote(column.collation.upper())}")
    if column.not_null:
        words.append("NOT NULL")
        if column.on_conflict != "abort":
            words.append(f"ON CONFLICT {column.on_conflict.upper()}")
    if column.default is not None:
        words.append(f"DEFAULT {_default(column.default.text)}")
    if column.generated is not None:
        kind = "STORED" if column.stored else "VIRTUAL"
        words.append(f"GENERATED ALWAYS AS ({column.generated.text}) {kind}")
    for check in checks:
        name = f"CONSTRAINT {quote(check.name)} " if check.name else ""
        words.append(f"{name}CHECK ({check.expression.text})")
    if link is not None:
        name = f"CONSTRAINT {quote(link.name)} " if link.name else ""
        words.append(name + references(link, parent))
    return " ".join(words)


def is_constant(default: str) -> bool:
    """Tell whether a default is a literal, so that ADD COLUMN can give it to existing rows."""
    tokens = normal_tokens(default)
    if len(tokens) == 2 and tokens[0][1] in {"+", "-"}:
        tokens = tokens[1:]
    if len(tokens) != 1:
        return False
    kind, text, _, _ = tokens[0]
    return kind != "word" or not text.startswith("current_")


def _default(text: str) -> str:
    """Return a default for a definition: an expression needs parentheses."""
    return text if is_constant(text) or text.upper().startswith("CURRENT_") else f"({text})"


def references(link: ForeignKey, parent: str = "") -> str:
    """Return the REFERENCES clause of a foreign key."""
    words = [f"REFERENCES {quote(parent or link.table)}"]
    if link.to:
        words[0] += f"({', '.join(map(quote, link.to))})"
    if link.on_update != "NO ACTION":
        words.append(f"ON UPDATE {link.on_update}")
    if link.on_delete != "NO ACTION":
        words.append(f"ON DELETE {link.on_delete}")
    if link.deferred:
        words.append("DEFERRABLE INITIALLY DEFERRED")
    return " ".join(words)


def rebuild(
    old: Table,
    new: Table,
    temporary: str,
    values: Mapping[str, str],
    *,
    rowid: tuple[str, str] | None,
) -> list[str]:
    """Return the statements that rebuild a table: SQLite "ALTER TABLE" §7, steps 4 to 7.

    `values` is column key → the expression that fills it; the others get their default. `rowid` is the
    name of the new table's rowid and what fills it, unless a column is the rowid. The sequence of an
    AUTOINCREMENT table is copied too, so that deleted row ids are not reused. A row that the new table
    rejects is an error, whatever its ON CONFLICT clauses say.
    """
    names = [quote(new.columns[key].name) for key in values]
    sources = list(values.values())
    if rowid is not None:
        names.insert(0, rowid[0])
        sources.insert(0, rowid[1])
    statements = [create_table(new, temporary)]
    if _autoincrement(old) and _autoincrement(new):
        statements.append(
            f"INSERT INTO sqlite_sequence (name, seq) SELECT {literal(temporary)}, seq "
            f"FROM sqlite_sequence WHERE name = {literal(old.name)}"
        )
    insert = "INSERT OR ABORT INTO" if _resolves_conflicts(new) else "INSERT INTO"
    statements.append(
        f"{insert} {quote(temporary)} ({', '.join(names)}) "
        f"SELECT {', '.join(sources)} FROM {quote(old.name)}"
    )
    statements.append(f"DROP TABLE {quote(old.name)}")
    statements.append(f"ALTER TABLE {quote(temporary)} RENAME TO {quote(new.name)}")
    return statements


def _resolves_conflicts(table: Table) -> bool:
    """Tell whether an ON CONFLICT clause could skip rows in a copy or end the transaction."""
    clauses = {column.on_conflict for column in table.columns.values()}
    clauses |= {key.on_conflict for key in (table.primary_key, *table.uniques) if key}
    return clauses != {"abort"}


def _autoincrement(table: Table) -> bool:
    return table.primary_key is not None and table.primary_key.autoincrement


def script(statements: Sequence[str]) -> str:
    """Join statements as Drizzle does, so that either tool runs the file."""
    return "--> statement-breakpoint\n".join(f"{statement};" for statement in statements) + "\n"
