"""Judge what a fault left: is everything that the guard promises still true."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from faults.databases import content
from faults.scenarios import Scenario, file_names, start
from local_mcp_gateway.backup import read_catalog, verify_backup
from local_mcp_gateway.errors import GatewayError

if TYPE_CHECKING:
    from faults.world import World


def judge(scenario: Scenario, world: World, exit_code: int, aside: Path) -> list[str]:
    """Return what is wrong, as sentences; empty when every promise holds. `aside` is scratch space.

    `exit_code` is the command's own, or negative when it was killed. What is on the disk is first
    examined on a copy, as another program would find it; then the next start is made on the original.
    """
    wrong: list[str] = []
    state = _as_found(world, aside, wrong)
    if state is not None and state not in (scenario.old, scenario.new):
        wrong.append("content is neither the old nor the new")
    if exit_code == 0 and state != scenario.new:
        wrong.append("exit 0, but the result is not there")
    wrong += backups_wrong(world)
    if wrong:
        return wrong
    return _next_start(scenario, world, state)


def _as_found(world: World, aside: Path, wrong: list[str]) -> str | None:
    """Look at a copy of the data folder; return the content's digest."""
    shutil.rmtree(aside, ignore_errors=True)
    # A killed gateway leaves its control socket, which cannot be copied; the next one replaces it.
    shutil.copytree(world.data, aside, ignore=shutil.ignore_patterns("*.sock"))
    database = aside / "gateway.db"
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
            if verdict != "ok":
                wrong.append(f"integrity_check: {verdict}")
            orphans = connection.execute("PRAGMA foreign_key_check").fetchall()
            if orphans:
                wrong.append(f"foreign_key_check: {len(orphans)} orphans")
        return content(database)
    except sqlite3.Error as error:
        wrong.append(f"does not open: {error}")
        return None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def backups_wrong(world: World) -> list[str]:
    """Every backup that is listed must verify; a file that only looks like one must not be there."""
    listing = read_catalog(world.database)
    wrong = []
    for backup in listing.backups:
        try:
            verify_backup(backup)
        except GatewayError as error:
            wrong.append(f"a listed backup does not verify: {error.message}")
    # A file whose manifest is still under its temporary name is not listed: the next start finishes it.
    for unusable in listing.unusable:
        pending = unusable.path.with_name(f".{unusable.path.with_suffix('.json').name}.tmp")
        if not pending.exists() and unusable.reason != "it has no manifest":
            wrong.append(f"a listed backup cannot be used: {unusable.path.name}: {unusable.reason}")
    return wrong


def _next_start(scenario: Scenario, world: World, state: str | None) -> list[str]:
    """Start again, and look around."""
    try:
        start(scenario.command, world)
    except GatewayError as error:
        return [f"the next start fails ({error.code}): {error.message}"]
    except Exception as error:  # noqa: BLE001  a traceback is a finding, not the end of the run
        return [f"the next start crashes: {type(error).__name__}: {error}"]
    wrong = backups_wrong(world)
    listing = read_catalog(world.database)
    wrong += [f"stray file {item.path.name}: {item.reason}" for item in listing.unusable]
    if state is not None and content(world.database) != scenario.settled[state]:
        wrong.append("the next start does not end in the new schema with every row")
    found = sorted(file_names(world) - scenario.tidy)
    wrong += [f"stray file {name}" for name in found if not SETTLED.fullmatch(name)]
    loose = [p.name for p in world.data.rglob("*") if p.is_file() and p.stat().st_mode & 0o077]
    wrong += [f"readable by others: {name}" for name in loose]
    return wrong


SETTLED = re.compile(
    r"gateway\.db(\.lock)?"
    r"|backups/gateway-<stamp>-before-\d+_(rebuild_parents|grow_notes)\.(db|json)"
)
"""What any start may leave: the database, its lock, and a backup from before what was pending."""
