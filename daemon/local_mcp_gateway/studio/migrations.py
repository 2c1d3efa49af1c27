"""Pages of the migrations: status, pending ones, history and backups.

Reading takes no lock and writes nothing. The guard, which is passed in, rehearses and backs up; the
gateway's own `reload` applies what is pending.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway.backup import Backup, BackupCatalog, read_catalog
from local_mcp_gateway.database import Error
from local_mcp_gateway.errors import GatewayError, UsageProblem
from local_mcp_gateway.formats import counted, duration
from local_mcp_gateway.migrate import Migration, Status, read_events
from local_mcp_gateway.studio.http import Response, address, redirect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from local_mcp_gateway.studio.visit import Page, Powers, Visit

SHOWN: Final = 40
"""How many past entries a page has."""
LONGEST_SQL: Final = 20_000
"""How many characters of a pending migration the time line shows."""
LONGEST_PAST: Final = 2_000
"""How many of one that is applied."""
LONGEST_FILE: Final = 1_000_000
"""How many characters its own page shows."""
LEDGER: Final = {"__drizzle_migrations": "*", "__guard_history": "count(*), max(id)"}
"""What tells whether a table of the guard has changed; rows of its history are only ever added."""
WORDS: Final = {
    "adopted": "was adopted as it is",
    "trusted": "was adopted: its file was trusted",
    "edit_accepted": "its edited file was accepted",
    "marked_applied": "was marked as applied",
    "renumbered": "was renumbered",
    "reverted": "was taken back",
    "restored": "The database was restored from a backup",
    "reset": "The database was created again",
    "seeded": "The database was seeded",
    "reindexed": "The indexes were rebuilt",
    "rewound": "The database was rewound, in dev mode",
    "replicated": "The replica had everything before what follows",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a database stands; `problem` says why it cannot be told."""

    status: Status | None
    catalog: BackupCatalog
    problem: GatewayError | None = None

    @property
    def newest_backup(self) -> Backup | None:
        """Return the newest backup that can be used."""
        return self.catalog.backups[0] if self.catalog.backups else None

    @property
    def headline(self) -> str:
        """Say where the database stands and what comes next."""
        if self.status is None:
            return "The migrations cannot be read"
        if self.status.state == "damaged":
            return "The database is damaged"
        if problems := self.status.problems:
            return f"{counted(len(problems), 'problem')} to fix before anything is applied"
        if pending := self.status.pending:
            return f"{counted(len(pending), 'migration').capitalize()} {'is' if len(pending) == 1 else 'are'} pending"
        if self.status.drift:
            return "Up to date, but the schema has drifted"
        return "Up to date"


@dataclass(frozen=True, slots=True)
class Past:
    """One thing that happened to the database."""

    title: str
    at: object
    facts: tuple[str, ...]
    backup: str | None = None
    sql: str = ""
    tag: str | None = None
    chip: str = "ok"
    hazards: tuple[str, ...] = ()


class Standings:
    """Where the database stands, read again only when the folder, the ledger or the schema has changed.

    A reading parses what is pending and tries it in memory: nothing for most folders, seconds for a
    migration of many megabytes, and every page says how many are pending.
    """

    def __init__(self, powers: Powers) -> None:
        self._powers = powers
        self._one_at_a_time = threading.Lock()
        self._key: object = None
        self._status: Status | None = None
        self._problem: GatewayError | None = None

    def read(self) -> Standing:
        """Return where it stands now. Blocks."""
        powers = self._powers
        catalog = read_catalog(powers.database, powers.backups)
        if powers.migrations is None:
            return Standing(None, catalog)
        with self._one_at_a_time:
            key = self._changed_with()
            if key is None or key != self._key:
                self._read(powers.migrations)
                self._key = key
            return Standing(self._status, catalog, self._problem)

    def count_waiting(self) -> int:
        """Return how many migrations are pending, problems included. Blocks."""
        if self._powers.migrations is None:
            return 0
        now = self.read()
        if now.status is None:
            return 1
        return len(now.status.pending) + len(now.status.problems)

    def _read(self, folder: Path) -> None:
        powers = self._powers
        self._status = self._problem = None
        try:
            self._status = Status.read(
                powers.database, folder, prepare=powers.prepare, look=powers.look
            )
        except GatewayError as error:
            self._problem = error

    def _changed_with(self) -> object:
        """Return a value that changes with everything that a status depends on; None if it cannot be told."""
        assert self._powers.migrations is not None, "asked for with a folder only"
        try:
            files = sorted(self._powers.migrations.rglob("*"))
            folder = [(file.name, (s := file.stat()).st_size, s.st_mtime_ns) for file in files]
            with self._powers.look(self._powers.database) as connection:
                (version,) = connection.execute("PRAGMA schema_version").fetchone()
                known = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
                ledger = [
                    connection.execute(f"SELECT {columns} FROM {table}").fetchall()
                    for table, columns in LEDGER.items()
                    if table in known
                ]
            return folder, self._powers.database.stat().st_ino, version, ledger
        except (*Error, OSError):
            return None


