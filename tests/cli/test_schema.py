"""`db diff` and `db pull`, and the sources of schemas, by the command line on real files."""

from __future__ import annotations

import pytest

from tests.cli.schemas import generate, schema
from tests.harness import Place


def test_diff_with_a_snapshot_compares_what_a_snapshot_can_say(place: Place) -> None:
    generate(
        place,
        "CREATE TABLE t (a TEXT COLLATE NOCASE PRIMARY KEY, b INT) STRICT, WITHOUT ROWID;"
        "CREATE TRIGGER tr AFTER DELETE ON t BEGIN DELETE FROM t; END;"
        "CREATE VIRTUAL TABLE f USING fts5(a);",
    )
    place.migrate()
    snapshot = str(place.folder.path / "meta" / "0000_snapshot.json")
    assert place.run("db", "diff", "--from", snapshot, "--to", "database").code == 0
    assert place.run("db", "diff", "--from", "database", "--to", snapshot).code == 0
    place.write("ALTER TABLE t ADD COLUMN c TEXT")
    differs = place.run("db", "diff", "--from", snapshot, "--to", "database")
    assert (differs.code, differs.stdout) == (3, "ALTER TABLE t ADD COLUMN c TEXT;\n")


@pytest.mark.parametrize(
    "source", ["nothing.db", "nothing.sql", "no_such_module", "README.txt", "migrations@nope"]
)
def test_a_source_that_is_nothing_is_said_plainly(place: Place, source: str) -> None:
    (place.root / "README.txt").write_text("hello")
    refused = place.run("db", "diff", "--from", source)
    assert refused.code == 2
    assert "→" in refused.stderr


def test_a_schema_may_use_functions_and_collations_of_the_application(place: Place) -> None:
    (place.root / "app.py").write_text(
        "import re\n\ndef regexp(pattern, text):\n    return re.search(pattern, text) is not None\n\n"
        "def german(a, b):\n    return (a > b) - (a < b)\n"
    )
    config = place.root / "gateway.toml"
    config.write_text(
        '[migrations.functions]\nregexp = "app:regexp"\n[migrations.collations]\ngerman = "app:german"\n'
    )
    options = ("--config", str(config), "db")
    first = "CREATE TABLE t(a TEXT CHECK(a REGEXP '^a'), b TEXT COLLATE german);"
    second = (
        f"{first[:-2]}, c TEXT COLLATE german UNIQUE); CREATE INDEX t_b ON t(b COLLATE german);"
    )
    rewritten = second.replace("^a", "^[ab]")  # a rebuild, with the check in it
    for wanted in (first, second, rewritten):
        source = schema(place, wanted)
        for command in (
            ("generate", "--schema", source),
            ("migrate", "--dry-run"),
            ("migrate",),
            ("status",),
            ("check",),
            ("diff",),
            ("diff", "--to", source),
        ):
            done = place.run(*options, *command, env={"PYTHONPATH": str(place.root)})
            assert done.code == (3 if "--dry-run" in command else 0), (wanted, command, done.stderr)


def test_a_word_means_a_folder_of_that_name_where_there_is_one(place: Place) -> None:
    for name in ("schema", "database"):
        folder = place.root / name
        folder.mkdir()
        (folder / "all.sql").write_text(f"CREATE TABLE of_{name}(a);")
    made = place.run("db", "generate", "--schema", "schema")
    assert "CREATE TABLE of_schema" in made.stdout
    differs = place.run("db", "diff", "--from", "database", "--to", "schema").stdout
    assert "CREATE TABLE of_schema" in differs
    assert "DROP TABLE of_database" in differs
    assert "of_database" not in place.run("db", "diff").stdout  # the default is ours


def test_an_extension_that_cannot_be_loaded_is_named(place: Place) -> None:
    place.folder.add("a", "CREATE TABLE t(a);")
    config = place.root / "gateway.toml"
    config.write_text('[migrations]\nextensions = ["./nowhere"]\n')
    done = place.run("--config", str(config), "db", "migrate")
    assert done.code == 7
    assert "migrations.extensions" in done.stderr


# --- pulling ------------------------------------------------------------------------------------

PULLED = (
    "CREATE TABLE notes (id INTEGER PRIMARY KEY, title TEXT NOT NULL COLLATE NOCASE)",
    "CREATE INDEX by_title ON notes (title DESC)",
    "CREATE VIEW titles AS SELECT title FROM notes",
    "CREATE TRIGGER kept BEFORE DELETE ON notes BEGIN SELECT raise(ABORT, 'kept'); END",
)


@pytest.fixture
def pulled(place: Place) -> Place:
    place.database.parent.mkdir(exist_ok=True)
    for statement in PULLED:
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
    assert printed == "\n".join(f"{statement};\n" for statement in PULLED)


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
