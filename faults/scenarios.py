"""What is run under faults, on which database, and which contents are right afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from faults.databases import edited_world, new_world, old_world, served_world
from local_mcp_gateway.guard import GuardPolicy, guarded
from local_mcp_gateway.service.options import planner

if TYPE_CHECKING:
    from faults.runner import Runner
    from faults.world import World

JOURNAL_MODES = ("DELETE", "WAL")


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the program, and the database that it starts from."""

    name: str
    arguments: tuple[str, ...]
    make: Callable[[Runner, Path, str], World]
    serves: bool = False
    dev: bool = False
    """It is dev mode's, and so is the next start."""


COMMANDS = (
    Command("migrate", ("db", "migrate"), old_world),
    Command("serve", ("serve", "--port", "0"), served_world, serves=True),
    Command("rewind", ("serve", "--dev", "--port", "0"), edited_world, serves=True, dev=True),
    Command("restore", ("db", "restore", "latest", "--yes"), new_world),
    Command("reset", ("db", "reset", "--yes"), new_world),
    Command("down", ("db", "down", "--steps", "1", "--yes"), new_world),
    Command("seed", ("db", "seed", "faults/seed.sql"), new_world),
    Command("backup", ("db", "backup", "create"), new_world),
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A command on a database in one journal mode, with everything that may be true afterwards."""

    command: Command
    mode: str
    template: World
    old: str
    new: str
    """Content right after the command."""
    settled: dict[str, str]
    """Content after the command (old or new) → content after the next start."""
    tidy: frozenset[str]
    """Names of files that a run without faults, and the start after it, leave."""
    modules: tuple[str, ...]
    """What a run imports, in its order."""

    @property
    def name(self) -> str:
        return f"{self.command.name}/{self.mode}"


def start(command: Command, world: World) -> None:
    """Start the guard, by the function that `serve` and `db migrate` call."""
    policy = GuardPolicy(journal_new_files=command.dev)
    with guarded(world.database, world.migrations, policy=policy, planner=planner(dev=command.dev)):
        pass


def file_names(world: World) -> frozenset[str]:
    """Return the relative names of all files of the data folder, without their stamps."""
    found = set()
    for path in world.data.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file():
                name = str(path.relative_to(world.data))
                found.add(re.sub(r"\d{8}T\d{6}\.\d{3}Z", "<stamp>", name))
    return frozenset(found)