def past(powers: Powers, status: Status) -> list[Past]:
    """Return what happened to the database, newest first. Blocks."""
    recorded = read_events(powers.database, powers.look)
    applied = {entry.hash: entry for entry in recorded if entry.event.startswith("applied")}
    found: list[tuple[str, int, Past]] = []
    for at, entry in enumerate(status.applied):
        known = applied.get(entry.hash)
        facts = [counted(len(entry.migration.statements), "statement")]
        if entry.duration_ms is not None:
            facts.insert(0, duration(entry.duration_ms))
        if known is None:
            facts.append("recorded by Drizzle")
        else:
            if known.rows_touched:
                facts.append(f"{counted(known.rows_touched, 'row')} touched")
            if known.rehearsed_ms is not None:
                facts.append(f"rehearsed in {duration(known.rehearsed_ms)}")
            if known.program_version:
                facts.append(f"by {known.program_version}")
        when = entry.applied_at or entry.created_at
        made = Past(
            entry.tag,
            when,
            tuple(facts),
            known.backup if known else None,
            entry.migration.sql,
            entry.tag,
            hazards=(known.hazards or ()) if known else (),
        )
        found.append((str(entry.applied_at or ""), at, made))
    for at, event in enumerate(recorded):
        if event.event in WORDS:
            said = WORDS[event.event]
            title = f"{event.tag}: {said}" if event.tag else said
            facts = [f"by {event.program_version}"] if event.program_version else []
            chip = "warn" if event.event in {"restored", "reset", "rewound", "reverted"} else "ok"
            found.append(
                (
                    event.applied_at,
                    at,
                    Past(title, event.applied_at, tuple(facts), event.backup, chip=chip),
                )
            )
    found.sort(key=lambda item: item[:2], reverse=True)
    return [item for _, _, item in found]


async def show(visit: Visit) -> Response:
    """Show the time line: what is pending on top, then now, then what was."""
    powers = visit.powers
    now: Standing = await visit.studio.standing()
    history: Sequence[Past] = ()
    if now.status is not None and now.status.state != "damaged":
        history = await asyncio.to_thread(past, powers, now.status)
    whole = bool(visit.request.asked("all"))
    watched = None if powers.ask is None else await visit.ask("dev.watched")
    return await visit.page(
        "migrations.html",
        standing=now,
        past=history if whole else history[:SHOWN],
        left=0 if whole else max(0, len(history) - SHOWN),
        longest=LONGEST_SQL,
        longest_past=LONGEST_PAST,
        watched=watched,
        refused=await visit.ask("dev.problem") if watched else None,
        rehearsal=visit.studio.rehearsal_of(_pending_key(now)),
        size=powers.database.stat().st_size if powers.database.exists() else 0,
    )


def _pending_key(now: Standing) -> tuple[str, ...]:
    return tuple(p.migration.hash for p in now.status.pending) if now.status else ()


async def rehearse(visit: Visit) -> Response:
    """Run what is pending on a copy, and show how that went."""
    now: Standing = await visit.studio.standing()
    key = _pending_key(now)
    outcome: Mapping[str, Any]
    try:
        outcome = {"done": await visit.work("rehearse")}
    except GatewayError as error:
        outcome = {"error": error}
    visit.studio.keep_rehearsal(key, outcome)
    return redirect(address("migrations"))


