"""Pages of one row: show it with the rows that refer to it, edit, insert, delete, and undo."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from local_mcp_gateway.database import Connection, Error
from local_mcp_gateway.errors import DatabaseBusy, GatewayError, UsageProblem
from local_mcp_gateway.studio import changes, rows, tables, values
from local_mcp_gateway.studio.data_pages import many, read, table_of
from local_mcp_gateway.studio.http import Response, address, whole_number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from local_mcp_gateway.studio.changes import Transactions
    from local_mcp_gateway.studio.tables import Column, Table
    from local_mcp_gateway.studio.values import Cell
    from local_mcp_gateway.studio.visit import Page, Visit

CHOICES_S: Final = 0.5
"""How long SQLite may look for rows that a foreign key may refer to."""


@dataclass(frozen=True, slots=True)
class Field:
    """One column in a form: what is typed now, and what it may be."""

    at: int
    column: Column
    text: str
    is_null: bool = False
    cell: Cell | None = None
    """The value that is stored; None in the form of a new row."""
    to: Table | None = None
    """The table that a foreign key refers to."""
    offered: tuple[rows.Choice, ...] = ()
    label: str = ""
    """What a person knows the row by that the stored value refers to."""

    @property
    def name(self) -> str:
        """Return the name of the form's field."""
        return f"v{self.at}"

    @property
    def fixed(self) -> bool:
        """Return whether the form only shows the value: it is computed, a blob or too long."""
        cell = self.cell
        return self.column.generated or (
            cell is not None and (cell.kind == "blob" or bool(cell.more))
        )

    @property
    def differs(self) -> bool:
        """Return whether something else is typed than what is stored."""
        cell = self.cell
        return cell is not None and (self.text, self.is_null) != (cell.typed, cell.kind == "null")

    @property
    def empty_is_null(self) -> bool:
        """Return whether an empty field stands for NULL, since no empty text is meant there."""
        column = self.column
        return column.is_number or (bool(column.choices) and "" not in column.choices)


def _fields(
    connection: Connection, visit: Visit, table: Table, row: rows.Row | None, typed: dict[str, str]
) -> list[Field]:
    """Return the fields of a row, or of a new one, with what was typed before it was refused."""
    links = table.single_links
    found = []
    for at, column in enumerate(table.shown):
        cell = row.cells[at] if row is not None else None
        link = links.get(column.name)
        to = None
        if link is not None:
            to = tables.read_table(connection, link.to, visit.powers.masked)
        stored = cell.value if cell is not None else None
        text, is_null = ("", False) if cell is None else (cell.typed, cell.kind == "null")
        if (given := _typed(column, at, typed)) is not None:
            text, is_null = given
        found.append(
            Field(
                at,
                column,
                text,
                is_null,
                cell,
                to,
                tuple(rows.choices(connection, to, link)) if to and link else (),
                rows.label_of(connection, to, link, stored) if to and link else "",
            )
        )
    return found


def _typed(column: Column, at: int, typed: dict[str, str]) -> tuple[str, bool] | None:
    """Return what was typed into a field, and whether it means NULL; None if it was left as it was shown."""
    if not typed.keys() & {f"v{at}", f"n{at}"}:
        return None
    text = typed.get(f"v{at}", "")
    is_null = typed.get(f"n{at}") == "1" or (not text and Field(at, column, text).empty_is_null)
    return (
        None if typed.get(f"w{at}") in values.shown_as(text, is_null=is_null) else (text, is_null)
    )


async def show_choices(visit: Visit) -> Response:
    """Send the rows that a foreign key may refer to and that a text finds, as options of its field."""

    def work(connection: Connection) -> list[rows.Choice]:
        table = table_of(connection, visit)
        link = table.single_links.get(visit.request.asked("column"))
        to = tables.read_table(connection, link.to, visit.powers.masked) if link else None
        return (
            rows.choices(connection, to, link, visit.request.asked("text")) if to and link else []
        )

    found = await read(visit, work, CHOICES_S)
    option = Markup('<option value="{}">{}</option>')
    return Response(Markup("").join(option.format(one.value, one.label) for one in found))


async def show_row(visit: Visit) -> Response:
    """Show one row upright, what points at it, and the form that changes it."""
    return await _row(visit, {})


