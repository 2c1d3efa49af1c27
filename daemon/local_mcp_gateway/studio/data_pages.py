"""Pages of the database's content: the list of tables, a table's rows and structure, blobs and exports."""

from __future__ import annotations

import asyncio
import re
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from local_mcp_gateway.database import Connection, Error
from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.studio import rows, tables
from local_mcp_gateway.studio.http import Response, address, redirect, whole_number
from local_mcp_gateway.studio.rows import Asked, Condition
from local_mcp_gateway.studio.tables import MOST_COUNTED, Table, opened
from local_mcp_gateway.studio.values import by_key_text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from pathlib import Path

    from local_mcp_gateway.studio.visit import Page, Visit

COUNT_S: Final = 0.5
MOST_COUNTS: Final = 50
EXPORT_S: Final = 600.0
BATCH: Final = 200
BLOB_BYTES: Final = 256 * 1024
FORMS: Final = {"csv": "text/csv", "json": "application/json", "sql": "application/sql"}


def many(rows: int | None) -> str:
    """Say how many rows there are, as far as they were counted."""
    if rows is None:
        return "not counted"
    return f"over {MOST_COUNTED:,}" if rows > MOST_COUNTED else f"{rows:,}"


async def read(
    visit: Visit, work: Callable[[Connection], Any], limit_s: float = tables.READING_S
) -> Any:
    """Run a reader in a thread, on a connection of its own; raises UsageProblem if it takes too long."""

    def run() -> Any:
        with opened(visit.powers, limit_s) as connection:
            return work(connection)

    try:
        return await asyncio.to_thread(run)
    except Error as error:
        if "interrupted" in str(error).lower():
            raise UsageProblem(
                f"This took longer than {limit_s:.0f} s and was stopped.",
                hint="Narrow it with a filter on a column that has an index.",
            ) from None
        raise


def table_of(connection: Connection, visit: Visit) -> Table:
    """Return the table that the address names; raises UsageProblem if there is none."""
    found = tables.read_table(
        connection, visit.arguments[0], visit.powers.masked, visit.powers.protected
    )
    if found is None:
        raise UsageProblem(
            f"There is no table {visit.arguments[0]!r}.", hint="The list of tables has all of them."
        )
    return found


async def show_tables(visit: Visit) -> Response:
    """List the tables and views."""

    def work(connection: Connection) -> Any:
        found = tables.list_tables(connection)
        return found, tables.count_rows(connection, found)

    found, counts = await read(visit, work)
    return await visit.page(
        "tables.html",
        tables=found,
        counts=counts,
        many=many,
        size=visit.powers.database.stat().st_size,
    )


async def show_rows(visit: Visit) -> Response:
    """Show one page of rows."""
    request = visit.request
    conditions = [Condition.of(text) for text in request.query.get("where", ())]
    asked = Asked(
        tuple(condition for condition in conditions if condition is not None),
        request.asked("sort"),
        request.asked("down") == "1",
        request.asked("after"),
        request.asked("before"),
        whole_number(request.asked("offset")) or 0,
    )

    def work(connection: Connection) -> Any:
        table = table_of(connection, visit)
        found = tables.list_tables(connection)
        if table.problem:
            return table, found, None, table.problem, None, None
        try:
            page = rows.read_page(connection, table, asked)
        except Error as error:
            if isinstance(error, UsageProblem) or "interrupted" in str(error):
                raise
            return table, found, None, str(error), None, None
        total = _counted(connection, visit, table, asked)
        return table, found, page, "", total, _beside(connection, table, request.asked("row"))

    table, found, page, problem, total, row = await read(visit, work)
    links = table.single_links
    return await visit.page(
        "rows.html",
        table=table,
        beside=tables.Beside.of(found, table.name),
        page=page,
        problem_of_view=problem,
        asked=asked,
        total=total,
        many=many,
        row_beside=row,
        links=links,
        operators={k: v for k, v in rows.OPERATORS.items() if k != "match" or table.searchable},
        editable=visit.powers.writable and table.editable,
        linking=[links.get(column.name) for column in page.columns] if page else (),
    )


def _beside(connection: Connection, table: Table, key: str) -> rows.Row | None:
    """Return the row that is shown upright beside the grid, where one is asked for."""
    tables.stop_after(connection, tables.READING_S)
    return rows.read_row(connection, table, key) if key and table.key else None


def _counted(connection: Connection, visit: Visit, table: Table, asked: Asked) -> int | None:
    """Return how many rows the filter selects, or None if counting takes too long.

    A session keeps what was counted until somebody writes, since every page of a large table would count
    it again.
    """
    where, values = rows.where_of(table, asked.conditions)
    source = f"{tables.quoted(table.name)} WHERE {where}"
    counts, key = visit.session.counts, (_written(visit.powers.database), source, tuple(values))
    if (found := counts.get(key)) is None:
        tables.stop_after(connection, COUNT_S)
        try:
            found = counts[key] = tables.count(connection, source, tuple(values))
        except Error:
            return None
        for old in list(counts)[:-MOST_COUNTS]:
            counts.pop(old, None)  # another page of this browser may have done so
    return found


