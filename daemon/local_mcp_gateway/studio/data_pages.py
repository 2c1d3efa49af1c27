"""The data: tables, rows, one row, its changes, blobs and exports."""

from __future__ import annotations

import asyncio
import re
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from local_mcp_gateway.database import Error
from local_mcp_gateway.errors import DatabaseBusy, GatewayError, UsageProblem
from local_mcp_gateway.studio import changes, rows, tables
from local_mcp_gateway.studio.http import Response, address, redirect
from local_mcp_gateway.studio.rows import Asked, Condition
from local_mcp_gateway.studio.tables import MOST_COUNTED, opened

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from local_mcp_gateway.database import Connection
    from local_mcp_gateway.studio.changes import Transactions, WayBack
    from local_mcp_gateway.studio.tables import Table
    from local_mcp_gateway.studio.visit import Page, Visit

COUNT_S: Final = 0.5
EXPORT_S: Final = 600.0
BATCH: Final = 200
BLOB_BYTES: Final = 256 * 1024
FORMS: Final = {"csv": "text/csv", "json": "application/json", "sql": "application/sql"}


def many(rows: int | None) -> str:
    """Say how many rows there are, as far as they were counted."""
    if rows is None:
        return "not counted"
    return f"over {MOST_COUNTED:,}" if rows > MOST_COUNTED else f"{rows:,}"


async def _read(
    visit: Visit, work: Callable[[Connection], Any], limit_s: float = tables.READING_S
) -> Any:
    """Run a reader in a thread, on a connection of its own."""

    def run() -> Any:
        with opened(visit.powers, limit_s) as connection:
            return work(connection)

    try:
        return await asyncio.to_thread(run)
    except (*Error,) as error:
        if "interrupted" in str(error).lower():
            raise UsageProblem(
                f"This took longer than {limit_s:.0f} s and was stopped.",
                hint="Narrow it with a filter on a column that has an index.",
            ) from None
        raise


def _table_of(connection: Connection, visit: Visit) -> Table:
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

    found, counts = await _read(visit, work)
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
        int(request.asked("offset")) if request.asked("offset").isdecimal() else 0,
    )

    def work(connection: Connection) -> Any:
        table = _table_of(connection, visit)
        found = tables.list_tables(connection)
        if table.problem:
            return table, found, None, table.problem
        try:
            return table, found, rows.read_page(connection, table, asked), ""
        except (*Error,) as error:
            if isinstance(error, UsageProblem) or "interrupted" in str(error):
                raise
            return table, found, None, str(error)

    table, found, page, problem = await _read(visit, work)
    total = None if problem else await _counted(visit, table, asked)
    return await visit.page(
        "rows.html",
        table=table,
        tables=found,
        page=page,
        problem_of_view=problem,
        asked=asked,
        total=total,
        many=many,
        operators={k: v for k, v in rows.OPERATORS.items() if k != "match" or table.searchable},
        editable=visit.powers.writable and table.editable,
        place="rows",
        links={link.columns[0]: link for link in table.links if len(link.columns) == 1},
        Condition=Condition,
    )


async def _counted(visit: Visit, table: Table, asked: Asked) -> int | None:
    """Return how many rows the filter selects, or None if counting takes too long."""

    def work(connection: Connection) -> int:
        where, values = rows.where_of(table, asked.conditions)
        return tables.count(connection, f"{tables.quoted(table.name)} WHERE {where}", tuple(values))

    try:
        found: int = await _read(visit, work, COUNT_S)
    except (*Error,):
        return None
    return found


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
        return _table_of(connection, visit), tables.list_tables(connection)

    table, found = await _read(visit, work)
    return await visit.page("structure.html", table=table, tables=found, place="structure")


# --- one row ------------------------------------------------------------------------------------


async def show_row(visit: Visit) -> Response:
    """Show one row upright, what points at it, and the form that changes it."""
    return await _row(visit, {})


