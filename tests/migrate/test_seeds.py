"""`db seed`: all seeds or none, and what they may not do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import Place


def test_the_demo_seed_can_be_run_again_and_changes_nothing(shipped: Place) -> None:
    assert shipped.run("db", "reset", "--seed", "--yes").code == 0
    servers = shipped.query("SELECT * FROM mcp_servers ORDER BY name")
    assert len(servers) == 2
    assert shipped.run("db", "seed").code == 0
    assert shipped.query("SELECT * FROM mcp_servers ORDER BY name") == servers
    assert shipped.query("SELECT count(*) FROM profile_mcp_servers") == [(2,)]


def test_seeds_of_sql_and_python_are_one_transaction(kept: Place, tmp_path: Path) -> None:
    first = tmp_path / "first.sql"
    first.write_text("INSERT INTO notes (id, text) VALUES (10, 'from; sql');")
    second = tmp_path / "second.py"
    second.write_text(
        "def seed(connection):\n    connection.execute('INSERT INTO gone VALUES (1)')\n"
    )
    done = kept.run("db", "seed", first, second)
    assert done.code == 5
    assert "no such table: gone" in done.stderr
    assert kept.query("SELECT count(*) FROM notes") == [(1,)]
    second.write_text(
        "def seed(connection):\n    connection.execute(\"INSERT INTO notes VALUES (11, 'py', 1)\")\n"
    )
    assert kept.run("db", "seed", first, second).code == 0
    assert kept.query("SELECT id FROM notes ORDER BY id") == [(1,), (10,), (11,)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("INSERT INTO notes VALUES (2, 'a', 1);\nCOMMIT;", "line 2"),
        (
            "INSERT INTO notes VALUES (2, 'a', 1);\n\nINSERT INTO notes VALUES (3, NULL, 1);",
            "line 3",
        ),
        ("SELEC 1;", "syntax error"),
    ],
)
def test_a_seed_that_fails_names_the_line_and_leaves_the_database(
    kept: Place, tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "bad.sql"
    file.write_text(text)
    before = kept.content()
    done = kept.run("db", "seed", file)
    assert done.code == 5
    assert said in done.stderr
    assert kept.content() == before


def test_a_seed_that_ends_the_program_is_a_failed_seed(kept: Place, tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text(
        "def seed(connection):\n"
        "    connection.execute(\"INSERT INTO notes VALUES (9, 'half', 1)\")\n"
        "    raise SystemExit(0)\n"
    )
    before = kept.content()
    done = kept.run("db", "seed", file)
    assert done.code == 5
    assert f"{file} ended the program" in done.stderr
    assert kept.content() == before


INSERT = "connection.execute(\"INSERT INTO notes VALUES (9, 'half', 1)\")"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["with connection:", f"    {INSERT}"], "all seeds are one transaction"),
        (["connection.executescript('SELECT 1')"], "all seeds are one transaction"),
        ([INSERT, "connection.close()"], "closed the connection"),
        (["connection.execute('DELETE FROM __drizzle_migrations')"], "is not for seeds"),
    ],
)
def test_what_a_seed_in_python_may_not_do_is_said_in_words(
    kept: Place, tmp_path: Path, lines: list[str], said: str
) -> None:
    file = tmp_path / "bad.py"
    file.write_text("def seed(connection):\n" + "".join(f"    {line}\n" for line in lines))
    before = kept.content()
    done = kept.run("db", "seed", file)
    assert done.code == 5
    assert said in done.stderr
    assert kept.content() == before


def test_a_seed_may_not_write_what_the_guard_keeps(kept: Place, tmp_path: Path) -> None:
    file = tmp_path / "bad.sql"
    file.write_text("SELECT 1;\nDELETE FROM __guard_history;")
    done = kept.run("db", "seed", file)
    assert done.code == 5
    assert f"{file}, line 2: what the guard keeps" in done.stderr


def test_a_seed_that_breaks_a_deferred_foreign_key_is_a_failed_seed(
    kept: Place, tmp_path: Path
) -> None:
    kept.folder.add(
        "child",
        "CREATE TABLE child (of INTEGER REFERENCES notes (id) DEFERRABLE INITIALLY DEFERRED)",
    )
    assert kept.migrate().code == 0
    file = tmp_path / "bad.sql"
    file.write_text("INSERT INTO child VALUES (99);")
    done = kept.run("db", "seed", file)
    assert done.code == 5
    assert "refer to rows which are not there" in done.stderr
    assert kept.query("SELECT count(*) FROM child") == [(0,)]


def test_a_seed_that_is_not_there_is_a_usage_error(kept: Place) -> None:
    assert kept.run("db", "seed", "nowhere.sql").code == 2
    assert kept.run("db", "seed", kept.folder.journal_file).code == 2
