"""Directives in a migration's first lines, from the lock to the last flush."""

from __future__ import annotations

import pytest

from local_mcp_gateway.errors import (
    DoubleQuotedString,
    ForbiddenStatement,
    MigrationFailed,
    VerificationFailed,
)
from local_mcp_gateway.guard import GuardPolicy, guarded
from local_mcp_gateway.guard.context import GuardContext
from local_mcp_gateway.guard.down import go_back
from tests.harness import Place

FAMILY = (
    "CREATE TABLE parent(id INTEGER PRIMARY KEY, name TEXT);"
    "CREATE TABLE child(id INTEGER PRIMARY KEY, p REFERENCES parent(id) ON DELETE CASCADE);"
    "INSERT INTO parent VALUES (1, 'a'), (2, 'b'); INSERT INTO child VALUES (1, 1), (2, 2);"
)


def migrate(place: Place, policy: GuardPolicy | None = None) -> list[str]:
    with guarded(place.database, place.folder.path, policy=policy) as report:
        return [step.tag for step in report.applied]


@pytest.fixture
def family(place: Place) -> Place:
    place.folder.add("family", FAMILY)
    migrate(place)
    return place


def test_each_kind_of_file_gets_the_transaction_that_it_needs(family: Place) -> None:
    family.folder.add("plain", "CREATE TABLE x(a);")
    family.folder.add("vacuum", "-- guard: no-transaction\nVACUUM;")
    family.folder.add("keys", "-- guard: foreign-keys=on\nDELETE FROM parent WHERE id = 1;")
    family.folder.add(
        "rebuild",
        "CREATE TABLE n(id INTEGER PRIMARY KEY); INSERT INTO n SELECT id FROM parent;",
        "DROP TABLE parent; ALTER TABLE n RENAME TO parent;",
    )
    assert migrate(family) == ["0001_plain", "0002_vacuum", "0003_keys", "0004_rebuild"]
    assert family.query("SELECT id FROM child") == [(2,)]
    assert family.query("SELECT count(*) FROM __drizzle_migrations") == [(5,)]


def test_a_later_group_that_fails_in_the_rehearsal_leaves_the_first_unapplied(
    family: Place,
) -> None:
    family.folder.add("plain", "CREATE TABLE x(a);")
    family.folder.add("vacuum", "-- guard: no-transaction\nVACUUM;")
    family.folder.add("wrong", "DROP TABLE parent;")
    before = family.content()
    with pytest.raises(VerificationFailed, match="2 rows of child"):
        migrate(family)
    assert family.content() == before


@pytest.mark.parametrize(
    "pragma", ["page_size = 8192", "auto_vacuum = FULL", "journal_mode = DELETE"]
)
def test_another_form_of_the_file_is_refused_in_the_rehearsal(family: Place, pragma: str) -> None:
    tag = family.folder.add("form", f"PRAGMA {pragma};")
    told: list[str] = []
    with (
        pytest.raises(ForbiddenStatement, match="no effect inside a transaction"),
        guarded(
            family.database,
            family.folder.path,
            progress=lambda phase, _done, _total: told.append(phase),
        ),
    ):
        pass
    assert f"rehearse {tag}" in told
    assert f"apply {tag}" not in told


def test_the_journal_mode_that_an_earlier_file_of_the_set_sets_is_the_one_that_counts(
    family: Place,
) -> None:
    family.folder.add("mode", "-- guard: no-transaction\nPRAGMA journal_mode = DELETE;")
    tag = family.folder.add("again", "PRAGMA journal_mode = DELETE; CREATE TABLE x(a);")
    assert migrate(family)[-1] == tag
    assert family.query("PRAGMA journal_mode") == [("delete",)]


def test_a_page_size_that_sqlite_passes_over_in_silence_is_refused(family: Place) -> None:
    size = "PRAGMA page_size = 8192;\nVACUUM;"
    tag = family.folder.add("size", f"-- guard: no-transaction\n{size}")
    with pytest.raises(
        ForbiddenStatement, match=r"line 2, statement 1: .* page_size is still 4096"
    ):
        migrate(family)
    assert family.query("SELECT count(*) FROM __drizzle_migrations") == [(1,)]
    family.folder.write(
        tag,
        f"-- guard: no-transaction\nPRAGMA journal_mode=DELETE;\n{size}\nPRAGMA main.journal_mode('wal');"
        "\nPRAGMA auto_vacuum = FULL; VACUUM;",
    )
    assert migrate(family) == [tag]
    assert family.query("PRAGMA page_size") == [(8192,)]
    assert family.query("PRAGMA journal_mode") == [("wal",)]


