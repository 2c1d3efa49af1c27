"""What depends on a changed table still runs, or the migration is refused."""

from __future__ import annotations

import sqlite3

import pytest

from local_mcp_gateway.errors import VerificationFailed
from tests.migrate.workshop import Workshop

AUDIT = "CREATE TRIGGER audit AFTER INSERT ON notes BEGIN INSERT INTO log VALUES (new.v); END;"
BASE = f"CREATE TABLE notes(id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE log(x TEXT); {AUDIT}"
REBUILD = """CREATE TABLE __new_notes(id INTEGER PRIMARY KEY, v TEXT DEFAULT 'q');
INSERT INTO __new_notes(id, v) SELECT id, v FROM notes;
DROP TABLE notes;
ALTER TABLE __new_notes RENAME TO notes;"""
ASIDE = """ALTER TABLE notes RENAME TO notes_old;
CREATE TABLE notes(id INTEGER PRIMARY KEY, v TEXT DEFAULT 'q');
INSERT INTO notes SELECT * FROM notes_old;
DROP TABLE notes_old;"""


def refused(shop: Workshop, sql: str) -> VerificationFailed:
    """Apply it: it is refused, and everything is as it was."""
    shop.add("0009_b", sql)
    before = shop.rows("SELECT * FROM sqlite_schema")
    with pytest.raises(VerificationFailed) as caught:
        shop.apply()
    assert shop.rows("SELECT * FROM sqlite_schema") == before
    return caught.value


def corrected(shop: Workshop, sql: str) -> None:
    """Apply it in place of what was refused; every write and every view runs then."""
    shop.path.joinpath("0009_b.sql").write_text(sql)
    shop.apply()
    everything_runs(shop)


