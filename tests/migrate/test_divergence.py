"""Where a ledger and a folder diverge: what a rewind in dev mode reverts, and what it leaves alone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.database.connections import open_migration, reading
from local_mcp_gateway.migrate.divergence import Divergence, common_prefix
from local_mcp_gateway.migrate.folder import Folder, Migration
from local_mcp_gateway.migrate.history import APPLIED_IN_DEV
from local_mcp_gateway.migrate.ledger import Applied, Ledger
from local_mcp_gateway.migrate.resolution import resolve
from tests.migrate.workshop import Workshop, apply_all

TEXTS = st.lists(st.sampled_from("abcdefg"), unique=True, max_size=7)


def folder_of(texts: list[str]) -> Folder:
    made = (
        Migration(f"{idx:04d}_m", idx, 1000 + idx, text, text, f"{idx:04d}_m.sql")
        for idx, text in enumerate(texts)
    )
    return Folder(Path("migrations"), tuple(made))


def rows_of(texts: list[str]) -> list[Applied]:
    return [Applied(text, 1000 + idx, f"{idx:04d}_m") for idx, text in enumerate(texts)]


def test_everything_agrees_where_only_new_files_are_pending() -> None:
    assert common_prefix(folder_of(["a", "b", "c"]), rows_of(["a", "b"])) == 2


def test_an_edited_file_and_all_that_came_after_it_do_not_agree() -> None:
    assert common_prefix(folder_of(["a", "X", "c"]), rows_of(["a", "b", "c"])) == 1


def test_a_file_that_was_merged_in_before_an_applied_one_comes_first() -> None:
    assert common_prefix(folder_of(["a", "new", "b"]), rows_of(["a", "b"])) == 1


def test_what_was_applied_out_of_order_on_purpose_may_stay() -> None:
    assert common_prefix(folder_of(["a", "b", "c"]), rows_of(["a", "c", "b"])) == 3


@given(said=TEXTS, applied=TEXTS)
def test_what_stays_leaves_nothing_but_pending_files(said: list[str], applied: list[str]) -> None:
    folder, rows = folder_of(said), rows_of(applied)
    kept = common_prefix(folder, rows)
    assert resolve(folder, rows[:kept]).problems == ()


@given(said=TEXTS, applied=TEXTS)
def test_no_more_is_taken_back_than_has_to_be(said: list[str], applied: list[str]) -> None:
    folder, rows = folder_of(said), rows_of(applied)
    kept = common_prefix(folder, rows)
    for more in range(kept + 1, len(rows) + 1):
        assert resolve(folder, rows[:more]).problems != ()


# --- a folder and a database, as dev mode meets them --------------------------------------------


ONE, TWO = "CREATE TABLE a (x)", "CREATE TABLE b (x)"


class Met(Workshop):
    """A folder and a database whose migrations dev mode has applied, or production."""

    def applied(self, *, in_dev: bool = True) -> Met:
        connection = open_migration(self.database)
        resolution = resolve(self.read(), Ledger(connection).rows(), allow_out_of_order=True)
        assert resolution.problems == ()
        connection.execute("BEGIN IMMEDIATE")
        event = APPLIED_IN_DEV if in_dev else "applied"
        apply_all(connection, resolution.pending, event=event)
        connection.execute("COMMIT")
        connection.close()
        return self

    def forget_history(self) -> None:
        with closing(sqlite3.connect(self.database)) as connection:
            connection.execute("DROP TABLE __guard_history")

    def edit(self, tag: str, sql: str) -> None:
        (self.path / f"{tag}.sql").write_text(sql)

    def delete(self, tag: str, *, from_journal: bool = True) -> None:
        (self.path / f"{tag}.sql").unlink()
        if from_journal:
            self.entries = [entry for entry in self.entries if entry["tag"] != tag]
            self.write_journal()

    def divergence(self, *, at_start: bool = False) -> Divergence | None:
        with reading(self.database, locked=True) as reader:
            return Divergence.find(self.path, Ledger(reader), at_start=at_start)

    def taken_back(self, *, at_start: bool = False) -> tuple[str, ...] | None:
        found = self.divergence(at_start=at_start)
        return None if found is None else found.tags


@pytest.fixture
def met(tmp_path: Path) -> Met:
    made = Met(tmp_path)
    made.add("0000_one", ONE)
    made.add("0001_two", TWO, down="DROP TABLE b")
    return made


@pytest.mark.parametrize("at_start", [True, False])
def test_nothing_is_taken_back_where_nothing_parts(met: Met, at_start: bool) -> None:
    met.applied()
    assert met.divergence(at_start=at_start) is None
    met.add("0002_three", "CREATE TABLE c (x)")
    assert met.divergence(at_start=at_start) is None
    (met.path / "not_journaled.sql").write_text("CREATE TABLE d (x)")
    assert met.divergence(at_start=at_start) is None


def test_a_look_leaves_nothing_beside_the_database(met: Met) -> None:
    met.applied().divergence()
    assert [path.name for path in met.database.parent.glob("app.db*")] == ["app.db"]


def test_a_file_that_only_the_journal_lost_is_still_there(met: Met) -> None:
    met.applied().entries.pop()
    met.write_journal()
    assert met.divergence() is None
    met.edit("0000_one", "CREATE TABLE a (y)")
    found = met.divergence()
    assert found is not None
    assert (found.tags, found.unchanged()) == (
        ("0000_one", "0001_two"),
        frozenset({"0001_two"}),
    )


@pytest.mark.parametrize("history", [True, False])
def test_a_file_with_other_line_ends_stays_and_is_unchanged(met: Met, history: bool) -> None:
    met.edit("0000_one", ONE + "\n")
    met.applied()
    (met.path / "0000_one.sql").write_bytes(ONE.encode() + b"\r\n")
    assert met.divergence() is None
    if not history:
        met.forget_history()
    met.edit("0001_two", "CREATE TABLE b (y)")
    found = met.divergence()
    assert found is not None
    assert (found.kept, found.complete) == (1, history)
    assert found.history.applied[0].migration.sql == ONE + ("\n" if history else "\r\n")
    assert found.unchanged() == (frozenset({"0000_one"}) if history else frozenset())


def test_an_edited_file_is_taken_back_with_the_text_that_was_applied(met: Met) -> None:
    met.applied()
    met.edit("0001_two", "CREATE TABLE b (y)")
    found = met.divergence()
    assert found is not None
    assert (found.kept, found.tags, found.complete) == (1, ("0001_two",), True)
    assert [row.tag for row in found.rows] == ["0000_one", "0001_two"]
    assert found.unchanged() == {"0000_one"}
    assert found.texts_from(2) == ()
    (back,) = found.texts_from(1)
    assert (back.tag, back.idx, back.sql, back.name) == ("0001_two", 1, TWO, "0001_two.sql")
    assert (back.when, back.hash) == (found.rows[1].created_at, found.rows[1].hash)
    assert [entry.row for entry in found.history.applied] == list(found.rows)
    assert (found.history.pending, found.history.problems) == ((), ())


@pytest.mark.parametrize("at_start", [True, False])
@pytest.mark.parametrize("in_dev", [True, False])
def test_an_edited_file_is_taken_back_whoever_applied_it(
    met: Met, in_dev: bool, at_start: bool
) -> None:
    met.applied(in_dev=in_dev).edit("0001_two", "CREATE TABLE b (y)")
    assert met.taken_back(at_start=at_start) == ("0001_two",)


@pytest.mark.parametrize("from_journal", [True, False])
def test_a_deleted_file_is_taken_back_at_a_start_only_if_dev_mode_applied_it(
    met: Met, from_journal: bool
) -> None:
    met.applied()
    met.delete("0001_two", from_journal=from_journal)
    assert met.taken_back() == ("0001_two",)
    assert met.taken_back(at_start=True) == ("0001_two",)


def test_one_migration_of_production_keeps_those_of_dev_mode_at_a_start(tmp_path: Path) -> None:
    met = Met(tmp_path)
    met.add("0000_one", ONE)
    met.applied(in_dev=False).add("0001_two", TWO)
    met.applied().delete("0001_two")
    assert met.taken_back(at_start=True) == ("0001_two",)
    met.delete("0000_one")
    assert met.divergence(at_start=True) is None
    assert met.taken_back() == ("0000_one", "0001_two")


def test_a_deleted_file_that_nobody_applied_is_told_on_a_save(met: Met) -> None:
    met.applied().add("0002_three", "CREATE TABLE c (x)")
    met.delete("0002_three", from_journal=False)
    found = met.divergence()
    assert found is not None
    assert (found.kept, found.tags) == (2, ())
    assert met.divergence(at_start=True) is None


@pytest.mark.parametrize("text", ["", "{", '{"version": "7"}'])
def test_a_folder_that_cannot_be_read_takes_nothing_back(met: Met, text: str) -> None:
    met.applied().edit("0001_two", "CREATE TABLE b (y)")
    (met.path / "meta" / "_journal.json").write_text(text)
    assert met.divergence() is None


def test_a_folder_with_a_file_that_is_missing_and_another_fault_takes_nothing_back(
    met: Met,
) -> None:
    met.applied().delete("0000_one", from_journal=False)
    (met.path / "0001_two.sql").write_bytes(b"CREATE TABLE b (x) -- \xff")
    assert met.divergence() is None


def test_a_text_that_another_tool_applied_is_known_while_the_folder_has_it(met: Met) -> None:
    met.applied().forget_history()
    met.edit("0001_two", "CREATE TABLE b (y)")
    found = met.divergence()
    assert found is not None
    assert found.tags == (found.rows[1].hash[:12],)
    assert (found.complete, found.texts_from(0), found.texts_from(1)) == (False, (), ())
    one, two = (entry.migration for entry in found.history.applied)
    assert (one.sql, one.tag, two.sql) == (ONE, found.rows[0].hash[:12], "")
    assert found.unchanged() == frozenset()


def test_a_text_is_complete_where_history_and_folder_know_the_rest_of_it(met: Met) -> None:
    met.applied().forget_history()
    met.add("0002_three", "CREATE TABLE c (x)")
    met.applied().edit("0002_three", "CREATE TABLE c (y)")
    found = met.divergence()
    assert found is not None
    assert (found.tags, found.complete) == (("0002_three",), True)
    assert [m.sql for m in found.texts_from(0)] == [ONE, TWO, "CREATE TABLE c (x)"]


def test_the_way_back_is_the_one_that_was_kept_else_one_that_was_written_since(met: Met) -> None:
    met.applied()
    (met.path / "0000_one.down.sql").write_text("DROP TABLE a")
    (met.path / "0001_two.down.sql").write_text("SELECT 'written since'")
    met.edit("0000_one", "CREATE TABLE a (y)")
    found = met.divergence()
    assert found is not None
    assert [m.down for m in found.texts_from(0)] == [met.path / "0000_one.down.sql", None]


def test_there_is_no_way_back_that_nobody_wrote(met: Met) -> None:
    met.applied().edit("0000_one", "CREATE TABLE a (y)")
    found = met.divergence()
    assert found is not None
    assert found.texts_from(0)[0].down is None