async def _row(visit: Visit, typed: dict[str, str]) -> Response:
    key = visit.request.asked("key") or visit.request.given("key")

    def work(connection: Connection) -> Any:
        table = _table_of(connection, visit)
        row = rows.read_row(connection, table, key)
        pointing = rows.pointing_at(connection, table, key) if row else []
        return table, row, pointing, tables.list_tables(connection)

    table, row, pointing, found = await _read(visit, work)
    if row is None:
        return await visit.page(
            "error.html",
            status=404,
            message=f"This row of {table.name} is not there.",
            hint="It may have been deleted. The list has those that are.",
        )
    return await visit.page(
        "row.html",
        status=400 if visit.problem else 200,
        table=table,
        tables=found,
        row=row,
        cells=list(zip(table.shown, row.cells, strict=True)),
        pointing=pointing,
        many=many,
        typed=typed,
        editable=visit.powers.writable and table.editable,
        longest=rows.LONGEST_EDIT,
        links={link.columns[0]: link for link in table.links if len(link.columns) == 1},
        Condition=Condition,
        place="rows",
        cascading=_cascading(table, pointing),
    )


def _cascading(table: Table, pointing: list[Any]) -> list[str]:
    """Return what a deletion takes along or changes, in words."""
    said = [
        f"{many(count)} of {link.table}" + (" lose their link" if "SET" in link.on_delete else "")
        for link, count, _ in pointing
        if count and link.on_delete in {"CASCADE", "SET NULL", "SET DEFAULT"}
    ]
    if any("delete" in sql.lower() for _, sql in table.triggers):
        said.append("what its trigger does")
    return said


def _transactions(visit: Visit) -> Transactions:
    if not visit.powers.writable:
        raise UsageProblem(
            "This database is open for reading only.", hint="Use `db studio --write`."
        )
    if visit.powers.pool is not None:
        return visit.powers.pool.transaction
    return partial(changes.FileWriter.open, visit.powers.database)


async def _table(visit: Visit) -> Table:
    table: Table = await _read(visit, lambda connection: _table_of(connection, visit))
    if not table.editable:
        raise UsageProblem(
            f"The rows of {table.name} are not changed here.",
            hint="The guard keeps its own tables; views have no rows of their own."
            if table.protected or table.kind == "view"
            else "Use SQL in a program of your own.",
        )
    return table


def _said(error: Exception) -> GatewayError:
    """Return what SQLite or the gateway said as a sentence for the page."""
    if isinstance(error, DatabaseBusy) or "database is locked" in str(error):
        return UsageProblem(
            "Another program holds the write lock; your change is still here.",
            hint="Wait a moment and save again.",
        )
    if isinstance(error, GatewayError):
        return error
    return UsageProblem(
        f"SQLite refused: {error}.", hint="Nothing was changed; what you typed is still here."
    )


async def _after(visit: Visit, table: str) -> None:
    visit.powers.emit("studio.changed", table=table, rows=1)
    if visit.powers.changed is not None:
        await visit.powers.changed()


async def save_row(visit: Visit) -> Response:
    """Change one row: the fields that differ from what was shown."""
    form = visit.request.form
    typed = {name: values[-1].replace("\r\n", "\n") for name, values in form.items()}
    key = typed.get("key", "")
    try:
        transactions = _transactions(visit)
        table = await _table(visit)
        shown = await _read(visit, lambda connection: rows.read_row(connection, table, key))
        if shown is None:
            raise UsageProblem("This row is gone; nothing was stored.", hint="Go back to the list.")
        old: dict[str, object] = {}
        new: dict[str, object] = {}
        for at, (column, cell) in enumerate(zip(table.shown, shown.cells, strict=True)):
            if f"w{at}" not in typed:
                continue
            if typed[f"w{at}"] != cell.digest:
                raise UsageProblem(
                    "Another program has changed this row in the meantime; your change was not stored.",
                    hint="Load the row again and look at what it is now.",
                )
            is_null, now = typed.get(f"n{at}") == "1", typed.get(f"v{at}", "")
            if is_null == (cell.kind == "null") and (
                is_null or cell.kind == "blob" or now == cell.typed
            ):
                continue
            if cell.kind != "blob":
                old[column.name] = cell.value
            new[column.name] = None if is_null else rows.typed(column, now)
        if not new:
            return visit.back(address("data", table.name, "row", key=key), "Nothing was different.")
        async with transactions() as writer:
            key, way_back = await changes.update(writer, table, key, old, new)
    except (*Error,) as error:
        visit.problem = _said(error)
        return await _row(visit, typed)
    await _after(visit, table.name)
    number = visit.session.remember(way_back)
    text = f"{', '.join(new)} of this row {'is' if len(new) == 1 else 'are'} changed."
    return visit.back(address("data", table.name, "row", key=key), text, undo=number)


