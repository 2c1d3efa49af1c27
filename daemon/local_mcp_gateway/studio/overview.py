"""The start page: whether all is well, and what needs a person."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway.formats import counted, now_ms
from local_mcp_gateway.studio.calls import HOUR_MS, Traffic, bars, traffic
from local_mcp_gateway.studio.http import Response, address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from local_mcp_gateway.studio import migrations
    from local_mcp_gateway.studio.visit import Page, Visit

WORDS: Final = {
    "ready": ("ok", "up"),
    "idle": ("off", "idle"),
    "connecting": ("warn", "starting"),
    "needs_sign_in": ("warn", "sign in"),
    "failed": ("bad", "down"),
}
"""State of a server → its chip and the word next to it."""


@dataclass(frozen=True, slots=True)
class Task:
    """Something that waits for a person: what it is, and the button that does it or leads there."""

    chip: str
    title: str
    text: str
    label: str
    to: str
    """A page; with `waits`, what the button's form is sent to."""
    waits: str = ""
    """What the button says while its form is being answered."""
    about: str = ""
    """The page with more about it, next to a button that does something."""


@dataclass(frozen=True, slots=True)
class ServerLine:
    """A server as lists show it."""

    name: str
    kind: str
    says: str
    chip: str
    word: str
    tools: int | None
    traffic: Traffic
    profiles: tuple[str, ...]
    active: bool


def server_lines(servers: list[dict[str, Any]], calls: Mapping[str, Traffic]) -> list[ServerLine]:
    """Return what lists show of each server, those that need a person first."""
    found = []
    for server in servers:
        live = server.get("live") or {}
        chip, word = WORDS.get(live.get("state", "idle"), ("off", "idle"))
        if not server["active"]:
            chip, word = "off", "off"
        elif live.get("held"):
            chip, word = "warn", f"{len(live['held'])} held"
        found.append(
            ServerLine(
                server["name"],
                server["kind"],
                live.get("reason") or "",
                chip,
                word,
                live.get("tools"),
                calls.get(server["name"], Traffic()),
                tuple(server["profiles"]),
                server["active"],
            )
        )
    order = {"bad": 0, "warn": 1, "ok": 2, "off": 3}
    return sorted(found, key=lambda line: (order[line.chip], line.name))


def _tasks(
    servers: list[dict[str, Any]],
    standing: migrations.Standing,
    replica: Mapping[str, Any] | None,
) -> list[Task]:
    """Return what waits for a person, worst first."""
    found = [task for server in servers for task in _of_server(server)]
    found += [*_of_database(standing), *_of_replica(replica)]
    return sorted(found, key=lambda task: task.chip != "bad")


def _of_replica(replica: Mapping[str, Any] | None) -> Iterator[Task]:
    if replica is not None and replica["state"] in {"failed", "behind"}:
        title = "The replica fails" if replica["state"] == "failed" else "The replica is behind"
        text = f"{replica['problem'] or 'It does not say why.'} {replica['hint'] or ''}"
        yield Task("bad", title, text.strip(), "Backups", address("migrations", "backups"))


def _of_server(server: Mapping[str, Any]) -> Iterator[Task]:
    live, name = server.get("live") or {}, server["name"]
    if live.get("state") == "failed" and server["active"]:
        reason = (live.get("reason") or "It does not answer").rstrip(".")
        reason = reason[:1].upper() + reason[1:]
        yield Task(
            *("bad", f"{name} is down", f"{reason}.", "Try again"),
            *(address("servers", name, "test"), "Connecting…", address("servers", name)),
        )
    if live.get("state") == "needs_sign_in" and server["active"]:
        text = "Its tools are missing until you sign in."
        yield Task(
            *("warn", f"{name} needs a sign-in", text, "Sign in"),
            *(address("servers", name, "sign-in"), "Asking where…", address("servers", name)),
        )
    if held := live.get("held"):
        text = f"No client sees {'it' if len(held) == 1 else 'them'} until you decide: {', '.join(held[:4])}."
        title = f"{counted(len(held), 'tool')} of {name} {'is' if len(held) == 1 else 'are'} held"
        yield Task("warn", title, text, "Compare", address("held", name))


def _of_database(standing: migrations.Standing) -> Iterator[Task]:
    line, backups = address("migrations"), address("migrations", "backups")
    for problem in standing.status.problems if standing.status else ():
        yield Task("bad", problem.message, problem.hint, "Migrations", line)
    if standing.status and (pending := standing.status.pending):
        title = pending[0].migration.tag if len(pending) == 1 else f"{len(pending)} migrations"
        hazards = " ".join(hazard.message for one in pending for hazard in one.hazards)
        yield Task(
            *("warn", f"{title} {'is' if len(pending) == 1 else 'are'} pending"),
            *(hazards or "No hazard was found.", "Rehearse"),
            *(address("migrations", "rehearse"), "Rehearsing on a copy…", line),
        )
    if standing.status and standing.status.drift:
        differences = counted(len(standing.status.drift), "difference")
        text = f"{differences} between the database and what the migrations make."
        yield Task("warn", "The schema has drifted", text, "Compare", line)
    if standing.problem is not None:
        yield Task("bad", standing.problem.message, standing.problem.hint, "Migrations", line)
    if standing.newest_backup is None:
        text = "One is made before each migration. Make one now, and there is always one to go back to."
        title = "There is no backup of this database"
        yield Task("warn", title, text, "Back up now", backups, "Backing up…", backups)


async def show(visit: Visit) -> Response:
    """Show the overview."""
    database = visit.powers.pool
    assert database is not None, "the overview is there with a gateway only"
    status = await visit.ask("status")
    servers = await visit.ask("server.list")
    since = now_ms() - HOUR_MS
    calls = await traffic(database, since)
    standing: migrations.Standing = await visit.studio.standing()
    day = await database.fetch_one(
        "SELECT count(*), sum(status <> 'ok') FROM debug_logs WHERE created_at >= ?",
        (now_ms() - 24 * HOUR_MS,),
    )
    lines = server_lines(servers, calls)
    active = [line for line in lines if line.active]
    good = [line for line in active if line.chip != "bad"]
    return await visit.page(
        "overview.html",
        status=200,
        lines=lines,
        headline=_headline(len(good), len(active), status["problem"]),
        tasks=_tasks(servers, standing, status["replica"]),
        standing=standing,
        hour=sum(item.calls for item in calls.values()),
        hour_failed=sum(item.failed for item in calls.values()),
        slowest=max((item.p95_ms for item in calls.values()), default=0.0),
        median=max((item.median_ms for item in calls.values()), default=0.0),
        day=day[0] if day else 0,
        day_failed=(day[1] if day else 0) or 0,
        bars=await bars(database, since, "created_at >= ?", [since]),
        start=await asyncio.to_thread(visit.powers.last_start),
        sessions=status["sessions"],
        profiles=status["profiles"],
    )


def _headline(good: int, active: int, problem: Mapping[str, Any] | None) -> str:
    if problem is not None:
        return "The gateway cannot write its database"
    if not active:
        return "Ready, with no servers yet"
    if good == active:
        return f"Serving {'its only server' if active == 1 else f'all {active} servers'}"
    return f"Serving {good} of {counted(active, 'server')}"


ROUTES: Final[dict[tuple[str, str], Page]] = {("GET", ""): show}
