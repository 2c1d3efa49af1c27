"""The SQL console: run one statement at a time, read-only.

The connection is read-only, and an authorizer checks everything that a statement touches: it may select,
call functions and read a few pragmas. A column with secrets reads as NULL. Time, rows and the size of a
value are limited, and a statement is interrupted when its browser leaves.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.database import Error
from local_mcp_gateway.log import is_secret_key
from local_mcp_gateway.sql import DESCRIBING_PRAGMAS, fold
from local_mcp_gateway.studio.http import Receive, Response, until_left
from local_mcp_gateway.studio.tables import list_tables, opened
from local_mcp_gateway.studio.values import CUT, Cell

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_mcp_gateway.studio.visit import Page, Powers, Visit

LIMIT_S: Final = 5.0
MOST_ROWS: Final = 500
MOST_VALUE_BYTES: Final = 64 * 1024 * 1024
MOST_KEPT: Final = 20
LONGEST_SQL: Final = 100_000
_SETTINGS: Final = frozenset(
    [
        "application_id",
        "auto_vacuum",
        "compile_options",
        "data_version",
        "encoding",
        "foreign_keys",
        "freelist_count",
        "journal_mode",
        "page_count",
        "page_size",
        "schema_version",
        "synchronous",
        "user_version",
    ]
)
"""Pragmas that are asked for without a value, which would set it."""
_FORBIDDEN: Final = frozenset({"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"})
_RAW: Final = frozenset({"sqlite_dbpage", "sqlite_memstat", "dbpage"})
"""Tables that show the bytes of the file, secrets included."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a statement gave."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    more: bool = False
    took_ms: float = 0.0
    refused: str = ""


def run(powers: Powers, sql: str, is_left: Callable[[], bool] = lambda: False) -> Outcome:
    """Run one statement. Blocks; another thread says by `is_left` that nobody waits for it any more."""
    began = time.perf_counter()
    try:
        with opened(powers, LIMIT_S, is_left) as connection:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_VALUE_BYTES)
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            connection.set_authorizer(_authorizer(powers))
            cursor = connection.execute(sql)
            columns = tuple(column[0] for column in cursor.description or ())
            rows: list[tuple[Cell, ...]] = []
            for row in cursor:
                if len(rows) == MOST_ROWS:
                    return Outcome(columns, tuple(rows), True, _since(began))
                rows.append(tuple(map(_cell, row)))
            return Outcome(columns, tuple(rows), False, _since(began))
    except (*Error, sqlite3.Warning) as error:
        return Outcome(took_ms=_since(began), refused=_in_words(error))


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000


def _in_words(error: Exception) -> str:
    said = str(error).rstrip(".")
    if "interrupted" in said.lower() or "gave up" in said.lower():
        return f"It took longer than {LIMIT_S:.0f} s and was stopped"
    if said in {"not authorized", "authorization denied"} or "prohibited" in said:
        return f"Only reading is possible here ({said})"
    return said


def _cell(value: object) -> Cell:
    if value is None:
        return Cell("null")
    if isinstance(value, bytes):
        return Cell("blob", None, len(value), "blob")
    if isinstance(value, str):
        return Cell("text", value[:CUT], len(value))
    return Cell("real" if isinstance(value, float) else "integer", value)


def _authorizer(
    powers: Powers,
) -> Callable[[int, str | None, str | None, str | None, str | None], int]:
    secret = {(fold(table), fold(column)) for table, column in powers.masked}

    def decide(
        action: int, first: str | None, second: str | None, _database: str | None, _by: str | None
    ) -> int:
        if action in {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE}:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ:
            table, column = fold(first or ""), fold(second or "")
            if table in _RAW:
                return sqlite3.SQLITE_DENY
            hidden = (table, column) in secret or is_secret_key(column)
            return sqlite3.SQLITE_IGNORE if hidden else sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_UPDATE and first == "sqlite_master":
            # What a virtual table declares of itself; a statement cannot change that table here.
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION and fold(second or "") not in _FORBIDDEN:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_PRAGMA:
            name = fold(first or "")
            if name in DESCRIBING_PRAGMAS or (name in _SETTINGS and second is None):
                return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY

    return decide


async def run_until_left(powers: Powers, sql: str, receive: Receive) -> Outcome:
    """Run one statement; interrupt it when the browser leaves."""
    left = threading.Event()
    try:
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(_watch(receive, left))
            running = tasks.create_task(asyncio.to_thread(run, powers, sql, left.is_set))
            running.add_done_callback(lambda _: watching.cancel())
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    return running.result()


async def _watch(receive: Receive, left: threading.Event) -> None:
    await until_left(receive)
    left.set()


async def show(visit: Visit) -> Response:
    """Show the field for SQL, and what was run before."""
    return await _shown(visit, visit.request.asked("sql"), None)


async def run_query(visit: Visit) -> Response:
    """Run what was typed and show what it gives."""
    sql = visit.request.given("sql")[:LONGEST_SQL].replace("\r\n", "\n")
    outcome = await run_until_left(visit.powers, sql, visit.request.receive)
    if sql.strip():
        kept = [sql, *(known for known in visit.session.queries if known != sql)]
        visit.session.queries[:] = kept[:MOST_KEPT]
    return await _shown(visit, sql, outcome)


async def _shown(visit: Visit, sql: str, outcome: Outcome | None) -> Response:
    def names() -> list[str]:
        with opened(visit.powers) as connection:
            return [table.name for table in list_tables(connection)]

    return await visit.page(
        "sql.html",
        status=400 if outcome is not None and outcome.refused else 200,
        here="data",
        sql=sql,
        outcome=outcome,
        queries=visit.session.queries,
        names=await asyncio.to_thread(names),
        limit_s=LIMIT_S,
        most=MOST_ROWS,
    )


ROUTES: Final[dict[tuple[str, str], Page]] = {("GET", "sql"): show, ("POST", "sql"): run_query}
