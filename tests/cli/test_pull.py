"""`db pull`, and `db generate` from what it wrote."""

from __future__ import annotations

import pytest

from tests.harness import Place

SCHEMA = (
    "CREATE TABLE notes (id INTEGER PRIMARY KEY, title TEXT NOT NULL COLLATE NOCASE)",
    "CREATE INDEX by_title ON notes (title DESC)",
    "CREATE VIEW titles AS SELECT title FROM notes",
    "CREATE TRIGGER kept BEFORE DELETE ON notes BEGIN SELECT raise(ABORT, 'kept'); END",
)


@pytest.fixture
def pulled(place: Place) -> Place:
    place.database.parent.mkdir(exist_ok=True)
    for statement in SCHEMA:
        place.write(statement)
    return place


@pytest.mark.parametrize("name", ["schema.sql", "tables.py"])
def test_a_new_folder_generated_from_what_was_pulled_makes_the_same_schema(
    pulled: Place, name: str
) -> None:
    file = pulled.root / name
    done = pulled.run("db", "pull", "--output", file)
    assert (done.code, done.stdout) == (0, f"{file} makes the schema of {pulled.database}.\n")
    made = pulled.run("db", "generate", "--schema", file)
    assert made.code == 0, made.stderr
    assert pulled.run("db", "diff").code == 0
    assert pulled.run("db", "adopt", "--yes").code == 0
    assert pulled.run("db", "check").code == 0
    assert pulled.run("db", "generate", "--schema", file, "--check").code == 0


def test_without_a_file_the_sql_is_printed(pulled: Place) -> None:
    printed = pulled.run("db", "pull").stdout
    assert printed == "\n".join(f"{statement};\n" for statement in SCHEMA)


def test_another_source_can_be_pulled(pulled: Place) -> None:
    pulled.folder.add("one", "CREATE TABLE other (x)")
    assert pulled.run("db", "pull", "--from", "migrations").stdout == "CREATE TABLE other (x);\n"


def test_a_file_is_replaced_only_when_asked(pulled: Place) -> None:
    file = pulled.root / "schema.sql"
    file.write_text("mine")
    refused = pulled.run("db", "pull", "--output", file)
    assert (refused.code, file.read_text()) == (2, "mine")
    assert pulled.run("db", "pull", "--output", file, "--force").code == 0
    assert file.read_text().startswith("CREATE TABLE notes")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--output", "schema.txt"), 2, "is neither a .sql nor a .py file"),
        (("--from", "migrations"), 2, "There is no table to pull"),
    ],
)
def test_what_cannot_be_pulled_is_said(
    pulled: Place, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = pulled.run("db", "pull", *arguments)
    assert said in done.stderr
    assert done.code == code