def everything_runs(shop: Workshop) -> None:
    connection = sqlite3.connect(shop.database, isolation_level=None)
    connection.execute("PRAGMA foreign_keys=ON")
    for kind, name in connection.execute(
        "SELECT type, name FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    ).fetchall():
        connection.execute(f'SELECT * FROM "{name}"')
        if kind == "table":
            connection.execute(f'EXPLAIN INSERT INTO "{name}" DEFAULT VALUES')
            connection.execute(f'EXPLAIN DELETE FROM "{name}"')
            (column,) = connection.execute(
                "SELECT min(name) FROM pragma_table_info(?)", (name,)
            ).fetchone()
            connection.execute(f'EXPLAIN UPDATE "{name}" SET "{column}" = NULL')
    connection.close()


@pytest.fixture
def notes(shop: Workshop) -> Workshop:
    shop.add("0000_a", BASE)
    shop.apply()
    return shop


@pytest.mark.parametrize("sql", [REBUILD, ASIDE])
def test_a_trigger_that_goes_with_the_old_table_is_refused_with_its_text(
    notes: Workshop, sql: str
) -> None:
    error = refused(notes, sql)
    assert error.message == (
        "The trigger audit of notes would go with the old table, though no statement of 0009_b drops it."
    )
    assert AUDIT in error.hint
    corrected(notes, f"{sql}\n{AUDIT}")
    assert notes.rows("SELECT name FROM sqlite_schema WHERE type = 'trigger'") == [("audit",)]


@pytest.mark.parametrize(
    "meant",
    [
        f"DROP TRIGGER audit; {REBUILD}",
        f"-- guard: accept drops_trigger audit\n{REBUILD}",
        f'-- guard: accept drops-trigger "Audit"\n{REBUILD}',
        f"{REBUILD} CREATE TRIGGER audit2 AFTER INSERT ON notes BEGIN SELECT 1; END;",
        "DROP TABLE notes;",
        "DROP TABLE notes; CREATE VIEW notes AS SELECT x AS v FROM log;",
    ],
)
def test_a_trigger_may_go_where_the_file_says_so(notes: Workshop, meant: str) -> None:
    notes.add("0009_b", meant)
    notes.apply()
    everything_runs(notes)


def test_a_later_migration_of_the_set_may_bring_the_trigger_back(notes: Workshop) -> None:
    notes.add("0001_applied_elsewhere", REBUILD)
    notes.add("0002_mended", AUDIT)
    notes.apply()


def test_an_accept_without_a_name_is_refused(notes: Workshop) -> None:
    notes.add("0009_b", f"-- guard: accept drops_trigger\n{REBUILD}")
    with pytest.raises(Exception, match="asks the guard for `accept drops_trigger`"):
        notes.apply()


def test_the_trigger_of_a_view_that_is_made_again_is_not_forgotten(notes: Workshop) -> None:
    view = "CREATE VIEW w AS SELECT v FROM notes;"
    instead = (
        "CREATE TRIGGER wi INSTEAD OF INSERT ON w BEGIN INSERT INTO notes(v) VALUES (new.v); END;"
    )
    notes.add("0001_a", f"{view} {instead}")
    notes.apply()
    again = f"DROP VIEW w; {view}"
    notes.add("0002_b", again)
    with pytest.raises(VerificationFailed, match="The trigger wi of w would go"):
        notes.apply()
    notes.path.joinpath("0002_b.sql").write_text(f"{again} {instead}")
    notes.apply()


INDEXES = {
    "plain": "CREATE INDEX by_v ON notes(v);",
    "unique": "CREATE UNIQUE INDEX by_v ON notes(v);",
    "partial": "CREATE INDEX by_v ON notes(v) WHERE id > 3;",
    "expression": "CREATE INDEX by_v ON notes(lower(v));",
}


@pytest.mark.parametrize("kind", INDEXES)
@pytest.mark.parametrize("way", [REBUILD, ASIDE])
def test_an_index_that_goes_with_the_old_table_is_refused(
    notes: Workshop, kind: str, way: str
) -> None:
    notes.add("0001_index", INDEXES[kind])
    notes.apply()
    error = refused(notes, f"{way} {AUDIT}")
    assert error.message.startswith("The index by_v of notes would go with the old table")
    assert INDEXES[kind] in error.hint
    corrected(notes, f"{way} {AUDIT} {INDEXES[kind]}")


@pytest.mark.parametrize(
    ("index", "meant"),
    [
        ("plain", f"DROP INDEX by_v; {REBUILD}"),
        ("plain", f"-- guard: accept drops_index by_v\n{REBUILD}"),
        ("plain", f"{REBUILD} CREATE INDEX better ON notes(v, id);"),
        ("unique", f"{REBUILD} CREATE UNIQUE INDEX other ON notes(v);"),
        ("unique", REBUILD.replace("v TEXT DEFAULT 'q'", "v TEXT UNIQUE")),
        ("plain", REBUILD.replace("v TEXT DEFAULT 'q'", "w TEXT").replace("(id, v)", "(id, w)")),
        ("expression", f"{REBUILD} CREATE INDEX other ON notes(lower(v));"),
    ],
)
def test_an_index_may_go_where_the_file_says_so_or_another_does_its_work(
    notes: Workshop, index: str, meant: str
) -> None:
    notes.add("0001_index", f"DROP TRIGGER audit; {INDEXES[index]}")
    notes.apply()
    notes.add("0009_b", meant)
    notes.apply()


@pytest.mark.parametrize(
    "stand_in", ["CREATE INDEX other ON notes(v);", "CREATE UNIQUE INDEX other ON notes(v, id);"]
)
def test_a_unique_index_is_not_replaced_by_a_weaker_one(notes: Workshop, stand_in: str) -> None:
    notes.add("0001_index", f"DROP TRIGGER audit; {INDEXES['unique']}")
    notes.apply()
    assert "The index by_v" in refused(notes, f"{REBUILD} {stand_in}").message


CARRIED = """CREATE TABLE pos(id INTEGER PRIMARY KEY, n INTEGER, qu INTEGER);
{dependent}"""
POS_ASIDE = """ALTER TABLE pos RENAME TO pos_old;
CREATE TABLE pos(id INTEGER PRIMARY KEY, n INTEGER, qu INTEGER, extra TEXT);
INSERT INTO pos(id, n, qu) SELECT id, n, qu FROM pos_old;
DROP TABLE pos_old;"""
DEPENDENTS = {
    "a trigger of another table": (
        "CREATE TRIGGER tp AFTER UPDATE ON notes BEGIN UPDATE pos SET qu = 1 WHERE n = new.id; END;",
        "The trigger tp cannot run, so every UPDATE of notes would fail: no such table: main.pos_old",
    ),
    "a view": (
        "CREATE VIEW vp AS SELECT n, qu FROM pos;",
        "The view vp cannot be read: no such table: main.pos_old",
    ),
    "a view over a view": (
        "CREATE VIEW vp AS SELECT n, qu FROM pos; CREATE VIEW vq AS SELECT n FROM vp;",
        "The view vp cannot be read: no such table: main.pos_old (and 1 more)",
    ),
    "an INSTEAD OF trigger": (
        (
            "CREATE VIEW vn AS SELECT id FROM notes;"
            " CREATE TRIGGER vi INSTEAD OF DELETE ON vn BEGIN DELETE FROM pos WHERE n = old.id; END;"
        ),
        "The trigger vi cannot run, so every DELETE from vn would fail: no such table: main.pos_old",
    ),
}


@pytest.mark.parametrize("which", DEPENDENTS)
def test_what_a_renamed_table_carries_along_is_refused(notes: Workshop, which: str) -> None:
    dependent, sentence = DEPENDENTS[which]
    notes.add("0001_more", CARRIED.format(dependent=dependent))
    notes.apply()
    error = refused(notes, POS_ASIDE)
    assert error.message == f"{sentence}, after 0009_b."
    assert error.hint.startswith("Make the new table under another name")
    corrected(notes, f"PRAGMA legacy_alter_table=ON; {POS_ASIDE}")


@pytest.mark.parametrize("which", [*DEPENDENTS, "a foreign key"])
def test_what_follows_a_table_that_is_only_moved_aside_is_refused(
    notes: Workshop, which: str
) -> None:
    dependent, _ = DEPENDENTS.get(which, ("CREATE TABLE child(p INTEGER REFERENCES pos(id));", ""))
    notes.add("0001_more", CARRIED.format(dependent=dependent))
    notes.apply()
    error = refused(notes, POS_ASIDE.replace("DROP TABLE pos_old;", ""))
    assert "would look at pos_old instead of pos" in error.message


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("ALTER TABLE log RENAME TO log2; DROP TABLE log2;", "no such table: main.log2"),
        ("DROP TABLE log;", "no such table: main.log"),
        (
            "DROP TABLE log; CREATE TABLE log(x TEXT, y TEXT);",
            "table log has 2 columns but 1 values",
        ),
    ],
)
def test_a_trigger_that_would_fail_at_every_write_is_refused(
    notes: Workshop, change: str, error: str
) -> None:
    told = refused(notes, change).message
    assert told.startswith(
        f"The trigger audit cannot run, so every INSERT into notes would fail: {error}"
    )
    corrected(notes, f"DROP TRIGGER audit; {change}")


