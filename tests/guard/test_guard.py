"""The story of a guarded start, told by its events and by what is on the disk afterwards."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.backup import list_backups
from local_mcp_gateway.backup.manifest import Retention
from local_mcp_gateway.database import connections
from local_mcp_gateway.errors import (
    DatabaseBusy,
    DatabasePathProblem,
    DriftRefused,
    HazardRefused,
    HistoryRefused,
    Interrupted,
    LockHeld,
    MigrationFailed,
    NotADatabase,
    UsageProblem,
    VerificationFailed,
)
from local_mcp_gateway.guard import GuardPolicy, GuardReport, guarded
from local_mcp_gateway.guard.guard import hot_apply
from tests.harness import Place


class Heard:
    """An Emit that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, /, **fields: Any) -> None:
        self.events.append((event, fields))

    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def of(self, name: str) -> dict[str, Any]:
        return next(fields for event, fields in self.events if event == name)


def start(place: Place, **options: Any) -> GuardReport:
    with guarded(place.database, place.folder.path, **options) as report:
        return report


@pytest.fixture
def migrated(place: Place) -> Place:
    place.folder.add("users", "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
    start(place)
    place.write("INSERT INTO users (name) VALUES ('ada'), ('grace')")
    return place


def test_a_new_database_is_created_without_a_backup(place: Place) -> None:
    place.folder.add("users", "CREATE TABLE users (id INTEGER PRIMARY KEY)")
    heard = Heard()
    report = start(place, emit=heard)
    assert report.state == "created"
    assert [step.tag for step in report.applied] == ["0000_users"]
    assert report.backup is None
    assert heard.names() == [
        "guard.locked",
        "guard.checked",
        "guard.resolved",
        "guard.verified",
        "migration.applied",
        "guard.ready",
    ]


def test_whatever_takes_long_on_a_large_database_is_a_phase_of_its_progress(
    migrated: Place,
) -> None:
    migrated.folder.add("notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY)")
    told: list[str] = []
    start(migrated, progress=lambda phase, _done, _total: told.append(phase))
    phases = [phase for at, phase in enumerate(told) if told[at - 1 : at] != [phase]]
    assert phases == [
        "check", "backup", "read", "verify", "flush",
        "copy", "count", "rehearse 0001_notes", "result",
        "count", "apply 0001_notes", "result", "durable",
    ]  # fmt: skip


def test_pending_migrations_are_backed_up_rehearsed_applied_and_verified_in_this_order(
    migrated: Place,
) -> None:
    for number in range(3):
        migrated.folder.add(f"column_{number}", f"ALTER TABLE users ADD COLUMN c{number} TEXT")
    heard = Heard()
    report = start(migrated, emit=heard)
    assert report.state == "migrated"
    assert heard.names() == [
        "guard.locked",
        "guard.checked",
        "guard.resolved",
        "backup.created",
        "migration.rehearsed",
        "guard.verified",
        *["migration.applied"] * 3,
        "guard.ready",
    ]
    ready = heard.of("guard.ready")
    phases = ("lock", "check", "plan", "hold", "backup", "rehearse", "apply", "verify", "commit")
    assert all(ready[f"{phase}_ms"] >= 0 for phase in (*phases, "durable"))
    assert migrated.query("SELECT name FROM users ORDER BY id") == [("ada",), ("grace",)]


def test_the_backup_holds_the_database_from_before(migrated: Place) -> None:
    before = migrated.content()
    migrated.folder.add("drop", "DROP TABLE users")
    start(migrated)
    (backup,) = list_backups(migrated.database)
    with closing(sqlite3.connect(backup.path)) as connection:
        kept = "\n".join(line for line in connection.iterdump() if "__guard_" not in line)
    assert kept == before
    assert backup.before == "0001_drop"


def test_nothing_pending_makes_no_backup_and_writes_nothing(migrated: Place) -> None:
    start(migrated)
    before = migrated.database.read_bytes()
    heard = Heard()
    report = start(migrated, emit=heard)
    assert report.state == "current"
    assert "backup.created" not in heard.names()
    assert list_backups(migrated.database) == ()
    assert migrated.database.read_bytes() == before
    assert heard.of("guard.checked")["state"] == "clean"


def test_a_file_that_was_not_stopped_cleanly_is_checked(migrated: Place) -> None:
    start(migrated)
    migrated.write("INSERT INTO users (name) VALUES ('linus')")
    heard = Heard()
    start(migrated, emit=heard)
    assert heard.of("guard.checked")["state"] == "checked"
    assert heard.of("guard.checked")["complete"] is True


def test_a_check_that_reached_its_time_limit_is_said_to_be_incomplete(migrated: Place) -> None:
    start(migrated)
    rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
    migrated.write(f"{rows} INSERT INTO users (name) SELECT 'u' || i FROM n")
    heard = Heard()
    start(migrated, emit=heard, policy=GuardPolicy(quick_check_limit_s=0))
    checked = heard.of("guard.checked")
    assert (checked["state"], checked["complete"]) == ("checked", False)


def test_one_broken_migration_undoes_the_whole_pending_set(migrated: Place) -> None:
    before = migrated.content()
    migrated.folder.add("good", "ALTER TABLE users ADD COLUMN mail TEXT")
    migrated.folder.add(
        "bad", "CREATE TABLE a (x);\nCREATE TABLE b (x);\nCREATE TABEL c (x);\nCREATE TABLE d (x)"
    )
    with pytest.raises(MigrationFailed, match=r'0002_bad\.sql, line 3, statement 3: near "TABEL"'):
        start(migrated)
    assert migrated.content() == before


def test_a_migration_that_fails_only_on_real_rows_never_reaches_the_live_file(
    migrated: Place,
) -> None:
    migrated.write("INSERT INTO users (name) VALUES ('ada')")
    before = migrated.content()
    migrated.folder.add("unique", "CREATE UNIQUE INDEX users_by_name ON users (name)")
    heard = Heard()
    with pytest.raises(MigrationFailed, match="UNIQUE constraint failed"):
        start(migrated, emit=heard)
    assert "backup.created" in heard.names()
    assert "migration.rehearsed" not in heard.names()
    assert migrated.content() == before


def test_rows_lost_without_a_delete_are_refused(place: Place) -> None:
    place.folder.add("t", "CREATE TABLE t (id INTEGER PRIMARY KEY, k TEXT UNIQUE)")
    start(place)
    place.write("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    before = place.content()
    place.folder.add("replace", "INSERT OR REPLACE INTO t VALUES (1, 'b')")
    with pytest.raises(VerificationFailed, match="had 3 rows and has 2"):
        start(place)
    assert place.content() == before


def test_tables_and_columns_have_names_in_any_script(place: Place) -> None:
    place.folder.add("a", 'CREATE TABLE "Änderungen" (id INTEGER PRIMARY KEY, ชื่อ TEXT, e€ TEXT);')
    start(place)
    place.folder.add("b", "CREATE TABLE b(x);", down="DROP TABLE b;")
    assert [step.tag for step in start(place).applied] == ["0001_b"]
    assert place.run("db", "down", "--yes").code == 0


def test_a_first_start_that_was_refused_leaves_no_database(place: Place) -> None:
    place.folder.add("a", 'CREATE TABLE a(x); INSERT INTO a VALUES ("text");')
    tag = place.folder.add("b", "SELEC 1;")
    with pytest.raises(MigrationFailed):
        start(place)
    left = [file.name for file in place.database.parent.iterdir() if file.is_file()]
    assert left == [f"{place.database.name}.lock"]
    assert place.run("db", "status", "--json").json()["state"] == "new"
    place.folder.write(tag, "SELECT 1;")
    assert start(place).state == "created"
    assert place.backups == []


def test_the_second_start_is_told_who_holds_the_lock(migrated: Place) -> None:
    with (
        guarded(migrated.database, migrated.folder.path),
        pytest.raises(LockHeld, match="is locked by process"),
    ):
        start(migrated)
    start(migrated)


def test_a_refused_start_releases_the_lock(migrated: Place) -> None:
    migrated.folder.add("bad", "CREATE TABEL x (y)")
    for _ in range(2):
        with pytest.raises(MigrationFailed):
            start(migrated)


def test_an_edited_migration_is_refused_before_any_write(migrated: Place) -> None:
    before = migrated.content()
    migrated.folder.write("0000_users", "CREATE TABLE users (id INTEGER PRIMARY KEY, name, more)")
    migrated.folder.add("next", "CREATE TABLE next (x)")
    with pytest.raises(HistoryRefused, match="edited after it was applied") as refused:
        start(migrated)
    assert [problem.code for problem in refused.value.problems] == ["edited"]
    assert migrated.content() == before
    assert list_backups(migrated.database) == ()


def test_a_schema_changed_by_hand_is_refused_when_something_is_pending(migrated: Place) -> None:
    migrated.write("CREATE TABLE by_hand (x)")
    heard = Heard()
    report = start(migrated, emit=heard)
    assert [difference.object for difference in report.drift] == ["by_hand"]
    assert "guard.drifted" in heard.names()
    migrated.folder.add("next", "CREATE TABLE next (x)")
    with pytest.raises(DriftRefused, match="by_hand"):
        start(migrated)
    assert start(migrated, policy=GuardPolicy(drift="warn")).state == "migrated"


def test_another_program_that_writes_is_named_as_the_cause(
    migrated: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BUSY_TIMEOUT_MS", 50)
    migrated.folder.add("next", "CREATE TABLE next (x)")
    with closing(sqlite3.connect(migrated.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseBusy, match="Another program is using"):
            start(migrated)
    assert start(migrated).state == "migrated"


def test_a_stop_before_commit_rolls_back_and_is_no_error(migrated: Place) -> None:
    migrated.folder.add("next", "CREATE TABLE next (x)")
    before = migrated.content()
    stop = threading.Event()

    def stop_at_backup(event: str, /, **_: object) -> None:
        if event == "backup.created":
            stop.set()

    with pytest.raises(Interrupted) as interrupted:
        start(migrated, emit=stop_at_backup, stop=stop)
    assert interrupted.value.exit_code == 0
    assert migrated.content() == before
    assert start(migrated).state == "migrated"


def test_a_stop_interrupts_a_long_statement(migrated: Place) -> None:
    migrated.folder.add(
        "endless",
        "CREATE TABLE n AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
        " SELECT max(x) AS x FROM c LIMIT 1",
    )
    stop = threading.Event()

    def stop_soon(event: str, /, **_: object) -> None:
        if event == "backup.created":
            threading.Timer(0.2, stop.set).start()

    with pytest.raises(Interrupted):
        start(migrated, emit=stop_soon, stop=stop)


def test_only_up_to_the_named_migration_is_applied(migrated: Place) -> None:
    first = migrated.folder.add("first", "CREATE TABLE first (x)")
    migrated.folder.add("second", "CREATE TABLE second (x)")
    report = start(migrated, policy=GuardPolicy(to=first))
    assert [step.tag for step in report.applied] == [first]
    assert start(migrated, policy=GuardPolicy(to=first)).state == "current"
    with pytest.raises(UsageProblem, match="no migration `0009_x`"):
        start(migrated, policy=GuardPolicy(to="0009_x"))


def test_a_vacuum_runs_outside_of_the_transaction_between_two_others(migrated: Place) -> None:
    migrated.folder.add("before", "CREATE TABLE before (x)")
    migrated.folder.add("vacuum", "-- guard: no-transaction\nVACUUM")
    migrated.folder.add("after", "CREATE TABLE after (x)")
    report = start(migrated)
    assert [step.tag for step in report.applied] == ["0001_before", "0002_vacuum", "0003_after"]
    assert len(list_backups(migrated.database)) == 3


def test_starts_that_fail_keep_no_more_backups_than_those_that_succeed(migrated: Place) -> None:
    migrated.folder.add("bad", "CREATE TABLE good (x); SELECT no_such_column FROM good")
    for _ in range(4):
        with pytest.raises(MigrationFailed):
            start(migrated, policy=GuardPolicy(retention=Retention(2, 0)))
        migrated.write("INSERT INTO users (name) VALUES ('between')")
    assert len(list_backups(migrated.database)) == 2


def test_a_file_without_a_journal_entry_is_journaled_only_in_dev(migrated: Place) -> None:
    migrated.folder.write("0001_new", "CREATE TABLE new (x)")
    with pytest.raises(HistoryRefused, match=r"0001_new\.sql is not listed"):
        start(migrated)
    policy = GuardPolicy(journal_new_files=True)
    assert [step.tag for step in start(migrated, policy=policy).applied] == ["0001_new"]
    assert [(e["idx"], e["tag"]) for e in migrated.folder.journal()][1:] == [(1, "0001_new")]
    assert start(migrated).state == "current"


def test_a_broken_file_is_not_journaled_in_dev(migrated: Place) -> None:
    before = migrated.folder.journal()
    migrated.folder.write("0001_new", "CREATE TABEL new (x)")
    with pytest.raises(MigrationFailed):
        start(migrated, policy=GuardPolicy(journal_new_files=True))
    assert migrated.folder.journal() == before


def test_a_migration_is_applied_hot_while_another_connection_of_the_process_reads(
    migrated: Place,
) -> None:
    policy = GuardPolicy()
    with (
        guarded(migrated.database, migrated.folder.path),
        closing(sqlite3.connect(migrated.database)) as serving,
    ):
        serving.execute("PRAGMA journal_mode=WAL")
        assert serving.execute("SELECT count(*) FROM users").fetchone() == (2,)
        migrated.folder.add("hot", "ALTER TABLE users ADD COLUMN mail TEXT")
        report = hot_apply(migrated.database, migrated.folder.path, policy=policy)
        assert [step.tag for step in report.applied] == ["0001_hot"]
        assert serving.execute("SELECT mail FROM users").fetchall() == [(None,), (None,)]
        assert hot_apply(migrated.database, migrated.folder.path, policy=policy).applied == ()


def test_children_of_a_rebuilt_table_keep_their_rows(place: Place) -> None:
    place.folder.add(
        "family",
        "CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT)",
        "CREATE TABLE child (id INTEGER PRIMARY KEY,"
        " parent INTEGER REFERENCES parent (id) ON DELETE CASCADE)",
    )
    start(place)
    place.write("INSERT INTO parent VALUES (1, 'a')")
    place.write("INSERT INTO child VALUES (1, 1), (2, 1), (3, 1)")
    place.folder.add(
        "rebuild",
        "PRAGMA foreign_keys=OFF",
        "CREATE TABLE __new_parent (id INTEGER PRIMARY KEY, name TEXT NOT NULL)",
        "INSERT INTO __new_parent SELECT id, name FROM parent",
        "DROP TABLE parent",
        "ALTER TABLE __new_parent RENAME TO parent",
        "PRAGMA foreign_keys=ON",
    )
    start(place)
    assert place.query("SELECT count(*) FROM child") == [(3,)]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda path: path.write_bytes(b"hello " * 100), NotADatabase),
        (lambda path: path.mkdir(), DatabasePathProblem),
    ],
)
def test_what_is_no_database_is_refused_untouched(place: Place, make: Any, error: Any) -> None:
    make(place.database)
    with pytest.raises(error):
        start(place)
    if place.database.is_file():
        assert place.database.read_bytes() == b"hello " * 100


def test_a_missing_folder_of_the_database_is_named(place: Place, tmp_path: Path) -> None:
    with (
        pytest.raises(DatabasePathProblem, match="does not exist"),
        guarded(tmp_path / "nowhere" / "a.db", place.folder.path),
    ):
        pass


def test_rows_that_a_migration_deletes_are_told_with_their_number_and_the_backup(
    migrated: Place,
) -> None:
    migrated.folder.add("purge", "DELETE FROM users WHERE name = 'ada'")
    heard = Heard()
    report = start(migrated, emit=heard)
    hazard = heard.of("guard.hazard_found")
    assert (hazard["tag"], hazard["kind"], hazard["object"]) == (
        "0001_purge",
        "deletes_data",
        "users",
    )
    assert hazard["message"] == "Table users goes from 2 rows to 1."
    assert report.backup is not None
    assert hazard["backup"] == str(report.backup.path)


def test_a_policy_that_refuses_losses_wants_them_accepted_in_the_file(migrated: Place) -> None:
    refuse = GuardPolicy(destructive="refuse", rehearse="never")
    before = migrated.content()
    tag = migrated.folder.add("drop", "ALTER TABLE users DROP COLUMN name")
    with pytest.raises(HazardRefused, match=f"{tag} is not accepted"):
        start(migrated, policy=refuse)
    assert migrated.content() == before
    migrated.folder.write(tag, "-- guard: accept deletes_data\nALTER TABLE users DROP COLUMN name")
    assert start(migrated, policy=refuse).state == "migrated"


def test_each_kind_of_hazard_does_what_the_policy_says(migrated: Place) -> None:
    heard = Heard()
    migrated.folder.add("index", "CREATE INDEX by_name ON users(name)")
    start(migrated)
    tag = migrated.folder.add("drop", "DROP INDEX by_name")
    refuse = GuardPolicy(hazards={"drops_index": "refuse"}, rehearse="never")
    with pytest.raises(HazardRefused, match=tag) as raised:
        start(migrated, policy=refuse)
    assert "`-- guard: accept drops_index by_name`" in raised.value.hint
    ignore = GuardPolicy(hazards={"drops_index": "ignore"})
    assert start(migrated, emit=heard, policy=ignore).state == "migrated"
    assert "guard.hazard_found" not in heard.names()
    migrated.folder.add("again", "CREATE INDEX by_name ON users(name)")
    migrated.folder.add("gone", "-- guard: accept drops_index by_name\nDROP INDEX by_name")
    assert start(migrated, policy=refuse).state == "migrated"


def test_a_new_database_has_nothing_to_lose_and_is_never_asked(place: Place) -> None:
    place.folder.add("t", "CREATE TABLE t (x)", "INSERT INTO t VALUES (1)", "DELETE FROM t")
    place.folder.add("drop", "DROP TABLE t")
    assert start(place, policy=GuardPolicy(destructive="refuse")).state == "created"


@pytest.mark.parametrize(
    ("rehearse", "sql", "rehearsed"),
    [
        ("always", "CREATE TABLE more (x)", True),
        ("auto", "CREATE TABLE more (x)", False),
        ("auto", "ALTER TABLE users ADD COLUMN mail TEXT", False),
        ("auto", "ALTER TABLE users ADD COLUMN mail TEXT CHECK (mail <> '')", True),
        ("auto", "CREATE TABLE more AS SELECT * FROM users", True),
        ("auto", "CREATE UNIQUE INDEX by_name ON users (name)", True),
        ("never", "CREATE UNIQUE INDEX by_name ON users (name)", False),
    ],
)
def test_the_policy_says_what_is_rehearsed(
    migrated: Place, rehearse: Any, sql: str, *, rehearsed: bool
) -> None:
    migrated.folder.add("more", sql)
    heard = Heard()
    assert start(migrated, policy=GuardPolicy(rehearse=rehearse), emit=heard).state == "migrated"
    assert ("migration.rehearsed" in heard.names()) is rehearsed


def test_functions_of_the_application_can_be_called(migrated: Place) -> None:
    migrated.folder.add("shout", "UPDATE users SET name = shout(name)")
    with pytest.raises(MigrationFailed, match="no such function: shout"):
        start(migrated)
    start(migrated, policy=GuardPolicy(functions={"shout": str.upper}))
    assert migrated.query("SELECT name FROM users ORDER BY id") == [("ADA",), ("GRACE",)]


def test_old_backups_are_removed_after_a_migration_that_made_another(migrated: Place) -> None:
    keep_two = GuardPolicy(retention=Retention(keep_last=2, keep_daily_days=0))
    for number in range(5):
        migrated.folder.add(f"t{number}", f"CREATE TABLE t{number} (x)")
        heard = Heard()
        start(migrated, policy=keep_two, emit=heard)
    assert [backup.before for backup in list_backups(migrated.database)] == ["0005_t4", "0004_t3"]
    assert len(heard.of("backup.pruned")["names"]) == 1


def test_a_database_that_no_ledger_describes_is_sent_to_adopt(place: Place) -> None:
    place.write("CREATE TABLE users (id INTEGER PRIMARY KEY)")
    before = place.content()
    place.folder.add("users", "CREATE TABLE users (id INTEGER PRIMARY KEY)")
    with pytest.raises(MigrationFailed, match="already exists") as failed:
        start(place)
    assert "db adopt" in failed.value.hint
    assert place.content() == before


FEW = GuardPolicy(retention=Retention(keep_last=2, keep_daily_days=0))


@pytest.fixture(params=["DELETE", "WAL"])
def long_lived(request: pytest.FixtureRequest, migrated: Place) -> Place:
    """Migrated six times, with rows written in between; the next migration fails."""
    migrated.write(f"PRAGMA journal_mode={request.param}")
    for number in range(6):
        migrated.folder.add(f"c{number}", f"ALTER TABLE users ADD COLUMN c{number} TEXT")
        start(migrated)
        migrated.write("INSERT INTO users (name) VALUES ('next')")
    migrated.folder.add("bad", "INSERT INTO users (id, name) SELECT 1, name FROM users")
    return migrated


def fails(place: Place, heard: Heard) -> None:
    with pytest.raises(MigrationFailed):
        start(place, policy=FEW, emit=heard)


def test_twelve_failing_tries_make_one_backup_and_keep_the_older_ones(long_lived: Place) -> None:
    older = list_backups(long_lived.database)
    heard = Heard()
    for _ in range(12):
        fails(long_lived, heard)
    newest, *others = list_backups(long_lived.database)
    assert {b.name for b in others} >= {b.name for b in older if b.before != "0001_c0"}
    assert newest.before == "0007_bad"
    assert [(one.before, one.count) for one in newest.attempts] == [("0007_bad", 11)]
    assert heard.names().count("backup.created") == 1
    assert heard.names().count("backup.reused") == 11
    assert heard.of("backup.reused")["path"] == str(newest.path)


def test_failing_tries_with_writes_in_between_keep_what_was_before_each_migration(
    long_lived: Place,
) -> None:
    for _ in range(4):
        fails(long_lived, heard := Heard())
        assert "backup.created" in heard.names()
        long_lived.write("INSERT INTO users (name) VALUES ('between')")
    kept = [backup.before for backup in list_backups(long_lived.database)]
    assert kept == ["0007_bad"] * 2 + [f"000{n}_c{n - 1}" for n in (6, 5, 4, 3, 2)]


def test_a_backup_that_was_damaged_since_is_not_taken_for_the_newest_content(
    long_lived: Place,
) -> None:
    fails(long_lived, Heard())
    (newest, *_) = list_backups(long_lived.database)
    with newest.path.open("r+b") as file:
        file.seek(5000)
        file.write(b"damaged")
    fails(long_lived, heard := Heard())
    assert "backup.created" in heard.names()
    assert list_backups(long_lived.database)[0].name != newest.name


def test_a_migration_that_is_fixed_has_the_backup_of_its_failed_try(long_lived: Place) -> None:
    fails(long_lived, Heard())
    (newest, *_) = list_backups(long_lived.database)
    long_lived.folder.write("0007_bad", "ALTER TABLE users ADD COLUMN good TEXT;")
    report = start(long_lived, policy=FEW)
    assert report.backup is not None
    assert report.backup.name == newest.name


def test_tries_while_the_database_is_served_make_one_backup(long_lived: Place) -> None:
    with guarded(long_lived.database, long_lived.folder.path, policy=GuardPolicy(to="0006_c5")):
        with closing(sqlite3.connect(long_lived.database)) as serving:
            serving.execute("PRAGMA journal_mode=WAL")
            serving.execute("INSERT INTO users (name) VALUES ('served')")
            serving.commit()
            heard = Heard()
            for _ in range(3):
                with pytest.raises(MigrationFailed):
                    hot_apply(long_lived.database, long_lived.folder.path, policy=FEW, emit=heard)
    assert heard.names().count("backup.created") == 1
    assert heard.names().count("backup.reused") == 2
