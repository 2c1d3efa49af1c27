"""Dev mode: what happens when a migration is saved while the gateway runs."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from tests.harness import REPOSITORY, GatewayProcess, Place

BUNDLED = sorted(
    path.stem for path in (REPOSITORY / "migrations").glob("*.sql") if ".down" not in path.name
)
NEWEST = BUNDLED[-1]


@pytest.fixture
def dev(shipped: Place) -> Iterator[tuple[Place, GatewayProcess]]:
    with shipped.serve("--dev", env={"LMG_DEV__RELOAD": "false"}) as gateway:
        gateway.wait_for("dev.watching")
        gateway.wait_ready()
        yield shipped, gateway


def test_a_saved_migration_is_journaled_backed_up_and_applied_without_a_restart(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    place.folder.write("0104_notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT);")
    applied = gateway.wait_for("migration.hot_applied")
    assert applied["tag"] == "0104_notes"
    assert place.query("SELECT count(*) FROM notes") == [(0,)]
    assert place.folder.journal()[-1]["tag"] == "0104_notes"
    assert [str(backup) for backup in place.backups] == [applied["backup"]]
    assert gateway.is_live()


def test_a_broken_migration_is_refused_with_its_line_and_the_gateway_serves_on(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    before = place.content()
    place.folder.write("0104_notes", "CREATE TABLE notes (id INTEGER);\n\nCREAT TABLE more (id);\n")
    refused = gateway.wait_for("migration.hot_refused")
    assert "0104_notes" in refused["message"]
    assert "line 3" in refused["message"]
    assert "statement 2" in refused["message"]
    assert refused["excerpt"].splitlines() == ["3 | CREAT TABLE more (id);", "  | ^"]
    assert refused["hint"] == "Correct the statement and save; the database is unchanged."
    assert place.content() == before
    assert [entry["tag"] for entry in place.folder.journal()][-1] == NEWEST
    assert gateway.is_live()

    place.folder.write(
        "0104_notes", "CREATE TABLE notes (id INTEGER);\n\nCREATE TABLE more (id);\n"
    )
    assert gateway.wait_for("migration.hot_applied")["tag"] == "0104_notes"
    assert place.query("SELECT count(*) FROM more") == [(0,)]


def test_a_file_that_is_written_in_pieces_is_applied_once_and_whole(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    path = place.folder.path / "0104_pieces.sql"
    with path.open("w") as file:
        for number in range(50):
            file.write(f"CREATE TABLE piece_{number} (id INTEGER PRIMARY KEY, ")
            file.flush()
            file.write("body TEXT);\n")
            file.flush()
    applied = gateway.wait_for("migration.hot_applied")
    assert applied["statements"] == 50
    assert "migration.hot_refused" not in gateway.names()


def test_our_own_write_to_the_journal_is_looked_at_once_and_applies_nothing(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    rounds = [BUNDLED, []]  # one for the start, one for the first look at the folder
    wait_for_rounds(gateway, rounds)
    for tag in ("0104_one", "0105_two"):
        place.folder.write(tag, f"CREATE TABLE made_by_{tag} (id INTEGER PRIMARY KEY);")
        rounds += [[tag], []]  # one applies it and writes the journal, one looks at that
        wait_for_rounds(gateway, rounds)
    assert place.run("db", "status").code == 0
    assert gateway.stop() == 0
    assert planned(gateway) == rounds


def wait_for_rounds(gateway: GatewayProcess, rounds: list[list[str]]) -> None:
    """Wait until the last two rounds had to apply what the last two of these say."""
    gateway.until(lambda: planned(gateway)[-2:] == rounds[-2:], describe=lambda: planned(gateway))


def planned(gateway: GatewayProcess) -> list[list[str]]:
    """Return what each round so far had to apply."""
    return [event["pending"] for event in gateway.events if event["event"] == "guard.resolved"]


def test_what_is_saved_while_another_file_is_applied_is_never_missed(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    for number in range(104, 115):
        tag = f"{number:04d}_quick"
        place.folder.write(tag, "CREAT TABLE oops (id);")
        gateway.wait_for("migration.hot_refused", where=partial(about, tag))
        place.folder.write(tag, f"CREATE TABLE quick_{number} (id INTEGER PRIMARY KEY);")
        gateway.wait_for("migration.hot_applied", where=partial(about, tag))


def test_a_program_that_reads_during_a_save_and_closes_last_does_not_take_the_log_away(
    dev: tuple[Place, GatewayProcess],
) -> None:
    """A descriptor of the database that the gateway closes would drop SQLite's locks of the process."""
    place, gateway = dev
    with closing(sqlite3.connect(place.database)) as browser:
        browser.execute("BEGIN")
        browser.execute("SELECT count(*) FROM profiles").fetchall()  # the log cannot be emptied
        for tag in ("0104_one", "0105_two"):
            place.folder.write(tag, f"CREATE TABLE {tag[5:]} (id INTEGER PRIMARY KEY);")
            gateway.wait_for("migration.hot_applied", where=partial(about, tag))
    assert place.run("profile", "add", "kept").code == 0
    assert place.query("SELECT name FROM profiles") == [("kept",)]