async def delete_row(visit: Visit) -> Response:
    """Delete one row."""
    key = visit.request.given("key")
    try:
        transactions = _transactions(visit)
        table = await _table(visit)
        pointing = await _read(visit, lambda connection: rows.pointing_at(connection, table, key))
        alone = not _cascading(table, pointing)
        async with transactions() as writer:
            way_back = await changes.delete(writer, table, key, keep=alone)
    except (*Error,) as error:
        visit.problem = _said(error)
        return await _row(visit, {"key": key})
    await _after(visit, table.name)
    number = None if way_back is None else visit.session.remember(way_back)
    return visit.back(address("data", table.name), "The row is deleted.", undo=number)


async def show_new(visit: Visit) -> Response:
    """Show the form of a new row."""
    return await _new(visit, {})


async def _new(visit: Visit, typed: dict[str, str]) -> Response:
    table = await _table(visit)
    _transactions(visit)
    return await visit.page(
        "row_new.html",
        status=400 if visit.problem else 200,
        table=table,
        typed=typed,
        columns=[column for column in table.shown if not column.generated],
        alias=changes.rowid_alias(table),
    )


async def add_row(visit: Visit) -> Response:
    """Insert one row; a field that was left as it is gets the column's default."""
    typed = {name: v[-1].replace("\r\n", "\n") for name, v in visit.request.form.items()}
    try:
        transactions = _transactions(visit)
        table = await _table(visit)
        values: dict[str, object] = {}
        columns = [column for column in table.shown if not column.generated]
        for at, column in enumerate(columns):
            choice = typed.get(f"c{at}", "value")
            if choice == "null":
                values[column.name] = None
            elif choice == "empty" or typed.get(f"v{at}"):
                values[column.name] = rows.typed(column, typed.get(f"v{at}", ""))
        async with transactions() as writer:
            key, way_back = await changes.insert(writer, table, values)
    except (*Error,) as error:
        visit.problem = _said(error)
        return await _new(visit, typed)
    await _after(visit, table.name)
    number = visit.session.remember(way_back)
    return visit.back(address("data", table.name, "row", key=key), "The row is there.", undo=number)


async def undo(visit: Visit) -> Response:
    """Take one change of this browser back."""
    text = visit.request.given("number")
    way_back: WayBack | None = None
    if text.isdecimal():
        way_back = visit.session.undo.pop(int(text), None)  # type: ignore[assignment]
    if way_back is None:
        raise UsageProblem("There is nothing to undo any more.", hint="Look at the row itself.")
    try:
        async with _transactions(visit)() as writer:
            await changes.take_back(writer, way_back)
    except (*Error,) as error:
        raise _said(error) from None
    await _after(visit, way_back.table)
    return visit.back(address("data", way_back.table), way_back.said)


# --- blobs and exports --------------------------------------------------------------------------


async def show_blob(visit: Visit) -> Response:
    """Send the bytes of one value, to be saved; nothing of it is shown by the browser."""
    key, name = visit.request.asked("key"), visit.request.asked("column")
    table: Table = await _read(visit, lambda connection: _table_of(connection, visit))
    column = table.column(name)
    if column is None or column.masked:
        raise UsageProblem(f"{table.name} shows no column {name!r}.", hint="Open it from its row.")
    condition, keys = rows.by_key_text(table, key)
    source = f"{tables.quoted(table.name)} WHERE {condition}"
    quoted = tables.quoted(column.name)
    found = await _read(
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
            yield await _read(visit, partial(_part, sql, values))

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
    table: Table = await _read(visit, lambda connection: _table_of(connection, visit))
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
    ("GET", "data/*/row"): show_row,
    ("POST", "data/*/row"): save_row,
    ("POST", "data/*/delete"): delete_row,
    ("GET", "data/*/new"): show_new,
    ("POST", "data/*/new"): add_row,
    ("GET", "data/*/blob"): show_blob,
    ("GET", "data/*/export"): export,
    ("POST", "undo"): undo,
}