def test_an_error_after_a_committed_group_names_what_is_committed(place: Place) -> None:
    place.folder.add("a", "CREATE TABLE a(x);")
    place.folder.add("b", "-- guard: foreign-keys=on\nCREATE TABLE b(x);")
    place.folder.add("c", "CREATE TABLE c(x); SELEC 1;")
    with pytest.raises(MigrationFailed) as caught:
        migrate(place)
    assert caught.value.message.endswith("Committed before it, and kept: 0000_a, 0001_b.")
    assert caught.value.hint.endswith("the database is as 0001_b left it.")
    assert caught.value.data["committed"] == ["0000_a", "0001_b"]
    assert place.query("SELECT count(*) FROM __drizzle_migrations") == [(2,)]


def test_a_rebuild_among_enforced_keys_is_refused(family: Place) -> None:
    family.folder.add("wrong", "-- guard: foreign-keys=on\nDROP TABLE parent;")
    with pytest.raises(ForbiddenStatement, match="would delete the rows of child"):
        migrate(family)
    assert family.query("SELECT count(*) FROM child") == [(2,)]


def test_text_in_double_quotes_is_refused_until_it_is_accepted(family: Place) -> None:
    sql = 'UPDATE parent SET name = "nobody";'
    tag = family.folder.add("quotes", sql)
    with pytest.raises(DoubleQuotedString, match='"nobody" is not a column'):
        migrate(family)
    family.folder.write(tag, "-- guard: accept double_quoted_strings\n" + sql)
    assert migrate(family) == [tag]
    assert family.query("SELECT DISTINCT name FROM parent") == [("nobody",)]


def test_text_in_double_quotes_is_told_and_not_held_against_an_old_folder_on_a_new_database(
    place: Place,
) -> None:
    tag = place.folder.add("a", 'CREATE TABLE a(x);\nINSERT INTO a VALUES ("text");')
    events: list[tuple[str, dict[str, object]]] = []
    with guarded(
        place.database,
        place.folder.path,
        emit=lambda event, /, **fields: events.append((event, fields)),
    ) as report:
        assert [step.tag for step in report.applied] == [tag]
    (told,) = [fields for event, fields in events if event == "guard.hazard_found"]
    assert (told["tag"], told["kind"], told["object"]) == (tag, "double_quoted_strings", "text")
    assert str(told["message"]).startswith(
        f'{tag}.sql, line 2, statement 2: "text" is not a column'
    )


def test_text_in_double_quotes_of_applied_migrations_is_no_matter(place: Place) -> None:
    place.folder.add("a", 'CREATE TABLE a(x); INSERT INTO a VALUES ("text");')
    migrate(place)
    later = place.folder.add("b", "INSERT INTO a VALUES ('more');")
    assert migrate(place) == [later]


def test_functions_of_the_application_are_there_in_rehearsal_and_replay(place: Place) -> None:
    policy = GuardPolicy(functions={"twice": "tests.guard.test_directives:twice"})
    place.folder.add("a", "CREATE TABLE a(x); INSERT INTO a VALUES (twice(2));")
    migrate(place, policy)
    place.folder.add("b", "UPDATE a SET x = twice(x);")
    migrate(place, policy)
    place.write("CREATE INDEX by_hand ON a(x)")
    with guarded(place.database, place.folder.path, policy=policy) as report:
        assert [difference.object for difference in report.drift] == ["by_hand"]
    assert place.query("SELECT x FROM a") == [(8,)]


def test_a_function_in_a_check_is_no_trouble_to_later_migrations(place: Place) -> None:
    policy = GuardPolicy(functions={"twice": "tests.guard.test_directives:twice"})
    place.folder.add("a", "CREATE TABLE a(x CHECK (twice(x) > 1)); INSERT INTO a VALUES (2);")
    place.folder.add("b", "CREATE TABLE b(x);", down="DROP TABLE b;")
    assert migrate(place, policy) == ["0000_a", "0001_b"]
    place.folder.add("c", "INSERT INTO a VALUES (3);", down="DELETE FROM a WHERE x = 3;")
    assert migrate(place, policy) == ["0002_c"]
    context = GuardContext(place.database, place.folder.path, policy)
    done = go_back(context, steps=2, to=None)
    assert [step.tag for step in done.steps] == ["0002_c", "0001_b"]


def twice(value: int) -> int:
    return value * 2
