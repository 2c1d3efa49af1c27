"""Either tool takes over from the other, proven with the real drizzle."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
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


PREFIXES = ("index", "timestamp", "supabase", "unix")


def columns(*names: str) -> str:
    made = ", ".join(f"{name}: text()" for name in names)
    return f'export const notes = sqliteTable("notes", {{ id: int().primaryKey(), {made} }});'


@pytest.mark.parametrize("prefix", PREFIXES)
def test_either_side_goes_on_in_a_folder_of_any_prefix(
    place: Place, zero: Toolbox, prefix: str
) -> None:
    zero.generate(place.folder.path, columns("a"), f"--prefix={prefix}")
    for later_s, added, theirs in ((10, "b", "c"), (20, "d", "e")):
        before = place.run("db", "check")
        assert before.code == 0, before.stdout + before.stderr
        names = sorted("abcde"[: "abcde".index(added) + 1])
        wanted = ", ".join(f"`{name}` text" for name in names)
        schema = place.root / "schema.sql"
        schema.write_text(f"CREATE TABLE `notes` (`id` integer PRIMARY KEY NOT NULL, {wanted});")
        ours = place.run("db", "generate", "--schema", schema, "--name", added)
        assert ours.code == 0, ours.stderr
        all_of_it = columns(*names, theirs)
        zero.generate(place.folder.path, all_of_it, f"--prefix={prefix}", later_s=later_s)
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
    zero.generate(place.folder.path, schema)
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
    zero.generate(place.folder.path, schema.replace("b: text()", "b: text(), c: text()"))
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


RICH = """
export const users = sqliteTable("users", {
  id: int().primaryKey({ autoIncrement: true }), name: text().notNull().default("it's"), email: text().unique(),
  age: int().default(3), made: text().default(sql`CURRENT_TIMESTAMP`), on: int({ mode: "boolean" }).default(true),
  both: text().generatedAlwaysAs(sql`name || 'x'`, { mode: "stored" }), rate: real().default(1.5),
  low: text().default(sql`(lower('A'))`), %s
}, (t) => [
  index("by_name").on(desc(t.name)), uniqueIndex("lowered").on(sql`lower(name)`).where(sql`age > 1`),
  check("grown", sql`age > 0`),
]);
export const posts = sqliteTable("posts", {
  a: int().notNull().references(() => users.id, { onDelete: "cascade" }), b: text().notNull(), c: int(),
}, (t) => [primaryKey({ columns: [t.a, t.b] }), unique("pair").on(t.b, t.c), unique().on(t.c)]);
export const tree = sqliteTable("tree", { code: text().primaryKey(), parent: text() }, (t) => [
  foreignKey({ columns: [t.parent], foreignColumns: [t.code], name: "upwards" }).onUpdate("set null"),
]);
export const names = sqliteView("names").as((qb) => qb.select({ n: users.name }).from(users));
"""


def schema_of(place: Place) -> str:
    rows = place.query(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE '\\_\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite%'"
    )
    return "".join(f"{sql};\n" for (sql,) in rows)


@dataclass(frozen=True)
class StampedPlace(Place):
    """A place whose folder is one of Drizzle 1.x."""

    @property
    def migrations(self) -> Path:
        return self.root / "drizzle"

    @property
    def options(self) -> tuple[str, ...]:
        return ("--database", str(self.database), "--migrations", str(self.migrations))


@pytest.fixture
def stamped_place(place: Place) -> StampedPlace:
    return StampedPlace(place.root)


def test_either_side_goes_on_in_a_folder_of_drizzle_1(
    stamped_place: StampedPlace, one: Toolbox
) -> None:
    place = stamped_place
    one.generate(place.migrations, RICH % "", "--name=first")
    for added, theirs in (("b", "c"), ("d", "e")):
        before = place.run("db", "check")
        assert before.code in (0, 3), before.stdout + before.stderr
        assert "snapshot" not in before.stdout
        place.migrate()
        schema = place.root / "schema.sql"
        schema.write_text(schema_of(place).replace("`rate` real", f"`{added}` text, `rate` real"))
        ours = place.run("db", "generate", "--schema", schema, "--name", added)
        assert ours.code == 0, ours.stderr
        assert place.run("db", "generate", "--schema", schema, "--check").code == 0
        columns = "".join(f"{name}: text(), " for name in "bcde"[: "bcde".index(added) + 1])
        same = one.generate(place.migrations, RICH % columns, "--name=same")
        assert "No schema changes" in same, same
        assert "Everything's fine" in one.check(place.migrations)
        one.generate(place.migrations, RICH % f"{columns}{theirs}: text()", f"--name={theirs}")
    tags = sorted(path.name for path in place.migrations.iterdir())
    assert [tag.partition("_")[2] for tag in tags] == ["first", "b", "c", "d", "e"]
    one.migrate(place.database, place.migrations)
    checked = place.run("db", "check")
    assert checked.code == 0, checked.stdout
    assert place.run("db", "diff").code == 0


@pytest.mark.nightly
@pytest.mark.parametrize("prefix", PREFIXES)
def test_either_side_goes_on_in_a_folder_that_drizzle_kit_1_has_brought_up(
    stamped_place: StampedPlace, zero: Toolbox, one: Toolbox, prefix: str
) -> None:
    place, path = stamped_place, stamped_place.migrations
    zero.generate(path, columns("a"), f"--prefix={prefix}", later_s=-60)
    schema = place.root / "schema.sql"
    schema.write_text(
        "CREATE TABLE `notes` (`id` integer PRIMARY KEY NOT NULL, `a` text, `b` text);"
    )
    assert place.run("db", "generate", "--schema", schema).code == 0
    place.migrate()
    one.up(path)
    assert not (path / "meta").exists()
    checked = place.run("db", "check")
    assert checked.code == 0, checked.stdout
    schema.write_text(schema.read_text().replace("`b` text", "`b` text, `c` text"))
    assert place.run("db", "generate", "--schema", schema).code == 0
    place.migrate()
    assert "Everything's fine" in one.check(path)
    one.generate(path, columns("a", "b", "c", "d"), later_s=60)
    one.migrate(place.database, path)
    checked = place.run("db", "check")
    assert checked.code == 0, checked.stdout
    assert place.run("db", "diff").code == 0
    assert len(place.run("db", "status", "--json").json()["applied"]) == 4


BASE = 'export const a = sqliteTable("a", { id: int().primaryKey(), x: text()%s });'
OTHER = BASE % "" + ' export const b = sqliteTable("b", { id: int().primaryKey() });'


def branched(place: StampedPlace, one: Toolbox, mine: str, its: str) -> None:
    """Make two migrations of one state, as on two branches, the second of them a second later."""
    path, elsewhere = place.migrations, place.root / "elsewhere"
    one.generate(path, BASE % "", "--name=base")
    shutil.copytree(path, elsewhere)
    one.generate(path, mine, "--name=mine")
    stamp = max(child.name for child in path.iterdir())[:14]
    one.generate(elsewhere, its, "--name=its")
    (made,) = elsewhere.glob("*_its")
    made.rename(path / f"{int(stamp) + 1}_its")


def test_branches_that_commute_are_fine_on_both_sides_and_the_next_follows_both(
    stamped_place: StampedPlace, one: Toolbox
) -> None:
    place = stamped_place
    branched(place, one, BASE % ", y: text()", OTHER)
    assert "Everything's fine" in one.check(place.migrations)
    assert place.run("db", "check").code == 0
    mine = next(place.migrations.glob("*_mine"))
    aside = mine.rename(place.root / mine.name)
    place.migrate()
    aside.rename(mine)
    place.migrate()  # the earlier one came late
    assert place.query("SELECT count(y) FROM a, b") == [(0,)]
    assert place.run("db", "check").code == 0
    schema = place.root / "schema.sql"
    schema.write_text(schema_of(place) + "CREATE TABLE c (id INTEGER PRIMARY KEY);")
    assert place.run("db", "generate", "--schema", schema, "--name", "both").code == 0
    assert "Everything's fine" in one.check(place.migrations)
    third = 'export const c = sqliteTable("c", { id: int().primaryKey() });'
    wanted = OTHER.replace("x: text()", "x: text(), y: text()") + third
    assert "No schema changes" in one.generate(place.migrations, wanted)


@pytest.mark.parametrize(
    "mine", [BASE % ", y: text()", BASE.replace("x: text()", "x: text().notNull()") % ""]
)
def test_branches_that_do_not_commute_are_named_by_both_sides(
    stamped_place: StampedPlace, one: Toolbox, mine: str
) -> None:
    place = stamped_place
    branched(place, one, mine, BASE % ", y: text()")
    with pytest.raises(AssertionError, match="Conflicting migrations detected"):
        one.check(place.migrations)
    done = place.run("db", "check", "--json")
    assert done.code == 8
    assert [problem["code"] for problem in done.json()["problems"]][:1] == ["collision"]


@pytest.fixture
def many(place: Place) -> Place:
    """Four migrations with rows and a foreign key, of which the first three can be one."""
    place.folder.add("first", FIRST, "INSERT INTO `users` (`name`) VALUES ('a'), ('b');")
    place.folder.add("second", SECOND, "INSERT INTO `posts` VALUES (1, 2);")
    place.folder.add("third", "ALTER TABLE `users` ADD `age` integer DEFAULT 3;")
    place.folder.add("fourth", "CREATE VIEW `old` AS SELECT * FROM `users`;")
    assert place.run("db", "check", "--write-snapshots").code == 0
    return place


def begun(place: Place, drizzle: Toolbox, count: int) -> None:
    """Have drizzle apply the first so many of the folder."""
    entries = place.folder.journal()
    place.folder.write_journal(entries[:count])
    drizzle.migrate(place.database, place.folder.path)
    place.folder.write_journal(entries)


ROWS = "SELECT users.id, name, age, posts.id FROM old AS users LEFT JOIN posts ON user = users.id"


def test_a_squashed_folder_is_gone_on_with_by_both(
    many: Place, zero: Toolbox, tmp_path: Path
) -> None:
    require_the_same(many, zero, tmp_path, count=1)


@pytest.mark.nightly
@pytest.mark.parametrize("count", range(5))
def test_a_squashed_folder_is_gone_on_with_by_both_from_any_state(
    many: Place, each: Toolbox, tmp_path: Path, count: int
) -> None:
    require_the_same(many, each, tmp_path, count=count)


def require_the_same(many: Place, drizzle: Toolbox, root: Path, *, count: int) -> None:
    """Drizzle goes on from some of the old ones with the folder that is kept, as the manual says."""
    if count:
        begun(many, drizzle, count)
    ours = many.copy(root / "ours")
    for place in (many, ours):
        assert place.run("db", "squash", "--to", "0002_third", "--yes").code == 0
    if count in {1, 2}:
        before = many.content()
        with pytest.raises(AssertionError, match="already exists"):
            drizzle.migrate(many.database, many.folder.path)
        assert many.content() == before
        drizzle.migrate(many.database, many.folder.path / "meta" / "_squashed")
    drizzle.migrate(many.database, many.folder.path)
    with guarded(ours.database, ours.folder.path):
        pass
    assert ledger(many.database, "hash, created_at") == ledger(ours.database, "hash, created_at")
    assert many.query(ROWS) == ours.query(ROWS) == [(1, "a", 3, None), (2, "b", 3, 1)]
    with guarded(many.database, many.folder.path) as report:
        assert (report.state, report.drift) == ("current", ())
    before = ours.content()
    drizzle.migrate(ours.database, ours.folder.path)
    assert ours.content() == before


@pytest.mark.nightly
def test_drizzle_kit_checks_and_goes_on_in_a_squashed_folder(place: Place, zero: Toolbox) -> None:
    def generated(names: str) -> None:
        made = ", ".join(f"{name}: text()" for name in names)
        columns = f"id: int().primaryKey(), {made}"
        zero.generate(
            place.folder.path, f'export const notes = sqliteTable("notes", {{ {columns} }});'
        )

    for names in ("a", "ab", "abc"):
        generated(names)
    first, second, _ = (entry["tag"] for entry in place.folder.journal())
    assert place.run("db", "squash", "--to", second, "--yes").code == 0
    assert "Everything's fine" in zero.check(place.folder.path)
    generated("abcd")
    newest = place.folder.journal()[-1]["tag"]
    assert newest.startswith("0003_")
    assert "ADD `d` text" in (place.folder.path / f"{newest}.sql").read_text()
    assert place.run("db", "squash", "--yes").code == 0
    assert "Everything's fine" in zero.check(place.folder.path)
    assert place.run("db", "check").code == 0
    kept = place.folder.path / "meta" / "_squashed"
    assert "Everything's fine" in zero.check(kept)
    assert (kept / "meta" / "_squashed" / f"{first}.sql").exists()


@pytest.mark.nightly
@pytest.mark.parametrize("count", range(4))
def test_a_squashed_drizzle_1_folder_is_gone_on_with_by_both_from_any_state(
    stamped_place: StampedPlace, one: Toolbox, count: int
) -> None:
    place, path = stamped_place, stamped_place.migrations
    for second, added in enumerate(("", ", y: text()", ", y: text(), z: text()")):
        one.generate(path, BASE % added, f"--name=m{second}", later_s=10 * second)
    tags = sorted(folder.name for folder in path.iterdir())
    old = place.root / "old"
    for tag in tags[:count]:
        shutil.copytree(path / tag, old / tag)
    if count:
        one.migrate(place.database, old)
    done = place.run("db", "squash", "--to", tags[1], "--yes")
    assert done.code == 0, done.stderr
    assert "Everything's fine" in one.check(path)
    assert "No schema changes" in one.generate(path, BASE % ", y: text(), z: text()")
    drizzles = place.root / "drizzle.db"
    if count:
        shutil.copy(place.database, drizzles)
    if count == 1:
        one.migrate(drizzles, path / "meta" / "_squashed")
    one.migrate(drizzles, path)
    with guarded(place.database, path):
        pass
    columns = "hash, created_at, name"
    assert ledger(place.database, columns) == ledger(drizzles, columns)
    before = ledger(place.database, "*")
    one.migrate(place.database, path)
    assert ledger(place.database, "*") == before
    with guarded(drizzles, path) as report:
        assert (report.state, report.drift) == ("current", ())
    checked = place.run("db", "check")
    assert checked.code == 0, checked.stdout
    one.generate(path, BASE % ", y: text(), z: text(), w: text()", "--name=more", later_s=30)
    assert "Everything's fine" in one.check(path)
    assert place.run("db", "migrate").code == 0
    assert place.run("db", "check").code == 0
