"""The migrations: where the database stands, what comes next, what was, and the backups.

Reading takes no lock and writes nothing. Rehearsals and backups are work of the guard, which is passed
in; what is pending is applied by the gateway's own `reload`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway.backup import Backup, read_catalog
from local_mcp_gateway.errors import GatewayError, UsageProblem
from local_mcp_gateway.formats import counted, duration
from local_mcp_gateway.migrate import Status, read_events
from local_mcp_gateway.studio.http import address, redirect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from local_mcp_gateway.backup import BackupCatalog
    from local_mcp_gateway.migrate import Migration
    from local_mcp_gateway.studio.http import Response
    from local_mcp_gateway.studio.visit import Page, Powers, Visit

SHOWN: Final = 40
"""How many past entries a page has."""
LONGEST_SQL: Final = 20_000
"""How many characters of a migration a list shows."""
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
            return f"{counted(len(problems), 'problem')} to mend before anything is applied"
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
    sql: str | None = None
    tag: str | None = None
    chip: str = "ok"


def standing(powers: Powers) -> Standing:
    """Read where the database stands. Blocks."""
    catalog = read_catalog(powers.database, powers.backups)
    if powers.migrations is None:
        return Standing(None, catalog)
    try:
        status = Status.read(
            powers.database, powers.migrations, prepare=powers.prepare, look=powers.look
        )
    except GatewayError as error:
        return Standing(None, catalog, error)
    return Standing(status, catalog)


def count_waiting(powers: Powers) -> int:
    """Return how many migrations are pending, problems included. Blocks."""
    if powers.migrations is None:
        return 0
    try:
        status = Status.read(
            powers.database, powers.migrations, prepare=powers.prepare, look=powers.look
        )
    except GatewayError:
        return 1
    return len(status.pending) + len(status.problems)


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
        if known is not None and known.program_version:
            facts.append(f"by {known.program_version}")
        if known is None:
            facts.append("recorded by Drizzle")
        when = entry.applied_at or entry.created_at
        made = Past(
            entry.tag,
            when,
            tuple(facts),
            known.backup if known else None,
            entry.migration.sql[:LONGEST_SQL],
            entry.tag,
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
    now = await asyncio.to_thread(standing, powers)
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
        watched=watched,
        refused=await visit.ask("dev.problem") if watched else None,
        rehearsal=visit.studio.rehearsal_of(_pending_key(now)),
        size=powers.database.stat().st_size if powers.database.exists() else 0,
    )


def _pending_key(now: Standing) -> tuple[str, ...]:
    return tuple(p.migration.hash for p in now.status.pending) if now.status else ()


async def rehearse(visit: Visit) -> Response:
    """Run what is pending on a copy, and show how that went."""
    now = await asyncio.to_thread(standing, visit.powers)
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
    visit.studio.forget_waiting()
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
    if problem := visit.unconfirmed(tag, "taken back"):
        raise problem
    done = await visit.ask("dev.drop", tag=tag) if visit.powers.ask else None
    if done is None:
        raise UsageProblem(
            "Only a gateway in dev mode takes a migration back.", hint=f"Use `db down` for {tag}."
        )
    visit.studio.forget_waiting()
    lost = "; ".join(done["lost"])
    return visit.back(
        address("migrations"), f"{tag} is taken back. " + (f"Lost: {lost}." if lost else "")
    )


async def show_backups(visit: Visit) -> Response:
    """Show the backups, newest first."""
    now = await asyncio.to_thread(standing, visit.powers)
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
    visit.studio.forget_waiting()
    return visit.back(address("migrations", "backups"), f"Made and verified {made['name']}.")


async def verify(visit: Visit) -> Response:
    """Read a backup in full and check it."""
    name = visit.request.given("name")
    await visit.work("verify", name=name)
    return visit.back(
        address("migrations", "backups"), f"{name} is whole: size, hash and every page are right."
    )


async def restore(visit: Visit) -> Response:
    """Go back to a backup, once the name of the database was typed."""
    name = visit.request.given("name")
    if problem := visit.unconfirmed(visit.powers.database.name, "restored"):
        raise problem
    if visit.powers.ask is None:
        done = await visit.work("restore", name=name)
    else:
        done = await visit.ask("db.restore", name=name)
    visit.studio.forget_waiting()
    said = [f"The database is as it was in {name}."]
    if done.get("applied"):
        said.append(f"Applied again: {', '.join(done['applied'])}.")
    if done["replaced"]:
        said.append(f"What it replaced is kept: {Path(done['replaced']).name}.")
    return visit.back(address("migrations"), " ".join(said))


async def show_file(visit: Visit) -> Response:
    """Show one migration in full."""
    now = await asyncio.to_thread(standing, visit.powers)
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
    return await visit.page("migration.html", migration=found, down=down)


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
