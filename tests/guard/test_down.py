"""Reverting: the schema is what it was before, or nothing happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_mcp_gateway.errors import (
    ForbiddenStatement,
    HistoryRefused,
    MigrationFailed,
    NoWayBack,
    UsageProblem,
    VerificationFailed,
)
from local_mcp_gateway.guard import guarded
from local_mcp_gateway.guard.context import GuardContext, GuardPolicy
from local_mcp_gateway.guard.down import go_back
from tests.harness import Place


def migrate(place: Place) -> None:
    with guarded(place.database, place.folder.path):
        pass


def back(place: Place, *, steps: int | None = None, to: str | None = None) -> list[str]:
    done = go_back(GuardContext(place.database, place.folder.path), steps=steps, to=to)
    return [step.tag for step in done.steps]


@pytest.fixture
def three(place: Place) -> Place:
    place.folder.add("a", "CREATE TABLE a(x);", down="DROP TABLE a;")
    place.folder.add("b", "CREATE TABLE b(x); CREATE INDEX i ON b(x);", down="DROP TABLE b;")
    place.folder.add("c", "ALTER TABLE a ADD y;", down="ALTER TABLE a DROP COLUMN y;")
    migrate(place)
    return place


def tables(place: Place) -> list[str]:
    return [
        str(name)
        for (name,) in place.query(
            "SELECT name FROM sqlite_schema WHERE type='table' AND name NOT LIKE '\\_\\_%' ESCAPE '\\' ORDER BY 1"
        )
    ]


def test_one_step_takes_the_newest_back_and_it_can_be_applied_again(three: Place) -> None:
    assert back(three) == ["0002_c"]
    assert three.query("SELECT name FROM pragma_table_info('a')") == [("x",)]
    assert three.query("SELECT count(*) FROM __drizzle_migrations") == [(2,)]
    assert three.query("SELECT event, tag FROM __guard_history ORDER BY id DESC LIMIT 1") == [
        ("reverted", "0002_c")
    ]
    migrate(three)
    assert three.query("SELECT name FROM pragma_table_info('a')") == [("x",), ("y",)]


@pytest.mark.parametrize("time", ["NULL", "'2024-01-01'"])
def test_a_row_whose_time_another_tool_left_out_goes_with_its_migration(
    three: Place, time: str
) -> None:
    three.write(f"UPDATE __drizzle_migrations SET created_at = {time}")
    assert back(three) == ["0002_c"]
    assert three.query("SELECT count(*) FROM __drizzle_migrations") == [(2,)]
    assert three.run("db", "status", "--json").json()["pending"][0]["tag"] == "0002_c"


def test_to_names_the_migration_that_stays(three: Place) -> None:
    assert back(three, to="0000_a") == ["0002_c", "0001_b"]
    assert tables(three) == ["a"]


def test_every_step_can_be_taken_back(three: Place) -> None:
    assert back(three, steps=3) == ["0002_c", "0001_b", "0000_a"]
    assert tables(three) == []


def test_a_tag_that_is_not_applied_and_too_many_steps_are_usage(three: Place) -> None:
    with pytest.raises(UsageProblem, match="0009_z is not applied"):
        back(three, to="0009_z")
    with pytest.raises(UsageProblem, match="3 applied"):
        back(three, steps=4)


def test_the_kept_text_is_used_when_the_down_file_is_gone(three: Place) -> None:
    (three.folder.path / "0002_c.down.sql").unlink()
    assert back(three) == ["0002_c"]


def test_a_way_back_that_fails_changes_nothing_and_names_the_file(three: Place) -> None:
    (three.folder.path / "0001_b.down.sql").write_text("DROP INDEX i;\nDROP TABLE nope;")
    before = three.content()
    with pytest.raises(MigrationFailed, match=r"0001_b.down.sql, line 2, statement 2"):
        back(three, steps=2)
    assert three.content() == before


@pytest.mark.parametrize(
    "pragma", ["page_size = 8192", "auto_vacuum = FULL", "journal_mode = DELETE"]
)
def test_another_form_of_the_file_is_refused_in_the_rehearsal_of_a_way_back(
    three: Place, pragma: str
) -> None:
    down = three.folder.path / "0002_c.down.sql"
    down.write_text(f"SELECT noted(); PRAGMA {pragma}; ALTER TABLE a DROP COLUMN y;")
    runs: list[int] = []
    policy = GuardPolicy(functions={"noted": lambda: runs.append(1)})
    with pytest.raises(
        ForbiddenStatement, match=r"0002_c\.down\.sql.*no effect inside a transaction"
    ):
        go_back(GuardContext(three.database, three.folder.path, policy), steps=1, to=None)
    assert len(runs) == 1


def test_a_way_back_that_leads_elsewhere_is_refused(three: Place) -> None:
    (three.folder.path / "0002_c.down.sql").write_text("CREATE TABLE rest(x);")
    before = three.content()
    with pytest.raises(VerificationFailed, match="is not what it was"):
        back(three)
    assert three.content() == before


def test_without_a_way_back_the_exact_restore_and_its_cost_are_offered(three: Place) -> None:
    three.folder.add("d", "CREATE TABLE d(x);")
    migrate(three)
    three.write("INSERT INTO a(x) VALUES (1), (2)")
    before = three.content()
    with pytest.raises(NoWayBack) as caught:
        back(three)
    backup = caught.value.data["backup"]
    assert f"`db restore {backup}` (it would lose what was written since: a: " in caught.value.hint
    assert three.content() == before


@pytest.mark.parametrize("text", ["", "-- to be written\n;\n"])
def test_a_way_back_without_a_statement_is_none_where_the_schema_was_changed(
    three: Place, text: str
) -> None:
    (three.folder.path / "0001_b.down.sql").write_text(text)
    three.folder.add("d", "CREATE TABLE d(x);", down="DROP TABLE d;")
    migrate(three)
    before = three.content()
    with pytest.raises(
        NoWayBack, match=r"0001_b\.down\.sql has no statement, and it changes"
    ) as caught:
        back(three, steps=3)
    assert caught.value.data["tags"] == ["0001_b"]
    assert three.content() == before
    assert back(three, steps=2) == ["0003_d", "0002_c"]


def test_a_way_back_without_a_statement_is_right_where_only_rows_were_changed(three: Place) -> None:
    three.folder.add("d", "INSERT INTO a (x) VALUES (1);", down="-- the row may stay\n")
    migrate(three)
    assert back(three) == ["0003_d"]
    assert three.query("SELECT x FROM a") == [(1,)]


def test_a_way_back_that_is_no_text_is_named_with_its_line(three: Place) -> None:
    (three.folder.path / "0002_c.down.sql").write_bytes(b"-- fine\n-- \xff\n")
    with pytest.raises(
        HistoryRefused, match=r"0002_c\.down\.sql is not valid UTF-8: byte 0xff in line 2"
    ):
        back(three)
    done = three.run("db", "check", "--json")
    (warning,) = done.json()["warnings"]
    assert warning["message"].startswith("0002_c.down.sql is not valid UTF-8")


def test_files_of_drizzle_1_are_called_as_they_stand_in_the_folder(place: Place) -> None:
    folder = place.root / "stamped"

    def write(stamp: str, sql: str, name: str = "migration") -> Path:
        file = folder / stamp / f"{name}.sql"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(sql)
        return file

    def apply() -> None:
        with guarded(place.database, folder):
            pass

    def take_back() -> None:
        go_back(GuardContext(place.database, folder), steps=1, to=None)

    write("20240101000000_a", "CREATE TABLE a(x);")
    write("20240103000000_b", "CREATE TABLE b(x);")
    apply()
    with pytest.raises(NoWayBack, match=r"there is no 20240103000000_b/down\.sql"):
        take_back()
    late = write("20240102000000_late", "CREATE TABLE late(x);")
    with pytest.raises(HistoryRefused) as caught:
        apply()
    (problem,) = caught.value.problems
    assert "rename its folder to a later stamp" in problem.hint
    assert "Drizzle" not in problem.message, "1.x applies it"
    late.unlink()
    write("20240103000000_b", "CREATE TABLE b(x, y);")
    with pytest.raises(HistoryRefused, match=r"20240103000000_b/migration\.sql was edited"):
        apply()
    write("20240103000000_b", "CREATE TABLE b(x);")
    write("20240103000000_b", "DROP TABLE nothing;", name="down")
    with pytest.raises(MigrationFailed, match=r"20240103000000_b/down\.sql, line 1"):
        take_back()