async def apply(visit: Visit) -> Response:
    """Apply what is pending, as `reload` does."""
    if visit.powers.ask is None:
        raise UsageProblem("No gateway runs here.", hint="Apply it with `db migrate`.")
    done = await visit.ask("reload")
    visit.studio.forget_pending()
    names = ", ".join(done["applied"])
    text = (
        f"Applied {names}; writers waited {duration(done['paused_ms'])}."
        if names
        else "Nothing was pending."
    )
    return visit.back(address("migrations"), text)


async def take_back(visit: Visit) -> Response:
    """Take the newest migration back and delete its files, in dev mode, once its name was typed."""
    tag = visit.request.given("tag")
    visit.confirm(tag, "taken back")
    done = await visit.ask("dev.drop", tag=tag) if visit.powers.ask else None
    if done is None:
        raise UsageProblem(
            "Only a gateway in dev mode takes a migration back.", hint=f"Use `db down` for {tag}."
        )
    visit.studio.forget_pending()
    lost = "; ".join(done["lost"])
    return visit.back(
        address("migrations"), f"{tag} is taken back. " + (f"Lost: {lost}." if lost else "")
    )


async def show_backups(visit: Visit) -> Response:
    """Show the backups, newest first."""
    now: Standing = await visit.studio.standing()
    live = await visit.ask("status") if visit.powers.ask else {}
    return await visit.page(
        "backups.html",
        standing=now,
        catalog=now.catalog,
        live=live,
        replica=live.get("replica"),
        copies=live.get("copies"),
    )


async def back_up(visit: Visit) -> Response:
    """Make a backup."""
    made = await visit.work("backup")
    visit.studio.forget_pending()
    return visit.back(address("migrations", "backups"), f"Made and verified {made['name']}.")


async def verify(visit: Visit) -> Response:
    """Read a backup in full and check it."""
    name = visit.request.given("name")
    await visit.work("verify", name=name)
    return visit.back(
        address("migrations", "backups"),
        f"{name} is intact: its size, its hash and every page are right.",
    )


async def restore(visit: Visit) -> Response:
    """Go back to a backup, once the name of the database was typed."""
    name = visit.request.given("name")
    visit.confirm(visit.powers.database.name, "restored")
    if visit.powers.ask is None:
        done = await visit.work("restore", name=name)
    else:
        done = await visit.ask("db.restore", name=name)
    visit.studio.forget_pending()
    said = [f"The database is as it was in {name}."]
    if done.get("applied"):
        said.append(f"Applied again: {', '.join(done['applied'])}.")
    if done["replaced"]:
        said.append(f"What it replaced is kept: {Path(done['replaced']).name}.")
    return visit.back(address("migrations"), " ".join(said))


async def show_file(visit: Visit) -> Response:
    """Show one migration in full."""
    now: Standing = await visit.studio.standing()
    (tag,) = visit.arguments
    known: list[Migration] = []
    if now.status is not None:
        known = [entry.migration for entry in now.status.applied]
        known += [entry.migration for entry in now.status.pending]
    found = next((migration for migration in known if migration.tag == tag), None)
    if found is None:
        return await visit.page(
            "error.html",
            status=404,
            message=f"There is no migration {tag}.",
            hint="The time line has all of them.",
        )
    down = await asyncio.to_thread(_down_text, found)
    return await visit.page("migration.html", migration=found, down=down, longest=LONGEST_FILE)


def _down_text(migration: Migration) -> str | None:
    return migration.down.read_text("utf-8", "replace") if migration.down else None


ROUTES: Final[dict[tuple[str, str], Page]] = {
    ("GET", "migrations"): show,
    ("POST", "migrations/rehearse"): rehearse,
    ("POST", "migrations/apply"): apply,
    ("POST", "migrations/take-back"): take_back,
    ("GET", "migrations/backups"): show_backups,
    ("POST", "migrations/backups"): back_up,
    ("POST", "migrations/backups/verify"): verify,
    ("POST", "migrations/backups/restore"): restore,
    ("GET", "migrations/file/*"): show_file,
}
