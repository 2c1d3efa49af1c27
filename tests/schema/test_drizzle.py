"""Drizzle's snapshots, and Drizzle Kit itself going on from a folder of ours and we from its."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.errors import SchemaProblem
from local_mcp_gateway.schema import compare
from local_mcp_gateway.schema.drizzle import FIRST, read_snapshot, write_snapshot
from local_mcp_gateway.schema.plan import make_plan
from local_mcp_gateway.schema.source import read_sql
from tests.corpus.folders import FOLDERS, NotFetched, fetch
from tests.harness import Place
from tests.schema.drizzle_kit import NotInstalled, installed, migrations_between, on_a_terminal

SNAPSHOTS = Path(__file__).parent / "snapshots"
CASES = sorted((Path(__file__).parent / "cases").iterdir())


def snapshot(version: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SNAPSHOTS / f"{version}.json").read_text())
    return found


# --- without Node.js ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v6", "v7"])
def test_a_snapshot_of_drizzles_says_the_same_as_the_sql_that_it_wrote_with_it(
    version: str,
) -> None:
    assert compare(read_sql(SNAPSHOTS / f"{version}.sql"), read_snapshot(snapshot(version))) == ()


def test_we_write_the_snapshot_that_drizzle_writes() -> None:
    drizzles = snapshot("v6")
    ours = write_snapshot(read_sql(SNAPSHOTS / "v6.sql"))
    drizzles["id"] = ours["id"]
    drizzles["views"]["v"][
        "columns"
    ] = {}  # Drizzle repeats the columns of a view, and never reads them
    assert ours == drizzles


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_snapshot_of_any_schema_can_be_read_again(case: Path) -> None:
    schema = read_sql(case / "new.sql")
    once = read_snapshot(write_snapshot(schema))
    assert compare(once, read_snapshot(write_snapshot(once))) == ()
    assert set(once.tables) == set(schema.tables)


def test_names_that_no_sql_has_stay_in_the_next_snapshot(tmp_path: Path) -> None:
    (tmp_path / "schema.sql").write_text(
        "CREATE TABLE p (a INT, b INT, PRIMARY KEY (a, b));"
        "CREATE TABLE c (x INT REFERENCES p (a), y INT REFERENCES p (b));"
    )
    schema = read_sql(tmp_path / "schema.sql")
    drizzles = write_snapshot(schema)
    tables = drizzles["tables"]
    (link, usual) = tables["c"]["foreignKeys"].values()
    (key,) = tables["p"]["compositePrimaryKeys"].values()
    tables["c"]["foreignKeys"] = {"mine": {**link, "name": "mine"}, usual["name"]: usual}
    tables["p"]["compositePrimaryKeys"] = {"its": {**key, "name": "its"}}
    assert write_snapshot(schema, named_in=drizzles)["tables"] == tables
    del tables["c"]["foreignKeys"]["mine"]["columnsTo"]
    assert write_snapshot(schema, named_in=drizzles)["tables"] == write_snapshot(schema)["tables"]


def test_the_chain_goes_from_id_to_previous_id() -> None:
    first = write_snapshot(read_sql(SNAPSHOTS / "v6.sql"))
    second = write_snapshot(read_sql(SNAPSHOTS / "v6.sql"), first["id"])
    assert (first["prevId"], second["prevId"]) == (FIRST, first["id"])
    assert first["id"] != second["id"]


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"version": "5"},
        {"version": "6"},
        {"version": "6", "tables": {"t": 1}},
        {"version": "7", "ddl": [{}]},
    ],
)
def test_a_damaged_snapshot_is_said_to_be_damaged(broken: dict[str, Any]) -> None:
    with pytest.raises(SchemaProblem):
        read_snapshot(broken)


# --- with Drizzle Kit ---------------------------------------------------------------------------

TABLES = """CREATE TABLE `users` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`email` text NOT NULL,
	`age` integer DEFAULT 1 NOT NULL
);
CREATE TABLE `posts` (
	`id` text PRIMARY KEY NOT NULL,
	`user_id` integer,
	FOREIGN KEY (`user_id`) REFERENCES `users`(`id`) ON UPDATE no action ON DELETE cascade
);
CREATE UNIQUE INDEX `users_email_unique` ON `users` (`email`);
"""
SCHEMA_TS = """
import { sqliteTable, text, integer } from "drizzle-orm/sqlite-core";
export const users = sqliteTable("users", {
  id: integer("id").primaryKey({ autoIncrement: true }),
  email: text("email").notNull().unique(),
  age: integer("age").notNull().default(1),MORE
});
export const posts = sqliteTable("posts", {
  id: text("id").primaryKey(),
  userId: integer("user_id").references(() => users.id, { onDelete: "cascade" }),
});
"""


@pytest.fixture(scope="module")
def kit(request: pytest.FixtureRequest) -> Path:
    assert request.config.cache is not None
    try:
        return installed(Path(request.config.cache.mkdir("corpus")))
    except NotInstalled as why:
        pytest.skip(f"Drizzle Kit cannot be installed: {why}")


def drizzle(kit: Path, place: Place, command: str, more: str = "") -> str:
    """Run drizzle-kit on this place's folder with the schema above; it has to succeed."""
    work = place.root
    (work / "schema.ts").write_text(SCHEMA_TS.replace("MORE", more))
    (work / "drizzle.config.ts").write_text(
        'export default { dialect: "sqlite", schema: "./schema.ts", out: "./migrations" };'
    )
    if not (work / "node_modules").exists():
        (work / "node_modules").symlink_to(kit / "node_modules")
    done = subprocess.run(
        ["node", str(kit / "node_modules" / "drizzle-kit" / "bin.cjs"), command],
        cwd=work,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.drizzle
def test_drizzle_goes_on_from_a_folder_of_ours(place: Place, kit: Path) -> None:
    (place.root / "schema.sql").write_text(TABLES)
    assert place.run("db", "generate", "--schema", "schema.sql").code == 0
    (place.root / "schema.sql").write_text(
        TABLES.replace("`age` integer", "`bio` text,\n\t`age` integer")
    )
    assert place.run("db", "generate", "--schema", "schema.sql").code == 0
    bio = '\n  bio: text("bio"),'
    assert "Everything's fine" in drizzle(kit, place, "check")
    assert "No schema changes" in drizzle(kit, place, "generate", bio)
    drizzle(kit, place, "generate", bio + '\n  nick: text("nick"),')
    [newest] = place.folder.path.glob("0002_*.sql")
    assert newest.read_text() == "ALTER TABLE `users` ADD `nick` text;"
    assert place.run("db", "check").code == 0
    assert place.run("db", "migrate").code == 0


@pytest.mark.drizzle
def test_we_go_on_from_a_folder_of_drizzles(place: Place, kit: Path) -> None:
    drizzle(kit, place, "generate")
    (place.root / "schema.sql").write_text(TABLES)
    assert place.run("db", "generate", "--schema", "schema.sql", "--check").code == 0
    assert place.run("db", "check").code == 0
    (place.root / "schema.sql").write_text(
        TABLES.replace("`age` integer", "`bio` text,\n\t`age` integer")
    )
    assert place.run("db", "generate", "--schema", "schema.sql").code == 0
    assert "Everything's fine" in drizzle(kit, place, "check")
    assert "No schema changes" in drizzle(kit, place, "generate", '\n  bio: text("bio"),')


@pytest.mark.drizzle
@pytest.mark.corpus
@pytest.mark.parametrize("name", ["promptfoo", "inkeep-agents-core", "alchemy"])
def test_we_never_rebuild_more_tables_than_drizzle_on_the_same_snapshots(
    request: pytest.FixtureRequest, kit: Path, name: str
) -> None:
    assert request.config.cache is not None
    [real] = [folder for folder in FOLDERS if folder.name == name]
    try:
        folder = fetch(real, Path(request.config.cache.mkdir("corpus")))
    except NotFetched as why:
        pytest.skip(f"the corpus cannot be fetched: {why}")
    chain = [
        json.loads(file.read_text()) for file in sorted((folder / "meta").glob("*_snapshot.json"))
    ]
    pairs = list(itertools.pairwise(chain))
    for (old, new), drizzles in zip(pairs, migrations_between(kit, pairs), strict=True):
        assert isinstance(drizzles, list), drizzles
        ours = make_plan(read_snapshot(old), read_snapshot(new))
        assert ours.rebuilds <= sum("INSERT INTO `__new_" in statement for statement in drizzles)


@pytest.mark.drizzle
def test_the_terminal_for_drizzle_ends_with_the_command(kit: Path) -> None:
    assert on_a_terminal(["node", "-e", "process.exit(process.stdin.isTTY ? 3 : 4)"], kit)[0] == 3