def _written(database: Path) -> tuple[int, ...]:
    """Return what changes when somebody writes: sizes and times of the file and of its log."""
    found: list[int] = []
    for path in (database, database.with_name(f"{database.name}-wal")):
        with suppress(OSError):
            status = path.stat()
            found += (status.st_size, status.st_mtime_ns)
    return tuple(found)


async def add_filter(visit: Visit) -> Response:
    """Lead to the list with one more filter; the address carries it."""
    (name,) = visit.arguments
    given = visit.request.given
    kept = [text for text in visit.request.form.get("where", ()) if Condition.of(text)]
    condition = Condition(given("column"), given("operator"), given("value"))
    if condition.operator in rows.OPERATORS:
        kept.append(condition.text)
    return redirect(_with_filters(name, kept))


def _with_filters(name: str, conditions: list[str]) -> str:
    query = urlencode({"where": conditions}, doseq=True)
    return address("data", name) + (f"?{query}" if query else "")


async def show_structure(visit: Visit) -> Response:
    """Show a table's columns, keys, indexes and triggers."""

    def work(connection: Connection) -> Any:
        table = table_of(connection, visit)
        return table, tables.list_tables(connection), list(tables.links_to(connection, table.name))

    table, found, pointing = await read(visit, work)
    beside = tables.Beside.of(found, table.name)
    return await visit.page("structure.html", table=table, beside=beside, pointing=pointing)


# --- blobs and exports --------------------------------------------------------------------------


async def show_blob(visit: Visit) -> Response:
    """Send the bytes of one value, to be saved; nothing of it is shown by the browser."""
    key, name = visit.request.asked("key"), visit.request.asked("column")
    table: Table = await read(visit, lambda connection: table_of(connection, visit))
    column = table.column(name)
    if column is None or column.masked:
        raise UsageProblem(f"{table.name} shows no column {name!r}.", hint="Open it from its row.")
    condition, keys = by_key_text(table, key)
    source = f"{tables.quoted(table.name)} WHERE {condition}"
    quoted = tables.quoted(column.name)
    found = await read(
        visit,
        lambda c: c.execute(
            f"SELECT length(CAST({quoted} AS BLOB)) FROM {source}", keys
        ).fetchone(),
    )
    length = found[0] if found else None
    if length is None:
        raise UsageProblem("There is no value.", hint="It is NULL, or the row is gone.")

    sql = f"SELECT substr(CAST({quoted} AS BLOB), ?, ?) FROM {source}"

    async def chunks() -> AsyncGenerator[bytes, None]:
        # substr of a value reads it again each time, so that a part is as much as a page may hold at once.
        for start in range(1, length + 1, 64 * BLOB_BYTES):
            values = (start, 64 * BLOB_BYTES, *keys)
            yield await read(visit, partial(_part, sql, values))

    kept = (b"content-disposition", b'attachment; filename="value.bin"')
    return Response(kind="application/octet-stream", chunks=chunks(), headers=[kept])


def _part(sql: str, values: tuple[object, ...], connection: Connection) -> bytes:
    row = connection.execute(sql, values).fetchone()
    return row[0] if row else b""


async def export(visit: Visit) -> Response:
    """Send the rows that a filter selects as a file, as they are read."""
    form = visit.request.asked("form", "csv")
    if form not in FORMS:
        raise UsageProblem(f"There is no export as {form!r}.", hint="Choose CSV, JSON or SQL.")
    found = [Condition.of(text) for text in visit.request.query.get("where", ())]
    conditions = [condition for condition in found if condition is not None]
    table: Table = await read(visit, lambda connection: table_of(connection, visit))
    rows.where_of(table, conditions)

    def parts() -> Generator[bytes]:
        with opened(visit.powers, EXPORT_S) as connection:
            gathered: list[str] = []
            for part in rows.export(connection, table, conditions, form):
                gathered.append(part)
                if len(gathered) >= BATCH:
                    yield "".join(gathered).encode("utf-8", "replace")
                    gathered.clear()
            yield "".join(gathered).encode("utf-8", "replace")

    async def chunks() -> AsyncGenerator[bytes, None]:
        with closing(parts()) as source:
            while (part := await asyncio.to_thread(next, source, None)) is not None:
                yield part

    safe = re.sub(r"[^A-Za-z0-9_-]", "_", table.name) or "table"
    kept = (b"content-disposition", f'attachment; filename="{safe}.{form}"'.encode())
    return Response(kind=f"{FORMS[form]}; charset=utf-8", chunks=chunks(), headers=[kept])


ROUTES: Final[dict[tuple[str, str], Page]] = {
    ("GET", "data"): show_tables,
    ("GET", "data/*"): show_rows,
    ("POST", "data/*/filter"): add_filter,
    ("GET", "data/*/structure"): show_structure,
    ("GET", "data/*/blob"): show_blob,
    ("GET", "data/*/export"): export,
}
