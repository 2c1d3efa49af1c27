"""The row "ours" of the table of peers: what each of them passes over in silence, we refuse or survive.

What the peers do about the same mishaps is in `tests/peers/test_table.py`.
"""

from __future__ import annotations

import signal
import subprocess

import pytest

from tests.harness import Place, clean_environment


@pytest.fixture
def migrated(place: Place) -> Place:
    place.folder.add("a", "CREATE TABLE a(x);")
    place.folder.add("b", "CREATE TABLE b(x);")
    assert place.migrate().code == 0
    return place


def refusal(place: Place) -> tuple[int, str]:
    before = place.content()
    done = place.run("db", "migrate")
    assert place.content() == before
    return done.code, done.stderr


def test_an_edited_file_is_refused_named_and_can_be_mended(migrated: Place) -> None:
    migrated.folder.write("0000_a", "CREATE TABLE a(x, y);")
    code, said = refusal(migrated)
    assert code == 8
    assert "0000_a.sql was edited" in said
    assert "db repair --accept-edited 0000_a" in said


def test_a_deleted_file_is_refused(migrated: Place) -> None:
    (migrated.folder.path / "0001_b.sql").unlink()
    code, said = refusal(migrated)
    assert code == 8
    assert "0001_b" in said


def test_a_deleted_file_and_entry_are_refused(migrated: Place) -> None:
    (migrated.folder.path / "0000_a.sql").unlink()
    migrated.folder.write_journal(migrated.folder.journal()[1:])
    code, said = refusal(migrated)
    assert code == 8
    assert "applied 0000_a" in said


def test_an_older_file_that_comes_later_is_refused_with_the_way(migrated: Place) -> None:
    first, second = migrated.folder.journal()
    migrated.folder.write("0000_late", "CREATE TABLE late(x);")
    late = {**first, "idx": 2, "tag": "0000_late", "when": first["when"] + 1}
    migrated.folder.write_journal([first, {**late, "idx": 5, "tag": "0005_late"}, second])
    (migrated.folder.path / "0000_late.sql").rename(migrated.folder.path / "0005_late.sql")
    code, said = refusal(migrated)
    assert code == 8
    assert "db migrate --allow-out-of-order" in said
    assert migrated.run("db", "migrate", "--allow-out-of-order").code == 0
    assert migrated.query("SELECT count(*) FROM late") == [(0,)]


def test_all_or_nothing_with_file_line_statement_and_caret(migrated: Place) -> None:
    migrated.folder.add("c", "CREATE TABLE c(x);")
    migrated.folder.add("d", "CREATE TABLE d(x);\nCREATE TABEL e(x);")
    code, said = refusal(migrated)
    assert code == 5
    assert said.splitlines() == [
        '0003_d.sql, line 2, statement 2: near "TABEL": syntax error.',
        "2 | CREATE TABEL e(x);",
        "  |        ^",
        "→ Correct the statement and start again; the database is unchanged.",
    ]


def test_a_newer_database_is_refused_before_any_write(migrated: Place) -> None:
    (migrated.folder.path / "0001_b.sql").unlink()
    migrated.folder.write_journal(migrated.folder.journal()[:1])
    migrated.folder.add("z", "CREATE TABLE z(x);", when=1_700_000_000_500)
    entries = migrated.folder.journal()
    migrated.folder.write_journal(entries[:1])
    (migrated.folder.path / "0001_z.sql").unlink()
    code, said = refusal(migrated)
    assert code == 8
    assert "newer" in said


def test_a_kill_leaves_the_old_database_or_the_new_and_no_lock(migrated: Place) -> None:
    rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<300000)"
    migrated.folder.add("big", f"CREATE TABLE big(x); {rows} INSERT INTO big SELECT i FROM n;")
    process = subprocess.Popen(
        [
            *migrated.command,
            *migrated.options,
            "--log-format",
            "json",
            "--log-level",
            "info",
            "db",
            "migrate",
        ],
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(migrated.home),
        cwd=migrated.root,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "backup.created" in line:
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()
    assert migrated.query("SELECT count(*) FROM __drizzle_migrations") in ([(2,)], [(3,)])
    assert migrated.migrate().code == 0
    assert migrated.query("SELECT count(*) FROM big") == [(300000,)]


def test_the_children_of_a_rebuilt_table_survive(place: Place) -> None:
    place.folder.add(
        "a",
        "CREATE TABLE parent(id INTEGER PRIMARY KEY);"
        "CREATE TABLE child(p REFERENCES parent(id) ON DELETE CASCADE);"
        "INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1), (1), (1);",
    )
    assert place.migrate().code == 0
    place.folder.add(
        "b",
        "PRAGMA foreign_keys=OFF;",
        "CREATE TABLE `__new_parent` (`id` integer PRIMARY KEY, `x` text);",
        'INSERT INTO `__new_parent`("id") SELECT "id" FROM `parent`;',
        "DROP TABLE `parent`;",
        "ALTER TABLE `__new_parent` RENAME TO `parent`;",
        "PRAGMA foreign_keys=ON;",
    )
    assert place.migrate().code == 0
    assert place.query("SELECT count(*) FROM child") == [(3,)]
