"""A signal in every phase of the guard, by a real process: afterwards the old database or the new one.

The phase is proven by the log: strace holds the process for a moment right after it has written the
line of one event (a delay on the n-th write to the pipe of the log), and the signal is sent in that
moment, so this event is the last of the log. Inside COMMIT it is strace that kills, at a write or a
flush of the write-ahead log.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness import GatewayProcess, Place, new_place

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("needs_strace")]

BEFORE_COMMIT = (
    "service.starting",
    "guard.locked",
    "guard.checked",
    "guard.resolved",
    "backup.created",
    "migration.rehearsed",
    "guard.verified",
)
AFTER_COMMIT = ("migration.applied", "guard.ready", "gateway.listening", "service.ready")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A database with rows and three pending migrations, and what a start makes of it."""

    place: Place
    old: str
    new: str
    events: list[str]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    place = new_place(tmp_path_factory.mktemp("prepared"), shipped=True)
    place.folder.add(
        "people",
        "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL)",
        "CREATE TABLE pets (id INTEGER PRIMARY KEY, owner INTEGER NOT NULL"
        " REFERENCES people (id) ON DELETE CASCADE, name TEXT NOT NULL)",
    )
    place.migrate()
    place.write(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
        " INSERT INTO people SELECT i, 'person ' || i FROM n"
    )
    place.write("INSERT INTO pets SELECT id, id, 'pet of ' || name FROM people")
    place.folder.add(
        "mail", "ALTER TABLE people ADD COLUMN mail TEXT", "UPDATE people SET mail = name || '@x'"
    )
    place.folder.add(
        "rebuild",
        "CREATE TABLE people_new (id INTEGER PRIMARY KEY, name TEXT NOT NULL CHECK (name <> ''), mail TEXT)",
        "INSERT INTO people_new SELECT id, name, mail FROM people",
        "DROP TABLE people",
        "ALTER TABLE people_new RENAME TO people",
    )
    place.folder.add("index", "CREATE INDEX pets_owner ON pets (owner)")
    old = place.content()
    undisturbed = place.copy(tmp_path_factory.mktemp("undisturbed"))
    with undisturbed.serve() as gateway:
        gateway.wait_ready()
        events = gateway.names()
        assert gateway.stop() == 0
    new = undisturbed.content()
    assert old != new
    return Prepared(place, old, new, events)


@contextmanager
def held_after(
    place: Place, event: str, events: list[str], *, delay_s: float
) -> Iterator[GatewayProcess]:
    """Start a gateway that pauses for `delay_s` after it has logged the first `event`."""
    # strace counts for each thread by itself: the guard's lines come from its worker thread. So the
    # n-th line of the other thread is held, too, which costs time and changes nothing.
    guards = ("guard.", "backup.", "migration.")
    same_thread = [name for name in events if name.startswith(guards) is event.startswith(guards)]
    when = same_thread.index(event) + 1
    prefix = (
        *("strace", "-D", "-f", "-qq", "-o", "/dev/null", "-P", str(place.log_pipe)),
        *("-e", "trace=write", "-e"),
        f"inject=write:delay_exit={int(delay_s * 1_000_000)}:when={when}",
    )
    with place.serve(prefix=prefix) as gateway:
        gateway.wait_for(event)
        yield gateway


def a_next_start_is_clean(place: Place, prepared: Prepared) -> None:
    """The lock is free, one start brings the new schema, and nothing is left over."""
    status = place.run("db", "status", "--json")
    assert status.json()["state"] in {"pending", "current"}
    assert status.json()["lock"]["held"] is False
    with place.serve() as gateway:
        gateway.wait_ready()
        assert gateway.stop() == 0
    assert place.content() == prepared.new
    for path in (place.database.parent / "backups").iterdir():
        assert path.suffix in {".db", ".json"}, path
        assert not path.name.startswith("."), path
    assert place.query("PRAGMA integrity_check") == [("ok",)]
    assert place.query("PRAGMA foreign_key_check") == []


@pytest.mark.parametrize("event", [*BEFORE_COMMIT, *AFTER_COMMIT])
def test_killed_after_an_event_the_next_start_finds_the_old_or_the_new_database(
    prepared: Prepared, tmp_path: Path, event: str
) -> None:
    place = prepared.place.copy(tmp_path)
    with held_after(place, event, prepared.events, delay_s=3) as gateway:
        gateway.signal(signal.SIGKILL)
        assert gateway.wait() == -signal.SIGKILL
    assert gateway.names()[-1] == event
    assert place.content() == (prepared.old if event in BEFORE_COMMIT else prepared.new)
    a_next_start_is_clean(place, prepared)


@pytest.mark.parametrize("event", [*BEFORE_COMMIT, *AFTER_COMMIT])
def test_asked_to_stop_after_an_event_it_rolls_back_and_exits_with_zero(
    prepared: Prepared, tmp_path: Path, event: str
) -> None:
    place = prepared.place.copy(tmp_path)
    with held_after(place, event, prepared.events, delay_s=1.5) as gateway:
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0, gateway.lines
    assert place.content() == (prepared.old if event in BEFORE_COMMIT else prepared.new)
    a_next_start_is_clean(place, prepared)


@pytest.mark.parametrize(
    ("syscall", "when"),
    [("pwrite64", 1), ("pwrite64", 3), ("pwrite64", 9), ("fdatasync", 1), ("fdatasync", 2)],
)
def test_killed_inside_commit_the_next_start_finds_the_old_or_the_new_database(
    prepared: Prepared, tmp_path: Path, syscall: str, when: int
) -> None:
    place = prepared.place.copy(tmp_path)
    log = place.database.with_name(place.database.name + "-wal")
    prefix = (
        *("strace", "-D", "-f", "-qq", "-o", "/dev/null", "-P", str(log)),
        *("-e", f"trace={syscall}", "-e", f"inject={syscall}:signal=KILL:when={when}"),
    )
    with place.serve(prefix=prefix) as gateway:
        assert gateway.wait() == -signal.SIGKILL
    assert "guard.verified" in gateway.names()
    assert "migration.applied" not in gateway.names()
    assert place.content() in {prepared.old, prepared.new}
    a_next_start_is_clean(place, prepared)
