"""Either tool takes over from the other, proven with the real drizzle."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from local_mcp_gateway.guard import guarded
from tests.drizzle.toolbox import Toolbox
from tests.harness import Place

pytestmark = pytest.mark.drizzle

FIRST = "CREATE TABLE `users` (\n\t`id` integer PRIMARY KEY,\n\t`name` text NOT NULL\n);\n"
SECOND = "CREATE TABLE `posts` (\n\t`id` integer PRIMARY KEY,\n\t`user` integer REFERENCES `users`(`id`)\n);\n"


def ledger(database: Path, columns: str = "id, hash, created_at") -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(
            f"SELECT {columns} FROM __drizzle_migrations ORDER BY rowid"
        ).fetchall()


def ledger_sql(database: Path) -> str:
    with closing(sqlite3.connect(database)) as connection:
        (sql,) = connection.execute(
            "SELECT sql FROM sqlite_schema WHERE name = '__drizzle_migrations'"
        ).fetchone()
        return " ".join(sql.replace('"', "").replace("`", "").split())


@pytest.fixture
def two(place: Place) -> Place:
    place.folder.add("first", FIRST, "CREATE UNIQUE INDEX `users_name` ON `users` (`name`);")
    place.folder.add("second", SECOND)
    return place


def test_a_database_that_drizzle_migrated_is_current_and_not_rewritten(
    two: Place, each: Toolbox
) -> None:
    each.migrate(two.database, two.folder.path)
    before = two.content()
    with guarded(two.database, two.folder.path) as report:
        assert (report.state, report.applied, report.backup) == ("current", (), None)
    assert two.content() == before


def test_a_database_that_drizzle_began_is_finished_by_us(
    two: Place, each: Toolbox, tmp_path: Path
) -> None:
    entries = two.folder.journal()
    two.folder.write_journal(entries[:1])
    each.migrate(two.database, two.folder.path)
    two.folder.write_journal(entries)
    with guarded(two.database, two.folder.path) as report:
        assert [step.tag for step in report.applied] == ["0001_second"]
    drizzles = tmp_path / "drizzle.db"
    each.migrate(drizzles, two.folder.path)
    assert ledger(two.database) == ledger(drizzles)


def test_our_ledger_is_drizzles_row_for_row_and_it_has_nothing_to_do(
    two: Place, each: Toolbox, tmp_path: Path
) -> None:
    with guarded(two.database, two.folder.path):
        pass
    drizzles = tmp_path / "drizzle.db"
    each.migrate(drizzles, two.folder.path)
    assert ledger(two.database) == ledger(drizzles)
    assert ledger_sql(two.database) == ledger_sql(drizzles)
    before = two.content()
    each.migrate(two.database, two.folder.path)
    assert two.content() == before


def test_a_folder_that_we_extended_is_applied_by_drizzle_and_passes_its_check(
    place: Place, zero: Toolbox
) -> None:
    schema = place.root / "schema.sql"
    for name, text in (("first", FIRST), ("second", FIRST + SECOND)):
        schema.write_text(text)
        done = place.run("db", "generate", "--schema", schema, "--name", name)
        assert done.code == 0, done.stderr
    assert "Everything's fine" in zero.check(place.folder.path)
    zero.migrate(place.database, place.folder.path)
    assert place.query("SELECT count(*) FROM posts") == [(0,)]
    with guarded(place.database, place.folder.path) as report:
        assert report.state == "current"


@pytest.mark.parametrize("prefix", ["index", "timestamp", "supabase", "unix"])
def test_either_side_goes_on_in_a_folder_of_any_prefix(
    place: Place, zero: Toolbox, prefix: str
) -> None:
    def columns(*names: str) -> str:
        made = ", ".join(f"{name}: text()" for name in names)
        return f'export const notes = sqliteTable("notes", {{ id: int().primaryKey(), {made} }});'

    zero.generate(place.folder.path, columns("a"), prefix)
    for added, theirs in (("b", "c"), ("d", "e")):
        before = place.run("db", "check")
        assert before.code == 0, before.stdout + before.stderr
        names = sorted("abcde"[: "abcde".index(added) + 1])
        wanted = ", ".join(f"`{name}` text" for name in names)
        schema = place.root / "schema.sql"
        schema.write_text(f"CREATE TABLE `notes` (`id` integer PRIMARY KEY NOT NULL, {wanted});")
        ours = place.run("db", "generate", "--schema", schema, "--name", added)
        assert ours.code == 0, ours.stderr
        while prefix != "index" and time.time() < place.folder.journal()[-1]["when"] / 1000 + 1.1:
            time.sleep(0.1)  # drizzle-kit names two migrations of one second alike
        zero.generate(place.folder.path, columns(*names, theirs), prefix)
        assert "Everything's fine" in zero.check(place.folder.path)
    tags = [entry["tag"] for entry in place.folder.journal()]
    assert tags == sorted(tags)
    assert len({len(tag.partition("_")[0]) for tag in tags}) == 1
    assert len(list((place.folder.path / "meta").glob("*_snapshot.json"))) == len(tags) == 5
    zero.migrate(place.database, place.folder.path)
    assert place.run("db", "check").code == 0
    assert place.run("db", "diff").code == 0


def test_order_and_collation_of_an_index_stay_as_drizzle_wrote_them(
    place: Place, zero: Toolbox
) -> None:
    schema = """export const notes = sqliteTable("notes", { id: int().primaryKey(), a: text(), b: text() }, (t) => [
      index("by_a").on(desc(t.a)), index("by_b").on(sql`${t.b} COLLATE NOCASE`, t.a), index("by_c").on(sql`lower(${t.b})`),
    ]);"""
    zero.generate(place.folder.path, schema, "index")
    fine = place.run("db", "check")
    assert (fine.code, fine.stdout) == (0, "Folder and database are fine.\n")
    place.migrate()
    with_column = place.root / "schema.sql"
    with_column.write_text(
        "".join(
            f"{sql};\n"
            for (sql,) in place.query("SELECT sql FROM sqlite_schema WHERE tbl_name = 'notes'")
        ).replace("`b` text", "`b` text, `c` text")
    )
    done = place.run("db", "generate", "--schema", with_column)
    assert "INDEX" not in done.stdout, done.stdout
    zero.generate(place.folder.path, schema.replace("b: text()", "b: text(), c: text()"), "index")
    assert len(place.folder.journal()) == 2  # Drizzle has nothing to add


@pytest.fixture
def stamped(tmp_path: Path) -> Path:
    folder = tmp_path / "stamped"
    for name, sql in (("20240102030405_first", FIRST), ("20240203040506_second", SECOND)):
        (folder / name).mkdir(parents=True)
        (folder / name / "migration.sql").write_text(sql)
    return folder


def test_a_drizzle_1_database_is_current(stamped: Path, one: Toolbox, tmp_path: Path) -> None:
    database = tmp_path / "app.db"
    one.migrate(database, stamped)
    before = ledger(database, "*")
    with guarded(database, stamped) as report:
        assert (report.state, report.applied) == ("current", ())
    assert ledger(database, "*") == before


def test_drizzle_1_has_nothing_to_do_after_us(stamped: Path, one: Toolbox, tmp_path: Path) -> None:
    database = tmp_path / "app.db"
    with guarded(database, stamped) as report:
        assert len(report.applied) == 2
    ours = ledger(database, "hash, created_at, name")
    one.migrate(database, stamped)
    assert ledger(database, "hash, created_at, name") == ours
    drizzles = tmp_path / "drizzle.db"
    one.migrate(drizzles, stamped)
    assert ledger(drizzles, "hash, created_at, name") == ours
    assert ledger_sql(database) == ledger_sql(drizzles)
