"""Dev mode under many changes at once: branches with many files, editors, reloads in a rewind, a kill."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest

from tests.harness import GatewayProcess, Place, poll

QUIET = {"LMG_DEV__RELOAD": "false"}
ONE = "CREATE TABLE one (id INTEGER PRIMARY KEY, body TEXT);"


@pytest.fixture
def dev(shipped: Place) -> Iterator[tuple[Place, GatewayProcess]]:
    with shipped.serve("--dev", env=QUIET) as gateway:
        gateway.wait_for("dev.watching")
        gateway.wait_ready()
        yield shipped, gateway


def git(place: Place, *arguments: str) -> None:
    options = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    command = ["git", "-C", str(place.folder.path), *options, *arguments]
    subprocess.run(command, check=True, capture_output=True)


def tables(place: Place) -> set[str]:
    return {name for (name,) in place.query("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def settled(place: Place, gateway: GatewayProcess, *, has: str, lacks: str) -> None:
    """Wait until the database is one branch's, and the whole of it."""

    def there() -> bool:
        found = tables(place)
        return all(f"{has}_{n}" in found for n in range(104, 154)) and not any(
            name.startswith(f"{lacks}_") for name in found
        )

    gateway.until(there, describe=lambda: sorted(tables(place)))
    assert place.run("db", "status", "--json").json()["state"] == "current"


def test_branches_of_fifty_files_are_checked_out_back_and_forth(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    git(place, "init")
    git(place, "add", ".")
    git(place, "commit", "-m", "common")
    for branch in ("mine", "theirs"):
        git(place, "checkout", "-b", branch, "main")
        for number in range(104, 154):
            table = f"CREATE TABLE {branch}_{number} (id INTEGER PRIMARY KEY);"
            place.folder.write(f"{number:04d}_{branch}", table)
        settled(place, gateway, has=branch, lacks="theirs" if branch == "mine" else "mine")
        # The journal has them by now, so they are committed as applied.
        git(place, "add", ".")
        git(place, "commit", "-m", branch)
        git(place, "checkout", "main")
        gateway.until(
            lambda: not any(name.startswith(("mine_", "theirs_")) for name in tables(place))
        )
    assert place.run("profile", "add", "kept").code == 0
    for has, lacks in (("mine", "theirs"), ("theirs", "mine"), ("mine", "theirs")):
        git(place, "checkout", has)
        settled(place, gateway, has=has, lacks=lacks)
    assert place.query("SELECT name FROM profiles") == [("kept",)]
    assert all("expected" not in str(event.get("message")) for event in gateway.events)


def test_an_editor_that_sets_the_old_file_aside_is_one_edit(
    dev: tuple[Place, GatewayProcess],
) -> None:
    """As vim does with `backupcopy=no`: for a moment there is no file of this name."""
    place, gateway = dev
    path = place.folder.write("0104_one", ONE)
    gateway.wait_for("migration.hot_applied")
    place.write("INSERT INTO one (body) VALUES ('kept')")
    aside = path.with_name("0104_one.sql~")
    path.rename(aside)
    path.write_text(ONE.replace("body", "more TEXT, body"))
    aside.unlink()
    gateway.wait_for("migration.rewound")
    gateway.until(
        lambda: "more" in str(place.query("SELECT sql FROM sqlite_schema WHERE name = 'one'"))
    )
    assert place.query("SELECT body FROM one") == [("kept",)]
    assert gateway.names().count("migration.rewound") == 1


def test_what_was_refused_for_another_program_is_tried_again_by_a_save(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    path = place.folder.write("0104_one", ONE)
    gateway.wait_for("migration.hot_applied")
    edited = ONE.replace("body", "more TEXT, body")
    with closing(sqlite3.connect(place.database)) as browser:
        browser.execute("SELECT count(*) FROM one").fetchall()
        place.folder.write("0104_one", edited)
        refused = gateway.wait_for("migration.hot_refused")
        assert "Another program has" in refused["message"]
        assert refused["hint"] == "Close the program that has the database open, then save."
    assert place.query("SELECT count(*) FROM one") == [(0,)]
    path.write_text(edited)  # the same text: saved, as the hint says
    gateway.wait_for("migration.rewound")
    assert gateway.is_live()


def test_reloads_and_saves_at_once_end_in_the_last_text_with_every_row(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    place.folder.write("0104_one", ONE)
    gateway.wait_for("migration.hot_applied")
    place.write("INSERT INTO one (body) VALUES ('kept')")
    reloads = []
    for number in range(6):
        place.folder.write("0104_one", ONE.replace("body", f"c{number} INT DEFAULT {number}, body"))
        reloads.append(
            subprocess.Popen(
                [*place.command, *place.options, "reload"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for process in reloads:
        _, said = process.communicate(timeout=60)
        # A reload in the middle may find an edit that the watcher has not taken up: it says so.
        assert process.returncode in (0, 8), said
        assert "Unexpected" not in said
    gateway.until(
        lambda: "c5" in str(place.query("SELECT sql FROM sqlite_schema WHERE name = 'one'"))
    )
    gateway.until(lambda: place.run("db", "status", "--json").json()["state"] == "current")
    assert place.query("SELECT c5, body FROM one") == [(5, "kept")]
    assert place.run("reload").code == 0


def test_after_a_kill_in_a_rewind_the_next_dev_start_goes_on(shipped: Place) -> None:
    with shipped.serve("--dev", env=QUIET) as gateway:
        gateway.wait_for("dev.watching")
        assert shipped.run("profile", "add", "kept").code == 0
        first = shipped.folder.path / "0000_initial.sql"
        edited = first.read_text().replace("description TEXT,", "description TEXT, colour TEXT,", 1)
        staged = shipped.database.with_name(f".{shipped.database.name}.tmp")
        shipped.folder.write("0000_initial", edited)
        poll(lambda: staged.exists() or "migration.rewound" in gateway.names())
        gateway.kill()
    with shipped.serve("--dev", env=QUIET) as gateway:
        gateway.wait_ready()
        assert shipped.query("SELECT name, colour FROM profiles") == [("kept", None)]
        assert not staged.exists()


def test_a_journal_that_changes_while_it_is_read_is_known_as_it_was_left(
    dev: tuple[Place, GatewayProcess],
) -> None:
    """Whatever was read in between, and whenever: what counts is how the folder is in the end."""
    place, gateway = dev
    journal = place.folder.journal_file
    texts = {"dev.recovered": journal.read_bytes(), "migration.hot_refused": b"<<<<<<< HEAD"}
    dice = random.Random(7)

    def told_last(event: str) -> bool:
        told = (name for name in reversed(gateway.names()) if name in texts)
        return next(told, "dev.recovered") == event

    for _ in range(12):
        for left in ("migration.hot_refused", "dev.recovered"):
            for name in (*dice.choices([*texts], k=dice.randrange(4)), left):
                journal.write_bytes(texts[name])
                time.sleep(dice.uniform(0, 0.06))  # anywhere in the look and the apply after a save
            gateway.until(partial(told_last, left), describe=lambda: gateway.lines[-5:])
    assert gateway.is_live()