def test_what_could_not_run_before_is_not_the_migrations_fault(shop: Workshop) -> None:
    shop.add("0000_a", f"{BASE} CREATE TABLE kept(x); INSERT INTO kept VALUES (1);")
    shop.apply()
    shop.execute(
        "DROP TABLE log",
        "CREATE VIEW broken AS SELECT * FROM nowhere",
        "CREATE TABLE child(p REFERENCES notes(v))",
        "CREATE TRIGGER app AFTER DELETE ON kept BEGIN SELECT only_the_app_knows(1); END",
    )
    shop.add("0009_b", "ALTER TABLE kept ADD COLUMN y; CREATE TABLE other(x);")
    shop.apply()
    shop.add("0002_c", "CREATE VIEW worse AS SELECT * FROM broken;")
    with pytest.raises(VerificationFailed, match="The view worse cannot be read"):
        shop.apply()


def test_something_that_cannot_run_may_be_accepted(notes: Workshop) -> None:
    notes.add("0009_b", "-- guard: accept cannot_run audit\nDROP TABLE log;")
    notes.apply()


KEYS = {
    "unique index": (
        (
            "CREATE TABLE p(id INTEGER PRIMARY KEY, k TEXT); CREATE UNIQUE INDEX pk ON p(k);"
            " CREATE TABLE c(k TEXT REFERENCES p(k));"
        ),
        "DROP INDEX pk;",
    ),
    "composite": (
        (
            "CREATE TABLE p(a, b, x); CREATE UNIQUE INDEX pk ON p(a, b);"
            " CREATE TABLE c(a, b, FOREIGN KEY (a, b) REFERENCES p(a, b));"
        ),
        "DROP INDEX pk; CREATE UNIQUE INDEX pa ON p(a); CREATE UNIQUE INDEX pb ON p(b);",
    ),
    "partial": (
        "CREATE TABLE p(k); CREATE UNIQUE INDEX pk ON p(k); CREATE TABLE c(k REFERENCES p(k));",
        "DROP INDEX pk; CREATE UNIQUE INDEX pk ON p(k) WHERE k IS NOT NULL;",
    ),
    "collation": (
        "CREATE TABLE p(k TEXT); CREATE UNIQUE INDEX pk ON p(k); CREATE TABLE c(k REFERENCES p(k));",
        "DROP INDEX pk; CREATE UNIQUE INDEX pk ON p(k COLLATE NOCASE);",
    ),
    "primary key": (
        "CREATE TABLE p(k TEXT PRIMARY KEY); CREATE TABLE c(k REFERENCES p(k));",
        "CREATE TABLE n(k TEXT); INSERT INTO n SELECT k FROM p; DROP TABLE p; ALTER TABLE n RENAME TO p;",
    ),
    "unnamed key": (
        "CREATE TABLE p(k TEXT PRIMARY KEY); CREATE TABLE c(k REFERENCES p);",
        (
            "CREATE TABLE n(k TEXT, l TEXT, PRIMARY KEY (k, l)) WITHOUT ROWID; INSERT INTO n SELECT k, k FROM p;"
            " DROP TABLE p; ALTER TABLE n RENAME TO p;"
        ),
    ),
    "self": (
        "CREATE TABLE p(k TEXT UNIQUE, up TEXT REFERENCES p(k));",
        (
            "CREATE TABLE n(k TEXT, up TEXT REFERENCES p(k)); INSERT INTO n SELECT * FROM p; DROP TABLE p;"
            " ALTER TABLE n RENAME TO p;"
        ),
    ),
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_that_a_foreign_key_needs_may_not_go(shop: Workshop, kind: str) -> None:
    base, change = KEYS[kind]
    shop.add("0000_a", f"{base} CREATE TABLE other(x); INSERT INTO other VALUES (1);")
    shop.apply()
    error = refused(shop, change)
    child = "p" if kind == "self" else "c"
    assert error.message.startswith(f"The foreign key of {child} to p cannot work")


def test_the_parent_of_a_foreign_key_may_not_go(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p);")
    shop.apply()
    assert "there is no table p" in refused(shop, "DROP TABLE p;").message
    corrected(shop, "DROP TABLE c; DROP TABLE p;")
