"""A migration that relies on ON DELETE gets what it asks for: never orphans, never a silent wipe."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_mcp_gateway.database.connections import open_scratch
from local_mcp_gateway.errors import GatewayError, MigrationFailed, VerificationFailed
from tests.migrate.test_against_sqlite import migration, with_engine
from tests.migrate.workshop import Workshop

FAMILY = """
CREATE TABLE parent(id INTEGER PRIMARY KEY);
CREATE TABLE child(id INTEGER PRIMARY KEY, p INTEGER DEFAULT 9 REFERENCES parent(id) {action});
CREATE TABLE grandchild(id INTEGER PRIMARY KEY, c INTEGER REFERENCES child(id) ON DELETE CASCADE);
INSERT INTO parent VALUES (1), (2), (9);
INSERT INTO child VALUES (1, 1), (2, 2);
INSERT INTO grandchild VALUES (1, 1), (2, 2);
"""
CHILDREN = "SELECT id, p FROM child"


@pytest.mark.parametrize(
    ("action", "children", "grandchildren"),
    [
        ("ON DELETE CASCADE", [(2, 2)], 1),
        ("ON DELETE SET NULL", [(1, None), (2, 2)], 2),
        ("ON DELETE SET DEFAULT", [(1, 9), (2, 2)], 2),
    ],
)
def test_the_action_of_each_key_is_taken_down_to_the_last_descendant(
    shop: Workshop, action: str, children: list[tuple[object, ...]], grandchildren: int
) -> None:
    shop.add("0000_a", FAMILY.format(action=action))
    shop.apply()
    shop.add("0001_b", "DELETE FROM parent WHERE id = 1;")
    _, losses = shop.apply()
    assert shop.rows(CHILDREN) == children
    assert shop.rows("SELECT count(*) FROM grandchild") == [(grandchildren,)]
    told = {loss.object for loss in losses}
    assert told == ({"parent", "child", "grandchild"} if grandchildren == 1 else {"parent"})


@pytest.mark.parametrize("action", ["", "ON DELETE RESTRICT", "ON DELETE NO ACTION"])
def test_a_key_without_an_action_refuses_the_migration(shop: Workshop, action: str) -> None:
    shop.add("0000_a", FAMILY.format(action=action))
    shop.apply()
    shop.add("0001_b", "DELETE FROM parent WHERE id = 1;")
    with pytest.raises(VerificationFailed, match=r"1 row of child \(rowid 1\)"):
        shop.apply()
    assert shop.rows("SELECT count(*) FROM parent") == [(3,)]


def test_a_file_that_switches_foreign_keys_off_gets_no_actions(shop: Workshop) -> None:
    shop.add("0000_a", FAMILY.format(action="ON DELETE CASCADE"))
    shop.apply()
    shop.add("0001_b", "PRAGMA foreign_keys=OFF;\nDELETE FROM parent WHERE id = 1;")
    with pytest.raises(VerificationFailed, match="child"):
        shop.apply()


def test_a_rebuild_that_leaves_a_parent_out_is_refused_not_cascaded(shop: Workshop) -> None:
    shop.add("0000_a", FAMILY.format(action="ON DELETE CASCADE"))
    shop.apply()
    shop.add(
        "0001_b",
        "CREATE TABLE n(id INTEGER PRIMARY KEY); INSERT INTO n SELECT id FROM parent WHERE id > 1;"
        " DELETE FROM parent; DROP TABLE parent; ALTER TABLE n RENAME TO parent;",
    )
    with pytest.raises(VerificationFailed, match="1 row of child"):
        shop.apply()
    assert shop.rows("SELECT count(*) FROM child") == [(2,)]


def test_a_parent_that_is_put_back_keeps_its_children(shop: Workshop) -> None:
    shop.add("0000_a", FAMILY.format(action="ON DELETE CASCADE"))
    shop.apply()
    shop.add("0001_b", "DELETE FROM parent WHERE id = 1; INSERT INTO parent VALUES (1);")
    shop.apply()
    assert shop.rows("SELECT count(*) FROM child") == [(2,)]


def test_orphans_from_before_are_not_acted_on(shop: Workshop) -> None:
    shop.add("0000_a", FAMILY.format(action="ON DELETE CASCADE"))
    shop.apply()
    shop.execute("PRAGMA foreign_keys=OFF", "INSERT INTO child VALUES (7, 77)")
    shop.add("0001_b", "DELETE FROM parent WHERE id = 1;")
    shop.apply()
    assert shop.rows(CHILDREN) == [(2, 2), (7, 77)]


CATEGORIES = """
CREATE TABLE category(id INTEGER PRIMARY KEY, slug TEXT UNIQUE);
CREATE TABLE post(
    id INTEGER PRIMARY KEY, category TEXT REFERENCES category(slug) ON UPDATE CASCADE ON DELETE CASCADE
);
INSERT INTO category VALUES (1, 'News'), (2, 'empty'), (3, 'full');
INSERT INTO post VALUES (1, 'News'), (2, 'News'), (3, 'full');
"""


@pytest.mark.parametrize(
    "sql",
    [
        # ON UPDATE would have moved the posts along
        "UPDATE category SET slug = 'news' WHERE slug = 'News'; DELETE FROM category WHERE slug = 'empty';",
        "UPDATE category SET slug = 'x' WHERE id = 1; INSERT INTO category VALUES (9, 'News'); DELETE FROM category WHERE id = 9;",
        # a parent that never was
        "INSERT INTO post VALUES (4, 'nwes'); DELETE FROM category WHERE slug = 'empty';",
        # one that is not any more
        "DELETE FROM category WHERE slug = 'full'; INSERT INTO post VALUES (4, 'full');",
        "DELETE FROM category WHERE slug = 'full'; UPDATE post SET category = 'full' WHERE id = 1;",
        # a table that is another by the end of the file
        "DELETE FROM category WHERE slug = 'full'; ALTER TABLE post RENAME COLUMN category TO slug;",
        "DELETE FROM category WHERE slug = 'full'; ALTER TABLE category RENAME TO genre;",
    ],
)
def test_what_a_delete_did_not_orphan_for_certain_is_refused(shop: Workshop, sql: str) -> None:
    shop.add("0000_a", CATEGORIES)
    shop.apply()
    shop.add("0001_b", sql)
    with pytest.raises(VerificationFailed, match="of post"):
        shop.apply()
    assert shop.rows("SELECT count(*) FROM post") == [(3,)]


def test_keys_that_an_earlier_file_of_the_same_set_changed_are_remembered(shop: Workshop) -> None:
    shop.add("0000_a", CATEGORIES)
    shop.apply()
    shop.add("0001_b", "UPDATE category SET slug = 'news' WHERE slug = 'News';")
    shop.add("0002_c", "ALTER TABLE category RENAME TO genre;")
    shop.add("0003_d", "INSERT INTO genre VALUES (9, 'News'); DELETE FROM genre WHERE id = 9;")
    with pytest.raises(VerificationFailed, match="2 rows of post"):
        shop.apply()


NOTES = """
CREATE TABLE account(id TEXT PRIMARY KEY);
CREATE TABLE folder(id TEXT PRIMARY KEY);
CREATE TABLE note(id TEXT PRIMARY KEY, account TEXT {reference});
INSERT INTO account VALUES ('a'), ('tmp');
INSERT INTO note VALUES ('n0', 'a'), ('n1', 'a'), ('n2', 'gone'), ('n3', 'a');
DELETE FROM note WHERE id = 'n0';
"""
CASCADES = "REFERENCES account(id) ON DELETE CASCADE"
REBUILD = f"""
CREATE TABLE n(id TEXT PRIMARY KEY, account TEXT {CASCADES});
INSERT INTO n SELECT id, account FROM note;
DROP TABLE note;
ALTER TABLE n RENAME TO note;
"""


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "SET DEFAULT"])
@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE note ADD COLUMN folder TEXT REFERENCES folder(id);",  # numbers the keys anew
        "ALTER TABLE note RENAME COLUMN account TO owner;",
        REBUILD,  # numbers the rows anew
        "",
    ],
)
def test_an_old_orphan_stays_as_it_is_however_its_table_changes(
    shop: Workshop, action: str, change: str
) -> None:
    shop.add("0000_a", "SELECT 1;")
    shop.apply()
    for statement in NOTES.format(reference=f"REFERENCES account(id) ON DELETE {action}").split(
        ";"
    ):
        shop.execute(statement)
    shop.add("0001_b", f"DELETE FROM account WHERE id = 'tmp';{change}")
    shop.apply()
    column = "owner" if "owner" in change else "account"
    assert shop.rows(f"SELECT id, {column} FROM note ORDER BY id") == [
        ("n1", "a"),
        ("n2", "gone"),
        ("n3", "a"),
    ]


def test_rows_that_a_new_key_finds_dirty_are_refused_not_deleted(shop: Workshop) -> None:
    shop.add("0000_a", NOTES.format(reference=""))
    shop.apply()
    shop.add("0001_b", f"DELETE FROM account WHERE id = 'tmp';{REBUILD}")
    with pytest.raises(VerificationFailed, match="1 row of note"):
        shop.apply()
    assert shop.rows("SELECT count(*) FROM note") == [(3,)]


@pytest.mark.parametrize(
    "table", ["c(rowid INTEGER, p INTEGER {})", "c(rowid INTEGER PRIMARY KEY, p {}) WITHOUT ROWID"]
)
def test_a_column_called_rowid_points_at_nobody_else(shop: Workshop, table: str) -> None:
    key = "REFERENCES p(id) ON DELETE CASCADE"
    shop.add(
        "0000_a",
        f"CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE {table.format(key)};"
        " INSERT INTO p VALUES (1), (2); INSERT INTO c VALUES (1, 1), (2, 2);",
    )
    shop.apply()
    shop.add("0001_b", "DELETE FROM p WHERE id = 1;")
    shop.apply()
    assert shop.rows("SELECT * FROM c") == [(2, 2)]


@pytest.mark.parametrize(
    "table", ["c(id INTEGER PRIMARY KEY, p {})", "c(id, p {}, PRIMARY KEY(id)) WITHOUT ROWID"]
)
def test_a_new_orphan_is_found_though_an_old_one_was_mended(shop: Workshop, table: str) -> None:
    shop.add(
        "0000_a",
        f"CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE {table.format('REFERENCES p(id)')};",
    )
    shop.apply()
    shop.execute("INSERT INTO p VALUES (1)", "INSERT INTO c VALUES (10, 1), (11, 99)")
    shop.add("0001_b", "DELETE FROM c WHERE id = 11; DELETE FROM p WHERE id = 1;")
    with pytest.raises(VerificationFailed, match="1 row of c"):
        shop.apply()


def test_an_action_that_fails_is_told_at_the_statement_that_deleted(shop: Workshop) -> None:
    shop.add(
        "0000_a",
        "CREATE TABLE p(id INTEGER PRIMARY KEY);"
        "CREATE TABLE c(id INTEGER PRIMARY KEY, p NOT NULL REFERENCES p(id) ON DELETE SET NULL);"
        "INSERT INTO p VALUES (1); INSERT INTO c VALUES (10, 1);",
    )
    shop.apply()
    shop.add("0001_b", "SELECT 1;\nDELETE FROM p WHERE id = 1;\nSELECT 2;")
    with pytest.raises(
        MigrationFailed, match=r"line 2, statement 2: NOT NULL constraint failed: c\.p"
    ):
        shop.apply()


@pytest.mark.parametrize(
    "parent", ["TABLE p(id)", "VIEW p AS SELECT 1 AS x", "VIRTUAL TABLE p USING fts5(x)"]
)
def test_a_key_that_fits_nothing_is_nobodys_business(shop: Workshop, parent: str) -> None:
    shop.add(
        "0000_a",
        f"CREATE {parent}; CREATE TABLE c(p REFERENCES p(nope) ON DELETE CASCADE);"
        "CREATE TRIGGER IF NOT EXISTS t AFTER DELETE ON c BEGIN SELECT 1; END;",
    )
    shop.apply()
    shop.add("0001_b", "DELETE FROM c; " + ("" if "VIEW" in parent else "DELETE FROM p;"))
    shop.apply()


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "SET DEFAULT", "RESTRICT"])
@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM parent WHERE id = 1; DROP TABLE grandchild; DROP TABLE child;",
        "DELETE FROM parent WHERE id = 9; DROP TABLE grandchild; DROP TABLE child; DELETE FROM parent;",
        "DELETE FROM other; DROP TABLE more; DROP TABLE other; DELETE FROM parent WHERE id = 9;",
        "DELETE FROM parent WHERE id = 1; DELETE FROM grandchild WHERE c = 1; DELETE FROM child WHERE p = 1;",
    ],
)
def test_children_that_the_file_itself_removes_need_no_action(
    shop: Workshop, action: str, sql: str
) -> None:
    shop.add("0000_a", FAMILY.format(action=f"ON DELETE {action}"))
    shop.add(
        "0001_b",
        "CREATE TABLE other(id PRIMARY KEY); CREATE TABLE more(o REFERENCES other ON DELETE CASCADE);",
    )
    shop.apply()
    shop.add("0002_c", sql)
    shop.apply()


SCHEMA = """
CREATE TABLE p(id INTEGER PRIMARY KEY, u TEXT COLLATE NOCASE UNIQUE);
CREATE TABLE a(id PRIMARY KEY, p INTEGER DEFAULT 2 REFERENCES p {on[0]}, u TEXT REFERENCES p(u) {on[1]}) WITHOUT ROWID;
CREATE TABLE b(id INTEGER PRIMARY KEY, a REFERENCES a(id) {on[2]}, b INTEGER REFERENCES b {on[3]});
CREATE TABLE log(x);
CREATE TRIGGER gone AFTER DELETE ON b BEGIN INSERT INTO log VALUES (old.id); END;
INSERT INTO p VALUES (1, 'x'), (2, 'Y'), (3, 'z');
INSERT INTO a VALUES (1, 1, 'X'), ('2', '2', 'y'), (3, 1, NULL), (4, NULL, 'z');
INSERT INTO b VALUES (1, 1, NULL), (2, '2', 1), (3, 3, 2), (4, 4, 3), (5, NULL, 5);
"""
ON = st.sampled_from(
    [f"{update} {delete}" for update in ("", "ON UPDATE CASCADE", "ON UPDATE SET NULL")
     for delete in ("", "ON DELETE CASCADE", "ON DELETE SET NULL", "ON DELETE SET DEFAULT", "ON DELETE RESTRICT")]
)  # fmt: skip
CHANGE = st.sampled_from(
    [
        "DELETE FROM p WHERE id = 1;",
        "DELETE FROM p WHERE u = 'Z';",
        "DELETE FROM p;",
        "DELETE FROM a WHERE id = 2;",
        "DELETE FROM a WHERE id = 3;",
        "DELETE FROM b WHERE id = 1;",
        "WITH old(i) AS (SELECT 2) DELETE FROM p WHERE id IN old;",
        "UPDATE p SET id = id + 10;",
        "UPDATE p SET u = 'x' || u WHERE id = 1;",
        "UPDATE OR REPLACE p SET u = 'z' WHERE id = 1;",
        "UPDATE a SET p = 3 WHERE id = 1;",
        "UPDATE b SET b = NULL WHERE id = 2;",
        "INSERT INTO a VALUES (9, 1, 'x');",
        "INSERT INTO b VALUES (9, 9, 4);",
        "INSERT OR REPLACE INTO p VALUES (4, 'y');",
        "ALTER TABLE b ADD COLUMN more INTEGER REFERENCES p;",
        "CREATE TABLE other(x);",
    ]
)
TABLES = ("p", "a", "b", "log")


def rows(connection: sqlite3.Connection) -> list[list[tuple[object, ...]]]:
    return [
        sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
        for table in TABLES
    ]


def with_foreign_keys(connection: sqlite3.Connection, sql: str) -> bool:
    """Run a file in one transaction, enforced by SQLite; tell whether it succeeded."""
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("BEGIN")
    try:
        for statement in sql.split(";\n"):
            connection.execute(statement)
        connection.execute("COMMIT")
    except sqlite3.Error:
        connection.execute("ROLLBACK")
        return False
    return True


@settings(max_examples=120, deadline=None)
@given(st.tuples(ON, ON, ON, ON), st.lists(CHANGE, min_size=1, max_size=4))
def test_what_the_actions_leave_is_what_sqlite_leaves_or_the_file_is_refused(
    on: tuple[str, str, str, str], changes: list[str]
) -> None:
    sql = "\n".join(changes)
    with closing(open_scratch()) as ours, closing(open_scratch()) as theirs:
        for connection in (ours, theirs):
            connection.executescript(SCHEMA.format(on=on))
        before = rows(ours)
        refusal = with_engine(ours, migration(0, sql))
        if refusal is not None:
            assert issubclass(refusal, GatewayError)
            assert rows(ours) == before
        elif with_foreign_keys(theirs, sql):
            if all(change.startswith(("DELETE", "WITH", "ALTER", "CREATE")) for change in changes):
                assert rows(ours) == rows(theirs)
            for kept, should_be in zip(rows(ours)[:3], rows(theirs)[:3], strict=True):
                # A file that puts a parent back, or gives its children another, keeps the children.
                assert {row[0] for row in kept} >= {row[0] for row in should_be}
        assert not ours.execute("SELECT * FROM sqlite_temp_schema").fetchall()