async def _row(visit: Visit, typed: dict[str, str]) -> Response:
    key = visit.request.asked("key") or visit.request.given("key")

    def work(connection: Connection) -> Any:
        table = table_of(connection, visit)
        row = rows.read_row(connection, table, key)
        pointing = rows.pointing_at(connection, table, key) if row else []
        fields = _fields(connection, visit, table, row, typed) if row else []
        return table, row, pointing, fields, tables.list_tables(connection)

    table, row, pointing, fields, found = await read(visit, work)
    if row is None:
        return await visit.page(
            "error.html",
            status=404,
            message=f"This row of {table.name} is not there.",
            hint="It may have been deleted. The list has those that are.",
        )
    return await visit.page(
        "row.html",
        table=table,
        beside=tables.Beside.of(found, table.name),
        row=row,
        fields=fields,
        pointing=pointing,
        many=many,
        editable=visit.powers.writable and table.editable,
        links=table.single_links,
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
    table: Table = await read(visit, lambda connection: table_of(connection, visit))
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


async def _record(
    visit: Visit, writer: changes.Writer, action: str, table: str, columns: Iterable[str] = ()
) -> None:
    """Put a change into the audit: which table and columns, never values."""
    if visit.powers.record is not None:
        await visit.powers.record(writer, action, table, ", ".join(columns) or None)


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
        shown = await read(visit, lambda connection: rows.read_row(connection, table, key))
        if shown is None:
            raise UsageProblem("This row is gone; nothing was stored.", hint="Go back to the list.")
        old, new = _changes(table, shown, typed)
        if not new:
            return visit.back(address("data", table.name, "row", key=key), "Nothing was different.")
        async with transactions() as writer:
            key, way_back = await changes.update(writer, table, key, old, new)
            await _record(visit, writer, "row.edit", table.name, new)
    except Error as error:
        visit.problem = _said(error)
        return await _row(visit, typed)
    await _after(visit, table.name)
    number = visit.session.remember(way_back)
    text = f"{', '.join(new)} of this row {'is' if len(new) == 1 else 'are'} changed."
    return visit.back(address("data", table.name, "row", key=key), text, undo=number)


def _changes(
    table: Table, row: rows.Row, typed: dict[str, str]
) -> tuple[dict[str, object], dict[str, object]]:
    """Return the old and the new value of each column that was changed; raises UsageProblem if it is stale."""
    old: dict[str, object] = {}
    new: dict[str, object] = {}
    for at, (column, cell) in enumerate(zip(table.shown, row.cells, strict=True)):
        if (given := _typed(column, at, typed)) is None:
            continue
        text, is_null = given
        same = cell.kind == "blob" or (cell.kind != "null" and text == cell.typed)
        if same and not is_null:
            continue
        if typed.get(f"w{at}") != cell.digest:
            raise UsageProblem(
                f"{column.name} was changed in the meantime; your change was not stored.",
                hint="Below it is what is stored now; save again if yours is right.",
            )
        if cell.kind != "blob":
            old[column.name] = cell.value
        new[column.name] = None if is_null else values.typed(column, text)
    return old, new


async def delete_row(visit: Visit) -> Response:
    """Delete one row."""
    key = visit.request.given("key")
    try:
        transactions = _transactions(visit)
        table = await _table(visit)
        pointing = await read(visit, lambda connection: rows.pointing_at(connection, table, key))
        alone = not _cascading(table, pointing)
        async with transactions() as writer:
            way_back = await changes.delete(writer, table, key, keep=alone)
            await _record(visit, writer, "row.remove", table.name)
    except Error as error:
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
    fields = await read(visit, lambda connection: _fields(connection, visit, table, None, typed))
    return await visit.page(
        "row_new.html",
        table=table,
        typed=typed,
        fields=[field for field in fields if not field.fixed],
        alias=changes.rowid_alias(table),
    )


async def add_row(visit: Visit) -> Response:
    """Insert one row; a field that was left as it is gets the column's default."""
    typed = {name: v[-1].replace("\r\n", "\n") for name, v in visit.request.form.items()}
    try:
        transactions = _transactions(visit)
        table = await _table(visit)
        given: dict[str, object] = {}
        for at, column in enumerate(table.shown):
            choice, text = typed.get(f"c{at}", "value"), typed.get(f"v{at}", "")
            if choice == "null":
                given[column.name] = None
            elif choice == "empty" or text:
                given[column.name] = values.typed(column, text)
        async with transactions() as writer:
            key, way_back = await changes.insert(writer, table, given)
            await _record(visit, writer, "row.add", table.name, given)
    except Error as error:
        visit.problem = _said(error)
        return await _new(visit, typed)
    await _after(visit, table.name)
    number = visit.session.remember(way_back)
    return visit.back(address("data", table.name, "row", key=key), "The row is there.", undo=number)


async def undo(visit: Visit) -> Response:
    """Take one change of this browser back."""
    number = whole_number(visit.request.given("number")) or 0  # they begin with 1
    way_back = visit.session.undo.pop(number, None)
    if not isinstance(way_back, changes.WayBack):
        raise UsageProblem("There is nothing to undo any more.", hint="Look at the row itself.")
    try:
        async with _transactions(visit)() as writer:
            await changes.take_back(writer, way_back)
            await _record(visit, writer, "row.undo", way_back.table)
    except Error as error:
        raise _said(error) from None
    await _after(visit, way_back.table)
    return visit.back(address("data", way_back.table), way_back.said)


ROUTES: Final[dict[tuple[str, str], Page]] = {
    ("GET", "data/*/row"): show_row,
    ("POST", "data/*/row"): save_row,
    ("POST", "data/*/delete"): delete_row,
    ("GET", "data/*/new"): show_new,
    ("POST", "data/*/new"): add_row,
    ("GET", "data/*/choices"): show_choices,
    ("POST", "undo"): undo,
}
