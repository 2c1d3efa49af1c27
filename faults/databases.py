"""The databases that the laboratory breaks: one with rebuilds, cascades and data still to come."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from faults.world import REPOSITORY, World

if TYPE_CHECKING:
    from faults.runner import Runner


FIRST = """
CREATE TABLE parents (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
--> statement-breakpoint
CREATE TABLE children (
    id INTEGER PRIMARY KEY,
    parent_id INTEGER NOT NULL REFERENCES parents (id) ON DELETE CASCADE,
    name TEXT NOT NULL
);
--> statement-breakpoint
CREATE INDEX children_by_parent ON children (parent_id);
--> statement-breakpoint
CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
--> statement-breakpoint
CREATE TABLE seen (note_id INTEGER NOT NULL);
--> statement-breakpoint
CREATE TRIGGER notes_seen AFTER INSERT ON notes BEGIN INSERT INTO seen VALUES (new.id); END;
"""
REBUILD = """
CREATE TABLE parents_new (id INTEGER PRIMARY KEY, name TEXT NOT NULL CHECK (name <> ''), rank INTEGER DEFAULT 0);
--> statement-breakpoint
INSERT INTO parents_new (id, name) SELECT id, name FROM parents;
--> statement-breakpoint
DROP TABLE parents;
--> statement-breakpoint
ALTER TABLE parents_new RENAME TO parents;
"""
GROW = """
ALTER TABLE notes ADD COLUMN length INTEGER;
--> statement-breakpoint
UPDATE notes SET length = length(body);
--> statement-breakpoint
CREATE INDEX notes_by_length ON notes (length);
"""
GROW_DOWN = """
DROP INDEX notes_by_length;
--> statement-breakpoint
ALTER TABLE notes DROP COLUMN length;
"""
PENDING = (("rebuild_parents", REBUILD, None), ("grow_notes", GROW, GROW_DOWN))


def served_world(runner: Runner, root: Path, journal_mode: str) -> World:
    """Make the same on top of the program's own schema, without which it does not serve."""
    return old_world(runner, root, journal_mode, shipped=True)


def edited_world(runner: Runner, root: Path, journal_mode: str) -> World:
    """Make one that was created with every migration, of which one is edited since.

    No down and no backup leads back, and there are rows to carry over.
    """
    world = World(root)
    world.data.mkdir(mode=0o700, parents=True)
    shutil.copytree(REPOSITORY / "migrations", world.migrations)
    tag = world.add("first", FIRST)
    for name, sql, down in PENDING:
        world.add(name, sql, down)
    runner.must(world, "db", "migrate")
    fill(world, 60, journal_mode)
    edited = FIRST.replace("body TEXT NOT NULL", "body TEXT NOT NULL, pinned INTEGER DEFAULT 0")
    (world.migrations / f"{tag}.sql").write_text(edited)
    return world


def old_world(
    runner: Runner, root: Path, journal_mode: str, *, rows: int = 60, shipped: bool = False
) -> World:
    """Make a database with the first migration and rows; the others are pending."""
    world = World(root)
    world.data.mkdir(mode=0o700, parents=True)
    if shipped:
        shutil.copytree(REPOSITORY / "migrations", world.migrations)
    world.add("first", FIRST)
    runner.must(world, "db", "migrate")
    fill(world, rows, journal_mode)
    for name, sql, down in PENDING:
        world.add(name, sql, down)
    return world


def fill(world: World, rows: int, journal_mode: str) -> None:
    """Write rows into the tables of the first migration."""
    with closing(sqlite3.connect(world.database, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        for n in range(1, rows + 1):
            connection.execute("INSERT INTO parents (id, name) VALUES (?, ?)", (n, f"parent {n}"))
            connection.execute("INSERT INTO children VALUES (?, ?, ?)", (n * 2, n, "a"))
            connection.execute("INSERT INTO children VALUES (?, ?, ?)", (n * 2 + 1, n, "b"))
            note = (n, f"note {n} " * 40)
            connection.execute("INSERT INTO notes (id, body) VALUES (?, ?)", note)
        connection.execute("COMMIT")
        connection.execute(f"PRAGMA journal_mode={journal_mode}").fetchall()


def new_world(runner: Runner, root: Path, journal_mode: str) -> World:
    """Make a database with everything applied, a backup from before, and rows written since."""
    world = old_world(runner, root, journal_mode)
    runner.must(world, "db", "migrate")
    with closing(sqlite3.connect(world.database, isolation_level=None)) as connection:
        connection.execute(
            "INSERT INTO notes (id, body, length) VALUES (1000, 'written since', 13)"
        )
        connection.execute(f"PRAGMA journal_mode={journal_mode}").fetchall()
    return world


def content(database: Path) -> str:
    """Return a digest of schema, rows, ledger and history (without times); equal means the same.

    Opens the file for writing, as the next program would: what SQLite has to recover, it recovers.
    """
    with closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True)) as connection:
        parts = [
            line
            for line in connection.iterdump()
            if "__guard_history" not in line and "sqlite_sequence" not in line
        ]
        has_history = connection.execute(
            "SELECT 1 FROM sqlite_schema WHERE name = '__guard_history'"
        ).fetchone()
        if has_history:
            events = connection.execute("SELECT event, tag FROM __guard_history ORDER BY id")
            parts += [f"{event} {tag}" for event, tag in events]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
