"""Compare the schema at two points of the database's history, or with the schema in code.

A point is the database as it is now, a backup, or what the migrations made up to one of them. The last is
replayed in memory, so it has no rows to count. The schema in code may be a program, so another process
reads it; the migration that it needs is shown before it is written.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway.backup import find_backup
from local_mcp_gateway.database import Error, open_immutable, open_scratch
from local_mcp_gateway.errors import GatewayError, UsageProblem
from local_mcp_gateway.formats import counted
from local_mcp_gateway.migrate import Ledger, replay
from local_mcp_gateway.schema import is_engines
from local_mcp_gateway.sql import fold, normal, normal_tokens
from local_mcp_gateway.studio.http import address
from local_mcp_gateway.studio.render import compared
from local_mcp_gateway.studio.tables import READING_S, STEPS, count_rows, list_tables, opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from markupsafe import Markup

    from local_mcp_gateway.database import Connection
    from local_mcp_gateway.migrate import Migration
    from local_mcp_gateway.studio.http import Fields, Response
    from local_mcp_gateway.studio.migrations import Standing
    from local_mcp_gateway.studio.visit import Page, Powers, Visit

NOW: Final = "now"
NOTHING: Final = "nothing"
MIGRATION, BACKUP = "m:", "b:"
ORDER: Final = {"table": 0, "view": 1, "index": 2, "trigger": 3}


@dataclass(frozen=True, slots=True)
class Point:
    """What a database is made of: SQL by (kind, name), and rows by table where there are rows."""

    objects: dict[tuple[str, str], str]
    rows: dict[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Changed:
    """One object that is not the same at both points, with what differs in its SQL marked."""

    kind: str
    name: str
    what: str
    """new, gone or changed"""
    sql: str
    before: Markup
    after: Markup


def read_point(powers: Powers, now: Standing, name: str) -> Point:
    """Return what is there at a point. Blocks; raises what a replay raises."""
    with _connected(powers, now, name) as connection:
        objects = {
            (kind, name): sql
            for kind, name, table, sql in connection.execute(
                "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL"
            )
            if not is_engines(name) and fold(table) not in Ledger.TABLES
        }
        if name.startswith((MIGRATION, NOTHING)):
            return Point(objects)
        tables = [table for table in list_tables(connection) if not table.protected]
        return Point(objects, count_rows(connection, [t for t in tables if t.kind == "table"]))


@contextmanager
def _connected(powers: Powers, now: Standing, name: str) -> Iterator[Connection]:
    if name == NOW:
        with opened(powers) as connection:
            yield connection
        return
    with _opened(powers, now, name) as connection:
        end = time.monotonic() + READING_S
        connection.set_progress_handler(lambda: time.monotonic() > end, STEPS)
        yield connection


def _opened(powers: Powers, now: Standing, name: str) -> AbstractContextManager[Connection]:
    if name == NOTHING:
        return closing(open_scratch())
    if name.startswith(BACKUP):
        backup = find_backup(powers.database, name.removeprefix(BACKUP), powers.backups)
        return closing(open_immutable(backup.path))
    known = migrations_of(now)
    tags = [migration.tag for migration in known]
    tag = name.removeprefix(MIGRATION)
    if not name.startswith(MIGRATION) or tag not in tags:
        raise UsageProblem(f"There is no point {name!r} to compare with.", hint="Choose one of the list.")  # fmt: skip
    return replay.replay(known[: tags.index(tag) + 1], prepare=powers.prepare, schema_only=True)


def migrations_of(now: Standing) -> Sequence[Migration]:
    """Return the migrations that were applied, and then those that are pending."""
    if now.status is None:
        return ()
    applied = [entry.migration for entry in now.status.applied]
    return [*applied, *(entry.migration for entry in now.status.pending)]


def differences(before: Point, after: Point) -> list[Changed]:
    """Return what differs between two points; a different way to write the same does not count."""
    found = []
    for key in sorted(
        before.objects.keys() | after.objects.keys(), key=lambda k: (ORDER[k[0]], fold(k[1]))
    ):
        old, new = before.objects.get(key, ""), after.objects.get(key, "")
        if _same(old, new):
            continue
        what = "new" if not old else "gone" if not new else "changed"
        found.append(Changed(*key, what, new or old, *compared(old, new)))
    return found


def _same(old: str, new: str) -> bool:
    return old == new or normal(normal_tokens(old)) == normal(normal_tokens(new))


async def show(visit: Visit) -> Response:
    """Show what differs between two points; first, between the newest backup or migration and now."""
    powers = visit.powers
    now: Standing = await visit.studio.standing()
    choices = _choices(now)
    first = next((key for key, _ in choices if key.startswith(BACKUP)), NOTHING)
    left = visit.request.asked("from", first)
    right = visit.request.asked("to", NOW)
    before = await asyncio.to_thread(read_point, powers, now, left)
    after = await asyncio.to_thread(read_point, powers, now, right)
    found = differences(before, after)
    tables = sorted(before.rows.keys() | after.rows.keys(), key=fold)
    return await visit.page(
        "points.html",
        here="migrations",
        choices=choices,
        left=left,
        right=right,
        found=found,
        headline=f"{counted(len(found), 'difference')} in the schema"
        if found
        else "The same schema",
        rows=[(name, before.rows.get(name), after.rows.get(name)) for name in tables],
        counted_left=bool(before.rows),
        counted_right=bool(after.rows),
    )


def _choices(now: Standing) -> list[tuple[str, str]]:
    """Return the points, newest first: what names them in an address, and in words."""
    applied = len(now.status.applied) if now.status else 0
    known = [
        (MIGRATION + migration.tag, f"after {migration.tag}{' (pending)' if at >= applied else ''}")
        for at, migration in enumerate(migrations_of(now))
    ]
    backups = [
        (BACKUP + backup.name, f"backup of {str(backup.created_at)[:16].replace('T', ' ')}")
        for backup in now.catalog.backups
    ]
    return [(NOW, "the database now"), *backups, *reversed(known), (NOTHING, "an empty database")]


# --- the schema in code -------------------------------------------------------------------------

NO_VALUE: Final = "not_null_without_default"
FILL: Final = "fill:"
"""Fields of this name hold the value of a new column for the rows that are there."""


async def show_code(visit: Visit) -> Response:
    """Show what differs between the database and the schema in code, with the SQL that would end it."""
    found: Mapping[str, Any] = {}
    try:
        found = await visit.work("compare")
    except GatewayError as error:
        visit.problem = error
    return await visit.page(
        "code.html",
        here="migrations",
        found=found,
        may_write=await _may_write(visit),
    )


async def show_draft(visit: Visit) -> Response:
    """Show the migration that the schema in code needs, and what it risks, before it is written."""
    return await _draft(visit, visit.request.query)


async def _draft(visit: Visit, given: Fields) -> Response:
    decided = _decided(given)
    draft: Mapping[str, Any] = {}
    try:
        draft = await visit.work("draft", **decided)
    except GatewayError as error:
        visit.problem = visit.problem or error
    questions: dict[str, list[str]] = {}
    for text in draft.get("renames", ()):
        questions.setdefault(text.partition("=")[0], []).append(text)
    return await visit.page(
        "draft.html",
        here="migrations",
        draft=draft,
        seen=_digest(draft),
        decided=decided,
        questions=questions,
        fills={
            **dict(text.split("=", 1) for text in decided.get("fill", ())),
            **{h["object"]: "" for h in draft.get("hazards", ()) if h["kind"] == NO_VALUE},
        },
        may_write=await _may_write(visit),
    )


async def write_draft(visit: Visit) -> Response:
    """Write the migration as it was shown; a gateway in dev mode then applies it like any other."""
    decided = _decided(visit.request.form)
    try:
        if not await _may_write(visit):
            raise UsageProblem(
                "Only a gateway in dev mode writes migrations from here.",
                hint="Use `db generate`.",
            )
        draft = await visit.work("draft", **decided)
        if _digest(draft) != visit.request.given("seen"):
            raise UsageProblem(
                "The schema in code has changed since this was shown; nothing was written.",
                hint="This is what it needs now.",
            )
        if draft.get("deletes") or draft.get("refused"):
            visit.confirm(visit.powers.database.name, "written")
        written = await visit.work("generate", **decided)
        if visit.powers.record is not None:
            with suppress(*Error):  # it is written anyway
                await visit.powers.record(visit.powers.pool, "db.generate", written["tag"], None)
    except GatewayError as error:
        visit.problem = error
        return await _draft(visit, visit.request.form)
    visit.studio.forget_pending()
    files = counted(len(written["files"]), "file")
    return visit.back(address("migrations"), f"{written['tag']} is written: {files}.")


async def _may_write(visit: Visit) -> bool:
    return visit.powers.ask is None or bool(await visit.ask("dev.watched"))


def _decided(given: Fields) -> dict[str, list[str]]:
    """Return what a person decided about the next migration, as options of `db generate`."""
    found = {
        "rename": [text for text in given.get("rename", ()) if "=" in text],
        "name": [text.strip() for text in given.get("name", ()) if text.strip()],
        "fill": [
            f"{key.removeprefix(FILL)}={values[-1].strip()}"
            for key, values in given.items()
            if key.startswith(FILL) and values[-1].strip()
        ],
    }
    return {key: values for key, values in found.items() if values}


def _digest(draft: Mapping[str, Any]) -> str:
    return sha256(json.dumps(draft.get("statements")).encode()).hexdigest()


ROUTES: Final[dict[tuple[str, str], Page]] = {
    ("GET", "migrations/compare"): show,
    ("GET", "migrations/code"): show_code,
    ("GET", "migrations/draft"): show_draft,
    ("POST", "migrations/draft"): write_draft,
}
