"""Migrations run on a real database: all or nothing, and every failure says where."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from local_mcp_gateway.database.connections import open_migration
from local_mcp_gateway.database.run import UNWATCHED, Run
from local_mcp_gateway.errors import (
    DiskProblem,
    ForbiddenStatement,
    GatewayError,
    Interrupted,
    MigrationFailed,
    VerificationFailed,
)
from local_mcp_gateway.migrate.ledger import Ledger
from local_mcp_gateway.migrate.no_transaction import run_without_transaction
from local_mcp_gateway.migrate.replay import replay
from tests.migrate.workshop import Workshop, apply_all


def failure(shop: Workshop, kind: type[GatewayError]) -> GatewayError:
    before = shop.rows("SELECT * FROM sqlite_schema") if shop.database.exists() else []
    with pytest.raises(kind) as caught:
        shop.apply()
    assert shop.rows("SELECT * FROM sqlite_schema") == before
    return caught.value


def test_a_chain_is_applied_and_recorded_in_drizzles_format(shop: Workshop) -> None:
    shop.add(
        "0000_a", "CREATE TABLE a(x);\n--> statement-breakpoint\nINSERT INTO a VALUES (1), (2);"
    )
    shop.add("0001_b", "ALTER TABLE a ADD y; UPDATE a SET y = x;")
    steps, _ = shop.apply()
    assert [(step.tag, step.statements) for step in steps] == [("0000_a", 2), ("0001_b", 2)]
    assert shop.rows("SELECT * FROM a") == [(1, 1), (2, 2)]
    folder = shop.read()
    assert shop.rows("SELECT id, hash, created_at FROM __drizzle_migrations") == [
        (None, m.hash, m.when) for m in folder.migrations
    ]
    connection = sqlite3.connect(shop.database)
    assert [(row.tag, row.duration_ms) for row in Ledger(connection).rows()] == [
        (step.tag, step.duration_ms) for step in steps
    ]
    assert [(row.event, row.program_version) for row in Ledger(connection).events()] == [
        ("applied", "1"),
        ("applied", "1"),
    ]
    connection.close()
    assert shop.resolve().pending == ()


def test_an_error_names_file_line_statement_and_marks_the_token(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a(x);")
    shop.add(
        "0001_b",
        "-- one\nCREATE TABLE b(x);\n\nCREATE TABLE c(x);\nCREATE TABLE d(\n  x INTEGER,\n  y TEXT NOT NULL\n);\nCREATE TABEL e(x);",
    )
    error = failure(shop, MigrationFailed)
    assert error.message == '0001_b.sql, line 9, statement 4: near "TABEL": syntax error.'
    assert error.data["excerpt"] == "9 | CREATE TABEL e(x);\n  |        ^"
    assert (error.data["line"], error.data["statement"], error.data["tag"]) == (9, 4, "0001_b")


@pytest.mark.parametrize(
    ("sql", "line", "caret"),
    [
        ("SELECT 1,\n  nope FROM sqlite_schema;", 2, "  |   ^"),
        ("INSERT INTO missing VALUES (1);", 1, "  |             ^"),
        ("CREATE TABLE a(x);\nCREATE TABLE a(y);", 2, "  |              ^"),
        ("CREATE TABLE a(x);\nINSERT INTO a(x,\n\ty) VALUES (1,2);", 3, "  | \t^"),
        ("SELECT nope + nope;", 1, None),
        ("SELECT uuid_v4();", 1, "  |        ^"),
    ],
)
def test_the_caret_stands_under_the_token_that_sqlite_names(
    shop: Workshop, sql: str, line: int, caret: str | None
) -> None:
    shop.add("0000_a", sql)
    error = failure(shop, MigrationFailed)
    assert error.data["line"] == line
    assert str(error.data["excerpt"]).partition("\n")[2] == (caret or "")


def test_a_function_of_the_application_is_sent_to_the_configuration(shop: Workshop) -> None:
    shop.add("0000_a", "SELECT uuid_v4();")
    assert "[migrations.functions]" in failure(shop, MigrationFailed).hint


@pytest.mark.parametrize(
    ("sql", "setting"),
    [
        ("CREATE TABLE a(x COLLATE german UNIQUE);", "[migrations.collations] german ="),
        ("CREATE VIRTUAL TABLE v USING vec0(e float[4]);", "[migrations] extensions ="),
    ],
)
def test_a_collation_or_a_module_of_the_application_is_sent_there_too(
    shop: Workshop, sql: str, setting: str
) -> None:
    shop.add("0000_a", sql)
    assert setting in failure(shop, MigrationFailed).hint


def test_a_vacuum_is_sent_to_a_file_of_its_own(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a(x); VACUUM;")
    assert "`-- guard: no-transaction`" in failure(shop, MigrationFailed).hint


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("CREATE TABLE a(x); COMMIT; CREATE TABLE b(x)", "transaction control"),
        ("ROLLBACK;", "transaction control"),
        ("SAVEPOINT s;", "transaction control"),
        ("ATTACH 'other.db' AS other;", "attach"),
        ("DETACH main;", "detach"),
        ("PRAGMA writable_schema=ON;", "writable_schema"),
        ("PRAGMA journal_mode=DELETE;", "no-transaction"),
        ("DELETE FROM __drizzle_migrations;", "belongs to the migration guard"),
        ("CREATE TRIGGER t AFTER INSERT ON __guard_history BEGIN SELECT 1; END;", "guard"),
        ("DROP TABLE __guard_history;", "guard"),
        ("ALTER TABLE __drizzle_migrations RENAME TO x;", "guard"),
    ],
)
def test_what_would_break_the_guard_is_refused_in_a_sentence(
    shop: Workshop, sql: str, why: str
) -> None:
    shop.add("0000_first", "CREATE TABLE first(x);")
    shop.apply()
    shop.add("0001_a", f"CREATE TABLE ok(x);\n{sql}")
    error = failure(shop, ForbiddenStatement)
    assert error.message.startswith("0001_a.sql, line 2, statement ")
    assert why in error.message


@pytest.mark.parametrize(
    "pragma",
    [
        "journal_mode = wal",
        "page_size = 4096",
        "auto_vacuum = NONE",
        "auto_vacuum = 0",
        "synchronous = NORMAL",
        "busy_timeout = 5000",
        "mmap_size = 0",
        "wal_checkpoint",
    ],
)
def test_a_pragma_that_is_the_guards_to_decide_is_passed_over_and_reported(
    shop: Workshop, pragma: str
) -> None:
    shop.execute("PRAGMA journal_mode=WAL")
    shop.add("0000_a", f"PRAGMA {pragma};\nCREATE TABLE a(x);")
    shop.add("0001_b", f"COMMIT;\nPRAGMA main.{pragma};\nBEGIN;\nCREATE TABLE b(x);")
    (first, second), _ = shop.apply()
    assert first.passed_over == second.passed_over == (f"PRAGMA {pragma}",)
    assert first.as_fields()["passed_over"] == [f"PRAGMA {pragma}"]


def test_another_journal_mode_than_the_present_one_is_refused(shop: Workshop) -> None:
    shop.execute("PRAGMA journal_mode=WAL")
    shop.add("0000_a", "PRAGMA journal_mode;\nPRAGMA journal_mode=TRUNCATE;")
    assert "line 2" in failure(shop, ForbiddenStatement).message


@pytest.mark.parametrize("pragma", ["page_size = 8192", "auto_vacuum = FULL", "auto_vacuum = 2"])
def test_another_form_of_the_file_is_refused(shop: Workshop, pragma: str) -> None:
    shop.execute("CREATE TABLE there(x)")
    shop.add("0000_a", f"PRAGMA {pragma};")
    assert "no effect inside a transaction" in failure(shop, ForbiddenStatement).message


def test_an_unknown_request_to_the_guard_is_refused(shop: Workshop) -> None:
    shop.add("0000_a", "-- guard: no-transactions\nSELECT 1;")
    assert "no-transactions" in failure(shop, ForbiddenStatement).message


def test_the_connections_state_is_the_same_for_every_migration(shop: Workshop) -> None:
    shop.add(
        "0000_a",
        "PRAGMA legacy_alter_table=ON; CREATE TEMP TABLE scratch(x); CREATE TABLE a(x); CREATE VIEW v AS SELECT x FROM a;",
    )
    shop.add("0001_b", "ALTER TABLE a RENAME TO b; CREATE TEMP TABLE scratch(x);")
    shop.apply()
    assert 'FROM "b"' in str(shop.rows("SELECT sql FROM sqlite_schema WHERE name='v'"))


def test_a_file_with_its_own_transaction_runs_inside_ours(shop: Workshop) -> None:
    shop.add("0000_a", "BEGIN TRANSACTION;\nCREATE TABLE a(x);\nCOMMIT;")
    shop.add(
        "0001_b",
        "COMMIT;\nPRAGMA foreign_keys=OFF;\nBEGIN;\nCREATE TABLE b(x);\nCOMMIT;\nPRAGMA foreign_keys=ON;\nBEGIN;",
    )
    shop.apply()
    shop.add("0002_c", "BEGIN; CREATE TABLE c(x); COMMIT; nonsense;")
    failure(shop, MigrationFailed)
    assert shop.rows("SELECT name FROM sqlite_schema WHERE name IN ('a','b','c')") == [
        ("a",),
        ("b",),
    ]


def test_rows_that_a_statement_returns_are_read_to_their_end(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a(x); INSERT INTO a VALUES (1),(2),(3) RETURNING x;")
    shop.apply()
    assert shop.rows("SELECT count(*) FROM a") == [(3,)]


PARENT_AND_CHILDREN = (
    "CREATE TABLE parent(id INTEGER PRIMARY KEY, a);",
    "CREATE TABLE child(id INTEGER PRIMARY KEY, p INTEGER REFERENCES parent(id) {action});",
    "INSERT INTO parent VALUES (1, 1), (2, 2);",
    "INSERT INTO child VALUES (1, 1), (2, 1), (3, 2);",
)


def family(action: str = "") -> str:
    return "\n".join(PARENT_AND_CHILDREN).format(action=action)


REBUILD = """PRAGMA foreign_keys=OFF;--> statement-breakpoint
CREATE TABLE `__new_parent` (`id` INTEGER PRIMARY KEY, `a` TEXT);--> statement-breakpoint
INSERT INTO `__new_parent`("id", "a") SELECT "id", "a" FROM `parent`;--> statement-breakpoint
DROP TABLE `parent`;--> statement-breakpoint
ALTER TABLE `__new_parent` RENAME TO `parent`;--> statement-breakpoint
PRAGMA foreign_keys=ON;"""


def test_children_survive_the_rebuild_of_their_parent(shop: Workshop) -> None:
    shop.add("0000_a", family("ON DELETE CASCADE"))
    shop.apply()
    shop.add("0001_b", REBUILD)
    _, losses = shop.apply()
    assert losses == ()
    assert shop.rows("SELECT count(*) FROM child") == [(3,)]


RENAMED_AWAY = (
    "ALTER TABLE p RENAME TO p_old; CREATE TABLE p(id INTEGER PRIMARY KEY, v);"
    " INSERT INTO p(id) SELECT id FROM p_old; DROP TABLE p_old;"
)


def test_a_reference_carried_along_to_a_table_that_was_dropped_is_refused(shop: Workshop) -> None:
    shop.add(
        "0000_a",
        "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p(id));",
    )
    shop.apply()
    shop.add("0001_b", RENAMED_AWAY)
    with pytest.raises(VerificationFailed, match="Table c would reference p_old"):
        shop.apply()
    shop.path.joinpath("0001_b.sql").write_text(f"PRAGMA legacy_alter_table=ON; {RENAMED_AWAY}")
    shop.apply()
    assert shop.rows("SELECT \"table\" FROM pragma_foreign_key_list('c')") == [("p",)]


def test_a_rebuild_that_forgets_rows_is_refused_unless_its_file_accepts_it(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE t(x); INSERT INTO t VALUES (1),(2),(3);")
    shop.apply()
    forgetful = "CREATE TABLE n(x); INSERT INTO n SELECT x FROM t WHERE x>2; DROP TABLE t; ALTER TABLE n RENAME TO t;"
    shop.add("0001_b", forgetful)
    error = failure(shop, VerificationFailed)
    assert "Table t had 3 rows and has 1 after its rebuild in 0001_b" in error.message
    shop.path.joinpath("0001_b.sql").write_text(f"-- guard: accept loses_rows t\n{forgetful}")
    _, (loss,) = shop.apply()
    assert loss.message == "Table t goes from 3 rows to 1."


def test_the_rows_that_a_migration_orphans_are_named(shop: Workshop) -> None:
    shop.add("0000_a", family())
    shop.apply()
    shop.add("0001_b", "DELETE FROM parent WHERE id = 1;")
    error = failure(shop, VerificationFailed)
    assert error.message.startswith("2 rows of child (rowid 1, 2) would point to rows of parent")
    assert "-- guard: foreign-keys=on" in error.hint


def test_orphans_that_were_there_before_are_not_blamed(shop: Workshop) -> None:
    shop.add("0000_a", family())
    shop.apply()
    shop.execute("PRAGMA foreign_keys=OFF", "DELETE FROM parent WHERE id = 2")
    shop.add("0001_b", "CREATE TABLE other(x);")
    shop.apply()
    shop.add("0002_c", "ALTER TABLE child RENAME TO kid;")
    shop.apply()
    shop.add("0003_d", "DELETE FROM parent WHERE id = 1;")
    assert "2 rows of kid (rowid 1, 2)" in failure(shop, VerificationFailed).message


def test_rows_that_vanish_without_a_delete_are_a_failure(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE t(a UNIQUE, b UNIQUE); INSERT INTO t VALUES (1, 2), (3, 4);")
    shop.apply()
    shop.add("0001_b", "INSERT OR REPLACE INTO t VALUES (1, 4);")
    error = failure(shop, VerificationFailed)
    assert "Table t had 2 rows and has 1" in error.message


def test_rows_may_go_by_delete_by_trigger_and_by_update_or_replace(shop: Workshop) -> None:
    shop.add(
        "0000_a",
        "CREATE TABLE t(a UNIQUE); INSERT INTO t VALUES (1), (2); CREATE TABLE log(x); INSERT INTO log VALUES (1);"
        " CREATE TRIGGER tr AFTER UPDATE ON t BEGIN DELETE FROM log; END;",
    )
    shop.apply()
    shop.add("0001_b", "UPDATE OR REPLACE t SET a = 2 WHERE a = 1;")
    (step,), losses = shop.apply()
    assert {change.table for change in step.changes if change.what == "delete"} == {"t", "log"}
    assert {loss.object for loss in losses} == {"t", "log"}


def test_a_renamed_table_keeps_its_count(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE t(a); INSERT INTO t VALUES (1), (2);")
    shop.apply()
    shop.add(
        "0001_b",
        "ALTER TABLE t RENAME TO u; CREATE TABLE t(a); INSERT INTO t SELECT a FROM u; DROP TABLE u;",
    )
    _, losses = shop.apply()
    assert losses == ()
    shop.add("0002_c", "ALTER TABLE t RENAME TO w;")
    _, losses = shop.apply()
    assert losses == ()


def test_a_full_text_table_may_be_filled_and_dropped(shop: Workshop) -> None:
    shop.add(
        "0000_a",
        "CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES ('hello world'), ('again');",
    )
    shop.apply()
    shop.add("0001_b", "DELETE FROM f WHERE x = 'again'; INSERT INTO f(f) VALUES ('optimize');")
    shop.apply()
    shop.add("0002_c", "DROP TABLE f;")
    shop.apply()


def test_a_stop_is_seen_inside_a_long_statement(shop: Workshop) -> None:
    shop.add(
        "0000_a",
        "CREATE TABLE a(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) INSERT INTO a SELECT i FROM n WHERE i < 0;",
    )
    connection = open_migration(shop.database)
    stop = threading.Event()
    timer = threading.Timer(0.05, stop.set)
    connection.execute("BEGIN IMMEDIATE")
    timer.start()
    with pytest.raises(Interrupted):
        apply_all(connection, shop.read().migrations, run=Run(stop=stop))
    timer.join()
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    connection.close()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from local_mcp_gateway.database.connections import open_migration
from local_mcp_gateway.errors import GatewayError
from local_mcp_gateway.migrate.apply import run_batch
from local_mcp_gateway.migrate.plan import Batch
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.ledger import Ledger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
connection = open_migration(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
connection.execute("PRAGMA cache_size=5")
connection.execute("BEGIN IMMEDIATE")
try:
    run_batch(Batch.of(read_folder(Path(sys.argv[2])).migrations), Ledger(connection))
except GatewayError as error:
    print(type(error).__name__, error.message)
"""