def about(tag: str, event: dict[str, Any]) -> bool:
    return tag in (event.get("tag"), str(event.get("message")).partition(".sql")[0])


def test_several_files_at_once_are_applied_together_and_in_order(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    place.folder.write("0104_one", "CREATE TABLE one (id INTEGER PRIMARY KEY);")
    place.folder.write("0105_two", "ALTER TABLE one ADD COLUMN body TEXT;")
    gateway.wait_for("migration.hot_applied", where=lambda event: event["tag"] == "0105_two")
    assert place.query("SELECT id, body FROM one") == []


ONE = "CREATE TABLE one (id INTEGER PRIMARY KEY, body TEXT);"


def applied(gateway: GatewayProcess, tag: str, times: int = 1) -> None:
    """Wait until a tag was applied live for so many times."""
    gateway.until(lambda: count(gateway, tag) >= times)


def count(gateway: GatewayProcess, tag: str) -> int:
    told = [event for event in gateway.events if event["event"] == "migration.hot_applied"]
    return sum(event["tag"] == tag for event in told)


ADD = "INSERT INTO profiles (id, name, description, created_at, updated_at) VALUES"
NOTED = f"""CREATE TABLE notes (body TEXT);
CREATE TRIGGER noted AFTER INSERT ON notes BEGIN {ADD} ('s', new.body, NULL, 0, 0); END;"""
SWAPPED = """ALTER TABLE profiles RENAME COLUMN name TO first;
ALTER TABLE profiles RENAME COLUMN description TO name;
ALTER TABLE profiles RENAME COLUMN first TO description;"""


@pytest.mark.parametrize(
    "texts",
    [
        pytest.param((f"{ADD} ('s', 'saved', NULL, 0, 0);",), id="itself"),
        pytest.param((NOTED, "INSERT INTO notes VALUES ('saved');"), id="by a trigger"),
        pytest.param((f"{ADD} ('s', 'old', 'saved', 0, 0);", SWAPPED), id="by its definition"),
    ],
)
def test_a_save_that_changes_profiles_is_served_at_once(
    dev: tuple[Place, GatewayProcess], texts: tuple[str, ...]
) -> None:
    place, gateway = dev
    for number, text in enumerate((*texts, ONE)):
        place.folder.write(f"02{number:02d}_save", text)
        applied(gateway, f"02{number:02d}_save")  # what the save before it changed is served by now
    assert profiles(gateway) == ["saved"]


def test_a_save_that_changes_nothing_of_the_gateways_reads_nothing_again(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    place.write(f"{ADD} ('o', 'another-program', NULL, 0, 0)")
    for tag in ("0104_one", "0105_two"):
        place.folder.write(tag, f"CREATE TABLE made_by_{tag} (id INTEGER PRIMARY KEY);")
        applied(gateway, tag)
    assert profiles(gateway) == []
    assert place.run("reload").code == 0
    assert profiles(gateway) == ["another-program"]


def profiles(gateway: GatewayProcess) -> list[str]:
    """Return the profiles that are served."""
    with urllib.request.urlopen(f"{gateway.url}/health/ready") as answer:
        found: list[str] = json.load(answer)["profiles"]
    return found


def test_a_save_leaves_the_status_line_of_systemd_as_it_is(shipped: Place) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(shipped.root / "notify"))
        manager.settimeout(60)
        environment = {"NOTIFY_SOCKET": str(shipped.root / "notify"), "LMG_DEV__RELOAD": "false"}
        with shipped.serve("--dev", env=environment) as gateway:
            while "READY=1" not in manager.recv(4096).decode():
                pass
            shipped.folder.write("0104_one", ONE)
            applied(gateway, "0104_one")
            gateway.signal(signal.SIGTERM)
            assert "STOPPING=1" in manager.recv(4096).decode()
            assert gateway.wait() == 0


def test_an_edited_first_migration_is_followed_and_the_servers_are_kept(
    dev: tuple[Place, GatewayProcess],
) -> None:
    """As after `make run` on a fresh checkout: the database was created with these files."""
    place, gateway = dev
    assert place.run("profile", "add", "kept").code == 0
    first = place.folder.path / "0000_initial.sql"
    plain, edited = "description TEXT,", "description TEXT, colour TEXT DEFAULT 'red',"
    sql = first.read_text()
    assert plain in sql
    place.folder.write("0000_initial", sql.replace(plain, edited, 1))
    rewound = gateway.wait_for("migration.rewound")
    assert rewound["by"] == "replay on an empty database"
    assert rewound["message"] == "No row was lost."
    applied(gateway, NEWEST)
    assert place.query("SELECT name, colour FROM profiles") == [("kept", "red")]
    assert gateway.is_live()
    assert place.run("profile", "add", "written-after").code == 0


def test_a_deleted_newest_file_of_a_fresh_checkout_is_taken_back(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    (place.folder.path / f"{NEWEST}.sql").unlink()
    rewound = gateway.wait_for("migration.rewound")
    assert rewound["migrations"] == [NEWEST]
    assert rewound["message"] == "No row was lost."
    assert [entry["tag"] for entry in place.folder.journal()] == BUNDLED[:-1]


def test_an_edited_migration_goes_back_to_its_backup_and_the_console_says_what_was_lost(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    place.folder.write("0104_one", ONE)
    applied(gateway, "0104_one")
    place.write("INSERT INTO one (body) VALUES ('written since')")
    place.folder.write("0104_one", ONE.replace("body", "text"))
    rewound = gateway.wait_for("migration.rewound")
    assert rewound["migrations"] == ["0104_one"]
    assert rewound["by"].startswith("backup ")
    assert rewound["message"] == "Lost: one: 1 value of body gone."
    applied(gateway, "0104_one", 2)
    assert place.query("SELECT id, text FROM one") == [(1, None)]
    assert [entry["tag"] for entry in place.folder.journal()] == [*BUNDLED, "0104_one"]
    assert gateway.is_live()


def test_an_edited_migration_with_a_down_keeps_the_rows_of_every_other_table(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    place.folder.write("0104_one.down", "DROP TABLE one;")
    place.folder.write("0104_one", ONE)
    applied(gateway, "0104_one")
    assert place.run("profile", "add", "written-since").code == 0
    place.folder.write("0104_one", ONE.replace("body", "text"))
    assert gateway.wait_for("migration.rewound")["by"] == "down"
    applied(gateway, "0104_one", 2)
    assert place.query("SELECT name FROM profiles") == [("written-since",)]
    assert place.query("SELECT text FROM one") == []


def test_a_deleted_newest_file_is_taken_back_and_leaves_the_journal(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    path = place.folder.write("0104_one", ONE)
    applied(gateway, "0104_one")
    path.unlink()
    gateway.wait_for("migration.rewound")
    gateway.until(lambda: len(place.folder.journal()) == len(BUNDLED))
    assert place.query("SELECT name FROM sqlite_schema WHERE name = 'one'") == []
    assert gateway.is_live()


def test_an_edit_that_is_broken_takes_nothing_back_and_is_mended_by_the_next_save(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    place.folder.write("0104_one", ONE)
    applied(gateway, "0104_one")
    place.write("INSERT INTO one (body) VALUES ('kept')")
    place.folder.write("0104_one", "CREAT TABLE one (id);")
    gateway.wait_for("migration.hot_refused")
    assert place.query("SELECT body FROM one") == [("kept",)]
    place.folder.write("0104_one", ONE)
    gateway.wait_for("dev.recovered")
    assert "migration.rewound" not in gateway.names()


def test_another_branch_is_checked_out_and_ends_in_its_own_schema(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    folder = place.folder
    common = folder.journal_file.read_bytes()
    mine, theirs = folder.write("0104_mine", ONE), "0104_theirs"
    folder.write("0105_more", "ALTER TABLE one ADD COLUMN more TEXT;")
    applied(gateway, "0105_more")
    mine.unlink()
    (folder.path / "0105_more.sql").unlink()
    folder.write(theirs, "CREATE TABLE theirs (id INTEGER PRIMARY KEY);")
    folder.journal_file.write_bytes(common)
    applied(gateway, theirs)
    names = {name for (name,) in place.query("SELECT name FROM sqlite_schema")}
    assert "theirs" in names
    assert "one" not in names
    assert place.run("db", "status", "--json").json()["state"] == "current"


def test_a_journal_that_is_no_json_is_told_and_takes_nothing_back(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    before, journal = place.content(), place.folder.journal_file.read_bytes()
    place.folder.journal_file.write_text("<<<<<<< HEAD")
    assert "_journal.json" in gateway.wait_for("migration.hot_refused")["message"]
    assert place.content() == before
    place.folder.journal_file.write_bytes(journal)
    gateway.wait_for("dev.recovered")


def test_a_file_that_is_saved_while_it_starts_is_applied(shipped: Place) -> None:
    """After the guard has read the folder, before anything watches it."""
    with shipped.serve("--dev", env={"LMG_DEV__RELOAD": "false"}) as gateway:
        gateway.wait_for("guard.ready")
        shipped.folder.write("0104_one", ONE)
        applied(gateway, "0104_one")


def test_a_start_takes_back_what_was_edited_while_it_was_off(shipped: Place) -> None:
    quiet = {"LMG_DEV__RELOAD": "false"}
    with shipped.serve("--dev", env=quiet) as gateway:
        gateway.wait_for("dev.watching")
        shipped.folder.write("0104_one", ONE)
        applied(gateway, "0104_one")
        gateway.stop()
    shipped.write("INSERT INTO one (body) VALUES ('written since')")
    shipped.folder.write("0104_one", ONE.replace("body", "text"))
    with shipped.serve("--dev", env=quiet) as gateway:
        gateway.wait_ready()
        told = gateway.wait_for("migration.rewound")["message"]
        assert told == "Lost: one: 1 value of body gone."
        assert gateway.wait_for("migration.applied")["tag"] == "0104_one"
        gateway.stop()
    shown = shipped.run("startup").stdout
    assert "rewound   0104_one, by backup" in shown
    assert "Lost: one: 1 value of body gone." in shown


def test_a_production_start_leaves_saved_files_alone(shipped: Place) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        shipped.folder.write("0104_notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY);")
        assert shipped.run("reload").code == 8
        assert "dev.watching" not in gateway.names()
        assert shipped.query("SELECT name FROM sqlite_schema WHERE name = 'notes'") == []


def test_drop_takes_an_applied_migration_back_and_its_files_out(
    dev: tuple[Place, GatewayProcess], validate_json: Callable[[str, Any], None]
) -> None:
    place, gateway = dev
    before, journal = files(place).keys(), place.folder.journal()
    place.folder.write("0104_one.down", "DROP TABLE one;")
    place.folder.write("0104_one", ONE)
    applied(gateway, "0104_one")
    assert place.run("profile", "add", "written-since").code == 0
    dropped = place.run("db", "drop", "--yes", "--json")
    assert dropped.code == 0, dropped.stderr
    validate_json("db-drop", dropped.json())
    assert (dropped.json()["rewound_by"], dropped.json()["lost"]) == ("down", [])
    assert (files(place).keys(), place.folder.journal()) == (before, journal)
    assert place.query("SELECT name FROM profiles") == [("written-since",)]
    assert place.run("db", "status", "--json").json()["state"] == "current"
    place.folder.write("0104_other", "CREATE TABLE other (id INTEGER PRIMARY KEY);")
    applied(gateway, "0104_other")
    assert count(gateway, "0104_one") == 1


def test_drop_without_a_down_goes_back_to_the_backup_and_names_the_rows(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    place.folder.write("0104_one", ONE)
    applied(gateway, "0104_one")
    place.write("INSERT INTO one (body) VALUES ('written since')")
    dropped = place.run("db", "drop", "--yes")
    assert dropped.code == 0, dropped.stderr
    assert "Lost: one: 1 row gone." in dropped.stdout
    assert [entry["tag"] for entry in place.folder.journal()][-1] == NEWEST
    assert place.query("SELECT name FROM sqlite_schema WHERE name = 'one'") == []
    assert gateway.is_live()


def test_drop_needs_neither_a_down_nor_a_backup(dev: tuple[Place, GatewayProcess]) -> None:
    place, gateway = dev
    place.folder.write("0104_one", ONE)
    applied(gateway, "0104_one")
    assert place.run("profile", "add", "kept").code == 0
    for backup in place.backups:
        backup.unlink()
    dropped = place.run("db", "drop", "--yes", "--json").json()
    assert (dropped["rewound_by"], dropped["lost"]) == ("replay on an empty database", [])
    assert place.query("SELECT name FROM profiles") == [("kept",)]
    assert place.query("SELECT name FROM sqlite_schema WHERE name = 'one'") == []
    assert place.run("db", "status", "--json").json()["state"] == "current"


def test_drop_needs_no_rewind_for_a_migration_that_was_refused(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    before = place.content()
    place.folder.add("broken", "CREAT TABLE one (id);")
    gateway.wait_for("migration.hot_refused")
    dropped = place.run("db", "drop", "--yes", "--json")
    assert dropped.json()["rewound_by"] is None
    gateway.wait_for("dev.recovered")
    assert [entry["tag"] for entry in place.folder.journal()][-1] == NEWEST
    assert place.content() == before


def test_without_its_own_tables_the_gateway_says_so_and_serves_what_it_knows(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    assert place.run("db", "drop", "--yes", "--json").json()["tag"] == NEWEST
    refused = gateway.wait_for("service.reload_incomplete")
    assert "migration.hot_refused" not in gateway.names()  # it is done, not refused
    assert "needs them (" in refused["message"]
    assert gateway.is_live()


def test_a_save_that_takes_what_the_gateway_needs_is_refused_before_it_is_applied(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    before = place.content()
    place.folder.write("0104_away", "ALTER TABLE profiles RENAME COLUMN description TO about;")
    refused = gateway.wait_for("migration.hot_refused")
    assert "needs them (profiles.description)" in refused["message"]
    assert place.content() == before
    place.folder.write("0104_away", "CREATE TABLE oops (id INTEGER PRIMARY KEY);")
    applied(gateway, "0104_away")


def test_drop_is_refused_while_a_gateway_that_is_not_in_dev_mode_serves(
    gateway_process: GatewayProcess, shipped: Place
) -> None:
    before = files(shipped)
    refused = shipped.run("db", "drop", "--yes")
    assert (refused.code, files(shipped)) == (8, before)
    assert f"has applied {NEWEST}" in refused.stderr
    assert gateway_process.is_live()


def files(place: Place) -> dict[str, bytes]:
    return {
        str(path.relative_to(place.folder.path)): path.read_bytes()
        for path in place.folder.path.rglob("*")
        if path.is_file()
    }