def test_a_disk_that_refuses_a_write_is_named_as_that(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a(x);")
    shop.add(
        "0001_b",
        "INSERT INTO a SELECT randomblob(4000) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500) SELECT i FROM n);",
    )
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(shop.database), str(shop.path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.startswith(
        f"{DiskProblem.__name__} 0001_b.sql, line 1, statement 1: The disk"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 300_000


def test_a_file_without_transaction_may_vacuum(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a(x);")
    shop.apply()
    shop.add(
        "0001_b",
        "-- guard: no-transaction\nPRAGMA journal_mode=DELETE;\nPRAGMA page_size=8192;\nVACUUM;",
    )
    connection = open_migration(shop.database)
    connection.execute("BEGIN IMMEDIATE")
    (step,) = apply_all(connection, shop.read().migrations[1:])
    connection.execute("COMMIT")
    assert (step.tag, step.statements) == ("0001_b", 3)
    assert connection.execute("PRAGMA page_size").fetchone() == (8192,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (3,)
    connection.close()
    assert shop.resolve().pending == ()


def test_a_file_without_transaction_may_hold_nothing_else(shop: Workshop) -> None:
    shop.add("0000_a", "-- guard: no-transaction\nVACUUM;\nCREATE TABLE a(x);")
    connection = open_migration(shop.database)
    with pytest.raises(ForbiddenStatement, match="line 3, statement 2"):
        run_without_transaction(connection, shop.read().migrations[0], UNWATCHED)
    connection.close()


def test_a_replay_has_the_schema_and_nothing_of_the_ledger(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a(x);")
    shop.add("0001_b", "-- guard: no-transaction\nVACUUM;")
    with replay(shop.read().migrations) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("a",)]
        assert not connection.in_transaction


def test_a_database_of_drizzle_1_gets_its_names_too(tmp_path: Path) -> None:
    connection = open_migration(tmp_path / "a.db")
    shop = Workshop(tmp_path)
    shop.add("20240101000000_a", "CREATE TABLE a(x);")
    connection.execute("BEGIN IMMEDIATE")
    apply_all(connection, shop.read().migrations, is_v1=True)
    connection.execute("COMMIT")
    ((name, at),) = connection.execute(
        "SELECT name, applied_at FROM __drizzle_migrations"
    ).fetchall()
    assert name == "20240101000000_a"
    assert at is not None
    connection.close()


@pytest.mark.parametrize(
    "module", ["fts3(x)", "fts4(x)", "fts5(x)", "rtree(id, low, high)", "rtree_i32(id, low, high)"]
)
def test_the_modules_of_sqlite_may_ask_what_they_need(shop: Workshop, module: str) -> None:
    shop.add("0000_a", f"CREATE VIRTUAL TABLE f USING {module};")
    shop.apply()
    shop.add("0001_b", "ALTER TABLE f RENAME TO g;")
    shop.apply()
    shop.add("0002_c", "DROP TABLE g;")
    shop.apply()
    assert shop.rows("SELECT name FROM sqlite_schema WHERE name LIKE 'f%' OR name LIKE 'g%'") == []


def test_a_mark_at_the_beginning_and_windows_line_ends_are_taken_as_they_are(
    shop: Workshop,
) -> None:
    text = b"\xef\xbb\xbf-- guard: accept x\r\nCREATE TABLE a(\r\n  x\r\n);\r\n--> statement-breakpoint\r\nCREATE TABEL b(x);\r\n"
    shop.add("0000_a", text)
    error = failure(shop, MigrationFailed)
    assert error.data["line"] == 6
    assert shop.read().migrations[0].directives.accept == {"x"}
    shop.entries.clear()
    shop.add("0000_a", text.replace(b"TABEL", b"TABLE"))
    shop.apply()
    assert shop.resolve().pending == ()


def test_sequences_and_statistics_may_be_written(shop: Workshop) -> None:
    shop.add(
        "0000_a",
        "CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO a VALUES (5);"
        "UPDATE sqlite_sequence SET seq = 9; ANALYZE; DELETE FROM sqlite_stat1; PRAGMA user_version = 3;",
    )
    shop.apply()
    shop.execute("INSERT INTO a DEFAULT VALUES")
    assert shop.rows("SELECT max(id) FROM a") == [(10,)]
    assert shop.rows("PRAGMA user_version") == [(3,)]


ASSERTED = """-- guard: assert SELECT count(*) = 0 FROM a WHERE x < 0; Negative values; are left
CREATE UNIQUE INDEX a_x ON a(x);"""


def test_what_a_file_asserts_of_the_data_is_looked_at_before_it_runs(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a(x); INSERT INTO a VALUES (-1);")
    shop.apply()
    shop.add("0001_b", ASSERTED)
    error = failure(shop, VerificationFailed)
    assert error.message == "0001_b.sql, line 1: Negative values; are left."
    assert "`SELECT count(*) = 0 FROM a WHERE x < 0` is not true of this database" in error.hint
    shop.execute("UPDATE a SET x = 1")
    shop.apply()
    assert shop.rows("SELECT name FROM sqlite_schema WHERE name = 'a_x'") == [("a_x",)]


@pytest.mark.parametrize(
    ("directive", "kind", "said"),
    [
        ("assert SELECT 0 WHERE 0", VerificationFailed, "its precondition is not met"),
        ("assert SELECT NULL;", VerificationFailed, "its precondition is not met"),
        ("assert SELECT count(*) FROM nowhere; x", MigrationFailed, "no such table: nowhere"),
        ("assert SELECT count(*) = 0 FROM (", MigrationFailed, "incomplete input"),
        ("assert DELETE FROM a; x", ForbiddenStatement, "does not know"),
        ("assert", ForbiddenStatement, "does not know"),
    ],
)
def test_an_assertion_that_cannot_be_true_is_refused_in_a_sentence(
    shop: Workshop, directive: str, kind: type[GatewayError], said: str
) -> None:
    shop.add("0000_a", f"-- a\n-- guard: {directive}\nCREATE TABLE a(x);")
    assert said in failure(shop, kind).message


def test_an_assertion_may_call_nothing_that_writes(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a(x);")
    shop.apply()
    shop.add("0001_b", "-- guard: assert SELECT 1; fine\nINSERT INTO a VALUES (1);")
    shop.apply()
    assert shop.rows("SELECT x FROM a") == [(1,)]  # the connection writes again
